"""What runs as one kernel, what must not, and that fusing changes no result."""

from __future__ import annotations

import numpy as np
import pytest

from sigconv.graph.interpret import interpret
from sigconv.graph.ir import Graph, Node, Value
from sigconv.planner.compile import compile_graph
from sigconv.runtime.session import Session
from tests.cases import networks

SHAPE = (2, 18, 6, 7)


def build(nodes: list[Node], outputs: list[str], dtype: type = np.float32) -> tuple[Graph, dict[str, np.ndarray]]:
    rng = np.random.default_rng(7)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(dtype)

    constants = {
        "w": normal(18, 18, 3, 3) / 12, "b": normal(18), "wt": normal(18, 18, 1, 1) / 4, "dw": normal(18, 1, 3, 3) / 3,
        "per_channel": normal(18, 1, 1), "number": normal(), "per_pixel": normal(6, 7), "full": normal(*SHAPE),
        "per_row": normal(7, 1), "m": normal(7, 33), "column": normal(33), "zero": np.zeros((), dtype),
        "six": np.full((), 6, dtype), "minus": np.full((), -1, dtype),
    }  # fmt: skip
    used = {i for n in nodes for i in n.inputs}
    graph = Graph(
        tuple(nodes),
        (Value("x", np.dtype(dtype), SHAPE), Value("z", np.dtype(dtype), SHAPE)),
        tuple(Value(n) for n in outputs),
        {k: np.asarray(v, dtype) for k, v in constants.items() if k in used},
    )
    return graph, {"x": normal(*SHAPE), "z": normal(*SHAPE)}


def fused_ops(graph: Graph, feeds: dict[str, np.ndarray]) -> list[str]:
    """The ops of every row of explain(), after checking the numbers against the plain graph."""
    session = Session(compile_graph(graph, {k: a.shape for k, a in feeds.items()}))
    results = session.run(feeds)
    for name, want in interpret(graph, feeds).items():
        tolerance = 3e-5 if want.dtype == np.float32 else 1e-12
        np.testing.assert_allclose(results[name], want, rtol=0, atol=tolerance * max(1, np.abs(want).max()))
    return [row.op for row in session.explain().rows if row.op != "Copy"]


def parse(text: str) -> list[Node]:
    """Nodes of `networks.calls`, where Conv(x) is a 3x3 convolution with a bias that keeps the size."""
    conv = {"Conv": ("w", "b"), "Depthwise": ("dw", ""), "Pointwise": ("wt", "")}
    nodes = []
    for op, inputs, outputs, attrs in networks.calls(text):
        if op in conv:
            inputs, same = (*inputs, *conv[op]), (0 if op == "Pointwise" else 1,) * 4
            attrs, op = {"pads": same, "group": 18 if op == "Depthwise" else 1}, "Conv"
        nodes.append(Node(op, inputs, outputs, attrs, "-".join(outputs)))
    return nodes


FUSED = {
    "c = Conv(x); y = Relu(c)": "Conv + Relu",
    "c = Conv(x); y = Clip(c, zero, six)": "Conv + Clip",
    "c = Conv(x); y = Clip(c, minus)": "Conv + Clip",
    "c = Conv(x); y = LeakyRelu(c, alpha=0.3)": "Conv + LeakyRelu",
    "c = Conv(x); y = Add(c, z)": "Conv + Add",
    "c = Conv(x); y = Add(z, c)": "Conv + Add",
    "c = Conv(x); a = Add(c, z); y = Relu(a)": "Conv + Add + Relu",
    "c = Conv(x); a = Add(c, x); y = Relu(a)": "Conv + Add + Relu",
    "c = Conv(x); a = Add(c, per_channel); y = Relu(a)": "Conv + Add + Relu",
    "c = Conv(x); a = Add(number, c); y = Relu(a)": "Conv + Add + Relu",
    "c = Conv(x); d = Add(c, per_channel); a = Add(d, z); y = Relu(a)": "Conv + Add + Add + Relu",
    "c = Depthwise(x); a = Add(c, z); y = Relu(a)": "Conv + Add + Relu",
    "c = ConvTranspose(x, wt, b); y = Relu(c)": "ConvTranspose + Relu",
    "c = MatMul(x, m); a = Add(c, column); y = Relu(a)": "MatMul + Add + Relu",
    "s = Sigmoid(x); y = Mul(x, s)": "Sigmoid + Mul",
    "s = Add(x, per_channel); t = Mul(s, per_pixel); u = Exp(t); v = Div(u, z); y = Sub(v, s)": (
        "Add + Mul + Exp + Div + Sub"
    ),
}
"""Nodes that run as one."""


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("text", FUSED)
def test_fused(text, dtype):
    assert fused_ops(*build(parse(text), ["y"], dtype)) == [FUSED[text]]


APART = [
    ("the convolution is an output", "c = Conv(x); y = Relu(c)", "yc", ["Conv", "Relu"]),
    ("the sum is an output", "c = Conv(x); a = Add(c, z); y = Relu(a)", "ya", ["Conv + Add", "Relu"]),
    ("another reader", "c = Conv(x); y = Relu(c); p = Softmax(c)", "yp", ["Conv", "Relu", "Softmax"]),
    ("added to itself", "c = Conv(x); y = Add(c, c)", "y", ["Add", "Conv"]),
    ("a constant of every pixel", "c = Conv(x); y = Add(c, per_pixel)", "y", ["Add", "Conv"]),
    ("after an activation", "c = Conv(x); a = Relu(c); y = Add(a, z)", "y", ["Add", "Conv + Relu"]),
    ("two residuals", "c = Conv(x); a = Add(c, z); y = Add(a, x)", "y", ["Add", "Conv + Add"]),
    ("an activation the kernel lacks", "c = Conv(x); y = Tanh(c)", "y", ["Conv", "Tanh"]),
    ("one sum of two convolutions", "c = Conv(x); d = Pointwise(z); y = Add(c, d)", "y", ["Conv", "Conv + Add"]),
    ("elementwise output", "s = Sigmoid(x); y = Mul(x, s)", "ys", ["Mul", "Sigmoid"]),
    (
        "elementwise, another reader",
        "s = Sigmoid(x); y = Mul(x, s); p = Softmax(s)",
        "yp",
        ["Mul", "Sigmoid", "Softmax"],
    ),
    ("through another op and back", "e = Exp(x); p = Softmax(e); y = Add(e, p)", "y", ["Add", "Exp", "Softmax"]),
    ("the residual is made later", "c = Conv(x); p = Softmax(x); y = Add(c, p)", "y", ["Conv + Add", "Softmax"]),
]


@pytest.mark.parametrize("text, outputs, expected", [pytest.param(*case, id=name) for name, *case in APART])
def test_not_fused(text, outputs, expected):
    assert sorted(fused_ops(*build(parse(text), list(outputs)))) == expected


def test_a_chain_is_cut_where_registers_end():
    """Forty values that are all needed again, last first."""
    lines = ["v0 = Tanh(x)", *(f"v{i + 1} = Tanh(v{i})" for i in range(40)), "s40 = Identity(v40)"]
    lines += [f"s{i} = Add(s{i + 1}, v{i})" for i in reversed(range(40))]
    rows = fused_ops(*build(parse("; ".join(lines)), ["s0"]))
    assert 1 < len(rows) <= 41
    assert sum(len(ops.split(" + ")) for ops in rows) == 81


def test_a_chain_is_cut_where_operands_end():
    """A sum of thirty different constants of every pixel."""
    nodes = parse("; ".join(f"v{i + 1} = Add(v{i}, k{i})" for i in range(30)).replace("v0,", "x,"))
    graph, feeds = build(nodes, ["v30"])
    graph = graph.replace(constants={f"k{i}": np.full(SHAPE, i, np.float32) for i in range(30)})
    rows = fused_ops(graph, feeds)
    assert 1 < len(rows) < 15
    assert sum(len(ops.split(" + ")) for ops in rows) == 30


def test_nan_and_infinity_pass_through_a_fused_activation():
    graph, feeds = build(parse("c = Conv(x); a = Add(c, z); y = Relu(a)"), ["y"])
    feeds["z"][0, 0, 0, :3] = np.nan, np.inf, -np.inf
    want = interpret(graph, feeds)["y"]
    got = Session(compile_graph(graph, {k: a.shape for k, a in feeds.items()})).run(feeds)["y"]
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    np.testing.assert_array_equal(np.isinf(got), np.isinf(want))
