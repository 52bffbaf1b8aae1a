"""Max and average pooling over up to three dimensions, in plain (c = 1) or channel-blocked layout.

Separable: one output row first combines its D x H input rows into a row buffer, element by element (contiguous in
every layout), then combines the W taps of the buffer. A window of k x k costs 2k instead of k*k.
"""

from __future__ import annotations

import numpy as np

from sigconv.kernels.address import as_pointer
from sigconv.kernels.cpu.lanes import div, load_even, maximum
from sigconv.kernels.jit import Kernel, inline, kernel
from sigconv.kernels.late import carray
from sigconv.kernels.simd import add, broadcast, lanes, load, store, store_first

WINDOW = ("start", "tap_lo", "tap_hi", "divisor", "dilation")
"""Per dimension: addresses of int64[out] tables, and the step. Output o reads start[o] + k*dilation for
tap_lo[o] <= k < tap_hi[o]; start rises evenly. An average divides by the product of the dimensions' divisor[o]."""

SPARE = 2 * lanes(np.float32)
"""Elements that a row of scratch has beyond the input's."""

ARGS = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("src", "dst", "row", "row_thread"),  # row: scratch of row_thread elements a thread
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
    def combine_vector(row, at, step, taps, stride):
        vector = broadcast(none)
        for k in range(taps):
            vector = combine(vector, load(row, at + k * step) if stride == 1 else load_even(row, at + k * step))
        return vector

    @inline
    def combine_one(row, at, step, taps):
        one = none
        for k in range(taps):
            one = combine(one, row[at + k * step])
        return one

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
                vector = combine_vector(row, at + v, step, taps, 1)
                store(dst, w * c + v, div(vector, broadcast(count)) if average else vector)
            for v in range(body, c):
                one = combine_one(row, at + v, step, taps)
                dst[w * c + v] = div(one, count) if average else one

    @inline
    def plain(row, dst, a, area, spare):
        """Neighbouring outputs are vectors where their windows have the same taps, one or two inputs apart.

        ``spare``: whether the row may be read `SPARE` elements past its end.
        """
        start, divisor = as_pointer(a.start_w, np.int64), as_pointer(a.divisor_w, np.int64)
        tap_lo, tap_hi = as_pointer(a.tap_lo_w, np.int64), as_pointer(a.tap_hi_w, np.int64)
        step = a.dilation_w
        w = 0
        while w < a.out_w:
            last = min(w + width, a.out_w) - 1  # the last vector may overlap the one before
            first = max(last - width + 1, 0)
            span = start[last] - start[first]
            same = tap_lo[first] == tap_lo[last] and tap_hi[first] == tap_hi[last]
            if same and (span == last - first or span == 2 * (last - first)) and (spare or last - first == width - 1):
                at = start[first] + tap_lo[first] * step
                stride = 1 if span == last - first else 2
                vector = combine_vector(row, at, step, tap_hi[first] - tap_lo[first], stride)
                if last - first == width - 1:
                    store(dst, first, vector)
                else:
                    store_first(dst, first, vector, last - first + 1)
                w = last + 1
            else:
                dst[w] = combine_one(row, start[w] + tap_lo[w] * step, step, tap_hi[w] - tap_lo[w])
                w += 1
        if average:
            for w in range(a.out_w):
                dst[w] = div(dst[w], dtype(max(area * divisor[w], 1)))

    def pool(args, thread, threads):
        a = carray(args, 1)[0]
        start_d, divisor_d = as_pointer(a.start_d, np.int64), as_pointer(a.divisor_d, np.int64)
        start_h, divisor_h = as_pointer(a.start_h, np.int64), as_pointer(a.divisor_h, np.int64)
        lo_d, hi_d = as_pointer(a.tap_lo_d, np.int64), as_pointer(a.tap_hi_d, np.int64)
        lo_h, hi_h = as_pointer(a.tap_lo_h, np.int64), as_pointer(a.tap_hi_h, np.int64)
        d_step, h_step = a.dilation_d * a.src_d, a.dilation_h * a.src_h
        rows = a.items * a.out_d * a.out_h
        for r in range(rows * thread // threads, rows * (thread + 1) // threads):
            h = r % a.out_h
            d = r // a.out_h % a.out_d
            item = r // a.out_h // a.out_d
            src = a.src + size * (item * a.src_item + start_d[d] * a.src_d + start_h[h] * a.src_h)
            dst = as_pointer(a.dst + size * (item * a.dst_item + d * a.dst_d + h * a.dst_h), dtype)
            whole = hi_d[d] - lo_d[d] == 1 and hi_h[h] - lo_h[h] == 1
            if whole:  # nothing to combine: the input row itself
                row = as_pointer(src + size * (lo_d[d] * d_step + lo_h[h] * h_step), dtype)
            else:
                row = as_pointer(a.row + size * thread * a.row_thread, dtype)
                n = a.in_w * a.lanes
                combine_rows(as_pointer(src, dtype), row, n, d_step, lo_d[d], hi_d[d], h_step, lo_h[h], hi_h[h])
            area = divisor_d[d] * divisor_h[h] if average else 1
            if a.lanes == 1:
                plain(row, dst, a, area, not whole)
            else:
                blocked(row, dst, a, area)

    pool.__name__ = pool.__qualname__ = name
    return kernel(ARGS)(pool)


max_pool_f32 = make(np.float32, "max_pool_f32", -np.inf, maximum, False)
max_pool_f64 = make(np.float64, "max_pool_f64", -np.inf, maximum, False)
average_pool_f32 = make(np.float32, "average_pool_f32", 0.0, add, True)
average_pool_f64 = make(np.float64, "average_pool_f64", 0.0, add, True)
