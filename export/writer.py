"""ONNX out: any Graph becomes a valid model of a chosen opset, or one clear error that names the node.

Nodes are written in the newest form where the opset has it, else by `downgrades`. Names, metadata and what the graph
says of intermediate values are kept; nothing is folded or fused, so reading the file back gives the same Graph.
"""

from __future__ import annotations

import errno
import operator
import os
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

from sigconv.errors import InputError, ModelError, UnsupportedError
from sigconv.export import opsets
from sigconv.export.downgrades import DOWN, WORDS, Known
from sigconv.graph.evaluate import spec_of
from sigconv.graph.infer import facts_inside, infer
from sigconv.graph.ir import Graph, Node, Value, fresh
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
    return _model(graph, opset, lambda name, array: numpy_helper.from_array(np.asarray(array), name))


Tensor = Callable[[str, np.ndarray], TensorProto]
"""Makes the tensor of a constant."""


def _model(graph: Graph, opset: int | None, tensor: Tensor) -> ModelProto:
    newest = onnx.defs.onnx_opset_version()
    if opset is not None and not OLDEST <= opset <= newest:
        raise InputError(f"opset is {opset}; {OLDEST} to {newest} can be written")
    facts = infer(graph)
    if opset is None:
        plain = (v for v in range(USUAL, newest + 1) if _formed(graph, v, facts)[0] is graph)
        opset = next(plain, newest)
    found, refused = _formed(graph, opset, facts)
    if refused:
        lowest = {n.label: _lowest(n, graph, facts, newest) for n in refused}
        items = [f"{k} needs opset {v}" if v else f"{k}: no opset has this form" for k, v in lowest.items()]
        raise UnsupportedError(f"opset {opset} cannot express {len(items)} nodes: {'; '.join(items)}", items)
    edges = tuple(_completed(v, facts.get(v.name, Fact())) for v in found.outputs)
    proto = _graph(found.replace(outputs=edges), opset, {}, set(), tensor)
    inside = list(_graphs(found))
    domains = {n.domain: spec_of(n).since for g in inside for n in g.nodes if n.domain}
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, v) for d, v in sorted(domains.items()))]
    dtypes = {a.dtype for g in inside for a in g.constants.values()}
    dtypes |= {f.dtype for f in facts.values() if f.dtype is not None}
    model = helper.make_model(proto, opset_imports=imports, ir_version=_ir_version(opset, dtypes))
    model.producer_name = "sigconv"
    helper.set_model_props(model, dict(graph.metadata))
    return model


def write(
    graph: Graph, path: str | os.PathLike[str], opset: int | None = None, *, external_data: bool | None = None
) -> None:
    """Write the graph to a file, see `to_proto`.

    ``external_data`` puts constants of 1 KiB and more into ``path`` + ``.data`` beside it; None: where the constants
    take more than protobuf can hold. An existing file is replaced only once the new one is complete. Constants written
    outside are not copied in memory.
    """
    path = Path(path)
    if not path.parent.is_dir():  # else the complaint would name the file that is written first
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    nbytes = sum(a.nbytes for g in _graphs(graph) for a in g.constants.values())
    outside = nbytes > LARGEST_INLINE if external_data is None else external_data
    if not outside:
        if nbytes > LARGEST_INLINE:
            raise InputError(f"external_data is False, but {nbytes} bytes of constants do not fit one ONNX file")
        _replace(path, to_proto(graph, opset).SerializeToString())
        return
    data = path.with_name(path.name + ".data")
    partial = data.with_name(data.name + ".partial")
    with open(partial, "wb") as file:
        model = _model(graph, opset, lambda name, array: _outside(name, array, file, data.name))
    os.replace(partial, data)
    _replace(path, model.SerializeToString())


def _outside(name: str, array: np.ndarray, file: BinaryIO, location: str) -> TensorProto:
    """The constant's tensor, whose bytes go to the end of the data file if they are many."""
    code = helper.np_dtype_to_tensor_dtype(array.dtype) if array.dtype != object else TensorProto.STRING
    packed = TensorProto.DataType.Name(code).endswith(("INT4", "INT2", "FLOAT4E2M1"))
    if array.nbytes < SMALLEST_EXTERNAL or array.dtype == object or packed:
        return numpy_helper.from_array(np.asarray(array), name)
    file.write(b"\0" * (-file.tell() % ALIGNMENT))
    entries = {"location": location, "offset": file.tell(), "length": array.nbytes}
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    np.ascontiguousarray(little).tofile(file)
    tensor = TensorProto(name=name, data_type=code, dims=array.shape, data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    os.replace(partial, path)


def _graphs(graph: Graph) -> Iterator[Graph]:
    """A graph and all sub-graphs in it."""
    yield graph
    for node in graph.nodes:
        for body in node.attrs.values():
            if isinstance(body, Graph):
                yield from _graphs(body)


def _formed(graph: Graph, opset: int, facts: Mapping[str, Fact]) -> tuple[Graph, list[Node]]:
    """The graph in the forms of ``opset``, the same graph where they are that already; the nodes it cannot express."""
    known = Known(facts, graph.names())
    nodes, refused = [], []
    for node in graph.nodes:
        bodies: dict[str, Graph] = {}
        for key, body in node.attrs.items():
            if isinstance(body, Graph):
                bodies[key], lost = _formed(body, opset, _facts_inside(node, body, facts))
                refused += lost
        if any(body is not node.attrs[key] for key, body in bodies.items()):
            node = node.replace(attrs={**node.attrs, **bodies})
        form = _form(node, opset, known)
        if form is None:
            refused.append(node)
        else:
            nodes.append(node if form == node else form)
    if len(nodes) == len(graph.nodes) and all(map(operator.is_, nodes, graph.nodes)):
        return graph, refused
    read = {name for node in graph.nodes for name in node.inputs}
    used = {name for node in nodes for name in node.inputs} | {v.name for v in graph.outputs}
    constants = {k: v for k, v in graph.constants.items() if k in used or k not in read} | known.added
    return graph.replace(nodes=tuple(nodes), constants=constants), refused


def _facts_inside(node: Node, body: Graph, facts: Mapping[str, Fact]) -> dict[str, Fact]:
    """What is known of the values in a sub-graph, whatever its operator feeds it."""
    captures = int(node.attrs["captures"])
    captured = [facts.get(name, Fact()) for name in node.inputs[len(node.inputs) - captures :]]
    return facts_inside(body, [*[None] * (len(body.inputs) - captures), *captured])


def _lowest(node: Node, graph: Graph, facts: Mapping[str, Fact], newest: int) -> int | None:
    """The lowest opset that has the node, which may be a sub-graph's: what is known of its values is then forgotten."""
    known = facts if any(n is node for n in graph.nodes) else {}
    return next((v for v in range(OLDEST, newest + 1) if _form(node, v, Known(known, set())) is not None), None)


def _form(node: Node, opset: int, known: Known) -> Node | None:
    """The node as ``opset`` knows it; None where it does not. Its sub-graphs are left alone."""
    if node.domain:
        return node
    found: Node | None = node
    ways = DOWN.get(node.op, {})
    changes = {*opsets.STEPS.get(node.op, {}), *ways}
    for version in sorted((v for v in changes if opset < v < opsets._ANY), reverse=True):
        found = ways[version](found, known) if found and version in ways else None
    schema = _schema(node.op, opset)
    if found is None or schema is None or schema.deprecated:
        return None
    if any(WORDS.get((node.op, k, v), 0) > opset for k, v in found.attrs.items() if isinstance(v, str)):
        return None
    defaults = spec_of(node).defaults
    attrs = {
        k: v
        for k, v in found.attrs.items()
        if k in schema.attributes or k not in defaults or isinstance(v, np.ndarray) or v != defaults[k]
    }
    captures = attrs.get("captures", 0)
    inputs = found.inputs[: len(found.inputs) - captures]
    fits = (
        set(attrs) - {"captures"} <= set(schema.attributes)
        and schema.min_input <= len(inputs) <= schema.max_input
        and len(found.outputs) <= schema.max_output
        and all(name in attrs for name, a in schema.attributes.items() if a.required)
        and all(_takes(schema, i, known.facts.get(name)) for i, name in enumerate(inputs) if name)
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


def _graph(graph: Graph, opset: int, names: Mapping[str, str], outer: set[str], tensor: Tensor) -> onnx.GraphProto:
    """``names`` are those outside of what the graph captures; no other name may be one of ``outer``."""
    own = [v.name for v in graph.inputs if v.name not in names]
    own += [*graph.constants, *(out for node in graph.nodes for out in node.outputs if out)]
    taken = outer | set(names.values())
    named = {**names, "": "", **{name: fresh(name, taken) for name in own}}
    nodes = [_node(node, opset, named, taken, tensor) for node in graph.nodes]
    written = {out for node in graph.nodes for out in node.outputs if out}
    ends = []
    for v in graph.outputs:
        end = named[v.name]
        if v.name in names:  # what a sub-graph hands through needs a node of its own
            end = fresh(f"{v.name}_through", taken)
            nodes.append(helper.make_node("Identity", [named[v.name]], [end]))
        ends.append(_info(Value(end, v.dtype, v.shape)))
    outputs = {v.name for v in graph.outputs}
    hints = [v for k, v in graph.values.items() if k in written - outputs and v.dtype is not None]
    return helper.make_graph(
        nodes,
        graph.name or "graph",
        [_info(Value(named[v.name], v.dtype, v.shape)) for v in graph.inputs if v.name not in names],
        ends,
        [tensor(named[name], array) for name, array in graph.constants.items()],
        value_info=[_info(Value(named[v.name], v.dtype, v.shape)) for v in hints],
    )


def _node(node: Node, opset: int, named: Mapping[str, str], taken: set[str], tensor: Tensor) -> onnx.NodeProto:
    schema = _schema(node.op, opset) if not node.domain else None
    first = len(node.inputs) - int(node.attrs.get("captures", 0))
    inputs, outputs = [named[n] for n in node.inputs[:first]], [named[n] for n in node.outputs]
    while inputs and not inputs[-1]:
        inputs.pop()
    proto = helper.make_node(node.op, inputs, outputs, name=node.name or None, domain=node.domain or None)
    captured = [named[n] for n in node.inputs[first:]]
    for name, value in node.attrs.items():
        known = schema.attributes.get(name) if schema is not None else None
        if isinstance(value, Graph):
            ends = value.inputs[len(value.inputs) - len(captured) :]
            names = {v.name: outer for v, outer in zip(ends, captured, strict=True)}
            proto.attribute.append(helper.make_attribute(name, _graph(value, opset, names, taken, tensor)))
        elif name != "captures":
            try:
                proto.attribute.append(_attribute(name, value, known))
            except (TypeError, ValueError, AssertionError) as error:  # onnx's helper raises any of them
                raise ModelError(
                    f"{node.op} {node.name!r}: opset {opset} does not take {value!r} as its attribute {name}"
                ) from error
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
