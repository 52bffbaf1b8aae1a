"""Matrix products with a fused epilogue: tiles of both operands in shared memory, a tile of sums in registers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import cuda

from sigconv.kernels.cuda.epilogue import finish
from sigconv.kernels.cuda.index import quotient
from sigconv.kernels.cuda.jit import BLOCK, Kernel, kernel, record, suffix
from sigconv.kernels.cuda.reduce import SUM, across


@dataclass(frozen=True)
class Tile:
    """A block's share of the product: ``m`` x ``n`` outputs, ``k`` products deep; a thread has ``tm`` x ``tn`` sums."""

    m: int
    n: int
    k: int
    tm: int
    tn: int

    @property
    def threads(self) -> int:
        return (self.m // self.tm) * (self.n // self.tn)

    @property
    def name(self) -> str:
        return f"{self.m}x{self.n}"


TILES = (Tile(128, 128, 8, 8, 8), Tile(64, 64, 8, 4, 4), Tile(32, 32, 8, 4, 4))
"""From large to small: the smaller, the more blocks a small product has, and the more it reads for each sum."""

PARAMS = record(
    "Gemm",
    "m n k a_m a_k b_k b_n c_m c_n batch1 a_batch0 a_batch1 b_batch0 b_batch1 c_batch0 c_batch1 has_residual",
    "scale beta alpha lo hi",
)
"""y[b, m, n] = finish(scale * sum over k of A[b, m, k] B[b, k, n] + beta * C[b, m, n] + residual[b, m, n]).

b = b0 * batch1 + b1; operands by strides in elements (0: repeated), y and residual are dense. Without C beta is 0 and
all its strides are.
"""


def make(tile: Tile, real: type) -> Kernel:
    """The kernel of one tile size. Grid: (columns, rows, batches) of tiles."""
    bm, bn, bk, tm, tn, threads = tile.m, tile.n, tile.k, tile.tm, tile.tn, tile.threads
    across, loads_a, loads_b = bn // tn, bm * bk // threads, bn * bk // threads
    down = bm // tm
    zero = real(0)

    def gemm(p, a, b, c, residual, y):
        tile_a = cuda.shared.array((2, bk, bm), real)
        tile_b = cuda.shared.array((2, bk, bn), real)
        sums = cuda.local.array((tm, tn), real)
        next_a = cuda.local.array(loads_a, real)
        next_b = cuda.local.array(loads_b, real)
        of_a = cuda.local.array(tm, real)
        of_b = cuda.local.array(tn, real)
        t = cuda.threadIdx.x
        row, column = t // across, t % across
        m0, n0, batch = cuda.blockIdx.y * bm, cuda.blockIdx.x * bn, cuda.blockIdx.z
        b0 = quotient(batch, p.batch1)
        b1 = batch - b0 * p.batch1
        a0 = b0 * p.a_batch0 + b1 * p.a_batch1
        w0 = b0 * p.b_batch0 + b1 * p.b_batch1
        for i in range(tm):
            for j in range(tn):
                sums[i, j] = zero
        for k0 in range(-bk, p.k, bk):
            after = k0 + bk  # the tile that is fetched while this one is multiplied
            if after < p.k:
                for i in range(loads_a):
                    k, m = after + (t + i * threads) // bm, m0 + (t + i * threads) % bm
                    next_a[i] = a[a0 + m * p.a_m + k * p.a_k] if k < p.k and m < p.m else zero
                for i in range(loads_b):
                    k, n = after + (t + i * threads) // bn, n0 + (t + i * threads) % bn
                    next_b[i] = b[w0 + k * p.b_k + n * p.b_n] if k < p.k and n < p.n else zero
            now = (after // bk) & 1
            if k0 >= 0:
                for k in range(bk):
                    for i in range(tm):
                        of_a[i] = tile_a[1 - now, k, row + i * down]
                    for j in range(tn):
                        of_b[j] = tile_b[1 - now, k, column + j * across]
                    for i in range(tm):
                        for j in range(tn):
                            sums[i, j] += of_a[i] * of_b[j]
            if after < p.k:
                for i in range(loads_a):
                    tile_a[now, (t + i * threads) // bm, (t + i * threads) % bm] = next_a[i]
                for i in range(loads_b):
                    tile_b[now, (t + i * threads) // bn, (t + i * threads) % bn] = next_b[i]
            cuda.syncthreads()
        c0 = b0 * p.c_batch0 + b1 * p.c_batch1
        for i in range(tm):
            m = m0 + row + i * down
            for j in range(tn):
                n = n0 + column + j * across
                if m < p.m and n < p.n:
                    at = (batch * p.m + m) * p.n + n
                    v = p.scale * sums[0, j]
                    if p.beta != 0:
                        v += p.beta * c[c0 + m * p.c_m + n * p.c_n]
                    if p.has_residual:
                        v += residual[at]
                    y[at] = finish(v, p.alpha, p.lo, p.hi)
            for r in range(tm - 1):  # the next row becomes the first: sums[i] would not stay in registers
                for j in range(tn):
                    sums[r, j] = sums[r + 1, j]

    gemm.__name__ = f"gemm_{tile.name}_{suffix(real)}"
    return kernel(PARAMS, "real real real real real", threads, real=real, hot=True)(gemm)


GEMM: dict[tuple[str, str], Kernel] = {
    (np.dtype(real).name, tile.name): make(tile, real)
    for real, tiles in ((np.float32, TILES), (np.float64, TILES[1:]))
    for tile in tiles
}
"""By (dtype, tile)."""


GEMV = record("Gemv", "m n k a_m a_k b_k b_n c_m c_n has_residual", "scale beta alpha lo hi")
"""As `PARAMS`, without batches: one block an output element. Grid: (n, m)."""


def make_gemv(real: type) -> Kernel:
    """For few rows, where the product takes as long as reading B: a block sums one output."""
    zero = real(0)

    def gemv(p, a, b, c, residual, y):
        shared = cuda.shared.array(BLOCK, real)
        t, n, m = cuda.threadIdx.x, cuda.blockIdx.x, cuda.blockIdx.y
        v = zero
        for k in range(t, p.k, BLOCK):
            v += a[m * p.a_m + k * p.a_k] * b[k * p.b_k + n * p.b_n]
        total = across(SUM, v, t, shared)
        if t == 0:
            at = m * p.n + n
            v = p.scale * total
            if p.beta != 0:
                v += p.beta * c[m * p.c_m + n * p.c_n]
            if p.has_residual:
                v += residual[at]
            y[at] = finish(v, p.alpha, p.lo, p.hi)

    gemv.__name__ = f"gemv_{suffix(real)}"
    return kernel(GEMV, "real real real real real", BLOCK, real=real)(gemv)


GEMVS = {np.dtype(real).name: make_gemv(real) for real in (np.float32, np.float64)}
"""By dtype."""
