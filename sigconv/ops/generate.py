"""Operators that make tensors out of attributes, sizes or scalars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sigconv.errors import ModelError
from sigconv.ops._infer import NUMERIC, Attrs, Facts, axis_index, check_dtype, check_rank, common_dtype, fact
from sigconv.ops._known import as_ints, check_not_negative, count, ints, scalar, unknown
from sigconv.ops.cast import convert, element_dtype
from sigconv.ops.spec import Fact, register


def constant_value(attrs: Attrs) -> np.ndarray:
    """The tensor of a Constant node: ``value`` as it is, or an int64 / float32 scalar or vector."""
    given = [(name, value) for name, value in attrs.items() if value is not None]
    if len(given) != 1:
        raise ModelError(
            f"exactly one value attribute is needed, but there are {', '.join(n for n, _ in given) or 'none'}"
        )
    name, value = given[0]
    if name == "value":
        return np.asarray(value)
    return np.array(value, np.int64 if name.startswith("value_int") else np.float32)


def _infer_constant(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    return [Fact.of(constant_value(attrs))]


@register("Constant", infer=_infer_constant, since=25, accuracy="exact")
def constant(
    *,
    value: np.ndarray | None = None,
    value_float: float | None = None,
    value_floats: Sequence[float] | None = None,
    value_int: int | None = None,
    value_ints: Sequence[int] | None = None,
) -> np.ndarray:
    """A tensor written in the model."""
    return constant_value(
        {
            "value": value,
            "value_float": value_float,
            "value_floats": value_floats,
            "value_int": value_int,
            "value_ints": value_ints,
        }
    )


def _fill(value: np.ndarray | None) -> np.ndarray:
    fill = np.zeros(1, np.float32) if value is None else np.asarray(value)
    if fill.size != 1:
        raise ModelError(f"value must hold one element, but has shape {fill.shape}")
    return fill.reshape(())


def _infer_constant_of_shape(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    sizes = ints(facts, 0, "input 0")
    shape = unknown(count(facts, 0)) if sizes is None else check_not_negative(sizes, "the shape in input 0")
    return [Fact(_fill(attrs["value"]).dtype, shape)]


@register("ConstantOfShape", infer=_infer_constant_of_shape, since=25, accuracy="exact")
def constant_of_shape(input: np.ndarray, *, value: np.ndarray | None = None) -> np.ndarray:
    """A tensor of the given shape, every element ``value`` (default: float32 zero)."""
    fill = _fill(value)
    return np.full(check_not_negative(as_ints(input), "the shape in input 0"), fill, fill.dtype)


def range_length(start: float, limit: float, delta: float) -> int:
    """``max(ceil((limit - start) / delta), 0)``, exact for integers; ModelError for a zero or non-finite step count."""
    if delta == 0:
        raise ModelError(f"delta is 0: the range from {start} to {limit} never ends")
    if isinstance(start, int) and isinstance(limit, int) and isinstance(delta, int):
        return max(0, -((start - limit) // delta))
    steps = (limit - start) / delta
    if not math.isfinite(steps):
        raise ModelError(f"a range from {start} to {limit} by {delta} has no finite length")
    return max(0, math.ceil(steps))


def _infer_range(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    start, limit, delta = (scalar(facts, i, what) for i, what in enumerate(("start", "limit", "delta")))
    length = None if start is None or limit is None or delta is None else range_length(start, limit, delta)
    return [Fact(common_dtype(facts, allowed=NUMERIC), (length,))]


@register("Range", infer=_infer_range, since=27, accuracy="exact")
def range_(start: np.ndarray, limit: np.ndarray, delta: np.ndarray, *, stash_type: int = 1) -> np.ndarray:
    """``start + i * delta`` for every i that stays before ``limit``; float16 and bfloat16 compute in ``stash_type``."""
    dtype = start.dtype
    narrow = dtype.name in ("float16", "bfloat16")
    first, last, step = (
        np.reshape(v, ()).astype(element_dtype(stash_type) if narrow else dtype) for v in (start, limit, delta)
    )
    steps = np.arange(range_length(first.item(), last.item(), step.item()))
    return (first + steps.astype(first.dtype) * step).astype(dtype)


def _infer_eye_like(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    given = fact(facts, 0)
    check_rank(given, (2,))
    return [Fact(given.dtype if attrs["dtype"] is None else element_dtype(attrs["dtype"]), given.shape)]


@register("EyeLike", infer=_infer_eye_like, since=22, accuracy="exact")
def eye_like(input: np.ndarray, *, dtype: int | None = None, k: int = 0) -> np.ndarray:
    """Ones on diagonal ``k`` of a matrix shaped like the input."""
    kind = input.dtype if dtype is None else element_dtype(dtype)
    return np.eye(input.shape[0], input.shape[1], k).astype(kind)


def _infer_one_hot(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    indices, depth = fact(facts, 0), scalar(facts, 1, "depth")
    check_rank(fact(facts, 2), (1,), what="values")
    if depth is not None and depth < 0:
        raise ModelError(f"depth is {depth}; accepted is 0 or more")
    if indices.shape is None:
        return [Fact(fact(facts, 2).dtype)]
    axis = axis_index(attrs["axis"], len(indices.shape) + 1)
    shape = (*indices.shape[:axis], None if depth is None else int(depth), *indices.shape[axis:])
    return [Fact(fact(facts, 2).dtype, shape)]


@register("OneHot", infer=_infer_one_hot, since=28, accuracy="exact")
def one_hot(indices: np.ndarray, depth: np.ndarray, values: np.ndarray, *, axis: int = -1) -> np.ndarray:
    """``values[1]`` where the position along a new ``axis`` of size ``depth`` is the index, else ``values[0]``.

    Negative indices count from the end; an index outside [-depth, depth) marks nothing.
    """
    size = int(np.reshape(depth, ()))
    axis = axis_index(axis, indices.ndim + 1)
    index = np.expand_dims(indices.astype(np.int64), axis)
    position = np.arange(size).reshape((-1,) + (1,) * (indices.ndim - axis))
    hit = (index == position) | (index + size == position)
    return np.where(hit, values[1], values[0])


COSINE_WINDOWS = {
    "HannWindow": (0.5, 0.5),
    "HammingWindow": (25 / 46, 21 / 46),
    "BlackmanWindow": (0.42, 0.5, 0.08),
}
"""Coefficients of the alternating cosine sum of each window; Hamming's are ONNX's 25/46, not 0.54."""


def _infer_window(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    size = scalar(facts, 0, "size")
    if size is not None and size < 0:
        raise ModelError(f"size is {size}; accepted is 0 or more")
    return [Fact(element_dtype(attrs["output_datatype"]), (None if size is None else int(size),))]


def _register_window(name: str, coefficients: Sequence[float]) -> None:
    def window(size: np.ndarray, *, output_datatype: int = 1, periodic: int = 1) -> np.ndarray:
        n = int(np.reshape(size, ()))
        phase = 2 * np.pi * np.arange(n) / max(1, n if periodic else n - 1)
        total: Any = sum((-1) ** k * a * np.cos(k * phase) for k, a in enumerate(coefficients))
        return convert(np.asarray(total), element_dtype(output_datatype))

    window.__doc__ = f"A {name} of ``size`` points, for spectral analysis (``periodic``) or filter design."
    register(name, infer=_infer_window, since=17)(window)


for _name, _coefficients in COSINE_WINDOWS.items():
    _register_window(_name, _coefficients)


def _infer_mel(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    bins, length = scalar(facts, 0, "num_mel_bins"), scalar(facts, 1, "dft_length")
    for i in (0, 1, 2):
        check_dtype(fact(facts, i).dtype, ("int32", "int64"), f"input {i}")
    shape = (None if length is None else int(length) // 2 + 1, None if bins is None else int(bins))
    return [Fact(element_dtype(attrs["output_datatype"]), shape)]


@register("MelWeightMatrix", infer=_infer_mel, since=17)
def mel_weight_matrix(
    num_mel_bins: np.ndarray,
    dft_length: np.ndarray,
    sample_rate: np.ndarray,
    lower_edge_hertz: np.ndarray,
    upper_edge_hertz: np.ndarray,
    *,
    output_datatype: int = 1,
) -> np.ndarray:
    """Triangular filters, even on the mel scale 2595 log10(1 + f / 700): shape (dft_length // 2 + 1, num_mel_bins)."""
    bins, length, rate = (int(np.reshape(v, ())) for v in (num_mel_bins, dft_length, sample_rate))
    low, high = (2595 * math.log10(1 + float(np.reshape(v, ())) / 700) for v in (lower_edge_hertz, upper_edge_hertz))
    mel = low + np.arange(bins + 2) * ((high - low) / (bins + 2))
    edges = ((length + 1) * (700 * (10 ** (mel / 2595) - 1)) // rate).astype(np.int64)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    j = np.arange(length // 2 + 1)[:, None]
    rising = np.where(left == centre, j == centre, (j - left) / np.maximum(centre - left, 1))
    falling = (right - j) / np.maximum(right - centre, 1)
    weights = np.where((j >= centre) & (j < right), falling, np.where((j >= left) & (j <= centre), rising, 0.0))
    return convert(weights, element_dtype(output_datatype))
