"""Where values lie while a Program is being made: buffers, addresses in them, and tensors in their layouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sigconv.runtime.program import Space


@dataclass(eq=False, slots=True)
class Buffer:
    """A stretch of one of the program's memories, alive from the moment ``first`` to ``last``, both included."""

    space: Space
    nbytes: int
    index: int = 0
    offset: int = 0
    first: int = -1
    last: int = -1


@dataclass(frozen=True, slots=True)
class Address:
    """A byte offset in a buffer: what a step's address field becomes."""

    buffer: Buffer
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Tensor:
    """A value placed in memory.

    ``block`` 1: ``strides`` (in elements) follow ``shape``. ``block`` c: channels lie in blocks of c adjacent lanes,
    the stride of axis 1 is that of a channel block, lanes past the channels hold anything. ``margin``: zeros before
    and after every row (the last axis).
    """

    buffer: Buffer
    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    block: int = 1
    margin: tuple[int, int] = (0, 0)

    @property
    def address(self) -> Address:
        """Of element 0."""
        return Address(self.buffer, self.offset * self.dtype.itemsize)

    @property
    def blocks(self) -> int:
        """Number of channel blocks."""
        return -(-self.shape[1] // self.block)

    @property
    def contiguous(self) -> bool:
        """Whether it is plain NumPy C order."""
        return self.block == 1 and self.strides == c_strides(self.shape)

    def physical(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(sizes, strides) with the lanes as a last axis when blocked."""
        if self.block == 1:
            return self.shape, self.strides
        return (self.shape[0], self.blocks, *self.shape[2:], self.block), (*self.strides, 1)


def c_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides in elements of a C-contiguous array."""
    out = [1] * len(shape)
    for i in range(len(shape) - 2, -1, -1):
        out[i] = out[i + 1] * max(shape[i + 1], 1)
    return tuple(out)
