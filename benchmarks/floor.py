"""What direct arithmetic cannot beat on this machine: multiply-adds at a core's peak, bytes at its memory's speed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

import sigconv
from sigconv import lines
from sigconv.kernels import simd
from sigconv.kernels.address import as_pointer

LANES = simd.lanes(np.float32)
CHAINS = 10
"""Multiply-adds side by side: more than a core has in flight."""


@njit
def _multiply_adds(address: int, turns: int) -> None:
    """``turns`` times `CHAINS` vector multiply-adds, each chain from a value of its own; the results are stored."""
    x = as_pointer(address, np.float32)
    half, one = simd.broadcast(np.float32(0.5)), simd.broadcast(np.float32(1.0))
    a, b, c = simd.load(x, 0), simd.load(x, LANES), simd.load(x, 2 * LANES)
    d, e, f = simd.load(x, 3 * LANES), simd.load(x, 4 * LANES), simd.load(x, 5 * LANES)
    g, h, i = simd.load(x, 6 * LANES), simd.load(x, 7 * LANES), simd.load(x, 8 * LANES)
    j = simd.load(x, 9 * LANES)
    for _ in range(turns):
        a, b, c = simd.fma(a, half, one), simd.fma(b, half, one), simd.fma(c, half, one)
        d, e, f = simd.fma(d, half, one), simd.fma(e, half, one), simd.fma(f, half, one)
        g, h, i = simd.fma(g, half, one), simd.fma(h, half, one), simd.fma(i, half, one)
        j = simd.fma(j, half, one)
    simd.store(x, 0, simd.add(simd.add(simd.add(a, b), simd.add(c, d)), simd.add(simd.add(e, f), simd.add(g, h))))
    simd.store(x, LANES, simd.add(i, j))


@njit
def _read(address: int, vectors: int) -> None:
    """Add up ``4 * vectors`` vectors."""
    x, out = as_pointer(address, np.float32), as_pointer(address, np.float32)
    a = b = c = d = simd.broadcast(np.float32(0.0))
    for v in range(vectors):
        at = v * 4 * LANES
        a, b = simd.add(a, simd.load(x, at)), simd.add(b, simd.load(x, at + LANES))
        c, d = simd.add(c, simd.load(x, at + 2 * LANES)), simd.add(d, simd.load(x, at + 3 * LANES))
    simd.store(out, 0, simd.add(simd.add(a, b), simd.add(c, d)))


def _fastest(run: Callable[[], Any], times: int = 7) -> float:
    run()
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def limits() -> dict[str, float]:
    """GFLOP/s in float32 and GB/s read from memory of one core, each measured now."""
    out, turns = lines.zeros(CHAINS * LANES, np.float32), 1_000_000
    out[:] = np.arange(out.size)
    flops = 2.0 * turns * CHAINS * LANES / _fastest(lambda: _multiply_adds(out.ctypes.data, turns))
    data = lines.zeros(128 << 20, np.float32)
    data += 1  # in memory, not promised
    vectors = data.size // (4 * LANES)
    read = data.nbytes / _fastest(lambda: _read(data.ctypes.data, vectors))
    return {"gflops": round(flops / 1e9, 1), "gbytes": round(read / 1e9, 1)}


def milliseconds(path: Path, shapes: dict[str, tuple[int, ...]], threads: int, limits: dict[str, float]) -> float:
    """The longer of a model's multiply-adds at the peak and its weights, read once, at the memory's speed."""
    model = sigconv.load(path)
    arithmetic = 2.0 * model.summary(shapes).macs / limits["gflops"]
    reading = sum(c.nbytes for c in model.graph.constants.values()) / limits["gbytes"]
    return max(arithmetic, reading) / threads / 1e6
