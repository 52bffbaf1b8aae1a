"""Convolutions and matrix products of codes, exact to the last unit, and their way back to codes."""

from __future__ import annotations

from typing import Any

import numpy as np

from sigconv.graph.ir import Node
from sigconv.ops.quant import wide_integer
from sigconv.planner.quantized.rewriter import BYTES, EXACT, F32, MICROSOFT, Rewriter, rule


def _reach(c: Rewriter, name: str, zero: str) -> float:
    """The largest magnitude that codes - zero point can have."""
    dtype = c.dtype(name)
    if dtype is None or not c.known(zero):
        return 255.0
    low, high, z = np.iinfo(dtype).min, np.iinfo(dtype).max, c.array(zero).astype(np.float64)
    return float(np.maximum(high - z, z - low).max())


def _is_scalar(c: Rewriter, name: str) -> bool:
    return not name or c.shape(name) in ((), (1,))


def _exact_in(largest: float) -> np.dtype[Any] | None:
    """The type in which sums of whole numbers up to ``largest`` are exact; None where int32 would overflow."""
    return next((dtype for dtype, limit in EXACT.items() if largest < limit), None)


def _conv(c: Rewriter, node: Node, x: str, x_zero: str, w: str, w_zero: str, bias: str) -> str | None:
    """The exact convolution of codes; its name, in float32 or float64."""
    if not c.known(w, w_zero, bias) or c.array(w).ndim < 3 or not _is_scalar(c, x_zero):
        return None
    array = c.array(w)
    per_filter = c.array(w_zero).reshape(-1, *[1] * (array.ndim - 1))
    weights = wide_integer(array, per_filter)
    b = c.array(bias).astype(np.float64) if bias else np.zeros(1)
    sums = np.abs(weights, dtype=np.float64).reshape(len(weights), -1).sum(1) * _reach(c, x, x_zero) + np.abs(b)
    dtype = _exact_in(float(sums.max(initial=0)))
    if dtype is None:
        return None
    data = c.wide(c.shifted(x, x_zero, lambda z: z.reshape(())), dtype)
    inputs = [data, c.number(weights, dtype), *([c.number(b, dtype)] if bias else [])]
    return c.add("Conv", *inputs, **node.attrs)


@rule("QLinearConv")
def _qlinear_conv(c: Rewriter, node: Node) -> bool:
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias = (*node.inputs, "")[:9]
    if not c.known(x_scale, x_zero, w_scale, y_scale, y_zero):
        return False
    total = _conv(c, node, x, x_zero, w, w_zero, bias)
    if total is None:
        return False
    factor = np.atleast_1d(c.array(x_scale).reshape(()) * c.array(w_scale) / c.array(y_scale).reshape(()))
    factor = factor.reshape(-1, *[1] * (c.array(w).ndim - 2))
    c.saturate(c.add("Mul", c.narrow(total), c.number(factor)), y_zero, node, lambda z: z.reshape(()))
    return True


@rule("ConvInteger")
def _conv_integer(c: Rewriter, node: Node) -> bool:
    x, w, x_zero, w_zero = (*node.inputs, "", "")[:4]
    total = _conv(c, node, x, x_zero, w, w_zero, "")
    if total is None:
        return False
    c.add("Cast", total, out=node.outputs[0], to=6)
    return True


def _rows(p: np.ndarray) -> np.ndarray:
    """A parameter of one element a row of the left matrix, as a column."""
    return p[..., None] if p.ndim == 1 and p.size > 1 else p


def _product(
    c: Rewriter, op: str, a: str, a_zero: str, b: str, b_zero: str, more: Any = None, **attrs: Any
) -> str | None:
    """The exact product of matrices of codes, plus ``more`` (int32, for a Gemm)."""
    shapes = c.shape(a), c.shape(b)
    if None in shapes or not (c.known(a_zero) or _is_scalar(c, a_zero)) or not c.known(b_zero):
        return None
    depth = shapes[0][0 if attrs.get("transA") else -1]  # type: ignore[index]
    zero = c.array(b_zero)
    if attrs.get("transB") and zero.size > 1:
        zero = zero[:, None]
    largest = _reach(c, a, a_zero)
    if c.known(b):
        right = wide_integer(c.array(b), zero)
        axis = -1 if attrs.get("transB") or right.ndim < 2 else -2
        largest *= float(np.abs(right, dtype=np.float64).sum(axis).max(initial=0))
    else:
        largest *= depth * _reach(c, b, b_zero)
    dtype = _exact_in(largest + (0.0 if more is None else float(np.abs(more, dtype=np.float64).max(initial=0))))
    if dtype is None:
        return None
    left = c.wide(c.shifted(a, a_zero, _rows), dtype)
    other = c.number(right, dtype) if c.known(b) else c.wide(c.shifted(b, b_zero, lambda z: zero), dtype)
    extra = [] if more is None else [c.number(more, dtype)]
    return c.add(op, left, other, *extra, **attrs)


@rule("MatMulInteger")
def _matmul_integer(c: Rewriter, node: Node) -> bool:
    a, b, a_zero, b_zero = (*node.inputs, "", "")[:4]
    total = _product(c, "MatMul", a, a_zero, b, b_zero)
    if total is None:
        return False
    c.add("Cast", total, out=node.outputs[0], to=6)
    return True


@rule("QLinearMatMul")
def _qlinear_matmul(c: Rewriter, node: Node) -> bool:
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = node.inputs
    scales = [c.array(s) if c.known(s) else None for s in (a_scale, b_scale, y_scale)]
    if any(s is None or s.dtype != F32 for s in scales) or not c.known(a_zero, y_zero):
        return False
    total = _product(c, "MatMul", a, a_zero, b, b_zero)
    if total is None or c.dtype(node.outputs[0]) not in BYTES:
        return False
    factor = _rows(c.array(a_scale)) * c.array(b_scale) / c.array(y_scale)
    c.saturate(c.add("Mul", c.narrow(total), c.number(factor)), y_zero, node)
    return True


@rule("QGemm", domain=MICROSOFT)
def _gemm(c: Rewriter, node: Node) -> bool:
    a, a_scale, a_zero, b, b_scale, b_zero, bias, y_scale, y_zero = (*node.inputs, "", "", "")[:9]
    if not c.known(a_scale, a_zero, b_scale, b_zero, bias, y_scale, y_zero):
        return False
    sides = {k: node.attrs.get(k, 0) for k in ("transA", "transB")}
    total = _product(c, "Gemm", a, a_zero, b, b_zero, c.array(bias) if bias else None, **sides)
    if total is None:
        return False
    factor = np.float32(node.attrs.get("alpha", 1.0)) * c.array(a_scale) * c.array(b_scale)
    if not y_scale:
        c.add("Mul", c.narrow(total), c.number(factor), out=node.outputs[0])
        return True
    real = c.add("Mul", c.narrow(total), c.number(factor))
    c.saturate(c.add("Div", real, c.number(c.array(y_scale))), y_zero, node)
    return True
