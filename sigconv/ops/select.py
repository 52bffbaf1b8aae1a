"""Operators that pick, order or place single elements by index or by value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sigconv.errors import ModelError
from sigconv.ops._infer import (
    BOOL,
    NUMERIC,
    Attrs,
    Facts,
    axis_index,
    broadcast_shapes,
    check_dtype,
    check_rank,
    common_dtype,
    fact,
    merge_dim,
)
from sigconv.ops._known import INDEX, check_choice, concrete, product, scalar, unknown
from sigconv.ops._numeric import widened
from sigconv.ops.spec import Dim, Fact, Shape, register

INT64 = np.dtype(np.int64)
REDUCTIONS: dict[str, Callable[..., Any]] = {
    "add": np.add.at,
    "mul": np.multiply.at,
    "max": np.maximum.at,
    "min": np.minimum.at,
}


def wrap_indices(indices: np.ndarray, size: int) -> np.ndarray:
    """Indices counted from the front; ModelError where one is outside [-size, size)."""
    outside = (indices < -size) | (indices >= size)
    if outside.any():
        raise ModelError(f"index {indices[outside].reshape(-1)[0]} is outside [{-size}, {size - 1}]")
    return np.where(indices < 0, indices + size, indices)


def _check_indices(given: Fact, size: Dim) -> None:
    check_dtype(given.dtype, INDEX, "indices")
    if given.value is not None and isinstance(size, int):
        wrap_indices(given.value, size)


def _infer_gather(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    data, indices = fact(facts, 0), fact(facts, 1)
    check_rank(data, least=1)
    if data.shape is None:
        return [Fact(data.dtype)]
    axis = axis_index(attrs["axis"], len(data.shape))
    _check_indices(indices, data.shape[axis])
    shape = None if indices.shape is None else (*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :])
    return [Fact(data.dtype, shape)]


@register("Gather", infer=_infer_gather, since=13, accuracy="exact")
def gather(data: np.ndarray, indices: np.ndarray, *, axis: int = 0) -> np.ndarray:
    """Whole slices along ``axis``, which the shape of ``indices`` replaces (a scalar drops it)."""
    axis = axis_index(axis, data.ndim)
    return np.asarray(np.take(data, wrap_indices(indices, data.shape[axis]), axis))


def _check_along(data: Fact, indices: Fact, axis: int) -> None:
    """ModelError unless an elementwise gather or scatter along ``axis`` fits both shapes."""
    check_rank(data, least=1)
    if data.shape is None:
        return
    check_rank(indices, (len(data.shape),), what="indices")
    axis = axis_index(axis, len(data.shape))
    _check_indices(indices, data.shape[axis])
    for i, (have, index) in enumerate(zip(data.shape, indices.shape or (), strict=False)):
        if i != axis and isinstance(have, int) and isinstance(index, int) and index > have:
            raise ModelError(f"indices of shape {indices.shape} exceed data of shape {data.shape} along axis {i}")


def _infer_gather_elements(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    data, indices = fact(facts, 0), fact(facts, 1)
    _check_along(data, indices, attrs["axis"])
    return [Fact(data.dtype, indices.shape)]


def _grid_index(indices: np.ndarray, shape: Sequence[int], axis: int) -> tuple[np.ndarray, ...]:
    """For each element of ``indices`` its full position in ``shape``: its own, save along ``axis``."""
    position = list(np.ogrid[tuple(slice(n) for n in indices.shape)])
    position[axis] = wrap_indices(indices, shape[axis])
    return tuple(position)


@register("GatherElements", infer=_infer_gather_elements, since=13, accuracy="exact")
def gather_elements(data: np.ndarray, indices: np.ndarray, *, axis: int = 0) -> np.ndarray:
    """For each position of ``indices``, the element of ``data`` there, its coordinate along ``axis`` replaced."""
    _check_along(Fact.of(data), Fact(indices.dtype, indices.shape), axis)
    return data[_grid_index(indices, data.shape, axis_index(axis, data.ndim))]


def _gather_nd_shape(data: Shape, indices: Shape, batch_dims: int) -> Shape | None:
    if not 0 <= batch_dims < min(len(data), len(indices)):
        raise ModelError(
            f"batch_dims is {batch_dims}; it must be less than the ranks of data {data} and indices {indices}"
        )
    depth = indices[-1]
    if not isinstance(depth, int):
        return None
    if batch_dims + depth > len(data):
        raise ModelError(
            f"indices of shape {indices} name {depth} axes after {batch_dims} batch axes, but data has shape {data}"
        )
    batch = tuple(
        merge_dim(d, i, "batch sizes of data and indices") for d, i in zip(data, indices[:batch_dims], strict=False)
    )
    return (*batch, *indices[batch_dims:-1], *data[batch_dims + depth :])


def _infer_gather_nd(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    data, indices = fact(facts, 0), fact(facts, 1)
    check_dtype(indices.dtype, INDEX, "indices")
    if data.shape is None or indices.shape is None:
        return [Fact(data.dtype)]
    return [Fact(data.dtype, _gather_nd_shape(data.shape, indices.shape, attrs["batch_dims"]))]


def _nd_index(indices: np.ndarray, shape: Sequence[int]) -> tuple[np.ndarray, ...]:
    return tuple(wrap_indices(indices[..., i], size) for i, size in enumerate(shape[: indices.shape[-1]]))


@register("GatherND", infer=_infer_gather_nd, since=13, accuracy="exact")
def gather_nd(data: np.ndarray, indices: np.ndarray, *, batch_dims: int = 0) -> np.ndarray:
    """Slices of ``data`` named by the vectors along the last axis of ``indices``, batch by batch."""
    shape = concrete(_gather_nd_shape(data.shape, indices.shape, batch_dims))
    batch = np.ogrid[tuple(slice(n) for n in data.shape[:batch_dims])]
    inner = indices.ndim - batch_dims - 1
    own = tuple(b.reshape(b.shape + (1,) * inner) for b in batch)
    return np.asarray(data[own + _nd_index(indices, data.shape[batch_dims:])]).reshape(shape)


def _scatter(data: np.ndarray, index: tuple[np.ndarray, ...], updates: np.ndarray, reduction: str) -> np.ndarray:
    result = data.copy()
    if reduction == "none":
        result[index] = updates
    else:
        REDUCTIONS[reduction](result, index, updates)
    return result


def _infer_scatter_elements(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    data, indices, updates = fact(facts, 0), fact(facts, 1), fact(facts, 2)
    check_choice(attrs["reduction"], ("none", *REDUCTIONS), "reduction")
    _check_along(data, indices, attrs["axis"])
    if indices.static and updates.static and indices.shape != updates.shape:
        raise ModelError(f"indices of shape {indices.shape} and updates of shape {updates.shape} must have one shape")
    return [Fact(common_dtype(facts, (0, 2)), data.shape)]


@register("ScatterElements", infer=_infer_scatter_elements, since=18)
def scatter_elements(
    data: np.ndarray, indices: np.ndarray, updates: np.ndarray, *, axis: int = 0, reduction: str = "none"
) -> np.ndarray:
    """``data`` with each update put (or combined by ``reduction``) where GatherElements would read it."""
    _infer_scatter_elements([Fact.of(x) for x in (data, indices, updates)], {"axis": axis, "reduction": reduction}, 1)
    return _scatter(data, _grid_index(indices, data.shape, axis_index(axis, data.ndim)), updates, reduction)


def _infer_scatter_nd(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    data, indices, updates = fact(facts, 0), fact(facts, 1), fact(facts, 2)
    check_choice(attrs["reduction"], ("none", *REDUCTIONS), "reduction")
    check_dtype(indices.dtype, INDEX, "indices")
    if data.shape is not None and indices.shape is not None and updates.static:
        expected = _gather_nd_shape(data.shape, indices.shape, 0)
        if expected is not None and all(isinstance(d, int) for d in expected) and expected != updates.shape:
            raise ModelError(
                f"updates of shape {updates.shape} must have shape {expected}, "
                f"as data has shape {data.shape} and indices have shape {indices.shape}"
            )
    return [Fact(common_dtype(facts, (0, 2)), data.shape)]


@register("ScatterND", infer=_infer_scatter_nd, since=18)
def scatter_nd(data: np.ndarray, indices: np.ndarray, updates: np.ndarray, *, reduction: str = "none") -> np.ndarray:
    """``data`` with each update put (or combined by ``reduction``) where GatherND would read it."""
    _infer_scatter_nd([Fact.of(x) for x in (data, indices, updates)], {"reduction": reduction}, 1)
    return _scatter(data, _nd_index(indices, data.shape), updates, reduction)


def _infer_where(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    check_dtype(fact(facts, 0).dtype, BOOL, "condition")
    return [Fact(common_dtype(facts, (1, 2)), broadcast_shapes(*(fact(facts, i).shape for i in range(3))))]


@register("Where", infer=_infer_where, since=16, accuracy="exact")
def where(condition: np.ndarray, X: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """``X`` where the condition holds, else ``Y``; all three broadcast."""
    return np.where(condition, X, Y)


def _infer_compress(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    given, condition, axis = fact(facts, 0), fact(facts, 1), attrs["axis"]
    check_dtype(condition.dtype, BOOL, "condition")
    check_rank(condition, (1,), what="condition")
    kept = None if condition.value is None else int(np.count_nonzero(condition.value))
    if axis is None:
        return [Fact(given.dtype, (kept,))]
    if given.shape is None:
        return [Fact(given.dtype)]
    axis = axis_index(axis, len(given.shape))
    return [Fact(given.dtype, (*given.shape[:axis], kept, *given.shape[axis + 1 :]))]


@register("Compress", infer=_infer_compress, since=28, accuracy="exact")
def compress(input: np.ndarray, condition: np.ndarray, *, axis: int | None = None) -> np.ndarray:
    """The slices along ``axis`` (default: elements of the flat input) whose condition holds; a short one ends it."""
    size = input.size if axis is None else input.shape[axis_index(axis, input.ndim)]
    if len(condition) > size:
        raise ModelError(f"condition has {len(condition)} entries for {size} slices")
    return np.compress(condition, input, axis)


def _infer_nonzero(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    rank = fact(facts, 0).rank
    return [Fact(INT64, (None if rank is None else max(rank, 1), None))]


@register("NonZero", infer=_infer_nonzero, since=13, accuracy="exact")
def nonzero(X: np.ndarray) -> np.ndarray:
    """The positions of all elements that are not zero, int64 of shape (rank, count); a scalar counts as a vector."""
    return np.stack(np.nonzero(np.atleast_1d(X))).astype(np.int64)


def _infer_topk(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    given, k = fact(facts, 0), scalar(facts, 1, "K")
    check_dtype(given.dtype, NUMERIC)
    check_rank(given, least=1)
    if given.shape is None:
        return [Fact(given.dtype), Fact(INT64)][:n]
    axis = axis_index(attrs["axis"], len(given.shape))
    size = given.shape[axis]
    if k is not None and (k < 0 or (isinstance(size, int) and k > size)):
        raise ModelError(f"K is {k}; accepted is 0 to {size}, the size of axis {axis} of shape {given.shape}")
    shape = (*given.shape[:axis], None if k is None else int(k), *given.shape[axis + 1 :])
    return [Fact(given.dtype, shape), Fact(INT64, shape)][:n]


@register("TopK", infer=_infer_topk, since=24, accuracy="exact")
def topk(
    X: np.ndarray, K: np.ndarray, *, axis: int = -1, largest: int = 1, sorted: int = 1, n_outputs: int = 2
) -> tuple[np.ndarray, ...]:
    """The K largest (smallest) elements along ``axis`` and their indices, in order; the lower index wins a tie."""
    _infer_topk([Fact.of(X), Fact.of(K)], {"axis": axis}, 2)
    if largest:
        # Sorted backwards from the end, equal elements keep their order.
        backwards = np.argsort(np.flip(X, axis), axis, kind="stable")
        order = X.shape[axis] - 1 - np.flip(backwards, axis)
    else:
        order = np.argsort(X, axis, kind="stable")
    indices = np.take(order, range(int(np.reshape(K, ()))), axis).astype(np.int64)
    return (np.take_along_axis(X, indices, axis), indices)[:n_outputs]


def _infer_cumsum(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    given, axis = fact(facts, 0), scalar(facts, 1, "axis")
    check_dtype(given.dtype, NUMERIC)
    if given.shape is not None and axis is not None:
        axis_index(int(axis), len(given.shape))
    return [Fact(given.dtype, given.shape)]


@register("CumSum", infer=_infer_cumsum, since=14)
@widened
def cumsum(x: np.ndarray, axis: np.ndarray, *, exclusive: int = 0, reverse: int = 0) -> np.ndarray:
    """Running sums along ``axis``, from the end if ``reverse``, without the element itself if ``exclusive``."""
    along = axis_index(int(np.reshape(axis, ())), x.ndim)
    y = np.flip(x, along) if reverse else x
    y = np.cumsum(y, along, dtype=x.dtype)
    if exclusive:
        y = np.roll(y, 1, along)
        y[(slice(None),) * along + (slice(1),)] = 0
    return np.flip(y, along) if reverse else y


@register("CumProd", infer=_infer_cumsum, since=26)
@widened
def cumprod(x: np.ndarray, axis: np.ndarray, *, exclusive: int = 0, reverse: int = 0) -> np.ndarray:
    """Running products along ``axis``, as `cumsum` has sums."""
    along = axis_index(int(np.reshape(axis, ())), x.ndim)
    y = np.flip(x, along) if reverse else x
    y = np.cumprod(y, along, dtype=x.dtype)
    if exclusive:
        y = np.roll(y, 1, along)
        y[(slice(None),) * along + (slice(1),)] = 1
    return np.flip(y, along) if reverse else y


def _infer_unique(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    given, axis = fact(facts, 0), attrs["axis"]
    length: Dim = None if given.shape is None else product(given.shape)
    shape: Shape | None = (None,)
    if axis is not None:
        shape = unknown(given.rank)
        if given.shape is not None:
            axis = axis_index(axis, len(given.shape))
            length = given.shape[axis]
            shape = tuple(None if i == axis else d for i, d in enumerate(given.shape))
    return [Fact(given.dtype, shape), Fact(INT64, (None,)), Fact(INT64, (length,)), Fact(INT64, (None,))][:n]


@register("Unique", infer=_infer_unique, since=28, accuracy="exact")
def unique(X: np.ndarray, *, axis: int | None = None, sorted: int = 1, n_outputs: int = 4) -> tuple[np.ndarray, ...]:
    """Distinct elements (slices along ``axis``), their first indices, where each input went, and counts.

    In ascending order, or in order of first occurrence if not ``sorted``.
    """
    y, first, inverse, counts = np.unique(X, return_index=True, return_inverse=True, return_counts=True, axis=axis)
    inverse = inverse.reshape(-1)
    if not sorted:
        order = np.argsort(first)
        y, first, counts = np.take(y, order, 0 if axis is None else axis), first[order], counts[order]
        inverse = np.argsort(order)[inverse]
    return (y, first.astype(np.int64), inverse.astype(np.int64), counts.astype(np.int64))[:n_outputs]


def _infer_nms(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    boxes, scores = fact(facts, 0), fact(facts, 1)
    for given, what in ((boxes, "boxes"), (scores, "scores")):
        check_rank(given, (3,), what=what)
        check_dtype(given.dtype, ("float32",), what)
    if boxes.shape is not None and scores.shape is not None:
        merge_dim(boxes.shape[0], scores.shape[0], "batches of boxes and scores")
        merge_dim(boxes.shape[1], scores.shape[2], "numbers of boxes and scores")
        merge_dim(boxes.shape[2], 4, "sizes of a box")
    return [Fact(INT64, (None, 3))]


def _overlap(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of one (low y, low x, high y, high x) box with others; 0 where a union is empty."""
    extent = np.maximum(np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2]), 0)
    common = extent.prod(-1)
    union = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(-1) - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


@register("NonMaxSuppression", infer=_infer_nms, since=11, accuracy="exact")
def non_max_suppression(
    boxes: np.ndarray,
    scores: np.ndarray,
    max_output_boxes_per_class: np.ndarray | None = None,
    iou_threshold: np.ndarray | None = None,
    score_threshold: np.ndarray | None = None,
    *,
    center_point_box: int = 0,
) -> np.ndarray:
    """int64 rows (batch, class, box), best score first, of boxes that no better one overlaps beyond ``iou_threshold``.

    ``boxes`` are two corners (y, x, y, x) in any order, or (x centre, y centre, width, height) if ``center_point_box``.
    """
    _infer_nms([Fact.of(boxes), Fact.of(scores)], {}, 1)
    most, overlap, least = (
        None if v is None else np.reshape(v, ())[()]
        for v in (max_output_boxes_per_class, iou_threshold, score_threshold)
    )
    first, second = boxes[..., :2], boxes[..., 2:]
    if center_point_box:
        first, second = (first - second / 2)[..., ::-1], (first + second / 2)[..., ::-1]
    corners = np.concatenate([np.minimum(first, second), np.maximum(first, second)], -1)
    selected = []
    for batch, label in np.ndindex(scores.shape[:2]):
        score = scores[batch, label]
        order = np.argsort(-score, kind="stable")
        if least is not None:
            order = order[score[order] > least]
        kept = 0
        while len(order) and kept < (most or 0):
            best, order = order[0], order[1:]
            selected.append((batch, label, best))
            kept += 1
            order = order[_overlap(corners[batch, best], corners[batch, order]) <= (overlap or 0)]
    return np.array(selected, np.int64).reshape(-1, 3)
