"""A convolution by one candidate, with what follows it, beside naive loops in float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sigconv.graph.ir import Graph, Node
from sigconv.planner.compile import compile_graph
from sigconv.runtime.session import Session
from tests.cases import windows

EPILOGUES = [(0.2, -np.inf, np.inf), (1.0, 0.0, 6.0), (1.0, -0.5, 0.25)]
"""Slope below 0, and bounds, of the activation after a residual."""


def run(
    graph: Graph, feeds: Mapping[str, np.ndarray], name: str, threads: int = 1, tolerance: float = 1e-4
) -> np.ndarray:
    """The first output; the candidate ``name`` took part."""
    shapes = {k: a.shape for k, a in feeds.items()}
    program = compile_graph(graph, shapes, threads, only={name}, tolerance=tolerance)
    assert name in [row.algorithm for row in program.rows]
    return next(iter(Session(program).run(feeds).values()))


def exact(graph: Graph, x: np.ndarray, **window: Any) -> np.ndarray:
    """What the convolution of x with the graph's w and b gives in float64."""
    wide = [a.astype(np.float64) for a in (x, graph.constants["w"], graph.constants["b"])]
    return windows.conv_nd(*wide, **window)


def epilogue(alpha: float, low: float, high: float) -> tuple[tuple[Node, ...], dict[str, np.ndarray]]:
    """Nodes that add ``r`` to ``c`` and activate, one of `EPILOGUES`; and their constants."""
    last = (
        Node("LeakyRelu", ("s",), ("y",), {"alpha": alpha}, "leaky")
        if alpha != 1.0
        else Node("Clip", ("s", "low", "high"), ("y",), {}, "clip")
    )
    limits = {"low": np.array(low, np.float32), "high": np.array(high, np.float32)}
    return (Node("Add", ("c", "r"), ("s",), {}, "add"), last), limits


def activated(total: np.ndarray, alpha: float, low: float, high: float) -> np.ndarray:
    """What the epilogue makes of the sum."""
    return np.clip(np.where(total < 0, alpha * total, total), low, high)
