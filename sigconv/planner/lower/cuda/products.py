"""Matrix products."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from sigconv.kernels.cuda.gemm import GEMM, GEMVS, TILES, Tile
from sigconv.kernels.cuda.roofline import BANDWIDTH, LAUNCH
from sigconv.planner.build import Builder
from sigconv.planner.candidates import Cost
from sigconv.planner.device import DeviceBuilder
from sigconv.planner.fuse import Unit
from sigconv.planner.lower.cuda.common import add, epilogue, floats, tiled_seconds, traffic
from sigconv.planner.tensors import Tensor, c_strides

FEW_ROWS = 4
"""Rows of a product that reads its right operand once for each of them."""


def _legal_matrix(unit: Unit, b: Builder, tile: Tile) -> str | None:
    reason = floats(unit, b)
    if reason:
        return reason
    if (b.dtype(unit.output).name, tile.name) not in GEMM:
        return f"no tile of {b.dtype(unit.output)}"
    if unit.node.op == "MatMul":
        shapes = [b.shape(n) for n in unit.node.inputs]
        if any(len(s) < 2 for s in shapes):
            return "a vector"
        return "more than 2 batch axes" if len(b.shape(unit.output)) > 4 else None
    c = unit.node.inputs[2] if len(unit.node.inputs) > 2 else ""
    return "C and a fused constant" if c and unit.bias is not None and not _constant_row(unit, b) else None


def _constant_row(unit: Unit, b: Builder) -> bool:
    """Whether Gemm's C is a constant that only varies along the columns."""
    c = unit.node.inputs[2]
    return b.is_constant(c) and b.constant(c).size in (1, b.shape(unit.output)[1]) and b.shape(c)[-1:] == (
        b.constant(c).size,
    )  # fmt: skip


def _legal_vector(unit: Unit, b: Builder) -> str | None:
    reason = _legal_matrix(unit, b, TILES[-1])
    if reason:
        return reason
    shape = b.shape(unit.output)
    return None if len(shape) == 2 and shape[0] <= FEW_ROWS else f"more than {FEW_ROWS} rows"


def _sizes(unit: Unit, b: Builder) -> tuple[int, int, int, int]:
    """(batches, m, k, n)."""
    shape = b.shape(unit.output)
    trans = unit.node.op == "Gemm" and unit.node.attrs.get("transA", 0)
    return math.prod(shape[:-2]), shape[-2], b.shape(unit.node.inputs[0])[-2 if trans else -1], shape[-1]


def _cost_matrix(unit: Unit, b: Builder, tile: Tile) -> Cost:
    batches, m, k, n = _sizes(unit, b)
    nbytes = traffic(unit, b)
    seconds = max(tiled_seconds(tile, m, n, k, batches), LAUNCH + nbytes / BANDWIDTH)
    return Cost(2.0 * batches * m * n * k, nbytes, seconds)


def _cost_vector(unit: Unit, b: Builder) -> Cost:
    batches, m, k, n = _sizes(unit, b)
    nbytes = traffic(unit, b)
    return Cost(2.0 * batches * m * n * k, nbytes, LAUNCH + m * nbytes / (BANDWIDTH * 0.7))


def _strides(t: Tensor, rank: int, transposed: bool = False) -> tuple[int, int, int, int]:
    """Over (batch, batch, row, column), 0 where the operand repeats."""
    shape = (1,) * (4 - len(t.shape)) + t.shape
    s0, s1, row, column = (0,) * (4 - len(t.shape)) + c_strides(t.shape)
    s0, s1 = (0 if shape[0] == 1 else s0), (0 if shape[1] == 1 else s1)
    return (s0, s1, column, row) if transposed else (s0, s1, row, column)


def _third(unit: Unit, b: DeviceBuilder) -> tuple[Any, dict[str, int], float]:
    """What is added to a product: the array, its strides and its factor."""
    node, shape = unit.node, b.shape(unit.output)
    zero = {"c_m": 0, "c_n": 0, "c_batch0": 0, "c_batch1": 0}
    name = node.inputs[2] if node.op == "Gemm" and len(node.inputs) > 2 else ""
    beta = float(node.attrs.get("beta", 1.0)) if name else 1.0
    if unit.bias is not None:
        row = np.asarray(unit.bias, b.dtype(unit.output)).reshape(-1)
        if name:
            row = row + np.broadcast_to(b.constant(name).reshape(-1), row.shape) * np.asarray(beta, row.dtype)
        return row.astype(b.dtype(unit.output)), {**zero, "c_n": 1}, 1.0
    if not name:
        return None, zero, 0.0
    c = b.plain(name)
    full = (1,) * (2 - len(c.shape)) + c.shape
    row_stride = 0 if full[0] == 1 != shape[0] else c_strides(full)[0]
    return c, {**zero, "c_m": row_stride if full[0] > 1 else 0, "c_n": 0 if full[1] == 1 else 1}, beta


def _lower_matrix(unit: Unit, b: DeviceBuilder, tile: Tile | None) -> None:
    node = unit.node
    gemm = node.op == "Gemm"
    a, w = b.plain(node.inputs[0]), b.plain(node.inputs[1])
    residual = b.plain(unit.residual) if unit.residual else None
    c, c_strides_, beta = _third(unit, b)
    y = b.new(unit.output)
    batches, m, k, n = _sizes(unit, b)
    sa = _strides(a, 4, bool(gemm and node.attrs.get("transA", 0)))
    sw = _strides(w, 4, bool(gemm and node.attrs.get("transB", 0)))
    fields: dict[str, Any] = dict(
        m=m, n=n, k=k, a_m=sa[2], a_k=sa[3], b_k=sw[2], b_n=sw[3], has_residual=residual is not None,
        scale=float(node.attrs.get("alpha", 1.0)) if gemm else 1.0, beta=beta, **epilogue(unit),
    )  # fmt: skip
    arrays = [a, w, c, residual, y]
    if tile is None:
        fields.update(c_m=c_strides_["c_m"], c_n=c_strides_["c_n"])
        b.launch(GEMVS[y.dtype.name], (n, m), arrays, **fields)
        return
    full = (1,) * (4 - len(y.shape)) + y.shape
    b.launch(
        GEMM[y.dtype.name, tile.name], (-(-n // tile.n), -(-m // tile.m), batches), arrays, batch1=full[1],
        a_batch0=sa[0], a_batch1=sa[1], b_batch0=sw[0], b_batch1=sw[1], **c_strides_, **fields,
    )  # fmt: skip


def _each_tile() -> Iterator[tuple[str, dict[str, Any]]]:
    parts = (("lower", _lower_matrix), ("legal", _legal_matrix), ("cost", _cost_matrix))
    for tile in TILES:
        yield f"gemm_{tile.name}", {part: partial(f, tile=tile) for part, f in parts}


for _name, _parts in _each_tile():
    add(_name, ("Gemm", "MatMul"), **_parts)
add("gemv", ("Gemm", "MatMul"), partial(_lower_matrix, tile=None), _legal_vector, _cost_vector)
