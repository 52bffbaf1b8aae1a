"""Convolution as a product that is never written out: weights [M, K] times windows [K, pixels], K = channels x taps.

Every tap of every channel has a row in a table: where it lies from a window's origin, and where its weights are. So
one kernel runs 1 to 3 dimensions, strides, dilations, groups, weights in any order, and the phases of a transposed
convolution. Layout: NCHW; neighbouring threads have neighbouring pixels.
"""

from __future__ import annotations

import numpy as np
from numba import cuda

from sigconv.kernels.cuda.epilogue import finish
from sigconv.kernels.cuda.gemm import TILES, Tile
from sigconv.kernels.cuda.index import quotient, unravel
from sigconv.kernels.cuda.jit import Kernel, device, kernel, record, suffix

COLUMNS = 5
"""Of the table: offset in x, position along d, h and w (all from the window's origin), offset in the weights."""

PARAMS = record(
    "Conv",
    "m k pixels out_d out_h out_w in_d in_h in_w stride_d stride_h stride_w origin_d origin_h origin_w "
    "x_batch x_group x_d x_h w_group w_m y_batch y_group y_m y_d y_h y_w y_first has_bias has_residual",
    "alpha lo hi",
)
"""y[n, g, m, o] = finish(bias[g, m] + sum over k of w[g, m, k] x[n, g, window(o), k] + residual[n, g, m, o]).

``pixels``: batch x out_d x out_h x out_w. ``origin``: the index that tap 0 of output 0 reads, negative in padding.
Strides in elements; x's rows are dense, residual lies as y does. Grid: (pixels, m, groups) in tiles.
"""


@device
def window(p, pixel, group):
    """(offset of its origin in x, offset of its output in y, origin along d, h, w) of a pixel's window."""
    plane, oh, ow = unravel(pixel, p.out_h, p.out_w)
    n = quotient(plane, p.out_d)
    od = plane - n * p.out_d
    at_d = od * p.stride_d + p.origin_d
    at_h = oh * p.stride_h + p.origin_h
    at_w = ow * p.stride_w + p.origin_w
    x0 = n * p.x_batch + group * p.x_group + at_d * p.x_d + at_h * p.x_h + at_w
    return x0, n * p.y_batch + od * p.y_d + oh * p.y_h + ow * p.y_w + p.y_first, at_d, at_h, at_w


@device
def tap(p, x, table, k, x0, at_d, at_h, at_w):
    """What row ``k`` of the table reads in the window at (x0; at_d, at_h, at_w); 0 in the padding."""
    entry = COLUMNS * k
    d, h, v = at_d + table[entry + 1], at_h + table[entry + 2], at_w + table[entry + 3]
    if 0 <= d < p.in_d and 0 <= h < p.in_h and 0 <= v < p.in_w:
        return x[x0 + table[entry]]
    return x.dtype.type(0)


@device
def store(p, v, group, m, at, bias, residual, y):
    """Finish the sum ``v`` of channel ``m`` of a group; ``at``: where its pixel's output of channel 0 lies."""
    at += group * p.y_group + m * p.y_m
    if p.has_bias:
        v += bias[group * p.m + m]
    if p.has_residual:
        v += residual[at]
    y[at] = finish(v, p.alpha, p.lo, p.hi)


def make(tile: Tile, real: type) -> Kernel:
    """The kernel of one tile size: ``tile.m`` output channels by ``tile.n`` pixels a block."""
    bm, bn, bk, tm, tn, threads = tile.m, tile.n, tile.k, tile.tm, tile.tn, tile.threads
    across, loads_a, loads_b = bn // tn, bm * bk // threads, bn * bk // threads
    down, rows = bm // tm, threads // bn
    zero = real(0)

    def conv(p, x, w, table, bias, residual, y):
        tile_w = cuda.shared.array((2, bk, bm), real)
        tile_x = cuda.shared.array((2, bk, bn), real)
        target = cuda.shared.array(bn, np.int32)
        sums = cuda.local.array((tm, tn), real)
        next_w = cuda.local.array(loads_a, real)
        next_x = cuda.local.array(loads_b, real)
        of_w = cuda.local.array(tm, real)
        of_x = cuda.local.array(tn, real)
        t = cuda.threadIdx.x
        row, column = t // across, t % across
        m0, group = cuda.blockIdx.y * bm, cuda.blockIdx.z
        # this thread fetches one pixel's column of windows
        pixel = cuda.blockIdx.x * bn + t % bn
        first = t // bn
        inside = pixel < p.pixels
        x0, y0, at_d, at_h, at_w = window(p, pixel, group)
        w0 = group * p.w_group
        if first == 0:
            target[t % bn] = y0 if inside else -1
        for i in range(tm):
            for j in range(tn):
                sums[i, j] = zero
        for k0 in range(-bk, p.k, bk):
            after = k0 + bk  # the tile that is fetched while this one is multiplied
            if after < p.k:
                for i in range(loads_a):
                    k, m = after + (t + i * threads) // bm, m0 + (t + i * threads) % bm
                    next_w[i] = w[w0 + m * p.w_m + table[COLUMNS * k + 4]] if k < p.k and m < p.m else zero
                for i in range(loads_b):
                    k = after + first + i * rows
                    next_x[i] = tap(p, x, table, k, x0, at_d, at_h, at_w) if inside and k < p.k else zero
            now = (after // bk) & 1
            if k0 >= 0:
                for k in range(bk):
                    for i in range(tm):
                        of_w[i] = tile_w[1 - now, k, row + i * down]
                    for j in range(tn):
                        of_x[j] = tile_x[1 - now, k, column + j * across]
                    for i in range(tm):
                        for j in range(tn):
                            sums[i, j] += of_w[i] * of_x[j]
            if after < p.k:
                for i in range(loads_a):
                    tile_w[now, (t + i * threads) // bm, (t + i * threads) % bm] = next_w[i]
                for i in range(loads_b):
                    tile_x[now, first + i * rows, t % bn] = next_x[i]
            cuda.syncthreads()
        for i in range(tm):
            m = m0 + row + i * down
            for j in range(tn):
                at = target[column + j * across]
                if m < p.m and at >= 0:
                    store(p, sums[0, j], group, m, at, bias, residual, y)
            for r in range(tm - 1):  # the next row becomes the first: sums[i] would not stay in registers
                for j in range(tn):
                    sums[r, j] = sums[r + 1, j]

    conv.__name__ = f"conv_implicit_gemm_{tile.name}_{suffix(real)}"
    return kernel(PARAMS, "real real int32 real real real", threads, real=real, hot=True)(conv)


CONV: dict[tuple[str, str], Kernel] = {
    (np.dtype(real).name, tile.name): make(tile, real)
    for real, tiles in ((np.float32, TILES), (np.float64, TILES[1:]))
    for tile in tiles
}
"""By (dtype, tile)."""
