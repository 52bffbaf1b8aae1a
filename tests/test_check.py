"""`check`: every node against onnxruntime, and which differences it calls faults."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import sigconv as sc
from sigconv.errors import InputError
from sigconv.export.check import _without_weights, check, compare, random_feeds
from sigconv.export.reader import read
from sigconv.graph.interpret import interpret
from sigconv.graph.ir import Value
from tests.cases import networks
from tests.cases.onnx_models import model_of
from tests.cases.trained import SMALL, feeds_of
from tests.sources import MODELS

F32 = np.dtype(np.float32)
needs_models = pytest.mark.usefixtures("models")


@needs_models
@pytest.mark.parametrize("name", SMALL)
def test_a_real_model_agrees_with_onnxruntime_at_every_node(name: str) -> None:
    report = check(MODELS / f"{name}.onnx", feeds_of(name))
    assert len(report.rows) >= 5
    assert report.ok, str(report)
    assert report.first_divergence is None
    assert json.loads(report.to_json())["ok"] is True


@needs_models
def test_the_first_divergence_is_named() -> None:
    path, feeds = MODELS / "cifar_pytorch.onnx", feeds_of("cifar_pytorch")
    graph = read(path)
    node = next(n for n in graph.nodes if n.op == "Relu")

    def broken(given: Mapping[str, np.ndarray], names: Collection[str]) -> dict[str, np.ndarray]:
        changed = tuple(n.replace(op="Neg") if n is node else n for n in graph.nodes)
        return interpret(graph.replace(nodes=changed), given, keep=True)

    report = check(path, feeds, values=broken)
    assert not report.ok
    assert report.first_divergence is not None
    assert report.first_divergence.node == node.label
    assert f"of {node.label}" in str(report)
    assert json.loads(report.to_json())["first_divergence"] == node.label


def test_an_inherited_difference_is_told_from_a_fault(tmp_path: Path) -> None:
    """The square root of almost nothing magnifies the rounding before it; neither side computed it wrongly."""
    make = helper.make_node
    nodes = [make("Mul", ["x", "x"], ["a"]), make("Sqrt", ["a"], ["b"]), make("Mul", ["b", "zero"], ["y"])]
    feeds = {"x": np.float32([1e-6, 1])}
    path = tmp_path / "m.onnx"
    path.write_bytes(model_of(nodes, feeds, constants={"zero": np.float32([0])}).SerializeToString())

    def rounded(given: Mapping[str, np.ndarray], names: Collection[str]) -> dict[str, np.ndarray]:
        values = interpret(read(path), {"x": np.sqrt(given["x"] ** 2 + np.float32(1e-5))}, keep=True)
        return {name: values[name] for name in "aby"}

    report = check(path, feeds, values=rounded)
    assert [(row.ok, row.inherited) for row in report.rows] == [(True, False), (False, True), (True, False)]
    assert report.ok
    assert "(inherited)" in str(report)


def test_a_built_network_is_checked() -> None:
    model = sc.Sequential((3, 8, 8), ("conv", 8, 3), "relu", "flatten", ("linear", 5))
    report = model.check()
    assert report.ok, str(report)
    assert [row.node.split()[0] for row in report.rows] == ["Conv", "Relu", "Flatten", "Gemm"]


def test_weights_go_to_onnxruntime_beside_the_model(tmp_path: Path) -> None:
    """Protobuf serialises no more than 2 GiB; a sub-graph's own constants in other files are put inside."""
    w = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    bodies = {
        name: helper.make_graph(
            [helper.make_node("MatMul", ["a", "v"], ["z"])],
            name,
            [],
            [helper.make_tensor_value_info("z", 1, [2, 64])],
            [numpy_helper.from_array(scale * w, "v")],
        )
        for name, scale in (("then_branch", 2), ("else_branch", -1))
    }
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("If", ["c"], ["y"], **bodies)]
    feeds = {"x": np.ones((2, 64), np.float32), "c": np.array(False)}
    proto = model_of(nodes, feeds, constants={"w": w})
    for source in (proto, proto.SerializeToString()):
        assert check(source, feeds).ok
    path = tmp_path / "m.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="m.data", size_threshold=0)
    report = check(sc.load(path), feeds)
    assert report.ok, str(report)
    assert [row.value for row in report.rows] == ["a", "y"]
    small, outside = _without_weights(path)
    assert small.ByteSize() < 2 * w.nbytes + 1000  # the bodies'
    np.testing.assert_array_equal(outside["w"], w)


def test_check_needs_sizes() -> None:
    with pytest.raises(InputError, match="'x' has shape"):
        random_feeds([Value("x", F32, (1, "H"))])
    assert random_feeds([Value("x", F32, ("N", 2))])["x"].shape == (1, 2)


NAN, INF = np.float32(np.nan), np.float32(np.inf)


@pytest.mark.parametrize(
    ("ours", "theirs", "ok", "ulp"),
    [
        (np.float32([1, 2]), np.float32([1, 2]), True, 0),
        (np.float32([1, 2]), np.nextafter(np.float32([1, 2]), INF), True, 1),
        (np.float32([-0.0]), np.float32([0.0]), True, 0),
        (np.float32([1, 2]), np.float32([1, 2.1]), False, None),
        (np.float32([NAN, 1]), np.float32([NAN, 1]), True, 0),
        (np.float32([NAN, 1]), np.float32([1, NAN]), False, None),
        (np.float32([INF, 1]), np.float32([-INF, 1]), False, None),
        (np.int64([1]), np.int64([2]), False, None),
        (np.uint8([1]), np.uint8([2]), True, None),
        (np.uint8([1]), np.uint8([3]), False, None),
        (np.array([True]), np.array([False]), False, None),
        (np.float32([1]), np.float64([1]), False, None),
        (np.float32([1]), np.float32([[1]]), False, None),
        (np.float32([]), np.float32([]), True, None),
    ],
)
def test_comparison(ours: np.ndarray, theirs: np.ndarray, ok: bool, ulp: int | None) -> None:
    row = compare("node", "value", ours, theirs)
    assert row.ok is ok
    assert bool(row.problem) is not ok
    assert ulp is None or row.ulp == ulp


def test_a_check_in_parts_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(networks.cnn(1, size=16).SerializeToString())
    model, kept = sc.load(path), []
    limit = 45_000
    feeds = {"x": np.random.default_rng(3).standard_normal((1, 3, 16, 16), np.float32)}

    def counted(given: Mapping[str, np.ndarray], names: Collection[str]) -> dict[str, np.ndarray]:
        values = interpret(read(path), given, outputs=sorted(names))
        kept.append(sum(v.nbytes for v in values.values()))
        return values

    whole = check(path, feeds, float64=True)
    parts = check(path, feeds, values=counted, float64=True, keep_nbytes=limit)
    assert parts == whole
    assert len(kept) > 3
    assert max(kept) <= limit < sum(kept)
    assert [r.value for r in model.check(feeds, keep_nbytes=1).rows] == [r.value for r in whole.rows]
    assert model.check(feeds, keep_nbytes=1).ok
