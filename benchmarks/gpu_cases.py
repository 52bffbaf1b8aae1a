"""What benchmarks.gpu checks and times: layers, nets and signals, each in real and in tiny sizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import onnx

import sigconv as sc
from sigconv import config
from sigconv.graph.ir import Graph, Node, Value
from sigconv.graph.passes import simplify
from sigconv.kernels.cuda.cast import PAIRS

Made = tuple[Graph, dict[str, np.ndarray]]


def threads() -> int:
    """Of the CPU that checks."""
    return int(config.get("threads"))


@dataclass(frozen=True)
class Case:
    """A graph and its feeds, made from random numbers."""

    name: str
    make: Callable[[np.random.Generator], Made]


def _normal(
    rng: np.random.Generator, shape: Sequence[int], dtype: str = "float32", positive: bool = False
) -> np.ndarray:
    """Random numbers; whole ones between -100 and 100."""
    x = rng.standard_normal(shape, np.float32)
    x = x if np.dtype(dtype).kind == "f" else np.clip(20 * x, -100, 100)
    return (np.abs(x) + np.float32(0.5) if positive else x).astype(dtype)


def _node(
    op: str, x: Sequence[int], *others: Sequence[int] | np.ndarray, name: str = "", positive: bool = False,
    dtype: str = "float32", outputs: Sequence[str] = ("y",), fed: bool = False, **attrs: Any,
) -> Case:  # fmt: skip
    """One node on x with further operands, by default constants: arrays, or shapes of random weights.

    Weights are scaled so that outputs stay near 1. ``fed``: the run is given the operands.
    """

    def weights(rng: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
        scale = 1 if positive else max(1.0, math.prod(shape[1:])) ** 0.5
        return (_normal(rng, shape, positive=positive) / np.float32(scale)).astype(dtype)

    def make(rng: np.random.Generator) -> Made:
        operands = {f"w{i}": o if isinstance(o, np.ndarray) else weights(rng, o) for i, o in enumerate(others)}
        feeds = {"x": _normal(rng, x, dtype, positive), **(operands if fed else {})}
        graph = Graph(
            (Node(op, ("x", *operands), tuple(outputs), attrs, op),),
            tuple(Value(k, a.dtype, a.shape) for k, a in feeds.items()), tuple(map(Value, outputs)),
            {} if fed else operands,
        )  # fmt: skip
        return graph, feeds

    return Case(name or f"{op} {'x'.join(map(str, x))} {dtype}", make)


def _indexed(op: str, x: Sequence[int], *integers: Sequence[int], **options: Any) -> Case:
    """One node on x whose further inputs are these integers."""
    return _node(op, x, *(np.array(v, np.int64) for v in integers), **options)


def _conv(
    batch: int, c: int, m: int, size: int, kernel: int = 3, stride: int = 1, groups: int = 1, dtype: str = "float32"
) -> Case:
    """A convolution with bias, padded so that stride 1 keeps the size."""
    pad = kernel // 2
    kind = "depthwise" if groups == c > 1 else f"{kernel}x{kernel}"
    return _node(
        "Conv", (batch, c, size, size), (m, c // groups, kernel, kernel), (m,), pads=[pad] * 4,
        strides=[stride] * 2, group=groups, dtype=dtype,
        name=f"conv {kind}{f'/{stride}' if stride > 1 else ''} {c}->{m} {size}^2 N={batch}"
        + (f" {dtype}" if dtype != "float32" else ""),
    )  # fmt: skip


def net_case(net: str, shape: tuple[int, ...]) -> Case:
    """A classic net at an input shape."""

    def make(rng: np.random.Generator) -> Made:
        model = NETS[net]()
        graph = simplify(model.graph)
        return graph, {model.inputs[0].name: _normal(rng, shape)}

    return Case(f"{net} {'x'.join(map(str, shape))}", make)


NETS: dict[str, Callable[[], Any]] = {
    "lenet5": sc.models.lenet5,
    "alexnet": sc.models.alexnet,
    "vgg16": partial(sc.models.vgg, 16),
    "resnet18": partial(sc.models.resnet, 18),
    "resnet50": partial(sc.models.resnet, 50),
    "unet": sc.models.unet,
    "unet-tiny": partial(sc.models.unet, inputs=1, base=2, levels=1),
}


@dataclass(frozen=True)
class Signal:
    """A convolution in 'same' mode; batches in front of the one or two convolved axes."""

    x: tuple[int, ...]
    w: tuple[int, ...]
    dtype: str = "float32"

    @property
    def name(self) -> str:
        return f"convolve {'x'.join(map(str, self.x))} * {'x'.join(map(str, self.w))} {self.dtype}"

    @property
    def flops(self) -> float:
        return 2.0 * math.prod(self.x) * math.prod(self.w)

    def small(self) -> Signal:
        """A size that the CPU can check in a moment."""
        most = 1 << 16 if len(self.w) == 1 else 512
        return replace(self, x=tuple(min(n, most) for n in self.x))

    def make(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        lead = len(self.x) - len(self.w)
        return _normal(rng, self.x, self.dtype), _normal(rng, (1,) * lead + self.w, self.dtype)

    def ours(self, x: Any, w: Any, where: str | None, method: str = "direct") -> Any:
        axes = tuple(range(-len(self.w), 0))
        return sc.convolve(x, w, "same", method, axes=axes, device=where)


@dataclass(frozen=True)
class Sizes:
    """What one run of the command does."""

    checks: tuple[Case, ...]
    check_nets: tuple[tuple[str, tuple[int, ...]], ...]
    layers: tuple[Case, ...]
    nets: tuple[tuple[str, tuple[int, ...]], ...]
    signals: tuple[Signal, ...]


def _kernels(n: int, c: int, s: int, dtype: str = "float32") -> tuple[Case, ...]:
    """Every kernel of a float type once or more, at batch n, c channels and s x s pixels."""
    node, indexed, conv = (partial(f, dtype=dtype) for f in (_node, _indexed, _conv))
    return (
        conv(n, c, 2 * c, s), conv(n, c, c, s, 1), conv(n, 3, c, s, 7, 2), conv(n, c, c, s, 3, 2),
        conv(n, c, c, s, 3, 1, c), conv(n, c, 2 * c, s, 3, 1, 2),
        node("Conv", (n, c, s * s), (c, c, 9), pads=[4, 4], name=f"conv 1-D {c}->{c} {s * s} N={n} {dtype}"),
        node("Conv", (n, c, 5, s // 2, s // 2), (c, c, 3, 3, 3), pads=[1] * 6, name=f"conv 3-D {c}->{c} N={n} {dtype}"),
        node("ConvTranspose", (n, c, s, s), (c, c, 2, 2), strides=[2, 2]),
        node("ConvTranspose", (n, c, s // 2, s // 2), (c, c, 3, 3), strides=[2, 2], pads=[1] * 4),
        node("MatMul", (n, 4, s, c), (c, s)), node("Gemm", (4 * n, 8 * c), (4 * c, 8 * c), (4 * c,), transB=1),
        node("Gemm", (1, 8 * c), (8 * c, 4 * c)),
        node("MaxPool", (n, c, s, s), kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
        node("MaxPool", (n, c, s, s), kernel_shape=[2, 3], outputs=("y", "index"), name=f"MaxPool, places {dtype}"),
        node("AveragePool", (n, c, s, s), kernel_shape=[3, 3], pads=[1] * 4),
        node("GlobalAveragePool", (n, c, s, s)), node("GlobalMaxPool", (n, c, s, s)),
        indexed("ReduceSum", (n, c, s, s), [1]), indexed("ReduceLogSumExp", (n, c, s, s), [2, 3]),
        node("Softmax", (n * c, s), axis=-1), node("Softmax", (n, c, s, s), axis=1),
        node("LayerNormalization", (n, s, c), (c,), (c,), axis=-1),
        node("InstanceNormalization", (n, c, s, s), (c,), (c,)),
        node("BatchNormalization", (n, c, s, s), (c,), (c,), (c,), (c,), positive=True, fed=True),
        node("Resize", (n, c, s, s), np.zeros(0, np.float32), np.array([1, 1, 2, 1.5], np.float32), mode="linear"),
        indexed("ReduceMean", (3, 70), [1]),
        node("Sigmoid", (n, c, s, s)), node("Gelu", (n, c, s, s)), node("Mul", (n, c, s, s), (c, 1, 1)),
        node("Transpose", (n, c, s, s), perm=[0, 2, 3, 1]), indexed("Pad", (n, c, s, s), [0, 0, 1, 2, 0, 0, 3, 1]),
        indexed("Gather", (n, c, s, s), [c - 1, 0, 1], axis=1),
        indexed("Slice", (n, c, s, s), [1, 0], [s - 1, s], [2, 3], [2, 1]),
    )  # fmt: skip


def _types() -> tuple[Case, ...]:
    """What depends on types more than on sizes: casts, movement of elements of every size, whole numbers, float16."""
    codes = {name: int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(name))) for pair in PAIRS for name in pair}
    casts = [
        _node("Cast", (3, 40), dtype=source, positive=True, to=codes[target], name=f"Cast {source} to {target}")
        for source, target in PAIRS
    ]
    moves = [
        case
        for dtype in ("int8", "int16")
        for case in (
            _node("Transpose", (3, 4, 5), dtype=dtype, perm=[2, 0, 1]),
            _indexed("Pad", (3, 5), [1, 0, 2, 1], dtype=dtype, mode="reflect"),
        )
    ]
    takes = [
        _node("Gather", (4, 5, 3), np.array([[3, -4], [0, 1]], index), dtype=dtype, fed=True, axis=1,
              name=f"Gather {dtype} at {index.__name__}")
        for dtype in ("float32", "float64") for index in (np.int32, np.int64)
    ]  # fmt: skip
    return (
        *casts, *moves, *takes, _node("Mod", (3, 40), np.array([7]), dtype="int64"),
        _conv(1, 4, 8, 6, dtype="float16"), _node("ConvTranspose", (1, 2, 3, 3), (2, 2, 2, 2), dtype="float16"),
    )  # fmt: skip


def _resnet_layers(n: int) -> tuple[Case, ...]:
    """The distinct convolutions of VGG-16 and ResNet-50, and a depthwise one."""
    vgg = tuple(_conv(n, c, m, s) for c, m, s in ((64, 64, 224), (128, 128, 112), (256, 256, 56), (512, 512, 28)))
    resnet = (
        _conv(n, 3, 64, 224, 7, 2), _conv(n, 64, 64, 56), _conv(n, 128, 128, 28), _conv(n, 256, 256, 14),
        _conv(n, 512, 512, 7), _conv(n, 64, 256, 56, 1), _conv(n, 256, 64, 56, 1), _conv(n, 512, 2048, 7, 1),
        _conv(n, 96, 96, 56, 3, 1, 96),
    )  # fmt: skip
    return (*vgg, *resnet)


_CLASSIC = ("alexnet", "vgg16", "resnet18", "resnet50")

REAL = Sizes(
    checks=(*_kernels(2, 64, 56), *_kernels(1, 8, 20, "float64"), *_types()),
    check_nets=(("lenet5", (2, 1, 32, 32)), *((n, (1, 3, 224, 224)) for n in _CLASSIC), ("unet", (1, 3, 128, 128))),
    layers=(*_resnet_layers(32), *_resnet_layers(1)[4:]),
    nets=(
        *((n, (b, 3, 224, 224)) for b in (32, 1, 128) for n in ("vgg16", "resnet50", "resnet18", "alexnet")),
        *(("lenet5", (b, 1, 32, 32)) for b in (1, 32, 128)),
        ("unet", (1, 3, 256, 256)),
        ("unet", (32, 3, 256, 256)),
    ),
    signals=(
        Signal((1 << 20,), (31,)),
        Signal((1 << 20,), (127,)),
        Signal((1 << 22,), (1023,)),
        Signal((256, 16384), (63,)),
        Signal((2048, 2048), (3, 3)),
        Signal((2048, 2048), (7, 7)),
        Signal((4096, 4096), (31, 31)),
        Signal((64, 512, 512), (9, 9)),
    ),
)

TINY = Sizes(
    checks=(*_kernels(1, 2, 6), *_kernels(1, 2, 4, "float64"), *_types()),
    check_nets=(("unet-tiny", (1, 1, 4, 6)),),
    layers=(_conv(1, 3, 4, 6), _conv(1, 4, 4, 5, 3, 1, 4)),
    nets=(("unet-tiny", (1, 1, 4, 4)),),
    signals=(Signal((50,), (7,)), Signal((2, 20), (5,)), Signal((9, 8), (3, 2))),
)


DOUBLE = (Signal((300,), (7,), "float64"), Signal((40, 30), (3, 5), "float64"))
"""Checked besides the signals that are timed."""


@dataclass(frozen=True)
class Roof:
    """What a device can do: float32 operations and bytes a second."""

    flops: float
    bandwidth: float

    def ms(self, flops: float, nbytes: float) -> float:
        """The least time for so much work."""
        return max(flops / self.flops, nbytes / self.bandwidth) * 1e3


DATA_SHEETS = {"H200": Roof(6.7e13, 4.8e12), "H100": Roof(6.7e13, 3.35e12), "A100": Roof(1.95e13, 2.0e12)}
"""Without tensor cores, SXM versions; source: NVIDIA's data sheets."""


def roof() -> Roof:
    """Of the current device, an H200's where it is not in the table."""
    from sigconv.runtime import device

    name = device.describe().get("device", "")
    return next((r for key, r in DATA_SHEETS.items() if key in name), DATA_SHEETS["H200"])
