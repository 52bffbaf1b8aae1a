"""Equal small constants, kept once: axes, shapes and scalars that exporters write for every node anew."""

from __future__ import annotations

import numpy as np

from sigconv.digest import digest
from sigconv.graph.ir import Graph

LARGEST = 4096
"""Bytes up to which constants are compared; reading every weight would cost more than it saves."""


def run(graph: Graph) -> Graph:
    """The graph with small constants of equal bits, dtype and shape under one name; the same graph without any."""
    outputs = {v.name for v in graph.outputs}
    first: dict[tuple[str, tuple[int, ...], bytes], str] = {}
    alias: dict[str, str] = {}
    for name, array in graph.constants.items():
        if array.dtype.kind != "O" and array.nbytes <= LARGEST:
            kept = first.setdefault((array.dtype.name, array.shape, _digest(array)), name)
            if kept != name and name not in outputs:
                alias[name] = kept
    if not alias:
        return graph
    nodes = tuple(node.replace(inputs=tuple(alias.get(n, n) for n in node.inputs)) for node in graph.nodes)
    return graph.replace(nodes=nodes, constants={k: v for k, v in graph.constants.items() if k not in alias})


def _digest(array: np.ndarray) -> bytes:
    return digest(array.tobytes()).digest()
