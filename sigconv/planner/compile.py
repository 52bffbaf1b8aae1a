"""A Graph at fixed shapes becomes a Program: specialise, simplify, fuse, select, lower, lay out memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

from sigconv.config import available_memory
from sigconv.errors import ModelError
from sigconv.graph.evaluate import Body
from sigconv.graph.infer import specialize
from sigconv.graph.ir import Graph
from sigconv.graph.passes import inline_if, simplify
from sigconv.planner.build import Builder
from sigconv.planner.candidates import REGISTRY, Machine, Registry
from sigconv.planner.chain import CHAIN, chained
from sigconv.planner.fuse import Unit, fuse
from sigconv.planner.lower import cpu
from sigconv.planner.memory import check_sizes
from sigconv.planner.pool import Pool
from sigconv.planner.precision import widen
from sigconv.planner.quantized import in_codes
from sigconv.planner.rewrite import rewrite
from sigconv.planner.select import TOLERANCE, select
from sigconv.runtime.program import Program, Row

CPU = Machine("cpu", REGISTRY, lambda graph, units, threads: Builder(graph, threads, _margins(units, graph)))


def compile_graph(
    graph: Graph,
    shapes: Mapping[str, Sequence[int]],
    threads: int = 1,
    *,
    only: Collection[str] = (),
    tolerance: float = TOLERANCE,
    body: Callable[[Graph], Body] = Body,
    machine: Machine = CPU,
    pool: Pool | None = None,
) -> Program:
    """The Program of ``graph`` with every input bound to a shape.

    ``only`` prefers candidates by name, wherever they are legal. ``tolerance``: most error beyond rounding that an
    algorithm may have, as a share of the output's scale. ``body`` makes what runs a sub-graph.
    ``pool``: where programs of one model find the constants they share.

    Raises
    ------
    ModelError
        The shapes cannot be, or need more memory than there is: the message names the node.
    """
    static = rewrite(in_codes(_settled(widen(_frozen(graph)), shapes)))
    units = _chained(fuse(static), static, only, machine.registry)
    builder = machine.builder(static, units, threads)
    builder.body, builder.pool = body, pool or builder.pool
    builder.pending_uses.update(_uses(units, static))
    for unit in units:
        try:
            choice = select(unit, builder, only, tolerance, machine.registry)
            choice.candidate.lower(unit, builder)
        except (OverflowError, MemoryError) as e:
            raise ModelError(f"{unit.members[0].label} is too large to run: {e}") from e
        for name in unit.inputs:
            builder.pending_uses[name] -= 1
        shape = builder.shape(unit.output) if builder.is_static(unit.output) else None
        builder.rows.append(
            Row(
                label=unit.label,
                op=" + ".join(m.op for m in unit.members),
                output=unit.output,
                shape=shape,
                algorithm=choice.candidate.name,
                reason=choice.reason,
                rejected=choice.rejected,
                predicted=choice.cost.seconds,
                flops=choice.cost.flops,
                nbytes=choice.cost.nbytes,
                fused=tuple(m.name or m.outputs[0] for m in unit.members),
            )
        )
    program = builder.finish()
    needed, there = program.arena_nbytes, available_memory()
    if needed > there:
        raise ModelError(f"the model at these shapes needs {needed:,} bytes for values, there are {there:,}")
    return program


def _settled(graph: Graph, shapes: Mapping[str, Sequence[int]]) -> Graph:
    """The graph at these shapes, simplified, without the Ifs that are decided then, and those inside them."""
    while True:
        specialized = specialize(graph, shapes)
        inlined = inline_if.run(specialized)
        if inlined is specialized:
            check_sizes(specialized)
            return simplify(specialized)
        graph = inlined


def _frozen(graph: Graph) -> Graph:
    """The graph with constants that no caller can change: a Program may read them where they lie."""
    constants = {name: c.copy() if c.flags.writeable else c for name, c in graph.constants.items()}
    return graph.replace(constants=constants)


def _chained(units: list[Unit], graph: Graph, only: Collection[str], registry: Registry) -> list[Unit]:
    """The units, with chains of convolutions where a candidate runs them."""
    probe = Builder(graph, 1, {})
    offers = [c for c in registry.get(CHAIN, ()) if not only or c.name in only]
    return chained(units, graph, lambda unit: any(c.legal(unit, probe) is None for c in offers)) if offers else units


def _uses(units: Sequence[Unit], graph: Graph) -> Counter[str]:
    """How many units read each value; the end of the program reads the outputs."""
    return Counter([n for u in units for n in u.inputs] + [v.name for v in graph.outputs])


def _margins(units: Sequence[Unit], graph: Graph) -> dict[str, tuple[int, int]]:
    """The zeros beside the rows of each value that the convolutions reading it ask for."""
    probe = Builder(graph, 1, {})
    wishes: dict[str, tuple[int, int]] = {}
    for unit in units:
        for name, (left, right) in cpu.margins(unit, probe):
            have = wishes.get(name, (0, 0))
            wishes[name] = (max(have[0], left), max(have[1], right))
    return wishes
