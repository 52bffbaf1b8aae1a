"""Operators that change or report a tensor's shape and leave its elements where they are."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sigconv.errors import ModelError
from sigconv.ops._infer import Attrs, Facts, axis_indices, broadcast_shapes, fact, present, unary
from sigconv.ops._known import as_ints, check_not_negative, concrete, count, ints, product, scalar, unknown
from sigconv.ops.spec import Dim, Fact, Shape, register


def resolve_reshape(shape: Shape, target: Sequence[int], allowzero: bool = False) -> Shape:
    """The shape that Reshape gives a tensor of ``shape``; sizes may be symbolic or unknown.

    A 0 in ``target`` copies the input's size there (with ``allowzero``: means 0), one -1 takes what is left. Copied
    sizes cancel, so ``(0, -1)`` is well defined for an empty or symbolic batch. ModelError where no size fits.
    """

    def refuse(why: str) -> ModelError:
        return ModelError(f"shape {shape} cannot be reshaped to {tuple(target)}{' with allowzero' * allowzero}: {why}")

    copied = {i for i, t in enumerate(target) if t == 0 and not allowzero}
    if any(t < -1 for t in target) or list(target).count(-1) > 1:
        raise refuse("sizes are not negative, save for one -1")
    if copied and max(copied) >= len(shape):
        raise refuse(f"the 0 at position {max(copied)} copies a size, and the input has {len(shape)}")
    if allowzero and 0 in target and -1 in target:
        raise refuse("with a 0, the -1 could be any size")

    sizes: list[Dim] = [shape[i] if i in copied else t for i, t in enumerate(target)]
    pool = [d for i, d in enumerate(shape) if i not in copied]
    have = math.prod(d for d in pool if isinstance(d, int))
    want = math.prod(t for i, t in enumerate(target) if t != -1 and i not in copied)
    symbols = [d for d in pool if not isinstance(d, int)]
    if -1 in target:
        if want and have % want == 0:
            sizes[target.index(-1)] = product([have // want, *symbols])
        elif symbols:
            sizes[target.index(-1)] = None
        else:
            raise refuse(f"{have} elements do not divide into blocks of {want}")
    elif not symbols and have != want and not any(shape[i] == 0 for i in copied):
        raise refuse(f"{_elements(shape)} are not {_elements(sizes)}")
    elif symbols and have and want % have:
        raise refuse(f"{want} elements are not a multiple of {have}")
    return tuple(sizes)


def _elements(sizes: Sequence[Dim]) -> str:
    return f"{' x '.join(map(str, sizes)) or '1'} elements"


def _infer_reshape(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    data, target = fact(facts, 0), ints(facts, 1, "shape")
    if target is None or (data.shape is None and 0 in target and not attrs["allowzero"]):
        return [Fact(data.dtype, unknown(count(facts, 1) if target is None else len(target)))]
    if data.shape is None:
        return [Fact(data.dtype, tuple(None if t == -1 else t for t in target))]
    return [Fact(data.dtype, resolve_reshape(data.shape, target, bool(attrs["allowzero"])))]


@register("Reshape", infer=_infer_reshape, since=25, accuracy="exact")
def reshape(data: np.ndarray, shape: np.ndarray, *, allowzero: int = 0) -> np.ndarray:
    """The same elements in the same order under a new shape; see `resolve_reshape`."""
    return data.reshape(concrete(resolve_reshape(data.shape, as_ints(shape), bool(allowzero))))


def flatten_shape(shape: Shape, axis: int) -> Shape:
    """(product of the sizes before ``axis``, product of the rest); ``axis`` in [-rank, rank]."""
    rank = len(shape)
    if not -rank <= axis <= rank:
        raise ModelError(f"axis {axis} is outside [{-rank}, {rank}] for a tensor of rank {rank}")
    axis += rank if axis < 0 else 0
    return product(shape[:axis]), product(shape[axis:])


def _infer_flatten(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    given = fact(facts, 0)
    return [Fact(given.dtype, (None, None) if given.shape is None else flatten_shape(given.shape, attrs["axis"]))]


@register("Flatten", infer=_infer_flatten, since=25, accuracy="exact")
def flatten(input: np.ndarray, *, axis: int = 1) -> np.ndarray:
    """A matrix of the sizes before and from ``axis`` on."""
    return input.reshape(concrete(flatten_shape(input.shape, axis)))


def squeeze_shape(shape: Shape, axes: Sequence[int] | None) -> Shape | None:
    """``shape`` without ``axes`` (default: every size of 1; None where that cannot be told)."""
    if axes is None:
        return tuple(d for d in shape if d != 1) if all(isinstance(d, int) for d in shape) else None
    dropped = axis_indices(axes, len(shape))
    for a in dropped:
        if isinstance(shape[a], int) and shape[a] != 1:
            raise ModelError(f"axis {a} of shape {shape} cannot be squeezed: its size is {shape[a]}, not 1")
    return tuple(d for i, d in enumerate(shape) if i not in dropped)


def _infer_squeeze(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    data, axes = fact(facts, 0), ints(facts, 1, "axes")
    if data.shape is None:
        return [Fact(data.dtype)]
    if present(facts, 1) and axes is None:
        dropped = count(facts, 1)
        return [Fact(data.dtype, unknown(None if dropped is None else len(data.shape) - dropped))]
    return [Fact(data.dtype, squeeze_shape(data.shape, axes))]


@register("Squeeze", infer=_infer_squeeze, since=25, accuracy="exact")
def squeeze(data: np.ndarray, axes: np.ndarray | None = None) -> np.ndarray:
    """Drop axes of size 1."""
    return data.reshape(concrete(squeeze_shape(data.shape, None if axes is None else as_ints(axes))))


def unsqueeze_shape(shape: Shape, axes: Sequence[int]) -> Shape:
    """``shape`` with sizes of 1 at ``axes`` of the result."""
    rank = len(shape) + len(axes)
    added, rest = axis_indices(axes, rank), iter(shape)
    return tuple(1 if i in added else next(rest) for i in range(rank))


def _infer_unsqueeze(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    data, axes = fact(facts, 0), ints(facts, 1, "axes")
    if data.shape is None:
        return [Fact(data.dtype)]
    if axes is None:
        added = count(facts, 1)
        return [Fact(data.dtype, unknown(None if added is None else len(data.shape) + added))]
    return [Fact(data.dtype, unsqueeze_shape(data.shape, axes))]


@register("Unsqueeze", infer=_infer_unsqueeze, since=25, accuracy="exact")
def unsqueeze(data: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Insert axes of size 1."""
    return data.reshape(concrete(unsqueeze_shape(data.shape, as_ints(axes))))


def _infer_expand(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    data, target = fact(facts, 0), ints(facts, 1, "shape")
    if target is not None:
        return [Fact(data.dtype, broadcast_shapes(data.shape, check_not_negative(target, "shape")))]
    length = count(facts, 1)
    if data.shape is None or length is None:
        return [Fact(data.dtype)]
    return [Fact(data.dtype, broadcast_shapes(data.shape, (None,) * length))]


@register("Expand", infer=_infer_expand, since=13, accuracy="exact")
def expand(input: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Broadcast against a shape (in both directions: sizes of 1 in ``shape`` keep the input's)."""
    target = broadcast_shapes(input.shape, check_not_negative(as_ints(shape), "shape"))
    return np.broadcast_to(input, concrete(target)).copy()


def _infer_shape(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    shape = fact(facts, 0).shape
    if shape is None:
        return [Fact(np.dtype(np.int64), (None,))]
    part = shape[attrs["start"] : attrs["end"]]
    static = all(isinstance(d, int) for d in part)
    return [Fact(np.dtype(np.int64), (len(part),), np.array(part, np.int64) if static else None)]


@register("Shape", infer=_infer_shape, since=25, accuracy="exact")
def shape(data: np.ndarray, *, start: int = 0, end: int | None = None) -> np.ndarray:
    """The sizes from ``start`` up to ``end`` as int64; both clamp as a Python slice does."""
    return np.array(data.shape[start:end], np.int64)


def _infer_size(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    given = fact(facts, 0)
    total = None if given.shape is None else product(given.shape)
    return [Fact(np.dtype(np.int64), (), np.array(total, np.int64) if isinstance(total, int) else None)]


@register("Size", infer=_infer_size, since=25, accuracy="exact")
def size(data: np.ndarray) -> np.ndarray:
    """The number of elements, an int64 scalar."""
    return np.array(data.size, np.int64)


@register("Identity", infer=unary, since=25, accuracy="exact")
def identity(input: np.ndarray) -> np.ndarray:
    """The input."""
    return input


def _infer_dropout(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    given = fact(facts, 0)
    ratio = scalar(facts, 1, "ratio")
    if ratio is not None and not 0 <= ratio < 1:
        raise ModelError(f"ratio is {ratio}; accepted is 0 <= ratio < 1")
    return [Fact(given.dtype, given.shape), Fact(np.dtype(bool), given.shape)][:n]


@register("Dropout", infer=_infer_dropout, since=22, accuracy="exact")
def dropout(
    data: np.ndarray,
    ratio: np.ndarray | None = None,
    training_mode: np.ndarray | None = None,
    *,
    seed: int | None = None,
    n_outputs: int = 1,
) -> tuple[np.ndarray, ...]:
    """The input and, as second output, a mask of True; in training mode elements are dropped at random."""
    rate = 0.5 if ratio is None else float(np.reshape(ratio, ()))
    output, mask = data, np.ones(data.shape, bool)
    if training_mode is not None and bool(np.reshape(training_mode, ())) and rate:
        mask = np.random.RandomState(seed).uniform(size=data.shape) >= rate
        output = (data * mask / (1 - rate)).astype(data.dtype)
    return (output, mask)[:n_outputs]
