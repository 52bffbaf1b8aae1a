"""Strided iteration spaces in plain integers: what a kernel's dims and strides fields are filled with."""

from __future__ import annotations

from collections.abc import Sequence

Strides = tuple[int, ...]


def contiguous(shape: Sequence[int]) -> Strides:
    """Element strides of a C-ordered array: (2, 3, 4) -> (12, 4, 1)."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def broadcast(shape: Sequence[int], strides: Sequence[int], to: Sequence[int]) -> Strides:
    """Strides that read an operand of ``shape`` as if it had shape ``to`` (NumPy's rules): 0 where it repeats."""
    lead = len(to) - len(shape)
    if lead < 0 or any(have not in (1, want) for have, want in zip(shape, to[lead:], strict=True)):
        raise ValueError(f"shape {tuple(shape)} does not broadcast to {tuple(to)}")
    return (0,) * lead + tuple(
        0 if have != want else stride for have, want, stride in zip(shape, to[lead:], strides, strict=True)
    )


def collapse(shape: Sequence[int], strides: Sequence[Sequence[int]]) -> tuple[Strides, list[Strides]]:
    """The same iteration in as few dimensions as possible, outermost first.

    ``strides`` holds each operand's strides, the destination first. Dimensions of size 1 vanish, the rest are ordered
    by falling destination stride, and neighbours that every operand walks as one are merged. A space of one element
    has no dimensions left; an empty one is ``(0,)``.
    """
    if 0 in shape:
        return (0,), [(0,) for _ in strides]
    order = sorted((d for d in range(len(shape)) if shape[d] != 1), key=lambda d: -abs(strides[0][d]))
    dims: list[int] = []
    merged: list[list[int]] = []  # per dimension, the stride of each operand
    for d in order:
        steps = [operand[d] for operand in strides]
        if dims and all(outer == inner * shape[d] for outer, inner in zip(merged[-1], steps, strict=True)):
            dims[-1] *= shape[d]
            merged[-1] = steps
        else:
            dims.append(shape[d])
            merged.append(steps)
    return tuple(dims), [tuple(steps[k] for steps in merged) for k in range(len(strides))]


def pad_front(values: Sequence[int], length: int, value: int) -> Strides:
    """``values`` right-aligned in a field of ``length`` entries; more than fit is a ValueError."""
    if len(values) > length:
        raise ValueError(f"{len(values)} dimensions are left after collapsing, the kernel takes {length}")
    return (value,) * (length - len(values)) + tuple(values)
