"""Multiply-accumulates of the operators that have any to speak of: convolutions, products, recurrences."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sigconv.graph.ir import Node
from sigconv.ops.spec import Fact

Sizes = tuple[int, ...]
Attrs = Mapping[str, Any]
Count = Callable[[Sequence[Sizes], Sizes, Attrs], int]


def _window(weight: int) -> Count:
    """Every output element takes one channel group's window of weights, which are input number ``weight``."""
    return lambda x, y, attrs: math.prod(y) * math.prod(x[weight][1:])


def _product(x: Sequence[Sizes], y: Sizes, attrs: Attrs) -> int:
    return math.prod(y) * (x[0][0] if attrs.get("transA") else x[0][-1])


def _transposed(x: Sequence[Sizes], y: Sizes, attrs: Attrs) -> int:
    return math.prod(x[0]) * math.prod(x[1][1:])


def _recurrent(x: Sequence[Sizes], y: Sizes, attrs: Attrs) -> int:
    """Every step of every sequence multiplies with W and R; inputs are X, W, R."""
    return math.prod(x[0][:2]) * (math.prod(x[1]) + math.prod(x[2]))


MACS: Mapping[str, Count] = {
    "Conv": _window(1), "ConvInteger": _window(1), "QLinearConv": _window(3), "ConvTranspose": _transposed,
    "Gemm": _product, "QGemm": _product, "MatMul": _product, "MatMulInteger": _product,
    "QLinearMatMul": _product, "LSTM": _recurrent, "GRU": _recurrent, "RNN": _recurrent,
}  # fmt: skip


def static(fact: Fact | None) -> Sizes | None:
    """The sizes of a value; None where one is not known."""
    shape = None if fact is None else fact.shape
    return None if shape is None or not all(isinstance(d, int) for d in shape) else shape  # type: ignore[return-value]


def macs(node: Node, facts: Mapping[str, Fact]) -> int | None:
    """Multiply-accumulates of a node, 0 for an operator without; None where they depend on sizes not known."""
    if node.op not in MACS:
        return 0
    inputs = [static(facts.get(name)) for name in node.inputs]
    output = static(facts.get(next((o for o in node.outputs if o), "")))
    needed = 4 if node.op.startswith("Q") else 3 if MACS[node.op] is _recurrent else 2
    if output is None or any(x is None for x in inputs[:needed]):
        return None
    return MACS[node.op]([x or () for x in inputs], output, node.attrs)
