"""Shape and dtype inference that many operators share.

Every ``Infer`` here follows the contract of `sigconv.ops.spec.Infer`. Messages name the input; the caller prefixes the
node. Sizes are int, symbol or None (unknown), a shape of None is an unknown rank.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from sigconv.errors import ModelError
from sigconv.ops.spec import Dim, Fact, Infer, Shape

Facts = Sequence[Fact | None]
Attrs = Mapping[str, Any]
UNKNOWN = Fact()

FLOAT = frozenset({"float16", "bfloat16", "float32", "float64"})
SIGNED = frozenset({"int8", "int16", "int32", "int64"})
UNSIGNED = frozenset({"uint8", "uint16", "uint32", "uint64"})
INTEGER = SIGNED | UNSIGNED
NUMERIC = FLOAT | INTEGER
BOOL = frozenset({"bool"})
ANY = NUMERIC | BOOL
"""Sets of dtype names, the type constraints of the ops."""


def fact(facts: Facts, i: int) -> Fact:
    """What is known of input ``i``; nothing where it is absent."""
    found = facts[i] if i < len(facts) else None
    return UNKNOWN if found is None else found


def present(facts: Facts, i: int) -> bool:
    """Whether optional input ``i`` is given."""
    return i < len(facts) and facts[i] is not None


def check_dtype(dtype: np.dtype[Any] | None, allowed: Collection[str] | None, what: str = "input 0") -> None:
    """ModelError unless ``dtype`` is unknown or one of ``allowed``."""
    if dtype is not None and allowed is not None and dtype.name not in allowed:
        raise ModelError(f"{what} has dtype {dtype.name}; accepted are {', '.join(sorted(allowed))}")


def common_dtype(
    facts: Facts, indices: Collection[int] | None = None, allowed: Collection[str] | None = None
) -> np.dtype[Any] | None:
    """The one dtype of the given inputs (default: all that are present); ModelError where they differ."""
    first: int | None = None
    for i in range(len(facts)) if indices is None else indices:
        dtype = fact(facts, i).dtype
        if dtype is None:
            continue
        check_dtype(dtype, allowed, f"input {i}")
        if first is None:
            first = i
        elif dtype != fact(facts, first).dtype:
            raise ModelError(
                f"inputs {first} and {i} must have one dtype, but have {fact(facts, first).dtype} and {dtype}"
            )
    return None if first is None else fact(facts, first).dtype


def check_rank(
    given: Fact, accepted: Collection[int] | None = None, least: int | None = None, what: str = "input 0"
) -> None:
    """ModelError unless the rank is unknown, or one of ``accepted`` / at least ``least``."""
    if given.rank is None:
        return
    if accepted is not None and given.rank not in accepted:
        raise ModelError(
            f"{what} has shape {given.shape}, rank {given.rank}; accepted is rank {' or '.join(map(str, accepted))}"
        )
    if least is not None and given.rank < least:
        raise ModelError(f"{what} has shape {given.shape}, rank {given.rank}; accepted is rank {least} or more")


def axis_index(axis: int, rank: int) -> int:
    """``axis`` counted from the front; ModelError outside [-rank, rank)."""
    if not -rank <= axis < rank:
        raise ModelError(f"axis {axis} is outside [{-rank}, {rank - 1}] for a tensor of rank {rank}")
    return axis + rank if axis < 0 else axis


def axis_indices(axes: Collection[int], rank: int) -> tuple[int, ...]:
    """Every axis counted from the front; ModelError where one is outside the rank or named twice."""
    found = tuple(axis_index(int(a), rank) for a in axes)
    if len(set(found)) != len(found):
        raise ModelError(f"axes {tuple(int(a) for a in axes)} name an axis twice (rank {rank})")
    return found


def merge_dim(a: Dim, b: Dim, what: str = "sizes") -> Dim:
    """The size known from two sources that must agree."""
    if isinstance(a, int) and isinstance(b, int) and a != b:
        raise ModelError(f"{what} must agree, but are {a} and {b}")
    if isinstance(a, int) or b is None:
        return a
    return b if isinstance(b, int) or a is None else a


def check_vector(given: Fact, size: Dim, what: str) -> None:
    """ModelError unless ``given`` may be a 1-D tensor of ``size`` elements."""
    check_rank(given, (1,), what=what)
    if given.shape is not None:
        merge_dim(given.shape[0], size, f"the length of {what} and the number of channels")


def broadcast_dim(a: Dim, b: Dim) -> Dim:
    """The size of two broadcast together; ValueError where they cannot be.

    A known size other than 1 decides, whatever the other is; two unlike unknown sizes stay unknown.
    """
    if a == 1 or a == b:
        return b
    if b == 1:
        return a
    if isinstance(a, int) and isinstance(b, int):
        raise ValueError(f"{a} and {b}")
    return a if isinstance(a, int) else b if isinstance(b, int) else None


def broadcast_shapes(*shapes: Shape | None) -> Shape | None:
    """NumPy's broadcasting with unknown sizes; None where a rank is unknown; ModelError where it is impossible."""
    known = [s for s in shapes if s is not None]
    if len(known) != len(shapes):
        return None
    rank = max(map(len, known), default=0)
    result: list[Dim] = [1] * rank
    for shape in known:
        for i, dim in enumerate(shape, rank - len(shape)):
            try:
                result[i] = broadcast_dim(result[i], dim)
            except ValueError as e:
                texts = " and ".join(map(str, known))
                raise ModelError(f"shapes {texts} do not broadcast: sizes {e} meet in dimension {i - rank}") from None
    return tuple(result)


def check_broadcasts_to(given: Fact, target: Shape | None, what: str) -> None:
    """ModelError unless ``given`` may broadcast to the shape ``target`` without enlarging it."""
    if given.shape is None or target is None:
        return
    aligned = zip(reversed(given.shape), reversed(target), strict=False)
    clash = any(
        isinstance(have, int) and have != 1 and isinstance(want, int) and have != want for have, want in aligned
    )
    if clash or len(given.shape) > len(target):
        raise ModelError(f"{what} has shape {given.shape}, which does not broadcast to {target}")


def unary(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    """Every output has the shape and dtype of input 0."""
    return [Fact(fact(facts, 0).dtype, fact(facts, 0).shape)] * n


def unary_of(allowed: Collection[str], dtype: Any = None) -> Infer:
    """As `unary`, for the ``allowed`` dtypes; the outputs have ``dtype`` where one is given."""
    fixed = None if dtype is None else np.dtype(dtype)

    def infer(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
        given = fact(facts, 0)
        check_dtype(given.dtype, allowed)
        return [Fact(fixed or given.dtype, given.shape)] * n

    return infer


def broadcast(dtype: Any = None, allowed: Collection[str] | None = None) -> Infer:
    """All inputs of one (``allowed``) dtype, broadcast; the output has that dtype, or ``dtype`` where one is given."""
    fixed = None if dtype is None else np.dtype(dtype)

    def infer(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
        common = common_dtype(facts, allowed=allowed)
        return [Fact(fixed or common, broadcast_shapes(*(fact(facts, i).shape for i in range(len(facts)))))] * n

    return infer


def reduced_shape(shape: Shape, axes: Collection[int], keepdims: bool) -> Shape:
    """``shape`` without ``axes`` (counted from the front), or with size 1 there."""
    if keepdims:
        return tuple(1 if i in axes else d for i, d in enumerate(shape))
    return tuple(d for i, d in enumerate(shape) if i not in axes)


def spatial(given: Fact, least: int = 3) -> Shape | None:
    """The sizes behind batch and channel of an (N, C, ...) input, or None; ModelError below rank ``least``."""
    check_rank(given, least=least)
    return None if given.shape is None else given.shape[2:]
