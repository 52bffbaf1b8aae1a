"""Quantised networks run natively, on codes in float32: the integers are onnxruntime's, to the last unit."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import sigconv as sc
from sigconv.graph.interpret import interpret
from sigconv.planner.compile import compile_graph
from sigconv.planner.fuse import of_codes
from sigconv.runtime.session import Session
from tests.cases.compute_nodes import F32, I8, U8, Case, codes, contrib_cases, integers, normal, of, quant_cases
from tests.cases.onnx_nodes import node_model, run_ort
from tests.cases.oracle import expected, generator, onnxruntime_session

CASES = [case for family in (quant_cases, contrib_cases) for case in family()]


def feeds_of(case: Case) -> Collection[int]:
    """The inputs that are fed: the data; scales, zero points, weights and biases are constants."""
    data = {"QLinearAdd": {0, 3}, "QLinearMul": {0, 3}, "QLinearConcat": {2, 5}}.get(case.op, {0})
    return {i for i in data if i not in case.constant}


def compiled(case: Case) -> tuple[Session, dict[str, np.ndarray]]:
    fed = feeds_of(case)
    constant = [i for i, x in enumerate(case.inputs) if x is not None and i not in fed]
    model = sc.load(node_model(case.op, case.inputs, case.attrs, case.n_outputs, case.opset, case.domain, constant))
    feeds = {f"x{i}": np.asarray(case.inputs[i]) for i in fed}
    return model.compile({k: x.shape for k, x in feeds.items()}, threads=2), feeds


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_program_gives_onnxruntimes_integers(case: Case) -> None:
    session, feeds = compiled(case)
    ours = list(session.run(feeds).values())
    theirs = run_ort(case.op, case.inputs, case.attrs, case.n_outputs, case.opset, case.domain, case.constant)
    for have, want in zip(ours, theirs, strict=True):
        assert (have.dtype, have.shape) == (want.dtype, want.shape)
        if want.dtype.kind == "f":
            np.testing.assert_allclose(have, want, rtol=1e-5, atol=1e-5 * np.abs(want).max(initial=0))
        else:
            assert np.abs(have.astype(np.int64) - want.astype(np.int64)).max(initial=0) <= case.steps


NATIVE = [
    Case("QuantizeLinear", [normal(2, 3, 40, scale=9), of(0.1), of(7, U8)]),
    Case("QuantizeLinear", [normal(2, 3, 40), of([0.1, 0.2, 0.3]), of([0, -3, 5], I8)], {"axis": 1}),
    Case("DequantizeLinear", [codes(2, 3, 40), of(0.1), of(7, U8)]),
    Case("DynamicQuantizeLinear", [normal(5, 40, scale=3)], n_outputs=3),
    Case("QLinearConv", [codes(1, 3, 9, 8), of(0.05), of(120, U8), codes(4, 3, 3, 3, dtype=I8),
         of([0.01, 0.02, 0.03, 0.04]), of([0] * 4, I8), of(0.4), of(3, U8),
         integers(4, low=-999, high=999)], {"pads": [1, 0, 2, 1]}),
    Case("ConvInteger", [codes(1, 3, 9, 8), codes(4, 3, 3, 3), of(120, U8), of(100, U8)]),
    Case("MatMulInteger", [codes(7, 33), codes(33, 5), of(120, U8), of(100, U8)]),
    Case("QLinearMatMul", [codes(7, 33), of(0.05), of(120, U8), codes(33, 5), of(0.02), of(100, U8), of(0.9),
         of(9, U8)]),
]  # fmt: skip


@pytest.mark.parametrize("case", NATIVE, ids=str)
def test_it_is_native(case: Case) -> None:
    session, feeds = compiled(case)
    assert "numpy" not in {row.algorithm for row in session.program.rows}
    ours = list(session.run(feeds).values())
    for have, want in zip(ours, run_ort(case.op, case.inputs, case.attrs, case.n_outputs), strict=True):
        np.testing.assert_array_equal(have, want)


def test_what_is_not_a_number_becomes_the_least_code() -> None:
    x = of([np.nan, np.inf, -np.inf, 1e30, -1e30, 0.25, -0.25, 0.75] * 3)
    session, feeds = compiled(Case("QuantizeLinear", [x, of(0.5), of(3, U8)]))
    np.testing.assert_array_equal(session.run(feeds)["y0"][:8], [0, 255, 0, 255, 0, 3, 3, 5])


def naive_conv(x: np.ndarray, w: np.ndarray, x_zero: int) -> np.ndarray:
    """Whole numbers in loops over the outputs: stride 1, no padding."""
    n, _, height, width = x.shape
    out = np.zeros((n, len(w), height - w.shape[2] + 1, width - w.shape[3] + 1), np.int64)
    for m, i, j in np.ndindex(*out.shape[1:]):
        window = x[:, :, i : i + w.shape[2], j : j + w.shape[3]].astype(np.int64) - x_zero
        out[:, m, i, j] = (window * w[m].astype(np.int64)).sum((1, 2, 3))
    return out


@pytest.mark.parametrize("largest", [3, 127])
def test_long_sums_are_exact(largest: int) -> None:
    """Up to 2^24 in float32, beyond in float64: 700 channels of 9 taps at the ends of their range."""
    draw = generator("long", largest)
    x = draw.choice([0, 255], (1, 700, 4, 5)).astype(np.uint8)
    w = draw.choice([-largest, largest], (6, 700, 3, 3)).astype(np.int8)
    x[0, :, :3, :3] = np.where(w[0] > 0, 255, 0)  # filter 0 sees the largest sum there is
    session, feeds = compiled(Case("ConvInteger", [x, w, of(1, U8)]))
    np.testing.assert_array_equal(session.run(feeds)["y0"], naive_conv(x, w, 1))
    assert bool(np.abs(naive_conv(x, w, 1)).max() > 2**24) is (largest == 127)
    a, b = x.reshape(-1, 700)[:5], w.reshape(-1, 700).T[:, :9]
    session, feeds = compiled(Case("MatMulInteger", [a, np.ascontiguousarray(b), of(1, U8)]))
    np.testing.assert_array_equal(session.run(feeds)["y0"], (a.astype(np.int64) - 1) @ b.astype(np.int64))


def test_a_quantised_convolution_is_neither_winograd_nor_scaled() -> None:
    """Its weights stay whole numbers: factors of a channel are not folded into them."""
    x, w = codes(1, 32, 28, 28), codes(32, 32, 3, 3, dtype=I8)
    case = Case(
        "QLinearConv", [x, of(0.05), of(120, U8), w, of(0.01), of(0, I8), of(3.0), of(128, U8)], {"pads": [1] * 4}
    )
    session, feeds = compiled(case)
    rows = [row for row in session.program.rows if "Conv" in row.op]
    assert [row.algorithm.startswith(("direct", "portable")) for row in rows] == [True]
    np.testing.assert_array_equal(session.run(feeds)["y0"], run_ort(case.op, case.inputs, case.attrs)[0])
    assert of_codes(w.astype(np.float32))
    assert not of_codes(normal(3, 3))


def quantised_net(draw: np.random.Generator) -> onnx.ModelProto:
    """Image -> conv -> what moves codes -> residual sum -> pool -> dense, all on bytes, two outputs in bytes."""
    scale = lambda v: np.float32(v)  # noqa: E731
    constants: dict[str, Any] = {
        "xs": scale(0.02), "xz": np.uint8(128), "w": draw.integers(-99, 99, (8, 3, 3, 3)).astype(np.int8),
        "ws": (draw.random(8) * 0.01 + 0.001).astype(np.float32), "wz": np.zeros(8, np.int8),
        "ys": scale(0.03), "yz": np.uint8(100), "bias": draw.integers(-500, 500, 8).astype(np.int32),
        "zs": scale(0.05), "zz": np.uint8(90), "shape": np.int64([0, -1]),
        "pads": np.int64([0, 0, 1, 1, 0, 0, 1, 1]), "pad": np.uint8(100),
        "m": draw.integers(-99, 99, (16 * 6 * 6, 5)).astype(np.int8), "ms": scale(0.01), "mz": np.int8(0),
        "os": scale(0.9), "oz": np.uint8(77),
    }  # fmt: skip
    ms = "com.microsoft"
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["q"]),
        helper.make_node("QLinearConv", ["q", "xs", "xz", "w", "ws", "wz", "ys", "yz", "bias"], ["c"], pads=[1] * 4),
        helper.make_node("MaxPool", ["c"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("QLinearAdd", ["p", "ys", "yz", "p", "ys", "yz", "zs", "zz"], ["s"], domain=ms),
        helper.make_node("Concat", ["s", "p"], ["cat"], axis=1),
        helper.make_node("Pad", ["cat", "pads", "pad"], ["wide"]),
        helper.make_node("Transpose", ["wide"], ["t"], perm=[0, 1, 3, 2]),
        helper.make_node("Reshape", ["t", "shape"], ["flat"]),
        helper.make_node("QLinearMatMul", ["flat", "ys", "yz", "m", "ms", "mz", "os", "oz"], ["d"]),
        helper.make_node("DequantizeLinear", ["d", "os", "oz"], ["y"]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "quantised",
        [info("x", 1, [1, 3, 8, 8])],
        [info("y", 1, [1, 5]), info("cat", 2, [1, 16, 4, 4])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(ms, 1)], ir_version=8
    )


def test_a_whole_network_stays_in_codes() -> None:
    draw = generator("network")
    proto = quantised_net(draw)
    feeds = {"x": draw.standard_normal((1, 3, 8, 8)).astype(np.float32)}
    graph = sc.load(proto).graph
    program = compile_graph(graph, {"x": (1, 3, 8, 8)})
    assert "numpy" not in {row.algorithm for row in program.rows}
    want = expected(onnxruntime_session(proto, optimized=False), feeds)
    for found in (Session(program).run(feeds), interpret(graph, feeds)):
        np.testing.assert_array_equal(found["cat"], want["cat"])
        np.testing.assert_allclose(found["y"], want["y"], rtol=1e-6)


def test_an_image_of_bytes_is_converted_natively() -> None:
    info = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["t"], ["y"], to=1),
    ]
    proto = helper.make_model(helper.make_graph(nodes, "g", [info("x", 2, [1, 5, 7, 3])], [info("y", 1, None)]),
                              opset_imports=[helper.make_opsetid("", 17)])  # fmt: skip
    session = sc.load(proto).compile()
    assert {row.algorithm for row in session.program.rows} == {"strided_copy", "convert"}
    x = codes(1, 5, 7, 3)
    np.testing.assert_array_equal(session.run({"x": x})["y"], x.transpose(0, 3, 1, 2).astype(F32))
