"""The reader: what a file may hold, real files, and everything that can be wrong with a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sigconv.errors import ModelError, UnsupportedError
from sigconv.export.functions import LARGEST_EXPANSION
from sigconv.export.reader import read
from sigconv.graph.interpret import interpret
from sigconv.ops.spec import REGISTRY
from tests.cases.onnx_models import V3, F, X, model_of, node, relu

GOOD = model_of([relu()], X)

# --- what a file may hold -----------------------------------------------------------------------------------------


def test_initializers_listed_as_inputs_are_constants() -> None:
    model = model_of([node("Add", "x w")], {**X, "w": V3[:1]}, constants={"w": V3[:1]})
    graph = read(model)
    assert [v.name for v in graph.inputs] == ["x"]
    assert list(graph.constants) == ["w"]


@pytest.mark.parametrize(
    ("attrs", "expected"),
    [
        ({"value": numpy_helper.from_array(V3)}, V3),
        ({"value_float": 1.5}, np.float32(1.5)),
        ({"value_floats": [1.5, 2.0]}, np.float32([1.5, 2])),
        ({"value_int": 3}, np.int64(3)),
        ({"value_ints": [3, 4]}, np.int64([3, 4])),
        ({"value_string": "a"}, np.array("a", object)),
        ({"value_strings": ["a", "b"]}, np.array(["a", "b"], object)),
        (
            {
                "sparse_value": helper.make_sparse_tensor(
                    numpy_helper.from_array(V3, "v"), numpy_helper.from_array(np.int64([1, 3, 4])), [5]
                )
            },
            np.float32([0, 0.5, 0, 1.5, -2]),
        ),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else "",
)
def test_constant_nodes(attrs: dict[str, Any], expected: np.ndarray) -> None:
    graph = read(model_of([node("Constant", "", "y", **attrs)], {}))
    assert not graph.nodes
    got = graph.constants["y"]
    assert got.dtype == np.asarray(expected).dtype
    assert got.shape == np.shape(expected)
    assert np.array_equal(got, expected)
    assert not got.flags.writeable


def test_sparse_initializer_with_coordinates() -> None:
    model = model_of([node("Identity", "w")], {})
    values = numpy_helper.from_array(V3, "w")
    model.graph.sparse_initializer.append(
        helper.make_sparse_tensor(values, numpy_helper.from_array(np.int64([[0, 1], [1, 0], [1, 2]])), [2, 3])
    )
    assert read(model).constants["w"].tolist() == [[0, 0.5, 0], [1.5, 0, -2]]


@pytest.mark.parametrize(
    "name", ["FLOAT16", "BFLOAT16", "INT4", "UINT4", "FLOAT8E4M3FN", "DOUBLE", "BOOL", "COMPLEX64", "INT8", "UINT64"]
)
@pytest.mark.parametrize("raw", [True, False])
def test_element_types(name: str, raw: bool) -> None:
    dtype = helper.tensor_dtype_to_np_dtype(TensorProto.DataType.Value(name))
    values = np.array([0, 1, 1, 0, 1], np.float32).astype(dtype)
    tensor = (
        numpy_helper.from_array(values, "w")
        if raw
        else helper.make_tensor("w", TensorProto.DataType.Value(name), [5], values.tolist())
    )
    model = model_of([node("Identity", "w")], {})
    model.graph.initializer.append(tensor)
    got = read(model).constants["w"]
    assert got.dtype == values.dtype
    assert (got == values).all()


def test_unsorted_graph_is_sorted_and_keeps_its_order_otherwise() -> None:
    nodes = [relu("b", "y"), relu("x", "c"), relu("a", "b"), relu("x", "a")]
    assert [n.outputs[0] for n in read(model_of(nodes, X, ["y", "c"])).nodes] == ["c", "a", "b", "y"]


def test_shapes_nobody_means_become_unknown() -> None:
    model = model_of([relu()], X)
    dims = model.graph.input[0].type.tensor_type.shape.dim
    for dim, value in zip(dims, ["?", "N", -1, 0], strict=True):
        dim.Clear()
        setattr(dim, "dim_param" if isinstance(value, str) else "dim_value", value)
    assert read(model).inputs[0].shape == (None, "N", None, None)
    model.graph.value_info.extend([helper.make_tensor_value_info("nowhere", F, [3])] * 2)
    assert not read(model).values


def test_unused_domains_are_ignored() -> None:
    assert len(read(model_of([relu()], X, extra_opsets=[helper.make_opsetid("com.example", 7)])).nodes) == 1


def test_optional_inputs_stay_absent() -> None:
    graph = read(
        model_of(
            [helper.make_node("Clip", ["x", "", "m"], ["y"]), helper.make_node("Clip", ["x", "", ""], ["z"])],
            X,
            ["y", "z"],
            {"m": V3[0].reshape(())},
        )
    )
    assert [n.inputs for n in graph.nodes] == [("x", "", "m"), ("x",)]


def test_an_operator_unchanged_in_a_newer_opset_is_read() -> None:
    assert read(model_of([relu()], X, opset=1000)).nodes


def test_a_model_before_opset_6_needs_unchanged_operators() -> None:
    assert read(model_of([node("Transpose", perm=[3, 2, 1, 0])], X, opset=3)).nodes
    with pytest.raises(UnsupportedError, match=r"Tile of opset 1 \(known from 6\).*the_tile"):
        read(model_of([node("Tile", "x n a")], {**X, "n": V3, "a": V3}, opset=3))


def test_everything_missing_is_listed_at_once() -> None:
    names = [f"/n{i}" for i in range(12)]
    nodes = [helper.make_node("Foo", ["x"], [f"o{i}"], name=n, domain="com.example") for i, n in enumerate(names)]
    nodes += [helper.make_node("Optional", ["x"], ["q"]), helper.make_node("Relu", ["o0"], ["y"])]
    model = model_of(nodes, X, ["y"], extra_opsets=[helper.make_opsetid("com.example", 1)])
    model.graph.input.append(helper.make_tensor_sequence_value_info("s", F, None))
    with pytest.raises(UnsupportedError, match=r"com\.example::Foo \(12 nodes: /n0, .*…\)") as e:
        read(model)
    assert [m.partition(":")[0].partition(" (")[0] for m in e.value.missing if not m.startswith("com")] == [
        "Optional",
        "sequence input",
    ]
    assert len(e.value.missing) == 3


def test_local_functions_are_expanded() -> None:
    """A function that calls a function, with attributes passed through; results nobody reads are allowed."""
    inner = helper.make_function(
        "local",
        "Leak",
        ["a"],
        ["b"],
        [helper.make_node("LeakyRelu", ["a"], ["b"])],
        [helper.make_opsetid("", 16)],
        ["alpha"],
    )
    reference = inner.node[0].attribute.add()
    reference.name, reference.ref_attr_name, reference.type = "alpha", "alpha", onnx.AttributeProto.FLOAT
    twice = [
        helper.make_node("Leak", ["p"], ["t"], domain="local", alpha=0.5),
        helper.make_node("Leak", ["t"], ["r"], domain="local", alpha=0.25),
        relu("p", "unused"),
    ]
    outer = helper.make_function(
        "local", "Twice", ["p"], ["r"], twice, [helper.make_opsetid("", 16), helper.make_opsetid("local", 1)]
    )
    nodes = [
        helper.make_node("Twice", ["x"], ["h"], domain="local", name="first"),
        helper.make_node("Twice", ["h"], ["y"], domain="local"),
    ]
    model = model_of(nodes, X, extra_opsets=[helper.make_opsetid("local", 1)])
    model.functions.extend([inner, outer])
    got = interpret(read(model), X)["y"]
    np.testing.assert_allclose(got, np.where(X["x"] < 0, X["x"] / 64, X["x"]), rtol=1e-6)


def test_functions_without_end_are_refused() -> None:
    def function(name: str, *calls: str) -> onnx.FunctionProto:
        nodes = [helper.make_node(c, ["a"], [f"b{i}" if i else "b"], domain="local") for i, c in enumerate(calls)]
        return helper.make_function("local", name, ["a"], ["b"], nodes, [helper.make_opsetid("local", 1)])

    model = model_of(
        [helper.make_node("f0", ["x"], ["y"], domain="local")], X, extra_opsets=[helper.make_opsetid("local", 1)]
    )
    model.functions.extend([function("f0", "f1"), function("f1", "f0")])
    with pytest.raises(ModelError, match="f0 -> f1 -> f0 calls itself"):
        read(model)
    del model.functions[:]
    model.functions.extend([function(f"f{i}", *[f"f{i + 1}"] * 100) for i in range(6)])
    with pytest.raises(ModelError, match=str(LARGEST_EXPANSION)):
        read(model)


# --- real files ---------------------------------------------------------------------------------------------------


def test_real_files_are_read_or_refused_by_name(models: Path) -> None:
    refused, paths = {}, sorted(models.glob("*.onnx"))
    for path in paths:
        try:
            graph = read(path)
        except UnsupportedError as e:
            refused[path.stem] = e.missing
            continue
        assert graph.nodes
        assert all((n.domain, n.op) in REGISTRY for n in graph.nodes)
    assert len(paths) - len(refused) >= 20
    assert all(missing for missing in refused.values())


# --- external data ------------------------------------------------------------------------------------------------


def external(folder: Path, **entries: str) -> Path:
    """A model whose weight of 3 float32 lies in another file."""
    model = model_of([node("Add", "x w")], {"x": V3})
    tensor = model.graph.initializer.add(name="w", data_type=F, dims=[3], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": "w.data", **entries}.items():
        tensor.external_data.add(key=key, value=value)
    (folder / "w.data").write_bytes(b"\0" * 8 + V3.tobytes())
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    return folder / "m.onnx"


def test_external_data_beside_the_model(tmp_path: Path) -> None:
    assert (read(external(tmp_path, offset="8", length="12")).constants["w"] == V3).all()


def test_external_data_in_a_folder_below_and_unaligned(tmp_path: Path) -> None:
    path = external(tmp_path, location="weights/w.data", offset="3", length="12")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "w.data").write_bytes(b"abc" + V3.tobytes())
    assert (read(path).constants["w"] == V3).all()


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"location": "../w.data"}, "refused"),
        ({"location": "a/../../w.data"}, "refused"),
        ({"location": "..\\w.data"}, "refused"),
        ({"location": "/etc/passwd"}, "refused"),
        ({"location": "C:\\w.data"}, "refused"),
        ({"location": "\\\\host\\w.data"}, "refused"),
        ({"location": ""}, "refused"),
        ({"location": "w\0.data"}, "refused"),
        ({"location": "."}, "regular file"),
        ({"location": "missing.data"}, "missing"),
        ({"offset": "9"}, "outside"),
        ({"offset": "-1"}, "outside"),
        ({"offset": "x"}, "not an integer"),
        ({"length": "11"}, "needs 12 bytes"),
    ],
)
def test_external_data_is_refused(tmp_path: Path, entries: dict[str, str], message: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "w.data").write_bytes(V3.tobytes())
    with pytest.raises(ModelError, match=f"m.onnx: initializer 'w'.*{message}"):
        read(external(folder, **entries))


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_and_devices_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = external(folder)
    (folder / "w.data").unlink()
    (tmp_path / "w.data").write_bytes(V3.tobytes())
    (folder / "w.data").symlink_to(tmp_path / "w.data")
    with pytest.raises(ModelError, match="inside the model's folder"):
        read(path)
    (folder / "w.data").unlink()
    os.mkfifo(folder / "w.data")
    with pytest.raises(ModelError, match="regular file"):
        read(path)


def test_external_data_needs_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="load it by path"):
        read(external(tmp_path).read_bytes())


# --- malformed files ----------------------------------------------------------------------------------------------


def changed(change: Callable[[onnx.ModelProto], object]) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.CopyFrom(GOOD)
    change(model)
    return model


def initializer(**fields: Any) -> Callable[[onnx.ModelProto], object]:
    return lambda m: m.graph.initializer.append(TensorProto(**{"name": "w", "data_type": F, **fields}))


MALFORMED: dict[str, tuple[Callable[[onnx.ModelProto], object], str]] = {
    "no graph": (lambda m: m.ClearField("graph"), "no graph"),
    "no opset": (lambda m: m.ClearField("opset_import"), "opset_import"),
    "two opsets": (lambda m: m.opset_import.add(domain="", version=9), "imported twice"),
    "dangling input": (
        lambda m: m.graph.node.append(relu("nowhere", "z", name="lost")),
        r"Relu 'lost' reads 'nowhere'",
    ),
    "cycle": (
        lambda m: m.graph.node.extend([relu("b", "a", name="one"), relu("a", "b", name="two")]),
        "cycle: Relu 'one' -> Relu 'two' -> Relu 'one'",
    ),
    "own cycle": (lambda m: m.graph.node.append(relu("a", "a", name="one")), "cycle: Relu 'one' -> Relu 'one'"),
    "written twice": (lambda m: m.graph.node.append(relu(name="again")), "'y' is written twice.*again"),
    "input written": (lambda m: m.graph.node.append(relu(y="x")), "'x' is written twice"),
    "lost output": (lambda m: m.graph.output.add(name="z"), "output 'z' is never written"),
    "output twice": (lambda m: m.graph.output.add(name="y"), "output 'y' is listed twice"),
    "nameless output": (lambda m: m.graph.output.add(), "no name"),
    "input twice": (lambda m: m.graph.input.append(m.graph.input[0]), "'x' is written twice"),
    "initializer twice": (
        lambda m: m.graph.initializer.extend([numpy_helper.from_array(V3, "w")] * 2),
        "two initializers are named 'w'",
    ),
    "nameless initializer": (initializer(name="", dims=[0]), "no name"),
    "negative size": (initializer(dims=[2, -3]), "initializer 'w': negative size"),
    "2 GB claim": (initializer(dims=[1 << 29], raw_data=b"1234"), "needs 2147483648 bytes, 4 are given"),
    "2 GB claim without data": (initializer(dims=[1 << 29]), "needs 536870912 entries of float_data, 0 are given"),
    "overflowing sizes": (initializer(dims=[1 << 62, 1 << 62], raw_data=b""), "needs .* bytes, 0 are given"),
    "wrong raw size": (initializer(dims=[3], raw_data=b"12345"), "needs 12 bytes, 5 are given"),
    "unknown type": (initializer(data_type=99, dims=[0]), "unknown element type 99"),
    "undefined type": (initializer(data_type=0, dims=[0]), "unknown element type 0"),
    "strings as raw data": (
        initializer(data_type=TensorProto.STRING, dims=[1], raw_data=b"a"),
        "strings cannot be raw",
    ),
    "strings not utf-8": (initializer(data_type=TensorProto.STRING, dims=[1], string_data=[b"\xff"]), "malformed"),
    "int4 too short": (initializer(data_type=TensorProto.INT4, dims=[5], raw_data=b"12"), "needs 3 bytes, 2 are given"),
    "unknown attribute": (
        lambda m: m.graph.node.append(relu("x", "z", name="odd", foo=1)),
        "Relu 'odd': unknown attribute foo",
    ),
    "attribute twice": (lambda m: m.graph.node.append(_twice()), "'axis' is given twice"),
    "attribute of another type": (
        lambda m: m.graph.node.append(node("Flatten", "x", "z", axis="one")),
        "'axis' is 'one', it must be int",
    ),
    "too many inputs": (lambda m: m.graph.node.append(node("Relu", "x x", "z")), "has 2 inputs"),
    "too few inputs": (lambda m: m.graph.node.append(node("Add", "x", "z")), "has 1 inputs"),
    "required input absent": (
        lambda m: m.graph.node.append(helper.make_node("Add", ["", "x"], ["z"])),
        "required input 0 is absent",
    ),
    **{
        f"constant whose {name} is {kind}": (
            lambda m, name=name, value=value: m.graph.node.append(node("Constant", "", "z", **{name: value})),
            "of another kind",
        )
        for name, kind, value in (
            ("value", "a graph", onnx.GraphProto(name="g")),
            ("value", "a number", 1.5),
            ("value_strings", "numbers", [1, 2]),
            ("value_float", "a tensor", onnx.numpy_helper.from_array(np.ones(2))),
        )
    },
    "constant without value": (lambda m: m.graph.node.append(node("Constant", "", "z")), "exactly one value"),
    "sparse out of bounds": (
        lambda m: m.graph.sparse_initializer.append(
            helper.make_sparse_tensor(
                numpy_helper.from_array(V3, "w"), numpy_helper.from_array(np.int64([1, 2, 9])), [5]
            )
        ),
        "outside shape",
    ),
    "sparse 2 EB": (
        lambda m: m.graph.sparse_initializer.append(
            helper.make_sparse_tensor(
                numpy_helper.from_array(V3, "w"), numpy_helper.from_array(np.int64([1, 2, 9])), [1 << 59]
            )
        ),
        "takes more than",
    ),
}


def _twice() -> onnx.NodeProto:
    proto = node("Flatten", "x", "z", axis=1)
    proto.attribute.append(proto.attribute[0])
    return proto


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_models_are_refused(name: str, tmp_path: Path) -> None:
    change, message = MALFORMED[name]
    path = tmp_path / "bad.onnx"
    path.write_bytes(changed(change).SerializeToString())
    with pytest.raises(ModelError, match=message) as e:
        read(path)
    assert str(path) in str(e.value)


def test_the_source_is_not_modified() -> None:
    before = GOOD.SerializeToString()
    read(GOOD)
    assert GOOD.SerializeToString() == before


def test_what_is_not_a_model() -> None:
    for data in (b"", b"\x00", b"hello, world", os.urandom(1000)):
        with pytest.raises(ModelError):
            read(data)
    with pytest.raises(TypeError, match="source"):
        read(3)
    with pytest.raises(FileNotFoundError):
        read("no such file.onnx")


def test_truncated_and_damaged_files_never_crash() -> None:
    """Every cut, and 600 seeded damages, of a model with one of everything: a Graph or a ModelError, nothing else."""
    nodes = [
        node("Conv", "x w", "c", pads=[1, 1, 1, 1]),
        node("Clip", "c", "d", min=0.0, max=6.0),
        node("Softmax", "d", "e"),
        node("Upsample", "e", "y", scales=[1.0, 1.0, 2.0, 2.0]),
    ]
    data = model_of(nodes, X, constants={"w": np.ones((2, 6, 3, 3), np.float32)}, opset=7).SerializeToString()
    rng = np.random.default_rng(7)
    damaged = [data[:n] for n in range(0, len(data), 7)]
    for _ in range(600):
        at, value = rng.integers(len(data), size=rng.integers(1, 5)), rng.integers(256, size=5)
        new = bytearray(data)
        for i, v in zip(at, value, strict=False):
            new[i] = v
        damaged.append(bytes(new))
    refused = 0
    for each in damaged:
        try:
            read(each)
        except ModelError:
            refused += 1
    assert refused > len(damaged) // 4
