"""Quantising, and what works on single codes or moves them."""

from __future__ import annotations

from typing import Any

import numpy as np

from sigconv.graph.ir import Node
from sigconv.planner.quantized.rewriter import BYTES, F32, MICROSOFT, Rewriter, View, rule


def _granular(c: Rewriter, node: Node) -> View | None:
    """How to shape scale and zero point, one a tensor or a slice of ``axis``; None for blocks, or if not known."""
    shape = c.shape(node.inputs[0])
    if shape is None or node.attrs.get("block_size", 0):
        return None
    axis = int(node.attrs.get("axis", 1))
    sizes = [c.shape(name) for name in node.inputs[1:] if name]
    if all(s is not None and (s == () or (s == (1,) and shape)) for s in sizes):
        return lambda p: p.reshape(()) if p.size == 1 else p
    if not c.known(*node.inputs[1:]) or not -len(shape) <= axis < len(shape):
        return None
    along = [-1 if i == axis % len(shape) else 1 for i in range(len(shape))]
    return lambda p: p.reshape(along) if p.size > 1 else p.reshape(())


@rule("QuantizeLinear")
def _quantize(c: Rewriter, node: Node) -> bool:
    x, scale, zero = (*node.inputs, "")[:3]
    view = _granular(c, node)
    if view is None or c.dtype(x) != F32 or c.dtype(scale) != F32 or c.dtype(node.outputs[0]) not in BYTES:
        return False
    if node.attrs.get("precision", 0) not in (0, 1):
        return False
    divisor = c.number(view(c.array(scale))) if c.known(scale) else scale
    c.saturate(c.add("Div", x, divisor), zero, node, view)
    return True


@rule("DequantizeLinear")
def _dequantize(c: Rewriter, node: Node) -> bool:
    x, scale, zero = (*node.inputs, "")[:3]
    view = _granular(c, node)
    if view is None or c.dtype(x) not in BYTES or c.dtype(scale) != F32 or c.dtype(node.outputs[0]) != F32:
        return False
    c.real(x, scale, zero, view, out=node.outputs[0])
    return True


@rule("DynamicQuantizeLinear")
def _dynamic(c: Rewriter, node: Node) -> bool:
    """onnxruntime's own order: scale = (max - min) / 255, 1 where that is 0; zero point = round(-min / scale)."""
    x, outputs = node.inputs[0], (*node.outputs, "", "")[:3]
    zero, one = c.number(0.0), c.number(1.0)
    low = c.add("Min", c.add("ReduceMin", x, keepdims=0), zero)
    high = c.add("Max", c.add("ReduceMax", x, keepdims=0), zero)
    width = c.add("Div", c.add("Sub", high, low), c.number(255.0))
    scale = c.add("Add", width, c.add("Sub", one, c.add("Sign", width)), out=outputs[1])
    limits: dict[str, Any] = {"domain": "sigconv", "low": 0, "high": 255}
    point = c.add("Saturate", c.add("Div", c.add("Neg", low), scale), zero, **limits)
    if outputs[2]:
        c.coded[outputs[2]] = point
    if outputs[0]:
        c.coded[outputs[0]] = c.add("Saturate", c.add("Div", x, scale), point, **limits)
    return True


def _from_real(c: Rewriter, y: str, scale: str, zero: str, node: Node) -> bool:
    """The output as the codes of real values."""
    c.saturate(c.add("Div", y, c.number(c.array(scale))), zero, node)
    return True


@rule("QLinearAdd", "QLinearMul", domain=MICROSOFT)
def _binary(c: Rewriter, node: Node) -> bool:
    a, a_scale, a_zero, b, b_scale, b_zero, scale, zero = (*node.inputs, "")[:8]
    if not c.known(scale, zero):
        return False
    y = c.add(node.op.removeprefix("QLinear"), c.real(a, a_scale, a_zero), c.real(b, b_scale, b_zero))
    return _from_real(c, y, scale, zero, node)


@rule(
    *("QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax", "QLinearAveragePool", "QLinearGlobalAveragePool"),
    domain=MICROSOFT,
)
def _unary(c: Rewriter, node: Node) -> bool:
    x, x_scale, x_zero, scale, zero = (*node.inputs, "")[:5]
    if not c.known(scale, zero):
        return False
    op = node.op.removeprefix("QLinear")
    attrs = {k: v for k, v in node.attrs.items() if k not in ("channels_last", "opset")}
    y = c.real(x, x_scale, x_zero)
    shape = c.shape(x)
    if op == "Softmax" and node.attrs["opset"] < 13:  # the old form: all axes from ``axis`` on are one
        if shape is None:
            return False
        first = int(node.attrs.get("axis", -1)) % len(shape)
        rows = c.add("Reshape", y, c.number((*shape[:first], -1), np.dtype(np.int64)))
        y = c.add("Reshape", c.add(op, rows, axis=-1), c.number(shape, np.dtype(np.int64)))
    elif node.attrs.get("channels_last", 0):
        if shape is None:
            return False
        rank = len(shape)
        y = c.add(op, c.add("Transpose", y, perm=(0, rank - 1, *range(1, rank - 1))), **attrs)
        y = c.add("Transpose", y, perm=(0, *range(2, rank), 1))
    else:
        y = c.add(op, y, **attrs)
    return _from_real(c, y, scale, zero, node)


@rule("QLinearConcat", domain=MICROSOFT)
def _concat(c: Rewriter, node: Node) -> bool:
    scale, zero, *inputs = node.inputs
    if not c.known(scale, zero):
        return False
    parts = [c.real(x, s, z) for x, s, z in zip(inputs[::3], inputs[1::3], inputs[2::3], strict=True)]
    return _from_real(c, c.add("Concat", *parts, axis=node.attrs["axis"]), scale, zero, node)


# --- what moves codes, or picks among them ----------------------------------------------------------------------------

_MOVING = (
    *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Gather", "Expand", "Tile", "Identity"),
    *("DepthToSpace", "SpaceToDepth", "MaxPool", "GlobalMaxPool", "Dropout"),
)


@rule(*_MOVING)
def _move(c: Rewriter, node: Node) -> bool:
    """The same operator on codes, where the data is in codes already."""
    if node.inputs[0] not in c.coded or len([o for o in node.outputs if o]) != 1:
        return False
    c.coded[node.outputs[0]] = c.add(node.op, c.coded[node.inputs[0]], *node.inputs[1:], **node.attrs)
    return True


@rule("Concat", "Max", "Min", "Relu", "Clip")
def _pick(c: Rewriter, node: Node) -> bool:
    """Operators all of whose inputs are codes of one type."""
    if not any(name in c.coded for name in node.inputs):
        return False
    inputs = [c.codes_of(name) if name else "" for name in node.inputs]
    c.coded[node.outputs[0]] = c.add(node.op, *inputs, **node.attrs)
    return True


@rule("Pad")
def _pad(c: Rewriter, node: Node) -> bool:
    x, pads, value, axes = (*node.inputs, "", "")[:4]
    if x not in c.coded:
        return False
    inputs = [c.coded[x], pads, c.codes_of(value) if value else "", axes]
    while not inputs[-1]:
        inputs.pop()
    c.coded[node.outputs[0]] = c.add("Pad", *inputs, **node.attrs)
    return True


@rule("Cast")
def _cast(c: Rewriter, node: Node) -> bool:
    if node.inputs[0] not in c.coded or c.dtype(node.outputs[0]) != F32:
        return False
    c.add("Identity", c.coded[node.inputs[0]], out=node.outputs[0])
    return True
