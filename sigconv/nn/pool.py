"""Pooling over windows, over as many regions as wanted, over everything; and the way back from a maximum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sigconv.errors import InputError
from sigconv.geometry import Window, adaptive_ranges
from sigconv.nn.arguments import batched, explained, integers, onnx_pads, pad_pairs
from sigconv.nn.call import as_array, call
from sigconv.nn.net import Net, Var, check_floats

Ints = int | Sequence[int]
Padding = int | str | Sequence[int] | Sequence[tuple[int, int]]
Sizes = int | None | Sequence[int | None]


# --- maximum ---------------------------------------------------------------------------------------------------------
def max_pool2d(
    input: Any, kernel_size: Ints, stride: Ints | None = None, padding: Padding = 0, dilation: Ints = 1,
    ceil_mode: bool = False, return_indices: bool = False, *, out: np.ndarray | None = None,
) -> Any:  # fmt: skip
    """The greatest element of each window; padding never is, NaN always. A window of nothing but padding gives -inf.

    Parameters
    ----------
    input : array [N, C, H, W] or [C, H, W]
        float16, float32 or float64.
    kernel_size, stride, dilation : int or (int, int)
        The stride is ``kernel_size`` where none is given.
    padding : int, (int, int), pairs or str
        As in `conv2d`; less than the window spans.
    ceil_mode : bool
        A last window may hang over the end, if it starts inside the input or its left padding.
    return_indices : bool
        Also return where each maximum lies in its plane, row by row: what `max_unpool2d` takes. Of equals, the first.
    out : array, optional
        Takes the result (not together with ``return_indices``).

    Returns
    -------
    array [N, C, OH, OW], or (array, int64 array)

    Raises
    ------
    InputError
        Ranks or parameters do not fit, or the padded input holds no window.
    """
    return batched(
        _max_pool, 2, "max_pool2d", input, kernel_size, stride, padding, dilation, ceil_mode, return_indices, out=out
    )


def max_pool1d(
    input: Any, kernel_size: Ints, stride: Ints | None = None, padding: Padding = 0, dilation: Ints = 1,
    ceil_mode: bool = False, return_indices: bool = False, *, out: np.ndarray | None = None,
) -> Any:  # fmt: skip
    """The greatest element of each window of [N, C, L]. See `max_pool2d`."""
    return batched(
        _max_pool, 1, "max_pool1d", input, kernel_size, stride, padding, dilation, ceil_mode, return_indices, out=out
    )


def max_pool3d(
    input: Any, kernel_size: Ints, stride: Ints | None = None, padding: Padding = 0, dilation: Ints = 1,
    ceil_mode: bool = False, return_indices: bool = False, *, out: np.ndarray | None = None,
) -> Any:  # fmt: skip
    """The greatest element of each window of [N, C, D, H, W]. See `max_pool2d`."""
    return batched(
        _max_pool, 3, "max_pool3d", input, kernel_size, stride, padding, dilation, ceil_mode, return_indices, out=out
    )


def _max_pool(
    rank: int, x: np.ndarray, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool,
    return_indices: bool, out: np.ndarray | None,
) -> Any:  # fmt: skip
    _one_result(f"max_pool{rank}d", return_indices, out)
    parameters = (rank, kernel_size, stride, padding, dilation, bool(ceil_mode), bool(return_indices))
    return call(_write_max_pool, parameters, x, out=out)


def _one_result(where: str, return_indices: bool, out: np.ndarray | None) -> None:
    if return_indices and out is not None:
        raise InputError(f"{where}: out takes one array, return_indices=True gives two; leave one of them")


def _write_max_pool(
    net: Net, rank: int, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool,
    return_indices: bool, x: Var,
) -> Any:  # fmt: skip
    where = f"max_pool{rank}d"
    _, attrs = _windows(where, rank, x, kernel_size, stride, padding, dilation, ceil_mode)
    if not return_indices:
        return net.node("MaxPool", x, **attrs)
    best, index = net.nodes("MaxPool", x, outputs=2, **attrs)
    return best, net.node("Mod", index, net.constant(math.prod(x.shape[2:]), np.int64))


def _windows(
    where: str, rank: int, x: Var, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> tuple[Window, dict[str, Any]]:
    """The windows and the ONNX attributes that describe them."""
    check_floats(where, input=x)
    kernel = integers(where, "kernel_size", kernel_size, rank, 1)
    strides = kernel if stride is None or stride == () else integers(where, "stride", stride, rank, 1)
    dilations = integers(where, "dilation", dilation, rank, 1)
    pairs = pad_pairs(where, padding, x.shape[2:], kernel, strides, dilations)
    for pair, k, d in zip(pairs, kernel, dilations, strict=True):
        if max(pair) > (k - 1) * d:
            raise InputError(
                f"{where}: padding={padding!r} gives windows of nothing but padding; a kernel of {k} with dilation "
                f"{d} accepts up to {(k - 1) * d}"
            )
    attrs = {"strides": strides, "dilations": dilations, "pads": onnx_pads(pairs), "ceil_mode": int(ceil_mode)}
    with explained(where, input=x.shape):
        window = Window.of(x.shape[2:], kernel, **attrs)  # type: ignore[arg-type]
    return window, {"kernel_shape": kernel, **attrs}


# --- mean and norm ---------------------------------------------------------------------------------------------------
def avg_pool2d(
    input: Any, kernel_size: Ints, stride: Ints | None = None, padding: Padding = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None, *, out: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """The mean of each window.

    Parameters
    ----------
    input : array [N, C, H, W] or [C, H, W]
        float16, float32 or float64.
    kernel_size, stride, padding, ceil_mode
        See `max_pool2d`.
    count_include_pad : bool
        Whether the zeros of ``padding`` count. What ceil_mode reads beyond them never does.
    divisor_override : int, optional
        What every sum is divided by instead of the number of elements.
    out : array, optional
        Takes the result.

    Returns
    -------
    array [N, C, OH, OW]
    """
    return batched(
        _avg_pool, 2, "avg_pool2d", input, kernel_size, stride, padding, ceil_mode, count_include_pad,
        divisor_override, out=out,
    )  # fmt: skip


def avg_pool1d(
    input: Any, kernel_size: Ints, stride: Ints | None = None, padding: Padding = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None, *, out: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """The mean of each window of [N, C, L]. See `avg_pool2d`."""
    return batched(
        _avg_pool, 1, "avg_pool1d", input, kernel_size, stride, padding, ceil_mode, count_include_pad,
        divisor_override, out=out,
    )  # fmt: skip


def avg_pool3d(
    input: Any, kernel_size: Ints, stride: Ints | None = None, padding: Padding = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None, *, out: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """The mean of each window of [N, C, D, H, W]. See `avg_pool2d`."""
    return batched(
        _avg_pool, 3, "avg_pool3d", input, kernel_size, stride, padding, ceil_mode, count_include_pad,
        divisor_override, out=out,
    )  # fmt: skip


def _avg_pool(
    rank: int, x: np.ndarray, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool, count_include_pad: bool,
    divisor_override: Any, out: np.ndarray | None,
) -> np.ndarray:  # fmt: skip
    parameters = (rank, kernel_size, stride, padding, bool(ceil_mode), bool(count_include_pad), divisor_override)
    return call(_write_avg_pool, parameters, x, out=out)


def _write_avg_pool(
    net: Net, rank: int, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool, count_include_pad: bool,
    divisor_override: Any, x: Var,
) -> Var:  # fmt: skip
    where = f"avg_pool{rank}d"
    window, attrs = _windows(where, rank, x, kernel_size, stride, padding, 1, ceil_mode)
    mean = net.node("AveragePool", x, **attrs, count_include_pad=int(count_include_pad))
    if divisor_override is None:
        return mean
    if divisor_override == 0:
        raise InputError(f"{where}: divisor_override=0; None or any other number is accepted")
    return _sums(net, mean, window, count_include_pad, divisor_override)


def _sums(net: Net, mean: Var, window: Window, count_include_pad: bool, divisor: float = 1) -> Var:
    """The sums that were averaged, divided by ``divisor``."""
    counts = window.divisors(count_include_pad)
    factor = counts.flat[0] if counts.size and (counts == counts.flat[0]).all() else counts
    return net.node("Mul", mean, net.constant(factor / divisor, mean.dtype))


def lp_pool2d(
    input: Any, norm_type: float, kernel_size: Ints, stride: Ints | None = None, ceil_mode: bool = False,
    *, out: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """The norm ``(sum of abs(x) ** p) ** (1 / p)`` of each window; p = inf is the greatest magnitude.

    The mathematical norm: for an odd p, and for windows that ceil_mode lets hang over, torch computes something else.

    Parameters
    ----------
    input : array [N, C, H, W] or [C, H, W]
        float16, float32 or float64.
    norm_type : float
        p, greater than 0.
    kernel_size, stride, ceil_mode
        See `max_pool2d`.
    out : array, optional
        Takes the result.

    Returns
    -------
    array [N, C, OH, OW]
    """
    return batched(_lp_pool, 2, "lp_pool2d", input, norm_type, kernel_size, stride, ceil_mode, out=out)


def lp_pool1d(
    input: Any, norm_type: float, kernel_size: Ints, stride: Ints | None = None, ceil_mode: bool = False,
    *, out: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """The norm of each window of [N, C, L]. See `lp_pool2d`."""
    return batched(_lp_pool, 1, "lp_pool1d", input, norm_type, kernel_size, stride, ceil_mode, out=out)


def lp_pool3d(
    input: Any, norm_type: float, kernel_size: Ints, stride: Ints | None = None, ceil_mode: bool = False,
    *, out: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """The norm of each window of [N, C, D, H, W]. See `lp_pool2d`."""
    return batched(_lp_pool, 3, "lp_pool3d", input, norm_type, kernel_size, stride, ceil_mode, out=out)


def _lp_pool(
    rank: int, x: np.ndarray, norm_type: Any, kernel_size: Any, stride: Any, ceil_mode: bool, out: np.ndarray | None
) -> np.ndarray:
    return call(_write_lp_pool, (rank, norm_type, kernel_size, stride, bool(ceil_mode)), x, out=out)


def _write_lp_pool(net: Net, rank: int, norm_type: Any, kernel_size: Any, stride: Any, ceil_mode: bool, x: Var) -> Var:
    where = f"lp_pool{rank}d"
    window, attrs = _windows(where, rank, x, kernel_size, stride, 0, 1, ceil_mode)
    _check_norm(where, norm_type)
    if math.isinf(norm_type):
        return net.node("MaxPool", net.node("Abs", x), **attrs)
    mean = net.node("AveragePool", _power(net, x, norm_type), **attrs)
    return _root(net, _sums(net, mean, window, False), norm_type)


def _check_norm(where: str, norm_type: Any) -> None:
    if not isinstance(norm_type, (int, float)) or not norm_type > 0:
        raise InputError(f"{where}: norm_type={norm_type!r}; a number greater than 0 is accepted")


def _power(net: Net, x: Var, p: float) -> Var:
    """abs(x) ** p"""
    if p == 2:
        return net.node("Mul", x, x)
    magnitude = net.node("Abs", x)
    return magnitude if p == 1 else net.node("Pow", magnitude, net.constant(p, x.dtype))


def _root(net: Net, x: Var, p: float) -> Var:
    if p == 2:
        return net.node("Sqrt", x)
    return x if p == 1 else net.node("Pow", x, net.constant(1 / p, x.dtype))


# --- as many regions as wanted ---------------------------------------------------------------------------------------
def adaptive_avg_pool2d(input: Any, output_size: Sizes, *, out: np.ndarray | None = None) -> np.ndarray:
    """The means of ``output_size`` regions of each plane.

    Region o of an axis goes from ``floor(o * size / output)`` up to ``ceil((o + 1) * size / output)``.

    Parameters
    ----------
    input : array [N, C, H, W] or [C, H, W]
        float16, float32 or float64.
    output_size : int, None or a pair of those
        None keeps an axis as it is.
    out : array, optional
        Takes the result.

    Returns
    -------
    array [N, C, *output_size]
    """
    return batched(_adaptive_avg_pool, 2, "adaptive_avg_pool2d", input, output_size, out=out)


def adaptive_avg_pool1d(input: Any, output_size: Sizes, *, out: np.ndarray | None = None) -> np.ndarray:
    """The means of ``output_size`` regions of [N, C, L]. See `adaptive_avg_pool2d`."""
    return batched(_adaptive_avg_pool, 1, "adaptive_avg_pool1d", input, output_size, out=out)


def adaptive_avg_pool3d(input: Any, output_size: Sizes, *, out: np.ndarray | None = None) -> np.ndarray:
    """The means of ``output_size`` regions of [N, C, D, H, W]. See `adaptive_avg_pool2d`."""
    return batched(_adaptive_avg_pool, 3, "adaptive_avg_pool3d", input, output_size, out=out)


def adaptive_max_pool2d(
    input: Any, output_size: Sizes, return_indices: bool = False, *, out: np.ndarray | None = None
) -> Any:
    """The greatest elements of ``output_size`` regions of each plane, those of `adaptive_avg_pool2d`.

    Parameters
    ----------
    input, output_size, out
        See `adaptive_avg_pool2d`.
    return_indices : bool
        Also return where each maximum lies in its plane, row by row.

    Returns
    -------
    array [N, C, *output_size], or (array, int64 array)
    """
    return batched(_adaptive_max_pool, 2, "adaptive_max_pool2d", input, output_size, return_indices, out=out)


def adaptive_max_pool1d(
    input: Any, output_size: Sizes, return_indices: bool = False, *, out: np.ndarray | None = None
) -> Any:
    """The greatest elements of ``output_size`` regions of [N, C, L]. See `adaptive_max_pool2d`."""
    return batched(_adaptive_max_pool, 1, "adaptive_max_pool1d", input, output_size, return_indices, out=out)


def adaptive_max_pool3d(
    input: Any, output_size: Sizes, return_indices: bool = False, *, out: np.ndarray | None = None
) -> Any:
    """The greatest elements of ``output_size`` regions of [N, C, D, H, W]. See `adaptive_max_pool2d`."""
    return batched(_adaptive_max_pool, 3, "adaptive_max_pool3d", input, output_size, return_indices, out=out)


def _adaptive_avg_pool(rank: int, x: np.ndarray, output_size: Any, out: np.ndarray | None) -> np.ndarray:
    return call(_write_adaptive, (rank, "avg", output_size, False), x, out=out)


def _adaptive_max_pool(rank: int, x: np.ndarray, output_size: Any, return_indices: bool, out: np.ndarray | None) -> Any:
    _one_result(f"adaptive_max_pool{rank}d", return_indices, out)
    return call(_write_adaptive, (rank, "max", output_size, bool(return_indices)), x, out=out)


def _write_adaptive(net: Net, rank: int, kind: str, output_size: Any, return_indices: bool, x: Var) -> Any:
    where = f"adaptive_{kind}_pool{rank}d"
    check_floats(where, input=x)
    given = output_size if isinstance(output_size, tuple) else (output_size,) * rank
    if len(given) != rank or 0 in x.shape[2:]:
        raise InputError(f"{where}: output_size={output_size!r} does not fit input {x.shape}")
    kept = [n if o is None else o for n, o in zip(x.shape[2:], given, strict=True)]
    return adaptive(net, kind, x, integers(where, "output_size", kept, rank, 1), return_indices)


def adaptive(net: Net, kind: str, x: Var, output: Sequence[int], return_indices: bool = False) -> Any:
    """Regions as windows: those of an axis are spread to one length by repeating their last element, then pooled."""
    op = {"avg": "AveragePool", "max": "MaxPool"}[kind]
    sizes, kernel, tables = x.shape[2:], [], []
    for axis, (size, o) in enumerate(zip(sizes, output, strict=True), 2):
        start, stop = adaptive_ranges(size, o)
        count, longest = (stop - start)[:, None], int((stop - start).max())
        j = np.arange(longest)
        kernel.append(longest)
        tables.append(np.minimum(start[:, None] + j, stop[:, None] - 1).reshape(-1))
        if not np.array_equal(tables[-1], np.arange(size)):
            x = net.node("Gather", x, net.constant(tables[-1], np.int64), axis=axis)
        if kind == "avg" and (count != longest).any():
            share = np.where(j < count - 1, 1.0, 1.0 / (longest - count + 1)) * (longest / count)
            x = net.node("Mul", x, net.constant(share.reshape(-1, *(1,) * (x.ndim - axis - 1)), x.dtype))
    attrs = {"kernel_shape": kernel, "strides": kernel}
    if not return_indices:
        return net.node(op, x, **attrs)
    best, index = net.nodes(op, x, outputs=2, **attrs)
    origin = np.ravel_multi_index(np.ix_(*tables), sizes).reshape(-1)
    in_plane = net.node("Mod", index, net.constant(origin.size, np.int64))
    return best, net.node("Gather", net.constant(origin, np.int64), in_plane)


# --- everything ------------------------------------------------------------------------------------------------------
def global_avg_pool(input: Any, *, out: np.ndarray | None = None) -> np.ndarray:
    """The mean of each plane of [N, C, …]: shape [N, C, 1, …]. float16, float32 or float64."""
    return call(_write_global, ("global_avg_pool", 0), input, out=out)


def global_max_pool(input: Any, *, out: np.ndarray | None = None) -> np.ndarray:
    """The greatest element of each plane of [N, C, …]: shape [N, C, 1, …]. float16, float32 or float64."""
    return call(_write_global, ("global_max_pool", 0), input, out=out)


def global_lp_pool(input: Any, norm_type: float = 2, *, out: np.ndarray | None = None) -> np.ndarray:
    """The norm of each plane of [N, C, …] (see `lp_pool2d`): shape [N, C, 1, …]. float16, float32 or float64."""
    return call(_write_global, ("global_lp_pool", norm_type), input, out=out)


def _write_global(net: Net, where: str, p: float, x: Var) -> Var:
    check_floats(where, input=x)
    if x.ndim < 3 or 0 in x.shape[2:]:
        raise InputError(
            f"{where}: input has shape {x.shape}; [N, C, …] with spatial axes that are not empty is needed"
        )
    if where == "global_avg_pool":
        return net.node("GlobalAveragePool", x)
    if where == "global_max_pool":
        return net.node("GlobalMaxPool", x)
    _check_norm(where, p)
    if math.isinf(p):
        return net.node("GlobalMaxPool", net.node("Abs", x))
    total = net.node(
        "Mul", net.node("GlobalAveragePool", _power(net, x, p)), net.constant(math.prod(x.shape[2:]), x.dtype)
    )
    return _root(net, total, p)


# --- the way back ----------------------------------------------------------------------------------------------------
def max_unpool2d(
    input: Any, indices: Any, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0,
    output_size: Sequence[int] | None = None,
) -> np.ndarray:  # fmt: skip
    """Zeros, with each element of ``input`` where `max_pool2d` found it.

    Parameters
    ----------
    input : array [N, C, H, W] or [C, H, W]
        Of any dtype.
    indices : int array of the same shape
        As ``return_indices`` gives them. Where two are equal, the later element wins.
    kernel_size, stride, padding
        Those of the pooling.
    output_size : (int, int), optional
        The size before the pooling, where it is not ``(H - 1) * stride - 2 * padding + kernel_size``.

    Returns
    -------
    array [N, C, *output_size]

    Raises
    ------
    InputError
        Shapes differ, or an index lies outside the output's plane.
    """
    return _max_unpool(2, input, indices, kernel_size, stride, padding, output_size)


def max_unpool1d(
    input: Any, indices: Any, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0,
    output_size: Sequence[int] | None = None,
) -> np.ndarray:  # fmt: skip
    """Zeros of [N, C, L], with each element where `max_pool1d` found it. See `max_unpool2d`."""
    return _max_unpool(1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(
    input: Any, indices: Any, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0,
    output_size: Sequence[int] | None = None,
) -> np.ndarray:  # fmt: skip
    """Zeros of [N, C, D, H, W], with each element where `max_pool3d` found it. See `max_unpool2d`."""
    return _max_unpool(3, input, indices, kernel_size, stride, padding, output_size)


def _max_unpool(
    rank: int, input: Any, indices: Any, kernel_size: Any, stride: Any, padding: Any, output_size: Any
) -> np.ndarray:
    where = f"max_unpool{rank}d"
    x, index = as_array("input", input), np.asarray(indices)
    if x.ndim not in (rank + 1, rank + 2) or index.shape != x.shape or index.dtype.kind not in "iu":
        raise InputError(
            f"{where}: input {x.shape} and indices {index.dtype}{index.shape}; "
            f"[N, C, *spatial] with {rank} spatial axes and integers of the same shape are accepted"
        )
    kernel = integers(where, "kernel_size", kernel_size, rank, 1)
    strides = kernel if stride is None else integers(where, "stride", stride, rank, 1)
    pads = integers(where, "padding", padding, rank, 0)
    sizes = tuple((n - 1) * s - 2 * p + k for n, s, p, k in zip(x.shape[-rank:], strides, pads, kernel, strict=True))
    if output_size is not None:
        sizes = integers(where, "output_size", tuple(output_size)[-rank:], rank, 1)
    planes = x.shape[:-rank]
    result = np.zeros((*planes, math.prod(max(n, 0) for n in sizes)), x.dtype)
    flat = index.reshape(*planes, -1)
    if flat.size and (flat.min() < 0 or flat.max() >= result.shape[-1]):
        raise InputError(f"{where}: indices from {flat.min()} to {flat.max()} do not all lie in a plane of {sizes}")
    np.put_along_axis(result, flat.astype(np.int64), x.reshape(*planes, -1), -1)
    return result.reshape(*planes, *sizes)
