"""Reading constants and partly known sizes out of facts: what shape-like inputs of the moving operators share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np

from sigconv.errors import ModelError
from sigconv.ops._infer import Facts, check_dtype, check_rank, fact
from sigconv.ops.spec import Dim, Shape

INDEX = frozenset({"int32", "int64"})
"""The dtypes that index and shape inputs may have."""

INT_MAX = np.iinfo(np.int32).max
"""Slice ends at or beyond this mean 'to the end', as exporters write them."""


def ints(facts: Facts, i: int, what: str) -> tuple[int, ...] | None:
    """The constant integers of input ``i``, or None where they are not known; ModelError for other dtypes or ranks."""
    given = fact(facts, i)
    check_dtype(given.dtype, INDEX, what)
    check_rank(given, (0, 1), what=what)
    return None if given.value is None else as_ints(given.value)


def as_ints(values: np.ndarray | Sequence[int]) -> tuple[int, ...]:
    """An integer vector (or scalar) as Python integers."""
    return tuple(int(v) for v in np.asarray(values).reshape(-1))


def scalar(facts: Facts, i: int, what: str) -> int | float | None:
    """The constant number in input ``i``, or None where it is not known; ModelError unless it has one element."""
    given = fact(facts, i)
    if given.static and math.prod(concrete(given.shape)) != 1:
        raise ModelError(f"{what} must hold one element, but has shape {given.shape}")
    return None if given.value is None else given.value.reshape(-1)[0].item()


def count(facts: Facts, i: int) -> int | None:
    """How many elements the vector in input ``i`` has, or None."""
    shape = fact(facts, i).shape
    if shape is None:
        return None
    return 1 if not shape else shape[0] if isinstance(shape[0], int) else None


def unknown(rank: int | None) -> Shape | None:
    """A shape of which at most the rank is known."""
    return None if rank is None else (None,) * rank


def concrete(shape: Shape | None) -> tuple[int, ...]:
    """A shape inferred from arrays, every size of which is known."""
    return cast("tuple[int, ...]", shape)


def product(dims: Sequence[Dim]) -> Dim:
    """The product of sizes: a symbol times 1 stays that symbol, anything less certain is None."""
    if any(d == 0 for d in dims):
        return 0
    known = math.prod(d for d in dims if isinstance(d, int))
    rest = [d for d in dims if not isinstance(d, int)]
    if not rest:
        return known
    return rest[0] if len(rest) == 1 and known == 1 else None


def divided(dim: Dim, by: int, what: str) -> Dim:
    """``dim / by``; ModelError where that leaves a rest."""
    if not isinstance(dim, int):
        return dim if by == 1 else None
    if dim % by:
        raise ModelError(f"{what} is {dim}, which is not a multiple of {by}")
    return dim // by


def check_not_negative(sizes: Sequence[int], what: str) -> tuple[int, ...]:
    """``sizes``; ModelError where one is negative."""
    if any(s < 0 for s in sizes):
        raise ModelError(f"{what} must not be negative, but is {tuple(sizes)}")
    return tuple(sizes)


def check_choice(value: object, accepted: Sequence[object], what: str) -> None:
    """ModelError unless attribute ``what`` has one of the accepted values."""
    if value not in accepted:
        raise ModelError(f"{what} is {value!r}; accepted are {', '.join(map(repr, accepted))}")
