"""Writing quantised operators in float32: which value holds the codes of which, and the nodes between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from sigconv.graph.infer import LARGEST_FOLD, node_facts
from sigconv.graph.ir import Graph, Node, Value, fresh
from sigconv.ops.spec import Fact

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
BYTES: dict[np.dtype[Any], int] = {np.dtype(np.uint8): 2, np.dtype(np.int8): 3}
"""The types of codes, with their ONNX element type."""
EXACT: dict[np.dtype[Any], float] = {F32: 2.0**24, F64: 2.0**31}
"""Whole numbers up to which a type adds without rounding; beyond 2^31 int32, whose part float64 plays, wraps around."""
MICROSOFT = "com.microsoft"

STARTS = frozenset(
    {
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul"),
        *("ConvInteger", "MatMulInteger", "QGemm", "QLinearAdd", "QLinearMul", "QLinearSigmoid", "QLinearLeakyRelu"),
        *("QLinearSoftmax", "QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearConcat"),
    }
)
"""Operators that make a graph a quantised one; the others with rules follow where codes are."""


View = Callable[[np.ndarray], np.ndarray]
"""Shapes a constant scale or zero point so that it broadcasts."""


class Rewriter:
    """Writes the new nodes; ``coded`` names the float32 value that holds the codes of an 8-bit one."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.constants = dict(graph.constants)
        self.facts = {name: Fact(v.dtype, v.shape) for name, v in graph.values.items()}
        self.facts.update((name, Fact.of(array)) for name, array in graph.constants.items())
        self.coded: dict[str, str] = {}
        self.nodes: list[Node] = []
        self._written = {v.name for v in graph.inputs} | set(graph.constants)
        self._numbers: dict[tuple[bytes, tuple[int, ...], str], str] = {}
        self._taken = graph.names()
        self._label = ""

    def run(self) -> Graph:
        for node in self.graph.nodes:
            self._label = node.name or node.outputs[0]
            way = RULES.get((node.domain, node.op))
            if way is None or not way(self, node):
                for name in node.inputs:
                    self.bytes_of(name)
                self.nodes.append(node)
                self._written.update(node.outputs)
        for v in self.graph.outputs:
            self.bytes_of(v.name)
        values = dict(self.graph.values)
        values.update((name, Value(name, f.dtype, f.shape)) for name, f in self.facts.items() if name not in values)
        return self.graph.replace(nodes=tuple(self.nodes), constants=self.constants, values=values)

    # --- what is known ---------------------------------------------------------------------------------------------
    def dtype(self, name: str) -> np.dtype[Any] | None:
        return self.facts[name].dtype if name in self.facts else None

    def shape(self, name: str) -> tuple[int, ...] | None:
        fact = self.facts.get(name, Fact())
        return fact.shape if fact.static else None  # type: ignore[return-value]

    def known(self, *names: str) -> bool:
        """Whether all that are given are constants."""
        return all(name in self.constants for name in names if name)

    def array(self, name: str) -> np.ndarray:
        """A constant, 0 where it is left out."""
        return self.constants[name] if name else np.zeros((), np.uint8)

    # --- writing ---------------------------------------------------------------------------------------------------
    def add(self, op: str, *inputs: str, out: str = "", domain: str = "", **attrs: Any) -> str:
        """A node; the name of its result, ``out`` or a new one."""
        out = out or fresh(f"{self._label}.{op.lower()}", self._taken)
        node = Node(op, inputs, (out,), attrs, self._label, domain)
        found = node_facts(node, self.facts, LARGEST_FOLD)[out]
        self.facts[out] = found
        if found.value is not None:
            self.constants[out] = found.value
            self._written.add(out)
            return out
        self.nodes.append(node)
        self._written.add(out)
        return out

    def number(self, value: Any, dtype: np.dtype[Any] = F32) -> str:
        """A constant, each once."""
        array = np.ascontiguousarray(np.asarray(value, dtype)).reshape(np.shape(value))
        key = array.tobytes(), array.shape, dtype.name
        if key not in self._numbers:
            array.flags.writeable = False
            name = self._numbers[key] = fresh(f"{self._label}.constant", self._taken)
            self.constants[name], self.facts[name] = array, Fact.of(array)
        return self._numbers[key]

    def codes_of(self, name: str) -> str:
        """The float32 value with the codes of an 8-bit one."""
        if name not in self.coded:
            constant = self.constants.get(name)
            known = constant is not None
            self.coded[name] = self.number(constant) if known else self.add("Cast", name, to=1)
        return self.coded[name]

    def bytes_of(self, name: str) -> None:
        """See that the value itself is there, and not only its codes."""
        if name in self.coded and name not in self._written:
            dtype = self.dtype(name)
            assert dtype is not None
            self.nodes.append(Node("Cast", (self.coded[name],), (name,), {"to": BYTES[dtype]}, self._label))
            self._written.add(name)

    def shifted(self, name: str, zero: str, view: View = lambda z: z) -> str:
        """codes - zero point; ``view`` shapes a constant zero point."""
        codes = self.codes_of(name)
        if self.known(zero):
            value = view(self.array(zero))
            return self.add("Sub", codes, self.number(value)) if value.any() else codes
        return self.add("Sub", codes, self.codes_of(zero))

    def real(self, name: str, scale: str, zero: str, view: View = lambda z: z, out: str = "") -> str:
        """(codes - zero point) * scale"""
        factor = self.number(view(self.array(scale))) if self.known(scale) else scale
        return self.add("Mul", self.shifted(name, zero, view), factor, out=out)

    def saturate(self, x: str, zero: str, node: Node, view: View = lambda z: z, i: int = 0) -> None:
        """Output ``i`` of ``node`` as the codes round(x) + zero point, limited to its type."""
        out = node.outputs[i]
        dtype = self.dtype(out)
        assert dtype is not None
        offset = self.number(view(self.array(zero))) if self.known(zero) else self.codes_of(zero)
        limits = np.iinfo(dtype)
        self.coded[out] = self.add("Saturate", x, offset, domain="sigconv", low=int(limits.min), high=int(limits.max))

    def wide(self, name: str, dtype: np.dtype[Any]) -> str:
        """The value in float64, if that is asked for."""
        return self.add("Cast", name, to=11) if dtype == F64 else name

    def narrow(self, name: str) -> str:
        """The value in float32."""
        return self.add("Cast", name, to=1) if self.dtype(name) == F64 else name


Rule = Callable[[Rewriter, Node], bool]
"""Writes what a node becomes; False, and nothing written, where it cannot."""

RULES: dict[tuple[str, str], Rule] = {}


def rule(*ops: str, domain: str = "") -> Callable[[Rule], Rule]:
    def wrap(way: Rule) -> Rule:
        RULES.update(((domain, op), way) for op in ops)
        return way

    return wrap
