"""Layer, instance and group normalisation: y = (x - mean) / sqrt(variance + epsilon) * scale + bias.

Moments are taken twice: about 0 for the mean, then about that mean for the variance (with the correction for what the
rounded mean is off). Sums are blocks in the array's precision joined in float64.
"""

from __future__ import annotations

import math

import numpy as np

from sigconv.kernels.address import as_pointer
from sigconv.kernels.cpu.lanes import div, filled, lane, maximum, narrow, sqrt, widen
from sigconv.kernels.jit import Kernel, inline, kernel
from sigconv.kernels.late import carray
from sigconv.kernels.simd import add, broadcast, fma, lanes, load, mul, store, sub

BLOCK = 128

LAYER = np.dtype(
    [(name, np.int64) for name in ("src", "dst", "scale", "bias", "rows", "n", "src_row", "dst_row")]
    + [("epsilon", np.float64)]
)
"""Every row of n contiguous elements on its own; scale[n] and bias[n] may be absent (address 0)."""

GROUP = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("src", "dst", "scale", "bias", "lanes"),
            *("batch", "groups", "channels", "planes", "rows", "cols"),
            *("src_batch", "src_group", "src_channel", "src_plane", "src_row"),
            *("dst_batch", "dst_group", "dst_channel", "dst_plane", "dst_row"),  # in elements; a column's is lanes
        )
    ]
    + [("epsilon", np.float64)]
)
"""One mean and variance for each (batch, group) over (channels, planes, rows, cols).

Plain layout: lanes = 1; instance normalisation has channels = 1, group normalisation channels = C / groups.
Blocked layout, instance normalisation only: channels = 1, a group is a block of lanes (a multiple of the vector) and
every lane has its own mean and variance. scale and bias (0: absent) hold groups * channels * lanes elements.
"""


def _row_moments(dtype: type):
    """row_moments(src, count, step, shift): of ``count`` vectors ``step`` elements apart, per lane in float64."""
    zero = dtype(0)

    @inline
    def row_moments(src, count, step, shift):
        """(sum of x - shift, sum of its squares)."""
        total = square = widen(broadcast(zero))
        for block in range(0, count, BLOCK):
            t = q = broadcast(zero)
            for k in range(block, min(block + BLOCK, count)):
                d = sub(load(src, k * step), shift)
                t, q = add(t, d), fma(d, d, q)
            total, square = add(total, widen(t)), add(square, widen(q))
        return total, square

    return row_moments


def make_layer_norm(dtype: type, name: str) -> Kernel:
    size, width = np.dtype(dtype).itemsize, lanes(dtype)
    row_moments = _row_moments(dtype)

    def layer_norm(args, thread, threads):
        a = carray(args, 1)[0]
        n, scale, bias = a.n, as_pointer(a.scale, dtype), as_pointer(a.bias, dtype)
        vectors = n // width
        for row in range(a.rows * thread // threads, a.rows * (thread + 1) // threads):
            src = as_pointer(a.src + size * row * a.src_row, dtype)
            dst = as_pointer(a.dst + size * row * a.dst_row, dtype)
            mean, variance = dtype(0), 0.0
            for _ in range(2):
                totals, squares = row_moments(src, vectors, width, broadcast(mean))
                total = square = 0.0
                for i in range(width):
                    total += lane(totals, i)
                    square += lane(squares, i)
                for i in range(vectors * width, n):
                    d = widen(src[i] - mean)
                    total += d
                    square += d * d
                variance = square / n - (total / n) * (total / n)
                mean = dtype(mean + total / n)
            gain = dtype(1.0 / math.sqrt(max(variance, 0.0) + a.epsilon))
            for i in range(n):
                dst[i] = (src[i] - mean) * gain
            if a.scale:
                for i in range(n):
                    dst[i] *= scale[i]
            if a.bias:
                for i in range(n):
                    dst[i] += bias[i]

    layer_norm.__name__ = layer_norm.__qualname__ = name
    return kernel(LAYER)(layer_norm)


def make_group_norm(dtype: type, name: str) -> Kernel:
    size, width = np.dtype(dtype).itemsize, lanes(dtype)
    zero = dtype(0)
    row_moments = _row_moments(dtype)

    @inline
    def moments(src, a, count, step, shift):
        """`row_moments` over all rows of an item."""
        total = square = widen(broadcast(zero))
        for channel in range(a.channels):
            for plane in range(a.planes):
                for row in range(a.rows):
                    at = a.src_channel * channel + a.src_plane * plane + a.src_row * row
                    t, q = row_moments(as_pointer(src + size * at, dtype), count, step, shift)
                    total, square = add(total, t), add(square, q)
        return total, square

    @inline
    def plain(src, dst, scale, bias, a):
        n = a.channels * a.planes * a.rows * a.cols
        vectors = a.cols // width
        mean, variance = zero, 0.0
        for _ in range(2):
            totals, squares = moments(src, a, vectors, width, broadcast(mean))
            total = square = 0.0
            for i in range(width):
                total += lane(totals, i)
                square += lane(squares, i)
            for channel in range(a.channels):
                for plane in range(a.planes):
                    for row in range(a.rows):
                        x = as_pointer(
                            src + size * (a.src_channel * channel + a.src_plane * plane + a.src_row * row), dtype
                        )
                        for col in range(vectors * width, a.cols):
                            d = widen(x[col] - mean)
                            total += d
                            square += d * d
            variance = square / n - (total / n) * (total / n)
            mean = dtype(mean + total / n)
        inverse = 1.0 / math.sqrt(max(variance, 0.0) + a.epsilon)
        for channel in range(a.channels):
            gain = dtype(inverse * scale[channel]) if a.scale else dtype(inverse)
            offset = bias[channel] if a.bias else zero
            for plane in range(a.planes):
                for row in range(a.rows):
                    x = as_pointer(
                        src + size * (a.src_channel * channel + a.src_plane * plane + a.src_row * row), dtype
                    )
                    y = as_pointer(
                        dst + size * (a.dst_channel * channel + a.dst_plane * plane + a.dst_row * row), dtype
                    )
                    for col in range(a.cols):
                        y[col] = (x[col] - mean) * gain + offset

    @inline
    def blocked(src, dst, scale, bias, a):
        """The lanes of one vector, each with its own statistics."""
        mean = gain = offset = broadcast(zero)
        for _ in range(2):
            total, square = moments(src, a, a.cols, a.lanes, mean)
            n = filled(np.float64(a.planes * a.rows * a.cols), total)
            centre = div(total, n)
            variance = maximum(sub(div(square, n), mul(centre, centre)), filled(0.0, n))
            gain = narrow(div(filled(1.0, n), sqrt(add(variance, filled(a.epsilon, n)))), mean)
            mean = narrow(add(widen(mean), centre), mean)
        if a.scale:
            gain = mul(gain, load(scale, 0))
        if a.bias:
            offset = load(bias, 0)
        for plane in range(a.planes):
            for row in range(a.rows):
                x = as_pointer(src + size * (a.src_plane * plane + a.src_row * row), dtype)
                y = as_pointer(dst + size * (a.dst_plane * plane + a.dst_row * row), dtype)
                for col in range(a.cols):
                    store(y, col * a.lanes, fma(sub(load(x, col * a.lanes), mean), gain, offset))

    def group_norm(args, thread, threads):
        a = carray(args, 1)[0]
        vectors = (a.lanes + width - 1) // width
        items = a.batch * a.groups * vectors
        for item in range(items * thread // threads, items * (thread + 1) // threads):
            v = item % vectors * width
            group = item // vectors % a.groups
            batch = item // vectors // a.groups
            src = a.src + size * (batch * a.src_batch + group * a.src_group + v)
            dst = a.dst + size * (batch * a.dst_batch + group * a.dst_group + v)
            scale = as_pointer(a.scale + size * (group * a.channels * a.lanes + v), dtype)
            bias = as_pointer(a.bias + size * (group * a.channels * a.lanes + v), dtype)
            if a.lanes == 1:
                plain(src, dst, scale, bias, a)
            else:
                blocked(src, dst, scale, bias, a)

    group_norm.__name__ = group_norm.__qualname__ = name
    return kernel(GROUP)(group_norm)


layer_norm_f32 = make_layer_norm(np.float32, "layer_norm_f32")
layer_norm_f64 = make_layer_norm(np.float64, "layer_norm_f64")
group_norm_f32 = make_group_norm(np.float32, "group_norm_f32")
group_norm_f64 = make_group_norm(np.float64, "group_norm_f64")
