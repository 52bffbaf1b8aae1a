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

HIDDEN = 256


def with_random_weights(model: ModelProto, rng: np.random.Generator) -> ModelProto:
    """Every weight made by a ConstantOfShape as seeded numbers that keep the signal's size from layer to layer.

    Hidden layers of 4096 units get ``HIDDEN`` ones: half a gigabyte of random numbers would prove no more. What a
    closing Softmax reads becomes an output too: a thousand probabilities alone are too small to compare.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    del graph.value_info[:]
    shapes = {t.name: tuple(numpy_helper.to_array(t).tolist()) for t in graph.initializer}
    weights = [n for n in graph.node if n.op_type == "ConstantOfShape"]
    for node in weights:
        shape = tuple(HIDDEN if size == 4096 else size for size in shapes[node.input[0]])
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
    if weights == "constant":
        source, open_model = path, sc.load
    else:
        source, open_model = with_random_weights(onnx.load(path), rng), sc.InferenceSession
    oracle, model = onnxruntime_session(source), open_model(source)
    (x,) = oracle.get_inputs()
    feeds = {x.name: rng.standard_normal(x.shape, np.float32)}
    want = expected(oracle, feeds)
    got = model.run(feeds) if open_model is sc.load else dict(zip(want, model.run(None, feeds), strict=True))
    assert_matches(got, want)
    assert weights == "constant" or all(np.ptp(y) > 0.001 for y in want.values())
