"""Gathers and scatters by constant indices: tables of offsets, and strided copies where the indices make a lattice.

Exporters write a sliced assignment, ``x[:, 2:6] = v``, as a ScatterND whose indices are a box.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

import numpy as np

from sigconv.errors import ModelError
from sigconv.ops.select import gather_elements, gather_nd
from sigconv.planner.build import Builder
from sigconv.planner.candidates import Candidate, attach
from sigconv.planner.fuse import Unit
from sigconv.planner.lower.cpu.direct import known
from sigconv.planner.lower.cpu.reduce import streaming
from sigconv.planner.tensors import Address, c_strides

LARGEST = 1 << 22
"""Elements up to which offsets are worked out beforehand."""


def _named(unit: Unit, b: Builder) -> tuple[np.ndarray, int]:
    """Offsets in the flat data of the slices that the indices name, in the indices' order, and a slice's length."""
    node, shape = unit.node, b.shape(unit.node.inputs[0])
    indices = b.constant(node.inputs[1])
    if node.op.endswith("Elements"):
        numbers = np.arange(math.prod(shape)).reshape(shape)
        return gather_elements(numbers, indices, axis=int(node.attrs.get("axis", 0))), 1
    batch = int(node.attrs.get("batch_dims", 0))
    depth = batch + indices.shape[-1]
    numbers, run = np.arange(math.prod(shape[:depth])).reshape(shape[:depth]), math.prod(shape[depth:])
    return gather_nd(numbers, indices, batch_dims=batch) * run, run


def _lattice(offsets: np.ndarray) -> list[int] | None:
    """The step along each axis where every offset is a sum of steps, no two the same; else None."""
    first = offsets.reshape(-1)[0]
    edges = [offsets[tuple(slice(None) if i == k else 0 for i in range(offsets.ndim))] for k in range(offsets.ndim)]
    steps = [int(edge[1] - edge[0]) if edge.size > 1 else 0 for edge in edges]
    grid = reduce(np.add.outer, [step * np.arange(n) for step, n in zip(steps, offsets.shape, strict=True)], first)
    return steps if np.array_equal(grid, offsets) and np.unique(offsets).size == offsets.size else None


def _legal(unit: Unit, b: Builder) -> str | None:
    if reason := known(unit, b):
        return reason
    if not b.is_constant(unit.node.inputs[1]):
        return "indices are known at run time only"
    dtype = b.dtype(unit.output)
    if dtype.kind not in "fiub" or dtype.itemsize not in (1, 2, 4, 8):
        return f"dtype {dtype}"
    if max(b.constant(unit.node.inputs[1]).size, math.prod(b.shape(unit.node.inputs[0]))) > LARGEST:
        return f"more than {LARGEST} elements"
    try:
        _named(unit, b)
    except ModelError:
        return "an index is out of range"
    return None


def _scatter_legal(unit: Unit, b: Builder) -> str | None:
    if unit.node.attrs.get("reduction", "none") != "none":
        return "it combines"
    if reason := _legal(unit, b):
        return reason
    offsets, _ = _named(unit, b)
    return None if not offsets.size or _lattice(offsets) else "the indices are no lattice"


def _gather(unit: Unit, b: Builder) -> None:
    x = b.plain(unit.node.inputs[0])
    offsets, run = _named(unit, b)
    y = b.new(unit.output, 1, (0, 0))
    b.gather(x.address, [offsets.reshape(-1), np.arange(run)], y.address, (run, 1), x.dtype)


def _scatter(unit: Unit, b: Builder) -> None:
    x, updates = b.plain(unit.node.inputs[0]), b.plain(unit.node.inputs[2])
    y = b.new(unit.output, 1, (0, 0))
    b.copy(x.address, x.strides, y.address, y.strides, x.shape, x.dtype)
    offsets, run = _named(unit, b)
    if not offsets.size:
        return
    target = Address(y.buffer, y.address.offset + int(offsets.reshape(-1)[0]) * y.dtype.itemsize)
    sizes: Sequence[int] = (*offsets.shape, run)
    b.copy(updates.address, c_strides(sizes), target, (*(_lattice(offsets) or ()), 1), sizes, x.dtype)


attach(Candidate("gather", ("GatherND", "GatherElements"), _legal, streaming, _gather, accuracy="exact"))
attach(
    Candidate("strided_copy", ("ScatterND", "ScatterElements"), _scatter_legal, streaming, _scatter, accuracy="exact")
)
