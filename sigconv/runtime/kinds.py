"""Where an array lies, told without importing the library that made it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from sigconv.errors import InputError

DEVICES = ("cpu", "cuda")

_DLPACK_CUDA = 2


def is_device_array(value: Any) -> bool:
    """Whether the value lies on a CUDA device and says so: ``__cuda_array_interface__``, or DLPack's kDLCUDA."""
    if isinstance(value, np.ndarray):
        return False
    if getattr(value, "__cuda_ndarray__", False) or hasattr(value, "__cuda_array_interface__"):
        return True
    where = getattr(value, "__dlpack_device__", None)
    return where is not None and int(where()[0]) == _DLPACK_CUDA


def device_of(values: Iterable[Any], device: str | None = None) -> str:
    """``device`` if named, else where the arrays lie: 'cuda' if one of them is on a device."""
    if device is None:
        return "cuda" if any(map(is_device_array, values)) else "cpu"
    if device not in DEVICES:
        raise InputError(f"device is {device!r}; accepted are {' and '.join(map(repr, DEVICES))}")
    return device
