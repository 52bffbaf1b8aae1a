"""Pixels in the lanes against naive loops in float64: ranks, borders, strides, epilogues, thread counts."""

from __future__ import annotations

import numpy as np
import pytest

from sigconv.graph.ir import Graph, Node, Value
from sigconv.planner.compile import compile_graph
from tests.cases.one_candidate import EPILOGUES, activated, epilogue, exact, run

NAME = "direct_pixels"
CASES = [  # x, output channels, taps, pads, strides, dilations
    ((1, 1, 28, 28), 6, (5, 5), (0, 0, 0, 0), (1, 1), (1, 1)),
    ((2, 3, 19, 21), 1, (3, 3), (1, 1, 1, 1), (1, 1), (1, 1)),
    ((1, 5, 33, 50), 2, (4, 7), (0, 6, 5, 2), (2, 1), (1, 1)),
    ((3, 2, 12, 130), 3, (3, 1), (2, 0, 1, 0), (1, 1), (2, 1)),
    ((1, 7, 6, 300), 5, (1, 3), (0, 2, 0, 2), (3, 1), (1, 2)),
    ((1, 2, 3, 17), 11, (9, 9), (8, 8, 8, 8), (1, 1), (1, 1)),
    ((2, 4, 97), 3, (5,), (3, 1), (1,), (3,)),
    ((1, 1, 1, 16), 4, (1, 1), (0, 0, 0, 0), (1, 1), (1, 1)),
]


def graph_of(dtype, shape, channels, taps, pads, strides, dilations, tail=(), extra=None):
    rng = np.random.default_rng(7)
    weights = (rng.standard_normal((channels, shape[1], *taps)) / np.sqrt(shape[1] * np.prod(taps))).astype(dtype)
    constants = {"w": weights, "b": rng.standard_normal(channels).astype(dtype)} | (extra or {})
    attrs = {"pads": pads, "strides": strides, "dilations": dilations}
    nodes = (Node("Conv", ("x", "w", "b"), ("c",), attrs, "conv"), *tail)
    inputs = [Value("x", np.dtype(dtype), shape)]
    if any("r" in node.inputs for node in tail):
        inputs.append(Value("r", np.dtype(dtype), (shape[0], channels, *shape[2:])))
    return Graph(nodes, tuple(inputs), (Value(nodes[-1].outputs[0], np.dtype(dtype)),), constants)


@pytest.mark.parametrize("dtype, error", [(np.float32, 2e-6), (np.float64, 1e-14)])
@pytest.mark.parametrize("shape, channels, taps, pads, strides, dilations", CASES)
def test_against_naive_loops(shape, channels, taps, pads, strides, dilations, dtype, error):
    x = np.random.default_rng(1).standard_normal(shape).astype(dtype)
    graph = graph_of(dtype, shape, channels, taps, pads, strides, dilations)
    want = exact(graph, x, pads=pads, strides=strides, dilations=dilations)
    results = [run(graph, {"x": x}, NAME, threads) for threads in (1, 2, 3)]
    assert np.abs(results[0] - want).max() <= error * np.abs(want).max()
    assert all(np.array_equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("channels", [1, 3, 6])
@pytest.mark.parametrize("alpha, low, high", EPILOGUES)
def test_residual_and_activation(channels, alpha, low, high):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((2, 5, 9, 37)).astype(np.float32)
    r = rng.standard_normal((2, channels, 9, 37)).astype(np.float32)
    tail, limits = epilogue(alpha, low, high)
    graph = graph_of(np.float32, x.shape, channels, (3, 3), (1, 1, 1, 1), (1, 1), (1, 1), tail, limits)
    total = exact(graph, x, pads=(1, 1, 1, 1)) + r
    want = activated(total, alpha, low, high)
    got = run(graph, {"x": x, "r": r}, NAME, 2)
    assert np.abs(got - want).max() <= 2e-6 * np.abs(total).max()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_reaches_only_its_windows(bad):
    x = np.random.default_rng(3).standard_normal((1, 2, 20, 40)).astype(np.float32)
    x[0, 1, 7, 30] = bad
    got = run(graph_of(np.float32, x.shape, 3, (3, 3), (1, 1, 1, 1), (1, 1), (1, 1)), {"x": x}, NAME)
    touched = np.zeros((20, 40), bool)
    touched[6:9, 29:32] = True
    assert np.array_equal(np.isfinite(got[0]).all(axis=0), ~touched)


def test_short_rows_and_column_strides_are_refused_with_a_reason():
    for shape, strides, why in (((1, 3, 20, 3), (1, 1), "do not fill"), ((1, 3, 20, 90), (1, 2), "stride 1")):
        graph = graph_of(np.float32, shape, 2, (1, 1), (0, 0, 0, 0), strides, (1, 1))
        program = compile_graph(graph, {"x": shape}, 1)
        assert why in dict(next(row for row in program.rows if row.op == "Conv").rejected)[NAME]
