"""Cast between the types that images, quantised values and indices have."""

from __future__ import annotations

import math

from sigconv.kernels.cpu import convert
from sigconv.ops.cast import element_dtype
from sigconv.planner.build import Builder
from sigconv.planner.candidates import Candidate, attach
from sigconv.planner.fuse import Unit
from sigconv.planner.lower.cpu.direct import known
from sigconv.planner.lower.cpu.reduce import streaming, width


def _legal(unit: Unit, b: Builder) -> str | None:
    pair = b.dtype(unit.node.inputs[0]), element_dtype(unit.node.attrs["to"])
    return known(unit, b) or (None if pair in convert.PAIRS else f"from {pair[0]} to {pair[1]}")


def _lower(unit: Unit, b: Builder) -> None:
    x = b.plain(unit.node.inputs[0])
    y = b.new(unit.output, 1, (0, 0))
    nbytes = b.nbytes(unit.output) + b.nbytes(unit.node.inputs[0])
    b.emit(
        convert.convert, width=width(b, nbytes), src=x.address, dst=y.address, n=math.prod(x.shape),
        pair=convert.PAIRS[x.dtype, y.dtype],
    )  # fmt: skip


attach(Candidate("convert", ("Cast",), _legal, streaming, _lower, accuracy="exact"))
