"""ONNX in: any file, of any opset, becomes a Graph in canonical form, or one clear error.

Nothing in a file is trusted: sizes are checked before memory is taken, names before they are followed, and whatever
protobuf or onnx raise on broken bytes becomes a ModelError that names the file.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]
from onnx import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    TensorShapeProto,
    ValueInfoProto,
)

import sigconv.ops  # noqa: F401  (fills the registry)
from sigconv.errors import ModelError, UnsupportedError
from sigconv.export import opsets, wire
from sigconv.export.external import NOWHERE, External, check_total
from sigconv.export.functions import Call, Functions, opset_versions
from sigconv.export.tensors import dtype_of, freeze, sparse_to_array, to_array
from sigconv.export.upgrade import Missing, schema_of, some, upgraded
from sigconv.graph.ir import Dim, Graph, Node, Shape, Value
from sigconv.graph.passes import toposort
from sigconv.ops.spec import REGISTRY, lookup

Source: TypeAlias = "str | os.PathLike[str] | bytes | ModelProto"

_UNNAMED_DIMS = {"", "?", "None", "-1", "0"}
"""What exporters write for a size they do not know; 0 and negative numbers mean the same."""


def read(source: Source) -> Graph:
    """Read a model from a path, its bytes, or a ModelProto (which is not modified).

    External data is read from the model's own folder only, so not for bytes or a ModelProto. Raises ModelError for a
    malformed model, its subclass UnsupportedError, listing everything at once, for operators and forms that sigconv
    lacks, and OSError where the file cannot be opened.
    """
    external, what = NOWHERE, "the model"
    data: bytes | ModelProto
    large: dict[int, np.ndarray] = {}
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        with open(path, "rb") as file:
            data, large = wire.split(file if file.seekable() else io.BytesIO(file.read()))
        external, what = External(path.parent), str(path)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        data, large = wire.split(io.BytesIO(source))
    elif isinstance(source, ModelProto):
        data = source
    else:
        raise TypeError(f"source must be a path, bytes or an onnx.ModelProto, not {type(source).__name__}")
    try:
        model = data if isinstance(data, ModelProto) else ModelProto.FromString(data)
        return _Reader(model, external, large).graph()
    except UnsupportedError as e:
        raise UnsupportedError(f"{what}: {e}", e.missing) from e
    except ModelError as e:
        raise ModelError(f"{what}: {e}") from e
    except DecodeError as e:
        raise ModelError(f"{what}: not an ONNX file, or a damaged one ({e})") from e
    except (
        EncodeError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        RecursionError,
        MemoryError,
        OverflowError,
    ) as e:
        raise ModelError(f"{what}: malformed ({type(e).__name__}: {e})") from e


class _Reader:
    def __init__(self, model: ModelProto, external: External, large: Mapping[int, np.ndarray]) -> None:
        if not model.HasField("graph"):
            raise ModelError("it holds no graph")
        _check_text(model)
        check_total(sum(_claims(t for g in _graphs(model.graph) for t in g.initializer).values()))
        self.model, self.external, self.large = model, external, large
        self.functions = Functions(model)
        self.missing = Missing()
        self.versions: dict[int, int] = {}  # of a node, by identity: the opset its form follows

    def graph(self) -> Graph:
        graph, captured = self._graph(self.model.graph, opset_versions(self.model), ())
        if captured:
            readers = [f"{node.label} reads {n!r}" for node in graph.nodes for n in node.inputs if n in captured]
            if readers:
                raise ModelError(f"nothing writes what {some(readers, '; ')}")
            raise ModelError(f"graph output {', '.join(map(repr, captured))} is never written")
        metadata = {entry.key: entry.value for entry in self.model.metadata_props}
        return upgraded(graph.replace(metadata=metadata), self.versions, self.missing)

    def _graph(
        self, proto: GraphProto, opsets: Mapping[str, int], inside: tuple[str, ...]
    ) -> tuple[Graph, tuple[str, ...]]:
        """A graph as the file has it, and the names it reads that nothing in it writes."""
        constants = self._initializers(proto)
        inputs = self._inputs(proto, constants)
        nodes = self._nodes(proto, self.functions.expand(proto.node, opsets, inside), constants)
        outputs = tuple(self._value(info, "output") for info in proto.output)
        writers = _writers(nodes, inputs, constants)
        names = [v.name for v in outputs]
        if len(set(names)) < len(names):
            raise ModelError(f"graph output {next(n for n in names if names.count(n) > 1)!r} is listed twice")
        read = dict.fromkeys([name for node in nodes for name in node.inputs if name] + names)
        graph = Graph(
            nodes=toposort.sort(nodes),
            inputs=inputs,
            outputs=outputs,
            constants=constants,
            values=_hints(proto, writers),
            name=proto.name,
            opset=max(spec.since for (domain, _), spec in REGISTRY.items() if not domain),
        )
        return graph, tuple(name for name in read if name not in writers)

    def _initializers(self, proto: GraphProto) -> dict[str, np.ndarray]:
        constants: dict[str, np.ndarray] = {}
        large = self.large if proto is self.model.graph else {}
        for i, tensor in enumerate((*proto.initializer, *proto.sparse_initializer)):
            dense = isinstance(tensor, TensorProto)
            name = tensor.name if dense else tensor.values.name
            if not name:
                raise ModelError("an initializer has no name")
            if name in constants:
                raise ModelError(f"two initializers are named {name!r}")
            what = f"initializer {name!r}"
            constants[name] = (
                to_array(tensor, what, self.external, large.get(i))
                if dense
                else sparse_to_array(tensor, what, self.external)
            )
        return constants

    def _inputs(self, proto: GraphProto, constants: Mapping[str, np.ndarray]) -> tuple[Value, ...]:
        """The feeds: files up to IR 3 list their weights among the inputs, which are constants here."""
        whole = proto is self.model.graph
        found = tuple(self._value(info, "input") for info in proto.input if info.name not in constants)
        for info, value in zip((i for i in proto.input if i.name not in constants), found, strict=True):
            if whole and value.dtype is None and info.type.WhichOneof("value") in (None, "tensor_type"):
                raise ModelError(f"input {info.name!r} has no known element type ({info.type.tensor_type.elem_type})")
        return found

    def _value(self, info: ValueInfoProto, kind: str) -> Value:
        which = info.type.WhichOneof("value")
        if which not in (None, "tensor_type"):
            what = str(which).removesuffix("_type").replace("_", " ")
            self.missing.add(f"{what} {kind}", repr(info.name))
        return _value(info, kind)

    def _nodes(self, proto: GraphProto, calls: Sequence[Call], constants: dict[str, np.ndarray]) -> tuple[Node, ...]:
        """The nodes, whose opsets are noted in ``versions``; Constant nodes are added to ``constants``."""
        found: list[tuple[Node, onnx.defs.OpSchema | None, int]] = []
        for call in calls:
            domain = "" if call.node.domain == "ai.onnx" else call.node.domain
            opset = call.opsets.get(domain)
            if opset is None:
                if not domain:
                    raise ModelError("no version of the standard operators (opset_import) is given")
                opset = 1
            inputs, outputs = _trimmed(call.node.input), _trimmed(call.node.output)
            node = Node(call.node.op_type, inputs, outputs, {}, call.node.name, domain)
            if not node.outputs:
                continue
            if node.op == "Constant" and not domain:
                name = node.outputs[0]
                if name in constants:
                    raise ModelError(f"{node.label}: {name!r} is written twice")
                constants[name] = self._constant(call.node, node.label)
                continue
            schema = schema_of(node.op, opset, domain)
            known = schema or schema_of(node.op, onnx.defs.onnx_opset_version(), domain)  # newer than the file says
            node = node.replace(attrs=self._attributes(call.node, known, node))
            found.append((self._with_bodies(node, call), schema, opset))
        read = {name for node, _, _ in found for name in node.inputs} | {info.name for info in proto.output}
        nodes = []
        for node, schema, opset in found:
            nodes.append(node.replace(outputs=_asked_for(node, schema, read)))
            self.versions[id(nodes[-1])] = opset
        return tuple(nodes)

    def _with_bodies(self, node: Node, call: Call) -> Node:
        """The node with its sub-graphs read and closed: what they read from outside are inputs of theirs, and its."""
        protos = {k: v for k, v in node.attrs.items() if isinstance(v, GraphProto)}
        if not protos:
            return node
        bodies = {k: self._graph(proto, call.opsets, call.inside) for k, proto in protos.items()}
        captured = tuple(dict.fromkeys(name for _, names in bodies.values() for name in names))
        closed = {k: g.replace(inputs=(*g.inputs, *map(Value, captured))) for k, (g, _) in bodies.items()}
        inputs = node.inputs + ("",) * (2 - len(node.inputs) if node.op == "Loop" else 0)
        attrs = {**node.attrs, **closed, "captures": len(captured)}
        return node.replace(inputs=inputs + captured, attrs=attrs)

    def _attributes(self, proto: NodeProto, schema: onnx.defs.OpSchema | None, node: Node) -> dict[str, Any]:
        if lookup(node.op, node.domain) is None and node.op not in opsets.REMOVED:
            return {}  # reported as unsupported, with its sub-graphs unread
        attrs: dict[str, Any] = {}
        for attribute in proto.attribute:
            name = attribute.name
            if name in attrs:
                raise ModelError(f"{node.label}: attribute {name!r} is given twice")
            if name == "consumed_inputs":  # an in-place hint of opsets before 6
                continue
            value = self._attribute(attribute, node.label)
            expected = schema.attributes[name].type if schema and name in schema.attributes else None
            attrs[name] = _checked(value, expected, name, f"{node.label}: attribute {name!r}")
        return attrs

    def _attribute(self, attribute: AttributeProto, label: str) -> Any:
        kind = attribute.type or _guess(attribute)
        what = f"{label}: attribute {attribute.name!r}"
        if kind == AttributeProto.FLOAT:
            return float(attribute.f)
        if kind == AttributeProto.INT:
            return int(attribute.i)
        if kind == AttributeProto.STRING:
            return attribute.s.decode("utf-8")
        if kind == AttributeProto.TENSOR:
            return to_array(attribute.t, what, self.external)
        if kind == AttributeProto.SPARSE_TENSOR:
            return sparse_to_array(attribute.sparse_tensor, what, self.external)
        if kind == AttributeProto.FLOATS:
            return tuple(map(float, attribute.floats))
        if kind == AttributeProto.INTS:
            return tuple(map(int, attribute.ints))
        if kind == AttributeProto.STRINGS:
            return tuple(s.decode("utf-8") for s in attribute.strings)
        if kind == AttributeProto.GRAPH:
            return attribute.g
        raise UnsupportedError(
            f"{what} is of a kind (type, list of tensors or of sub-graphs) that is not supported", (label,)
        )

    def _constant(self, proto: NodeProto, label: str) -> np.ndarray:
        """The tensor of a Constant node, from whichever form of ``value`` it has."""
        if len(proto.attribute) != 1:
            raise ModelError(f"{label}: a constant has exactly one value, not {len(proto.attribute)}")
        attribute = proto.attribute[0]
        value = self._attribute(attribute, label)
        dtypes: dict[str, Any] = {
            **dict.fromkeys(("value", "sparse_value"), None),
            **dict.fromkeys(("value_int", "value_ints"), np.int64),
            **dict.fromkeys(("value_float", "value_floats"), np.float32),
            **dict.fromkeys(("value_string", "value_strings"), object),
        }
        if attribute.name not in dtypes:
            raise ModelError(f"{label}: unknown attribute {attribute.name!r}")
        dtype = dtypes[attribute.name]
        is_tensor = isinstance(value, np.ndarray)
        words = dtype is not object or all(isinstance(v, str) for v in ((value,) if isinstance(value, str) else value))
        if is_tensor != (dtype is None) or isinstance(value, GraphProto) or not words:
            raise ModelError(f"{label}: attribute {attribute.name!r} holds a value of another kind")
        return value if is_tensor else freeze(np.array(value, dtype))


def _writers(nodes: Sequence[Node], inputs: Sequence[Value], constants: Mapping[str, np.ndarray]) -> dict[str, str]:
    """What writes each value; ModelError where two do."""
    writers: dict[str, str] = {}
    sources = [(v.name, "a graph input") for v in inputs] + [(name, "a constant") for name in constants]
    for name, who in sources + [(out, node.label) for node in nodes for out in node.outputs if out]:
        if name in writers:
            raise ModelError(f"value {name!r} is written twice: by {writers[name]} and by {who}")
        writers[name] = who
    return writers


def _hints(proto: GraphProto, written: Mapping[str, str]) -> dict[str, Value]:
    """What the file says of intermediate values; the first entry where a name is listed twice."""
    hints: dict[str, Value] = {}
    for info in proto.value_info:
        if info.name in written and info.type.WhichOneof("value") == "tensor_type":
            hints.setdefault(info.name, _value(info, "value"))
    return hints


def _asked_for(node: Node, schema: onnx.defs.OpSchema | None, read: Collection[str]) -> tuple[str, ...]:
    """The node's outputs without the optional ones that nobody reads."""
    optional = [o.option == onnx.defs.OpSchema.FormalParameterOption.Optional for o in schema.outputs] if schema else []
    return _trimmed(
        out if out in read or i >= len(optional) or not optional[i] else "" for i, out in enumerate(node.outputs)
    )


def _claims(tensors: Iterable[TensorProto]) -> dict[tuple[str, str], int]:
    """The bytes that external tensors claim, by file and offset: before any is read."""
    claims: dict[tuple[str, str], int] = {}
    for tensor in tensors:
        if tensor.data_location == TensorProto.EXTERNAL:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            where = entries.get("location", ""), entries.get("offset", "0")
            dtype = dtype_of(tensor.data_type)
            nbytes = math.prod(tensor.dims) * (dtype.itemsize if dtype is not None else 1)
            claims[where] = max(claims.get(where, 0), nbytes)
    return claims


def _graphs(graph: GraphProto | FunctionProto) -> Iterator[GraphProto | FunctionProto]:
    """A graph and all those inside it."""
    waiting = [graph]
    while waiting:
        found = waiting.pop()
        yield found
        waiting += [a.g for node in found.node for a in node.attribute if a.HasField("g")]


def _check_text(model: ModelProto) -> None:
    """ModelError unless every name is text: protobuf hands out bytes that are no UTF-8 as bytes."""
    for graph in (g for whole in (model.graph, *model.functions) for g in _graphs(whole)):
        texts = [graph.name, *(text for node in graph.node for text in _texts_of(node))]
        if isinstance(graph, GraphProto):
            texts += [t.name for t in graph.initializer] + [t.values.name for t in graph.sparse_initializer]
            for info in (*graph.input, *graph.output, *graph.value_info):
                texts += [info.name, *(d.dim_param for d in info.type.tensor_type.shape.dim)]
        else:
            texts += [graph.domain, *graph.input, *graph.output, *graph.attribute]
        wrong = next((text for text in texts if not isinstance(text, str)), None)
        if wrong is not None:
            raise ModelError(f"a name is not UTF-8: {wrong!r}")


def _texts_of(node: NodeProto) -> Iterable[str]:
    return (node.op_type, node.domain, node.name, *node.input, *node.output, *(a.name for a in node.attribute))


def _value(info: ValueInfoProto, kind: str) -> Value:
    if not info.name:
        raise ModelError(f"a graph {kind} has no name")
    tensor = info.type.tensor_type
    shape: Shape | None = None
    if tensor.HasField("shape"):
        shape = tuple(_dim(d) for d in tensor.shape.dim)
    return Value(info.name, dtype_of(tensor.elem_type), shape)


def _dim(dim: TensorShapeProto.Dimension) -> Dim:
    if dim.HasField("dim_value"):
        size = int(dim.dim_value)
        return size if size > 0 else None
    name = dim.dim_param.strip()
    return None if name in _UNNAMED_DIMS else name


def _guess(attribute: AttributeProto) -> int:
    """The kind of an attribute of an early file, which does not say: that of the one field which is set."""
    fields = {"f": "FLOAT", "i": "INT", "s": "STRING", "t": "TENSOR", "sparse_tensor": "SPARSE_TENSOR", "g": "GRAPH"}
    fields |= {"floats": "FLOATS", "ints": "INTS", "strings": "STRINGS", "tensors": "TENSORS", "graphs": "GRAPHS"}
    found = [fields[descriptor.name] for descriptor, _ in attribute.ListFields() if descriptor.name in fields]
    return AttributeProto.AttributeType.Value(found[0]) if len(found) == 1 else AttributeProto.UNDEFINED


_PYTHON = {
    onnx.defs.OpSchema.AttrType.FLOAT: float,
    onnx.defs.OpSchema.AttrType.INT: int,
    onnx.defs.OpSchema.AttrType.STRING: str,
    onnx.defs.OpSchema.AttrType.TENSOR: np.ndarray,
    onnx.defs.OpSchema.AttrType.FLOATS: tuple,
    onnx.defs.OpSchema.AttrType.INTS: tuple,
    onnx.defs.OpSchema.AttrType.STRINGS: tuple,
    onnx.defs.OpSchema.AttrType.GRAPH: GraphProto,
}
_ELEMENT = {
    onnx.defs.OpSchema.AttrType.FLOATS: float,
    onnx.defs.OpSchema.AttrType.INTS: int,
    onnx.defs.OpSchema.AttrType.STRINGS: str,
}


_FLAGS = frozenset(
    {
        *("align_corners", "antialias", "ceil_mode", "count_include_pad", "exclude_outside", "exclusive", "fmod"),
        *("input_forget", "keepdims", "largest", "linear_before_reset", "noop_with_empty_axes", "onesided"),
        *("select_last_index", "sorted", "storage_order", "training_mode", "transA", "transB", "upper"),
    }
)
"""Attributes that are 0 or 1; runtimes do not agree on what another number means."""


def _checked(value: Any, expected: Any, name: str, what: str) -> Any:
    """The value, which must be of the schema's type; an integer may stand for a float."""
    if name in _FLAGS and expected is onnx.defs.OpSchema.AttrType.INT and value not in (0, 1):
        raise ModelError(f"{what} is {value!r}, it must be 0 or 1")
    python, element = _PYTHON.get(expected), _ELEMENT.get(expected)
    if python is float and isinstance(value, int):
        return float(value)
    if python is not None and not isinstance(value, python):
        value = value if not isinstance(value, GraphProto) else "a sub-graph"
        raise ModelError(f"{what} is {value!r}, it must be {expected.name.lower()}")
    if element is not None and not all(isinstance(v, element) for v in value):
        if element is float and all(isinstance(v, int) for v in value):
            return tuple(map(float, value))
        raise ModelError(f"{what} is {value!r}, it must be {expected.name.lower()}")
    return value


def _trimmed(names: Iterable[str]) -> tuple[str, ...]:
    kept = list(names)
    while kept and not kept[-1]:
        kept.pop()
    return tuple(kept)
