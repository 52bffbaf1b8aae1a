"""Receptive fields: how much of the input each value sees, axis by axis.

A window of extent ``k`` and stride ``s`` on values that are ``j`` input elements apart widens what they see by
``(k - 1) j`` and puts its outputs ``j s`` apart (Araujo, Norris & Sim, Computing Receptive Fields of Convolutional
Neural Networks, Distill 2019). Padding does not count. Values that meet see what either sees. After a transposed
convolution, whose outputs see more or fewer inputs in turn, the size is an upper bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import sigconv.ops  # noqa: F401  (fills the registry)
from sigconv.graph.ir import Graph, Node
from sigconv.ops.spec import REGISTRY, Fact

Number = Fraction | float


@dataclass(frozen=True)
class Axis:
    """An axis that runs along axis ``origin`` of the input: elements see ``size`` of it and are ``jump`` apart."""

    origin: int
    size: Number = Fraction(1)
    jump: Fraction = Fraction(1)

    def window(self, extent: int, stride: Fraction) -> Axis:
        return Axis(self.origin, self.size + (extent - 1) * self.jump, self.jump * stride)


@dataclass(frozen=True)
class Reach:
    """What a value sees: its axes (None: along none of the input's), and input axes seen ``whole``.

    ``folded`` are those that a Reshape put into another: whoever sums over that one sees them whole.
    """

    axes: tuple[Axis | None, ...]
    whole: frozenset[int] = field(default_factory=frozenset)
    folded: frozenset[int] = field(default_factory=frozenset)

    def sizes(self) -> dict[int, float]:
        """Elements seen along each axis of the input but the first; infinity for all of them."""
        found = {a.origin: a.size for a in self.axes if a is not None and a.origin > 0 and a.size != 1}
        found |= dict.fromkeys(self.whole - {0}, math.inf)
        return {k: math.inf if found[k] == math.inf else math.floor(found[k]) for k in sorted(found)}

    def __str__(self) -> str:
        sizes = list(self.sizes().values())
        return (
            "all" if sizes and set(sizes) == {math.inf} else "x".join("all" if s == math.inf else str(s) for s in sizes)
        )

    def without(self, axes: Sequence[int]) -> Reach:
        """After a sum over the axes, which stay in their places."""
        gone = {a.origin for a in (self.axes[i] for i in axes) if a is not None}
        kept = tuple(None if i in axes else a for i, a in enumerate(self.axes))
        return Reach(kept, self.whole | gone | self.folded)


Rule = Callable[[Node, Sequence[Reach | None], Mapping[str, Fact]], Reach | None]


def reaches(graph: Graph, facts: Mapping[str, Fact]) -> dict[str, Reach]:
    """What every value sees of the input it comes from; values of operators without a rule are left out."""
    known: dict[str, Reach] = {}
    for value in graph.inputs:
        shape = facts[value.name].shape
        if shape is not None:
            known[value.name] = Reach(tuple(Axis(i) for i in range(len(shape))))
    for node in graph.nodes:
        inputs = [known.get(name) for name in node.inputs]
        rule = RULES.get(node.op)
        found = rule(node, inputs, facts) if rule is not None and any(inputs) else None
        known.update({out: found for out in node.outputs if out and found is not None})
    return known


def _rank(node: Node, facts: Mapping[str, Fact]) -> int | None:
    shape = facts[node.outputs[0]].shape if node.outputs[0] in facts else None
    return None if shape is None else len(shape)


def _joined(node: Node, inputs: Sequence[Reach | None], facts: Mapping[str, Fact]) -> Reach | None:
    """Values that meet element by element, the last axes aligned."""
    rank, given = _rank(node, facts), [r for r in inputs if r is not None]
    if rank is None:
        return None
    axes: list[Axis | None] = []
    for i in range(-rank, 0):
        met = [a for a in (r.axes[i] if -i <= len(r.axes) else None for r in given) if a is not None]
        same = {a.origin for a in met}
        axes.append(max(met, key=lambda a: a.size) if len(same) == 1 else None)
    whole, folded = (frozenset().union(*sets) for sets in zip(*((r.whole, r.folded) for r in given), strict=True))
    return Reach(tuple(axes), whole, folded)


def _conv(weight: int) -> Rule:
    def rule(node: Node, inputs: Sequence[Reach | None], facts: Mapping[str, Fact]) -> Reach | None:
        x, shape = inputs[0], facts[node.inputs[weight]].shape if weight else None
        kernel = node.attrs.get("kernel_shape") or (shape or ())[2:]
        if x is None or not kernel or not all(isinstance(k, int) for k in kernel) or len(x.axes) != len(kernel) + 2:
            return None
        ones = (1,) * len(kernel)
        windows = zip(
            kernel, node.attrs.get("strides") or ones, node.attrs.get("dilations") or ones, x.axes[2:], strict=True
        )
        axes = tuple(a and a.window((k - 1) * d + 1, Fraction(s)) for k, s, d, a in windows)
        return replace(x, axes=(x.axes[0], None if weight else x.axes[1], *axes))

    return rule


def _conv_transpose(node: Node, inputs: Sequence[Reach | None], facts: Mapping[str, Fact]) -> Reach | None:
    x, shape = inputs[0], facts[node.inputs[1]].shape
    kernel = node.attrs.get("kernel_shape") or (shape or ())[2:]
    if x is None or not kernel or not all(isinstance(k, int) for k in kernel) or len(x.axes) != len(kernel) + 2:
        return None
    ones = (1,) * len(kernel)
    windows = zip(
        kernel, node.attrs.get("strides") or ones, node.attrs.get("dilations") or ones, x.axes[2:], strict=True
    )
    axes = tuple(a and a.window(-(-((k - 1) * d + 1) // s), Fraction(1, s)) for k, s, d, a in windows)
    return replace(x, axes=(x.axes[0], None, *axes))


def _over(axes_of: Callable[[Node, int, Mapping[str, Fact]], Sequence[int] | None], drop: bool = False) -> Rule:
    """A sum, mean or normalisation over axes."""

    def rule(node: Node, inputs: Sequence[Reach | None], facts: Mapping[str, Fact]) -> Reach | None:
        x = inputs[0]
        axes = None if x is None else axes_of(node, len(x.axes), facts)
        if x is None or axes is None:
            return None
        found = x.without([a % len(x.axes) for a in axes])
        if drop and not node.attrs.get("keepdims", 1):
            gone = {a % len(x.axes) for a in axes}
            found = replace(found, axes=tuple(a for i, a in enumerate(found.axes) if i not in gone))
        return found

    return rule


def _reduced(node: Node, rank: int, facts: Mapping[str, Fact]) -> Sequence[int] | None:
    if len(node.inputs) < 2 or not node.inputs[1]:
        return range(rank) if not node.attrs.get("noop_with_empty_axes") else ()
    value = facts[node.inputs[1]].value
    return None if value is None else [int(a) for a in value.reshape(-1)]


def _product(node: Node, inputs: Sequence[Reach | None], facts: Mapping[str, Fact]) -> Reach | None:
    x, rank = inputs[0], _rank(node, facts)
    if x is None or rank is None or len(x.axes) != rank:
        return None
    return x.without([0 if node.attrs.get("transA") else rank - 1])


def _transpose(node: Node, inputs: Sequence[Reach | None], facts: Mapping[str, Fact]) -> Reach | None:
    x = inputs[0]
    if x is None:
        return None
    return replace(x, axes=tuple(x.axes[i] for i in node.attrs.get("perm") or reversed(range(len(x.axes)))))


def _reshape(node: Node, inputs: Sequence[Reach | None], facts: Mapping[str, Fact]) -> Reach | None:
    """Axes that keep their size keep what they see, from the front; the others are folded into one another."""
    x, before, after = inputs[0], facts[node.inputs[0]].shape, facts[node.outputs[0]].shape
    if x is None or before is None or after is None:
        return None
    old = [(d, a) for d, a in zip(before, x.axes, strict=True) if d != 1]
    axes: list[Axis | None] = []
    for i, d in enumerate(after):
        if d == 1:
            axes.append(None)
        elif old and (d == old[0][0] or (len(old) == 1 and all(e == 1 for e in after[i + 1 :]))):
            axes.append(old.pop(0)[1])
        else:
            axes += [None] * (len(after) - i)
            break
    lost = frozenset(a.origin for _, a in old if a is not None)
    ones = frozenset(a.origin for d, a in zip(before, x.axes, strict=True) if a is not None and d == 1 and a.size != 1)
    return Reach(tuple(axes), x.whole | ones, x.folded | lost)


def _resize(node: Node, inputs: Sequence[Reach | None], facts: Mapping[str, Fact]) -> Reach | None:
    x, before, after = inputs[0], facts[node.inputs[0]].shape, facts[node.outputs[0]].shape
    given = facts[node.inputs[2]].value if len(node.inputs) > 2 and node.inputs[2] else None
    if x is None:
        return None
    if given is not None and given.size == len(x.axes):
        scales = [Fraction(float(s)).limit_denominator(4096) for s in given]
    elif before and after and all(isinstance(d, int) and d for d in (*before, *after)):
        scales = [Fraction(int(b or 1), int(a or 1)) for a, b in zip(before, after, strict=True)]
    else:
        return None
    extent = {"nearest": 1, "linear": 2, "cubic": 4}.get(node.attrs.get("mode", "nearest"), 1)
    if len(scales) != len(x.axes) or not all(s > 0 for s in scales):
        return None
    return replace(
        x, axes=tuple(a and (a if s == 1 else a.window(extent, 1 / s)) for a, s in zip(x.axes, scales, strict=True))
    )


def _blocks(deeper: bool) -> Rule:
    def rule(node: Node, inputs: Sequence[Reach | None], facts: Mapping[str, Fact]) -> Reach | None:
        x, b = inputs[0], int(node.attrs["blocksize"])
        if x is None:
            return None
        axes = tuple(a and a.window(*((b, Fraction(b)) if deeper else (1, Fraction(1, b)))) for a in x.axes[2:])
        return replace(x, axes=(x.axes[0], None, *axes))

    return rule


def _pointwise() -> set[str]:
    modules = ("elementwise", "activation", "cast")
    found = {op for (_, op), spec in REGISTRY.items() if spec.reference.__module__.rpartition(".")[2] in modules}
    found |= {"BatchNormalization", "Where", "Identity", "Dropout", "Concat", "Pad", "Slice", "QuantizeLinear"}
    found |= {"DequantizeLinear", "QLinearAdd", "QLinearMul", "QLinearSigmoid", "QLinearLeakyRelu"}
    return found


def _at(name: str, default: int) -> Callable[[Node, int, Mapping[str, Fact]], Sequence[int]]:
    return lambda node, rank, facts: [int(node.attrs.get(name, default))]


def _spatial(node: Node, rank: int, facts: Mapping[str, Fact]) -> Sequence[int]:
    return range(2, rank)


def _from_axis(node: Node, rank: int, facts: Mapping[str, Fact]) -> Sequence[int]:
    return range(int(node.attrs.get("axis", -1)) % rank, rank)


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(_pointwise(), _joined),
    "Conv": _conv(1), "ConvInteger": _conv(1), "QLinearConv": _conv(3), "ConvTranspose": _conv_transpose,
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool", "QLinearAveragePool"), _conv(0)),
    **dict.fromkeys(
        ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "QLinearGlobalAveragePool", "InstanceNormalization"),
        _over(_spatial),
    ),
    "GroupNormalization": _over(_spatial),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), _over(_from_axis)),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax", "QLinearSoftmax", "LpNormalization"), _over(_at("axis", -1))),
    **{op: _over(_reduced, drop=True) for _, op in REGISTRY if op.startswith("Reduce")},
    "ArgMax": _over(_at("axis", 0), drop=True), "ArgMin": _over(_at("axis", 0), drop=True),
    **dict.fromkeys(("Gemm", "MatMul", "MatMulInteger", "QLinearMatMul", "QGemm"), _product),
    "Transpose": _transpose, "Resize": _resize, "DepthToSpace": _blocks(False), "SpaceToDepth": _blocks(True),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape),
}  # fmt: skip
"""How each operator changes what is seen."""
