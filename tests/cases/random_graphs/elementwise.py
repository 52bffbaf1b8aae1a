"""Operators element by element."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tests.cases.random_graphs.maker import Maker, kind

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
