"""Conversion between element types, and ONNX's numbering of them."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import numpy as np

from sigconv.errors import ModelError, UnsupportedError
from sigconv.ops._infer import Attrs, Facts, fact
from sigconv.ops._known import check_choice
from sigconv.ops.spec import Fact, register

ELEMENT_TYPES = MappingProxyType(
    {
        1: "float32",
        2: "uint8",
        3: "int8",
        4: "uint16",
        5: "int16",
        6: "int32",
        7: "int64",
        9: "bool",
        10: "float16",
        11: "float64",
        12: "uint32",
        13: "uint64",
        14: "complex64",
        15: "complex128",
        16: "bfloat16",
        17: "float8_e4m3fn",
        18: "float8_e4m3fnuz",
        19: "float8_e5m2",
        20: "float8_e5m2fnuz",
        21: "uint4",
        22: "int4",
        23: "float4_e2m1fn",
        24: "float8_e8m0fnu",
        25: "uint2",
        26: "int2",
    }
)
"""NumPy's (from 16 on: ml_dtypes') name of each TensorProto.DataType."""

STRING = 8
FIRST_ML_DTYPE = 16


def element_dtype(code: int) -> np.dtype[Any]:
    """The NumPy dtype of a TensorProto.DataType; UnsupportedError for strings, ModelError for an unknown code."""
    if code == STRING:
        raise UnsupportedError("string tensors are not supported", ("string tensors",))
    name = ELEMENT_TYPES.get(code)
    if name is None:
        known = ", ".join(f"{c} ({n})" for c, n in ELEMENT_TYPES.items())
        raise ModelError(f"element type {code} is not known; accepted are {known}")
    if code < FIRST_ML_DTYPE:
        return np.dtype(name)
    import ml_dtypes  # loaded only where a model has such a type

    return np.dtype(getattr(ml_dtypes, name))


def convert(x: np.ndarray, dtype: np.dtype[Any], saturate: bool = True, round_mode: str = "up") -> np.ndarray:
    """``x`` as ``dtype``: floats round to nearest even, integers wrap around.

    With ``saturate`` float8 types clamp to their range. ``round_mode`` (up, down, nearest) applies to float8_e8m0fnu,
    which holds powers of two only.
    """
    if x.dtype.kind in "OSU":
        raise UnsupportedError("string tensors are not supported", ("string tensors",))
    with np.errstate(all="ignore"):
        if dtype.name == "float8_e8m0fnu":
            return _power_of_two(x.astype(np.float32), saturate, round_mode).view(dtype)
        if saturate and dtype.name.startswith("float8"):
            import ml_dtypes

            limit = np.float32(ml_dtypes.finfo(dtype).max)
            x = np.clip(x.astype(np.float32), -limit, limit)
        return x.astype(dtype)


def _power_of_two(x: np.ndarray, saturate: bool, round_mode: str) -> np.ndarray:
    """The biased exponents of float32 values rounded to a power of two; 255 is NaN."""
    check_choice(round_mode, ("up", "down", "nearest"), "round_mode")
    bits = x.view(np.uint32)
    exponent, fraction = (bits >> 23) & 0xFF, bits & 0x7FFFFF
    half = 0x400000 - (exponent > 0)
    rounds = {"up": fraction > 0, "down": np.zeros_like(fraction, bool), "nearest": fraction > half}[round_mode]
    finite = exponent < 0xFF
    rounded = np.minimum(exponent + rounds, 0xFE if saturate else 0xFF)
    return np.where(finite, rounded, 0xFF).astype(np.uint8)


def check_saturate(attrs: Attrs) -> None:
    """ModelError unless ``saturate`` is 0 or 1: of other numbers some take all for true, onnxruntime all for false."""
    check_choice(attrs["saturate"], (0, 1), "saturate")


def _infer_cast(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    check_saturate(attrs)
    return [Fact(element_dtype(attrs["to"]), fact(facts, 0).shape)]


@register("Cast", infer=_infer_cast, since=28, accuracy="exact")
def cast(input: np.ndarray, *, to: int, saturate: int = 1, round_mode: str = "up") -> np.ndarray:
    """The elements as the TensorProto.DataType ``to``; see `convert`."""
    return convert(input, element_dtype(to), bool(saturate), round_mode)


def _infer_cast_like(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    check_saturate(attrs)
    return [Fact(fact(facts, 1).dtype, fact(facts, 0).shape)]


@register("CastLike", infer=_infer_cast_like, since=25, accuracy="exact")
def cast_like(input: np.ndarray, target_type: np.ndarray, *, saturate: int = 1, round_mode: str = "up") -> np.ndarray:
    """The elements in the dtype of the second input."""
    return convert(input, target_type.dtype, bool(saturate), round_mode)
