"""One-node cases of the computing operators, with random inputs: data for every engine that runs them.

The attribute sets are small and odd on purpose. Imports nothing of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.cases.onnx_nodes import NEWEST_OPSET

MS = "com.microsoft"
F16, F32, F64 = (np.dtype(t) for t in ("f2", "f4", "f8"))
I8, U8, I16, I32, I64, U16, U32, U64 = (np.dtype(t) for t in ("i1", "u1", "i2", "i4", "i8", "u2", "u4", "u8"))
NAN, INF = np.nan, np.inf


@dataclass
class Case:
    """One node.

    ``constant`` numbers the inputs that are weights; ``steps`` is how far an integer result may be off; ``opset`` is
    the newest that onnxruntime has the op in.
    """

    op: str
    inputs: Sequence[np.ndarray | None]
    attrs: dict[str, Any] = field(default_factory=dict)
    n_outputs: int = 1
    domain: str = ""
    constant: tuple[int, ...] = ()
    steps: int = 0
    opset: int = NEWEST_OPSET

    def __str__(self) -> str:
        shapes = "_".join("-" if x is None else f"{x.dtype}{list(x.shape)}".replace(" ", "") for x in self.inputs)
        attrs = ",".join(f"{k}={v}" for k, v in self.attrs.items()).replace(" ", "")
        return f"{self.op}-{shapes}-{attrs}-{self.n_outputs}"


rng = np.random.default_rng(20)


def normal(*shape: int, dtype: Any = F32, scale: float = 1.0) -> np.ndarray:
    return np.asarray(rng.standard_normal(shape) * scale).astype(dtype)


def integers(*shape: int, dtype: Any = I32, low: int = -9, high: int = 10) -> np.ndarray:
    low = max(low, 0) if np.dtype(dtype).kind == "u" else low
    return np.asarray(rng.integers(low, high, shape)).astype(dtype)


def bits(*shape: int) -> np.ndarray:
    return np.asarray(rng.integers(0, 2, shape)).astype(bool)


def codes(*shape: int, dtype: Any = U8) -> np.ndarray:
    info = np.iinfo(dtype)
    return np.asarray(rng.integers(info.min, info.max, shape, np.dtype(dtype), endpoint=True))


def of(value: Any, dtype: Any = F32) -> np.ndarray:
    return np.array(value, dtype)


SPECIAL = of([NAN, INF, -INF, 0.0, -0.0, 1e-38, 3e38, -3e38, 1, -1, 0.5, -0.5, 2.5, 1.5, 100, -100, 7.3])


def unary_cases() -> Iterator[Case]:
    plain = (
        "Abs Neg Sign Floor Ceil Round Sqrt Reciprocal Exp Log Sin Cos Tan Asin Acos Atan Sinh Cosh Asinh Acosh Atanh"
    )
    activations = "Relu LeakyRelu Sigmoid Tanh HardSigmoid HardSwish Mish Softplus Softsign Erf Gelu Elu Celu Selu"
    others = "ThresholdedRelu Shrink IsNaN IsInf Softmax LogSoftmax Hardmax"
    for op in f"{plain} {activations} {others}".split():
        yield Case(op, [normal(3, 5, scale=2)])
        yield Case(op, [np.abs(normal(7)) + 1])
        if op not in ("Mish", "HardSwish", "Softmax", "LogSoftmax", "Hardmax", "Sinh", "Cosh", "Asinh", "Softsign"):
            yield Case(op, [SPECIAL])
        yield Case(op, [normal(0, 3)])
        if op not in ("Softmax", "LogSoftmax", "Hardmax"):
            yield Case(op, [normal()])
    for op in ["Abs", "Neg", "Sign", "Sqrt", "Exp", "Log", "Sigmoid", "Relu", "Floor", "Softmax", "Tanh"]:
        yield Case(op, [normal(4, 3, dtype=F64)])
    for op in ["Abs", "Neg", "Floor", "Sqrt", "Exp", "Sigmoid", "Relu", "Tanh", "LeakyRelu", "Softmax", "Erf", "IsNaN"]:
        yield Case(op, [normal(4, 3, dtype=F16)])
    for op in ["Abs", "Neg", "Sign", "Shrink"]:
        yield Case(op, [integers(3, 4, dtype=I8)])
        yield Case(op, [integers(3, 4, dtype=I32)])
    yield Case("Relu", [integers(5, dtype=I8)])
    yield Case("Not", [bits(3, 4)])
    for dtype in (I8, U8, I32, U64):
        yield Case("BitwiseNot", [integers(3, 4, dtype=dtype)])
    x = normal(3, 4, 5, scale=3)
    for op, attrs in (
        ("LeakyRelu", {"alpha": 0.3}),
        ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.4}),
        ("Elu", {"alpha": 1.7}),
        ("Celu", {"alpha": 1.7}),
        ("Selu", {"alpha": 1.2, "gamma": 2.0}),
        ("ThresholdedRelu", {"alpha": 0.7}),
        ("Shrink", {"bias": 0.3, "lambd": 0.9}),
        ("Gelu", {"approximate": "tanh"}),
        ("IsInf", {"detect_negative": 0}),
        ("IsInf", {"detect_positive": 0}),
        *((op, {"axis": axis}) for op in ("Softmax", "LogSoftmax", "Hardmax") for axis in (0, 1, -2)),
    ):
        yield Case(op, [x], attrs)
        if op == "IsInf":
            yield Case(op, [SPECIAL], attrs)
    yield Case("Softmax", [of([[1, -INF, 1000], [-1000, 0, 1], [NAN, 1, 2]])])
    yield Case("Hardmax", [of([[2, 2, 1], [0, 0, 0]])])
    yield Case("PRelu", [normal(2, 3, 4, 5), normal(3, 1, 1)])
    yield Case("PRelu", [normal(2, 3, 4), normal(1)])
    yield Case("PRelu", [normal(2, 3, 4), normal(4)])
    for shape in ((3, 4), ()):
        x = normal(*shape, scale=3)
        yield Case("Clip", [x, of(-1), of(1.5)])
        yield Case("Clip", [x, None, of(0.5)])
        yield Case("Clip", [x, of(0)])
        yield Case("Clip", [x])
    yield Case("Clip", [SPECIAL, of(0), of(6)])
    yield Case("Clip", [normal(6), of(2), of(-2)])
    yield Case("Clip", [normal(5, dtype=F64), of(0, F64)])
    yield Case("Clip", [integers(9, dtype=I64), of(-3, I64), of(4, I64)])
    yield Case("Clip", [integers(9, dtype=U8), of(3, U8)])
    yield Case("Clip", [integers(9, dtype=I8), None, of(3, I8)])


def binary_cases() -> Iterator[Case]:
    shapes = (((3, 4), (3, 4)), ((2, 3, 1), (4,)), ((), (2, 3)), ((0, 3), (1,)), ((5,), (3, 1)))
    for op in ["Add", "Sub", "Mul", "Div", "Pow", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"]:
        for a, b in shapes:
            x = normal(*a)
            yield Case(op, [np.abs(x) if op == "Pow" else x, normal(*b)])
            yield Case(op, [integers(*a), integers(*b, low=1, high=6)])
        for dtype in (F64, I64):
            yield Case(op, [integers(4, 3, low=1, dtype=dtype), integers(3, low=1, high=4, dtype=dtype)])
    for op in ["Add", "Sub", "Mul", "Div"]:
        yield Case(op, [normal(3, 4, dtype=F16), normal(4, dtype=F16)])
        yield Case(op, [SPECIAL[:, None], SPECIAL])
    for op in ["Equal", "Greater", "LessOrEqual"]:
        yield Case(op, [SPECIAL[:, None], SPECIAL])
    yield Case("Equal", [bits(3, 4), bits(4)])
    yield Case("Div", [of([-7, 7, -8, 7], I64), of([2, -2, 3, 7], I64)])
    yield Case("Div", [of([200, 7], U8), of([7, 2], U8)])
    for op in ("And", "Or", "Xor"):
        for a, b in shapes:
            yield Case(op, [bits(*a), bits(*b)])
    for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor"):
        for dtype in (I8, U16, I64):
            yield Case(op, [integers(3, 4, dtype=dtype), integers(4, dtype=dtype)])
    for direction in ("LEFT", "RIGHT"):
        for dtype in (U8, U32, U64):
            yield Case("BitShift", [codes(6, dtype=dtype), integers(6, dtype=dtype, high=8)], {"direction": direction})
    yield Case("Pow", [np.abs(normal(4)), of([2, -1, 0, 3], I64)])
    yield Case("Pow", [of([2, 3, 5, 2], I32), of([-1, 0.5, 2, 3.5])])
    yield Case("Pow", [of([2, -3, 5, 1], I64), of([10, 3, 0, -2], I64)])
    yield Case("Pow", [of([2.0, 3]), of([2, 0.5], F64)])
    for dtype in (I8, U8, I32, U32, I64):
        x, y = integers(4, 5, dtype=dtype), integers(5, dtype=dtype, low=1)
        yield Case("Mod", [x, y])
        yield Case("Mod", [x, y], {"fmod": 1})
    yield Case("Mod", [integers(9, dtype=I32), of([-4, 4, -3, 3, 5, -5, 7, -7, 2], I32)])
    yield Case("Mod", [normal(4, 5, scale=9), normal(5)], {"fmod": 1})
    for op in ("Max", "Min", "Sum", "Mean"):
        yield Case(op, [normal(3, 4)])
        yield Case(op, [normal(3, 4), normal(4), normal(2, 1, 1)])
        yield Case(op, [normal(0, 4), normal(4)])
    for op in ("Max", "Min"):
        yield Case(op, [SPECIAL[:, None], SPECIAL])
        for dtype in (F64, F16, I32, I64, U32, I8, U8):
            yield Case(op, [integers(3, 4, dtype=dtype), integers(4, dtype=dtype)])


def reduce_cases() -> Iterator[Case]:
    axes = [of(a, I64) for a in ([0], [1, -1], [-2], [0, 1, 2])]
    floats = "ReduceSum ReduceMean ReduceProd ReduceMax ReduceMin ReduceL1 ReduceL2 ReduceSumSquare"
    for op in f"{floats} ReduceLogSum ReduceLogSumExp".split():
        x = np.abs(normal(2, 3, 5)) if op == "ReduceLogSum" else normal(2, 3, 5)
        yield Case(op, [x])
        yield Case(op, [x], {"keepdims": 0})
        yield Case(op, [x], {"noop_with_empty_axes": 1})
        yield Case(op, [x, of([], I64)], {"keepdims": 0})
        for a in axes:
            yield Case(op, [x, a], constant=(1,))
            yield Case(op, [x, a], {"keepdims": 0}, constant=(1,))
        yield Case(op, [x[:, :, 0], axes[0]], {"keepdims": 0})
        yield Case(op, [of(3.0)])
        if op not in ("ReduceMean",):
            yield Case(op, [normal(2, 0, 3), of([1], I64)], {"keepdims": 0}, constant=(1,))
    for op in floats.split():
        yield Case(op, [integers(3, 4), of([1], I64)])
        if op not in ("ReduceMax", "ReduceMin"):  # onnxruntime's depend on where the NaN is: test_nan_wins
            yield Case(op, [of([1, NAN, 2])])
    for op in ("ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd"):
        yield Case(op, [integers(3, 4, dtype=I64), of([0], I64)])
    for op in ("ReduceMax", "ReduceMin"):
        yield Case(op, [integers(3, 4, dtype=U8)])
        yield Case(op, [integers(3, 4, dtype=I8), of([1], I64)])
    yield Case("ReduceMean", [of([-7, 2], I32)])
    yield Case("ReduceLogSumExp", [of([[1000, 1000], [-1000, -1001]]), of([1], I64)])
    yield Case("ReduceSum", [normal(3, 4, dtype=F64), of([1], I64)])
    for op in ("ArgMax", "ArgMin"):
        for axis in (0, 1, -1):
            for last in (0, 1):
                yield Case(op, [integers(3, 4, 5, high=-5)], {"axis": axis, "select_last_index": last})
        yield Case(op, [normal(3, 4)], {"axis": 1, "keepdims": 0})
        yield Case(op, [integers(7, dtype=U8, high=3)], {"select_last_index": 1})


CONVS: tuple[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]], ...] = (
    ((2, 3, 11), (4, 3, 3), {}),
    ((1, 4, 17), (6, 2, 5), {"group": 2, "strides": [3], "pads": [2, 4], "dilations": [2]}),
    ((1, 3, 9, 7), (5, 3, 3, 3), {"pads": [1, 1, 1, 1]}),
    ((2, 6, 9, 8), (6, 1, 3, 2), {"group": 6, "strides": [2, 1], "pads": [0, 1, 2, 0]}),
    ((1, 6, 9, 8), (9, 2, 3, 3), {"group": 3, "dilations": [2, 3], "pads": [2, 3, 2, 3]}),
    ((1, 2, 9, 10), (3, 2, 4, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 3]}),
    ((1, 2, 9, 10), (3, 2, 4, 3), {"auto_pad": "SAME_LOWER", "strides": [2, 3]}),
    ((1, 2, 9, 10), (3, 2, 4, 3), {"auto_pad": "VALID", "kernel_shape": [4, 3]}),
    ((1, 2, 5, 6, 7), (4, 1, 2, 3, 2), {"group": 2, "strides": [2, 1, 2], "pads": [1, 1, 0, 0, 1, 1]}),
    ((1, 5, 4, 4), (3, 5, 1, 1), {"strides": [2, 2]}),
    ((0, 2, 5, 5), (3, 2, 3, 3), {}),
)
TRANSPOSED: tuple[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]], ...] = (
    ((2, 3, 7), (3, 4, 3), {}),
    ((1, 4, 5), (4, 3, 4), {"group": 2, "strides": [3], "pads": [1, 2], "output_padding": [2]}),
    ((1, 3, 4, 5), (3, 2, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}),
    ((1, 3, 4, 5), (3, 2, 3, 3), {"strides": [2, 3], "output_shape": [9, 14]}),
    ((1, 3, 4, 5), (3, 2, 3, 3), {"strides": [2, 2], "auto_pad": "SAME_UPPER", "output_shape": [8, 10]}),
    ((1, 3, 4, 5), (3, 2, 3, 3), {"strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    ((1, 4, 4, 5), (4, 1, 2, 3), {"group": 4, "dilations": [2, 2], "strides": [1, 2]}),
    ((1, 2, 3, 4, 3), (2, 3, 2, 3, 2), {"strides": [2, 1, 2], "pads": [0, 1, 0, 1, 0, 1]}),
)
POOLS: tuple[tuple[tuple[int, ...], dict[str, Any]], ...] = (
    ((2, 3, 11), {"kernel_shape": [3]}),
    ((1, 2, 9, 8), {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 2, 1]}),
    ((1, 2, 9, 10), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    ((1, 2, 8, 7), {"kernel_shape": [3, 3], "strides": [3, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1}),
    ((1, 2, 9, 10), {"kernel_shape": [2, 3], "dilations": [3, 2], "pads": [1, 2, 1, 2]}),
    ((1, 1, 9, 10), {"kernel_shape": [4, 3], "strides": [2, 3], "auto_pad": "SAME_UPPER"}),
    ((1, 1, 9, 10), {"kernel_shape": [4, 3], "strides": [2, 3], "auto_pad": "SAME_LOWER"}),
    ((1, 1, 9, 10), {"kernel_shape": [4, 3], "auto_pad": "VALID"}),
    ((1, 2, 5, 6, 7), {"kernel_shape": [2, 3, 2], "strides": [2, 1, 2], "pads": [1, 1, 0, 0, 1, 1]}),
)


def window_cases() -> Iterator[Case]:
    for x, w, attrs in CONVS:
        yield Case("Conv", [normal(*x), normal(*w), normal(w[0])], attrs, constant=(1,))
        yield Case("Conv", [normal(*x), normal(*w)], attrs)
        zero = [codes(dtype=U8), codes(dtype=U8)]
        if x[0]:
            yield Case("ConvInteger", [codes(*x), codes(*w), *zero], attrs)
            yield Case("ConvInteger", [codes(*x), codes(*w), zero[0]], attrs)
    for x, w, attrs in TRANSPOSED:
        yield Case("ConvTranspose", [normal(*x), normal(*w), normal(w[1] * attrs.get("group", 1))], attrs)
        yield Case("ConvTranspose", [normal(*x), normal(*w)], attrs)
    for shape, attrs in POOLS:
        for n in (1, 2):
            yield Case("MaxPool", [normal(*shape)], attrs, n)
        yield Case("MaxPool", [normal(*shape)], {**attrs, "storage_order": 1}, 2)
        yield Case("MaxPool", [integers(*shape, dtype=I8)], attrs)
        yield Case("MaxPool", [integers(*shape, dtype=U8)], attrs)
        for include in (0, 1):
            yield Case("AveragePool", [normal(*shape)], {**attrs, "count_include_pad": include})
        for p in (1, 2, 3):
            yield Case("LpPool", [normal(*shape)], {**attrs, "p": p})
    yield Case("MaxPool", [integers(1, 1, 6, 6, dtype=U8, high=2)], {"kernel_shape": [3, 3]}, 2)
    yield Case("MaxPool", [normal(1, 1, 6, dtype=F64)], {"kernel_shape": [3]})
    for op in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"):
        for shape in ((2, 3, 5), (2, 3, 4, 5), (1, 2, 3, 4, 5)):
            yield Case(op, [normal(*shape)], opset=21)  # onnxruntime has no GlobalLpPool of opset 22
    yield Case("GlobalLpPool", [normal(2, 3, 4)], {"p": 3}, opset=21)


def norm_cases() -> Iterator[Case]:
    for shape in ((2, 3), (2, 3, 5), (4, 3, 5, 7)):
        statistics = [normal(3), normal(3), normal(3), np.abs(normal(3)) + 0.1]
        yield Case("BatchNormalization", [normal(*shape), *statistics], {"epsilon": 1e-3}, constant=(1, 2, 3, 4))
        yield Case("BatchNormalization", [normal(*shape), *statistics])
        if len(shape) > 2:
            yield Case("InstanceNormalization", [normal(*shape), normal(3), normal(3)], {"epsilon": 1e-2})
        for axis in (-1, 1, 0):
            scale, bias = normal(*shape[axis:]), normal(*shape[axis:])
            yield Case("LayerNormalization", [normal(*shape), scale, bias], {"axis": axis}, 3)
            yield Case("LayerNormalization", [normal(*shape), scale], {"axis": axis, "epsilon": 1e-2}, 1)
            yield Case("RMSNormalization", [normal(*shape), scale], {"axis": axis})
    yield Case("LayerNormalization", [normal(2, 5, dtype=F16), normal(5, dtype=F16)])
    for shape in ((2, 6, 5), (1, 6, 4, 3)):
        yield Case("GroupNormalization", [normal(*shape), normal(6), normal(6)], {"num_groups": 3})
    for size in (1, 3, 5, 9, 11):
        yield Case("LRN", [normal(2, 5, 3, 4)], {"size": size, "alpha": 0.5, "beta": 0.6, "bias": 2.0})
    for axis in (0, 1, -1):
        for p in (1, 2):
            yield Case("LpNormalization", [normal(3, 4, 5)], {"axis": axis, "p": p})
    yield Case("LpNormalization", [np.zeros((2, 3), F32)])
    yield Case("MeanVarianceNormalization", [normal(2, 3, 4, 5)])
    yield Case("MeanVarianceNormalization", [normal(2, 3, 4, 5)], {"axes": [2, 3]})


def linear_cases() -> Iterator[Case]:
    matrices = (((3, 4), (4, 5)), ((2, 1, 3, 4), (5, 4, 2)), ((0, 4), (4, 3)))
    vectors = (((4,), (4, 5)), ((3, 4), (4,)), ((4,), (4,)))
    for a, b in matrices + vectors:
        yield Case("MatMul", [normal(*a), normal(*b)])
        yield Case("MatMul", [normal(*a, dtype=F64), normal(*b, dtype=F64)])
        yield Case("MatMul", [integers(*a), integers(*b)])
    for a, b in matrices[:2]:
        zero = [codes(), codes(dtype=I8)]
        yield Case("MatMulInteger", [codes(*a), codes(*b, dtype=I8), *zero])
        yield Case("MatMulInteger", [codes(*a), codes(*b, dtype=I8)])
        scales = [of(0.02), of(0.5)]
        yield Case("QLinearMatMul", [codes(*a), scales[0], zero[0], codes(*b), of(0.03), codes(), scales[1], codes()])
    yield Case("MatMulInteger", [codes(3, 4), codes(4, 5), codes(), codes(5)])
    for ta in (0, 1):
        for tb in (0, 1):
            a, b = normal(*((4, 3) if ta else (3, 4))), normal(*((5, 4) if tb else (4, 5)))
            for c in (None, normal(3, 5), normal(5), normal(3, 1), normal(), normal(1)):
                yield Case(
                    "Gemm",
                    [a, b, c] if c is not None else [a, b],
                    {"transA": ta, "transB": tb, "alpha": 0.7, "beta": 1.3},
                )
    yield Case("Gemm", [normal(3, 4, dtype=F64), normal(4, 2, dtype=F64)])


def quant_cases() -> Iterator[Case]:
    x = np.concatenate([normal(30, scale=20), of([NAN, INF, -INF, 0.5, 1.5, 2.5, -0.5, 1e9])])
    for dtype in (U8, I8, U16, I16):
        yield Case("QuantizeLinear", [x, of(1.0), of(7, dtype)])
        yield Case("QuantizeLinear", [x, of(0.37), of(7, dtype)])
        yield Case("DequantizeLinear", [codes(3, 4, dtype=dtype), of(0.37), of(7, dtype)])
        yield Case("DequantizeLinear", [codes(2, 3, 4, dtype=dtype), np.abs(normal(3)), codes(3, dtype=dtype)])
        yield Case("QuantizeLinear", [normal(2, 3, 4, scale=9), np.abs(normal(3)) + 0.1, codes(3, dtype=dtype)])
        yield Case(
            "QuantizeLinear", [normal(2, 4, scale=9), np.abs(normal(2)) + 0.1, codes(2, dtype=dtype)], {"axis": -2}
        )
    yield Case("QuantizeLinear", [x, of(0.5)])
    yield Case("QuantizeLinear", [x, of(0.5)], {"output_dtype": 3})
    yield Case("DequantizeLinear", [integers(3, 4, dtype=I32, low=-(10**9), high=10**9), of(1e-3)])
    yield Case("DequantizeLinear", [integers(3, 4, dtype=I32), np.abs(normal(3))], {"axis": 0})
    for axis, scale in ((0, (2, 4)), (1, (5, 2))):
        block = {"axis": axis, "block_size": 3 if axis == 0 else 2}
        zero = codes(*scale, dtype=I8)
        yield Case("DequantizeLinear", [codes(5, 4, dtype=I8), np.abs(normal(*scale)), zero], block)
        yield Case("QuantizeLinear", [normal(5, 4, scale=9), np.abs(normal(*scale)) + 0.1, zero], block)
    for shift in (-3, 0, 3):
        yield Case("DynamicQuantizeLinear", [normal(4, 5) + np.float32(shift)], n_outputs=3)
    yield Case("DynamicQuantizeLinear", [np.zeros(4, F32)], n_outputs=3)
    for x, w, attrs in CONVS[:-1]:
        fixed = [of(0.02), codes(), codes(*w, dtype=I8)]
        bias = integers(w[0], low=-9999, high=9999)
        y = [of(0.3 * w[1] * np.prod(w[2:]) ** 0.5), codes()]
        yield Case("QLinearConv", [codes(*x), *fixed, of(0.05), of(0, I8), *y, bias], attrs, constant=(3,))
        filters = [np.abs(normal(w[0])) * np.float32(0.1) + np.float32(0.01), np.zeros(w[0], I8)]
        yield Case("QLinearConv", [codes(*x), *fixed, *filters, *y], attrs, constant=(3,))


def contrib_cases() -> Iterator[Case]:
    for dtype in (U8, I8):
        a, b = [codes(2, 3, 5, dtype=dtype), of(0.1), of(3, dtype)], [codes(3, 1, dtype=dtype), of(0.2), of(9, dtype)]
        for op in ("QLinearAdd", "QLinearMul"):
            yield Case(op, [*a, *b, of(0.35), of(5, dtype)], domain=MS, steps=1)
        yield Case("QLinearAdd", [*a, *b, of(0.35)], domain=MS, steps=1)
        parts = [*a, codes(2, 1, 5, dtype=dtype), of(0.07), of(1, dtype)]
        yield Case("QLinearConcat", [of(0.09), of(2, dtype), *parts], {"axis": 1}, domain=MS, constant=(0, 1))
        fixed: dict[str, Any] = {"domain": MS, "steps": 1, "constant": (1, 2, 3, 4)}
        yield Case("QLinearSigmoid", [*a, of(1 / 128), of(2, dtype)], **fixed)
        yield Case("QLinearLeakyRelu", [*a, of(0.1), of(4, dtype)], {"alpha": 0.3}, **fixed)
        softmax = [of(1 / 256), of(np.iinfo(dtype).min, dtype)]
        for opset, axis in ((13, -1), (13, 1), (12, 1)):
            attrs = {"axis": axis, "opset": opset}
            yield Case("QLinearSoftmax", [*a, *softmax], attrs, **fixed)
        image = [codes(2, 3, 6, 7, dtype=dtype), of(0.1), of(3, dtype)]
        pool = {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]}
        for include in (0, 1):
            attrs = {**pool, "count_include_pad": include}
            for last in (0, 1):
                own = {**attrs, "channels_last": last}
                yield Case("QLinearAveragePool", [*image, of(0.07), of(8, dtype)], own, domain=MS, steps=1)
        for last in (0, 1):
            yield Case(
                "QLinearGlobalAveragePool", [*image, of(0.03), of(8, dtype)], {"channels_last": last}, domain=MS,
                steps=1,
            )  # fmt: skip
        left, right = [codes(3, 4), of(0.1), codes()], [codes(4, 5, dtype=dtype), of(0.05), of(7, dtype)]
        turned = [np.ascontiguousarray(right[0].T), *right[1:]]
        c = integers(5, low=-999, high=999)
        for tail in ([c], [c, of(1.7), codes()], [None, of(1.7), codes()]):
            yield Case("QGemm", [*left, *right, *tail], {"alpha": 1.0}, domain=MS, steps=1)
            yield Case("QGemm", [*left, *turned, *tail], {"transB": 1}, domain=MS, steps=1)
        yield Case("QGemm", [*left, right[0], np.abs(normal(5)), codes(5, dtype=dtype), c], {}, domain=MS, steps=1)


FAMILIES: tuple[Callable[[], Iterator[Case]], ...] = (
    unary_cases,
    binary_cases,
    reduce_cases,
    window_cases,
    norm_cases,
    linear_cases,
    quant_cases,
    contrib_cases,
)
