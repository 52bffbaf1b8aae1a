"""Elementwise work as one pass: a kernel per float dtype that runs a short program over broadcast operands.

A chain such as ``x * clip(x + 3, 0, 6) / 6`` is assembled into rows of integers. The kernel cuts the output into tiles
of at most `CHUNK` elements and runs all instructions on a tile before the next, so that intermediates stay in L1.
`OPCODES` is the whole instruction set: a name, how many operands and numbers, and a `vmath` formula. A new line
there is a new instruction; `_execute` builds its loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir

from sigconv.kernels import strides as _strides
from sigconv.kernels.address import array_field, as_pointer, copy_bytes, fields, get, item_bytes, put
from sigconv.kernels.cpu import vmath
from sigconv.kernels.jit import kernel, strict
from sigconv.kernels.late import intrinsic, types
from sigconv.kernels.scratch import SCRATCH, own_scratch

CHUNK = 1024
"""Elements of a tile and of a register."""

VECTOR_BYTES = 64
"""The loops' step. Fixed, not the host's register: LLVM splits what is too wide, into independent work."""

MAX_DIMS = 6
MAX_OPERANDS = 8
MAX_REGISTERS = 16
HEAD_BYTES = 8 * (MAX_REGISTERS + MAX_OPERANDS)
SCRATCH_BYTES = HEAD_BYTES + 8 * (MAX_REGISTERS + 1) * CHUNK + 4 * VECTOR_BYTES
"""A thread's scratch: addresses; a register each, and one for the result; the ends of three operands and the result."""

ARGS = np.dtype(
    [
        ("dims", np.int64, (MAX_DIMS,)),
        ("n_operands", np.int64),
        ("operands", np.int64, (MAX_OPERANDS,)),
        ("operand_strides", np.int64, (MAX_OPERANDS, MAX_DIMS)),
        ("output", np.int64),
        ("output_strides", np.int64, (MAX_DIMS,)),
        ("n_instructions", np.int64),
        ("instructions", np.int64),
        ("immediates", np.int64),
        *((name, np.int64) for name in SCRATCH),  # SCRATCH_BYTES a thread
    ]
)


_dims, _operands = array_field(ARGS, "dims"), array_field(ARGS, "operands")
_operand_strides, _output_strides = array_field(ARGS, "operand_strides"), array_field(ARGS, "output_strides")


@dataclass(frozen=True, slots=True)
class Opcode:
    """An instruction: its formula takes ``arity`` operands, then ``immediates`` numbers."""

    code: int
    arity: int
    immediates: int
    formula: vmath.Formula


def _hard_sigmoid(x, alpha, beta):
    return vmath.clip(x * alpha + beta, 0.0, 1.0)


def _gelu_tanh(x):
    inner = x * (0.7978845608028654 * vmath.fma(x * x, 0.044715, 1.0))
    return 0.5 * x * (vmath.tanh(inner) + 1.0)


def _celu(x, alpha):
    return vmath.where(x > 0.0, x, alpha * vmath.elu(x / alpha))


def _selu(x, alpha, gamma):
    return gamma * vmath.elu(x, alpha)


def _saturate(x, zero, low, high):
    y = vmath.round_half_even(x) + zero
    return vmath.where(y > low, vmath.where(y < high, y, high), low)


def _sign(x):
    return vmath.where(x > 0.0, 1.0, vmath.where(x < 0.0, -1.0, x))


_FORMULAS: tuple[tuple[str, int, int, vmath.Formula], ...] = (
    ("copy", 1, 0, lambda x: x),
    ("add", 2, 0, lambda x, y: x + y),
    ("sub", 2, 0, lambda x, y: x - y),
    ("mul", 2, 0, lambda x, y: x * y),
    ("div", 2, 0, lambda x, y: x / y),
    ("mul_add", 3, 0, lambda x, y, z: x * y + z),  # rounded twice: the same as Mul, then Add
    ("pow", 2, 0, vmath.pow),
    ("min", 2, 0, vmath.minimum),
    ("max", 2, 0, vmath.maximum),
    ("neg", 1, 0, lambda x: -x),
    ("abs", 1, 0, vmath.absolute),
    ("sqrt", 1, 0, vmath.sqrt),
    ("square", 1, 0, lambda x: x * x),
    ("reciprocal", 1, 0, lambda x: 1.0 / x),
    ("exp", 1, 0, vmath.exp),
    ("log", 1, 0, vmath.log),
    ("sin", 1, 0, vmath.sin),
    ("cos", 1, 0, vmath.cos),
    ("erf", 1, 0, vmath.erf),
    ("tanh", 1, 0, vmath.tanh),
    ("sigmoid", 1, 0, vmath.sigmoid),
    ("sign", 1, 0, _sign),
    ("floor", 1, 0, vmath.floor),
    ("ceil", 1, 0, vmath.ceil),
    ("round", 1, 0, vmath.round_half_even),
    ("clip", 1, 2, vmath.clip),
    ("relu", 1, 0, lambda x: vmath.where(x < 0.0, 0.0, x)),
    ("leaky_relu", 1, 1, lambda x, alpha: vmath.where(x < 0.0, alpha * x, x)),
    ("prelu", 2, 0, lambda x, slope: vmath.where(x < 0.0, slope * x, x)),
    ("thresholded_relu", 1, 1, lambda x, alpha: vmath.where(x > alpha, x, 0.0)),
    ("elu", 1, 1, vmath.elu),
    ("selu", 1, 2, _selu),
    ("celu", 1, 1, _celu),
    ("hard_sigmoid", 1, 2, _hard_sigmoid),
    ("hard_swish", 1, 0, lambda x: x * _hard_sigmoid(x, 1 / 6, 0.5)),
    ("silu", 1, 0, lambda x: x * vmath.sigmoid(x)),
    ("gelu", 1, 0, lambda x: 0.5 * x * (vmath.erf(x * 0.7071067811865476) + 1.0)),
    ("gelu_tanh", 1, 0, _gelu_tanh),
    ("softplus", 1, 0, vmath.softplus),
    ("softsign", 1, 0, lambda x: x / (vmath.absolute(x) + 1.0)),
    ("mish", 1, 0, vmath.mish),
    ("saturate", 2, 2, _saturate),
)
OPCODES = {name: Opcode(code, *row) for code, (name, *row) in enumerate(_FORMULAS)}
"""The instruction set by name."""

Instruction = tuple[str, int, Sequence[int], Sequence[float]]
"""(name, destination register, source registers, immediates)"""


def assemble(program: Sequence[Instruction]) -> tuple[np.ndarray, np.ndarray]:
    """What the kernel reads: int64 rows (code, dst, src1, src2, src3, index of immediates) and the float64 immediates.

    Registers 0 to 7 are the operands (read only), 8 to 15 intermediates; the last instruction writes the output and its
    ``dst`` is ignored. ValueError for an unknown name, a wrong count or a register out of range.
    """
    if not program:
        raise ValueError("an elementwise program needs at least one instruction ('copy' does nothing)")
    rows, immediates = [], list[float]()
    for name, dst, sources, numbers in program:
        if (op := OPCODES.get(name)) is None:
            raise ValueError(f"unknown instruction {name!r} (known: {', '.join(OPCODES)})")
        if (len(sources), len(numbers)) != (op.arity, op.immediates):
            given = f"{len(sources)} and {len(numbers)}"
            raise ValueError(f"{name} takes {op.arity} operands and {op.immediates} immediates, not {given}")
        if any(not 0 <= source < MAX_REGISTERS for source in sources):
            raise ValueError(f"{name}: registers are numbered 0 to {MAX_REGISTERS - 1}, not {list(sources)}")
        if len(rows) < len(program) - 1 and not MAX_OPERANDS <= dst < MAX_REGISTERS:
            raise ValueError(
                f"{name}: intermediates live in registers {MAX_OPERANDS} to {MAX_REGISTERS - 1}, not {dst}"
            )
        rows.append((op.code, dst, *sources, *[sources[0]] * (3 - op.arity), len(immediates)))
        immediates.extend(numbers)
    return np.array(rows, np.int64), np.array(immediates, np.float64)


def plan(
    shape: Sequence[int], output_strides: Sequence[int], operand_strides: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """The ARGS fields that describe the iteration; strides in elements, 0 where an operand repeats.

    ValueError where more than 6 dimensions are left after collapsing or there are more than 8 operands.
    """
    if len(operand_strides) > MAX_OPERANDS:
        raise ValueError(f"{len(operand_strides)} operands, the kernel takes {MAX_OPERANDS}")
    dims, (output, *operands) = _strides.collapse(shape, [output_strides, *operand_strides])
    return {
        "dims": _strides.pad_front(dims, MAX_DIMS, 1),
        "output_strides": _strides.pad_front(output, MAX_DIMS, 0),
        "operand_strides": [_strides.pad_front(s, MAX_DIMS, 0) for s in operands],
        "n_operands": len(operands),
    }


def _emit_loop(builder, op, target, sources, immediates, n_bytes, vector):
    """for i in range(0, n_bytes, VECTOR_BYTES): a vector at target + i = formula(vectors at sources + i, immediates)"""
    index_type = n_bytes.type
    numbers = []
    for k in range(op.immediates):
        number = builder.load(builder.gep(immediates, [ir.Constant(index_type, k)]))
        if vector.element != number.type:
            number = builder.fptrunc(number, vector.element)
        one = builder.insert_element(ir.Constant(vector, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
        first_lane = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
        numbers.append(vmath.Lanes(builder, builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), first_lane)))
    before, body, after = builder.block, builder.append_basic_block("vectors"), builder.append_basic_block("done")
    builder.branch(body)
    builder.position_at_end(body)
    i = builder.phi(index_type)
    i.add_incoming(ir.Constant(index_type, 0), before)
    align = 4 if vector.element == ir.FloatType() else 8

    def at(address):
        return builder.inttoptr(builder.add(address, i), vector.as_pointer())

    operands = [vmath.Lanes(builder, builder.load(at(s), align=align)) for s in sources[: op.arity]]
    builder.store(op.formula(*operands, *numbers).value, at(target), align=align)
    following = builder.add(i, ir.Constant(index_type, VECTOR_BYTES))
    i.add_incoming(following, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, n_bytes), body, after)
    builder.position_at_end(after)


@intrinsic
def _execute(typingctx, code, target, x, y, z, immediates, n_bytes, dtype):
    """Run one instruction on ``n_bytes`` (a positive multiple of VECTOR_BYTES) at int64 addresses."""

    def codegen(context, builder, signature, args):
        code, *addresses, immediates, n_bytes, _ = args
        element = context.get_value_type(dtype.dtype)
        vector = ir.VectorType(element, VECTOR_BYTES // (dtype.dtype.bitwidth // 8))
        target, *sources = addresses
        numbers = builder.inttoptr(immediates, ir.DoubleType().as_pointer())
        done = builder.append_basic_block("executed")
        switch = builder.switch(code, done)
        for name, op in OPCODES.items():
            block = builder.append_basic_block(name)
            switch.add_case(ir.Constant(code.type, op.code), block)
            builder.position_at_end(block)
            _emit_loop(builder, op, target, sources, numbers, n_bytes, vector)
            builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 7, dtype), codegen


@strict
def _gather(target, source, rows, cols, row_stride, col_stride):
    """Pack a tile of ``source`` into ``target``."""
    for r in range(rows):
        if col_stride == 0:
            value = get(source, r * row_stride)
            for c in range(cols):
                put(target, r * cols + c, value)
        else:
            for c in range(cols):
                put(target, r * cols + c, get(source, r * row_stride + c * col_stride))


@strict
def _scatter(target, source, rows, cols, row_stride, col_stride):
    """Unpack ``source`` into a tile of ``target``."""
    for r in range(rows):
        for c in range(cols):
            put(target, r * row_stride + c * col_stride, get(source, r * cols + c))


@strict
def _packed(rows, cols, row_stride, col_stride):
    """Whether a tile lies in one run."""
    return (cols == 1 or col_stride == 1) and (rows == 1 or row_stride == cols)


@strict
def _offset(s, k, i0, i1, i2, i3, i4, i5):
    """The element at an index, by the strides that start at s[k]."""
    outer = i0 * get(s, k) + i1 * get(s, k + 1) + i2 * get(s, k + 2)
    return outer + i3 * get(s, k + 3) + i4 * get(s, k + 4) + i5 * get(s, k + 5)


@strict
def _end(ends, slot, source, done, left):
    """Copy the ``left`` bytes after ``done`` of ``source`` to a vector of its own."""
    copy_bytes(ends + slot * VECTOR_BYTES, source + done, left)
    return ends + slot * VECTOR_BYTES


@strict
def _run(args, thread, threads, dtype):
    """This thread's tiles. A tile is ``rows`` x ``cols`` of the two innermost dimensions, at places fixed by the shape.

    Packed operands and outputs are used in place, others pass through a register.
    """
    item = item_bytes(dtype)
    a = fields(args)
    dims = _dims(args)
    d1, d2, d3, d4, d5 = get(dims, 1), get(dims, 2), get(dims, 3), get(dims, 4), get(dims, 5)
    operands = _operands(args)
    memory = own_scratch(a, thread)
    place = as_pointer(memory, np.int64)  # the address of each register: in place, or in `registers`
    held = as_pointer(memory + 8 * MAX_REGISTERS, np.int64)  # the address that fills a whole register
    registers = memory + HEAD_BYTES
    ends = registers + (MAX_REGISTERS + 1) * CHUNK * item
    program = as_pointer(a.instructions, np.int64)
    for k in range(a.n_operands):
        put(held, k, 0)
    for k in range(MAX_OPERANDS, MAX_REGISTERS):
        put(place, k, registers + k * CHUNK * item)

    tile_cols = max(1, min(d5, CHUNK))
    tile_rows = CHUNK // tile_cols if tile_cols == d5 else 1
    across = (d5 + tile_cols - 1) // tile_cols
    down = (d4 + tile_rows - 1) // tile_rows
    tiles = get(dims, 0) * d1 * d2 * d3 * down * across
    for tile in range(thread * tiles // threads, (thread + 1) * tiles // threads):
        i5 = tile % across * tile_cols
        rest = tile // across
        i4 = rest % down * tile_rows
        rest //= down
        i3 = rest % d3
        rest //= d3
        i2 = rest % d2
        rest //= d2
        i1 = rest % d1
        i0 = rest // d1
        rows, cols = min(tile_rows, d4 - i4), min(tile_cols, d5 - i5)
        count = rows * cols

        for k in range(a.n_operands):
            s = _operand_strides(args)
            row_stride, col_stride = get(s, MAX_DIMS * k + 4), get(s, MAX_DIMS * k + 5)
            source = get(operands, k) + item * _offset(s, MAX_DIMS * k, i0, i1, i2, i3, i4, i5)
            in_register = registers + k * CHUNK * item
            if _packed(rows, cols, row_stride, col_stride):
                put(place, k, source)
                continue
            put(place, k, in_register)
            high, wide = rows, cols
            if row_stride == 0 and col_stride == 0:  # one number: it fills the register for as long as it stays
                if get(held, k) == source:
                    continue
                put(held, k, source)
                high, wide = tile_rows, tile_cols
            _gather(as_pointer(in_register, dtype), as_pointer(source, dtype), high, wide, row_stride, col_stride)

        s = _output_strides(args)
        row_stride, col_stride = get(s, 4), get(s, 5)
        output = a.output + item * _offset(s, 0, i0, i1, i2, i3, i4, i5)
        in_place = _packed(rows, cols, row_stride, col_stride)
        result = output if in_place else registers + MAX_REGISTERS * CHUNK * item
        left = count * item % VECTOR_BYTES
        whole = count * item - left
        for n in range(0, 6 * a.n_instructions, 6):
            target = result if n == 6 * a.n_instructions - 6 else get(place, get(program, n + 1))
            x, y, z = get(place, get(program, n + 2)), get(place, get(program, n + 3)), get(place, get(program, n + 4))
            numbers = a.immediates + 8 * get(program, n + 5)
            for end in range(whole == 0, 1 + (left > 0)):  # first the whole vectors, then the rest
                to = target
                if end:
                    x, y, z = (
                        _end(ends, 0, x, whole, left),
                        _end(ends, 1, y, whole, left),
                        _end(ends, 2, z, whole, left),
                    )
                    to = ends + 3 * VECTOR_BYTES
                _execute(get(program, n), to, x, y, z, numbers, VECTOR_BYTES if end else whole, dtype)
                if end:
                    copy_bytes(target + whole, to, left)
        if not in_place:
            _scatter(as_pointer(output, dtype), as_pointer(result, dtype), rows, cols, row_stride, col_stride)


@kernel(ARGS)
def elementwise_float32(args, thread, threads):
    _run(args, thread, threads, np.float32)


@kernel(ARGS)
def elementwise_float64(args, thread, threads):
    _run(args, thread, threads, np.float64)


KERNELS = {np.dtype(np.float32): elementwise_float32, np.dtype(np.float64): elementwise_float64}
"""By the dtype of every operand and the output."""
