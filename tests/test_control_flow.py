"""If, Loop and Scan against onnxruntime: captures, nesting, shapes that depend on data; and what is wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

import sigconv as sc
from sigconv import programs
from sigconv.errors import ModelError
from sigconv.graph.infer import infer
from sigconv.graph.interpret import interpret
from sigconv.graph.ir import Graph
from sigconv.graph.passes import inline_if, simplify
from tests.cases import control_flow
from tests.cases.control_flow import MODELS, normal, parse
from tests.cases.oracle import assert_matches, expected, onnxruntime_session


@pytest.mark.parametrize("name", MODELS)
def test_matches_onnxruntime(name: str) -> None:
    proto = control_flow.model(name)
    oracle, model = onnxruntime_session(proto), sc.load(proto)
    for feeds in MODELS[name][2]:
        want = expected(oracle, feeds)
        assert_matches(model.run(feeds), want)
        assert_matches(model.run(feeds), want)  # now from what is kept
        assert_matches(interpret(model.graph, feeds), want)
        assert_matches(interpret(simplify(model.graph), feeds), want)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_inferred_holds(name: str) -> None:
    graph = sc.load(control_flow.model(name)).graph
    for feeds in MODELS[name][2]:
        facts = infer(graph, {k: x.shape for k, x in feeds.items()})
        for key, value in interpret(graph, feeds, keep=True).items():
            fact = facts[key]
            assert fact.dtype in (None, value.dtype), key
            assert fact.shape is None or len(fact.shape) == value.ndim, key
            for known, size in zip(fact.shape or (), value.shape, strict=False):
                assert not isinstance(known, int) or known == size, key


def test_a_scan_with_a_batch() -> None:
    """onnxruntime no longer has opset 8's form: every sample against opset 9's."""
    model, single = sc.load(control_flow.batched_scan()), sc.load(parse(control_flow.SCAN_8.replace(
        "Scan (none, h, x)", "Scan (h, x)").replace("[2, 3]", "[3]").replace("[2, T, 3]", "[T, 3]").replace(
        "directions", "scan_input_directions"), 9))  # fmt: skip
    feeds = {"h": normal(2, 3), "x": normal(2, 4, 3), "k": np.array(np.float32(0.4))}
    found = model.run(feeds)
    for i in range(2):
        want = single.run({"h": feeds["h"][i], "x": feeds["x"][i], "k": feeds["k"]})
        np.testing.assert_allclose(found["last"][i], want["last"], rtol=1e-6)
        np.testing.assert_allclose(found["all"][i], want["all"], rtol=1e-6)


def ops(nodes: Sequence[object]) -> list[str]:
    return [node.op for node in nodes]


def test_known_conditions_are_decided_ahead() -> None:
    text, opset, (feeds, other) = MODELS["constant"]
    graph = sc.load(parse(text, opset)).graph
    assert ops(simplify(graph).nodes)[-1] == "If", "the width is not known yet"
    session = sc.load(parse(text, opset)).compile({"x": feeds["x"].shape})
    assert {row.algorithm for row in session.program.rows} <= {"bytecode", "strided_copy", "view"}
    known = simplify(graph.replace(inputs=(graph.inputs[0].__class__("x", np.dtype(np.float32), other["x"].shape),)))
    assert ops(known.nodes) == ["Neg"]


def test_a_branch_may_hand_through_its_captures() -> None:
    text = """
    g (float[2] x, float[2] z) => (float[2] y, float[2] w) {
      yes = Constant <value = bool {1}> ()
      y, w = If (yes) <
        then_branch = t () => (float[2] a, float[2] b) { a = Identity (x)  b = Identity (x) },
        else_branch = e () => (float[2] c, float[2] d) { c = Identity (z)  d = Identity (z) }
      >
    }
    """
    graph = inline_if.run(sc.load(parse(text)).graph)
    feeds = {"x": normal(2), "z": normal(2)}
    assert set(ops(graph.nodes)) == {"Identity"}
    for value in interpret(simplify(graph), feeds).values():
        np.testing.assert_array_equal(value, feeds["x"])


def test_sub_graphs_run_as_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weight a body reads from outside is a constant to it; a body whose shape keeps changing is interpreted."""
    made: list[Graph] = []
    original = programs.compile_graph
    monkeypatch.setattr(
        programs, "compile_graph", lambda graph, *a, **k: made.append(graph) or original(graph, *a, **k)
    )
    model = sc.load(control_flow.model("convolutions"))
    model.run(MODELS["convolutions"][2][0])
    assert ops(made[1].nodes) == ["Conv", "Tanh"] or ops(made[1].nodes) == ["Identity", "Conv", "Tanh"]
    assert [c.shape for c in made[1].constants.values()] == [(3, 3, 3, 3)]
    made.clear()
    sc.load(control_flow.model("growing")).run(MODELS["growing"][2][0])
    assert len(made) == 1 + programs.PROGRAMS_KEPT


def test_double_precision_goes_inside() -> None:
    graph = sc.load(control_flow.model("nested")).graph
    feeds = MODELS["nested"][2][0]
    wide = interpret(graph, feeds, float64=True)["y"]
    assert wide.dtype == np.float64
    np.testing.assert_allclose(interpret(graph, feeds)["y"], wide, rtol=1e-5, atol=1e-5)


def test_a_long_loop_is_not_run_ahead() -> None:
    text = """
    g (float[2] z) => (float[2] y) {
      n = Constant <value = int64 {5000}> ()
      go = Constant <value = bool {1}> ()
      x = Constant <value = float[2] {1, 2}> ()
      last, all = Loop (n, go, x) <
        body = b (int64 i, bool keep, float[2] s) => (bool more, float[2] t, float[2] kept) {
          more = Identity (keep)
          t = Neg (s)
          kept = Abs (t)
        }
      >
      y = ReduceSum <keepdims = 0> (all, zero)
    }
    """
    text = text.replace("y = Red", "zero = Constant <value = int64[1] {0}> ()\n      y = Red")
    model = sc.load(parse(text))
    assert "Loop" in ops(simplify(model.graph).nodes)
    np.testing.assert_array_equal(model.run({"z": normal(2)})["y"], [5000, 10000])


@pytest.mark.parametrize("most", ['""', "huge"])
def test_a_loop_that_never_begins_need_not_end(most: str) -> None:
    huge = "huge = Constant <value_int = 9000000000000000> ()"
    text = control_flow.FOR.replace("(n, go, x)", f"({most}, go, x)").replace("bool {1}> ()", f"bool {{0}}> () {huge}")
    x = normal(2, 3)
    got = sc.load(parse(text)).run({"x": x, "n": np.array(3)})
    np.testing.assert_array_equal(got["last"], x)
    assert got["all"].shape == (0, 2, 3)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("b = Sub (a, x)", "b = Sub (a, nowhere)", "If .* reads 'nowhere'"),
        (
            "c1 = Add (d1, h)",
            "c1 = Cast <to = 7> (h)",
            "output 0 of the branches must have one dtype, but is float32 and int64",
        ),
        ("(float[N, 3] a, float[N, 3] b) {", "(float[N, 3] a) {", "then_branch has 1 outputs, else_branch 2"),
        ("bool c)", "float c)", "cond has dtype float32; accepted are bool"),
        ("bool c)", "bool[2] c)", "cond must hold one element"),
        ("t () =>", "t (float q) =>", "sub-graph 't' takes 3 inputs, not 2"),
        ("a = Relu (h)", "a = Relu (h)  a = Relu (x)", "value 'a' is written twice"),
        ("a = Relu (h)", "a = Frobnicate (h)", "Frobnicate"),
    ],
)
def test_wrong_branches(old: str, new: str, message: str) -> None:
    text = control_flow.BRANCHES
    assert old in text
    with pytest.raises(ModelError, match=message):
        sc.load(parse(text.replace(old, new, 1))).compile({"x": (2, 3)})


@pytest.mark.parametrize(
    ("text", "old", "new", "message"),
    [
        (control_flow.FOR, "more = Identity (keep)", "more = Cast <to = 9> (s)", "a condition must hold one element"),
        (control_flow.FOR, "kept = Sub (t, x)", "e = Cast <to = 7> (i)  one = Constant <value = int64[1] {1}> () "
         "r = Reshape (e, one)  kept = ConstantOfShape (r)", "must keep its shape"),
        (control_flow.FOR, "(n, go, x)", '("", go, x)', "never end.* M is absent"),
        (control_flow.FOR, "last, all = Loop (n,", "m = Constant <value_int = 9000000000000000> ()\n"
         "last, all = Loop (m,", "never end.* M is huge"),
        (control_flow.FOR, "(n, go, x)", "(n, go)", "sub-graph 'b' takes 5 inputs, not 4"),
        (control_flow.SCAN, "num_scan_inputs = 2", "num_scan_inputs = 4", "num_scan_inputs is 4, there are 3 inputs"),
        (control_flow.SCAN, "scan_input_axes = [0, 1]", "scan_input_axes = [0]", "2 entries are needed"),
        (control_flow.SCAN, "[0, 1],\n    scan_o", "[0, 2],\n    scan_o", "scan_input_directions is 2"),
        (control_flow.SCAN, "scan_input_axes = [0, 1]", "scan_input_axes = [0, 2]", "axis 2 is outside"),
    ],
)  # fmt: skip
def test_wrong_bodies(text: str, old: str, new: str, message: str) -> None:
    assert old in text
    feeds = {"x": normal(2, 3), "n": np.array(3)} if text is control_flow.FOR else MODELS["scan"][2][0]
    with pytest.raises(ModelError, match=message):
        sc.load(parse(text.replace(old, new, 1))).run(feeds)


def test_a_function_that_calls_itself_in_a_branch() -> None:
    text = control_flow.FUNCTION.replace(
        "b = Elu <alpha: float = @slope> (v)", "b = local.choose <slope = 1.0> (v, which)"
    )
    with pytest.raises(ModelError, match="function choose -> choose calls itself"):
        sc.load(parse(text))


def test_what_a_branch_reads_from_outside_are_inputs() -> None:
    node = sc.load(control_flow.model("branches")).graph.nodes[-1]
    assert [v.name for v in node.attrs["then_branch"].inputs] == ["h", "x"]
    assert node.inputs == ("c", "h", "x")
