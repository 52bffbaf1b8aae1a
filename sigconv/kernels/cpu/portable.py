"""The kernels that are always legal: convolution, transposed convolution and matrix product in plain layout.

Both convolutions are correlations over three dimensions (a 1-D or 2-D one has sizes of 1 in front) with any stride,
dilation, pads and groups. An output row starts as the bias and gains one tap of one channel at a time along W.
"""

from __future__ import annotations

import numpy as np

from sigconv.kernels.address import as_pointer
from sigconv.kernels.jit import Kernel, inline, kernel
from sigconv.kernels.late import carray

AXIS = ("size", "kernel", "stride", "dilation", "before", "output")
"""Per dimension: the fields of `geometry.WindowAxis` (conv) or `geometry.TransposedAxis` (conv_transpose)."""

CONV = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("x", "w", "bias", "y"),  # addresses; bias may be 0
            *("batch", "groups", "inputs", "outputs"),  # channels of one group
            *(
                "x_batch",
                "x_channel",
                "x_d",
                "x_h",
                "y_batch",
                "y_channel",
                "y_d",
                "y_h",
            ),  # in elements; W is contiguous
            *("w_group", "w_output", "w_input"),  # in elements; the taps of one channel pair are contiguous
            *(f"{field}_{dim}" for dim in "dhw" for field in AXIS),
        )
    ]
    + [("lo", np.float64), ("hi", np.float64)]  # the result is clamped to [lo, hi]; NaN stays NaN
)

MATMUL = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("a", "b", "y", "batch0", "batch1", "m", "k", "n"),
            *("a_batch0", "a_batch1", "a_m", "a_k", "b_batch0", "b_batch1", "b_k", "b_n"),
            *("y_batch0", "y_batch1", "y_m", "y_n"),
        )
    ]
)
"""y[.., m, n] = sum over k of a[.., m, k] * b[.., k, n]; strides in elements, 0 where a batch axis is broadcast."""

COLUMNS = 512


@inline
def _window_input(o, k, size, stride, dilation, before):
    """The input index that tap k of output o reads, or -1."""
    i = o * stride - before + k * dilation
    return i if 0 <= i < size else -1


@inline
def _transposed_input(o, k, size, stride, dilation, before):
    """The input index that reaches output o through tap k, or -1."""
    reach = o + before - k * dilation
    return reach // stride if reach >= 0 and reach % stride == 0 and reach < size * stride else -1


@inline
def _ceil_div(a, b):
    return a if b == 1 else -(-a // b)  # a division costs as much as a short row


def make_conv(dtype: type, name: str, transposed: bool) -> Kernel:
    size = np.dtype(dtype).itemsize
    source = _transposed_input if transposed else _window_input

    @inline
    def add_tap(y, x, weight, a, k):
        """Add one tap to an output row, where it reads inside the input row."""
        stride, shift = a.stride_w, k * a.dilation_w - a.before_w
        first = max(0, _ceil_div(-shift, stride))
        if transposed:  # input i adds to output i * stride + shift
            stop = min(a.size_w, _ceil_div(a.output_w - shift, stride))
            x_shift, x_step, y_shift, y_step = 0, 1, shift, stride
        else:  # output i reads input i * stride + shift
            stop = min(a.output_w, _ceil_div(a.size_w - shift, stride))
            x_shift, x_step, y_shift, y_step = shift, stride, 0, 1
        if stride == 1:
            for i in range(first, stop):
                y[i + y_shift] += weight * x[i + x_shift]
        else:
            for i in range(first, stop):
                y[i * y_step + y_shift] += weight * x[i * x_step + x_shift]

    def conv(args, thread, threads):
        a = carray(args, 1)[0]
        lo, hi = dtype(a.lo), dtype(a.hi)
        rows = a.batch * a.groups * a.outputs * a.output_d * a.output_h
        for r in range(rows * thread // threads, rows * (thread + 1) // threads):
            h = r % a.output_h
            d = r // a.output_h % a.output_d
            channel = r // a.output_h // a.output_d % (a.groups * a.outputs)
            batch = r // a.output_h // a.output_d // (a.groups * a.outputs)
            group = channel // a.outputs
            y = as_pointer(a.y + size * (batch * a.y_batch + channel * a.y_channel + d * a.y_d + h * a.y_h), dtype)
            start = as_pointer(a.bias, dtype)[channel] if a.bias else dtype(0)
            for o in range(a.output_w):
                y[o] = start
            for c in range(a.inputs):
                x_channel = batch * a.x_batch + (group * a.inputs + c) * a.x_channel
                w = as_pointer(
                    a.w + size * (group * a.w_group + channel % a.outputs * a.w_output + c * a.w_input), dtype
                )
                for kd in range(a.kernel_d):
                    x_d = source(d, kd, a.size_d, a.stride_d, a.dilation_d, a.before_d)
                    for kh in range(a.kernel_h):
                        x_h = source(h, kh, a.size_h, a.stride_h, a.dilation_h, a.before_h)
                        if x_d >= 0 and x_h >= 0:
                            x = as_pointer(a.x + size * (x_channel + x_d * a.x_d + x_h * a.x_h), dtype)
                            for kw in range(a.kernel_w):
                                add_tap(y, x, w[(kd * a.kernel_h + kh) * a.kernel_w + kw], a, kw)
            for o in range(a.output_w):
                value = y[o]
                value = lo if value < lo else value
                y[o] = hi if value > hi else value

    conv.__name__ = conv.__qualname__ = name
    return kernel(CONV)(conv)


def make_matmul(dtype: type, name: str) -> Kernel:
    size = np.dtype(dtype).itemsize

    def matmul(args, thread, threads):
        a = carray(args, 1)[0]
        chunks = (a.n + COLUMNS - 1) // COLUMNS
        items = a.batch0 * a.batch1 * a.m * chunks
        for item in range(items * thread // threads, items * (thread + 1) // threads):
            first = item % chunks * COLUMNS
            m = item // chunks % a.m
            batch1 = item // chunks // a.m % a.batch1
            batch0 = item // chunks // a.m // a.batch1
            n = min(COLUMNS, a.n - first)
            left = as_pointer(a.a + size * (batch0 * a.a_batch0 + batch1 * a.a_batch1 + m * a.a_m), dtype)
            right = as_pointer(a.b + size * (batch0 * a.b_batch0 + batch1 * a.b_batch1 + first * a.b_n), dtype)
            y = as_pointer(a.y + size * (batch0 * a.y_batch0 + batch1 * a.y_batch1 + m * a.y_m + first * a.y_n), dtype)
            b_k, b_n, y_n = a.b_k, a.b_n, a.y_n
            if b_n == 1 and y_n == 1:
                for j in range(n):
                    y[j] = dtype(0)
                for k in range(a.k):
                    factor = left[k * a.a_k]
                    for j in range(n):
                        y[j] += factor * right[k * b_k + j]
            else:
                for j in range(n):
                    total = dtype(0)
                    for k in range(a.k):
                        total += left[k * a.a_k] * right[k * b_k + j * b_n]
                    y[j * y_n] = total

    matmul.__name__ = matmul.__qualname__ = name
    return kernel(MATMUL)(matmul)


conv_portable_f32 = make_conv(np.float32, "conv_portable_f32", False)
conv_portable_f64 = make_conv(np.float64, "conv_portable_f64", False)
conv_transpose_portable_f32 = make_conv(np.float32, "conv_transpose_portable_f32", True)
conv_transpose_portable_f64 = make_conv(np.float64, "conv_transpose_portable_f64", True)
matmul_portable_f32 = make_matmul(np.float32, "matmul_portable_f32")
matmul_portable_f64 = make_matmul(np.float64, "matmul_portable_f64")
