"""Max and average pooling over up to three dimensions, in plain (c = 1) or channel-blocked layout.

Separable: one output row first combines its D x H input rows into a row buffer, element by element (contiguous in
every layout), then combines the W taps of the buffer. A window of k x k costs 2k instead of k*k.
"""

from __future__ import annotations

import numpy as np

from sigconv.kernels.address import address_of, as_pointer
from sigconv.kernels.cpu.lanes import div, load_even, load_first, load_first_even, maximum
from sigconv.kernels.jit import Kernel, inline, kernel, within
from sigconv.kernels.late import carray
from sigconv.kernels.scratch import SCRATCH, own_scratch
from sigconv.kernels.simd import add, broadcast, lanes, load, store, store_first

WINDOW = ("start", "tap_lo", "tap_hi", "divisor", "dilation")
"""Per dimension: addresses of int64[out] tables, and the step. Output o reads start[o] + k*dilation for
tap_lo[o] <= k < tap_hi[o]; start rises evenly. An average divides by the product of the dimensions' divisor[o]."""

NEAR = 9
"""Inputs of a window that are combined in registers, without the row buffer."""

ARGS = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("src", "dst", *SCRATCH),  # scratch: a row of the input
            *("items", "lanes", "in_w", "out_d", "out_h", "out_w"),  # items: batch x channel blocks
            "by_rows",  # 1: threads share the rows of every plane, 0: the planes
            *("src_item", "src_d", "src_h", "dst_item", "dst_d", "dst_h"),  # strides in elements; that of W is lanes
            *(f"{field}_{dim}" for dim in "dhw" for field in WINDOW),
        )
    ]
)


def make(dtype: type, name: str, identity: float, combine, average: bool) -> Kernel:
    """A pooling kernel. ``combine`` takes numbers and vectors; a window without inputs gives ``identity``.

    NaN in a window gives NaN (onnxruntime's own result depends on where in the window the NaN lies).
    """
    none, size, width = dtype(identity), np.dtype(dtype).itemsize, lanes(dtype)

    @inline
    def combine_rows(src, row, n, d_step, d_lo, d_hi, h_step, h_lo, h_hi):
        """row[i] = combine over (kd, kh) of src[kd*d_step + kh*h_step + i]; the last vector may overlap another."""
        four = n - n % (4 * width)
        for i in range(0, four, 4 * width):
            e = f = g = h = broadcast(none)
            for kd in range(d_lo, d_hi):
                for kh in range(h_lo, h_hi):
                    at = kd * d_step + kh * h_step + i
                    e, f = combine(e, load(src, at)), combine(f, load(src, at + width))
                    g, h = combine(g, load(src, at + 2 * width)), combine(h, load(src, at + 3 * width))
            store(row, i, e)
            store(row, i + width, f)
            store(row, i + 2 * width, g)
            store(row, i + 3 * width, h)
        for first in range(four, n if n >= width else 0, width):
            i = min(first, n - width)
            vector = broadcast(none)
            for kd in range(d_lo, d_hi):
                for kh in range(h_lo, h_hi):
                    vector = combine(vector, load(src, kd * d_step + kh * h_step + i))
            store(row, i, vector)
        for i in range(0 if n >= width else n):
            one = none
            for kd in range(d_lo, d_hi):
                for kh in range(h_lo, h_hi):
                    one = combine(one, src[kd * d_step + kh * h_step + i])
            row[i] = one

    @inline
    def combine_vector(row, at, step, taps):
        vector = broadcast(none)
        for k in range(taps):
            vector = combine(vector, load(row, at + k * step))
        return vector

    @inline
    def combine_one(row, at, step, taps):
        one = none
        for k in range(taps):
            one = combine(one, row[at + k * step])
        return one

    def side_by_side(read, write, everywhere):
        """``count`` windows side by side in the rows h0..h1-1: first down their columns, then along the row.

        ``everywhere``: makes what ``read`` gives, a vector or a number, of a number.
        """

        @within
        def combine_windows(src, dst, a, at, first, count, taps, area, h0, h1, src_h, tap_h):
            start, divisor = as_pointer(a.start_h, np.int64), as_pointer(a.divisor_h, np.int64)
            tap_lo, tap_hi = as_pointer(a.tap_lo_h, np.int64), as_pointer(a.tap_hi_h, np.int64)
            for h in range(h0, h1):
                rows = tap_hi[h] - tap_lo[h] if tap_h != 0 else 1
                vector = everywhere(none)
                for k in range(taps):
                    i = start[h] * src_h + tap_lo[h] * tap_h + at + k * a.dilation_w
                    column = everywhere(none)
                    if rows > 0:
                        column = combine(column, read(src, i, count))
                    if rows > 1:
                        column = combine(column, read(src, i + tap_h, count))
                    if rows > 2:
                        column = combine(column, read(src, i + 2 * tap_h, count))
                    vector = combine(vector, column)
                if average:
                    vector = div(vector, everywhere(dtype(max(area * divisor[h], 1))))
                write(dst, first + h * a.dst_h, vector, count)

        return combine_windows

    @within
    def store_all(dst, i, vector, count):
        store(dst, i, vector)

    @within
    def put_one(dst, i, one, count):
        dst[i] = one

    dense = side_by_side(within(lambda src, i, count: load(src, i)), store_all, broadcast)
    even = side_by_side(within(lambda src, i, count: load_even(src, i)), store_all, broadcast)
    few_dense = side_by_side(load_first, store_first, broadcast)
    few_even = side_by_side(load_first_even, store_first, broadcast)
    single = side_by_side(within(lambda src, i, count: src[i]), put_one, within(lambda x: x))

    @inline
    def blocked(row, dst, a, area):
        """Channel lanes are vectors (the c % width lanes that may remain are numbers)."""
        start, divisor = as_pointer(a.start_w, np.int64), as_pointer(a.divisor_w, np.int64)
        tap_lo, tap_hi = as_pointer(a.tap_lo_w, np.int64), as_pointer(a.tap_hi_w, np.int64)
        c, step = a.lanes, a.dilation_w * a.lanes
        body = c - c % width
        for w in range(a.out_w):
            taps = tap_hi[w] - tap_lo[w]
            at = start[w] * c + tap_lo[w] * step
            count = dtype(max(area * divisor[w], 1)) if average else dtype(1)
            for v in range(0, body, width):
                vector = combine_vector(row, at + v, step, taps)
                store(dst, w * c + v, div(vector, broadcast(count)) if average else vector)
            for v in range(body, c):
                one = combine_one(row, at + v, step, taps)
                dst[w * c + v] = div(one, count) if average else one

    @inline
    def alike(a, one, other):
        """Whether two windows of a row, and with them all between, have the same taps and divisor."""
        tap_lo, tap_hi = as_pointer(a.tap_lo_w, np.int64), as_pointer(a.tap_hi_w, np.int64)
        divisor = as_pointer(a.divisor_w, np.int64)
        same = tap_lo[one] == tap_lo[other] and tap_hi[one] == tap_hi[other]
        return same and (not average or divisor[one] == divisor[other])

    @inline
    def plain(src, dst, a, divisor_d, h0, h1, src_h, tap_h):
        """Rows h0..h1-1 of a plane. Windows of the same taps, one or two inputs apart, are the lanes of a vector.

        ``src_h``, ``tap_h``: steps of window and tap; 0 where ``src`` is one row, already combined.
        """
        start, divisor = as_pointer(a.start_w, np.int64), as_pointer(a.divisor_w, np.int64)
        tap_lo, tap_hi = as_pointer(a.tap_lo_w, np.int64), as_pointer(a.tap_hi_w, np.int64)
        w = 0
        while w < a.out_w:
            last = min(w + width, a.out_w) - 1
            while not alike(a, w, last):
                last -= 1
            first = max(last - width + 1, 0)  # the last vector may overlap the one before
            if not alike(a, first, w):
                first = w
            span, count = start[last] - start[first], last - first + 1
            area = divisor_d * divisor[first] if average else 1
            at, taps = start[first] + tap_lo[first] * a.dilation_w, tap_hi[first] - tap_lo[first]
            if count == 1 or (span != count - 1 and span != 2 * (count - 1)):
                for o in range(w, last + 1):
                    at = start[o] + tap_lo[o] * a.dilation_w
                    single(src, dst, a, at, o, 1, taps, area, h0, h1, src_h, tap_h)
            elif count == width:
                if span == count - 1:
                    dense(src, dst, a, at, first, count, taps, area, h0, h1, src_h, tap_h)
                else:
                    even(src, dst, a, at, first, count, taps, area, h0, h1, src_h, tap_h)
            elif span == count - 1:
                few_dense(src, dst, a, at, first, count, taps, area, h0, h1, src_h, tap_h)
            else:
                few_even(src, dst, a, at, first, count, taps, area, h0, h1, src_h, tap_h)
            w = last + 1

    @inline
    def most_taps(tap_lo, tap_hi, out):
        most = 0
        for o in range(out):
            most = max(most, tap_hi[o] - tap_lo[o])
        return most

    def pool(args, thread, threads):
        a = carray(args, 1)[0]
        start_d, divisor_d = as_pointer(a.start_d, np.int64), as_pointer(a.divisor_d, np.int64)
        start_h, divisor_h = as_pointer(a.start_h, np.int64), as_pointer(a.divisor_h, np.int64)
        lo_d, hi_d = as_pointer(a.tap_lo_d, np.int64), as_pointer(a.tap_hi_d, np.int64)
        lo_h, hi_h = as_pointer(a.tap_lo_h, np.int64), as_pointer(a.tap_hi_h, np.int64)
        lo_w, hi_w = as_pointer(a.tap_lo_w, np.int64), as_pointer(a.tap_hi_w, np.int64)
        d_step, h_step = a.dilation_d * a.src_d, a.dilation_h * a.src_h
        high = most_taps(lo_h, hi_h, a.out_h)
        starts = as_pointer(a.start_w, np.int64)
        near = a.lanes == 1 and a.out_w > 1 and starts[1] - starts[0] <= 2 and high <= 3
        near = near and high * most_taps(lo_w, hi_w, a.out_w) <= NEAR
        planes, low = a.items * a.out_d, 0
        share = a.out_h  # a thread's rows of a plane, or of all planes one after the other
        if a.by_rows == 0:
            share, planes = planes * a.out_h, 1
        r, end = share * thread // threads, share * (thread + 1) // threads
        while low < planes and r < end:
            h, plane = r % a.out_h, low + r // a.out_h
            d, item = plane % a.out_d, plane // a.out_d
            src = a.src + size * (item * a.src_item + start_d[d] * a.src_d)
            dst = as_pointer(a.dst + size * (item * a.dst_item + d * a.dst_d), dtype)
            last = min(a.out_h, h + end - r)
            r += last - h
            if r == end:
                r, low = share * thread // threads, low + 1
            if near and hi_d[d] - lo_d[d] == 1:
                plane = as_pointer(src + size * lo_d[d] * d_step, dtype)
                plain(plane, dst, a, divisor_d[d] if average else 1, h, last, a.src_h, h_step)
                continue
            for o in range(h, last):
                first = src + size * start_h[o] * a.src_h
                if hi_d[d] - lo_d[d] == 1 and hi_h[o] - lo_h[o] == 1:  # nothing to combine: the input row itself
                    row = as_pointer(first + size * (lo_d[d] * d_step + lo_h[o] * h_step), dtype)
                else:
                    row = as_pointer(own_scratch(a, thread), dtype)
                    n = a.in_w * a.lanes
                    combine_rows(as_pointer(first, dtype), row, n, d_step, lo_d[d], hi_d[d], h_step, lo_h[o], hi_h[o])
                if a.lanes == 1:
                    plain(row, dst, a, divisor_d[d] if average else 1, o, o + 1, 0, 0)
                else:
                    area = divisor_d[d] * divisor_h[o] if average else 1
                    blocked(row, as_pointer(address_of(dst) + size * o * a.dst_h, dtype), a, area)

    pool.__name__ = pool.__qualname__ = name
    return kernel(ARGS)(pool)


max_pool_f32 = make(np.float32, "max_pool_f32", -np.inf, maximum, False)
max_pool_f64 = make(np.float64, "max_pool_f64", -np.inf, maximum, False)
average_pool_f32 = make(np.float32, "average_pool_f32", 0.0, add, True)
average_pool_f64 = make(np.float64, "average_pool_f64", 0.0, add, True)
