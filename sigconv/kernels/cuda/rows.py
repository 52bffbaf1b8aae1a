"""Correlation of rows with one kernel or a kernel each: tiles of signal in shared memory, eight sums a thread."""

from __future__ import annotations

import numpy as np
from numba import cuda

from sigconv.kernels.cuda.index import element
from sigconv.kernels.cuda.jit import BLOCK, Kernel, kernel, record, suffix

OUTPUTS = 8
"""Neighbouring outputs of a thread, and taps that it takes at once."""
TAPS = 128
"""Taps in shared memory at a time."""
TILE = BLOCK * OUTPUTS
"""Outputs of a block."""

PARAMS = record("Rows", "rows n count taps origin w_row boundary x_flip w_flip", "fill")
"""y[r, i] = sum over k of w[r * w_row + k] x[r, i + k + origin], x beyond its ends by ``boundary``.

``x_flip`` and ``w_flip``: read reversed. Grid: (tiles, rows, at most 65535: a block strides over them).
"""


def make(real: type) -> Kernel:
    """The kernel of one float type.

    A thread's outputs are neighbours, so that a window of 15 numbers in registers serves 64 multiply-adds; an element
    of padding after every eight keeps the threads, eight apart, in different banks.
    """
    span = TILE + TAPS
    room, inputs = span + span // OUTPUTS + OUTPUTS, 2 * OUTPUTS - 1
    zero = real(0)

    def correlate_rows(p, x, w, y):
        tile = cuda.shared.array(room, real)
        taps = cuda.shared.array(TAPS, real)
        sums = cuda.local.array(OUTPUTS, real)
        window = cuda.local.array(inputs, real)
        of_w = cuda.local.array(OUTPUTS, real)
        t = cuda.threadIdx.x
        first = cuda.blockIdx.x * TILE
        for row in range(cuda.blockIdx.y, p.rows, cuda.gridDim.y):
            for r in range(OUTPUTS):
                sums[r] = zero
            for k0 in range(0, p.taps, TAPS):
                cuda.syncthreads()
                for i in range(t, span, BLOCK):
                    source = element(first + i + k0 + p.origin, p.n, p.boundary)
                    if source < 0:
                        tile[i + i // OUTPUTS] = p.fill
                    else:
                        if p.x_flip:
                            source = p.n - 1 - source
                        tile[i + i // OUTPUTS] = x[row * p.n + source]
                here = min(TAPS, p.taps - k0)
                for k in range(t, TAPS, BLOCK):
                    if k < here:
                        tap = p.taps - 1 - (k0 + k) if p.w_flip else k0 + k
                        taps[k] = w[row * p.w_row + tap]
                cuda.syncthreads()
                for k in range(0, here, OUTPUTS):
                    base = (OUTPUTS + 1) * (t + k // OUTPUTS)
                    for j in range(inputs):
                        window[j] = tile[base + j + j // OUTPUTS]
                    for u in range(OUTPUTS):
                        of_w[u] = taps[k + u]
                    for u in range(OUTPUTS):
                        if k + u < here:  # a tap that does not exist must not meet NaN or infinity
                            for r in range(OUTPUTS):
                                sums[r] += of_w[u] * window[u + r]
            cuda.syncthreads()
            for r in range(OUTPUTS):
                tile[(OUTPUTS + 1) * t + r] = sums[r]
            cuda.syncthreads()
            for i in range(t, TILE, BLOCK):
                if first + i < p.count:
                    y[row * p.count + first + i] = tile[i + i // OUTPUTS]

    correlate_rows.__name__ = f"correlate_rows_{suffix(real)}"
    return kernel(PARAMS, "real real real", BLOCK, real=real, hot=True)(correlate_rows)


ROWS = {np.dtype(real).name: make(real) for real in (np.float32, np.float64)}
"""By dtype."""
