"""Short 1-D signals: one native call on memory that is already there, a few microseconds from Python to the answer.

Inputs are copied to a desk, buffers whose addresses and argument record are set once; NumPy does the copies, so any
strides and byte order are welcome. The bits are those of the direct method.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from sigconv.signal import kernels
from sigconv.signal.problem import Array

LONGEST = 1 << 14
"""Numbers of the longest signal."""
PRODUCTS = 1 << 18
"""Most multiply-adds: up to these the direct method is the fastest anyway."""

_Call = ctypes.PYFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)  # too short to let the GIL go


class Desk:
    """Buffers for one call at a time, of one type."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        from sigconv.kernels.cpu import rows_short

        self.x, self.w = np.zeros(LONGEST, dtype), np.zeros(LONGEST, dtype)
        self.y = np.zeros(2 * LONGEST, dtype)
        self._record = np.zeros(1, rows_short.ARGS)
        names = rows_short.ARGS.names or ()
        for name, array in (("x", self.x), ("w", self.w), ("y", self.y)):
            self._record[name] = array.ctypes.data
        self._record["w_step"] = 1
        self.words = memoryview(self._record.view(np.int64).data)
        self.n, self.taps, self.start, self.count = (names.index(name) for name in ("n", "K", "start", "count"))
        self._kernel = rows_short.KERNELS[f"{dtype.kind}{8 * dtype.itemsize}"]
        self._call = _Call(self._kernel.address)
        self._address = self._record.ctypes.data

    def run(self, x: Array, w: Array, n: int, k: int, start: int, count: int) -> Array:
        """Outputs ``start`` … of the full correlation of ``x`` with the taps ``w``."""
        self.x[:n] = x
        self.w[:k] = w
        words = self.words
        words[self.n], words[self.taps], words[self.start], words[self.count] = n, k, start, count
        self._call(self._address, 0, 1)
        return self.y[:count].copy()


_free: dict[str, list[Desk]] = {"f": [], "d": [], "F": [], "D": []}


def convolve(in1: Any, in2: Any, mode: str) -> Array | None:
    """The convolution of two short vectors; None: it is for others to do."""
    x, w = np.asarray(in1), np.asarray(in2)
    if x.ndim != 1 or w.ndim != 1:
        return None
    n, k = len(x), len(w)
    if not 0 < n <= LONGEST or not 0 < k <= LONGEST or n * k > PRODUCTS:
        return None
    kind: str = x.dtype.char
    if kind != w.dtype.char or kind not in _free:
        result = _result(x, w)
        if result is None:
            return None
        kind, dtype = result
    else:
        dtype = None
    if mode == "full":
        start, count = 0, n + k - 1
    elif mode == "same":
        start, count = (k - 1) // 2, n
    elif mode == "valid":
        start, count = (k - 1, n - k + 1) if n >= k else (n - 1, k - n + 1)
    else:
        return None
    try:
        desk = _free[kind].pop()
    except IndexError:
        desk = Desk(np.dtype(kind))
    if n >= k:
        y = desk.run(x, w[::-1], n, k, start, count)
    else:
        y = desk.run(w, x[::-1], k, n, start, count)
    _free[kind].append(desk)
    return y if dtype is None else _narrowed(y, dtype)


def _result(x: Array, w: Array) -> tuple[str, np.dtype[Any]] | None:
    """In which type to sum mixed and other types, and the type of the result; None: not here.

    Integers are summed in float64 where no sum can leave its exact range.
    """
    if x.dtype.kind not in "iufc" or w.dtype.kind not in "iufc" or (x.dtype.kind == "c") != (w.dtype.kind == "c"):
        return None  # a real number is not a complex one where Inf times 0 counts
    dtype = np.result_type(x.dtype, w.dtype)
    if dtype.kind in "iu":
        exact = kernels.largest(x) * kernels.largest(w) * min(len(x), len(w)) < 1 << 53
        return ("d", dtype) if exact else None
    kind = "f" if dtype.char == "e" else dtype.char
    return (kind, dtype) if kind in _free else None


def _narrowed(y: Array, dtype: np.dtype[Any]) -> Array:
    """Integers modulo the size of their type."""
    return (y.astype(np.int64) if dtype.kind in "iu" else y).astype(dtype, copy=False)


def correlate(in1: Any, in2: Any, mode: str) -> Array | None:
    """The correlation of two short vectors, likewise."""
    w = np.asarray(in2)
    if w.ndim != 1:
        return None
    return convolve(in1, w[::-1] if w.dtype.kind != "c" else w[::-1].conj(), mode)
