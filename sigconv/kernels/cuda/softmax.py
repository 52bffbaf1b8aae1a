"""Softmax and its logarithm along one axis, shifted by the largest element: a block a row."""

from __future__ import annotations

import math

import numpy as np
from numba import cuda

from sigconv.kernels.cuda.index import quotient
from sigconv.kernels.cuda.jit import BLOCK, Kernel, kernel, record, suffix
from sigconv.kernels.cuda.reduce import MAX, SUM, across, combine

PARAMS = record("Softmax", "n inner log")
"""Over x[outer, n, inner], dense. Grid: (outer x inner)."""


def make(real: type) -> Kernel:
    """The kernel of one float type."""
    lowest, zero = real(-np.inf), real(0)

    def softmax(p, x, y):
        shared = cuda.shared.array(BLOCK, real)
        t = cuda.threadIdx.x
        outer = quotient(cuda.blockIdx.x, p.inner)
        base = outer * p.n * p.inner + cuda.blockIdx.x - outer * p.inner
        top = lowest
        for i in range(t, p.n, BLOCK):
            top = combine(MAX, top, x[base + i * p.inner])
        top = across(MAX, top, t, shared)
        total = zero
        for i in range(t, p.n, BLOCK):
            total += real(math.exp(x[base + i * p.inner] - top))
        total = across(SUM, total, t, shared)
        for i in range(t, p.n, BLOCK):
            v = x[base + i * p.inner] - top
            y[base + i * p.inner] = v - real(math.log(total)) if p.log else real(math.exp(v)) / total

    softmax.__name__ = f"softmax_{suffix(real)}"
    return kernel(PARAMS, "real real", BLOCK, real=real)(softmax)


SOFTMAX = {np.dtype(real).name: make(real) for real in (np.float32, np.float64)}
"""By dtype."""
