"""A Program: immutable tables that a Session binds to memory. All decisions were made by the planner.

A step is a kernel with an argument record in which some int64 fields are addresses. Until a Session has memory an
address is a `Ref`: a space (constants, arena, input, output) and a byte offset in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from sigconv.kernels.jit import Kernel

Space = Literal["constant", "arena", "input", "output"]


@dataclass(frozen=True, slots=True)
class Ref:
    """A byte ``offset`` in one of the program's memories; ``index`` numbers the constant, input or output."""

    space: Space
    offset: int = 0
    index: int = 0

    def at(self, offset: int) -> Ref:
        """The address ``offset`` bytes further on."""
        return Ref(self.space, self.offset + offset, self.index)


@dataclass(frozen=True, slots=True)
class Step:
    """One kernel call.

    ``record``: the argument record (one element). ``addresses``: byte position in the record -> what to write there.
    ``width``: most threads that can help. ``fence``: all earlier steps must be finished first. ``node``: its Row.
    """

    kernel: Kernel
    record: np.ndarray
    addresses: Mapping[int, Ref]
    node: int
    width: int = 1 << 30
    fence: bool = True


@dataclass(frozen=True, slots=True)
class Operand:
    """A flat array of ``count`` elements that a CUDA kernel reads or writes; ``ref`` None: any, it is not read."""

    ref: Ref | None
    dtype: np.dtype[Any]
    count: int


@dataclass(frozen=True, slots=True)
class Launch:
    """One CUDA kernel launch. ``kernel``: a `sigconv.kernels.cuda.jit.Kernel`; ``params``: its record."""

    kernel: Any
    grid: tuple[int, int, int]
    params: Any
    operands: tuple[Operand, ...]
    node: int


@dataclass(frozen=True, slots=True)
class Place:
    """A plain tensor in program memory (or, for ``ref`` None, an array the session keeps: data-dependent shape)."""

    name: str
    dtype: np.dtype[Any] | None
    shape: tuple[int, ...] | None
    ref: Ref | None


@dataclass(frozen=True, slots=True)
class HostStep:
    """A NumPy call between native segments. ``function`` maps input arrays (None: absent) to a tuple of outputs."""

    function: Callable[[Sequence[np.ndarray | None]], tuple[np.ndarray, ...]]
    inputs: tuple[Place | None, ...]
    outputs: tuple[Place | None, ...]
    node: int


@dataclass(frozen=True, slots=True)
class Row:
    """What happened to one node (or fused group): for explain() and profile(). ``predicted``: seconds on one thread."""

    label: str
    op: str
    output: str
    shape: tuple[int, ...] | None
    algorithm: str
    reason: str
    rejected: tuple[tuple[str, str], ...] = ()
    predicted: float = 0.0
    flops: float = 0.0
    nbytes: float = 0.0
    fused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Program:
    """Everything a session needs to run a graph at fixed shapes on ``device``: 'cpu' (Steps) or 'cuda' (Launches)."""

    steps: tuple[Step | HostStep | Launch, ...]
    constants: tuple[np.ndarray, ...]
    inputs: tuple[Place, ...]
    outputs: tuple[Place, ...]
    arena_nbytes: int
    threads: int
    rows: tuple[Row, ...] = field(default=())
    device: str = "cpu"
