"""Layer, instance and group normalisation: y = (x - mean) / sqrt(variance + epsilon) * scale + bias.

Mean and variance take two passes; both sums are blocks in the array's precision joined in float64, and the variance is
corrected for the rounding of the mean that was subtracted.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from sigconv.kernels.address import as_pointer
from sigconv.kernels.cpu.lanes import div, filled, lane, narrow, sqrt, widen
from sigconv.kernels.jit import Kernel, inline, kernel
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


@inline
def itself(x, shift):
    return x


@inline
def squared_deviation(x, shift):
    d = sub(x, shift)
    return mul(d, d)


def _sums(value, zero):
    """Sums of value(x, shift) over one item: along a vector's lanes, and of the columns that fill no vector."""

    @inline
    def vector_sum(src, a, count, step, shift):
        """Each lane over (channels, planes, rows) and ``count`` vectors of a row, ``step`` elements apart."""
        result = widen(broadcast(zero))
        for channel in range(a.channels):
            for plane in range(a.planes):
                for row in range(a.rows):
                    at = channel * a.src_channel + plane * a.src_plane + row * a.src_row
                    for block in range(0, count, BLOCK):
                        part = broadcast(zero)
                        for k in range(block, min(block + BLOCK, count)):
                            part = add(part, value(load(src, at + k * step), shift))
                        result = add(result, widen(part))
        return result

    @inline
    def number_sum(src, a, first, shift):
        result = 0.0
        for channel in range(a.channels):
            for plane in range(a.planes):
                for row in range(a.rows):
                    at = channel * a.src_channel + plane * a.src_plane + row * a.src_row
                    for col in range(first, a.cols):
                        result += widen(value(src[at + col], shift))
        return result

    return vector_sum, number_sum


def make_group_norm(dtype: type, name: str) -> Kernel:
    size, width = np.dtype(dtype).itemsize, lanes(dtype)
    zero = dtype(0)
    vector_sum, number_sum = _sums(itself, zero)
    vector_squares, number_squares = _sums(squared_deviation, zero)

    @inline
    def plain(src, dst, scale, bias, a):
        n = a.channels * a.planes * a.rows * a.cols
        vectors = a.cols // width
        sums = vector_sum(src, a, vectors, width, broadcast(zero))
        total = number_sum(src, a, vectors * width, zero)
        for i in range(width):
            total += lane(sums, i)
        mean = dtype(total / n)
        squares = vector_squares(src, a, vectors, width, broadcast(mean))
        square = number_squares(src, a, vectors * width, mean)
        for i in range(width):
            square += lane(squares, i)
        rounding = total / n - mean
        inverse = 1.0 / math.sqrt(max(square / n - rounding * rounding, 0.0) + a.epsilon)
        for channel in range(a.channels):
            gain = dtype(inverse * scale[channel]) if a.scale else dtype(inverse)
            offset = bias[channel] if a.bias else zero
            for plane in range(a.planes):
                for row in range(a.rows):
                    x = channel * a.src_channel + plane * a.src_plane + row * a.src_row
                    y = channel * a.dst_channel + plane * a.dst_plane + row * a.dst_row
                    for col in range(a.cols):
                        dst[y + col] = (src[x + col] - mean) * gain + offset

    @inline
    def blocked(src, dst, scale, bias, a):
        """The lanes of one vector, each with its own statistics."""
        total = vector_sum(src, a, a.cols, a.lanes, broadcast(zero))
        n = filled(np.float64(a.planes * a.rows * a.cols), total)
        exact = div(total, n)
        mean = narrow(exact, broadcast(zero))
        rounding = sub(exact, widen(mean))
        square = div(vector_squares(src, a, a.cols, a.lanes, mean), n)
        variance = sub(square, mul(rounding, rounding))
        gain = narrow(div(filled(1.0, n), sqrt(add(variance, filled(a.epsilon, n)))), mean)
        offset = broadcast(zero)
        if a.scale:
            gain = mul(gain, load(scale, 0))
        if a.bias:
            offset = load(bias, 0)
        for plane in range(a.planes):
            for row in range(a.rows):
                x, y = plane * a.src_plane + row * a.src_row, plane * a.dst_plane + row * a.dst_row
                for col in range(a.cols):
                    store(dst, y + col * a.lanes, fma(sub(load(src, x + col * a.lanes), mean), gain, offset))

    def group_norm(args, thread, threads):
        a = numba.carray(args, 1)[0]
        vectors = (a.lanes + width - 1) // width
        items = a.batch * a.groups * vectors
        for item in range(items * thread // threads, items * (thread + 1) // threads):
            v = item % vectors * width
            group = item // vectors % a.groups
            batch = item // vectors // a.groups
            src = as_pointer(a.src + size * (batch * a.src_batch + group * a.src_group + v), dtype)
            dst = as_pointer(a.dst + size * (batch * a.dst_batch + group * a.dst_group + v), dtype)
            scale = as_pointer(a.scale + size * (group * a.channels * a.lanes + v), dtype)
            bias = as_pointer(a.bias + size * (group * a.channels * a.lanes + v), dtype)
            if a.lanes == 1:
                plain(src, dst, scale, bias, a)
            else:
                blocked(src, dst, scale, bias, a)

    group_norm.__name__ = group_norm.__qualname__ = name
    return kernel(GROUP)(group_norm)


def _row_sum(value, zero, width: int):
    @inline
    def row_sum(src, n, shift):
        """The sum of value(x, shift) over n contiguous elements."""
        vectors = n // width
        wide, shifts = widen(broadcast(zero)), broadcast(shift)
        for block in range(0, vectors, BLOCK):
            part = broadcast(zero)
            for k in range(block, min(block + BLOCK, vectors)):
                part = add(part, value(load(src, k * width), shifts))
            wide = add(wide, widen(part))
        result = 0.0
        for i in range(width):
            result += lane(wide, i)
        for i in range(vectors * width, n):
            result += widen(value(src[i], shift))
        return result

    return row_sum


def make_layer_norm(dtype: type, name: str) -> Kernel:
    size, width = np.dtype(dtype).itemsize, lanes(dtype)
    zero = dtype(0)

    row_sum, row_squares = _row_sum(itself, zero, width), _row_sum(squared_deviation, zero, width)

    def layer_norm(args, thread, threads):
        a = numba.carray(args, 1)[0]
        n, scale, bias = a.n, as_pointer(a.scale, dtype), as_pointer(a.bias, dtype)
        for row in range(a.rows * thread // threads, a.rows * (thread + 1) // threads):
            src = as_pointer(a.src + size * row * a.src_row, dtype)
            dst = as_pointer(a.dst + size * row * a.dst_row, dtype)
            exact = row_sum(src, n, zero) / n
            mean = dtype(exact)
            rounding = exact - mean
            variance = row_squares(src, n, mean) / n - rounding * rounding
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


layer_norm_f32 = make_layer_norm(np.float32, "layer_norm_f32")
layer_norm_f64 = make_layer_norm(np.float64, "layer_norm_f64")
group_norm_f32 = make_group_norm(np.float32, "group_norm_f32")
group_norm_f64 = make_group_norm(np.float64, "group_norm_f64")
