"""Rewrites for the machine only, never exported: ops in terms of plainer ones, and what a convolution can take in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from sigconv.graph.ir import Graph, Node, Value, fresh
from sigconv.planner.elementwise import static_shape
from sigconv.planner.fuse import of_codes, per_channel


def rewrite(graph: Graph) -> Graph:
    """The same function of a graph of known sizes, in fewer and plainer steps."""
    return _fold_factors(_fold_pads(_spell_out(graph)))


def _spell_out(graph: Graph) -> Graph:
    """BatchNormalization with constant statistics, Clip with computed bounds, squares and LRN in plainer operators."""
    nodes: list[Node] = []
    constants = dict(graph.constants)
    values = dict(graph.values)
    taken = graph.names()
    for node in graph.nodes:
        simpler = None
        if node.op == "BatchNormalization" and not node.domain:
            simpler = _mul_add(node, constants, values, taken)
        elif node.op == "Clip" and not node.domain:
            simpler = _max_min(node, constants, values, taken)
        elif node.op == "Pow" and not node.domain:
            simpler = _square(node, constants, values)
        elif node.op == "LRN" and not node.domain:
            simpler = _channel_windows(node, constants, values, taken)
        nodes += simpler or [node]
    return graph.replace(nodes=tuple(nodes), constants=constants, values=values)


def _mul_add(
    node: Node, constants: dict[str, np.ndarray], values: dict[str, Value], taken: set[str]
) -> list[Node] | None:
    """A normalisation with known statistics as x * scale + shift."""
    x = values.get(node.inputs[0])
    if len([o for o in node.outputs if o]) != 1 or node.attrs.get("training_mode", 0):
        return None
    if x is None or x.shape is None or len(x.shape) < 2 or not all(i in constants for i in node.inputs[1:5]):
        return None
    gamma, beta, mean, variance = (constants[i].astype(np.float64) for i in node.inputs[1:5])
    scale = gamma / np.sqrt(variance + node.attrs.get("epsilon", 1e-5))
    out, dtype = node.outputs[0], x.dtype
    shape = (-1, *[1] * (len(x.shape) - 2))
    factor, shift, scaled = (fresh(f"{out}.{what}", taken) for what in ("scale", "shift", "scaled"))
    constants[factor] = scale.reshape(shape).astype(dtype)
    constants[shift] = (beta - mean * scale).reshape(shape).astype(dtype)
    values[scaled] = Value(scaled, dtype, x.shape)
    return [
        Node("Mul", (node.inputs[0], factor), (scaled,), name=node.name),
        Node("Add", (scaled, shift), (out,), name=node.name),
    ]


def _max_min(
    node: Node, constants: dict[str, np.ndarray], values: dict[str, Value], taken: set[str]
) -> list[Node] | None:
    """A Clip whose bounds are computed in the run as min(max(x, lo), hi)."""
    x, lo, hi = (*node.inputs, "", "")[:3]
    if all(bound in constants for bound in (lo, hi) if bound):
        return None
    bounds = [(op, bound) for op, bound in (("Max", lo), ("Min", hi)) if bound]
    nodes: list[Node] = []
    for op, bound in bounds:
        last = len(nodes) == len(bounds) - 1
        out = node.outputs[0] if last else fresh(f"{node.outputs[0]}.raised", taken)
        if not last:
            own = values[node.outputs[0]]
            values[out] = Value(out, own.dtype, own.shape)
        nodes.append(Node(op, (x, bound), (out,), name=node.name))
        x = out
    return nodes


def _square(node: Node, constants: dict[str, np.ndarray], values: dict[str, Value]) -> list[Node] | None:
    """A Pow whose exponent is the number 2 as a product."""
    x, exponent = node.inputs
    own = values.get(x)
    if exponent not in constants or own is None or own.shape is None or own.dtype is None or own.dtype.kind != "f":
        return None
    two = constants[exponent]
    if two.size != 1 or two.ndim > len(own.shape) or two.reshape(-1)[0] != 2:
        return None
    return [node.replace(op="Mul", inputs=(x, x))]


def _channel_windows(
    node: Node, constants: dict[str, np.ndarray], values: dict[str, Value], taken: set[str]
) -> list[Node] | None:
    """x / (bias + alpha * mean of the squares in a window of channels) ** beta: the mean is a pool over channels."""
    own = values.get(node.inputs[0])
    if own is None or own.shape is None or own.dtype is None or own.dtype.kind != "f" or len(own.shape) < 3:
        return None
    if not all(isinstance(d, int) for d in own.shape) or 0 in own.shape:
        return None
    n, c, *spatial = own.shape
    size = int(node.attrs["size"])
    plane = (n, 1, c, math.prod(spatial))  # type: ignore[arg-type]
    pads = ((size - 1) // 2, 0, size // 2, 0)
    numbers: dict[str, tuple[Any, Any]] = {
        "planes": (plane, np.int64),
        "shape": (own.shape, np.int64),
        "alpha": (node.attrs.get("alpha", 1e-4), own.dtype),
        "bias": (node.attrs.get("bias", 1.0), own.dtype),
        "beta": (node.attrs.get("beta", 0.75), own.dtype),
    }
    k = {what: fresh(f"{node.outputs[0]}.{what}", taken) for what in numbers}
    constants.update((k[what], np.array(value, dtype)) for what, (value, dtype) in numbers.items())
    shapes = {
        "squares": own.shape,
        "lined": plane,
        "pooled": plane,
        **dict.fromkeys(("mean", "a", "b", "root"), own.shape),
    }
    t = {what: fresh(f"{node.outputs[0]}.{what}", taken) for what in shapes}
    values.update((t[what], Value(t[what], own.dtype, shape)) for what, shape in shapes.items())
    pool = {"kernel_shape": (size, 1), "pads": pads, "count_include_pad": 1}
    x = node.inputs[0]
    steps: list[tuple[str, tuple[str, ...], str, dict[str, Any]]] = [
        ("Mul", (x, x), t["squares"], {}),
        ("Reshape", (t["squares"], k["planes"]), t["lined"], {}),
        ("AveragePool", (t["lined"],), t["pooled"], pool),
        ("Reshape", (t["pooled"], k["shape"]), t["mean"], {}),
        ("Mul", (t["mean"], k["alpha"]), t["a"], {}),
        ("Add", (t["a"], k["bias"]), t["b"], {}),
        ("Pow", (t["b"], k["beta"]), t["root"], {}),
        ("Div", (x, t["root"]), node.outputs[0], {}),
    ]
    return [Node(op, inputs, (out,), attrs, node.name) for op, inputs, out, attrs in steps]


def _fold_pads(graph: Graph) -> Graph:
    """Zeros put around what only one convolution reads are that convolution's own padding."""
    producers, readers = graph.producers(), graph.consumers()
    outputs = {v.name for v in graph.outputs}
    changed: dict[int, Node | None] = {}
    for conv in graph.nodes:
        pad = producers.get(conv.inputs[0]) if conv.op == "Conv" and not conv.domain else None
        if pad is None or len(readers[conv.inputs[0]]) > 1 or conv.inputs[0] in outputs:
            continue
        zeros = _zeros_around(pad, graph)
        if zeros is None or conv.attrs.get("auto_pad", "NOTSET") != "NOTSET":
            continue
        own = conv.attrs.get("pads") or [0] * len(zeros)
        pads = tuple(int(a) + b for a, b in zip(own, zeros, strict=True))
        changed[id(conv)] = conv.replace(inputs=(pad.inputs[0], *conv.inputs[1:]), attrs={**conv.attrs, "pads": pads})
        changed[id(pad)] = None
    nodes = tuple(new for n in graph.nodes if (new := changed.get(id(n), n)) is not None)
    return graph.replace(nodes=nodes)


def _zeros_around(pad: Node, graph: Graph) -> list[int] | None:
    """The zeros a Pad puts before and after each spatial axis, as a convolution lists them; None if it does more."""
    shape = static_shape(graph, pad.inputs[0])
    amounts, value, axes = (graph.constants.get(i) if i else None for i in (*pad.inputs[1:], "", "", "")[:3])
    if pad.op != "Pad" or pad.domain or pad.attrs.get("mode", "constant") != "constant" or shape is None:
        return None
    if (
        amounts is None
        or any(i not in graph.constants for i in pad.inputs[2:] if i)
        or (value is not None and value != 0)
    ):
        return None
    rank = len(shape)
    which = range(rank) if axes is None else [int(i) % rank for i in axes]
    before, after = [0] * rank, [0] * rank
    for axis, first, last in zip(which, amounts, amounts[len(which) :], strict=False):
        before[axis], after[axis] = int(first), int(last)
    if rank < 3 or any(before[:2]) or any(after[:2]) or min(*before, *after) < 0:
        return None
    return before[2:] + after[2:]


def _fold_factors(graph: Graph) -> Graph:
    """A convolution times a constant per channel is a convolution with other weights and another bias.

    Where the convolution's result has no other use, its weights are constant and the products are finite.
    """
    producers, readers = graph.producers(), graph.consumers()
    outputs = {v.name for v in graph.outputs}
    constants = dict(graph.constants)
    taken = graph.names()
    changed: dict[int, Node | None] = {}
    for node in graph.nodes:
        if node.op != "Mul" or node.domain:
            continue
        for product, other in (node.inputs, node.inputs[::-1]):
            conv, factor = producers.get(product), constants.get(other)
            if conv is None or conv.op != "Conv" or factor is None or id(conv) in changed:
                continue
            if len(readers[product]) == 1 and product not in outputs:
                scaled = _scaled(conv, factor, static_shape(graph, product), constants)
                if scaled is not None:
                    names = [fresh(f"{node.outputs[0]}.{what}", taken) for what in ("weight", "bias")[: len(scaled)]]
                    constants.update(zip(names, scaled, strict=True))
                    changed[id(conv)] = conv.replace(inputs=(conv.inputs[0], *names), outputs=node.outputs)
                    changed[id(node)] = None
                    break
    nodes = tuple(new for n in graph.nodes if (new := changed.get(id(n), n)) is not None)
    return graph.replace(nodes=nodes, constants=constants)


def _scaled(
    conv: Node, factor: np.ndarray, shape: tuple[int, ...] | None, constants: Mapping[str, np.ndarray]
) -> list[np.ndarray] | None:
    """The weights, and the bias if there is one, times the factor; None where that cannot be."""
    known = [constants.get(i) for i in conv.inputs[1:] if i]
    if shape is None or not per_channel(factor.shape, shape, 1) or of_codes(known[0]):
        return None
    along = np.broadcast_to(factor.reshape(-1).astype(np.float64), shape[1:2])
    scaled = []
    for array in known:
        if array is None:
            return None
        with np.errstate(over="ignore", invalid="ignore"):
            scaled.append((array * along.reshape(-1, *[1] * (array.ndim - 1))).astype(array.dtype))
    return scaled if all(np.isfinite(array).all() for array in scaled) else None
