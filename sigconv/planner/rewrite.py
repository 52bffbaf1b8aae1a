"""Rewrites for the machine only, never exported: ops that are sums of simpler ones that kernels fuse."""

from __future__ import annotations

import numpy as np

from sigconv.graph.ir import Graph, Node, Value


def rewrite(graph: Graph) -> Graph:
    """BatchNormalization with constant statistics becomes Mul and Add, so that it joins an elementwise pass."""
    nodes: list[Node] = []
    constants = dict(graph.constants)
    values = dict(graph.values)
    for node in graph.nodes:
        known = (
            node.op == "BatchNormalization"
            and len([o for o in node.outputs if o]) == 1
            and not node.attrs.get("training_mode", 0)
        )
        x = values.get(node.inputs[0]) if known else None
        if x is None or x.shape is None or len(x.shape) < 2 or not all(i in graph.constants for i in node.inputs[1:5]):
            nodes.append(node)
            continue
        gamma, beta, mean, variance = (graph.constants[i].astype(np.float64) for i in node.inputs[1:5])
        scale = gamma / np.sqrt(variance + node.attrs.get("epsilon", 1e-5))
        out, dtype = node.outputs[0], x.dtype
        shape = (-1, *[1] * (len(x.shape) - 2))
        constants[f"{out}.scale"] = scale.reshape(shape).astype(dtype)
        constants[f"{out}.shift"] = (beta - mean * scale).reshape(shape).astype(dtype)
        values[f"{out}.scaled"] = Value(f"{out}.scaled", dtype, x.shape)
        nodes.append(Node("Mul", (node.inputs[0], f"{out}.scale"), (f"{out}.scaled",), name=node.name))
        nodes.append(Node("Add", (f"{out}.scaled", f"{out}.shift"), (out,), name=node.name))
    return graph.replace(nodes=tuple(nodes), constants=constants, values=values)
