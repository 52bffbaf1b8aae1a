"""ONNX nodes as programs of the elementwise kernel: what each op becomes, and which registers hold what."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sigconv.graph.ir import Graph, Node
from sigconv.kernels.cpu.elementwise import MAX_OPERANDS, MAX_REGISTERS, OPCODES, Instruction
from sigconv.ops import lookup


@dataclass(frozen=True, slots=True)
class Activation:
    """x < 0 ? alpha*x : x, then clamped to [lo, hi]."""

    alpha: float = 1.0
    lo: float = -math.inf
    hi: float = math.inf


def scalar(graph: Graph, name: str, default: float) -> float | None:
    """The value of a constant with one element, ``default`` if absent, None if it is not known."""
    if not name:
        return default
    array = graph.constants.get(name)
    return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None


def activation_of(graph: Graph, node: Node) -> Activation | None:
    """The node as an `Activation`, if it is one."""
    if node.op == "Relu":
        return Activation(lo=0.0)
    if node.op == "LeakyRelu":
        return Activation(alpha=_attrs("alpha")(graph, node)[0])
    if node.op == "Clip":
        bounds = [*node.inputs[1:], "", ""][:2]
        lo, hi = scalar(graph, bounds[0], -math.inf), scalar(graph, bounds[1], math.inf)
        if lo is not None and hi is not None and lo <= hi:
            return Activation(lo=lo, hi=hi)
    return None


@dataclass(frozen=True, slots=True)
class _Rule:
    """How an ONNX node becomes an opcode: operands are inputs[:arity] (variadic ops fold pairwise)."""

    opcode: str
    arity: int
    immediates: Callable[[Graph, Node], tuple[float, ...] | None] = lambda graph, node: ()
    variadic: bool = False


def _attrs(*names: str) -> Callable[[Graph, Node], tuple[float, ...]]:
    """The node's attributes as numbers, by the operator's own defaults."""

    def read(graph: Graph, node: Node) -> tuple[float, ...]:
        spec = lookup(node.op, node.domain)
        assert spec is not None
        return tuple(float({**spec.defaults, **node.attrs}[name]) for name in names)

    return read


def _clip(graph: Graph, node: Node) -> tuple[float, ...] | None:
    act = activation_of(graph, node)
    return None if act is None else (act.lo, act.hi)


ELEMENTWISE: Mapping[str, _Rule] = {
    **{op: _Rule(op.lower(), 2) for op in ("Add", "Sub", "Mul", "Div", "Pow", "PRelu")},
    **{op: _Rule(code, 2, variadic=True) for op, code in (("Sum", "add"), ("Min", "min"), ("Max", "max"))},
    **{
        op: _Rule(code, 1)
        for op, code in (
            ("Neg", "neg"), ("Abs", "abs"), ("Sqrt", "sqrt"), ("Exp", "exp"), ("Log", "log"),
            ("Reciprocal", "reciprocal"),
            ("Relu", "relu"), ("Sigmoid", "sigmoid"), ("Tanh", "tanh"), ("HardSwish", "hard_swish"), ("Erf", "erf"),
            ("Softplus", "softplus"), ("Softsign", "softsign"), ("Mish", "mish"), ("Sign", "sign"), ("Floor", "floor"),
            ("Ceil", "ceil"), ("Round", "round"),
        )
    },
    "Clip": _Rule("clip", 1, _clip),
    "LeakyRelu": _Rule("leaky_relu", 1, _attrs("alpha")),
    "HardSigmoid": _Rule("hard_sigmoid", 1, _attrs("alpha", "beta")),
    "Elu": _Rule("elu", 1, _attrs("alpha")),
    "Celu": _Rule("celu", 1, _attrs("alpha")),
    "Selu": _Rule("selu", 1, _attrs("alpha", "gamma")),
    "ThresholdedRelu": _Rule("thresholded_relu", 1, _attrs("alpha")),
    "Gelu": _Rule("gelu", 1),
    "Saturate": _Rule("saturate", 2, _attrs("low", "high")),
}  # fmt: skip


def opcode(node: Node) -> str:
    """The elementwise kernel's name for a node."""
    if node.op == "Gelu" and node.attrs.get("approximate", "none") == "tanh":
        return "gelu_tanh"
    return ELEMENTWISE[node.op].opcode


def is_elementwise(graph: Graph, node: Node) -> bool:
    """Whether the native elementwise kernel can run the node: one float type throughout, sizes known."""
    rule = ELEMENTWISE.get(node.op)
    if rule is None or node.domain not in ("", "sigconv") or opcode(node) not in OPCODES or len(node.outputs) != 1:
        return False
    operands = node.inputs if rule.variadic else node.inputs[: rule.arity]
    kinds = {value_dtype(graph, name) for name in (*operands, node.outputs[0])}
    known = all(static_shape(graph, name) is not None for name in (*operands, node.outputs[0]))
    return (
        known
        and len(operands) <= MAX_OPERANDS
        and kinds in ({np.dtype(np.float32)}, {np.dtype(np.float64)})
        and rule.immediates(graph, node) is not None
    )


def value_dtype(graph: Graph, name: str) -> np.dtype[Any] | None:
    """What the graph knows of a value's dtype."""
    if name in graph.constants:
        return graph.constants[name].dtype
    return graph.values[name].dtype if name in graph.values else None


def static_shape(graph: Graph, name: str) -> tuple[int, ...] | None:
    """The value's shape if every size is known."""
    if name in graph.constants:
        return graph.constants[name].shape
    shape = graph.values[name].shape if name in graph.values else None
    return shape if shape is not None and all(isinstance(d, int) for d in shape) else None  # type: ignore[return-value]


def program(graph: Graph, nodes: Sequence[Node]) -> tuple[list[str], list[Instruction]] | None:
    """(operands, instructions) of nodes in topological order, the last of which is the result; None if they do not fit.

    Operands are the values read from outside, in registers 0 and up; an intermediate's register is free again after
    its last reader.
    """
    made = {n.outputs[0] for n in nodes}
    operands = list(dict.fromkeys(i for n in nodes for i in _operands(n) if i not in made))
    if len(operands) > MAX_OPERANDS:
        return None
    last_reader = {i: k for k, n in enumerate(nodes) for i in _operands(n)}
    register = {name: k for k, name in enumerate(operands)}
    free = list(range(MAX_REGISTERS - 1, MAX_OPERANDS - 1, -1))
    instructions: list[Instruction] = []
    for k, node in enumerate(nodes):
        numbers = ELEMENTWISE[node.op].immediates(graph, node)
        names = _operands(node)
        if not free or numbers is None:
            return None
        target = free.pop()
        sources = [register[i] for i in names]
        arity = OPCODES[opcode(node)].arity
        if len(sources) <= arity:
            instructions.append((opcode(node) if len(sources) == arity else "copy", target, sources, numbers))
        else:  # variadic: fold from the left
            instructions.append((opcode(node), target, sources[:2], numbers))
            instructions += [(opcode(node), target, (target, s), numbers) for s in sources[2:]]
        free += [register[i] for i in set(names) if i in made and last_reader[i] == k]
        register[node.outputs[0]] = target
    return operands, instructions


def _operands(node: Node) -> tuple[str, ...]:
    rule = ELEMENTWISE[node.op]
    return node.inputs if rule.variadic else node.inputs[: rule.arity]
