"""One-node ONNX models run by onnxruntime: an oracle for single operators that imports nothing of ours."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

NEWEST_OPSET = 26
"""The newest ai.onnx opset that onnxruntime calls released; nodes are stamped with it unless a test says otherwise."""
IR_VERSION = 10


def node_model(
    op: str,
    inputs: Sequence[np.ndarray | None],
    attrs: Mapping[str, Any] | None = None,
    n_outputs: int = 1,
    opset: int = NEWEST_OPSET,
    domain: str = "",
    constant: Collection[int] = (),
) -> onnx.ModelProto:
    """A model of one node; the inputs numbered in ``constant`` are initializers, None entries are absent."""
    names = ["" if x is None else f"x{i}" for i, x in enumerate(inputs)]
    outputs = [f"y{i}" for i in range(n_outputs)]
    node = helper.make_node(op, names, outputs, name="node", domain=domain, **(attrs or {}))
    feeds, initializers = [], []
    for i, x in enumerate(inputs):
        if x is None:
            continue
        if i in constant:
            initializers.append(numpy_helper.from_array(x, names[i]))
        else:
            feeds.append(helper.make_tensor_value_info(names[i], helper.np_dtype_to_tensor_dtype(x.dtype), x.shape))
    results = [helper.make_empty_tensor_value_info(name) for name in outputs]
    graph = helper.make_graph([node], "node", feeds, results, initializers)
    opsets = [helper.make_opsetid("", opset)]
    if domain:
        opsets.append(helper.make_opsetid(domain, 1))
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def run_ort(
    op: str,
    inputs: Sequence[np.ndarray | None],
    attrs: Mapping[str, Any] | None = None,
    n_outputs: int = 1,
    opset: int = NEWEST_OPSET,
    domain: str = "",
    constant: Collection[int] = (),
) -> list[np.ndarray]:
    """What onnxruntime's CPU kernel computes for one node, with every graph optimisation off."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    model = node_model(op, inputs, attrs, n_outputs, opset, domain, constant)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {f"x{i}": np.ascontiguousarray(x) for i, x in enumerate(inputs) if x is not None and i not in constant}
    feeds = {name: x.reshape(inputs[int(name[1:])].shape) for name, x in feeds.items()}  # ascontiguousarray: 0-d -> 1-d
    return session.run(None, feeds)
