"""The newest form of an operator, rewritten to the one an older opset knows: `opsets.STEPS` the other way round."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from sigconv.graph.ir import Node

Down = Callable[[Node, Mapping[str, np.ndarray]], "Node | None"]
"""(node of ``version``'s form, constants) -> the node in the form before ``version``; None where it cannot say this."""

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
def _reduce(node: Node, constants: Mapping[str, np.ndarray]) -> Node | None:
    """Axes become an attribute, so they must be constant; no axes at all means every axis in both forms."""
    name = node.inputs[1] if len(node.inputs) > 1 else ""
    if name and name not in constants:
        return None
    axes = tuple(int(a) for a in constants[name]) if name else ()
    if not axes and node.attrs.get("noop_with_empty_axes", 0):
        return None
    attrs = _without(node, "noop_with_empty_axes") | ({"axes": axes} if axes else {})
    return node.replace(inputs=node.inputs[:1], attrs=attrs)


@_down(18, "Split")
def _split(node: Node, constants: Mapping[str, np.ndarray]) -> Node | None:
    """Without sizes the old form splits evenly; the new form's smaller last part is refused by shape inference."""
    return node.replace(attrs=_without(node, "num_outputs"))


@_down(20, "DFT")
def _dft(node: Node, constants: Mapping[str, np.ndarray]) -> Node | None:
    name = node.inputs[2] if len(node.inputs) > 2 else ""
    if name and name not in constants:
        return None
    axis = int(constants[name].reshape(())) if name else -2
    inputs = node.inputs[:2]
    return node.replace(inputs=inputs if inputs[-1] else inputs[:1], attrs={**node.attrs, "axis": axis})


@_down(14, "BatchNormalization")
def _batch_norm(node: Node, constants: Mapping[str, np.ndarray]) -> Node | None:
    return None if node.attrs.get("training_mode", 0) else node.replace(attrs=_without(node, "training_mode"))


@_down(20, "GridSample")
def _grid_sample(node: Node, constants: Mapping[str, np.ndarray]) -> Node | None:
    words = {"linear": "bilinear", "cubic": "bicubic"}
    mode = str(node.attrs.get("mode", "linear"))
    return node.replace(attrs={**node.attrs, "mode": words.get(mode, mode)})


@_down(16, "RoiAlign")
def _roi_align(node: Node, constants: Mapping[str, np.ndarray]) -> Node | None:
    if node.attrs.get("coordinate_transformation_mode") != "output_half_pixel":
        return None
    return node.replace(attrs=_without(node, "coordinate_transformation_mode"))


WORDS: dict[tuple[str, str, object], int] = {
    ("Pad", "mode", "wrap"): 19,
    ("Resize", "coordinate_transformation_mode", "half_pixel_symmetric"): 19,
    ("ScatterElements", "reduction", "min"): 18,
    ("ScatterElements", "reduction", "max"): 18,
    ("ScatterND", "reduction", "min"): 18,
    ("ScatterND", "reduction", "max"): 18,
}
"""(op, attribute, value) -> the opset that first knows the value, where the attribute itself is older."""
