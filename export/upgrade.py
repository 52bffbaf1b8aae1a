"""A graph as its file has it becomes one of newest forms, sub-graphs included; what is not supported is gathered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import onnx

from sigconv.errors import UnsupportedError
from sigconv.export import opsets, scan8  # noqa: F401  (scan8 adds its step)
from sigconv.graph.ir import Graph, Node
from sigconv.ops.spec import Fact, lookup

_NAMES_SHOWN = 8


class Missing:
    """What a model needs that sigconv lacks, with the names of where."""

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = {}

    def add(self, what: str, where: str) -> None:
        self._found.setdefault(what, []).append(where)

    def check(self) -> None:
        """One UnsupportedError that lists everything, if there is anything."""
        if self._found:
            items = [f"{what} ({_counted(what, names)}: {some(names)})" for what, names in sorted(self._found.items())]
            raise UnsupportedError(f"not supported: {'; '.join(items)}", items)


def upgraded(graph: Graph, versions: Mapping[int, int], missing: Missing) -> Graph:
    """Every node in its newest form; UnsupportedError that lists all that is lacking, ModelError for a wrong node.

    ``versions``: the opset of each node's form, by identity. ``missing`` holds what was found so far.
    """
    found = _upgraded(graph, versions, missing, ())
    missing.check()
    _check_signatures(found)
    return found


def _upgraded(graph: Graph, versions: Mapping[int, int], missing: Missing, given: Sequence[Fact]) -> Graph:
    """``given`` is what is known of the last inputs."""
    context = opsets.Context.of(graph)
    for value, known in zip(graph.inputs[len(graph.inputs) - len(given) :], given, strict=True):
        context.facts[value.name] = known
    nodes: list[Node] = []
    for node in graph.nodes:
        opset = versions[id(node)]
        reason = _unknown_form(node, opset)
        if reason:
            missing.add(reason, short_name(node))
            continue
        bodies = {k: v for k, v in node.attrs.items() if isinstance(v, Graph)}
        if bodies:
            captured = [context.fact(name) for name in node.inputs[len(node.inputs) - int(node.attrs["captures"]) :]]
            newest = {k: _upgraded(body, versions, missing, captured) for k, body in bodies.items()}
            node = node.replace(attrs={**node.attrs, **newest})
        try:
            nodes += opsets.upgrade(node, opset, context)
        except UnsupportedError as e:
            missing.add(str(e).partition(": ")[2] or node.op, short_name(node))
    for node in nodes:
        if lookup(node.op, node.domain) is None:
            missing.add(qualified(node), short_name(node))
    used = {name for node in nodes for name in node.inputs} | {v.name for v in graph.outputs}
    written = {out for node in nodes for out in node.outputs}
    return graph.replace(
        nodes=tuple(nodes),
        constants={k: v for k, v in context.constants.items() if k in used},
        values={k: v for k, v in graph.values.items() if k in written},
    )


def _unknown_form(node: Node, opset: int) -> str:
    """Why a form of a known operator cannot be read: newer than ours, or older than opset 6 and changed since."""
    spec = lookup(node.op, node.domain)
    schema = schema_of(node.op, opset, node.domain)
    if spec is None or schema is None:
        return ""
    if schema.since_version > spec.since:
        return f"{qualified(node)} of opset {schema.since_version} (known up to {spec.since})"
    changes = {
        s.since_version
        for s in (schema_of(node.op, v, node.domain) for v in range(opset + 1, 7))
        if s and s.since_version > opset
    }
    old = sorted(changes - set(opsets.STEPS.get(node.op, {})))
    return f"{qualified(node)} of opset {schema.since_version} (known from {old[-1]})" if old else ""


def _check_signatures(graph: Graph) -> None:
    """ModelError unless every node's inputs and attributes are those of its operator."""
    for node in graph.nodes:
        spec = lookup(node.op, node.domain)
        assert spec is not None
        spec.attributes(node.attrs, node.label)
        spec.check_inputs(node.inputs, node.label)
        for value in node.attrs.values():
            if isinstance(value, Graph):
                _check_signatures(value)


@cache
def schema_of(op: str, opset: int, domain: str) -> onnx.defs.OpSchema | None:
    """The schema in force at ``opset`` (the newest known, where that is older), or None."""
    try:
        return onnx.defs.get_schema(op, min(opset, onnx.defs.onnx_opset_version()) if not domain else opset, domain)
    except onnx.defs.SchemaError:
        return None


def qualified(node: Node) -> str:
    return f"{node.domain}::{node.op}" if node.domain else node.op


def short_name(node: Node) -> str:
    return node.name or f"-> {node.outputs[0]}"


def _counted(what: str, names: Sequence[str]) -> str:
    unit = "tensor" if what.endswith((" input", " output")) else "node"
    return f"{len(names)} {unit}{'s' * (len(names) > 1)}"


def some(items: Sequence[str], separator: str = ", ") -> str:
    """The first few, for a message."""
    return separator.join([*items[:_NAMES_SHOWN], *(["…"] if len(items) > _NAMES_SHOWN else [])])
