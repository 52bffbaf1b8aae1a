"""Correlation of planes with one kernel or a kernel each: tiles in shared memory, sixteen sums a thread."""

from __future__ import annotations

import numpy as np
from numba import cuda

from sigconv.kernels.cuda.index import element
from sigconv.kernels.cuda.jit import BLOCK, SIMULATED, Kernel, kernel, record, suffix

LANES = 4 if SIMULATED else 32
"""Threads along a row."""
ACROSS, DOWN = 2, 8
"""Outputs of a thread: columns `LANES` apart, rows that are neighbours."""
TILE_W, TILE_H = LANES * ACROSS, BLOCK // LANES * DOWN
"""Outputs of a block."""
TAPS_W, TAPS_H, TAPS = 16, 8, 4
"""Taps in shared memory at a time; rows of them that a thread takes at once."""

PARAMS = record(
    "Planes",
    "planes n_h n_w count_h count_w taps_h taps_w origin_h origin_w w_plane boundary x_flip w_flip",
    "fill",
)
"""y[p, i, j] = sum over (a, b) of w[p * w_plane + a, b] x[p, i + a + origin_h, j + b + origin_w], x beyond its ends by
``boundary``, the axes one after the other. ``x_flip`` and ``w_flip``: read reversed on both axes.

Grid: (tiles along a row, along a column, planes, at most 65535: a block strides over them).
"""


def make(real: type) -> Kernel:
    """The kernel of one float type."""
    high, wide, inputs = TILE_H + TAPS_H, TILE_W + TAPS_W, DOWN + TAPS - 1
    zero = real(0)

    def correlate_planes(p, x, w, y):
        tile = cuda.shared.array((high, wide), real)
        taps = cuda.shared.array((TAPS_H, TAPS_W), real)
        sums = cuda.local.array((ACROSS, DOWN), real)
        window = cuda.local.array(inputs, real)
        of_w = cuda.local.array(TAPS, real)
        t = cuda.threadIdx.x
        lane, top = t % LANES, t // LANES * DOWN
        row0, column0 = cuda.blockIdx.y * TILE_H, cuda.blockIdx.x * TILE_W
        for plane in range(cuda.blockIdx.z, p.planes, cuda.gridDim.z):
            for c in range(ACROSS):
                for r in range(DOWN):
                    sums[c, r] = zero
            for a0 in range(0, p.taps_h, TAPS_H):
                rows = min(TAPS_H, p.taps_h - a0)
                for b0 in range(0, p.taps_w, TAPS_W):
                    columns = min(TAPS_W, p.taps_w - b0)
                    cuda.syncthreads()
                    for i in range(t, high * wide, BLOCK):
                        h, v = i // wide, i % wide
                        from_h = element(row0 + h + a0 + p.origin_h, p.n_h, p.boundary)
                        from_w = element(column0 + v + b0 + p.origin_w, p.n_w, p.boundary)
                        if from_h < 0 or from_w < 0:
                            tile[h, v] = p.fill
                        else:
                            if p.x_flip:
                                from_h, from_w = p.n_h - 1 - from_h, p.n_w - 1 - from_w
                            tile[h, v] = x[(plane * p.n_h + from_h) * p.n_w + from_w]
                    for i in range(t, TAPS_H * TAPS_W, BLOCK):
                        a, b = i // TAPS_W, i % TAPS_W
                        if a < rows and b < columns:
                            a, b = a0 + a, b0 + b
                            if p.w_flip:
                                a, b = p.taps_h - 1 - a, p.taps_w - 1 - b
                            taps[i // TAPS_W, i % TAPS_W] = w[plane * p.w_plane + a * p.taps_w + b]
                    cuda.syncthreads()
                    for b in range(columns):
                        for a in range(0, rows, TAPS):
                            for u in range(TAPS):
                                of_w[u] = taps[a + u, b]
                            for c in range(ACROSS):
                                for j in range(inputs):
                                    window[j] = tile[top + a + j, lane + c * LANES + b]
                                for u in range(TAPS):
                                    if a + u < rows:  # a tap that does not exist must not meet NaN or infinity
                                        for r in range(DOWN):
                                            sums[c, r] += of_w[u] * window[u + r]
            for c in range(ACROSS):
                column = column0 + lane + c * LANES
                for r in range(DOWN):
                    if row0 + top + r < p.count_h and column < p.count_w:
                        y[(plane * p.count_h + row0 + top + r) * p.count_w + column] = sums[c, r]

    correlate_planes.__name__ = f"correlate_planes_{suffix(real)}"
    return kernel(PARAMS, "real real real", BLOCK, real=real, hot=True)(correlate_planes)


PLANES = {np.dtype(real).name: make(real) for real in (np.float32, np.float64)}
"""By dtype."""
