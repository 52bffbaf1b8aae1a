"""A model layer by layer: shapes, parameters, multiply-accumulates, receptive fields, memory; and the sums."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sigconv.graph.infer import infer
from sigconv.graph.ir import Dim, Graph, Node, Shape, Value
from sigconv.inspect.macs import macs, static
from sigconv.inspect.receptive import reaches
from sigconv.ops.spec import Fact
from sigconv.text import short, table


@dataclass(frozen=True)
class Layer:
    """One node. ``shape`` is its first output's, ``nbytes`` that of all outputs; None where sizes are not known.

    ``parameters`` that several nodes read are the first one's. ``field``: elements of the input that an output element
    sees along each axis, ``"all"`` for every one, empty where the operator has no rule or the input is seen as it is.
    """

    label: str
    op: str
    output: str
    shape: Shape | None
    dtype: str
    parameters: int
    macs: int | None
    field: str
    nbytes: int | None


@dataclass(frozen=True)
class Summary:
    """What a graph holds; a line a node. ``macs`` and ``peak_nbytes`` are None where sizes are not known.

    ``peak_nbytes``: most that inputs, outputs and values take at a time if nodes run in order and each value is dropped
    after its last use; weights are not in it.
    """

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    operators: Mapping[str, int]
    parameters: int
    parameter_nbytes: int
    macs: int | None
    peak_nbytes: int | None
    layers: tuple[Layer, ...]

    def totals(self) -> str:
        """Inputs, outputs, operators and sums, without the table of nodes."""
        rows = (("inputs", self.inputs), ("outputs", self.outputs))
        text = [f"{'' if i else name:<10} {_described(v)}" for name, values in rows for i, v in enumerate(values)]
        text.append(f"{'operators':<10} " + ", ".join(f"{op} {n}" for op, n in self.operators.items()))
        text.append(f"{'parameters':<10} {self.parameters:,} ({self.parameter_nbytes:,} bytes)")
        unknown = "depend on the input's size"
        text.append(f"{'MACs':<10} {unknown if self.macs is None else f'{self.macs:,}'}")
        peak = unknown if self.peak_nbytes is None else f"at most {self.peak_nbytes:,} bytes at a time"
        text.append(f"{'values':<10} {peak}")
        return "\n".join(text)

    def __str__(self) -> str:
        columns = {"node": "<", "op": "<", "output": ">", "parameters": ">", "MACs": ">", "sees": ">", "bytes": ">"}
        rows = [
            [short(row.label), row.op, dims(row.shape), _number(row.parameters), _number(row.macs), row.field]
            + [_number(row.nbytes)]
            for row in self.layers
        ]
        return "\n".join((*table(columns, rows), "", self.totals()))

    def to_json(self) -> str:
        """The same as JSON."""
        plain: dict[str, Any] = asdict(self)
        for name in ("inputs", "outputs"):
            plain[name] = [{**v, "dtype": None if v["dtype"] is None else str(v["dtype"])} for v in plain[name]]
        return json.dumps(plain)


def dims(shape: Sequence[Dim] | None) -> str:
    """A shape as ``Nx3x224x224``, unknown sizes as ``?``."""
    if shape is None:
        return "any rank"
    return "x".join("?" if d is None else str(d) for d in shape) or "scalar"


def _number(n: int | None) -> str:
    return "?" if n is None else f"{n:,}" if n else ""


def _described(v: Value) -> str:
    shape = "any rank" if v.shape is None else "[" + ", ".join("?" if d is None else str(d) for d in v.shape) + "]"
    return f"{v.name}: {v.dtype if v.dtype is not None else '?'} {shape}"


def summarize(graph: Graph, shapes: Mapping[str, Sequence[Dim]] | None = None) -> Summary:
    """The summary of a graph, at ``shapes`` where inputs have none of their own."""
    facts = infer(graph, shapes)
    seen, counted = reaches(graph, facts), set[str]()
    layers = []
    for node in graph.nodes:
        weights = {n for n in _trained(node) if n in graph.constants and _is_parameter(graph.constants[n])} - counted
        counted |= weights
        outputs = [o for o in node.outputs if o]
        first = facts.get(outputs[0], Fact())
        sizes = [_nbytes(facts.get(o)) for o in outputs]
        layers.append(
            Layer(
                label=node.name or f"-> {outputs[0]}",
                op=node.op if not node.domain else f"{node.domain}::{node.op}",
                output=outputs[0],
                shape=first.shape,
                dtype="" if first.dtype is None else first.dtype.name,
                parameters=sum(graph.constants[n].size for n in weights),
                macs=macs(node, facts),
                field=str(seen.get(outputs[0], "")),
                nbytes=None if None in sizes else sum(s or 0 for s in sizes),
            )
        )
    counts = [layer.macs for layer in layers]
    return Summary(
        inputs=tuple(Value(v.name, v.dtype, facts[v.name].shape) for v in graph.inputs),
        outputs=tuple(Value(v.name, facts[v.name].dtype, facts[v.name].shape) for v in graph.outputs),
        operators=dict(sorted(Counter(layer.op for layer in layers).items(), key=lambda item: (-item[1], item[0]))),
        parameters=sum(layer.parameters for layer in layers),
        parameter_nbytes=sum(graph.constants[n].nbytes for n in counted),
        macs=None if None in counts else sum(c or 0 for c in counts),
        peak_nbytes=_peak(graph.nodes, graph, facts),
        layers=tuple(layers),
    )


def _trained(node: Node) -> tuple[str, ...]:
    """The inputs that training sets: not a batch normalisation's running statistics."""
    return node.inputs[:3] if node.op == "BatchNormalization" else node.inputs


def _is_parameter(array: np.ndarray) -> bool:
    """Shapes, axes and masks are none; 8-bit weights are."""
    return array.dtype.kind not in "iubO" or (array.dtype.kind in "iu" and array.dtype.itemsize == 1)


def _nbytes(fact: Fact | None) -> int | None:
    sizes = static(fact)
    if fact is None or fact.dtype is None or sizes is None:
        return None
    return int(np.prod(sizes, dtype=object) or 0) * fact.dtype.itemsize if sizes else fact.dtype.itemsize


def _peak(nodes: Sequence[Node], graph: Graph, facts: Mapping[str, Fact]) -> int | None:
    """Bytes of the values alive at the fullest moment."""
    ends = {v.name for v in (*graph.inputs, *graph.outputs)}
    last = {name: i for i, node in enumerate(nodes) for name in (*node.outputs, *node.inputs) if name}
    values = (set(last) | ends) - set(graph.constants)
    sizes = {name: _nbytes(facts.get(name)) for name in values}
    if None in sizes.values():
        return None
    alive = sum(sizes[name] or 0 for name in {v.name for v in graph.inputs} - set(graph.constants))
    peak = alive
    for i, node in enumerate(nodes):
        alive += sum(sizes[o] or 0 for o in node.outputs if o)
        peak = max(peak, alive)
        done = {n for n in (*node.inputs, *node.outputs) if n in values and n not in ends and last[n] == i}
        alive -= sum(sizes[n] or 0 for n in done)
    return peak
