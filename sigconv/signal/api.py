"""The public functions: SciPy's signatures and behaviour, and what SciPy's lack as keyword-only arguments.

Every function builds a `Problem` and hands it to `methods.solve`.
"""

from __future__ import annotations

import operator
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from sigconv import config
from sigconv.errors import InputError
from sigconv.runtime.kinds import device_of
from sigconv.signal import kernels, methods, quick, short
from sigconv.signal import problem as problems
from sigconv.signal.problem import Array, Problem

__all__ = [
    "choose_conv_method",
    "convolve",
    "convolve2d",
    "correlate",
    "correlate2d",
    "correlation_lags",
    "fftconvolve",
    "oaconvolve",
]

_SUMS = ("auto", "direct")


def _threads(workers: int | None) -> int:
    if workers is None:
        return kernels.default_threads()
    count = operator.index(workers)
    if count > 0:
        return count
    cores = config.available_cores()
    if count == 0 or count < -cores:
        raise ValueError(f"workers={workers}; accepted are 1 or more, or -1 for every core, -2 for all but one …")
    return cores + 1 + count


def _checked_out(problem: Problem, out: Any) -> Array | None:
    """``out`` itself, if the result can be written there at once."""
    if out is None:
        return None
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be an ndarray, got {type(out).__name__}")
    if out.shape != problem.count:
        raise ValueError(f"out has shape {out.shape}, the result has {problem.count}")
    if not np.can_cast(problem.dtype, out.dtype, "same_kind"):
        raise ValueError(f"out has dtype {out.dtype}, which cannot take the result's {problem.dtype}")
    if not out.flags.writeable:
        raise ValueError("out is read-only")
    return out


def _solve(
    problem: Problem,
    method: str,
    out: Any,
    nan_policy: str,
    workers: int | None,
    max_workspace: Any,
    blocks: Any = None,
) -> Array:
    target = _checked_out(problem, out)
    if max_workspace is not None and operator.index(max_workspace) < 0:
        raise ValueError(f"max_workspace={max_workspace}; accepted are bytes, 0 or more")
    options: Any = dict(threads=_threads(workers), nan_policy=nan_policy, max_workspace=max_workspace, blocks=blocks)
    if target is not None and not any(np.may_share_memory(target, a) for a in (problem.x, problem.w)):
        return methods.solve(problem, method, out=target, **options)
    y = methods.solve(problem, method, **options)
    if target is None:
        return y
    np.copyto(target, y, casting="same_kind")
    return target


def _on_device(in1: Any, in2: Any, device: str | None) -> bool:
    """Whether a CUDA device does it: asked for, or an input lies on one."""
    if device is None and type(in1) is np.ndarray and type(in2) is np.ndarray:
        return False
    return device_of((in1, in2), device) == "cuda"


def _there(in1: Any, in2: Any, mode: str, method: str, convolves: bool, **options: Any) -> Any:
    """The result by the device's own kernels; options that it lacks are an InputError."""
    from sigconv.signal import device

    absent = {"dtype": None, "out": None, "nan_policy": "propagate", "workers": None, "max_workspace": None}
    given = [name for name, default in absent.items() if options.pop(name, default) is not default]
    if given:
        raise InputError(f"{', '.join(given)}: not on a CUDA device, which writes a new array of the inputs' type")
    return device.solve(in1, in2, mode, method, convolves=convolves, **options)


def _scalars(
    function: Callable[..., Any], in1: Any, in2: Any, out: Any = None, axes: Any = None, **options: Any
) -> Any:
    """The product where both inputs have no axes, else None."""
    if np.ndim(in1) or np.ndim(in2):
        return None
    if axes is not None:
        raise ValueError(f"axes exceeds dimensionality of input: axes={axes!r}, the inputs have 0 axes")
    y = function(problems.as_numbers(in1, "in1").reshape(1), problems.as_numbers(in2, "in2").reshape(1), **options)[0]
    if out is None:
        return y
    if not isinstance(out, np.ndarray) or out.shape != () or not np.can_cast(y.dtype, out.dtype, "same_kind"):
        raise ValueError(f"out is {out!r}; an array without axes that can take {y.dtype} is accepted")
    out[...] = y
    return out


def convolve(
    in1: npt.ArrayLike,
    in2: npt.ArrayLike,
    mode: str = "full",
    method: str = "auto",
    *,
    axes: Any = None,
    boundary: str = "fill",
    fillvalue: Any = 0,
    dtype: npt.DTypeLike | None = None,
    out: np.ndarray | None = None,
    nan_policy: str = "propagate",
    workers: int | None = None,
    max_workspace: int | None = None,
    device: str | None = None,
) -> Any:
    """Convolution of two N-dimensional arrays: ``y[n] = sum_k in1[n - k] in2[k]``. The second input is flipped.

    Parameters
    ----------
    in1, in2 : array_like
        Signal and kernel, of the same rank. Off the convolved axes sizes are equal, or 1 and repeated. With negative
        ``axes`` ranks may differ too: the missing leading axes are repeated.
    mode : {'full', 'same', 'valid'}
        'full': every output that some input reaches, N + K - 1 an axis. 'same': the shape of ``in1``, centred in the
        full result (from ``(K - 1) // 2``). 'valid': outputs that need nothing beyond the ends, |N - K| + 1.
    method : {'auto', 'direct', 'separable', 'oa', 'fft'}
        'direct' sums; 'separable' does it axis by axis where ``in2`` is an outer product; 'oa' transforms blocks
        (overlap-add); 'fft' transforms everything; 'auto' takes what is predicted to be fastest among those whose
        errors are small (`choose_conv_method` tells). A method that cannot do the task exactly gives way to 'direct'.
    axes : int or sequence of int, optional
        Axes to convolve; the others are batches. All by default.
    boundary : {'fill', 'edge', 'symm', 'reflect', 'wrap'}
        What ``in1`` is beyond its ends, as far as ``in2`` reaches: ``fillvalue``, the last element, mirrored with or
        without repeating the last element, periodic.
    fillvalue : scalar
        For ``boundary='fill'``.
    dtype : dtype, optional
        Of the result and its sums; the inputs' common type by default. Integers are exact modulo their size: give a
        wider type where sums could overflow. float16 is summed in float32.
    out : ndarray, optional
        Where to write the result; may overlap the inputs.
    nan_policy : {'propagate', 'raise', 'omit'}
        'propagate': NaN and Inf reach the outputs whose window holds them, by every method. 'raise': NaN is a
        ValueError. 'omit': NaN in ``in1`` is missing, and each output is scaled by ``sum |in2|`` of its window over
        that of the values which are there (normalised convolution); NaN where none is.
    workers : int, optional
        Threads; by default the setting ``SIGCONV_THREADS`` at the first call. Results do not depend on it.
    max_workspace : int, optional
        Bytes that a method picked by 'auto' may use beside inputs and result.
    device : {'cpu', 'cuda'}, optional
        Where to do it; by default where the inputs lie. CUDA arrays of any library give a result of ``in1``'s kind on
        the device, NumPy arrays with 'cuda' are copied once each way. There the last one or two axes are convolved in
        float32 or float64, by direct sums or, where CuPy is installed, by transforms.

    Returns
    -------
    ndarray
        A scalar for two inputs without axes. With an empty input: no elements for 'full' and 'valid', zeros for 'same'.

    Raises
    ------
    ValueError
        Shapes, axes, modes or types that do not fit. TypeError for inputs that are no numbers.

    Examples
    --------
    >>> convolve([1, 2, 3], [3, 2, 2])
    array([ 3,  8, 15, 10,  6])
    >>> convolve([1, 2, 3], [0, 1, 0.5], mode='same')
    array([1. , 2.5, 4. ])
    >>> convolve([1, 2, 3, 4], [1, 1, 1], mode='same', boundary='wrap')
    array([7, 6, 9, 8])
    """
    return _n_dimensional(
        True, in1, in2, mode, method, axes, boundary, fillvalue, dtype, out, nan_policy, workers, max_workspace, device
    )


def correlate(
    in1: npt.ArrayLike,
    in2: npt.ArrayLike,
    mode: str = "full",
    method: str = "auto",
    *,
    axes: Any = None,
    boundary: str = "fill",
    fillvalue: Any = 0,
    dtype: npt.DTypeLike | None = None,
    out: np.ndarray | None = None,
    nan_policy: str = "propagate",
    workers: int | None = None,
    max_workspace: int | None = None,
    device: str | None = None,
) -> Any:
    """Cross-correlation of two N-dimensional arrays: ``y[n] = sum_k in1[k + n] conj(in2[k])``. Nothing is flipped.

    It is the convolution with ``in2`` reversed and conjugated. Element ``i`` of an axis belongs to lag
    ``correlation_lags(N, K, mode)[i]``. All parameters are those of `convolve`.

    Examples
    --------
    >>> correlate([1, 2, 3], [0, 1, 0.5])
    array([0.5, 2. , 3.5, 3. , 0. ])
    """
    return _n_dimensional(
        False, in1, in2, mode, method, axes, boundary, fillvalue, dtype, out, nan_policy, workers, max_workspace, device
    )


def _n_dimensional(
    convolves: bool, in1: Any, in2: Any, mode: str, method: str, axes: Any, boundary: str, fillvalue: Any, dtype: Any,
    out: Any, nan_policy: str, workers: int | None, max_workspace: int | None, device: str | None,
) -> Any:  # fmt: skip
    """What `convolve` and `correlate` do."""
    plain = (
        dtype is None
        and axes is None
        and (workers is None or (type(workers) is int and workers > 0))
        and max_workspace is None
        and boundary == "fill"
        and type(fillvalue) is int
        and fillvalue == 0
        and nan_policy == "propagate"
        and method in _SUMS
    )
    if plain and device is None:
        y = quick.run(in1, in2, mode, "fill", convolves, False, workers or kernels.default_threads(), out)
        if y is not None:
            return y
    if _on_device(in1, in2, device):
        return _there(
            in1, in2, mode, method, convolves, axes=axes, boundary=boundary, fillvalue=fillvalue, dtype=dtype, out=out,
            nan_policy=nan_policy, workers=workers, max_workspace=max_workspace,
        )  # fmt: skip
    if plain and out is None:
        y = short.convolve(in1, in2, mode) if convolves else short.correlate(in1, in2, mode)
        if y is not None:
            return y
    product = _scalars(
        convolve if convolves else correlate, in1, in2, out, axes, mode=mode, method=method, boundary=boundary,
        fillvalue=fillvalue, dtype=dtype, nan_policy=nan_policy, workers=workers, max_workspace=max_workspace,
    )  # fmt: skip
    if product is not None:
        return product
    problem = problems.make(
        in1, in2, mode, convolves=convolves, axes=axes, boundary=boundary, fillvalue=fillvalue, dtype=dtype,
        strict=axes is None,
    )  # fmt: skip
    return _solve(problem, method, out, nan_policy, workers, max_workspace)


def _floats(value: Any, name: str) -> Array:
    """Integers as float64, as transforms give them."""
    array = problems.as_numbers(value, name)
    return array.astype(np.float64) if array.dtype.kind in "biu" else array


def _by_transforms(in1: Any, in2: Any, mode: str, axes: Any, method: str, blocks: Any = None) -> Any:
    if _on_device(in1, in2, None):
        if blocks is not None:
            raise InputError("block: not on a CUDA device, where the length of the transforms is chosen")
        return _there(in1, in2, mode, method, True, axes=axes)
    if not np.ndim(in1) and not np.ndim(in2):
        return _scalars(convolve, in1, in2, mode=mode)
    problem = problems.make(in1, in2, mode, convolves=True, axes=axes)
    if problem.work.kind in "biu" and all(1 in (n, k) for n, k in zip(problem.x.shape, problem.w.shape, strict=True)):
        return methods.solve(problem, "direct")  # a plain product keeps integers
    if 0 in problem.x.shape or 0 in problem.w.shape:
        return np.zeros(0)
    problem = problems.make(_floats(in1, "in1"), _floats(in2, "in2"), mode, convolves=True, axes=axes)
    return methods.solve(problem, method, threads=_threads(None), blocks=blocks)


def fftconvolve(in1: npt.ArrayLike, in2: npt.ArrayLike, mode: str = "full", axes: Any = None) -> Any:
    """Convolution by one Fourier transform of the whole signal; integers come back as float64.

    Parameters are those of `convolve`. NaN and Inf reach only the outputs that they reach by definition. An empty input
    gives an empty result.

    Examples
    --------
    >>> fftconvolve([1., 2, 3], [3., 2, 2]).round(12)
    array([ 3.,  8., 15., 10.,  6.])
    """
    return _by_transforms(in1, in2, mode, axes, "fft")


def oaconvolve(
    in1: npt.ArrayLike, in2: npt.ArrayLike, mode: str = "full", axes: Any = None, *, block: Any = None
) -> Any:
    """Convolution by Fourier transforms of blocks of the longer input; integers come back as float64.

    Parameters are those of `convolve`, and

    block : int or sequence of int, optional
        Length of the transforms on each convolved axis, longer than the kernel; by default what costs least.
    """
    blocks = None if block is None else tuple(operator.index(n) for n in np.atleast_1d(block))
    return _by_transforms(in1, in2, mode, axes, "oa", blocks)


def _two_dimensional(
    in1: Any, in2: Any, mode: str, boundary: str, fillvalue: Any, method: str, convolves: bool, device: str | None
) -> Any:
    plain = type(fillvalue) is int and fillvalue == 0 and method in _SUMS
    if plain and device is None and type(in1) is np.ndarray and in1.ndim == 2:
        y = quick.run(in1, in2, mode, boundary, convolves, not convolves, kernels.default_threads())
        if y is not None:
            return y
    name = "convolve2d" if convolves else "correlate2d"
    if _on_device(in1, in2, device):
        if len(in1.shape) != 2 or len(in2.shape) != 2:
            raise ValueError(f"{name} inputs must both be 2-D arrays, got shapes {in1.shape} and {in2.shape}")
        options: Any = dict(boundary=boundary, fillvalue=fillvalue, late_centre=not convolves)
        return _there(in1, in2, mode, method, convolves, **options)
    if np.ndim(in1) != 2 or np.ndim(in2) != 2:
        raise ValueError(f"{name} inputs must both be 2-D arrays, got {np.ndim(in1)} and {np.ndim(in2)} axes")
    problem = problems.make(
        in1, in2, mode, convolves=convolves, boundary=boundary, fillvalue=fillvalue, late_centre=not convolves,
        strict=True,
    )  # fmt: skip
    return methods.solve(problem, method, threads=_threads(None))


def convolve2d(
    in1: npt.ArrayLike,
    in2: npt.ArrayLike,
    mode: str = "full",
    boundary: str = "fill",
    fillvalue: Any = 0,
    *,
    method: str = "auto",
    device: str | None = None,
) -> Any:
    """Convolution of two 2-D arrays, the second flipped on both axes. `convolve` takes the same and more.

    Examples
    --------
    >>> convolve2d([[1, 2], [3, 4]], [[1, 10]], mode='same')
    array([[ 1, 12],
           [ 3, 34]])
    """
    return _two_dimensional(in1, in2, mode, boundary, fillvalue, method, True, device)


def correlate2d(
    in1: npt.ArrayLike,
    in2: npt.ArrayLike,
    mode: str = "full",
    boundary: str = "fill",
    fillvalue: Any = 0,
    *,
    method: str = "auto",
    device: str | None = None,
) -> Any:
    """Cross-correlation of two 2-D arrays, ``in2`` conjugated and not flipped.

    As in SciPy, 'same' starts at ``K // 2`` of the full result, where `correlate` starts at ``(K - 1) // 2``: for even
    kernels they differ by one sample.
    """
    return _two_dimensional(in1, in2, mode, boundary, fillvalue, method, False, device)


def choose_conv_method(
    in1: npt.ArrayLike,
    in2: npt.ArrayLike,
    mode: str = "full",
    measure: bool = False,
    *,
    axes: Any = None,
    boundary: str = "fill",
    explain: bool = False,
) -> Any:
    """The method that `convolve` takes for these inputs: 'direct', 'separable', 'oa' or 'fft'.

    Parameters
    ----------
    in1, in2, mode, axes, boundary
        As for `convolve`.
    measure : bool
        Run each legal method and time it, instead of predicting.
    explain : bool
        Return the reasons as well.

    Returns
    -------
    method : str
    times : dict
        Seconds by method, only with ``measure``.
    choice : Choice
        Predicted seconds, why the other methods were not taken, and the error bound; only with ``explain``.
    """
    if not np.ndim(in1) and not np.ndim(in2):
        in1, in2 = np.reshape(in1, 1), np.reshape(in2, 1)
    problem = problems.make(in1, in2, mode, convolves=True, axes=axes, boundary=boundary)
    choice = methods.choose(problem)
    method = choice.method
    result: tuple[Any, ...] = ()
    if measure:
        threads = _threads(None)
        times = {
            name: _fastest(lambda name=name: methods.solve(problem, name, threads=threads))  # type: ignore[misc]
            for name in methods.METHODS
            if methods.LEGAL[name](problem) is None
        }
        method = min(times, key=lambda name: times[name])
        result = (times,)
    if explain:
        result = (*result, choice)
    return (method, *result) if result else method


def _fastest(call: Callable[[], object], least: float = 2e-3) -> float:
    """Seconds of the fastest of at least three calls and ``least`` seconds."""
    call()
    best, spent, calls = float("inf"), 0.0, 0
    while calls < 3 or spent < least:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
        spent, calls = spent + time.perf_counter() - start, calls + 1
        if spent > 1.0:
            break
    return best


def correlation_lags(in1_len: int, in2_len: int, mode: str = "full", *, max_lag: int | None = None) -> Array:
    """The lag of each element of ``correlate(in1, in2, mode)``, int64: by how much ``in1`` is ahead.

    Parameters
    ----------
    in1_len, in2_len : int
        Lengths of the inputs.
    mode : {'full', 'same', 'valid'}
        As for `correlate`.
    max_lag : int, optional
        Only lags from ``-max_lag`` to ``max_lag``.

    Examples
    --------
    >>> correlation_lags(4, 2)
    array([-1,  0,  1,  2,  3])
    """
    n, k = operator.index(in1_len), operator.index(in2_len)
    if n < 0 or k < 0:
        raise ValueError(f"lengths must not be negative, got {n} and {k}")
    if mode not in problems.MODES:
        raise ValueError(f"Mode {mode} is invalid; accepted are 'full', 'same' and 'valid'")
    start, count = problems.region(n, k, mode, max(k - 1, 0) // 2)
    lags = np.arange(start, start + count) - (k - 1)
    if max_lag is None:
        return lags
    if operator.index(max_lag) < 0:
        raise ValueError(f"max_lag={max_lag}; accepted is 0 or more")
    return lags[np.abs(lags) <= max_lag]
