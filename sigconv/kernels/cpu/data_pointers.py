"""Data pointers of NumPy's arrays, read from the array objects by native code.

An array object is Python's object head and then the address of its first element; both are public in NumPy's C headers.
Asking for that address in Python takes longer than a small layer. Whoever passes an array object's address holds a
reference to it until the kernel is done.
"""

from __future__ import annotations

import ctypes
import sys

import numpy as np

from sigconv.kernels.address import as_pointer, get, put
from sigconv.kernels.jit import inline, kernel
from sigconv.kernels.late import carray

HEAD = object.__basicsize__
"""Bytes of a Python object before what its type adds; those of a free-threaded or a tracing build are more."""


def _readable() -> bool:
    a = np.arange(3.0)[1:]
    # The order matters: elsewhere id() need not be an address.
    return sys.implementation.name == "cpython" and (
        ctypes.c_void_p.from_address(id(a) + HEAD).value == a.__array_interface__["data"][0]
    )


READABLE = _readable()
"""Whether array objects of this Python and this NumPy are what this module takes them for."""

FIXUP = np.dtype([(name, np.int64) for name in ("array", "offset", "target")])
"""An address to write at ``target``: the data pointer of an array, given by its index, and ``offset`` bytes."""

ARGS = np.dtype([(name, np.int64) for name in ("objects", "fixups", "n_fixups", "head")])
"""``objects``: addresses of array objects. ``head``: `HEAD`."""


@inline
def data_pointer(array, head):
    """The address of the first element, for the address of an array object."""
    return get(as_pointer(array + head, np.int64), 0)


@kernel(ARGS)
def fix_up(args, thread, threads):
    """Write the arrays' data pointers into the records of the steps that follow."""
    a = carray(args, 1)[0]
    objects = as_pointer(a.objects, np.int64)
    fixups = carray(as_pointer(a.fixups, np.int64), (a.n_fixups, 3))
    for i in range(a.n_fixups):
        first = data_pointer(objects[fixups[i, 0]], a.head)
        put(as_pointer(fixups[i, 2], np.int64), 0, first + fixups[i, 1])
