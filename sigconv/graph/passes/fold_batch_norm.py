"""BatchNormalization after a convolution or Gemm with constant weights, folded into them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sigconv.graph.ir import Graph, Node, fresh


def run(graph: Graph) -> Graph:
    """The graph with foldable BatchNormalization nodes gone; the same graph where there are none.

    A node folds where its input is the only use of a Conv's, ConvTranspose's or Gemm's result, that result is no graph
    output, and weights, bias and statistics are constants of one floating dtype. With ``f = scale / sqrt(var + eps)``
    the weights become ``w * f`` per output channel and the bias ``(b - mean) * f + bias``, in double precision.
    """
    producers, consumers = graph.producers(), graph.consumers()
    outputs = {v.name for v in graph.outputs}
    constants = dict(graph.constants)
    taken = graph.names()
    replaced: dict[int, Node | None] = {}
    for norm in graph.nodes:
        if (
            norm.op != "BatchNormalization"
            or norm.domain
            or len(norm.outputs) != 1
            or norm.attrs.get("training_mode", 0)
        ):
            continue
        linear = producers.get(norm.inputs[0])
        if linear is None or id(linear) in replaced or linear.domain or linear.op not in _VIEW:
            continue
        if len(consumers[linear.outputs[0]]) != 1 or linear.outputs[0] in outputs:
            continue
        folded = _fold(linear, norm, constants)
        if folded is None:
            continue
        weight, bias = folded
        names = []
        for what, array in (("weight", weight), ("bias", bias)):
            names.append(fresh(f"{linear.name or linear.outputs[0]}_{what}_folded", taken))
            array.flags.writeable = False
            constants[names[-1]] = array
        replaced[id(linear)] = linear.replace(inputs=(linear.inputs[0], *names), outputs=norm.outputs)
        replaced[id(norm)] = None
    if not replaced:
        return graph
    nodes = tuple(new for node in graph.nodes if (new := replaced.get(id(node), node)) is not None)
    return graph.replace(nodes=nodes, constants=constants)


Shape = tuple[int, ...]


def _conv_view(node: Node, shape: Shape, channels: int) -> tuple[Shape, Shape]:
    return shape, (channels, *[1] * (len(shape) - 1))


def _conv_transpose_view(node: Node, shape: Shape, channels: int) -> tuple[Shape, Shape]:
    groups = int(node.attrs.get("group", 1))
    return (groups, shape[0] // groups, *shape[1:]), (groups, 1, channels // groups, *[1] * (len(shape) - 2))


def _gemm_view(node: Node, shape: Shape, channels: int) -> tuple[Shape, Shape]:
    return shape, (channels, 1) if node.attrs.get("transB", 0) else (1, channels)


_VIEW: dict[str, Callable[[Node, Shape, int], tuple[Shape, Shape]]] = {
    "Conv": _conv_view,
    "ConvTranspose": _conv_transpose_view,
    "Gemm": _gemm_view,
}
"""For each operator, how to view its weight, and a factor per output channel, so that they multiply."""


def _fold(linear: Node, norm: Node, constants: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray] | None:
    """The new weight and bias, or None where they cannot be made."""
    if linear.attrs.get("beta", 1.0) != 1.0:
        return None
    has_bias = len(linear.inputs) > 2 and bool(linear.inputs[2])
    names = (
        [linear.inputs[1], *norm.inputs[1:5], *linear.inputs[2:3]]
        if has_bias
        else [linear.inputs[1], *norm.inputs[1:5]]
    )
    arrays = [constants.get(name) for name in names]
    if any(x is None or x.dtype.kind != "f" for x in arrays):
        return None
    weight, *rest = (x for x in arrays if x is not None)
    scale, shift, mean, variance, *bias = (x.astype(np.float64).reshape(-1) for x in rest)
    if bias and bias[0].size not in (1, scale.size):
        return None
    with np.errstate(all="ignore"):
        factor = scale / np.sqrt(variance + float(norm.attrs.get("epsilon", 1e-5)))
        view, along = _VIEW[linear.op](linear, weight.shape, factor.size)
        new_weight = np.empty(weight.shape, weight.dtype)
        np.multiply(weight.reshape(view), factor.reshape(along), new_weight.reshape(view), casting="same_kind")
        new_bias = (((bias[0] if bias else 0.0) - mean) * factor + shift).astype(weight.dtype)
    # What is not finite, or overflows the weights' dtype, would be so at other places than unfolded.
    return (new_weight, new_bias) if np.isfinite(new_weight).all() and np.isfinite(new_bias).all() else None
