"""The same work by torch (cuDNN) and CuPy, where they are installed with a GPU of their own to see."""

from __future__ import annotations

import contextlib
import statistics
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sigconv import race
from sigconv.geometry import Window
from sigconv.graph.ir import Graph, Node
from sigconv.kernels.cuda.jit import SIMULATED

WARM_UPS = 3
"""Runs before those that count."""


def versions() -> dict[str, str]:
    """Of the peers and what compiles our kernels."""
    names = ("torch", "cupy-cuda13x", "cupy-cuda12x", "cupy", "numba-cuda", "numba")
    return {n: v for n in names if (v := race.version(n))}


def _torch() -> Any:
    """torch with a GPU, or None."""
    if SIMULATED:
        return None
    try:
        import torch
    except ImportError:
        return None
    return torch if torch.cuda.is_available() else None


def _cupy() -> Any:
    """CuPy with a GPU, or None."""
    if SIMULATED:
        return None
    try:
        import cupy
    except ImportError:
        return None
    with contextlib.suppress(Exception):
        return cupy if cupy.cuda.runtime.getDeviceCount() else None
    return None


def _padded(node: Node, x: tuple[int, ...], kernel: tuple[int, ...]) -> Window:
    keys = ("strides", "pads", "dilations")
    given: dict[str, Any] = {k: node.attrs.get(k) for k in keys}
    return Window.of(x[2:], kernel, **given, auto_pad=node.attrs.get("auto_pad", "NOTSET"))


def _symmetric(window: Window) -> tuple[int, ...]:
    """torch's padding; it knows only the same on both sides."""
    if any(a.before != a.after for a in window.axes):
        raise ValueError("asymmetric padding")
    return tuple(a.before for a in window.axes)


def run_node(torch: Any, node: Node, inputs: list[Any]) -> Any:
    """One node of a classic net by torch's functions; ValueError for an operator that none of them has."""
    f, a = torch.nn.functional, node.attrs
    x = inputs[0]
    if node.op in ("Conv", "ConvTranspose"):
        rank = x.ndim - 2
        bias = inputs[2] if len(inputs) > 2 else None
        if node.op == "ConvTranspose":
            pads = a.get("pads") or [0] * 2 * rank
            if tuple(pads[:rank]) != tuple(pads[rank:]):
                raise ValueError("asymmetric padding")
            function = getattr(f, f"conv_transpose{rank}d")
            return function(x, inputs[1], bias, tuple(a.get("strides") or [1] * rank), tuple(pads[:rank]))
        window = _padded(node, tuple(x.shape), tuple(inputs[1].shape[2:]))
        function = getattr(f, f"conv{rank}d")
        return function(
            x, inputs[1], bias, window.strides, _symmetric(window), window.dilations, int(a.get("group", 1))
        )  # fmt: skip
    if node.op in ("MaxPool", "AveragePool"):
        window = _padded(node, tuple(x.shape), tuple(a["kernel_shape"]))
        function = getattr(f, f"{'max' if node.op == 'MaxPool' else 'avg'}_pool{x.ndim - 2}d")
        return function(x, window.kernel, window.strides, _symmetric(window))
    simple: dict[str, Callable[[], Any]] = {
        "Relu": lambda: torch.relu(x),
        "Sigmoid": lambda: torch.sigmoid(x),
        "Add": lambda: x + inputs[1],
        "Mul": lambda: x * inputs[1],
        "MatMul": lambda: x @ inputs[1],
        "Concat": lambda: torch.cat(inputs, int(a["axis"])),
        "Flatten": lambda: torch.flatten(x, int(a.get("axis", 1))),
        "Softmax": lambda: torch.softmax(x, int(a.get("axis", -1))),
        "GlobalAveragePool": lambda: x.mean(tuple(range(2, x.ndim)), keepdim=True),
        "BatchNormalization": lambda: f.batch_norm(
            x, inputs[3], inputs[4], inputs[1], inputs[2], eps=a.get("epsilon", 1e-5)
        ),
        "Gemm": lambda: _gemm(torch, a, *inputs),
    }
    if node.op not in simple:
        raise ValueError(f"{node.op} is not among torch's stand-ins")
    return simple[node.op]()


def _gemm(torch: Any, attrs: Mapping[str, Any], x: Any, w: Any, c: Any = None) -> Any:
    x = x.T if attrs.get("transA", 0) else x
    y = x @ (w.T if attrs.get("transB", 0) else w) * attrs.get("alpha", 1.0)
    return y if c is None else y + c * attrs.get("beta", 1.0)


def runner(torch: Any, graph: Graph, feeds: Mapping[str, np.ndarray], where: str = "cuda") -> Callable[[], Any]:
    """A call that runs the graph by torch on arrays that lie on the device; all outputs by name."""
    values = {k: torch.from_numpy(np.array(v)).to(where) for k, v in {**graph.constants, **feeds}.items()}

    def run() -> dict[str, Any]:
        found = dict(values)
        with torch.no_grad():
            for node in graph.nodes:
                found[node.outputs[0]] = run_node(torch, node, [found[i] for i in node.inputs if i])
        return {v.name: found[v.name] for v in graph.outputs}

    return run


def median_ms(
    run: Callable[[], Any], repeat: int, event: Callable[[], Any], elapsed: Callable[[Any, Any], float], *stream: Any
) -> float:
    """Milliseconds of the median run after warming up: how ours and every peer is timed.

    ``event`` makes a library's CUDA event, ``elapsed`` gives the milliseconds between two of them; they are recorded
    on ``stream``, or on the library's current one.
    """
    times = []
    for _ in range(WARM_UPS + repeat):
        begin, end = event(), event()
        begin.record(*stream)
        run()
        end.record(*stream)
        end.synchronize()
        times.append(elapsed(begin, end))
    return statistics.median(times[WARM_UPS:])


def _torch_ms(torch: Any, run: Callable[[], Any], repeat: int) -> float:
    return median_ms(run, repeat, lambda: torch.cuda.Event(enable_timing=True), lambda a, b: a.elapsed_time(b))


def failure(error: BaseException) -> str:
    """An error in one line, with the place that raised it."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {' '.join(str(error).split())[:300]}"


def torch_times(graph: Graph, feeds: Mapping[str, np.ndarray], repeat: int) -> dict[str, Any]:
    """torch's milliseconds with TF32 off and on, or why there are none."""
    torch = _torch()
    if torch is None:
        return {}
    result: dict[str, Any] = {}
    try:
        run = runner(torch, graph, feeds)
        torch.backends.cudnn.benchmark = True
        for key, tf32 in (("torch_ms", False), ("torch_tf32_ms", True)):
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
            result[key] = _torch_ms(torch, run, repeat)
    except Exception as error:
        result["torch_error"] = failure(error)
    return result


def signal_times(x: np.ndarray, w: np.ndarray, rank: int, repeat: int) -> dict[str, Any]:
    """CuPy's and torch's milliseconds for a direct convolution of the last ``rank`` axes in 'same' mode."""
    return {**_cupy_signal(x, w, repeat), **_torch_signal(x, w, rank, repeat)}


def _torch_signal(x: np.ndarray, w: np.ndarray, rank: int, repeat: int) -> dict[str, Any]:
    torch = _torch()
    if torch is None:
        return {}
    flipped = np.flip(w.reshape(1, 1, *w.shape[w.ndim - rank :]), tuple(range(-rank, 0)))
    a = torch.from_numpy(x.reshape(-1, 1, *x.shape[x.ndim - rank :])).cuda()
    b = torch.from_numpy(np.ascontiguousarray(flipped)).cuda()
    function = getattr(torch.nn.functional, f"conv{rank}d")
    torch.backends.cudnn.allow_tf32 = False
    try:
        padding = tuple(n // 2 for n in b.shape[2:])
        return {"torch_ms": _torch_ms(torch, lambda: function(a, b, padding=padding), repeat)}
    except Exception as error:
        return {"torch_error": failure(error)}


def _cupy_signal(x: np.ndarray, w: np.ndarray, repeat: int) -> dict[str, Any]:
    cupy = _cupy()
    if cupy is None:
        return {}
    try:
        from cupyx.scipy import signal

        a, b = cupy.asarray(x), cupy.asarray(w)
        if x.ndim == 2 and w.shape[0] > 1:
            run = lambda: signal.convolve2d(a, b, "same")  # noqa: E731
        else:
            run = lambda: signal.convolve(a, b, "same", "direct")  # noqa: E731
        return {"cupy_ms": median_ms(run, repeat, cupy.cuda.Event, cupy.cuda.get_elapsed_time)}
    except Exception as error:
        return {"cupy_error": failure(error)}
