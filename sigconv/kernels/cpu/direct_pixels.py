"""Direct correlation with neighbouring pixels in the lanes, for fewer output channels than a register holds.

A tile keeps some channels of up to eight registers of pixels: whole rows where they are short, else a piece of one. The
last register of a row ends where the row ends, over pixels of the one before it, which come out the same twice.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir

from sigconv.kernels.address import as_pointer, get
from sigconv.kernels.jit import kernel
from sigconv.kernels.late import carray, cgutils, intrinsic, types
from sigconv.kernels.simd import I64, VECTOR_BYTES, _clamp, _fma, _llvm_vector, _load, _splat, _store
from sigconv.lines import zeros

TILE: dict[int, int] = {4: 6, 3: 8, 2: 8, 1: 8} if VECTOR_BYTES == 64 else {3: 4, 2: 4, 1: 8}
"""Output channels of a tile -> most registers of pixels; accumulators, weights and an input must fit the registers."""

ARGS = np.dtype(
    [(name, np.int64) for name in (
        "x", "w", "bias", "y", "residual",  # addresses; x of the pixel that tap 0 reads for output 0; residual may be 0
        "batch", "channels", "KH", "KW", "out_h", "vectors",  # vectors: registers of a row
        "stride_h", "origin_h", "kh_lo", "kh_hi",  # int64 tables by output row: the taps inside the image
        "x_batch", "x_plane", "x_h", "x_kh", "x_kw", "y_batch", "y_plane", "y_h", "r_batch", "r_plane", "r_h",
        "x_at", "y_at", "r_at",  # int64 by register of a tile's rows, row by row: elements from the first
        "tiles", "tile_first", "tile_channels", "tile_rows",  # tiles of output channels; most rows of a tile
    )]
    + [("alpha", np.float64), ("lo", np.float64), ("hi", np.float64)]
)  # fmt: skip


def tiles(channels: int) -> np.ndarray:
    """Output channels of each tile: as few tiles as can be, of even sizes."""
    count = -(-channels // max(TILE))
    return np.diff(channels * np.arange(count + 1) // count)


def pack(weights: np.ndarray) -> np.ndarray:
    """Weights [M, C, KH, KW] in the order tile, input channel, taps, channel of the tile."""
    out = zeros(weights.size, weights.dtype)
    ends = np.cumsum(tiles(len(weights)))[:-1]
    return np.concatenate([part.transpose(1, 2, 3, 0).ravel() for part in np.split(weights, ends)], out=out)


@intrinsic
def _tile(
    typingctx, channels, vectors, x, x_at, w, bias, y, y_at, y_plane, r, r_at, r_plane, depth, x_plane, kh0, kh1,
    x_kh, KH, KW, x_kw, alpha, lo, hi,
):  # fmt: skip
    n, number = types.int64, x.dtype
    sig = types.void(
        n, n, x, x_at, w, bias, y, y_at, n, r, r_at, n, n, n, n, n, n, n, n, n, number, number, number
    )  # fmt: skip

    def codegen(context, builder, sig, args):
        done = builder.append_basic_block("pixels.done")
        most = max(TILE.values()) + 1
        switch = builder.switch(builder.add(builder.mul(args[0], ir.Constant(I64, most)), args[1]), done)
        for m, limit in TILE.items():
            for p in range(1, limit + 1):
                case = builder.append_basic_block(f"pixels.{m}x{p}")
                switch.add_case(ir.Constant(I64, m * most + p), case)
                builder.position_at_end(case)
                _emit(builder, _llvm_vector(sig.args[2].dtype), m, p, *args[2:])
                builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return sig, codegen


def _emit(
    builder, vec, channels, vectors, x, x_at, w, bias, y, y_at, y_plane, r, r_at, r_plane, depth, x_plane, kh0, kh1,
    x_kh, KH, KW, x_kw, alpha, lo, hi,
):  # fmt: skip
    mul, plus = builder.mul, builder.add

    def const(value: int) -> Any:
        return ir.Constant(I64, value)

    def starts(pointer: Any, table: Any) -> list[Any]:
        return [builder.gep(pointer, [builder.load(builder.gep(table, [const(p)]))]) for p in range(vectors)]

    cells = [(m, p) for m in range(channels) for p in range(vectors)]
    acc = {cell: cgutils.alloca_once(builder, vec) for cell in cells}
    for m in range(channels):
        start = _splat(builder, builder.load(builder.gep(bias, [const(m)])), vec)
        for p in range(vectors):
            builder.store(start, acc[m, p])
    pixels = starts(x, x_at)
    with cgutils.for_range(builder, depth) as plane:
        with cgutils.for_range_slice(builder, kh0, kh1, const(1), inc=True) as (kh, _):
            x_row = plus(mul(plane.index, x_plane), mul(kh, x_kh))
            w_row = builder.gep(w, [mul(mul(plus(mul(plane.index, KH), kh), KW), const(channels))])
            with cgutils.for_range(builder, KW) as column:
                offset = plus(x_row, mul(column.index, x_kw))
                at = builder.gep(w_row, [mul(column.index, const(channels))])
                taps = [_splat(builder, builder.load(builder.gep(at, [const(m)])), vec) for m in range(channels)]
                for p in range(vectors):
                    value = _load(builder, pixels[p], offset, vec)
                    for m in range(channels):
                        builder.store(_fma(builder, value, taps[m], builder.load(acc[m, p])), acc[m, p])
    with builder.if_then(builder.icmp_unsigned("!=", builder.ptrtoint(r, I64), const(0))):
        residual = starts(r, r_at)
        for m, p in cells:
            more = _load(builder, residual[p], mul(r_plane, const(m)), vec)
            builder.store(builder.fadd(builder.load(acc[m, p]), more), acc[m, p])
    zero = ir.Constant(vec, [0.0] * vec.count)
    slope, low, high = (_splat(builder, s, vec) for s in (alpha, lo, hi))
    target = starts(y, y_at)
    for m, p in cells:
        value = builder.load(acc[m, p])
        value = builder.select(builder.fcmp_ordered("<", value, zero), builder.fmul(value, slope), value)
        _store(builder, _clamp(builder, value, low, high), target[p], mul(y_plane, const(m)))


def _make(dtype):
    number, size = np.dtype(dtype).type, np.dtype(dtype).itemsize
    most = np.array([TILE.get(m, 0) for m in range(max(TILE) + 1)])

    def direct_pixels(args, thread, threads):
        a = carray(args, 1)[0]
        kh_lo, kh_hi = as_pointer(a.kh_lo, np.int64), as_pointer(a.kh_hi, np.int64)
        tile_first, tile_channels = as_pointer(a.tile_first, np.int64), as_pointer(a.tile_channels, np.int64)
        tile_rows = as_pointer(a.tile_rows, np.int64)
        alpha, lo, hi = number(a.alpha), number(a.lo), number(a.hi)
        rows = a.batch * a.out_h
        end = rows * (thread + 1) // threads
        for t in range(a.tiles):
            first, channels = get(tile_first, t), get(tile_channels, t)
            w = as_pointer(a.w + first * a.channels * a.KH * a.KW * size, dtype)
            bias = as_pointer(a.bias + first * size, dtype)
            row = rows * thread // threads
            while row < end:
                n, h = row // a.out_h, row % a.out_h
                kh0, kh1 = get(kh_lo, h), get(kh_hi, h)
                together = 1
                least = min(get(tile_rows, t), min(end - row, a.out_h - h))
                while together < least and get(kh_lo, h + together) == kh0 and get(kh_hi, h + together) == kh1:
                    together += 1
                x = a.x + (n * a.x_batch + (h * a.stride_h + a.origin_h) * a.x_h) * size
                y = a.y + (n * a.y_batch + first * a.y_plane + h * a.y_h) * size
                residual = a.residual
                if residual != 0:
                    residual += (n * a.r_batch + first * a.r_plane + h * a.r_h) * size
                vectors = together * a.vectors
                pieces = (vectors + most[channels] - 1) // most[channels]
                for piece in range(pieces):
                    v0, v1 = vectors * piece // pieces, vectors * (piece + 1) // pieces
                    _tile(
                        channels, v1 - v0, as_pointer(x, dtype), as_pointer(a.x_at + 8 * v0, np.int64), w, bias,
                        as_pointer(y, dtype), as_pointer(a.y_at + 8 * v0, np.int64), a.y_plane,
                        as_pointer(residual, dtype), as_pointer(a.r_at + 8 * v0, np.int64), a.r_plane, a.channels,
                        a.x_plane, kh0, kh1, a.x_kh, a.KH, a.KW, a.x_kw, alpha, lo, hi,
                    )  # fmt: skip
                row += together

    direct_pixels.__name__ = direct_pixels.__qualname__ = f"direct_pixels_{np.dtype(dtype).name}"
    return kernel(ARGS)(direct_pixels)


direct_pixels_f32 = _make(np.float32)
direct_pixels_f64 = _make(np.float64)
