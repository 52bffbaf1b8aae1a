"""DLPack, read: an array of another library by its capsule, offered as ``__cuda_array_interface__``.

Source: dlpack.h, version 0.8 (DLManagedTensor) and the array API standard's ``__dlpack__``.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np

from sigconv.errors import InputError

CUDA = 2
"""kDLCUDA."""
_KINDS = {0: "i", 1: "u", 2: "f", 5: "c", 6: "b"}


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


_python = ctypes.pythonapi
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", _python))
_rename = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_SetName", _python))
_USED = b"used_dltensor"  # must outlive every capsule


class Taken:
    """What a capsule holds, taken from it; the producer's memory is given back when this is deleted.

    Attributes
    ----------
    address, shape, strides, dtype
        ``strides`` in bytes.
    device : int
        DLPack's kind of device: 1 CPU, 2 CUDA.
    """

    def __init__(self, capsule: Any) -> None:
        address = _pointer(capsule, b"dltensor")
        self._managed = ctypes.cast(address, ctypes.POINTER(_Managed)).contents
        _rename(capsule, _USED)
        t = self._managed.tensor
        if t.lanes != 1 or t.code not in _KINDS:
            raise InputError(f"a DLPack array of type code {t.code}, {t.lanes} lanes; numbers and bool are accepted")
        self.dtype = np.dtype(f"{_KINDS[t.code]}{t.bits // 8}")
        self.shape = tuple(t.shape[i] for i in range(t.ndim))
        item = self.dtype.itemsize
        dense = tuple(item * math.prod(self.shape[i + 1 :]) for i in range(t.ndim))
        self.strides = tuple(item * t.strides[i] for i in range(t.ndim)) if t.strides else dense
        self.address = (t.data or 0) + t.byte_offset
        self.device = int(t.device_type)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "data": (self.address, False),
            "shape": self.shape,
            "strides": self.strides,
            "typestr": self.dtype.str,
            "version": 3,
        }

    def __del__(self) -> None:
        managed = getattr(self, "_managed", None)
        if managed is not None and managed.deleter:
            ctypes.CFUNCTYPE(None, ctypes.c_void_p)(managed.deleter)(ctypes.addressof(managed))
