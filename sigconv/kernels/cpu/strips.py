"""A convolution, a depthwise one and a 1x1 one in strips of rows: what lies between them never leaves the cache.

The three run as the kernels of `direct` and `depthwise` that they would be alone, called for a few rows at a time
through their addresses; every number has the bits that it would have alone. The rows that the depthwise windows of the
next strip read again stay where they are until the buffer is full, and are then moved to its beginning.
"""

from __future__ import annotations

import numpy as np

from sigconv.kernels.address import address_of, as_pointer, copy_bytes, get, put
from sigconv.kernels.atomic import call_kernel
from sigconv.kernels.cpu import depthwise
from sigconv.kernels.cpu.direct import DIRECT
from sigconv.kernels.jit import kernel
from sigconv.kernels.late import carray
from sigconv.kernels.scratch import SCRATCH, own_scratch

STAGES = {"expand": DIRECT, "filter": depthwise.ARGS, "project": DIRECT}
"""The records of the three, as for whole images of one sample each; the addresses of what lies between are offsets."""

ARGS = np.dtype(
    [(name, np.int64) for name in (
        "expander", "depthwise", "projector",  # the kernels' addresses
        "batch", "segments",  # work items: images x runs of rows
        "strip",  # output rows done at a time
        "capacity", "size",  # rows of the depthwise input that the buffer holds, and that there are
        "origin", "extent", "stride",  # the depthwise window along H: output row r reads from r * stride + origin on
        "left", "right",  # zeros beside a row of the buffer, in bytes
        *SCRATCH, "between", "filtered",  # where in it the depthwise input and output lie
    )]
    + list(STAGES.items())
)  # fmt: skip

_EXPAND, _FILTER, _PROJECT = (ARGS.fields[name][1] for name in STAGES)  # type: ignore[index]
_DIRECT_BYTES, _FILTER_BYTES = DIRECT.itemsize, depthwise.ARGS.itemsize
RECORDS = _EXPAND + 2 * _DIRECT_BYTES + _FILTER_BYTES
"""Bytes at the start of a share that the thread's own copies of the records take."""


def _words(record, *names):
    return tuple(record.fields[name][1] // 8 for name in names)


_ROWS, _CHUNK_ROWS, _OUT_H, _ORIGIN, _LO, _HI = _words(
    DIRECT, "rows", "chunk_rows", "out_h", "origin_h", "kh_lo", "kh_hi"
)
_X, _Y, _RESIDUAL = _words(DIRECT, "x", "y", "residual")
_TILES, _FIRST, _WIDTH, _PIXELS = _words(DIRECT, "tiles", "tile_first", "tile_width", "tile_pixels")
_F_X, _F_Y, _F_W, _F_BIAS, _F_BLOCKS, _F_OUT_H, _F_ORIGIN, _F_LO, _F_HI = _words(
    depthwise.ARGS, "x", "y", "w", "bias", "blocks", "out_h", "origin_h", "kh_lo", "kh_hi"
)
_SIZE, _LANES = 4, depthwise.lanes(np.float32)


def strips_f32(args, thread, threads):
    a = carray(args, 1)[0]
    e, f, p = a.expand, a.filter, a.project
    share = own_scratch(a, thread)
    copy_bytes(share, address_of(args), RECORDS)
    expand, filters, project = share + _EXPAND, share + _FILTER, share + _PROJECT
    e_word, f_word, p_word = (
        as_pointer(expand, np.int64),
        as_pointer(filters, np.int64),
        as_pointer(project, np.int64),
    )
    first_register, registers = as_pointer(e.tile_first, np.int64), as_pointer(e.tile_width, np.int64)
    between, filtered = share + a.between, share + a.filtered
    row_bytes, block_bytes = e.y_h * _SIZE, e.y_vector * _SIZE
    taps = f.kernel_h * f.kernel_w
    for block in range(f.blocks):
        for row in range(a.capacity):
            at = between + block * block_bytes + row * row_bytes
            for zero in range(0, a.left, 4):
                put(as_pointer(at + zero, np.int32), 0, np.int32(0))
            for zero in range(row_bytes - a.right, row_bytes, 4):
                put(as_pointer(at + zero, np.int32), 0, np.int32(0))
    put(e_word, _TILES, 1)
    items = a.batch * a.segments
    for item in range(items * thread // threads, items * (thread + 1) // threads):
        image, segment = item // a.segments, item % a.segments
        row, last_row = f.out_h * segment // a.segments, f.out_h * (segment + 1) // a.segments
        held = ready = max(0, row * a.stride + a.origin)  # rows held … ready - 1 lie in the buffer
        while row < last_row:
            rows = min(a.strip, last_row - row)
            kept = max(0, row * a.stride + a.origin)
            end = min(a.size, (row + rows - 1) * a.stride + a.origin + a.extent)
            if end - held > a.capacity:
                for block in range(f.blocks):
                    at = between + block * block_bytes
                    for i in range(kept, ready):
                        copy_bytes(at + (i - kept) * row_bytes, at + (i - held) * row_bytes, row_bytes)
                held, ready = kept, max(ready, kept)
            put(e_word, _X, e.x + image * e.x_batch * _SIZE)
            put(e_word, _Y, between + e.y + (ready - held) * row_bytes)
            put(e_word, _ROWS, end - ready)
            put(e_word, _CHUNK_ROWS, end - ready)
            put(e_word, _OUT_H, end - ready)
            put(e_word, _ORIGIN, e.origin_h + ready * e.stride_h)
            put(e_word, _LO, e.kh_lo + 8 * ready)
            put(e_word, _HI, e.kh_hi + 8 * ready)
            put(f_word, _F_OUT_H, rows)
            put(f_word, _F_ORIGIN, row * a.stride + a.origin - held)
            put(f_word, _F_LO, f.kh_lo + 8 * row)
            put(f_word, _F_HI, f.kh_hi + 8 * row)
            for tile in range(e.tiles):
                block, blocks = get(first_register, tile), get(registers, tile)
                if ready < end:
                    put(e_word, _FIRST, e.tile_first + 8 * tile)
                    put(e_word, _WIDTH, e.tile_width + 8 * tile)
                    put(e_word, _PIXELS, e.tile_pixels + 8 * tile)
                    call_kernel(a.expander, expand, 0, 1)
                put(f_word, _F_X, between + f.x + block * block_bytes)
                put(f_word, _F_Y, filtered + block * f.y_block * _SIZE)
                put(f_word, _F_W, f.w + block * taps * _LANES * _SIZE)
                put(f_word, _F_BIAS, f.bias + block * _LANES * _SIZE)
                put(f_word, _F_BLOCKS, blocks)
                call_kernel(a.depthwise, filters, 0, 1)
            ready = max(ready, end)
            put(p_word, _X, filtered)
            put(p_word, _Y, p.y + (image * p.y_batch + row * p.y_h) * _SIZE)
            if p.residual != 0:
                put(p_word, _RESIDUAL, p.residual + (image * p.r_batch + row * p.r_h) * _SIZE)
            put(p_word, _ROWS, rows)
            put(p_word, _CHUNK_ROWS, rows)
            put(p_word, _OUT_H, rows)
            call_kernel(a.projector, project, 0, 1)
            row += rows


strips = kernel(ARGS)(strips_f32)
"""float32."""
