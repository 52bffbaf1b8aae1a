"""Half precision is a storage format here: such graphs compute in float32 between casts at their edges."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from sigconv.graph.ir import Graph, Node, Value

_HALVES = {np.dtype(np.float16): 10, np.dtype(ml_dtypes.bfloat16): 16}
"""Formats that are widened, with their ONNX element type."""
_FLOAT = 1


def _is_half(dtype: np.dtype[Any] | None) -> bool:
    return dtype in _HALVES


def widen(graph: Graph) -> Graph:
    """The same function with every half-precision value in float32; inputs and outputs keep their dtypes.

    A ``Cast`` to half precision inside the graph still rounds.
    """
    halves = any(_is_half(v.dtype) for v in (*graph.inputs, *graph.outputs)) or any(
        _is_half(c.dtype) for c in graph.constants.values()
    )
    casts = any(n.op == "Cast" and n.attrs.get("to") in _HALVES.values() for n in graph.nodes)
    if not halves and not casts:
        return graph
    renamed: dict[str, str] = {}
    nodes: list[Node] = []
    for v in graph.inputs:
        if _is_half(v.dtype):
            renamed[v.name] = f"{v.name}.float32"
            nodes.append(Node("Cast", (v.name,), (renamed[v.name],), {"to": _FLOAT}))
    constants = {k: c.astype(np.float32) if _is_half(c.dtype) else c for k, c in graph.constants.items()}
    out_types = {v.name: _HALVES[v.dtype] for v in graph.outputs if v.dtype in _HALVES}
    narrow = {name: f"{name}.float32" for name in out_types}
    for node in graph.nodes:
        inputs = tuple(narrow.get(renamed.get(i, i), renamed.get(i, i)) for i in node.inputs)
        outputs = tuple(narrow.get(o, o) for o in node.outputs)
        if node.op == "Cast" and node.attrs.get("to") in _HALVES.values():
            rounded = f"{node.outputs[0]}.rounded"
            nodes.append(node.replace(inputs=inputs, outputs=(rounded,)))
            nodes.append(Node("Cast", (rounded,), outputs, {"to": _FLOAT}))
        else:
            nodes.append(node.replace(inputs=inputs, outputs=outputs))
    for name, to in out_types.items():
        source = renamed.get(name, narrow[name])
        nodes.append(Node("Cast", (source,), (name,), {"to": to}))
    values = {k: Value(k, np.dtype(np.float32), v.shape) if _is_half(v.dtype) else v for k, v in graph.values.items()}
    return graph.replace(nodes=tuple(nodes), constants=constants, values=values)
