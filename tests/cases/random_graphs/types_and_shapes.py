"""Integers, booleans, data-dependent shapes."""

from __future__ import annotations

import math

import numpy as np

from tests.cases.random_graphs.maker import Made, Maker, kind


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
