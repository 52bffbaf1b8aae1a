"""Elementwise work as one pass: a kernel per float dtype that runs a short program over broadcast operands.

The programs are those of the CPU's kernel (`sigconv.kernels.cpu.elementwise`): the same instructions, registers and
immediates. Every thread takes an element through all of them; registers lie in shared memory, a column a thread, so
that a register's number may be data. A new model compiles nothing.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import cuda

from sigconv.kernels.cpu.elementwise import MAX_DIMS, MAX_OPERANDS, MAX_REGISTERS, OPCODES
from sigconv.kernels.cuda.index import quotient
from sigconv.kernels.cuda.jit import BLOCK, Kernel, device, kernel, record, suffix

PARAMS = record("Elementwise", "n n_operands n_instructions")
"""``table`` (int32): the dims, outermost first; then for every operand `MAX_DIMS` strides in elements (0: repeated).
``program`` (int32): rows (code, target, source, source, source, index of immediates). The output is dense."""

THREADS = BLOCK
_NAMES = (
    "copy add sub mul div mul_add pow min max neg abs sqrt square reciprocal exp log sin cos erf tanh sigmoid sign "
    "floor ceil round clip relu leaky_relu prelu thresholded_relu elu selu celu hard_sigmoid hard_swish silu gelu "
    "gelu_tanh softplus softsign mish saturate"
)
(
    COPY, ADD, SUB, MUL, DIV, MUL_ADD, POW, MIN, MAX, NEG, ABS, SQRT, SQUARE, RECIPROCAL, EXP, LOG, SIN, COS, ERF, TANH,
    SIGMOID, SIGN, FLOOR, CEIL, ROUND, CLIP, RELU, LEAKY_RELU, PRELU, THRESHOLDED_RELU, ELU, SELU, CELU, HARD_SIGMOID,
    HARD_SWISH, SILU, GELU, GELU_TANH, SOFTPLUS, SOFTSIGN, MISH, SATURATE,
) = (OPCODES[name].code for name in _NAMES.split())  # fmt: skip
INSTRUCTIONS = frozenset(_NAMES.split())
"""Those of the CPU's that are here."""


def formulas(real: type) -> Any:
    """apply(code, x, y, z, a, b): one instruction on operands x, y, z and immediates a, b."""
    zero, one, half, two = real(0), real(1), real(0.5), real(2)
    inf, nan = real(np.inf), real(np.nan)
    largest = real(88.722) if real is np.float32 else real(709.78)
    root_half, gelu_scale, gelu_cube = real(0.7071067811865476), real(0.7978845608028654), real(0.044715)
    sixth = real(1 / 6)

    @device
    def exp(x):
        return inf if x > largest else real(math.exp(x))

    @device
    def log(x):
        if x > zero:
            return real(math.log(x))
        return -inf if x == zero else nan

    @device
    def log1p_exp(x):
        """log(1 + exp(x)) without overflow."""
        return real(max(x, zero) + math.log1p(math.exp(-abs(x)))) if x == x else x

    @device
    def sigmoid(x):
        e = exp(-abs(x))
        return one / (one + e) if x >= zero else e / (one + e)

    @device
    def tanh(x):
        return real(math.tanh(x))

    @device
    def clip(x, lo, hi):
        if x < lo:
            x = lo
        return hi if x > hi else x

    @device
    def elu(x, alpha):
        return x if x >= zero else alpha * real(math.expm1(x))

    @device
    def round_half_even(x):
        if not abs(x) < real(4503599627370496.0):
            return x
        f = real(math.floor(x))
        d = x - f
        if d > half or (d == half and real(math.floor(f * half)) * two != f):
            f += one
        return f

    @device
    def whole(x, up):
        if not abs(x) < real(4503599627370496.0):
            return x
        return real(math.ceil(x)) if up else real(math.floor(x))

    @device
    def apply(code, x, y, z, a, b):
        if code == ADD:
            return x + y
        if code == MUL:
            return x * y
        if code == SUB:
            return x - y
        if code == DIV:
            return x / y
        if code == MUL_ADD:
            return x * y + z
        if code == RELU:
            return zero if x < zero else x
        if code == CLIP:
            return clip(x, a, b)
        if code == MIN:
            return x if (x < y or x != x) else y
        if code == MAX:
            return x if (x > y or x != x) else y
        if code == NEG:
            return -x
        if code == ABS:
            return abs(x)
        if code == SQUARE:
            return x * x
        if code == RECIPROCAL:
            return one / x
        if code == SIGN:
            return one if x > zero else (-one if x < zero else x)
        if code == LEAKY_RELU:
            return a * x if x < zero else x
        if code == PRELU:
            return y * x if x < zero else x
        if code == THRESHOLDED_RELU:
            return x if x > a else zero
        if code == HARD_SIGMOID:
            return clip(x * a + b, zero, one)
        if code == HARD_SWISH:
            return x * clip(x * sixth + half, zero, one)
        if code == SOFTSIGN:
            return x / (abs(x) + one)
        if code == FLOOR:
            return whole(x, False)
        if code == CEIL:
            return whole(x, True)
        if code == ROUND:
            return round_half_even(x)
        if code == SQRT:
            return real(math.sqrt(x)) if x >= zero else nan
        if code == EXP:
            return exp(x)
        if code == LOG:
            return log(x)
        if code == SIGMOID:
            return sigmoid(x)
        if code == TANH:
            return tanh(x)
        if code == SILU:
            return x * sigmoid(x)
        if code == ERF:
            return real(math.erf(x))
        if code == GELU:
            return half * x * (real(math.erf(x * root_half)) + one)
        if code == GELU_TANH:
            return half * x * (tanh(x * (gelu_scale * (x * x * gelu_cube + one))) + one)
        if code == ELU:
            return elu(x, a)
        if code == SELU:
            return b * elu(x, a)
        if code == CELU:
            return x if x > zero else a * elu(x / a, one)
        if code == SOFTPLUS:
            return log1p_exp(x)
        if code == MISH:
            return x * tanh(log1p_exp(x))
        if code == POW:
            return real(x**y)
        if code == SATURATE:
            v = round_half_even(x) + y
            if v > a:
                return v if v < b else b
            return a  # NaN too
        if code == SIN:
            return real(math.sin(x)) if abs(x) < inf else nan
        if code == COS:
            return real(math.cos(x)) if abs(x) < inf else nan
        return x

    return apply


def make(real: type) -> Kernel:
    """The kernel of one float type."""
    apply = formulas(real)
    operands = MAX_OPERANDS

    def elementwise(p, table, program, immediates, x0, x1, x2, x3, x4, x5, x6, x7, y):
        registers = cuda.shared.array((MAX_REGISTERS, THREADS), real)
        t = cuda.threadIdx.x
        for i in range(cuda.grid(1), p.n, cuda.gridsize(1)):
            o0 = o1 = o2 = o3 = o4 = o5 = o6 = o7 = 0
            rest = i
            for d in range(MAX_DIMS - 1, -1, -1):
                size = table[d]
                if size > 1:
                    above = quotient(rest, size)
                    index = rest - above * size
                    rest = above
                    at = MAX_DIMS + d
                    o0 += index * table[at]
                    o1 += index * table[at + MAX_DIMS]
                    if p.n_operands > 2:
                        o2 += index * table[at + 2 * MAX_DIMS]
                        o3 += index * table[at + 3 * MAX_DIMS]
                    if p.n_operands > 4:
                        o4 += index * table[at + 4 * MAX_DIMS]
                        o5 += index * table[at + 5 * MAX_DIMS]
                        o6 += index * table[at + 6 * MAX_DIMS]
                        o7 += index * table[at + 7 * MAX_DIMS]
            registers[0, t] = x0[o0]
            if p.n_operands > 1:
                registers[1, t] = x1[o1]
            if p.n_operands > 2:
                registers[2, t] = x2[o2]
            if p.n_operands > 3:
                registers[3, t] = x3[o3]
            if p.n_operands > 4:
                registers[4, t] = x4[o4]
            if p.n_operands > 5:
                registers[5, t] = x5[o5]
            if p.n_operands > 6:
                registers[6, t] = x6[o6]
            if p.n_operands > 7:
                registers[7, t] = x7[o7]
            v = registers[0, t]
            for k in range(0, 6 * p.n_instructions, 6):
                number = program[k + 5]
                v = apply(
                    program[k], registers[program[k + 2], t], registers[program[k + 3], t],
                    registers[program[k + 4], t], immediates[number], immediates[number + 1],
                )  # fmt: skip
                registers[program[k + 1], t] = v
            y[i] = v

    elementwise.__name__ = f"elementwise_{suffix(real)}"
    arrays = " ".join(["int32 int32 real", *["real"] * operands, "real"])
    return kernel(PARAMS, arrays, THREADS, real=real)(elementwise)


ELEMENTWISE = {np.dtype(real).name: make(real) for real in (np.float32, np.float64)}
"""By dtype."""
