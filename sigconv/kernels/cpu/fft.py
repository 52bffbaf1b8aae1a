"""Convolution by transforms of blocks, each one native pass over what it reads: transform, product, inverse, outputs.

A block is a grid of ``H`` rows of ``W`` complex numbers, in one dimension its consecutive stretches, in two the rows
of a tile. Butterflies between rows come first (down), straight from the signal; each row is then finished while it is
in the nearest cache (along), and the way back (up) writes outputs straight to where they belong.

Real signals: a block of 2 N numbers is one of N complex ones, its second half as imaginary parts, modulo ``z**N - i``.
That is convolution modulo ``z**2N + 1``: what wraps around changes its sign, and nothing of it is kept anyway. In two
dimensions this holds for the columns of each row.

References
----------
D. J. Bernstein, "Multidigit multiplication for mathematicians", 2001, section 8 (real transforms by right angles).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sigconv.kernels import border
from sigconv.kernels.address import array_field, as_pointer, copy_bytes
from sigconv.kernels.cpu import butterfly
from sigconv.kernels.cpu.butterfly import GROUP, both_ways, forward_lanes, forward_steps, inverse_lanes, inverse_steps
from sigconv.kernels.jit import Kernel, inline, kernel
from sigconv.kernels.late import carray
from sigconv.kernels.simd import lanes

DOWN, ALONG, UP = 1, 2, 4
"""Stages of a block."""
BOTH, FORWARD_ONLY, INVERSE_ONLY = range(3)

MOST = 8
"""Steps of a direction."""

ARGS = np.dtype(
    [
        *(
            (name, np.int64)
            for name in (
                *("planes", "n_planes"),  # address of (signal, spectra, result) addresses of each image or vector
                *("height", "width", "x_row"),  # of a signal; bytes from row to row, columns are dense
                *("boundary", "fill"),  # in `border`; address of a number
                *("y_row", "start_row", "start", "rows", "columns"),  # of the result: bytes, where in the full
                *("first_row", "first", "tiles", "blocks"),  # the blocks: numbers of the first ones, how many
                *("step_row", "step", "lead_row", "lead"),  # outputs of a block, inputs before its first output
                *("H", "W"),  # of the grid, in complex numbers
                *("row_step", "column_step", "half"),  # in the signal: from row to row of the grid, to imaginary parts
                "strip",  # registers of columns that go down and up together
                *("down", "along"),  # numbers of steps
                "lanes",  # address of the factors that finish rows
                "lanes_row",  # numbers from those of one row to the next, 0: all the same
                *("stages", "way"),  # which stages, which ways
                "shared",  # one block at a time by all threads, in the memory of the first
                *("scratch", "room"),  # address of the threads' memory, bytes of a thread's
                *("work", "strip_at", "edges", "addresses"),  # where in it: the grid, a strip, ends of rows, of rows
                "finite",  # written: 0 if outputs are not finite
            )
        ),
        ("down_radix", np.int64, MOST),
        ("down_table", np.int64, MOST),  # addresses of factors
        ("along_radix", np.int64, MOST),
        ("along_table", np.int64, MOST),
        ("along_row", np.int64, MOST),  # numbers from the factors of one row to the next
    ]
)

_down_radix, _down_table = array_field(ARGS, "down_radix"), array_field(ARGS, "down_table")
_along_radix, _along_table = array_field(ARGS, "along_radix"), array_field(ARGS, "along_table")
_along_row = array_field(ARGS, "along_row")
_element = inline(border.element)


@inline
def _along(a, args, row, work, spectrum, number, width, item):
    """Finish a row, times its part of the spectrum, and begin the way back."""
    radices, tables, offsets = _along_radix(args), _along_table(args), _along_row(args)
    at = as_pointer(work + 2 * row * a.W * item, number)
    lanes_table = as_pointer(a.lanes + row * a.lanes_row * item, number)
    registers = a.W // width
    if a.way != INVERSE_ONLY:
        rows, blocks = registers, 1
        for p in range(a.along):
            rows //= radices[p]
            table = as_pointer(tables[p] + row * offsets[p] * item, number)
            step = 2 * rows * width
            forward_steps(radices[p], at, step, at, step, table, blocks, rows)
            blocks *= radices[p]
    groups = registers // GROUP
    if a.way == BOTH:
        both_ways(at, groups, lanes_table, as_pointer(spectrum + 2 * row * a.W * item, number))
    elif a.way == FORWARD_ONLY:
        forward_lanes(at, groups, lanes_table, at)
    else:
        inverse_lanes(at, groups, lanes_table, at)
    if a.way != FORWARD_ONLY:
        rows, blocks = 1, registers
        for q in range(a.along):
            p = a.along - 1 - q
            blocks //= radices[p]
            table = as_pointer(tables[p] + row * offsets[p] * item, number)
            step = 2 * rows * width
            inverse_steps(radices[p], at, step, at, step, table, blocks, rows)
            rows *= radices[p]


def make(name: str, number: type[Any], interleaved: bool) -> Kernel:
    """The kernel for signals of ``number``, or of complex numbers made of two."""
    width, item, channels = lanes(number), np.dtype(number).itemsize, 1 + interleaved
    pixel, parts = item * channels, 2 - interleaved
    first_steps, last_steps = butterfly.first_steps[interleaved], butterfly.last_steps[interleaved]

    @inline
    def corner(a, b, tile):
        """Where in the signal a block begins."""
        return (a.first_row + tile) * a.step_row - a.lead_row, (a.first + b) * a.step - a.lead

    @inline
    def locate(a, x, b, tile, c0, count, table, edges):
        """Addresses of ``count`` columns from ``c0`` of the grid's rows in the signal, continued beyond its ends."""
        top, left = corner(a, b, tile)
        fill = as_pointer(a.fill, number)
        for j in range(a.H):
            row = _element(top + j * a.row_step, a.height, a.boundary)
            of = as_pointer(x + row * a.x_row, number)
            for part in range(parts):
                at = left + j * a.column_step + part * a.half + c0
                if row >= 0 and at >= 0 and at + count <= a.width:
                    table[2 * j + part] = x + row * a.x_row + at * pixel
                    continue
                slot = edges + (2 * j + part) * a.strip * width * pixel
                table[2 * j + part] = slot
                to = as_pointer(slot, number)
                for k in range(count):
                    column = _element(at + k, a.width, a.boundary) if row >= 0 else -1
                    for c in range(channels):
                        to[channels * k + c] = of[channels * column + c] if column >= 0 else fill[c]

    @inline
    def wanted(a, b, tile, j, part, c0, count):
        """Row and column in the result of a row's ``count`` columns from ``c0``, and which of them belong there."""
        top, left = corner(a, b, tile)
        row, at = top + j * a.row_step - a.start_row, j * a.column_step + part * a.half + c0
        column = left + at - a.start
        low, high = max(a.lead - at, -column, 0), min(a.columns - column, count)
        if row < 0 or row >= a.rows or (a.row_step > 0 and j < a.lead_row):
            high = low
        return row, column, low, high

    @inline
    def target(a, y, b, tile, c0, count, table, edges):
        """Where outputs go: into the result where all of them belong there, else to ``edges``."""
        for j in range(a.H):
            for part in range(parts):
                row, column, low, high = wanted(a, b, tile, j, part, c0, count)
                slot = 2 * j + part if low < high else 2 * a.H
                table[2 * j + part] = edges + slot * a.strip * width * pixel
                if low == 0 and high == count:
                    table[2 * j + part] = y + row * a.y_row + column * pixel

    @inline
    def copy_ends(a, y, b, tile, c0, count, edges):
        """Those of the outputs at ``edges`` that belong into the result."""
        for j in range(a.H):
            for part in range(parts):
                row, column, low, high = wanted(a, b, tile, j, part, c0, count)
                if low < high and high - low < count:
                    slot = edges + ((2 * j + part) * a.strip * width + low) * pixel
                    copy_bytes(y + row * a.y_row + (column + low) * pixel, slot, (high - low) * pixel)

    @inline
    def down(a, args, c0, n, work, strip, addresses):
        """The steps between rows for ``n`` registers of columns from ``c0``, from the signal into the grid."""
        radices, tables = _down_radix(args), _down_table(args)
        grid = work + 2 * c0 * width * item
        whole = n * width == a.W
        place, step = (grid, 2 * a.W) if whole or a.down == 1 else (strip, 2 * n * width)
        radix = radices[0]
        rows = a.H // radix
        for i in range(rows):
            first_steps(
                radix, as_pointer(addresses + 16 * i, np.int64), rows, as_pointer(place + i * step * item, number),
                rows * step, as_pointer(tables[0], number), n,
            )  # fmt: skip
        blocks = radix
        for p in range(1, a.down):
            radix = radices[p]
            rows //= radix
            to, to_step = (place, rows * step) if whole or p < a.down - 1 else (grid, 2 * a.W)
            forward_steps(
                radix, as_pointer(place, number), rows * step, as_pointer(to, number), to_step,
                as_pointer(tables[p], number), blocks, rows * n,
            )  # fmt: skip
            blocks *= radix

    @inline
    def up(a, args, c0, n, work, strip, addresses):
        """The inverse of `down`, from the grid to addresses."""
        radices, tables = _down_radix(args), _down_table(args)
        grid = work + 2 * c0 * width * item
        whole = n * width == a.W
        place, step = (grid, 2 * a.W) if whole or a.down == 1 else (strip, 2 * n * width)
        rows, blocks = 1, a.H
        for q in range(a.down - 1):
            radix = radices[a.down - 1 - q]
            blocks //= radix
            of, of_step = (place, rows * step) if whole or q > 0 else (grid, 2 * a.W)
            inverse_steps(
                radix, as_pointer(of, number), of_step, as_pointer(place, number), rows * step,
                as_pointer(tables[a.down - 1 - q], number), blocks, rows * n,
            )  # fmt: skip
            rows *= radix
        for i in range(rows):
            last_steps(
                radices[0], as_pointer(place + i * step * item, number), rows * step,
                as_pointer(addresses + 16 * i, np.int64), rows, as_pointer(tables[0], number), n,
            )  # fmt: skip

    def transform(args, thread, threads):
        a = carray(args, 1)[0]
        planes = as_pointer(a.planes, np.int64)
        registers = a.W // width
        strips = (registers + a.strip - 1) // a.strip
        memory = a.scratch + thread * a.room
        work = a.work if a.shared else memory + a.work
        strip, edges, addresses = memory + a.strip_at, memory + a.edges, memory + a.addresses
        table = as_pointer(addresses, np.int64)
        first, last = 0, a.n_planes * a.tiles * a.blocks
        row0, row1, strip0, strip1 = 0, a.H, 0, strips
        if a.shared:
            row0, row1 = a.H * thread // threads, a.H * (thread + 1) // threads
            strip0, strip1 = strips * thread // threads, strips * (thread + 1) // threads
        else:
            first, last = last * thread // threads, last * (thread + 1) // threads
        for task in range(first, last):
            b, tile, plane = task % a.blocks, task // a.blocks % a.tiles, task // (a.blocks * a.tiles)
            x, spectrum, y = planes[3 * plane], planes[3 * plane + 1], planes[3 * plane + 2]
            if a.stages & DOWN:
                for s in range(strip0, strip1):
                    c0 = s * a.strip
                    n = min(a.strip, registers - c0)
                    locate(a, x, b, tile, c0 * width, n * width, table, edges)
                    down(a, args, c0, n, work, strip, addresses)
            if a.stages & ALONG:
                for row in range(row0, row1):
                    _along(a, args, row, work, spectrum, number, width, item)
            if a.stages & UP:
                for s in range(strip0, strip1):
                    c0 = s * a.strip
                    n = min(a.strip, registers - c0)
                    target(a, y, b, tile, c0 * width, n * width, table, edges)
                    up(a, args, c0, n, work, strip, addresses)
                    spoilt = as_pointer(table[0], number)[0]
                    if spoilt - spoilt != 0:
                        a.finite = 0
                    copy_ends(a, y, b, tile, c0 * width, n * width, edges)

    transform.__name__ = transform.__qualname__ = f"fft_{name}"
    return kernel(ARGS)(transform)


KERNELS = {
    "f": make("float32", np.float32, False),
    "d": make("float64", np.float64, False),
    "F": make("complex64", np.float32, True),
    "D": make("complex128", np.float64, True),
}
"""By `numpy.dtype.char` of signal, kernel and result."""
