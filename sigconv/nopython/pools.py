"""Overloads of `nn.max_pool2d` and `nn.avg_pool2d`, on the library's pooling kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.core.errors import NumbaTypeError
from numba.np.numpy_support import as_dtype

from sigconv.errors import InputError
from sigconv.kernels.cpu import pool
from sigconv.kernels.jit import inline, overload
from sigconv.nn.pool import avg_pool2d, max_pool2d
from sigconv.nopython.native import OUTDATED, call, finder

_KERNELS = {
    ("max", "f"): pool.max_pool_f32, ("max", "d"): pool.max_pool_f64,
    ("avg", "f"): pool.average_pool_f32, ("avg", "d"): pool.average_pool_f64,
}  # fmt: skip


# --- arguments -----------------------------------------------------------------------------------------------------
def _pair(name: str, given: Any) -> Callable[[Any], tuple[int, int]]:
    """What makes two integers of an argument of this type: one for both axes, or one each."""
    kind = types.unliteral(given) if isinstance(given, types.Type) else given
    if isinstance(kind, int | types.Integer | types.Boolean):

        @inline
        def both(value):
            return np.int64(value), np.int64(value)

        return both
    if isinstance(kind, types.BaseTuple) and len(kind) == 2 and all(isinstance(t, types.Integer) for t in kind):

        @inline
        def each(value):
            return np.int64(value[0]), np.int64(value[1])

        return each
    raise NumbaTypeError(f"{name} is {given}; an integer or two of them are accepted in compiled code")


def _pads(given: Any) -> Callable[[Any], tuple[int, int, int, int]]:
    """Likewise (before, after) of both axes."""
    kind = types.unliteral(given) if isinstance(given, types.Type) else given
    if isinstance(kind, types.BaseTuple) and all(isinstance(t, types.BaseTuple) for t in kind):
        if len(kind) != 2:
            raise NumbaTypeError(f"padding is {given}; two pairs (before, after) are accepted")
        rows, columns = (_pair("padding", t) for t in kind)

        @inline
        def pairs(value):
            return rows(value[0])[0], rows(value[0])[1], columns(value[1])[0], columns(value[1])[1]

        return pairs
    pair = _pair("padding", kind)

    @inline
    def alike(value):
        a, b = pair(value)
        return a, a, b, b

    return alike


def _is_none(given: Any) -> bool:
    return given is None or isinstance(given, types.NoneType) or getattr(given, "value", 0) is None


# --- windows -------------------------------------------------------------------------------------------------------
@inline
def _outputs(size: int, kernel: int, stride: int, dilation: int, before: int, after: int, ceil_mode: bool) -> int:
    """How many windows an axis has, by the rules of `sigconv.geometry`."""
    if kernel < 1 or stride < 1 or dilation < 1 or before < 0 or after < 0:
        raise InputError("kernel_size, stride and dilation are at least 1, padding at least 0")
    extent = (kernel - 1) * dilation + 1
    if max(before, after) > extent - 1:
        raise InputError("the padding gives windows of nothing but padding; less than a window spans is accepted")
    room = size + before + after - extent
    count = room // stride + 1
    if ceil_mode:
        count = min(-(-room // stride) + 1, -(-(size + before) // stride))
    if count < 1 and size:
        raise InputError("the kernel spans more than the input with its padding")
    return max(0, count)


@inline
def _tables(count, size, kernel, stride, dilation, before, bound):
    """Rows of `pool.WINDOW`: first input, taps from and up to which there are inputs, taps below ``bound``."""
    table = np.empty((4, max(count, 1)), np.int64)
    for o in range(count):
        start = o * stride - before
        table[0, o] = start
        for row, limit in ((1, np.int64(0)), (2, size), (3, bound)):
            table[row, o] = min(max(-((start - limit) // dilation), 0), kernel)
    return table


def _pool(kind: str, array: types.Array, counts: bool) -> Callable[..., Any]:
    """``(x, k, s, pads, d, ceil_mode, count_include_pad, divisor)`` for [N, C, H, W] or [C, H, W]; divisor 0: none."""
    dtype, rank = as_dtype(array.dtype), array.ndim
    kernel_of = finder(_KERNELS[kind, dtype.char])
    batched, dense, wider = rank == 4, array.layout == "C" and array.aligned, dtype.type

    @inline
    def run(x, k, s, pads, d, ceil_mode, count_include_pad, divisor):
        kernel = kernel_of()
        if kernel == 0:
            raise RuntimeError(OUTDATED)
        height, width = x.shape[rank - 2], x.shape[rank - 1]
        n_rows = _outputs(height, k[0], s[0], d[0], pads[0], pads[1], ceil_mode)
        n_columns = _outputs(width, k[1], s[1], d[1], pads[2], pads[3], ceil_mode)
        bounds = (height + pads[1], width + pads[3]) if count_include_pad else (height, width)
        rows = _tables(n_rows, height, k[0], s[0], d[0], pads[0], bounds[0])
        columns = _tables(n_columns, width, k[1], s[1], d[1], pads[2], bounds[1])
        if not count_include_pad:
            for table in (rows, columns):
                for o in range(table.shape[1]):
                    table[3, o] = table[2, o] - table[1, o]
        whole = _tables(np.int64(1), np.int64(1), np.int64(1), np.int64(1), np.int64(1), np.int64(0), np.int64(1))
        if batched:
            planes, y = x.shape[0] * x.shape[1], np.empty((x.shape[0], x.shape[1], n_rows, n_columns), dtype)
        else:
            planes, y = x.shape[0], np.empty((x.shape[0], n_rows, n_columns), dtype)
        scratch, args = np.empty(max(width, 1), dtype), np.zeros(1, pool.ARGS)
        source = x if dense else np.ascontiguousarray(x)
        a = args[0]
        a.src, a.dst, a.scratch = source.ctypes.data, y.ctypes.data, scratch.ctypes.data
        a.items, a.lanes, a.in_w, a.out_d, a.out_h, a.out_w = planes, 1, width, 1, n_rows, n_columns
        a.src_item, a.src_d, a.src_h = height * width, height * width, width
        a.dst_item, a.dst_d, a.dst_h = n_rows * n_columns, n_rows * n_columns, n_columns
        a.dilation_d, a.dilation_h, a.dilation_w = 1, d[0], d[1]
        at, step = whole.ctypes.data, 8
        a.start_d, a.tap_lo_d, a.tap_hi_d, a.divisor_d = at, at + step, at + 2 * step, at + 3 * step
        at, step = rows.ctypes.data, 8 * rows.shape[1]
        a.start_h, a.tap_lo_h, a.tap_hi_h, a.divisor_h = at, at + step, at + 2 * step, at + 3 * step
        at, step = columns.ctypes.data, 8 * columns.shape[1]
        a.start_w, a.tap_lo_w, a.tap_hi_w, a.divisor_w = at, at + step, at + 2 * step, at + 3 * step
        call(kernel, args, source, y, scratch, whole, rows, columns)
        if counts:
            if divisor != 0:  # the sums, over something else than their number
                for i in range(y.size):
                    number = rows[3, i // n_columns % n_rows] * columns[3, i % n_columns]
                    y.flat[i] *= wider(max(number, 1) / divisor)
        return y

    return run


def _check(where: str, array: Any) -> None:
    if not isinstance(array, types.Array) or array.ndim not in (3, 4) or str(array.dtype) not in ("float32", "float64"):
        raise NumbaTypeError(
            f"{where}: input is {array}; compiled code takes float32 and float64 arrays [N, C, H, W] or [C, H, W]"
        )


# --- overloads -----------------------------------------------------------------------------------------------------
@overload(max_pool2d)
def _max_pool2d(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    _check("max_pool2d", input)
    kernel_of, pads_of, dilation_of = _pair("kernel_size", kernel_size), _pads(padding), _pair("dilation", dilation)
    same = _is_none(stride)
    stride_of, run = kernel_of if same else _pair("stride", stride), _pool("max", input, False)

    def pooled(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
        strides = stride_of(kernel_size) if same else stride_of(stride)
        return run(
            input, kernel_of(kernel_size), strides, pads_of(padding), dilation_of(dilation), bool(ceil_mode), False, 0
        )

    return pooled


@overload(avg_pool2d)
def _avg_pool2d(
    input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
):
    _check("avg_pool2d", input)
    kernel_of, pads_of = _pair("kernel_size", kernel_size), _pads(padding)
    same, plain = _is_none(stride), _is_none(divisor_override)
    stride_of, run = kernel_of if same else _pair("stride", stride), _pool("avg", input, True)

    def pooled(
        input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
    ):
        strides = stride_of(kernel_size) if same else stride_of(stride)
        divisor = 0.0
        if not plain:
            divisor = float(divisor_override)
            if divisor == 0:
                raise InputError("avg_pool2d: divisor_override=0; None or any other number is accepted")
        one = (np.int64(1), np.int64(1))
        return run(
            input, kernel_of(kernel_size), strides, pads_of(padding), one, bool(ceil_mode), bool(count_include_pad),
            divisor,
        )  # fmt: skip

    return pooled
