"""What the direct method runs on: the row kernels by type, their calls, and a short way for short 1-D signals.

Numba is imported by the first call, not with this module.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sigconv import config
from sigconv.signal.problem import Array

if TYPE_CHECKING:
    from sigconv.runtime.runner import Prepared

SHARE = 1 << 16
"""Multiply-adds that are worth a thread."""
LONG = 256
"""Shares of a call, about a millisecond's, that is worth waiting for threads which have to wake first …"""
PATIENCE = 200e-6
"""… this many seconds; they take 50 to 150 us."""


@functools.cache
def default_threads() -> int:
    """The setting, looked up once: finding the cores takes longer than a short call."""
    return int(config.get("threads"))


@dataclass(frozen=True, slots=True)
class Variant:
    """A row kernel: types of the input, of taps and sums, of the output."""

    kernel: Any
    source: np.dtype[Any]
    sums: np.dtype[Any]
    target: np.dtype[Any]


@dataclass(frozen=True, slots=True)
class Call:
    """Output rows ``y`` (dense columns) from a table of row addresses; ``x`` is what the addresses point into.

    ``shear``, ``run``: as in `kernels.cpu.rows`.
    """

    table: Array
    w: Array
    y: Array
    dilation: int
    shear: int
    run: int
    x: Array


@functools.cache
def _named(name: str) -> Variant:
    from sigconv.kernels.cpu import rows

    numbers = rows.NUMBERS[name]
    types = (numbers.source, numbers.sum, numbers.target)
    if numbers.parts == 2:
        types = (np.dtype(name[:1] + str(2 * np.dtype(numbers.sum).itemsize)),) * 3  # type: ignore[assignment]
    return Variant(rows.KERNELS[name], *map(np.dtype, types))


def variant(x: Array, w: Array, work: np.dtype[Any], fillvalue: Any) -> Variant | None:
    """The kernel for a signal and taps whose sums are to be those of ``work``; None: NumPy has to do it.

    Integers wrap, so that any kernel whose sums are at least as wide as ``work`` is exact.
    """
    if work.kind in "fc":
        return _named(f"{work.kind}{work.itemsize * 8}") if work.char in "fdFD" else None
    if work.kind not in "biu":
        return None
    narrow = x.dtype.itemsize <= 2 and int(fillvalue) == 0
    if narrow and (work.itemsize <= 4 or largest(x) * largest(w) * w.size < 1 << 31):
        return _named(f"{'i' if x.dtype.kind == 'i' else 'u'}{8 * x.dtype.itemsize}")
    return _named("i64" if work.itemsize == 8 else "i32")


@functools.cache
def rounded() -> Variant:
    """The kernel for bytes whose float32 sums are rounded to bytes, ties to even, and saturate."""
    return replace(_named("f32_u8"), source=np.dtype(np.uint8))


def cast(a: Array, dtype: np.dtype[Any]) -> Array:
    """``a`` as ``dtype``; a view where integers only change their sign's meaning."""
    if a.dtype.kind in "biu" and dtype.kind in "iu" and a.itemsize == dtype.itemsize:
        return a.view(dtype)
    return a.astype(dtype, copy=False)


def largest(a: Array) -> int:
    """The largest magnitude in an integer array, from its type where that is small."""
    if a.dtype.kind == "b" or not a.size:
        return 1
    if a.itemsize == 1:
        return 255
    return max(abs(int(a.max())), abs(int(a.min())))


def run(kind: Variant, calls: Sequence[Call], threads: int) -> None:
    """Run calls of one kernel that write different outputs."""
    from sigconv.kernels.cpu.rows import ARGS

    size = kind.target.itemsize
    shapes = [(*call.table.shape, call.w.shape[1], call.y.shape[1]) for call in calls]
    y_rows = [c.y.strides[0] // size if c.y.shape[0] > 1 else c.y.shape[1] for c in calls]
    args = np.array(
        [
            (c.table.ctypes.data, c.w.ctypes.data, c.y.ctypes.data, *shape, 1, c.dilation, c.shear, c.run, y_row, 0, 0)
            for c, shape, y_row in zip(calls, shapes, y_rows, strict=True)
        ],
        ARGS,
    )
    widths = [max(1, math.prod(shape) // SHARE) for shape in shapes]
    if threads == 1 or max(widths) == 1:
        for i in range(len(calls)):
            call_one(kind.kernel.address, args.ctypes.data + i * ARGS.itemsize)
        return
    prepare(kind.kernel.address, args.ctypes.data + np.arange(len(calls)) * ARGS.itemsize, widths).run(threads)


def call_one(kernel: int, record: int) -> None:
    """Call the kernel at one address with the record at another."""
    _function(kernel)(record, 0, 1)


def prepare(kernel: int, records: Any, widths: Any) -> Prepared:
    """Calls of the kernel at an address with the records at others, each of which is worth ``widths`` threads."""
    from sigconv.runtime.runner import STEP, Prepared

    steps = np.zeros(np.size(records), STEP)
    steps["kernel"], steps["width"], steps["args"] = kernel, widths, records
    return Prepared(steps, patience=PATIENCE if np.max(widths) >= LONG else 0.0)


@functools.cache
def address(sums: np.dtype[Any], target: np.dtype[Any]) -> int:
    """Of the row kernel from sums to outputs."""
    from sigconv.kernels.cpu import rows

    name = f"{sums.kind}{8 * sums.itemsize}"
    return rows.KERNELS[name if sums == target else f"{name}_{target.kind}{8 * target.itemsize}"].address


@functools.cache
def _function(address: int) -> Callable[[int, int, int], None]:
    from sigconv.runtime.team import KernelFunction

    return KernelFunction(address)
