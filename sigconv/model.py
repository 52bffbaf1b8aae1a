"""The face of the CNN half: load a model, run it, look inside."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sigconv import config
from sigconv.errors import InputError, ModelError, unknown_names
from sigconv.graph.ir import Graph, Value
from sigconv.graph.passes import simplify
from sigconv.planner.select import TOLERANCE
from sigconv.programs import Compiled, Programs, program_of, session_of
from sigconv.runtime.kinds import device_of, is_device_array
from sigconv.runtime.program import Program, Row
from sigconv.runtime.session import Session, as_array, check_mapping

if TYPE_CHECKING:
    from sigconv.export.check import Report
    from sigconv.inspect.summary import Summary
    from sigconv.runtime.cuda import CudaSession


def load(source: str | os.PathLike[str] | bytes | Any) -> Model:
    """Load an ONNX model.

    Parameters
    ----------
    source : path, bytes or onnx.ModelProto

    Raises
    ------
    ModelError
        The file is malformed: the message names the file, node or tensor.
    UnsupportedError
        Operators are missing: all of them are listed, with node names.
    """
    from sigconv.export.reader import read

    return Model(read(source), source=source)


class Model:
    """A network that runs at any input shapes its graph allows; a program a shape, made on first use and kept.

    Attributes
    ----------
    graph : Graph
        The network as plain ONNX in its newest form.
    source : object
        What the model was loaded from, None if it was built.
    inputs, outputs : tuple of Value
        Names, dtypes and shapes (symbolic sizes are strings, unknown ones None).
    """

    def __init__(self, graph: Graph, threads: int | None = None, source: Any = None) -> None:
        self.graph = graph
        self.source = source
        self._threads = threads
        self._simple: Graph | None = None
        self._programs = Programs()
        self._device: str | None = None  # None: where the feeds lie
        self._fallback: str | None = None

    def __repr__(self) -> str:
        ends = (", ".join(f"{v.name} {_show(v.shape)}" for v in values) for values in (self.inputs, self.outputs))
        return f"<Model {self.graph.name!r}: {' -> '.join(ends)}, {len(self.graph.nodes)} nodes>"

    @property
    def inputs(self) -> tuple[Value, ...]:
        return self.graph.inputs

    @property
    def outputs(self) -> tuple[Value, ...]:
        return self.graph.outputs

    def __call__(self, *inputs: Any) -> Any:
        """The output (a tuple of them if there are several) for inputs in the graph's order."""
        if len(inputs) != len(self.inputs):
            names = ", ".join(v.name for v in self.inputs)
            raise InputError(f"got {len(inputs)} inputs, the model takes {names}")
        results = tuple(self.run({v.name: x for v, x in zip(self.inputs, inputs, strict=True)}).values())
        return results[0] if len(results) == 1 else results

    def run(
        self,
        feeds: Mapping[str, Any],
        outputs: Sequence[str] | None = None,
        *,
        device: str | None = None,
        fallback: str | None = None,
    ) -> dict[str, Any]:
        """Outputs by name (all, or those named in ``outputs``) for inputs by name.

        Parameters
        ----------
        feeds : mapping of name to array
            Arrays on a CUDA device (CuPy's, torch's, …) are used there, and the outputs are of their kind.
        device : {'cpu', 'cuda'}, optional
            Where to run; by default where the feeds lie. With NumPy arrays 'cuda' copies them once each way.
        fallback : 'cpu', optional
            Run nodes that have no CUDA kernel on the host.

        Raises
        ------
        InputError
            A feed is missing, is no input of the model, or has a shape or dtype that the model does not take.
        """
        check_mapping(feeds)
        wanted = [v.name for v in self.outputs] if outputs is None else list(outputs)
        unknown = [n for n in wanted if n not in {v.name for v in self.outputs}]
        if unknown:
            raise unknown_names("output", unknown, (v.name for v in self.outputs))
        extra = [n for n in feeds if n not in {v.name for v in self.inputs}]
        if extra:
            raise unknown_names("input", extra, (v.name for v in self.inputs))
        where = device_of(feeds.values(), device or self._device)
        arrays = {v.name: _array(v, feeds) for v in self.inputs}
        shapes = tuple(tuple(arrays[v.name].shape) for v in self.inputs)
        results = self._get(shapes, where, fallback or self._fallback).run(arrays)
        return {name: results[name] for name in wanted}

    def _get(self, shapes: tuple[tuple[int, ...], ...], device: str, fallback: str | None) -> Compiled:
        named = {v.name: s for v, s in zip(self.inputs, shapes, strict=True)}
        key = (shapes, device, fallback)
        return self._programs.get(key, lambda: self._program(named, self._threads, None, device, fallback))

    def _program(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        threads: int | None,
        tolerance: float | None = None,
        device: str = "cpu",
        fallback: str | None = None,
    ) -> Program:
        if threads is not None and threads < 1:
            raise InputError(f"threads is {threads}; 1 or more is accepted, None for what the process may use")
        if tolerance is not None and not tolerance >= 0:
            raise InputError(f"tolerance is {tolerance}; 0 or more is accepted, None for {TOLERANCE:g}")
        if self._simple is None:
            self._simple = simplify(self.graph)
        allowed = TOLERANCE if tolerance is None else tolerance
        if fallback not in (None, "cpu"):
            raise InputError(f"fallback is {fallback!r}; accepted are 'cpu' and None, an error where a kernel lacks")
        try:
            return program_of(
                self._simple,
                shapes,
                threads or config.get("threads"),
                allowed,
                device=device,
                fallback=fallback,
                pool=self._programs.pool,
            )
        except MemoryError as e:
            raise ModelError(f"the model at these shapes takes more memory than there is: {e}") from e

    def compile(
        self,
        shapes: Mapping[str, Sequence[int]] | None = None,
        *,
        threads: int | None = None,
        device: str = "cpu",
        fallback: str | None = None,
        tolerance: float | None = None,
        stream: Any = None,
    ) -> Session | CudaSession:
        """A session for fixed input shapes.

        Parameters
        ----------
        shapes : mapping of input name to shape, optional
            Inputs left out have the graph's own shape, which then must be fixed.
        threads : int, optional
            Most threads to use; by default what the process may use.
        device : {'cpu', 'cuda'}
            What runs it. On a CUDA device weights and values stay there, and a run is launches on one stream.
        fallback : 'cpu', optional
            Run nodes that have no CUDA kernel on the host, with a copy each way; without it they are an
            UnsupportedError that lists them.
        tolerance : float, optional
            Most error beyond rounding that an algorithm may have, as a share of the output's scale; 1e-4 by default,
            which admits Winograd, and sums of two bfloat16 on the matrix tiles of a CPU (AMX). 0 admits only algorithms
            that round as the plain sum does. 5e-2 admits bfloat16, on tiles and on CUDA devices; there 5e-3 admits
            tensor cores in TF32, and in float16 for models of that type.
        stream : optional
            With ``device='cuda'``: the stream of Numba, CuPy or torch, or its handle, on which everything is queued; by
            default a new one.
        """
        given = dict(shapes or {})
        extra = set(given) - {v.name for v in self.inputs}
        if extra:
            raise unknown_names("input", extra, (v.name for v in self.inputs))
        full: dict[str, tuple[int, ...]] = {}
        for v in self.inputs:
            shape = tuple(given[v.name]) if v.name in given else v.shape
            if shape is None or not all(isinstance(d, (int, np.integer)) for d in shape):
                raise InputError(
                    f"input {v.name!r} has no fixed shape ({_show(v.shape)}): name one, compile({{{v.name!r}: (…)}})"
                )
            full[v.name] = tuple(int(d) for d in shape)  # type: ignore[arg-type]
            _check_shape(v, full[v.name])
        where = device_of((), device)
        return session_of(
            self._program(full, self._threads if threads is None else threads, tolerance, where, fallback), stream
        )

    def values(self, feeds: Mapping[str, Any], names: Collection[str] | None = None) -> dict[str, np.ndarray]:
        """Every value of the graph, or those of the ``names``, as the engine computes it, nothing fused across them."""
        arrays = {v.name: _array(v, feeds) for v in self.inputs}
        known = {v.name for v in self.inputs} | set(self.graph.constants)
        ends = {v.name: v for v in self.outputs}
        made = (o for node in self.graph.nodes for o in node.outputs if o and o not in known)
        everything = [ends.get(o, Value(o)) for o in made if names is None or o in names]
        shapes = {k: a.shape for k, a in arrays.items()}
        program = program_of(self.graph.replace(outputs=tuple(everything)), shapes, self._threads or 1, TOLERANCE)
        return Session(program).run(arrays)

    def check(
        self, feeds: Mapping[str, Any] | None = None, *, float64: bool = False, keep_nbytes: int | None = None
    ) -> Report:
        """Compare every node's output with onnxruntime's; see `sigconv.export.check`."""
        from sigconv.export.check import KEEP_NBYTES, check

        return check(self, feeds, float64=float64, keep_nbytes=KEEP_NBYTES if keep_nbytes is None else keep_nbytes)

    def save(
        self, path: str | os.PathLike[str], opset: int | None = None, *, external_data: bool | None = None
    ) -> None:
        """Write the network as an ONNX file; reading it back gives the same graph.

        Parameters
        ----------
        opset : int, optional
            13 to the newest; by default 17, or the first after it that has every node's form as it is.
        external_data : bool, optional
            Constants into a file beside it, named ``path`` + ``.data``; by default where they exceed 2 GB.

        Raises
        ------
        UnsupportedError
            A node cannot be expressed in the opset: each is named, with the lowest opset that would do.
        """
        from sigconv.export.writer import write

        write(self.graph, path, opset, external_data=external_data)

    def summary(self, shapes: Mapping[str, Sequence[int]] | None = None) -> Summary:
        """Every node's shape, parameters, multiply-accumulates, receptive field and memory, and the sums; prints well.

        ``shapes`` stands in for input shapes that the graph leaves open.
        """
        from sigconv.inspect.summary import summarize

        return summarize(self.graph, shapes)

    def to_html(
        self,
        path: str | os.PathLike[str] | None = None,
        shapes: Mapping[str, Sequence[int]] | None = None,
        *,
        profile: bool | Mapping[str, np.ndarray] = False,
        threads: int | None = None,
    ) -> str:
        """The graph as one HTML page that needs no network; written to ``path`` where given.

        Each node shows its output's shape and, where the input shapes are fixed or given as ``shapes``, the algorithm
        that runs it and why. ``profile`` adds the time of each: on these feeds by input name, or True: on zeros.
        """
        from sigconv.inspect.html import page

        feeds = profile if isinstance(profile, Mapping) else {}
        given = {**(shapes or {}), **{k: np.shape(v) for k, v in feeds.items()}}
        fixed = all(v.name in given or all(isinstance(d, int) for d in v.shape or (None,)) for v in self.inputs)
        if profile and not fixed:
            raise InputError("a profile needs fixed input shapes: give shapes, or feeds as profile")
        rows: tuple[Row, ...] = ()
        seconds: list[float] | None = None
        if fixed:
            session = self.compile(given, threads=threads)
            rows = session.program.rows
            if profile:
                zeros = {p.name: np.zeros(p.shape or (), p.dtype) for p in session.program.inputs}
                seconds = [t.seconds for t in session.profile({**zeros, **feeds}).rows]
        text = page(self.graph, self.summary(given), rows, seconds)
        if path is not None:
            Path(path).write_text(text, "utf-8")
        return text


def _show(shape: Sequence[Any] | None) -> str:
    return "any rank" if shape is None else "[" + ", ".join("?" if d is None else str(d) for d in shape) + "]"


def _check_shape(value: Value, shape: tuple[int, ...]) -> None:
    """The shape against the graph's own."""
    if any(d < 0 for d in shape):
        raise InputError(f"input {value.name!r}: a size of shape {shape} is negative")
    own = value.shape
    if own is not None and (
        len(own) != len(shape) or any(isinstance(d, int) and d != s for d, s in zip(own, shape, strict=True))
    ):
        raise InputError(f"input {value.name!r} has shape {shape}, the model takes {_show(own)}")


def _array(value: Value, feeds: Mapping[str, Any]) -> Any:
    """A feed as an array of the right rank, sizes and dtype; the session checks what lies on a device."""
    if is_device_array(feeds.get(value.name)):
        return feeds[value.name]
    array = as_array(value.name, feeds.get(value.name), value.dtype, _show(value.shape))
    _check_shape(value, array.shape)
    return array


class SessionOptions:
    """onnxruntime's options that mean something here; the others are accepted and kept."""

    def __init__(self) -> None:
        self.intra_op_num_threads = 0
        self.inter_op_num_threads = 0
        self.graph_optimization_level: Any = None
        self.execution_mode: Any = None
        self.log_severity_level = 2
        self.enable_profiling = False


PROVIDERS = {"CUDAExecutionProvider": "cuda", "CPUExecutionProvider": "cpu"}
"""Our devices by onnxruntime's names."""


def _usable_providers(names: list[str]) -> list[str]:
    """The providers, without a GPU that is not there if the CPU is named after it; otherwise that is a DeviceError."""
    if names[0] != "CUDAExecutionProvider":
        return ["CPUExecutionProvider"]
    from sigconv.runtime import device

    why = device.problem()
    if why is not None and "CPUExecutionProvider" in names:
        warnings.warn(f"CUDAExecutionProvider is left out: {why}", RuntimeWarning, stacklevel=3)
        return ["CPUExecutionProvider"]
    device.require()
    return names


_ONNX_NAMES = {"float32": "float", "float64": "double"}


class NodeArg:
    """A model's input or output as onnxruntime describes it."""

    def __init__(self, value: Value) -> None:
        self.name = value.name
        self.shape: list[Any] | None = None if value.shape is None else list(value.shape)
        kind = "unknown" if value.dtype is None else _ONNX_NAMES.get(value.dtype.name, value.dtype.name)
        self.type = f"tensor({kind})"

    def __repr__(self) -> str:
        return f"NodeArg(name={self.name!r}, type={self.type!r}, shape={self.shape})"


class InferenceSession:
    """Drop-in for ``onnxruntime.InferenceSession``: same constructor, ``run``, ``get_inputs``, ``get_outputs``.

    Parameters
    ----------
    path_or_bytes : path, bytes or onnx.ModelProto
    sess_options : SessionOptions (sigconv's or onnxruntime's), optional
        ``intra_op_num_threads`` is honoured.
    providers : sequence of str or (str, dict), optional
        ``'CUDAExecutionProvider'`` first runs on the GPU; with ``'CPUExecutionProvider'`` after it, nodes without a
        CUDA kernel run on the host, and where there is no GPU everything does, with a warning. By default the CPU.
    """

    def __init__(
        self,
        path_or_bytes: Any,
        sess_options: Any = None,
        providers: Sequence[Any] | None = None,
        provider_options: Any = None,
        **_: Any,
    ) -> None:
        names = [p if isinstance(p, str) else p[0] for p in providers or ["CPUExecutionProvider"]]
        known = [n for n in names if n in PROVIDERS]
        if not known:
            raise InputError(f"none of the providers {names} is available (available: {', '.join(PROVIDERS)})")
        self._providers = _usable_providers(known)
        self._model = load(path_or_bytes)
        self._model._device = PROVIDERS[self._providers[0]]
        self._model._fallback = "cpu" if "CPUExecutionProvider" in self._providers else None
        self._model._threads = int(getattr(sess_options, "intra_op_num_threads", 0) or 0) or None

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any], run_options: Any = None
    ) -> list[np.ndarray]:
        """The outputs in the order of ``output_names`` (None or empty: all, in the graph's order)."""
        names = output_names or [v.name for v in self._model.outputs]
        results = self._model.run(input_feed, names)
        return [results[name] for name in names]

    def get_inputs(self) -> list[NodeArg]:
        return [NodeArg(v) for v in self._model.inputs]

    def get_outputs(self) -> list[NodeArg]:
        return [NodeArg(v) for v in self._model.outputs]

    def get_providers(self) -> list[str]:
        return self._providers
