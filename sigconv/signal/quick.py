"""The way from a public call to the direct method's kernel for arrays that need no preparation: a few microseconds.

What `problem`, `methods` and `direct` decide is the same for all arrays of the same shapes, strides and types. It is
decided once, and a call with such arrays again is one look-up and one native call. The bits are the direct method's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sigconv.signal import image, kernels, methods, problem
from sigconv.signal.problem import Array

REMEMBERED = 256
"""Kinds of calls that are kept."""


@dataclass(frozen=True, slots=True)
class _Call:
    """A call by the direct method: the native one, how to turn the taps, and the result's shape and type."""

    plan: image.Plan
    flip: tuple[slice, ...]
    taps: tuple[int, ...]
    count: tuple[int, ...]
    dtype: np.dtype[Any]


_calls: dict[tuple[Any, ...], _Call | None] = {}


def run(
    in1: Any, in2: Any, mode: str, boundary: str, *, convolves: bool, late_centre: bool = False, threads: int = 1
) -> Array | None:
    """The result; None: somebody else has to look at these arguments."""
    if type(in1) is not np.ndarray or type(in2) is not np.ndarray:
        return None
    key = (
        *(in1.shape, in1.strides, in1.dtype, in2.shape, in2.dtype),
        *(mode, boundary, convolves, late_centre, threads, in1.flags.aligned),
    )
    try:
        call = _calls[key]
    except (KeyError, TypeError):
        if len(_calls) >= REMEMBERED:
            _calls.clear()
        call = _calls[key] = _make(in1, in2, mode, boundary, convolves, late_centre, threads)
    if call is None:
        return None
    y = np.empty(call.count, call.dtype)
    return y if call.plan.run(in1, in2[call.flip].reshape(call.taps), None, y) else None


def _make(
    in1: Array, in2: Array, mode: str, boundary: str, convolves: bool, late_centre: bool, threads: int
) -> _Call | None:
    if in1.dtype != in2.dtype or in1.dtype.char not in "fd" or not in1.dtype.isnative or not in1.flags.aligned:
        return None
    if not in1.ndim or in1.ndim != in2.ndim or 0 in in1.shape or 0 in in2.shape:
        return None
    try:
        task = problem.make(
            in1, in2, mode, convolves=convolves, boundary=boundary, late_centre=late_centre, strict=True
        )
    except ValueError:
        return None
    if task.x is not in1 or task.commuted() is not task or 0 in task.count or not methods.surely_direct(task):
        return None
    kind = kernels.variant(in1, in2, task.work, 0)
    first = tuple(s - (k - 1) for s, k in zip(task.start, in2.shape, strict=True))
    if kind is None or any(
        k == 1 and (f, n) != (0, m) for k, f, n, m in zip(in2.shape, first, task.count, in1.shape, strict=True)
    ):
        return None
    plan = image.plan(in1.shape, in1.strides, in2.shape, first, task.count, task.boundary, kind, False, threads)
    if plan is None:
        return None
    flip = problem.flipper(task.conv) if convolves else (slice(None),) * in2.ndim
    return _Call(plan, flip, (plan.values["J"], plan.values["K"]), task.count, task.dtype)
