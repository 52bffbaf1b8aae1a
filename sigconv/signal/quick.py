"""The way from a public call to the direct method's kernel for arrays that need no preparation: a few microseconds.

What `problem`, `methods` and `direct` decide is the same for all arrays of the same shapes, strides and types. It is
decided once, and a call with such arrays again is one look-up and one native call. The bits are the direct method's.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from sigconv.kernels.cpu import data_pointers
from sigconv.signal import image, kernels, methods, problem, separable
from sigconv.signal.problem import Array

REMEMBERED = 256
"""Kinds of calls that are kept."""

_ZERO, _ONE = ctypes.c_int64(0), ctypes.c_int64(1)
_SHORT, _LONG = ctypes.PYFUNCTYPE(None), ctypes.CFUNCTYPE(None)
"""The first keeps the GIL. Arguments come as ctypes objects: nothing is left to convert."""


class _Call:
    """A call by the direct method: the native one, where the taps are in the kernel, the result's shape and type.

    ``may_split``: whether a kernel that is an outer product would be summed in another way.
    """

    def __init__(
        self, plan: image.Plan, w: Array, turned: bool, count: tuple[int, ...], dtype: np.dtype[Any], may_split: bool
    ) -> None:
        self.plan, self.count, self.dtype, self.may_split = plan, count, dtype, may_split
        taps = plan.values["J"], plan.values["K"]
        long = [s for k, s in zip(w.shape, w.strides, strict=True) if k > 1]
        steps = [long.pop(0) if k > 1 else 0 for k in taps]
        first = sum((k - 1) * s for k, s in zip(taps, steps, strict=True)) if turned else 0
        self.layout = dict(
            head=data_pointers.HEAD, first=first, J=taps[0], K=taps[1], item=w.itemsize,
            w_row=-steps[0] if turned else steps[0], w_column=-steps[1] if turned else steps[1],
        )  # fmt: skip
        self.desks: list[_Desk] = []

    def run(self, x: Array, w: Array, out: Any) -> Array | None:
        """The result; None: an address is not aligned, a tap not finite, ``out`` not what it can be written into …"""
        if self.may_split and not separable.surely_none(w.reshape(self.layout["J"], self.layout["K"])):
            return None
        if out is None:
            y = np.empty(self.count, self.dtype)
        elif self._takes(out) and not (np.may_share_memory(out, x) or np.may_share_memory(out, w)):
            y = out
        else:
            return None
        try:
            desk = self.desks.pop()
        except IndexError:
            desk = _Desk(self)
        objects = desk.objects
        objects[0], objects[1], objects[2] = id(x), id(w), id(y)
        desk.call(desk.address, _ZERO, _ONE)
        words = desk.image.words
        if self.plan.threads > 1 and words[desk.finite]:
            desk.image.run()
        finite = words[desk.finite]
        self.desks.append(desk)
        return y if finite else None

    def _takes(self, out: Any) -> bool:
        if type(out) is not np.ndarray or out.shape != self.count or out.dtype != self.dtype:
            return False
        return bool(out.flags.c_contiguous and out.flags.writeable)


class _Desk:
    """The records of one call at a time."""

    def __init__(self, call: _Call) -> None:
        from sigconv.kernels.cpu import arrays

        self.image = image.Desk(call.plan)
        self.finite = self.image.finite
        self._record = np.zeros(1, arrays.ARGS)
        addresses = dict(taps=image.address_of(self.image.w), record=self.image.address)
        alone = dict(kernel=self.image.kernel if call.plan.threads == 1 else 0)
        for name, value in (call.layout | addresses | alone).items():
            self._record[name] = value
        self.objects = memoryview(self._record.view(np.int64).data)
        self.address = ctypes.c_void_p(image.address_of(self._record))
        self.call = (_LONG if call.plan.shares > 1 else _SHORT)(arrays.call.address)
        self.call.argtypes = None  # type: ignore[assignment]


_calls: dict[tuple[Any, ...], _Call | None] = {}


def run(
    in1: Any, in2: Any, mode: str, boundary: str, convolves: bool, late_centre: bool, threads: int, out: Any = None
) -> Array | None:
    """The result, ``out`` if it is given; None: somebody else has to look at these arguments."""
    if type(in1) is not np.ndarray or type(in2) is not np.ndarray:
        return None
    x_type, w_type = in1.dtype, in2.dtype
    how = (mode, boundary, convolves, late_centre, threads)
    key = (in1.shape, in1.strides, x_type, in2.shape, in2.strides, w_type, how)
    try:
        call = _calls[key]
    except TypeError:  # a mode that cannot be looked up
        return None
    except KeyError:
        if len(_calls) >= REMEMBERED:
            _calls.clear()
        call = _calls[key] = _make(in1, in2, *how)
    return None if call is None else call.run(in1, in2, out)


def _make(
    in1: Array, in2: Array, mode: str, boundary: str, convolves: bool, late_centre: bool, threads: int
) -> _Call | None:
    if in1.dtype != in2.dtype or in1.dtype.char not in "fd" or not in1.dtype.isnative or not data_pointers.READABLE:
        return None
    if not (in1.flags.aligned and in2.flags.aligned):
        return None
    if not in1.ndim or in1.ndim != in2.ndim or 0 in in1.shape or 0 in in2.shape:
        return None
    try:
        task = problem.make(
            in1, in2, mode, convolves=convolves, boundary=boundary, late_centre=late_centre, strict=True
        )
    except ValueError:
        return None
    if task.x is not in1 or task.commuted() is not task or 0 in task.count:
        return None
    may_split = not methods.surely_direct(task)
    if may_split and not methods.surely_direct(task, unless_separable=True):
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
    return _Call(plan, in2, convolves, task.count, task.dtype, may_split)
