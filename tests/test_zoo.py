"""Built networks: parameter counts, weights by name, and the same numbers as onnxruntime once exported."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import sigconv as sc
from sigconv.cli import main
from sigconv.export.check import check
from sigconv.export.reader import read
from sigconv.export.writer import write
from sigconv.graph.interpret import interpret
from sigconv.graph.passes import simplify
from tests.cases.oracle import assert_matches, expected, generator, onnxruntime_session
from tests.test_writer import assert_same

COUNTS = {
    "lenet5": 61_706,
    "alexnet": 61_100_840,
    "vgg11_bn": 132_868_840,
    "vgg13_bn": 133_053_736,
    "vgg16_bn": 138_365_992,
    "vgg19_bn": 143_678_248,
    "vgg16": 138_357_544,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
}


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts(name: str) -> None:
    assert sc.models.parameter_count(sc.models.NETS[name]().graph) == COUNTS[name]


SHAPES = {"lenet5": (2, 1, 32, 32), "unet": (1, 3, 32, 48)}
LARGE = sorted(
    name for name in sc.models.NETS if name.startswith("vgg") or name in ("alexnet", "resnet101", "resnet152")
)


@pytest.mark.parametrize("name", [n for n in sc.models.NETS if n not in LARGE])
def test_exported_nets_match_onnxruntime(name: str, tmp_path: Path) -> None:
    same_once_exported(name, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get("SIGCONV_TEST_LARGE"),
    reason="the layers of the smaller nets again; SIGCONV_TEST_LARGE=1 runs them",
)
@pytest.mark.parametrize("name", LARGE)
def test_large_exported_nets_match_onnxruntime(name: str, tmp_path: Path) -> None:
    same_once_exported(name, tmp_path)


def same_once_exported(name: str, folder: Path) -> None:
    path, shape = folder / "net.onnx", SHAPES.get(name, (1, 3, 224, 224))
    assert main(["export", name, "-o", str(path)]) == 0
    onnx.checker.check_model(str(path), full_check=True)
    feeds = {"x": generator(name).standard_normal(shape, np.float32)}
    model = sc.models.NETS[name]()
    want = expected(onnxruntime_session(path), feeds)
    assert_matches(model.run(feeds), want)
    assert_same(model.graph, sc.load(path).graph)
    write(simplify(model.graph), path)
    assert_matches(expected(onnxruntime_session(path), feeds), want)


def test_weights_by_name(tmp_path: Path) -> None:
    other = dict(sc.models.lenet5(seed=5).graph.constants)
    np.savez(tmp_path / "w.npz", **other)
    sc.models.lenet5(seed=5).save(tmp_path / "w.onnx")
    for weights in (other | {"bn.num_batches_tracked": np.int64(1)}, tmp_path / "w.npz", tmp_path / "w.onnx"):
        found = sc.models.lenet5(weights).graph.constants
        assert all((found[k] == v).all() for k, v in other.items())
    assert (sc.models.lenet5().graph.constants["fc1.weight"] != other["fc1.weight"]).any()
    other["extra"] = other.pop("fc1.bias")
    other["fc2.bias"] = np.zeros(3, np.float32)
    with pytest.raises(sc.InputError, match=r"missing: fc1.bias; unexpected: extra; of another shape: fc2.bias is"):
        sc.models.lenet5(other)


def test_a_sequential_is_its_builder_chain() -> None:
    model = sc.Sequential((3, 8, 8), ("conv", 4, 3, {"padding": 1}), "batch_norm", "relu", "flatten", ("linear", 5))
    assert {"0.weight", "0.bias", "1.running_var", "4.weight"} <= set(model.graph.constants)
    b = sc.GraphBuilder(seed=0)
    y = b.relu(b.batch_norm(b.conv(b.input("x", ("N", 3, 8, 8)), 4, 3, padding=1)))
    other = sc.Model(b.build(b.linear(b.flatten(y), 5)))
    x = generator("chain").standard_normal((2, 3, 8, 8), np.float32)
    np.testing.assert_array_equal(model(x), other(x))
    with pytest.raises(sc.InputError, match="layer 0 is 'convolve'"):
        sc.Sequential((3, 8, 8), ("convolve", 4))


def test_layers_without_names_are_numbered() -> None:
    b = sc.GraphBuilder("net")
    y = b.max_pool(b.conv(b.conv(b.input("x", ("N", 3, 8, 8)), 4, 3), 4, 3), 2)
    model = sc.Model(b.build(b.linear(b.flatten(y), 5)))
    assert {"conv.weight", "conv_1.weight", "linear.bias"} <= set(model.graph.constants)
    assert repr(model) == "<Model 'net': x [N, 3, 8, 8] -> linear [N, 5], 5 nodes>"
    lines = str(model.graph).splitlines()
    assert lines[1] == "  input x: float32[N, 3, 8, 8]"
    weights = "conv_1.weight: float32[4, 4, 3, 3], conv_1.bias: float32[4]"
    assert lines[3].startswith(f"  conv_1 = Conv(conv, {weights}; group=1")
    assert lines[-1] == "  output linear: float32[N, 5]"
    chain = sc.Sequential((4,), ("Softmax", {"axis": 1}), "Sigmoid")
    assert [node.op for node in chain.graph.nodes] == ["Softmax", "Sigmoid"]


@pytest.mark.parametrize(
    ("shape", "layer", "message"),
    [
        (32, "relu", "shape is 32; it must list the sizes"),
        ((3, 8, 8), ("conv",), "layer 0, 'conv': .* missing 2 required"),
        ((3, 8, 8), ("conv", 4, 3, {"pad": 1}), "layer 0, 'conv': .*unexpected keyword argument 'pad'"),
        ((3, 8, 8), "build", "layer 0 is 'build', which is no layer"),
    ],
)
def test_layers_that_are_none(shape: Any, layer: Any, message: str) -> None:
    with pytest.raises(sc.InputError, match=message):
        sc.Sequential(shape, layer)


def test_an_edited_graph_that_hangs_in_the_air_is_named() -> None:
    model = sc.Sequential((4,), ("linear", 3), "relu", "relu")
    first, second, third = model.graph.nodes
    x = np.zeros((1, 4), np.float32)
    with pytest.raises(sc.ModelError, match="graph output '2' is never written"):
        sc.Model(model.graph.replace(nodes=(first, second)))(x)
    with pytest.raises(sc.ModelError, match="reads '1', which nothing before it writes"):
        sc.Model(model.graph.replace(nodes=(first, third)))(x)
    with pytest.raises(sc.InputError, match="is str, the model takes float32"):
        model("cat.jpg")


def test_what_cannot_be_built_is_named() -> None:
    b = sc.GraphBuilder()
    x = b.input("x", ("N", 3, 8, 8))
    with pytest.raises(sc.InputError, match="Relu reads 'z'"):
        b.op("Relu", "z")
    with pytest.raises(sc.InputError, match="name 'x' is taken"):
        b.input("x", (1,))
    with pytest.raises(sc.ModelError, match="Relu"):
        b.op("Relu", x, slope=1.0)
    with pytest.raises(sc.ModelError, match="has 1 inputs, Conv takes 2 to 3"):
        b.op("Conv", x)
    with pytest.raises(sc.InputError, match="no value is called 'z'"):
        b.conv("z", 4, 3)
    with pytest.raises(sc.InputError, match="depth is 20; ResNet has 18"):
        sc.models.resnet(20)


def test_check_says_who_is_closer_to_double_precision(tmp_path: Path) -> None:
    sc.models.lenet5().save(tmp_path / "net.onnx")
    report = sc.load(tmp_path / "net.onnx").check(float64=True)
    assert report.ok
    assert {row.closer for row in report.rows} <= {"sigconv", "onnxruntime", "equal"}
    assert next(row.closer for row in report.rows if row.node.startswith("Conv"))
    source = tmp_path / "net.onnx"
    off = check(
        source,
        values=lambda feeds, names: {k: v + 1e-4 for k, v in interpret(read(source), feeds, keep=True).items()},
        float64=True,
    )
    assert {row.closer for row in off.rows} == {"onnxruntime"}
