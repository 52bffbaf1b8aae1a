"""Local functions of a model, expanded where they are called: a graph of plain operators is what remains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto

from sigconv.errors import ModelError

LARGEST_EXPANSION = 100_000
"""Nodes up to which calls are expanded: a small file can call functions that call functions."""

LARGEST_EXPANSION_NBYTES = 1 << 28
"""Bytes up to which they are: a function's constants are written out at every call."""


@dataclass(frozen=True, slots=True)
class Call:
    """A node, the opset versions by domain that hold where it was written, and the functions it was written in."""

    node: NodeProto
    opsets: Mapping[str, int]
    inside: tuple[str, ...] = ()


class Functions:
    """The local functions of a model."""

    def __init__(self, model: ModelProto) -> None:
        self._functions = {(_domain(f.domain), f.name, f.overload): f for f in model.functions}
        self._sizes = {key: f.ByteSize() for key, f in self._functions.items()}
        self._made = self._nbytes = self._serial = 0

    def expand(self, nodes: Sequence[NodeProto], opsets: Mapping[str, int], inside: tuple[str, ...] = ()) -> list[Call]:
        """The nodes of a graph, every call of a local function replaced by the function's nodes.

        Values inside a function get the call's name in front. ModelError for recursive functions, a wrong number of
        inputs or outputs, and more than `LARGEST_EXPANSION` nodes or `LARGEST_EXPANSION_NBYTES` bytes.
        """
        calls: list[Call] = []
        stack = [Call(node, opsets, inside) for node in reversed(nodes)]  # depth-first
        while stack:
            call = stack.pop()
            node = call.node
            key = (_domain(node.domain), node.op_type, node.overload)
            function = self._functions.get(key)
            if function is None:
                calls.append(call)
                continue
            if function.name in call.inside:
                raise ModelError(f"function {' -> '.join([*call.inside, function.name])} calls itself")
            self._serial += 1
            self._nbytes += self._sizes[key]
            if self._nbytes > LARGEST_EXPANSION_NBYTES:
                raise ModelError(f"its functions expand to more than {LARGEST_EXPANSION_NBYTES} bytes")
            body = _body(node, function, self._serial)
            self._made += len(body)
            if self._made > LARGEST_EXPANSION:
                raise ModelError(f"its functions expand to more than {LARGEST_EXPANSION} nodes")
            versions = {**call.opsets, **{_domain(o.domain): o.version for o in function.opset_import}}
            within = (*call.inside, function.name)
            stack.extend(Call(new, versions, within) for new in reversed(body))
        return calls


def opset_versions(model: ModelProto) -> dict[str, int]:
    """The opset version of each domain the model imports; files before IR 3 follow opset 1."""
    versions: dict[str, int] = {}
    for entry in model.opset_import:
        domain = _domain(entry.domain)
        if versions.setdefault(domain, entry.version) != entry.version:
            raise ModelError(f"domain {domain!r} is imported twice, in versions {versions[domain]} and {entry.version}")
    return versions if versions or model.ir_version >= 3 else {"": 1}


def _body(call: NodeProto, function: FunctionProto, serial: int) -> list[NodeProto]:
    """The function's nodes with the call's values and attributes put in."""
    label = f"call {call.name or call.op_type!r} of function {function.name}"
    if len(call.input) > len(function.input) or len(call.output) > len(function.output):
        raise ModelError(
            f"{label}: {len(call.input)} inputs and {len(call.output)} outputs, "
            f"it has {len(function.input)} and {len(function.output)}"
        )
    names = dict(zip_longest(function.input, call.input, fillvalue=""))
    prefix = f"{call.name or call.op_type}_{serial}/"
    bound = {a.name: a for a in (*function.attribute_proto, *call.attribute)}
    # An output that the function merely passes through from an input needs a node of its own.
    results = dict(zip(function.output, call.output, strict=False))
    through = [
        NodeProto(op_type="Identity", input=[names[o]], output=[results[o]], name=prefix + o)
        for o in results
        if o in names and results[o]
    ]
    names = {**{o: r for o, r in results.items() if r}, **names, "": ""}
    return [_bound_node(node, names, prefix, bound) for node in function.node] + through


def _bound_node(
    node: NodeProto, names: Mapping[str, str], prefix: str, bound: Mapping[str, AttributeProto]
) -> NodeProto:
    new = NodeProto(
        op_type=node.op_type, domain=node.domain, overload=node.overload, name=prefix + (node.name or node.op_type)
    )
    new.input.extend(names.get(n, prefix + n) for n in node.input)
    new.output.extend(names.get(n, prefix + n) for n in node.output)
    for attribute in node.attribute:
        if not attribute.ref_attr_name:
            kept = new.attribute.add()
            kept.CopyFrom(attribute)
            if attribute.HasField("g"):
                _bind_graph(kept.g, names, prefix, bound)
        elif attribute.ref_attr_name in bound:
            given = new.attribute.add()
            given.CopyFrom(bound[attribute.ref_attr_name])
            given.name = attribute.name
    return new


def _bind_graph(graph: GraphProto, names: Mapping[str, str], prefix: str, bound: Mapping[str, AttributeProto]) -> None:
    """Put the call's values and attributes into a sub-graph, whose own names get the prefix as all others do."""
    nodes = [_bound_node(node, names, prefix, bound) for node in graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    for named in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        named.name = names.get(named.name, prefix + named.name)
    for sparse in graph.sparse_initializer:
        sparse.values.name = names.get(sparse.values.name, prefix + sparse.values.name)


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain
