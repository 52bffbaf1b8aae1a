"""Constant folding: what does not depend on the feeds is computed once, shape sub-graphs of known sizes included."""

from __future__ import annotations

from sigconv.graph.infer import fold, infer
from sigconv.graph.ir import Graph

LARGEST = 1 << 26
"""Bytes up to which a tensor is computed here; a larger one waits for `specialize`."""


def run(graph: Graph) -> Graph:
    """The graph with every value that is known ahead as a constant; the same graph where there is none."""
    return fold(graph, infer(graph, limit=LARGEST))
