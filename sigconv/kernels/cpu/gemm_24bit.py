"""Matrix product by weights rounded to 24 bits, for a few rows: what is read from memory sets the pace, so read less.

An error of 2**-16 of each weight at most is below what Winograd adds.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir

from sigconv.kernels import narrow
from sigconv.kernels.address import as_pointer
from sigconv.kernels.cpu.movement import transfer
from sigconv.kernels.jit import kernel
from sigconv.kernels.late import carray, cgutils, intrinsic, types
from sigconv.kernels.simd import (
    I64,
    READ_AHEAD,
    VECTOR_BYTES,
    _clamp,
    _fma,
    _llvm_vector,
    _load,
    _masked_store,
    _prefetch,
    _splat,
    _tail_mask,
    lanes,
)  # fmt: skip

ERROR = 1e-4
"""Of results, as a share of their scale: 1e-5 is usual, sums that nearly cancel lose more."""
VECTORS = 4
PANEL = VECTORS * lanes(np.float32)
"""Outputs of a panel."""
ROWS = {64: 4, 32: 2, 16: 1}[VECTOR_BYTES]
"""Most rows of a tile: accumulators and a panel's weights share the registers."""

ARGS = np.dtype(
    [(name, np.int64) for name in ("x", "w", "bias", "y", "m", "n", "k")]  # x[m, k], y[m, n]; bias fills whole panels
    + [("alpha", np.float64), ("lo", np.float64), ("hi", np.float64)]
)


def pack(weights: np.ndarray) -> np.ndarray:
    """float32 weights [N, K] as bytes [panels, K, PANEL], see `narrow`."""
    n, k = weights.shape
    nbytes = narrow.BYTES * PANEL * k
    out = narrow.room(-(-n // PANEL) * PANEL * k)
    columns = np.zeros((k, PANEL), np.float32)
    for i, first in enumerate(range(0, n, PANEL)):
        rows = weights[first : first + PANEL]
        transfer(columns[:, : len(rows)], rows.T)
        narrow.pack(columns, out[i * nbytes :])
    return out


@intrinsic
def _tile(typingctx, rows, w, x, x_row, k, bias, y, y_row, count, alpha, lo, hi):
    """``rows`` rows by one panel, ``count`` of whose outputs exist."""
    n = types.int64
    sig = types.void(n, w, x, n, n, bias, y, n, n, alpha, lo, hi)

    def codegen(context, builder, sig, args):
        done = builder.append_basic_block("tile.done")
        switch = builder.switch(args[0], done)
        for r in range(1, ROWS + 1):
            case = builder.append_basic_block(f"tile.{r}")
            switch.add_case(ir.Constant(I64, r), case)
            builder.position_at_end(case)
            _emit_tile(builder, _llvm_vector(types.float32), r, *args[1:])
            builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return sig, codegen


def _emit_tile(builder, vec, rows, w, x, x_row, k, bias, y, y_row, count, alpha, lo, hi):
    def const(value):
        return ir.Constant(I64, value)

    acc = [[cgutils.alloca_once(builder, vec) for _ in range(VECTORS)] for _ in range(rows)]
    for v in range(VECTORS):
        start = _load(builder, bias, const(v * vec.count), vec)
        for row in acc:
            builder.store(start, row[v])
    with cgutils.for_range(builder, k) as loop:
        at = builder.gep(w, [builder.mul(loop.index, const(narrow.BYTES * PANEL))])
        for line in range(0, narrow.BYTES * PANEL, 64):
            _prefetch(builder, builder.gep(at, [const(READ_AHEAD + line)]))
        weights = [narrow.load(builder, at, v * vec.count, vec) for v in range(VECTORS)]
        for r, row in enumerate(acc):
            value = builder.gep(x, [builder.add(builder.mul(x_row, const(r)), loop.index)])
            value = _splat(builder, builder.load(value), vec)
            for cell, weight in zip(row, weights, strict=True):
                builder.store(_fma(builder, value, weight, builder.load(cell)), cell)
    slope, low, high = (_splat(builder, s, vec) for s in (alpha, lo, hi))
    zero = ir.Constant(vec, [0.0] * vec.count)
    for v in range(VECTORS):
        mask = _tail_mask(builder, builder.sub(count, const(v * vec.count)), vec)
        for r, row in enumerate(acc):
            value = builder.load(row[v])
            value = builder.select(builder.fcmp_ordered("<", value, zero), builder.fmul(value, slope), value)
            value = _clamp(builder, value, low, high)
            at = builder.add(builder.mul(y_row, const(r)), const(v * vec.count))
            _masked_store(builder, value, y, at, mask)


@kernel(ARGS)
def gemm_24bit(args, thread, threads):
    a = carray(args, 1)[0]
    alpha, lo, hi = np.float32(a.alpha), np.float32(a.lo), np.float32(a.hi)
    panels = (a.n + PANEL - 1) // PANEL
    for panel in range(panels * thread // threads, panels * (thread + 1) // threads):
        w = as_pointer(a.w + panel * a.k * narrow.BYTES * PANEL, np.uint8)
        first = panel * PANEL
        for row in range(0, a.m, ROWS):
            _tile(
                min(ROWS, a.m - row), w, as_pointer(a.x + row * a.k * 4, np.float32), a.k, a.k,
                as_pointer(a.bias + first * 4, np.float32), as_pointer(a.y + (row * a.n + first) * 4, np.float32),
                a.n, min(PANEL, a.n - first), alpha, lo, hi,
            )  # fmt: skip
