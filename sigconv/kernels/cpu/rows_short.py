"""Correlation of one row with zeros beyond both ends, borders included: short signals in a single call.

    y[i] = sum over k < K of w[k] * x[start + i - (K - 1) + k],  x[c] = 0 outside 0 <= c < n

Hence start 0 and count n + K - 1 give 'full', start K - 1 and count n - K + 1 'valid'. Products with the zeros are left
out, so NaN and Inf among the taps reach only outputs whose taps meet the signal. Interior outputs have the bits that
`rows` gives them. Made for few taps (up to about 64): a border output costs several times an interior one.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir

from sigconv.kernels.address import array_field, as_pointer, pointer_to
from sigconv.kernels.cpu.rows import NUMBERS
from sigconv.kernels.cpu.rows_emitter import Emitter, Numbers, chunks, const, period_of, smaller
from sigconv.kernels.cpu.rows_tile import make_line
from sigconv.kernels.jit import Kernel, kernel
from sigconv.kernels.late import carray, intrinsic, types
from sigconv.kernels.simd import I32, _splat, _tail_mask

ARGS = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("x", "n"),  # address and length, at least 1, of the signal
            *("w", "K"),  # address of tap 0 and how many, at least 1
            "w_step",  # 1, or -1 where the taps lie in memory in reverse: a convolution's kernel, `w` its last tap
            *("y", "start", "count"),  # address of the first output; its index among the full result; how many
        )
    ]
)
"""Lengths are in numbers of the array's type: a complex number counts as one."""

_x_field = array_field(ARGS, "x")  # the record's first word serves as the table of one row


def _make_border(numbers: Numbers):
    """(x, n, w, w_step, taps, period, periods, c, y, count): the first ``count`` sums of a register.

    Tap 0 of lane 0 reads x[c]; n, c and count are in elements, of which a complex number has two.
    """
    parts, depth = numbers.parts, numbers.depth

    @intrinsic
    def border(typingctx, x, n, w, w_step, taps, period, periods, c, y, count):
        i = types.int64
        source, sums, target = map(pointer_to, (numbers.source, numbers.sum, numbers.target))
        sig = types.void(source, i, sums, i, i, i, i, i, target, i)

        def codegen(context, b, sig, args):
            x, n, w, w_step, taps, period, periods, c, y, count = args
            e = Emitter(b, numbers, numbers.lanes)
            cells = e.sums(parts)
            words = ir.VectorType(I32, e.lanes)
            lane = ir.Constant(words, list(range(e.lanes)))

            def body(_, tap):
                at = b.add(c, b.mul(tap, const(parts)))
                first = b.sub(const(0), smaller(b, at, const(0)))
                last = smaller(b, count, b.sub(n, at))
                with b.if_then(b.icmp_signed("<", first, last)):
                    low, high = (_splat(b, b.trunc(edge, I32), words) for edge in (first, last))
                    mask = b.and_(b.icmp_signed(">=", lane, low), b.icmp_signed("<", lane, high))
                    value = e.load(x, at, mask)
                    start = b.mul(tap, b.mul(w_step, const(parts)))
                    for part in range(parts):
                        e.multiply_add(value, e.tap(w, b.add(start, const(part))), cells[part,], mask)

            chunks(b, depth, False, taps, period, periods, body)
            e.store(e.result([cells[part,] for part in range(parts)]), y, const(0), _tail_mask(b, count, e.sum))
            return context.get_dummy_value()

        return sig, codegen

    return border


def make(numbers: Numbers) -> Kernel:
    """The kernel of one variant."""
    line, border = make_line(numbers), _make_border(numbers)
    parts, lanes, depth = numbers.parts, numbers.lanes, numbers.depth
    dtype, item = numbers.source, np.dtype(numbers.source).itemsize

    def short(args, thread, threads):
        a = carray(args, 1)[0]
        rows = _x_field(args)
        x, w = as_pointer(a.x, dtype), as_pointer(a.w, dtype)
        n, K, count = a.n * parts, a.K, a.count * parts
        before = (a.start - (K - 1)) * parts  # the input index that tap 0 of output 0 reads
        period = period_of(lanes, K, parts, depth == 1)
        periods = (K + period - 1) // period
        inner = min(max(-before, 0), count)  # outputs inner … outer - 1 read nothing beyond the ends
        outer = max(min(n - (K - 1) * parts - before, count), inner)
        if inner < outer:
            line(rows, before + inner, K, w, a.w_step, 1, period, parts, lanes, a.y + item * inner, outer - inner)
        i = outer if inner == 0 else 0
        while i < count:
            width = min(lanes, (inner if i < inner else count) - i)
            border(x, n, w, a.w_step, K, period, periods, before + i, as_pointer(a.y + item * i, dtype), width)
            i = outer if i + width == inner else i + width

    short.__name__ = short.__qualname__ = f"short_{numbers.name}"
    return kernel(ARGS)(short)


KERNELS = {name: make(NUMBERS[name]) for name in ("f32", "f64", "c64", "c128")}
"""The kernel of each type."""
