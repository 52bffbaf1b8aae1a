"""Weights and biases that the run computes: steps that bring them into the order which the kernels read.

Constant ones are packed while the Program is made. The others are seen through a stand-in, an array whose memory is
never touched: views of it have the shape and strides of the weights that they stand for.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sigconv.kernels.cpu import direct as kernels
from sigconv.kernels.simd import lanes
from sigconv.planner.build import Builder
from sigconv.planner.tensors import Address, c_strides

PACKING = 3e9
"""Bytes a second that predictions assume of packing."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where weights lie in the run: ``base`` is the stand-in of all of them, its element 0 lies at ``address``."""

    address: Address
    base: np.ndarray

    def of(self, view: np.ndarray) -> tuple[Address, tuple[int, ...]]:
        """Where a view of the stand-in lies, and its strides in elements."""
        offset = view.ctypes.data - self.base.ctypes.data if view.size else 0
        return (
            Address(self.address.buffer, self.address.offset + offset),
            tuple(s // view.itemsize for s in view.strides),
        )


def operand(b: Builder, name: str) -> tuple[np.ndarray, Source | None]:
    """The weights and None where they are constant, else their stand-in and source."""
    if b.is_constant(name):
        return b.constant(name), None
    base = np.empty(b.shape(name), b.dtype(name))
    return base, Source(b.plain(name).address, base)


def packing_seconds(b: Builder, names: Sequence[str]) -> float:
    """What packing those of the weights that are not constant is predicted to take."""
    return sum(b.nbytes(n) for n in names if n and not b.is_constant(n)) / PACKING


def pack_direct(b: Builder, weights: np.ndarray, source: Source, block: int) -> Address:
    """Steps that do what `kernels.pack` does, for weights [groups, M, C, KD, KH, KW] that the run computes."""
    groups, m, c, *taps = weights.shape
    dtype = weights.dtype
    vl, item = lanes(dtype), dtype.itemsize
    reduction = c * math.prod(taps)
    group = reduction * -(-m // vl) * vl
    target = b.new_buffer(groups * group * item)
    if not groups * group:
        return Address(target)
    first, width, _ = kernels.tiles(m, dtype)
    ranges = zip((first * vl).tolist(), (width * vl).tolist(), strict=True)
    tiles = [(v0, nv, min(nv, m - v0)) for v0, nv in ranges]
    start, all_lanes, used = tiles[-1]
    if used < all_lanes:
        pad = Address(target, (start * reduction + used) * item)
        b.fill(pad, dtype, (groups, reduction, all_lanes - used), (group, all_lanes, 1), joins_next=True)
    whole = c // block * block
    for (nv, used), run in itertools.groupby(tiles, key=lambda tile: tile[1:]):
        starts = [tile[0] for tile in run]
        for c0, c1, depth in ((0, whole, block), (whole, c, c - whole)):
            if c1 == c0:
                continue
            where, (sg, sm, sc, *st) = source.of(weights[:, starts[0] :, c0:])
            sizes = (groups, len(starts), (c1 - c0) // depth, *taps, depth, used)
            inner = c_strides((*sizes[2:-1], nv))
            at = Address(target, (starts[0] * reduction + c0 * math.prod(taps) * nv) * item)
            b.copy(where, (sg, nv * sm, depth * sc, *st, sc, sm), at, (group, nv * reduction, *inner), sizes, dtype)
    return Address(target)


def pack_depthwise(b: Builder, source: Source) -> Address:
    """Steps that do what `depthwise.pack` does, for weights [C, 1, KD, KH, KW] that the run computes."""
    channels, dtype = source.base.shape[0], source.base.dtype
    taps, vl, item = source.base.size // channels, lanes(dtype), dtype.itemsize
    whole, rest = divmod(channels, vl)
    target = b.new_buffer(-(-channels // vl) * vl * taps * item)
    tail = whole * vl * taps * item
    if rest:
        b.fill(Address(target, tail + rest * item), dtype, (taps, vl - rest), (vl, 1), joins_next=True)
    for offset, blocks, width in ((0, whole, vl), (tail, 1, rest)):
        if blocks and width:
            b.copy(
                Address(source.address.buffer, source.address.offset + offset), (vl * taps, 1, taps),
                Address(target, offset), (vl * taps, vl, 1), (blocks, taps, width), dtype,
            )  # fmt: skip
    return Address(target)


def bias_table(
    b: Builder, bias: np.ndarray | Address | None, groups: int, m: int, dtype: np.dtype[Any], multiple: int = 0
) -> Any:  # fmt: skip
    """The bias [groups, M] as the kernels read it: every group filled up with zeros to a ``multiple`` (a register)."""
    multiple = multiple or lanes(dtype)
    channels = -(-m // multiple) * multiple
    if isinstance(bias, Address):
        if channels == m:
            return bias
        target = b.new_buffer(groups * channels * dtype.itemsize)
        b.fill(Address(target, m * dtype.itemsize), dtype, (groups, channels - m), (channels, 1), joins_next=True)
        b.copy(bias, (m, 1), Address(target), (channels, 1), (groups, m), dtype)
        return Address(target)
    table = np.zeros((groups, channels), dtype)
    if bias is not None:
        table[:, :m] = bias.reshape(groups, m)
    return table.reshape(-1)
