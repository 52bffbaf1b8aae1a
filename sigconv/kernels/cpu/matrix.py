"""A whole correlation of a matrix or a vector, borders included, in one native call: the tables that `rows` reads.

    y[i, j] = sum over a, b of w[a, b] * x[start0 + i - (A - 1) + a, start1 + j - (B - 1) + b]

``x`` is continued beyond its ends as ``boundary`` says; y[0, 0] need not be the first output of the full result. This
is the driver of `sigconv.signal.direct` for two axes, for callers that are compiled themselves. `plain` are the same
sums term by term, where a tap that is not finite must not meet what is not there.
"""

from __future__ import annotations

import numpy as np
from numba import carray

from sigconv.kernels import border
from sigconv.kernels.address import as_pointer, copy_bytes, fields, get, put
from sigconv.kernels.atomic import call_kernel
from sigconv.kernels.cpu.rows import ARGS as ROWS
from sigconv.kernels.jit import Kernel, inline, kernel, strict

TABLE = 1 << 18
"""Most addresses in a table."""
COPIED = 1 << 13
"""Signals up to this many numbers are extended as a whole."""

_SIGNAL = ("x", "x_row", "height", "size")  # address, bytes from row to row, rows, dense columns
_TAPS = ("w", "high", "taps")  # address, rows, columns; dense
_OUTPUT = ("y", "n_rows", "count")  # address, rows, columns; dense
_WHERE = ("start0", "start1", "boundary", "fill")  # `fill`: address of one number of x's type

ARGS = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("kernel", "item", "parts"),  # address of a kernel of `rows`; bytes of a number; numbers of it in one of x
            *(*_SIGNAL, *_TAPS, *_OUTPUT, *_WHERE),
            *("scratch", "scratch_nbytes"),  # address of aligned memory; 0: only say in the other how much is needed
        )
    ]
)
"""Sizes are in numbers of x, of ``item * parts`` bytes."""

PLAIN = np.dtype(
    [
        (name, np.int64)
        for name in (
            *(*_SIGNAL, *_TAPS, *_OUTPUT, *_WHERE),
            *("x_step", "w_step", "y_step"),  # from column to column, in real numbers; 2 for a part of complex ones
            *("zero_fill", "sign"),  # whether there is nothing beyond the ends; 1 or -1: add or subtract
        )
    ]
)


_element = strict(border.element)


@inline
def copy_number(to, of, words):
    """4-byte words from one address to another."""
    target, origin = as_pointer(to, np.int32), as_pointer(of, np.int32)
    for k in range(words):
        put(target, k, get(origin, k))


@inline
def extend_row(to, first, width, x, size, boundary, fill, item):
    """Columns first … first + width - 1 of the extended row at address ``x``."""
    for c in range(width):
        if c == -first:  # the row itself, or what of it is wanted
            inside = min(size, width - c)
            if inside > 0:
                copy_bytes(to + c * item, x, inside * item)
        if 0 <= first + c < size:
            if first > 0:
                copy_number(to + c * item, x + (first + c) * item, item >> 2)
            continue
        at = _element(first + c, size, boundary)
        copy_number(to + c * item, fill if at < 0 else x + at * item, item >> 2)


def matrix(args, thread, threads):
    a = carray(args, 1)[0]
    item, size, count, taps, high, n_rows = a.item * a.parts, a.size, a.count, a.taps, a.high, a.n_rows
    first = a.start1 - (taps - 1)
    left = min(max(0, -first), count)
    right = max(left, min(count, size - first - taps + 1))
    if (left > 0 or right < count) and (a.height * size <= COPIED or right - left < count // 2):
        left = right = count
    some = max(1, min(n_rows, TABLE // high))
    table = a.scratch + ROWS_BYTES
    nothing = table + 8 * some * high
    inside = a.boundary != border.FILL or (a.start0 >= high - 1 and a.start0 + n_rows <= a.height)
    blank = 0 if inside else max(size, count + taps - 1)  # the row that is read above and below
    part = nothing + item * blank
    widest = max(left, count - right)
    if a.scratch == 0:
        a.scratch_nbytes = part + (item * a.height * (widest + taps - 1) if widest else 0)
        return
    for c in range(blank):
        copy_number(nothing + c * item, a.fill, item >> 2)
    r = fields(as_pointer(a.scratch, ROWS))
    r.rows, r.w, r.J, r.K, r.step, r.dilation = table, a.w, high, taps, 1, a.parts
    r.shear, r.y_row = 1 if high > 1 else 0, count * a.parts
    for piece in range(3):  # outputs 0 … left, left … right, right … count of every row
        begin = 0 if piece == 0 else left if piece == 1 else right
        n = (left if piece == 0 else right if piece == 1 else count) - begin
        if n == 0:
            continue
        base, pitch = a.x + (first + begin) * item, a.x_row
        if piece != 1:
            base, pitch = part, (n + taps - 1) * item
            for i in range(a.height):
                extend_row(
                    part + i * pitch, first + begin, n + taps - 1, a.x + i * a.x_row, size, a.boundary, a.fill, item
                )
        r.n = n * a.parts
        for row in range(0, n_rows, some):
            r.n_rows = min(some, n_rows - row)
            entries = as_pointer(table, np.int64)
            for i in range(r.n_rows):
                for j in range(high):
                    at = _element(a.start0 - (high - 1) + row + i + j, a.height, a.boundary)
                    put(entries, i * high + j, nothing if at < 0 else base + at * pitch)
            r.y = a.y + (row * count + begin) * item
            call_kernel(a.kernel, a.scratch, 0, 1)


ROWS_BYTES = ROWS.itemsize
MATRIX = kernel(ARGS)(matrix)


def _plain(number: type) -> Kernel:
    item = np.dtype(number).itemsize

    def plain(args, thread, threads):
        a = carray(args, 1)[0]
        w, fill = as_pointer(a.w, number), get(as_pointer(a.fill, number), 0)
        for r in range(a.n_rows):
            for c in range(a.count):
                y = as_pointer(a.y + (r * a.count + c) * a.y_step * item, number)
                total = get(y, 0)
                for j in range(a.high):
                    row = _element(a.start0 + r + j - (a.high - 1), a.height, a.boundary)
                    x = as_pointer(a.x + row * a.x_row, number)
                    for k in range(a.taps):
                        column = _element(a.start1 + c + k - (a.taps - 1), a.size, a.boundary)
                        inside = row >= 0 and column >= 0
                        if inside or not a.zero_fill:
                            value = get(x, column * a.x_step) if inside else fill
                            total += a.sign * (value * get(w, (j * a.taps + k) * a.w_step))
                put(y, 0, total)

    plain.__name__ = plain.__qualname__ = f"plain_f{8 * item}"
    return kernel(PLAIN)(plain)


PLAINS = {"f": _plain(np.float32), "d": _plain(np.float64)}
"""`plain` by the type of real numbers."""
