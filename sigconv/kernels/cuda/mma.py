"""Tensor cores: a warp's product of two fragments, ``mma.sync``, for TF32, float16 and bfloat16 with float32 sums.

A word is 32 bits: one TF32, or two half-precision numbers that are neighbours along k (the first in the lower half).
In words the fragments of all three formats are the same: A has 16 rows of 8 words, B 8 words by 8 columns, C is
16 x 8 sums. With g = lane // 4 and q = lane % 4 a lane holds

- of A the words (g, q), (g + 8, q), (g, q + 4), (g + 8, q + 4),
- of B the words (q, g), (q + 4, g),
- of C the sums (g, 2q), (g, 2q + 1), (g + 8, 2q), (g + 8, 2q + 1).

Source: PTX ISA, "Matrix Fragments for mma.m16n8k8" (.tf32) and "mma.m16n8k16" (.f16, .bf16).
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from sigconv.kernels.cuda.index import intrinsic
from sigconv.kernels.cuda.jit import SIMULATED, device

WARP, WORDS = 32, 8
"""Lanes of a warp, and words along k of one product."""
ROWS, COLUMNS = 16, 8
"""Of one product."""
CAPABILITY = (8, 0)
"""The oldest compute capability with all three formats."""


@dataclass(frozen=True)
class Format:
    """What the operands of a product are rounded to.

    Attributes
    ----------
    per_word : int
        Numbers in a word.
    bits : int
        Of the significand: a number is off by 2^-bits of itself at most.
    pack : callable
        (float32, float32) -> the word; with one number in a word the second is not looked at.
    product : callable
        (4 words of A, 2 of B, 4 sums) -> 4 sums; all lanes of a warp must call it together.
    """

    name: str
    per_word: int
    bits: int
    pack: Callable[[Any, Any], Any]
    product: Callable[..., Any]


def _packing(instruction: str, numbers: int) -> Callable[[Any, Any], Any]:
    """The instruction that rounds one number, or two: its operands are the upper half, the lower half."""

    @intrinsic
    def convert(typingctx, low, high):
        def codegen(context, builder, signature, args):
            given = list(args[::-1])[-numbers:]
            kind = ir.FunctionType(ir.IntType(32), [ir.FloatType()] * numbers)
            operands = ", ".join(f"${i}" for i in range(numbers + 1))
            return builder.call(ir.InlineAsm(kind, f"{instruction} {operands};", "=r" + ",f" * numbers), given)

        return types.int32(types.float32, types.float32), codegen

    return device(lambda low, high: convert(low, high))


def _multiplying(instruction: str) -> Callable[..., Any]:
    """The instruction of a warp's product."""

    @intrinsic
    def multiply(typingctx, a0, a1, a2, a3, b0, b1, c0, c1, c2, c3):
        def codegen(context, builder, signature, args):
            word, real = ir.IntType(32), ir.FloatType()
            kind = ir.FunctionType(ir.LiteralStructType([real] * 4), [word] * 6 + [real] * 4)
            text = f"{instruction} {{$0, $1, $2, $3}}, {{$4, $5, $6, $7}}, {{$8, $9}}, {{$10, $11, $12, $13}};"
            sums = builder.call(ir.InlineAsm(kind, text, "=f,=f,=f,=f" + ",r" * 6 + ",f" * 4, side_effect=True), args)
            return cgutils.pack_array(builder, [builder.extract_value(sums, i) for i in range(4)])

        return types.UniTuple(types.float32, 4)(*[types.int32] * 6, *[types.float32] * 4), codegen

    return device(
        lambda a0, a1, a2, a3, b0, b1, c0, c1, c2, c3: multiply(a0, a1, a2, a3, b0, b1, c0, c1, c2, c3)
    )  # fmt: skip


# --- the simulator's stand-in ----------------------------------------------------------------------------------------
def _word(data: bytes) -> int:
    return int(struct.unpack("<i", data)[0])


def _tf32_word(low: Any, high: Any) -> int:
    """Rounded to 10 bits behind the point, ties away from zero; NaN and infinity stay what they are."""
    bits = int(np.float32(low).view(np.uint32))
    if np.isfinite(low):
        bits = (bits + 0x1000) & 0xFFFFE000
    return _word(struct.pack("<I", bits))


def _half_word(low: Any, high: Any) -> int:
    return _word(np.array([low, high], np.float16).tobytes())


def _brain_word(low: Any, high: Any) -> int:
    """The upper halves of two float32, rounded to even."""
    bits = np.array([low, high], np.float32).view(np.uint32).astype(np.uint64)
    finite = np.isfinite([low, high])
    halves = np.where(finite, (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16, bits >> 16)
    return _word(halves.astype(np.uint16).tobytes())


def _tf32_numbers(word: int) -> tuple[float, ...]:
    return struct.unpack("<f", struct.pack("<i", word))


def _half_numbers(word: int) -> tuple[float, ...]:
    return struct.unpack("<2e", struct.pack("<i", word))


def _brain_numbers(word: int) -> tuple[float, ...]:
    bits = int(word) & 0xFFFFFFFF
    return struct.unpack("<2f", struct.pack("<2I", bits << 16 & 0xFFFFFFFF, bits & 0xFFFF0000))


def simulated(lane: int, warp: list[tuple[tuple[float, ...], ...]], sums: tuple[Any, ...]) -> tuple[np.float32, ...]:
    """A lane's four sums after the product. ``warp``: each lane's six words of A and B, as the numbers in them."""
    g, q = divmod(lane, 4)

    def dot(row: int, column: int) -> float:
        total = 0.0
        for word in range(WORDS):
            a = warp[row % 8 * 4 + word % 4][row // 8 + word // 4 * 2]
            b = warp[column * 4 + word % 4][4 + word // 4]
            total += sum(x * y for x, y in zip(a, b, strict=True))
        return total

    places = ((g, 2 * q), (g, 2 * q + 1), (g + 8, 2 * q), (g + 8, 2 * q + 1))
    return tuple(np.float32(c + dot(*place)) for c, place in zip(sums, places, strict=True))


def _standing_in(numbers: Callable[[int], tuple[float, ...]]) -> Callable[..., Any]:
    """A product in the simulator: lanes leave their words where the others of their warp find them.

    The barrier is the block's, so every warp of it must come here equally often. Two places take turns: whoever writes
    to one again has passed the barrier behind which all have read it.
    """

    def product(a0, a1, a2, a3, b0, b1, *sums):
        thread: Any = threading.current_thread()
        left = thread._manager.__dict__.setdefault("fragments", {})
        turn = thread.__dict__.get("turn", 0)
        left[turn, thread.thread_id] = tuple(map(numbers, (a0, a1, a2, a3, b0, b1)))
        thread.turn = 1 - turn
        thread.syncthreads()
        first = thread.thread_id // WARP * WARP
        return simulated(thread.thread_id - first, [left[turn, first + lane] for lane in range(WARP)], sums)

    return product


_CODES = {
    "tf32": (1, 11, "cvt.rna.tf32.f32", "m16n8k8", _tf32_word, _tf32_numbers),
    "f16": (2, 11, "cvt.rn.f16x2.f32", "m16n8k16", _half_word, _half_numbers),
    "bf16": (2, 8, "cvt.rn.bf16x2.f32", "m16n8k16", _brain_word, _brain_numbers),
}


def _format(name: str) -> Format:
    per_word, bits, convert, shape, word, numbers = _CODES[name]
    if SIMULATED:
        return Format(name, per_word, bits, word, _standing_in(numbers))
    multiply = f"mma.sync.aligned.{shape}.row.col.f32.{name}.{name}.f32"
    return Format(name, per_word, bits, _packing(convert, per_word), _multiplying(multiply))


FORMATS = {name: _format(name) for name in _CODES}
"""By the name that PTX has for the format."""
