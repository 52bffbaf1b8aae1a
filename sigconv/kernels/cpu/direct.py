"""Direct correlation and matrix product on one register tile (`simd.register_tile`).

Both are the same sum: every output is a reduction over (channel block, kd, kh, kw, channel in block). A matrix product
has one tap, pixels for rows and a block of K for a channel block; a 1x1 convolution likewise.

The kernel never checks the W borders: the planner gives the input a margin of zeros there. D and H borders are trimmed
through the tap tables. Lanes of the input beyond its channels are never read.
"""

from __future__ import annotations

import math

import numpy as np

from sigconv import lines
from sigconv.kernels.address import as_pointer, get
from sigconv.kernels.cpu.movement import transfer
from sigconv.kernels.jit import Kernel, kernel
from sigconv.kernels.late import carray
from sigconv.kernels.simd import (
    ADJACENT,
    POINTWISE,
    STRIDED_POINTWISE,
    TILE,
    adjacent_tile,
    lanes,
    pointwise_tile,
    register_tile,
    strided_pointwise_tile,
)

DIRECT = np.dtype(
    [(name, np.int64) for name in (
        "x", "w", "bias", "y", "residual",  # addresses; residual may be 0; w is packed by `pack`
        "batch", "groups", "chunks", "tiles",  # work items: images x groups x row chunks x channel tiles
        "rows", "chunk_rows", "out_h", "out_w", "last_w",  # output rows = D*H; the last row has last_w pixels
        "n_blocks", "block", "last_block", "pass_blocks",  # the reduction over channels, pass_blocks at a time
        "KD", "KH", "KW", "stride_d", "stride_h",
        "origin_d", "origin_h",  # index of tap 0 of output 0: minus the pad
        "kd_lo", "kd_hi", "kh_lo", "kh_hi",  # addresses of int64 tables: taps inside the input, by output index
        "x_batch", "x_group", "x_block", "x_d", "x_h", "x_kd", "x_kh", "x_kw", "x_pixel",  # strides in elements
        "y_batch", "y_group", "y_vector", "y_d", "y_h", "y_pixel",
        "r_batch", "r_group", "r_vector", "r_d", "r_h", "r_pixel",
        "w_group", "bias_group",
        "tile_first", "tile_width", "tile_pixels",  # addresses of int64 tables, see `tiles`
        "tail",  # valid lanes of a group's last register
    )]
    + [("alpha", np.float64), ("lo", np.float64), ("hi", np.float64)]
)  # fmt: skip


def tiles(channels: int, dtype: type | np.dtype = np.float32) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How ``channels`` output channels fall into register tiles: first register, number of registers, most pixels."""
    left = -(-channels // lanes(dtype))
    widths: list[int] = []
    for width in TILE:
        count, left = divmod(left, width)
        widths += [width] * count
    table = np.array(widths, np.int64)
    return np.cumsum(table) - table, table, np.array([TILE[w] for w in widths], np.int64)


def pack(weights: np.ndarray, block: int) -> np.ndarray:
    """Weights [M, C, KD, KH, KW] of one group, of any strides, in the order tile, block, taps, channel, lane."""
    m, c, *kernel_shape = weights.shape
    vl = lanes(weights.dtype)
    first, width, _ = tiles(m, weights.dtype)
    out = lines.zeros(c * math.prod(kernel_shape) * -(-m // vl) * vl, weights.dtype)
    at = 0
    for v0, nv in zip((first * vl).tolist(), (width * vl).tolist(), strict=True):
        whole = c // block * block
        for c0, c1, depth in ((0, whole, block), (whole, c, c - whole)):
            if c1 > c0 and out.size:
                source = weights[v0 : v0 + nv, c0:c1]
                blocks = (c1 - c0) // depth
                shape = (blocks, *kernel_shape, depth, nv)
                target = out[at : at + math.prod(shape)].reshape(shape)[..., : len(source)]
                per_channel = source.strides[1]
                strides = (depth * per_channel, *source.strides[2:], per_channel, source.strides[0])
                transfer(target, np.lib.stride_tricks.as_strided(source, target.shape, strides))
                at += math.prod(shape)
    return out


def _make(dtype, tile, name):
    vl = lanes(dtype)
    number = np.dtype(dtype).type
    size = np.dtype(dtype).itemsize

    def direct(args, thread, threads):
        a = carray(args, 1)[0]
        kd_lo, kd_hi = as_pointer(a.kd_lo, np.int64), as_pointer(a.kd_hi, np.int64)
        kh_lo, kh_hi = as_pointer(a.kh_lo, np.int64), as_pointer(a.kh_hi, np.int64)
        tile_first, tile_width = as_pointer(a.tile_first, np.int64), as_pointer(a.tile_width, np.int64)
        tile_pixels = as_pointer(a.tile_pixels, np.int64)
        taps = a.KD * a.KH * a.KW
        reduction = ((a.n_blocks - 1) * a.block + a.last_block) * taps
        alpha, lo, hi = number(a.alpha), number(a.lo), number(a.hi)
        items = a.batch * a.groups * a.chunks * a.tiles
        for item in range(items * thread // threads, items * (thread + 1) // threads):
            t = item % a.tiles
            chunk = item // a.tiles % a.chunks
            g = item // (a.tiles * a.chunks) % a.groups
            n = item // (a.tiles * a.chunks * a.groups)
            v0, nv, pixels = get(tile_first, t), get(tile_width, t), get(tile_pixels, t)
            tail = a.tail if t == a.tiles - 1 else vl
            row0 = chunk * a.chunk_rows
            row1 = min(row0 + a.chunk_rows, a.rows)
            x0 = n * a.x_batch + g * a.x_group
            y0 = n * a.y_batch + g * a.y_group + v0 * a.y_vector
            r0 = n * a.r_batch + g * a.r_group + v0 * a.r_vector
            bias = as_pointer(a.bias + (g * a.bias_group + v0 * vl) * size, dtype)
            for c0 in range(0, a.n_blocks, a.pass_blocks):
                blocks = min(a.pass_blocks, a.n_blocks - c0)
                first, last = c0 == 0, c0 + blocks == a.n_blocks
                last_block = a.last_block if last else a.block
                b_address = a.w + (g * a.w_group + v0 * vl * reduction + c0 * a.block * taps * nv * vl) * size
                depth = (blocks - 1) * a.block + last_block
                ahead = b_address + depth * taps * nv * vl * size  # the next pass follows in memory
                pieces, last_pieces = (a.out_w + pixels - 1) // pixels, (a.last_w + pixels - 1) // pixels
                calls = (row1 - row0) * pieces - (pieces - last_pieces if row1 == a.rows else 0)
                ahead_step = (nv * vl * size + calls - 1) // calls
                b = as_pointer(b_address, dtype)
                for row in range(row0, row1):
                    d, h = row // a.out_h, row % a.out_h
                    x_row = (
                        x0
                        + c0 * a.x_block
                        + (d * a.stride_d + a.origin_d) * a.x_d
                        + (h * a.stride_h + a.origin_h) * a.x_h
                    )
                    y_row = y0 + d * a.y_d + h * a.y_h
                    r_row = r0 + d * a.r_d + h * a.r_h
                    out_w = a.last_w if row == a.rows - 1 else a.out_w
                    pieces = (out_w + pixels - 1) // pixels
                    for piece in range(pieces):
                        p0, p1 = out_w * piece // pieces, out_w * (piece + 1) // pieces
                        residual = a.residual
                        if residual != 0:
                            residual += (r_row + p0 * a.r_pixel) * size
                        tile(
                            p1 - p0, nv, as_pointer(a.x + (x_row + p0 * a.x_pixel) * size, dtype), b,
                            as_pointer(a.y + (y_row + p0 * a.y_pixel) * size, dtype), as_pointer(residual, dtype),
                            bias, a.x_pixel, a.x_block, a.x_kd, a.x_kh, a.x_kw, blocks, a.block, last_block,
                            get(kd_lo, d), get(kd_hi, d), get(kh_lo, h), get(kh_hi, h), a.KD, a.KH, a.KW, a.y_pixel,
                            a.y_vector, a.r_pixel, a.r_vector, tail, ahead, ahead_step, first, last, alpha, lo, hi,
                        )  # fmt: skip
                        ahead += depth * taps * ahead_step

    direct.__name__ = direct.__qualname__ = name
    return kernel(DIRECT)(direct)


direct_f32 = _make(np.float32, register_tile, "direct_float32")
direct_f64 = _make(np.float64, register_tile, "direct_float64")
adjacent_f32 = _make(np.float32, adjacent_tile, "adjacent_float32")
"""Taps in one plane, and pixels of x, y and the residual a register apart: blocked 1-D and 2-D without a stride."""
pointwise_f32 = _make(np.float32, pointwise_tile, "pointwise_float32")
"""As `adjacent_f32`, of one tap that is always inside the input: 1x1 convolutions."""
strided_pointwise_f32 = _make(np.float32, strided_pointwise_tile, "strided_pointwise_float32")
"""As `pointwise_f32`, whatever the pixels of x are apart."""

VARIANTS: dict[type, list[tuple[Kernel, dict[str, int]]]] = {
    np.float32: [
        (pointwise_f32, POINTWISE),
        (strided_pointwise_f32, STRIDED_POINTWISE),
        (adjacent_f32, ADJACENT),
        (direct_f32, {}),
    ],
    np.float64: [(direct_f64, {})],
}
"""The kernels of a type, and the fields of the record that each takes for granted, from most to fewest."""
