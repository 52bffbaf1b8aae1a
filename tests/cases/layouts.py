"""Activations as kernels see them: plain or channel-blocked, with margins that kernels leave alone. NumPy only."""

from __future__ import annotations

import numpy as np


class Activation:
    """An NC(D)HW array laid out as [N, C/c, D, H, margin + W + margin, c]; ``view`` is the same without the margins.

    Margins and the lanes beyond C hold ``filler``.
    """

    def __init__(self, x: np.ndarray, c: int = 1, margin: int = 0, filler: float = np.nan) -> None:
        n, channels, *spatial = x.shape
        d, h, w = (1,) * (3 - len(spatial)) + tuple(spatial)
        self.shape, self.c, blocks = x.shape, c, -(-channels // c)
        lanes = np.full((n, blocks * c, d, h, w), filler, x.dtype)
        lanes[:, :channels] = x.reshape(n, channels, d, h, w)
        self.buffer = np.full((n, blocks, d, h, w + 2 * margin, c), filler, x.dtype)
        self.view = self.buffer[:, :, :, :, margin : margin + w]
        self.view[...] = lanes.reshape(n, blocks, c, d, h, w).transpose(0, 1, 3, 4, 5, 2)
        self.margin = margin

    @classmethod
    def empty(cls, shape: tuple[int, ...], dtype: np.dtype | type, c: int = 1, margin: int = 0) -> Activation:
        return cls(np.full(shape, 1e9, dtype), c, margin, 1e9)

    @property
    def address(self) -> int:
        return self.view.__array_interface__["data"][0]

    @property
    def items(self) -> int:
        return self.buffer.shape[0] * self.buffer.shape[1]

    @property
    def strides(self) -> tuple[int, ...]:
        """Of batch, block, D, H and W, in elements."""
        return tuple(s // self.view.itemsize for s in self.view.strides[:5])

    def array(self) -> np.ndarray:
        """Back to NC(D)HW."""
        n, blocks, d, h, w, c = self.view.shape
        whole = self.view.transpose(0, 1, 5, 2, 3, 4).reshape(n, blocks * c, d, h, w)
        return whole[:, : self.shape[1]].reshape(self.shape)

    def margins_hold(self, filler: float) -> bool:
        """Whether nothing wrote into the margins."""
        if not self.margin:
            return True
        edges = self.buffer[:, :, :, :, : self.margin], self.buffer[:, :, :, :, -self.margin :]
        return all(np.array_equal(e, np.full_like(e, filler), equal_nan=True) for e in edges)
