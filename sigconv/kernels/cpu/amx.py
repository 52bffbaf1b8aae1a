"""Correlation on matrix tiles (Intel AMX): float32 as sums of two bfloat16, three products of them instead of four.

A number x is high + low, bfloat16 each, up to 2**-18 of x. Of (xh + xl) * (wh + wl) the tiles add up xh*wh, xh*wl and
xl*wh in float32; what is left out is no larger than what the two numbers leave out. A tile instruction does 8192
multiply-adds in 16 cycles, so three of them still do five times what vectors of 16 float32 do. Where rounding to
bfloat16 is accurate enough there is one part, and one product.

A chunk of rows is first split into planes of pairs of channel blocks: a pixel is 32 high parts and 32 low ones, a cache
line each. Rows keep their borders, zeros in place of what lies outside; a strided window has a plane for each of its
phases. So every tap reads the pixel that is a constant distance from the output's, and tiles run over pixels in a row
from one end of a chunk to the other: what they compute in the borders' columns is thrown away.

References
----------
G. Henry, P. T. P. Tang, A. Heinecke, Leveraging the bfloat16 artificial intelligence datatype for higher-precision
computations, ARITH 2019.
Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18 (AMX).
"""

from __future__ import annotations

import numpy as np

from sigconv.kernels import host
from sigconv.kernels.address import as_pointer, get
from sigconv.kernels.cpu.lanes import load_first
from sigconv.kernels.cpu.matrix_tiles import (
    CHANNELS,
    LANES,
    NEXT,
    NOTHING,
    OWN,
    PAIR,
    PIXEL,
    PIXELS,
    PRODUCTS,
    STEP,
    SUMS,
    configure,
    leaky,
    make_clear,
    make_multiply,
    make_split,
    make_summed,
    release,
    unordered,
)
from sigconv.kernels.jit import Kernel, inline, kernel
from sigconv.kernels.late import carray
from sigconv.kernels.scratch import SCRATCH, own_scratch
from sigconv.kernels.simd import add, broadcast, clamp, load, store, store_first
from sigconv.lines import LINE, zeros

GUARD = PIXELS * LANES
"""Pixels behind a plane that tiles may read."""
SPLIT, MULTIPLY = 1, 2
"""Stages."""

ARGS = np.dtype(
    [(name, np.int64) for name in (
        "x", "w", "bias", "y", "residual", "config",  # addresses; residual may be 0; config: of the tiles
        "split", *SCRATCH, "stages",  # split: where all chunks are split before the first is multiplied, or 0
        "group",  # images of which a thread splits the same rows
        "near", "pixels_first",  # whether weights stay in L2, and all of them meet a tile of pixels before the next one
        "batch", "chunks", "rows", "chunk_rows", "pitch", "line",  # line: rows are pixels of one long row
        "row", "out_w",  # pixels from one row of outputs to the next, how many of them are outputs
        "phases", "pairs", "plane", "phase_h", "phase_w",  # bytes of a plane; int64 tables: a phase's first row, column
        "steps", "reads",  # pairs x taps; int64 table: bytes from the first pixel to that of each
        "reach", "stride_h", "stride_w", "in_h", "in_w",  # reach: rows of a plane that a chunk has more than outputs
        "channels", "blocks", "out_blocks", "tail",  # tail: lanes of the last output block
        "x_batch", "x_block", "x_h", "y_batch", "y_block", "y_h", "r_batch", "r_block", "r_h",  # in elements
    )]
    + [("alpha", np.float64), ("lo", np.float64), ("hi", np.float64)]
)  # fmt: skip


def pack(weights: np.ndarray, parts: int) -> np.ndarray:
    """[M, C, taps] as tiles [tile of M, pair of blocks, tap, part, two channels' pairs, M, 2] of bfloat16."""
    m, c, taps = weights.shape
    tiles, pairs = -(-m // LANES), -(-c // PAIR)
    whole = np.zeros((tiles, LANES, pairs, LANES, 2, taps), np.float32)
    whole.reshape(tiles * LANES, pairs * PAIR, taps)[:m, :c] = weights
    ordered = whole.transpose(0, 2, 5, 3, 1, 4)
    out = zeros(tiles * pairs * taps * parts * STEP, np.uint8)
    halves = out.view(np.uint16).reshape(tiles, pairs, taps, parts, LANES, LANES, 2)
    for tile in range(tiles):
        high = halves[tile, :, :, 0] = _rounded(ordered[tile])
        if parts == 2:
            halves[tile, :, :, 1] = _rounded(ordered[tile] - (high.astype(np.uint32) << 16).view(np.float32))
    return out


def _rounded(values: np.ndarray) -> np.ndarray:
    """The upper halves of the nearest bfloat16."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def _make(parts: int) -> Kernel:
    split, clear, multiply, summed = (make(parts) for make in (make_split, make_clear, make_multiply, make_summed))
    pixel, step_bytes, products = parts * PIXEL, parts * STEP, PIXELS * CHANNELS * PRODUCTS[parts]

    @inline
    def _split_row(x, blocks, lanes, x_block, target, pitch, first, step, width):
        """A row of a plane: of each pixel ``blocks`` blocks of channels (1 or 2), the last with ``lanes`` of them."""
        lo = min(pitch, max(0, (step - 1 - first) // step))
        hi = max(lo, min(pitch, (width - first + step - 1) // step))
        for j in range(lo):
            clear(target + j * pixel)
        source = as_pointer(x, np.float32)
        zero = broadcast(np.float32(0))
        if blocks == 2 and lanes == LANES:
            for j in range(lo, hi):
                at = (first + j * step) * LANES
                split(load(source, at), load(source, x_block + at), target + j * pixel)
        else:
            last = (blocks - 1) * x_block
            for j in range(lo, hi):
                at = (first + j * step) * LANES
                end = load_first(source, last + at, lanes)
                if blocks == 2:
                    split(load(source, at), end, target + j * pixel)
                else:
                    split(end, zero, target + j * pixel)
        for j in range(hi, pitch):
            clear(target + j * pixel)

    @inline
    def _split_plane(a, image, row0, rows, plane, target):
        """The rows that a chunk reads of one phase and pair of blocks."""
        phase, pair = plane // a.pairs, plane % a.pairs
        first_h, first_w = get(as_pointer(a.phase_h, np.int64), phase), get(as_pointer(a.phase_w, np.int64), phase)
        blocks = min(2, a.blocks - 2 * pair)
        lanes = min(LANES, a.channels - (2 * pair + blocks - 1) * LANES)
        x = a.x + 4 * (image * a.x_batch + 2 * pair * a.x_block)
        if a.line:
            first = row0 * a.stride_h + first_h
            _split_row(x, blocks, lanes, a.x_block, target, rows + a.reach, first, a.stride_h, a.in_h)
            return
        for r in range(rows + a.reach):
            h = (row0 + r) * a.stride_h + first_h
            place = target + r * a.pitch * pixel
            if h < 0 or h >= a.in_h:
                for j in range(a.pitch):
                    clear(place + j * pixel)
            else:
                _split_row(x + 4 * h * a.x_h, blocks, lanes, a.x_block, place, a.pitch, first_w, a.stride_w, a.in_w)

    @inline
    def _sum_again(a, panel, v, first, chunk, sums):
        """The sums of a tile's pixels that hold NaN: a low part, which Inf has none of, may have made it."""
        source, reads = as_pointer(sums, np.float32), as_pointer(a.reads, np.int64)
        block = panel * CHANNELS + v
        start = load(as_pointer(a.bias, np.float32), block * LANES)
        for p in range(PIXELS * LANES):
            at = (v * PIXELS * LANES + p) * LANES
            if unordered(load(source, at)) != 0:
                w = a.w + block * a.steps * step_bytes
                store(source, at, summed(start, chunk + (first + p) * pixel, reads, a.steps, w))

    @inline
    def _finish(a, left):
        """Write the sums of one tile: residual, activation, and only pixels that are outputs.

        ``left``: image, first row and rows of the chunk, panel of channels, first pixel, where the sums lie (0: nothing
        is left) and the chunk.
        """
        image, row0, rows, panel, first, sums, chunk = left
        if sums == 0:
            return
        alpha, lo, hi = np.float32(a.alpha), broadcast(np.float32(a.lo)), broadcast(np.float32(a.hi))
        source = as_pointer(sums, np.float32)
        last = min(first + PIXELS * LANES, rows * a.pitch)
        for v in range(min(CHANNELS, a.out_blocks - panel * CHANNELS)):
            block = panel * CHANNELS + v
            lanes = a.tail if block == a.out_blocks - 1 else LANES
            y = as_pointer(a.y + 4 * (image * a.y_batch + block * a.y_block + row0 * a.y_h), np.float32)
            r = as_pointer(a.residual + 4 * (image * a.r_batch + block * a.r_block + row0 * a.r_h), np.float32)
            for turn in range(2):
                bad = 0
                q = first
                while q < last:
                    h = q // a.row
                    w = q - h * a.row
                    run = min(a.row - w, last - q)
                    at = (v * PIXELS * LANES + q - first) * LANES
                    y_at, r_at = h * a.y_h + w * LANES, h * a.r_h + w * LANES
                    for i in range(min(run, a.out_w - w)):
                        value = load(source, at + i * LANES)
                        bad |= unordered(value)
                        if a.residual != 0:
                            value = add(value, load(r, r_at + i * LANES))
                        if alpha != 1:
                            value = leaky(value, alpha)
                        value = clamp(value, lo, hi)
                        if lanes == LANES:
                            store(y, y_at + i * LANES, value)
                        else:
                            store_first(y, y_at + i * LANES, value, lanes)
                    q += run
                if bad == 0 or turn == 1:
                    break
                _sum_again(a, panel, v, first, chunk, sums)

    @inline
    def _multiply_chunk(a, image, row0, rows, panel0, panel1, turn0, turn1, chunk, sums, before):
        """Panels of output channels by turns of pixels of a chunk; what is left to finish, as ``before`` was.

        Sums are finished while the next ones are computed: vectors and tiles work beside each other.
        """
        size = a.steps * step_bytes
        reads = as_pointer(a.reads, np.int64)
        many = (turn1 - turn0) * products >= CHANNELS * step_bytes // LINE  # to ask for all of the next tiles' weights
        for item in range((panel1 - panel0) * (turn1 - turn0)):
            if a.pixels_first:
                turn, panel = turn0 + item // (panel1 - panel0), panel0 + item % (panel1 - panel0)
            else:
                turn, panel = turn0 + item % (turn1 - turn0), panel0 + item // (turn1 - turn0)
            first = turn * PIXELS * LANES
            pixels = min(PIXELS, (rows * a.pitch - first + LANES - 1) // LANES)
            w, bias = a.w + panel * CHANNELS * size, a.bias + panel * CHANNELS * 4 * LANES
            tiles = min(CHANNELS, a.out_blocks - panel * CHANNELS)
            place = sums + SUMS if before[5] == sums else sums
            asks = NOTHING if a.near or (not many and first > 0) else NEXT if many else OWN
            ahead = w + CHANNELS * size + turn * products * a.steps * LINE
            multiply(pixels, tiles, chunk + first * pixel, reads, a.steps, w, size, bias, place, asks, ahead)
            _finish(a, before)
            before = (image, row0, rows, panel, first, place, chunk)
        return before

    def amx(args, thread, threads):
        a = carray(args, 1)[0]
        panels = (a.out_blocks + CHANNELS - 1) // CHANNELS
        planes = a.phases * a.pairs
        chunk_bytes, most = planes * a.plane, PIXELS * LANES
        sums = own_scratch(a, thread)
        split_at = a.split if a.split else sums + 2 * SUMS
        if a.stages & MULTIPLY:
            configure(a.config)
        left = (0, 0, 0, 0, 0, 0, 0)
        if a.split and a.stages & SPLIT:
            items = a.batch * planes
            for item in range(items * thread // threads, items * (thread + 1) // threads):
                _split_plane(a, item // planes, 0, a.rows, item % planes, split_at + item * a.plane)
        elif a.split:
            turns = (a.rows * a.pitch + most - 1) // most
            shares = turns if a.pixels_first else panels
            items = shares * a.batch
            for item in range(items * thread // threads, items * (thread + 1) // threads):
                share, image = item // a.batch, item % a.batch
                panel0, panel1 = (0, panels) if a.pixels_first else (share, share + 1)
                turn0, turn1 = (share, share + 1) if a.pixels_first else (0, turns)
                at = split_at + image * chunk_bytes
                left = _multiply_chunk(a, image, 0, a.rows, panel0, panel1, turn0, turn1, at, sums, left)
        else:
            units = (a.batch + a.group - 1) // a.group * a.chunks
            for unit in range(units * thread // threads, units * (thread + 1) // threads):
                image0, row0 = unit // a.chunks * a.group, unit % a.chunks * a.chunk_rows
                images, rows = min(a.group, a.batch - image0), min(a.chunk_rows, a.rows - row0)
                turns = (rows * a.pitch + most - 1) // most
                _finish(a, left)  # it may have to read what is overwritten now
                left = (0, 0, 0, 0, 0, 0, 0)
                for item in range(images * planes):
                    _split_plane(a, image0 + item // planes, row0, rows, item % planes, split_at + item * a.plane)
                for item in range(images if a.pixels_first else panels * images):
                    panel0, image = item // images, item % images
                    panel1 = panels if a.pixels_first else panel0 + 1
                    at = split_at + image * chunk_bytes
                    left = _multiply_chunk(a, image0 + image, row0, rows, panel0, panel1, 0, turns, at, sums, left)
        _finish(a, left)
        if a.stages & MULTIPLY:
            release(0)

    amx.__name__ = amx.__qualname__ = f"amx_{parts}"
    return kernel(ARGS)(amx)


KERNELS: dict[int, Kernel] = {parts: _make(parts) for parts in (1, 2)} if host.matrix_tiles() else {}
"""By the number of bfloat16 that stand for a float32. None where there are no tiles: LLVM could not compile them."""
