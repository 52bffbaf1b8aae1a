"""Reductions along axes, and the index of the extreme element."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sigconv.errors import ModelError
from sigconv.ops._infer import (
    ANY,
    FLOAT,
    INTEGER,
    NUMERIC,
    Attrs,
    Facts,
    axis_index,
    axis_indices,
    check_dtype,
    check_rank,
    fact,
    present,
    reduced_shape,
)
from sigconv.ops._numeric import accumulator, divide_truncated, greatest, is_float, least, widened
from sigconv.ops.spec import Fact, Infer, Shape, register

Axes = tuple[int, ...]
Reduction = Callable[[np.ndarray, Axes], np.ndarray]


def _sum(x: np.ndarray, axes: Axes) -> np.ndarray:
    return x.sum(axes, keepdims=True, dtype=accumulator(x.dtype))


def _mean(x: np.ndarray, axes: Axes) -> np.ndarray:
    count = int(np.prod([x.shape[a] for a in axes], dtype=np.int64))
    total = _sum(x, axes)
    return total / count if is_float(x.dtype) else divide_truncated(total, total.dtype.type(count))


def _square_sum(x: np.ndarray, axes: Axes) -> np.ndarray:
    return _sum(np.square(x, dtype=accumulator(x.dtype)), axes)


def _log_sum_exp(x: np.ndarray, axes: Axes) -> np.ndarray:
    x = x.astype(np.float64)
    top = x.max(axes, keepdims=True, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0)
    return np.log(_sum(np.exp(x - top), axes)) + top


REDUCTIONS: tuple[tuple[str, int, Reduction, frozenset[str], str], ...] = (
    ("ReduceSum", 13, _sum, NUMERIC, "rounding"),
    ("ReduceMean", 18, _mean, NUMERIC, "rounding"),
    ("ReduceProd", 18, lambda x, axes: x.prod(axes, keepdims=True, dtype=accumulator(x.dtype)), NUMERIC, "rounding"),
    ("ReduceMax", 20, lambda x, axes: x.max(axes, keepdims=True, initial=least(x.dtype)), ANY, "exact"),
    ("ReduceMin", 20, lambda x, axes: x.min(axes, keepdims=True, initial=greatest(x.dtype)), ANY, "exact"),
    ("ReduceL1", 18, lambda x, axes: _sum(np.abs(x), axes), NUMERIC, "rounding"),
    ("ReduceL2", 18, lambda x, axes: np.sqrt(_square_sum(x, axes)), NUMERIC, "rounding"),
    ("ReduceSumSquare", 18, _square_sum, NUMERIC, "rounding"),
    ("ReduceLogSum", 28, lambda x, axes: np.log(_sum(x, axes)), NUMERIC, "rounding"),
    ("ReduceLogSumExp", 28, _log_sum_exp, NUMERIC, "rounding"),
)


def _reduction(reduce: Reduction) -> Callable[..., np.ndarray]:
    @widened
    def reference(
        data: np.ndarray, axes: np.ndarray | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> np.ndarray:
        if axes is None or not axes.size:
            chosen: Axes = () if noop_with_empty_axes else tuple(range(data.ndim))
        else:
            chosen = axis_indices(axes.tolist(), data.ndim)
        out = np.asarray(reduce(data, chosen)).astype(accumulator(data.dtype), copy=False)
        return out if keepdims else out.reshape(reduced_shape(data.shape, chosen, False))

    return reference


def _infer_reduction(allowed: frozenset[str]) -> Infer:
    def infer(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
        check_dtype(fact(facts, 0).dtype, allowed)
        return [Fact(fact(facts, 0).dtype, _reduction_shape(facts, attrs))]

    return infer


def _reduction_shape(facts: Facts, attrs: Attrs) -> Shape | None:
    shape, axes, keepdims = fact(facts, 0).shape, fact(facts, 1), bool(attrs["keepdims"])
    if present(facts, 1):
        check_rank(axes, (1,), what="axes")
    if shape is None:
        return None
    count = axes.shape[0] if axes.shape is not None else None if present(facts, 1) else 0
    if axes.value is not None:
        count = axes.value.size
    if count == 0:
        return shape if attrs["noop_with_empty_axes"] else reduced_shape(shape, range(len(shape)), keepdims)
    if axes.value is not None:
        return reduced_shape(shape, axis_indices(axes.value.tolist(), len(shape)), keepdims)
    if keepdims:
        return (None,) * len(shape)
    return (None,) * max(0, len(shape) - count) if isinstance(count, int) else None


for _name, _since, _function, _allowed, _accuracy in REDUCTIONS:
    register(_name, infer=_infer_reduction(_allowed), since=_since, accuracy=_accuracy)(_reduction(_function))


def _infer_arg(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    given = fact(facts, 0)
    check_dtype(given.dtype, FLOAT | INTEGER)
    if given.shape is None:
        return [Fact(np.dtype(np.int64))]
    axis = axis_index(attrs["axis"], len(given.shape))
    if given.shape[axis] == 0:
        raise ModelError(f"axis {axis} of shape {given.shape} is empty; there is no index to select")
    return [Fact(np.dtype(np.int64), reduced_shape(given.shape, (axis,), bool(attrs["keepdims"])))]


def _arg(pick: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    @widened
    def reference(data: np.ndarray, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> np.ndarray:
        if not select_last_index:
            return pick(data, axis, keepdims=bool(keepdims)).astype(np.int64, copy=False)
        return (
            data.shape[axis] - 1 - pick(np.flip(data, axis), axis, keepdims=bool(keepdims)).astype(np.int64, copy=False)
        )

    return reference


register("ArgMax", infer=_infer_arg, since=13, accuracy="exact")(_arg(np.argmax))
register("ArgMin", infer=_infer_arg, since=13, accuracy="exact")(_arg(np.argmin))
