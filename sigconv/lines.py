"""Cache lines: memory that begins on one, sizes in whole ones. A register that lies across two takes two loads."""

from __future__ import annotations

from typing import Any

import numpy as np

LINE = 64
"""Bytes."""


def whole(nbytes: int) -> int:
    """``nbytes`` rounded up to whole lines."""
    return -(-nbytes // LINE) * LINE


def zeros(size: int, dtype: np.dtype[Any] | type = np.uint8) -> np.ndarray:
    """A vector of zeros that begins on a line."""
    nbytes = size * np.dtype(dtype).itemsize
    raw = np.zeros(nbytes + LINE, np.uint8)
    start = -raw.ctypes.data % LINE
    return raw[start : start + nbytes].view(dtype)


def on_line(array: np.ndarray) -> np.ndarray:
    """The array in C order, from a line on where it is that long; a copy only if it is not."""
    contiguous = np.ascontiguousarray(array)
    if array.dtype.hasobject or array.nbytes < LINE or contiguous.ctypes.data % LINE == 0:
        return contiguous
    kept = zeros(array.size, array.dtype).reshape(array.shape)
    kept[...] = array
    return kept
