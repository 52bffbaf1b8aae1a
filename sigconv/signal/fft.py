"""Convolution by transforms: over the whole signal (`run`), or in blocks that fit the cache (`run_blocks`).

Along one or two axes the transforms are our own (`sigconv.signal.grids`); others, and lengths that those do not have,
come from scipy.fft where it is installed (it takes workers and keeps float32), else from numpy.fft. Blocks are
overlap-save: each transform reads its inputs together with the K - 1 before them and gives L - K + 1 outputs, so
nothing is added afterwards; block b of an axis starts at output ``b * step`` of the full result, whatever part of it
is asked for. The kernel must be finite, and for a signal that is not there is no result: see `sigconv.signal.nan`.

References
----------
A. V. Oppenheim, R. W. Schafer, Discrete-Time Signal Processing, section 8.7 (overlap-save).
N. J. Higham, Accuracy and Stability of Numerical Algorithms, chapter 24 (errors of the FFT).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sigconv.signal import grids, nan
from sigconv.signal.grids import Blocks, Grid
from sigconv.signal.problem import Array, Problem, extend, flipper

CHUNK = 1 << 20
"""Bytes of the blocks that are transformed together, at least 8 of them: pocketfft does several in its vector lanes."""
FAR = 1 << 21
"""Bytes of a transform that takes twice as long as it would in the nearest cache."""


@functools.cache
def backend() -> Any:
    """scipy.fft, or numpy.fft."""
    try:
        import scipy.fft as module
    except ImportError:
        import numpy.fft as module
    return module


@functools.cache
def good_size(n: int, real: bool = True) -> int:
    """The smallest length from ``n`` on without prime factors above 5, for complex numbers above 11.

    This is scipy.fft.next_fast_len, without the third of a second that it takes to import scipy.fft: the chooser only
    wants to know what a transform would cost.
    """
    best = 1 << (max(n, 1) - 1).bit_length()
    odd = [1]
    for prime in (3, 5) if real else (3, 5, 7, 11):
        for number in odd:  # grows while it is walked
            if number * prime < best:
                odd.append(number * prime)
    return min(best, *(number << (-(-n // number) - 1).bit_length() for number in odd))


def transform_dtype(problem: Problem) -> np.dtype[Any]:
    """The real or complex type in which the transforms of a problem are taken."""
    work = problem.work
    if work.char in "gG":
        return work
    if work.kind == "c":
        return np.dtype(np.complex64 if work == np.complex64 else np.complex128)
    return np.dtype(np.float32 if work == np.float32 else np.float64)


def forward(a: Array, sizes: Sequence[int], axes: Sequence[int], workers: int) -> Array:
    """The transform, of half the spectrum where ``a`` is real."""
    options = {"workers": workers} if hasattr(backend(), "next_fast_len") else {}
    function = backend().fftn if a.dtype.kind == "c" else backend().rfftn
    return np.asarray(function(a, sizes, axes, **options))


def inverse(a: Array, sizes: Sequence[int], axes: Sequence[int], real: bool, workers: int) -> Array:
    """The inverse of `forward`; ``a`` may be overwritten."""
    scipy = hasattr(backend(), "next_fast_len")
    options = {"workers": workers, "overwrite_x": True} if scipy else {}
    return np.asarray((backend().irfftn if real else backend().ifftn)(a, sizes, axes, **options))


class Spectra:
    """The transforms of an array that never changes, a plan's kernel, each taken once."""

    def __init__(self, owner: Array) -> None:
        self._owner = owner
        self._found: dict[Any, Array] = {}

    def holds(self, a: Array) -> bool:
        """Whether ``a`` is the array or a view of it."""
        return a is self._owner or a.base is self._owner

    def forward(self, a: Array, dtype: np.dtype[Any], sizes: Sequence[int], axes: Sequence[int], workers: int) -> Array:
        """The transform of a view. Not to be written to."""
        key = (a.ctypes.data, a.shape, a.strides, dtype.char, tuple(sizes), tuple(axes))
        if key not in self._found:
            self._found[key] = forward(a.astype(dtype, copy=False), sizes, axes, workers)
        return self._found[key]

    def on_grid(self, a: Array, grid: Grid, threads: int) -> Array:
        """`grids.spectra` of a view. Not to be written to."""
        key = (a.ctypes.data, a.shape, a.strides, grid.char, grid.lengths)
        if key not in self._found:
            self._found[key] = grids.spectra(grid, a, threads)
        return self._found[key]


def _forward(problem: Problem, a: Array, sizes: Sequence[int], axes: Sequence[int], workers: int) -> tuple[Array, bool]:
    """The transform of a problem's signal or kernel, and whether it is kept, not to be written to."""
    dtype = transform_dtype(problem)
    if problem.spectra is not None and problem.spectra.holds(a):
        return problem.spectra.forward(a, dtype, sizes, axes, workers), True
    return forward(a.astype(dtype, copy=False), sizes, axes, workers), False


def transformed_axes(problem: Problem) -> tuple[int, ...]:
    """Convolved axes on which both signal and kernel are longer than 1; on the others a product is enough."""
    return tuple(
        a for a, c in enumerate(problem.conv) if c and problem.w.shape[a] > 1 and not _is_point(problem, a)
    )  # fmt: skip


def _is_point(problem: Problem, axis: int) -> bool:
    return problem.zero_fill and problem.x.shape[axis] == 1


def _trimmed(problem: Problem) -> tuple[Array, tuple[int, ...]]:
    """The part of the extended signal that the outputs read, and where they start in its full convolution."""
    boxes, start = [], []
    for a, conv in enumerate(problem.conv):
        n = problem.x.shape[a]
        if not conv:
            boxes.append((0, n))
            start.append(0)
            continue
        lo, hi = problem.reads(a)
        if problem.zero_fill:
            lo, hi = max(lo, 0), max(min(hi, n), max(lo, 0))
        boxes.append((lo, hi))
        start.append(problem.start[a] - lo)
    return extend(problem.x, boxes, problem.boundary, problem.fillvalue), tuple(start)


def sizes_of(problem: Problem, axes: Sequence[int]) -> tuple[int, ...]:
    """Transform lengths: as short as the wanted outputs stay free of what wraps around."""
    sizes = []
    for a in axes:
        lo, hi = problem.reads(a)
        n, k = problem.x.shape[a], problem.w.shape[a]
        if problem.zero_fill:
            lo, hi = max(lo, 0), min(hi, n)
        start, m = problem.start[a] - lo, max(hi - lo, 1)
        sizes.append(max(m, k, m + k - 1 - start, start + problem.count[a]))
    own = grids.next_lengths(tuple(sizes), transform_dtype(problem).char)
    return tuple(good_size(n, problem.work.kind != "c") for n in sizes) if own is None else own


def _on_grid(
    problem: Problem, axes: tuple[int, ...], lengths: Sequence[int], whole: bool, threads: int, out: Array | None
) -> Array | None:
    """The result by transforms of our own, of one block or of blocks; None where the signal is not finite."""
    dtype, rank = transform_dtype(problem), problem.x.ndim
    grid = grids.grid(tuple(lengths), dtype.char)
    assert grid is not None
    keep, points, first, count, step, lead, start = [], [], [], [], [], [], []
    for a, conv in enumerate(problem.conv):
        s, n, k = problem.start[a], problem.count[a], problem.w.shape[a]
        lo, hi = problem.reads(a)
        cut = slice(max(lo, 0), max(min(hi, problem.x.shape[a]), max(lo, 0)))
        keep.append(cut if conv and (a not in axes or (whole and problem.zero_fill)) else slice(None))
        points.append(slice(s, s + n) if conv and a not in axes and k > 1 else slice(None))  # one number times the taps
        if a not in axes:
            continue
        hop = lengths[axes.index(a)] - k + 1
        if not whole:
            first.append(s // hop)
            count.append((s + n - 1) // hop - s // hop + 1)
            step.append(hop)
        else:  # the block begins with what the outputs read
            s -= cut.start if problem.zero_fill else 0
            first.append(0 if problem.zero_fill else lo)
            count.append(1)
            step.append(1)
        lead.append(0 if whole else k - 1)
        start.append(s)
    order = (*(a for a in range(rank) if a not in axes), *axes)
    x = _dense(problem.x[tuple(keep)].transpose(order).astype(dtype, copy=False))
    w = problem.w[flipper(problem.conv)][tuple(points)].transpose(order)
    kept = problem.spectra is not None and problem.spectra.holds(problem.w)
    kernel = problem.spectra.on_grid(w, grid, threads) if kept else grids.spectra(grid, w, threads)
    y = np.empty(problem.count, problem.work) if out is None else out
    target = place = y.transpose(order)
    if y.dtype != dtype or place.strides[-1] != dtype.itemsize or not y.flags.aligned:
        target = np.empty(place.shape, dtype)
    fine = grids.convolve(
        grid, Blocks(*map(tuple, (first, count, step, lead))), x, kernel, target, start, problem.boundary,
        problem.fillvalue, threads,
    )  # fmt: skip
    if not fine and not (nan.is_finite(problem.x) and nan.is_finite(np.asarray(problem.fillvalue))):
        return None
    if target is not place:
        _store(target, place)
    return y


def _dense(x: Array) -> Array:
    """``x`` with neighbouring numbers along its last axis, whose addresses are multiples of their parts' size."""
    return x if x.strides[-1] == x.itemsize and x.flags.aligned and x.size else np.ascontiguousarray(x)


def run(problem: Problem, threads: int = 1, out: Array | None = None) -> Array | None:
    """The result by one transform of the whole signal; None where the signal is not finite."""
    axes = transformed_axes(problem)
    if axes and grids.grid(sizes_of(problem, axes), transform_dtype(problem).char):
        return _on_grid(problem, axes, sizes_of(problem, axes), True, threads, out)
    if not nan.is_finite(problem.x):
        return None
    dtype = transform_dtype(problem)
    x, start = _trimmed(problem)
    h = problem.w[flipper(problem.conv)]
    real = dtype.kind != "c"
    sizes = sizes_of(problem, axes)
    if axes:
        (spectrum, kept), (kernel, _) = (_forward(problem, a, sizes, axes, threads) for a in (x, h))
        shared = not kept and np.broadcast_shapes(spectrum.shape, kernel.shape) == spectrum.shape
        spectrum = np.multiply(spectrum, kernel, out=spectrum if shared else None)
        full = inverse(spectrum, sizes, axes, real, threads)
    else:
        full = x.astype(dtype, copy=False) * h.astype(dtype, copy=False)
    return _finish(full[tuple(slice(s, s + n) for s, n in zip(start, problem.count, strict=True))], problem, out)


def _finish(part: Array, problem: Problem, out: Array | None) -> Array:
    """The wanted outputs in the type of the sums; integers are rounded."""
    if out is None and part.dtype == problem.work:
        return part
    y = np.empty(problem.count, problem.work) if out is None else out
    _store(part, y)
    return y


def _store(part: Array, y: Array) -> None:
    if y.dtype.kind in "iu":
        part = np.rint(part, out=part).astype(np.int64)  # then modulo the type's size
    if y.dtype.kind == "b":
        np.greater(part, 0.5, out=y)
    else:
        np.copyto(y, part, casting="unsafe")


def _block_size(n: int, k: int, itemsize: int) -> int:
    """The length of library transforms for ``n`` outputs and ``k`` taps that costs least: 2**p, 3 * 2**p, or one block.

    Work grows with ``length * (log2(length) + 8)``, the 8 standing for what is done once a number, and with the share
    of `FAR` bytes that a transform takes.
    """
    whole = good_size(n + k - 1)
    best, best_cost = whole, math.inf
    for length in (*(base << p for p in range(5, 40) for base in (2, 3) if 5 * k < 4 * (base << p) < 4 * whole), whole):
        steps = -(-n // (length - k + 1))
        cost = steps * length * (math.log2(length) + 8) * (1 + length * itemsize / FAR)
        if cost < best_cost:
            best, best_cost = length, cost
    return best


def run_blocks(
    problem: Problem,
    threads: int = 1,
    out: Array | None = None,
    blocks: Sequence[int] | None = None,
    room: int | None = None,
) -> Array | None:
    """The result by transforms of blocks, of length ``blocks`` on each transformed axis; ``room``: bytes at a time.

    None where the signal is not finite.
    """
    axes = transformed_axes(problem)
    if not axes or not problem.count or 0 in problem.count:
        return run(problem, threads, out)
    dtype, sizes = transform_dtype(problem), block_sizes(problem) if blocks is None else tuple(blocks)
    if len(sizes) != len(axes) or any(n < problem.w.shape[a] for n, a in zip(sizes, axes, strict=True)):
        taps = tuple(problem.w.shape[a] for a in axes)
        raise ValueError(f"block={sizes}; accepted is a length for each convolved axis, not below the taps, {taps}")
    if grids.grid(sizes, dtype.char):
        return _on_grid(problem, axes, sizes, False, threads, out)
    if not nan.is_finite(problem.x):
        return None
    lengths = dict(zip(axes, sizes, strict=True))
    steps = {a: lengths[a] - problem.w.shape[a] + 1 for a in axes}
    kernel, _ = _forward(problem, problem.w[flipper(problem.conv)], sizes, axes, threads)
    y = np.empty(problem.count, problem.work) if out is None else out
    first = {a: problem.start[a] // steps[a] for a in axes}
    last = {a: (problem.start[a] + problem.count[a] - 1) // steps[a] + 1 for a in axes}
    lead = axes[0]
    others = math.prod(last[a] - first[a] for a in axes[1:]) * math.prod(
        max(n, k) for a, (n, k) in enumerate(zip(problem.x.shape, problem.w.shape, strict=True)) if a not in axes
    )
    block = math.prod(sizes) * others * dtype.itemsize
    group = max(1, (max(CHUNK, 8 * block) if room is None else room) // block)
    for b in range(first[lead], last[lead], group):
        ranges = {**{a: (first[a], last[a]) for a in axes}, lead: (b, min(b + group, last[lead]))}
        _blocks(problem, kernel, lengths, steps, ranges, dtype, threads, y)
    return y


def block_sizes(problem: Problem) -> tuple[int, ...]:
    """Transform lengths of `run_blocks` on each transformed axis."""
    axes, dtype = transformed_axes(problem), transform_dtype(problem)
    shapes = ((problem.count[a], problem.w.shape[a]) for a in axes)
    own = grids.block_lengths(tuple(shapes), dtype.char)
    if own is not None:
        return own
    itemsize = dtype.itemsize
    sizes: list[int] = []
    for a in reversed(axes):
        sizes.append(_block_size(problem.count[a], problem.w.shape[a], itemsize * math.prod(sizes)))
    return tuple(reversed(sizes))


def _blocks(
    problem: Problem,
    kernel: Array,
    lengths: dict[int, int],
    steps: dict[int, int],
    ranges: dict[int, tuple[int, int]],
    dtype: np.dtype[Any],
    threads: int,
    y: Array,
) -> None:
    """The outputs of a box of blocks."""
    axes, rank = tuple(lengths), problem.x.ndim
    boxes = [(0, n) for n in problem.x.shape]
    for a, (b0, b1) in ranges.items():
        origin = b0 * steps[a] - (problem.w.shape[a] - 1)
        boxes[a] = (origin, origin + (b1 - b0 - 1) * steps[a] + lengths[a])
    for a, conv in enumerate(problem.conv):
        if conv and problem.w.shape[a] == 1:
            boxes[a] = problem.reads(a)
    part = extend(problem.x, boxes, problem.boundary, problem.fillvalue).astype(dtype, copy=False)
    grid = [ranges[a][1] - ranges[a][0] for a in axes]
    shape, strides = list(part.shape), list(part.strides)
    for a in axes:
        shape[a] = lengths[a]
    windows = np.lib.stride_tricks.as_strided(
        part, (*grid, *shape), (*(part.strides[a] * steps[a] for a in axes), *strides), writeable=False
    )
    positions = [len(axes) + a for a in axes]
    sizes = tuple(lengths.values())
    spectrum = forward(windows, sizes, positions, threads)
    fits = np.broadcast_shapes(spectrum.shape, kernel.shape) == spectrum.shape
    spectrum = np.multiply(spectrum, kernel, out=spectrum if fits else None)
    full = inverse(spectrum, sizes, positions, dtype.kind != "c", threads)
    keep: list[slice] = [slice(None)] * full.ndim
    for i, a in enumerate(axes):
        keep[positions[i]] = slice(problem.w.shape[a] - 1, lengths[a])
    full = full[tuple(keep)]
    order: list[int] = []
    for a in range(rank):
        order += ([axes.index(a)] if a in lengths else []) + [len(axes) + a]
    merged = [full.shape[len(axes) + a] * (grid[axes.index(a)] if a in lengths else 1) for a in range(rank)]
    full = full.transpose(order).reshape(merged)
    source, target = [slice(None)] * rank, [slice(None)] * rank
    for a, (b0, b1) in ranges.items():
        offset = b0 * steps[a] - problem.start[a]
        stop = min(b1 * steps[a] - problem.start[a], problem.count[a])
        target[a] = slice(max(offset, 0), stop)
        source[a] = slice(max(-offset, 0), stop - offset)
    for a, conv in enumerate(problem.conv):
        if conv and a not in lengths and problem.w.shape[a] > 1:  # a single number times the taps
            source[a] = slice(problem.start[a], problem.start[a] + problem.count[a])
    _store(full[tuple(source)], y[tuple(target)])


def error_factor(points: int, dtype: np.dtype[Any]) -> float:
    """Errors of a convolution by transforms of ``points``, as a share of ``norm2(x) * norm2(w)``.

    Six times the standard deviation of random rounding in three transforms, ``eps * sqrt(log2(points))`` each over
    ``sqrt(points)`` numbers.
    """
    eps = float(np.finfo(dtype).eps) / 2
    return 6 * 3 * eps * math.sqrt(max(math.log2(max(points, 2)), 1.0))
