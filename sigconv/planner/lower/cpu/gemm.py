"""Products by a constant or computed right operand: Gemm and MatMul."""

from __future__ import annotations

import math

import numpy as np

from sigconv.geometry import WindowAxis
from sigconv.kernels.cpu import direct as kernels
from sigconv.kernels.cpu import gemm_24bit
from sigconv.kernels.simd import lanes
from sigconv.planner.build import Builder
from sigconv.planner.candidates import Candidate, Cost, attach
from sigconv.planner.fuse import Unit
from sigconv.planner.lower.cpu.direct import (
    L1_BYTES,
    PEAK,
    UNIT_AXIS,
    WIDEST,
    Strides,
    bias_of,
    emit,
    float_type,
    known,
)  # fmt: skip
from sigconv.planner.lower.cpu.weights import Source, bias_table, operand, packing_seconds
from sigconv.planner.tensors import Address, Tensor

STREAM = 1e10
"""Bytes per second of one core at which weights come that no cache holds."""
STREAMED = 1 << 20
"""Bytes of weights from which on they are taken to lie in no cache when a run needs them."""
FEW_ROWS = 24
"""Rows for which weights arrive more slowly than they are multiplied."""


def _matrix(unit: Unit, b: Builder) -> tuple[np.ndarray, np.ndarray | Address | None, Source | None]:
    """(weights [groups, N, K], bias [N] or None, where the weights lie if the run computes them)."""
    node = unit.node
    w, source = operand(b, node.inputs[1])
    if node.op == "MatMul":
        w = w if w.ndim > 1 else w[:, None]
        return w.reshape(-1, *w.shape[-2:]).swapaxes(1, 2), unit.bias, source
    alpha, beta = float(node.attrs.get("alpha", 1.0)), float(node.attrs.get("beta", 1.0))
    w = (w if node.attrs.get("transB", 0) else w.T)[None]
    bias: np.ndarray | Address | None = unit.bias
    if source is not None:
        return w, bias_of(unit, b, w.shape[1], w.dtype), source
    if len(node.inputs) > 2 and node.inputs[2]:
        own = np.broadcast_to(b.constant(node.inputs[2]).reshape(-1), (w.shape[1],)) * np.asarray(beta, w.dtype)
        bias = own if bias is None else own + bias
    return w if alpha == 1.0 else w * np.asarray(alpha, w.dtype), bias, None


def _legal_matrix(unit: Unit, b: Builder) -> str | None:
    reason = known(unit, b) or float_type(unit, b)
    if reason:
        return reason
    node = unit.node
    if not b.is_constant(node.inputs[1]):
        return _legal_computed(unit, b)
    shape, w = b.shape(node.inputs[0]), b.shape(node.inputs[1])
    if node.op == "MatMul":
        if len(w) > 2 and math.prod(w[:-2]) > 1 and w[:-2] != shape[:-2]:
            return "batched operands broadcast"
        return None
    if len(node.inputs) > 2 and node.inputs[2]:
        c = node.inputs[2]
        if (
            not b.is_constant(c)
            or b.constant(c).size not in (1, b.shape(unit.output)[1])
            or (b.constant(c).ndim == 2 and b.shape(c)[0] != 1)
        ):
            return "C is not a constant row"
    return None


def _legal_computed(unit: Unit, b: Builder) -> str | None:
    """Why the product cannot have a right operand that the run computes."""
    node = unit.node
    if node.op == "MatMul":
        return "the right operand is not constant"
    if any(float(node.attrs.get(k, 1.0)) != 1.0 for k in ("alpha", "beta")):
        return "factors, and the right operand is not constant"
    c = node.inputs[2] if len(node.inputs) > 2 else ""
    if not c:
        return None
    if b.shape(c) not in ((b.shape(unit.output)[1],), (1, b.shape(unit.output)[1])):
        return "C is not a row"
    return "C is not constant but fused with one" if unit.bias is not None and not b.is_constant(c) else None


def _cost_matrix(unit: Unit, b: Builder) -> Cost:
    depth = b.shape(unit.node.inputs[0])[0 if unit.node.attrs.get("transA", 0) else -1]
    flops = 2.0 * math.prod(b.shape(unit.output)) * depth
    nbytes = float(sum(b.nbytes(n) for n in (*unit.inputs, unit.output)))
    return Cost(flops, nbytes, max(flops / PEAK, nbytes / STREAM) + packing_seconds(b, unit.node.inputs[1:2]))


def _left(unit: Unit, b: Builder) -> Tensor:
    """The left operand with contiguous rows."""
    name = unit.node.inputs[0]
    x = b.plain(name)
    if not unit.node.attrs.get("transA", 0):
        return x
    k, m = x.shape
    target = Tensor(b.new_buffer(b.nbytes(name)), 0, x.dtype, (m, k), (k, 1))
    b.copy(x.address, x.strides[::-1], target.address, target.strides, target.shape, x.dtype)
    return target


def _lower_matrix(unit: Unit, b: Builder) -> None:
    weights, bias, computed = _matrix(unit, b)
    groups, n, k = weights.shape
    x = _left(unit, b)
    r = b.plain(unit.residual) if unit.residual else None
    y = b.new(unit.output, 1, (0, 0))
    vl = lanes(weights.dtype)
    m = math.prod(y.shape) // (groups * n)
    block = k if m <= 2 * kernels.TILE[WIDEST] else min(k, L1_BYTES // (WIDEST * vl * weights.dtype.itemsize))
    axis = WindowAxis(m, 1, 1, 1, 0, 0, m)
    emit(
        b, x=x.address, y=y.address, residual=r.address if r else None, batch=1, block=block,
        weights=weights.reshape(groups, n, k, 1, 1, 1), source=computed,
        bias=np.tile(bias, groups) if isinstance(bias, np.ndarray) else bias,
        axes=(UNIT_AXIS, UNIT_AXIS, axis), xs=Strides(0, m * k, block, 0, 0, k), ys=Strides(0, m * n, vl, 0, 0, n),
        rs=Strides(0, m * n, vl, 0, 0, n) if r else None, activation=unit.activation, flat=True, masked=True,
    )  # fmt: skip


attach(Candidate("gemm_packed", ("Gemm", "MatMul"), _legal_matrix, _cost_matrix, _lower_matrix))


# --- Weights of 24 bits ----------------------------------------------------------------------------------------------
def _legal_24bit(unit: Unit, b: Builder) -> str | None:
    name = unit.node.inputs[1]
    reason = _legal_matrix(unit, b)
    if reason:
        return reason
    if not b.is_constant(name) or b.dtype(unit.output) != np.float32 or len(b.shape(name)) != 2 or unit.residual:
        return "not float32 with a constant matrix and no residual"
    if b.nbytes(name) < STREAMED:
        return "the weights fit in a cache"
    rows = math.prod(b.shape(unit.output)[:-1])
    return None if rows <= FEW_ROWS else f"{rows} rows share the weights"


def _cost_24bit(unit: Unit, b: Builder) -> Cost:
    full = _cost_matrix(unit, b)
    nbytes = full.nbytes - b.nbytes(unit.node.inputs[1]) / 4
    return Cost(full.flops, nbytes, max(full.flops / PEAK, nbytes / STREAM))


def _lower_24bit(unit: Unit, b: Builder) -> None:
    weights, bias, _ = _matrix(unit, b)
    _, n, k = weights.shape
    x, y = _left(unit, b), b.new(unit.output, 1, (0, 0))
    panels = -(-n // gemm_24bit.PANEL)
    act = unit.activation
    b.emit(
        gemm_24bit.gemm_24bit, width=min(b.threads, panels), x=x.address, w=gemm_24bit.pack(weights[0]),
        bias=bias_table(b, bias, 1, n, x.dtype, gemm_24bit.PANEL), y=y.address, m=math.prod(y.shape) // n, n=n, k=k,
        alpha=act.alpha, lo=act.lo, hi=act.hi,
    )  # fmt: skip


attach(
    Candidate(
        "gemm_24bit",
        ("Gemm", "MatMul"),
        _legal_24bit,
        _cost_24bit,
        _lower_24bit,
        accuracy="rounded",
        error=gemm_24bit.ERROR,
    )
)
