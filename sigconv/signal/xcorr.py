"""Cross-correlation over chosen lags."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import numpy.typing as npt

from sigconv.errors import InputError
from sigconv.signal import kernels
from sigconv.signal.methods import solve
from sigconv.signal.problem import Problem, as_numbers, work_dtype

NORMALIZATIONS = (None, "biased", "unbiased", "coeff")


def xcorr(
    x: npt.ArrayLike,
    y: npt.ArrayLike | None = None,
    *,
    max_lag: int | None = None,
    lags: npt.ArrayLike | None = None,
    normalize: str | None = None,
    axis: int = -1,
) -> tuple[np.ndarray, np.ndarray]:
    """Cross-correlation ``r[k] = sum_n x[n + k] conj(y[n])`` with its lags: a peak at k means that x is y, k later.

    Only the lags asked for are computed, by convolution methods chosen as in `sigconv.correlate`.

    Parameters
    ----------
    x, y : array_like
        Signals along `axis`; their other axes broadcast. ``y=None`` is the autocorrelation of x.
    max_lag : int, optional
        Lags from -max_lag to max_lag, whether or not the signals overlap there. Default: every lag at which they do,
        ``-(Ny - 1)`` to ``Nx - 1``.
    lags : int or 1-D sequence of int, optional
        These lags, in this order, instead of `max_lag`.
    normalize : {None, 'biased', 'unbiased', 'coeff'}
        None: the sums. 'biased': over N, the length of the longer signal. 'unbiased': over the number of terms of each
        lag (NaN where there are none). 'coeff': over ``sqrt(sum |x|² sum |y|²)``, so that signals equal up to a
        positive factor give 1 at lag 0 (NaN for a signal of zeros). Means are not subtracted.
    axis : int

    Returns
    -------
    values : ndarray
        Broadcast shape with the number of lags along `axis`. Integers stay integers, exact, unless normalised.
    lags : ndarray of int64

    Raises
    ------
    InputError
        Empty signals, shapes that do not broadcast, both `max_lag` and `lags`, a negative `max_lag`, an unknown
        `normalize`.

    Examples
    --------
    >>> import numpy as np
    >>> from sigconv.signal.xcorr import xcorr
    >>> values, lags = xcorr([0, 0, 1, 2, 0], [1, 2, 0, 0, 0], max_lag=2)
    >>> values, lags
    (array([0, 0, 0, 2, 5]), array([-2, -1,  0,  1,  2]))
    >>> int(lags[np.argmax(values)])
    2
    """
    if normalize not in NORMALIZATIONS:
        raise InputError(f"normalize is {normalize!r}, it must be one of {', '.join(map(repr, NORMALIZATIONS))}")
    a = np.asarray(x)
    b = a if y is None else np.asarray(y)
    a, b = _lines(a, axis, "x"), _lines(b, axis, "y")
    try:
        batch = np.broadcast_shapes(a.shape[:-1], b.shape[:-1])
    except ValueError:
        raise InputError(
            f"x and y have the shapes {a.shape} and {b.shape} with the lags last: all axes but {axis} must broadcast"
        ) from None
    wanted = _wanted(a.shape[-1], b.shape[-1], max_lag, lags)
    values = _sums(a, b, wanted, batch)
    if normalize is not None:
        values = values / _scale(a, b, wanted, normalize)
    return np.moveaxis(values, -1, axis), wanted


def _lines(signal: np.ndarray, axis: int, name: str) -> np.ndarray:
    if not -signal.ndim <= operator.index(axis) < signal.ndim:
        raise InputError(f"axis is {axis}, {name} has the shape {signal.shape}")
    if signal.shape[axis] == 0:
        raise InputError(f"{name} has the shape {signal.shape}: it is empty along axis {axis}")
    return np.moveaxis(signal, axis, -1)


def _wanted(nx: int, ny: int, max_lag: int | None, lags: Any) -> np.ndarray:
    if lags is not None:
        if max_lag is not None:
            raise InputError(f"max_lag is {max_lag} and lags are given: pass one of them")
        wanted = np.atleast_1d(lags)
        if wanted.ndim != 1 or wanted.dtype.kind not in "iu" or wanted.size == 0:
            raise InputError(f"lags is {wanted.dtype} of shape {wanted.shape}: 1-D integers are needed, not empty")
        return wanted.astype(np.int64)
    if max_lag is None:
        return np.arange(1 - ny, nx)
    if operator.index(max_lag) < 0:
        raise InputError(f"max_lag is {max_lag}: it must be 0 or more")
    return np.arange(-max_lag, max_lag + 1)


def _sums(a: np.ndarray, b: np.ndarray, wanted: np.ndarray, batch: tuple[int, ...]) -> np.ndarray:
    a, b = (as_numbers(s.reshape((1,) * (len(batch) + 1 - s.ndim) + s.shape), name) for s, name in ((a, "x"), (b, "y")))
    first, last = int(wanted.min()), int(wanted.max())
    kind = np.result_type(a.dtype, b.dtype)
    problem = Problem(
        x=a,
        w=b.conj(),
        conv=(*[False] * len(batch), True),
        start=(*[0] * len(batch), first + b.shape[-1] - 1),
        count=(*batch, last - first + 1),
        boundary="fill",
        fillvalue=0,
        dtype=kind,
        work=work_dtype(kind),
    )
    values = solve(problem, threads=kernels.default_threads())
    return values if wanted.size == last - first + 1 and (np.diff(wanted) == 1).all() else values[..., wanted - first]


def _scale(a: np.ndarray, b: np.ndarray, wanted: np.ndarray, normalize: str) -> Any:
    nx, ny = a.shape[-1], b.shape[-1]
    kind = np.result_type(a.dtype, b.dtype, np.float32 if max(a.itemsize, b.itemsize) <= 4 else np.float64)
    real = np.finfo(kind).dtype
    if normalize == "biased":
        return real.type(max(nx, ny))
    if normalize == "unbiased":
        terms = np.minimum(nx, wanted + ny) - np.maximum(wanted, 0)
        return np.where(terms > 0, terms, np.nan).astype(real)
    energy = [np.sum(np.abs(s.astype(np.result_type(s.dtype, real))) ** 2, axis=-1, keepdims=True) for s in (a, b)]
    scale = np.sqrt(energy[0]) * np.sqrt(energy[1])
    return np.where(scale > 0, scale, np.nan)
