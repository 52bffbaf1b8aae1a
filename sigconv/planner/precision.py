"""Half precision is a storage format here: such graphs compute in float32 between casts at their edges."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from sigconv.graph.infer import infer
from sigconv.graph.ir import Graph, Node, Value, fresh

_HALVES = {np.dtype(np.float16): 10, np.dtype(ml_dtypes.bfloat16): 16}
"""Formats that are widened, with their ONNX element type."""
_FLOAT = 1
_DTYPE_ATTRIBUTES = ("dtype", "output_dtype", "output_datatype")
"""Where operators other than Cast name the element type of their result."""


def _is_half(dtype: np.dtype[Any] | None) -> bool:
    return dtype in _HALVES


def widen(graph: Graph) -> Graph:
    """The same function with every half-precision value in float32; inputs and outputs keep their dtypes.

    A ``Cast`` to half precision inside the graph still rounds.
    """
    nodes = tuple(map(_widened, graph.nodes))
    dtypes = [v.dtype for v in (*graph.inputs, *graph.outputs)] + [c.dtype for c in graph.constants.values()]
    casts = any(n.op == "Cast" and n.attrs.get("to") in _HALVES.values() for n in nodes)
    if not any(map(_is_half, dtypes)) and not casts:
        return graph.replace(nodes=nodes)
    taken = graph.names()
    constants = dict(graph.constants)
    wide: dict[str, str] = {}  # what nodes read and write in place of a half-precision value that keeps its name
    before: list[Node] = []
    for v in graph.inputs:
        if _is_half(v.dtype):
            wide[v.name] = fresh(f"{v.name}.float32", taken)
            before.append(Node("Cast", (v.name,), (wide[v.name],), {"to": _FLOAT}))
    for name, array in graph.constants.items():
        if _is_half(array.dtype):
            wide[name] = fresh(f"{name}.float32", taken)
            constants[wide[name]] = array.astype(np.float32)
            constants[wide[name]].flags.writeable = False
    after: list[Node] = []
    facts = infer(graph) if any(v.dtype is None for v in graph.outputs) else {}
    for v in graph.outputs:
        dtype = v.dtype or facts[v.name].dtype
        if dtype in _HALVES and v.name not in wide:
            wide[v.name] = fresh(f"{v.name}.float32", taken)
            after.append(Node("Cast", (wide[v.name],), (v.name,), {"to": _HALVES[dtype]}))
    within: list[Node] = []
    for node in nodes:
        inputs, outputs = (tuple(wide.get(name, name) for name in names) for names in (node.inputs, node.outputs))
        if node.op == "Cast" and node.attrs.get("to") in _HALVES.values():
            rounded = fresh(f"{node.outputs[0]}.rounded", taken)
            within.append(node.replace(inputs=inputs, outputs=(rounded,)))
            within.append(Node("Cast", (rounded,), outputs, {"to": _FLOAT}))
        else:
            within.append(node.replace(inputs=inputs, outputs=outputs))
    values = {k: Value(k, np.dtype(np.float32), v.shape) if _is_half(v.dtype) else v for k, v in graph.values.items()}
    return graph.replace(nodes=(*before, *within, *after), constants=constants, values=values)


def _widened(node: Node) -> Node:
    """The node without half precision among its attributes; a Cast keeps its target."""
    attrs: dict[str, Any] = {}
    for name, value in node.attrs.items():
        if name in _DTYPE_ATTRIBUTES and value in _HALVES.values():
            attrs[name] = _FLOAT
        elif isinstance(value, np.ndarray) and _is_half(value.dtype):
            attrs[name] = value.astype(np.float32)
    return node.replace(attrs={**node.attrs, **attrs}) if attrs else node
