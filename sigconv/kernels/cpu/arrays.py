"""The call of an image kernel for NumPy's array objects, whose data pointers are read here, not asked in Python."""

from __future__ import annotations

import numpy as np

from sigconv.kernels.address import as_pointer, get, put
from sigconv.kernels.atomic import call_kernel
from sigconv.kernels.cpu import image
from sigconv.kernels.cpu.data_pointers import data_pointer
from sigconv.kernels.jit import kernel
from sigconv.kernels.late import carray

ARGS = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("x", "w", "y"),  # addresses of array objects
            "head",  # `data_pointers.HEAD`
            "first",  # bytes from the first number of w to the tap w[0, 0] of the correlation
            *("w_row", "w_column"),  # bytes from row to row and from tap to tap, negative where w is turned
            *("J", "K", "item", "taps"),  # taps; bytes of a number, 4 or 8; where to write the taps, densely
            "record",  # address of the record of `image`, whose x and y are written and whose ``finite`` is 0 …
            "kernel",  # … where an address is not aligned; 0, or the image kernel that is called with it
        )
    ]
)

_FIELDS = image.ARGS.names or ()
_X, _Y, _FINITE = (_FIELDS.index(name) for name in ("x", "y", "finite"))


@kernel(ARGS)
def call(args, thread, threads):
    """Fill in the record of `image`, and call it."""
    a = carray(args, 1)[0]
    x, w, y = data_pointer(a.x, a.head), data_pointer(a.w, a.head), data_pointer(a.y, a.head)
    record = as_pointer(a.record, np.int64)
    put(record, _X, x)
    put(record, _Y, y)
    aligned = (x | w | y) & (a.item - 1) == 0
    put(record, _FINITE, 1 if aligned else 0)
    if not aligned:
        return
    for j in range(a.J):
        for k in range(a.K):
            of, to = w + a.first + j * a.w_row + k * a.w_column, a.taps + (j * a.K + k) * a.item
            if a.item == 4:
                put(as_pointer(to, np.int32), 0, get(as_pointer(of, np.int32), 0))
            else:
                put(as_pointer(to, np.int64), 0, get(as_pointer(of, np.int64), 0))
    if a.kernel != 0:
        call_kernel(a.kernel, a.record, 0, 1)
