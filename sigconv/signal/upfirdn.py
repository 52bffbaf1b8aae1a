"""Upsampling, FIR filtering and downsampling in one step."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sigconv.errors import InputError
from sigconv.signal import kernels

MODES = ("constant", "symmetric", "reflect", "edge", "wrap", "smooth", "antisymmetric", "antireflect", "line")
FEW = 16
"""Strides up to this are taken out of the inner loop, by a copy of the signal."""


def upfirdn(
    h: npt.ArrayLike,
    x: npt.ArrayLike,
    up: int = 1,
    down: int = 1,
    axis: int = -1,
    mode: str = "constant",
    cval: Any = 0,
) -> np.ndarray:
    """Insert ``up - 1`` zeros after each sample, convolve with h, keep every `down`-th sample: `scipy.signal.upfirdn`.

    ``y[m] = sum_j h[(m down) % up + j up] x[(m down) // up - j]``: only the products that remain are computed. Outputs
    whose ``m`` agree modulo ``up / gcd(up, down)`` share their taps and are one strided correlation (the polyphase
    form: P. P. Vaidyanathan, Multirate Systems and Filter Banks, 1993).

    Parameters
    ----------
    h : array_like, 1-D, not empty
    x : array_like
    up, down : int >= 1
    axis : the axis of x that is filtered
    mode : what x is beyond its ends
        'constant' (`cval`, default 0), 'symmetric', 'reflect', 'edge', 'wrap' as in `numpy.pad`; 'smooth' continues the
        slope of the last two samples, 'line' that from the first to the last sample, 'antisymmetric' and 'antireflect'
        mirror with the sign turned (about 0, and about the end's value).

    Returns
    -------
    ndarray
        ``ceil(((N - 1) up + len(h)) / down)`` samples along `axis`. float32 and complex64 stay, integers become
        float64.

    Raises
    ------
    InputError
        h is empty or not 1-D, `up` or `down` < 1, x is empty along `axis`, an unknown mode.

    Examples
    --------
    >>> from sigconv.signal.upfirdn import upfirdn
    >>> upfirdn([1, 1, 1], [1, 2, 3], 3)  # sample and hold
    array([1., 1., 1., 2., 2., 2., 3., 3., 3.])
    >>> upfirdn([0.5, 1, 0.5], range(10), 2, 3)  # linear interpolation, rate 2/3
    array([0. , 1. , 2.5, 4. , 5.5, 7. , 8.5])
    """
    taps, signal = np.asarray(h), np.asarray(x)
    up, down = operator.index(up), operator.index(down)
    if taps.ndim != 1 or taps.size == 0:
        raise InputError(f"h has the shape {taps.shape}: it must be 1-D with non-zero length")
    if up < 1 or down < 1:
        raise InputError(f"up, down are {up}, {down}: both must be >= 1")
    if str(mode).lower() not in MODES:
        raise InputError(f"mode is {mode!r}, it must be one of {', '.join(map(repr, MODES))}")
    if signal.ndim == 0 or not -signal.ndim <= operator.index(axis) < signal.ndim or signal.shape[axis] == 0:
        raise InputError(f"x has the shape {signal.shape}: it must have the axis {axis}, not empty")
    kind = np.result_type(taps.dtype, signal.dtype, np.float32)
    lines = np.moveaxis(signal, axis, -1).astype(kind, copy=False)
    size = lines.shape[-1]
    n = output_length(taps.size, size, up, down)
    reach = -(-taps.size // up) - 1
    last = (n - 1) * down // up
    lines = _extended(lines, reach, max(last - size + 1, 0), str(mode).lower(), cval)
    phases, stride = up // math.gcd(up, down), down // math.gcd(up, down)
    y = np.zeros((phases, *lines.shape[:-1], -(-n // phases)), kind)
    work = []
    for r in range(min(phases, n)):
        first, phase = divmod(r * down, up)
        w = taps[phase::up][::-1].astype(kind)
        if w.size:
            work.append((w, first + reach + 1 - w.size, y[r, ..., : -(-(n - r) // phases)]))
    _strided(np.ascontiguousarray(lines, kind), work, stride)
    y = np.moveaxis(y, 0, -1).reshape(*lines.shape[:-1], -1)[..., :n]
    return np.ascontiguousarray(np.moveaxis(y, -1, axis))


def output_length(taps: int, size: int, up: int, down: int) -> int:
    """Samples of `upfirdn` along its axis."""
    return ((size - 1) * up + taps - 1) // down + 1


def _strided(lines: np.ndarray, work: Sequence[tuple[np.ndarray, int, np.ndarray]], stride: int) -> None:
    """``y[…, c] = sum_k w[k] lines[…, first + c stride + k]`` for each (w, first, y), y dense along c."""
    variant = kernels.variant(lines, lines, lines.dtype, 0)
    if variant is None or not work:
        for w, first, y in work:
            windows = np.lib.stride_tricks.sliding_window_view(lines, w.size, axis=-1)
            y[...] = windows[..., first : first + (y.shape[-1] - 1) * stride + 1 : stride, :] @ w
        return
    from sigconv.kernels.cpu.rows import ARGS
    from sigconv.runtime.runner import STEP, Prepared

    size, rows = lines.itemsize, math.prod(lines.shape[:-1])
    # Every stride-th element side by side: the sum over taps k = j stride + q has unit stride in each of the rows q.
    # The last row's taps are filled up with zeros, which a NaN or Inf would betray.
    spread = stride if 1 < stride <= FEW and np.isfinite(lines).all() else 1
    length = -(-lines.shape[-1] // spread) + 1
    if spread > 1:
        padded = np.zeros((*lines.shape[:-1], length * spread), lines.dtype)
        padded[..., : lines.shape[-1]] = lines
        lines = np.ascontiguousarray(np.swapaxes(padded.reshape(rows, length, spread), 1, 2))
        stride = 1
    starts = lines.ctypes.data + size * (lines.size // rows) * np.arange(rows)[:, None]
    tables, taps = [], []
    for w, first, _ in work:
        q = first + np.arange(min(spread, w.size))
        tables.append(starts + size * (q % spread * length + q // spread))
        filled = np.zeros((-(-w.size // q.size), q.size), w.dtype)
        filled.ravel()[: w.size] = w
        taps.append(np.ascontiguousarray(filled.T))
    args, steps = np.zeros(len(work), ARGS), np.zeros(len(work), STEP)
    args["rows"], args["J"] = [table.ctypes.data for table in tables], [w.shape[0] for w in taps]
    args["w"], args["K"] = [w.ctypes.data for w in taps], [w.shape[1] for w in taps]
    args["y"], args["n"] = [y.ctypes.data for _, _, y in work], [y.shape[-1] for _, _, y in work]
    args["y_row"] = [y.strides[-2] // size if rows > 1 else y.shape[-1] for _, _, y in work]
    args["n_rows"], args["step"], args["dilation"] = rows, stride, 1
    steps["kernel"] = variant.kernel.address
    steps["args"] = args.ctypes.data + np.arange(len(work)) * ARGS.itemsize
    steps["width"] = [max(1, rows * y.shape[-1] * w.size // kernels.SHARE) for w, _, y in work]
    Prepared(steps).run(kernels.default_threads())


def _extended(lines: np.ndarray, before: int, after: int, mode: str, cval: Any) -> np.ndarray:
    """`lines` with `before` and `after` samples more along the last axis."""
    n = lines.shape[-1]
    i = np.arange(-before, n + after)
    if mode == "constant":
        y = np.full((*lines.shape[:-1], i.size), cval, lines.dtype)
        y[..., before : before + n] = lines
        return y
    start, end = lines[..., :1], lines[..., -1:]
    beyond = i - np.clip(i, 0, n - 1)  # how far outside: negative before the start
    near = np.clip(i, 0, n - 1)
    if mode in ("edge", "smooth", "line"):
        if mode == "edge" or n == 1:
            return lines[..., near]
        slopes = lines[..., 1:2] - start, end - lines[..., -2:-1]
        if mode == "line":
            slopes = ((end - start) / lines.dtype.type(n - 1),) * 2
        steps = np.where(beyond < 0, slopes[0], slopes[1])
        return lines[..., near] + beyond * steps
    if mode == "wrap":
        return lines[..., i % n]
    symmetric = mode in ("symmetric", "antisymmetric")
    period = n if symmetric else max(n - 1, 1)
    turns, offset = i // period, i % period
    if n == 1 and not symmetric:
        return lines[..., np.zeros_like(i)]
    odd = turns % 2 == 1
    values = lines[..., np.where(odd, period - (1 if symmetric else 0) - offset, offset)]
    if mode == "antisymmetric":
        return np.where(odd, -values, values)
    if mode == "antireflect":  # each turn goes on from the end that the last one reached
        return np.where(odd, (end - values) + end, values) + (turns - odd) * (end - start) if n > 1 else values
    return values
