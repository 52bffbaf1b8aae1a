"""A graph run in every way: any split among threads, whatever lay in memory, no byte out of bounds."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest

from sigconv.graph.interpret import interpret
from sigconv.graph.ir import Graph
from sigconv.planner import build
from sigconv.planner.candidates import REGISTRY
from sigconv.planner.compile import compile_graph
from sigconv.planner.lower.cpu import depthwise, direct, direct_pixels, reduce
from sigconv.planner.tensors import Buffer
from sigconv.runtime import session as runtime
from sigconv.runtime.program import HostStep, Program
from sigconv.runtime.session import Session
from sigconv.runtime.team import KernelFunction

Feeds = dict[str, np.ndarray]

NOISE = {"float64": 1e-10, "float32": 2e-4, "float16": 2e-2}
"""Error allowed where the interpreter makes none itself, relative to the output's scale."""

GUARD = 256
"""Bytes around every buffer that nothing may write."""
POISON = 0xFF
"""NaN in every float type."""


class Shares:
    """Native steps run share by share, in any order that the fences allow: those of steps between two fences mixed."""

    def __init__(self, steps: np.ndarray, rng: np.random.Generator) -> None:
        self.steps, self.rng = steps, rng

    def run(self, threads: int) -> None:
        for group in np.split(self.steps, np.flatnonzero(self.steps["fence"])[1:]):
            shares = [(step, share) for step in group for share in range(min(int(step["width"]), threads))]
            for i in self.rng.permutation(len(shares)):
                step, share = shares[i]
                KernelFunction(int(step["kernel"]))(int(step["args"]), share, min(int(step["width"]), threads))


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


def apart(buffers: Sequence[Buffer]) -> int:
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
        results.append(session.run(feeds))
        assert_same(results[-1], results[0], f"run {len(results)}")
    return results[-1]


def run_shared(graph: Graph, feeds: Feeds, threads: int, only: Collection[str], rng: np.random.Generator) -> Feeds:
    """The outputs with ``threads`` shares a step in random order, every buffer and array between guards."""
    with pytest.MonkeyPatch.context() as patch:
        buffers: list[Buffer] = []
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
    session._fixups.point([*arrays, *outputs])
    session._run_mixed(arrays, outputs, threads)
    for part in (session._arena, *arrays, *outputs):
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


def check_shares(graph: Graph, feeds: Feeds, rng: np.random.Generator, only: Collection[str] = ()) -> Feeds:
    """The outputs, the same bits however the steps are shared."""
    got = run_alone(graph, feeds, only)
    for threads in (2, 3):
        assert_same(run_shared(graph, feeds, threads, only, rng), got, f"{threads} shares a step")
    together = Session(compiled(graph, feeds, 3, only)).run(feeds)
    assert_same(together, got, "a team of threads")
    return got


def check_graph(graph: Graph, feeds: Feeds, seed: int = 0) -> None:
    """In every way, by any candidates, and what the interpreter gives."""
    rng = np.random.default_rng(seed)
    names = sorted({c.name for candidates in REGISTRY.values() for c in candidates})
    only = rng.choice(names, 3, replace=False).tolist() if rng.random() < 0.5 else ()
    got = check_shares(graph, feeds, rng, only)
    want, exact = interpret(graph, feeds), interpret(graph, feeds, float64=True)
    for name in want:
        assert_close(name, got[name], want[name], exact[name].astype(np.float64))
