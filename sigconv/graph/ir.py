"""The Graph: plain ONNX in memory, in its newest form. Passes map Graph to Graph; nothing here knows a machine.

Canonical form. `sigconv.export.reader` rewrites every node to the newest ONNX version of its op (``Clip`` bounds,
``Pad`` amounts, ``Squeeze`` axes … are inputs, never attributes), so ops, passes and planner know one form only.
Weights are entries of ``constants``, never ``Constant`` nodes or graph inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

Dim = int | str | None
"""A size, a symbolic name, or unknown."""

Shape = tuple[Dim, ...]


@dataclass(frozen=True, slots=True)
class Value:
    """A named tensor: ``dtype`` and ``shape`` are None where unknown (an unknown rank, not rank 0)."""

    name: str
    dtype: np.dtype[Any] | None = None
    shape: Shape | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """One operation. ``inputs`` and ``outputs`` are value names, ``""`` where an optional one is absent."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    domain: str = ""

    @property
    def label(self) -> str:
        """How messages name this node."""
        return f"{self.domain + '::' if self.domain else ''}{self.op} {self.name or '-> ' + ', '.join(self.outputs)!r}"

    def replace(self, **changes: Any) -> Node:
        return replace(self, **changes)


def _brief(value: Any) -> str:
    """An attribute in a line of text: of an array or a sub-graph what it is, not what it holds."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{list(value.shape)}"
    return f"<{len(value.nodes)} nodes>" if isinstance(value, Graph) else repr(value)


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes in topological order between named inputs and outputs.

    ``print`` shows a node a line. ``constants`` are read-only arrays by name; ``values`` holds what is known of
    intermediate tensors (optional hints); ``opset`` is the ai.onnx version the node forms follow; ``metadata`` is
    carried through untouched.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)
    values: Mapping[str, Value] = field(default_factory=dict)
    name: str = ""
    opset: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)

    def replace(self, **changes: Any) -> Graph:
        return replace(self, **changes)

    def __str__(self) -> str:
        """Inputs, nodes and outputs, a line each; of constants the shape."""

        def named(name: str) -> str:
            array = self.constants.get(name)
            return name if array is None else f"{name}: {array.dtype}{list(array.shape)}"

        def end(value: Value) -> str:
            shape = "" if value.shape is None else "[" + ", ".join(map(str, value.shape)) + "]"
            return f"{value.name}: {value.dtype or 'unknown'}{shape}"

        lines = [f"graph {self.name!r}, opset {self.opset}", *(f"  input {end(v)}" for v in self.inputs)]
        for node in self.nodes:
            attrs = ", ".join(f"{k}={_brief(v)}" for k, v in node.attrs.items())
            lines.append(
                f"  {', '.join(node.outputs)} = {node.domain + '::' if node.domain else ''}{node.op}"
                f"({', '.join(map(named, node.inputs))}{'; ' if attrs else ''}{attrs})"
            )
        return "\n".join([*lines, *(f"  output {end(v)}" for v in self.outputs)])

    def producers(self) -> dict[str, Node]:
        """The node that writes each value."""
        return {out: node for node in self.nodes for out in node.outputs if out}

    def names(self) -> set[str]:
        """Every name that a value has."""
        return {*self.constants, *self.values, *self.producers(), *(v.name for v in (*self.inputs, *self.outputs))}

    def consumers(self) -> dict[str, list[Node]]:
        """The nodes that read each value (a node once per use)."""
        readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in node.inputs:
                if name:
                    readers.setdefault(name, []).append(node)
        return readers

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)


def fresh(name: str, taken: set[str]) -> str:
    """``name``, numbered if it is taken already; it is from now on."""
    unique, i = name, 1
    while unique in taken:
        unique, i = f"{name}_{i}", i + 1
    taken.add(unique)
    return unique
