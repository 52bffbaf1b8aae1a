"""Chains of convolutions in strips of rows: which nodes form one, and that every bit is that of the single layers."""

from __future__ import annotations

import numpy as np
import pytest

from sigconv.graph.interpret import interpret
from sigconv.graph.ir import Graph, Node, Value
from sigconv.planner.compile import compile_graph
from sigconv.planner.lower.cpu import strips
from sigconv.runtime.session import Session

ALONE = ("direct_blocked", "direct_planar", "depthwise_blocked")


@pytest.fixture(autouse=True)
def small_strips(monkeypatch):
    """Nothing is too small for a strip, and a strip is a row or a few."""
    monkeypatch.setattr(strips, "CACHED", 0)
    monkeypatch.setattr(strips, "STRIP_BYTES", 12_000)


def residual_block(
    shape,
    hidden,
    outputs,
    rng,
    *,
    kernel=3,
    first=1,
    stride=1,
    dilation=1,
    uneven=1,
    residual=False,
    seen=(),
    dtype=np.float32,
):
    """conv -> clip -> depthwise -> clip -> 1x1 (-> + residual), each with a bias."""
    inputs = shape[1]

    def normal(*shape):
        return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(dtype)

    constants = {
        "w0": normal(hidden, inputs, first, first), "b0": normal(hidden), "w1": normal(hidden, 1, kernel, kernel),
        "b1": normal(hidden), "w2": normal(outputs, hidden, 1, 1), "b2": normal(outputs),
        "lo": np.array(-0.5, dtype), "hi": np.array(0.8, dtype),
    }  # fmt: skip
    pad = dilation * (kernel - 1) // 2
    middle = {
        "pads": [pad, pad + uneven, pad, pad],
        "strides": [stride] * 2,
        "dilations": [dilation] * 2,
        "group": hidden,
    }
    nodes = [
        Node("Conv", ("x", "w0", "b0"), ("e",), {"pads": [first // 2] * 4, "strides": [first // 2 + 1] * 2}, "expand"),
        Node("Clip", ("e", "lo", "hi"), ("ec",), {}, "clip0"),
        Node("Conv", ("ec", "w1", "b1"), ("d",), middle, "depthwise"),
        Node("Clip", ("d", "lo", "hi"), ("dc",), {}, "clip1"),
        Node("Conv", ("dc", "w2", "b2"), ("p",), {}, "project"),
    ]
    if residual:
        nodes += [Node("Conv", ("dc" if residual == "inner" else "p", "w2b"), ("q",), {}, "again")]
        constants["w2b"] = normal(outputs, hidden if residual == "inner" else outputs, 1, 1)
        nodes += [Node("Add", ("p", "q"), ("y",), {}, "add")]
    last = nodes[-1].outputs[0]
    graph = Graph(
        tuple(nodes), (Value("x", np.dtype(dtype), shape),), tuple(Value(n) for n in (last, *seen)), constants
    )
    return graph, {"x": rng.standard_normal(shape).astype(dtype)}


def run(graph, feeds, threads=1, only=()):
    program = compile_graph(graph, {k: a.shape for k, a in feeds.items()}, threads, only=only)
    session = Session(program)
    return session.run(feeds), [row.algorithm for row in program.rows]


@pytest.mark.parametrize(
    "shape, hidden, outputs, options",
    [
        ((1, 16, 23, 19), 48, 24, {}),
        ((3, 24, 14, 17), 144, 20, dict(stride=2)),
        ((1, 3, 33, 31), 17, 33, dict(first=3)),
        ((2, 8, 9, 40), 96, 8, dict(kernel=5, dilation=2)),
        ((1, 40, 21, 7), 72, 16, dict(kernel=1, stride=3)),
        ((5, 5, 2, 2), 10, 70, {}),
    ],
)
def test_every_bit_is_that_of_single_layers(shape, hidden, outputs, options, rng):
    graph, feeds = residual_block(shape, hidden, outputs, rng, **options)
    name = graph.outputs[0].name
    want, algorithms = run(graph, feeds, only=ALONE)
    assert "strips" not in algorithms
    exact = interpret(graph, feeds)[name]
    np.testing.assert_allclose(want[name], exact, rtol=0, atol=3e-5 * max(1, np.abs(exact).max()))
    for threads in (1, 2, 3):
        got, algorithms = run(graph, feeds, threads)
        assert "strips" in algorithms
        np.testing.assert_array_equal(got[name], want[name])


def test_the_residual_is_added(rng):
    shape = (2, 24, 12, 13)
    graph, feeds = residual_block(shape, 80, 24, rng, uneven=0)
    nodes = (*graph.nodes, Node("Add", ("x", "p"), ("y",), {}, "add"))
    graph = graph.replace(nodes=nodes, outputs=(Value("y"),))
    want, _ = run(graph, feeds, only=ALONE)
    got, algorithms = run(graph, feeds, 2)
    assert "strips" in algorithms
    np.testing.assert_array_equal(got["y"], want["y"])


@pytest.mark.parametrize("seen", ["e", "ec", "d", "dc"])
def test_a_value_in_between_that_is_asked_for_comes_out(seen, rng):
    graph, feeds = residual_block((1, 16, 11, 12), 32, 16, rng, seen=(seen,))
    got, algorithms = run(graph, feeds)
    assert "strips" not in algorithms
    for name, want in interpret(graph, feeds).items():
        np.testing.assert_allclose(got[name], want, rtol=0, atol=1e-4)


def test_what_no_strip_can_do_runs_alone(rng):
    for options in (dict(dtype=np.float64), dict(residual="inner")):  # no float64; a second reader in between
        graph, feeds = residual_block((1, 16, 11, 12), 32, 16, rng, **options)
        got, algorithms = run(graph, feeds)
        assert "strips" not in algorithms
        for name, want in interpret(graph, feeds).items():
            np.testing.assert_allclose(got[name], want, rtol=0, atol=1e-4)


def test_a_value_in_between_that_is_also_the_residual_is_kept(rng):
    graph, feeds = residual_block((1, 16, 11, 12), 32, 32, rng)
    nodes = (*graph.nodes, Node("Add", ("p", "dc"), ("y",), {}, "add"))
    graph = graph.replace(nodes=nodes, outputs=(Value("y"),))
    got, algorithms = run(graph, feeds)
    assert "strips" not in algorithms
    np.testing.assert_allclose(got["y"], interpret(graph, feeds)["y"], rtol=0, atol=1e-4)


def test_nan_reaches_the_windows_that_read_it_only(rng):
    graph, feeds = residual_block((1, 16, 40, 12), 32, 16, rng)
    feeds["x"][0, 3, 20, 5] = np.nan
    got, algorithms = run(graph, feeds, 2)
    assert "strips" in algorithms
    np.testing.assert_array_equal(np.isnan(got["p"]), np.isnan(interpret(graph, feeds)["p"]))
    assert np.isnan(got["p"]).any()
    assert not np.isnan(got["p"][:, :, :19]).any()
