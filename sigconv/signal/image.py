"""The direct method where the kernel is long on two neighbouring axes, or on one: one native call, borders included.

Arrays are read as images: the axes of the kernel are rows and columns, those behind them the numbers of a pixel, those
before them count images.
"""

from __future__ import annotations

import ctypes
import functools
import math
from typing import Any

import numpy as np

from sigconv.kernels.border import BOUNDARIES
from sigconv.signal import kernels
from sigconv.signal.problem import Array

LONG_ROW = 64
"""Numbers behind the only long axis of a kernel that make a row of their own."""


class Plan:
    """The native call of one set of shapes.

    It runs at desks: a record whose addresses are set once, the taps and the threads' memory. A call takes a free one.
    """

    def __init__(self, values: dict[str, int], kind: kernels.Variant, shares: int, threads: int) -> None:
        self.values, self.kind, self.shares, self.threads = values, kind, shares, threads
        self.desks: list[Desk] = []

    def run(self, x: Array, w: Array, line: Array | None, y: Array, fillvalue: Any = 0) -> bool:
        """Correlate arrays of the shapes, strides and types it was made for; False: a tap is not finite."""
        try:
            desk = self.desks.pop()
        except IndexError:
            desk = Desk(self)
        desk.w[...] = w
        if line is not None:
            desk.line[...] = line
        desk.fill[0] = fillvalue
        words = desk.words
        words[desk.x], words[desk.y] = address_of(x), address_of(y)
        desk.run()
        finite = words[desk.finite] != 0
        self.desks.append(desk)
        return finite


class Desk:
    """The record of one call at a time, and what its addresses point at."""

    def __init__(self, plan: Plan) -> None:
        from sigconv.kernels.cpu import image

        kind, values = plan.kind, plan.values
        taps, names = (values["J"], values["K"]), image.ARGS.names or ()
        self.w = np.empty(taps[:1] if values["line"] else taps, kind.sums)
        self.line, self.fill = np.empty(taps[1], kind.sums), np.zeros(1, kind.sums)
        self._scratch = np.empty(plan.threads * values["room"] + 64, np.uint8)
        addresses = {
            "w": address_of(self.w),
            "line": address_of(self.line) if values["line"] else 0,
            "fill": address_of(self.fill),
            "scratch": -(-address_of(self._scratch) // 64) * 64,
            "row_kernel": kernels.address(kind.sums, kind.target),
            "line_kernel": kernels.address(kind.sums, kind.sums),
        }
        self._record = np.array([{**values, **addresses}.get(name, 0) for name in names], np.int64)
        self.words, self.address = memoryview(self._record.data), address_of(self._record)
        self.x, self.y, self.finite = (names.index(name) for name in ("x", "y", "finite"))
        self.kernel = image.KERNELS[kind.source.type, kind.sums.type].address
        self._threads = plan.threads
        self._prepared = kernels.prepare(self.kernel, self.address, plan.shares) if plan.threads > 1 else None

    def run(self) -> None:
        """The native call."""
        if self._prepared is None:
            kernels.call_one(self.kernel, self.address)
        else:
            self._prepared.run(self._threads)


def address_of(a: Array) -> int:
    """Where its first number is."""
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(a.data))
    except (TypeError, ValueError, BufferError):  # read-only, or with gaps
        address: int = a.__array_interface__["data"][0]
        return address


def form(shape: tuple[int, ...], taps: tuple[int, ...], count: tuple[int, ...]) -> tuple[int, int] | None:
    """The axes of rows and columns, -1 for rows that are not there; None where the kernel is not that of an image."""
    long = [a for a, k in enumerate(taps) if k > 1]
    last = long[-1] if long else len(taps) - 1
    if len(long) > 2 or (len(long) == 2 and long[0] != last - 1):
        return None
    if len(long) == 1 and last < len(taps) - 1 and math.prod(count[last + 1 :]) >= LONG_ROW:
        return last, last + 1
    return last - 1, last


@functools.lru_cache(128)
def plan(
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    taps: tuple[int, ...],
    first: tuple[int, ...],
    count: tuple[int, ...],
    boundary: str,
    kind: kernels.Variant,
    summed: bool,
    threads: int,
) -> Plan | None:
    """The call for a correlation of aligned arrays; None where it is not one of images, or pixels are not dense.

    ``first``: the input that output 0 reads first on each axis. ``summed``: whether the kernel comes as two vectors.
    """
    from sigconv.kernels.cpu.image_layout import LAYOUT, layout

    axes = form(shape, taps, count)
    if axes is None:
        return None
    rows, columns = axes
    item = kind.source.itemsize
    if rows == columns - 1 and not any(k > 1 for k in taps[columns:]):  # whole rows behind the only long axis
        size, inner, left, n, K = math.prod(shape[columns:]), 1, 0, math.prod(count[columns:]), 1
    else:
        inner, K = math.prod(count[columns + 1 :]), taps[columns]
        size, left, n = shape[columns], first[columns], count[columns]
    dense = item
    for a in range(len(shape) - 1, columns - 1, -1):
        if shape[a] > 1 and strides[a] != dense:
            return None
        dense *= shape[a]
    height, top, n_rows, J, x_row = (
        (shape[rows], first[rows], count[rows], taps[rows], strides[rows]) if rows >= 0 else (1, 0, 1, 1, 0)
    )
    planes, x_plane = 1, 0
    for a in range(rows - 1, -1, -1):
        if shape[a] > 1:
            if planes > 1 and strides[a] != x_plane * planes:
                return None
            planes, x_plane = planes * shape[a], x_plane if planes > 1 else strides[a]
    if J == 1 and planes > 1 and (n_rows == 1 or x_plane == x_row * n_rows) and (top, n_rows) == (0, height):
        x_row = x_plane if n_rows == 1 else x_row
        height = n_rows = n_rows * planes
        planes = 1
    values = dict(
        x_row=x_row, x_plane=x_plane, height=height, width=size, inner=inner, J=J, K=K, line=summed,
        y_item=kind.target.itemsize, y_row=n * inner, y_plane=n_rows * n * inner, planes=planes, n_rows=n_rows, n=n,
        top=top, left=left, boundary=BOUNDARIES[boundary],
    )  # fmt: skip
    same, turns = kind.source == kind.sums, kind.sums.kind == "f"
    parts = layout(size, n, n_rows, J, K, left, inner, x_row, kind.sums.itemsize, summed, not same, turns)
    shares = max(1, math.prod(count) * (J + K if summed else J * K) // kernels.SHARE)
    return Plan(values | dict(zip(LAYOUT, parts, strict=True)), kind, shares, min(threads, shares))


def run(
    kind: kernels.Variant,
    x: Array,
    taps: tuple[int, ...],
    vectors: tuple[Array, Array | None],
    first: tuple[int, ...],
    y: Array,
    boundary: str,
    fillvalue: Any,
    threads: int,
) -> bool:
    """Correlate ``x`` into ``y`` (C-contiguous); False: it is not a kernel for images, or not finite.

    ``vectors``: the taps, or the factor of the rows and that of the columns, of type ``kind.sums``.
    """
    if form(x.shape, taps, y.shape) is None:
        return False
    if not x.flags.aligned:
        x = x.copy()
    w, line = vectors
    options = (taps, first, y.shape, boundary, kind, line is not None, threads)
    call = plan(x.shape, x.strides, *options)
    if call is None:
        x = np.ascontiguousarray(x)
        call = plan(x.shape, x.strides, *options)
        assert call is not None
    shape = (-1, call.values["K"]) if line is None else (-1,)
    return call.run(x, w.reshape(shape), line, y, fillvalue)
