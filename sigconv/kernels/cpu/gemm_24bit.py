"""Matrix product by weights rounded to 24 bits, for a few rows: what is read from memory sets the pace, so read less.

A weight keeps sign, exponent and 15 bits of its mantissa: an error of 2**-16 of each weight at most, below what
Winograd adds. The two high bytes of a panel's weights lie beside each other, then the third bytes.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir

from sigconv import lines
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
    """float32 weights [N, K] rounded to the nearest of 24 bits, as bytes [panels, K, 3 * PANEL]."""
    n, k = weights.shape
    out = lines.zeros(-(-n // PANEL) * k * 3 * PANEL, np.uint8).reshape(-1, k, 3 * PANEL)
    columns = np.zeros((k, PANEL), np.float32)
    for panel, first in zip(out, range(0, n, PANEL), strict=True):
        count = min(PANEL, n - first)
        transfer(columns[:, :count], weights[first : first + count].T)
        bits = columns.view(np.uint32)
        rounded = bits + (0x7F + (bits >> 8 & 1))
        infinite = (rounded & 0x7F800000) == 0x7F800000
        if infinite.any():  # nothing finite becomes infinite, NaN stays NaN
            rounded[infinite] = bits[infinite]
            rounded[np.isnan(columns)] |= 0x400000
        panel[:, : 2 * PANEL] = (rounded >> 16).astype("<u2").view(np.uint8)
        panel[:, 2 * PANEL :] = rounded >> 8 & 0xFF
    return out.reshape(-1)


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


def _weights(builder, vec, start, v):
    """Vector ``v`` of the panel's weights at ``start``."""
    words = ir.VectorType(ir.IntType(32), vec.count)

    def part(offset, bits, shift):
        pointer = builder.gep(start, [ir.Constant(I64, offset)])
        pointer = builder.bitcast(pointer, ir.VectorType(ir.IntType(bits), vec.count).as_pointer())
        value = builder.load(pointer)
        value.align = 1
        return builder.shl(builder.zext(value, words), ir.Constant(words, [shift] * vec.count))

    high = part(2 * v * vec.count, 16, 16)
    return builder.bitcast(builder.or_(high, part(2 * PANEL + v * vec.count, 8, 8)), vec)


def _emit_tile(builder, vec, rows, w, x, x_row, k, bias, y, y_row, count, alpha, lo, hi):
    def const(value):
        return ir.Constant(I64, value)

    acc = [[cgutils.alloca_once(builder, vec) for _ in range(VECTORS)] for _ in range(rows)]
    for v in range(VECTORS):
        start = _load(builder, bias, const(v * vec.count), vec)
        for row in acc:
            builder.store(start, row[v])
    with cgutils.for_range(builder, k) as loop:
        at = builder.gep(w, [builder.mul(loop.index, const(3 * PANEL))])
        for line in range(0, 3 * PANEL, 64):
            _prefetch(builder, builder.gep(at, [const(READ_AHEAD + line)]))
        weights = [_weights(builder, vec, at, v) for v in range(VECTORS)]
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
        w = as_pointer(a.w + panel * a.k * 3 * PANEL, np.uint8)
        first = panel * PANEL
        for row in range(0, a.m, ROWS):
            _tile(
                min(ROWS, a.m - row), w, as_pointer(a.x + row * a.k * 4, np.float32), a.k, a.k,
                as_pointer(a.bias + first * 4, np.float32), as_pointer(a.y + (row * a.n + first) * 4, np.float32),
                a.n, min(PANEL, a.n - first), alpha, lo, hi,
            )  # fmt: skip
