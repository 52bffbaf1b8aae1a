"""CPU candidates. Importing this package attaches them."""

from sigconv.planner.lower.cpu import (
    convert,
    depthwise,
    direct,
    elementwise,
    gemm,
    movement,
    norm,
    portable,
    recurrent,
    reduce,
    winograd,
)
from sigconv.planner.lower.cpu.direct import margins

__all__ = [
    "convert",
    "depthwise",
    "direct",
    "elementwise",
    "gemm",
    "margins",
    "movement",
    "norm",
    "portable",
    "recurrent",
    "reduce",
    "winograd",
]
