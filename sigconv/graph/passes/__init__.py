"""Graph to Graph, still plain ONNX: each pass is a module with one pure function ``run``.

A pass returns the very same graph where it finds nothing to do, so running all of them until that is every pass's
answer is a fixpoint.
"""

from __future__ import annotations

from sigconv.graph.ir import Graph
from sigconv.graph.passes import (
    eliminate_dead,
    eliminate_identity,
    fold_batch_norm,
    fold_constants,
    inline_if,
    share_constants,
    toposort,
)

PASSES = (toposort, fold_constants, inline_if, eliminate_identity, fold_batch_norm, eliminate_dead, share_constants)
"""In the order they run: what one leaves, the next may use."""

MOST_ROUNDS = 100


def simplify(graph: Graph) -> Graph:
    """The graph after all passes, repeated until none changes it."""
    for _ in range(MOST_ROUNDS):
        before = graph
        for each in PASSES:
            graph = each.run(graph)
        if graph is before:
            return graph
    raise RuntimeError(f"the passes did not settle in {MOST_ROUNDS} rounds")
