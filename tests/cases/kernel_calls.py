"""Call a kernel on NumPy arrays: fill its args record by field name, then run every thread's share in turn."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np


def _scalar(value: Any) -> Any:
    if isinstance(value, np.generic) and not isinstance(value, np.integer):
        raise TypeError(f"{value!r} has no address: pass a 0-d array")
    return value.ctypes.data if isinstance(value, np.ndarray) else value


def arguments(dtype: np.dtype[Any], **fields: Any) -> np.ndarray:
    """A one-element record array of ``dtype``, zero where no field is given.

    An array stands for its address. A field that is itself an array takes a sequence (of numbers or arrays) no longer
    than the field; the rest stays zero.
    """
    record = np.zeros(1, dtype)
    for name, value in fields.items():
        shape = dtype[name].shape
        if not shape:
            record[0][name] = _scalar(value)
        elif isinstance(value, np.ndarray):
            record[0][name][tuple(map(slice, value.shape))] = value
        else:
            for index, item in enumerate(value):
                record[0][name][index] = _scalar(item)
    return record


def parts(memory: np.ndarray) -> dict[str, Any]:
    """The fields of `sigconv.kernels.scratch`; ``memory`` has a row a thread."""
    size = memory.strides[0]
    return dict(scratch=memory, scratch_others=memory.ctypes.data + size, scratch_bytes=size)


def call(kernel: Any, *, threads: int = 1, **fields: Any) -> None:
    """Run ``kernel`` (anything with ``.args`` and ``.address``) as each of ``threads`` threads, one after another."""
    record = arguments(kernel.args, **fields)
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(kernel.address)
    for thread in range(threads):
        function(record.ctypes.data, thread, threads)
