"""Layer, instance, group and batch normalisation: y = (x - mean) / sqrt(variance + epsilon) * scale + bias."""

from __future__ import annotations

import math

import numpy as np
from numba import cuda

from sigconv.kernels.cuda.index import quotient
from sigconv.kernels.cuda.jit import BLOCK, Kernel, kernel, record, suffix
from sigconv.kernels.cuda.reduce import SUM, across

ROWS = record("NormRows", "n parameter_rows parameter_step inner has_scale has_bias", "epsilon")
"""Every row of n dense elements has a mean and a variance of its own, a block takes one. Grid: (rows).

Element i of row r takes scale and bias at (r % parameter_rows) * parameter_step + i // inner."""

BATCH = record("BatchNorm", "n channels inner", "epsilon")
"""Statistics by channel: x[outer, channels, inner], n elements in all."""


def make_rows(real: type) -> Kernel:
    """Two passes: the mean, then the variance about it."""
    zero, one = real(0), real(1)

    def norm_rows(p, x, scale, bias, y):
        shared = cuda.shared.array(BLOCK, real)
        t, row = cuda.threadIdx.x, cuda.blockIdx.x
        base = row * p.n
        v = zero
        for i in range(t, p.n, BLOCK):
            v += x[base + i]
        mean = across(SUM, v, t, shared) / real(p.n)
        v = zero
        for i in range(t, p.n, BLOCK):
            d = x[base + i] - mean
            v += d * d
        factor = one / real(math.sqrt(across(SUM, v, t, shared) / real(p.n) + p.epsilon))
        first = (row - quotient(row, p.parameter_rows) * p.parameter_rows) * p.parameter_step
        for i in range(t, p.n, BLOCK):
            k = first + quotient(i, p.inner)
            v = (x[base + i] - mean) * factor
            if p.has_scale:
                v *= scale[k]
            if p.has_bias:
                v += bias[k]
            y[base + i] = v

    norm_rows.__name__ = f"norm_rows_{suffix(real)}"
    return kernel(ROWS, "real real real real", BLOCK, real=real)(norm_rows)


def make_batch(real: type) -> Kernel:
    """With statistics that are known at run time only; constant ones are folded or a multiply-add."""

    def batch_norm(p, x, scale, bias, mean, variance, y):
        for i in range(cuda.grid(1), p.n, cuda.gridsize(1)):
            row = quotient(i, p.inner)
            c = row - quotient(row, p.channels) * p.channels
            y[i] = (x[i] - mean[c]) / real(math.sqrt(variance[c] + p.epsilon)) * scale[c] + bias[c]

    batch_norm.__name__ = f"batch_norm_{suffix(real)}"
    return kernel(BATCH, "real real real real real real", BLOCK, real=real)(batch_norm)


NORM_ROWS = {np.dtype(real).name: make_rows(real) for real in (np.float32, np.float64)}
BATCH_NORM = {np.dtype(real).name: make_batch(real) for real in (np.float32, np.float64)}
"""By dtype."""
