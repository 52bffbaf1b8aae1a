"""softmax and log_softmax over the middle axis of (outer, n, inner), every axis with its own stride.

x is shifted by its maximum, so no exponential overflows; a row with +inf or NaN, or all -inf, becomes NaN.
Sums are kept in float64.
"""

from __future__ import annotations

import numpy as np

from sigconv.kernels.address import as_pointer
from sigconv.kernels.cpu.lanes import div, exp, lane, log, maximum, narrow, widen
from sigconv.kernels.jit import Kernel, inline, kernel, strict
from sigconv.kernels.late import carray
from sigconv.kernels.simd import add, broadcast, lanes, load, store, sub

ARGS = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("src", "dst", "outer", "n", "inner"),
            *("src_outer", "src_n", "src_inner", "dst_outer", "dst_n", "dst_inner"),  # in elements
        )
    ]
)
"""Fast where src_n = dst_n = 1 with inner = 1, or src_inner = dst_inner = 1. ``dst`` may be ``src``."""


@strict
def _shifted(x, peak, shift):
    """In this order: x - (peak + shift) loses the digits of a small shift."""
    return sub(sub(x, peak), shift)


def make(dtype: type, name: str, logarithmic: bool) -> Kernel:
    size, width = np.dtype(dtype).itemsize, lanes(dtype)
    lowest, zero = dtype(-np.inf), dtype(0)

    @inline
    def contiguous(src, dst, n):
        """One row of n neighbours."""
        body = n - n % width
        peaks = broadcast(lowest)
        for i in range(0, body, width):
            peaks = maximum(peaks, load(src, i))
        peak = lowest
        for i in range(width):
            peak = maximum(peak, lane(peaks, i))
        for i in range(body, n):
            peak = maximum(peak, src[i])
        peaks = broadcast(peak)
        totals = widen(broadcast(zero))
        for i in range(0, body, width):
            power = exp(sub(load(src, i), peaks))
            totals = add(totals, widen(power))
            if not logarithmic:
                store(dst, i, power)
        total = 0.0
        for i in range(width):
            total += lane(totals, i)
        for i in range(body, n):
            power = exp(sub(src[i], peak))
            total += widen(power)
            if not logarithmic:
                dst[i] = power
        if logarithmic:
            shift = dtype(log(total))
            for i in range(n):
                dst[i] = _shifted(src[i], peak, shift)
        else:
            scale = dtype(1.0 / total)
            for i in range(n):
                dst[i] = dst[i] * scale

    @inline
    def columns(src, dst, n, src_n, dst_n):
        """``width`` neighbouring columns."""
        peak = broadcast(lowest)
        for k in range(n):
            peak = maximum(peak, load(src, k * src_n))
        wide = widen(broadcast(zero))
        for k in range(n):
            power = exp(sub(load(src, k * src_n), peak))
            wide = add(wide, widen(power))
            if not logarithmic:
                store(dst, k * dst_n, power)
        total = narrow(wide, peak)
        if logarithmic:
            shift = log(total)
            for k in range(n):
                store(dst, k * dst_n, _shifted(load(src, k * src_n), peak, shift))
        else:
            for k in range(n):
                store(dst, k * dst_n, div(load(dst, k * dst_n), total))

    @inline
    def column(src, dst, n, src_n, dst_n):
        peak = lowest
        for k in range(n):
            peak = maximum(peak, src[k * src_n])
        total = 0.0
        for k in range(n):
            power = exp(sub(src[k * src_n], peak))
            total += widen(power)
            if not logarithmic:
                dst[k * dst_n] = power
        if logarithmic:
            shift = log(dtype(total))
            for k in range(n):
                dst[k * dst_n] = _shifted(src[k * src_n], peak, shift)
        else:
            for k in range(n):
                dst[k * dst_n] = dst[k * dst_n] / dtype(total)

    def softmax(args, thread, threads):
        a = carray(args, 1)[0]
        by_row = a.inner == 1 and a.src_n == 1 and a.dst_n == 1
        by_columns = not by_row and a.src_inner == 1 and a.dst_inner == 1
        chunks = (a.inner + width - 1) // width
        items = a.outer * chunks
        for item in range(items * thread // threads, items * (thread + 1) // threads):
            first = item % chunks * width
            count = min(width, a.inner - first)
            outer = item // chunks
            src = a.src + size * (outer * a.src_outer + first * a.src_inner)
            dst = a.dst + size * (outer * a.dst_outer + first * a.dst_inner)
            if by_row:
                contiguous(as_pointer(src, dtype), as_pointer(dst, dtype), a.n)
            elif by_columns and count == width:
                columns(as_pointer(src, dtype), as_pointer(dst, dtype), a.n, a.src_n, a.dst_n)
            else:
                for i in range(count):
                    x, y = (
                        as_pointer(src + size * i * a.src_inner, dtype),
                        as_pointer(dst + size * i * a.dst_inner, dtype),
                    )
                    column(x, y, a.n, a.src_n, a.dst_n)

    softmax.__name__ = softmax.__qualname__ = name
    return kernel(ARGS)(softmax)


softmax_f32 = make(np.float32, "softmax_f32", False)
softmax_f64 = make(np.float64, "softmax_f64", False)
log_softmax_f32 = make(np.float32, "log_softmax_f32", True)
log_softmax_f64 = make(np.float64, "log_softmax_f64", True)
