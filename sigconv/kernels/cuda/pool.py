"""Max and average pooling over up to three dimensions."""

from __future__ import annotations

import numpy as np
from numba import cuda

from sigconv.kernels.cuda.index import unravel
from sigconv.kernels.cuda.jit import BLOCK, Kernel, kernel, record, suffix

PARAMS = record(
    "Pool",
    "out_d out_h out_w in_d in_h in_w kernel_d kernel_h kernel_w stride_d stride_h stride_w "
    "dilation_d dilation_h dilation_w before_d before_h before_w step_d step_h step_w",
)
"""Planes of x and y are dense. Grid: (planes, outputs of a plane in blocks).

An average divides by the product of the counts of its three positions, which lie in one table: out_d, out_h, out_w.
A window without inputs has the maximum -inf, at -1, and the average 0. NaN in a window gives NaN. ``places`` takes
where the maximum is, the first one of equals, counted over all of x by steps along d, h and w.
"""

MAX, AVERAGE, PLACED = KINDS = ("max", "average", "max_placed")


def make(kind: str, real: type) -> Kernel:
    """``max_pool_f32`` and its kin."""
    average, placed = kind == AVERAGE, kind == PLACED
    start = real(0) if average else real(-np.inf)
    one = real(1)

    def pool(p, counts, x, y, places):
        plane = cuda.blockIdx.x
        size = p.in_d * p.in_h * p.in_w
        source = plane * size
        outputs = p.out_d * p.out_h * p.out_w
        for o in range(cuda.blockIdx.y * BLOCK + cuda.threadIdx.x, outputs, cuda.gridDim.y * BLOCK):
            od, oh, ow = unravel(o, p.out_h, p.out_w)
            v = start
            place = -1
            for kd in range(p.kernel_d):
                d = od * p.stride_d - p.before_d + kd * p.dilation_d
                for kh in range(p.kernel_h):
                    h = oh * p.stride_h - p.before_h + kh * p.dilation_h
                    row = source + (d * p.in_h + h) * p.in_w
                    if 0 <= d < p.in_d and 0 <= h < p.in_h:
                        for kw in range(p.kernel_w):
                            i = ow * p.stride_w - p.before_w + kw * p.dilation_w
                            if 0 <= i < p.in_w:
                                u = x[row + i]
                                if average:
                                    v += u
                                elif placed:
                                    if place < 0 or u > v or (u != u and v == v):
                                        v = u
                                        place = d * p.step_d + h * p.step_h + i * p.step_w
                                elif u > v or u != u:
                                    v = u
            if average:
                v /= max(one, real(counts[od] * counts[p.out_d + oh] * counts[p.out_d + p.out_h + ow]))
            if placed:
                places[plane * outputs + o] = place if place < 0 else source + place
            y[plane * outputs + o] = v

    pool.__name__ = f"{kind}_pool_{suffix(real)}"
    return kernel(PARAMS, "int32 real real int64", BLOCK, real=real)(pool)


POOLS = {(np.dtype(real).name, kind): make(kind, real) for real in (np.float32, np.float64) for kind in KINDS}
"""By (dtype, kind)."""
