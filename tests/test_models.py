"""Trained networks from the field (`../shared/models`) against onnxruntime, at several sizes where they allow it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import sigconv as sc
from tests.cases.oracle import assert_matches, expected, generator, onnxruntime_session
from tests.sources import MODELS

pytestmark = pytest.mark.usefixtures("models")

SHAPES: Mapping[str, tuple[tuple[int, ...], ...]] = {
    "basic_pitch": ((1, 43844, 1), (2, 43844, 1)),
    "brainchop_30_3class": ((1, 1, 64, 64, 64), (2, 1, 64, 64, 64)),
    "cifar_pytorch": ((1, 3, 32, 32), (5, 3, 32, 32)),
    "deeplab_dm05": ((1, 3, 513, 513),),
    "dnsmos_model_v8": ((1, 900, 120), (2, 900, 120)),
    "fastestdet": ((1, 3, 352, 352),),
    "kws_m_fp32": ((1, 1960),),
    "kws_m_qdq": ((1, 1960), (4, 1960)),
    "kws_m_qoperator": ((1, 1960),),
    "mnist8_cntk": ((1, 1, 28, 28),),
    "oww_embedding": ((1, 76, 32, 1), (3, 76, 32, 1)),
    "oww_melspectrogram": ((1, 16000), (2, 16000), (1, 12345)),
    "ppocr_en_number_rec": ((1, 3, 32, 320), (2, 3, 32, 100)),
    "ppocr_v2_cls": ((1, 3, 320, 320), (2, 3, 48, 192)),
    "ppocr_v3_det_ch": ((1, 3, 320, 320), (2, 3, 96, 160)),
    "retinaface_mbnet025": ((1, 3, 320, 320), (2, 3, 200, 136)),
    "selfie_seg_landscape": ((1, 144, 256, 3),),
    "sinet_portrait": ((1, 3, 320, 320),),
    "squeezenet_fp16": ((1, 3, 224, 224),),
    "st_mobilenetv2_035_128": ((1, 3, 128, 128), (3, 3, 128, 128)),
    "st_yamnet_256": ((1, 1, 64, 96), (4, 1, 64, 96)),
    "style_candy": ((1, 3, 720, 720),),
    "super_resolution_10": ((1, 1, 224, 224), (2, 1, 224, 224)),
    "ultraface_rfb320": ((1, 3, 240, 320),),
    "yolox_nano_post": ((1, 3, 416, 416),),
    "yunet_n_320": ((1, 3, 320, 320),),
    "yunet_n_dynamic": ((1, 3, 320, 320), (2, 3, 160, 224)),
}
"""The networks that run, with shapes of their only input: the usual one, then others where sizes may vary."""

STREAMS: Mapping[str, tuple[dict[str, tuple[int, ...]], dict[str, str], dict[str, np.ndarray]]] = {
    "gtcrn_simple": (
        {
            "mix": (1, 257, 1, 2),
            "conv_cache": (2, 1, 16, 16, 33),
            "tra_cache": (2, 3, 1, 1, 16),
            "inter_cache": (2, 1, 33, 16),
        },
        {name: f"{name}_out" for name in ("conv_cache", "tra_cache", "inter_cache")},
        {},
    ),
    "silero_vad_16k_op15": (
        {"input": (1, 512), "state": (2, 1, 128)},
        {"state": "stateN"},
        {"sr": np.array(16000)},
    ),
}
"""Networks for streams: the shapes of their inputs, the output each state continues with, and what stays the same."""

INPUTS: Mapping[str, tuple[float, float]] = {
    "kws_m_fp32": (100.0, 30.0),
    "kws_m_qdq": (100.0, 30.0),
    "kws_m_qoperator": (100.0, 30.0),
    "selfie_seg_landscape": (0.5, 0.25),
    "style_candy": (128.0, 64.0),
    "yolox_nano_post": (114.0, 60.0),
}
"""Mean and deviation of the random inputs where 0 and 1 would not do.

The keyword spotters answer nearly the same to all small inputs, and the detector finds nothing. style_candy takes off
the mean colour itself and then normalises: near 0 that is the difference of large equal numbers, and onnxruntime is
1.4e-3 of the scale away from the answer in double precision.
"""


def random_input(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """What a network is fed."""
    mean, deviation = INPUTS.get(name, (0.0, 1.0))
    return generator(name, shape).normal(mean, deviation, shape).astype(dtype)


def quantization_steps(path: Path) -> dict[str, float]:
    """The step of each output that comes straight from a DequantizeLinear."""
    graph = onnx.load(path).graph
    constants = {t.name: t for t in graph.initializer}
    writers = {out: node for node in graph.node for out in node.output}
    steps = {}
    for output in graph.output:
        node = writers[output.name]
        if node.op_type == "DequantizeLinear":
            steps[output.name] = float(numpy_helper.to_array(constants[node.input[1]]))
    return steps


def test_every_network_is_here() -> None:
    names = {entry["name"] for entry in json.loads((MODELS / "manifest.json").read_text("utf-8"))}
    assert names == set(SHAPES) | set(STREAMS)
    assert len(names) == 29


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_matches_onnxruntime(name: str) -> None:
    path = MODELS / f"{name}.onnx"
    # Optimised, onnxruntime takes a quantize-dequantize network for one of integers, and moves its own answer by steps.
    oracle = onnxruntime_session(path, optimized=name != "kws_m_qdq")
    model, drop_in = sc.load(path), sc.InferenceSession(path)
    assert [i.name for i in drop_in.get_inputs()] == [i.name for i in oracle.get_inputs()]
    assert [i.type for i in drop_in.get_inputs()] == [i.type for i in oracle.get_inputs()]
    (x,), steps = model.inputs, quantization_steps(path)
    for i, shape in enumerate(SHAPES[name]):
        feeds = {x.name: random_input(name, shape, x.dtype)}
        kept = feeds[x.name].copy()
        want = expected(oracle, feeds)
        assert_matches(model.run(feeds), want, steps)
        if i == 0:
            assert_matches(dict(zip(want, drop_in.run(None, feeds), strict=True)), want, steps)
        np.testing.assert_array_equal(feeds[x.name], kept)


@pytest.mark.parametrize("name", sorted(STREAMS))
def test_streams_match_onnxruntime(name: str) -> None:
    """Five frames, each side continuing with its own states."""
    path = MODELS / f"{name}.onnx"
    oracle, model, drop_in = onnxruntime_session(path), sc.load(path), sc.InferenceSession(path)
    shapes, states, fixed = STREAMS[name]
    ours = {k: np.zeros(shape, np.float32) for k, shape in shapes.items()} | fixed
    theirs = dict(ours)
    for i in range(5):
        for k in shapes.keys() - states.keys():
            ours[k] = theirs[k] = generator(name, i).standard_normal(shapes[k], np.float32)
        want, have = expected(oracle, theirs), model.run(ours)
        assert_matches(have, want)
        assert_matches(dict(zip(want, drop_in.run(None, ours), strict=True)), want)
        ours |= {k: have[out] for k, out in states.items()}
        theirs |= {k: want[out] for k, out in states.items()}


def test_quantize_dequantize_is_a_step_from_optimized_onnxruntime() -> None:
    path = MODELS / "kws_m_qdq.onnx"
    oracle, model = onnxruntime_session(path), sc.load(path)
    feeds = {model.inputs[0].name: generator("small").standard_normal((1, 1960), np.float32)}
    assert_matches(model.run(feeds), expected(oracle, feeds), quantization_steps(path))


def test_detections_before_they_are_thinned_out() -> None:
    network = onnx.load(MODELS / "yolox_nano_post.onnx")
    suppression = next(n for n in network.graph.node if n.op_type == "NonMaxSuppression")
    network.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in suppression.input[:2])
    shape = SHAPES["yolox_nano_post"][0]
    feeds = {network.graph.input[0].name: random_input("yolox_nano_post", shape, np.dtype(np.float32))}
    want = expected(onnxruntime_session(network), feeds)
    boxes, scores = (want[name] for name in suppression.input[:2])
    assert boxes.shape == (1, 3549, 4)
    assert scores.size >= 3549
    assert np.ptp(scores) > 0.01
    assert_matches(sc.load(network).run(feeds), want)
