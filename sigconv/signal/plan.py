"""A convolution planned once for arrays of one shape, and polynomials."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sigconv.signal import api, fft, methods, nan, partitions
from sigconv.signal import problem as problems
from sigconv.signal.methods import Choice
from sigconv.signal.problem import Array, Problem

__all__ = ["Plan", "polymul"]


def stand_in(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An array of a shape that takes no memory: zeros, or the type's largest integer, which no method may misjudge."""
    value = np.iinfo(dtype).max if dtype.kind in "iu" else dtype.type(0) if dtype.kind != "O" else 0
    return np.broadcast_to(np.asarray(value, dtype), shape)


class Plan:
    """Convolution with one kernel of arrays of one shape: checked, chosen and the kernel transformed once.

    Parameters
    ----------
    kernel : array_like
        The second input of `convolve`; copied.
    shape : int or tuple of int
        Of the arrays that will come.
    mode, method, axes, boundary, fillvalue, nan_policy, workers, max_workspace
        As for `convolve`. The bits are those of `convolve` with the same method.
    dtype : dtype, optional
        Of the result, as for `convolve`. The method is chosen for signals of this type, by default the kernel's.
    block : int or sequence of int, optional
        For ``method='oa'``, which it implies: the length of the transforms on each convolved axis. If it is shorter
        than the kernel (along one axis only), the kernel is cut into partitions of ``block // 2`` taps.

    Raises
    ------
    ValueError
        As for `convolve`; and on a call with an array of another shape.

    Examples
    --------
    >>> plan = Plan([1, -1], 4, mode='same', boundary='edge')
    >>> plan([1, 4, 9, 16])
    array([0, 3, 5, 7])
    >>> plan.method
    'direct'
    """

    def __init__(
        self,
        kernel: npt.ArrayLike,
        shape: Any,
        mode: str = "full",
        method: str = "auto",
        *,
        axes: Any = None,
        boundary: str = "fill",
        fillvalue: Any = 0,
        dtype: npt.DTypeLike | None = None,
        block: Any = None,
        nan_policy: str = "propagate",
        workers: int | None = None,
        max_workspace: int | None = None,
    ) -> None:
        methods.check_method(method)
        if block is not None and method not in ("auto", "oa"):
            raise ValueError(f"block={block!r} is for method='oa', got method={method!r}")
        nan.check_policy(nan_policy)
        self._kernel = np.array(problems.as_numbers(kernel, "kernel"))
        self._spectra = fft.Spectra(self._kernel)
        self.shape: tuple[int, ...] = tuple(int(n) for n in np.atleast_1d(shape))
        if any(n < 0 for n in self.shape):
            raise ValueError(f"shape={shape!r}; accepted are sizes of 0 or more")
        self._making: dict[str, Any] = dict(
            mode=mode, convolves=True, axes=axes, boundary=boundary, fillvalue=fillvalue, dtype=dtype,
            strict=axes is None,
        )  # fmt: skip
        self._threads = api._threads(workers)
        self._nan_policy, self._max_workspace = nan_policy, max_workspace
        expected = self._kernel.dtype if dtype is None else np.dtype(dtype)
        problem = self._problem(stand_in(self.shape, expected))
        self._choice: Choice | None = None
        if method == "auto" and block is None and problem.count and 0 not in (*problem.count, *self._kernel.shape):
            self._choice = methods.choose(problem, max_workspace)
        self.method: str = self._choice.method if self._choice else "oa" if block is not None else method
        self.block: tuple[int, ...] | None = None
        self._parts: partitions.Kernel | None = None
        long = fft.transformed_axes(problem.commuted())
        if self.method == "oa" and long and 0 not in problem.count:
            self.block = fft.block_sizes(problem.commuted()) if block is None else _lengths(block, len(long))
            taps = [problem.commuted().w.shape[a] for a in long]
            if any(b < k for b, k in zip(self.block, taps, strict=True)):
                self._parts = self._partitioned(problem, long)
        self._shown = problem

    def _partitioned(self, problem: Problem, long: tuple[int, ...]) -> partitions.Kernel:
        if len(long) > 1 or sum(problem.conv) > 1:
            raise ValueError(
                f"block={self.block} must not be shorter than the kernel, {self._kernel.shape}, on every axis"
            )
        if problem.work.char not in "fdFD":
            raise ValueError(f"a block shorter than the kernel is for floating-point numbers, got {problem.work}")
        assert self.block is not None
        return partitions.kernel_of(problem, self.block[0])

    def _problem(self, x: Any) -> Problem:
        return replace(problems.make(x, self._kernel, **self._making), spectra=self._spectra)

    def __call__(self, x: npt.ArrayLike, *, out: np.ndarray | None = None) -> Any:
        """``convolve(x, kernel, …)`` for an array of the planned shape."""
        if np.shape(x) != self.shape:
            raise ValueError(f"the plan is for arrays of shape {self.shape}, got {np.shape(x)}")
        problem = self._problem(x)
        if self._parts is not None:
            target = api._checked_out(problem, out)
            y = partitions.solve(problem, self._parts, self._nan_policy).astype(problem.dtype, copy=False)
            if target is None:
                return y
            np.copyto(target, y, casting="same_kind")
            return target
        return api._solve(
            problem, self.method, out, self._nan_policy, self._threads, self._max_workspace, blocks=self.block
        )

    @property
    def workspace_nbytes(self) -> int:
        """Bytes beside input, kernel and result that a call needs, about."""
        problem = self._shown.commuted()
        if self._parts is not None:
            return self._parts.nbytes * 2
        if self.method == "oa" and self.block is not None:
            return 4 * math.prod(self.block) * fft.transform_dtype(problem).itemsize
        return methods.workspace(problem, self.method)

    def explain(self) -> str:
        """The method, why, predicted times, and the error bound of transforms."""
        lines = [str(self._choice)] if self._choice else [f"{self.method}: as asked"]
        if self.block is not None:
            lines.append(f"  transforms of {' x '.join(map(str, self.block))}")
        if self._parts is not None:
            lines.append(f"  {self._parts.count} partitions of {self._parts.hop} taps")
        lines.append(f"  workspace: {self.workspace_nbytes} bytes")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"Plan(shape={self.shape}, method={self.method!r}, block={self.block})"


def _lengths(block: Any, axes: int) -> tuple[int, ...]:
    lengths = tuple(int(n) for n in np.atleast_1d(block))
    if len(lengths) != axes or any(n < 2 for n in lengths):
        raise ValueError(f"block={block!r}; accepted is one length of 2 or more for each of {axes} convolved axes")
    return lengths


def polymul(a: npt.ArrayLike, b: npt.ArrayLike) -> Array:
    """The product of two polynomials, coefficients from the highest power down as in `numpy.polymul`.

    Parameters
    ----------
    a, b : array_like
        Coefficients, 1-D or scalars; zeros in front are dropped. Integers are exact modulo their size.

    Examples
    --------
    >>> polymul([1, 2, 3], [3, 2, 2])
    array([ 3,  8, 15, 10,  6])
    """
    trimmed: list[Array] = []
    for value, name in ((a, "a"), (b, "b")):
        array = np.atleast_1d(problems.as_numbers(value, name))
        if array.ndim != 1:
            raise ValueError(f"{name} must be a vector of coefficients, got shape {array.shape}")
        kept = np.flatnonzero(array != 0)
        trimmed.append(array[kept[0] :] if len(kept) else np.zeros(1, array.dtype))
    return np.asarray(api.convolve(trimmed[0], trimmed[1]))
