"""Convolution on matrix tiles against naive loops in float64: windows, chunks, epilogues, what is not finite."""

from __future__ import annotations

import numpy as np
import pytest

import sigconv as sc
from sigconv.graph.ir import Graph, Node, Value
from sigconv.kernels.cpu import amx as kernels
from sigconv.planner.compile import compile_graph
from sigconv.planner.lower.cpu import amx
from tests.cases import windows
from tests.cases.one_candidate import EPILOGUES, activated, epilogue, run

F32 = np.dtype(np.float32)
ERRORS = {"amx_bf16x3": 1e-5, "amx_bf16": 1e-2}
"""The second is declared as 5e-2, as on CUDA devices."""
tiles = pytest.mark.skipif(not kernels.KERNELS, reason="this CPU has no matrix tiles of bfloat16")


def conv(shape, channels, kernel, tail=(), **window):
    rng = np.random.default_rng(7)
    weights = (rng.standard_normal((channels, shape[1], *kernel)) / np.sqrt(shape[1] * np.prod(kernel))).astype(F32)
    constants = {"w": weights, "b": rng.standard_normal(channels).astype(F32)}
    nodes = (Node("Conv", ("x", "w", "b"), ("c",), window, "conv"), *tail)
    inputs = [Value("x", F32, shape)]
    if tail:
        inputs.append(Value("r", F32, (shape[0], channels, *shape[2:])))
    return Graph(nodes, tuple(inputs), (Value(nodes[-1].outputs[0], F32),), constants)


def exact(graph, x, **window):
    return windows.conv_nd(*(a.astype(np.float64) for a in (x, graph.constants["w"], graph.constants["b"])), **window)


WINDOWS = [
    ((1, 16, 8, 8), 16, (1, 1), {}),
    ((3, 70, 5, 7), 130, (1, 1), {}),  # a last pair of one block, six lanes of it
    ((2, 20, 13, 11), 37, (3, 3), dict(pads=[1, 1, 1, 1])),
    ((1, 33, 12, 17), 16, (5, 2), dict(pads=[0, 3, 4, 1], strides=[3, 2])),  # six phases
    ((2, 48, 9, 10), 40, (1, 1), dict(strides=[2, 2])),
    ((1, 5, 9, 14), 3, (3, 4), dict(dilations=[3, 2], pads=[4, 0, 1, 6])),
    ((1, 40, 20, 20), 18, (2, 3), dict(dilations=[3, 2], strides=[2, 3], pads=[5, 1, 0, 2])),
    ((1, 32, 1, 1), 50, (3, 3), dict(pads=[1, 1, 1, 1])),
    ((2, 34, 1, 300), 20, (1, 7), dict(pads=[0, 3, 0, 3])),
    ((2, 34, 300, 1), 20, (7, 1), dict(pads=[3, 0, 3, 0])),
    ((2, 24, 333), 35, (3,), dict(dilations=[16], pads=[32, 0])),  # 1-D: causal
    ((1, 17, 101), 64, (5,), dict(strides=[2], pads=[2, 2])),
    ((1, 17, 7), 5, (1,), {}),
]


@tiles
@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("near", [amx.NEAR_BYTES, 0])
@pytest.mark.parametrize("shape, channels, kernel, window", WINDOWS)
def test_against_float64(shape, channels, kernel, window, near, name, monkeypatch):
    """Split by all threads first, and in chunks of a few rows each."""
    monkeypatch.setattr(amx, "NEAR_BYTES", near)
    x = np.random.default_rng(1).standard_normal(shape).astype(F32)
    graph = conv(shape, channels, kernel, **window)
    want = exact(graph, x, **window)
    results = [run(graph, {"x": x}, name, threads, tolerance=0.1) for threads in (1, 2, 3)]
    assert np.abs(results[0] - want).max() <= ERRORS[name] * np.abs(want).max()
    assert all(np.array_equal(results[0], other) for other in results[1:])


@tiles
@pytest.mark.parametrize("alpha, low, high", EPILOGUES)
def test_epilogue(alpha, low, high):
    rng = np.random.default_rng(2)
    shape, pads = (2, 20, 9, 10), [1, 1, 1, 1]
    x, r = (rng.standard_normal(shape).astype(F32) for _ in range(2))
    tail, limits = epilogue(alpha, low, high)
    graph = conv(shape, 20, (3, 3), tail, pads=pads)
    graph = graph.replace(constants=graph.constants | limits)
    total = exact(graph, x, pads=pads) + r
    got = run(graph, {"x": x, "r": r}, "amx_bf16x3", 2)
    assert np.abs(got - activated(total, alpha, low, high)).max() <= ERRORS["amx_bf16x3"] * np.abs(total).max()


@tiles
@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("near", [amx.NEAR_BYTES, 0])
@pytest.mark.parametrize("bad", [[np.nan], [np.inf], [-np.inf], [np.inf, -np.inf, np.nan]])
def test_what_is_not_finite_comes_out_where_it_ought_to(bad, near, name, monkeypatch):
    monkeypatch.setattr(amx, "NEAR_BYTES", near)
    shape, pads = (2, 33, 12, 12), [1, 1, 1, 1]
    rng = np.random.default_rng(3)
    x = rng.standard_normal(shape).astype(F32)
    graph = conv(shape, 40, (3, 3), pads=pads)
    graph.constants["w"][3, 32] = 0.5  # one part is all of it: its low part is 0
    graph.constants["w"][4] = 0.0  # 0 * Inf
    clean = run(graph, {"x": x}, name, tolerance=0.1)
    for value in bad:
        for place in zip(*(rng.integers(0, n, 3) for n in shape), strict=True):
            x[place] = value
    with np.errstate(invalid="ignore"):
        want = exact(graph, x, pads=pads)
    got = run(graph, {"x": x}, name, 2, tolerance=0.1)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    np.testing.assert_array_equal(got[np.isinf(want)], want[np.isinf(want)])
    finite = np.isfinite(want)
    np.testing.assert_array_equal(got[finite], clean[finite])


@tiles
@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_errors_are_a_share_of_the_scale(scale):
    shape = (1, 64, 6, 6)
    x = (np.random.default_rng(4).standard_normal(shape) * scale).astype(F32)
    graph = conv(shape, 32, (1, 1))
    graph = graph.replace(constants={"w": graph.constants["w"], "b": np.zeros(32, F32)})
    want = exact(graph, x)
    assert np.abs(run(graph, {"x": x}, "amx_bf16x3") - want).max() <= ERRORS["amx_bf16x3"] * np.abs(want).max()


@tiles
def test_tolerance_decides():
    x = np.random.default_rng(5).standard_normal((1, 64, 28, 28)).astype(F32)
    model = sc.Model(conv(x.shape, 64, (3, 3), pads=[1, 1, 1, 1]))
    assert model.compile(threads=1).explain().rows[0].algorithm == "amx_bf16x3"
    strict = model.compile(threads=1, tolerance=1e-6).explain().rows[0]
    assert dict(strict.rejected)["amx_bf16x3"] == "its error of 1e-05 is over the tolerance of 1e-06"


def test_a_cpu_without_tiles_says_so(monkeypatch):
    monkeypatch.setattr(kernels, "KERNELS", {})
    row = compile_graph(conv((1, 16, 8, 8), 16, (3, 3)), {}, 1).rows[0]
    assert dict(row.rejected)["amx_bf16x3"] == "no matrix tiles"


@pytest.mark.parametrize("parts", [1, 2])
def test_weights_are_bfloat16_of_the_nearest(parts):
    rng = np.random.default_rng(6)
    m, c, taps = 19, 37, 3
    w = rng.standard_normal((m, c, taps)).astype(F32)
    packed = kernels.pack(w, parts).view(np.uint16).reshape(2, 2, taps, parts, 16, 16, 2)
    halves = (packed.astype(np.uint32) << 16).view(F32).astype(np.float64)
    whole = np.zeros((32, 64, taps))
    whole[:m, :c] = w
    tiles = halves.transpose(3, 0, 5, 1, 4, 6, 2).reshape(
        parts, 32, 64, taps
    )  # part, tile, M, pair, channels' pair, 2, tap
    assert np.abs(tiles.sum(0) - whole).max() <= {1: 2.0**-8, 2: 2.0**-17}[parts] * np.abs(whole).max()
