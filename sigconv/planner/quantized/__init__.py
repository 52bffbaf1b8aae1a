"""Quantised tensors inside a Program: float32 values that hold the 8-bit codes.

Operators on int8 and uint8 become operators on float32, whose kernels are there: sums of products of codes are whole
numbers, exact in float32 below 2^24 in any order, and in float64 where the weights' own sum says that they may be
larger. Rounding and saturation are one step, ``Saturate``, that fuses with its neighbours. What has no rule gets bytes,
between casts.
"""

from __future__ import annotations

from sigconv.graph.ir import Graph
from sigconv.planner.quantized import pointwise, products  # noqa: F401  (imported for the rules they add)
from sigconv.planner.quantized.rewriter import STARTS, Rewriter


def in_codes(graph: Graph) -> Graph:
    """The same function of a graph of known sizes; the same graph where nothing is quantised."""
    return Rewriter(graph).run() if any(n.op in STARTS for n in graph.nodes) else graph
