"""Naive sliding windows, written to be obviously right: plain loops over output positions, any rank, NumPy only.

The independent oracle of geometry, ops and kernels. Arrays are ``[N, C, *spatial]``; attributes follow ONNX: ``pads``
lists all begins, then all ends, None is the default of ones or zeros. Pads are explicit only. Sums are taken in float64
or complex128 and returned in that dtype. ``conv_nd`` is a correlation: it does not flip the weights.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

Ints = Sequence[int] | None


def outputs(
    size: int, kernel: int, stride: int, dilation: int, before: int, after: int, ceil: bool = False
) -> list[int]:
    """The start index of every window on one axis (negative inside the left pad), found by walking.

    Plain: windows end inside the padded input. Ceil: one more may hang over its end, if the window before it left some
    of the padded input uncovered and it starts inside the input or the left pad.
    """
    extent = (kernel - 1) * dilation + 1
    starts = []
    start = -before
    while True:
        if ceil:
            exists = start - stride + extent < size + after and start < size
        else:
            exists = start + extent <= size + after
        if not exists:
            return starts
        starts.append(start)
        start += stride


def taps(start: int, kernel: int, dilation: int) -> list[int]:
    """The input indices of one window, inside the input or not."""
    return [start + k * dilation for k in range(kernel)]


def windows(
    sizes: Sequence[int], kernel: Sequence[int], strides: Ints, pads: Ints, dilations: Ints, ceil: bool = False
) -> tuple[tuple[int, ...], Iterator[tuple[tuple[int, ...], list[list[int]]]]]:
    """The output sizes, and for each output position (position, indices read on each axis)."""
    rank = len(sizes)
    strides, dilations, pads = strides or [1] * rank, dilations or [1] * rank, pads or [0] * 2 * rank
    starts = [
        outputs(sizes[i], kernel[i], strides[i], dilations[i], pads[i], pads[rank + i], ceil) for i in range(rank)
    ]
    walk = (
        (position, [taps(starts[i][position[i]], kernel[i], dilations[i]) for i in range(rank)])
        for position in itertools.product(*(range(len(s)) for s in starts))
    )
    return tuple(len(s) for s in starts), walk


def conv_nd(
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray | None = None,
    *,
    strides: Ints = None,
    pads: Ints = None,
    dilations: Ints = None,
    groups: int = 1,
) -> np.ndarray:
    """Correlation of ``x [N, C, *sizes]`` with ``w [M, C / groups, *kernel]`` plus ``b [M]``: ``[N, M, *outputs]``."""
    rank = x.ndim - 2
    begins, ends = _split(pads, rank)
    padded = np.pad(_wide(x), [(0, 0), (0, 0), *zip(begins, ends, strict=True)])
    out_sizes, walk = windows(padded.shape[2:], w.shape[2:], strides, None, dilations)
    channels, maps = w.shape[1], w.shape[0] // groups
    y = np.zeros((x.shape[0], w.shape[0], *out_sizes), np.result_type(padded, _wide(w)))
    for position, indices in walk:
        patch = padded[np.ix_(range(x.shape[0]), range(x.shape[1]), *indices)]
        for g in range(groups):
            mine, rows = slice(g * channels, (g + 1) * channels), slice(g * maps, (g + 1) * maps)
            y[(slice(None), rows, *position)] = patch[:, mine].reshape(len(x), -1) @ _wide(w[rows]).reshape(maps, -1).T
    return y if b is None else y + b.reshape(-1, *[1] * rank)


def conv_transpose_nd(
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray | None = None,
    *,
    strides: Ints = None,
    pads: Ints = None,
    dilations: Ints = None,
    groups: int = 1,
    output_padding: Ints = None,
) -> np.ndarray:
    """Scatter ``x [N, C, *sizes]`` times ``w [C, M / groups, *kernel]`` into the output; cut ``pads``; add ``b``."""
    rank = x.ndim - 2
    strides, dilations, extra = strides or [1] * rank, dilations or [1] * rank, output_padding or [0] * rank
    begins, ends = _split(pads, rank)
    sizes, kernel = x.shape[2:], w.shape[2:]
    full = [(sizes[i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 + extra[i] for i in range(rank)]
    channels, maps = x.shape[1] // groups, w.shape[1]
    y = np.zeros((x.shape[0], maps * groups, *full), np.result_type(_wide(x), _wide(w)))
    for position in np.ndindex(*sizes):
        for tap in np.ndindex(*kernel):
            target = tuple(position[i] * strides[i] + tap[i] * dilations[i] for i in range(rank))
            for g in range(groups):
                mine = slice(g * channels, (g + 1) * channels)
                value = _wide(x)[(slice(None), mine, *position)] @ _wide(w)[(mine, slice(None), *tap)]
                y[(slice(None), slice(g * maps, (g + 1) * maps), *target)] += value
    y = y[(..., *(slice(begins[i], full[i] - ends[i]) for i in range(rank)))]
    return y if b is None else y + b.reshape(-1, *[1] * rank)


def max_pool_nd(
    x: np.ndarray,
    kernel: Sequence[int],
    *,
    strides: Ints = None,
    pads: Ints = None,
    dilations: Ints = None,
    ceil_mode: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """The maximum of the inputs in each window, in the dtype of ``x``, and its row-major index into the whole of ``x``.

    Padding is never a maximum; NaN is. Of equals, the first. A window without inputs gives the lowest value and -1.
    """
    sizes = x.shape[2:]
    out_sizes, walk = windows(sizes, kernel, strides, pads, dilations, ceil_mode)
    lowest = -np.inf if np.issubdtype(x.dtype, np.floating) else np.iinfo(x.dtype).min
    y = np.full((*x.shape[:2], *out_sizes), lowest, x.dtype)
    where = np.full(y.shape, -1, np.int64)
    flat = np.arange(x.size).reshape(x.shape)
    for position, indices in walk:
        inside = _inside(indices, sizes)
        if all(inside):
            for n, c in np.ndindex(*x.shape[:2]):
                values = x[n, c][np.ix_(*inside)].ravel()
                y[(n, c, *position)] = values.max()
                where[(n, c, *position)] = flat[n, c][np.ix_(*inside)].ravel()[values.argmax()]
    return y, where


def avg_pool_nd(
    x: np.ndarray,
    kernel: Sequence[int],
    *,
    strides: Ints = None,
    pads: Ints = None,
    dilations: Ints = None,
    ceil_mode: bool = False,
    count_include_pad: bool = False,
) -> np.ndarray:
    """The mean of the inputs in each window, or their sum over all taps that are input or explicit pad.

    What ceil_mode reads beyond the explicit pad never counts. A window without inputs gives 0.
    """
    sizes = x.shape[2:]
    begins, ends = _split(pads, len(sizes))
    out_sizes, walk = windows(sizes, kernel, strides, pads, dilations, ceil_mode)
    y = np.zeros((*x.shape[:2], *out_sizes), _wide(x).dtype)
    for position, indices in walk:
        inside = _inside(indices, sizes)
        padded = [
            [i for i in axis if -lo <= i < n + hi] for axis, n, lo, hi in zip(indices, sizes, begins, ends, strict=True)
        ]
        if all(inside):
            counted = padded if count_include_pad else inside
            patch = _wide(x)[np.ix_(range(x.shape[0]), range(x.shape[1]), *inside)]
            y[(..., *position)] = patch.sum(axis=tuple(range(2, x.ndim))) / np.prod([len(axis) for axis in counted])
    return y


def _inside(indices: Sequence[Sequence[int]], sizes: Sequence[int]) -> list[list[int]]:
    return [[i for i in axis if 0 <= i < n] for axis, n in zip(indices, sizes, strict=True)]


def _split(pads: Ints, rank: int) -> tuple[Sequence[int], Sequence[int]]:
    pads = pads or [0] * 2 * rank
    return pads[:rank], pads[rank:]


def _wide(x: np.ndarray) -> np.ndarray:
    return x.astype(np.result_type(x, np.float64))
