"""Direct correlation of images, borders included, in one call.

    y[i, j] = sum over a < J, b < K of w[a, b] * X[top + i + a, left + j + b]

X is the image as its boundary continues it. Rows beyond the ends are rows like any other, and where a block of columns
reads nothing beyond the ends of a row, `rows` adds up the image itself. Other blocks walk down the rows with a ring of
them that stays in the nearest cache: each row is written into it once, continued and in the type of the sums. So are
kernels that are outer products computed in one pass: rows enter the ring already summed along the row. The few columns
at the ends of many rows are turned, so that a register holds the outputs of neighbouring rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sigconv.kernels import border
from sigconv.kernels.address import as_pointer
from sigconv.kernels.atomic import call_kernel
from sigconv.kernels.cpu import rows
from sigconv.kernels.cpu.image_layout import layout
from sigconv.kernels.cpu.rows_tile import SHEAR_ROWS
from sigconv.kernels.jit import Kernel, inline, kernel
from sigconv.kernels.late import carray
from sigconv.kernels.simd import VECTOR_BYTES, broadcast, fma, load, store

ARGS = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("x", "x_row", "x_plane"),  # address; bytes from row to row and from image to image; pixels are dense
            *("height", "width", "inner"),  # of the image in pixels; numbers of a pixel, which are summed apart
            "finite",  # written: whether all taps are finite; if not, nothing else is written
            *("w", "J", "K"),  # address of the taps w[J, K], or of w[J] where ``line`` is given
            "line",  # 0, or the address of K taps along the row: w[a, b] = w[a] * line[b]
            *("y", "y_item"),  # address, bytes of an output
            *("y_row", "y_plane"),  # numbers from row to row and from image to image; pixels are dense
            *("planes", "n_rows", "n"),  # images, output rows and columns
            *("top", "left"),  # where in the image the first tap of the first output lies; may be negative
            *("boundary", "fill"),  # in `border`; address of the sum that lies beyond the ends for 'fill'
            *("row_kernel", "line_kernel"),  # addresses of `rows` kernels: sums to outputs, sums to sums
            *("start", "stop"),  # output columns that `rows` may compute from the image itself
            *("block", "group"),  # output columns of a block, output rows of a step, of those that it may not
            *("wide", "tall"),  # and of those that it may
            "turned",  # 0, or how many output rows at a time are turned in the blocks that it may not
            "scratch",  # address of the threads' memory
            *("room", "piece", "ring", "ring_row"),  # bytes of a thread's, and how it is divided: `layout`
        )
    ]
)


FEW = 64
"""Pixels of a row that are written one by one."""

_WORDS = rows.ARGS.itemsize // 8
# The fields of rows.ARGS
_ROWS, _W, _Y, _N_ROWS, _J, _K, _N, _STEP, _DILATION, _SHEAR, _RUN, _Y_ROW, _AHEAD, _AHEAD_ROW = range(_WORDS)


_element = inline(border.element)


@inline
def _not_turned(y, columns, distance, w, J, K, inner, count):
    pass


def _make_turned(sums: type[Any]) -> Any:
    lanes, zero = VECTOR_BYTES // np.dtype(sums).itemsize, sums(0)

    @inline
    def add_turned(y, columns, distance, w, J, K, inner, count):
        """Outputs of ``count`` neighbouring rows, whose first taps lie in the column ``columns``."""
        for i in range(0, count, 2 * lanes):
            low, high = broadcast(zero), broadcast(zero)
            for j in range(J):
                for k in range(K):
                    tap, at = broadcast(w[j * K + k]), k * inner * distance + i + j
                    low = fma(load(columns, at), tap, low)
                    high = fma(load(columns, at + lanes), tap, high)
            store(y, i, low)
            store(y, i + lanes, high)

    return add_turned


def make(source: type[Any], sums: type[Any]) -> Kernel:
    """The kernel for images of type ``source`` whose sums are of type ``sums``."""
    item, sum_item, same = np.dtype(source).itemsize, np.dtype(sums).itemsize, source == sums
    lanes, zero = VECTOR_BYTES // np.dtype(sums).itemsize, sums(0)
    add_turned = _make_turned(sums) if same and np.dtype(sums).kind == "f" else _not_turned

    @inline
    def write_row(target, x, first, count, width, inner, origins, nothing):
        """Pixels first … first + count - 1 of the image's row at ``x``, continued from where ``origins`` says."""
        y, pixels = carray(as_pointer(target, sums), count * inner), carray(as_pointer(x, source), width * inner)
        if count <= FEW and inner == 1:
            for i in range(count):
                y[i] = pixels[origins[i]] if origins[i] >= 0 else nothing
            return
        low = min(max(-first, 0), count)
        high = max(min(width - first, count), low)
        to = carray(as_pointer(target + low * inner * sum_item, sums), (high - low) * inner)
        of = carray(as_pointer(x + (first + low) * inner * item, source), (high - low) * inner)
        for i in range((high - low) * inner):
            to[i] = of[i]
        for i in range(count - (high - low)):
            at = i if i < low else i + high - low
            for c in range(inner):
                y[at * inner + c] = pixels[origins[at] * inner + c] if origins[at] >= 0 else nothing

    @inline
    def write_nothing(target, count, nothing):
        y = carray(as_pointer(target, sums), count)
        for i in range(count):
            y[i] = nothing

    @inline
    def turn(columns, distance, x, x_row, height, top, count, inner, boundary, origins, n_origins, width, nothing):
        """Write the pixels ``origins`` of the rows from ``top`` on as columns, ``distance`` numbers apart."""
        for i in range(count):
            row = _element(top + i, height, boundary)
            pixels = carray(as_pointer(x + row * x_row, source), width * inner)
            for q in range(n_origins):
                for c in range(inner):
                    there = row >= 0 and origins[q] >= 0
                    columns[(q * inner + c) * distance + i] = pixels[origins[q] * inner + c] if there else nothing
        for column in range(n_origins * inner):  # whole registers are read: what was there might be slow to multiply
            for i in range(count, count + 2 * lanes):
                columns[column * distance + i] = zero

    def image(args, thread, threads):
        a = carray(args, 1)[0]
        J, K, inner, n_rows, width, start, stop = a.J, a.K, a.inner, a.n_rows, a.width, a.start, a.stop
        boundary, fill, block, line = a.boundary, a.fill, a.block, a.line
        summed = line != 0
        taps, along_taps = carray(as_pointer(a.w, sums), J * (1 if summed else K)), carray(as_pointer(line, sums), K)
        spoilt = zero
        for tap in taps:
            spoilt += tap * zero
        if summed:
            for tap in along_taps:
                spoilt += tap * zero
        if thread == 0:
            a.finite = spoilt == zero
        if spoilt != zero:
            return
        scratch, longest = a.scratch + a.room * thread, max(a.group, a.tall)
        piece, first_slot = scratch + a.piece, scratch + a.ring
        line_table = scratch + 16 * _WORDS
        where_at, table_at = line_table + 8, line_table + 8 * (J + longest)
        across = carray(as_pointer(scratch, np.int64), _WORDS)  # a record of rows.ARGS, and one for the line
        along = carray(as_pointer(scratch + 8 * _WORDS, np.int64), _WORDS + 1)  # with its table of one row
        where = carray(as_pointer(where_at, np.int64), J - 1 + longest)
        table = carray(as_pointer(table_at, np.int64), longest * J)
        origins = carray(as_pointer(table_at + 8 * len(table), np.int64), a.block + K - 1)
        w, nothing = as_pointer(a.w, sums), carray(as_pointer(fill, sums), 1)[0]
        across[_ROWS], across[_W], across[_J], across[_K] = table_at, a.w, J, 1 if summed else K
        across[_STEP], across[_DILATION], across[_SHEAR], across[_Y_ROW] = 1, inner, J if J > 1 else 0, a.y_row
        across[_RUN], along[_RUN] = 0, 0
        across[_AHEAD], across[_AHEAD_ROW], along[_AHEAD], along[_AHEAD_ROW] = 0, a.x_row if same else 0, 0, 0
        along[_ROWS], along[_W], along[_J], along[_K] = line_table, line, 1, K
        along[_STEP], along[_DILATION], along[_SHEAR], along[_N_ROWS], along[_Y_ROW] = 1, inner, 0, 1, 0

        before, amid = (start + block - 1) // block, (stop - start + a.wide - 1) // a.wide
        blocks = before + amid + (a.n - stop + block - 1) // block
        if amid and boundary == border.FILL and (a.top < 0 or a.top + n_rows + J - 1 > a.height):
            write_nothing(piece, (a.wide + K - 1) * inner, nothing)  # a row beyond the ends
        parts = max(1, min(threads, n_rows // SHEAR_ROWS)) if a.planes < 4 * threads else 1
        total = a.planes * parts * blocks
        for task in range(total * thread // threads, total * (thread + 1) // threads):
            plane, part, b = task // (parts * blocks), task // blocks % parts, task % blocks
            x, straight = a.x + plane * a.x_plane, before <= b < before + amid
            if straight:
                at = start + (b - before) * a.wide
                n, group = min(a.wide, stop - at), a.tall
            else:
                at = b * block if b < before else stop + (b - before - amid) * block
                n, group = min(block, (start if b < before else a.n) - at), a.group
            first, count = a.left + at, n + K - 1
            inside = same and first >= 0 and first + count <= width
            r, end = n_rows * part // parts, n_rows * (part + 1) // parts
            made, ring, newest, oldest = r, J - 1 + group, 0, 0
            across[_N], along[_N] = n * inner, n * inner
            if not straight:
                for i in range(count):
                    origins[i] = _element(first + i, width, boundary)
            if a.turned and not straight:
                columns, distance = as_pointer(first_slot, sums), a.ring_row // sum_item
                column = as_pointer(first_slot + count * inner * a.ring_row, sums)
                for r0 in range(r, end, a.turned):
                    height = min(a.turned, end - r0)
                    turn(
                        columns, distance, x, a.x_row, a.height, a.top + r0, height + J - 1, inner, boundary, origins,
                        count, width, nothing,
                    )  # fmt: skip
                    for c in range(n * inner):
                        of = as_pointer(first_slot + c * a.ring_row, sums)
                        add_turned(column, of, distance, w, J, K, inner, height)
                        y = as_pointer(a.y + (plane * a.y_plane + r0 * a.y_row + at * inner + c) * sum_item, sums)
                        for i in range(height):
                            y[i * a.y_row] = column[i]
                continue
            while r < end:
                height = min(group, end - r)
                while made < r + height + J - 1:
                    row, place = _element(a.top + made, a.height, boundary), newest
                    slot, start_of_row = first_slot + place * a.ring_row, x + row * a.x_row
                    made, newest = made + 1, newest + 1 if newest < ring - 1 else 0
                    if straight:
                        where[place] = start_of_row + first * inner * item if row >= 0 else piece
                        continue
                    where[place] = slot
                    if summed and row >= 0 and inside:
                        along[_WORDS] = start_of_row + first * inner * item
                    else:
                        to = piece if summed else slot
                        if row >= 0:
                            write_row(to, start_of_row, first, count, width, inner, origins, nothing)
                        else:
                            write_nothing(to, count * inner, nothing)
                        along[_WORDS] = piece
                    if summed:
                        along[_Y] = slot
                        call_kernel(a.line_kernel, scratch + 8 * _WORDS, 0, 1)
                for i in range(height):
                    for j in range(J):
                        place = oldest + i + j
                        table[i * J + j] = where[place - ring if place >= ring else place]
                across[_N_ROWS] = height
                if same:
                    soon = r + SHEAR_ROWS + J - 1 if straight else made
                    across[_AHEAD] = x + (a.top + soon) * a.x_row + first * inner * item
                across[_Y] = a.y + (plane * a.y_plane + r * a.y_row + at * inner) * a.y_item
                call_kernel(a.row_kernel, scratch, 0, 1)
                r, oldest = r + height, (oldest + height) % ring

    image.__name__ = image.__qualname__ = f"image_{np.dtype(source).name}_{np.dtype(sums).name}"
    return kernel(ARGS)(image)


KERNELS = {
    (source, sums): make(source, sums)
    for source, sums in (
        *((t, t) for t in (np.float32, np.float64, np.complex64, np.complex128, np.int32, np.int64)),
        *((t, np.int32) for t in (np.int8, np.uint8, np.int16, np.uint16)),
        (np.uint8, np.float32),
    )
}


_layout = inline(layout)


def lay_out(args, thread, threads):
    """Write the fields of `LAYOUT`, in its order, from the others, for a source of the sums' type.

    ``turned``: whether columns may be turned.
    """
    a = carray(args, 1)[0]
    (a.start, a.stop, a.block, a.group, a.wide, a.tall, a.turned, a.piece, a.ring, a.ring_row, a.room) = _layout(
        a.width, a.n, a.n_rows, a.J, a.K, a.left, a.inner, a.x_row, a.y_item, a.line != 0, False, a.turned != 0
    )


LAY_OUT = kernel(ARGS)(lay_out)
"""`layout` for callers that are compiled themselves."""
