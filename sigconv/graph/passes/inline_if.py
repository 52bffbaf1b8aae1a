"""An If whose condition is known is the nodes of one of its branches."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sigconv.graph.ir import Graph, Node, fresh


def run(graph: Graph) -> Graph:
    """The graph with the chosen branch in place of every If on a constant; the same graph where there is none."""
    known = [_choice(node, graph.constants) for node in graph.nodes]
    if not any(branch is not None for branch in known):
        return graph
    taken = graph.names()
    constants = dict(graph.constants)
    nodes: list[Node] = []
    for node, branch in zip(graph.nodes, known, strict=True):
        nodes += [node] if branch is None else _spliced(node, branch, constants, taken)
    return graph.replace(nodes=tuple(nodes), constants=constants)


def _choice(node: Node, constants: Mapping[str, np.ndarray]) -> Graph | None:
    """The branch that an If takes for certain."""
    condition = constants.get(node.inputs[0]) if node.op == "If" and not node.domain else None
    if condition is None or condition.size != 1:
        return None
    branch: Graph = node.attrs["then_branch" if condition.reshape(-1)[0] else "else_branch"]
    fits = len(branch.inputs) == len(node.inputs) - 1 and len(branch.outputs) >= len(node.outputs)
    return branch if fits else None


def _spliced(node: Node, branch: Graph, constants: dict[str, np.ndarray], taken: set[str]) -> list[Node]:
    """The branch's nodes with the If's own values at their ends and fresh names between."""
    names = {"": "", **{v.name: outer for v, outer in zip(branch.inputs, node.inputs[1:], strict=True)}}
    written = {out for inner in branch.nodes for out in inner.outputs if out}
    for v, outer in zip(branch.outputs, node.outputs, strict=False):
        if outer and v.name in written:
            names.setdefault(v.name, outer)
    prefix = node.name or node.outputs[0]
    for name in (*branch.constants, *(out for inner in branch.nodes for out in inner.outputs)):
        if name not in names:
            names[name] = fresh(name if name not in taken else f"{prefix}/{name}", taken)
    constants.update((names[name], array) for name, array in branch.constants.items())
    nodes = [
        inner.replace(inputs=tuple(names[i] for i in inner.inputs), outputs=tuple(names[o] for o in inner.outputs))
        for inner in branch.nodes
    ]
    through = [
        Node("Identity", (names[v.name],), (outer,))
        for v, outer in zip(branch.outputs, node.outputs, strict=False)
        if outer and names[v.name] != outer
    ]
    return nodes + through
