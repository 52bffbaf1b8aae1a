"""Which nodes run as one: epilogues into convolutions and products, chains of elementwise nodes into one pass.

A `Unit` runs at the place of its last member, so everything it reads is there. The Graph itself is not changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sigconv.graph.ir import Graph, Node
from sigconv.kernels.cpu.elementwise import MAX_OPERANDS, OPCODES

MAX_INSTRUCTIONS = 24

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Ops whose kernels take an epilogue: + bias, + residual, leaky(alpha), clamp(lo, hi)."""


@dataclass(frozen=True, slots=True)
class Activation:
    """x < 0 ? alpha*x : x, then clamped to [lo, hi]."""

    alpha: float = 1.0
    lo: float = -math.inf
    hi: float = math.inf


@dataclass(slots=True)
class Unit:
    """Nodes that run as one. ``inputs`` are the values read from outside, each once; ``bias`` is an added constant."""

    op: str
    node: Node
    members: list[Node]
    outputs: tuple[str, ...]
    position: int
    residual: str = ""
    bias: np.ndarray | None = None
    activation: Activation = field(default_factory=Activation)

    @property
    def output(self) -> str:
        return self.outputs[0]

    @property
    def inputs(self) -> tuple[str, ...]:
        made = {o for m in self.members for o in m.outputs}
        return tuple(dict.fromkeys(i for m in self.members for i in m.inputs if i and i not in made))

    @property
    def label(self) -> str:
        return self.node.name or self.output


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
        return Activation(alpha=float(node.attrs.get("alpha", 0.01)))
    if node.op == "Clip":
        bounds = [*node.inputs[1:], "", ""][:2]
        lo, hi = scalar(graph, bounds[0], -math.inf), scalar(graph, bounds[1], math.inf)
        if lo is not None and hi is not None and lo <= hi:
            return Activation(lo=lo, hi=hi)
    return None


def immediates(graph: Graph, node: Node) -> tuple[float, ...] | None:
    """Attributes and constant operands that the elementwise kernel takes as numbers; None if the node cannot run there."""
    rule = ELEMENTWISE[node.op]
    return rule.immediates(graph, node)


@dataclass(frozen=True, slots=True)
class _Rule:
    """How an ONNX node becomes an opcode: operands are inputs[:arity] (variadic ops fold pairwise)."""

    opcode: str
    arity: int
    immediates: Callable[[Graph, Node], tuple[float, ...] | None] = lambda graph, node: ()
    variadic: bool = False


def _attrs(**defaults: float) -> Callable[[Graph, Node], tuple[float, ...]]:
    return lambda graph, node: tuple(float(node.attrs.get(k, v)) for k, v in defaults.items())


def _clip(graph: Graph, node: Node) -> tuple[float, ...] | None:
    act = activation_of(graph, node)
    return None if act is None else (act.lo, act.hi)


def _plain_attribute(key: str, *allowed: Any) -> Callable[[Graph, Node], tuple[float, ...] | None]:
    return lambda graph, node: () if node.attrs.get(key, allowed[0]) in allowed else None


ELEMENTWISE: Mapping[str, _Rule] = {
    **{op: _Rule(code, 2) for op, code in (("Add", "add"), ("Sub", "sub"), ("Mul", "mul"), ("Div", "div"), ("Pow", "pow"), ("PRelu", "prelu"))},
    **{op: _Rule(code, 2, variadic=True) for op, code in (("Sum", "add"), ("Min", "min"), ("Max", "max"))},
    **{
        op: _Rule(code, 1)
        for op, code in (
            ("Neg", "neg"), ("Abs", "abs"), ("Sqrt", "sqrt"), ("Exp", "exp"), ("Log", "log"), ("Reciprocal", "reciprocal"),
            ("Relu", "relu"), ("Sigmoid", "sigmoid"), ("Tanh", "tanh"), ("HardSwish", "hard_swish"), ("Erf", "erf"),
            ("Softplus", "softplus"), ("Softsign", "softsign"), ("Mish", "mish"), ("Sign", "sign"), ("Floor", "floor"),
            ("Ceil", "ceil"), ("Round", "round"),
        )
    },
    "Clip": _Rule("clip", 1, _clip),
    "LeakyRelu": _Rule("leaky_relu", 1, _attrs(alpha=0.01)),
    "HardSigmoid": _Rule("hard_sigmoid", 1, _attrs(alpha=0.2, beta=0.5)),
    "Elu": _Rule("elu", 1, _attrs(alpha=1.0)),
    "Celu": _Rule("celu", 1, _attrs(alpha=1.0)),
    "Selu": _Rule("selu", 1, _attrs(alpha=1.67326319217681884765625, gamma=1.05070102214813232421875)),
    "ThresholdedRelu": _Rule("thresholded_relu", 1, _attrs(alpha=1.0)),
    "Gelu": _Rule("gelu", 1),
}  # fmt: skip


def opcode(node: Node) -> str:
    """The elementwise kernel's name for a node."""
    if node.op == "Gelu" and node.attrs.get("approximate", "none") == "tanh":
        return "gelu_tanh"
    return ELEMENTWISE[node.op].opcode


def is_elementwise(graph: Graph, node: Node) -> bool:
    """Whether the native elementwise kernel can run the node: one float type throughout, sizes known."""
    rule = ELEMENTWISE.get(node.op)
    if rule is None or opcode(node) not in OPCODES or len(node.outputs) != 1:
        return False
    operands = node.inputs if rule.variadic else node.inputs[: rule.arity]
    kinds = {_dtype(graph, name) for name in (*operands, node.outputs[0])}
    known = all(_shape(graph, name) is not None for name in (*operands, node.outputs[0]))
    return known and len(operands) <= MAX_OPERANDS and kinds in ({np.dtype(np.float32)}, {np.dtype(np.float64)}) and rule.immediates(graph, node) is not None


def _dtype(graph: Graph, name: str) -> np.dtype[Any] | None:
    if name in graph.constants:
        return graph.constants[name].dtype
    return graph.values[name].dtype if name in graph.values else None


def _shape(graph: Graph, name: str) -> tuple[int, ...] | None:
    if name in graph.constants:
        return graph.constants[name].shape
    shape = graph.values[name].shape if name in graph.values else None
    return shape if shape is not None and all(isinstance(d, int) for d in shape) else None  # type: ignore[return-value]


def fuse(graph: Graph) -> list[Unit]:
    """The units of a graph with known sizes, in an order in which they can run."""
    readers = graph.consumers()
    outputs = {v.name for v in graph.outputs}
    position = {id(node): i for i, node in enumerate(graph.nodes)}
    absorbed: set[int] = set()
    units: list[Unit] = []

    def sole_reader(name: str) -> Node | None:
        nodes = readers.get(name, [])
        return nodes[0] if len(nodes) == 1 and name not in outputs and id(nodes[0]) not in absorbed else None

    for node in graph.nodes:
        if node.op in PRODUCTS and _shape(graph, node.outputs[0]) is not None:
            units.append(_with_epilogue(graph, node, sole_reader, position, absorbed))
    for cluster in _clusters(graph, readers, outputs, absorbed):
        root = cluster[-1]
        absorbed.update(id(n) for n in cluster)
        units.append(Unit("Elementwise", root, cluster, root.outputs, position[id(root)]))
    for node in graph.nodes:
        if id(node) not in absorbed:
            units.append(Unit(node.op, node, [node], node.outputs, position[id(node)]))
    return sorted(units, key=lambda u: u.position)


def _with_epilogue(graph: Graph, node: Node, sole_reader: Callable[[str], Node | None], position: Mapping[int, int], absorbed: set[int]) -> Unit:
    unit = Unit(node.op, node, [node], node.outputs, position[id(node)])
    absorbed.add(id(node))
    activated = False
    shape, dtype = _shape(graph, node.outputs[0]), _dtype(graph, node.outputs[0])
    channel = len(shape or ()) - 1 if node.op in ("Gemm", "MatMul") else 1
    fusable = dtype in (np.float32, np.float64) and not (node.op == "MatMul" and node.inputs[1] not in graph.constants)
    while fusable and (reader := sole_reader(unit.output)) is not None and not activated:
        act = activation_of(graph, reader)
        if act is not None and reader.inputs[0] == unit.output:
            unit.activation, activated = act, True
        elif reader.op == "Add" and _shape(graph, reader.outputs[0]) == shape:
            other = reader.inputs[1] if reader.inputs[0] == unit.output else reader.inputs[0]
            if other == unit.output:
                break
            constant = graph.constants.get(other)
            if constant is not None and not unit.residual and _per_channel(constant.shape, shape or (), channel):
                flat = np.broadcast_to(constant.reshape(-1), (shape[channel],))  # type: ignore[index]
                unit.bias = flat if unit.bias is None else unit.bias + flat
            elif constant is None and not unit.residual and _shape(graph, other) == shape and _dtype(graph, other) == dtype:
                unit.residual = other
            else:
                break
        else:
            break
        unit.members.append(reader)
        unit.outputs, unit.position = reader.outputs, position[id(reader)]
        absorbed.add(id(reader))
    return unit


def _per_channel(constant: tuple[int, ...], shape: tuple[int, ...], channel: int) -> bool:
    """Whether a constant varies along the channel axis only, once broadcast to ``shape``."""
    padded = (1,) * (len(shape) - len(constant)) + constant
    return len(padded) == len(shape) and all(d == 1 or (i == channel and d == shape[i]) for i, d in enumerate(padded))


def _clusters(graph: Graph, readers: Mapping[str, list[Node]], outputs: set[str], absorbed: set[int]) -> list[list[Node]]:
    """Elementwise nodes grouped: a node joins its readers' cluster if all of them are in it and the shape is the same."""
    cluster_of: dict[int, list[Node]] = {}
    clusters: list[list[Node]] = []
    for node in reversed(graph.nodes):
        if id(node) in absorbed or not is_elementwise(graph, node):
            continue
        out = node.outputs[0]
        homes = {id(cluster_of.get(id(r))): cluster_of.get(id(r)) for r in readers.get(out, [])}
        home = next(iter(homes.values())) if len(homes) == 1 and out not in outputs else None
        if home is not None and _shape(graph, home[0].outputs[0]) == _shape(graph, out) and _fits([*home, node]):
            home.append(node)
        else:
            home = [node]
            clusters.append(home)
        cluster_of[id(node)] = home
    return [list(reversed(c)) for c in reversed(clusters)]


def _fits(nodes: list[Node]) -> bool:
    made = {n.outputs[0] for n in nodes}
    operands = {i for n in nodes for i in n.inputs if i and i not in made}
    return len(operands) <= MAX_OPERANDS and sum(max(1, len(n.inputs) - 1) for n in nodes) <= MAX_INSTRUCTIONS
