"""Kernels of rank 1, outer products of one vector an axis, run as one short pass an axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sigconv.signal import direct
from sigconv.signal.problem import Array, Problem

TOLERANCE = 8.0
"""How far from an outer product, in units of rounding of the largest tap."""


def factors(w: Array) -> list[Array] | None:
    """One vector an axis whose outer product is ``w`` up to rounding (integers: exactly); None if there are none.

    The vectors run through the largest tap: of all crosses it loses least.
    """
    if not w.size or w.dtype.kind not in "biufc":
        return None
    if w.dtype.kind == "b":
        w = w.astype(np.int8)
    if w.dtype.kind in "fc" and surely_none(w):
        return None
    rest, found = w, []
    for _ in range(w.ndim - 1):
        matrix = rest.reshape(rest.shape[0], -1)
        split = _cross(matrix)
        if split is None:
            return None
        found.append(split[0])
        rest = split[1].reshape(rest.shape[1:])
    found.append(rest)
    whole = _outer(found)
    if w.dtype.kind in "iu":
        return found if np.array_equal(whole, w) else None
    limit = TOLERANCE * float(np.finfo(w.dtype).eps) * float(np.abs(w).max())
    return found if bool((np.abs(whole - w) <= limit).all()) else None


def surely_none(w: Array) -> bool:
    """Whether the corners alone say that it is no outer product: the usual case, at a fraction of the work."""
    corners = w[(0,) * (w.ndim - 2)]
    a, b, c, d = (complex(corners[i, j]) for i in (0, -1) for j in (0, -1))
    reach = 8 * TOLERANCE * float(np.finfo(w.dtype).eps) * float(np.abs(w).max())
    try:
        return abs(a * d - b * c) > reach * max(abs(a), abs(b), abs(c), abs(d), reach)
    except OverflowError:
        return False


def _cross(matrix: Array) -> tuple[Array, Array] | None:
    """Column and row vectors whose product is ``matrix`` if its rank is 1."""
    if matrix.dtype.kind in "iu":
        i, j = np.unravel_index(np.argmax(matrix != 0), matrix.shape)
        if not matrix[i, j]:
            return matrix[:, 0], matrix[0]
        row = matrix[i] // math.gcd(*(int(v) for v in matrix[i]))
        return matrix[:, j] // row[j], row
    size = np.abs(matrix)
    if not np.isfinite(size).all():
        return None
    i, j = np.unravel_index(np.argmax(size), matrix.shape)
    if not matrix[i, j]:
        return matrix[:, 0], matrix[0]
    return matrix[:, j], matrix[i] / matrix[i, j]


def _outer(vectors: Sequence[Array]) -> Array:
    whole = vectors[0]
    for v in vectors[1:]:
        whole = whole[..., None] * v
    return whole


def long_axes(problem: Problem) -> list[int]:
    """The convolved axes with more than one tap."""
    return [a for a, c in enumerate(problem.conv) if c and problem.w.shape[a] > 1]


def passes(problem: Problem, vectors: Sequence[Array]) -> list[Problem]:
    """One problem an axis, the last axis first; the signals of all but the first are to be filled in.

    A fill value beyond the border is itself convolved by the passes before.
    """
    axes = long_axes(problem)
    result: list[Problem] = []
    fill = problem.fillvalue
    done: set[int] = set()
    for a in reversed(axes):
        done.add(a)
        shape = [1] * problem.w.ndim
        shape[a] = -1
        cut = (a,) if result else (a, *(c for c in range(problem.w.ndim) if c not in axes))
        start = tuple(s if c in cut else 0 for c, s in enumerate(problem.start))
        count = tuple(n if c in done or c not in axes else problem.x.shape[c] for c, n in enumerate(problem.count))
        result.append(
            replace(problem, w=vectors[axes.index(a)].reshape(shape), start=start, count=count, fillvalue=fill)
        )
        fill = fill * vectors[axes.index(a)].sum() if fill else fill
    return result


def run(problem: Problem, vectors: Sequence[Array], threads: int = 1, out: Array | None = None) -> Array:
    """The result by one pass for both axes of an image, else by one pass an axis."""
    if len(vectors) == 2:
        y = np.empty(problem.count, problem.work) if out is None else out
        if direct.outer(problem, vectors, y, threads):
            return y
    x = problem.x
    steps = passes(problem, vectors)
    for i, step in enumerate(steps):
        x = direct.run(replace(step, x=x), threads, out if i == len(steps) - 1 else None)
    return x
