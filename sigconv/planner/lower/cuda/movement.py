"""Ops that only move data, or change its type. Most are the CPU's own lowerings, which ask the Builder for copies."""

from __future__ import annotations

import math

import numpy as np

from sigconv.kernels.cuda.cast import CASTS
from sigconv.kernels.cuda.limits import blocks
from sigconv.kernels.cuda.movement import TAKES
from sigconv.planner.build import Builder
from sigconv.planner.candidates import CUDA, REGISTRY, Candidate, Cost, attach
from sigconv.planner.device import DeviceBuilder
from sigconv.planner.fuse import Unit
from sigconv.planner.lower.cpu import movement as _cpu  # noqa: F401  attaches what is shared below
from sigconv.planner.lower.cuda.common import add, legal, streaming

SHARED = ("view", "strided_copy", "gather")
"""Candidates whose lowering only calls `Builder.copy`, `fill`, `gather` and `place`."""


def _nothing(unit: Unit, b: Builder) -> Cost:
    return Cost(0, 0, 0)


for _op, _candidates in REGISTRY.items():
    for _c in _candidates:
        if _c.name in SHARED:
            _cost = _nothing if _c.name == "view" else streaming
            attach(Candidate(_c.name, (_op,), _c.legal, _cost, _c.lower, _c.accuracy), CUDA)


def _legal_take(unit: Unit, b: Builder) -> str | None:
    reason = legal(unit, b)
    if reason:
        return reason
    dtype, index = (b.dtype(n) for n in unit.node.inputs)
    if dtype.kind not in "fiu" or (dtype.itemsize, index.name) not in TAKES:
        return f"dtype {dtype} at {index}"
    return None if b.shape(unit.node.inputs[0]) else "a scalar"


def _lower_take(unit: Unit, b: DeviceBuilder) -> None:
    x, index = (b.plain(n) for n in unit.node.inputs)
    y = b.new(unit.output)
    axis = int(unit.node.attrs.get("axis", 0)) % len(x.shape)
    n = math.prod(y.shape)
    b.launch(
        TAKES[x.dtype.itemsize, np.dtype(index.dtype).name], (blocks(n),), [index, x, y], n=n, axis=x.shape[axis],
        inner=math.prod(x.shape[axis + 1 :]), count=math.prod(index.shape),
    )  # fmt: skip


add("take", ("Gather",), _lower_take, _legal_take, accuracy="exact")


def _legal_cast(unit: Unit, b: Builder) -> str | None:
    reason = legal(unit, b)
    if reason:
        return reason
    pair = b.dtype(unit.node.inputs[0]).name, b.dtype(unit.output).name
    return None if pair in CASTS else f"from {pair[0]} to {pair[1]}"


def _lower_cast(unit: Unit, b: DeviceBuilder) -> None:
    x, y = b.plain(unit.node.inputs[0]), b.new(unit.output)
    n = math.prod(y.shape)
    b.launch(CASTS[x.dtype.name, y.dtype.name], (blocks(n),), [x, y], n=n)


add("cast", ("Cast",), _lower_cast, _legal_cast, accuracy="exact")
