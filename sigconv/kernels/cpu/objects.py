"""Where the numbers of NumPy's arrays lie, read from the array objects by native code.

An array object is Python's object head and then the address of its first number; both are public in NumPy's C headers.
Asking for that address in Python takes longer than a small layer.
"""

from __future__ import annotations

import ctypes
import functools
import sys

import numpy as np

from sigconv.kernels.address import as_pointer
from sigconv.kernels.jit import kernel
from sigconv.kernels.late import carray

HEAD = object.__basicsize__
"""Bytes of a Python object before what its type adds."""

PLACE = np.dtype([(name, np.int64) for name in ("array", "offset", "target")])
"""An address to write at ``target``: that of an array, by its index, and ``offset`` bytes."""

LOCATE = np.dtype([(name, np.int64) for name in ("objects", "places", "n_places", "head")])
"""``objects``: addresses of array objects. ``head``: `HEAD`."""


@functools.cache
def known() -> bool:
    """Whether an array object of this Python and this NumPy is what this module takes it for."""
    a = np.arange(3.0)
    if sys.implementation.name != "cpython":
        return False
    return ctypes.c_void_p.from_address(id(a) + HEAD).value == a.__array_interface__["data"][0]


@kernel(LOCATE)
def locate(args, thread, threads):
    """Write the arrays' addresses into the records of the steps that follow."""
    a = carray(args, 1)[0]
    objects = as_pointer(a.objects, np.int64)
    places = carray(as_pointer(a.places, np.int64), (a.n_places, 3))
    for i in range(a.n_places):
        numbers = carray(as_pointer(objects[places[i, 0]] + a.head, np.int64), 1)
        carray(as_pointer(places[i, 2], np.int64), 1)[0] = numbers[0] + places[i, 1]
