"""Local functions of a model, expanded where they are called: a graph of plain operators is what remains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest

from onnx import AttributeProto, FunctionProto, ModelProto, NodeProto

from sigconv.errors import ModelError

LARGEST_EXPANSION = 100_000
"""Nodes up to which calls are expanded: a small file can call functions that call functions."""

LARGEST_EXPANSION_NBYTES = 1 << 28
"""Bytes up to which they are: a function's constants are written out at every call."""


@dataclass(frozen=True, slots=True)
class Call:
    """A node, and the opset versions by domain that hold where it was written."""

    node: NodeProto
    opsets: Mapping[str, int]


def expand(model: ModelProto) -> list[Call]:
    """The nodes of the main graph, every call of a local function replaced by the function's nodes.

    Values inside a function get the call's name in front. ModelError for recursive functions, a wrong number of
    inputs or outputs, and more than `LARGEST_EXPANSION` nodes or `LARGEST_EXPANSION_NBYTES` bytes.
    """
    functions = {(_domain(f.domain), f.name, f.overload): f for f in model.functions}
    calls: list[Call] = []
    # Depth-first with an explicit stack: (node, its opsets, the functions it is inside of).
    outer = opset_versions(model)
    stack: list[tuple[NodeProto, Mapping[str, int], tuple[str, ...]]] = [
        (node, outer, ()) for node in reversed(model.graph.node)
    ]
    sizes = {key: f.ByteSize() for key, f in functions.items()}
    serial = nbytes = 0
    while stack:
        node, opsets, inside = stack.pop()
        key = (_domain(node.domain), node.op_type, node.overload)
        function = functions.get(key)
        if function is None:
            calls.append(Call(node, opsets))
            continue
        if function.name in inside:
            raise ModelError(f"function {' -> '.join([*inside, function.name])} calls itself")
        serial, nbytes = serial + 1, nbytes + sizes[key]
        if nbytes > LARGEST_EXPANSION_NBYTES:
            raise ModelError(f"its functions expand to more than {LARGEST_EXPANSION_NBYTES} bytes")
        body = _body(node, function, serial)
        if len(calls) + len(stack) + len(body) > LARGEST_EXPANSION:
            raise ModelError(f"its functions expand to more than {LARGEST_EXPANSION} nodes")
        inner = {**opsets, **{_domain(o.domain): o.version for o in function.opset_import}}
        stack.extend((new, inner, (*inside, function.name)) for new in reversed(body))
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
            new.attribute.append(attribute)
        elif attribute.ref_attr_name in bound:
            given = new.attribute.add()
            given.CopyFrom(bound[attribute.ref_attr_name])
            given.name = attribute.name
    return new


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain
