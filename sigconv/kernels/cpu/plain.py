"""Correlation of a matrix or a vector term by term, where a tap that is not finite must not meet what is not there.

    y[i, j] += sum over a, b of w[a, b] * x[start0 + i - (A - 1) + a, start1 + j - (B - 1) + b]

``x`` is continued beyond its ends as ``boundary`` says; y[0, 0] need not be the first output of the full result. For
callers that are compiled themselves; `sigconv.signal.nan` is what Python calls.
"""

from __future__ import annotations

import numpy as np

from sigconv.kernels import border
from sigconv.kernels.address import as_pointer, get, put
from sigconv.kernels.jit import Kernel, kernel, strict
from sigconv.kernels.late import carray

ARGS = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("x", "x_row", "height", "size"),  # address, bytes from row to row, rows, columns; columns are dense
            *("w", "high", "taps"),  # address, rows, columns; dense
            *("y", "n_rows", "count"),  # address, rows, columns; dense
            *("start0", "start1", "boundary", "fill"),  # ``fill``: address of one number of x's type
            *("x_step", "w_step", "y_step"),  # from column to column, in real numbers; 2 for a part of complex ones
            *("zero_fill", "sign"),  # whether there is nothing beyond the ends; 1 or -1: add or subtract
        )
    ]
)

_element = strict(border.element)


def _make(number: type) -> Kernel:
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
    return kernel(ARGS)(plain)


KERNELS = {"f": _make(np.float32), "d": _make(np.float64)}
"""By the type of real numbers, as `numpy.dtype.char`."""
