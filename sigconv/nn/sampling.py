"""Layers that move and resample elements: padding, windows as columns and back, resizing."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from sigconv.errors import InputError
from sigconv.geometry import Window
from sigconv.nn.arguments import batched, explained, integers, onnx_pads, pad_pairs, padded
from sigconv.nn.call import as_array, call
from sigconv.nn.net import Net, Var, check_floats
from sigconv.nn.pool import adaptive

Ints = int | Sequence[int]
Padding = int | str | Sequence[int] | Sequence[tuple[int, int]]

INTERPOLATIONS = {
    "nearest": (), "nearest-exact": (), "area": (), "linear": (3,), "bilinear": (4,), "bicubic": (4,), "trilinear": (5,)
}  # fmt: skip
"""The numbers of axes that each mode of `interpolate` takes; none given: 3, 4 and 5."""


def pad(
    input: Any, pad: Sequence[int], mode: str = "constant", value: float | None = None, *, out: np.ndarray | None = None
) -> np.ndarray:
    """Add elements around an array, or cut some off.

    Parameters
    ----------
    input : array
        Of any numeric dtype.
    pad : sequence of int
        (before, after) of the last axis, then of the one before it, and so on. Negative numbers crop.
    mode : {'constant', 'reflect', 'replicate', 'circular'}
        ``reflect`` mirrors without repeating the border, again and again where the padding exceeds the axis;
        ``replicate`` repeats the border; ``circular`` starts over.
    value : float, optional
        Of ``constant``; 0 if not given.
    out : array, optional
        Takes the result.

    Raises
    ------
    InputError
        More numbers than axes, an odd number of them, an unknown mode, or an axis of which nothing is left.
    """
    return call(_write_pad, (tuple(pad), mode, value), input, out=out)


def _write_pad(net: Net, pad: Sequence[Any], mode: str, value: Any, x: Var) -> Var:
    if len(pad) % 2 or len(pad) > 2 * x.ndim:
        raise InputError(f"pad: pad={pad!r}; two integers an axis, for at most the {x.ndim} axes of {x.shape}")
    try:
        flat = [operator.index(v) for v in pad]
        np.asarray(0 if value is None else value, x.dtype)
    except (TypeError, ValueError, OverflowError) as e:
        raise InputError(f"pad: pad={pad!r}, value={value!r} for input of {x.dtype}: {e}") from None
    pairs = list(zip(flat[::2], flat[1::2], strict=True))[::-1]
    if value is not None and mode != "constant":
        raise InputError(f"pad: value={value!r} has no meaning with mode={mode!r}")
    return padded(net, "pad", x, pairs, mode, value)


# --- columns ---------------------------------------------------------------------------------------------------------
def unfold(
    input: Any, kernel_size: Ints, dilation: Ints = 1, padding: Padding = 0, stride: Ints = 1,
    *, out: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Every window as a column (im2col).

    Parameters
    ----------
    input : array [N, C, *spatial] or [C, *spatial]
        Of any numeric dtype. As many spatial axes as ``kernel_size`` has entries; an int means two.
    kernel_size, dilation, padding, stride
        See `conv2d`; padding is with zeros.
    out : array, optional
        Takes the result.

    Returns
    -------
    array [N, C * prod(kernel_size), L]
        L windows, row by row.
    """
    rank = _rank(kernel_size)
    return batched(_unfold, rank, "unfold", input, kernel_size, dilation, padding, stride, out=out)


def _rank(sizes: Any) -> int:
    return len(sizes) if isinstance(sizes, (tuple, list)) else 2


def _unfold(
    rank: int, x: np.ndarray, kernel_size: Any, dilation: Any, padding: Any, stride: Any, out: np.ndarray | None
) -> np.ndarray:
    return call(_write_unfold, (rank, kernel_size, dilation, padding, stride), x, out=out)


def _geometry(
    where: str, sizes: Sequence[int], kernel_size: Any, dilation: Any, padding: Any, stride: Any, shape: Any
) -> tuple[Window, list[tuple[int, int]]]:
    """The windows over ``sizes`` and the pads."""
    rank = len(sizes)
    kernel = integers(where, "kernel_size", kernel_size, rank, 1)
    dilations = integers(where, "dilation", dilation, rank, 1)
    strides = integers(where, "stride", stride, rank, 1)
    pairs = pad_pairs(where, padding, sizes, kernel, strides, dilations)
    with explained(where, input=shape):
        return Window.of(sizes, kernel, strides=strides, dilations=dilations, pads=onnx_pads(pairs)), pairs


def _write_unfold(net: Net, rank: int, kernel_size: Any, dilation: Any, padding: Any, stride: Any, x: Var) -> Var:
    window, pairs = _geometry("unfold", x.shape[2:], kernel_size, dilation, padding, stride, x.shape)
    n, c = x.shape[:2]
    x = padded(net, "unfold", x, pairs, "constant")
    for i, axis in enumerate(window.axes):
        index = np.arange(axis.kernel)[:, None] * axis.dilation + np.arange(axis.output) * axis.stride
        x = net.node("Gather", x, net.constant(index.reshape(-1), np.int64), axis=2 + i)
    parts = [d for a in window.axes for d in (a.kernel, a.output)]
    order = (0, 1, *range(2, 2 + 2 * rank, 2), *range(3, 3 + 2 * rank, 2))
    x = net.node("Transpose", net.reshape(x, (n, c, *parts)), perm=order)
    return net.reshape(x, (n, c * math.prod(window.kernel), math.prod(window.output)))


def fold(
    input: Any, output_size: Ints, kernel_size: Ints, dilation: Ints = 1, padding: Padding = 0, stride: Ints = 1,
    *, out: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Columns summed where `unfold` took them from: its adjoint, not its inverse, since windows overlap (col2im).

    Parameters
    ----------
    input : array [N, C * prod(kernel_size), L] or [C * prod(kernel_size), L]
        Of any numeric dtype.
    output_size : int or sequence of int
        The spatial sizes; an int means two.
    kernel_size, dilation, padding, stride
        Those of `unfold`.
    out : array, optional
        Takes the result.

    Returns
    -------
    array [N, C, *output_size]
    """
    x = as_array("input", input)
    single = x.ndim == 2
    parameters = (output_size, kernel_size, dilation, padding, stride)
    y = call(_write_fold, parameters, x[None] if single else x, out=out[None] if single and out is not None else out)
    return out if out is not None else y[0] if single else y


def _write_fold(net: Net, output_size: Any, kernel_size: Any, dilation: Any, padding: Any, stride: Any, x: Var) -> Var:
    sizes = integers("fold", "output_size", output_size, _rank(output_size), 1)
    window, pairs = _geometry("fold", sizes, kernel_size, dilation, padding, stride, x.shape)
    taps, count = math.prod(window.kernel), math.prod(window.output)
    if x.ndim != 3 or x.shape[1] % taps or x.shape[2] != count:
        raise InputError(
            f"fold: input {x.shape}; [N, C * {taps}, {count}] is needed for output_size={output_size!r} and the windows"
        )
    attrs = {"strides": window.strides, "dilations": window.dilations, "pads": onnx_pads(pairs)}
    return net.node("Col2Im", x, net.ints(*sizes), net.ints(*window.kernel), **attrs)


# --- resizing --------------------------------------------------------------------------------------------------------
def interpolate(
    input: Any, size: Ints | None = None, scale_factor: float | Sequence[float] | None = None, mode: str = "nearest",
    align_corners: bool | None = None, recompute_scale_factor: bool | None = None, antialias: bool = False,
    *, out: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Resize [N, C, *spatial] to ``size``, or by ``scale_factor``.

    Parameters
    ----------
    input : array [N, C, L], [N, C, H, W] or [N, C, D, H, W]
        float16, float32 or float64; for the nearest modes any numeric dtype.
    size : int or sequence of int
        The spatial sizes wanted.
    scale_factor : float or sequence of float
        Instead of ``size``: output sizes are ``floor(size * scale_factor)``, positions follow the factor itself unless
        ``recompute_scale_factor``. An axis whose size stays is left alone,
        with ``bicubic`` (not antialiased) only if all stay, with ``nearest-exact`` never (torch's rules).
    mode : {'nearest', 'nearest-exact', 'linear', 'bilinear', 'trilinear', 'bicubic', 'area'}
        ``linear`` is of one spatial axis, ``bilinear`` and ``bicubic`` (a = -0.75, of Keys' family) of two,
        ``trilinear`` of three. ``area`` is `adaptive_avg_pool2d`. ``nearest`` takes ``floor(i / factor)``,
        ``nearest-exact`` the element nearest to the pixel's centre.
    align_corners : bool
        Whether the corners' centres, rather than the corners themselves, stay where they are.
    recompute_scale_factor : bool
        Positions follow the ratio of the sizes.
    antialias : bool
        Widen the filter when shrinking (bilinear, and bicubic with a = -0.5): Pillow's way.
    out : array, optional
        Takes the result.

    Raises
    ------
    InputError
        Both or none of ``size`` and ``scale_factor``, an unknown mode, a rank that it does not take, empty sizes.
    """
    parameters = (size, scale_factor, mode, align_corners, recompute_scale_factor, bool(antialias))
    return call(_write_interpolate, parameters, input, out=out)


def _write_interpolate(
    net: Net, size: Any, scale_factor: Any, mode: str, align_corners: Any, recompute: Any, antialias: bool, x: Var
) -> Var:
    where = "interpolate"
    if mode not in INTERPOLATIONS:
        raise InputError(f"{where}: mode={mode!r}; accepted are {', '.join(map(repr, INTERPOLATIONS))}")
    ranks = INTERPOLATIONS[mode] or (3, 4, 5)
    if x.ndim not in ranks or 0 in x.shape[2:]:
        raise InputError(
            f"{where}: input {x.shape}; mode={mode!r} takes {' or '.join(map(str, ranks))} axes, none empty"
        )
    smooth = mode in ("linear", "bilinear", "trilinear", "bicubic")
    if smooth or mode == "area":
        check_floats(where, input=x)
    if align_corners is not None and not smooth:
        raise InputError(f"{where}: align_corners={align_corners!r} has no meaning with mode={mode!r}")
    if antialias and mode not in ("bilinear", "bicubic"):
        raise InputError(f"{where}: antialias has no meaning with mode={mode!r}; it has with 'bilinear' and 'bicubic'")
    if antialias and align_corners:
        raise InputError(f"{where}: antialias=True with align_corners=True; give one of them")
    sizes, factors = _output_sizes(x, size, scale_factor)
    scales = [f if f and not recompute else o / n for n, o, f in zip(x.shape[2:], sizes, factors, strict=True)]
    if mode == "area":
        return adaptive(net, "avg", x, sizes)
    if smooth:
        if mode != "bicubic" or antialias or sizes == x.shape[2:]:
            scales = [1.0 if o == n else scale for n, o, scale in zip(x.shape[2:], sizes, scales, strict=True)]
        return _resized(net, x, sizes, scales, mode, bool(align_corners), antialias)
    axes = list(zip(x.shape[2:], sizes, scales, strict=True))
    for i in sorted(
        range(len(axes)), key=lambda i: (axes[i][1] / axes[i][0], -i)
    ):  # growing rows last copies them whole
        n, o, scale = axes[i]
        step = np.float32(1 / scale)
        centre = np.float32(0.5 if mode == "nearest-exact" else 0)
        index = np.minimum(np.floor((np.arange(o, dtype=np.float32) + centre) * step).astype(np.int64), n - 1)
        if o != n or (mode == "nearest-exact" and not np.array_equal(index, np.arange(n))):
            x = net.node("Gather", x, net.constant(index, np.int64), axis=2 + i)
    return x


def _output_sizes(x: Var, size: Any, scale_factor: Any) -> tuple[tuple[int, ...], Sequence[float | None]]:
    """The spatial sizes, and the factors asked for (None where the ratio of sizes is)."""
    where, rank = "interpolate", x.ndim - 2
    if (size is None) == (scale_factor is None):
        raise InputError(f"{where}: give one of size={size!r} and scale_factor={scale_factor!r}")
    if size is not None:
        return integers(where, "size", size, rank, 1), (None,) * rank
    factors = scale_factor if isinstance(scale_factor, tuple) else (scale_factor,) * rank
    if len(factors) != rank or not all(isinstance(f, (int, float)) and 0 < f < math.inf for f in factors):
        raise InputError(f"{where}: scale_factor={scale_factor!r}; a positive number or {rank} of them are accepted")
    sizes = tuple(math.floor(n * f) for n, f in zip(x.shape[2:], factors, strict=True))
    if 0 in sizes:
        raise InputError(f"{where}: scale_factor={scale_factor!r} leaves nothing of input {x.shape}")
    return sizes, [float(f) for f in factors]


def _resized(
    net: Net, x: Var, sizes: Sequence[int], scales: Sequence[float], mode: str, align_corners: bool, antialias: bool
) -> Var:
    attrs: dict[str, Any] = {
        "mode": "cubic" if mode == "bicubic" else "linear",
        "coordinate_transformation_mode": "align_corners" if align_corners else "half_pixel",
        "cubic_coeff_a": -0.5 if antialias else -0.75,
        "antialias": int(antialias),
        "exclude_outside": int(antialias),
    }
    by_size = align_corners or all(s == o / n for s, o, n in zip(scales, sizes, x.shape[2:], strict=True))
    if by_size:
        return net.node("Resize", x, None, None, net.ints(*x.shape[:2], *sizes), **attrs)
    y = net.node("Resize", x, None, net.constant((1, 1, *scales), np.float64), **attrs)
    if y.shape[2:] != tuple(sizes):  # ONNX rounds the product of size and scale to float32 before it cuts it
        return net.node("Resize", x, None, None, net.ints(*x.shape[:2], *sizes), **attrs)
    return y
