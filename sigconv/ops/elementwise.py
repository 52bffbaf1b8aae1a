"""Arithmetic, comparison, logic and functions of single elements, with NumPy's broadcasting.

Families are tables: a row is an op's name, ONNX version, function, accepted dtypes. Only ops with attributes, optional
inputs or rules of their own are written out.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from sigconv.errors import ModelError
from sigconv.ops._infer import (
    ANY,
    BOOL,
    FLOAT,
    INTEGER,
    NUMERIC,
    SIGNED,
    Attrs,
    Facts,
    broadcast,
    broadcast_shapes,
    check_dtype,
    common_dtype,
    fact,
    unary_of,
)
from sigconv.ops._numeric import divide_truncated, is_float, widened
from sigconv.ops.spec import Fact, register

Function = Callable[..., np.ndarray]


def _div(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a / b if is_float(a.dtype) else divide_truncated(a, b)


UNARY: tuple[tuple[str, int, Function, frozenset[str], str], ...] = (
    ("Abs", 13, np.abs, NUMERIC, "exact"),
    ("Neg", 13, np.negative, FLOAT | SIGNED, "exact"),
    ("Sign", 13, np.sign, NUMERIC, "exact"),
    ("Floor", 13, np.floor, FLOAT, "exact"),
    ("Ceil", 13, np.ceil, FLOAT, "exact"),
    ("Round", 22, np.rint, FLOAT, "exact"),
    ("Sqrt", 13, np.sqrt, FLOAT, "exact"),
    ("Reciprocal", 13, lambda x: 1 / x, FLOAT, "exact"),
    ("Exp", 13, np.exp, FLOAT, "rounding"),
    ("Log", 13, np.log, FLOAT, "rounding"),
    ("Sin", 22, np.sin, FLOAT, "rounding"),
    ("Cos", 22, np.cos, FLOAT, "rounding"),
    ("Tan", 22, np.tan, FLOAT, "rounding"),
    ("Asin", 22, np.arcsin, FLOAT, "rounding"),
    ("Acos", 22, np.arccos, FLOAT, "rounding"),
    ("Atan", 22, np.arctan, FLOAT, "rounding"),
    ("Sinh", 22, np.sinh, FLOAT, "rounding"),
    ("Cosh", 22, np.cosh, FLOAT, "rounding"),
    ("Asinh", 22, np.arcsinh, FLOAT, "rounding"),
    ("Acosh", 22, np.arccosh, FLOAT, "rounding"),
    ("Atanh", 22, np.arctanh, FLOAT, "rounding"),
    ("Not", 1, np.logical_not, BOOL, "exact"),
    ("BitwiseNot", 18, np.invert, INTEGER, "exact"),
)

BINARY: tuple[tuple[str, int, Function, frozenset[str]], ...] = (
    ("Add", 14, np.add, NUMERIC),
    ("Sub", 14, np.subtract, NUMERIC),
    ("Mul", 14, np.multiply, NUMERIC),
    ("Div", 14, _div, NUMERIC),
    ("And", 7, np.logical_and, BOOL),
    ("Or", 7, np.logical_or, BOOL),
    ("Xor", 7, np.logical_xor, BOOL),
    ("BitwiseAnd", 18, np.bitwise_and, INTEGER),
    ("BitwiseOr", 18, np.bitwise_or, INTEGER),
    ("BitwiseXor", 18, np.bitwise_xor, INTEGER),
)

COMPARISONS: tuple[tuple[str, int, Function, frozenset[str]], ...] = (
    ("Equal", 19, np.equal, ANY | {"object"}),
    ("Greater", 13, np.greater, NUMERIC),
    ("GreaterOrEqual", 16, np.greater_equal, NUMERIC),
    ("Less", 13, np.less, NUMERIC),
    ("LessOrEqual", 16, np.less_equal, NUMERIC),
)

VARIADIC: tuple[tuple[str, int, Function, frozenset[str], str], ...] = (
    ("Max", 13, lambda *xs: functools.reduce(np.maximum, xs), NUMERIC, "exact"),
    ("Min", 13, lambda *xs: functools.reduce(np.minimum, xs), NUMERIC, "exact"),
    ("Sum", 13, lambda *xs: functools.reduce(np.add, xs), FLOAT, "rounding"),
    ("Mean", 13, lambda *xs: functools.reduce(np.add, xs) / len(xs), FLOAT, "rounding"),
)


def _unary(function: Function) -> Function:
    def reference(X: np.ndarray) -> np.ndarray:
        return function(X)

    return widened(reference)


def _binary(function: Function) -> Function:
    def reference(A: np.ndarray, B: np.ndarray) -> np.ndarray:
        return function(A, B)

    return widened(reference)


def _variadic(function: Function) -> Function:
    def reference(data_0: np.ndarray, *data: np.ndarray) -> np.ndarray:
        return function(data_0, *data)

    return widened(reference)


for _name, _since, _function, _allowed, _accuracy in UNARY:
    register(_name, infer=unary_of(_allowed), since=_since, accuracy=_accuracy)(_unary(_function))
for _name, _since, _function, _allowed in BINARY:
    register(_name, infer=broadcast(allowed=_allowed), since=_since, accuracy="exact")(_binary(_function))
for _name, _since, _function, _allowed in COMPARISONS:
    register(_name, infer=broadcast(np.bool_, _allowed), since=_since, accuracy="exact")(_binary(_function))
for _name, _since, _function, _allowed, _accuracy in VARIADIC:
    register(_name, infer=broadcast(allowed=_allowed), since=_since, accuracy=_accuracy)(_variadic(_function))


@register("IsNaN", infer=unary_of(FLOAT, np.bool_), since=20, accuracy="exact")
@widened
def IsNaN(X: np.ndarray) -> np.ndarray:
    return np.isnan(X)


@register("IsInf", infer=unary_of(FLOAT, np.bool_), since=20, accuracy="exact")
@widened
def IsInf(X: np.ndarray, *, detect_negative: int = 1, detect_positive: int = 1) -> np.ndarray:
    return np.isinf(X) & np.where(X > 0, bool(detect_positive), bool(detect_negative))


@register("Mod", infer=broadcast(allowed=NUMERIC), since=28, accuracy="exact")
@widened
def Mod(A: np.ndarray, B: np.ndarray, *, fmod: int = 0) -> np.ndarray:
    """The remainder with the sign of ``B``, or of ``A`` with ``fmod``."""
    return np.fmod(A, B) if fmod else np.mod(A, B)


def _infer_pow(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    for i in range(2):
        check_dtype(fact(facts, i).dtype, NUMERIC, f"input {i}")
    return [Fact(fact(facts, 0).dtype, broadcast_shapes(fact(facts, 0).shape, fact(facts, 1).shape))]


@register("Pow", infer=_infer_pow, since=15)
@widened
def Pow(X: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """``X ** Y`` in the dtype of ``X``; exact (and wrapping) for integers with no negative exponent, else truncated."""
    if not is_float(X.dtype) and (is_float(Y.dtype) or (Y < 0).any()):
        return np.power(X.astype(np.float64), Y).astype(X.dtype)
    return np.power(X, Y.astype(X.dtype))


@register("BitShift", infer=broadcast(allowed=INTEGER), since=28, accuracy="exact")
def BitShift(X: np.ndarray, Y: np.ndarray, *, direction: str) -> np.ndarray:
    """Shift by ``Y`` bits; a shift that is negative or of all bits leaves copies of the sign (right) or 0 (left)."""
    if direction not in ("LEFT", "RIGHT"):
        raise ModelError(f"direction is {direction!r}; accepted are 'LEFT' and 'RIGHT'")
    bits = X.dtype.itemsize * 8
    whole = (Y < 0) | (bits <= Y)
    amount = np.where(whole, 0, Y).astype(X.dtype)
    if direction == "LEFT":
        return np.where(whole, X.dtype.type(0), np.left_shift(X, amount))
    return np.where(whole, np.where(X < 0, ~X.dtype.type(0), X.dtype.type(0)), np.right_shift(X, amount))


def _infer_clip(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    dtype = common_dtype(facts, allowed=NUMERIC)
    for i, name in ((1, "min"), (2, "max")):
        if fact(facts, i).shape not in (None, (), (1,), (None,)):
            raise ModelError(f"{name} has shape {fact(facts, i).shape}; a scalar is accepted")
    return [Fact(dtype, fact(facts, 0).shape)]


@register("Clip", infer=_infer_clip, since=13, accuracy="exact")
@widened
def Clip(input: np.ndarray, min: np.ndarray | None = None, max: np.ndarray | None = None) -> np.ndarray:
    """NaN stays NaN; ``max`` wins where it is below ``min``."""
    y = input if min is None else np.maximum(input, min.reshape(()))
    return y.copy() if max is None else np.minimum(y, max.reshape(()))
