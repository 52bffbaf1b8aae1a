"""Reductions over two nested axes, for every index of two outer axes and one inner axis; every axis has its own stride.

Partial results are kept in the array's precision over at most `BLOCK` steps of a lane and then joined in float64, so
that a float32 sum of a million numbers keeps six digits at the speed of float32 vectors.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from sigconv.kernels.address import as_pointer
from sigconv.kernels.cpu.lanes import exp, lane, magnitude, maximum, minimum, widen
from sigconv.kernels.jit import Kernel, inline, kernel
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
    chunk = 4 * width
    start, wide_start = dtype(identity), np.float64(identity)

    @inline
    def one_number(src, n0, s0, n1, s1):
        result = wide_start
        for r0 in range(n0):
            for block in range(0, n1, BLOCK):
                part = start
                for r1 in range(block, min(block + BLOCK, n1)):
                    part = combine(part, value(src[r0 * s0 + r1 * s1]))
                result = combine(result, widen(part))
        return result

    @inline
    def one_vector(src, n0, s0, n1, s1):
        """The reduction of each lane of a vector that moves by s0 and s1."""
        result = widen(broadcast(start))
        for r0 in range(n0):
            for block in range(0, n1, BLOCK):
                part = broadcast(start)
                for r1 in range(block, min(block + BLOCK, n1)):
                    part = combine(part, value(load(src, r0 * s0 + r1 * s1)))
                result = combine(result, widen(part))
        return result

    @inline
    def four_vectors(src, n0, s0, n1, s1, apart):
        """Four vectors, ``apart`` elements from one another, that move together."""
        a = b = c = d = widen(broadcast(start))
        for r0 in range(n0):
            for block in range(0, n1, BLOCK):
                e = f = g = h = broadcast(start)
                for r1 in range(block, min(block + BLOCK, n1)):
                    at = r0 * s0 + r1 * s1
                    e = combine(e, value(load(src, at)))
                    f = combine(f, value(load(src, at + apart)))
                    g = combine(g, value(load(src, at + 2 * apart)))
                    h = combine(h, value(load(src, at + 3 * apart)))
                a, b, c, d = (combine(a, widen(e)), combine(b, widen(f)), combine(c, widen(g)), combine(d, widen(h)))
        return a, b, c, d

    @inline
    def shifted(a_src, elements):
        return as_pointer(a_src + size * elements, dtype)

    @inline
    def along(src, a):
        """One output: the last reduced axis is contiguous."""
        n0, s0, n1 = a.reduced0, a.src_reduced0, a.reduced1
        fours, vectors = n1 // chunk, n1 // width
        result = wide_start
        if fours > 0:
            p, q, r, s = four_vectors(as_pointer(src, dtype), n0, s0, fours, chunk, width)
            wide = combine(combine(p, q), combine(r, s))
            for i in range(width):
                result = combine(result, lane(wide, i))
        if vectors > 4 * fours:
            wide = one_vector(shifted(src, fours * chunk), n0, s0, vectors - 4 * fours, width)
            for i in range(width):
                result = combine(result, lane(wide, i))
        return combine(result, one_number(shifted(src, vectors * width), n0, s0, n1 - vectors * width, 1))

    @inline
    def store(dst, at, step, wide, n):
        for i in range(width):
            dst[(at + i) * step] = dtype(finish(lane(wide, i), n))

    @inline
    def across(src, dst, a, count, n):
        """Up to ``chunk`` neighbouring outputs: the inner axis is contiguous."""
        n0, s0, n1, s1 = a.reduced0, a.src_reduced0, a.reduced1, a.src_reduced1
        if count == chunk:
            p, q, r, s = four_vectors(as_pointer(src, dtype), n0, s0, n1, s1, width)
            store(dst, 0, a.dst_inner, p, n)
            store(dst, width, a.dst_inner, q, n)
            store(dst, 2 * width, a.dst_inner, r, n)
            store(dst, 3 * width, a.dst_inner, s, n)
            return
        body = count - count % width
        for i in range(0, body, width):
            p, q, r, s = four_vectors(shifted(src, i), n0, s0, n1 // 4, 4 * s1, s1)
            rest = one_vector(shifted(src, i + n1 // 4 * 4 * s1), n0, s0, n1 % 4, s1)
            store(dst, i, a.dst_inner, combine(combine(combine(p, q), combine(r, s)), rest), n)
        for i in range(body, count):
            dst[i * a.dst_inner] = dtype(finish(one_number(shifted(src, i), n0, s0, n1, s1), n))

    def reduce(args, thread, threads):
        a = numba.carray(args, 1)[0]
        n = np.float64(a.reduced0 * a.reduced1)
        chunks = (a.inner + chunk - 1) // chunk
        items = a.outer0 * a.outer1 * chunks
        for item in range(items * thread // threads, items * (thread + 1) // threads):
            first = item % chunks * chunk
            o1 = item // chunks % a.outer1
            o0 = item // chunks // a.outer1
            count = min(chunk, a.inner - first)
            src = a.src + size * (o0 * a.src_outer0 + o1 * a.src_outer1 + first * a.src_inner)
            dst = shifted(a.dst, o0 * a.dst_outer0 + o1 * a.dst_outer1 + first * a.dst_inner)
            if a.src_inner == 1 and a.inner > 1:
                across(src, dst, a, count, n)
            elif a.src_reduced1 == 1:
                for i in range(count):
                    dst[i * a.dst_inner] = dtype(finish(along(src + size * i * a.src_inner, a), n))
            else:
                for i in range(count):
                    one = one_number(
                        shifted(src, i * a.src_inner), a.reduced0, a.src_reduced0, a.reduced1, a.src_reduced1
                    )
                    dst[i * a.dst_inner] = dtype(finish(one, n))

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
        a = numba.carray(args, 1)[0]
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
