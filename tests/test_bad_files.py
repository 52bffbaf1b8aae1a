"""Whatever is loaded: a model, or one sigconv exception that says what is wrong with the file. Never a crash."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import sigconv as sc
from tests.cases import networks
from tests.cases.refusals import NODE, refused, ways, weights

ROOT = Path(__file__).parents[1]


# --- files -----------------------------------------------------------------------------------------------------------
def relu(text: str = "y = Relu(x)", inputs: Any = None, outputs: Any = ("y",), **kwargs: Any) -> onnx.ModelProto:
    nodes = [helper.make_node(op, i, o, name="-".join(o), **a) for op, i, o, a in networks.calls(text)]
    return networks.model(nodes, {"x": [2]} if inputs is None else inputs, list(outputs), **kwargs)


def with_initializer(**fields: Any) -> onnx.ModelProto:
    proto = relu("y = Add(x, w)", constants={"w": weights(2)})
    for name, value in fields.items():
        if name == "dims":
            del proto.graph.initializer[0].dims[:]
            proto.graph.initializer[0].dims.extend(value)
        else:
            setattr(proto.graph.initializer[0], name, value)
    return proto


def without(proto: onnx.ModelProto, field: str) -> onnx.ModelProto:
    proto.ClearField(field)
    return proto


def of_type(kind: int) -> onnx.ModelProto:
    proto = relu()
    proto.graph.input[0].type.tensor_type.elem_type = kind
    return proto


def of_shape(*dims: int) -> onnx.ModelProto:
    return relu(inputs={"x": dims})


FILES = {
    "dangling input": (relu("y = Add(x, missing)"), "'y' reads 'missing'"),
    "cycle": (relu("a = Add(x, b); b = Relu(a); y = Relu(b)"), "cycle.*'a'.*'b'|cycle.*'b'.*'a'"),
    "its own input": (relu("y = Relu(y)"), "cycle.*'y'"),
    "two writers": (relu("y = Relu(x); y = Neg(x)"), "'y' is written twice"),
    "an input overwritten": (relu("x = Relu(x); y = Neg(x)"), "'x' is written twice"),
    "output never written": (relu(outputs=["y", "z"]), "output 'z' is never written"),
    "output listed twice": (relu(outputs=["y", "y"]), "output 'y' is listed twice"),
    "negative dimension": (with_initializer(dims=[-2]), "initializer 'w': negative size in shape .-2."),
    "2 GB claimed": (with_initializer(dims=[1 << 29]), "initializer 'w': .* needs 2147483648 bytes, 8 are given"),
    "2^80 bytes claimed": (with_initializer(dims=[1 << 40, 1 << 40]), "initializer 'w': .* needs"),
    "product overflows": (with_initializer(dims=[1 << 32, 1 << 32]), "initializer 'w': .* needs"),
    "no element type": (with_initializer(data_type=0), "initializer 'w': unknown element type 0"),
    "unknown element type": (with_initializer(data_type=999), "initializer 'w': unknown element type 999"),
    "other element type": (with_initializer(data_type=TensorProto.DOUBLE), "initializer 'w': .* needs 16 bytes"),
    "external data from bytes": (with_initializer(data_location=TensorProto.EXTERNAL), "initializer 'w'"),
    "no graph": (without(relu(), "graph"), "no graph"),
    "no opset": (without(relu(), "opset_import"), "opset_import"),
    "empty": (onnx.ModelProto(), "no graph"),
    "input without element type": (of_type(0), "input 'x'"),
    "input of unknown type": (of_type(999), "input 'x'"),
    "two inputs of one name": (
        helper.make_model(
            helper.make_graph(
                [helper.make_node("Relu", ["x"], ["y"])],
                "g",
                [helper.make_tensor_value_info("x", 1, [2])] * 2,
                [helper.make_empty_tensor_value_info("y")],
            ),
            opset_imports=[helper.make_opsetid("", networks.OPSET)],
        ),
        "'x' is written twice",
    ),
}  # fmt: skip


def test_a_declared_type_that_is_not_computed():
    """float64 too, which NumPy takes for equal to None."""
    for kind in (TensorProto.DOUBLE, TensorProto.INT64):
        proto = relu()
        proto.graph.output[0].type.tensor_type.elem_type = kind
        refused(proto, {"x": np.ones(2, np.float32)}, "output 'y' is said to be .*64, what is computed is float32")


def test_attributes_of_an_operator_newer_than_the_file_says():
    node = helper.make_node("CastLike", ["x", "x"], ["y"], name=NODE, saturate=[1])
    refused(networks.model([node], {"x": [2]}, ["y"], opset=9), {"x": np.ones(2, np.float32)}, "'saturate' is .1,.")


def test_outputs_of_unknown_size_beside_an_input():
    nodes = [helper.make_node("NonZero", ["x"], ["y"])]
    proto = networks.model(nodes, {"x": [2]}, ["y"])
    proto.graph.output.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, [2]))
    for way in ways(proto, {"x": np.float32([0, 3])}):
        positions, same = way()
        assert (positions.tolist(), same.tolist()) == ([[1]], [0, 3])


@pytest.mark.parametrize("name", FILES)
def test_malformed_files(name, tmp_path):
    proto, message = FILES[name]
    path = tmp_path / "bad.onnx"
    path.write_bytes(proto.SerializeToString())
    assert path.stat().st_size < 1000
    for source in (proto, path.read_bytes(), path, str(path)):
        for load in (sc.load, sc.InferenceSession):
            with pytest.raises(sc.ModelError, match=message) as caught:
                load(source)
            assert isinstance(source, (bytes, onnx.ModelProto)) or str(path) in str(caught.value)


@pytest.mark.parametrize("dims", [(-2,), (0,), (-1,)])
def test_a_size_that_an_exporter_did_not_know(dims):
    """0 and negative sizes of inputs are how exporters write unknown ones: onnxruntime takes any size then."""
    for way in ways(of_shape(*dims), {"x": np.array([-1, 2, 3], np.float32)}):
        np.testing.assert_array_equal(way()[0], [0, 2, 3])


def test_a_size_that_no_memory_holds():
    refused(of_shape(1 << 62), {"x": np.ones(2, np.float32)}, "input 'x' has shape")
    with pytest.raises(sc.ModelError, match=r"takes .* bytes, there are"):
        sc.load(of_shape(1 << 62)).compile()


def test_truncated_files(tmp_path):
    data = networks.cnn().SerializeToString()
    for cut in (*range(40), *range(40, len(data), 997), len(data) - 1):
        with pytest.raises(sc.ModelError):
            sc.load(data[:cut])
    path = tmp_path / "cut.onnx"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(sc.ModelError, match=re.escape(str(path))):
        sc.load(path)


def test_random_bytes(rng):
    for size in (1, 7, 100, 5000):
        for _ in range(20):
            with pytest.raises(sc.ModelError):
                sc.load(rng.bytes(size))
    with pytest.raises(sc.ModelError):
        sc.load(b"<!DOCTYPE html><html>404: Not Found</html>")


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape("none.onnx")):
        sc.load(tmp_path / "none.onnx")
    with pytest.raises(OSError, match=re.escape(str(tmp_path))):
        sc.load(tmp_path)
    with pytest.raises(TypeError, match=r"source must be a path, bytes or an onnx.ModelProto, not NoneType"):
        sc.load(None)


# --- damage ----------------------------------------------------------------------------------------------------------
DAMAGE = """
import resource, sys
import numpy as np
import sigconv as sc
from tests.cases import networks
from tests.test_bad_files import damaged

rng = np.random.default_rng(int(sys.argv[1]))
protos = [networks.cnn(batch, size=8, seed=3).SerializeToString() for batch in (1, "N")]
feeds = {"x": rng.standard_normal((1, 3, 8, 8)).astype(np.float32)}
want = sc.load(protos[0]).run(feeds)["y"]
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
counts = dict.fromkeys(("refused", "right", "other"), 0)
for i in range(int(sys.argv[2])):
    data = damaged(protos[i % 2], rng)
    try:
        outputs = sc.load(data).run(feeds)
    except sc.SigconvError as e:
        assert str(e)
        counts["refused"] += 1
    except Exception:
        open(sys.argv[3], "wb").write(data)
        raise
    else:  # a changed weight gives another answer; that is not for us to see
        same = set(outputs) == {"y"} and outputs["y"].shape == want.shape and np.allclose(outputs["y"], want, atol=1e-5)
        counts["right" if same else "other"] += 1
print(*counts.values())
"""


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """A model with one to three bytes changed, most of them outside of the weights; now and then cut or repeated."""
    proto = onnx.ModelProto.FromString(data)
    for tensor in proto.graph.initializer:
        tensor.raw_data = bytes(len(tensor.raw_data))
    structure = np.frombuffer(proto.SerializeToString(), np.uint8)
    if len(structure) != len(data) or rng.random() < 0.1:
        structure = np.ones(len(data), np.uint8)
    places = rng.choice(np.flatnonzero(structure), rng.integers(1, 4))
    changed = bytearray(data)
    for place in places:
        changed[place] = rng.integers(256) if rng.random() < 0.5 else changed[place] ^ (1 << rng.integers(8))
    if rng.random() < 0.1:
        a, b = sorted(rng.integers(0, len(data), 2))
        changed[a:b] = b"" if rng.random() < 0.5 else changed[a:b] * 2
    return bytes(changed)


@pytest.mark.skipif(sys.platform == "win32", reason="no resource limits there")
def test_damaged_files(tmp_path):
    """In a process that may have 4 GiB: every damaged model is refused, or runs."""
    bad = tmp_path / "bad.onnx"
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-W", "error", "-c", DAMAGE, "1", "400", str(bad)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    refused, right, other = map(int, done.stdout.split())
    assert refused + right + other == 400
    assert min(refused, right) > 20, "the damage is too heavy or too light to tell anything"
