"""Nodes that hand their first input on unchanged: their readers read that input instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from sigconv.graph.infer import infer
from sigconv.graph.ir import Graph, Node
from sigconv.ops.cast import element_dtype
from sigconv.ops.spec import Fact

Facts = Mapping[str, Fact]


def _value(node: Node, facts: Facts, i: int) -> np.ndarray | None:
    name = node.inputs[i] if i < len(node.inputs) else ""
    return facts[name].value if name else None


def _same_shape(node: Node, facts: Facts) -> bool:
    """Whether the output's shape is known, from sizes and symbols, to be the input's."""
    given, made = facts[node.inputs[0]].shape, facts[node.outputs[0]].shape
    return given is not None and given == made and None not in given


def _inference(node: Node, facts: Facts) -> bool:
    if len(node.inputs) < 3 or not node.inputs[2]:
        return True
    training = _value(node, facts, 2)
    return training is not None and not training.any()


def _cast(node: Node, facts: Facts) -> bool:
    return facts[node.inputs[0]].dtype == element_dtype(node.attrs["to"])


def _no_pads(node: Node, facts: Facts) -> bool:
    pads = _value(node, facts, 1)
    return pads is not None and not pads.any()


def _ordered(node: Node, facts: Facts) -> bool:
    perm = node.attrs.get("perm")
    return perm is not None and list(perm) == sorted(perm)


def _unclipped(node: Node, facts: Facts) -> bool:
    return not any(node.inputs[1:])


_NO_OP: dict[str, Callable[[Node, Facts], bool]] = {
    "Identity": lambda node, facts: True,
    "Dropout": _inference,
    "Cast": _cast,
    "Pad": _no_pads,
    "Transpose": _ordered,
    "Clip": _unclipped,
    "Concat": lambda node, facts: len(node.inputs) == 1,
    "Sum": lambda node, facts: len(node.inputs) == 1,
    "Max": lambda node, facts: len(node.inputs) == 1,
    "Min": lambda node, facts: len(node.inputs) == 1,
    "Mean": lambda node, facts: len(node.inputs) == 1,
    "Reshape": _same_shape,
    "Flatten": _same_shape,
    "Squeeze": _same_shape,
    "Expand": _same_shape,
}
"""When each operator does nothing. Only nodes of one used output are asked."""


def run(graph: Graph) -> Graph:
    """The graph without no-op nodes; graph inputs and outputs keep their names. The same graph where there are none."""
    facts = infer(graph)
    outputs = {v.name for v in graph.outputs}
    fixed = {v.name for v in graph.inputs} | set(graph.constants)
    producers = graph.producers()
    alias: dict[str, str] = {}  # value -> the value read instead
    renamed: dict[str, str] = {}  # value -> the graph output's name it is written under instead
    kept: list[Node] = []
    for node in graph.nodes:
        no_op = _NO_OP.get(node.op) if not node.domain else None
        if no_op is None or len(node.outputs) != 1 or not node.inputs[0] or not no_op(node, facts):
            kept.append(node)
            continue
        source, out = alias.get(node.inputs[0], node.inputs[0]), node.outputs[0]
        if out not in outputs:
            alias[out] = source
        elif source not in fixed and source not in outputs and source not in renamed and source in producers:
            renamed[source] = out
        else:
            kept.append(node)  # an output that is an input, a constant or another output needs a node of its own
    if len(kept) == len(graph.nodes):
        return graph

    def name(old: str) -> str:
        source = alias.get(old, old)
        return renamed.get(source, source)

    nodes = tuple(
        n.replace(inputs=tuple(map(name, n.inputs)), outputs=tuple(renamed.get(o, o) for o in n.outputs)) for n in kept
    )
    return graph.replace(nodes=nodes)
