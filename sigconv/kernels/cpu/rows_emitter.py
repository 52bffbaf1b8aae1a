"""What the tiles of `rows_tile` are written with: a variant's types, vector operations, the order of the taps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir

from sigconv.kernels.jit import inline
from sigconv.kernels.late import cgutils
from sigconv.kernels.simd import I32, I64, VECTOR_BYTES, _fma, _prefetch, _splat
from sigconv.lines import LINE

I8 = ir.IntType(8)
DEPTH = {64: 8, 32: 4, 16: 4}[VECTOR_BYTES]
"""Periods of a chunk: how many taps may share a loaded vector. Those taps stay in registers beside the sums.

Measured on Sapphire Rapids, in the first-level cache: 16 registers of sums reach 87 percent of the multipliers' peak
with 4 taps, 99 with 8."""


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
            blank = ir.Constant(self.source, [0.0 if self.floats else 0] * self.lanes)
            fn_type = ir.FunctionType(self.source, [at.type, I32, mask.type, self.source])
            name = f"llvm.masked.load.{_mangled(self.source)}.p0"
            fn = cgutils.get_or_insert_function(self.b.module, fn_type, name)
            value = self.b.call(fn, [at, ir.Constant(I32, bytes_), mask, blank])
        if self.source == self.sum:
            return value
        signed = np.dtype(self.numbers.source).kind == "i"
        return self.b.sext(value, self.sum) if signed else self.b.zext(value, self.sum)

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


def ask(builder, pointer, number: type, count: int, writes: bool = False) -> None:
    """For the lines of ``count`` numbers at ``pointer``."""
    for byte in range(0, count * np.dtype(number).itemsize, LINE):
        at = builder.gep(builder.bitcast(pointer, I8.as_pointer()), [const(byte)])
        _prefetch(builder, at, level=1, writes=writes)


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


def chunks(builder, depth: int, shares: bool, taps, period, periods, body, cutting=None, cuts=()) -> None:
    """Call ``body(q, first)`` to emit what adds the taps first, first + period … (``q`` of them), in the fixed order.

    ``periods``: ``taps / period`` rounded up. ``body`` is emitted once for each ``q`` up to ``depth``, or, unless it
    ``shares``, for 1 alone. With ``period >= taps`` the order is the natural one. ``cutting(q, begin, start, stop)``
    emits, for each ``q`` in ``cuts``, what else would be the loop over ``body(q, begin + start)`` to ``… + stop - 1``.

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
            if shared in cuts:
                return lambda: cutting(shared, begin, start, stop)
            return lambda: phases(lambda first: body(shared, first))

        if shares:
            switch(builder, q, {shared: together(shared) for shared in range(1, depth + 1)})
        else:
            phases(one_by_one)
