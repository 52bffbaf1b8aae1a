"""TensorProto to NumPy, trusting nothing: claimed sizes are checked against the bytes present, then memory is taken."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from onnx import SparseTensorProto, TensorProto, helper, numpy_helper

from sigconv.errors import ModelError
from sigconv.export.external import NOWHERE, External

_PACKED_BITS = {
    code: bits
    for bits, names in {
        2: ("INT2", "UINT2"),
        4: ("INT4", "UINT4", "FLOAT4E2M1"),
        6: ("FLOAT6E2M3", "FLOAT6E3M2"),
    }.items()
    for name in names
    if (code := getattr(TensorProto, name, None)) is not None
}
"""Element types smaller than a byte, by what the installed onnx knows."""

_UNPACKED = {getattr(TensorProto, name, None) for name in ("FLOAT6E2M3", "FLOAT6E3M2")}
"""Small types whose ``int32_data`` holds one element an entry all the same."""


def dtype_of(code: int) -> np.dtype[Any] | None:
    """The NumPy dtype of an ONNX element type; None where it is undefined or unknown."""
    try:
        return np.dtype(helper.tensor_dtype_to_np_dtype(code))
    except (KeyError, ValueError, TypeError):
        return None


def freeze(array: np.ndarray) -> np.ndarray:
    """The array, read-only, in native byte order and aligned; the caller gives it up."""
    array = np.require(
        array, dtype=array.dtype.newbyteorder("=") if array.dtype.byteorder in "<>" else None, requirements="A"
    )
    array.flags.writeable = False
    return array


def to_array(tensor: TensorProto, what: str, external: External = NOWHERE, raw: np.ndarray | None = None) -> np.ndarray:
    """The tensor's elements as a read-only array.

    ``what`` names the tensor in messages; ``external`` are the files beside the model; ``raw``: the bytes that stood in
    ``raw_data``, where `sigconv.export.wire` took them out.
    Raises ModelError where the tensor is malformed or claims more data than there is.
    """
    shape = tuple(tensor.dims)
    if any(d < 0 for d in shape):
        raise ModelError(f"{what}: negative size in shape {list(shape)}")
    dtype = dtype_of(tensor.data_type)
    if dtype is None:
        raise ModelError(f"{what}: unknown element type {tensor.data_type}")
    if tensor.HasField("segment"):
        raise ModelError(f"{what}: segmented tensors are not supported")
    count = math.prod(shape)
    bits = _PACKED_BITS.get(tensor.data_type, 8 * dtype.itemsize)
    nbytes = -(-count * bits // 8)
    if tensor.data_location == TensorProto.EXTERNAL:
        if tensor.data_type == TensorProto.STRING:
            raise ModelError(f"{what}: strings cannot be external data")
        raw = external.read(tensor, what, nbytes)
    elif tensor.HasField("raw_data"):
        if tensor.data_type == TensorProto.STRING:
            raise ModelError(f"{what}: strings cannot be raw data")
        if raw is None:
            raw = np.frombuffer(tensor.raw_data, np.uint8)  # each look at the field makes a copy of it
        if raw.size != nbytes:
            raise ModelError(f"{what}: shape {list(shape)} of {dtype.name} needs {nbytes} bytes, {raw.size} are given")
    else:
        raw = None
        field = helper.tensor_dtype_to_field(tensor.data_type)
        needed = count
        if tensor.data_type in _PACKED_BITS and tensor.data_type not in _UNPACKED:
            needed = nbytes
        elif dtype.kind == "c":
            needed = 2 * count
        given = len(getattr(tensor, field))
        if given != needed:
            raise ModelError(
                f"{what}: shape {list(shape)} of {dtype.name} needs {needed} entries of {field}, {given} are given"
            )
    if raw is not None:
        if tensor.data_type not in _PACKED_BITS and np.little_endian:
            return freeze(raw.view(dtype).reshape(shape))
        tensor = TensorProto(dims=shape, data_type=tensor.data_type, raw_data=raw.tobytes())
    return freeze(numpy_helper.to_array(tensor))


def sparse_to_array(
    sparse: SparseTensorProto, what: str, external: External = NOWHERE, limit: int = 1 << 30
) -> np.ndarray:
    """A sparse tensor as a dense read-only array of at most ``limit`` bytes."""
    shape = tuple(sparse.dims)
    if any(d < 0 for d in shape):
        raise ModelError(f"{what}: negative size in shape {list(shape)}")
    values = to_array(sparse.values, f"{what}, values", external)
    indices = to_array(sparse.indices, f"{what}, indices", external)
    count = math.prod(shape)
    if count * max(values.dtype.itemsize, 1) > limit:
        raise ModelError(f"{what}: dense shape {list(shape)} of {values.dtype} takes more than {limit} bytes")
    if (
        values.ndim != 1
        or indices.dtype != np.int64
        or indices.shape not in ((values.size,), (values.size, len(shape)))
    ):
        raise ModelError(
            f"{what}: values {list(values.shape)} and indices {list(indices.shape)} do not fit shape {list(shape)}"
        )
    bounds = np.array(shape if indices.ndim == 2 else count, np.int64)
    if (indices < 0).any() or (indices >= bounds).any():
        raise ModelError(f"{what}: an index is outside shape {list(shape)}")
    dense = np.zeros(shape, values.dtype)
    if indices.ndim == 2:
        dense[tuple(indices.T)] = values
    else:
        dense.reshape(-1)[indices] = values
    return freeze(dense)
