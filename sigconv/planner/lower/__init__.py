"""Machines attach their candidates here. `HOST`, the NumPy reference as a step between native ones, runs everything."""

from __future__ import annotations

import math
from functools import partial

from sigconv.graph.infer import evaluate
from sigconv.planner.build import Builder
from sigconv.planner.candidates import Candidate, Cost
from sigconv.planner.fuse import Unit


def _legal(unit: Unit, builder: Builder) -> str | None:
    return None


def _cost(unit: Unit, builder: Builder) -> Cost:
    names = [n for n in (*unit.inputs, *unit.outputs) if n and builder.is_static(n)]
    nbytes = float(sum(builder.nbytes(n) for n in names))
    elements = sum(math.prod(builder.shape(n)) for n in names)
    return Cost(0.0, nbytes, 20e-6 * len(unit.members) + elements * 5e-9)


def _lower(unit: Unit, builder: Builder) -> None:
    for node in unit.members:
        builder.host(partial(evaluate, node), node.inputs, node.outputs)


HOST = Candidate("numpy", (), _legal, _cost, _lower, accuracy="exact")
"""The op's own reference."""
