"""Convolution and correlation by their definitions: plain loops over outputs and taps, any rank, NumPy only.

Sums are taken in Python's numbers: integers exactly, the rest in double precision. `wrapped` brings exact integers into
a type as machine arithmetic would.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np


def source(i: int, n: int, boundary: str) -> int | None:
    """Which element of ``n`` stands at position ``i`` of the extended axis; None: the fill value. Found by walking."""
    while not 0 <= i < n:
        if boundary == "fill":
            return None
        if boundary == "edge":
            i = 0 if i < 0 else n - 1
        elif boundary == "wrap":
            i += n if i < 0 else -n
        elif boundary == "symm":
            i = -1 - i if i < 0 else 2 * n - 1 - i
        elif n == 1:  # reflect
            i = 0
        else:
            i = -i if i < 0 else 2 * (n - 1) - i
    return i


def outputs(n: int, k: int, mode: str) -> range:
    """The indices of the full result that a mode keeps."""
    if mode == "full":
        return range(n + k - 1)
    if mode == "same":
        return range((k - 1) // 2, (k - 1) // 2 + n)
    return range(min(n, k) - 1, max(n, k))


def convolve(
    x: np.ndarray, h: np.ndarray, mode: str = "full", boundary: str = "fill", fillvalue: Any = 0
) -> np.ndarray:
    """``y[n] = sum_k x[n - k] h[k]``. Beyond a boundary of zeros there is nothing: no term, not even 0 * NaN.

    In 'valid' mode the longer array is the signal.
    """
    if mode == "valid" and all(n <= k for n, k in zip(x.shape, h.shape, strict=True)):
        x, h = h, x
    ranges = [outputs(n, k, mode) for n, k in zip(x.shape, h.shape, strict=True)]
    xs, hs = x.astype(object), h.astype(object)
    y = np.zeros([len(r) for r in ranges], object)
    for at in itertools.product(*(range(len(r)) for r in ranges)):
        total = 0
        for tap in np.ndindex(h.shape):
            where = [source(r[i] - k, n, boundary) for r, i, k, n in zip(ranges, at, tap, x.shape, strict=True)]
            if None not in where:
                total += xs[tuple(where)] * hs[tap]
            elif fillvalue:
                total += fillvalue * hs[tap]
        y[at] = total
    return y


def correlate(
    x: np.ndarray, h: np.ndarray, mode: str = "full", boundary: str = "fill", fillvalue: Any = 0
) -> np.ndarray:
    """``y[n] = sum_k x[n + k] conj(h[k])`` from lag ``1 - K`` on; 'valid' of a longer ``h``: reversed, conjugated."""
    if mode == "valid" and h.size and all(n < k for n, k in zip(x.shape, h.shape, strict=True)):
        return np.conj(np.flip(correlate(h, x, mode)))
    return convolve(x, np.flip(h).conj(), mode, boundary, fillvalue)


def batched(x: np.ndarray, h: np.ndarray, axes: tuple[int, ...], mode: str, **options: Any) -> np.ndarray:
    """`convolve` along ``axes`` for each index of the other axes, sizes of 1 there repeated."""
    others = [a for a in range(x.ndim) if a not in axes]
    sizes = [max(x.shape[a], h.shape[a]) for a in others]
    result = np.empty(sizes, object)
    for index in np.ndindex(*sizes):
        parts = []
        for array in (x, h):
            at: list[Any] = [slice(None)] * x.ndim
            for a, i in zip(others, index, strict=True):
                at[a] = i if array.shape[a] > 1 else 0
            parts.append(array[tuple(at)])
        result[index] = convolve(*parts, mode, **options)
    first = result.flat[0]
    stacked = np.array(list(result.flat)).reshape(*sizes, *first.shape)
    return np.moveaxis(stacked, range(len(others), x.ndim), axes)


def wrapped(y: np.ndarray, dtype: Any) -> np.ndarray:
    """Exact integers modulo the size of an integer type; for bool, whether they are not 0."""
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return y.astype(bool)
    if dtype.kind not in "iu":
        return y.astype(dtype)
    bits = 8 * dtype.itemsize
    unsigned = np.array([int(v) % (1 << bits) for v in y.flat], np.uint64).reshape(y.shape)
    return unsigned.astype(f"u{dtype.itemsize}").view(dtype)
