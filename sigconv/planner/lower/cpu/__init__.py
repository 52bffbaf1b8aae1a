"""CPU candidates. Importing this package attaches them."""

from sigconv.planner.lower.cpu import (
    amx,
    convert,
    depthwise,
    direct,
    direct_pixels,
    elementwise,
    gemm,
    indexed,
    movement,
    norm,
    portable,
    recurrent,
    reduce,
    strips,
    winograd,
)
from sigconv.planner.lower.cpu.direct import margins

__all__ = [
    "amx",
    "convert",
    "depthwise",
    "direct",
    "direct_pixels",
    "elementwise",
    "gemm",
    "indexed",
    "margins",
    "movement",
    "norm",
    "portable",
    "recurrent",
    "reduce",
    "strips",
    "winograd",
]
