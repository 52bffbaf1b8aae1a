"""Sums over the windows of an array, of its shape: what `sigconv.ndimage` and `sigconv.cv` are made of.

`sigconv.signal` is imported by the first call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

ROUNDED_TAPS = 128
"""Most taps of a kernel for bytes that is summed and rounded in one direct pass."""


def window_sums(
    x: np.ndarray, w: np.ndarray, lead: Sequence[int], boundary: str, fillvalue: Any, work: np.dtype
) -> np.ndarray:
    """``y[p] = sum_k w[k] X[p + k - lead]`` of x's shape in the type `work`, for w of the same rank.

    `lead` counts, for each axis, the elements of the window before its output; X is x extended by `boundary`.
    """
    from sigconv.signal import kernels
    from sigconv.signal.methods import solve
    from sigconv.signal.problem import Problem, fill_scalar

    x = x.astype(x.dtype.newbyteorder("="), copy=False)
    conv = tuple(n > 1 for n in w.shape)
    if not any(conv):
        return x.astype(work) * w.astype(work)
    start = tuple(n - 1 - before for n, before in zip(w.shape, lead, strict=True))
    problem = Problem(x, w, conv, start, x.shape, boundary, fill_scalar(fillvalue, work), work, work)
    return solve(problem, threads=kernels.default_threads())


def rounded_sums(x: np.ndarray, w: np.ndarray, lead: Sequence[int], boundary: str) -> np.ndarray | None:
    """`window_sums` of bytes in float32, rounded (ties to even) and saturated to bytes in the same pass.

    None where a tap is not finite, or the kernel is longer than one pass is worth or not that of an image.
    """
    from sigconv.signal import image, kernels

    if w.size > ROUNDED_TAPS:
        return None
    first, y = tuple(-before for before in lead), np.empty(x.shape, np.uint8)
    taps = w.astype(np.float32)
    threads = kernels.default_threads()
    done = image.run(kernels.rounded(), x, w.shape, (taps, None), first, y, boundary, 0, threads)
    return y if done else None


def separable_sums(
    x: np.ndarray,
    vectors: Sequence[np.ndarray],
    axes: Sequence[int],
    lead: Sequence[int],
    boundary: str,
    fillvalue: Any,
    work: np.dtype,
) -> np.ndarray:
    """`window_sums` under the outer product of vectors along ``axes`` (ascending), the last axis summed first.

    Neighbouring axes take one pass. The vectors are finite and of the type `work`; `lead` has an entry for each.
    """
    from sigconv.signal import kernels
    from sigconv.signal.problem import Problem, fill_scalar
    from sigconv.signal.separable import run

    x = x.astype(x.dtype.newbyteorder("="), copy=False)
    shape, start = [1] * x.ndim, [0] * x.ndim
    for axis, vector, before in zip(axes, vectors, lead, strict=True):
        shape[axis], start[axis] = vector.size, vector.size - 1 - before
    conv = tuple(a in axes for a in range(x.ndim))
    w = np.broadcast_to(work.type(0), shape)
    problem = Problem(x, w, conv, tuple(start), x.shape, boundary, fill_scalar(fillvalue, work), work, work)
    return run(problem, vectors, kernels.default_threads())


def exact_type(x: np.ndarray, w: np.ndarray, fillvalue: Any, wraps: bool) -> np.dtype | None:
    """The integer type that holds every sum of x's under w exactly; None if there is none, or w is not integer-valued.

    Where the result wraps anyway, int64 serves however large the sums are.
    """
    if x.dtype.kind not in "biu" or w.dtype.kind == "c" or not np.isreal(fillvalue):
        return None
    numbers = np.append(w.ravel(), np.real(fillvalue))
    if not (np.isfinite(numbers).all() and (numbers == np.rint(numbers)).all()):
        return None
    largest = 1 if x.dtype.kind == "b" else max(-int(np.iinfo(x.dtype).min), int(np.iinfo(x.dtype).max))
    bound = max(largest, abs(int(np.real(fillvalue)))) * int(np.abs(w).sum())
    kinds = (np.dtype(np.int32), np.dtype(np.int64))
    return next((t for t in kinds if bound <= np.iinfo(t).max), kinds[-1] if wraps and bound < 2**127 else None)
