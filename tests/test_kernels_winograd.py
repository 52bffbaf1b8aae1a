"""Winograd against naive loops in float64: borders, sizes, channels, epilogues, tolerance, NaN, thread counts."""

from __future__ import annotations

import numpy as np
import pytest

import sigconv as sc
from sigconv.graph.ir import Graph, Node, Value
from sigconv.kernels.cpu import amx
from sigconv.kernels.cpu import winograd as kernels
from sigconv.kernels.cpu.direct import tiles
from sigconv.kernels.simd import lanes
from sigconv.planner import build
from sigconv.planner.compile import compile_graph
from sigconv.planner.lower.cpu import winograd
from tests.cases import windows
from tests.cases.narrow import unpacked
from tests.cases.one_candidate import EPILOGUES, activated, epilogue, exact, run

F32 = np.dtype(np.float32)
ERROR = {
    "winograd_4x4": 1e-4,
    "winograd_3x3_4x4": 1e-4,
    "winograd_2x2": 1e-5,
    "winograd_2x2_24bit": 1e-4,
    "winograd_2x2_5x5": 1e-4,
}
TAPS = {
    "winograd_4x4": 3,
    "winograd_3x3_4x4": 4,
    "winograd_2x2": 3,
    "winograd_2x2_24bit": 3,
    "winograd_2x2_5x5": 5,
}
CASES = [
    ((1, 16, 8, 8), 16, [1, 1, 1, 1]),
    ((2, 19, 7, 13), 37, [1, 1, 1, 1]),
    ((1, 3, 3, 3), 5, [0, 0, 0, 0]),
    ((3, 17, 1, 1), 80, [1, 1, 1, 1]),
    ((1, 33, 9, 6), 16, [2, 0, 1, 3]),
    ((2, 5, 4, 30), 130, [0, 5, 7, 0]),
    ((1, 64, 30, 31), 64, [1, 1, 1, 1]),
    ((1, 130, 7, 7), 100, [1, 1, 1, 1]),
]


@pytest.fixture(autouse=True)
def no_tiles(monkeypatch):
    """Where the CPU has matrix tiles they would win."""
    monkeypatch.setattr(amx, "KERNELS", {})


def graph_of(x, channels, pads, tail=(), taps=3):
    rng = np.random.default_rng(5)
    weights = (rng.standard_normal((channels, x.shape[1], taps, taps)) / taps / np.sqrt(x.shape[1])).astype(np.float32)
    bias = rng.standard_normal(channels).astype(np.float32)
    nodes = (Node("Conv", ("x", "w", "b"), ("c",), {"pads": pads}, "conv"), *tail)
    inputs = [Value("x", F32, x.shape)]
    if any("r" in node.inputs for node in tail):
        shape = (x.shape[0], channels, *(s + pads[i] + pads[i + 2] - taps + 1 for i, s in enumerate(x.shape[2:])))
        inputs.append(Value("r", F32, shape))
    return Graph(nodes, tuple(inputs), (Value(nodes[-1].outputs[0], F32),), {"w": weights, "b": bias})


@pytest.fixture(params=["points", "taps"])
def kept(request, monkeypatch):
    """What is kept of weights, all of which are too large for a cache."""
    monkeypatch.setattr(winograd, "CHUNK_BYTES", 0)
    monkeypatch.setattr(build, "SPARE", {"points": 99, "taps": 0}[request.param])
    return request.param


@pytest.mark.parametrize("name", ERROR)
@pytest.mark.parametrize("shape, channels, pads", CASES)
def test_against_float64(shape, channels, pads, name, kept):
    pads = [p + (TAPS[name] - 2) // 2 for p in pads]
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    graph = graph_of(x, channels, pads, taps=TAPS[name])
    want = exact(graph, x, pads=pads)
    results = [run(graph, {"x": x}, name, threads) for threads in (1, 2, 3)]
    assert np.abs(results[0] - want).max() <= ERROR[name] * np.abs(want).max()
    assert all(np.array_equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("name", ERROR)
@pytest.mark.parametrize(
    "shape, channels, kernel, strides, pads",
    [
        ((1, 3, 30, 33), 20, (7, 7), (2, 2), (3, 3, 3, 3)),  # phases
        ((2, 3, 40, 21), 6, (11, 11), (4, 4), (2, 2, 2, 2)),
        ((1, 5, 17, 20), 33, (9, 9), (1, 1), (4, 4, 4, 4)),  # groups of taps, gathered
        ((2, 32, 19, 12), 3, (9, 9), (1, 1), (4, 3, 2, 5)),  # and in place
        ((1, 16, 9, 11), 5, (9, 9), (1, 1), (8, 8, 8, 8)),
        ((1, 19, 14, 23), 4, (9, 6), (1, 2), (0, 1, 5, 3)),
    ],
)
def test_longer_and_strided_filters_are_several_short_ones(shape, channels, kernel, strides, pads, name, kept):
    rng = np.random.default_rng(6)
    x = rng.standard_normal(shape).astype(np.float32)
    weights = (rng.standard_normal((channels, shape[1], *kernel)) / np.sqrt(shape[1] * np.prod(kernel))).astype(F32)
    bias = rng.standard_normal(channels).astype(F32)
    node = Node("Conv", ("x", "w", "b"), ("c",), {"pads": pads, "strides": strides}, "conv")
    graph = Graph((node,), (Value("x", F32, shape),), (Value("c", F32),), {"w": weights, "b": bias})
    wasted = any(-(-k // (s * TAPS[name])) * s * TAPS[name] >= 2 * k for k, s in zip(kernel, strides, strict=True))
    if wasted:
        program = compile_graph(graph, {"x": shape}, 1)
        assert "parts of" in dict(next(r for r in program.rows if r.op == "Conv").rejected)[name]
        return
    want = windows.conv_nd(*(a.astype(np.float64) for a in (x, weights, bias)), pads=pads, strides=strides)
    results = [run(graph, {"x": x}, name, threads) for threads in (1, 2, 3)]
    assert np.abs(results[0] - want).max() <= ERROR[name] * np.abs(want).max()
    assert all(np.array_equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("name", ERROR)
@pytest.mark.parametrize("alpha, low, high", EPILOGUES)
def test_epilogue(name, alpha, low, high, kept):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((2, 18, 9, 10)).astype(np.float32)
    r = rng.standard_normal((2, 20, 9, 10)).astype(np.float32)
    tail, limits = epilogue(alpha, low, high)
    pads = [1, 1, TAPS[name] - 2, TAPS[name] - 2]
    graph = graph_of(x, 20, pads, tail, TAPS[name])
    graph = graph.replace(constants=graph.constants | limits)
    total = exact(graph, x, pads=pads) + r
    want = activated(total, alpha, low, high)
    got = run(graph, {"x": x, "r": r}, name, 2)
    assert np.abs(got - want).max() <= ERROR[name] * np.abs(total).max()


@pytest.mark.parametrize("name, m", [("winograd_4x4", 4), ("winograd_2x2", 2), ("winograd_2x2_24bit", 2)])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_within_the_tiles_that_read_it(name, m, bad, kept):
    x = np.random.default_rng(3).standard_normal((1, 16, 16, 16)).astype(np.float32)
    graph = graph_of(x, 16, [1, 1, 1, 1])
    clean = run(graph, {"x": x}, name)
    x[0, 3, 6, 6] = bad
    got = run(graph, {"x": x}, name)
    assert not np.isfinite(got[0, :, 5:8, 5:8]).any()
    readers = [t for t in range(16 // m) if t * m - 1 <= 6 < t * m + m + 1]
    touched = slice(readers[0] * m, readers[-1] * m + m)
    rest = np.ones((16, 16), bool)
    rest[touched, touched] = False
    assert np.array_equal(got[0][:, rest], clean[0][:, rest])


def test_tolerance_decides():
    x = np.random.default_rng(4).standard_normal((1, 64, 56, 56)).astype(np.float32)
    model = sc.Model(graph_of(x, 64, [1, 1, 1, 1]))
    want = exact(model.graph, x, pads=[1, 1, 1, 1])
    default = model.compile(threads=1)
    strict = model.compile(threads=1, tolerance=0)
    assert default.explain().rows[0].algorithm == "winograd_4x4"
    assert strict.explain().rows[0].algorithm.startswith("direct_")
    assert dict(strict.explain().rows[0].rejected)["winograd_4x4"] == "its error of 0.0001 is over the tolerance of 0"
    assert model.compile(threads=1, tolerance=1e-5).explain().rows[0].algorithm != "winograd_4x4"
    for session, error in ((default, 1e-4), (strict, 2e-6)):
        assert np.abs(session.run({"x": x})["c"] - want).max() <= error * np.abs(want).max()
    with pytest.raises(sc.InputError, match="tolerance is -1"):
        model.compile(tolerance=-1)


@pytest.mark.parametrize("bits", [32, 24])
@pytest.mark.parametrize("form", [kernels.F4, kernels.F3_4, kernels.F2, kernels.F2_5], ids=lambda f: f"{f.m} of {f.r}")
def test_weights_at_points_are_g_w_gt(form, bits):
    """Packed in registers of output channels, whatever the tiles; what 24 bits hold is the nearest."""
    rng = np.random.default_rng()
    vl, m, c = lanes(np.float32), 7 * lanes(np.float32) - 5, 6
    w = rng.standard_normal((m, c, form.r, form.r)).astype(np.float32)
    g = np.array(form.filters)
    want = np.einsum("pi,mcij,qj->pqmc", g, w.astype(np.float64), g).reshape(form.n**2, m, c)
    packed = kernels.transform(form, w, bits)
    numbers = packed.reshape(form.n**2, -1) if bits == 32 else unpacked(packed, form.n**2 * 7 * vl * c)
    numbers = numbers.reshape(form.n**2, -1)
    for first, width, _ in zip(*tiles(m), strict=True):
        tile = numbers[:, first * vl * c : (first + width) * vl * c].reshape(form.n**2, c, width * vl)
        there = want[:, first * vl : (first + width) * vl]
        assert (
            np.abs(tile[..., : there.shape[1]] - there.swapaxes(1, 2)).max() <= 2.0 ** (8 - bits) * np.abs(there).max()
        )
        assert not tile[..., there.shape[1] :].any()


@pytest.mark.parametrize("batch, points", [(1, 1), (8, 8)])
def test_points_are_kept_while_there_is_room(batch, points):
    """As much as two fifths of the filters, the first layers first; whatever it is where many tiles share them."""
    rng = np.random.default_rng()
    c, n = 160, 8  # as points 3.7 MB a layer, as taps 0.9
    layers = [(f"v{i}", f"w{i}", f"v{i + 1}") for i in range(n)]
    nodes = tuple(Node("Conv", (x, w), (y,), {"pads": [1] * 4}, w) for x, w, y in layers)
    constants = {w: rng.standard_normal((c, c, 3, 3)).astype(np.float32) / 40 for _, w, _ in layers}
    graph = Graph(nodes, (Value("v0", F32, (batch, c, 28, 28)),), (Value(f"v{n}", F32),), constants)
    program = compile_graph(graph, {}, 1)
    assert [row.algorithm for row in program.rows[:n]] == ["winograd_4x4"] * n
    filters = [a.nbytes for a in program.constants if a.nbytes >= 4 * 9 * c * c]
    assert sorted(filters) == [4 * 9 * c * c] * (n - points) + [4 * 36 * c * c] * points
