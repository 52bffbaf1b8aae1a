"""Products of matrices, and reductions."""

from __future__ import annotations

import numpy as np

from tests.cases.random_graphs.cnn_layers import epilogue
from tests.cases.random_graphs.maker import CHANNELS, Maker, kind


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
    epilogue(m, y)
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
