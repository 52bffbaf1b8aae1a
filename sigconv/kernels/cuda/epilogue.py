"""What a product does with a sum before it stores it."""

from __future__ import annotations

from sigconv.kernels.cuda.jit import device


@device
def finish(v, alpha, lo, hi):
    """v < 0 ? alpha * v : v, then clamped to [lo, hi]; NaN stays NaN."""
    if v < 0:
        v = alpha * v
    if v < lo:
        v = lo
    if v > hi:
        v = hi
    return v
