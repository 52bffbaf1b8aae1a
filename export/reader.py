"""ONNX in: any file, of any opset, becomes a Graph in canonical form, or one clear error.

Nothing in a file is trusted: sizes are checked before memory is taken, names before they are followed, and whatever
protobuf or onnx raise on broken bytes becomes a ModelError that names the file.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, TensorShapeProto, ValueInfoProto

import sigconv.ops  # noqa: F401  (fills the registry)
from sigconv.errors import ModelError, UnsupportedError
from sigconv.export import opsets
from sigconv.export.external import NOWHERE, External, check_total
from sigconv.export.functions import Call, expand
from sigconv.export.tensors import dtype_of, freeze, sparse_to_array, to_array
from sigconv.graph.ir import Dim, Graph, Node, Shape, Value
from sigconv.graph.passes import toposort
from sigconv.ops.spec import REGISTRY, lookup

Source: TypeAlias = "str | os.PathLike[str] | bytes | ModelProto"

_UNNAMED_DIMS = {"", "?", "None", "-1", "0"}
"""What exporters write for a size they do not know; 0 and negative numbers mean the same."""

_NAMES_SHOWN = 8


def read(source: Source) -> Graph:
    """Read a model from a path, its bytes, or a ModelProto (which is not modified).

    External data is read from the model's own folder only, so not for bytes or a ModelProto. Raises ModelError for a
    malformed model, its subclass UnsupportedError, listing everything at once, for operators and forms that sigconv
    lacks, and OSError where the file cannot be opened.
    """
    external, what = NOWHERE, "the model"
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        data: bytes | ModelProto = path.read_bytes()
        external, what = External(path.parent), str(path)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
    elif isinstance(source, ModelProto):
        data = source
    else:
        raise TypeError(f"source must be a path, bytes or an onnx.ModelProto, not {type(source).__name__}")
    try:
        model = data if isinstance(data, ModelProto) else ModelProto.FromString(data)
        return _Reader(model, external).graph()
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
    def __init__(self, model: ModelProto, external: External) -> None:
        if not model.HasField("graph"):
            raise ModelError("it holds no graph")
        _check_text(model)
        self.model, self.proto, self.external = model, model.graph, external
        self.missing: dict[str, list[str]] = {}  # what is not supported -> where it is needed

    def graph(self) -> Graph:
        proto = self.proto
        constants = self._initializers()
        inputs = self._inputs(constants)
        calls = expand(self.model)
        nodes, versions = self._nodes(calls, constants)
        outputs = tuple(self._value(info, "output") for info in proto.output)
        self._check_names(nodes, inputs, outputs, constants)
        order = toposort.sort(nodes)
        plain = Graph(
            nodes=order,
            inputs=inputs,
            outputs=outputs,
            constants=constants,
            name=proto.name,
            opset=max(spec.since for (domain, _), spec in REGISTRY.items() if not domain),
            metadata={entry.key: entry.value for entry in self.model.metadata_props},
        )
        newest = _upgraded(plain, versions, self.missing)
        return newest.replace(values=self._hints(newest))

    def _initializers(self) -> dict[str, np.ndarray]:
        constants: dict[str, np.ndarray] = {}
        check_total(sum(_claims(self.proto.initializer).values()))
        dense = ((t.name, t, to_array) for t in self.proto.initializer)
        sparse = ((t.values.name, t, sparse_to_array) for t in self.proto.sparse_initializer)
        for name, tensor, convert in (*dense, *sparse):
            if not name:
                raise ModelError("an initializer has no name")
            if name in constants:
                raise ModelError(f"two initializers are named {name!r}")
            constants[name] = convert(tensor, f"initializer {name!r}", self.external)  # type: ignore[operator]
        return constants

    def _inputs(self, constants: Mapping[str, np.ndarray]) -> tuple[Value, ...]:
        """The feeds: files up to IR 3 list their weights among the inputs, which are constants here."""
        return tuple(self._value(info, "input") for info in self.proto.input if info.name not in constants)

    def _value(self, info: ValueInfoProto, kind: str) -> Value:
        which = info.type.WhichOneof("value")
        if which not in (None, "tensor_type"):
            what = str(which).removesuffix("_type").replace("_", " ")
            self.missing.setdefault(f"{what} {kind}", []).append(repr(info.name))
            return _value(info, kind)
        value = _value(info, kind)
        if kind == "input" and value.dtype is None:
            raise ModelError(f"input {info.name!r} has no known element type ({info.type.tensor_type.elem_type})")
        return value

    def _nodes(
        self, calls: Iterable[Call], constants: dict[str, np.ndarray]
    ) -> tuple[tuple[Node, ...], dict[int, int]]:
        """The nodes, each with the opset its form follows (by identity); Constant nodes are added to ``constants``."""
        nodes: list[Node] = []
        versions: dict[int, int] = {}
        read = {name for call in calls for name in call.node.input} | {info.name for info in self.proto.output}
        for call in calls:
            proto = call.node
            domain = "" if proto.domain == "ai.onnx" else proto.domain
            opset = call.opsets.get(domain)
            if opset is None:
                if not domain:
                    raise ModelError("no version of the standard operators (opset_import) is given")
                opset = 1
            node = Node(proto.op_type, _trimmed(proto.input), _trimmed(proto.output), {}, proto.name, domain)
            if not node.outputs:
                continue
            if node.op == "Constant" and not domain:
                name = node.outputs[0]
                if name in constants:
                    raise ModelError(f"{node.label}: {name!r} is written twice")
                constants[name] = self._constant(proto, node.label)
                continue
            schema = _schema(node.op, opset, domain)
            optional = (
                [o.option == onnx.defs.OpSchema.FormalParameterOption.Optional for o in schema.outputs]
                if schema
                else []
            )
            outputs = [
                out if out in read or i >= len(optional) or not optional[i] else ""
                for i, out in enumerate(node.outputs)
            ]
            node = node.replace(outputs=_trimmed(outputs), attrs=self._attributes(proto, schema, node))
            versions[id(node)] = opset
            nodes.append(node)
        return tuple(nodes), versions

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
        raise UnsupportedError(
            f"{what} is of a kind (sub-graph, type or list of tensors) that is not supported", (label,)
        )

    def _constant(self, proto: NodeProto, label: str) -> np.ndarray:
        """The tensor of a Constant node, from whichever form of ``value`` it has."""
        if len(proto.attribute) != 1:
            raise ModelError(f"{label}: a constant has exactly one value, not {len(proto.attribute)}")
        attribute = proto.attribute[0]
        value = self._attribute(attribute, label)
        dtypes: dict[str, Any] = {
            "value": None,
            "sparse_value": None,
            "value_int": np.int64,
            "value_ints": np.int64,
            "value_float": np.float32,
        }
        dtypes |= {"value_floats": np.float32, "value_string": object, "value_strings": object}
        if attribute.name not in dtypes:
            raise ModelError(f"{label}: unknown attribute {attribute.name!r}")
        return value if isinstance(value, np.ndarray) else freeze(np.array(value, dtypes[attribute.name]))

    def _check_names(
        self,
        nodes: Sequence[Node],
        inputs: Sequence[Value],
        outputs: Sequence[Value],
        constants: Mapping[str, np.ndarray],
    ) -> None:
        """Every value is written once, and everything read is written."""
        writers: dict[str, str] = {}
        sources = [(v.name, "a graph input") for v in inputs] + [(name, "a constant") for name in constants]
        for name, who in sources + [(out, node.label) for node in nodes for out in node.outputs if out]:
            if name in writers:
                raise ModelError(f"value {name!r} is written twice: by {writers[name]} and by {who}")
            writers[name] = who
        dangling = [
            f"{node.label} reads {name!r}" for node in nodes for name in node.inputs if name and name not in writers
        ]
        if dangling:
            raise ModelError(f"nothing writes what {_some(dangling, '; ')}")
        names = [v.name for v in outputs]
        lost = [name for name in names if name not in writers]
        if lost:
            raise ModelError(f"graph output {', '.join(map(repr, lost))} is never written")
        if len(set(names)) < len(names):
            raise ModelError(f"graph output {next(n for n in names if names.count(n) > 1)!r} is listed twice")

    def _hints(self, graph: Graph) -> dict[str, Value]:
        """What the file says of intermediate values that still exist; the first entry where a name is listed twice."""
        written = {out for node in graph.nodes for out in node.outputs}
        hints: dict[str, Value] = {}
        for info in self.proto.value_info:
            if info.name in written and info.type.WhichOneof("value") == "tensor_type":
                hints.setdefault(info.name, _value(info, "value"))
        return hints


def _upgraded(graph: Graph, versions: Mapping[int, int], missing: dict[str, list[str]]) -> Graph:
    """Every node in its newest form, and every node supported: else one UnsupportedError that lists them all.

    ``missing`` holds what was found so far: what is lacking, and the names of where.
    """
    context = opsets.Context.of(graph)
    nodes: list[Node] = []
    for node in graph.nodes:
        reason = _unknown_form(node, versions[id(node)])
        if reason:
            missing.setdefault(reason, []).append(_short_name(node))
            continue
        try:
            nodes += opsets.upgrade(node, versions[id(node)], context)
        except UnsupportedError as e:
            missing.setdefault(str(e).partition(": ")[2] or node.op, []).append(_short_name(node))
    for node in nodes:
        if lookup(node.op, node.domain) is None:
            missing.setdefault(_qualified(node), []).append(_short_name(node))
    if missing:
        items = [f"{what} ({_counted(what, names)}: {_some(names)})" for what, names in sorted(missing.items())]
        raise UnsupportedError(f"not supported: {'; '.join(items)}", items)
    for node in nodes:
        _check_signature(node)
    used = {name for node in nodes for name in node.inputs} | {v.name for v in graph.outputs}
    return graph.replace(nodes=tuple(nodes), constants={k: v for k, v in context.constants.items() if k in used})


def _unknown_form(node: Node, opset: int) -> str:
    """Why a form of a known operator cannot be read: newer than ours, or older than opset 6 and changed since."""
    spec = lookup(node.op, node.domain)
    schema = _schema(node.op, opset, node.domain)
    if spec is None or schema is None:
        return ""
    if schema.since_version > spec.since:
        return f"{_qualified(node)} of opset {schema.since_version} (known up to {spec.since})"
    changes = {
        s.since_version
        for s in (_schema(node.op, v, node.domain) for v in range(opset + 1, 7))
        if s and s.since_version > opset
    }
    old = sorted(changes - set(opsets.STEPS.get(node.op, {})))
    return f"{_qualified(node)} of opset {schema.since_version} (known from {old[-1]})" if old else ""


def _check_signature(node: Node) -> None:
    """ModelError unless the node's inputs and attributes are those of its operator."""
    spec = lookup(node.op, node.domain)
    assert spec is not None
    spec.attributes(node.attrs, node.label)
    given = len(node.inputs)
    if given < spec.min_inputs or (spec.max_inputs is not None and given > spec.max_inputs):
        most = "or more" if spec.max_inputs is None else f"to {spec.max_inputs}"
        raise ModelError(f"{node.label} has {given} inputs, {node.op} takes {spec.min_inputs} {most}")
    absent = [i for i in range(spec.min_inputs) if not node.inputs[i]]
    if absent:
        raise ModelError(f"{node.label}: required input {absent[0]} is absent")


@cache
def _schema(op: str, opset: int, domain: str) -> onnx.defs.OpSchema | None:
    """The schema in force at ``opset`` (the newest known, where that is older), or None."""
    try:
        return onnx.defs.get_schema(op, min(opset, onnx.defs.onnx_opset_version()) if not domain else opset, domain)
    except onnx.defs.SchemaError:
        return None


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


def _check_text(model: ModelProto) -> None:
    """ModelError unless every name is text: protobuf hands out bytes that are no UTF-8 as bytes."""
    graph = model.graph
    for owner, nodes in [(graph, graph.node), *((f, f.node) for f in model.functions)]:
        texts = [owner.name, *(text for node in nodes for text in _texts_of(node))]
        if owner is graph:
            texts += [t.name for t in graph.initializer] + [t.values.name for t in graph.sparse_initializer]
            for info in (*graph.input, *graph.output, *graph.value_info):
                texts += [info.name, *(d.dim_param for d in info.type.tensor_type.shape.dim)]
        else:
            texts += [owner.domain, *owner.input, *owner.output, *owner.attribute]
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


def _qualified(node: Node) -> str:
    return f"{node.domain}::{node.op}" if node.domain else node.op


def _short_name(node: Node) -> str:
    return node.name or f"-> {node.outputs[0]}"


def _counted(what: str, names: Sequence[str]) -> str:
    unit = "tensor" if what.endswith((" input", " output")) else "node"
    return f"{len(names)} {unit}{'s' * (len(names) > 1)}"


def _some(items: Sequence[str], separator: str = ", ") -> str:
    return separator.join([*items[:_NAMES_SHOWN], *(["…"] if len(items) > _NAMES_SHOWN else [])])
