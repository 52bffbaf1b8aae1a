"""Separable interpolation over up to three dimensions with any number of taps (2: linear, 4: cubic), plain or blocked.

As in `pool`: an output row first weighs its D x H input rows into a row buffer, then the taps of W.
"""

from __future__ import annotations

import numpy as np

from sigconv.kernels.address import as_pointer
from sigconv.kernels.jit import Kernel, inline, kernel
from sigconv.kernels.late import carray
from sigconv.kernels.scratch import SCRATCH, own_scratch
from sigconv.kernels.simd import broadcast, fma, lanes, load, store

AXIS = ("index", "weight", "taps")
"""Per dimension: int64[out, taps] input indices (inside the input) and weights[out, taps] in the kernel's dtype."""

ARGS = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("src", "dst", *SCRATCH),  # scratch: a row of the input
            *("items", "lanes", "in_w", "out_d", "out_h", "out_w"),  # items: batch x channels or channel blocks
            *("src_item", "src_d", "src_h", "dst_item", "dst_d", "dst_h"),  # strides in elements; that of W is lanes
            *(f"{field}_{dim}" for dim in "dhw" for field in AXIS),
        )
    ]
)


def make(dtype: type, name: str) -> Kernel:
    size, width = np.dtype(dtype).itemsize, lanes(dtype)
    zero = dtype(0)

    @inline
    def weigh_rows(src, row, n, a, d, h):
        """row[i] = sum over (kd, kh) of weight_d[d, kd] * weight_h[h, kh] * src[index_d[d, kd], index_h[h, kh], i]."""
        index_d, weight_d = as_pointer(a.index_d, np.int64), as_pointer(a.weight_d, dtype)
        index_h, weight_h = as_pointer(a.index_h, np.int64), as_pointer(a.weight_h, dtype)
        body = n - n % width
        for kd in range(d * a.taps_d, (d + 1) * a.taps_d):
            for kh in range(h * a.taps_h, (h + 1) * a.taps_h):
                weight = weight_d[kd] * weight_h[kh]
                at = index_d[kd] * a.src_d + index_h[kh] * a.src_h
                first = kd == d * a.taps_d and kh == h * a.taps_h
                for i in range(0, body, width):
                    acc = broadcast(zero) if first else load(row, i)
                    store(row, i, fma(load(src, at + i), broadcast(weight), acc))
                for i in range(body, n):
                    row[i] = (zero if first else row[i]) + weight * src[at + i]

    @inline
    def weigh_columns(row, dst, a):
        index, weight = as_pointer(a.index_w, np.int64), as_pointer(a.weight_w, dtype)
        body = a.lanes - a.lanes % width
        for w in range(a.out_w):
            for v in range(0, body, width):
                acc = broadcast(zero)
                for k in range(w * a.taps_w, (w + 1) * a.taps_w):
                    acc = fma(load(row, index[k] * a.lanes + v), broadcast(weight[k]), acc)
                store(dst, w * a.lanes + v, acc)
            for v in range(body, a.lanes):
                one = zero
                for k in range(w * a.taps_w, (w + 1) * a.taps_w):
                    one += weight[k] * row[index[k] * a.lanes + v]
                dst[w * a.lanes + v] = one

    def resize(args, thread, threads):
        a = carray(args, 1)[0]
        row = as_pointer(own_scratch(a, thread), dtype)
        rows = a.items * a.out_d * a.out_h
        for r in range(rows * thread // threads, rows * (thread + 1) // threads):
            h = r % a.out_h
            d = r // a.out_h % a.out_d
            item = r // a.out_h // a.out_d
            weigh_rows(as_pointer(a.src + size * item * a.src_item, dtype), row, a.in_w * a.lanes, a, d, h)
            dst = as_pointer(a.dst + size * (item * a.dst_item + d * a.dst_d + h * a.dst_h), dtype)
            weigh_columns(row, dst, a)

    resize.__name__ = resize.__qualname__ = name
    return kernel(ARGS)(resize)


resize_f32 = make(np.float32, "resize_f32")
resize_f64 = make(np.float64, "resize_f64")
