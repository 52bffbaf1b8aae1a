"""Small ONNX models, built by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

F, I64 = TensorProto.FLOAT, TensorProto.INT64
Arrays = dict[str, np.ndarray]


def model_of(
    nodes: Sequence[onnx.NodeProto],
    feeds: Arrays,
    outputs: Sequence[str] = ("y",),
    constants: Arrays | None = None,
    opset: int = 21,
    extra_opsets: Sequence[onnx.OperatorSetIdProto] = (),
) -> onnx.ModelProto:
    """A model around nodes, its inputs of the feeds' shapes."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape) for n, x in feeds.items()],
        [onnx.ValueInfoProto(name=n) for n in outputs],
        [numpy_helper.from_array(x, n) for n, x in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset), *extra_opsets], ir_version=8)


def relu(x: str = "x", y: str = "y", **attrs: Any) -> onnx.NodeProto:
    return helper.make_node("Relu", [x], [y], **attrs)


X = {"x": np.linspace(-3, 3, 2 * 6 * 4 * 5, dtype=np.float32).reshape(2, 6, 4, 5)}
V3 = np.float32([0.5, 1.5, -2])


def node(op: str, inputs: str = "x", outputs: str = "y", **attrs: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), name=f"the_{op.lower()}", **attrs)
