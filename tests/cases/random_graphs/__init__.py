"""Random convolutional networks as Graphs, with feeds: every kind of node the planner treats in a way of its own.

Node by node a seeded `Maker` picks a kind and values of fitting shape. Values stay of moderate size (what comes out of
an unbounded operator is bounded again) so that rounding errors stay small; operators that jump read ``exact`` values
only: inputs, and what was merely moved or rounded since. Imports NumPy and the Graph.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sigconv.graph.ir import Graph, Value

# Each adds its kinds to KINDS; a seed means the same graph only in this order.
from tests.cases.random_graphs import cnn_layers, elementwise, movement, reductions, types_and_shapes  # noqa: F401
from tests.cases.random_graphs.maker import CHANNELS, KINDS, Made, Maker


def make(seed: int, nodes: int = 12, only: Sequence[str] = ()) -> tuple[Graph, dict[str, np.ndarray]]:
    """A graph of about ``nodes`` nodes (of the kinds in ``only``) and a feed for each input; the same for a seed."""
    m = Maker(seed)
    rank = m.choice([1, 2, 2, 2, 2, 3])
    shape = (m.integer(1, 2), m.choice(CHANNELS), *[m.integer(1, {1: 40, 2: 11, 3: 5}[rank]) for _ in range(rank)])
    shapes = {"x": shape}
    if m.chance(0.4):
        shapes["other"] = m.choice([shape, shape, (1, shape[1], *[1] * rank), (m.integer(1, 6), m.choice(CHANNELS))])
    if m.chance(0.2):
        shapes["number"] = ()
    feeds = {name: np.asarray(1.5 * m.rng.standard_normal(s)).astype(m.float_type) for name, s in shapes.items()}
    if m.chance(0.15):  # not finite here and there
        for feed in feeds.values():
            special = m.rng.random(feed.shape) < 0.02
            feed[special] = m.rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0], int(special.sum()))
    m.values += [Made(name, s, m.float_type, exact=True) for name, s in shapes.items()]
    if m.chance(0.1):
        feeds["zero"] = np.zeros(2, np.int64)
        m.values.append(Made("zero", (2,), np.dtype(np.int64)))
    kinds = [KINDS[k] for k in only] or list(KINDS.values())
    kinds = kinds if only else [*kinds, *[KINDS[k] for k in ("conv", "conv", "conv", "depthwise", "binary", "concat")]]
    count = m.integer(1, 2 * nodes)
    for _ in range(4 * count):
        if len(m.nodes) >= count:
            break
        m.choice(kinds)(m)
    if not m.nodes:
        m.add("Relu", ["x"], shape)
    read = {i for node in m.nodes for i in node.inputs}
    outputs = [v for v in m.values if v.name not in read]  # else dead
    outputs += [v for v in m.values if v.name in read and m.chance(0.15)]
    graph = Graph(
        nodes=tuple(m.nodes),
        inputs=tuple(Value(n, a.dtype, a.shape) for n, a in feeds.items()),
        outputs=tuple(Value(v.name, v.dtype) for v in outputs),
        constants=m.constants,
        name=f"random {seed}",
    )
    if m.constants and m.chance(0.1):
        name = next(iter(m.constants))
        graph = graph.replace(outputs=(*graph.outputs, Value(name, m.constants[name].dtype)))
    return graph, feeds
