"""Small ONNX models and random graphs of them; imports nothing of ours."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import NodeProto, helper, numpy_helper

OPSET = 17

Call = tuple[str, tuple[str, ...], tuple[str, ...], dict[str, Any]]


def calls(text: str) -> Iterator[Call]:
    """(op, inputs, outputs, attributes) of lines such as ``y, z = Split(x, axis=1); w = Add(y, z)``."""
    for line in ast.parse(text).body:
        assert isinstance(line, ast.Assign)
        assert isinstance(line.value, ast.Call)
        (target,) = line.targets
        names = target.elts if isinstance(target, ast.Tuple) else [target]
        attrs = {k.arg: ast.literal_eval(k.value) for k in line.value.keywords if k.arg}
        inputs = tuple(ast.unparse(a) for a in line.value.args)
        yield ast.unparse(line.value.func), inputs, tuple(map(ast.unparse, names)), attrs


def model(
    nodes: Sequence[NodeProto],
    inputs: Mapping[str, Sequence[Any]],
    outputs: Sequence[str],
    constants: Mapping[str, np.ndarray] | None = None,
    dtype: Any = np.float32,
    opset: int = OPSET,
) -> onnx.ModelProto:
    """A model of ``nodes`` whose inputs all have ``dtype``."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        list(nodes),
        "network",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", opset)])


def cnn(batch: int | str = "N", size: int = 12, seed: int = 0) -> onnx.ModelProto:
    """Every hot kernel once: x [N, 3, size, size] -> class scores [N, 10].

    Convolutions from planes and from channel blocks, depthwise, transposed, with a residual; pools, a chain of
    elementwise nodes with broadcasting, a product and a softmax.
    """
    rng = np.random.default_rng(seed)

    def weight(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    constants = {
        "w1": weight(20, 3, 3, 3), "b1": weight(20), "w2": weight(20, 20, 3, 3), "b2": weight(20),
        "w3": weight(20, 1, 3, 3), "b3": weight(20), "w4": weight(20, 17, 2, 2), "b4": weight(17),
        "w5": weight(10, 17), "b5": weight(10), "scale": weight(17, 1, 1),
    }  # fmt: skip
    pads = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="planar", **pads),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu"),
        helper.make_node("MaxPool", ["r1"], ["p1"], name="max_pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p1", "w2", "b2"], ["c2"], name="blocked", **pads),
        helper.make_node("Add", ["c2", "p1"], ["a2"], name="residual"),
        helper.make_node("Relu", ["a2"], ["r2"], name="residual_relu"),
        helper.make_node("Conv", ["r2", "w3", "b3"], ["c3"], name="depthwise", group=20, **pads),
        helper.make_node("Sigmoid", ["c3"], ["s3"], name="sigmoid"),
        helper.make_node("Mul", ["c3", "s3"], ["m3"], name="swish"),
        helper.make_node("ConvTranspose", ["m3", "w4", "b4"], ["c4"], name="transposed", strides=[2, 2]),
        helper.make_node("Mul", ["c4", "scale"], ["m4"], name="broadcast"),
        helper.make_node("Tanh", ["m4"], ["t4"], name="tanh"),
        helper.make_node("AveragePool", ["t4"], ["p4"], name="average_pool", kernel_shape=[3, 3], **pads),
        helper.make_node("GlobalAveragePool", ["p4"], ["g4"], name="global"),
        helper.make_node("Flatten", ["g4"], ["f4"], name="flatten"),
        helper.make_node("Gemm", ["f4", "w5", "b5"], ["y5"], name="product", transB=1),
        helper.make_node("Softmax", ["y5"], ["y"], name="softmax", axis=1),
    ]
    return model(nodes, {"x": [batch, 3, size, size]}, ["y"], constants)


def onnxruntime_run(proto: onnx.ModelProto | bytes, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """onnxruntime's outputs by name, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    data = proto if isinstance(proto, bytes) else proto.SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, dict(feeds)), strict=True))
