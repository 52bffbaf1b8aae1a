"""Overlap-save along one axis with a kernel cut into equal partitions: long kernels in short blocks.

With transforms of ``L`` points and a hop of ``S`` outputs, block ``b`` gives outputs ``b * S … b * S + S - 1`` of the
full convolution. A kernel of ``K <= L`` taps is one partition, ``S = L - K + 1``: plain overlap-save. A longer one is
cut into partitions of ``S = L // 2`` taps; spectra of past inputs are kept, each meets the partition that is as many
blocks late. Sums run in an order set by ``b`` alone, so bits do not depend on how the input was cut.

References
----------
F. Wefers, Partitioned convolution algorithms for real-time auralization, 2015, chapter 5.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sigconv.signal import fft, grids, nan
from sigconv.signal.problem import Array, Problem, extend


def hop(length: int, taps: int) -> int:
    """New outputs of a transform."""
    return length - taps + 1 if length >= taps else length // 2


class Kernel:
    """The spectra of a kernel ``h[…, K]``, not reversed and finite, for transforms of ``length`` points."""

    def __init__(self, h: Array, length: int, dtype: np.dtype[Any]) -> None:
        taps = h.shape[-1]
        self.taps, self.length, self.dtype = taps, length, dtype
        self.hop = hop(length, taps)
        self.count = 1 if length >= taps else -(-taps // self.hop)
        self.grid = grids.grid((length,), dtype.char) if self.count == 1 else None
        if self.grid is not None:
            self.table = grids.spectra(self.grid, h)
            return
        size = taps if self.count == 1 else self.hop
        padded = np.zeros((*h.shape[:-1], self.count * size), dtype)
        padded[..., :taps] = h
        pieces = np.moveaxis(padded.reshape(*h.shape[:-1], self.count, size), -2, 0)
        spectra = fft.forward(np.ascontiguousarray(pieces), (length,), (pieces.ndim - 1,), 1)
        # Slot s of the ring meets partition (b - s) % count: a window of this doubled table, last to first.
        self.table = np.concatenate([spectra[::-1], spectra[::-1]]) if self.count > 1 else spectra

    @property
    def early(self) -> int:
        """Blocks before block 0 that have to run where something lies before the signal."""
        return -(-(self.taps - 1) // self.hop) if self.count > 1 else 0

    @property
    def nbytes(self) -> int:
        """Of the spectra."""
        return int(self.table.nbytes)


class Engine:
    """One signal with one `Kernel`, block by block."""

    def __init__(self, kernel: Kernel, channels: tuple[int, ...], block: int = 0) -> None:
        self.kernel, self.block = kernel, block
        self.ring = np.zeros(0, kernel.dtype)
        if kernel.grid is not None:
            self._one = grids.OneBlock(kernel.grid, kernel.table, channels, kernel.hop)
            return
        bins = kernel.table.shape[-1]
        self.ring = np.zeros((kernel.count, *channels, bins), kernel.table.dtype)
        shape = np.broadcast_shapes(self.ring.shape[1:], kernel.table.shape[1:])
        self._products = np.empty((kernel.count, *shape), kernel.table.dtype)

    def run(self, windows: Array) -> Array:
        """Outputs ``[…, hop]`` of the next block from its ``length`` inputs, the last ``hop`` of them new."""
        k = self.kernel
        if k.grid is not None:
            self.block += 1
            return self._one.run(windows)
        spectrum = fft.forward(windows, (k.length,), (windows.ndim - 1,), 1)
        if k.count == 1:
            total = spectrum * k.table[0]
        else:
            slot = self.block % k.count
            self.ring[slot] = spectrum
            first = k.count - 1 - slot
            np.multiply(self.ring, k.table[first : first + k.count], out=self._products)
            total = np.add.reduce(self._products, axis=0)
        self.block += 1
        full = fft.inverse(total, (k.length,), (total.ndim - 1,), k.dtype.kind != "c", 1)
        return full[..., k.length - k.hop :]


def kernel_of(problem: Problem, length: int) -> Kernel:
    """The spectra of a problem's kernel, along its only convolved axis."""
    (axis,) = (a for a, c in enumerate(problem.conv) if c)
    return Kernel(np.moveaxis(problem.w, axis, -1)[..., ::-1], length, fft.transform_dtype(problem))


def solve(problem: Problem, kernel: Kernel, nan_policy: str = "propagate") -> Array:
    """The outputs of a problem with one convolved axis, in the type of its sums; ``kernel``: `kernel_of` it."""

    def other(p: Problem) -> Array:
        return solve(p, kernel if p.w is problem.w else kernel_of(p, kernel.length))

    if kernel.dtype != fft.transform_dtype(problem):  # a signal of another type than was planned for
        kernel = kernel_of(problem, kernel.length)
    y = nan.apply_policy(problem, nan_policy, other)
    if y is not None:
        return y
    if not nan.is_finite(problem.x) or not nan.is_finite(problem.w):
        return nan.solve_nonfinite(problem, other)
    (axis,) = (a for a, c in enumerate(problem.conv) if c)
    step, before = kernel.hop, kernel.length - kernel.hop
    start, count = problem.start[axis], problem.count[axis]
    early = 0 if problem.zero_fill else kernel.early
    blocks = -(-(start + count) // step)
    boxes: list[Any] = [(0, n) for n in problem.x.shape]
    x, origin = problem.x, 0
    if not problem.zero_fill:
        origin = -(kernel.taps - 1)
        boxes[axis] = (origin, start + count)
        x = extend(x, boxes, problem.boundary, problem.fillvalue)
    boxes[axis] = (-early * step - before - origin, blocks * step - origin)
    x = np.moveaxis(extend(x, boxes, "fill", 0), axis, -1).astype(kernel.dtype, copy=False)
    y = np.empty((*(n for a, n in enumerate(problem.count) if a != axis), blocks * step), problem.work)
    engine = Engine(kernel, x.shape[:-1], -early)
    for b in range(-early, blocks):
        at = (b + early) * step
        part = engine.run(x[..., at : at + kernel.length])
        if b >= 0:
            y[..., b * step : (b + 1) * step] = part
    return np.ascontiguousarray(np.moveaxis(y[..., start : start + count], -1, axis))
