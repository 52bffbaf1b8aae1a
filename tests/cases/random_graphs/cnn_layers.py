"""Convolutions with what follows them, pools, normalisations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.cases.random_graphs.maker import CHANNELS, MOST, Made, Maker, kind


# --- convolutions and pools ------------------------------------------------------------------------------------------
def _window(m: Maker, spatial: Sequence[int], most: int = 3) -> tuple[dict[str, Any], tuple[int, ...]] | None:
    """(attributes, output sizes) of a random window; None where it does not fit."""
    rank = len(spatial)
    kernel = [m.integer(1, min(most, s + 1)) for s in spatial]
    strides = [m.integer(1, 3) if m.chance(0.4) else 1 for _ in spatial]
    dilations = [m.integer(1, 3) if m.chance(0.2) else 1 for _ in spatial]
    attrs: dict[str, Any] = {"kernel_shape": tuple(kernel), "strides": tuple(strides), "dilations": tuple(dilations)}
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    if m.chance(0.15):
        attrs["auto_pad"] = m.choice(["SAME_UPPER", "SAME_LOWER", "VALID"])
        if attrs["auto_pad"] != "VALID":
            return attrs, tuple(-(-s // t) for s, t in zip(spatial, strides, strict=True))
        pads = [0] * (2 * rank)
    else:
        pads = [m.integer(0, k - 1) for k in kernel] * 2 if m.chance(0.5) else [m.integer(0, k - 1) for k in kernel * 2]
        attrs["pads"] = tuple(pads)
    sizes = [
        (s + pads[i] + pads[rank + i] - e) // t + 1
        for i, (s, e, t) in enumerate(zip(spatial, extents, strides, strict=True))
    ]
    return (attrs, tuple(sizes)) if min(sizes) > 0 else None


@kind
def _conv(m: Maker) -> bool:
    x = m.image()
    window = _window(m, x.shape[2:], 5) if x else None
    if x is None or window is None:
        return False
    attrs, sizes = window
    channels = x.shape[1]
    groups = m.choice([g for g in range(1, channels + 1) if channels % g == 0]) if m.chance(0.4) else 1
    outputs = groups if m.chance(0.3) and groups > 1 else groups * m.choice(CHANNELS[: 4 if groups > 1 else None])
    if outputs > 96:
        return False
    fan = channels // groups * math.prod(attrs["kernel_shape"])
    inputs = [x.name, m.floats(outputs, channels // groups, *attrs["kernel_shape"], fan=fan)]
    if m.chance(0.5):
        inputs.append(m.floats(outputs))
    y = m.add("Conv", inputs, (x.shape[0], outputs, *sizes), group=groups, **attrs)
    if y is None:
        return False
    epilogue(m, y)
    return True


@kind
def _depthwise(m: Maker) -> bool:
    x = m.image(lambda v: v.shape[1] > 1)
    window = _window(m, x.shape[2:], 5) if x else None
    if x is None or window is None:
        return False
    attrs, sizes = window
    c = x.shape[1]
    weights = m.floats(c, 1, *attrs["kernel_shape"], fan=math.prod(attrs["kernel_shape"]))
    inputs = [x.name, weights, m.floats(c)][: m.integer(2, 3)]
    y = m.add("Conv", inputs, (x.shape[0], c, *sizes), group=c, **attrs)
    if y is None:
        return False
    epilogue(m, y)
    return True


@kind
def _conv_transpose(m: Maker) -> bool:
    x = m.image(lambda v: math.prod(v.shape) < MOST // 4)
    if x is None:
        return False
    rank, channels = len(x.shape) - 2, x.shape[1]
    kernel = [m.integer(1, 3) for _ in range(rank)]
    strides = [m.integer(1, 3) for _ in range(rank)]
    dilations = [m.integer(1, 2) if m.chance(0.2) else 1 for _ in range(rank)]
    extra = [m.integer(0, max(s, d) - 1) if m.chance(0.3) else 0 for s, d in zip(strides, dilations, strict=True)]
    pads = [m.integer(0, k - 1) for k in kernel * 2]
    sizes = [
        (x.shape[2 + i] - 1) * strides[i] + extra[i] + (kernel[i] - 1) * dilations[i] + 1 - pads[i] - pads[rank + i]
        for i in range(rank)
    ]
    if min(sizes) < 1:
        return False
    groups = m.choice([g for g in range(1, channels + 1) if channels % g == 0]) if m.chance(0.3) else 1
    outputs = m.choice(CHANNELS[:8])
    inputs = [x.name, m.floats(channels, outputs, *kernel, fan=channels // groups * math.prod(kernel))]
    if m.chance(0.5):
        inputs.append(m.floats(outputs * groups))
    y = m.add(
        "ConvTranspose", inputs, (x.shape[0], outputs * groups, *sizes), group=groups, kernel_shape=tuple(kernel),
        strides=tuple(strides), dilations=tuple(dilations), pads=tuple(pads), output_padding=tuple(extra),
    )  # fmt: skip
    if y is None:
        return False
    epilogue(m, y)
    return True


def epilogue(m: Maker, y: Made) -> None:
    """What often follows a convolution, in any order and number."""
    for _ in range(m.integer(0, 3)):
        what = m.choice(["norm", "bias", "residual", "activation", "factor"])
        z: Made | None = None
        if what == "norm" and len(y.shape) > 2:
            z = _add_norm(m, y)
        elif what in ("bias", "factor"):
            c = m.floats(1, y.shape[1], *[1] * (len(y.shape) - 2))
            z = m.add("Add" if what == "bias" else "Mul", [y.name, c][:: m.choice([1, -1])], y.shape)
        elif what == "residual":
            r = m.pick(lambda v, y=y: v.shape == y.shape and v.name != y.name)
            if r:
                z = m.add("Add", [y.name, r.name][:: m.choice([1, -1])], y.shape)
        else:
            op, attrs = m.choice([("Relu", {}), ("LeakyRelu", {"alpha": 0.1}), ("Sigmoid", {}), ("Clip", {})])
            bounds = [m.constant(np.array(b, m.float_type)) for b in (-0.5, 1.5)] if op == "Clip" else []
            z = m.add(op, [y.name, *bounds], y.shape, **attrs)
        y = z or y


def _add_norm(m: Maker, x: Made) -> Made | None:
    c = x.shape[1]
    return m.add("BatchNormalization", [x.name, m.positive(c), m.floats(c), m.floats(c), m.positive(c)], x.shape)


@kind
def _pool(m: Maker) -> bool:
    x = m.image()
    window = _window(m, x.shape[2:], 4) if x else None
    if x is None or window is None:
        return False
    attrs, sizes = window
    op = m.choice(["MaxPool", "AveragePool"])
    if "pads" in attrs and m.chance(0.4):
        attrs["ceil_mode"] = 1
        rank, pads = len(sizes), attrs["pads"]
        ceiled = []
        for i, size in enumerate(x.shape[2:]):
            extent, stride = (attrs["kernel_shape"][i] - 1) * attrs["dilations"][i] + 1, attrs["strides"][i]
            out = -(-(size + pads[i] + pads[rank + i] - extent) // stride) + 1
            ceiled.append(out - ((out - 1) * stride >= size + pads[i]))  # the last window must start inside
        sizes = tuple(ceiled)
    if op == "AveragePool":
        attrs["count_include_pad"] = m.integer(0, 1)
    return m.add(op, [x.name], (*x.shape[:2], *sizes), exact=x.exact and op == "MaxPool", **attrs) is not None


@kind
def _global_pool(m: Maker) -> bool:
    x = m.image()
    op = m.choice(["GlobalAveragePool", "GlobalMaxPool"])
    y = m.add(op, [x.name], (*x.shape[:2], *[1] * (len(x.shape) - 2))) if x else None
    if x and y and m.chance(0.6):  # squeeze and excitation
        gate = m.add("Sigmoid", [y.name], y.shape)
        return gate is not None and m.add("Mul", [x.name, gate.name], x.shape) is not None
    return y is not None


# --- normalisations --------------------------------------------------------------------------------------------------
@kind
def _batch_norm(m: Maker) -> bool:
    x = m.pick(lambda v: 2 <= len(v.shape) <= 5 and v.static)
    return x is not None and _add_norm(m, x) is not None


@kind
def _norm(m: Maker) -> bool:
    x = m.image(lambda v: math.prod(v.shape[2:]) > 3)
    if x is None:
        return False
    op, c = m.choice(["InstanceNormalization", "GroupNormalization", "LayerNormalization"]), x.shape[1]
    if op == "LayerNormalization":
        axis = m.integer(1, len(x.shape) - 1)
        shape = x.shape[axis:]
        if math.prod(shape) < 4:
            return False
        return m.add(op, [x.name, m.floats(*shape), m.floats(*shape)], x.shape, axis=axis, epsilon=0.1) is not None
    attrs: dict[str, Any] = {"epsilon": 0.1}
    if op == "GroupNormalization":
        attrs["num_groups"] = m.choice([g for g in range(1, c + 1) if c % g == 0])
    return m.add(op, [x.name, m.floats(c), m.floats(c)], x.shape, **attrs) is not None


@kind
def _softmax(m: Maker) -> bool:
    x = m.pick(lambda v: len(v.shape) > 0)
    op = m.choice(["Softmax", "LogSoftmax"])
    return x is not None and m.add(op, [x.name], x.shape, axis=m.integer(-len(x.shape), len(x.shape) - 1)) is not None
