"""The slow oracle: every node by its NumPy reference, in order. What a Program must reproduce."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sigconv.errors import InputError
from sigconv.graph.evaluate import evaluate, execute
from sigconv.graph.ir import Graph, Node

_NARROW, _DOUBLE = (1, 10, 16), 11  # TensorProto.FLOAT, FLOAT16, BFLOAT16; DOUBLE
_DTYPE_ATTRIBUTES = ("to", "dtype", "output_dtype")


def interpret(
    graph: Graph,
    feeds: Mapping[str, np.ndarray],
    *,
    outputs: Sequence[str] | None = None,
    float64: bool = False,
    keep: bool = False,
) -> dict[str, np.ndarray]:
    """Run the graph on ``feeds``, one array an input name.

    ``outputs`` names the values to return (default: the graph's outputs, in order); ``keep`` returns every value
    instead. ``float64`` computes everything that is float16, bfloat16 or float32 in double precision. Values are
    dropped after their last use. InputError for a missing or unknown feed or output, ModelError where a node fails.
    """
    names = [v.name for v in graph.inputs]
    missing, extra = [n for n in names if n not in feeds], sorted(set(feeds) - set(names))
    if missing or extra:
        raise InputError(f"feeds lack {missing}, and {extra} are not inputs; the inputs are {names}")
    wanted = [v.name for v in graph.outputs] if outputs is None else list(outputs)
    known = {*names, *graph.constants, *(out for node in graph.nodes for out in node.outputs if out)}
    if not known.issuperset(wanted):
        raise InputError(f"no value is named {', '.join(repr(n) for n in wanted if n not in known)}")

    widen = _widen if float64 else lambda x: x
    values: dict[str, np.ndarray] = {
        name: widen(np.asarray(x)) for name, x in {**graph.constants, **{n: feeds[n] for n in names}}.items()
    }

    def run(node: Node, arrays: Sequence[np.ndarray | None]) -> Sequence[np.ndarray]:
        return [widen(x) for x in evaluate(_widened(node) if float64 else node, arrays)]

    execute(graph, values, wanted, run=run, keep=keep)
    return values if keep else {name: values[name] for name in wanted}


def _widen(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64) if array.dtype.name in ("float16", "bfloat16", "float32") else array


def _widened(node: Node) -> Node:
    """The node with the narrow float dtypes and tensors among its attributes made double."""
    attrs: dict[str, Any] = dict(node.attrs)
    for name, value in attrs.items():
        if name in _DTYPE_ATTRIBUTES and value in _NARROW:
            attrs[name] = _DOUBLE
        elif isinstance(value, np.ndarray):
            attrs[name] = _widen(value)
        elif isinstance(value, Graph):
            constants = {k: _widen(c) for k, c in value.constants.items()}
            attrs[name] = value.replace(nodes=tuple(map(_widened, value.nodes)), constants=constants)
    return node.replace(attrs=attrs)
