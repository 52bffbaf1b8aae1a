"""Every old form of an operator, rewritten to the newest one: a table of small steps.

A step `(op, version)` turns a node of the form just before ``version`` into nodes of ``version``'s opset, which then
walk on through later steps. `SAME` lists the version changes that leave every old node valid as it is, with the reason;
a test holds the two tables against the history that the onnx package records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from onnx import TensorProto

from sigconv.errors import ModelError, UnsupportedError
from sigconv.graph.infer import input_facts, node_facts
from sigconv.graph.ir import Dim, Graph, Node
from sigconv.ops.spec import Fact


@dataclass
class Context:
    """The graph being rewritten: fresh names, new constants, and what is known of the values written so far."""

    names: set[str]
    constants: dict[str, np.ndarray]
    facts: dict[str, Fact]
    pending: list[Node] = field(default_factory=list)

    @classmethod
    def of(cls, graph: Graph) -> Context:
        names = {*graph.constants, *(v.name for v in graph.inputs), *(o for n in graph.nodes for o in n.outputs)}
        return cls(names, dict(graph.constants), input_facts(graph))

    def fresh(self, node: Node, what: str) -> str:
        """An unused value name derived from the node's."""
        base = f"{node.name or next((o for o in node.outputs if o), node.op)}_{what}"
        name, i = base, 1
        while name in self.names:
            name, i = f"{base}_{i}", i + 1
        self.names.add(name)
        return name

    def constant(self, node: Node, what: str, value: object, dtype: object = np.int64) -> str:
        """The name of a new constant made for the node."""
        name = self.fresh(node, what)
        array = np.array(value, dtype)  # type: ignore[call-overload]
        array.flags.writeable = False
        self.constants[name] = array
        self.facts[name] = Fact.of(array)
        return name

    def fact(self, name: str) -> Fact:
        """What is known of a value written so far; nothing where inference fails (that is reported later)."""
        for node in self.pending:
            try:
                self.facts.update(node_facts(node, self.facts))
            except ModelError:
                continue
        self.pending.clear()
        return self.facts.get(name, Fact())

    def rank(self, name: str, node: Node) -> int:
        rank = self.fact(name).rank
        if rank is None:
            raise UnsupportedError(
                f"{node.label}: its old form needs the rank of {name!r}, which is unknown", (node.label,)
            )
        return rank


Step = Callable[[Node, Context], Sequence[Node]]

_ANY = 1 << 30
"""The version of steps that apply whatever the opset: experimental operators had no versions."""

STEPS: dict[str, dict[int, Step]] = {}
"""op -> version -> step."""

REMOVED = ("Upsample", "Scatter", "Crop", "ImageScaler", "Affine")
"""Operators that exist in old forms only: each has a step that replaces it."""


def upgrade(node: Node, opset: int, context: Context) -> Iterator[Node]:
    """The newest form of a node of ``opset``."""
    steps = STEPS.get(node.op, {}) if not node.domain else {}
    version = min((v for v in steps if v > opset), default=None)
    if version is None:
        context.pending.append(node)
        yield node
        return
    for new in steps[version](node, context):
        yield from upgrade(new, version, context)


def _step(version: int, *ops: str) -> Callable[[Step], Step]:
    def wrap(step: Step) -> Step:
        for op in ops:
            STEPS.setdefault(op, {})[version] = step
        return step

    return wrap


def _without(node: Node, *names: str) -> dict[str, object]:
    return {k: v for k, v in node.attrs.items() if k not in names}


def _input(node: Node, i: int) -> str:
    return node.inputs[i] if i < len(node.inputs) else ""


def _with_inputs(node: Node, *more: str, drop: Sequence[str] = ()) -> Node:
    """The node with inputs appended (absent ones trimmed from the end) and attributes dropped."""
    inputs = [*node.inputs, *more]
    while inputs and not inputs[-1]:
        inputs.pop()
    return node.replace(inputs=tuple(inputs), attrs=_without(node, *drop))


def _attributes_to_inputs(*names: str, defaults: dict[str, object] | None = None) -> Step:
    """Integer attributes become 1-D inputs, in this order; an absent one (without default) becomes an absent input."""

    def step(node: Node, context: Context) -> list[Node]:
        given = {**(defaults or {}), **node.attrs}
        more = [
            context.constant(node, name, np.atleast_1d(given[name])) if _some(given.get(name)) else "" for name in names
        ]
        return [_with_inputs(node, *more, drop=names)]

    return step


def _some(value: object) -> bool:
    return value is not None and value != ()


def _set(**attrs: object) -> Step:
    """Attributes that say what the old form meant by leaving them out."""
    return lambda node, context: [node.replace(attrs={**attrs, **node.attrs})]


def _drop(*names: str) -> Step:
    return lambda node, context: [node.replace(attrs=_without(node, *names))]


def _rename_value(attr: str, **words: str) -> Step:
    return lambda node, context: [
        node.replace(
            attrs={
                **node.attrs,
                **({attr: words.get(str(node.attrs[attr]), node.attrs[attr])} if attr in node.attrs else {}),
            }
        )
    ]


# --- attributes that became inputs ------------------------------------------------------------------------------

_axes = _attributes_to_inputs("axes")
_step(13, "Squeeze", "Unsqueeze", "ReduceSum")(_axes)
_step(
    18, *(f"Reduce{kind}" for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare"))
)(_axes)
_step(13, "Split")(_attributes_to_inputs("split"))
_step(10, "TopK")(_attributes_to_inputs("k"))
_step(10, "Slice")(_attributes_to_inputs("starts", "ends", "axes"))
_step(5, "Reshape")(_attributes_to_inputs("shape"))
_step(20, "DFT")(
    lambda node, context: [
        _with_inputs(
            node,
            *[""] * (2 - len(node.inputs)),
            context.constant(node, "axis", node.attrs.get("axis", 1)),
            drop=("axis",),
        )
    ]
)


@_step(11, "Clip")
def _clip(node: Node, context: Context) -> list[Node]:
    dtype = context.fact(node.inputs[0]).dtype or np.dtype(np.float32)
    bounds = []
    for name in ("min", "max"):
        value = node.attrs.get(name)
        # Either attribute's old default is the largest float32: no bound at all.
        unbounded = value is None or abs(float(value)) >= float(np.finfo(np.float32).max)
        bounds.append("" if unbounded else context.constant(node, name, value, dtype))
    return [_with_inputs(node, *bounds, drop=("min", "max"))]


@_step(2, "Pad")
def _pad_1(node: Node, context: Context) -> list[Node]:
    return [node.replace(attrs={**_without(node, "paddings"), "pads": node.attrs.get("paddings", ())})]


@_step(11, "Pad")
def _pad_2(node: Node, context: Context) -> list[Node]:
    dtype = context.fact(node.inputs[0]).dtype or np.dtype(np.float32)
    value = node.attrs.get("value", 0.0)
    more = [context.constant(node, "pads", node.attrs.get("pads", ()))]
    if value:
        more.append(context.constant(node, "value", value, dtype))
    return [_with_inputs(node, *more, drop=("pads", "value"))]


@_step(12, "Dropout")
def _dropout(node: Node, context: Context) -> list[Node]:
    ratio = context.constant(node, "ratio", node.attrs.get("ratio", 0.5), np.float32)
    return [_with_inputs(node, ratio, drop=("ratio",))]


@_step(18, "Split")
def _split(node: Node, context: Context) -> list[Node]:
    return [node if _input(node, 1) else node.replace(attrs={"num_outputs": len(node.outputs), **node.attrs})]


# --- attributes that went away ----------------------------------------------------------------------------------

_step(7, "Dropout")(_drop("is_test"))
_step(7, "Gemm")(_drop("broadcast"))  # C always broadcasts since
_step(7, "RNN", "GRU", "LSTM")(_drop("output_sequence"))


@_step(6, "Cast")
def _cast(node: Node, context: Context) -> list[Node]:
    to = node.attrs.get("to")
    if isinstance(to, str):
        if to.upper() not in list(TensorProto.DataType.keys()):
            raise ModelError(f"{node.label}: 'to' is {to!r}, which is no element type")
        to = TensorProto.DataType.Value(to.upper())
    return [node.replace(attrs={**node.attrs, "to": to})]


@_step(7, "Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Greater", "Less")
def _limited_broadcast(node: Node, context: Context) -> list[Node]:
    """``broadcast=1, axis=k`` lines up B's first dimension with A's k-th; without an axis it is NumPy's rule."""
    axis = node.attrs.get("axis")
    plain = node.replace(attrs=_without(node, "axis", "broadcast"))
    if axis is None or not node.attrs.get("broadcast", 0):
        return [plain]
    a, b = node.inputs
    rank_a, rank_b = context.rank(a, node), context.rank(b, node)
    return _line_up(plain, context, 1, rank_b, rank_a - rank_b - (axis + rank_a if axis < 0 else axis))


@_step(7, "PRelu")
def _prelu(node: Node, context: Context) -> list[Node]:
    """A slope per channel is 1-D in the old form; the new one broadcasts it as NumPy would."""
    slope = context.fact(node.inputs[1])
    if slope.rank != 1 or slope.shape == (1,):
        return [node]
    return _line_up(node, context, 1, 1, context.rank(node.inputs[0], node) - 2)


def _line_up(node: Node, context: Context, i: int, rank: int, trailing: int) -> list[Node]:
    """The node with ``trailing`` dimensions of size 1 appended to input ``i`` of this rank."""
    if trailing <= 0:
        return [node]
    lined, name = context.fresh(node, "lined_up"), node.inputs[i]
    axes = tuple(range(rank, rank + trailing))
    inputs = tuple(lined if j == i else n for j, n in enumerate(node.inputs))
    return [Node("Unsqueeze", (name,), (lined,), {"axes": axes}, lined), node.replace(inputs=inputs)]


# --- normalisation ----------------------------------------------------------------------------------------------


@_step(7, "BatchNormalization")
def _batch_norm_6(node: Node, context: Context) -> list[Node]:
    """``is_test`` is dropped: a network that is run is not trained, as later versions assume too."""
    return [node.replace(attrs=_without(node, "is_test"))]


@_step(9, "BatchNormalization")
def _batch_norm_7(node: Node, context: Context) -> list[Node]:
    """``spatial=0`` normalises every element by itself: its statistics have the shape of one sample."""
    if node.attrs.get("spatial", 1):
        return [node.replace(attrs=_without(node, "spatial"))]
    x, scale, bias, mean, variance = node.inputs
    dtype = context.fact(variance).dtype or np.dtype(np.float32)
    epsilon = context.constant(node, "epsilon", node.attrs.get("epsilon", 1e-5), dtype)
    t = {what: context.fresh(node, what) for what in ("shifted", "deviation", "centred", "normal", "scaled")}
    return [
        Node("Add", (variance, epsilon), (t["shifted"],), {}, t["shifted"]),
        Node("Sqrt", (t["shifted"],), (t["deviation"],), {}, t["deviation"]),
        Node("Sub", (x, mean), (t["centred"],), {}, t["centred"]),
        Node("Div", (t["centred"], t["deviation"]), (t["normal"],), {}, t["normal"]),
        Node("Mul", (t["normal"], scale), (t["scaled"],), {}, t["scaled"]),
        Node("Add", (t["scaled"], bias), node.outputs[:1], {}, node.name),
    ]


@_step(14, "BatchNormalization")
def _batch_norm_9(node: Node, context: Context) -> list[Node]:
    """The old form trains where its statistics are asked for (the reader has cut those nobody reads)."""
    if len(node.outputs) == 1:
        return [node]
    if any(node.outputs[3:]):
        raise UnsupportedError(
            f"{node.label}: the outputs saved_mean and saved_var went away in opset 14", (node.label,)
        )
    return [node.replace(outputs=node.outputs[:3], attrs={**node.attrs, "training_mode": 1})]


@_step(21, "GroupNormalization")
def _group_norm(node: Node, context: Context) -> list[Node]:
    """Scale and bias per group, (G), become per channel, (C): each repeated C / G times."""
    x, groups = node.inputs[0], int(node.attrs["num_groups"])
    shape = context.fact(x).shape
    channels: Dim = shape[1] if shape is not None and len(shape) > 1 else None
    if groups < 1 or (isinstance(channels, int) and channels % groups):
        raise ModelError(f"{node.label}: num_groups is {groups}, which does not divide {channels} channels")
    column, flat = context.constant(node, "column", (groups, 1)), context.constant(node, "flat", (-1,))
    nodes, inputs = [], [x]
    if isinstance(channels, int):
        full = context.constant(node, "full", (groups, channels // groups))
    else:
        count = context.constant(node, "groups", (groups,))
        size, each, full = (context.fresh(node, what) for what in ("channels", "each", "full"))
        nodes += [
            Node("Shape", (x,), (size,), {"start": 1, "end": 2}, size),
            Node("Div", (size, count), (each,), {}, each),
            Node("Concat", (count, each), (full,), {"axis": 0}, full),
        ]
    for name, what in zip(node.inputs[1:3], ("scale", "bias"), strict=True):
        a, b, c = (context.fresh(node, f"{what}_{part}") for part in ("column", "full", "flat"))
        nodes += [
            Node("Reshape", (name, column), (a,), {}, a),
            Node("Expand", (a, full), (b,), {}, b),
            Node("Reshape", (b, flat), (c,), {}, c),
        ]
        inputs.append(c)
    return [*nodes, node.replace(inputs=tuple(inputs))]


@_step(13, "Softmax", "LogSoftmax", "Hardmax")
def _softmax(node: Node, context: Context) -> list[Node]:
    """The old form flattens to 2-D at ``axis`` (default 1) and works along the rows; the new one along one axis."""
    x, axis = node.inputs[0], int(node.attrs.get("axis", 1))
    rank = context.fact(x).rank
    if axis == -1 or (rank is not None and axis in (rank - 1, -1)):
        return [node.replace(attrs={"axis": -1})]
    shape, flat, rows = (context.fresh(node, what) for what in ("shape", "flat", "rows"))
    return [
        Node("Shape", (x,), (shape,), {}, shape),
        Node("Flatten", (x,), (flat,), {"axis": axis}, flat),
        node.replace(inputs=(flat,), outputs=(rows,), attrs={"axis": -1}),
        Node("Reshape", (rows, shape), node.outputs, {}, context.fresh(node, "unflatten")),
    ]


# --- resizing and sampling --------------------------------------------------------------------------------------


@_step(7, "Upsample")
def _upsample_1(node: Node, context: Context) -> list[Node]:
    scales = (1.0, 1.0, float(node.attrs.get("height_scale", 1)), float(node.attrs.get("width_scale", 1)))
    return [node.replace(attrs={**_without(node, "height_scale", "width_scale"), "scales": scales})]


@_step(9, "Upsample")
def _upsample_7(node: Node, context: Context) -> list[Node]:
    scales = context.constant(node, "scales", node.attrs.get("scales", ()), np.float32)
    return [_with_inputs(node, scales, drop=("scales",))]


@_step(10, "Upsample")
def _upsample_9(node: Node, context: Context) -> list[Node]:
    mode = str(node.attrs.get("mode", "nearest"))
    return [node.replace(op="Resize", attrs={"mode": "linear" if mode == "bilinear" else mode})]


@_step(11, "Resize")
def _resize_10(node: Node, context: Context) -> list[Node]:
    """Coordinates start at the corner; nearest rounds down enlarging and up shrinking, as onnxruntime does."""
    x, scales = node.inputs
    attrs = {"mode": "nearest", **node.attrs, "coordinate_transformation_mode": "asymmetric"}
    if attrs["mode"] != "nearest":
        return [node.replace(inputs=(x, "", scales), attrs=attrs)]
    down, up = {**attrs, "nearest_mode": "ceil"}, {**attrs, "nearest_mode": "floor"}
    value = context.fact(scales).value
    if value is not None and (value >= 1).all():
        return [node.replace(inputs=(x, "", scales), attrs=up)]
    if value is not None and (value <= 1).all():
        return [node.replace(inputs=(x, "", scales), attrs=down)]
    shrunk, shrinking, enlarging = (context.fresh(node, what) for what in ("shrunk", "shrinking", "enlarging"))
    one = context.constant(node, "one", 1, np.float32)
    return [
        Node("Min", (scales, one), (shrinking,), {}, shrinking),
        Node("Max", (scales, one), (enlarging,), {}, enlarging),
        Node("Resize", (x, "", shrinking), (shrunk,), down, shrunk),
        node.replace(inputs=(shrunk, "", enlarging), attrs=up),
    ]


_HALF_PIXEL_TWIN = {"floor": "round_prefer_ceil", "round_prefer_floor": "ceil"}
"""tf_half_pixel_for_nn is half_pixel without the -0.5; these roundings of one are those of the other."""


@_step(13, "Resize")
def _resize_11(node: Node, context: Context) -> list[Node]:
    """tf_half_pixel_for_nn went away in 13; where half_pixel can say the same, it does."""
    attrs = dict(node.attrs)
    twin = _HALF_PIXEL_TWIN.get(str(attrs.get("nearest_mode", "round_prefer_floor")))
    known = attrs.get("coordinate_transformation_mode") == "tf_half_pixel_for_nn"
    if known and twin and attrs.get("mode", "nearest") == "nearest":
        attrs.update(coordinate_transformation_mode="half_pixel", nearest_mode=twin)
    return [_empty_to_absent(node.replace(attrs=attrs), context)]


def _empty_to_absent(node: Node, context: Context) -> Node:
    """Version 11 requires ``roi`` and ``scales`` and passes zero-length tensors for 'not given'."""
    inputs = [*node.inputs]
    for i in range(1, len(inputs)):
        value = context.fact(inputs[i]).value if inputs[i] else None
        if value is not None and value.size == 0:
            inputs[i] = ""
    return _with_inputs(node.replace(inputs=tuple(inputs)))


_step(20, "GridSample")(_rename_value("mode", bilinear="linear", bicubic="cubic"))
_step(16, "RoiAlign")(_set(coordinate_transformation_mode="output_half_pixel"))


# --- operators that went away -----------------------------------------------------------------------------------


@_step(11, "Scatter")
def _scatter(node: Node, context: Context) -> list[Node]:
    return [node.replace(op="ScatterElements")]


@_step(_ANY, "Crop")
def _crop(node: Node, context: Context) -> list[Node]:
    """Experimental, (N, C, H, W): ``border`` is left, top, right, bottom; ``scale`` the height and width kept."""
    left, top, right, bottom = (int(v) for v in node.attrs.get("border", (0, 0, 0, 0)))
    scale = node.attrs.get("scale")
    end = (
        (top + int(scale[0]), left + int(scale[1]))
        if scale
        else (-bottom or np.iinfo(np.int64).max, -right or np.iinfo(np.int64).max)
    )
    more = [
        context.constant(node, what, value)
        for what, value in (("starts", (top, left)), ("ends", end), ("axes", (2, 3)))
    ]
    return [Node("Slice", (node.inputs[0], *more), node.outputs, {}, node.name)]


@_step(_ANY, "ImageScaler")
def _image_scaler(node: Node, context: Context) -> list[Node]:
    """Experimental, (N, C, H, W): ``x * scale + bias[c]``."""
    dtype = context.fact(node.inputs[0]).dtype or np.dtype(np.float32)
    scaled = context.fresh(node, "scaled")
    scale = context.constant(node, "scale", node.attrs.get("scale", 1.0), dtype)
    bias = context.constant(node, "bias", np.reshape(node.attrs.get("bias", (0.0,)), (-1, 1, 1)), dtype)
    return [
        Node("Mul", (node.inputs[0], scale), (scaled,), {}, scaled),
        Node("Add", (scaled, bias), node.outputs, {}, node.name),
    ]


@_step(_ANY, "Affine")
def _affine(node: Node, context: Context) -> list[Node]:
    """Experimental: ``alpha * x + beta``."""
    dtype = context.fact(node.inputs[0]).dtype or np.dtype(np.float32)
    scaled = context.fresh(node, "scaled")
    alpha, beta = (context.constant(node, name, node.attrs.get(name, 1.0), dtype) for name in ("alpha", "beta"))
    return [
        Node("Mul", (node.inputs[0], alpha), (scaled,), {}, scaled),
        Node("Add", (scaled, beta), node.outputs, {}, node.name),
    ]


# --- changes that leave old nodes valid -------------------------------------------------------------------------

_DEFAULT = "the new attribute's default is the old behaviour"
_OPTIONAL = "the new or newly optional input may be left out"
_OUTPUT = "the new output may be left out"

SAME: dict[str, dict[int, str]] = {
    "ArgMax": {12: _DEFAULT},
    "ArgMin": {12: _DEFAULT},
    "AveragePool": {7: _DEFAULT, 10: _DEFAULT, 19: _DEFAULT},
    "Cast": {19: _DEFAULT, 24: _DEFAULT},
    "CastLike": {19: _DEFAULT, 24: _DEFAULT},
    "Constant": {11: _DEFAULT, 12: _DEFAULT},
    "DepthToSpace": {11: _DEFAULT},
    "DequantizeLinear": {13: _DEFAULT, 21: _DEFAULT, 23: _DEFAULT},
    "GatherND": {12: _DEFAULT},
    "Gemm": {11: _OPTIONAL},
    "GRU": {14: _DEFAULT},
    "LSTM": {14: _DEFAULT},
    "RNN": {14: _DEFAULT},
    "LpPool": {18: _DEFAULT},
    "MaxPool": {8: _OUTPUT, 10: _DEFAULT},
    "Pad": {18: _OPTIONAL},
    "QuantizeLinear": {13: _DEFAULT, 19: _DEFAULT, 21: _DEFAULT, 23: _DEFAULT},
    "Range": {27: _DEFAULT},
    "Reshape": {14: _DEFAULT},
    "Resize": {18: _DEFAULT},
    "ScatterElements": {16: _DEFAULT},
    "ScatterND": {16: _DEFAULT},
    "Shape": {15: _DEFAULT},
    "SpaceToDepth": {28: _DEFAULT},
    "TopK": {11: _DEFAULT},
}
