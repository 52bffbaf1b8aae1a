"""One task of convolution or correlation in the normal form that every method reads.

Both are brought to the *correlation form*: output ``n`` of an axis is ``sum over k < K of w[k] * x[n - (K - 1) + k]``
for ``n`` in the coordinates of the full result, ``0 … N + K - 2``. For a convolution ``w`` is the second input
reversed along the convolved axes, for a correlation its conjugate. A mode is a range of ``n`` per axis.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sigconv.errors import InputError
from sigconv.runtime.kinds import is_device_array

Array = np.ndarray[Any, np.dtype[Any]]
Range = tuple[int, int]
"""First index and the one after the last; they may lie outside the array."""

MODES = ("full", "same", "valid")
BOUNDARIES = {
    "fill": "fill", "pad": "fill", "edge": "edge", "symm": "symm", "symmetric": "symm", "reflect": "reflect",
    "wrap": "wrap", "circular": "wrap",
}  # fmt: skip
"""Accepted boundaries and what they mean. For ``a b c d``: edge ``a a|abcd|d d``, symm ``b a|abcd|d c``,
reflect ``c b|abcd|c b``, wrap ``c d|abcd|a b``; each as far as the kernel reaches."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A normalised task.

    Attributes
    ----------
    x, w : ndarray
        Signal and kernel (in correlation form) of the same rank, in native byte order. Along axes that are not
        convolved the sizes are equal, or one of them is 1 and is repeated.
    conv : tuple of bool
        Which axes are convolved.
    start, count : tuple of int
        The outputs wanted on each axis, in coordinates of the full result (axes not convolved: from 0). ``count`` is
        the shape of the result.
    boundary : str
        What ``x`` is beyond its ends: 'fill', 'edge', 'symm', 'reflect' or 'wrap'.
    fillvalue : scalar
        For 'fill'. With 0 the terms beyond the ends do not exist: they add nothing even where ``w`` is not finite.
    dtype, work : dtype
        Of the result, and in which sums are taken.
    spectra : sigconv.signal.fft.Spectra, optional
        Transforms that are kept from call to call.
    """

    x: Array
    w: Array
    conv: tuple[bool, ...]
    start: tuple[int, ...]
    count: tuple[int, ...]
    boundary: str
    fillvalue: Any
    dtype: np.dtype[Any]
    work: np.dtype[Any]
    spectra: Any = None

    @property
    def zero_fill(self) -> bool:
        """Whether nothing lies beyond the ends of the signal; only then do signal and kernel commute."""
        return self.boundary == "fill" and self.fillvalue == 0

    @property
    def macs(self) -> int:
        """Multiply-adds of the definition."""
        return math.prod(k for k, c in zip(self.w.shape, self.conv, strict=True) if c) * math.prod(self.count)

    def reads(self, axis: int) -> Range:
        """The range of ``x`` that the outputs of a convolved axis read, borders included."""
        first = self.start[axis] - (self.w.shape[axis] - 1)
        return first, self.start[axis] + self.count[axis]

    def swapped(self) -> Problem:
        """The same result with signal and kernel in each other's place. Only for a zero fill, or inside the signal."""
        flip = flipper(self.conv)
        return replace(self, x=self.w[flip], w=self.x[flip])

    def commuted(self) -> Problem:
        """The same result with the shorter array as the kernel, where signal and kernel commute."""
        taps = [math.prod(n for n, c in zip(a.shape, self.conv, strict=True) if c) for a in (self.x, self.w)]
        return self.swapped() if self.zero_fill and taps[0] < taps[1] else self

    def extended(self) -> Problem:
        """The same task with the borders written out: nothing beyond the ends of the new signal is read."""
        boxes = [self.reads(a) if c else (0, n) for a, (c, n) in enumerate(zip(self.conv, self.x.shape, strict=True))]
        x = extend(self.x, boxes, self.boundary, self.fillvalue)
        start = tuple(k - 1 if c else 0 for k, c in zip(self.w.shape, self.conv, strict=True))
        return replace(self, x=x, start=start, boundary="fill", fillvalue=0)


def flipper(conv: Sequence[bool]) -> tuple[slice, ...]:
    """The index that reverses the convolved axes."""
    return tuple(slice(None, None, -1) if c else slice(None) for c in conv)


def extension(first: int, stop: int, size: int, boundary: str) -> Array:
    """Where elements ``first … stop - 1`` of an extended axis come from: int64, -1 for the fill value."""
    i = np.arange(first, stop, dtype=np.int64)
    if boundary == "fill":
        return np.where((i >= 0) & (i < size), i, -1)
    if boundary == "edge":
        return np.clip(i, 0, size - 1)
    if boundary == "wrap":
        return i % size
    if boundary == "symm":
        i %= 2 * size
        return np.minimum(i, 2 * size - 1 - i)
    period = max(2 * size - 2, 1)
    i %= period
    return np.minimum(i, period - i) if size > 1 else i


def extend(x: Array, boxes: Sequence[Range], boundary: str, fillvalue: Any = 0) -> Array:
    """``x`` cut or continued to a range on each axis; a view where no axis is continued."""
    inside = tuple(slice(min(max(a, 0), n), max(min(b, n), 0)) for (a, b), n in zip(boxes, x.shape, strict=True))
    if all(a >= 0 and b <= n for (a, b), n in zip(boxes, x.shape, strict=True)):
        return x[inside]
    if boundary == "fill":
        y = np.full([max(b - a, 0) for a, b in boxes], fillvalue, x.dtype)
        part = x[inside]
        if part.size:
            y[tuple(slice(s.start - a, s.start - a + n) for s, (a, _), n in zip(inside, boxes, part.shape))] = part  # noqa: B905
        return y
    for axis, (a, b) in enumerate(boxes):
        if a < 0 or b > x.shape[axis]:
            x = np.take(x, extension(a, b, x.shape[axis], boundary), axis)
        else:
            x = x[(slice(None),) * axis + (slice(a, b),)]
    return x


def as_numbers(value: Any, name: str) -> Array:
    """An array of a type that can be convolved, in native byte order; TypeError otherwise."""
    if is_device_array(value):
        raise InputError(f"{name} lies on a CUDA device and this runs on the host; nothing is copied silently")
    array = np.asarray(value)
    if array.dtype.kind not in "biufcO":
        raise TypeError(f"{name} has dtype {array.dtype}; accepted are numbers, bool and objects that multiply and add")
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def axis_numbers(axes: Any, rank: int) -> tuple[int, ...]:
    """``axes`` as sorted distinct positions; None stands for all."""
    if axes is None:
        return tuple(range(rank))
    try:
        given = [operator.index(axes)]
    except TypeError:
        try:
            given = [operator.index(a) for a in axes]
        except TypeError as error:
            raise ValueError(f"axes must be a scalar or iterable of integers, got {axes!r}") from error
    if not given:
        raise ValueError("when provided, axes cannot be empty")
    found = [a + rank if a < 0 else a for a in given]
    if any(a < 0 or a >= rank for a in found):
        raise ValueError(f"axes exceeds dimensionality of input: axes={axes!r}, the inputs have {rank} axes")
    if len(set(found)) != len(found):
        raise ValueError(f"all axes must be unique, got {axes!r}")
    return tuple(sorted(found))


def _same_rank(in1: Array, in2: Array, axes: Any) -> tuple[Array, Array]:
    """Ranks may differ where the axes are counted from the end: leading axes are then batches."""
    if in1.ndim != in2.ndim:
        given = () if axes is None else np.atleast_1d(axes)
        if not len(given) or not all(isinstance(a, int | np.integer) and a < 0 for a in given):
            raise ValueError(
                f"in1 and in2 should have the same dimensionality, got shapes {in1.shape} and {in2.shape} (with "
                "negative axes they may differ)"
            )
        rank = max(in1.ndim, in2.ndim)
        in1, in2 = (a.reshape((1,) * (rank - a.ndim) + a.shape) for a in (in1, in2))
    return in1, in2


def valid_swaps(shape1: Sequence[int], shape2: Sequence[int], axes: Iterable[int], strict: bool) -> bool:
    """Whether in 'valid' mode the second input is the signal. An axis of size 1 decides nothing unless ``strict``."""
    pairs = [(shape1[a], shape2[a]) for a in axes if strict or 1 not in (shape1[a], shape2[a])]
    if all(n >= k for n, k in pairs):
        return False
    if not all(n <= k for n, k in pairs):
        raise ValueError(
            "For 'valid' mode, one must be at least as large as the other in every dimension, got shapes "
            f"{tuple(shape1)} and {tuple(shape2)}"
        )
    return True


def region(n: int, k: int, mode: str, centre: int) -> Range:
    """Start and count of a mode on an axis of ``n`` and ``k``."""
    if mode == "same":
        return centre, n
    if not n or not k:
        return 0, 0
    return (0, n + k - 1) if mode == "full" else (min(n, k) - 1, abs(n - k) + 1)


def work_dtype(result: np.dtype[Any]) -> np.dtype[Any]:
    """In which sums for a result of this type are taken: float16 in float32, everything else in its own."""
    return np.dtype(np.float32) if result == np.float16 else result


def result_dtype(in1: Array, in2: Array, dtype: Any) -> tuple[np.dtype[Any], np.dtype[Any]]:
    """Of the result and of the sums. ``dtype`` may widen the common type, or narrow it within its kind."""
    common = np.result_type(in1.dtype, in2.dtype)
    if dtype is None:
        return common, work_dtype(common)
    wanted = np.dtype(dtype).newbyteorder("=")
    if not np.can_cast(common, wanted, "same_kind"):
        raise ValueError(f"dtype={wanted} cannot hold {common}, the common type of {in1.dtype} and {in2.dtype}")
    return wanted, work_dtype(np.promote_types(common, wanted) if wanted.kind not in "iu" else wanted)


def check_mode(mode: str) -> None:
    """ValueError for anything but a mode."""
    if mode not in MODES:
        raise ValueError(f"acceptable mode flags are 'valid', 'same', or 'full', got {mode!r}")


def make(
    in1: Any,
    in2: Any,
    mode: str = "full",
    *,
    convolves: bool,
    axes: Any = None,
    boundary: str = "fill",
    fillvalue: Any = 0,
    dtype: Any = None,
    late_centre: bool = False,
    strict: bool = False,
) -> Problem:
    """The problem of a public call.

    ``convolves``: whether ``in2`` is reversed, or conjugated. ``late_centre``: 'same' starts at ``K // 2`` instead of
    ``(K - 1) // 2`` of the full result. ``strict``: SciPy's rule of convolve for 'valid', which also looks at axes of
    size 1; other boundaries than zeros always need it.

    Raises
    ------
    ValueError
        An unknown mode or boundary, shapes that do not fit, axes that do not exist. TypeError for no numbers.
    """
    check_mode(mode)
    if boundary not in BOUNDARIES:
        raise ValueError(f"acceptable boundary flags are {', '.join(map(repr, BOUNDARIES))}, got {boundary!r}")
    x, h = _same_rank(as_numbers(in1, "in1"), as_numbers(in2, "in2"), axes)
    positions = axis_numbers(axes, x.ndim)
    conv = tuple(a in positions for a in range(x.ndim))
    if any(not c and n != k and 1 not in (n, k) for c, n, k in zip(conv, x.shape, h.shape, strict=True)):
        raise ValueError(
            f"incompatible shapes for in1 and in2: {x.shape} and {h.shape}; off the axes {positions} sizes must be "
            "equal, or 1"
        )
    boundary = BOUNDARIES[boundary]
    result, work = result_dtype(x, h, dtype)
    fill = fill_scalar(fillvalue, work) if boundary == "fill" else 0
    zero_fill = boundary == "fill" and isinstance(fill, int) and fill == 0
    if not zero_fill and boundary == "fill":
        x = x.astype(work, copy=False)  # what lies beyond the ends has the type of the sums
    w = h[flipper(conv)] if convolves else h.conj() if h.dtype.kind in "cO" and _has_conjugate(h) else h
    ranges = [
        region(n, k, mode, (k if late_centre else max(k - 1, 0)) // 2) if c else (0, max(n, k) if n and k else 0)
        for c, n, k in zip(conv, x.shape, h.shape, strict=True)
    ]
    start, count = tuple(s for s, _ in ranges), tuple(c for _, c in ranges)
    problem = Problem(x, w, conv, start, count, boundary, fill, result, work)
    if mode == "valid" and valid_swaps(x.shape, h.shape, positions, strict or not zero_fill):
        return replace(problem.swapped(), boundary="fill", fillvalue=0)
    return problem


def _has_conjugate(h: Array) -> bool:
    """Objects such as Decimal conjugate too; those that do not are taken as real."""
    return h.dtype.kind == "c" or all(hasattr(v, "conjugate") for v in h.flat)


def fill_scalar(fillvalue: Any, dtype: np.dtype[Any]) -> Any:
    """``fillvalue`` as a Python number that the sums can hold exactly as NumPy casts it."""
    value = np.asarray(fillvalue)
    if value.size == 1 and value.item() == 0 and not (value.dtype.kind == "c" and dtype.kind != "c"):
        return 0
    if value.size != 1:
        raise ValueError(f"`fillvalue` must be scalar or an array with one element, got shape {value.shape}")
    if dtype.kind == "O":
        return value.item()
    if value.dtype.kind == "c" and dtype.kind != "c":
        raise ValueError(f"could not cast `fillvalue` directly to the output type: {value.item()} to {dtype}")
    if dtype.kind in "iu" and not np.isfinite(value).all():
        raise ValueError(f"could not cast `fillvalue` directly to the output type: {value.item()} to {dtype}")
    try:
        return value.astype(dtype).item() if dtype.char not in "gG" else value.item()
    except (TypeError, ValueError) as error:
        raise ValueError(f"could not cast `fillvalue` directly to the output type: {fillvalue!r} to {dtype}") from error
