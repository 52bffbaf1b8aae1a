"""Depthwise convolution: every output channel reads one input channel, so there is nothing to tile but the row."""

from __future__ import annotations

import numpy as np
from numba import cuda

from sigconv.kernels.cuda.epilogue import finish
from sigconv.kernels.cuda.index import quotient, unravel
from sigconv.kernels.cuda.jit import BLOCK, Kernel, kernel, record, suffix

PARAMS = record(
    "Depthwise",
    "channels multiplier out_d out_h out_w in_d in_h in_w kernel_d kernel_h kernel_w stride_d stride_h stride_w "
    "dilation_d dilation_h dilation_w before_d before_h before_w has_bias has_residual",
    "alpha lo hi",
)
"""y[n, c, o] = finish(bias[c] + sum over taps k of w[c, k] x[n, c // multiplier, o * stride - before + k * dilation]
+ residual[n, c, o]), everything dense. ``channels``: of y. Grid: (n x channels, outputs of a channel in blocks)."""


def make(real: type) -> Kernel:
    """The kernel of one float type."""
    zero = real(0)

    def depthwise(p, x, w, bias, residual, y):
        plane = cuda.blockIdx.x
        image = quotient(plane, p.channels)
        channel = plane - image * p.channels
        source = quotient(plane, p.multiplier) * p.in_d * p.in_h * p.in_w
        taps = channel * p.kernel_d * p.kernel_h * p.kernel_w
        outputs = p.out_d * p.out_h * p.out_w
        for o in range(cuda.blockIdx.y * BLOCK + cuda.threadIdx.x, outputs, cuda.gridDim.y * BLOCK):
            od, oh, ow = unravel(o, p.out_h, p.out_w)
            d0 = od * p.stride_d - p.before_d
            h0 = oh * p.stride_h - p.before_h
            w0 = ow * p.stride_w - p.before_w
            v = zero
            tap = taps
            for kd in range(p.kernel_d):
                d = d0 + kd * p.dilation_d
                for kh in range(p.kernel_h):
                    h = h0 + kh * p.dilation_h
                    row = source + (d * p.in_h + h) * p.in_w
                    if 0 <= d < p.in_d and 0 <= h < p.in_h:
                        for kw in range(p.kernel_w):
                            i = w0 + kw * p.dilation_w
                            if 0 <= i < p.in_w:
                                v += w[tap + kw] * x[row + i]
                    tap += p.kernel_w
            at = plane * outputs + o
            if p.has_bias:
                v += bias[channel]
            if p.has_residual:
                v += residual[at]
            y[at] = finish(v, p.alpha, p.lo, p.hi)

    depthwise.__name__ = f"depthwise_{suffix(real)}"
    return kernel(PARAMS, "real real real real real", BLOCK, real=real)(depthwise)


DEPTHWISE = {np.dtype(real).name: make(real) for real in (np.float32, np.float64)}
"""By dtype."""
