"""Dead nodes: those whose results nobody reads."""

from __future__ import annotations

from sigconv.graph.ir import Graph, Node


def run(graph: Graph) -> Graph:
    """The graph without nodes and constants that no output depends on; the same graph where there are none.

    Expects topological order. Trailing outputs nobody reads stay: they may decide what the node computes.
    """
    needed = {v.name for v in graph.outputs}
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs) - {""}:
            kept.append(node)
            needed.update(node.inputs)
    if len(kept) == len(graph.nodes) and needed.issuperset(graph.constants):
        return graph
    constants = {name: array for name, array in graph.constants.items() if name in needed}
    return graph.replace(nodes=tuple(reversed(kept)), constants=constants)
