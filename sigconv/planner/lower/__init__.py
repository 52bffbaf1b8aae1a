"""Machines attach their candidates here. `HOST`, the NumPy reference as a step between native ones, runs everything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from sigconv.graph.ir import Node
from sigconv.ops import lookup
from sigconv.ops.spec import OpSpec
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
        spec = lookup(node.op, node.domain)
        assert spec is not None
        builder.host(partial(_evaluate, spec, node), node.inputs, node.outputs)


def _evaluate(spec: OpSpec, node: Node, arrays: Sequence[np.ndarray | None]) -> tuple[np.ndarray, ...]:
    return spec.evaluate(arrays, node.attrs, len(node.outputs))


HOST = Candidate("numpy", (), _legal, _cost, _lower, accuracy="exact")
"""The op's own reference."""
