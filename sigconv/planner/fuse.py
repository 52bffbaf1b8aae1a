"""Which nodes run as one: epilogues into convolutions and products, chains of elementwise nodes into one pass.

A `Unit` runs at the place of its last member, so everything it reads is there. The Graph itself is not changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from sigconv.graph.ir import Graph, Node
from sigconv.planner.elementwise import Activation, activation_of, is_elementwise, program, static_shape, value_dtype

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Ops whose kernels take an epilogue: + bias, + residual, leaky(alpha), clamp(lo, hi)."""


@dataclass(slots=True)
class Unit:
    """Nodes that run as one. ``inputs`` are the values read from outside, each once; ``bias`` is an added constant.

    ``parts``: of a chain, the units that it could run as instead.
    """

    op: str
    node: Node
    members: list[Node]
    outputs: tuple[str, ...]
    position: int
    residual: str = ""
    bias: np.ndarray | None = None
    activation: Activation = field(default_factory=Activation)
    parts: tuple[Unit, ...] = ()

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
        if node.op in PRODUCTS and static_shape(graph, node.outputs[0]) is not None:
            units.append(_with_epilogue(graph, node, sole_reader, position, absorbed))
    for cluster in _clusters(graph, readers, outputs, absorbed):
        root = cluster[-1]
        absorbed.update(id(n) for n in cluster)
        units.append(Unit("Elementwise", root, cluster, root.outputs, position[id(root)]))
    for node in graph.nodes:
        if id(node) not in absorbed:
            units.append(Unit(node.op, node, [node], node.outputs, position[id(node)]))
    return sorted(units, key=lambda u: u.position)


def _with_epilogue(
    graph: Graph, node: Node, sole_reader: Callable[[str], Node | None], position: Mapping[int, int], absorbed: set[int]
) -> Unit:
    unit = Unit(node.op, node, [node], node.outputs, position[id(node)])
    absorbed.add(id(node))
    activated = False
    shape, dtype = static_shape(graph, node.outputs[0]), value_dtype(graph, node.outputs[0])
    channel = len(shape or ()) - 1 if node.op in ("Gemm", "MatMul") else 1
    matrix = graph.constants.get(node.inputs[1])
    fusable = dtype in (np.float32, np.float64) and (
        node.op != "MatMul" or (matrix is not None and matrix.ndim > 1)  # a product by a vector has no channel axis
    )
    while fusable and (reader := sole_reader(unit.output)) is not None and not activated:
        act = activation_of(graph, reader)
        if act is not None and reader.inputs[0] == unit.output:
            unit.activation, activated = act, True
        elif reader.op == "Add" and static_shape(graph, reader.outputs[0]) == shape:
            other = reader.inputs[1] if reader.inputs[0] == unit.output else reader.inputs[0]
            if other == unit.output:
                break
            constant = graph.constants.get(other)
            if constant is not None and not unit.residual and per_channel(constant.shape, shape or (), channel):
                flat = np.broadcast_to(constant.reshape(-1), (shape[channel],))  # type: ignore[index]
                unit.bias = flat if unit.bias is None else unit.bias + flat
            elif (
                constant is None
                and not unit.residual
                and static_shape(graph, other) == shape
                and value_dtype(graph, other) == dtype
            ):
                unit.residual = other
            else:
                break
        else:
            break
        unit.members.append(reader)
        unit.outputs, unit.position = reader.outputs, position[id(reader)]
        absorbed.add(id(reader))
    return unit


def per_channel(constant: tuple[int, ...], shape: tuple[int, ...], channel: int) -> bool:
    """Whether a constant varies along the channel axis only, once broadcast to ``shape``."""
    padded = (1,) * (len(shape) - len(constant)) + constant
    return len(padded) == len(shape) and all(d == 1 or (i == channel and d == shape[i]) for i, d in enumerate(padded))


def of_codes(weights: np.ndarray | None) -> bool:
    """Whether weights are whole numbers of 9 bits: those of a quantised convolution, whose sums must stay exact."""
    if weights is None:
        return False
    parts = (weights[:1], weights)  # the first filter tells nearly all others apart
    return all((np.abs(part) < 512).all() and np.array_equal(part, np.rint(part)) for part in parts)


def _clusters(
    graph: Graph, readers: Mapping[str, list[Node]], outputs: set[str], absorbed: set[int]
) -> list[list[Node]]:
    """Elementwise nodes grouped: a node joins its readers' cluster if all are in one and the shape is the same."""
    cluster_of: dict[int, list[Node]] = {}
    clusters: list[list[Node]] = []
    for node in reversed(graph.nodes):
        if id(node) in absorbed or not is_elementwise(graph, node):
            continue
        out = node.outputs[0]
        homes = {id(cluster_of.get(id(r))): cluster_of.get(id(r)) for r in readers.get(out, [])}
        home = next(iter(homes.values())) if len(homes) == 1 and out not in outputs else None
        same = home is not None and static_shape(graph, home[0].outputs[0]) == static_shape(graph, out)
        if home is not None and same and program(graph, [node, *reversed(home)]) is not None:
            home.append(node)
        else:
            home = [node]
            clusters.append(home)
        cluster_of[id(node)] = home
    return [list(reversed(c)) for c in reversed(clusters)]
