"""Register tiles of direct correlation along rows, what `rows` and `rows_short` are made of; written in `rows_emitter`.

A tile holds ``vectors`` registers of neighbouring outputs, in one row or in several, over all taps. Two things keep the
loads below one for each multiplication, where the memory pipeline would set the pace:

- one row: the taps ``k``, ``k + period``, ``k + 2 * period`` … lie whole registers apart, so that one loaded vector
  serves several of them (`line`). Taps are therefore added in that order: chunks of `DEPTH` periods, in a chunk first
  the phase, then the period;
- several rows (`shear`): output row r reads with tap row j what row r + 1 reads with tap row j - 1.

The order of additions depends on the taps and the dilation alone, never on the tile.
"""

from __future__ import annotations

import numpy as np

from sigconv.kernels.address import as_pointer, pointer_to
from sigconv.kernels.cpu.rows_emitter import I8, Emitter, Numbers, ask, chunks, const, row_pointer, switch
from sigconv.kernels.jit import inline
from sigconv.kernels.late import cgutils, intrinsic, types
from sigconv.kernels.simd import VECTOR_BYTES, _tail_mask

LINE_VECTORS = {64: (16, 8, 4, 2, 1), 32: (8, 4, 2, 1), 16: (8, 4, 2, 1)}[VECTOR_BYTES]
AHEAD_BYTES = 4096
"""How far ahead the widest tile of one row asks for the lines that it will read and write: a tile's few loads between
its many multiplications wake hardware prefetchers too late for a signal outside the second level. Tiles of several rows
ask for the rows below."""

PERMUTED, PERMUTING = (8, (1, 2)) if VECTOR_BYTES == 64 else (0, ())
"""Where so few taps share a load, how many vectors of the widest tile are cut out of two registers by a permutation.
That takes a slot of the multiplier, a load across a cache line two of the memory pipeline: some of each evens them out.
Measured on Sapphire Rapids: 5 to 20 percent for 9 to 16 float32 taps, 3 to 9 for 12 to 16 of float64 and
17 to 32 of float32."""

SHARING_VECTORS = LINE_VECTORS[0]  # smaller tiles are few: they load a vector for every tap, which is less code
SHEAR_VECTORS = (4, 2, 1)
STEP_VECTORS = (8, 1)
SHEAR_ROWS = {64: 5, 32: 3, 16: 3}[VECTOR_BYTES]
"""Sums, taps and a few inputs are all in registers: with 6 rows and 32 registers LLVM moves sums about."""
SMALL = 3
"""A kernel of this many rows and taps has a tile of its own, `make_small`: twice as fast as the loops over taps."""
SMALL_VECTORS = 4


def line_vectors(numbers: Numbers) -> tuple[int, ...]:
    """The tiles of one row, in registers of outputs; a complex output has two registers of sums."""
    return tuple(v for v in LINE_VECTORS if v * numbers.parts <= LINE_VECTORS[0])


@inline
def fitting(sizes, lanes, left):
    """The first of the tile ``sizes`` (in registers, the last is 1) that ``left`` outputs fill."""
    for size in sizes:
        if size * lanes <= left:
            return size
    return 1


def emit_line(
    e: Emitter, vectors: int, depth: int, masked: bool, rows, column, taps, w, w_step, n_rows, period, periods,
    dilation, stride, y, count,
) -> None:  # fmt: skip
    """``vectors`` registers of one output row, ``stride`` input elements apart; ``count``: lanes of a masked one."""
    b, numbers, parts = e.b, e.numbers, e.numbers.parts
    sums = e.sums(vectors, parts)
    mask = _tail_mask(b, count, e.sum) if masked else None
    shares = vectors == SHARING_VECTORS
    with cgutils.for_range(b, n_rows) as outer:
        x = row_pointer(b, rows, outer.index, column, e.source.element)
        w_row = b.gep(w, [b.mul(outer.index, b.mul(taps, const(parts)))])

        def ask_beside(first):
            """A tile's worth of lines, a few beside each tap of the first period: a burst would wait for itself."""
            place = b.mul(b.and_(first, const(e.lanes - 1)), const(vectors))
            for pointer, number, writes in ((x, numbers.source, False), (y, numbers.target, True)):
                at = b.add(place, const(AHEAD_BYTES // np.dtype(number).itemsize))
                ask(b, b.gep(pointer, [at]), number, vectors, writes)

        def cutting(shared, begin, start, stop):
            """Where the phases stay within a register's width, some vectors are cut out instead of loaded."""
            within = b.icmp_signed("<=", b.mul(stop, dilation), const(e.lanes))
            with b.if_else(within) as (then, otherwise):
                with then:
                    first = b.gep(x, [b.mul(begin, dilation)])
                    parts_of_x = [e.load(first, const(v * e.lanes)) for v in range(PERMUTED + 1)]
                    with cgutils.for_range_slice(b, start, stop, const(1), inc=True) as (phase, _):
                        body(shared, b.add(begin, phase), parts_of_x, b.mul(phase, dilation))
                with otherwise:
                    with cgutils.for_range_slice(b, start, stop, const(1), inc=True) as (phase, _):
                        body(shared, b.add(begin, phase))

        def body(shared, first, parts_of_x=(), shift=None):
            if shares:
                ask_beside(first)
            at, ws = first, []
            for _ in range(shared):
                start = b.mul(at, b.mul(w_step, const(parts)))
                ws.append([e.tap(w_row, b.add(start, const(part))) for part in range(parts)])
                at = b.add(at, period)
            x_tap = b.gep(x, [b.mul(first, dilation)])
            for block in range(vectors + shared - 1):
                if block < len(parts_of_x) - 1:
                    value = e.cut(parts_of_x[block], parts_of_x[block + 1], shift)
                else:
                    value = e.load(x_tap, b.mul(stride, const(block)), mask)
                for q in range(shared):
                    if 0 <= block - q < vectors:
                        for part in range(parts):
                            e.multiply_add(value, ws[q][part], sums[block - q, part])

        chunks(b, depth, shares, taps, period, periods, body, cutting, PERMUTING if shares else ())
    for v in range(vectors):
        e.store(e.result([sums[v, part] for part in range(parts)]), y, const(v * e.lanes), mask)


def emit_shear(
    e: Emitter, height: int, vectors: int, rows, column, taps, w, n_rows, shear, dilation, y, y_row, ahead, ahead_row,
    count,
) -> None:  # fmt: skip
    """``height`` output rows, which read ``n_rows`` each, in planes of ``shear`` that `rows` must have sheared.

    Inputs are asked for at the address ``ahead`` and ``ahead_row`` bytes further, outputs below those of the tile.
    """
    b, numbers, width = e.b, e.numbers, vectors * e.lanes
    x_ahead, y_ahead = b.inttoptr(ahead, I8.as_pointer()), b.gep(y, [b.mul(y_row, const(height))])
    sums = e.sums(height, vectors)
    masked = vectors == 1
    mask = _tail_mask(b, count, e.sum) if masked else None

    def add(first, last, index, j):
        """Add an input row: to output row ``first`` with tap row ``j``, to the one after it with j - 1, …, ``last``."""
        x = row_pointer(b, rows, index, column, e.source.element)
        w_row = b.gep(w, [b.mul(j, taps)])
        back = b.sub(const(0), taps)
        with cgutils.for_range(b, taps) as loop:
            ws = [e.tap(w_row, b.add(loop.index, b.mul(back, const(r - first)))) for r in range(first, last + 1)]
            x_tap = b.gep(x, [b.mul(loop.index, dilation)])
            for v in range(vectors):
                value = e.load(x_tap, const(v * e.lanes), mask)
                for r in range(first, last + 1):
                    e.multiply_add(value, ws[r - first], sums[r, v])

    def ask_inputs(row):
        ask(b, b.gep(x_ahead, [b.mul(ahead_row, const(row))]), numbers.source, width)

    def ask_outputs(row):
        ask(b, b.gep(y_ahead, [b.mul(y_row, const(row))]), numbers.target, width, writes=True)

    with cgutils.for_range_slice(b, const(0), n_rows, shear, inc=True) as (plane, _):
        last, end = b.add(plane, b.sub(shear, const(1))), b.add(plane, shear)
        ask_inputs(height - 1)
        for i in range(height - 1):
            ask_inputs(i)
            add(0, i, b.add(plane, const(i)), b.add(plane, const(i)))
        with cgutils.for_range_slice(b, b.add(plane, const(height - 1)), end, const(1), inc=True) as (i, _):
            add(0, height - 1, i, i)
        ask_outputs(0)
        for r in range(1, height):
            ask_outputs(r)
            add(r, height - 1, b.add(b.mul(n_rows, const(r)), last), last)
    for r in range(height):
        at = b.mul(y_row, const(r))
        for v in range(vectors):
            e.store(e.result([sums[r, v]]), y, b.add(at, const(v * e.lanes)), mask)


def emit_small(e: Emitter, rows, column, w, dilation, y, y_row, ahead, ahead_row, n) -> None:
    """`SMALL` rows of ``n`` outputs of a kernel of `SMALL` times `SMALL` taps, `SMALL_VECTORS` at a time, then one.

    The taps stay in registers and no loop is left in a tile. The table of `rows` must be sheared; ``ahead``: as there.
    """
    b, width = e.b, SMALL_VECTORS * e.lanes
    taps = [[e.tap(w, const(SMALL * j + k)) for k in range(SMALL)] for j in range(SMALL)]
    at = [max(0, i - SMALL + 1) * SMALL + min(i, SMALL - 1) for i in range(2 * SMALL - 1)]
    inputs = [row_pointer(b, rows, const(index), column, e.source.element) for index in at]

    def tile(offset, vectors, mask=None):
        sums = {(r, v): e.zero for r in range(SMALL) for v in range(vectors)}
        for i, x in enumerate(inputs):
            for k in range(SMALL):
                x_tap = b.gep(x, [b.add(offset, b.mul(dilation, const(k)))])
                for v in range(vectors):
                    value = e.load(x_tap, const(v * e.lanes), mask)
                    for r in range(max(0, i - SMALL + 1), min(i + 1, SMALL)):
                        sums[r, v] = e.product(value, taps[i - r][k], sums[r, v])
        for r in range(SMALL):
            soon = b.gep(y, [b.add(b.mul(y_row, const(r + SMALL)), offset)])
            ask(b, soon, e.numbers.target, vectors * e.lanes, writes=True)
            soon = b.gep(b.inttoptr(ahead, e.source.element.as_pointer()), [offset])
            soon = b.gep(b.bitcast(soon, I8.as_pointer()), [b.mul(ahead_row, const(r))])
            ask(b, soon, e.numbers.source, vectors * e.lanes)
        for (r, v), total in sums.items():
            place = b.add(b.mul(y_row, const(r)), b.add(offset, const(v * e.lanes)))
            e.store(e.narrowed(total), y, place, mask)

    tiles = b.udiv(n, const(width))
    with cgutils.for_range(b, tiles) as loop:
        tile(b.mul(loop.index, const(width)), SMALL_VECTORS)
    with cgutils.for_range_slice(b, b.mul(tiles, const(width)), n, const(e.lanes), inc=True) as (offset, _):
        tile(offset, 1, _tail_mask(b, b.sub(n, offset), e.sum))


def make_line(numbers: Numbers):
    """(rows, column, taps, w, w_step, n_rows, period, dilation, distance, y, n): ``n`` outputs of a row from address y.

    Sizes are in elements of the variant's types, so a complex number counts as two in column, dilation and n. Nothing
    is read but what the outputs need.
    """
    return _make_line(numbers, numbers.lanes, line_vectors(numbers), numbers.depth, numbers.lanes)


def make_step(numbers: Numbers):
    """As `make_line` for outputs that lie ``distance`` inputs apart: one at a time, in `STEP_VECTORS`."""
    return _make_line(numbers, numbers.parts, STEP_VECTORS, 1, None)


def _make_line(numbers: Numbers, lanes: int, sizes: tuple[int, ...], depth: int, stride: int | None):
    @intrinsic
    def tile(
        typingctx, vectors, rows, column, taps, w, w_step, n_rows, period, periods, dilation, distance, y, tiles, count
    ):  # fmt: skip
        n, table = types.int64, types.CPointer(types.int64)
        sums, target = map(pointer_to, (numbers.sum, numbers.target))
        sig = types.void(n, table, n, n, sums, n, n, n, n, n, n, target, n, n)

        def codegen(context, builder, sig, args):
            e = Emitter(builder, numbers, lanes)
            _, rows, column, *places, distance, y, tiles, count = args
            apart = distance if stride is None else const(stride)

            def case(size):
                masked = stride is not None and size == 1

                def emit():
                    with cgutils.for_range(builder, tiles) as loop:
                        done = builder.mul(loop.index, const(size))
                        at = builder.add(column, builder.mul(done, apart))
                        y_at = builder.gep(y, [builder.mul(done, const(lanes))])
                        emit_line(e, size, depth, masked, rows, at, *places, apart, y_at, count)

                return emit

            switch(builder, args[0], {size: case(size) for size in sizes})
            return context.get_dummy_value()

        return sig, codegen

    item, target = np.dtype(numbers.target).itemsize, numbers.target

    @inline
    def line(rows, column, taps, w, w_step, n_rows, period, dilation, distance, y, n):
        periods, done = (taps + period - 1) // period, 0
        while done < n:
            size = fitting(sizes, lanes, n - done)
            tiles = max(1, (n - done) // (size * lanes))
            tile(
                size, rows, column + done // lanes * distance, taps, w, w_step, n_rows, period, periods, dilation,
                distance, as_pointer(y + done * item, target), tiles, min(lanes, n - done),
            )  # fmt: skip
            done += tiles * size * lanes

    return line


def make_shear(numbers: Numbers):
    """(height, rows, column, taps, w, n_rows, shear, dilation, y, y_row, ahead, ahead_row, n): rows of ``n`` outputs.

    ``height``: how many, at least 2. ``y`` and ``ahead`` are addresses, see `emit_shear`. Nothing at all where numbers
    are complex: there one load serves two multiplications anyway.
    """

    @intrinsic
    def tile(
        typingctx, height, vectors, rows, column, taps, w, n_rows, shear, dilation, y, y_row, ahead, ahead_row, count
    ):  # fmt: skip
        n, table = types.int64, types.CPointer(types.int64)
        sums, target = map(pointer_to, (numbers.sum, numbers.target))
        sig = types.void(n, n, table, n, n, sums, n, n, n, target, n, n, n, n)

        def codegen(context, builder, sig, args):
            e = Emitter(builder, numbers, numbers.lanes)
            key = builder.add(builder.mul(args[0], const(64)), args[1])
            case = lambda rows, size: lambda: emit_shear(e, rows, size, *args[2:])  # noqa: E731
            heights = range(2, SHEAR_ROWS + 1) if numbers.parts == 1 else ()
            shapes = [(rows, size) for rows in heights for size in SHEAR_VECTORS]
            switch(builder, key, {rows * 64 + size: case(rows, size) for rows, size in shapes})
            return context.get_dummy_value()

        return sig, codegen

    lanes, item, y_item = numbers.lanes, np.dtype(numbers.source).itemsize, np.dtype(numbers.target).itemsize
    target = numbers.target

    @inline
    def shear_line(height, rows, column, taps, w, n_rows, shear, dilation, y, y_row, ahead, ahead_row, n):
        done = 0
        while done < n:
            size = fitting(SHEAR_VECTORS, lanes, n - done)
            tile(
                height, size, rows, column + done, taps, w, n_rows, shear, dilation,
                as_pointer(y + done * y_item, target), y_row, ahead + done * item, ahead_row, min(lanes, n - done),
            )  # fmt: skip
            done += size * lanes

    return shear_line


def make_small(numbers: Numbers):
    """(rows, column, w, dilation, y, y_row, ahead, ahead_row, n): see `emit_small`; nothing for complex numbers."""

    @intrinsic
    def tile(typingctx, rows, column, w, dilation, y, y_row, ahead, ahead_row, n):
        i, table = types.int64, types.CPointer(types.int64)
        sums, target = map(pointer_to, (numbers.sum, numbers.target))
        sig = types.void(table, i, sums, i, target, i, i, i, i)

        def codegen(context, builder, sig, args):
            if numbers.parts == 1:
                emit_small(Emitter(builder, numbers, numbers.lanes), *args)
            return context.get_dummy_value()

        return sig, codegen

    return tile
