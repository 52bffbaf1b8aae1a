"""Overloads of `convolve`, `correlate`, `convolve2d` and `correlate2d`: the direct method.

What is known while types are inferred (literal modes and boundaries above all) is settled then; `_solver` is compiled
once for each pair of array types.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.core.errors import NumbaTypeError
from numba.np.numpy_support import as_dtype

from sigconv.kernels.border import BOUNDARIES as BORDERS
from sigconv.kernels.border import FILL
from sigconv.kernels.cpu import image, plain
from sigconv.kernels.cpu.rows import KERNELS
from sigconv.kernels.jit import inline, overload
from sigconv.lines import LINE
from sigconv.nopython.native import OUTDATED, call, finder
from sigconv.signal import api
from sigconv.signal import problem as problems

MODES = {"full": 0, "same": 1, "valid": 2}
METHODS = {"auto": 0, "direct": 0}
BOUNDARIES = {name: BORDERS[meaning] for name, meaning in problems.BOUNDARIES.items()}

CHOICES: dict[str, tuple[dict[str, int], str]] = {
    "mode": (MODES, "acceptable mode flags are 'valid', 'same', or 'full'"),
    "method": (METHODS, "in compiled code the method is 'direct', or 'auto', which is the same there"),
    "boundary": (BOUNDARIES, "acceptable boundary flags are 'fill', 'edge', 'symm', 'reflect', 'wrap'"),
}
"""Codes of the accepted words, and what is said about others."""

_KERNELS = {"f": "f32", "d": "f64", "F": "c64", "D": "c128", "i": "i32", "l": "i64", "q": "i64"}
"""Row kernels by the type of the sums."""


# --- words ---------------------------------------------------------------------------------------------------------
def _word(name: str, given: Any) -> Callable[[Any], int]:
    """What finds the code of an argument of this type; ValueError at run time for an unknown word."""
    codes, complaint = CHOICES[name]
    value = getattr(given, "literal_value", getattr(given, "value", given))
    if not isinstance(value, str) and given != types.unicode_type:
        raise NumbaTypeError(f"{name} is {given}; a string is accepted")
    if value in codes:
        return _constant(codes[value])
    words, numbers = tuple(codes), tuple(codes.values())

    @inline
    def find(word):
        for i in range(len(words)):
            if word == words[i]:
                return np.int64(numbers[i])
        raise ValueError(complaint)

    return find


def _constant(code: int) -> Callable[[Any], int]:
    @inline
    def code_of(word):
        return np.int64(code)  # no literal: one compiled function serves all

    return code_of


# --- the task in correlation form ----------------------------------------------------------------------------------
@inline
def _region(n: int, k: int, mode: int, late: bool) -> tuple[int, int]:
    """Start and count of a mode on an axis, in coordinates of the full result."""
    if mode == 1:
        return (k if late else max(k - 1, 0)) // 2, n
    if n == 0 or k == 0:
        return 0, 0
    return (0, n + k - 1) if mode == 0 else (min(n, k) - 1, abs(n - k) + 1)


@functools.cache
def _arranged(dtype: np.dtype[Any], conjugates: bool) -> Callable[..., Any]:
    """``(a, flips)``: a dense copy of a matrix in another type, reversed and conjugated as asked."""

    @inline
    def arranged(a, flips):
        height, width = a.shape
        b = np.empty((height, width), dtype)
        for r in range(height):
            row = height - 1 - r if flips else r
            for c in range(width):
                value = a[row, width - 1 - c if flips else c]
                b[r, c] = np.conj(value) if conjugates else value
        return b

    return arranged


@functools.cache
def _sums(x: np.dtype[Any], w: np.dtype[Any], y: np.dtype[Any]) -> Callable[..., Any]:
    """``(x, w, start0, start1, boundary, fill, y)`` for dense matrices of these types; False: a tap is not finite."""
    if y.kind == "c" and w.kind == "c" and x.kind != "c":
        return _complex_taps(y)
    sums = np.dtype(y.char.lower()) if y.kind == "c" and w.kind != "c" else y
    parts, item, turns, zero = y.itemsize // sums.itemsize, sums.itemsize, sums.kind == "f", sums.type(0)
    layout_of, image_of = finder(image.LAY_OUT), finder(image.KERNELS[sums.type, sums.type])
    rows_of = finder(KERNELS[_KERNELS[sums.char]])

    @inline
    def correlated(x, w, start0, start1, boundary, fill, y):
        lay_out, kernel, row_kernel = layout_of(), image_of(), rows_of()
        if lay_out == 0 or kernel == 0 or row_kernel == 0:
            raise RuntimeError(OUTDATED)
        args, fills = np.zeros(1, image.ARGS), np.empty(1, sums)
        fills[0] = fill
        a = args[0]
        a.x, a.x_row, a.height, a.width, a.inner = x.ctypes.data, x.strides[0], x.shape[0], x.shape[1], parts
        a.w, a.J, a.K = w.ctypes.data, w.shape[0], w.shape[1]
        a.y, a.y_item, a.y_row, a.planes = y.ctypes.data, item, y.shape[1] * parts, 1
        a.n_rows, a.n, a.top, a.left = y.shape[0], y.shape[1], start0 - (a.J - 1), start1 - (a.K - 1)
        a.boundary, a.fill, a.row_kernel, a.turned = boundary, fills.ctypes.data, row_kernel, turns
        call(lay_out, args)
        scratch = np.empty(a.room + LINE, np.uint8)
        a.scratch = -(-scratch.ctypes.data // LINE) * LINE
        call(kernel, args, x, w, fills, y, scratch)
        return a.finite != 0

    if parts == 1:
        return correlated

    @inline
    def in_parts(x, w, start0, start1, boundary, fill, y):
        """Numbers of two parts; what has two of them beyond the ends is written out."""
        if boundary != FILL or fill == 0:
            return correlated(x, w, start0, start1, boundary, zero, y)
        (height, width), (above, before) = x.shape, (w.shape[0] - 1, w.shape[1] - 1)
        wide = np.full((height + 2 * above, width + 2 * before), fill)
        wide[above : above + height, before : before + width] = x
        return correlated(wide, w, start0 + above, start1 + before, boundary, zero, y)

    return in_parts


def _complex_taps(y: np.dtype[Any]) -> Callable[..., Any]:
    """A real signal: the parts of the result one after the other."""
    real = np.dtype(y.char.lower())
    part_of = _sums(real, real, real)

    @inline
    def sums(x, w, start0, start1, boundary, fill, y):
        part, taps = np.empty(y.shape, real), np.empty(w.shape, real)
        for i in range(2):
            for k in range(w.size):
                taps.flat[k] = w.flat[k].imag if i else w.flat[k].real
            if not part_of(x, taps, start0, start1, boundary, fill, part):
                return False
            for k in range(y.size):
                y.flat[k] = complex(y.flat[k].real, part.flat[k]) if i else complex(part.flat[k], 0.0)
        return True

    return sums


@functools.cache
def _plain_sums(x: np.dtype[Any], w: np.dtype[Any], y: np.dtype[Any]) -> Callable[..., Any]:
    """Likewise where a tap is NaN or infinite and must not meet what is not there (``zero_fill``)."""
    real = np.dtype(y.char.lower())
    x_parts, w_parts, y_parts = (2 if d.kind == "c" else 1 for d in (x, w, y))
    plain_of, item = finder(plain.KERNELS[real.char]), real.itemsize

    @inline
    def sums(x, w, start0, start1, boundary, zero_fill, fill, y):
        kernel = plain_of()
        if kernel == 0:
            raise RuntimeError(OUTDATED)
        args, fills = np.zeros(1, plain.ARGS), np.empty(1, x.dtype)
        fills[0], y[:] = fill, 0
        a = args[0]
        a.x_row, a.height, a.size = x.strides[0], x.shape[0], x.shape[1]
        a.high, a.taps, a.n_rows, a.count = w.shape[0], w.shape[1], y.shape[0], y.shape[1]
        a.start0, a.start1, a.boundary, a.zero_fill = start0, start1, boundary, 1 if zero_fill else 0
        a.x_step, a.w_step, a.y_step = x_parts, w_parts, y_parts
        for i in range(x_parts):
            for j in range(w_parts):
                a.x, a.fill = x.ctypes.data + i * item, fills.ctypes.data + i * item
                a.w, a.y = w.ctypes.data + j * item, y.ctypes.data + (i + j) % 2 * item
                a.sign = -1 if i + j == 2 else 1
                call(kernel, args, x, w, fills, y)

    return sums


@functools.cache
def _task(x: np.dtype[Any], w: np.dtype[Any], y: np.dtype[Any]) -> Callable[..., Any]:
    """``(x, w, start0, start1, boundary, zero_fill, fill, y)``: by kernels, or term by term."""
    solve = _sums(x, w, y)
    if y.kind in "iu":

        @inline
        def exact(x, w, start0, start1, boundary, zero_fill, fill, y):
            solve(x, w, start0, start1, boundary, fill, y)

        return exact
    solve_plainly = _plain_sums(x, w, y)

    @inline
    def task(x, w, start0, start1, boundary, zero_fill, fill, y):
        if not solve(x, w, start0, start1, boundary, fill, y):
            solve_plainly(x, w, start0, start1, boundary, zero_fill, fill, y)

    return task


@functools.cache
def _solver(in1: types.Array, in2: types.Array, convolves: bool, late: bool, complex_fill: bool) -> Callable[..., Any]:
    """``(in1, in2, mode, boundary, fillvalue)`` for arrays of these types, both vectors or both matrices."""
    dtype1, dtype2 = as_dtype(in1.dtype), as_dtype(in2.dtype)
    result = np.result_type(dtype1, dtype2)
    sums = result if result.kind in "fc" else np.dtype(np.int64 if result.itemsize == 8 else np.int32)
    kept1, kept2 = (  # the types of both in a sum: what is real stays real
        np.dtype(sums.char.lower()) if sums.kind == "c" and d.kind != "c" else sums for d in (dtype1, dtype2)
    )
    kept1 = sums if complex_fill else kept1
    as_it_is = in1.layout == "C" and in1.aligned and kept1 == dtype1
    conjugates = not convolves and kept2.kind == "c"
    arranged1, arranged2 = _arranged(kept1, False), _arranged(kept2, conjugates)
    solve, solve_swapped = _task(kept1, kept2, sums), _task(kept2, kept1, sums)
    matrix1, matrix2 = _as_matrix(in1), _as_matrix(in2)
    fill_of, returned = _cast_fill(result, kept1), _returned(result, sums, in1.ndim)
    unfit, zero1, zero2 = complex_fill and result.kind != "c", kept1.type(0), kept2.type(0)

    @inline
    def solver(in1, in2, mode, boundary, fillvalue):
        a, b = matrix1(in1), matrix2(in2)
        (n0, n1), (k0, k1) = a.shape, b.shape
        fills = boundary == FILL
        if unfit and fills:
            raise ValueError("could not cast `fillvalue` directly to the output type")
        zero_fill = fills and fillvalue == 0
        swapped = zero_fill and n0 * n1 < k0 * k1
        if mode == 2 and not (n0 >= k0 and n1 >= k1):
            swapped = True
            if not (n0 <= k0 and n1 <= k1):
                raise ValueError("For 'valid' mode, one must be at least as large as the other in every dimension")
        border = np.int64(0) if swapped else boundary
        start0, count0 = _region(n0, k0, mode, late)
        start1, count1 = _region(n1, k1, mode, late)
        y = np.empty((count0, count1), sums)
        if y.size == 0 or a.size == 0 or b.size == 0:
            y[:] = 0
            return returned(y)
        reverses = convolves != swapped
        if swapped:
            solve_swapped(arranged2(b, reverses), arranged1(a, swapped), start0, start1, border, swapped, zero2, y)
        else:
            fill = zero1 if zero_fill or not fills else fill_of(fillvalue)
            if as_it_is:
                solve(a, arranged2(b, reverses), start0, start1, border, zero_fill, fill, y)
            else:
                solve(arranged1(a, swapped), arranged2(b, reverses), start0, start1, border, zero_fill, fill, y)
        return returned(y)

    return solver


def _cast_fill(result: np.dtype[Any], signal: np.dtype[Any]) -> Callable[..., Any]:
    """The fill value as the result's type holds it, in the signal's."""
    wider, is_bool, is_complex = signal.type, result.kind == "b", signal.kind == "c"
    number = signal.type if result.kind == "c" else result.type

    @inline
    def fill_of(value):
        if is_bool:
            return wider(value != 0)
        if is_complex:
            return wider(value)
        return wider(number(value.real))

    return fill_of


def _as_matrix(array: types.Array) -> Callable[..., Any]:
    """A vector as a matrix of one row."""
    vector, dense = array.ndim == 1, array.layout == "C"

    @inline
    def as_matrix(a):
        if vector:
            return a.reshape((1, a.size)) if dense else a.copy().reshape((1, a.size))
        return a

    return as_matrix


def _returned(result: np.dtype[Any], sums: np.dtype[Any], rank: int) -> Callable[..., Any]:
    """Sums, a matrix, as type and rank of the result."""
    cast, is_bool, vector = result != sums, result.kind == "b", rank == 1

    @inline
    def returned(y):
        if vector:
            line = y.reshape(y.size)
            if is_bool:
                return line != 0
            return line.astype(result) if cast else line
        if is_bool:
            return y != 0
        return y.astype(result) if cast else y

    return returned


# --- overloads -----------------------------------------------------------------------------------------------------
def _parts(convolves: bool, late: bool, rank: int | None, given: dict[str, Any]) -> tuple[Callable[..., Any], ...]:
    """The solver for arguments of these types, and what turns mode, method and boundary into codes."""
    in1, in2, fillvalue = given["in1"], given["in2"], given["fillvalue"]
    for name, array in (("in1", in1), ("in2", in2)):
        if not isinstance(array, types.Array) or array.ndim not in (1, 2):
            raise NumbaTypeError(f"{name} is {array}; compiled code takes arrays of 1 or 2 axes")
    fill = types.unliteral(fillvalue.value if isinstance(fillvalue, types.Omitted) else fillvalue)
    if isinstance(fill, types.Type) and not isinstance(fill, types.Number | types.Boolean):
        raise NumbaTypeError(f"fillvalue is {fillvalue}; a number is accepted")
    words = tuple(_word(name, given[name]) for name in CHOICES)
    if in1.ndim == in2.ndim == (rank or in1.ndim):
        return _solver(in1, in2, convolves, late, isinstance(fill, complex | types.Complex)), *words
    what = "inputs must both be 2-D arrays" if rank else "in1 and in2 should have the same dimensionality"

    @inline
    def complain(in1, in2, mode, boundary, fillvalue):
        raise ValueError(what)

    return complain, *words


def _offer(function: Callable[..., Any], convolves: bool) -> None:
    @overload(function)
    def typed(in1, in2, mode="full", method="auto", boundary="fill", fillvalue=0):
        solve, mode_of, method_of, boundary_of = _parts(convolves, False, None, locals())

        def compiled(in1, in2, mode="full", method="auto", boundary="fill", fillvalue=0):
            method_of(method)
            return solve(in1, in2, mode_of(mode), boundary_of(boundary), fillvalue)

        return compiled


def _offer_2d(function: Callable[..., Any], convolves: bool) -> None:
    """SciPy's order of arguments, and its centre of 'same' for correlations."""

    @overload(function)
    def typed(in1, in2, mode="full", boundary="fill", fillvalue=0, method="auto"):
        solve, mode_of, method_of, boundary_of = _parts(convolves, not convolves, 2, locals())

        def compiled(in1, in2, mode="full", boundary="fill", fillvalue=0, method="auto"):
            method_of(method)
            return solve(in1, in2, mode_of(mode), boundary_of(boundary), fillvalue)

        return compiled


_offer(api.convolve, convolves=True)
_offer(api.correlate, convolves=False)
_offer_2d(api.convolve2d, convolves=True)
_offer_2d(api.correlate2d, convolves=False)
