"""Random convolutional networks as Graphs, with feeds: every kind of node the planner treats in a way of its own.

Node by node a seeded `Maker` picks a kind and values of fitting shape. Values stay of moderate size (what comes out of
an unbounded operator is bounded again) so that rounding errors stay small; operators that jump read ``exact`` values
only: inputs, and what was merely moved or rounded since. Imports NumPy and the Graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sigconv.graph.ir import Graph, Node, Value

MOST = 6000
"""Elements a value may have."""

CHANNELS = (1, 2, 3, 5, 8, 15, 16, 17, 20, 32, 33, 48)
KINDS: dict[str, Callable[[Maker], bool]] = {}
"""How to add one node, or a few; False where no value fits."""


@dataclass
class Made:
    """A value: what the maker must know of it to use it. ``static`` is False where the shape depends on data."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    exact: bool = False
    static: bool = True


@dataclass
class Maker:
    """A graph under construction."""

    seed: int
    float_type: np.dtype[Any] = field(init=False)
    nodes: list[Node] = field(default_factory=list)
    values: list[Made] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        kinds = (np.float32, np.float32, np.float32, np.float64, np.float16)
        self.float_type = np.dtype(kinds[self.rng.integers(len(kinds))])

    # --- choosing ------------------------------------------------------------------------------------------------
    def integer(self, low: int, high: int) -> int:
        """From low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def choice(self, options: Sequence[Any]) -> Any:
        return options[self.rng.integers(len(options))]

    def pick(self, fits: Callable[[Made], bool] = lambda v: True, dtype: Any = None) -> Made | None:
        """A value, more likely a recent one; of the graph's float type unless ``dtype`` says otherwise."""
        wanted = np.dtype(dtype) if dtype else self.float_type
        found = [v for v in self.values if v.dtype == wanted and fits(v)]
        if not found:
            return None
        return found[-1 - min(int(self.rng.exponential(2.0)), len(found) - 1)]

    def image(self, fits: Callable[[Made], bool] = lambda v: True) -> Made | None:
        return self.pick(lambda v: 3 <= len(v.shape) <= 5 and v.static and fits(v))

    # --- writing -------------------------------------------------------------------------------------------------
    def floats(self, *shape: int, fan: int = 1) -> str:
        return self.constant((self.rng.standard_normal(shape) / math.sqrt(fan)).astype(self.float_type))

    def positive(self, *shape: int) -> str:
        return self.constant(self.rng.uniform(0.5, 1.5, shape).astype(self.float_type))

    def constant(self, array: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(array)
        return name

    def add(
        self, op: str, inputs: Sequence[str], shape: Sequence[int], dtype: Any = None, *, exact: bool = False,
        static: bool = True, **attrs: Any,
    ) -> Made | None:  # fmt: skip
        """One node of one output; None if that is too large."""
        return self.add_many(op, inputs, [shape], dtype, exact=exact, static=static, **attrs)[0]

    def add_many(
        self, op: str, inputs: Sequence[str], shapes: Sequence[Sequence[int]], dtype: Any = None, *,
        exact: bool = False, static: bool = True, **attrs: Any,
    ) -> list[Made | None]:  # fmt: skip
        if any(math.prod(s) > MOST or 0 in s for s in shapes):
            return [None] * len(shapes)
        made = [
            Made(f"v{len(self.nodes)}_{i}", tuple(map(int, s)), np.dtype(dtype or self.float_type), exact, static)
            for i, s in enumerate(shapes)
        ]
        self.nodes.append(Node(op, tuple(inputs), tuple(v.name for v in made), attrs, f"{op.lower()}{len(self.nodes)}"))
        self.values += made
        return list(made)


def kind(function: Callable[[Maker], bool]) -> Callable[[Maker], bool]:
    KINDS[function.__name__.strip("_")] = function
    return function


# --- windows ---------------------------------------------------------------------------------------------------------
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
    _epilogue(m, y)
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
    _epilogue(m, y)
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
    _epilogue(m, y)
    return True


def _epilogue(m: Maker, y: Made) -> None:
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
            r = m.pick(lambda v, y=y: v.shape == y.shape and v.name != y.name)  # type: ignore[misc]
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


# --- elementwise -----------------------------------------------------------------------------------------------------
UNARY = {
    "Relu": {}, "LeakyRelu": {"alpha": 0.2}, "Sigmoid": {}, "Tanh": {}, "HardSigmoid": {}, "HardSwish": {}, "Erf": {},
    "Softplus": {}, "Softsign": {}, "Elu": {}, "Selu": {}, "Celu": {"alpha": 1.5}, "Mish": {}, "Gelu": {}, "Neg": {},
    "Abs": {}, "Sin": {}, "Identity": {},
}  # fmt: skip


@kind
def _unary(m: Maker) -> bool:
    x = m.pick()
    op = m.choice(list(UNARY))
    exact = x is not None and x.exact and op in ("Relu", "Neg", "Abs", "Identity")
    return x is not None and m.add(op, [x.name], x.shape, exact=exact, static=x.static, **UNARY[op]) is not None


@kind
def _jump(m: Maker) -> bool:
    x = m.pick(lambda v: v.exact)
    op = m.choice(["Floor", "Ceil", "Round", "Sign", "ThresholdedRelu"])
    return x is not None and m.add(op, [x.name], x.shape, exact=True, static=x.static) is not None


@kind
def _bounded(m: Maker) -> bool:
    """Operators that need their argument in a range: 1 / (|x| + 1), sqrt(|x| + 1), exp(tanh x) …"""
    x = m.pick()
    if x is None:
        return False
    op = m.choice(["Reciprocal", "Sqrt", "Log", "Exp", "Pow"])
    if op == "Exp":
        y = m.add("Tanh", [x.name], x.shape, static=x.static)
    else:
        a = m.add("Abs", [x.name], x.shape, static=x.static)
        y = m.add("Add", [a.name, m.constant(np.array(1, m.float_type))], x.shape, static=x.static) if a else None
    if y is None:
        return False
    more = [m.constant(np.array(m.choice([0.5, 2.0, -1.0]), m.float_type))] if op == "Pow" else []
    z = m.add(op, [y.name, *more], x.shape, static=x.static)
    return z is not None and m.add("Softsign", [z.name], x.shape, static=x.static) is not None


def _broadcast_shape(m: Maker, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape that broadcasts to ``shape``."""
    if not shape:
        return ()
    ones = tuple(1 if m.chance(0.5) else d for d in shape)
    per_channel = (*shape[1:2], *[1] * (len(shape) - 2))
    plane = (*[1] * len(shape[:2]), *shape[2:])
    return m.choice([(), (1,), shape, ones, per_channel, plane, shape[m.integer(0, len(shape)) :]])


@kind
def _binary(m: Maker) -> bool:
    x = m.pick(lambda v: v.static)
    if x is None:
        return False
    op = m.choice(["Add", "Add", "Sub", "Mul", "Max", "Min", "PRelu", "Div", "Sum"])
    other = m.pick(lambda v: v.static and len(v.shape) <= len(x.shape) and v.name != x.name and _fits(v.shape, x.shape))
    if op in ("PRelu", "Div") or other is None or m.chance(0.3):
        shape = _broadcast_shape(m, x.shape)
        names = [x.name, m.positive(*shape) if op == "Div" else m.floats(*shape)]
    else:
        names = [x.name, other.name]
    if op in ("Sum", "Max", "Min") and m.chance(0.5):
        names += [x.name, m.floats()]
    if op in ("Add", "Mul", "Sub", "Max") and m.chance(0.3):
        names.reverse()
    y = m.add(op, names, x.shape)
    return y is not None and (op != "Mul" or m.add("Softsign", [y.name], x.shape) is not None)


def _fits(shape: Sequence[int], to: Sequence[int]) -> bool:
    return all(d in (1, t) for d, t in zip(reversed(shape), reversed(to), strict=False))


@kind
def _clip(m: Maker) -> bool:
    x = m.pick(lambda v: v.static)
    if x is None:
        return False
    lo = m.constant(np.array(-0.4, m.float_type)) if m.chance(0.7) else ""
    hi = m.constant(np.array(m.choice([0.9, -0.8]), m.float_type)) if m.chance(0.7) else ""
    number = m.pick(lambda v: v.shape == () and v.static)
    if number and m.chance(0.5):
        hi = number.name
    return m.add("Clip", [x.name, lo, hi], x.shape) is not None


@kind
def _square(m: Maker) -> bool:
    x = m.pick(lambda v: v.static)
    y = m.add("Pow", [x.name, m.constant(np.array([2], m.float_type))], x.shape or (1,)) if x else None
    return y is not None and m.add("Softsign", [y.name], y.shape) is not None


# --- movement --------------------------------------------------------------------------------------------------------
@kind
def _concat(m: Maker) -> bool:
    x = m.pick(lambda v: len(v.shape) > 0 and v.static)
    if x is None:
        return False
    axis = 1 if len(x.shape) > 1 and m.chance(0.6) else m.integer(0, len(x.shape) - 1)
    outer = lambda v: v.shape[:axis] + v.shape[axis + 1 :]  # noqa: E731
    fits = lambda v: len(v.shape) == len(x.shape) and outer(v) == outer(x) and v.static  # noqa: E731
    parts: list[Made] = [x]
    for _ in range(m.integer(1, 3)):
        other = m.pick(fits)
        assert other is not None
        parts.append(other)
    shape = (*x.shape[:axis], sum(p.shape[axis] for p in parts), *x.shape[axis + 1 :])
    names = [p.name for p in parts]
    if m.chance(0.2):
        size = m.integer(0, 3)
        names.append(m.floats(*x.shape[:axis], size, *x.shape[axis + 1 :]))
        shape = (*shape[:axis], shape[axis] + size, *shape[axis + 1 :])
    axis -= len(x.shape) if m.chance(0.3) else 0
    return m.add("Concat", names, shape, exact=all(p.exact for p in parts), axis=axis) is not None


@kind
def _split(m: Maker) -> bool:
    x = m.pick(lambda v: max(v.shape, default=1) > 1 and v.static)
    if x is None:
        return False
    axis = m.choice([i for i, d in enumerate(x.shape) if d > 1])
    size = x.shape[axis]
    first = 16 if size > 16 and m.chance(0.5) else m.integer(1, size - 1)
    sizes = [first, size - first]
    if sizes[1] > 1 and m.chance(0.4):
        sizes[1:] = [1, sizes[1] - 1]
    shapes = [(*x.shape[:axis], s, *x.shape[axis + 1 :]) for s in sizes]
    made = m.add_many("Split", [x.name, m.constant(np.array(sizes))], shapes, exact=x.exact, axis=axis)
    return made[0] is not None


@kind
def _slice(m: Maker) -> bool:
    x = m.pick(lambda v: len(v.shape) > 0 and v.static)
    if x is None:
        return False
    shape = list(x.shape)
    axes = [i for i in range(len(shape)) if m.chance(0.5)] or [0]
    starts, ends, steps = [], [], []
    for i in axes:
        a, b = sorted((m.integer(0, shape[i] - 1), m.integer(0, shape[i] - 1)))
        step = m.integer(1, 2)
        if m.chance(0.3):
            starts.append(b)
            ends.append(a - 1 if a else -(2**40))
            steps.append(-step)
        else:
            starts.append(a)
            ends.append(2**40 if b + 1 == shape[i] and m.chance(0.5) else b + 1)
            steps.append(step)
        shape[i] = (b - a) // step + 1
    parameters = [m.constant(np.array(v)) for v in (starts, ends, axes, steps)]
    return m.add("Slice", [x.name, *parameters], shape, exact=x.exact) is not None


@kind
def _pad(m: Maker) -> bool:
    x = m.image()
    if x is None:
        return False
    mode = m.choice(["constant", "constant", "reflect", "edge", "wrap"])
    rank = len(x.shape)
    first = 2 if m.chance(0.7) else 0
    most = [min(2, d - 1) if mode in ("reflect", "wrap") else 2 for d in x.shape]
    low = [-1 if mode == "constant" and d > 2 else 0 for d in x.shape]
    pads = [0 if i % rank < first else m.integer(low[i % rank], most[i % rank]) for i in range(2 * rank)]
    shape = [d + pads[i] + pads[rank + i] for i, d in enumerate(x.shape)]
    inputs = [x.name, m.constant(np.array(pads))]
    if mode == "constant" and m.chance(0.5):
        inputs.append(m.constant(np.array(m.choice([0, 0.5]), m.float_type)))
    y = m.add("Pad", inputs, shape, exact=x.exact, mode=mode)
    return y is not None


@kind
def _resize(m: Maker) -> bool:
    x = m.image()
    if x is None:
        return False
    if m.chance(0.6):
        scales = [1.0, 1.0, *[m.choice([1.0, 2.0, 3.0, 0.5, 1.5]) for _ in x.shape[2:]]]
        shape = [math.floor(d * s) for d, s in zip(x.shape, scales, strict=True)]
        inputs = [x.name, "", m.constant(np.array(scales, np.float32))]
    else:
        shape = [*x.shape[:2], *[m.integer(1, 2 * d) for d in x.shape[2:]]]
        inputs = [x.name, "", "", m.constant(np.array(shape))]
    mode = m.choice(["nearest", "linear", "cubic"])
    coordinates = m.choice(["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"])
    attrs = {"mode": mode, "coordinate_transformation_mode": coordinates}
    if mode == "nearest":
        attrs["nearest_mode"] = m.choice(["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"])
    return m.add("Resize", inputs, shape, exact=x.exact and mode == "nearest", **attrs) is not None


@kind
def _transpose(m: Maker) -> bool:
    x = m.pick(lambda v: len(v.shape) > 1)
    if x is None:
        return False
    perm = [int(i) for i in m.rng.permutation(len(x.shape))]
    shape = [x.shape[i] for i in perm]
    return m.add("Transpose", [x.name], shape, exact=x.exact, static=x.static, perm=tuple(perm)) is not None


@kind
def _reshape(m: Maker) -> bool:
    x = m.pick(lambda v: v.static)
    if x is None:
        return False
    size, shape = math.prod(x.shape), []
    for _ in range(m.integer(0, 3)):
        divisors = [d for d in range(1, min(size, 40) + 1) if size % d == 0]
        shape.append(m.choice(divisors))
        size //= shape[-1]
    shape.append(size)
    given = [-1 if i == len(shape) - 1 and m.chance(0.5) else d for i, d in enumerate(shape)]
    return m.add("Reshape", [x.name, m.constant(np.array(given))], shape, exact=x.exact) is not None


@kind
def _flatten(m: Maker) -> bool:
    x = m.pick(lambda v: v.static)
    if x is None:
        return False
    axis = m.integer(0, len(x.shape))
    shape = (math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))
    return m.add("Flatten", [x.name], shape, exact=x.exact, axis=axis) is not None


@kind
def _squeeze(m: Maker) -> bool:
    x = m.pick(lambda v: v.static and len(v.shape) < 6)
    if x is None:
        return False
    ones = [i for i, d in enumerate(x.shape) if d == 1]
    if ones and m.chance(0.5):
        axes, shape, op = ones, [d for d in x.shape if d != 1], "Squeeze"
    else:
        axes = [m.integer(0, len(x.shape))]
        shape, op = [*x.shape[: axes[0]], 1, *x.shape[axes[0] :]], "Unsqueeze"
    return m.add(op, [x.name, m.constant(np.array(axes))], shape, exact=x.exact) is not None


@kind
def _expand(m: Maker) -> bool:
    x = m.pick(lambda v: v.static and len(v.shape) < 6)
    if x is None:
        return False
    if m.chance(0.5):
        shape = [m.integer(1, 3) if d == 1 else d for d in x.shape]
        sizes = [*([m.integer(1, 2)] if m.chance(0.3) else []), *shape]
        return m.add("Expand", [x.name, m.constant(np.array(sizes, np.int64))], sizes, exact=x.exact) is not None
    if not x.shape:
        return False
    repeats = [m.integer(1, 2) for _ in x.shape]
    shape = [d * r for d, r in zip(x.shape, repeats, strict=True)]
    return m.add("Tile", [x.name, m.constant(np.array(repeats))], shape, exact=x.exact) is not None


@kind
def _gather(m: Maker) -> bool:
    x = m.pick(lambda v: len(v.shape) > 0 and v.static)
    if x is None:
        return False
    axis = m.integer(0, len(x.shape) - 1)
    d = x.shape[axis]
    shape = m.choice([(), (1,), (3,), (2, 2)])
    index = m.rng.integers(-d, d, shape)
    if shape == (3,) and m.chance(0.4):
        index = np.arange(3)[:: m.choice([1, -1])] % d
    result = (*x.shape[:axis], *shape, *x.shape[axis + 1 :])
    return m.add("Gather", [x.name, m.constant(index)], result, exact=x.exact, axis=axis) is not None


@kind
def _depth_to_space(m: Maker) -> bool:
    x = m.image(lambda v: len(v.shape) == 4)
    if x is None:
        return False
    n, c, h, w = x.shape
    if c % 4 == 0 and m.chance(0.6):
        mode = m.choice(["DCR", "CRD"])
        shape = (n, c // 4, 2 * h, 2 * w)
        return m.add("DepthToSpace", [x.name], shape, exact=x.exact, blocksize=2, mode=mode) is not None
    if h % 2 == 0 and w % 2 == 0:
        return m.add("SpaceToDepth", [x.name], (n, 4 * c, h // 2, w // 2), exact=x.exact, blocksize=2) is not None
    return False


# --- products and reductions -----------------------------------------------------------------------------------------
@kind
def _matmul(m: Maker) -> bool:
    x = m.pick(lambda v: len(v.shape) > 0 and v.static)
    if x is None:
        return False
    k, n = x.shape[-1], m.choice(CHANNELS)
    other = m.pick(lambda v: len(v.shape) > 1 and v.shape[-2] == k and v.shape[:-2] in ((), x.shape[:-2]) and v.static)
    if len(x.shape) > 1 and other and m.chance(0.5):
        y = m.add("MatMul", [x.name, other.name], (*x.shape[:-1], other.shape[-1]))
        return y is not None and m.add("Softsign", [y.name], y.shape) is not None
    form = m.choice(["matrix", "matrix", "vector", "batched"])
    if form == "vector":
        shape, w = x.shape[:-1], m.floats(k, fan=k)
    elif form == "batched" and len(x.shape) > 1:
        shape, w = (*x.shape[:-1], n), m.floats(*x.shape[:-2], k, n, fan=k)
    else:
        shape, w = (*x.shape[:-1], n), m.floats(k, n, fan=k)
    y = m.add("MatMul", [x.name, w], shape)
    if y and m.chance(0.6) and y.shape:
        y = m.add("Add", [y.name, m.floats(y.shape[-1])], y.shape)
        if y and m.chance(0.5):
            m.add("Relu", [y.name], y.shape)
    return y is not None


@kind
def _gemm(m: Maker) -> bool:
    x = m.pick(lambda v: len(v.shape) == 2 and v.static)
    if x is None:
        return False
    trans_a, trans_b, n = m.integer(0, 1), m.integer(0, 1), m.choice(CHANNELS)
    rows, k = x.shape[::-1] if trans_a else x.shape
    inputs = [x.name, m.floats(*((n, k) if trans_b else (k, n)), fan=k)]
    if m.chance(0.7):
        inputs.append(m.floats(*m.choice([(n,), (1, n), (rows, n), (rows, 1), (), (1,)])))
    attrs = {"alpha": 0.5, "beta": 2.0} if m.chance(0.3) else {}
    y = m.add("Gemm", inputs, (rows, n), transA=trans_a, transB=trans_b, **attrs)
    if y is None:
        return False
    _epilogue(m, y)
    return True


@kind
def _reduce(m: Maker) -> bool:
    x = m.pick(lambda v: len(v.shape) > 0 and v.static)
    if x is None:
        return False
    op = m.choice(["Sum", "Mean", "Max", "Min", "L1", "L2", "SumSquare", "LogSumExp", "Prod"])
    if op == "Prod" and not x.exact:  # one factor near zero makes its rounding that of the whole product
        return False
    rank = len(x.shape)
    spatial = list(range(2, rank))
    axes = spatial if spatial and m.chance(0.4) else [i for i in range(rank) if m.chance(0.5)] or [rank - 1]
    keep = m.integer(0, 1)
    shape = [1 if i in axes else d for i, d in enumerate(x.shape) if keep or i not in axes]
    given = [a - rank if m.chance(0.3) else a for a in axes]
    y = m.add(f"Reduce{op}", [x.name, m.constant(np.array(given))], shape, keepdims=keep)
    return y is not None and m.add("Softsign", [y.name], y.shape) is not None


# --- integers, booleans, data-dependent shapes -----------------------------------------------------------------------
@kind
def _compare(m: Maker) -> bool:
    """Where over a comparison of exact values."""
    x = m.pick(lambda v: v.exact and v.static)
    if x is None:
        return False
    op = m.choice(["Greater", "Less", "GreaterOrEqual", "LessOrEqual", "Equal"])
    mask = m.add(op, [x.name, m.constant(np.array(0.25, m.float_type))], x.shape, bool)
    if mask is None:
        return False
    if len(mask.shape) > 1 and m.chance(0.5):  # booleans move too
        perm = (1, 0, *range(2, len(x.shape)))
        for _ in range(2):
            mask = m.add("Transpose", [mask.name], [mask.shape[i] for i in perm], bool, perm=perm)
            assert mask is not None
    other = m.pick(lambda v: v.shape == x.shape)
    return m.add("Where", [mask.name, x.name, other.name if other else m.floats()], x.shape) is not None


@kind
def _integers(m: Maker) -> bool:
    """Through an integer type and back."""
    x = m.pick(lambda v: v.exact and v.static)
    if x is None:
        return False
    dtype, code = m.choice([(np.int64, 7), (np.int32, 6), (np.int8, 3), (np.uint8, 2), (np.bool_, 9)])
    y: Made | None = x
    if dtype is np.uint8:
        y = m.add("Abs", [x.name], x.shape, exact=True)
    y = m.add("Cast", [y.name], x.shape, dtype, to=code) if y else None
    if y and y.shape and m.chance(0.7):
        axis = m.integer(0, len(y.shape) - 1)
        shape = (*y.shape[:axis], 2 * y.shape[axis], *y.shape[axis + 1 :])
        y = m.add("Concat", [y.name, y.name], shape, dtype, axis=axis)
    codes = {np.dtype(np.float16): 10, np.dtype(np.float32): 1, np.dtype(np.float64): 11}
    return y is not None and m.add("Cast", [y.name], y.shape, exact=True, to=codes[m.float_type]) is not None


@kind
def _runtime_shape(m: Maker) -> bool:
    """Reshape to sizes that are fed: shapes are unknown from there on."""
    x = m.pick(lambda v: len(v.shape) > 1)
    if x is None or not any(v.name == "zero" for v in m.values):
        return False
    shape = m.add("Add", ["zero", m.constant(np.array([x.shape[0], math.prod(x.shape[1:])]))], (2,), np.int64)
    assert shape is not None
    return m.add("Reshape", [x.name, shape.name], (x.shape[0], math.prod(x.shape[1:])), static=False) is not None


@kind
def _shape_arithmetic(m: Maker) -> bool:
    """Reshape by the input's own sizes, as exporters write it."""
    x = m.pick(lambda v: len(v.shape) > 1 and v.static)
    if x is None:
        return False
    shape = m.add("Shape", [x.name], (len(x.shape),), np.int64)
    assert shape is not None
    first = m.add("Gather", [shape.name, m.constant(np.array([0]))], (1,), np.int64)
    assert first is not None
    both = m.add("Concat", [first.name, m.constant(np.array([-1]))], (2,), np.int64, axis=0)
    assert both is not None
    return m.add("Reshape", [x.name, both.name], (x.shape[0], math.prod(x.shape[1:])), exact=x.exact) is not None


# --- whole graphs ----------------------------------------------------------------------------------------------------
def make(seed: int, nodes: int = 12, only: Sequence[str] = ()) -> tuple[Graph, dict[str, np.ndarray]]:
    """A graph of about ``nodes`` nodes (of the kinds in ``only``) and a feed for each input; the same for a seed."""
    m = Maker(seed)
    rank = m.choice([1, 2, 2, 2, 2, 3])
    shape = (m.integer(1, 2), m.choice(CHANNELS), *[m.integer(1, {1: 40, 2: 11, 3: 5}[rank]) for _ in range(rank)])
    shapes = {"x": shape}
    if m.chance(0.4):
        shapes["other"] = m.choice([shape, shape, (1, shape[1], *[1] * rank), (m.integer(1, 6), m.choice(CHANNELS))])
    if m.chance(0.2):
        shapes["number"] = ()
    feeds = {name: np.asarray(1.5 * m.rng.standard_normal(s)).astype(m.float_type) for name, s in shapes.items()}
    if m.chance(0.15):  # not finite here and there
        for feed in feeds.values():
            special = m.rng.random(feed.shape) < 0.02
            feed[special] = m.rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0], int(special.sum()))
    m.values += [Made(name, s, m.float_type, exact=True) for name, s in shapes.items()]
    if m.chance(0.1):
        feeds["zero"] = np.zeros(2, np.int64)
        m.values.append(Made("zero", (2,), np.dtype(np.int64)))
    kinds = [KINDS[k] for k in only] or list(KINDS.values())
    kinds = kinds if only else [*kinds, *[KINDS[k] for k in ("conv", "conv", "conv", "depthwise", "binary", "concat")]]
    count = m.integer(1, 2 * nodes)
    for _ in range(4 * count):
        if len(m.nodes) >= count:
            break
        m.choice(kinds)(m)
    if not m.nodes:
        m.add("Relu", ["x"], shape)
    read = {i for node in m.nodes for i in node.inputs}
    outputs = [v for v in m.values if v.name not in read]  # else dead
    outputs += [v for v in m.values if v.name in read and m.chance(0.15)]
    graph = Graph(
        nodes=tuple(m.nodes),
        inputs=tuple(Value(n, a.dtype, a.shape) for n, a in feeds.items()),
        outputs=tuple(Value(v.name, v.dtype) for v in outputs),
        constants=m.constants,
        name=f"random {seed}",
    )
    if m.constants and m.chance(0.1):
        name = next(iter(m.constants))
        graph = graph.replace(outputs=(*graph.outputs, Value(name, m.constants[name].dtype)))
    return graph, feeds
