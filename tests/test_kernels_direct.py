"""Blocked convolutions on each variant of the direct kernel against naive loops in float64, and which one runs."""

from __future__ import annotations

import numpy as np
import pytest

from sigconv.graph.ir import Graph, Node, Value
from sigconv.kernels.cpu import direct
from sigconv.kernels.simd import lanes
from sigconv.planner.compile import compile_graph
from tests.cases.one_candidate import EPILOGUES, activated, epilogue, exact, run

NAME = "direct_blocked"
VL = lanes(np.float32)
CASES = [  # x, output channels, strides, groups
    ((1, 64, 7, 7), 96, (1, 1), 1),
    ((8, 3 * VL + 5, 5, 9), 4 * VL + 3, (1, 1), 1),
    ((1, 1, 1, 1), 1, (1, 1), 1),
    ((1, 300, 3, 4), 5, (1, 1), 1),
    ((2, VL + 3, 1, 131), 2 * VL, (1, 1), 1),
    ((3, 6 * VL, 11, 13), 9 * VL, (1, 1), 3),
    ((2, 2 * VL + 1, 9, 13), 7 * VL - 2, (2, 2), 1),
    ((1, 4 * VL, 8, 7), 2 * VL, (3, 2), 2),
    ((1, VL - 1, 6, 5), VL + 1, (2, 1), 1),
    ((2, 2 * VL + 7, 301), 3 * VL, (1,), 1),
    ((1, 40, 77), VL + 9, (5,), 1),
    ((1, 9, 3, 5, 7), 20, (1, 1, 1), 1),
    ((1, VL, 4, 5, 6), 20, (2, 1, 2), 1),
]


def graph_of(shape, channels, strides, groups=1, tail=(), extra=None, taps=None, **window):
    rng = np.random.default_rng(7)
    depth = shape[1] // groups
    taps = taps or (1,) * len(strides)
    weights = (rng.standard_normal((channels, depth, *taps)) / np.sqrt(depth * np.prod(taps))).astype(np.float32)
    constants = {"w": weights, "b": rng.standard_normal(channels).astype(np.float32)} | (extra or {})
    attrs = {"strides": strides, "group": groups, **window}
    nodes = (Node("Conv", ("x", "w", "b"), ("c",), attrs, "conv"), *tail)
    inputs = [Value("x", np.dtype(np.float32), shape)]
    if any("r" in node.inputs for node in tail):
        inputs.append(
            Value(
                "r",
                np.dtype(np.float32),
                (shape[0], channels, *(-(-n // k) for n, k in zip(shape[2:], strides, strict=True))),
            )
        )
    return Graph(nodes, tuple(inputs), (Value(nodes[-1].outputs[0], np.dtype(np.float32)),), constants)


@pytest.mark.parametrize("shape, channels, strides, groups", CASES)
def test_against_naive_loops(shape, channels, strides, groups):
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    graph = graph_of(shape, channels, strides, groups)
    want = exact(graph, x, strides=strides, groups=groups)
    results = [run(graph, {"x": x}, NAME, threads) for threads in (1, 2, 3)]
    assert np.abs(results[0] - want).max() <= 2e-6 * np.abs(want).max()
    assert all(np.array_equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
@pytest.mark.parametrize("alpha, low, high", EPILOGUES)
def test_residual_and_activation(strides, alpha, low, high):
    rng = np.random.default_rng(2)
    channels = 4 * VL + 5
    x = rng.standard_normal((8, 10 * VL + 3, *(6 * s + 1 for s in strides))).astype(np.float32)
    r = rng.standard_normal((8, channels, 7, 7)).astype(np.float32)
    tail, limits = epilogue(alpha, low, high)
    graph = graph_of(x.shape, channels, strides, 1, tail, limits)
    total = exact(graph, x, strides=strides) + r
    results = [run(graph, {"x": x, "r": r}, NAME, threads) for threads in (1, 2, 3)]
    assert np.abs(results[0] - activated(total, alpha, low, high)).max() <= 2e-6 * np.abs(total).max()
    assert all(np.array_equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_at_its_pixel(bad):
    x = np.random.default_rng(3).standard_normal((1, VL + 1, 6, 9)).astype(np.float32)
    x[0, VL, 4, 7] = bad
    got = run(graph_of(x.shape, 3 * VL + 1, (1, 1)), {"x": x}, NAME)
    touched = np.zeros((6, 9), bool)
    touched[4, 7] = True
    assert np.array_equal(np.isfinite(got[0]).all(axis=0), ~touched)
    assert not np.isfinite(got[0, :, 4, 7]).any()


WINDOWS = [  # x beside its channels, taps, attributes, the kernel that fits
    ((5, 7), (1, 1), {"strides": (1, 1)}, direct.pointwise_f32),
    ((5, 7), (1, 1), {"strides": (2, 1)}, direct.pointwise_f32),
    ((5, 7), (1, 1), {"strides": (1, 2)}, direct.strided_pointwise_f32),
    ((5, 7), (1, 1), {"strides": (1, 1), "pads": (0, 1, 0, 1)}, direct.pointwise_f32),
    ((5, 7), (1, 1), {"strides": (1, 1), "pads": (1, 0, 0, 0)}, direct.adjacent_f32),
    ((6, 19), (5, 2), {"strides": (1, 1), "pads": (4, 0, 1, 1)}, direct.adjacent_f32),
    ((9, 14), (2, 3), {"strides": (2, 1), "pads": (1, 3, 2, 1), "dilations": (3, 2)}, direct.adjacent_f32),
    ((9, 14), (3, 3), {"strides": (1, 2), "pads": (1, 1, 1, 1)}, direct.direct_f32),
    ((101,), (3,), {"strides": (1,), "pads": (8, 0), "dilations": (4,)}, direct.adjacent_f32),
    ((4, 5, 6), (1, 2, 2), {"strides": (1, 1, 1)}, direct.adjacent_f32),
    ((4, 5, 6), (2, 1, 1), {"strides": (1, 1, 1), "pads": (1, 0, 0, 1, 0, 0)}, direct.direct_f32),
]


@pytest.mark.parametrize("sizes, taps, window, kernel", WINDOWS)
def test_the_kernel_that_takes_most_for_granted(sizes, taps, window, kernel):
    x = np.random.default_rng(4).standard_normal((2, 2 * VL + 3, *sizes)).astype(np.float32)
    graph = graph_of(x.shape, 3 * VL + 4, taps=taps, **window)
    program = compile_graph(graph, {"x": x.shape}, 1, only={NAME})
    assert kernel in [step.kernel for step in program.steps]
    want = exact(graph, x, **window)
    results = [run(graph, {"x": x}, NAME, threads) for threads in (1, 2, 3)]
    assert np.abs(results[0] - want).max() <= 2e-6 * np.abs(want).max()
    assert all(np.array_equal(results[0], other) for other in results[1:])
