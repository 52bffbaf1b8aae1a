"""How `image` cuts its output into blocks, and its memory into pieces.

`layout` is plain Python, for those who plan calls in Python, and compiles, for callers that are compiled themselves.
"""

from __future__ import annotations

import math

from sigconv.kernels.cpu import rows
from sigconv.kernels.cpu.rows_tile import SHEAR_ROWS, SHEAR_VECTORS
from sigconv.kernels.simd import VECTOR_BYTES
from sigconv.lines import LINE

LAYOUT = ("start", "stop", "block", "group", "wide", "tall", "turned", "piece", "ring", "ring_row", "room")
"""The fields of `image.ARGS` that `layout` gives."""

RING_BYTES, SHORT_RING_BYTES = 43 << 10, 30 << 10
"""Bytes of a block's rows, a first-level cache; of kernels of up to `rows.SHORT` rows, that outputs fit too."""
SET_BYTES, WAYS = 4096, 12
"""A first-level cache keeps about this many lines of the same address modulo `SET_BYTES`."""
LINE_BLOCK = 4096
"""Numbers of a block where the kernel has one row."""
TURNED = 256
"""Output rows of a step where columns at the ends of rows are turned."""
FEW_ROWS = 16
"""With fewer nothing is turned."""
TABLE = 4096
"""Addresses of rows in one step."""
STRAIGHT_BYTES = 1 << 10
"""Least bytes of an output row worth a block of its own beside those of the borders."""
TILE_BYTES = SHEAR_VECTORS[0] * VECTOR_BYTES
"""Columns of the widest tile of several rows: blocks are made of whole ones."""
STEP = -(-5 // SHEAR_ROWS) * SHEAR_ROWS
"""Output rows of a step: few, so that blocks are wide."""

_WORDS = rows.ARGS.itemsize // 8


def layout(width, n, n_rows, J, K, left, inner, x_row, item, summed, converts, turns):  # type: ignore[no-untyped-def]
    """The fields of `LAYOUT` for others of the same names.

    ``item``: bytes of a sum. ``summed``: whether ``line`` is given; ``converts``: whether the image is of another type
    than the sums; ``turns``: whether there are vectors of them, so that columns may be turned.
    """
    start = min(max(-left, 0), n)
    stop = max(min(width - left - (K - 1), n), start)
    # Whether the rows that a tile reads and writes cannot all be in the first-level cache, as in images 1024 wide.
    collide = J > 1 and (J + 2 * min(J, SHEAR_ROWS)) * math.gcd(x_row, SET_BYTES) > WAYS * SET_BYTES
    if summed or converts or collide or (stop - start) * inner * item < STRAIGHT_BYTES:
        start = stop = n
    border = max(start, n - stop)
    wide, tall = (LINE_BLOCK // inner if J == 1 else n), max(1, TABLE // J)
    halo = 0 if summed else K - 1
    tile = max(1, TILE_BYTES // (item * inner))
    room = (SHORT_RING_BYTES if J <= rows.SHORT else RING_BYTES) // (item * inner)  # pixels
    group = STEP if J > 1 else max(1, LINE_BLOCK // max(1, (border + halo) * inner))
    block = max(tile, (room // (J - 1 + group) - halo) // tile * tile) if J > 1 else wide
    block = max(1, min(block, border))
    if J > 1 and block == border:
        group = max(group, room // (block + halo) - (J - 1))
    turned = start < stop and 0 < border <= block and J > 1 and n_rows >= FEW_ROWS and turns
    group, wide, tall = min(group, n_rows), max(1, min(wide, n)), min(tall, n_rows)

    most = max(group, tall)
    words = 2 * _WORDS + 1 + J - 1 + most + J * most + block + K - 1
    piece = -(-8 * words // LINE) * LINE
    ring = piece - (-(max(block, wide) + K - 1) * inner * item // LINE) * LINE
    if turned:  # a column of the ring's memory, and one of outputs
        step = min(TURNED, n_rows)
        ring_row, ring_rows = (step + J) * item + 2 * VECTOR_BYTES, (block + K - 1) * inner + 1
    else:
        step, ring_row, ring_rows = 0, (block + halo) * inner * item, J - 1 + group
    ring_row = (-(-ring_row // LINE) * LINE) | LINE  # an odd number of lines
    return start, stop, block, group, wide, tall, step, piece, ring, ring_row, ring + ring_rows * ring_row
