"""Softmax and its logarithm along one axis, shifted by the largest element: a block a row."""

from __future__ import annotations

import math

import numpy as np
from numba import cuda

from sigconv.kernels.cuda.index import quotient
from sigconv.kernels.cuda.jit import BLOCK, Kernel, kernel, record, suffix

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
            v = x[base + i * p.inner]
            if v > top or v != v:
                top = v
        shared[t] = top
        cuda.syncthreads()
        half = BLOCK // 2
        while half > 0:
            if t < half:
                other = shared[t + half]
                if other > shared[t] or other != other:
                    shared[t] = other
            cuda.syncthreads()
            half //= 2
        top = shared[0]
        cuda.syncthreads()
        total = zero
        for i in range(t, p.n, BLOCK):
            total += real(math.exp(x[base + i * p.inner] - top))
        shared[t] = total
        cuda.syncthreads()
        half = BLOCK // 2
        while half > 0:
            if t < half:
                shared[t] += shared[t + half]
            cuda.syncthreads()
            half //= 2
        total = shared[0]
        for i in range(t, p.n, BLOCK):
            v = x[base + i * p.inner] - top
            y[base + i * p.inner] = v - real(math.log(total)) if p.log else real(math.exp(v)) / total

    softmax.__name__ = f"softmax_{suffix(real)}"
    return kernel(PARAMS, "real real", BLOCK, real=real)(softmax)


SOFTMAX = {np.dtype(real).name: make(real) for real in (np.float32, np.float64)}
"""By dtype."""
