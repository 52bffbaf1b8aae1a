"""Half precision is a storage format here: such graphs compute in float32 between casts at their edges."""

from __future__ import annotations

import operator
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
    inner = _inside(graph)
    if inner is None:
        return graph
    taken = inner.names()
    facts = infer(graph) if any(v.dtype is None for v in graph.outputs) else {}
    wide: dict[str, str] = {}  # the name inside of a half-precision value at the edge, which keeps its own
    before: list[Node] = []
    after: list[Node] = []
    for v in graph.inputs:
        if _is_half(v.dtype):
            wide[v.name] = fresh(f"{v.name}.float32", taken)
            before.append(Node("Cast", (v.name,), (wide[v.name],), {"to": _FLOAT}))
    for v in graph.outputs:
        dtype = v.dtype or facts[v.name].dtype
        if dtype in _HALVES and v.name not in wide:
            wide[v.name] = fresh(f"{v.name}.float32", taken)
            after.append(Node("Cast", (wide[v.name],), (v.name,), {"to": _HALVES[dtype]}))

    def rename(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(wide.get(name, name) for name in names)

    within = tuple(n.replace(inputs=rename(n.inputs), outputs=rename(n.outputs)) for n in inner.nodes)
    constants = {wide.get(name, name): array for name, array in inner.constants.items()}
    return graph.replace(nodes=(*before, *within, *after), constants=constants, values=inner.values)


def _inside(graph: Graph) -> Graph | None:
    """The graph with all its values in float32, those at the edges too; None where nothing is in half precision."""
    nodes: list[Node] = []
    taken = graph.names()
    for node in map(_widened, graph.nodes):
        if node.op == "Cast" and node.attrs.get("to") in _HALVES.values():
            rounded = fresh(f"{node.outputs[0]}.rounded", taken)
            nodes.append(node.replace(outputs=(rounded,)))
            nodes.append(Node("Cast", (rounded,), node.outputs, {"to": _FLOAT}))
        else:
            nodes.append(node)
    edges = (*graph.inputs, *graph.outputs)
    halves = any(_is_half(v.dtype) for v in edges) or any(_is_half(c.dtype) for c in graph.constants.values())
    if not halves and len(nodes) == len(graph.nodes) and all(map(operator.is_, nodes, graph.nodes)):
        return None
    constants = dict(graph.constants)
    for name, array in graph.constants.items():
        if _is_half(array.dtype):
            constants[name] = array.astype(np.float32)
            constants[name].flags.writeable = False
    return graph.replace(
        nodes=tuple(nodes),
        inputs=tuple(map(_wide, graph.inputs)),
        outputs=tuple(map(_wide, graph.outputs)),
        constants=constants,
        values={k: _wide(v) for k, v in graph.values.items()},
    )


def _wide(v: Value) -> Value:
    return Value(v.name, np.dtype(np.float32), v.shape) if _is_half(v.dtype) else v


def _widened(node: Node) -> Node:
    """The node without half precision among its attributes, sub-graphs included; a Cast keeps its target."""
    attrs: dict[str, Any] = {}
    for name, value in node.attrs.items():
        if name in _DTYPE_ATTRIBUTES and value in _HALVES.values():
            attrs[name] = _FLOAT
        elif isinstance(value, np.ndarray) and _is_half(value.dtype):
            attrs[name] = value.astype(np.float32)
        elif isinstance(value, Graph) and (inner := _inside(value)) is not None:
            attrs[name] = inner
    return node.replace(attrs={**node.attrs, **attrs}) if attrs else node
