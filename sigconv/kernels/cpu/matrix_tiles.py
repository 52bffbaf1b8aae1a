"""Instructions on the matrix tiles of Intel AMX, and how numbers of bfloat16 in one or two parts lie for them.

Everything is LLVM code emitted by `@intrinsic`; only CPUs with tiles of bfloat16 run it. `sigconv.kernels.cpu.amx` says
what the parts are.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from llvmlite import ir

from sigconv.kernels.late import cgutils, intrinsic, types
from sigconv.kernels.simd import I32, I64, _fma, _llvm_vector, _prefetch, _splat
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
"""Bytes of the sums of so many tiles."""
PRODUCTS = {1: 1, 2: 3}
"""By parts, how many are added up."""
NOTHING, OWN, NEXT = ASKS = 0, 1, 2
"""Which weights are asked for beside products: none, those of the same tiles `AHEAD` bytes on, the next tiles'."""
AHEAD = 4096


def config() -> np.ndarray:
    """What ``ldtilecfg`` reads: palette 1, eight tiles of 16 rows of 64 bytes."""
    table = zeros(64)
    table[0] = 1
    table[16:32].view(np.uint16)[:] = 64
    table[48:56] = 16
    return table


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


def make_split(parts: int) -> Any:
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


def make_clear(parts: int) -> Any:
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


def make_summed(parts: int) -> Any:
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


def make_multiply(parts: int) -> Any:
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
