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

import itertools
from typing import Any

import numpy as np
from llvmlite import ir

from sigconv.kernels import host
from sigconv.kernels.address import as_pointer, get
from sigconv.kernels.jit import Kernel, inline, kernel
from sigconv.kernels.late import carray, cgutils, intrinsic, types
from sigconv.kernels.simd import (
    I32,
    I64,
    _fma,
    _llvm_vector,
    _masked_load,
    _prefetch,
    _splat,
    _tail_mask,
    add,
    broadcast,
    clamp,
    load,
    store,
    store_first,
    vector_of,
)
from sigconv.lines import LINE, zeros

LANES = 16
"""float32 of a register, pixels of a tile, output channels of a tile."""
PAIR = 2 * LANES
"""Channels of a pixel of the split image: the depth of a tile."""
PIXEL = 64
"""Bytes of a part of a pixel."""
PIXELS, CHANNELS = 2, 2
"""Tiles of pixels and of output channels that are computed together."""
STEP = 1024
"""Bytes of a part of the weights of a tile of output channels, one pair of blocks and one tap."""
SUMS = 4 * LANES * LANES * PIXELS * CHANNELS
"""Bytes of their sums."""
GUARD = PIXELS * LANES
"""Pixels behind a plane that tiles may read."""
PRODUCTS = {1: 1, 2: 3}
"""By parts, how many are added up."""
SPLIT, MULTIPLY = 1, 2
"""Stages."""
NOTHING, OWN, NEXT = ASKS = 0, 1, 2
"""Which weights are asked for beside products: none, those of the same tiles `AHEAD` bytes on, the next tiles'."""
AHEAD = 4096

ARGS = np.dtype(
    [(name, np.int64) for name in (
        "x", "w", "bias", "y", "residual", "config",  # addresses; residual may be 0; config: of the tiles
        "scratch", "shared", "stages",  # where chunks are split; whether all of them before the first is multiplied
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


def config() -> np.ndarray:
    """What ``ldtilecfg`` reads: palette 1, eight tiles of 16 rows of 64 bytes."""
    table = zeros(64)
    table[0] = 1
    table[16:32].view(np.uint16)[:] = 64
    table[48:56] = 16
    return table


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


# --- instructions ----------------------------------------------------------------------------------------------------
class _Brain(ir.Type):
    """LLVM's bfloat."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Brain)

    def __hash__(self) -> int:
        return hash(_Brain)


_BYTE = ir.IntType(8)


def _tile(number: int) -> Any:
    return ir.Constant(_BYTE, number)


def _call(builder, name, *args, result=None):
    function_type = ir.FunctionType(result or ir.VoidType(), [a.type for a in args])
    function = cgutils.get_or_insert_function(builder.module, function_type, f"llvm.x86.{name}")
    return builder.call(function, args)


def _bytes(builder, address):
    return builder.inttoptr(address, _BYTE.as_pointer())


def _simple(name):
    @intrinsic
    def instruction(typingctx, address):
        def codegen(context, builder, sig, args):
            _call(builder, name, *([_bytes(builder, args[0])] if name == "ldtilecfg" else []))
            return context.get_dummy_value()

        return types.void(types.int64), codegen

    return instruction


configure = _simple("ldtilecfg")
release = _simple("tilerelease")


def _make_split(parts: int) -> Any:
    @intrinsic
    def split(typingctx, first, second, address):
        """Write 32 numbers as a pixel: the high parts of both registers, then the low ones."""

        def codegen(context, builder, sig, args):
            vec = _llvm_vector(types.float32)
            brains, words = ir.VectorType(_Brain(), PAIR), ir.VectorType(ir.IntType(16), PAIR)
            wide = ir.VectorType(I32, LANES)

            def write(numbers, part):
                value = _call(builder, "avx512bf16.cvtne2ps2bf16.512", numbers[1], numbers[0], result=brains)
                at = builder.inttoptr(builder.add(args[2], ir.Constant(I64, part * PIXEL)), words.as_pointer())
                builder.store(builder.bitcast(value, words), at).align = PIXEL
                return builder.bitcast(value, words)

            def exact(value, start):
                picked = ir.Constant(ir.VectorType(I32, LANES), list(range(start, start + LANES)))
                half = builder.shuffle_vector(value, ir.Constant(words, ir.Undefined), picked)
                return builder.bitcast(builder.shl(builder.zext(half, wide), ir.Constant(wide, [16] * LANES)), vec)

            numbers = args[:2]
            for part in range(parts):
                high = write(numbers, part)
                numbers = [builder.fsub(numbers[i], exact(high, LANES * i)) for i in range(2)]
            return context.get_dummy_value()

        return types.void(first, second, types.int64), codegen

    return split


def _make_clear(parts: int) -> Any:
    @intrinsic
    def clear(typingctx, address):
        """Write a pixel of zeros."""

        def codegen(context, builder, sig, args):
            vec = _llvm_vector(types.float32)
            for part in range(parts):
                at = builder.inttoptr(builder.add(args[0], ir.Constant(I64, part * PIXEL)), vec.as_pointer())
                builder.store(ir.Constant(vec, [0.0] * LANES), at).align = PIXEL
            return context.get_dummy_value()

        return types.void(types.int64), codegen

    return clear


@intrinsic
def load_first(typingctx, pointer, offset, count):
    """The first ``count`` lanes at ``pointer + offset`` elements, then zeros."""

    def codegen(context, builder, sig, args):
        vec = _llvm_vector(types.float32)
        return _masked_load(builder, args[0], args[1], vec, _tail_mask(builder, args[2], vec))

    return vector_of(types.float32)(pointer, types.int64, types.int64), codegen


@intrinsic
def leaky(typingctx, x, slope):
    """x, negative ones times the slope."""

    def codegen(context, builder, sig, args):
        vec = args[0].type
        below = builder.fcmp_ordered("<", args[0], ir.Constant(vec, [0.0] * vec.count))
        return builder.select(below, builder.fmul(args[0], _splat(builder, args[1], vec)), args[0])

    return x(x, slope), codegen


@intrinsic
def unordered(typingctx, x):
    """Which lanes are NaN, a bit each."""

    def codegen(context, builder, sig, args):
        bits = builder.bitcast(builder.fcmp_unordered("uno", args[0], args[0]), ir.IntType(LANES))
        return builder.zext(bits, I64)

    return types.int64(x), codegen


def _make_summed(parts: int) -> Any:
    @intrinsic
    def summed(typingctx, start, image, reads, steps, w):
        """``start`` + the products of one pixel in float32, each of whole numbers: NaN and Inf as they ought to be.

        Arguments are those of `multiply`.
        """

        def codegen(context, builder, sig, args):
            vec = args[0].type
            words, number = ir.VectorType(I32, LANES), ir.FloatType()
            total = cgutils.alloca_once_value(builder, args[0])

            def halves(word, kind):
                """The two bfloat16 in 32 bits."""
                lanes = word.type.count if isinstance(word.type, ir.VectorType) else 0
                shift, mask = (ir.Constant(word.type, [n] * lanes if lanes else n) for n in (16, -(1 << 16)))
                return [builder.bitcast(half, kind) for half in (builder.shl(word, shift), builder.and_(word, mask))]

            def whole(first, kind, at, step):
                """High and low parts added up; what is not finite has no low part."""
                found = []
                for part in range(parts):
                    place = builder.inttoptr(builder.add(at, ir.Constant(I64, part * step)), first.as_pointer())
                    found.append(halves(builder.load(place), kind))
                if parts == 1:
                    return found[0]
                sums = [builder.fadd(*pair) for pair in zip(*found, strict=True)]
                none = [builder.fsub(low, low) for low in found[1]]
                bad = [builder.fcmp_unordered("uno", low, low) for low in none]
                return [builder.select(b, high, x) for b, high, x in zip(bad, found[0], sums, strict=True)]

            with cgutils.for_range(builder, args[3]) as step:
                pixel = builder.add(args[1], builder.load(builder.gep(args[2], [step.index])))
                weights = builder.add(args[4], builder.mul(step.index, ir.Constant(I64, parts * STEP)))
                with cgutils.for_range(builder, ir.Constant(I64, LANES)) as pair:
                    x_at = builder.add(pixel, builder.mul(pair.index, ir.Constant(I64, 4)))
                    w_at = builder.add(weights, builder.mul(pair.index, ir.Constant(I64, 4 * LANES)))
                    for x, y in zip(whole(I32, number, x_at, PIXEL), whole(words, vec, w_at, STEP), strict=True):
                        value = _fma(builder, _splat(builder, x, vec), y, builder.load(total))
                        builder.store(value, total)
            return builder.load(total)

        n = types.int64
        return start(start, n, types.CPointer(n), n, n), codegen

    return summed


def _make_multiply(parts: int) -> Any:
    @intrinsic
    def multiply(typingctx, pixels, channels, image, reads, steps, w, panel, bias, sums, asks, ahead):
        """``sums`` [channels, pixels, 16, 16] = bias + the products of ``pixels`` by ``channels`` tiles over all steps.

        ``image``: address of the first pixel; ``reads``: of each step, how far from there its pixel is; ``w``: of the
        first tile's weights, the second's lie ``panel`` bytes further; ``bias``: of a register for each tile of
        channels. ``asks``: of `ASKS`; weights are asked for beside products, since many requests at once would wait for
        each other. ``ahead``: where those of the next tiles begin.
        """
        n = types.int64
        sig = types.void(n, n, n, types.CPointer(n), n, n, n, n, n, n, n)

        def codegen(context, builder, sig, args):
            done = builder.append_basic_block("amx.done")
            key = args[9]
            for value in args[:2]:
                key = builder.add(builder.mul(key, ir.Constant(I64, 4)), value)
            switch = builder.switch(key, done)
            for asks, p, v in itertools.product(ASKS, range(1, PIXELS + 1), range(1, CHANNELS + 1)):
                case = builder.append_basic_block(f"amx.{p}x{v}")
                switch.add_case(ir.Constant(I64, (asks * 4 + p) * 4 + v), case)
                builder.position_at_end(case)
                _emit(builder, parts, p, v, asks, *args[2:9], args[10])
                builder.branch(done)
            builder.position_at_end(done)
            return context.get_dummy_value()

        return sig, codegen

    return multiply


def _emit(builder, parts, pixels, channels, asks, image, reads, steps, w, panel, bias, sums, ahead):
    def const(value: int) -> Any:
        return ir.Constant(I64, value)

    def tile_load(number, address, stride):
        _call(builder, "tileloadd64", _tile(number), _bytes(builder, address), const(stride))

    cells = [(p, v) for v in range(channels) for p in range(pixels)]
    acc = {cell: i for i, cell in enumerate(cells)}
    place = {(p, v): builder.add(sums, const(4 * LANES * LANES * (v * PIXELS + p))) for p, v in cells}
    a, b = 4, 6

    def numbers(at, part):
        for p in range(pixels):
            tile_load(a + p, builder.add(at, const((p * LANES * parts + part) * PIXEL)), parts * PIXEL)

    def weights(at, part):
        for v in range(channels):
            tile_load(b + v, builder.add(builder.add(at, builder.mul(panel, const(v))), const(part * STEP)), 64)

    products = len(cells) * PRODUCTS[parts]

    def asked(step, w_at):
        """Addresses to ask for beside a step, and how many of them beside each product."""
        if asks == OWN:
            streams = [
                builder.add(w_at, builder.add(builder.mul(panel, const(v)), const(AHEAD))) for v in range(channels)
            ]
            lines = [builder.add(at, const(line)) for line in range(0, parts * STEP, LINE) for at in streams]
            return iter(lines), -(-len(lines) // products)
        if asks == NEXT:
            first = builder.add(ahead, builder.mul(step, const(products * LINE)))
            return iter([builder.add(first, const(i * LINE)) for i in range(products)]), 1
        return iter(()), 0

    def dots(lines, some):
        for p, v in cells:
            _call(builder, "tdpbf16ps", _tile(acc[p, v]), _tile(a + p), _tile(b + v))
            for at in itertools.islice(lines, some):
                _prefetch(builder, _bytes(builder, at))

    for p, v in cells:
        tile_load(acc[p, v], builder.add(bias, const(4 * LANES * v)), 0)
    with cgutils.for_range(builder, steps) as step:
        x_at = builder.add(image, builder.load(builder.gep(reads, [step.index])))
        w_at = builder.add(w, builder.mul(step.index, const(parts * STEP)))
        beside = asked(step.index, w_at)
        weights(w_at, 0)
        if parts == 2:
            numbers(x_at, 1)
            dots(*beside)
        numbers(x_at, 0)
        dots(*beside)
        if parts == 2:
            weights(w_at, 1)
            dots(*beside)
    for cell in cells:
        _call(builder, "tilestored64", _tile(acc[cell]), _bytes(builder, place[cell]), const(64))


# --- the kernel ------------------------------------------------------------------------------------------------------
def _make(parts: int) -> Kernel:
    split, clear, multiply, summed = (make(parts) for make in (_make_split, _make_clear, _make_multiply, _make_summed))
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
        chunks, planes = a.batch * a.chunks, a.phases * a.pairs
        chunk_bytes, most = planes * a.plane, PIXELS * LANES
        if a.shared:
            sums, split_at = a.scratch + chunks * chunk_bytes + thread * 2 * SUMS, a.scratch
        else:
            sums = a.scratch + thread * (2 * SUMS + a.group * chunk_bytes)
            split_at = sums + 2 * SUMS
        if a.stages & MULTIPLY:
            configure(a.config)
        left = (0, 0, 0, 0, 0, 0, 0)
        if a.shared and a.stages & SPLIT:
            items = a.batch * planes
            for item in range(items * thread // threads, items * (thread + 1) // threads):
                _split_plane(a, item // planes, 0, a.rows, item % planes, split_at + item * a.plane)
        elif a.shared:
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
