"""No two live values share memory, and what is written in place is never read again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sigconv import lines
from sigconv.graph.interpret import interpret
from sigconv.graph.ir import Graph, Node, Value
from sigconv.planner.compile import compile_graph
from sigconv.planner.memory import assign
from sigconv.runtime.program import Program
from sigconv.runtime.session import Session
from tests.cases import networks

F32 = np.dtype(np.float32)
Feeds = dict[str, np.ndarray]
Case = tuple[Graph, Feeds]


# --- placing buffers -------------------------------------------------------------------------------------------------
@dataclass
class Interval:
    nbytes: int
    first: int
    last: int
    offset: int = -1


def clashes(buffers: list[Interval]) -> list[tuple[Interval, Interval]]:
    """Pairs that are alive at the same time and share a byte."""
    return [
        (a, b)
        for i, a in enumerate(buffers)
        for b in buffers[:i]
        if a.first <= b.last and b.first <= a.last
        if a.offset < b.offset + b.nbytes and b.offset < a.offset + a.nbytes
    ]


def lower_bound(buffers: list[Interval]) -> int:
    """The most bytes alive at one step."""
    rounded = [(lines.whole(b.nbytes), b) for b in buffers]
    steps = range(max((b.last for b in buffers), default=-1) + 1)
    return max((sum(n for n, b in rounded if b.first <= step <= b.last) for step in steps), default=0)


intervals = st.builds(
    lambda nbytes, first, length: Interval(nbytes, first, first + length),
    st.integers(1, 1000) | st.sampled_from([64, 128, 4096]),
    st.integers(0, 20),
    st.integers(0, 8),
)


@given(st.lists(intervals, max_size=40))
@settings(max_examples=300)
def test_live_buffers_never_overlap(buffers):
    total = assign(buffers)
    assert not clashes(buffers)
    assert all(b.offset >= 0 and b.offset % lines.LINE == 0 and b.offset + b.nbytes <= total for b in buffers)
    assert lower_bound(buffers) <= total <= sum(b.nbytes + lines.LINE for b in buffers)


def test_an_overlap_is_found():
    a, b, c = Interval(64, 0, 2, 0), Interval(64, 2, 3, 32), Interval(64, 4, 5, 0)
    assert clashes([a, b, c]) == [(b, a)]


def test_a_chain_takes_two_buffers():
    """Of n values of one size of which two are alive at a time, the arena holds two."""
    buffers = [Interval(1000, i, i + 1) for i in range(10)]
    assert assign(buffers) == 2 * 1024


# --- whole programs --------------------------------------------------------------------------------------------------
def run_poisoned(graph: Graph, feeds: Feeds, threads: int = 1) -> Feeds:
    """The outputs when all memory the session owns holds NaN before each of two runs with different feeds."""
    session = Session(compile_graph(graph, {k: a.shape for k, a in feeds.items()}, threads))
    for scale in (2.0, 1.0):
        session._arena.fill(0xFF)
        results = session.run({k: (scale * a).astype(a.dtype) for k, a in feeds.items()})
    return results


def check(graph: Graph, feeds: Feeds, threads: int = 1) -> None:
    results = run_poisoned(graph, feeds, threads)
    for name, want in interpret(graph, feeds).items():
        got = results[name]
        assert (got.dtype, got.shape) == (want.dtype, want.shape), name
        scale = max(1.0, float(np.abs(want).max(initial=0)))
        np.testing.assert_allclose(got, want, rtol=0, atol=3e-5 * scale, err_msg=name)


def graph_of(nodes: list[Node], outputs: list[str], shape: tuple[int, ...] = (1, 20, 6, 5)) -> Case:
    """A graph of one input x, and its feed. w is a 3x3 kernel over all channels, dw a depthwise one."""
    rng = np.random.default_rng(len(nodes))
    c = shape[1]
    constants = {
        "w": rng.standard_normal((c, c, 3, 3)).astype(F32) / np.float32(9 * c) ** 0.5,
        "dw": rng.standard_normal((c, 1, 3, 3)).astype(F32) / 3,
        "one": np.ones(shape, F32),
        "flat": np.array([shape[0], -1]),
        "back": np.array(shape),
    }
    used = {i for n in nodes for i in n.inputs} | set(outputs)
    graph = Graph(
        tuple(nodes),
        (Value("x", F32, shape),),
        tuple(Value(n) for n in outputs),
        {k: v for k, v in constants.items() if k in used},
    )
    return graph, {"x": rng.standard_normal(shape).astype(F32)}


WINDOW = {"pads": (1, 1, 1, 1), "kernel_shape": (3, 3)}


def parse(text: str, channels: int = 20) -> list[Node]:
    """Nodes of `networks.calls`, where Conv, Depthwise and MaxPool have 3x3 windows that keep the size."""
    nodes = []
    for op, inputs, outputs, attrs in networks.calls(text):
        window = {
            "Conv": ("Conv", (*inputs, "w"), WINDOW),
            "Depthwise": ("Conv", (*inputs, "dw"), {**WINDOW, "group": channels}),
            "MaxPool": ("MaxPool", inputs, WINDOW),
        }
        op, inputs, attrs = window.get(op, (op, inputs, attrs))
        nodes.append(Node(op, inputs, outputs, attrs, "-".join(outputs)))
    return nodes


TRICKY = {
    "diamond": ("a = Relu(x); b = MaxPool(a); c = Neg(a); y = Add(b, c)", "y"),
    "diamond of blocks": ("a = Conv(x); b = MaxPool(a); c = Sigmoid(a); y = Mul(b, c)", "y"),
    "residual read again later": (
        "a = Conv(x); b = Conv(a); c = Add(b, a); d = Relu(c); e = Conv(d); y = Add(e, a)",
        "y",
    ),
    "residual added to itself": ("a = Conv(x); y = Add(a, a)", "y"),
    "residual that is an output": ("a = Conv(x); b = Conv(a); y = Add(b, a)", "ya"),
    "intermediate is an output": ("a = Relu(x); b = Exp(a); y = Neg(b)", "yab"),
    "blocked intermediate is an output": ("a = Conv(x); b = Tanh(a); y = Conv(b)", "yba"),
    "one value under two output names": ("a = Relu(x); y = Identity(a); z = Identity(a)", "yza"),
    "input returned": ("y = Identity(x)", "y"),
    "input is itself an output": ("y = Relu(x)", "yx"),
    "constant output": ("y = Relu(x); z = Identity(one)", "yz"),
    "constant is itself an output": ("y = Add(x, one)", ["y", "one"]),
    "reshaped input": ("y = Reshape(x, flat)", "y"),
    "reshapes onto the output": ("a = Relu(x); b = Reshape(a, flat); y = Reshape(b, back)", "y"),
    "reshape of an output": ("a = Exp(x); y = Reshape(a, flat)", "ay"),
    "blocked, reshaped and read on": (
        "a = Conv(x); b = Reshape(a, flat); c = Tanh(b); d = Reshape(c, back); y = Add(d, a)",
        "yc",
    ),
    "view and source both read": (
        "a = Relu(x); b = Reshape(a, flat); c = Sigmoid(b); d = MaxPool(a); e = Reshape(c, back); y = Add(d, e)",
        "y",
    ),
    "view of a view overwritten": (
        "a = MaxPool(x); b = Reshape(a, flat); c = Reshape(b, back); d = Exp(c); e = MaxPool(a); y = Sub(d, e)",
        "y",
    ),
    "margins kept by work in place": ("a = Conv(x); b = Exp(a); y = Conv(b)", "y"),
    "margins of a depthwise chain": ("a = Depthwise(x); b = Exp(a); y = Depthwise(b)", "yb"),
    "same operand twice": ("a = MaxPool(x); b = Mul(a, a); y = Add(b, a)", "y"),
    "written by two readers in turn": (
        "a = MaxPool(x); b = Exp(a); c = MaxPool(b); d = Neg(a); e = MaxPool(d); y = Add(c, e)",
        "y",
    ),
    "outputs of a split, one unused": ("a = Conv(x); b, c = Split(a, axis=1, num_outputs=2); y = Exp(b)", "yb"),
}


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", TRICKY)
def test_tricky_graphs(name, threads):
    text, outputs = TRICKY[name]
    check(*graph_of(parse(text), list(outputs)), threads)


LAST = {
    "input": "y = Identity(x)",
    "plain": "y = Relu(x)",
    "blocked": "y = Conv(x)",
    "blocked with margins": "a = Conv(x); y = Depthwise(a)",
    "transposed": "a = Conv(x); y = Transpose(a, perm=(0, 3, 1, 2))",
    "joined": "a = Conv(x); y = Concat(a, x, axis=1)",
    "cut": "a = Conv(x); b = Concat(a, x, axis=1); z, y = Split(b, axis=1, num_outputs=2)",
    "one pixel": "a = Conv(x); y = GlobalAveragePool(a)",
    "over channels": "a = Conv(x); y = Softmax(a, axis=1)",
}


@pytest.mark.parametrize("shape", [(1, 20, 6, 5), (2, 3, 7, 4), (1, 16, 1, 1), (3, 33, 2, 9)])
@pytest.mark.parametrize("layout", LAST)
def test_outputs_from_every_layout(layout, shape):
    """An output is plain C order in its own memory whatever layout its maker works in."""
    nodes = parse(LAST[layout], shape[1])
    graph, feeds = graph_of(nodes, ["y", "a"] if len(nodes) > 1 else ["y"], shape)
    check(graph, feeds)
    for output in run_poisoned(graph, feeds).values():
        assert output.flags.c_contiguous
        assert output.flags.writeable
        assert not np.shares_memory(output, feeds["x"])


STEPS = (
    *(f"{{y}} = {op}({{a}})" for op in ("Relu", "Sigmoid", "Neg", "Identity", "Tanh", "Conv", "Depthwise", "MaxPool")),
    *(f"{{y}} = {op}({{a}}, {{b}})" for op in ("Add", "Add", "Sub", "Max")),
    "{y}a = Reshape({a}, flat); {y} = Reshape({y}a, back)",
    "{y}a = Reshape({a}, flat); {y}b = Tanh({y}a); {y} = Reshape({y}b, back)",
    "{y}a = Transpose({a}, perm=(0, 1, 3, 2)); {y} = Transpose({y}a, perm=(0, 1, 3, 2))",
    "{y}a = Concat({a}, {b}, axis=1); {y}b, {y} = Split({y}a, axis=1, num_outputs=2)",
    "{y}a = Concat({a}, {b}, axis=1); {y}, {y}b = Split({y}a, axis=1, num_outputs=2)",
    "{y}a = GlobalAveragePool({a}); {y}b = Sigmoid({y}a); {y} = Mul({b}, {y}b)",
)
"""What a random graph is made of: all values keep the input's shape."""


@st.composite
def random_graphs(draw):
    """Up to twelve nodes on values of one shape, any of which may be outputs."""
    shape = draw(st.sampled_from([(1, 20, 5, 4), (2, 3, 4, 6), (1, 16, 3, 3)]))
    names, lines = ["x"], []
    for i in range(draw(st.integers(1, 12))):
        a, b = draw(st.sampled_from(names)), draw(st.sampled_from(names))
        y = f"v{i}"
        lines.append(draw(st.sampled_from(STEPS)).format(a=a, b=b, y=y))
        names.append(y)
    outputs = draw(st.lists(st.sampled_from(names), min_size=1, max_size=4, unique=True))
    return graph_of(parse("; ".join(lines), shape[1]), outputs, shape)


@given(random_graphs(), st.sampled_from([1, 2]))
@settings(max_examples=100)
def test_random_graphs(case, threads):
    check(*case, threads)


def arena_places(program: Program) -> list[dict[int, int]]:
    """Where in the arena each step reads and writes, but for the scratch memory of threads other than the first."""
    return [
        {
            at: ref.offset
            for at, ref in step.addresses.items()
            if ref.space == "arena" and at != step.record.dtype.fields.get("scratch_others", (0, -1))[1]
        }
        for step in program.steps
    ]


@pytest.mark.parametrize("shape", [(1, 20, 18, 17), (3, 40, 9, 12)])
def test_a_program_for_many_threads_lies_in_memory_as_one_for_one(shape):
    """Where nobody comes to help it touches the same memory, and is as fast."""
    text = "a = Conv(x); b = MaxPool(a); c = Depthwise(b); d = Sigmoid(c); e = Conv(d); f = Add(e, b); y = Conv(f)"
    graph, feeds = graph_of(parse(text, shape[1]), ["y"], shape)
    shapes, only = {"x": feeds["x"].shape}, ("winograd_4x4", "pool_separable", "depthwise_blocked", "bytecode")
    one, many = (compile_graph(graph, shapes, threads, only=only) for threads in (1, 5))
    assert {"winograd_4x4", "pool_separable", "bytecode"} <= {row.algorithm for row in one.rows}
    assert arena_places(one) == arena_places(many)
    assert one.arena_nbytes < many.arena_nbytes
