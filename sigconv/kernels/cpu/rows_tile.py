"""Register tiles of direct correlation along rows: what `rows` and `rows_short` are made of.

A tile holds ``vectors`` registers of neighbouring outputs, in one row or in several, over all taps. Two things keep the
loads below one for each multiplication, where the memory pipeline would set the pace:

- one row: the taps ``k``, ``k + period``, ``k + 2 * period`` … lie whole registers apart, so that one loaded vector
  serves several of them (`line`). Taps are therefore added in that order: chunks of `DEPTH` periods, in a chunk first
  the phase, then the period;
- several rows (`shear`): output row r reads with tap row j what row r + 1 reads with tap row j - 1.

The order of additions depends on the taps and the dilation alone, never on the tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir

from sigconv.kernels.address import as_pointer, pointer_to
from sigconv.kernels.jit import inline
from sigconv.kernels.late import cgutils, intrinsic, types
from sigconv.kernels.simd import I32, I64, VECTOR_BYTES, _fma, _prefetch, _splat, _tail_mask
from sigconv.lines import LINE

I8 = ir.IntType(8)
DEPTH = {64: 8, 32: 4, 16: 4}[VECTOR_BYTES]
"""Periods of a chunk: how many taps may share a loaded vector. Those taps stay in registers beside the sums.

Measured on Sapphire Rapids, in the first-level cache: 16 registers of sums reach 87 percent of the multipliers' peak
with 4 taps, 99 with 8."""
AHEAD_BYTES = 4096
"""How far ahead the widest tile of one row asks for the lines that it will read and write: a tile's few loads between
its many multiplications wake hardware prefetchers too late for a signal outside the second level. Tiles of several rows
ask for the rows below."""

LINE_VECTORS = {64: (16, 8, 4, 2, 1), 32: (8, 4, 2, 1), 16: (8, 4, 2, 1)}[VECTOR_BYTES]
PERMUTED = 8 if VECTOR_BYTES == 64 else 0
"""Where no tap shares a load, how many vectors of the widest tile are cut out of two registers by a permutation. That
takes a slot of the multiplier, a load across a cache line two of the memory pipeline: some of each evens them out.
Measured on Sapphire Rapids: 5 to 20 percent for 9 to 16 float32 taps, nothing for float64."""

SHARING_VECTORS = LINE_VECTORS[0]  # smaller tiles are few: they load a vector for every tap, which is less code
SHEAR_VECTORS = {64: (8, 4, 2, 1), 32: (4, 2, 1), 16: (4, 2, 1)}[VECTOR_BYTES]
STEP_VECTORS = (8, 1)
SHEAR_ROWS = 3
SMALL = 3
"""A kernel of this many rows and taps has a tile of its own, `make_small`: twice as fast as the loops over taps."""
SMALL_VECTORS = 4


@dataclass(frozen=True)
class Numbers:
    """The types of one variant: of the input, of the sums (and taps), of the output; ``parts``: 2 where complex."""

    name: str
    source: type[Any]
    sum: type[Any]
    target: type[Any]
    parts: int = 1

    @property
    def lanes(self) -> int:
        """Sums in a register (a complex one is two)."""
        return VECTOR_BYTES // np.dtype(self.sum).itemsize

    @property
    def line_vectors(self) -> tuple[int, ...]:
        return tuple(v for v in LINE_VECTORS if v * self.parts <= LINE_VECTORS[0])

    @property
    def depth(self) -> int:
        return DEPTH if self.parts == 1 else 1  # a vector serves both parts of a complex tap anyway


def _element(dtype: type) -> ir.Type:
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return ir.FloatType() if kind.itemsize == 4 else ir.DoubleType()
    return ir.IntType(8 * kind.itemsize)


def _mangled(vec: ir.VectorType) -> str:
    floats = {ir.FloatType(): "f32", ir.DoubleType(): "f64"}
    return f"v{vec.count}{floats.get(vec.element) or f'i{vec.element.width}'}"


class Emitter:
    """Vector operations of one variant; ``lanes`` sums in a vector."""

    def __init__(self, builder: ir.IRBuilder, numbers: Numbers, lanes: int) -> None:
        self.b, self.numbers, self.lanes = builder, numbers, lanes
        self.source = ir.VectorType(_element(numbers.source), lanes)
        self.sum = ir.VectorType(_element(numbers.sum), lanes)
        self.target = ir.VectorType(_element(numbers.target), lanes)
        self.floats = np.dtype(numbers.sum).kind == "f"
        self.zero = ir.Constant(self.sum, [0.0 if self.floats else 0] * lanes)

    def sums(self, *shape: int) -> dict[tuple[int, ...], Any]:
        """Accumulators, zero, by their index."""
        cells = {index: cgutils.alloca_once(self.b, self.sum) for index in np.ndindex(*shape)}
        for cell in cells.values():
            self.b.store(self.zero, cell)
        return cells

    def load(self, pointer, offset, mask=None):
        """The vector of inputs at ``pointer + offset`` as sums; 0 outside ``mask``."""
        at = self.b.bitcast(self.b.gep(pointer, [offset]), self.source.as_pointer())
        bytes_ = np.dtype(self.numbers.source).itemsize
        if mask is None:
            value = self.b.load(at)
            value.align = bytes_
        else:
            blank = ir.Constant(self.source, [0.0 if self.floats and self.source == self.sum else 0] * self.lanes)
            fn_type = ir.FunctionType(self.source, [at.type, I32, mask.type, self.source])
            name = f"llvm.masked.load.{_mangled(self.source)}.p0"
            fn = cgutils.get_or_insert_function(self.b.module, fn_type, name)
            value = self.b.call(fn, [at, ir.Constant(I32, bytes_), mask, blank])
        if self.source == self.sum:
            return value
        words = ir.VectorType(ir.IntType(32) if self.floats else self.sum.element, self.lanes)
        signed = np.dtype(self.numbers.source).kind == "i"
        value = self.b.sext(value, words) if signed else self.b.zext(value, words)
        return self.b.sitofp(value, self.sum) if self.floats else value

    def cut(self, low, high, shift):
        """Lanes shift … shift + lanes - 1 of two vectors in a row; AVX-512 only."""
        word = ir.IntType(512 // self.lanes)
        index = ir.VectorType(word, self.lanes)
        at = self.b.add(
            ir.Constant(index, list(range(self.lanes))), _splat(self.b, self.b.trunc(shift, word), index)
        )  # fmt: skip
        kind = ("ps" if word.width == 32 else "pd") if self.floats else ("d" if word.width == 32 else "q")
        fn_type = ir.FunctionType(self.sum, [self.sum, index, self.sum])
        fn = cgutils.get_or_insert_function(self.b.module, fn_type, f"llvm.x86.avx512.vpermi2var.{kind}.512")
        return self.b.call(fn, [low, at, high])

    def tap(self, pointer, offset):
        """A tap in every lane."""
        return _splat(self.b, self.b.load(self.b.gep(pointer, [offset])), self.sum)

    def product(self, x, w, addend):
        return _fma(self.b, x, w, addend) if self.floats else self.b.add(self.b.mul(x, w), addend)

    def multiply_add(self, x, w, cell, mask=None):
        old = self.b.load(cell)
        new = self.product(x, w, old)
        self.b.store(new if mask is None else self.b.select(mask, new, old), cell)

    def result(self, sums):
        """The output vector of the accumulators of its parts."""
        value = self.b.load(sums[0])
        if self.numbers.parts == 2:
            swap = ir.Constant(ir.VectorType(I32, self.lanes), [lane ^ 1 for lane in range(self.lanes)])
            other = self.b.shuffle_vector(self.b.load(sums[1]), self.zero, swap)
            even = ir.Constant(ir.VectorType(ir.IntType(1), self.lanes), [lane % 2 == 0 for lane in range(self.lanes)])
            return self.b.select(even, self.b.fsub(value, other), self.b.fadd(value, other))
        return self.narrowed(value)

    def narrowed(self, value):
        """A sum as an output."""
        if self.target == self.sum:
            return value
        return self._rounded(value) if self.floats else self.b.trunc(value, self.target)

    def _rounded(self, value):
        """To the nearest integer of 0 … 255, ties to even; NaN to 0."""
        top = ir.Constant(self.sum, [255.0] * self.lanes)
        value = self.b.select(self.b.fcmp_ordered(">", value, self.zero), value, self.zero)
        value = self.b.select(self.b.fcmp_ordered("<", value, top), value, top)
        shifted = self.b.fadd(value, ir.Constant(self.sum, [float(3 << 22)] * self.lanes))  # 1 is its last bit
        return self.b.trunc(self.b.bitcast(shifted, ir.VectorType(I32, self.lanes)), self.target)

    def store(self, value, pointer, offset, mask=None):
        at = self.b.bitcast(self.b.gep(pointer, [offset]), self.target.as_pointer())
        bytes_ = np.dtype(self.numbers.target).itemsize
        if mask is None:
            self.b.store(value, at).align = bytes_
            return
        fn_type = ir.FunctionType(ir.VoidType(), [self.target, at.type, I32, mask.type])
        name = f"llvm.masked.store.{_mangled(self.target)}.p0"
        fn = cgutils.get_or_insert_function(self.b.module, fn_type, name)
        self.b.call(fn, [value, at, ir.Constant(I32, bytes_), mask])


def const(value: int) -> ir.Constant:
    return ir.Constant(I64, value)


def row_pointer(builder, rows, index, column, element):
    """Address rows[index] as a pointer, moved by ``column`` elements."""
    address = builder.load(builder.gep(rows, [index]))
    return builder.gep(builder.inttoptr(address, element.as_pointer()), [column])


@inline
def period_of(lanes, taps, dilation, natural):
    """How many taps apart inputs lie a register apart; all taps where the order is the natural one."""
    return max(1, taps) if natural or lanes % dilation else lanes // dilation


@inline
def fitting(sizes, lanes, left):
    """The first of the tile ``sizes`` (in registers, the last is 1) that ``left`` outputs fill."""
    for size in sizes:
        if size * lanes <= left:
            return size
    return 1


def ask(e: Emitter, pointer, number: type, vectors: int, writes: bool = False) -> None:
    """For the lines of ``vectors`` vectors of numbers at ``pointer``."""
    for byte in range(0, vectors * e.lanes * np.dtype(number).itemsize, LINE):
        at = e.b.gep(e.b.bitcast(pointer, I8.as_pointer()), [const(byte)])
        _prefetch(e.b, at, level=1, writes=writes)


def smaller(builder, a, b):
    return builder.select(builder.icmp_signed("<", a, b), a, b)


def switch(builder, key, cases: dict[int, Any]) -> None:
    done = builder.append_basic_block("tile.done")
    switch = builder.switch(key, done)
    for value, emit in cases.items():
        case = builder.append_basic_block(f"tile.{value}")
        switch.add_case(const(value), case)
        builder.position_at_end(case)
        emit()
        builder.branch(done)
    builder.position_at_end(done)


def chunks(builder, depth: int, shares: bool, taps, period, periods, body, alone=None) -> None:
    """Call ``body(q, first)`` to emit what adds the taps first, first + period … (``q`` of them), in the fixed order.

    ``periods``: ``taps / period`` rounded up. ``body`` is emitted once for each ``q`` up to ``depth``, or, unless it
    ``shares``, for 1 alone. With ``period >= taps`` the order is the natural one. ``alone(begin, start, stop)``: emits
    instead of the loop over ``body(1, begin + start)`` … ``body(1, begin + stop - 1)``.

    Whole chunks first; then the phases of the last one that have a tap more than its others, then those others. What
    comes before the loop is the same for all tiles of a call, and as little as possible is inside: between two runs of
    taps the multipliers wait for it.
    """
    b, one = builder, const(1)
    even = b.icmp_signed("==", b.mul(periods, period), taps)
    whole = b.udiv(b.select(even, periods, b.sub(periods, one)), const(depth))
    chunk = b.mul(period, const(depth))
    most = b.sub(periods, b.mul(whole, const(depth)))
    longer = b.sub(b.sub(taps, b.mul(whole, chunk)), b.mul(b.sub(most, one), period))
    rest = b.select(b.icmp_signed("==", most, const(0)), const(0), b.select(even, one, const(2)))
    with cgutils.for_range(builder, b.add(whole, rest)) as run:
        second = b.icmp_signed(">", run.index, whole)
        begin = b.mul(smaller(b, run.index, whole), chunk)
        full = b.icmp_signed("<", run.index, whole)
        q = b.select(full, const(depth), b.select(second, b.sub(most, one), most))
        start, stop = b.select(second, longer, const(0)), b.select(b.or_(full, second), period, longer)

        def phases(emit):
            with cgutils.for_range_slice(builder, start, stop, one, inc=True) as (phase, _):
                emit(builder.add(begin, phase))

        def one_by_one(first):
            with cgutils.for_range(builder, q) as turn:
                body(1, builder.add(first, builder.mul(turn.index, period)))

        def together(shared):
            if shared == 1 and alone is not None:
                return lambda: alone(begin, start, stop)
            return lambda: phases(lambda first: body(shared, first))

        if shares:
            switch(builder, q, {shared: together(shared) for shared in range(1, depth + 1)})
        else:
            phases(one_by_one)


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
                item = np.dtype(number).itemsize
                at = b.gep(pointer, [b.add(place, const(AHEAD_BYTES // item))])
                for byte in range(0, vectors * item, LINE):
                    _prefetch(b, b.gep(at, [const(byte // item)]), level=1, writes=writes)

        def alone(begin, start, stop):
            """One tap a load; where the taps stay within a register's width, some vectors are cut out instead."""
            within = b.icmp_signed("<=", b.mul(stop, dilation), const(e.lanes))
            with b.if_else(within) as (then, otherwise):
                with then:
                    first = b.gep(x, [b.mul(begin, dilation)])
                    parts_of_x = [e.load(first, const(v * e.lanes)) for v in range(PERMUTED + 1)]
                    with cgutils.for_range_slice(b, start, stop, const(1), inc=True) as (phase, _):
                        ask_beside(phase)
                        shift = b.mul(phase, dilation)
                        tap, x_tap = e.tap(w_row, b.mul(b.add(begin, phase), w_step)), b.gep(first, [shift])
                        for v in range(vectors):
                            if v < PERMUTED:
                                value = e.cut(parts_of_x[v], parts_of_x[v + 1], shift)
                            else:
                                value = e.load(x_tap, const(v * e.lanes))
                            e.multiply_add(value, tap, sums[v, 0])
                with otherwise:
                    with cgutils.for_range_slice(b, start, stop, const(1), inc=True) as (phase, _):
                        body(1, b.add(begin, phase))

        def body(shared, first):
            if shares:
                ask_beside(first)
            at, ws = first, []
            for _ in range(shared):
                start = b.mul(at, b.mul(w_step, const(parts)))
                ws.append([e.tap(w_row, b.add(start, const(part))) for part in range(parts)])
                at = b.add(at, period)
            x_tap = b.gep(x, [b.mul(first, dilation)])
            for block in range(vectors + shared - 1):
                value = e.load(x_tap, b.mul(stride, const(block)), mask)
                for q in range(shared):
                    if 0 <= block - q < vectors:
                        for part in range(parts):
                            e.multiply_add(value, ws[q][part], sums[block - q, part])

        chunks(b, depth, shares, taps, period, periods, body, alone if shares and PERMUTED else None)
    for v in range(vectors):
        e.store(e.result([sums[v, part] for part in range(parts)]), y, const(v * e.lanes), mask)


def emit_shear(
    e: Emitter, height: int, vectors: int, rows, column, taps, w, n_rows, dilation, y, y_row, ahead, ahead_row, count
) -> None:  # fmt: skip
    """``height`` (at most ``n_rows``) output rows; the table of `rows` must be sheared.

    Inputs are asked for at the address ``ahead`` and ``ahead_row`` bytes further, outputs below those of the tile.
    """
    b = e.b
    numbers = e.numbers
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
            ws = [
                e.tap(w_row, b.add(loop.index, b.mul(back, const(r - first)))) for r in range(first, last + 1)
            ]  # fmt: skip
            x_tap = b.gep(x, [b.mul(loop.index, dilation)])
            for v in range(vectors):
                value = e.load(x_tap, const(v * e.lanes), mask)
                for r in range(first, last + 1):
                    e.multiply_add(value, ws[r - first], sums[r, v])

    ask(e, b.gep(x_ahead, [b.mul(ahead_row, const(height - 1))]), numbers.source, vectors)
    for i in range(height - 1):
        ask(e, b.gep(x_ahead, [b.mul(ahead_row, const(i))]), numbers.source, vectors)
        add(0, i, const(i), const(i))
    with cgutils.for_range_slice(b, const(height - 1), n_rows, const(1), inc=True) as (i, _):
        add(0, height - 1, i, i)
    ask(e, y_ahead, numbers.target, vectors, writes=True)
    for r in range(1, height):
        last = b.sub(n_rows, const(1))
        ask(e, b.gep(y_ahead, [b.mul(y_row, const(r))]), numbers.target, vectors, writes=True)
        add(r, height - 1, b.add(b.mul(n_rows, const(r)), last), last)
    for r in range(height):
        at = b.mul(y_row, const(r))
        for v in range(vectors):
            e.store(e.result([sums[r, v]]), y, b.add(at, const(v * e.lanes)), mask)


def emit_small(e: Emitter, rows, column, w, dilation, y, y_row, ahead, ahead_row, tiles) -> None:
    """``tiles`` times `SMALL` rows of `SMALL_VECTORS`, one behind the other, of a kernel of `SMALL` times `SMALL` taps.

    The taps stay in registers and no loop is left in a tile. The table of `rows` must be sheared; ``ahead``: as there.
    """
    b = e.b
    taps = [[e.tap(w, const(SMALL * j + k)) for k in range(SMALL)] for j in range(SMALL)]
    at = [max(0, i - SMALL + 1) * SMALL + min(i, SMALL - 1) for i in range(2 * SMALL - 1)]
    inputs = [row_pointer(b, rows, const(index), column, e.source.element) for index in at]
    with cgutils.for_range(b, tiles) as loop:
        offset = b.mul(loop.index, const(SMALL_VECTORS * e.lanes))
        sums = {(r, v): e.zero for r in range(SMALL) for v in range(SMALL_VECTORS)}
        for i, x in enumerate(inputs):
            for k in range(SMALL):
                x_tap = b.gep(x, [b.add(offset, b.mul(dilation, const(k)))])
                for v in range(SMALL_VECTORS):
                    value = e.load(x_tap, const(v * e.lanes))
                    for r in range(max(0, i - SMALL + 1), min(i + 1, SMALL)):
                        sums[r, v] = e.product(value, taps[i - r][k], sums[r, v])
        for r in range(SMALL):
            soon = b.gep(y, [b.add(b.mul(y_row, const(r + SMALL)), offset)])
            ask(e, soon, e.numbers.target, SMALL_VECTORS, writes=True)
            soon = b.gep(b.inttoptr(ahead, e.source.element.as_pointer()), [offset])
            soon = b.gep(b.bitcast(soon, I8.as_pointer()), [b.mul(ahead_row, const(r))])
            ask(e, soon, e.numbers.source, SMALL_VECTORS)
        for (r, v), total in sums.items():
            place = b.add(b.mul(y_row, const(r)), b.add(offset, const(v * e.lanes)))
            e.store(e.narrowed(total), y, place)


def make_line(numbers: Numbers):
    """(rows, column, taps, w, w_step, n_rows, period, dilation, distance, y, n): ``n`` outputs of a row from address y.

    Sizes are in elements of the variant's types, so a complex number counts as two in column, dilation and n. Nothing
    is read but what the outputs need.
    """
    return _make_line(numbers, numbers.lanes, numbers.line_vectors, numbers.depth, numbers.lanes)


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
    """(height, rows, column, taps, w, n_rows, dilation, y, y_row, ahead, ahead_row, n): 2 or 3 rows of ``n`` outputs.

    ``y`` and ``ahead`` are addresses, see `emit_shear`. Nothing at all where numbers are complex: there one load serves
    two multiplications anyway.
    """

    @intrinsic
    def tile(
        typingctx, height, vectors, rows, column, taps, w, n_rows, dilation, y, y_row, ahead, ahead_row, count
    ):  # fmt: skip
        n, table = types.int64, types.CPointer(types.int64)
        sums, target = map(pointer_to, (numbers.sum, numbers.target))
        sig = types.void(n, n, table, n, n, sums, n, n, target, n, n, n, n)

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
    def shear(height, rows, column, taps, w, n_rows, dilation, y, y_row, ahead, ahead_row, n):
        done = 0
        while done < n:
            size = fitting(SHEAR_VECTORS, lanes, n - done)
            tile(
                height, size, rows, column + done, taps, w, n_rows, dilation, as_pointer(y + done * y_item, target),
                y_row, ahead + done * item, ahead_row, min(lanes, n - done),
            )  # fmt: skip
            done += size * lanes

    return shear


def make_small(numbers: Numbers):
    """(rows, column, w, dilation, y, y_row, ahead, ahead_row, tiles): see `emit_small`; nothing for complex numbers."""

    @intrinsic
    def tile(typingctx, rows, column, w, dilation, y, y_row, ahead, ahead_row, tiles):
        n, table = types.int64, types.CPointer(types.int64)
        sums, target = map(pointer_to, (numbers.sum, numbers.target))
        sig = types.void(table, n, sums, n, target, n, n, n, n)

        def codegen(context, builder, sig, args):
            if numbers.parts == 1:
                emit_small(Emitter(builder, numbers, numbers.lanes), *args)
            return context.get_dummy_value()

        return sig, codegen

    return tile
