"""Units that may run as one although each is a convolution of its own: what lies between them stays in the cache."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from sigconv.graph.ir import Graph
from sigconv.planner.fuse import Unit

CHAIN = "ConvChain"
"""The op of a unit of several convolutions, each the only reader of the one before; no ONNX operator has this name."""

LENGTH = 3
"""Convolutions in a chain."""


def chained(units: Sequence[Unit], graph: Graph, offered: Callable[[Unit], bool]) -> list[Unit]:
    """The units, with convolutions in a row made one where ``offered`` says that something runs them so."""
    outputs = {v.name for v in graph.outputs}
    reads = Counter(name for unit in units for name in unit.inputs)
    reader = {name: unit for unit in units if unit.op == "Conv" for name in unit.node.inputs[:1]}
    taken: set[int] = set()
    chains: list[Unit] = []
    for unit in units:
        parts = [unit]
        while len(parts) < LENGTH and parts[-1].op == "Conv" and id(parts[-1]) not in taken:
            value = parts[-1].output
            following = reader.get(value)
            if following is None or value in outputs or reads[value] != 1 or following.residual == value:
                break
            parts.append(following)
        if len(parts) == LENGTH and not any(id(p) in taken for p in parts):
            last = parts[-1]
            members = [m for p in parts for m in p.members]
            chain = Unit(CHAIN, last.node, members, last.outputs, last.position, parts=tuple(parts))
            if offered(chain):
                chains.append(chain)
                taken.update(map(id, parts))
    return sorted([*chains, *(u for u in units if id(u) not in taken)], key=lambda u: u.position)
