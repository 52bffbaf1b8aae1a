"""What the CUDA lowerings share: legality of types and sizes, and a roofline for predictions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from sigconv.geometry import WindowAxis
from sigconv.kernels.cuda.roofline import BANDWIDTH, LAUNCH, MULTIPROCESSORS, PEAK
from sigconv.planner.build import Builder
from sigconv.planner.candidates import CUDA, Candidate, Cost, attach
from sigconv.planner.device import DeviceBuilder
from sigconv.planner.fuse import Unit
from sigconv.planner.lower.cpu.direct import known

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
MOST_ELEMENTS = 2**31 - 1
"""Offsets are 32 bits wide."""


def legal(unit: Unit, b: Builder) -> str | None:
    """Why sizes rule out every CUDA kernel."""
    reason = known(unit, b)
    if reason:
        return reason
    if any(math.prod(b.shape(n)) > MOST_ELEMENTS for n in (*unit.inputs, *unit.outputs) if n):
        return "a tensor of 2^31 elements or more"
    return None


def floats(unit: Unit, b: Builder) -> str | None:
    """Why the operands are not of one float type, or sizes do not fit."""
    reason = legal(unit, b)
    if reason:
        return reason
    kinds = {b.dtype(n) for n in unit.inputs if b.dtype(n).kind not in "iub"} | {b.dtype(unit.output)}
    return None if len(kinds) == 1 and kinds <= set(FLOATS) else f"dtype {', '.join(sorted(map(str, kinds)))}"


def traffic(unit: Unit, b: Builder) -> float:
    """Bytes of a unit's inputs and outputs."""
    return float(sum(b.nbytes(n) for n in (*unit.inputs, *unit.outputs) if n))


def streaming(unit: Unit, b: Builder, work: float = 1.0) -> Cost:
    """A unit that reads and writes everything once, ``work`` operations an element."""
    nbytes = traffic(unit, b)
    flops = work * math.prod(b.shape(unit.output))
    return Cost(flops, nbytes, LAUNCH + max(nbytes / BANDWIDTH, flops / PEAK))


def add(
    name: str,
    ops: tuple[str, ...],
    lower: Callable[[Unit, DeviceBuilder], None],
    legal: Callable[[Unit, Builder], str | None],
    cost: Callable[[Unit, Builder], Cost] = streaming,
    accuracy: str = "direct",
    error: float = 0.0,
) -> None:
    """Attach a candidate to CUDA devices."""
    attach(Candidate(name, ops, legal, cost, lower, accuracy, error), CUDA)  # type: ignore[arg-type]


def triple(values: Sequence[int], missing: int = 1) -> tuple[int, int, int]:
    """What belongs to up to three spatial axes as (d, h, w)."""
    d, h, w = (*[missing] * (3 - len(values)), *values)
    return d, h, w


def by_axis(prefix: str, values: Sequence[int]) -> dict[str, int]:
    """Record fields ``prefix_d``, ``prefix_h``, ``prefix_w``."""
    return {f"{prefix}_{dim}": value for dim, value in zip("dhw", values, strict=True)}


_WINDOW = {"out": "output", "in": "size"} | {name: name for name in ("kernel", "stride", "dilation", "before")}


def window_fields(axes: Sequence[WindowAxis]) -> dict[str, int]:
    """Record fields of a window's three axes: ``out_d`` to ``before_w``."""
    return {
        f"{field}_{dim}": getattr(axis, attribute)
        for dim, axis in zip("dhw", axes, strict=True)
        for field, attribute in _WINDOW.items()
    }


SHARE = {"128x128": 0.6, "64x64": 0.4, "32x32": 0.2}
"""Of the peak that a tile reaches once every multiprocessor has one, as predictions assume."""


def epilogue(unit: Unit) -> dict[str, float]:
    """Record fields of the activation that follows a product."""
    a = unit.activation
    return {"alpha": a.alpha, "lo": a.lo, "hi": a.hi}


class Tile(Protocol):
    """A block's share of a product."""

    @property
    def m(self) -> int: ...
    @property
    def n(self) -> int: ...
    @property
    def name(self) -> str: ...


def tiled_seconds(tile: Tile, m: int, n: int, k: int, batches: int, peak: float = PEAK) -> float:
    """A wave of blocks after another, every block at its tile's share of the peak."""
    count = -(-m // tile.m) * -(-n // tile.n) * batches
    one = 2.0 * tile.m * tile.n * k / (peak / MULTIPROCESSORS * SHARE[tile.name])
    return LAUNCH + -(-count // MULTIPROCESSORS) * one
