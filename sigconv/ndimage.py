"""Linear filters with the signatures of `scipy.ndimage`: boundary modes, origins, output arrays and types.

The output has the input's shape, ``y[p] = sum_k w[k] x[p + k - K // 2 - origin]`` for `correlate`; `convolve` flips the
weights. Where the window leaves the array, the mode extends it (here a b c d):

=================================  ===========================  =========================
mode                               extension                    name in `sigconv.convolve`
=================================  ===========================  =========================
'reflect' (default), 'grid-mirror'  ``d c b a | a b c d | d c b a``  'symm'
'mirror'                            ``d c b | a b c d | c b a``      'reflect'
'nearest'                           ``a a a a | a b c d | d d d d``  'edge'
'wrap', 'grid-wrap'                 ``a b c d | a b c d | a b c d``  'wrap'
'constant', 'grid-constant'         ``k k k k | a b c d | k k k k``  'fill', with k = `cval`
=================================  ===========================  =========================

Types. The output has the input's type unless `output` is another type or an array. float32 and float16 inputs with such
outputs are summed in float32, everything else in float64, as are derivatives of Gaussians, whose terms cancel (SciPy
always sums in float64). Integer inputs under integer-valued weights are summed exactly, as is the moving average. An
integer output is *truncated towards zero*, not rounded, and then wraps modulo its range, as in SciPy: ask for
``output=float`` where that is not wanted. A sum within 1e-10 of an integer counts as that integer, so that a blurred
constant stays constant. Filters of several axes store each pass in the output's type, as SciPy does.

NaN and Inf reach exactly the outputs whose window holds them, times their weight.

Every error is an `InputError`; where SciPy raises a RuntimeError the error is one as well.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sigconv import filters
from sigconv.errors import InputError
from sigconv.window_sums import exact_type, separable_sums, window_sums

__all__ = [
    "convolve",
    "convolve1d",
    "correlate",
    "correlate1d",
    "gaussian_filter",
    "gaussian_filter1d",
    "uniform_filter",
    "uniform_filter1d",
]

BOUNDARIES = {
    "reflect": "symm",
    "grid-mirror": "symm",
    "mirror": "reflect",
    "nearest": "edge",
    "wrap": "wrap",
    "grid-wrap": "wrap",
    "constant": "fill",
    "grid-constant": "fill",
}
SNAP = 1e-10
"""Sums closer than this to an integer are not truncated but taken as that integer."""


class ArgumentError(InputError, RuntimeError):
    """An argument that `scipy.ndimage` answers with a RuntimeError."""


def correlate(
    input: npt.ArrayLike,
    weights: npt.ArrayLike,
    output: npt.DTypeLike | np.ndarray | None = None,
    mode: str = "reflect",
    cval: complex = 0.0,
    origin: int | Sequence[int] = 0,
    *,
    axes: int | Sequence[int] | None = None,
) -> np.ndarray:
    """Correlation of an array with weights (conjugated if complex), as `scipy.ndimage.correlate`.

    Parameters
    ----------
    input : array_like of any rank and numeric type
    weights : array_like with one axis for each of `axes`
    output : the output's type, or an array to fill (it may overlap the input); default: the input's type
    mode, cval : how the array goes on beyond its border, see the module
    origin : int or one for each axis, moves the window towards lower indices; ``-(K // 2) <= origin <= (K - 1) // 2``
    axes : the axes to filter, default all. The axes of `weights` belong to them in increasing order, the values of
        `origin` in the order given

    Returns
    -------
    ndarray of the input's shape; the array `output` if one was given

    Examples
    --------
    >>> correlate([1, 2, 3, 4], [0, 0, 1])  # the neighbour on the right; the last one is its own
    array([2, 3, 4, 4])
    """
    return _filter_nd(input, weights, output, mode, cval, origin, axes, convolution=False)


def convolve(
    input: npt.ArrayLike,
    weights: npt.ArrayLike,
    output: npt.DTypeLike | np.ndarray | None = None,
    mode: str = "reflect",
    cval: complex = 0.0,
    origin: int | Sequence[int] = 0,
    *,
    axes: int | Sequence[int] | None = None,
) -> np.ndarray:
    """Convolution of an array with weights, as `scipy.ndimage.convolve`: the weights are flipped.

    ``y[p] = sum_k w[k] x[p - k + K // 2 - origin]``, for odd and even K: `sigconv.convolve` in mode 'same' is one
    sample later for even K. Arguments as in `correlate`.

    >>> convolve([1, 2, 3, 4], [0, 0, 1], mode='constant')
    array([0, 1, 2, 3])
    """
    return _filter_nd(input, weights, output, mode, cval, origin, axes, convolution=True)


def correlate1d(
    input: npt.ArrayLike,
    weights: npt.ArrayLike,
    axis: int = -1,
    output: npt.DTypeLike | np.ndarray | None = None,
    mode: str = "reflect",
    cval: complex = 0.0,
    origin: int = 0,
) -> np.ndarray:
    """Correlation along one axis with 1-D weights, as `scipy.ndimage.correlate1d`. Arguments as in `correlate`.

    >>> correlate1d([2, 8, 0, 4, 1, 9, 9, 0], weights=[1, 3])
    array([ 8, 26,  8, 12,  7, 28, 36,  9])
    """
    x, w = np.asarray(input), np.asarray(weights)
    target = _output(output, x, complex_output=x.dtype.kind == "c" or w.dtype.kind == "c")
    if w.ndim != 1 or w.size < 1:
        raise ArgumentError(f"weights has the shape {w.shape}: a sequence of one axis, not empty, is needed")
    axis = _axis(axis, x.ndim)
    w = w.conj().reshape([-1 if a == axis else 1 for a in range(x.ndim)])
    origins = [operator.index(origin) if a == axis else 0 for a in range(x.ndim)]
    return _write(_correlated(x, w, origins, mode, cval, target.dtype), target, output)


def convolve1d(
    input: npt.ArrayLike,
    weights: npt.ArrayLike,
    axis: int = -1,
    output: npt.DTypeLike | np.ndarray | None = None,
    mode: str = "reflect",
    cval: complex = 0.0,
    origin: int = 0,
) -> np.ndarray:
    """Convolution along one axis with 1-D weights, as `scipy.ndimage.convolve1d`: the weights are flipped.

    >>> convolve1d([2, 8, 0, 4, 1, 9, 9, 0], weights=[1, 3])
    array([14, 24,  4, 13, 12, 36, 27,  0])
    """
    w = np.atleast_1d(weights)[::-1].conj()
    return correlate1d(input, w, axis, output, mode, cval, -origin - (1 - w.shape[0] % 2))


def gaussian_filter1d(
    input: npt.ArrayLike,
    sigma: float,
    axis: int = -1,
    order: int = 0,
    output: npt.DTypeLike | np.ndarray | None = None,
    mode: str = "reflect",
    cval: complex = 0.0,
    truncate: float = 4.0,
    *,
    radius: int | None = None,
) -> np.ndarray:
    """A Gaussian, or its derivative of the given order, along one axis, as `scipy.ndimage.gaussian_filter1d`.

    The kernel is :func:`sigconv.filters.gaussian1d`, of radius ``int(truncate * sigma + 0.5)`` unless `radius` says
    otherwise; the other arguments are those of `correlate1d`.

    >>> gaussian_filter1d([1.0, 2.0, 3.0, 4.0, 5.0], 1).round(8)
    array([1.42704095, 2.06782203, 3.        , 3.93217797, 4.57295905])
    """
    kernel = filters.gaussian1d(sigma, order=order, truncate=truncate, radius=radius)
    x = np.asarray(input)
    if order and x.dtype in (np.float32, np.float16, np.complex64):
        output = x.dtype if output is None else output
        x = x.astype(np.promote_types(x.dtype, np.float64))
    return correlate1d(x, kernel, axis, output, mode, cval, 0)


def gaussian_filter(
    input: npt.ArrayLike,
    sigma: float | Sequence[float],
    order: int | Sequence[int] = 0,
    output: npt.DTypeLike | np.ndarray | None = None,
    mode: str | Sequence[str] = "reflect",
    cval: complex = 0.0,
    truncate: float = 4.0,
    *,
    radius: int | Sequence[int] | None = None,
    axes: int | Sequence[int] | None = None,
) -> np.ndarray:
    """Gaussians along several axes, one pass each, as `scipy.ndimage.gaussian_filter`.

    `sigma`, `order`, `mode` and `radius` are one value, or one for each of `axes` (default: all). Axes with sigma 0 are
    left out. Arguments otherwise as in `gaussian_filter1d`.
    """
    x = np.asarray(input)
    target = _output(output, x, complex_output=x.dtype.kind == "c")
    axes = _axes(axes, x.ndim)
    values = [_each(n, v, len(axes)) for n, v in dict(sigma=sigma, order=order, mode=mode, radius=radius).items()]
    filtered = any(s > 1e-15 for s in values[0])
    pair = _gaussian_pair(x, target.dtype, axes, values, cval, truncate)
    if pair is not None:
        return _write(pair, target, output)
    for axis, s, o, m, r in zip(axes, *values, strict=True):
        if s > 1e-15:
            x = gaussian_filter1d(x, s, axis, o, target.dtype, m, cval, truncate, radius=r)
    return _write(x if filtered else x.astype(target.dtype), target, output)


def _gaussian_pair(
    x: np.ndarray, out: np.dtype, axes: Sequence[int], values: Sequence[Sequence[Any]], cval: complex, truncate: float
) -> np.ndarray | None:
    """Gaussians along two neighbouring axes in one pass; None where their results would be rounded in between."""
    sigmas, orders, modes, radii = values
    if len(axes) != 2 or abs(axes[0] - axes[1]) != 1 or x.dtype != out or x.dtype.char not in "fd" or not x.size:
        return None
    if (
        min(sigmas) <= 1e-15
        or any(orders)
        or modes[0] != modes[1]
        or modes[0] not in BOUNDARIES
        or np.iscomplexobj(cval)
    ):
        return None
    kernels = [filters.gaussian1d(s, truncate=truncate, radius=r) for s, r in zip(sigmas, radii, strict=True)]
    (first, v), (second, w) = sorted(zip(axes, kernels, strict=True), key=lambda pair: pair[0])
    boundary = BOUNDARIES[modes[0]]
    fill = cval if boundary == "fill" else 0
    taps = [_rounded(v, x.dtype), _rounded(w, x.dtype)]
    return separable_sums(x, taps, (first, second), (v.size // 2, w.size // 2), boundary, fill, x.dtype)


def uniform_filter1d(
    input: npt.ArrayLike,
    size: int,
    axis: int = -1,
    output: npt.DTypeLike | np.ndarray | None = None,
    mode: str = "reflect",
    cval: complex = 0.0,
    origin: int = 0,
) -> np.ndarray:
    """The moving average of `size` elements along one axis, as `scipy.ndimage.uniform_filter1d`.

    A NaN reaches the `size` outputs whose window holds it (SciPy's running sum carries it to the end of the line). Sums
    of integers are exact. Arguments as in `correlate1d`.

    >>> uniform_filter1d([2, 8, 0, 4, 1, 9, 9, 0], size=3)
    array([4, 3, 4, 1, 4, 6, 6, 3])
    """
    x = np.asarray(input)
    size = operator.index(size)
    if size < 1:
        raise ArgumentError(f"size is {size}: a window holds at least 1 element")
    axis = _axis(axis, x.ndim)
    target = _output(output, x, complex_output=x.dtype.kind == "c")
    ones = np.ones([size if a == axis else 1 for a in range(x.ndim)])
    origins = [operator.index(origin) if a == axis else 0 for a in range(x.ndim)]
    return _write(_correlated(x, ones, origins, mode, cval, target.dtype, divisor=size), target, output)


def uniform_filter(
    input: npt.ArrayLike,
    size: int | Sequence[int] = 3,
    output: npt.DTypeLike | np.ndarray | None = None,
    mode: str | Sequence[str] = "reflect",
    cval: complex = 0.0,
    origin: int | Sequence[int] = 0,
    *,
    axes: int | Sequence[int] | None = None,
) -> np.ndarray:
    """Moving averages along several axes, one pass each, as `scipy.ndimage.uniform_filter`.

    `size`, `mode` and `origin` are one value, or one for each of `axes` (default: all). Arguments otherwise as in
    `uniform_filter1d`.
    """
    x = np.asarray(input)
    target = _output(output, x, complex_output=x.dtype.kind == "c")
    axes = _axes(axes, x.ndim)
    values = [_each(n, v, len(axes)) for n, v in dict(size=size, mode=mode, origin=origin).items()]
    filtered = any(n > 1 for n in values[0])
    for axis, n, m, o in zip(axes, *values, strict=True):
        if n > 1:
            x = uniform_filter1d(x, int(n), axis, target.dtype, m, cval, o)
    return _write(x if filtered else x.astype(target.dtype), target, output)


def _filter_nd(
    input: npt.ArrayLike,
    weights: npt.ArrayLike,
    output: Any,
    mode: str,
    cval: complex,
    origin: int | Sequence[int],
    axes: int | Sequence[int] | None,
    convolution: bool,
) -> np.ndarray:
    x, w = np.asarray(input), np.asarray(weights)
    target = _output(output, x, complex_output=x.dtype.kind == "c" or w.dtype.kind == "c")
    axes = _axes(axes, x.ndim)
    if w.ndim != len(axes) or w.size == 0:
        raise ArgumentError(
            f"weights.ndim ({w.ndim}) must match len(axes) ({len(axes)}), and no size be 0: its shape is {w.shape}"
        )
    origins = [0] * x.ndim
    for axis, o in zip(axes, _each("origin", origin, len(axes)), strict=True):
        origins[axis] = operator.index(o)
    shape = [1] * x.ndim
    for axis, n in zip(sorted(axes), w.shape, strict=True):
        shape[axis] = n
    w = w.reshape(shape)
    if convolution:
        w = np.flip(w)
        origins = [-o - (1 - n % 2) if a in axes else 0 for a, (o, n) in enumerate(zip(origins, shape, strict=True))]
    else:
        w = w.conj()
    return _write(_correlated(x, w, origins, mode, cval, target.dtype), target, output)


def _correlated(
    x: np.ndarray, w: np.ndarray, origins: Sequence[int], mode: str, cval: complex, out: np.dtype, divisor: int = 1
) -> np.ndarray:
    """The sums over x's windows, w taken as it is, over `divisor`, in the type `out`."""
    for o, n in zip(origins, w.shape, strict=True):
        if not -(n // 2) <= o <= (n - 1) // 2:
            raise InputError(f"invalid origin {o}: for {n} weights it must be from {-(n // 2)} to {(n - 1) // 2}")
    if not isinstance(mode, str):
        raise ArgumentError(f"mode is {mode!r}: a sequence of modes is not supported here")
    if mode not in BOUNDARIES:
        raise ArgumentError(f"boundary mode {mode!r} is not supported, only {', '.join(map(repr, BOUNDARIES))}")
    boundary = BOUNDARIES[mode]
    if boundary != "fill":
        cval = 0
    elif np.iscomplexobj(cval) and x.dtype.kind != "c":
        raise InputError(f"cval is {cval}: the input is {x.dtype}, cannot provide a complex-valued cval")
    if x.size == 0:
        return np.zeros(x.shape, out)
    lead = [n // 2 + o for o, n in zip(origins, w.shape, strict=True)]
    exact = exact_type(x, w, cval, wraps=out.kind in "iu" and divisor == 1)
    if exact is not None:
        y = window_sums(x, np.rint(w).astype(exact), lead, boundary, int(np.real(cval)), exact)
        return _cast(y if divisor == 1 else y / divisor, out)
    kind = np.result_type(np.float32 if out.kind in "fc" else np.float64, x.dtype, *([out] if out.kind in "fc" else []))
    complex_kind = np.result_type(kind, np.complex64)
    if w.dtype.kind == "c" or np.iscomplexobj(cval):
        kind = complex_kind
    taps = _rounded(w / divisor, kind if w.dtype.kind == "c" or kind.kind != "c" else np.finfo(kind).dtype)
    return _cast(window_sums(x, taps, lead, boundary, cval, kind), out)


def _rounded(w: np.ndarray, kind: np.dtype) -> np.ndarray:
    """`w` in a type of less precision, with the same sum: the smallest weight takes what rounding changed.

    Without it a float32 Gaussian changes the mean of an image by some 1e-8.
    """
    taps = w.astype(kind)
    if kind.itemsize < w.dtype.itemsize:
        smallest = np.unravel_index(np.argmin(np.where(taps == 0, np.inf, np.abs(taps))), taps.shape)
        taps[smallest] += (w - taps).sum()
    return taps


def _cast(y: np.ndarray, out: np.dtype) -> np.ndarray:
    """`y` in the type `out`: floats become integers by truncation, and wrap."""
    if y.dtype.kind == "f" and out.kind in "biu":
        nearest = np.rint(y)
        y = np.where(
            np.abs(y - nearest) <= np.maximum(SNAP, 4 * np.finfo(y.dtype).eps * np.abs(y)), nearest, np.trunc(y)
        )
        if out == np.uint64:
            y = np.where(y < 2.0**63, y, y - 2.0**64)
        with np.errstate(invalid="ignore"):
            y = y.astype(np.int64)
    return y.astype(out, copy=False)


def _output(output: Any, x: np.ndarray, complex_output: bool) -> np.ndarray:
    """An array of the output's shape and type: the caller's own, or one without memory of its own."""
    if output is None:
        kind = np.promote_types(x.dtype, np.complex64) if complex_output else x.dtype.newbyteorder("=")
    elif isinstance(output, (str, type, np.dtype)):
        kind = np.dtype(output)
        if isinstance(output, str) and kind.kind not in "biufc":
            raise ArgumentError(f"output is {output!r}: a numeric type is needed")
        if complex_output and kind.kind != "c":
            if isinstance(output, str):
                raise ArgumentError(f"output is {output!r}: the result is complex")
            warnings.warn("promoting specified output dtype to complex", stacklevel=4)
            kind = np.promote_types(kind, np.complex64)
    else:
        array = np.asarray(output)
        if array.shape != x.shape:
            raise ArgumentError(f"output has the shape {array.shape}, the input {x.shape}: they must be equal")
        if complex_output and array.dtype.kind != "c":
            raise ArgumentError(f"output is {array.dtype}: the result is complex")
        return array
    return np.broadcast_to(np.zeros((), kind), x.shape)


def _write(result: np.ndarray, target: np.ndarray, output: Any) -> np.ndarray:
    if isinstance(output, np.ndarray):
        output[...] = result
        return output
    return result.astype(target.dtype, order="C", copy=False)


def _each(name: str, value: Any, count: int) -> list[Any]:
    values = list(value) if np.iterable(value) and not isinstance(value, str) else [value] * count
    if len(values) != count:
        raise ArgumentError(
            f"{name} has {len(values)} values: sequence argument must have length equal to input rank, "
            f"or to the number of axes to filter ({count})"
        )
    return values


def _axis(axis: int, ndim: int) -> int:
    axis = operator.index(axis)
    if not -ndim <= axis < ndim:
        raise InputError(f"specified axis: {axis} is out of range for an array of {ndim} axes")
    return axis % ndim


def _axes(axes: int | Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    if axes is None:
        return tuple(range(ndim))
    if not (np.iterable(axes) or isinstance(axes, (int, np.integer))):
        raise InputError(f"axes is {axes!r}: axes must be an integer, iterable of integers, or None")
    given = tuple(_axis(a, ndim) for a in (axes if isinstance(axes, Sequence | tuple) else np.atleast_1d(axes)))
    if len(set(given)) != len(given):
        raise InputError(f"axes is {axes!r}: axes must be unique")
    return given
