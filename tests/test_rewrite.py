"""The planner's own rewrites: the same function before and after, and the steps they are there to save."""

from __future__ import annotations

import numpy as np
import pytest

from sigconv.graph.infer import specialize
from sigconv.graph.interpret import interpret
from sigconv.graph.ir import Graph, Node, Value
from sigconv.planner.compile import compile_graph
from sigconv.planner.rewrite import rewrite
from sigconv.runtime.session import Session

SHAPE = (2, 3, 7, 6)
FLOAT = np.dtype(np.float32)


def graph(nodes: list[Node], outputs: list[str], rng: np.random.Generator, **constants: np.ndarray) -> Graph:
    """Nodes over an input x of ``SHAPE`` and a number t, with weights w [4, 3, 3, 3] and a bias b."""
    weights = {"w": rng.standard_normal((4, 3, 3, 3), np.float32), "b": rng.standard_normal(4, np.float32)}
    return specialize(
        Graph(
            nodes=tuple(nodes),
            inputs=(Value("x", FLOAT, SHAPE), Value("t", FLOAT, ())),
            outputs=tuple(Value(name) for name in outputs),
            constants={**weights, **constants},
        )
    )


def assert_same_function(before: Graph, rng: np.random.Generator) -> list[str]:
    """Check that rewriting keeps the function; the operators left."""
    after = rewrite(before)
    feeds = {"x": rng.standard_normal(SHAPE, np.float32), "t": np.float32(-0.25)}
    want, got = interpret(before, feeds), interpret(after, feeds)
    assert list(got) == list(want)
    for name in want:
        np.testing.assert_allclose(got[name], want[name], rtol=1e-5, atol=1e-5)
    return [node.op for node in after.nodes]


@pytest.mark.parametrize("inputs", [("x", "w"), ("x", "w", "b")])
@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 4, 1, 1), (1,), ()])
def test_factor_goes_into_the_weights(inputs, shape, rng) -> None:
    nodes = [Node("Conv", inputs, ("c",)), Node("Mul", ("f", "c"), ("m",)), Node("Relu", ("m",), ("y",))]
    factor = rng.standard_normal(shape, np.float32)
    assert assert_same_function(graph(nodes, ["y"], rng, f=np.asarray(factor)), rng) == ["Conv", "Relu"]


@pytest.mark.parametrize("shape", [(5, 1), (1, 4), (4, 5, 4), (1, 1, 5, 4)])
def test_factor_along_the_image_stays(shape, rng) -> None:
    nodes = [Node("Conv", ("x", "w"), ("c",)), Node("Mul", ("c", "f"), ("y",))]
    factor = rng.standard_normal(shape, np.float32)
    assert assert_same_function(graph(nodes, ["y"], rng, f=factor), rng) == ["Conv", "Mul"]


def test_factor_stays_where_the_product_is_needed_too(rng) -> None:
    factor = rng.standard_normal((4, 1, 1), np.float32)
    nodes = [Node("Conv", ("x", "w"), ("c",)), Node("Mul", ("c", "f"), ("y",))]
    assert assert_same_function(graph(nodes, ["y", "c"], rng, f=factor), rng) == ["Conv", "Mul"]
    nodes += [Node("Add", ("y", "c"), ("z",))]
    assert assert_same_function(graph(nodes, ["z"], rng, f=factor), rng) == ["Conv", "Mul", "Add"]
    square = [Node("Conv", ("x", "w"), ("c",)), Node("Mul", ("c", "c"), ("y",))]
    assert assert_same_function(graph(square, ["y"], rng), rng) == ["Conv", "Mul"]


def test_factor_stays_where_weights_would_overflow(rng) -> None:
    nodes = [Node("Conv", ("x", "w"), ("c",)), Node("Mul", ("c", "f"), ("y",))]
    before = graph(nodes, ["y"], rng, f=np.full((4, 1, 1), 3e38, np.float32), w=np.full((4, 3, 3, 3), 2.0, np.float32))
    assert [node.op for node in rewrite(before).nodes] == ["Conv", "Mul"]


@pytest.mark.parametrize("axes", [None, [2, 3], [-1, 2]])
@pytest.mark.parametrize("own", [{}, {"pads": (1, 0, 0, 2)}, {"strides": (2, 2), "dilations": (1, 2)}])
def test_zeros_around_become_padding(axes, own, rng) -> None:
    amounts = [0, 0, 1, 2, 0, 0, 0, 3] if axes is None else [1, 2, 0, 3]
    constants = {"p": np.array(amounts), "v": np.float32(0)} | ({} if axes is None else {"a": np.array(axes)})
    pad = Node("Pad", ("x", "p", "v") if axes is None else ("x", "p", "", "a"), ("q",), {"mode": "constant"})
    nodes = [pad, Node("Conv", ("q", "w", "b"), ("y",), own)]
    assert assert_same_function(graph(nodes, ["y"], rng, **constants), rng) == ["Conv"]


@pytest.mark.parametrize(
    ("amounts", "value", "mode", "auto_pad", "outputs"),
    [
        ([0, 0, 1, 1, 0, 0, 1, 1], 0.5, "constant", "NOTSET", ["y"]),
        ([0, 0, 1, 1, 0, 0, 1, 1], 0.0, "reflect", "NOTSET", ["y"]),
        ([0, 0, 1, 1, 0, 0, 1, 1], 0.0, "constant", "SAME_UPPER", ["y"]),
        ([0, 0, 1, 1, 0, 0, 1, 1], 0.0, "constant", "NOTSET", ["y", "q"]),
        ([1, 0, 1, 1, 0, 0, 1, 1], 0.0, "constant", "NOTSET", ["y"]),
        ([0, 0, -1, 1, 0, 0, 1, 1], 0.0, "constant", "NOTSET", ["y"]),
    ],
)
def test_other_padding_stays(amounts, value, mode, auto_pad, outputs, rng) -> None:
    nodes = [
        Node("Pad", ("x", "p", "v"), ("q",), {"mode": mode}),
        Node("Conv", ("q", "w"), ("y",), {"auto_pad": auto_pad}),
    ]
    before = graph(nodes, outputs, rng, p=np.array(amounts), v=np.float32(value))
    assert assert_same_function(before, rng) == ["Pad", "Conv"]


@pytest.mark.parametrize(
    ("bounds", "operators"),
    [
        (("t", "hi"), ["Max", "Min"]),
        (("t",), ["Max"]),
        (("", "t"), ["Min"]),
        (("lo", "hi"), ["Clip"]),
        (("lo",), ["Clip"]),
        ((), ["Clip"]),
    ],
)
def test_clip_with_computed_bounds(bounds, operators, rng) -> None:
    before = graph([Node("Clip", ("x", *bounds), ("y",))], ["y"], rng, lo=np.float32(-0.5), hi=np.float32(0.5))
    assert assert_same_function(before, rng) == operators


@pytest.mark.parametrize(
    ("exponent", "operator"),
    [
        (np.float32(2), "Mul"),
        (np.array([[2]], np.int64), "Mul"),
        (np.float32(3), "Pow"),
        (np.array([2, 2, 2, 2, 2, 2], np.float32), "Pow"),
        (np.full((1, 1, 1, 1, 1), 2, np.float32), "Pow"),
    ],
)
def test_squares(exponent, operator, rng) -> None:
    before = graph([Node("Pow", ("x", "e"), ("y",))], ["y"], rng, e=np.asarray(exponent))
    assert assert_same_function(before, rng) == [operator]


def test_batch_normalization_as_mul_and_add(rng) -> None:
    statistics = {name: rng.uniform(0.5, 1.5, 3).astype(np.float32) for name in ("gamma", "beta", "mean", "variance")}
    nodes = [Node("BatchNormalization", ("x", *statistics), ("y",), {"epsilon": 1e-3})]
    assert assert_same_function(graph(nodes, ["y"], rng, **statistics), rng) == ["Mul", "Add"]


@pytest.mark.parametrize(
    ("shape", "size"), [((2, 7, 5, 6), 5), ((1, 4, 9), 3), ((2, 6, 3, 2, 4), 2), ((1, 3, 4, 4), 9)]
)
def test_local_response_norm_is_a_pool_over_channels(shape: tuple[int, ...], size: int) -> None:
    rng = np.random.default_rng(size)
    x = rng.standard_normal(shape).astype(np.float32) * 3
    node = Node("LRN", ("x",), ("y",), {"size": size, "alpha": 0.2, "beta": 0.6, "bias": 1.5})
    graph = Graph((node,), (Value("x", x.dtype, shape),), (Value("y", x.dtype, shape),))
    program = compile_graph(graph, {"x": shape})
    assert "numpy" not in {row.algorithm for row in program.rows}
    want = interpret(graph, {"x": x}, float64=True)["y"]
    np.testing.assert_allclose(Session(program).run({"x": x})["y"], want, rtol=2e-6, atol=1e-6)
