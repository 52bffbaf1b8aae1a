"""Quantised operators of the domain com.microsoft, as onnxruntime's static quantisation writes them.

Each computes the float operator on dequantised inputs and quantises the result; zero points that are absent are 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sigconv.errors import ModelError
from sigconv.ops._infer import (
    Attrs,
    Facts,
    axis_index,
    broadcast_shapes,
    check_broadcasts_to,
    check_dtype,
    common_dtype,
    fact,
    present,
)
from sigconv.ops.activation import LeakyRelu, Sigmoid, Softmax
from sigconv.ops.linear import gemm_shape
from sigconv.ops.movement import concat_shape
from sigconv.ops.pool import AveragePool, GlobalAveragePool, pool_shape
from sigconv.ops.quant import BYTE, saturate_integer, wide_integer
from sigconv.ops.spec import Fact, Infer, Shape, register

DOMAIN = "com.microsoft"
Array = np.ndarray


def _real(x: Array, scale: Array, zero_point: Array | None) -> Array:
    return wide_integer(x, zero_point).astype(np.float32) * scale


def _quantised(y: Array, scale: Array, zero_point: Array | None, dtype: np.dtype[Any]) -> Array:
    return saturate_integer(y / scale, 0 if zero_point is None else zero_point.astype(np.int64), dtype)


def _infer_binary(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    dtype = common_dtype(facts, (0, 2, 3, 5, 7), BYTE)
    return [Fact(dtype, broadcast_shapes(fact(facts, 0).shape, fact(facts, 3).shape))]


def _binary(function: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    def reference(
        A: Array,
        A_scale: Array,
        A_zero_point: Array | None,
        B: Array,
        B_scale: Array,
        B_zero_point: Array | None,
        C_scale: Array,
        C_zero_point: Array | None = None,
    ) -> Array:
        y = function(_real(A, A_scale, A_zero_point), _real(B, B_scale, B_zero_point))
        return _quantised(y, C_scale, C_zero_point, A.dtype)

    return reference


register("QLinearAdd", domain=DOMAIN, infer=_infer_binary, since=1)(_binary(np.add))
register("QLinearMul", domain=DOMAIN, infer=_infer_binary, since=1)(_binary(np.multiply))


def _infer_unary(shape: Callable[[Fact, Attrs], Shape | None] = lambda x, attrs: x.shape) -> Infer:
    def infer(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
        dtype = common_dtype(facts, (0, 2, 4), BYTE)
        return [Fact(dtype, shape(fact(facts, 0), attrs))]

    return infer


def _softmax_shape(x: Fact, attrs: Attrs) -> Shape | None:
    if x.rank is not None:
        axis_index(attrs["axis"], x.rank)
    return x.shape


def _of_layout(rule: Callable[[Fact, Attrs], Shape | None]) -> Callable[[Fact, Attrs], Shape | None]:
    """A rule for [N, C, ...] made one for [N, ..., C] too, by the attribute ``channels_last``."""

    def shape(x: Fact, attrs: Attrs) -> Shape | None:
        if not attrs["channels_last"] or x.shape is None or len(x.shape) < 2:
            return rule(x, attrs)
        first, *spatial, channels = x.shape
        found = rule(Fact(x.dtype, (first, channels, *spatial)), attrs)
        return None if found is None else (found[0], *found[2:], found[1])

    return shape


def _global_shape(x: Fact, attrs: Attrs) -> Shape | None:
    return None if x.shape is None else (*x.shape[:2], *(1,) * (len(x.shape) - 2))


@register("QLinearSigmoid", domain=DOMAIN, infer=_infer_unary(), since=1)
def QLinearSigmoid(
    X: Array, X_scale: Array, X_zero_point: Array | None, Y_scale: Array, Y_zero_point: Array | None = None
) -> Array:
    return _quantised(Sigmoid(_real(X, X_scale, X_zero_point)), Y_scale, Y_zero_point, X.dtype)


@register("QLinearLeakyRelu", domain=DOMAIN, infer=_infer_unary(), since=1)
def QLinearLeakyRelu(
    X: Array,
    X_scale: Array,
    X_zero_point: Array | None,
    Y_scale: Array,
    Y_zero_point: Array | None = None,
    *,
    alpha: float = 0.01,
) -> Array:
    return _quantised(LeakyRelu(_real(X, X_scale, X_zero_point), alpha=alpha), Y_scale, Y_zero_point, X.dtype)


@register("QLinearSoftmax", domain=DOMAIN, infer=_infer_unary(_softmax_shape), since=1)
def QLinearSoftmax(
    X: Array,
    X_scale: Array,
    x_zero_point: Array | None,
    y_scale: Array,
    y_zero_point: Array,
    *,
    axis: int = -1,
    opset: int,
) -> Array:
    """Softmax along ``axis``, or over all axes from it on where ``opset`` is below 13."""
    x = _real(X, X_scale, x_zero_point)
    if opset < 13:
        first = axis_index(axis, X.ndim)
        y = Softmax(x.reshape(*X.shape[:first], -1), axis=-1).reshape(X.shape)
    else:
        y = Softmax(x, axis=axis)
    return _quantised(y, y_scale, y_zero_point, X.dtype)


@register("QLinearAveragePool", domain=DOMAIN, infer=_infer_unary(_of_layout(pool_shape)), since=1)
def QLinearAveragePool(
    X: Array,
    x_scale: Array,
    x_zero_point: Array | None,
    y_scale: Array,
    y_zero_point: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    channels_last: int = 0,
    count_include_pad: int = 0,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    x = _real(X, x_scale, x_zero_point)
    y = AveragePool(
        np.moveaxis(x, -1, 1) if channels_last else x,
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    y = np.moveaxis(y, 1, -1) if channels_last else y
    return _quantised(y, y_scale, y_zero_point, X.dtype)


@register("QLinearGlobalAveragePool", domain=DOMAIN, infer=_infer_unary(_of_layout(_global_shape)), since=1)
def QLinearGlobalAveragePool(
    X: Array,
    x_scale: Array,
    x_zero_point: Array | None,
    y_scale: Array,
    y_zero_point: Array | None = None,
    *,
    channels_last: int = 0,
) -> Array:
    x = _real(X, x_scale, x_zero_point)
    y = GlobalAveragePool(np.moveaxis(x, -1, 1) if channels_last else x)
    return _quantised(np.moveaxis(y, 1, -1) if channels_last else y, y_scale, y_zero_point, X.dtype)


def _infer_concat(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    """Y_scale, Y_zero_point, then a tensor, its scale and its zero point for every part."""
    if len(facts) % 3 != 2:
        raise ModelError(f"there are {len(facts)} inputs; 2 and then 3 a tensor are needed")
    dtype = common_dtype(facts, [1, *range(2, len(facts), 3), *range(4, len(facts), 3)], BYTE)
    joined = concat_shape([fact(facts, i).shape for i in range(2, len(facts), 3)], attrs["axis"])
    return [Fact(dtype, joined)]


@register("QLinearConcat", domain=DOMAIN, infer=_infer_concat, since=1)
def QLinearConcat(
    Y_scale: Array, Y_zero_point: Array, X: Array, X_scale: Array, X_zero_point: Array, *more: Array, axis: int
) -> Array:
    """The tensors one after another along ``axis``, each requantised."""
    parts = [(X, X_scale, X_zero_point), *(more[i : i + 3] for i in range(0, len(more), 3))]
    joined = [_quantised(_real(*part), Y_scale, Y_zero_point, Y_zero_point.dtype) for part in parts]
    return np.concatenate(joined, axis)


def _infer_gemm(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    for i in (0, 2, 3, 5, 8):
        check_dtype(fact(facts, i).dtype, BYTE, f"input {i}")
    check_dtype(fact(facts, 6).dtype, {"int32"}, "C")
    shape = gemm_shape(fact(facts, 0), fact(facts, 3), attrs)
    check_broadcasts_to(fact(facts, 6), shape, "C")
    if not present(facts, 7):
        return [Fact(np.dtype(np.float32), shape)]
    return [Fact(fact(facts, 8 if present(facts, 8) else 0).dtype, shape)]


@register("QGemm", domain=DOMAIN, infer=_infer_gemm, since=1)
def QGemm(
    A: Array,
    a_scale: Array,
    a_zero_point: Array,
    B: Array,
    b_scale: Array,
    b_zero_point: Array,
    C: Array | None = None,
    y_scale: Array | None = None,
    y_zero_point: Array | None = None,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Array:
    """alpha A B + C with the int32 C of scale alpha a_scale b_scale; float32 where no y_scale is given.

    b_scale and b_zero_point are scalars, or one a column of the product.
    """
    a, b = (
        wide_integer(A, a_zero_point),
        wide_integer(B, b_zero_point[:, None] if transB and b_zero_point.size > 1 else b_zero_point),
    )
    total = (a.T if transA else a).astype(np.float64) @ (b.T if transB else b).astype(np.float64)
    total = total.astype(np.int64).astype(np.int32) + (0 if C is None else C)
    y = total.astype(np.float32) * (np.float32(alpha) * a_scale * b_scale)
    if y_scale is None:
        return y.astype(np.float32)
    return _quantised(y, y_scale, y_zero_point, A.dtype if y_zero_point is None else y_zero_point.dtype)
