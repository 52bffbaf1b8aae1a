"""Whole networks, end to end in the simulator, against onnxruntime and the CPU."""

from __future__ import annotations

import numpy as np
import pytest

import sigconv as sc
from sigconv import demo
from sigconv.errors import InputError, UnsupportedError
from sigconv.graph.builder import GraphBuilder
from sigconv.graph.passes import simplify
from sigconv.model import Model
from sigconv.planner.lower.cuda import compile_cuda
from sigconv.runtime.cuda import CudaSession
from tests.cases import networks, oracle


def agree(model: Model, feeds: dict[str, np.ndarray], runs: int = 1, **options) -> CudaSession:
    """The model on the device gives what it gives on the CPU; the session."""
    session = model.compile({k: v.shape for k, v in feeds.items()}, device="cuda", **options)
    assert isinstance(session, CudaSession)
    for _ in range(runs):
        got = session.run(feeds)
    oracle.assert_matches(got, model.run(feeds))
    return session


def test_mnist(models, rng):
    path = models / "mnist8_cntk.onnx"
    model = sc.load(path)
    feeds = {"Input3": rng.standard_normal((1, 1, 28, 28)).astype(np.float32) * 100}
    session = model.compile(device="cuda")
    assert all(row.algorithm != "numpy" for row in session.explain().rows)
    oracle.assert_matches(session.run(feeds), oracle.expected(oracle.onnxruntime_session(path), feeds))


def test_lenet_reads_digits():
    model = sc.load(demo.MODEL)
    digits, labels = demo.held_out()
    name = model.inputs[0].name
    feeds = {name: demo.upscale(digits[:1])}
    got = model.run(feeds, device="cuda")
    oracle.assert_matches(got, model.run(feeds))
    assert got[model.outputs[0].name].argmax(1).tolist() == labels[:1].tolist()


def small_resnet() -> Model:
    """Two stages of basic blocks, a stride, a projection, global pooling and a classifier."""
    b = GraphBuilder("small_resnet", 3)

    def unit(x: str, channels: int, kernel: int, stride: int, name: str) -> str:
        made = b.conv(x, channels, kernel, stride=stride, padding=kernel // 2, bias=False, name=name)
        return b.batch_norm(made, name=f"{name}.bn")

    x = b.relu(unit(b.input("x", ("N", 3, "H", "W")), 4, 3, 1, "stem"))
    for i, (channels, stride) in enumerate(((4, 1), (8, 2))):
        y = unit(b.relu(unit(x, channels, 3, stride, f"{i}.1")), channels, 3, 1, f"{i}.2")
        x = b.relu(b.add(y, unit(x, channels, 1, stride, f"{i}.down") if stride > 1 else x))
    return Model(b.build(b.linear(b.flatten(b.global_average_pool(x)), 5, name="fc")))


WHOLE = ("cifar_pytorch", "deeplab_dm05", "kws_m_fp32", "retinaface_mbnet025", "squeezenet_fp16", "yunet_n_320")


@pytest.mark.parametrize("name", WHOLE)
def test_trained_networks_need_no_host(name, models):
    """Every node has a kernel: the program is made, not run, as the simulator would take minutes."""
    model = sc.load(models / f"{name}.onnx")
    shapes = {v.name: tuple(d if isinstance(d, int) else 1 for d in v.shape) for v in model.inputs}
    rows = compile_cuda(simplify(model.graph), shapes).rows
    assert len(rows) > 5


def test_small_resnet(rng):
    feeds = {"x": rng.standard_normal((2, 3, 9, 7)).astype(np.float32)}
    session = agree(small_resnet(), feeds, runs=2)  # the second run finds what the first left in memory
    fused = [row.op for row in session.explain().rows]
    assert "Conv + Add + Relu" in fused  # the residual is added in the convolution's epilogue


def test_small_unet(rng):
    model = sc.models.unet(inputs=2, classes=2, base=2, levels=2)
    agree(model, {"x": rng.standard_normal((1, 2, 8, 12)).astype(np.float32)})


def test_every_hot_kernel_of_the_cpu_test_net(rng):
    proto = networks.cnn(1, 6)
    feeds = {"x": rng.standard_normal((1, 3, 6, 6)).astype(np.float32)}
    agree(sc.load(proto), feeds)


def test_inference_session(rng):
    path = demo.MODEL
    session = sc.InferenceSession(path, providers=["CUDAExecutionProvider"])
    assert session.get_providers() == ["CUDAExecutionProvider"]
    x = {session.get_inputs()[0].name: rng.random((1, 1, 32, 32)).astype(np.float32)}
    (got,) = session.run(None, x)
    (want,) = sc.InferenceSession(path).run(None, x)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def _with_sort() -> Model:
    b = GraphBuilder("sorted", 0)
    x = b.relu(b.input("x", (2, 6)))
    return Model(b.build(b.op("CumSum", x, b.constant("axis", np.array(1)))))


def test_what_has_no_kernel_is_listed_and_runs_on_the_host_only_if_asked(rng):
    model, feeds = _with_sort(), {"x": rng.standard_normal((2, 6)).astype(np.float32)}
    with pytest.raises(UnsupportedError, match=r"CumSum.*fallback='cpu'") as caught:
        model.compile(device="cuda")
    assert len(caught.value.missing) == 1
    session = agree(model, feeds, fallback="cpu")
    assert [row.algorithm for row in session.explain().rows] == ["bytecode", "numpy"]


def test_arguments_are_checked(rng):
    model = small_resnet()
    with pytest.raises(InputError, match="device is 'tpu'"):
        model.compile({"x": (1, 3, 8, 8)}, device="tpu")
    with pytest.raises(InputError, match="fallback"):
        model.compile({"x": (1, 3, 8, 8)}, device="cuda", fallback="gpu")
    session = model.compile({"x": (1, 3, 8, 8)}, device="cuda")
    with pytest.raises(InputError, match="compiled for"):
        session.run({"x": np.zeros((1, 3, 8, 9), np.float32)})
    with pytest.raises(InputError, match="no input is called 'z'"):
        session.run({"x": np.zeros((1, 3, 8, 8), np.float32), "z": np.zeros(1)})
    with pytest.raises(InputError, match="missing"):
        session.run({})


def test_profile_has_a_time_for_every_row(rng):
    session = small_resnet().compile({"x": (1, 3, 4, 4)}, device="cuda")
    profile = session.profile({"x": np.ones((1, 3, 4, 4), np.float32)}, repeat=1)
    assert all(t.seconds > 0 for t in profile.rows if t.row.algorithm not in ("view",))
