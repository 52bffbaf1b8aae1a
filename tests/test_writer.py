"""Graphs as ONNX files: valid, the same when read back, and the same numbers in onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

import sigconv as sc
from sigconv.export.downgrades import DOWN
from sigconv.export.opsets import SAME, STEPS
from sigconv.export.reader import read
from sigconv.export.writer import OLDEST, to_proto, write
from sigconv.graph.ir import Graph
from sigconv.graph.passes import simplify
from tests.cases import control_flow
from tests.cases.onnx_models import X, model_of, node
from tests.cases.oracle import assert_matches, expected, onnxruntime_session
from tests.test_models import SHAPES, STREAMS, random_input


def assert_same(a: Graph, b: Graph) -> None:
    assert (a.nodes, a.inputs, a.outputs) == (b.nodes, b.inputs, b.outputs)
    assert (a.name, a.opset, dict(a.metadata), dict(a.values)) == (b.name, b.opset, dict(b.metadata), dict(b.values))
    assert list(a.constants) == list(b.constants)
    for name, array in a.constants.items():
        assert array.dtype == b.constants[name].dtype
        np.testing.assert_array_equal(array, b.constants[name])


@pytest.mark.parametrize("name", sorted({*SHAPES, *STREAMS}))
def test_trained_networks_come_back_the_same(name: str, models: Path, tmp_path: Path) -> None:
    model = sc.load(models / f"{name}.onnx")
    model.save(tmp_path / "m.onnx")
    onnx.checker.check_model(str(tmp_path / "m.onnx"), full_check=True)
    assert_alike(model.graph, sc.load(tmp_path / "m.onnx").graph)


OLDER = dict.fromkeys(("cifar_pytorch", "fastestdet", "kws_m_qdq", "squeezenet_fp16", "yunet_n_dynamic"), 17)


@pytest.mark.parametrize("name, opset", [*((name, None) for name in sorted({*SHAPES, *STREAMS})), *OLDER.items()])
def test_trained_networks_give_the_original_numbers(name: str, opset: int | None, models: Path, tmp_path: Path) -> None:
    path = models / f"{name}.onnx"
    model = sc.load(path)
    shapes, _, feeds = STREAMS[name] if name in STREAMS else ({model.inputs[0].name: SHAPES[name][0]}, {}, {})
    dtypes = {v.name: v.dtype for v in model.inputs}
    feeds = {**{k: random_input(name, shape, dtypes[k]) for k, shape in shapes.items()}, **feeds}
    want = expected(onnxruntime_session(path, optimized=False), feeds)
    for graph in (model.graph, simplify(model.graph)):
        write(graph, tmp_path / "m.onnx", opset)
        assert_matches(expected(onnxruntime_session(tmp_path / "m.onnx", optimized=False), feeds), want)


CASES = {
    "mean": (node("ReduceMean", "x axes"), {"axes": np.int64([1, 3])}, 18),
    "max of all": (node("ReduceMax"), {}, 18),
    "split": (node("Split", outputs="y z", axis=1, num_outputs=2), {}, 18),
    "grid sample": (node("GridSample", "x g", mode="cubic"), {"g": np.zeros((2, 3, 3, 2), np.float32) + 0.3}, 20),
}


@pytest.mark.parametrize("case", CASES)
def test_older_forms_give_the_same_numbers(case: str) -> None:
    proto, constants, since = CASES[case]
    source = model_of([proto], X, list(proto.output), constants, opset=21)
    graph, want = read(source), expected(onnxruntime_session(source), X)
    for opset in (16, since):
        written = to_proto(graph, opset)
        onnx.checker.check_model(written, full_check=True)
        assert written.opset_import[0].version == opset
        assert_matches(expected(onnxruntime_session(written), X), want)


def test_a_form_that_an_opset_lacks_is_named() -> None:
    graph = read(model_of([helper.make_node("Gelu", ["x"], ["y"], name="act")], X, opset=21))
    with pytest.raises(sc.UnsupportedError, match=r"opset 17 cannot express 1 nodes: Gelu 'act' needs opset 20"):
        to_proto(graph, 17)
    assert to_proto(graph).opset_import[0].version == 20
    with pytest.raises(sc.InputError, match="opset is 12; 13 to"):
        to_proto(graph, 12)


def test_every_step_since_the_oldest_opset_has_its_way_back() -> None:
    steps = {(op, v) for op, versions in STEPS.items() for v in versions if OLDEST < v < 1000}
    back = {(op, v) for op, versions in DOWN.items() for v in versions}
    assert steps - back == {("GroupNormalization", 21)}  # per-channel scales have no per-group form
    assert back <= steps | {(op, v) for op, versions in SAME.items() for v in versions}


def test_external_data_and_metadata(tmp_path: Path) -> None:
    weight = np.arange(2048, dtype=np.float32).reshape(1, 1, 32, 64)
    source = model_of([helper.make_node("Add", ["x", "w"], ["y"])], {"x": weight}, constants={"w": weight})
    helper.set_model_props(source, {"author": "someone"})
    model = sc.load(source)
    model.save(tmp_path / "m.onnx", external_data=True)
    assert (tmp_path / "m.onnx.data").stat().st_size == weight.nbytes
    assert (tmp_path / "m.onnx").stat().st_size < 1000
    again = sc.load(tmp_path / "m.onnx")
    assert again.graph.metadata == {"author": "someone"}
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"x": weight})[0], weight * 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]


@pytest.mark.parametrize("name", control_flow.MODELS)
def test_sub_graphs_come_back(name: str, tmp_path: Path) -> None:
    model = sc.load(control_flow.model(name))
    model.save(tmp_path / "m.onnx")
    onnx.checker.check_model(str(tmp_path / "m.onnx"), full_check=True)
    assert_alike(model.graph, sc.load(tmp_path / "m.onnx").graph)
    for graph in (model.graph, simplify(model.graph)):
        write(graph, tmp_path / "m.onnx", external_data=True)
        oracle = onnxruntime_session(tmp_path / "m.onnx", optimized=False)
        for feeds in control_flow.MODELS[name][2]:
            assert_matches(expected(oracle, feeds), model.run(feeds))


def assert_alike(a: Graph, b: Graph) -> None:
    """The same graphs, sub-graphs included, whose constants are equal arrays."""

    def plain(g: Graph) -> Graph:
        bare = [n.replace(attrs={k: v for k, v in n.attrs.items() if not isinstance(v, Graph)}) for n in g.nodes]
        return g.replace(nodes=tuple(bare))

    assert_same(plain(a), plain(b))
    for x, y in zip(a.nodes, b.nodes, strict=True):
        for key, value in x.attrs.items():
            if isinstance(value, Graph):
                assert_alike(value, y.attrs[key])


def test_names_inside_never_hide_those_outside(tmp_path: Path) -> None:
    """A pass may rename what a branch captures to a name that the branch has already."""
    graph = read(control_flow.model("branches"))
    old, new = "h", "b"
    renamed = graph.replace(
        nodes=tuple(
            n.replace(
                inputs=tuple(new if i == old else i for i in n.inputs),
                outputs=tuple(new if o == old else o for o in n.outputs),
            )
            for n in graph.nodes
        )
    )
    write(renamed, tmp_path / "m.onnx")
    onnx.checker.check_model(str(tmp_path / "m.onnx"), full_check=True)
    oracle = onnxruntime_session(tmp_path / "m.onnx")
    for feeds in control_flow.MODELS["branches"][2]:
        assert_matches(expected(oracle, feeds), sc.Model(graph).run(feeds))


def test_old_forms_inside_sub_graphs(tmp_path: Path) -> None:
    """Axes that a body captures from outside become an attribute inside."""
    text = control_flow.FOR.replace("kept = Sub (t, x)", "m = ReduceMean <keepdims = 1> (t, one)  kept = Sub (t, m)")
    text = text.replace("go = Constant", "one = Constant <value = int64[1] {1}> ()\n  go = Constant")
    source = control_flow.parse(text, 18)
    write(read(source), tmp_path / "m.onnx", 17)
    onnx.checker.check_model(str(tmp_path / "m.onnx"), full_check=True)
    feeds = {"x": control_flow.normal(2, 3), "n": np.array(3)}
    assert_matches(
        expected(onnxruntime_session(tmp_path / "m.onnx"), feeds), expected(onnxruntime_session(source), feeds)
    )
    gelu = control_flow.parse(control_flow.FOR.replace("kept = Sub (t, x)", "kept = Gelu (t)"), 20)
    with pytest.raises(sc.UnsupportedError, match=r"opset 17 cannot express 1 nodes: Gelu '-> kept' needs opset 20"):
        to_proto(read(gelu), 17)


def test_uneven_parts_and_chosen_axes_below_opset_18(tmp_path: Path) -> None:
    x = {"x": np.arange(2 * 3 * 7, dtype=np.float32).reshape(2, 3, 7)}
    split = model_of([node("Split", outputs="y z w", axis=-1, num_outputs=3)], x, ["y", "z", "w"], opset=18)
    pad = model_of([node("Pad", "x p v a")], x, constants={"p": np.int64([1, 0, 2, 1]), "v": np.float32(5),
                   "a": np.int64([-1, 1])}, opset=18)  # fmt: skip
    for source in (split, pad):
        written = to_proto(read(source), 17)
        onnx.checker.check_model(written, full_check=True)
        assert_matches(expected(onnxruntime_session(written), x), expected(onnxruntime_session(source), x))
