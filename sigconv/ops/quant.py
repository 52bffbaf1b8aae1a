"""Quantised tensors: real = scale x (stored - zero_point). Rounded half to even, then saturated, as onnxruntime does.

Integer products are summed exactly; results are requantised in float32, which is what the machine kernels do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sigconv.errors import ModelError
from sigconv.geometry import Window
from sigconv.ops._infer import (
    FLOAT,
    Attrs,
    Facts,
    axis_index,
    broadcast_shapes,
    check_dtype,
    check_rank,
    common_dtype,
    fact,
    merge_dim,
    present,
)
from sigconv.ops._numeric import integer_range, is_float, widen
from sigconv.ops._windows import correlate
from sigconv.ops.cast import check_saturate, convert, element_dtype
from sigconv.ops.linear import matmul_shape
from sigconv.ops.nn import along_channels, conv_shape
from sigconv.ops.spec import Fact, Shape, register

BYTE = frozenset({"int8", "uint8"})
UINT8 = np.dtype(np.uint8)
INT32 = np.dtype(np.int32)


def saturate_integer(y: np.ndarray, zero_point: np.ndarray | int, dtype: np.dtype[Any]) -> np.ndarray:
    """``round(y) + zero_point`` limited to the range of ``dtype``; NaN becomes its least value."""
    lowest, highest = integer_range(dtype)
    return np.fmin(np.fmax(np.rint(y).astype(np.float64) + zero_point, lowest), highest).astype(dtype)


def wide_integer(x: np.ndarray, zero_point: np.ndarray | None) -> np.ndarray:
    """``x - zero_point`` as int32."""
    return x.astype(np.int32) - (0 if zero_point is None else zero_point.astype(np.int32))


def _granular(parameter: np.ndarray, shape: tuple[int, ...], axis: int, block_size: int) -> np.ndarray:
    """A scale or zero point (one a tensor, a slice of ``axis`` or a block) shaped to broadcast against ``shape``."""
    if parameter.size == 1 and parameter.ndim <= 1:
        return parameter.reshape(())
    axis = axis_index(axis, len(shape))
    if block_size and parameter.ndim == len(shape):
        return np.repeat(parameter, block_size, axis).take(range(shape[axis]), axis)
    return parameter.reshape([-1 if i == axis else 1 for i in range(len(shape))])


def _check_granularity(given: Fact, x: Fact, attrs: Attrs, what: str) -> None:
    if given.shape is None or x.shape is None or given.shape in ((), (1,)):
        return
    axis, block = axis_index(attrs["axis"], len(x.shape)), attrs["block_size"]
    if block < 0:
        raise ModelError(f"block_size is {block}; 0 (none) or more is accepted")
    size = x.shape[axis]
    if block:
        blocks = -(-size // block) if isinstance(size, int) else None
        want: Shape = (*x.shape[:axis], blocks, *x.shape[axis + 1 :])
    else:
        want = (size,)
    if len(want) != len(given.shape):
        raise ModelError(
            f"{what} has shape {given.shape}; accepted for input {x.shape} and axis {axis} is a scalar or {want}"
        )
    for have, size in zip(given.shape, want, strict=True):
        merge_dim(have, size, f"the sizes of {what} {given.shape} and of {want}")


def _infer_quantize(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    check_saturate(attrs)
    x, zero = fact(facts, 0), fact(facts, 2)
    check_dtype(x.dtype, FLOAT | {"int32"})
    for i, what in ((1, "y_scale"), (2, "y_zero_point")):
        _check_granularity(fact(facts, i), x, attrs, what)
    asked = element_dtype(attrs["output_dtype"]) if attrs["output_dtype"] else None
    if asked is not None and zero.dtype not in (None, asked):
        raise ModelError(f"output_dtype is {asked}, but y_zero_point has {zero.dtype}; they must agree")
    return [Fact(asked or (zero.dtype if present(facts, 2) else UINT8), x.shape)]


@register("QuantizeLinear", infer=_infer_quantize, since=28)
def QuantizeLinear(
    x: np.ndarray,
    y_scale: np.ndarray,
    y_zero_point: np.ndarray | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
) -> np.ndarray:
    """``saturate(round(x / y_scale) + y_zero_point)`` per tensor, axis or block (float8: unrounded)."""
    asked = element_dtype(output_dtype) if output_dtype else UINT8
    dtype = asked if y_zero_point is None else y_zero_point.dtype
    division = (
        element_dtype(precision) if precision else y_scale.dtype if is_float(y_scale.dtype) else np.dtype(np.float32)
    )
    scale = _granular(y_scale, x.shape, axis, block_size)
    real = (widen(x).astype(widen(np.empty(0, division)).dtype) / widen(scale)).astype(division)
    zero: Any = 0 if y_zero_point is None else _granular(y_zero_point, x.shape, axis, block_size)
    if "int" in dtype.name:
        return saturate_integer(widen(real), zero if isinstance(zero, int) else zero.astype(np.int64), dtype)
    shift = np.float32(0) if isinstance(zero, int) else zero.astype(np.float32)
    return convert(widen(real) + shift, dtype, bool(saturate))


def _infer_dequantize(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    x, scale = fact(facts, 0), fact(facts, 1)
    common_dtype(facts, (0, 2))
    check_dtype(scale.dtype, FLOAT | {"float8_e8m0fnu"}, "x_scale")
    for i, what in ((1, "x_scale"), (2, "x_zero_point")):
        _check_granularity(fact(facts, i), x, attrs, what)
    return [Fact(element_dtype(attrs["output_dtype"]) if attrs["output_dtype"] else scale.dtype, x.shape)]


@register("DequantizeLinear", infer=_infer_dequantize, since=28)
def DequantizeLinear(
    x: np.ndarray,
    x_scale: np.ndarray,
    x_zero_point: np.ndarray | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> np.ndarray:
    """``(x - x_zero_point) * x_scale`` per tensor, axis or block, multiplied in float32 (float64 for float64)."""
    dtype = element_dtype(output_dtype) if output_dtype else x_scale.dtype
    shifted = x.astype(np.int64 if "int" in x.dtype.name else np.float32)
    if x_zero_point is not None:
        shifted = shifted - _granular(x_zero_point, x.shape, axis, block_size).astype(shifted.dtype)
    product = np.dtype(np.float64 if dtype == np.float64 else np.float32)
    return (shifted.astype(product) * _granular(x_scale, x.shape, axis, block_size).astype(product)).astype(dtype)


def _infer_saturate(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    dtype = common_dtype(facts, allowed={"float32"})
    return [Fact(dtype, broadcast_shapes(fact(facts, 0).shape, fact(facts, 1).shape))]


@register("Saturate", domain="sigconv", infer=_infer_saturate, since=1, accuracy="exact")
def Saturate(X: np.ndarray, zero_point: np.ndarray, *, low: int, high: int) -> np.ndarray:
    """``round(X) + zero_point`` limited to [low, high], NaN to low: 8-bit codes in float32, inside programs only."""
    return np.fmin(np.fmax(np.rint(X) + zero_point, np.float32(low)), np.float32(high))


def _infer_dynamic(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    check_dtype(fact(facts, 0).dtype, {"float32"})
    return [Fact(UINT8, fact(facts, 0).shape), Fact(np.dtype(np.float32), ()), Fact(UINT8, ())][:n]


@register("DynamicQuantizeLinear", infer=_infer_dynamic, since=11)
def DynamicQuantizeLinear(x: np.ndarray) -> tuple[np.ndarray, ...]:
    """x in uint8 with the scale and zero point that its own range, widened to hold 0, asks for."""
    low, high = np.float32(x.min(initial=0)), np.float32(x.max(initial=0))
    scale = (high - low) / np.float32(255)
    scale = scale if scale else np.float32(1)
    zero = saturate_integer(np.asarray(-low / scale), 0, UINT8)
    return saturate_integer(x / scale, int(zero), UINT8), np.asarray(scale), zero


def _check_bytes(facts: Facts, *indices: int) -> None:
    for i in indices:
        check_dtype(fact(facts, i).dtype, BYTE, f"input {i}")


def _infer_matmul_integer(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    _check_bytes(facts, *range(len(facts)))
    return [Fact(INT32, matmul_shape(fact(facts, 0), fact(facts, 1)))]


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The product of int32 matrices that hold 9-bit values: float64 keeps it exact and has a fast routine."""
    return (a.astype(np.float64) @ b.astype(np.float64)).astype(np.int64).astype(np.int32)


def _rows(parameter: np.ndarray | None) -> np.ndarray | None:
    """A parameter of one element a row of the left matrix, as a column."""
    return parameter[..., None] if parameter is not None and parameter.ndim == 1 and parameter.size > 1 else parameter


@register("MatMulInteger", infer=_infer_matmul_integer, since=10, accuracy="exact")
def MatMulInteger(
    A: np.ndarray, B: np.ndarray, a_zero_point: np.ndarray | None = None, b_zero_point: np.ndarray | None = None
) -> np.ndarray:
    """(A - a_zero_point) (B - b_zero_point) in int32; zero points are scalars, or one a row of A or a column of B."""
    return _product(wide_integer(A, _rows(a_zero_point)), wide_integer(B, b_zero_point))


def _infer_conv_integer(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    _check_bytes(facts, *range(len(facts)))
    return [Fact(INT32, conv_shape(fact(facts, 0), fact(facts, 1), attrs))]


def _correlate_integer(
    x: np.ndarray, w: np.ndarray, w_zero_point: np.ndarray | None, window: Window, group: int
) -> np.ndarray:
    """The exact correlation of ``x``, its zero point taken off, with w - w_zero_point (a scalar, or one a filter)."""
    per_filter = None if w_zero_point is None else w_zero_point.reshape(-1, *(1,) * (w.ndim - 1))
    return correlate(x, wide_integer(w, per_filter), window, group).astype(np.int64).astype(np.int32)


@register("ConvInteger", infer=_infer_conv_integer, since=10, accuracy="exact")
def ConvInteger(
    x: np.ndarray,
    w: np.ndarray,
    x_zero_point: np.ndarray | None = None,
    w_zero_point: np.ndarray | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> np.ndarray:
    """Conv of x - x_zero_point and w - w_zero_point in int32; padding is the real value 0."""
    window = Window.of(x.shape[2:], w.shape[2:], strides=strides, pads=pads, dilations=dilations, auto_pad=auto_pad)
    return _correlate_integer(wide_integer(x, x_zero_point), w, w_zero_point, window, group)


def _infer_qlinear_conv(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    _check_bytes(facts, 0, 2, 3, 5, 7)
    check_dtype(fact(facts, 8).dtype, {"int32"}, "B")
    return [Fact(fact(facts, 7).dtype, conv_shape(fact(facts, 0), fact(facts, 3), attrs))]


@register("QLinearConv", infer=_infer_qlinear_conv, since=10)
def QLinearConv(
    x: np.ndarray,
    x_scale: np.ndarray,
    x_zero_point: np.ndarray,
    w: np.ndarray,
    w_scale: np.ndarray,
    w_zero_point: np.ndarray,
    y_scale: np.ndarray,
    y_zero_point: np.ndarray,
    B: np.ndarray | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> np.ndarray:
    """ConvInteger and the int32 bias B (scale x_scale w_scale), requantised; parameters of w may be one a filter."""
    window = Window.of(x.shape[2:], w.shape[2:], strides=strides, pads=pads, dilations=dilations, auto_pad=auto_pad)
    total = _correlate_integer(wide_integer(x, x_zero_point.reshape(())), w, w_zero_point, window, group)
    if B is not None:
        total = total + along_channels(B, total.ndim)
    scale = along_channels(np.atleast_1d(x_scale.reshape(()) * w_scale / y_scale.reshape(())), total.ndim)
    return saturate_integer(total.astype(np.float32) * scale, y_zero_point.reshape(()), y_zero_point.dtype)


def _infer_qlinear_matmul(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    _check_bytes(facts, 0, 2, 3, 5, 7)
    for i in (1, 4, 6):
        check_rank(fact(facts, i), range(5), what=f"input {i}")
    return [Fact(fact(facts, 7).dtype, matmul_shape(fact(facts, 0), fact(facts, 3)))]


@register("QLinearMatMul", infer=_infer_qlinear_matmul, since=21)
def QLinearMatMul(
    a: np.ndarray,
    a_scale: np.ndarray,
    a_zero_point: np.ndarray,
    b: np.ndarray,
    b_scale: np.ndarray,
    b_zero_point: np.ndarray,
    y_scale: np.ndarray,
    y_zero_point: np.ndarray,
) -> np.ndarray:
    """MatMulInteger, requantised; the parameters of a may be one a row, those of b one a column."""
    total = _product(wide_integer(a, _rows(a_zero_point)), wide_integer(b, b_zero_point))
    rows = _rows(widen(a_scale))
    assert rows is not None
    scale = rows * widen(b_scale) / widen(y_scale)
    return saturate_integer(total.astype(np.float32) * scale, y_zero_point, y_zero_point.dtype)
