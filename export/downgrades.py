"""The newest form of an operator, rewritten to the one an older opset knows: `opsets.STEPS` the other way round."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sigconv.graph.ir import Node, fresh
from sigconv.ops.spec import Fact


@dataclass
class Known:
    """What is known of the values of the graph that is written, and the constants that steps add to it."""

    facts: Mapping[str, Fact]
    taken: set[str]
    added: dict[str, np.ndarray] = field(default_factory=dict)

    def value(self, node: Node, i: int) -> np.ndarray | None:
        """Input ``i`` if it is known ahead."""
        name = node.inputs[i] if i < len(node.inputs) else ""
        return self.facts[name].value if name in self.facts else None

    def size(self, name: str, axis: int) -> int | None:
        """The size of a value along an axis."""
        shape = self.facts.get(name, Fact()).shape
        size = None if shape is None or not -len(shape) <= axis < len(shape) else shape[axis]
        return size if isinstance(size, int) else None

    def constant(self, node: Node, what: str, value: Any) -> str:
        """The name of a new constant of int64."""
        name = fresh(f"{node.name or node.outputs[0]}_{what}", self.taken)
        self.added[name] = np.asarray(value, np.int64)
        return name


Down = Callable[[Node, Known], "Node | None"]
"""(node of ``version``'s form, what is known) -> the node in the form before it; None where that cannot say this."""

DOWN: dict[str, dict[int, Down]] = {}
"""op -> version -> step."""


def _down(version: int, *ops: str) -> Callable[[Down], Down]:
    def wrap(step: Down) -> Down:
        for op in ops:
            DOWN.setdefault(op, {})[version] = step
        return step

    return wrap


def _without(node: Node, *names: str) -> dict[str, object]:
    return {k: v for k, v in node.attrs.items() if k not in names}


@_down(
    18, *(f"Reduce{kind}" for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare"))
)
def _reduce(node: Node, known: Known) -> Node | None:
    """Axes become an attribute, so they must be constant; no axes at all means every axis in both forms."""
    given = known.value(node, 1)
    if given is None and any(node.inputs[1:]):
        return None
    axes = () if given is None else tuple(int(a) for a in given)
    if not axes and node.attrs.get("noop_with_empty_axes", 0):
        return None
    attrs = _without(node, "noop_with_empty_axes") | ({"axes": axes} if axes else {})
    return node.replace(inputs=node.inputs[:1], attrs=attrs)


@_down(18, "Split")
def _split(node: Node, known: Known) -> Node | None:
    """Without sizes the old form splits evenly, or not at all; sizes known to be uneven become an input."""
    plain = node.replace(attrs=_without(node, "num_outputs"))
    parts = len(node.outputs)
    size = known.size(node.inputs[0], int(node.attrs.get("axis", 0)))
    if size is None or size % parts == 0 or any(node.inputs[1:]):
        return plain
    each = -(-size // parts)
    sizes = [min(each, max(size - each * i, 0)) for i in range(parts)]
    return plain.replace(inputs=(node.inputs[0], known.constant(node, "sizes", sizes)))


@_down(18, "Pad")
def _pad(node: Node, known: Known) -> Node | None:
    """The old form lists amounts for every axis."""
    if len(node.inputs) < 4 or not node.inputs[3]:
        return node
    amounts, axes = known.value(node, 1), known.value(node, 3)
    rank = known.facts.get(node.inputs[0], Fact()).rank
    if amounts is None or axes is None or rank is None:
        return None
    every = np.zeros((2, rank), np.int64)
    every[:, axes] = amounts.reshape(2, -1)
    inputs = [node.inputs[0], known.constant(node, "pads", every.reshape(-1)), node.inputs[2]]
    return node.replace(inputs=tuple(inputs if inputs[2] else inputs[:2]))


@_down(20, "DFT")
def _dft(node: Node, known: Known) -> Node | None:
    given = known.value(node, 2)
    if given is None and any(node.inputs[2:]):
        return None
    axis = -2 if given is None else int(given.reshape(-1)[0])
    inputs = node.inputs[:2]
    return node.replace(inputs=inputs if inputs[-1] else inputs[:1], attrs={**node.attrs, "axis": axis})


@_down(14, "BatchNormalization")
def _batch_norm(node: Node, known: Known) -> Node | None:
    return None if node.attrs.get("training_mode", 0) else node.replace(attrs=_without(node, "training_mode"))


@_down(20, "GridSample")
def _grid_sample(node: Node, known: Known) -> Node | None:
    words = {"linear": "bilinear", "cubic": "bicubic"}
    mode = str(node.attrs.get("mode", "linear"))
    return node.replace(attrs={**node.attrs, "mode": words.get(mode, mode)})


@_down(16, "RoiAlign")
def _roi_align(node: Node, known: Known) -> Node | None:
    if node.attrs.get("coordinate_transformation_mode") != "output_half_pixel":
        return None
    return node.replace(attrs=_without(node, "coordinate_transformation_mode"))


NEVER = 1 << 30
"""The opset of what only opsets older than can be written had."""

WORDS: dict[tuple[str, str, object], int] = {
    ("Pad", "mode", "wrap"): 19,
    ("Resize", "coordinate_transformation_mode", "half_pixel_symmetric"): 19,
    ("Resize", "coordinate_transformation_mode", "tf_half_pixel_for_nn"): NEVER,
    ("ScatterElements", "reduction", "min"): 18,
    ("ScatterElements", "reduction", "max"): 18,
    ("ScatterND", "reduction", "min"): 18,
    ("ScatterND", "reduction", "max"): 18,
}
"""(op, attribute, value) -> the opset that first knows the value, where the attribute itself is older."""
