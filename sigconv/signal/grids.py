"""Transforms of our own: which lengths there are, their tables, and convolution in blocks by them.

`sigconv.kernels.cpu.fft` says what a grid is. Lengths here are those of a cyclic transform of as many numbers: of ``L``
outputs of a block all but the first ``K - 1`` are right.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sigconv.lines import LINE, on_line, whole, zeros
from sigconv.signal.costs import COSTS, Costs
from sigconv.signal.problem import Array

LONGEST = 1 << 23
"""Complex numbers of the largest grid."""
LEAST = 256
"""Numbers from which on transforms are our own: shorter ones are padded to it, which costs accuracy."""
SLACK = 2
"""Numbers of a transform of our own for each one that is needed, at most."""
ODD = (1, 3, 5, 15)
"""Odd factors of lengths."""
NEAR = 1 << 13
"""Bytes of a row: with its tables it stays in the nearest cache."""
SHARE = 1 << 16
"""Bytes of grids that are worth a thread."""
STRIP = 1 << 17
"""Bytes of the columns that are transformed together where a grid does not fit into the second cache."""
SECOND = 1 << 19
"""Bytes of such a grid."""
KEPT = 1 << 18
"""Bytes of memory that a call which nobody uses may keep."""


@functools.cache
def _kernels() -> Any:
    from sigconv.kernels.cpu import fft

    return fft


def _steps(n: int) -> list[int] | None:
    """Radices whose product is ``n``, an odd one first; None where there are none."""
    found = []
    for odd in (3, 5):
        if n % odd == 0:
            found.append(odd)
            n //= odd
    if n < 1 or n & (n - 1):
        return None
    power = n.bit_length() - 1
    while power > 4 or power == 3:
        found.append(8)
        power -= 3
    return found + {0: [], 1: [2], 2: [4], 4: [4, 4]}[power]


@dataclass(frozen=True, eq=False)
class Grid:
    """Shape, steps and tables of a transform of ``lengths`` numbers in the type ``char``."""

    lengths: tuple[int, ...]
    char: str
    rows: int
    columns: int
    strip: int
    down: tuple[int, ...]
    along: tuple[int, ...]
    down_tables: tuple[Array, ...]
    along_tables: tuple[Array, ...]
    lanes: Array
    idle: dict[tuple[int, bool, bool], list[Call]] = field(default_factory=dict)
    """Calls that nobody uses now."""

    @property
    def real(self) -> bool:
        return self.char in "fd"

    @property
    def number(self) -> np.dtype[Any]:
        """The type of real and imaginary parts."""
        return np.dtype(self.char.lower())

    @property
    def nbytes(self) -> int:
        """Of the numbers of a grid."""
        return 2 * self.rows * self.columns * self.number.itemsize


def _table(phases: Array, dtype: np.dtype[Any]) -> Array:
    """exp(2j pi phase) as pairs of numbers along a new last axis, in an array that begins on a cache line."""

    angle = 2 * np.pi * (phases % 1.0)
    table = zeros(2 * phases.size, dtype).reshape(*phases.shape, 2)
    table[..., 0], table[..., 1] = np.cos(angle), np.sin(angle)
    return table


def _split(points: int, number: np.dtype[Any]) -> tuple[int, int] | None:
    """Rows and columns for so many complex numbers in one dimension; rows take the odd factors."""
    from sigconv.kernels.simd import lanes

    columns = 4 * lanes(number)
    while points % (4 * columns) == 0 and 8 * columns * number.itemsize <= 2 * NEAR and columns * columns < 2 * points:
        columns *= 2
    return None if points % columns else (points // columns, columns)


def _shape(lengths: tuple[int, ...], char: str) -> tuple[int, int] | None:
    """Rows and columns of a grid; None where there is none."""
    from sigconv.kernels.simd import lanes

    real, number = char in "fd", np.dtype(char.lower())
    if char not in "fdFD" or len(lengths) > 2:
        return None
    if not 1 < math.prod(lengths) <= LONGEST * (1 + real) or (real and lengths[-1] % 2):
        return None
    last = lengths[-1] // (1 + real)
    shape = (lengths[0], last) if len(lengths) == 2 else _split(last, number)
    if shape is None or shape[0] < 2 or shape[1] % (4 * lanes(number)):
        return None
    return shape if _steps(shape[0]) and _steps(shape[1] // lanes(number)) else None


def has(lengths: Sequence[int], char: str) -> bool:
    """Whether there is a grid for blocks of these lengths."""
    return len(lengths) > 0 and _shape(tuple(lengths), char) is not None


@functools.lru_cache(1024)
def next_lengths(needed: tuple[int, ...], char: str) -> tuple[int, ...] | None:
    """The smallest lengths from those ``needed`` on that have a grid; None where a library's are better."""
    if not 1 <= len(needed) <= 2 or char not in "fdFD" or math.prod(needed) < LEAST:
        return None
    found = []
    for axis, n in enumerate(needed):
        candidates = sorted(odd << p for odd in ODD for p in range(25) if odd << p >= max(n, 2))
        rows = axis < len(needed) - 1
        fits = (m for m in candidates if rows or _shape((m,) if len(needed) == 1 else (2, m), char))
        found.append(next(fits, 0))
    return tuple(found) if math.prod(found) <= SLACK * math.prod(needed) and _shape(tuple(found), char) else None


@functools.lru_cache(1024)
def block_lengths(shapes: tuple[tuple[int, int], ...], char: str) -> tuple[int, ...] | None:
    """The lengths with a grid that cost least for outputs and taps on each axis; None where there are none."""
    if not 1 <= len(shapes) <= 2 or char not in "fdFD":
        return None
    everything = next_lengths(tuple(n + k - 1 for n, k in shapes), char)
    choices = [
        sorted({odd << p for odd in ODD[:3] for p in range(25) if 5 * k < 4 * (odd << p) < 4 * 2 * (n + k)})
        for n, k in shapes
    ]
    best, best_cost = everything, math.inf if everything is None else seconds(everything, 1, char)
    for lengths in itertools.product(*choices):
        if _shape(lengths, char) is None:
            continue
        tasks = math.prod(-(-n // (length - k + 1)) for (n, k), length in zip(shapes, lengths, strict=True))
        if (cost := seconds(lengths, tasks, char)) < best_cost:
            best, best_cost = lengths, cost
    return best


NEAR_POWER, FAR_POWER = 18, 24
"""Powers of two of a grid's bytes between which it leaves the second cache, then every cache."""


def seconds(lengths: tuple[int, ...], tasks: float, char: str, costs: Costs = COSTS) -> float:
    """Predicted time of ``tasks`` blocks."""
    shape, kind, points = _shape(lengths, char), np.dtype(char).name, math.prod(lengths)
    assert shape is not None
    far = (math.log2(points * np.dtype(char).itemsize) - NEAR_POWER) / (FAR_POWER - NEAR_POWER)
    number = math.log2(points) * costs["grid"][kind] + costs["grid_number"][kind]
    number += min(max(far, 0.0), 1.0) * costs["grid_far"][kind]
    return float(tasks * (points * number + shape[0] * costs["grid_row"]))


@functools.lru_cache(64)
def grid(lengths: tuple[int, ...], char: str) -> Grid | None:
    """The grid for blocks of some lengths; None where there is none."""
    shape = _shape(lengths, char)
    if shape is None:
        return None
    from sigconv.kernels.cpu import butterfly
    from sigconv.kernels.simd import lanes

    (rows, columns), number = shape, np.dtype(char.lower())
    width = lanes(number)
    quarter = 0.25 if char in "fd" else 0.0
    down, along = _steps(rows), _steps(columns // width)
    assert down is not None
    assert along is not None
    phase = np.array([0.0 if len(lengths) == 2 else quarter])
    down_tables, along_tables = [], []
    for radix in down:
        down_tables.append(_table(butterfly.factors(phase, radix), number))
        phase = butterfly.children(phase, radix).reshape(-1)
    phase = np.array([[quarter]]) if len(lengths) == 2 else phase[:, None]
    for radix in along:
        along_tables.append(_table(butterfly.factors(phase, radix), number))
        phase = butterfly.children(phase, radix).reshape(len(phase), -1)
    factors = butterfly.lane_factors(phase, number)
    pairs = np.moveaxis(_table(factors, number), -1, -2)
    last = on_line(pairs.reshape(len(phase), -1))
    nbytes = 2 * rows * columns * number.itemsize
    strip = columns // width
    while nbytes > SECOND and 2 * rows * strip * width * number.itemsize > STRIP and strip > 2:
        strip //= 2
    return Grid(lengths, char, rows, columns, strip, tuple(down), tuple(along),
                tuple(down_tables), tuple(along_tables), last)  # fmt: skip


def _lines(nbytes: int) -> int:
    """Whole cache lines, and one more: neighbours never share one, nor the distance of a page."""
    return whole(nbytes) + LINE


class Call:
    """A call of the kernel: its records, one a stage, and what they point to, with memory for so many threads.

    ``shared``: all threads together do one block at a time, and leave it in ``work``. ``forward``: they leave its
    transform there, and nothing is written. Making one takes longer than a short transform: `Call.of` keeps them.
    """

    def __init__(self, grid: Grid, threads: int, shared: bool, forward: bool = False) -> None:
        from sigconv.kernels.simd import VECTOR_BYTES
        from sigconv.runtime.runner import STEP, Prepared

        fft = _kernels()
        self.grid, self.threads, self.key = grid, threads, (threads, shared, forward)
        record = np.zeros(1, fft.ARGS)
        r, two = record[0], len(grid.lengths) == 2
        r["H"], r["W"], r["strip"] = grid.rows, grid.columns, grid.strip
        r["row_step"], r["column_step"] = (1, 0) if two else (0, grid.columns)
        r["half"] = grid.columns if two else grid.rows * grid.columns
        r["down"], r["along"] = len(grid.down), len(grid.along)
        r["down_radix"][: len(grid.down)], r["along_radix"][: len(grid.along)] = grid.down, grid.along
        r["down_table"][: len(grid.down)] = [table.ctypes.data for table in grid.down_tables]
        r["along_table"][: len(grid.along)] = [table.ctypes.data for table in grid.along_tables]
        r["along_row"][: len(grid.along)] = [table[0].size if len(table) > 1 else 0 for table in grid.along_tables]
        r["lanes"], r["lanes_row"] = grid.lanes.ctypes.data, grid.lanes[0].size if len(grid.lanes) > 1 else 0
        work = _lines(grid.nbytes)
        strip = 0 if grid.strip * VECTOR_BYTES == grid.columns * grid.number.itemsize else grid.rows * grid.strip
        ends = (2 * grid.rows + 1) * grid.strip * VECTOR_BYTES * (1 if grid.real else 2)
        own, strip, ends = 0 if shared else work, _lines(2 * strip * VECTOR_BYTES), _lines(ends)
        r["strip_at"], r["edges"], r["addresses"] = own, own + strip, own + strip + ends
        r["room"] = own + strip + ends + _lines(32 * grid.rows)
        r["shared"] = shared
        if forward:
            r["way"], r["blocks"], r["tiles"] = fft.FORWARD_ONLY, 1, 1
        self._memory = zeros(threads * int(r["room"]), np.uint8)
        self._fill = np.zeros(2, grid.number)
        r["scratch"], r["fill"] = self._memory.ctypes.data, self._fill.ctypes.data

        stages = [fft.DOWN, fft.ALONG, fft.UP] if shared else [fft.DOWN | fft.ALONG | fft.UP]
        if forward:
            stages = stages[:-1] if shared else [fft.DOWN | fft.ALONG]
        records = np.repeat(record, len(stages))
        records["stages"] = stages
        steps = np.zeros(len(stages), STEP)
        steps["kernel"], steps["width"], steps["fence"] = fft.KERNELS[grid.char].address, threads, 1
        steps["args"] = records.ctypes.data + np.arange(len(stages)) * records.itemsize
        self._prepared = Prepared(steps)
        self._words = memoryview(records.view(np.int64).data)
        self._firsts = range(0, len(self._words), records.itemsize // 8)
        self.address = records.ctypes.data
        self.planes = np.zeros((1, 3), np.int64)

    @classmethod
    def of(cls, grid: Grid, threads: int, shared: bool, forward: bool = False) -> Call:
        """One that nobody uses now; give it back with `rest`."""
        try:
            return grid.idle[threads, shared, forward].pop()
        except (KeyError, IndexError):
            return cls(grid, threads, shared, forward)

    def rest(self) -> None:
        """Nobody needs it any more: it is kept for the next, unless it holds much memory."""
        if self._memory.nbytes <= KEPT:
            self.grid.idle.setdefault(self.key, []).append(self)

    def set(self, **fields: int) -> None:
        """Fields of every stage's record."""
        places, words = _places(), self._words
        for name, value in fields.items():
            place = places[name]
            for first in self._firsts:
                words[first + place] = value

    def signal(self, x: Array, addresses: Sequence[int] | Array, boundary: str = "fill", fillvalue: Any = 0) -> None:
        """What blocks are read from: ``x[…, height, width]`` has dense columns; ``addresses``: of each plane."""
        from sigconv.kernels import border

        value = complex(fillvalue)
        self._fill[0], self._fill[1] = value.real, value.imag
        if len(self.planes) != len(addresses):
            self.planes = np.zeros((len(addresses), 3), np.int64)
        self.planes[:, 0] = addresses
        self.set(
            height=x.shape[-2], width=x.shape[-1], x_row=x.strides[-2], boundary=border.BOUNDARIES[boundary],
            planes=self.planes.ctypes.data, n_planes=len(addresses),
        )  # fmt: skip

    def run(self) -> bool:
        """Do it; whether the outputs are finite."""
        self.set(finite=1)
        self._prepared.run(self.threads)
        finite = _places()["finite"]
        return all(self._words[first + finite] for first in self._firsts)


@functools.cache
def _places() -> dict[str, int]:
    """Where fields lie in a record, in words."""
    return {name: place[1] // 8 for name, place in _kernels().ARGS.fields.items()}


def spectra(grid: Grid, h: Array, threads: int = 1) -> Array:
    """Of kernels ``h`` with one or two convolved axes last: one a plane ``[…, numbers]``, divided by the length.

    They are in the order of the transform.
    """

    taps = np.ascontiguousarray(h, grid.char) / np.dtype(grid.char).type(grid.rows * grid.columns)
    axes = len(grid.lengths)
    planes = taps.reshape(-1, *((1,) if axes == 1 else ()), *taps.shape[taps.ndim - axes :])
    found = zeros(len(planes) * grid.rows * grid.columns * 2, grid.number).reshape(len(planes), -1)
    call = Call.of(grid, max(1, min(threads, grid.nbytes // SHARE)), shared=True, forward=True)
    for plane, place in zip(planes, found, strict=True):
        call.signal(plane, [plane.ctypes.data])
        call.set(work=place.ctypes.data)
        call.run()
    call.rest()
    return found.reshape(*taps.shape[: taps.ndim - axes], -1)


@dataclass(frozen=True, slots=True)
class Blocks:
    """Blocks along the convolved axes, one entry an axis: the first one's number and how many there are.

    Block ``b`` begins ``lead`` numbers before ``b * step``; of what it gives, the first ``lead`` are not outputs.
    """

    first: tuple[int, ...]
    count: tuple[int, ...]
    step: tuple[int, ...]
    lead: tuple[int, ...]


def convolve(
    grid: Grid, blocks: Blocks, x: Array, spectra: Array, y: Array, start: Sequence[int], boundary: str, fillvalue: Any,
    threads: int,
) -> bool:  # fmt: skip
    """Write ``y``, the outputs from ``start`` on; whether they are finite.

    ``x``, ``spectra`` (of kernels: one more axis than batches) and ``y`` have one or two convolved axes last, dense
    ones, and the same type; batches of ``x`` and ``spectra`` are repeated as those of ``y`` need it.
    """
    axes = len(grid.lengths)
    batch = y.shape[: y.ndim - axes]
    x, y = (a if axes == 2 else a[..., None, :] for a in (x, y))
    first, count, step, lead, begin = (
        v if axes == 2 else (0, v[0]) for v in (blocks.first, blocks.count, blocks.step, blocks.lead, tuple(start))
    )
    planes, tasks = math.prod(batch), math.prod(batch) * math.prod(blocks.count)
    threads = min(threads, max(1, tasks * grid.nbytes // SHARE))
    shared = threads > 1 and (tasks < 2 * threads or grid.nbytes > SECOND)
    call = Call.of(grid, threads if shared else min(threads, tasks), shared)
    call.signal(x, _addresses(x, batch, 2), boundary, fillvalue)
    table = call.planes
    table[:, 1], table[:, 2] = _addresses(spectra, batch, 1), _addresses(y, batch, 2)
    step_row = 1 if axes == 1 else step[0]
    call.set(
        y_row=y.strides[-2], rows=y.shape[-2], columns=y.shape[-1], start_row=begin[0], start=begin[1],
        step_row=step_row, step=step[1], lead_row=lead[0], lead=lead[1],
    )  # fmt: skip
    if not shared:
        call.set(first_row=first[0], first=first[1], tiles=count[0] if axes == 2 else 1, blocks=count[1])
        finite = call.run()
        call.rest()
        return finite

    work = zeros(grid.nbytes, np.uint8)
    call.set(work=work.ctypes.data, tiles=1, blocks=1, n_planes=1)
    finite = True
    for plane, tile, block in itertools.product(range(planes), range(count[0] if axes == 2 else 1), range(count[1])):
        call.set(planes=table.ctypes.data + plane * table.strides[0], first_row=first[0] + tile, first=first[1] + block)
        finite &= call.run()
    call.rest()
    return finite


class OneBlock:
    """Single blocks of ``length`` numbers, one after the other, prepared once: a stream's, which come in small pieces.

    ``channels``: batches of the windows; ``hop``: outputs of a block, its last ones.
    """

    def __init__(self, grid: Grid, spectra: Array, channels: tuple[int, ...], hop: int) -> None:
        from sigconv.runtime.team import KernelFunction

        (length,), batch = grid.lengths, np.broadcast_shapes(channels, spectra.shape[:-1])
        self._x = zeros(math.prod(channels) * length, np.dtype(grid.char)).reshape(*channels, 1, length)
        self._y = zeros(math.prod(batch) * hop, np.dtype(grid.char)).reshape(*batch, 1, hop)
        self._spectra, self._call = spectra, Call(grid, 1, False)
        self._call.signal(self._x, _addresses(self._x, batch, 2))
        table = self._call.planes
        table[:, 1], table[:, 2] = _addresses(spectra, batch, 1), _addresses(self._y, batch, 2)
        self._call.set(rows=1, columns=hop, start=length - hop, step_row=1, step=1, tiles=1, blocks=1)
        self._function = KernelFunction(_kernels().KERNELS[grid.char].address)

    def run(self, windows: Array) -> Array:
        """The outputs ``[…, hop]`` of windows ``[…, length]``; overwritten by the next call."""
        self._x[..., 0, :] = windows
        self._function(self._call.address, 0, 1)
        return self._y[..., 0, :]


def _addresses(a: Array, batch: tuple[int, ...], core: int) -> Array:
    """Of each plane of ``a``, whose last ``core`` axes are the plane's, as the batch repeats them."""
    if not batch:
        return np.array([a.ctypes.data])
    a = np.broadcast_to(a, (*batch, *a.shape[a.ndim - core :]))
    offsets = np.zeros((), np.int64)
    for n, stride in zip(batch, a.strides, strict=False):
        offsets = offsets[..., None] + np.arange(n, dtype=np.int64) * stride
    return a.ctypes.data + offsets.reshape(-1)
