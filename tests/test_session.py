"""What a Session promises: one native call, no memory taken, nothing changed, the same bits whatever the threads."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import subprocess
import sys
import textwrap
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import sigconv as sc
from sigconv import programs
from sigconv.runtime import runner
from sigconv.runtime.session import Session
from tests.cases import networks

ROOT = Path(__file__).parents[1]
SHAPE = (2, 3, 12, 12)
STATM = Path("/proc/self/statm")


@pytest.fixture(scope="module")
def model() -> sc.Model:
    return sc.load(networks.cnn())


@pytest.fixture
def feeds(rng) -> dict[str, np.ndarray]:
    return {"x": rng.standard_normal(SHAPE).astype(np.float32)}


def test_the_network_is_right(model, feeds):
    want = networks.onnxruntime_run(networks.cnn(), feeds)
    for got in (model.run(feeds), model.compile({"x": SHAPE}).run(feeds)):
        assert list(got) == ["y"]
        np.testing.assert_allclose(got["y"], want["y"], rtol=0, atol=1e-6)


def test_call_takes_arrays_in_order(model, feeds):
    np.testing.assert_array_equal(model(feeds["x"]), model.run(feeds)["y"])
    with pytest.raises(sc.InputError, match="got 2 inputs, the model takes x"):
        model(feeds["x"], feeds["x"])


def test_an_inference_is_one_native_call(model, feeds, monkeypatch):
    calls = []

    def counting(address):
        function = original(address)
        return lambda *args: calls.append(args) or function(*args)

    original = runner.KernelFunction
    monkeypatch.setattr(runner, "KernelFunction", counting)
    session = model.compile({"x": SHAPE})
    assert len(session.program.steps) > 10
    for runs in range(1, 4):
        session.run(feeds)
        assert len(calls) == runs


def test_run_takes_no_memory_but_its_outputs(model, feeds):
    session = model.compile({"x": SHAPE}, threads=2)
    arena = session._arena.ctypes.data
    for _ in range(3):
        session.run(feeds)
    tracemalloc.start()
    try:
        session.run(feeds)
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        outputs = session.run(feeds)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    python = 4096  # the dict, the lists and the ndarray objects
    assert sum(a.nbytes for a in outputs.values()) <= peak - before + python
    assert peak - before <= sum(a.nbytes for a in outputs.values()) + python
    assert session.program.arena_nbytes > 4 * python, "too small a network to tell"
    if STATM.exists():
        held = resident_growth(lambda: [session.run(feeds) for _ in range(200)])
        assert held < session.program.arena_nbytes, "memory grows from run to run"
    assert session._arena.ctypes.data == arena


def resident_growth(work) -> int:
    """Bytes by which this process' resident set grew."""
    before = int(STATM.read_text().split()[1])
    work()
    return (int(STATM.read_text().split()[1]) - before) * os.sysconf("SC_PAGESIZE")


def test_results_do_not_depend_on_threads(model, rng):
    feeds = {"x": rng.standard_normal((3, 3, 12, 12)).astype(np.float32)}
    shape = {"x": feeds["x"].shape}
    want = model.compile(shape, threads=1).run(feeds)["y"]
    for threads in (2, 3, 5, 16):
        session = model.compile(shape, threads=threads)
        for _ in range(5):
            np.testing.assert_array_equal(session.run(feeds)["y"], want)
        np.testing.assert_array_equal(session.run(feeds, threads=2)["y"], want)


def test_outputs_are_new_arrays_and_inputs_stay(model, feeds):
    session = model.compile({"x": SHAPE})
    copy = feeds["x"].copy()
    feeds["x"].flags.writeable = False
    first = session.run(feeds)["y"]
    kept = first.copy()
    second = session.run({"x": -copy})["y"]
    assert not np.shares_memory(first, second)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(feeds["x"], copy)
    second[...] = 0
    np.testing.assert_array_equal(session.run(feeds)["y"], kept)


@pytest.mark.parametrize("op, outputs", [("Identity", ["y"]), ("Identity", ["y", "x", "c"]), ("Relu", ["y", "x", "c"])])
def test_no_output_is_an_input_a_constant_or_another_output(op, outputs, rng):
    node = networks.helper.make_node(op, ["x"], ["y"])
    constant = np.arange(6, dtype=np.float32)
    x = np.abs(rng.standard_normal((4, 5))).astype(np.float32)
    session = sc.load(networks.model([node], {"x": [4, 5]}, outputs, {"c": constant})).compile()
    arrays = [x, *session.run({"x": x}).values(), *session.run({"x": x}).values()]
    assert not any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i])
    for array in arrays[1:]:
        array[...] = -1
    again = session.run({"x": x})
    np.testing.assert_array_equal(again["y"], x)
    if "c" in outputs:
        np.testing.assert_array_equal(again["c"], constant)


def test_feeds_of_any_memory_layout(model, feeds):
    session = model.compile({"x": SHAPE})
    want = session.run(feeds)["y"]
    x = feeds["x"]
    unaligned = np.empty(x.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(SHAPE)
    unaligned[...] = x
    spread = np.zeros((2, 3, 24, 36), np.float32)[:, :, ::2, ::3]
    spread[...] = x
    for other in (np.asfortranarray(x), spread, x[..., ::-1].copy()[..., ::-1], x.astype(">f4"), unaligned):
        assert not (other.flags.c_contiguous and other.flags.aligned and other.dtype.isnative)
        np.testing.assert_array_equal(session.run({"x": other})["y"], want)
        np.testing.assert_array_equal(model.run({"x": other})["y"], want)
        np.testing.assert_array_equal(other, x)


def test_outputs_by_name():
    nodes = [networks.helper.make_node("Relu", ["x"], ["a"]), networks.helper.make_node("Neg", ["a"], ["b"])]
    proto = networks.model(nodes, {"x": ["N"]}, ["a", "b"])
    model, x = sc.load(proto), np.array([-1, 2], np.float32)
    assert list(model.run({"x": x}, ["b"])) == ["b"]
    assert list(model.run({"x": x}, ["b", "a"])) == ["b", "a"]
    a, b = model(x)
    np.testing.assert_array_equal(a, -b)
    session = sc.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for names, want in ((None, [a, b]), ([], [a, b]), (["b"], [b]), (["b", "a"], [b, a]), (["b", "b"], [b, b])):
        got = session.run(names, {"x": x})
        assert len(got) == len(want)
        for g, w in zip(got, want, strict=True):
            np.testing.assert_array_equal(g, w)
    assert [(i.name, i.type, i.shape) for i in session.get_inputs()] == [("x", "tensor(float)", ["N"])]
    assert [o.name for o in session.get_outputs()] == ["a", "b"]


def test_a_result_of_another_shape_is_not_stretched():
    proto = networks.model([networks.helper.make_node("Det", ["x"], ["y"])], {"x": [4, 3, 3]}, ["y"])
    program = sc.load(proto).compile().program
    (step,) = program.steps
    feeds = {"x": np.eye(3, dtype=np.float32).repeat(4, 0).reshape(4, 3, 3)}
    assert Session(program).run(feeds)["y"].shape == (4,)
    wrong = dataclasses.replace(step, function=lambda arrays: (np.zeros(1, np.float32),))
    with pytest.raises(sc.ModelError, match=r"'y' of shape \(1,\) was expected to have \(4,\)"):
        Session(dataclasses.replace(program, steps=(wrong,))).run(feeds)


# --- explain, profile ------------------------------------------------------------------------------------------------
def test_explain_names_every_node_once(model):
    explanation = model.compile({"x": SHAPE}).explain()
    fused = [name for row in explanation.rows for name in row.fused]
    left_out = {"flatten"}  # may be folded into the product
    assert {n.name for n in model.graph.nodes} - left_out <= set(fused)
    assert len(fused) == len(set(fused))
    text = str(explanation)
    for row in explanation.rows:
        assert row.label in text
        assert row.algorithm in text
        assert row.reason
    assert "arena" in text
    assert "numpy" not in {row.algorithm for row in explanation.rows}, "every op of this network has a kernel"
    assert len(json.loads(explanation.to_json())["rows"]) == len(explanation.rows)


def test_profile_times_every_row(model, feeds):
    session = model.compile({"x": SHAPE})
    want = session.run(feeds)["y"]
    profile = session.profile(feeds, repeat=3)
    rows = session.explain().rows
    assert [t.row for t in profile.rows] == list(rows)
    assert all(0 <= t.seconds < 1 for t in profile.rows)
    assert 0 < profile.seconds == pytest.approx(sum(t.seconds for t in profile.rows))
    assert any(t.gflops > 0.01 for t in profile.rows)
    assert all(row.label in str(profile) for row in rows)
    assert len(json.loads(profile.to_json())["rows"]) == len(rows)
    np.testing.assert_array_equal(session.run(feeds)["y"], want)


def test_summary_counts_parameters(model):
    text = str(model.summary())
    count = sum(c.size for c in model.graph.constants.values())
    assert f"{count:,}" in text
    assert "Conv 3" in text


# --- programs and kernels that are kept -------------------------------------------------------------------------------
def test_programs_are_kept_within_a_bound(monkeypatch, rng):
    compiled = []

    def compile_graph(graph, shapes, *args, **kwargs):
        compiled.append(shapes["x"][0])
        return original(graph, shapes, *args, **kwargs)

    original = programs.compile_graph
    monkeypatch.setattr(programs, "compile_graph", compile_graph)
    model = sc.load(networks.cnn())
    x = rng.standard_normal((20, 3, 12, 12)).astype(np.float32)
    kept = programs.PROGRAMS_KEPT
    want = {n: model.run({"x": x[:n]})["y"] for n in range(1, kept + 4)}
    assert compiled == list(want)
    assert len(model._programs) == kept
    for n in range(4, kept + 4):
        np.testing.assert_array_equal(model.run({"x": x[:n]})["y"], want[n])
    assert len(compiled) == kept + 3, "what was kept was compiled again"
    model.run({"x": x[:4]})  # now the one used last
    model.run({"x": x[:1]})
    model.run({"x": x[:4]})
    assert compiled[kept + 3 :] == [1], "the least recently used one goes"


def test_a_session_is_used_again(model, feeds, monkeypatch):
    made = []
    original = programs.Session
    monkeypatch.setattr(programs, "Session", lambda program: made.append(program) or original(program))
    for _ in range(5):
        model.run(feeds)
    assert len(made) <= 1


COMPILATIONS = """
import numpy as np
import sigconv as sc
from sigconv.kernels import jit
from tests.cases import networks
rng = np.random.default_rng(0)
first, second = sc.load(networks.cnn(seed=1)), sc.load(networks.cnn(seed=2, size=20))
for model, size in ((first, 12), (second, 20), (first, 12)):
    for batch in (1, 3):
        model.run({"x": rng.standard_normal((batch, 3, size, size)).astype(np.float32)})
    model.compile({"x": (2, 3, size, size)}, threads=2)
    print(jit.compilations())
"""


def test_no_model_compiles_anything_once_its_kernels_are_cached():
    """The first process fills the cache (or finds it full) with one model; the second loads everything."""
    counts = [list(map(int, python(COMPILATIONS).split())) for _ in range(2)]
    assert counts[0][0] == counts[0][1] == counts[0][2], "the second model needed kernels that the first does not"
    assert counts[1] == [0, 0, 0]


def python(program: str) -> str:
    """What a program prints; it must end well and say nothing on stderr."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def test_programs_share_their_weights_and_leave_nothing_behind():
    model = sc.models.unet(base=16, levels=2)
    sessions = [model.compile({"x": (n, 3, 48, 48)}, threads=1) for n in (1, 2)]
    large = [{id(c) for c in s.program.constants if c.nbytes > 10_000} for s in sessions]
    assert len(large[0] & large[1]) > len(large[0]) / 2
    kept = model._programs.pool._kept
    assert len(kept) > 5
    feeds = {"x": np.ones((2, 3, 48, 48), np.float32)}
    want = sc.Model(model.graph, threads=1).run(feeds)
    np.testing.assert_array_equal(sessions[1].run(feeds)["head"], want["head"])
    del sessions
    gc.collect()
    graph = {id(c) for c in (*model.graph.constants.values(), *model._simple.constants.values())}
    assert all(id(c) in graph for c in kept.values())


def test_programs_are_kept_within_a_size(monkeypatch):
    model = sc.load(networks.cnn())
    for n in range(1, 5):
        model.run({"x": np.zeros((n, 3, 12, 12), np.float32)})
    kept = model._programs._kept
    assert len(kept) == 4
    monkeypatch.setattr(programs, "PROGRAMS_NBYTES", next(reversed(kept.values())).nbytes)
    model.run({"x": np.zeros((5, 3, 12, 12), np.float32)})
    assert [key[0] for key in kept] == [((5, 3, 12, 12),)]
