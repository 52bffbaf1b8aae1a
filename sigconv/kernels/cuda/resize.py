"""Separable interpolation over up to three dimensions with any number of taps (1: nearest, 2: linear, 4: cubic)."""

from __future__ import annotations

import numpy as np
from numba import cuda

from sigconv.kernels.cuda.index import unravel
from sigconv.kernels.cuda.jit import BLOCK, Kernel, kernel, record, suffix

PARAMS = record("Resize", "out_d out_h out_w in_d in_h in_w taps_d taps_h taps_w first_h first_w")
"""Planes of x and y are dense. Grid: (planes, outputs of a plane in blocks).

``index`` (int32) and ``weight`` hold [out, taps] of d, then from ``first_h`` those of h, from ``first_w`` those of w.
"""


def make(real: type) -> Kernel:
    """The kernel of one float type."""
    zero = real(0)

    def resize(p, index, weight, x, y):
        plane = cuda.blockIdx.x
        source = plane * p.in_d * p.in_h * p.in_w
        outputs = p.out_d * p.out_h * p.out_w
        for o in range(cuda.blockIdx.y * BLOCK + cuda.threadIdx.x, outputs, cuda.gridDim.y * BLOCK):
            od, oh, ow = unravel(o, p.out_h, p.out_w)
            d0 = od * p.taps_d
            h0 = p.first_h + oh * p.taps_h
            w0 = p.first_w + ow * p.taps_w
            v = zero
            for kd in range(d0, d0 + p.taps_d):
                for kh in range(h0, h0 + p.taps_h):
                    row = source + (index[kd] * p.in_h + index[kh]) * p.in_w
                    u = zero
                    for kw in range(w0, w0 + p.taps_w):
                        u += weight[kw] * x[row + index[kw]]
                    v += weight[kd] * weight[kh] * u
            y[plane * outputs + o] = v

    resize.__name__ = f"resize_{suffix(real)}"
    return kernel(PARAMS, "int32 real real real", BLOCK, real=real)(resize)


RESIZE = {np.dtype(real).name: make(real) for real in (np.float32, np.float64)}
"""By dtype."""
