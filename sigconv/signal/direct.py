"""The definition, computed directly: sums over taps, in any rank and with any boundary, by `kernels.cpu.rows`.

The last axis along which numbers are dense is the row; taps along the axes before it become rows of addresses, so
their borders cost nothing. Along the row the outputs whose taps all lie inside the signal are computed straight from
it, those at its ends from short extended copies of the ends. Where trailing axes are not convolved they are part of
the row: long ones make the row, short ones become its dilation.

Types without a kernel (longdouble, objects) are summed tap by tap in NumPy.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sigconv.signal import image, kernels
from sigconv.signal.nan import is_finite
from sigconv.signal.problem import Array, Problem, extend, extension

LONG_ROW = 64
"""Trailing numbers that make a row of their own."""
TABLE = 1 << 21
"""Most addresses in the tables of one native call."""
REMEMBERED = 1 << 17
"""Tables of up to this many addresses are kept between calls."""
COPIED = 1 << 13
"""Signals up to this many numbers are extended as a whole …"""
SHORT_ROW, MANY_TAPS = 1 << 9, 9
"""… and those of rows up to this long for kernels of so many taps: the ends of rows are few numbers at a time."""


def run(problem: Problem, threads: int = 1, out: Array | None = None) -> Array:
    """The result in the type of its sums, of shape ``problem.count``.

    ``out``: where to put it if possible, a C-contiguous array of that shape and type.
    """
    commuted = problem.commuted()
    if commuted is not problem and is_finite(problem.x):  # 0 * NaN beyond the ends is not in the sum
        problem = commuted
    batch = [a for a, c in enumerate(problem.conv) if not c and problem.w.shape[a] > 1]
    order = batch + [a for a in range(problem.x.ndim) if a not in batch]
    x, w = problem.x.transpose(order), problem.w.transpose(order)
    start, count = (tuple(v[a] for a in order) for v in (problem.start, problem.count))
    plain = order == sorted(order)
    y = out if out is not None and plain else np.empty(count, problem.work)
    n = len(batch)
    for index in np.ndindex(count[:n]):
        xi = x[tuple(i if s > 1 else 0 for i, s in zip(index, x.shape, strict=False))]
        _correlate(problem, xi, w[index], start[n:], y[index], threads)
    return y if plain else y.transpose(np.argsort(order))


def _correlate(problem: Problem, x: Array, w: Array, start: Sequence[int], y: Array, threads: int) -> None:
    """One signal with one kernel of the same rank, into ``y`` (C-contiguous)."""
    first = tuple(s - (k - 1) for s, k in zip(start, w.shape, strict=True))
    if y.size == 0 or w.size == 0:
        y[...] = 0
        return
    if problem.work.char in "FD" and w.dtype.kind != "c":
        # Real taps: the parts of a number are two neighbours, with an axis of their own that is not convolved.
        if problem.fillvalue != 0:
            boxes = [(f, f + n + k - 1) for f, n, k in zip(first, y.shape, w.shape, strict=True)]
            x, start = extend(x, boxes, "fill", problem.fillvalue), tuple(k - 1 for k in w.shape)
        part = np.dtype(problem.work.char.lower())
        halves = np.ascontiguousarray(x, problem.work).view(part).reshape(*x.shape, 2)
        inner = replace(problem, work=part, fillvalue=0)
        _correlate(inner, halves, w[..., None], (*start, 0), y.view(part).reshape(*y.shape, 2), threads)
        return
    variant = kernels.variant(x, w, problem.work, problem.fillvalue)
    if variant is None:
        _by_taps(problem, x, w, first, y)
        return
    target = y if variant.target == y.dtype else np.empty(y.shape, variant.target)
    if problem.fillvalue != 0:
        fill = np.asarray(problem.fillvalue, problem.work).astype(variant.source).item()
        problem = replace(problem, fillvalue=fill)
    x, w = kernels.cast(x, variant.source), np.ascontiguousarray(kernels.cast(w, variant.sums))
    x, first = _cut(problem, x, w.shape, first, y.shape)
    if not image.run(variant, x, w.shape, (w, None), first, target, problem.boundary, problem.fillvalue, threads):
        for calls in _calls(problem, x, w, first, target, variant):
            kernels.run(variant, calls, threads)
    if target is not y:
        np.not_equal(target, 0, out=y) if y.dtype == bool else np.copyto(y, target, casting="unsafe")


def outer(problem: Problem, vectors: Sequence[Array], y: Array, threads: int) -> bool:
    """One pass for a kernel that is the outer product of two vectors, into ``y``; False: it takes one for each.

    The bits are those of a pass along the second vector's axis and one along the first's.
    """
    w = problem.w
    variant = kernels.variant(problem.x, w, problem.work, problem.fillvalue)
    if variant is None or variant.target != y.dtype or problem.fillvalue != 0:
        return False
    first = tuple(s - (k - 1) for s, k in zip(problem.start, w.shape, strict=True))
    x, first = _cut(problem, kernels.cast(problem.x, variant.source), w.shape, first, y.shape)
    column, line = (kernels.cast(v, variant.sums) for v in vectors)
    return image.run(variant, x, w.shape, (column, line), first, y, problem.boundary, 0, threads)


def _cut(
    problem: Problem, x: Array, taps: tuple[int, ...], first: tuple[int, ...], count: tuple[int, ...]
) -> tuple[Array, tuple[int, ...]]:
    """The part of ``x`` that is read on axes without taps, and where the first output starts to read in it."""
    if all(k > 1 or (f, m) == (0, n) for k, f, n, m in zip(taps, first, x.shape, count, strict=True)):
        return x, first
    boxes = [(f, f + m) if k == 1 else (0, n) for k, f, n, m in zip(taps, first, x.shape, count, strict=True)]
    x = extend(x, boxes, problem.boundary, problem.fillvalue)
    return x, tuple(f if k > 1 else 0 for k, f in zip(taps, first, strict=True))


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis: input and kernel size, the input that output 0 reads first, how many outputs."""

    size: int
    taps: int
    first: int
    count: int


def _calls(
    problem: Problem, x: Array, w: Array, first: Sequence[int], y: Array, variant: kernels.Variant
) -> Iterator[list[kernels.Call]]:
    """The kernel calls of one correlation, in groups of bounded tables."""
    axes = [_Axis(*v) for v in zip(x.shape, w.shape, first, y.shape, strict=True)]
    kept = [a for a in range(x.ndim) if axes[a] != _Axis(1, 1, 0, 1)]
    x, axes = x.reshape([x.shape[a] for a in kept]), [axes[a] for a in kept]
    row = max((i for i, a in enumerate(axes) if a.taps > 1), default=len(axes) - 1)
    inner = math.prod(a.count for a in axes[row + 1 :])
    if inner >= LONG_ROW or row < 0:
        row, inner = row + 1, 1  # a row of its own, without taps
        x = x.reshape(*x.shape[:row], -1)
        axes = [*axes[:row], _Axis(x.shape[-1], 1, 0, x.shape[-1])]
    outer, line = axes[:row], axes[row]
    x = x.reshape(*x.shape[: row + 1], inner)
    whole = x.size <= COPIED or (line.count * inner <= SHORT_ROW and w.size >= MANY_TAPS)
    pieces = _pieces(problem, x, line, variant.source, whole)
    w = w.reshape(-1, line.taps)
    y = y.reshape(-1, line.count * inner)
    shear, run = (outer[-1].taps, outer[-1].count) if outer and outer[-1].taps > 1 else (0, 0)
    widest = max(p.x.shape[row] for p in pieces) * inner
    nothing = np.zeros(widest, variant.source)
    if problem.fillvalue != 0:
        nothing[:] = problem.fillvalue
    tables = [_table(tuple(outer), problem.boundary, p.x, nothing) for p in pieces]
    rows = max(1, TABLE // len(w))
    plane = len(y) if rows >= run else run  # the rows that calls may not go beyond
    rows = max(rows // run * run, 1) if 0 < run <= rows else rows
    for start in range(0, len(y), plane):
        for a in range(start, start + plane, rows):
            b = min(a + rows, start + plane)
            yield [
                kernels.Call(
                    table[a:b], w, y[a:b, p.at * inner : (p.at + p.count) * inner], inner, shear, min(run, b - a), p.x
                )
                for p, table in zip(pieces, tables, strict=True)
            ]


@dataclass(frozen=True, slots=True)
class _Piece:
    """A range of output columns, and the signal from which they can be computed without looking at borders."""

    x: Array
    at: int
    count: int


def _pieces(problem: Problem, x: Array, line: _Axis, dtype: np.dtype[Any], whole: bool) -> list[_Piece]:
    """``x[…, row, inner]`` cut so that no piece leaves its row; pieces are dense along the row and ``inner``.

    ``whole``: in one piece, which is a copy where rows are continued.
    """
    stop = line.first + line.count + line.taps - 1
    dense = (
        x.dtype == dtype
        and x.flags.aligned
        and x.strides[-1] in ((x.itemsize,) if x.shape[-1] > 1 else x.strides[-1:])
        and x.strides[-2] in ((x.itemsize * x.shape[-1],) if x.shape[-2] > 1 else x.strides[-2:-1])
    )

    def ends(a: int, b: int) -> Array:
        """Elements a … b - 1 of the extended rows."""
        box = [*((0, n) for n in x.shape[:-2]), (a, b), (0, x.shape[-1])]
        return np.ascontiguousarray(extend(x, box, problem.boundary, problem.fillvalue), dtype)

    inside = line.first >= 0 and stop <= line.size
    if inside and dense:
        return [_Piece(x[..., line.first : stop, :], 0, line.count)]
    left = min(max(0, -line.first), line.count)
    right = max(left, min(line.count, line.size - line.first - line.taps + 1))
    if inside or not dense or whole or right - left < line.count // 2:
        return [_Piece(ends(line.first, stop), 0, line.count)]
    reach = line.first + line.taps - 1
    pieces = [_Piece(x[..., line.first + left : reach + right, :], left, right - left)]
    if left:
        pieces.append(_Piece(ends(line.first, reach + left), 0, left))
    if right < line.count:
        pieces.append(_Piece(ends(line.first + right, stop), right, line.count - right))
    return pieces


def _table(outer: tuple[_Axis, ...], boundary: str, x: Array, nothing: Array) -> Array:
    """Addresses of the rows that each output row reads, shape (output rows, tap rows)."""
    entries = math.prod(a.count * a.taps for a in outer)
    find = _remembered_offsets if entries <= REMEMBERED else _offsets
    offsets, outside = find(outer, boundary, x.strides[: len(outer)])
    table = offsets + x.ctypes.data
    if outside is not None:
        table[outside] = nothing.ctypes.data
    return table


def _offsets(outer: tuple[_Axis, ...], boundary: str, strides: tuple[int, ...]) -> tuple[Array, Array | None]:
    """Byte offsets of the rows that each output row reads, and where none is read (None: nowhere)."""
    m = len(outer)
    offsets = np.zeros((1,) * 2 * m, np.int64)
    outside = np.zeros((1,) * 2 * m, bool)
    for i, (a, stride) in enumerate(zip(outer, strides, strict=True)):
        read = extension(a.first, a.first + a.count + a.taps - 1, a.size, boundary)
        shape = [1] * 2 * m
        shape[i], shape[m + i] = a.count, a.taps
        index = read[np.arange(a.count)[:, None] + np.arange(a.taps)].reshape(shape)
        offsets = offsets + index * stride
        outside = outside | (index < 0)
    rows = math.prod(offsets.shape[:m])
    return offsets.reshape(rows, -1), outside.reshape(rows, -1) if outside.any() else None


_remembered_offsets = functools.lru_cache(8)(_offsets)


def _by_taps(problem: Problem, x: Array, w: Array, first: Sequence[int], y: Array) -> None:
    """One vector operation for each tap: any type that multiplies and adds."""
    boxes = [(f, f + n + k - 1) for f, n, k in zip(first, y.shape, w.shape, strict=True)]
    x = extend(x.astype(problem.work), boxes, problem.boundary, problem.fillvalue)
    w = w.astype(problem.work)
    y[...] = 0
    for tap in np.ndindex(w.shape):
        part = x[tuple(slice(k, k + n) for k, n in zip(tap, y.shape, strict=True))]
        y += part * w[tap] if y.dtype != bool else part & w[tap]
