"""Max and average pooling over up to three dimensions, in plain (c = 1) or channel-blocked layout.

Separable: one output row first combines its D x H input rows into a row buffer, element by element (contiguous in
every layout), then combines the W taps of the buffer. A window of k x k costs 2k instead of k*k.
"""

from __future__ import annotations

import numba
import numpy as np

from sigconv.kernels.address import as_pointer
from sigconv.kernels.cpu.lanes import div, maximum
from sigconv.kernels.jit import Kernel, inline, kernel
from sigconv.kernels.simd import add, broadcast, lanes, load, store

WINDOW = ("start", "tap_lo", "tap_hi", "divisor", "dilation")
"""Per dimension: addresses of int64[out] tables, and the step. Output o reads start[o] + k*dilation for
tap_lo[o] <= k < tap_hi[o]; an average divides by the product of the dimensions' divisor[o] (max: unused)."""

ARGS = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("src", "dst", "row", "row_thread"),  # row: scratch, row_thread elements (>= in_w * lanes) a thread
            *("items", "lanes", "in_w", "out_d", "out_h", "out_w"),  # items: batch x channel blocks
            *("src_item", "src_d", "src_h", "dst_item", "dst_d", "dst_h"),  # strides in elements; that of W is lanes
            *(f"{field}_{dim}" for dim in "dhw" for field in WINDOW),
        )
    ]
)


def make(dtype: type, name: str, identity: float, combine, average: bool) -> Kernel:
    """A pooling kernel. ``combine`` takes numbers and vectors; a window without inputs gives ``identity``.

    NaN in a window gives NaN (onnxruntime's own result depends on where in the window the NaN lies).
    """
    start_value = dtype(identity)
    size = np.dtype(dtype).itemsize
    width = lanes(dtype)

    @inline
    def combine_rows(src, row, n, d_step, d_lo, d_hi, h_step, h_lo, h_hi):
        """row[i] = combine over (kd, kh) of src[kd*d_step + kh*h_step + i]."""
        body = n - n % width
        for i in range(0, body, width):
            acc = broadcast(start_value)
            for kd in range(d_lo, d_hi):
                for kh in range(h_lo, h_hi):
                    acc = combine(acc, load(src, kd * d_step + kh * h_step + i))
            store(row, i, acc)
        for i in range(body, n):
            one = start_value
            for kd in range(d_lo, d_hi):
                for kh in range(h_lo, h_hi):
                    one = combine(one, src[kd * d_step + kh * h_step + i])
            row[i] = one

    @inline
    def combine_vector(row, at, step, taps):
        acc = broadcast(start_value)
        for k in range(taps):
            acc = combine(acc, load(row, at + k * step))
        return acc

    @inline
    def combine_one(row, at, step, taps):
        acc = start_value
        for k in range(taps):
            acc = combine(acc, row[at + k * step])
        return acc

    @inline
    def blocked(row, dst, a, area):
        """Channel lanes are vectors (the c % width lanes that may remain are numbers)."""
        c, dilation = a.lanes, a.dilation_w
        body = c - c % width
        start, tap_lo, tap_hi, divisor = (
            as_pointer(a.start_w, np.int64),
            as_pointer(a.tap_lo_w, np.int64),
            as_pointer(a.tap_hi_w, np.int64),
            as_pointer(a.divisor_w, np.int64),
        )
        for w in range(a.out_w):
            taps = tap_hi[w] - tap_lo[w]
            at = (start[w] + tap_lo[w] * dilation) * c
            count = dtype(max(area * divisor[w], 1)) if average else dtype(1)
            for v in range(0, body, width):
                acc = combine_vector(row, at + v, dilation * c, taps)
                store(dst, w * c + v, div(acc, broadcast(count)) if average else acc)
            for v in range(body, c):
                one = combine_one(row, at + v, dilation * c, taps)
                dst[w * c + v] = div(one, count) if average else one

    @inline
    def plain(row, dst, a, area):
        """Neighbouring outputs are vectors where their windows have the same taps, one step apart."""
        dilation = a.dilation_w
        start, tap_lo, tap_hi, divisor = (
            as_pointer(a.start_w, np.int64),
            as_pointer(a.tap_lo_w, np.int64),
            as_pointer(a.tap_hi_w, np.int64),
            as_pointer(a.divisor_w, np.int64),
        )
        w = 0
        while w < a.out_w:
            taps = tap_hi[w] - tap_lo[w]
            at = start[w] + tap_lo[w] * dilation
            last = w + width - 1
            if (
                last < a.out_w
                and start[last] - start[w] == width - 1
                and tap_lo[last] == tap_lo[w]
                and tap_hi[last] == tap_hi[w]
            ):
                store(dst, w, combine_vector(row, at, dilation, taps))
                w += width
            else:
                dst[w] = combine_one(row, at, dilation, taps)
                w += 1
        if average:
            for w in range(a.out_w):
                dst[w] = div(dst[w], dtype(max(area * divisor[w], 1)))

    def pool(args, thread, threads):
        a = numba.carray(args, 1)[0]
        start_d, lo_d, hi_d, divisor_d = (
            as_pointer(a.start_d, np.int64),
            as_pointer(a.tap_lo_d, np.int64),
            as_pointer(a.tap_hi_d, np.int64),
            as_pointer(a.divisor_d, np.int64),
        )
        start_h, lo_h, hi_h, divisor_h = (
            as_pointer(a.start_h, np.int64),
            as_pointer(a.tap_lo_h, np.int64),
            as_pointer(a.tap_hi_h, np.int64),
            as_pointer(a.divisor_h, np.int64),
        )
        rows = a.items * a.out_d * a.out_h
        for r in range(rows * thread // threads, rows * (thread + 1) // threads):
            h = r % a.out_h
            d = r // a.out_h % a.out_d
            item = r // a.out_h // a.out_d
            src = as_pointer(a.src + size * (item * a.src_item + start_d[d] * a.src_d + start_h[h] * a.src_h), dtype)
            dst = as_pointer(a.dst + size * (item * a.dst_item + d * a.dst_d + h * a.dst_h), dtype)
            d_step, h_step = a.dilation_d * a.src_d, a.dilation_h * a.src_h
            if hi_d[d] - lo_d[d] == 1 and hi_h[h] - lo_h[h] == 1:
                row = as_pointer(
                    a.src
                    + size
                    * (
                        item * a.src_item
                        + start_d[d] * a.src_d
                        + start_h[h] * a.src_h
                        + lo_d[d] * d_step
                        + lo_h[h] * h_step
                    ),
                    dtype,
                )
            else:
                row = as_pointer(a.row + size * thread * a.row_thread, dtype)
                combine_rows(src, row, a.in_w * a.lanes, d_step, lo_d[d], hi_d[d], h_step, lo_h[h], hi_h[h])
            area = divisor_d[d] * divisor_h[h] if average else 1
            if a.lanes == 1:
                plain(row, dst, a, area)
            else:
                blocked(row, dst, a, area)

    pool.__name__ = pool.__qualname__ = name
    return kernel(ARGS)(pool)


max_pool_f32 = make(np.float32, "max_pool_f32", -np.inf, maximum, False)
max_pool_f64 = make(np.float64, "max_pool_f64", -np.inf, maximum, False)
average_pool_f32 = make(np.float32, "average_pool_f32", 0.0, add, True)
average_pool_f64 = make(np.float64, "average_pool_f64", 0.0, add, True)
