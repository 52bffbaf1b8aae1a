"""`convolve`, `correlate` and `polymul` with NumPy's rules; `sigconv.convolve` and `sigconv.correlate` follow SciPy's.

NumPy's functions take 1-D sequences, swap them when the second is the longer, and give max(M, N) elements for 'same',
max(M, N) - min(M, N) + 1 for 'valid'. Types follow `np.result_type`: integers wrap as in NumPy, float32 stays float32.

Examples
--------
>>> import sigconv.numpy as scn
>>> scn.convolve([1, 2, 3], [0, 1, 0.5])
array([0. , 1. , 2.5, 4. , 1.5])
>>> scn.convolve([1, 2, 3], [0, 1, 0.5], 'same')
array([1. , 2.5, 4. ])
>>> scn.convolve([1, 2, 3], [0, 1, 0.5], 'valid')
array([2.5])
>>> scn.convolve([1, 2], [1, 2, 3, 4], 'same')  # four elements, where SciPy's rule gives two
array([ 1,  4,  7, 10])
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sigconv.errors import InputError

__all__ = ["convolve", "correlate", "polymul"]

_MODES = ("full", "same", "valid")


def convolve(a: npt.ArrayLike, v: npt.ArrayLike, mode: str = "full") -> np.ndarray:
    """Convolution of two 1-D sequences, as `numpy.convolve`: ``y[n] = sum_m a[m] v[n - m]``.

    Parameters
    ----------
    a, v : array_like, shapes (M,) and (N,), not empty
    mode : 'full' (M + N - 1 elements), 'same' (max(M, N)) or 'valid' (max(M, N) - min(M, N) + 1)

    Raises
    ------
    InputError
        An argument is empty or has more than one axis, or `mode` is no mode.
    """
    x, h = _pair(a, v, mode)
    return _convolve(x, h, mode) if x.size >= h.size else _convolve(h, x, mode)


def correlate(a: npt.ArrayLike, v: npt.ArrayLike, mode: str = "valid") -> np.ndarray:
    """Cross-correlation of two 1-D sequences, as `numpy.correlate`: ``c[k] = sum_n a[n + k] conj(v[n])``.

    The default mode is 'valid', as NumPy's. In 'full', element i belongs to the lag ``k = i - (N - 1)``.

    Parameters, errors and output sizes are those of `convolve`.
    """
    x, h = _pair(a, v, mode)
    h = h.conj()
    return _convolve(x, h[::-1], mode) if x.size >= h.size else _convolve(h, x[::-1], mode)[::-1].copy()


def polymul(a1: Any, a2: Any) -> Any:
    """The product of two polynomials, coefficients from the highest power down, as `numpy.polymul`.

    Leading zeros of the factors are dropped. The result is a `numpy.poly1d` when one of the factors is, else an array.

    >>> polymul([1, 2, 3], [3, 2, 2])
    array([ 3,  8, 15, 10,  6])
    """
    factors = [np.trim_zeros(np.atleast_1d(np.asarray(p)), "f") for p in (a1, a2)]
    if any(f.ndim != 1 for f in factors):
        raise InputError(f"polymul takes 1-D coefficients, not arrays of shapes {np.shape(a1)} and {np.shape(a2)}")
    p1, p2 = (f if f.size else np.zeros(1, f.dtype) for f in factors)
    product = convolve(p1, p2)
    return np.poly1d(product) if isinstance(a1, np.poly1d) or isinstance(a2, np.poly1d) else product


def _pair(a: npt.ArrayLike, v: npt.ArrayLike, mode: str) -> tuple[np.ndarray, np.ndarray]:
    arrays = np.atleast_1d(a), np.atleast_1d(v)
    for name, array in zip("av", arrays, strict=True):
        if array.ndim != 1 or array.size == 0:
            raise InputError(f"{name} has the shape {np.shape(array)}: a sequence of one axis, not empty, is needed")
    if mode not in _MODES:
        raise InputError(f"mode is {mode!r}, it must be one of {', '.join(map(repr, _MODES))}")
    return arrays


def _convolve(longer: np.ndarray, shorter: np.ndarray, mode: str) -> np.ndarray:
    from sigconv.signal import convolve

    return convolve(longer, shorter, mode)
