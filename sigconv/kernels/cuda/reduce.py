"""Reductions over up to two axes, for every index of up to three others; every axis has its own stride."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
from numba import cuda

from sigconv.kernels.cuda.index import quotient, unravel
from sigconv.kernels.cuda.jit import BLOCK, SIMULATED, Kernel, device, kernel, record, suffix

KINDS = ("sum", "mean", "max", "min", "prod", "l1", "l2", "sum_square", "log_sum", "log_sum_exp")
SUM, MEAN, MAX, MIN, PROD, L1, L2, SUM_SQUARE, LOG_SUM, LOG_SUM_EXP = range(len(KINDS))

PARAMS = record(
    "Reduce",
    "kind outer0 outer1 inner reduced0 reduced1 x_outer0 x_outer1 x_inner x_reduced0 x_reduced1 "
    "y_outer0 y_outer1 y_inner",
)
"""y[o0, o1, i] = R over (r0, r1) of x[o0, o1, r0, r1, i]; strides in elements, ``kind`` an index of `KINDS`."""


if SIMULATED:  # Numba gives a kernel's own module the simulator's barrier, not this one

    def barrier():
        threading.current_thread().syncthreads()  # type: ignore[attr-defined]

else:
    barrier = device(lambda: cuda.syncthreads())


@device
def combine(kind, a, b):
    """Two partial results as one; NaN wins."""
    if kind == MAX:
        return a if (a > b or a != a) else b
    if kind == MIN:
        return a if (a < b or a != a) else b
    return a * b if kind == PROD else a + b


@device
def across(kind, v, t, shared):
    """What the ``v`` of all threads of a block combine to, in each of them. ``shared``: `BLOCK` elements."""
    shared[t] = v
    barrier()
    half = BLOCK // 2
    while half > 0:
        if t < half:
            shared[t] = combine(kind, shared[t], shared[t + half])
        barrier()
        half //= 2
    v = shared[0]
    barrier()  # before anybody writes there again
    return v


def parts(real: type) -> tuple[Any, Any, Any]:
    """start(kind), value(kind, x, top), finish(kind, v, n, top)."""
    inf, zero, one = real(np.inf), real(0), real(1)

    @device
    def start(kind):
        if kind == MAX:
            return -inf
        if kind == MIN:
            return inf
        return one if kind == PROD else zero

    @device
    def value(kind, x, top):
        if kind == L2 or kind == SUM_SQUARE:
            return x * x
        if kind == L1:
            return abs(x)
        return real(math.exp(x - top)) if kind == LOG_SUM_EXP else x

    @device
    def log(x):
        if x > zero:
            return real(math.log(x))
        return -inf if x == zero else real(np.nan)

    @device
    def finish(kind, v, n, top):
        if kind == MEAN:
            return v / real(n)
        if kind == L2:
            return real(math.sqrt(v))
        if kind == LOG_SUM:
            return log(v)
        return log(v) + top if kind == LOG_SUM_EXP else v

    return start, value, finish


def make_rows(real: type) -> Kernel:
    """A block an output: for long reductions. Grid: (outputs)."""
    start, value, finish = parts(real)
    zero, inf = real(0), real(np.inf)

    def reduce_rows(p, x, y):
        shared = cuda.shared.array(BLOCK, real)
        t, output = cuda.threadIdx.x, cuda.blockIdx.x
        o0, o1, i = unravel(output, p.outer1, p.inner)
        base = o0 * p.x_outer0 + o1 * p.x_outer1 + i * p.x_inner
        count = p.reduced0 * p.reduced1
        top = zero
        for turn in range(0 if p.kind == LOG_SUM_EXP else 1, 2):  # the first turn finds the largest element
            kind = p.kind if turn == 1 else MAX
            v = start(kind)
            for r in range(t, count, BLOCK):
                r0 = quotient(r, p.reduced1)
                at = base + r0 * p.x_reduced0 + (r - r0 * p.reduced1) * p.x_reduced1
                v = combine(kind, v, value(kind, x[at], top))
            v = across(kind, v, t, shared)
            if turn == 0:
                top = v if abs(v) < inf else zero
        if t == 0:
            y[o0 * p.y_outer0 + o1 * p.y_outer1 + i * p.y_inner] = finish(p.kind, v, count, top)

    reduce_rows.__name__ = f"reduce_rows_{suffix(real)}"
    return kernel(PARAMS, "real real", BLOCK, real=real)(reduce_rows)


def make_columns(real: type) -> Kernel:
    """A thread an output: for short reductions of which there are many. Grid: (outputs in blocks)."""
    start, value, finish = parts(real)
    zero, inf = real(0), real(np.inf)

    def reduce_columns(p, x, y):
        outputs = p.outer0 * p.outer1 * p.inner
        for output in range(cuda.grid(1), outputs, cuda.gridsize(1)):
            o0, o1, i = unravel(output, p.outer1, p.inner)
            base = o0 * p.x_outer0 + o1 * p.x_outer1 + i * p.x_inner
            top = zero
            v = zero
            for turn in range(0 if p.kind == LOG_SUM_EXP else 1, 2):
                kind = p.kind if turn == 1 else MAX
                v = start(kind)
                for r0 in range(p.reduced0):
                    for r1 in range(p.reduced1):
                        v = combine(kind, v, value(kind, x[base + r0 * p.x_reduced0 + r1 * p.x_reduced1], top))
                if turn == 0:
                    top = v if abs(v) < inf else zero
            at = o0 * p.y_outer0 + o1 * p.y_outer1 + i * p.y_inner
            y[at] = finish(p.kind, v, p.reduced0 * p.reduced1, top)

    reduce_columns.__name__ = f"reduce_columns_{suffix(real)}"
    return kernel(PARAMS, "real real", BLOCK, real=real)(reduce_columns)


ROWS = {np.dtype(real).name: make_rows(real) for real in (np.float32, np.float64)}
COLUMNS = {np.dtype(real).name: make_columns(real) for real in (np.float32, np.float64)}
"""By dtype."""
