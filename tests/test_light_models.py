"""The nine classic networks inside the onnx package: with the constant weights they come with, and with random ones."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

import sigconv as sc
from tests.cases.oracle import assert_matches, expected, generator, onnxruntime_session

FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"

NETWORKS = (
    "bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50",
    "shufflenet", "squeezenet", "vgg19", "zfnet512",
)  # fmt: skip


def with_random_weights(model: ModelProto, rng: np.random.Generator) -> ModelProto:
    """Every weight made by a ConstantOfShape as seeded numbers that keep the signal's size from layer to layer.

    What a closing Softmax reads becomes an output too: a thousand probabilities alone are too small to compare.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    shapes = {t.name: tuple(numpy_helper.to_array(t).tolist()) for t in graph.initializer}
    weights = [n for n in graph.node if n.op_type == "ConstantOfShape"]
    for node in weights:
        shape = shapes[node.input[0]]
        if len(shape) > 1:
            values = rng.standard_normal(shape, np.float32) * np.float32(math.sqrt(2 / math.prod(shape[1:])))
        else:  # biases, and the scales, means and variances of normalisations, which must be positive
            values = rng.uniform(0.5, 1.0, shape).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        graph.node.remove(node)
    last = graph.node[-1]
    if last.op_type == "Softmax":
        graph.output.append(onnx.helper.make_tensor_value_info(last.input[0], onnx.TensorProto.FLOAT, None))
    return copy


def test_every_light_network_is_tried() -> None:
    assert sorted(p.stem.removeprefix("light_") for p in FOLDER.glob("*.onnx")) == sorted(NETWORKS)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("weights", ["constant", "random"])
def test_matches_onnxruntime(name: str, weights: str) -> None:
    path = FOLDER / f"light_{name}.onnx"
    rng = generator(name, weights)
    source = path if weights == "constant" else with_random_weights(onnx.load(path), rng)
    model = sc.load(source)
    (x,) = model.inputs
    feeds = {x.name: rng.standard_normal(x.shape, np.float32)}
    want = expected(onnxruntime_session(source), feeds)
    assert_matches(model.run(feeds), want)
    if weights == "random":
        assert all(np.ptp(y) > 0 for y in want.values())
    elif name != "vgg19":  # an hour-glass of 140 million weights; once is enough
        drop_in = sc.InferenceSession(path)
        assert_matches(dict(zip(want, drop_in.run(None, feeds), strict=True)), want)
