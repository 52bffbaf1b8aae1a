"""`implicit_gemm` on tensor cores: the same product, of operands that are rounded while they are fetched.

A block has tiles of both operands in shared memory, as words (see `mma`); a warp multiplies fragments of them. A tile's
rows are 8 words longer than its width: so the 32 lanes of a fragment, 4 rows by 8 columns, meet 32 different banks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import cuda

from sigconv.kernels.cuda import mma
from sigconv.kernels.cuda.implicit_gemm import COLUMNS, PARAMS, store, tap, window
from sigconv.kernels.cuda.jit import Kernel, kernel

PAD = 8


@dataclass(frozen=True)
class Tile:
    """A block's share: ``m`` channels x ``n`` pixels, ``k`` words deep, by ``down`` x ``across`` warps."""

    m: int
    n: int
    k: int
    down: int
    across: int

    @property
    def threads(self) -> int:
        return mma.WARP * self.down * self.across

    @property
    def name(self) -> str:
        return f"{self.m}x{self.n}"


TILES = (Tile(128, 128, 8, 2, 4), Tile(64, 64, 8, 2, 2))


def make(tile: Tile, of: mma.Format) -> Kernel:
    """The kernel of one tile size and format. Grid: (pixels, m, groups) in tiles, as `implicit_gemm`'s."""
    bm, bn, bk, threads, across = tile.m, tile.n, tile.k, tile.threads, tile.across
    tm, tn = bm // tile.down // mma.ROWS, bn // across // mma.COLUMNS  # products of a warp
    per, pack, product = of.per_word, of.pack, of.product
    depth, rows = bk * per, threads // bn
    loads_a, loads_b = bm * bk // threads, bn * bk // threads
    width_w, width_x = bm + PAD, bn + PAD
    zero = np.float32(0)

    def conv(p, x, w, table, bias, residual, y):
        tile_w = cuda.shared.array((2, bk, width_w), np.int32)
        tile_x = cuda.shared.array((2, bk, width_x), np.int32)
        target = cuda.shared.array(bn, np.int32)
        sums = cuda.local.array((tm, tn, 4), np.float32)
        next_w = cuda.local.array((loads_a, per), np.float32)
        next_x = cuda.local.array((loads_b, per), np.float32)
        a = cuda.local.array((tm, 4), np.int32)
        b = cuda.local.array((tn, 2), np.int32)
        t = cuda.threadIdx.x
        warp, lane = t // 32, t % 32
        g, q = lane // 4, lane % 4
        row, column = warp // across * (tm * 16), warp % across * (tn * 8)
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
                for e in range(4):
                    sums[i, j, e] = zero
        for k0 in range(-depth, p.k, depth):
            after = k0 + depth  # the tile that is fetched while this one is multiplied
            if after < p.k:
                for i in range(loads_a):
                    for e in range(per):
                        k, m = after + (t + i * threads) // bm * per + e, m0 + (t + i * threads) % bm
                        next_w[i, e] = w[w0 + m * p.w_m + table[COLUMNS * k + 4]] if k < p.k and m < p.m else zero
                for i in range(loads_b):
                    for e in range(per):
                        k = after + (first + i * rows) * per + e
                        next_x[i, e] = tap(p, x, table, k, x0, at_d, at_h, at_w) if inside and k < p.k else zero
            now = (after // depth) & 1
            if k0 >= 0:
                for k in range(0, bk, 8):
                    for i in range(tm):
                        for e in range(4):
                            a[i, e] = tile_w[1 - now, k + q + e // 2 * 4, row + 16 * i + g + e % 2 * 8]
                    for j in range(tn):
                        for e in range(2):
                            b[j, e] = tile_x[1 - now, k + q + e * 4, column + 8 * j + g]
                    for i in range(tm):
                        for j in range(tn):
                            sums[i, j, 0], sums[i, j, 1], sums[i, j, 2], sums[i, j, 3] = product(
                                a[i, 0], a[i, 1], a[i, 2], a[i, 3], b[j, 0], b[j, 1],
                                sums[i, j, 0], sums[i, j, 1], sums[i, j, 2], sums[i, j, 3],
                            )  # fmt: skip
            if after < p.k:
                for i in range(loads_a):
                    tile_w[now, (t + i * threads) // bm, (t + i * threads) % bm] = pack(
                        next_w[i, 0], next_w[i, per - 1]
                    )
                for i in range(loads_b):
                    tile_x[now, first + i * rows, t % bn] = pack(next_x[i, 0], next_x[i, per - 1])
            cuda.syncthreads()
        for i in range(tm):
            for j in range(tn):
                for e in range(4):
                    m = m0 + row + 16 * i + g + e // 2 * 8
                    at = target[column + 8 * j + 2 * q + e % 2]
                    if m < p.m and at >= 0:
                        store(p, sums[0, j, e], group, m, at, bias, residual, y)
            for r in range(tm - 1):  # the next row becomes the first: sums[i] would not stay in registers
                for j in range(tn):
                    for e in range(4):
                        sums[r, j, e] = sums[r + 1, j, e]

    conv.__name__ = f"conv_implicit_mma_{of.name}_{tile.name}"
    return kernel(PARAMS, "float32 float32 int32 float32 float32 float32", threads, hot=True)(conv)


CONV: dict[tuple[str, str], Kernel] = {
    (name, tile.name): make(tile, of) for name, of in mma.FORMATS.items() for tile in TILES
}
"""By (format, tile)."""
