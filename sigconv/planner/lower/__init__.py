"""Machines attach their candidates here. `HOST`, the NumPy reference as a step between native ones, runs everything."""

from __future__ import annotations

import math
from functools import partial

from sigconv.graph.evaluate import evaluate
from sigconv.graph.ir import Graph, Node
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
        bound = _with_constants(node, builder)
        bodies = {k: builder.body(v) for k, v in bound.attrs.items() if isinstance(v, Graph)}
        run = partial(evaluate, bound.replace(attrs={**bound.attrs, **bodies}))
        builder.host(run, bound.inputs, bound.outputs)


def _with_constants(node: Node, builder: Builder) -> Node:
    """The node with the constants that its sub-graphs read from outside among their own, as weights must be."""
    captures = int(node.attrs.get("captures", 0))
    first = len(node.inputs) - captures
    known = {i: builder.constant(n) for i, n in enumerate(node.inputs) if i >= first and builder.is_constant(n)}
    if not known:
        return node
    attrs = {**node.attrs, "captures": captures - len(known)}
    for key, body in node.attrs.items():
        if isinstance(body, Graph):
            shift = len(body.inputs) - len(node.inputs)
            constants = {body.inputs[i + shift].name: array for i, array in known.items()}
            inputs = tuple(v for v in body.inputs if v.name not in constants)
            attrs[key] = body.replace(inputs=inputs, constants={**body.constants, **constants})
    return node.replace(inputs=tuple(n for i, n in enumerate(node.inputs) if i not in known), attrs=attrs)


HOST = Candidate("numpy", (), _legal, _cost, _lower, accuracy="exact")
"""The op's own reference."""
