"""Reductions over two nested axes, for every index of two outer axes and one inner axis; every axis has its own stride.

Partial results are kept in the array's precision over at most `BLOCK` steps of a lane and then joined in float64, so
that a float32 sum of a million numbers keeps six digits at the speed of float32 vectors.
"""

from __future__ import annotations

import math

import numpy as np

from sigconv.kernels.address import as_pointer
from sigconv.kernels.cpu.lanes import exp, lane, magnitude, maximum, minimum, widen
from sigconv.kernels.jit import Kernel, inline, kernel
from sigconv.kernels.late import carray
from sigconv.kernels.simd import add, broadcast, lanes, load, mul

BLOCK = 128

ARGS = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("src", "dst", "outer0", "outer1", "reduced0", "reduced1", "inner"),
            *("src_outer0", "src_outer1", "src_reduced0", "src_reduced1", "src_inner"),
            *("dst_outer0", "dst_outer1", "dst_inner"),
        )
    ]
)
"""dst[o0, o1, i] = R over (r0, r1) of src[o0, o1, r0, r1, i]; strides in elements.

Fast where src_inner is 1 (and inner is long) or src_reduced1 is 1."""


@inline
def itself(x):
    return x


@inline
def square(x):
    return mul(x, x)


@inline
def total(x, n):
    return x


@inline
def mean(x, n):
    return x / n


@inline
def root(x, n):
    return math.sqrt(x)


@inline
def logarithm(x, n):
    return math.log(x)


def make(dtype: type, name: str, identity: float, value, combine, finish) -> Kernel:
    """finish(combine over r of value(x), number of r); NaN in gives NaN out; no elements give finish(identity, 0)."""
    size, width = np.dtype(dtype).itemsize, lanes(dtype)
    start, wide_start = dtype(identity), np.float64(identity)

    @inline
    def reduce_numbers(src, n0, s0, n1, s1):
        result = wide_start
        for r0 in range(n0):
            for block in range(0, n1, BLOCK):
                part = start
                for r1 in range(block, min(block + BLOCK, n1)):
                    part = combine(part, value(src[r0 * s0 + r1 * s1]))
                result = combine(result, widen(part))
        return result

    @inline
    def reduce_vectors(src, n0, s0, n1, s1):
        """The reduction of each lane of a vector that moves by s0 and s1."""
        result = widen(broadcast(start))
        for r0 in range(n0):
            for block in range(0, n1, BLOCK):
                part = broadcast(start)
                for r1 in range(block, min(block + BLOCK, n1)):
                    part = combine(part, value(load(src, r0 * s0 + r1 * s1)))
                result = combine(result, widen(part))
        return result

    def reduce(args, thread, threads):
        a = carray(args, 1)[0]
        n0, s0, n1, s1 = a.reduced0, a.src_reduced0, a.reduced1, a.src_reduced1
        n = np.float64(n0 * n1)
        across = a.src_inner == 1 and a.inner >= width  # vectors of neighbouring outputs
        along = not across and s1 == 1  # vectors of neighbouring inputs of one output
        vectors = n1 // width if along else 0
        chunks = (a.inner + width - 1) // width
        items = a.outer0 * a.outer1 * chunks
        for item in range(items * thread // threads, items * (thread + 1) // threads):
            first = item % chunks * width
            o1 = item // chunks % a.outer1
            o0 = item // chunks // a.outer1
            count = min(width, a.inner - first)
            src = a.src + size * (o0 * a.src_outer0 + o1 * a.src_outer1 + first * a.src_inner)
            dst = as_pointer(a.dst + size * (o0 * a.dst_outer0 + o1 * a.dst_outer1 + first * a.dst_inner), dtype)
            whole = across and count == width  # one vector is all of this item's outputs
            for i in range(1 if whole else count):
                x = as_pointer(src + size * i * a.src_inner, dtype)
                wide = reduce_vectors(x, n0, s0, n1 if whole else vectors, s1 if whole else width)
                result = wide_start
                for k in range(width):
                    if whole:
                        dst[k * a.dst_inner] = dtype(finish(lane(wide, k), n))
                    else:
                        result = combine(result, lane(wide, k))
                if not whole:
                    rest = as_pointer(src + size * (i * a.src_inner + vectors * width), dtype)
                    result = combine(result, reduce_numbers(rest, n0, s0, n1 - vectors * width, s1))
                    dst[i * a.dst_inner] = dtype(finish(result, n))

    reduce.__name__ = reduce.__qualname__ = name
    return kernel(ARGS)(reduce)


def make_log_sum_exp(dtype: type, name: str) -> Kernel:
    """log(sum(exp(x))), shifted by the largest x (where that is finite)."""
    size = np.dtype(dtype).itemsize

    @inline
    def log_sum_exp(src, n0, s0, n1, s1):
        largest = dtype(-np.inf)
        for r0 in range(n0):
            for r1 in range(n1):
                largest = maximum(largest, src[r0 * s0 + r1 * s1])
        if not math.isfinite(largest):
            largest = dtype(0)
        result = 0.0
        for r0 in range(n0):
            for r1 in range(n1):
                result += widen(exp(src[r0 * s0 + r1 * s1] - largest))
        return dtype(math.log(result) + largest)

    def reduce(args, thread, threads):
        a = carray(args, 1)[0]
        items = a.outer0 * a.outer1 * a.inner
        for item in range(items * thread // threads, items * (thread + 1) // threads):
            i = item % a.inner
            o1 = item // a.inner % a.outer1
            o0 = item // a.inner // a.outer1
            src = as_pointer(a.src + size * (o0 * a.src_outer0 + o1 * a.src_outer1 + i * a.src_inner), dtype)
            dst = as_pointer(a.dst + size * (o0 * a.dst_outer0 + o1 * a.dst_outer1 + i * a.dst_inner), dtype)
            dst[0] = log_sum_exp(src, a.reduced0, a.src_reduced0, a.reduced1, a.src_reduced1)

    reduce.__name__ = reduce.__qualname__ = name
    return kernel(ARGS)(reduce)


def _both(op: str, *rule) -> tuple[Kernel, Kernel]:
    return make(np.float32, f"reduce_{op}_f32", *rule), make(np.float64, f"reduce_{op}_f64", *rule)


reduce_sum_f32, reduce_sum_f64 = _both("sum", 0.0, itself, add, total)
reduce_mean_f32, reduce_mean_f64 = _both("mean", 0.0, itself, add, mean)
reduce_max_f32, reduce_max_f64 = _both("max", -np.inf, itself, maximum, total)
reduce_min_f32, reduce_min_f64 = _both("min", np.inf, itself, minimum, total)
reduce_prod_f32, reduce_prod_f64 = _both("prod", 1.0, itself, mul, total)
reduce_l1_f32, reduce_l1_f64 = _both("l1", 0.0, magnitude, add, total)
reduce_l2_f32, reduce_l2_f64 = _both("l2", 0.0, square, add, root)
reduce_sum_square_f32, reduce_sum_square_f64 = _both("sum_square", 0.0, square, add, total)
reduce_log_sum_f32, reduce_log_sum_f64 = _both("log_sum", 0.0, itself, add, logarithm)
reduce_log_sum_exp_f32 = make_log_sum_exp(np.float32, "reduce_log_sum_exp_f32")
reduce_log_sum_exp_f64 = make_log_sum_exp(np.float64, "reduce_log_sum_exp_f64")
