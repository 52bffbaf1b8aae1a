"""Convolution of arrays that do not fit in memory: tile by tile, each read with its halo."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sigconv.signal import api, fft, methods
from sigconv.signal import problem as problems
from sigconv.signal.plan import stand_in
from sigconv.signal.problem import Array, Problem, extension

__all__ = ["convolve_blocks"]

WORKSPACE = 64 << 20


def convolve_blocks(
    source: Any,
    kernel: npt.ArrayLike,
    out: Any = None,
    block_shape: Any = None,
    max_workspace: int | None = None,
    *,
    mode: str = "full",
    method: str = "auto",
    axes: Any = None,
    boundary: str = "fill",
    fillvalue: Any = 0,
    dtype: npt.DTypeLike | None = None,
    workers: int | None = None,
) -> Any:
    """Convolution of an array in tiles: memory-mapped files, zarr, h5py, anything with shape, dtype and slices.

    Each tile of the result is computed from the part of ``source`` that it reads. The result is that of `convolve` with
    the same method and arguments, to the last bit.

    Parameters
    ----------
    source : array_like
        Has ``shape``, ``dtype`` and is read by slices of step 1 on all axes.
    kernel : array_like
        The second input of `convolve`, in memory, no longer than ``source`` on the convolved axes.
    out : array_like, optional
        Has ``shape`` (the result's) and is written by slices; must not be ``source``. A new array by default.
    block_shape : tuple of int, optional
        Of the tiles of the result; by default as large as ``max_workspace`` allows, in whole rows. For 'oa' they are
        widened to whole transforms; otherwise axes behind the kernel's last long one (separable: first) stay whole.
    max_workspace : int, optional
        Bytes for a tile with its halo, its result and the method's buffers, about; 64 MiB by default.
    method : {'auto', 'direct', 'separable', 'oa'}
        As for `convolve`; 'fft' would need the whole array.
    mode, axes, boundary, fillvalue, dtype, workers
        As for `convolve`.

    Returns
    -------
    ``out``

    Raises
    ------
    ValueError
        Arguments that do not fit, or a ``max_workspace`` that not even the smallest tile fits into.

    Examples
    --------
    >>> convolve_blocks(np.arange(5), [1, 1], block_shape=2)
    array([0, 1, 3, 5, 7, 4])
    """
    if method == "fft":
        raise ValueError("method='fft' needs the whole array at once; accepted are 'auto', 'direct', 'separable', 'oa'")
    methods.check_method(method)
    limit = WORKSPACE if max_workspace is None else operator.index(max_workspace)
    shape = tuple(operator.index(n) for n in source.shape)
    whole = problems.make(
        stand_in(shape, np.dtype(source.dtype).newbyteorder("=")), kernel, mode, convolves=True, axes=axes,
        boundary=boundary, fillvalue=fillvalue, dtype=dtype, strict=axes is None,
    )  # fmt: skip
    h = problems.as_numbers(kernel, "kernel")
    h = h.reshape((1,) * (len(shape) - h.ndim) + h.shape)
    if h.ndim != len(shape) or any(c and k > n for c, k, n in zip(whole.conv, h.shape, shape, strict=True)):
        raise ValueError(f"kernel has shape {h.shape}, longer than the source's {shape}; convolve such arrays at once")
    if out is None:
        out = np.empty(whole.count, whole.dtype)
    elif tuple(out.shape) != whole.count:
        raise ValueError(f"out has shape {tuple(out.shape)}, the result has {whole.count}")
    elif not np.can_cast(whole.dtype, out.dtype, "same_kind"):
        raise ValueError(f"out has dtype {out.dtype}, which cannot take the result's {whole.dtype}")
    if 0 in whole.count:
        return out
    if 0 in h.shape:
        out[...] = np.zeros(whole.count, whole.dtype)
        return out
    if method == "auto":
        legal = [m for m in ("direct", "separable", "oa") if not methods.LEGAL[m](whole)]
        seconds = {m: methods.SECONDS[m](whole, methods.COSTS) for m in legal}
        method = min((m for m in seconds if _fits(whole, m, limit)), key=lambda m: seconds[m], default="direct")
    blocks, steps = _grid(whole, method)
    tile = _tile(whole, method, steps, limit, block_shape)
    threads = api._threads(workers)
    for box in _boxes(whole.count, whole.start, tile, steps):
        problem = _part(whole, source, box, steps)
        y = methods.solve(problem, method, threads=threads, blocks=blocks)
        out[tuple(slice(a, b) for a, b in box)] = y
    return out


def _grid(whole: Problem, method: str) -> tuple[tuple[int, ...] | None, dict[int, int]]:
    """Transform lengths, and the steps of their blocks on each axis that has any."""
    axes = fft.transformed_axes(whole) if method == "oa" and methods.LEGAL["oa"](whole) is None else ()
    if not axes:
        return None, {}
    blocks = fft.block_sizes(whole)
    return blocks, {a: n - whole.w.shape[a] + 1 for a, n in zip(axes, blocks, strict=True)}


def _bytes(whole: Problem, method: str, tile: tuple[int, ...], steps: dict[int, int]) -> int:
    """What a tile takes, about."""
    halo = [n + (k - 1 if c else 0) + steps.get(a, 0)
            for a, (n, k, c) in enumerate(zip(tile, whole.w.shape, whole.conv, strict=True))]  # fmt: skip
    numbers = 2 * math.prod(halo) + 2 * math.prod(tile)
    if steps:
        spread = math.prod((s + whole.w.shape[a] - 1) / s for a, s in steps.items())
        numbers += int(4 * spread * math.prod(tile)) + 4 * math.prod(s + whole.w.shape[a] for a, s in steps.items())
    elif method == "separable":
        numbers += math.prod(halo)
    return numbers * max(whole.work.itemsize, fft.transform_dtype(whole).itemsize if steps else 1)


def _fits(whole: Problem, method: str, limit: int) -> bool:
    steps = _grid(whole, method)[1]
    return _bytes(whole, method, _least(whole, method, steps), steps) <= limit


def _least(whole: Problem, method: str, steps: dict[int, int]) -> tuple[int, ...]:
    """The smallest tile. Direct sums go in an order set by the sizes behind their axis, so those stay whole."""
    first = len(whole.count)
    if not steps:
        long = [a for a, k in enumerate(whole.w.shape) if k > 1 and whole.conv[a]]
        first = (min if method == "separable" else max)(long, default=-1) + 1
    return tuple(n if a >= first else min(steps.get(a, 1), n) for a, n in enumerate(whole.count))


def _tile(whole: Problem, method: str, steps: dict[int, int], limit: int, block_shape: Any) -> tuple[int, ...]:
    """The shape of the tiles: as asked, or everything, its first long axis halved until it fits."""
    if block_shape is not None:
        asked = tuple(operator.index(n) for n in np.atleast_1d(block_shape))
        if len(asked) != len(whole.count) or min(asked) < 1:
            raise ValueError(f"block_shape={block_shape!r}; accepted is a size of 1 or more for each of {whole.count}")
        least = _least(whole, method, steps)
        return tuple(max(-(-n // steps.get(a, 1)) * steps.get(a, 1), least[a]) for a, n in enumerate(asked))
    tile, least = whole.count, _least(whole, method, steps)
    while _bytes(whole, method, tile, steps) > limit:
        axis = next((a for a, n in enumerate(tile) if n > least[a]), None)
        if axis is None:
            raise ValueError(
                f"max_workspace={limit} bytes; the smallest tile of method={method!r} takes "
                f"{_bytes(whole, method, tile, steps)}"
            )
        step = steps.get(axis, 1)
        half = max(-(-tile[axis] // 2 // step) * step, least[axis])
        half = half if half < tile[axis] else least[axis]
        tile = (*tile[:axis], half, *tile[axis + 1 :])
    return tile


def _boxes(
    count: tuple[int, ...], start: tuple[int, ...], tile: tuple[int, ...], steps: dict[int, int]
) -> Iterator[tuple[problems.Range, ...]]:
    """Ranges of the result; along blocks they end where blocks of the full result end."""
    ranges = []
    for a, (n, first, size) in enumerate(zip(count, start, tile, strict=True)):
        lead = first % steps[a] if a in steps else 0
        cuts = [0, *range(size - lead, n, size), n]
        ranges.append([(i, j) for i, j in itertools.pairwise(cuts) if i < j])
    return itertools.product(*ranges)


def _part(whole: Problem, source: Any, box: tuple[problems.Range, ...], steps: dict[int, int]) -> Problem:
    """The problem of one tile: what it reads, with the borders written out."""
    reads, start, leads = [], [], []
    for a, (lo, hi) in enumerate(box):
        k = whole.w.shape[a]
        if not whole.conv[a]:
            reads.append((lo, hi) if whole.x.shape[a] > 1 else (0, 1))
            start.append(0)
            leads.append(0)
            continue
        first = whole.start[a] + lo - (k - 1)
        stop = whole.start[a] + hi
        lead = 0
        if a in steps:  # blocks of the tile lie where those of the whole do, and read to their ends
            b = (whole.start[a] + lo) // steps[a]
            first = b * steps[a] - (k - 1)
            stop = -(-stop // steps[a]) * steps[a]
            lead = -(-(k - 1) // steps[a]) * steps[a] - (k - 1)
        leads.append(lead)
        reads.append((first, stop))
        start.append(whole.start[a] + lo - first + lead)
    x = _read(whole, source, tuple(reads))
    if any(leads):
        x = np.pad(x, [(lead, 0) for lead in leads])
    w = whole.w
    if any(not c and k > 1 for c, k in zip(whole.conv, w.shape, strict=True)):
        w = w[tuple(slice(*r) if not c and k > 1 else slice(None)
                    for r, c, k in zip(box, whole.conv, w.shape, strict=True))]  # fmt: skip
    count = tuple(hi - lo for lo, hi in box)
    return replace(whole, x=x, w=w, start=tuple(start), count=count, boundary="fill", fillvalue=0)


def _read(whole: Problem, source: Any, reads: tuple[problems.Range, ...]) -> Array:
    """A box of the extended source; only what it needs is read, by slices."""
    dtype = whole.x.dtype
    shape = [b - a for a, b in reads]
    x = np.full(shape, whole.fillvalue, dtype) if whole.fillvalue else np.zeros(shape, dtype)
    pieces = []
    for (a, b), n in zip(reads, whole.x.shape, strict=True):
        cuts = sorted({a, min(max(0, a), b), max(min(n, b), a), b})
        found = []
        for lo, hi in itertools.pairwise(cuts):
            index = extension(lo, hi, n, whole.boundary)
            if index[0] >= 0:
                base = int(index.min())
                found.append((slice(lo - a, hi - a), slice(base, int(index.max()) + 1), index - base))
        pieces.append(found)
    for choice in itertools.product(*pieces):
        part = np.asarray(source[tuple(s for _, s, _ in choice)]).astype(dtype, copy=False)
        for axis, (_, _, index) in enumerate(choice):
            if not np.array_equal(index, np.arange(part.shape[axis])):
                part = np.take(part, index, axis)
        x[tuple(t for t, _, _ in choice)] = part
    return x
