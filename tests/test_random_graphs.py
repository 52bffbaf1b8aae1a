"""Random networks against the interpreter: any split among threads, whatever lay in memory, no byte out of bounds."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest

from sigconv.graph.interpret import interpret
from sigconv.graph.ir import Graph, Node, Value
from sigconv.planner import build
from sigconv.planner.candidates import REGISTRY
from sigconv.planner.compile import compile_graph
from sigconv.planner.lower.cpu import depthwise, direct, direct_pixels, reduce
from sigconv.runtime import session as runtime
from sigconv.runtime.program import HostStep, Program
from sigconv.runtime.runner import Prepared
from sigconv.runtime.session import Session
from sigconv.runtime.team import KernelFunction
from tests.cases import random_graphs

Feeds = dict[str, np.ndarray]

NOISE = {"float64": 1e-10, "float32": 2e-4, "float16": 2e-2}
"""Error allowed where the interpreter makes none itself, relative to the output's scale."""

GUARD = 256
"""Bytes around every buffer that nothing may write."""
POISON = 0xFF
"""NaN in every float type."""


class Shares:
    """Native steps run share by share, in any order that the fences allow."""

    def __init__(self, steps: np.ndarray, rng: np.random.Generator) -> None:
        self.steps, self.rng = steps, rng

    def run(self, threads: int) -> None:
        groups = np.split(self.steps, np.flatnonzero(self.steps["fence"])[1:])
        for group in groups:
            for thread in self.rng.permutation(threads):
                for step in group:
                    shares = min(int(step["width"]), threads)
                    if thread < shares:
                        KernelFunction(int(step["kernel"]))(int(step["args"]), int(thread), shares)


def guarded(nbytes: int) -> np.ndarray:
    """Poisoned bytes between poisoned guards, on a cache line as a session wants them."""
    raw = np.full(nbytes + 2 * GUARD + 64, POISON, np.uint8)
    start = GUARD + -(raw.ctypes.data + GUARD) % 64
    return raw[start : start + nbytes]


def assert_guards(part: np.ndarray) -> None:
    """That nothing but ``part`` of what `guarded` made was written."""
    raw = part
    while isinstance(raw.base, np.ndarray):
        raw = raw.base
    start = part.ctypes.data - raw.ctypes.data
    assert (raw[:start] == POISON).all(), "written before a buffer"
    assert (raw[start + part.nbytes :] == POISON).all(), "written past a buffer"


def apart(buffers: Sequence[build.Buffer]) -> int:
    """In place of `planner.memory.assign`: no buffer shares memory, and there are guards between them."""
    end = GUARD
    for buffer in buffers:
        buffer.offset, end = end, end + -(-buffer.nbytes // 64) * 64 + GUARD
    return end


@contextmanager
def finest_shares() -> Iterator[None]:
    """Every step is worth any number of threads, however small it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "COPY_GRAIN", 1)
        for module in (depthwise, direct, direct_pixels, reduce):
            patch.setattr(module, "GRAIN", 1)
        yield


def compiled(graph: Graph, feeds: Feeds, threads: int, only: Collection[str] = ()) -> Program:
    with finest_shares():
        return compile_graph(graph, {k: a.shape for k, a in feeds.items()}, threads, only=only)


def run_alone(graph: Graph, feeds: Feeds, only: Collection[str]) -> Feeds:
    """The outputs of a third run on one thread; memory held NaN, NaN, and huge numbers before each of them."""
    session = Session(compiled(graph, feeds, 1, only))
    results: list[Feeds] = []
    for byte in (POISON, POISON, 0x7E):
        session._arena.fill(byte)
        session._workspace.fill(byte)
        results.append(session.run(feeds))
        assert_same(results[-1], results[0], f"run {len(results)}")
    return results[-1]


def run_shared(graph: Graph, feeds: Feeds, threads: int, only: Collection[str], rng: np.random.Generator) -> Feeds:
    """The outputs with ``threads`` shares a step in random order, every buffer and array between guards."""
    with pytest.MonkeyPatch.context() as patch:
        buffers: list[build.Buffer] = []
        patch.setattr(build, "assign", lambda live: buffers.extend(live) or apart(buffers))
        patch.setattr(runtime, "_memory", guarded)
        program = compiled(graph, feeds, threads, only)
        session = Session(program)
    arrays = []
    for array in session._arrays(feeds):
        arrays.append(guarded(array.nbytes).view(array.dtype).reshape(array.shape))
        arrays[-1][...] = array
    outputs = [
        None if p.ref is None else guarded(int(np.prod(p.shape)) * p.dtype.itemsize).view(p.dtype).reshape(p.shape)
        for p in program.outputs
    ]
    session._segments = [s if isinstance(s, HostStep) else Shares(s._steps, rng) for s in session._segments]
    session._point(session._fixups[0], arrays)
    session._point(session._fixups[1], outputs)
    session._run_mixed(arrays, outputs, threads)
    for part in (session._arena, session._workspace, *arrays, *outputs):
        if part is not None:
            assert_guards(part)
    gaps = np.ones(len(session._arena), bool)
    for b in buffers:
        gaps[b.offset : b.offset + b.nbytes] = False
    assert (session._arena[gaps] == POISON).all(), "written between the buffers of the arena"
    for array, feed in zip(arrays, session._arrays(feeds), strict=True):
        assert array.tobytes() == feed.tobytes(), "an input was written"
    return {p.name: o for p, o in zip(program.outputs, outputs, strict=True) if o is not None}


def assert_same(got: Feeds, want: Feeds, what: str) -> None:
    """Identical bits, but for the sign and payload of NaN."""
    for name in want:
        nan = got[name].dtype.kind == "f"
        assert np.array_equal(got[name], want[name], equal_nan=nan), f"{name} differs: {what}"


def assert_close(name: str, got: np.ndarray, want: np.ndarray, exact: np.ndarray) -> None:
    """``exact`` is what ``want`` would be in double precision: where it is elsewhere, rounding decides."""
    assert (got.dtype, got.shape) == (want.dtype, want.shape), name
    if want.dtype.kind != "f":
        assert np.array_equal(got, want), name
        return
    sure = np.isnan(want) == np.isnan(exact)
    assert np.array_equal(np.isnan(got)[sure], np.isnan(want)[sure]), f"{name}: NaN at other places"
    infinite = np.isinf(want) & np.isinf(exact)
    assert np.array_equal(got[infinite], want[infinite]), f"{name}: infinities differ"
    finite = np.isfinite(want) & np.isfinite(exact)
    own, off = (np.abs(a[finite].astype(np.float64) - exact[finite]).max(initial=0) for a in (want, got))
    scale = max(0.05, np.abs(want[finite].astype(np.float64)).max(initial=0))
    assert off <= NOISE[want.dtype.name] * scale + 20 * own, f"{name}: off by {off:.3g}, scale {scale:.3g}"


def check(seed: int, nodes: int = 12) -> None:
    """Run one random network in every way."""
    check_graph(*random_graphs.make(seed, nodes), seed)


def check_graph(graph: Graph, feeds: Feeds, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    names = sorted({c.name for candidates in REGISTRY.values() for c in candidates})
    only = rng.choice(names, 3, replace=False).tolist() if rng.random() < 0.5 else ()
    got = run_alone(graph, feeds, only)
    want, exact = interpret(graph, feeds), interpret(graph, feeds, float64=True)
    for name in want:
        assert_close(name, got[name], want[name], exact[name].astype(np.float64))
    for threads in (2, 3):
        assert_same(run_shared(graph, feeds, threads, only, rng), got, f"{threads} shares a step")
    together = Session(compiled(graph, feeds, 3, only)).run(feeds)
    assert_same(together, got, "a team of threads")


@pytest.mark.parametrize("start", range(0, 300, 50))
def test_random_networks(start):
    for seed in range(start, start + 50):
        try:
            check(seed)
        except Exception as e:
            raise AssertionError(f"seed {seed}: {e}") from e


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
