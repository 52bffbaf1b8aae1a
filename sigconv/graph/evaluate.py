"""Running nodes by their NumPy references: one, or a whole graph in order, sub-graphs included."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from sigconv.errors import ModelError, UnsupportedError
from sigconv.graph.ir import Graph, Node, Value
from sigconv.ops.spec import OpSpec, lookup

FAILURES = (ArithmeticError, ValueError, TypeError, IndexError, LookupError, AttributeError, MemoryError)
"""What NumPy raises for operands that cannot be."""


def spec_of(node: Node) -> OpSpec:
    """The node's operator; UnsupportedError where it is not registered."""
    spec = lookup(node.op, node.domain)
    if spec is None:
        raise UnsupportedError(f"{node.label}: the operator is not implemented", (node.label,))
    return spec


class Body:
    """A sub-graph as its operator calls it: an array an input, an array an output. This one interprets it."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    @property
    def outputs(self) -> tuple[Value, ...]:
        """What is declared of the results."""
        return self.graph.outputs

    def __call__(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        check_count(self.graph, len(arrays))
        values = dict(self.graph.constants)
        values.update((v.name, x) for v, x in zip(self.graph.inputs, arrays, strict=True))
        names = [v.name for v in self.outputs]
        found = execute(self.graph, values, names)
        return tuple(found[name] for name in names)


def check_count(graph: Graph, given: int) -> None:
    """ModelError unless a sub-graph takes so many inputs."""
    if given != len(graph.inputs):
        raise ModelError(f"sub-graph {graph.name!r} takes {len(graph.inputs)} inputs, not {given}")


def evaluate(node: Node, inputs: Sequence[np.ndarray | None]) -> tuple[np.ndarray, ...]:
    """Run the node's reference, one array an output name; every failure is a ModelError that names the node."""
    attrs = {k: Body(v) if isinstance(v, Graph) else v for k, v in node.attrs.items()}
    try:
        with np.errstate(all="ignore"):
            found = spec_of(node).evaluate(inputs, attrs, len(node.outputs))
    except UnsupportedError:
        raise
    except FAILURES as e:
        shapes = ", ".join("absent" if x is None else f"{x.dtype}{list(x.shape)}" for x in inputs)
        raise ModelError(f"{node.label} on ({shapes}): {e}") from e
    if len(found) < len(node.outputs):
        raise ModelError(f"{node.label} has {len(node.outputs)} outputs, {node.op} makes {len(found)}")
    return tuple(np.asarray(x) for x in found[: len(node.outputs)])


Run = Callable[[Node, Sequence[np.ndarray | None]], Sequence[np.ndarray]]


def execute(
    graph: Graph, values: dict[str, Any], wanted: Collection[str], *, run: Run = evaluate, keep: bool = False
) -> dict[str, Any]:
    """All nodes in order, on ``values`` of the inputs and constants, which is filled and returned.

    Values other than ``wanted`` are dropped after their last use, unless all are to be kept.
    """
    uses = Counter(name for node in graph.nodes for name in set(node.inputs))
    uses.update(wanted)
    for node in graph.nodes:
        results = run(node, [values[name] if name else None for name in node.inputs])
        values.update((name, x) for name, x in zip(node.outputs, results, strict=True) if name)
        if keep:
            continue
        for name in set(node.inputs) - {""}:
            uses[name] -= 1
        for name in {*node.inputs, *node.outputs} - {""}:
            if uses[name] == 0:
                del values[name]
    return values
