"""Random networks and odd ones in every way, against the interpreter; single nodes however they are shared."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

import sigconv as sc
from sigconv.graph.ir import Graph, Node, Value
from sigconv.runtime.runner import Prepared
from sigconv.runtime.session import Session
from tests.cases import random_graphs
from tests.cases.compute_nodes import FAMILIES, Case
from tests.cases.every_way import Feeds, assert_guards, assert_same, check_graph, check_shares, compiled, guarded
from tests.cases.onnx_nodes import node_model
from tests.cases.recurrent_nodes import NATIVE, WEIGHTS


@pytest.mark.parametrize("start", range(0, 300, 50))
def test_random_networks(start):
    for seed in range(start, start + 50):
        try:
            check_graph(*random_graphs.make(seed, 12), seed)
        except Exception as e:
            raise AssertionError(f"seed {seed}: {e}") from e


def nodes() -> Iterator[Case]:
    for family in FAMILIES:
        yield from family()
    for case in NATIVE:
        yield replace(case, constant=WEIGHTS)


@pytest.mark.parametrize("part", range(8))
def test_single_nodes_however_they_are_shared(part):
    rng = np.random.default_rng(part)
    for case in itertools.islice(nodes(), part, None, 8):
        model = node_model(case.op, case.inputs, case.attrs, case.n_outputs, case.opset, case.domain, case.constant)
        loaded = sc.load(model)
        feeds = {v.name: case.inputs[int(v.name[1:])] for v in loaded.graph.inputs}
        try:
            check_shares(loaded.graph, feeds, rng)
        except Exception as e:
            raise AssertionError(f"{case}: {e}") from e


HALF = np.dtype(np.float16)
X = np.linspace(-2, 2, 48, dtype=np.float32).reshape(6, 8)

ODD: dict[str, tuple[list[Node], list[Value], Feeds]] = {
    "a view that outlives the memory it looks at": (
        [
            Node("Relu", ("x",), ("a",)),
            Node("Reshape", ("a", "sizes"), ("kept",)),
            Node("Tanh", ("x",), ("b",)),
            Node("Softmax", ("b",), ("c",)),
            Node("Transpose", ("c",), ("d",), {"perm": (1, 0)}),
            Node("Softmax", ("d",), ("z",)),
            Node("Relu", ("kept",), ("y",)),
        ],
        [Value("y"), Value("z")],
        {"x": X, "sizes": np.array([4, 12])},
    ),
    "a vector added to a product by a vector": (
        [Node("MatMul", ("x", "c8"), ("a",)), Node("Add", ("a", "c6"), ("y",))],
        [Value("y")],
        {"x": X},
    ),
    "a normalisation of the second part of a split": (
        [
            Node("Split", ("x",), ("a", "b"), {"axis": 1, "num_outputs": 2}),
            Node("BatchNormalization", ("b", *["c4"] * 4), ("y",)),
        ],
        [Value("y")],
        {"x": X},
    ),
    "names that a rewrite would like": (
        [
            Node("Relu", ("x",), ("a",)),
            Node("BatchNormalization", ("a", *["y.scale"] * 4), ("y",)),
            Node("Mul", ("x", "y.scaled"), ("z",)),
            Node("Mul", ("z", "y.scale"), ("w",)),
        ],
        [Value("y"), Value("w")],
        {"x": X, "y.scaled": X[0]},
    ),
    "half precision in and out at once": (
        [Node("Relu", ("x",), ("y",))],
        [Value("x", HALF), Value("y", HALF)],
        {"x": X.astype(HALF)},
    ),
    "a half precision constant as output": (
        [Node("Add", ("x", "h8"), ("y",))],
        [Value("h8", HALF), Value("y")],
        {"x": X.astype(HALF)},
    ),
    "half precision in an attribute": (
        [
            Node("ConstantOfShape", ("one",), ("a",), {"value": np.ones(1, HALF)}),
            Node("Add", ("x", "a"), ("y",)),
        ],
        [Value("y", HALF)],
        {"x": X.astype(HALF)},
    ),
    "only the second part of a split": (
        [Node("Split", ("x",), ("", "y"), {"axis": 1, "num_outputs": 2})],
        [Value("y")],
        {"x": X},
    ),
    "an output named twice": ([Node("Relu", ("x",), ("y",))], [Value("y"), Value("y")], {"x": X}),
    "an empty part of a concatenation": (
        [Node("Concat", ("x", "none"), ("y",), {"axis": 0})],
        [Value("y")],
        {"x": X},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_odd_graphs(name):
    nodes, outputs, feeds = ODD[name]
    c = {f"c{n}": np.linspace(0.5, 1, n, dtype=np.float32) for n in (4, 6, 8)}
    c |= {"y.scale": c["c8"], "h8": c["c8"].astype(HALF), "one": np.array([1]), "none": np.zeros((0, 8), np.float32)}
    read = {i for n in nodes for i in n.inputs} | {v.name for v in outputs}
    inputs = tuple(Value(n, a.dtype, a.shape) for n, a in feeds.items())
    check_graph(Graph(tuple(nodes), inputs, tuple(outputs), {k: v for k, v in c.items() if k in read}), feeds)


def test_a_program_does_not_follow_its_makers_arrays():
    """Weights that are packed, and those that are read where they lie."""
    rng = np.random.default_rng(0)
    constants = {"w": rng.standard_normal((4, 3, 3, 3), np.float32), "c": rng.standard_normal((4, 3, 3), np.float32)}
    feeds = {"x": rng.standard_normal((1, 3, 5, 5), np.float32)}
    nodes = (Node("Conv", ("x", "w"), ("a",)), Node("Exp", ("a",), ("b",)), Node("Mul", ("b", "c"), ("y",)))
    graph = Graph(nodes, (Value("x", np.dtype(np.float32), (1, 3, 5, 5)),), (Value("y"),), constants)
    session = Session(compiled(graph, feeds, 1))
    before = session.run(feeds)
    for array in constants.values():
        array.fill(0)
    assert_same(session.run(feeds), before, "the caller changed its weights")
    assert not any(c.flags.writeable for c in session.program.constants)


def test_guards_are_seen():
    part = guarded(100)
    part[:] = 0
    assert_guards(part)
    beyond = np.lib.stride_tricks.as_strided(part, (101,), (1,))
    beyond[100] = 0
    with pytest.raises(AssertionError, match="past a buffer"):
        assert_guards(part)


def test_shares_respect_fences():
    """What `Shares` permutes: all threads of a group, never two groups."""
    graph, feeds = random_graphs.make(0)
    session = Session(compiled(graph, feeds, 3))
    segments = [s for s in session._segments if isinstance(s, Prepared)]
    assert segments
    assert all(s._steps["fence"][0] for s in segments)
