"""Elementwise units: one pass of the bytecode kernel, in whatever layout the operands already have."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sigconv.kernels import strides as spaces
from sigconv.kernels.cpu import elementwise as kernels
from sigconv.planner.build import Builder
from sigconv.planner.candidates import Candidate, Cost, attach
from sigconv.planner.elementwise import program
from sigconv.planner.fuse import Unit
from sigconv.planner.lower.cpu.direct import known
from sigconv.planner.lower.cpu.reduce import single, streaming, width
from sigconv.planner.tensors import Address, Tensor


def _legal(unit: Unit, b: Builder) -> str | None:
    reason = known(unit, b)
    if reason:
        return reason
    layout = _layout(unit, b)
    operands = program(b.graph, unit.members)[0]  # type: ignore[index]
    shape, strides = _probe(b, unit.output, layout)
    views = [_view(b, name, b.shape(unit.output), layout, probe=True)[1] for name in operands]
    try:
        kernels.plan(shape, strides, views)
    except ValueError as error:
        return str(error)
    return None


def _probe(b: Builder, name: str, block: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sizes and strides of a value in a layout, without placing it."""
    shape = b.shape(name)
    physical = shape if block == 1 else (shape[0], -(-shape[1] // block), *shape[2:], block)
    return physical, spaces.contiguous(physical)


def _layout(unit: Unit, b: Builder) -> int:
    """Channel blocks if an operand of the full shape lies in them already, else plain."""
    shape = b.shape(unit.output)
    if len(shape) < 3:
        return 1
    full = [n for n in unit.inputs if not b.is_constant(n) and b.shape(n) == shape]
    return max((t.block for n in full for t in b.tensors(n)), default=1)


def _view(
    b: Builder, name: str, shape: Sequence[int], block: int, probe: bool = False
) -> tuple[Tensor | None, tuple[int, ...]]:
    """An operand and its strides along the physical axes of a result of ``shape`` in blocks of ``block``."""
    own = b.shape(name)
    padded = (1,) * (len(shape) - len(own)) + own
    if block == 1:
        t = None if probe else (b.plain(name) if len(own) != len(shape) else _any_plain(b, name))
        strides = spaces.contiguous(own) if t is None else t.strides
        return t, spaces.broadcast(own, strides, shape)
    if padded[1] == 1:
        t = None if probe else b.plain(name)
        lead = spaces.broadcast(own, spaces.contiguous(own), shape)
        return t, (*lead, 0)
    if len(own) == len(shape):
        t = None if probe else b.blocked(name)
        strides = spaces.contiguous(_probe(b, name, block)[0])[:-1] if t is None else t.strides
        return t, (*(0 if p == 1 and s != 1 else k for p, s, k in zip(padded, shape, strides, strict=True)), 1)
    t = None if probe else b.blocked_as(name, padded)
    blocked = (padded[0], -(-padded[1] // block), *padded[2:], block)
    strides = spaces.contiguous(blocked)
    return t, (*(0 if p == 1 and s != 1 else k for p, s, k in zip(padded, shape, strides, strict=False)), 1)


def _any_plain(b: Builder, name: str) -> Tensor:
    """A plain place of the value, with or without margins."""
    return next((t for t in b.tensors(name) if t.block == 1), None) or b.plain(name)


def _cost(unit: Unit, b: Builder) -> Cost:
    base = streaming(unit, b, float(len(unit.members)))
    return Cost(math.prod(b.shape(unit.output)) * float(len(unit.members)), base.nbytes, base.seconds)


def _lower(unit: Unit, b: Builder) -> None:
    found = program(b.graph, unit.members)
    assert found is not None
    operands, instructions = found
    block = _layout(unit, b)
    shape = b.shape(unit.output)
    views = [_view(b, name, shape, block) for name in operands]
    y = _in_place(unit, b, block, [t for t, _ in views]) or b.new(unit.output, block)
    emit(b, instructions, [(t.address, s) for t, s in views if t is not None], y, len(unit.members))


def _in_place(unit: Unit, b: Builder, block: int, tensors: Sequence[Tensor | None]) -> Tensor | None:
    """The output in the memory of an operand that nobody reads any more."""
    if block == 1 and any(v.name == unit.output for v in b.graph.outputs):
        return None
    for t in tensors:
        if t is None or t.block != block or t.shape != b.shape(unit.output) or t.dtype != b.dtype(unit.output):
            continue
        wanted = b.margin(unit.output)
        if t.margin[0] >= wanted[0] and t.margin[1] >= wanted[1] and b.can_overwrite(t, 1):
            b.place(unit.output, t)
            return t
    return None


def emit(
    b: Builder,
    instructions: Sequence[kernels.Instruction],
    operands: Sequence[tuple[Address, Sequence[int]]],
    y: Tensor,
    steps: int,
) -> None:
    """One pass over ``y`` (any layout) of operands given by address and strides along y's physical axes."""
    table, immediates = kernels.assemble(instructions)
    sizes, strides = y.physical()
    nbytes = math.prod(sizes) * y.dtype.itemsize
    threads = width(b, nbytes * (1 + steps))
    b.emit(
        single(kernels.elementwise_float32, kernels.elementwise_float64, y.dtype), width=threads,
        operands=[a for a, _ in operands], output=y.address, n_instructions=len(table), instructions=table,
        immediates=immediates, **b.own_scratch(kernels.SCRATCH_BYTES),
        **kernels.plan(sizes, strides, [s for _, s in operands]),
    )  # fmt: skip


attach(Candidate("bytecode", ("Elementwise",), _legal, _cost, _lower))
