"""The Builder of programs for a CUDA device: plain layout, steps are kernel launches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sigconv.graph.ir import Graph
from sigconv.kernels import strides as spaces
from sigconv.kernels.cuda import movement
from sigconv.kernels.cuda.jit import Kernel
from sigconv.kernels.cuda.limits import blocks, check
from sigconv.planner.build import Builder
from sigconv.planner.tensors import Address, Tensor, c_strides
from sigconv.runtime.program import HostStep, Launch, Operand, Step

Array = Tensor | Address | np.ndarray | None
"""What a kernel's array argument may be: a placed value, the whole of a buffer, a constant, or nothing."""


@dataclass(frozen=True, slots=True)
class _Launch:
    kernel: Kernel
    grid: tuple[int, int, int]
    params: Any
    arrays: tuple[Array, ...]
    node: int


class DeviceBuilder(Builder):
    """Launches, constants and placed values of the Program being made from ``graph`` (static shapes).

    Attributes
    ----------
    capability : (int, int)
        The device's compute capability.
    halves : bool
        Whether the model takes float16 only: what it computes then fits that type.
    """

    device = "cuda"

    def __init__(self, graph: Graph, capability: tuple[int, int]) -> None:
        super().__init__(graph, 1, {})
        self.capability = capability
        floats = {v.dtype for v in graph.inputs if v.dtype is not None and v.dtype.kind == "f"}
        self.halves = floats == {np.dtype(np.float16)}
        self._tables: dict[bytes, np.ndarray] = {}
        for name, buffer in self._outputs.items():
            buffer.nbytes = self.nbytes(name) if self.is_static(name) else 0

    def launch(self, kernel: Kernel, grid: Sequence[int], arrays: Sequence[Array], **fields: Any) -> None:
        """Append a launch of up to three grid dimensions; ``fields`` are the record's."""
        x, y, z = (*grid, 1, 1)[:3]
        check(kernel.name, (x, y, z), kernel.threads)
        kept = tuple(self._kept(a) if isinstance(a, np.ndarray) else a for a in arrays)
        self._touch(Address(a.buffer) for a in kept if a is not None)
        self._steps.append(_Launch(kernel, (x, y, z), kernel.params(**fields), kept, len(self.rows)))
        self._joined = False

    def _kept(self, array: np.ndarray) -> Tensor:
        """A constant in the program's memory."""
        return Tensor(self.constant_buffer(array), 0, array.dtype, array.shape, c_strides(array.shape))

    def _frozen(self, entry: Any) -> Step | HostStep | Launch:
        if not isinstance(entry, _Launch):
            return super()._frozen(entry)
        operands = tuple(map(self._operand, entry.arrays, entry.kernel.arrays))
        return Launch(entry.kernel, entry.grid, entry.params, operands, entry.node)

    def _operand(self, array: Array, dtype: np.dtype[Any]) -> Operand:
        if isinstance(array, Tensor):
            return Operand(self._ref(array.address), dtype, math.prod(array.shape))
        if isinstance(array, Address):
            return Operand(self._ref(Address(array.buffer)), dtype, array.buffer.nbytes // dtype.itemsize)
        return Operand(None, dtype, 1)

    # --- movement: what the lowerings shared with the CPU ask for ---------------------------------------------------
    def copy(
        self, source: Address, source_strides: Sequence[int], target: Address, target_strides: Sequence[int],
        sizes: Sequence[int], dtype: np.dtype[Any],
    ) -> None:  # fmt: skip
        """Strided copy; strides in elements."""
        dims, (to, of) = spaces.collapse(sizes, [target_strides, source_strides])
        if 0 in dims:
            return
        pad = spaces.pad_front
        table = np.array([pad(dims, movement.DIMS, 1), pad(to, movement.DIMS, 0), pad(of, movement.DIMS, 0)], np.int32)
        n = math.prod(dims)
        self.launch(
            movement.COPIES[dtype.itemsize], (blocks(n),), [self._shared(table), Address(source.buffer),
            Address(target.buffer)], n=n, rank=len(dims), src=source.offset // dtype.itemsize,
            dst=target.offset // dtype.itemsize,
        )  # fmt: skip

    def fill(
        self, target: Address, dtype: np.dtype[Any], sizes: Sequence[int], strides: Sequence[int], value: float = 0,
        *, joins_next: bool = False,
    ) -> None:  # fmt: skip
        """Strided fill with a constant; launches run one after the other."""
        number = self._kept(np.array([value], dtype))
        self.copy(number.address, [0] * len(sizes), target, strides, sizes, dtype)

    def gather(
        self, source: Address, tables: Sequence[np.ndarray], target: Address, target_strides: Sequence[int],
        dtype: np.dtype[Any], fill: float = 0,
    ) -> None:  # fmt: skip
        """target[i0, i1, …] = source[tables[0][i0] + tables[1][i1] + …], or ``fill`` where an entry is -1."""
        base = source.offset // dtype.itemsize
        sizes = [len(t) for t in tables]
        firsts = np.cumsum([0, *sizes])[:-1].tolist()
        pad = spaces.pad_front
        table = [pad(sizes, movement.DIMS, 1), pad(target_strides, movement.DIMS, 0), pad(firsts, movement.DIMS, 0)]
        offsets = np.concatenate(tables).astype(np.int32)
        if base:  # the first axis carries where the source begins
            offsets[: sizes[0]] = np.where(offsets[: sizes[0]] < 0, -1, offsets[: sizes[0]] + base)
        n = math.prod(sizes)
        self.launch(
            movement.GATHERS[dtype.itemsize], (blocks(n),), [np.array(table, np.int32), offsets, Address(source.buffer),
            Address(target.buffer), np.array([fill], dtype)], n=n, rank=len(sizes),
            dst=target.offset // dtype.itemsize,
        )  # fmt: skip

    def _shared(self, table: np.ndarray) -> np.ndarray:
        """The same array for equal tables, so that the program keeps one."""
        return self._tables.setdefault(table.tobytes(), table)
