"""Launch configurations in plain integers: how many blocks a streaming kernel takes, and what no device accepts."""

from __future__ import annotations

from collections.abc import Sequence

from sigconv.kernels.cuda.jit import BLOCK, SIMULATED

OLDEST = (7, 0)
"""Compute capability that the kernels need: what CUDA 13 still compiles for starts at 7.5, CUDA 12 at 5.0."""

MAX_GRID = (2**31 - 1, 65535, 65535)
MAX_THREADS = 1024
MAX_SHARED = 48 * 1024
"""Bytes of shared memory that a kernel may declare."""

MOST_BLOCKS = 2 if SIMULATED else 132 * 16
"""Blocks of a kernel whose threads stride over the elements: enough to fill the largest device."""


def blocks(n: int, planes: int = 1) -> int:
    """Blocks for ``n`` elements, of which each of ``planes`` others has as many."""
    return max(1, min(-(-n // BLOCK), max(1, MOST_BLOCKS // planes)))


def check(name: str, grid: Sequence[int], threads: int, shared_nbytes: int = 0) -> None:
    """OverflowError where a launch is over the limits that every device has (compute capability 7 and newer)."""
    for axis, size, most in zip("xyz", grid, MAX_GRID, strict=True):
        if not 1 <= size <= most:
            raise OverflowError(f"{name}: a grid of {tuple(grid)} blocks, along {axis} 1 to {most:,} are possible")
    if not 1 <= threads <= MAX_THREADS:
        raise OverflowError(f"{name}: blocks of {threads} threads, 1 to {MAX_THREADS} are possible")
    if shared_nbytes > MAX_SHARED:
        raise OverflowError(f"{name}: {shared_nbytes:,} bytes of shared memory, {MAX_SHARED:,} are possible")
