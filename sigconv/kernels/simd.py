"""Vectors of the host's width, and the register tile that convolution and matrix products are made of.

Everything is LLVM vector code emitted by `@intrinsic`. Vector code is portable (LLVM splits what the target lacks), so
a plain CPU runs the same kernels with narrow vectors; only the width and the tile shape are chosen per machine.
"""

from __future__ import annotations

import inspect
from contextlib import contextmanager
from typing import Any

import numpy as np
from llvmlite import ir

from sigconv.kernels import host, narrow
from sigconv.kernels.late import cgutils, intrinsic, types

I1, I32, I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)

VECTOR_BYTES = host.vector_bytes()


def lanes(dtype: np.dtype | type) -> int:
    """How many numbers of ``dtype`` a register holds."""
    return VECTOR_BYTES // np.dtype(dtype).itemsize


TILE: dict[int, int] = {64: {4: 6, 2: 8, 1: 12}, 32: {3: 4, 2: 6, 1: 8}, 16: {2: 4, 1: 8}}[VECTOR_BYTES]
"""Register tiles: registers of output channels -> most pixels. Accumulators, weights and a broadcast must fit the 32
(AVX-512) or 16 registers; at least 8 accumulators hide the latency of fma."""

MOST_PIXELS = max(TILE.values())

READ_AHEAD = 8192
"""Bytes by which a product with one row asks for its weights ahead; further than a page, where hardware stops."""


def vector_of(dtype: Any) -> Any:
    """Numba's type of a register of numbers of its type ``dtype``."""
    from sigconv.kernels.vectors import VectorType

    return VectorType(dtype, VECTOR_BYTES * 8 // dtype.bitwidth)


def _llvm_vector(dtype: Any) -> ir.VectorType:
    element = ir.FloatType() if dtype == types.float32 else ir.DoubleType()
    return ir.VectorType(element, vector_of(dtype).count)


def _suffix(kind: ir.Type) -> str:
    """What LLVM's own functions of a float, or of a vector of them, have at the end of their names."""
    if isinstance(kind, ir.VectorType):
        return f"v{kind.count}{_suffix(kind.element)}"
    return "f32" if isinstance(kind, ir.FloatType) else "f64"


def _fma(builder, a, b, c):
    """a*b + c, fused where the target can (plain x86-64 cannot, and must not call libm for it)."""
    vec = a.type
    name = f"llvm.fmuladd.{_suffix(vec)}"
    fn = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vec, [vec] * 3), name)
    return builder.call(fn, [a, b, c])


def _splat(builder, scalar, vec):
    one = builder.insert_element(ir.Constant(vec, ir.Undefined), scalar, ir.Constant(I32, 0))
    return builder.shuffle_vector(
        one, ir.Constant(vec, ir.Undefined), ir.Constant(ir.VectorType(I32, vec.count), [0] * vec.count)
    )


def _vector_pointer(builder, pointer, offset, vec):
    return builder.bitcast(builder.gep(pointer, [offset]), vec.as_pointer())


def _load(builder, pointer, offset, vec):
    value = builder.load(_vector_pointer(builder, pointer, offset, vec))
    value.align = 4
    return value


def _store(builder, value, pointer, offset):
    builder.store(value, _vector_pointer(builder, pointer, offset, value.type)).align = 4


def _tail_mask(builder, count, vec):
    """<lanes x i1>: the first ``count`` lanes."""
    ints = ir.VectorType(I64, vec.count)
    return builder.icmp_signed("<", ir.Constant(ints, list(range(vec.count))), _splat(builder, count, ints))


def _masked_load(builder, pointer, offset, vec, mask):
    at = _vector_pointer(builder, pointer, offset, vec)
    fn_type = ir.FunctionType(vec, [at.type, I32, mask.type, vec])
    fn = cgutils.get_or_insert_function(builder.module, fn_type, f"llvm.masked.load.{_suffix(vec)}.p0")
    return builder.call(fn, [at, ir.Constant(I32, 4), mask, ir.Constant(vec, [0.0] * vec.count)])


def _masked_store(builder, value, pointer, offset, mask):
    vec = value.type
    at = _vector_pointer(builder, pointer, offset, vec)
    fn_type = ir.FunctionType(ir.VoidType(), [vec, at.type, I32, mask.type])
    fn = cgutils.get_or_insert_function(builder.module, fn_type, f"llvm.masked.store.{_suffix(vec)}.p0")
    builder.call(fn, [value, at, ir.Constant(I32, 4), mask])


def _clamp(builder, x, lo, hi):
    """min(max(x, lo), hi) that keeps NaN."""
    x = builder.select(builder.fcmp_ordered("<", x, lo), lo, x)
    return builder.select(builder.fcmp_ordered(">", x, hi), hi, x)


@intrinsic
def load(typingctx, pointer, offset):
    """The vector at ``pointer + offset`` elements (any alignment)."""
    vector = vector_of(pointer.dtype)
    return vector(pointer, types.intp), lambda ctx, b, sig, a: _load(b, a[0], a[1], _llvm_vector(sig.args[0].dtype))


@intrinsic
def store(typingctx, pointer, offset, value):
    """Write a vector at ``pointer + offset`` elements (any alignment)."""

    def codegen(ctx, b, sig, a):
        _store(b, a[2], a[0], a[1])
        return ctx.get_dummy_value()

    return types.void(pointer, types.intp, value), codegen


@intrinsic
def store_first(typingctx, pointer, offset, value, count):
    """Write the first ``count`` lanes of a vector at ``pointer + offset`` elements."""

    def codegen(ctx, b, sig, a):
        _masked_store(b, a[2], a[0], a[1], _tail_mask(b, a[3], a[2].type))
        return ctx.get_dummy_value()

    return types.void(pointer, types.intp, value, types.int64), codegen


@intrinsic
def broadcast(typingctx, scalar):
    """A vector with ``scalar`` in every lane."""
    return vector_of(scalar)(scalar), lambda ctx, b, sig, a: _splat(b, a[0], _llvm_vector(sig.args[0]))


@intrinsic
def fma(typingctx, x, y, z):
    """x*y + z, fused where the target can."""
    return x(x, y, z), lambda ctx, b, sig, a: _fma(b, *a)


@intrinsic
def add(typingctx, x, y):
    return x(x, y), lambda ctx, b, sig, a: b.fadd(a[0], a[1])


@intrinsic
def sub(typingctx, x, y):
    return x(x, y), lambda ctx, b, sig, a: b.fsub(a[0], a[1])


@intrinsic
def mul(typingctx, x, y):
    return x(x, y), lambda ctx, b, sig, a: b.fmul(a[0], a[1])


@intrinsic
def clamp(typingctx, x, lo, hi):
    """min(max(x, lo), hi); NaN stays NaN."""
    return x(x, lo, hi), lambda ctx, b, sig, a: _clamp(b, *a)


def _prefetch(builder, pointer, level=2, writes=False):
    """Ask for the cache line at ``pointer`` in the cache of that level."""
    pointer = builder.bitcast(pointer, ir.IntType(8).as_pointer())
    fn_type = ir.FunctionType(ir.VoidType(), [pointer.type, I32, I32, I32])
    fn = cgutils.get_or_insert_function(builder.module, fn_type, "llvm.prefetch.p0")
    builder.call(fn, [pointer, ir.Constant(I32, int(writes)), ir.Constant(I32, 4 - level), ir.Constant(I32, 1)])


_ONE_PLANE = {"kd_lo": 0, "kd_hi": 1, "KD": 1}
_ONE_TAP = _ONE_PLANE | {"kh_lo": 0, "kh_hi": 1, "KH": 1, "KW": 1}
STRIDED_POINTWISE = _ONE_TAP | dict.fromkeys(("y_pixel", "r_pixel"), lanes(np.float32))
POINTWISE = STRIDED_POINTWISE | {"x_pixel": lanes(np.float32)}
ADJACENT = _ONE_PLANE | dict.fromkeys(("x_pixel", "y_pixel", "r_pixel"), lanes(np.float32))
"""Arguments of the register tile, which are fields of the direct kernel's record, that are settled for float32."""


def _make_register_tile(settled: dict[str, int], bits: int = 32) -> Any:
    """The register tile with some of its arguments settled, for weights of 32 bits or of 24 (see `narrow`).

    What is passed for them is ignored. Where none are, addresses are multiplied out anew and kept in memory, for want
    of registers, between every 16 channels and the next: a tenth of the time of a 1x1 convolution.
    """

    @intrinsic
    def register_tile(
        typingctx, pixels, vectors, a, b, y, r, bias, x_pixel, x_block, x_kd, x_kh, x_kw, n_blocks, block, last_block,
        kd_lo, kd_hi, kh_lo, kh_hi, KD, KH, KW, y_pixel, y_vector, r_pixel, r_vector, tail, ahead, ahead_step, first,
        last, alpha, lo, hi,
    ):  # fmt: skip
        """A tile of ``pixels`` outputs by ``vectors`` registers of channels, in registers over a whole reduction.

        y[p, v] (+)= sum over blocks, kd, kh, kw, k of a[p*x_pixel + …, k] * b[…, k, v]; on the last pass then + r,
        leaky(alpha), clamp(lo, hi). ``b`` is packed in the order of the loops; ``bias`` starts the sum on the first
        pass; ``tail`` counts the valid lanes of the last register. Beside every channel of the reduction one cache line
        is asked for, at address ``ahead`` + ``ahead_step`` * channels before: tiles that share weights so bring the
        next ones into L2 together, a few bytes each; a burst of requests would have to wait for itself. The order of
        additions to one output never depends on the tile it falls in: results depend on neither tiling nor threads.
        """
        n, number = types.int64, a.dtype
        sig = types.void(n, n, a, b, y, r, bias, *[n] * 22, types.boolean, types.boolean, number, number, number)

        def codegen(context, builder, sig, args):
            vec = _llvm_vector(sig.args[2].dtype)
            shapes = [(p, v) for v, most in TILE.items() for p in range(1, most + 1)]
            names = list(inspect.signature(_emit_tile).parameters)[5:]
            constants = {name: ir.Constant(I64, value) for name, value in settled.items()}
            values = dict(zip(names, args[2:], strict=True)) | constants
            done = builder.append_basic_block("tile.done")
            key = builder.add(builder.mul(args[1], ir.Constant(I64, MOST_PIXELS + 1)), args[0])
            switch = builder.switch(key, done)
            for p, v in shapes:
                case = builder.append_basic_block(f"tile.{p}x{v}")
                switch.add_case(ir.Constant(I64, v * (MOST_PIXELS + 1) + p), case)
                builder.position_at_end(case)
                _emit_tile(builder, vec, bits, p, v, **values)
                builder.branch(done)
            builder.position_at_end(done)
            return context.get_dummy_value()

        return sig, codegen

    return register_tile


register_tile = _make_register_tile({})
adjacent_tile = _make_register_tile(ADJACENT)
pointwise_tile = _make_register_tile(POINTWISE)
narrow_tile = _make_register_tile(POINTWISE, 24)
strided_pointwise_tile = _make_register_tile(STRIDED_POINTWISE)


@contextmanager
def _loop(builder, start, end):
    """A loop from ``start`` to ``end`` that gives its index; straight code where constants say that it has one turn.

    LLVM would find that out as well, and take twice as long. (`cgutils.for_range` would too: its index cannot wrap.)
    """
    if [getattr(i, "constant", None) for i in (start, end)] == [0, 1]:
        yield start
    else:
        with cgutils.for_range_slice(builder, start, end, ir.Constant(I64, 1), inc=True) as (index, _):
            yield index


def _emit_tile(
    builder, vec, bits, pixels, vectors, a, b, y, r, bias, x_pixel, x_block, x_kd, x_kh, x_kw, n_blocks, block,
    last_block, kd_lo, kd_hi, kh_lo, kh_hi, KD, KH, KW, y_pixel, y_vector, r_pixel, r_vector, tail, ahead, ahead_step,
    first, last, alpha, lo, hi,
):  # fmt: skip
    size, line_step = (4, vec.count) if bits == 32 else (1, vec.count * narrow.BYTES)  # of what `b` points at
    width = vectors * line_step
    mul, plus = builder.mul, builder.add

    def const(value):
        return ir.Constant(I64, value)

    cells = [(p, v) for p in range(pixels) for v in range(vectors)]
    acc = {cell: cgutils.alloca_once(builder, vec) for cell in cells}
    mask = _tail_mask(builder, tail, vec)

    def offsets(pixel_stride, vector_stride):
        return {(p, v): plus(mul(pixel_stride, const(p)), mul(vector_stride, const(v))) for p, v in cells}

    def read(pointer, at, v):
        if v == vectors - 1:
            return _masked_load(builder, pointer, at, vec, mask)
        return _load(builder, pointer, at, vec)

    def load_weights(pointer, offset):
        return _load(builder, pointer, const(offset), vec) if bits == 32 else narrow.load(builder, pointer, offset, vec)

    y_at = offsets(y_pixel, y_vector)
    with builder.if_else(first) as (then, otherwise):
        with then:
            start = [_load(builder, bias, const(v * vec.count), vec) for v in range(vectors)]
            for p, v in cells:
                builder.store(start[v], acc[p, v])
        with otherwise:
            for p, v in cells:
                builder.store(read(y, y_at[p, v], v), acc[p, v])

    taps = mul(mul(KD, KH), KW)
    final_block = builder.sub(n_blocks, const(1))
    with cgutils.for_range(builder, n_blocks) as blocks:
        depth = builder.select(builder.icmp_signed("==", blocks.index, final_block), last_block, block)
        b_tap = mul(depth, const(width))
        b_block = builder.gep(b, [mul(mul(mul(blocks.index, block), taps), const(width))])
        a_block = builder.gep(a, [mul(blocks.index, x_block)])
        with _loop(builder, kd_lo, kd_hi) as kd, _loop(builder, kh_lo, kh_hi) as kh:
            tap_row = mul(plus(mul(kd, KH), kh), KW)
            b_row = builder.gep(b_block, [mul(tap_row, b_tap)])
            a_row = builder.gep(a_block, [plus(mul(kd, x_kd), mul(kh, x_kh))])
            with _loop(builder, const(0), KW) as kw:
                b_column = builder.gep(b_row, [mul(kw, b_tap)])
                a_column = builder.gep(a_row, [mul(kw, x_kw)])
                done = plus(mul(mul(blocks.index, block), taps), mul(plus(tap_row, kw), depth))
                next_line = plus(ahead, mul(done, ahead_step))
                a_pixels = [builder.gep(a_column, [mul(x_pixel, const(p))]) for p in range(pixels)]
                with _loop(builder, const(0), depth) as k:
                    weights = builder.gep(b_column, [mul(k, const(width))])
                    if pixels == 1:  # a product with one row: nothing is reused, memory is the limit
                        for v in range(vectors):
                            line = builder.gep(weights, [const(READ_AHEAD // size + v * line_step)])
                            _prefetch(builder, line, level=1)  # into L2 is too late for what lies there
                    elif vectors > 1:  # of a single one loads set the pace already
                        line = plus(next_line, mul(k, ahead_step))
                        _prefetch(builder, builder.inttoptr(line, ir.IntType(8).as_pointer()))
                    w = [load_weights(weights, v * vec.count) for v in range(vectors)]
                    for p in range(pixels):
                        x = _splat(builder, builder.load(builder.gep(a_pixels[p], [k])), vec)
                        for v in range(vectors):
                            builder.store(_fma(builder, x, w[v], builder.load(acc[p, v])), acc[p, v])

    with builder.if_then(last):
        has_residual = builder.icmp_unsigned("!=", builder.ptrtoint(r, I64), const(0))
        with builder.if_then(has_residual):
            for (p, v), at in offsets(r_pixel, r_vector).items():
                builder.store(builder.fadd(builder.load(acc[p, v]), read(r, at, v)), acc[p, v])
        zero = ir.Constant(vec, [0.0] * vec.count)
        slope, low, high = (_splat(builder, s, vec) for s in (alpha, lo, hi))
        with builder.if_then(builder.fcmp_unordered("!=", alpha, ir.Constant(alpha.type, 1.0))):
            for cell in cells:
                value = builder.load(acc[cell])
                value = builder.select(builder.fcmp_ordered("<", value, zero), builder.fmul(value, slope), value)
                builder.store(value, acc[cell])
        for cell in cells:
            builder.store(_clamp(builder, builder.load(acc[cell]), low, high), acc[cell])
    for p, v in cells:
        value = builder.load(acc[p, v])
        if v == vectors - 1:
            _masked_store(builder, value, y, y_at[p, v], mask)
        else:
            _store(builder, value, y, y_at[p, v])
