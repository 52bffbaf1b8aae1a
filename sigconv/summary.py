"""A model in one page: inputs, outputs, operators, parameters, multiply-accumulates."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from sigconv.graph.infer import infer
from sigconv.graph.ir import Graph, Node, Value
from sigconv.ops.spec import Fact


@dataclass(frozen=True)
class Summary:
    """What a graph holds. ``macs`` is None where sizes are not known."""

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    operators: dict[str, int]
    parameters: int
    parameter_nbytes: int
    macs: int | None

    def __str__(self) -> str:
        def line(v: Value) -> str:
            shape = (
                "any rank" if v.shape is None else "[" + ", ".join("?" if d is None else str(d) for d in v.shape) + "]"
            )
            return f"{v.name}: {v.dtype if v.dtype is not None else '?'} {shape}"

        rows = (("inputs", self.inputs), ("outputs", self.outputs))
        text = [f"{'' if i else name:<10} {line(v)}" for name, values in rows for i, v in enumerate(values)]
        text.append(f"{'operators':<10} " + ", ".join(f"{op} {n}" for op, n in self.operators.items()))
        text.append(f"{'parameters':<10} {self.parameters:,} ({self.parameter_nbytes:,} bytes)")
        text.append(f"{'MACs':<10} " + ("depend on the input's size" if self.macs is None else f"{self.macs:,}"))
        return "\n".join(text)


def summarize(graph: Graph, shapes: dict[str, tuple[int, ...]] | None = None) -> Summary:
    """The summary of a graph, at ``shapes`` where inputs have none of their own."""
    facts = infer(graph, shapes)
    counts = [_macs(node, facts) for node in graph.nodes if node.op in _PRODUCTS]
    weights = [c for c in graph.constants.values() if c.dtype.kind not in "iub" or c.dtype.itemsize == 1]
    operators = Counter(n.op if not n.domain else f"{n.domain}::{n.op}" for n in graph.nodes)
    return Summary(
        inputs=tuple(Value(v.name, v.dtype, facts[v.name].shape) for v in graph.inputs),
        outputs=tuple(Value(v.name, facts[v.name].dtype, facts[v.name].shape) for v in graph.outputs),
        operators=dict(sorted(operators.items(), key=lambda item: (-item[1], item[0]))),
        parameters=sum(c.size for c in weights),
        parameter_nbytes=sum(c.nbytes for c in weights),
        macs=None if any(c is None for c in counts) else sum(c or 0 for c in counts),
    )


_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def _sizes(fact: Fact | None) -> tuple[int, ...] | None:
    return tuple(fact.shape) if fact is not None and fact.static and fact.shape is not None else None  # type: ignore[arg-type]


def _macs(node: Node, facts: dict[str, Fact]) -> int | None:
    """Multiply-accumulates of a convolution or product."""
    x, w, y = (_sizes(facts.get(n)) for n in (node.inputs[0], node.inputs[1], node.outputs[0]))
    if x is None or w is None or y is None:
        return None
    if node.op == "Conv":
        return math.prod(y) * math.prod(w[1:])
    if node.op == "ConvTranspose":
        return math.prod(x) * math.prod(w[1:])
    depth = x[0] if node.op == "Gemm" and node.attrs.get("transA", 0) else x[-1]
    return math.prod(y) * int(np.int64(depth))
