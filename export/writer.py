"""ONNX out: any Graph becomes a valid model of a chosen opset, or one clear error that names the node.

Nodes are written in the newest form where the opset has it, else by `downgrades`. Names, metadata and what the graph
says of intermediate values are kept; nothing is folded or fused, so reading the file back gives the same Graph.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

from sigconv.errors import InputError, UnsupportedError
from sigconv.export import opsets
from sigconv.export.downgrades import DOWN, WORDS
from sigconv.graph.evaluate import spec_of
from sigconv.graph.infer import infer
from sigconv.graph.ir import Graph, Node, Value
from sigconv.ops.spec import Fact

OLDEST = 13
"""The oldest opset that can be written."""

USUAL = 17
"""The opset written by default, unless a node's form is newer: then the first that has them all."""

LARGEST_INLINE = (1 << 31) - (64 << 20)
"""Bytes of constants up to which a model is one file: protobuf ends at 2 GiB, and the nodes need room too."""

SMALLEST_EXTERNAL = 1024
"""Bytes below which a constant stays in the model file although others are outside."""

ALIGNMENT = 4096
"""Of constants in the data file, so that they can be mapped."""

_IR_OF_DTYPE = {"FLOAT8": 9, "INT4": 10, "UINT4": 10, "FLOAT4": 11, "INT2": 13, "UINT2": 13}
"""The file format's version that first knows an element type, by the start of its name."""


def to_proto(graph: Graph, opset: int | None = None) -> ModelProto:
    """The graph as an ONNX model with its constants inside.

    ``opset``: 13 to the newest the onnx package knows; by default 17, or the first after it that has every node's form
    as it is. Raises InputError for an opset out of range, UnsupportedError, naming each node and the lowest opset that
    would do, where a node cannot be said in the opset, and ModelError where the graph is malformed.
    """
    newest = onnx.defs.onnx_opset_version()
    if opset is not None and not OLDEST <= opset <= newest:
        raise InputError(f"opset is {opset}; {OLDEST} to {newest} can be written")
    facts = infer(graph)
    if opset is None:
        plain = (v for v in range(USUAL, newest + 1) if all(_form(n, v, graph, facts) == n for n in graph.nodes))
        opset = next(plain, newest)
    nodes = []
    refused = []
    for node in graph.nodes:
        form = _form(node, opset, graph, facts)
        if form is None:
            lowest = next((v for v in range(OLDEST, newest + 1) if _form(node, v, graph, facts) is not None), None)
            refused.append(f"{node.label} needs opset {lowest}" if lowest else f"{node.label}: no opset has this form")
        else:
            nodes.append(form)
    if refused:
        raise UnsupportedError(f"opset {opset} cannot express {len(refused)} nodes: {'; '.join(refused)}", refused)
    used = {name for node in nodes for name in node.inputs} | {v.name for v in graph.outputs}
    used |= set(graph.constants) - {name for node in graph.nodes for name in node.inputs}
    constants = {k: v for k, v in graph.constants.items() if k in used}
    outputs = {v.name for v in graph.outputs}
    written = {out for node in nodes for out in node.outputs if out}
    proto = helper.make_graph(
        [_node(node, opset) for node in nodes],
        graph.name or "graph",
        [_info(v) for v in graph.inputs],
        [_info(_completed(v, facts.get(v.name, Fact()))) for v in graph.outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
        value_info=[_info(v) for k, v in graph.values.items() if k in written - outputs and v.dtype is not None],
    )
    domains = {n.domain: spec_of(n).since for n in nodes if n.domain}
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, v) for d, v in sorted(domains.items()))]
    dtypes = {a.dtype for a in constants.values()} | {f.dtype for f in facts.values() if f.dtype is not None}
    model = helper.make_model(proto, opset_imports=imports, ir_version=_ir_version(opset, dtypes))
    model.producer_name = "sigconv"
    helper.set_model_props(model, dict(graph.metadata))
    return model


def write(
    graph: Graph, path: str | os.PathLike[str], opset: int | None = None, *, external_data: bool | None = None
) -> None:
    """Write the graph to a file, see `to_proto`.

    ``external_data`` puts constants of 1 KiB and more into ``path`` + ``.data`` beside it; None: where the constants
    take more than protobuf can hold. An existing file is replaced only once the new one is complete.
    """
    path = Path(path)
    nbytes = sum(a.nbytes for a in graph.constants.values())
    outside = nbytes > LARGEST_INLINE if external_data is None else external_data
    if not outside:
        if nbytes > LARGEST_INLINE:
            raise InputError(f"external_data is False, but {nbytes} bytes of constants do not fit one ONNX file")
        _replace(path, to_proto(graph, opset).SerializeToString())
        return
    large = {k: a for k, a in graph.constants.items() if a.nbytes >= SMALLEST_EXTERNAL and a.dtype != object}
    data = path.with_name(path.name + ".data")
    partial = data.with_name(data.name + ".partial")
    model = to_proto(graph, opset)
    with open(partial, "wb") as file:
        for tensor in model.graph.initializer:
            if tensor.name not in large or not tensor.HasField("raw_data"):
                continue
            file.write(b"\0" * (-file.tell() % ALIGNMENT))
            entries = {"location": data.name, "offset": file.tell(), "length": len(tensor.raw_data)}
            file.write(tensor.raw_data)
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in entries.items():
                tensor.external_data.add(key=key, value=str(value))
    os.replace(partial, data)
    _replace(path, model.SerializeToString())


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    os.replace(partial, path)


def _form(node: Node, opset: int, graph: Graph, facts: Mapping[str, Fact]) -> Node | None:
    """The node as ``opset`` knows it; None where it does not."""
    if node.domain:
        return node
    found: Node | None = node
    for version in sorted((v for v in opsets.STEPS.get(node.op, {}) if opset < v < opsets._ANY), reverse=True):
        step = DOWN.get(node.op, {}).get(version)
        found = step(found, graph.constants) if step and found else None
    schema = _schema(node.op, opset)
    if found is None or schema is None or schema.deprecated:
        return None
    if any(WORDS.get((node.op, k, v), 0) > opset for k, v in found.attrs.items() if isinstance(v, str)):
        return None
    defaults = spec_of(node).defaults
    attrs = {k: v for k, v in found.attrs.items() if k in schema.attributes or k not in defaults or v != defaults[k]}
    fits = (
        set(attrs) <= set(schema.attributes)
        and schema.min_input <= len(found.inputs) <= schema.max_input
        and len(found.outputs) <= schema.max_output
        and all(name in attrs for name, a in schema.attributes.items() if a.required)
        and all(_takes(schema, i, facts.get(name)) for i, name in enumerate(found.inputs) if name)
    )
    return found.replace(attrs=attrs) if fits else None


def _takes(schema: Any, i: int, fact: Fact | None) -> bool:
    """Whether the schema's input ``i`` may have the fact's element type."""
    formal = schema.inputs[min(i, len(schema.inputs) - 1)]
    code = helper.np_dtype_to_tensor_dtype(fact.dtype) if fact is not None and fact.dtype is not None else 0
    return not code or f"tensor({TensorProto.DataType.Name(code).lower()})" in formal.types


@cache
def _schema(op: str, opset: int) -> Any:
    try:
        return onnx.defs.get_schema(op, opset, "")
    except onnx.defs.SchemaError:
        return None


def _node(node: Node, opset: int) -> onnx.NodeProto:
    schema = _schema(node.op, opset) if not node.domain else None
    proto = helper.make_node(node.op, node.inputs, node.outputs, name=node.name or None, domain=node.domain or None)
    for name, value in node.attrs.items():
        known = schema.attributes.get(name) if schema is not None else None
        proto.attribute.append(_attribute(name, value, known))
    return proto


def _attribute(name: str, value: Any, known: Any) -> AttributeProto:
    if isinstance(value, np.ndarray):
        return helper.make_attribute(name, numpy_helper.from_array(value))
    kind = int(known.type.value) if known is not None else None
    if kind is None and isinstance(value, (tuple, list)) and not value:
        kind = AttributeProto.INTS
    return helper.make_attribute(name, list(value) if isinstance(value, tuple) else value, attr_type=kind)


def _completed(value: Value, fact: Fact) -> Value:
    """A graph output must say its type: from inference where the graph leaves it open."""
    return Value(value.name, value.dtype or fact.dtype, value.shape if value.shape is not None else fact.shape)


def _info(value: Value) -> onnx.ValueInfoProto:
    if value.dtype is None:
        return onnx.ValueInfoProto(name=value.name)
    return helper.make_tensor_value_info(value.name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)


def _ir_version(opset: int, dtypes: set[np.dtype[Any]]) -> int:
    names = [TensorProto.DataType.Name(helper.np_dtype_to_tensor_dtype(d)) for d in dtypes]
    needed = [ir for name in names for start, ir in _IR_OF_DTYPE.items() if name.startswith(start)]
    return max(8, helper.find_min_ir_version_for([helper.make_opsetid("", opset)]), *needed)
