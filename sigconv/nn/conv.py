"""Convolution layers, which are correlations: the kernel is not flipped. Transposed convolution, and linear."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sigconv.errors import InputError
from sigconv.geometry import TransposedWindow, Window
from sigconv.nn.activation import activated
from sigconv.nn.arguments import batched, explained, integer, integers, onnx_pads, pad_pairs, padded
from sigconv.nn.call import call
from sigconv.nn.net import Net, Var, check_floats, check_vector

Ints = int | Sequence[int]
Padding = int | str | Sequence[int] | Sequence[tuple[int, int]]
Activation = str | tuple[Any, ...] | None

PACKED_SHARE = 4
"""The right operand of a product is packed in every call: `linear` swaps them where the left one is so much smaller."""


def conv2d(
    input: Any, weight: Any, bias: Any = None, stride: Ints = 1, padding: Padding = 0, dilation: Ints = 1,
    groups: int = 1, *, padding_mode: str = "zeros", activation: Activation = None, out: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Correlation of images with a bank of kernels: the weights are not flipped, as everywhere in deep learning.

    ``y[n, m, i, j] = bias[m] + sum of weight[m, c, a, b] * x[n, c, i*stride + a*dilation, j*stride + b*dilation]``
    over the channels c of m's group and the taps a, b, where x is the padded input.

    Parameters
    ----------
    input : array [N, C, H, W] or [C, H, W]
        float16, float32 or float64; float16 is computed in float32. Integers are refused: convert them.
    weight : array [M, C / groups, KH, KW]
        Of the same dtype. It may change from call to call: it is packed for the kernels in each.
    bias : array [M], optional
    stride, dilation : int or (int, int)
        Steps of the window and of its taps.
    padding : int, (int, int), ((top, bottom), (left, right)) or str
        ``'valid'``: none. ``'same'`` or ``'same_upper'``: as much as gives ``ceil(size / stride)`` outputs, the odd one
        after; ``'same_lower'``: the odd one before. ``'full'``: ``(k - 1) * dilation`` on every side.
    groups : int
        Channels fall into so many groups that do not see each other; C of them: a depthwise convolution.
    padding_mode : {'zeros', 'reflect', 'replicate', 'circular'}
        What lies beyond the borders. Reflections go on as long as needed, where torch refuses.
    activation : str or (str, parameter, …), optional
        A function of this package applied to the result, such as ``'relu'`` or ``('leaky_relu', 0.2)``.
    out : array, optional
        Takes the result; it may overlap the operands.

    Returns
    -------
    array [N, M, OH, OW]
        ``OH = (H + pads - dilation * (KH - 1) - 1) // stride + 1``.

    Raises
    ------
    InputError
        Ranks, channels, groups or dtypes do not fit, or the padded input holds no window.

    Examples
    --------
    >>> import numpy as np, sigconv
    >>> image = np.arange(9.0).reshape(1, 1, 3, 3)
    >>> sigconv.nn.conv2d(image, np.array([[[[1.0, -2.0]]]]))[0, 0]
    array([[-2., -3.],
           [-5., -6.],
           [-8., -9.]])
    """
    return batched(
        _conv, 2, "conv2d", input, weight, bias, stride, padding, dilation, groups, padding_mode, activation, out=out
    )


def conv1d(
    input: Any, weight: Any, bias: Any = None, stride: Ints = 1, padding: Padding = 0, dilation: Ints = 1,
    groups: int = 1, *, padding_mode: str = "zeros", activation: Activation = None, out: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Correlation of signals [N, C, L] with kernels [M, C / groups, K], not flipped. See `conv2d`."""
    return batched(
        _conv, 1, "conv1d", input, weight, bias, stride, padding, dilation, groups, padding_mode, activation, out=out
    )


def conv3d(
    input: Any, weight: Any, bias: Any = None, stride: Ints = 1, padding: Padding = 0, dilation: Ints = 1,
    groups: int = 1, *, padding_mode: str = "zeros", activation: Activation = None, out: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Correlation of volumes [N, C, D, H, W] with kernels [M, C / groups, KD, KH, KW], not flipped. See `conv2d`."""
    return batched(
        _conv, 3, "conv3d", input, weight, bias, stride, padding, dilation, groups, padding_mode, activation, out=out
    )


def _conv(
    rank: int, x: np.ndarray, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: Any,
    padding_mode: str, activation: Activation, out: np.ndarray | None,
) -> np.ndarray:  # fmt: skip
    parameters = (rank, stride, padding, dilation, groups, padding_mode, activation)
    return call(_write_conv, parameters, x, weight, bias, out=out)


def _write_conv(
    net: Net, rank: int, stride: Any, padding: Any, dilation: Any, groups: Any, padding_mode: str,
    activation: Activation, x: Var, w: Var, b: Var | None,
) -> Var:  # fmt: skip
    where = f"conv{rank}d"
    groups = _check_operands(where, rank, groups, x, w, b)
    if x.shape[1] != w.shape[1] * groups:
        raise InputError(
            f"{where}: input {x.shape} has {x.shape[1]} channels; weight {w.shape} with groups={groups} takes "
            f"{w.shape[1] * groups}"
        )
    if w.shape[0] % groups:
        raise InputError(f"{where}: weight {w.shape} has {w.shape[0]} filters, no multiple of groups={groups}")
    check_vector(where, "bias", b, w.shape[0], f"weight {w.shape}")
    kernel, sizes = w.shape[2:], x.shape[2:]
    strides = integers(where, "stride", stride, rank, 1)
    dilations = integers(where, "dilation", dilation, rank, 1)
    pairs = pad_pairs(where, padding, sizes, kernel, strides, dilations)
    with explained(where, input=x.shape, weight=w.shape):
        Window.of(sizes, kernel, strides=strides, dilations=dilations, pads=onnx_pads(pairs))
    if padding_mode != "zeros":
        x, pairs = padded(net, where, x, pairs, padding_mode), [(0, 0)] * rank
    y = net.node("Conv", x, w, b, strides=strides, dilations=dilations, pads=onnx_pads(pairs), group=groups)
    return activated(net, where, y, activation)


def _check_operands(where: str, rank: int, groups: Any, x: Var, w: Var, b: Var | None) -> int:
    """The number of groups; InputError where dtypes or ranks do not fit."""
    check_floats(where, "bias", input=x, weight=w, bias=b)
    if w.ndim != rank + 2:
        raise InputError(
            f"{where}: weight has shape {w.shape}; {rank + 2} axes are needed, {rank} of them the kernel's"
        )
    if 0 in w.shape[2:]:
        raise InputError(f"{where}: weight has shape {w.shape}; a kernel of at least 1 along every axis is needed")
    return integer(where, "groups", groups, 1)


def conv_transpose2d(
    input: Any, weight: Any, bias: Any = None, stride: Ints = 1, padding: Padding = 0, output_padding: Ints = 0,
    groups: int = 1, dilation: Ints = 1, *, output_size: Sequence[int] | None = None,
    activation: Activation = None, out: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Transposed correlation: the adjoint (transpose, gradient) of `conv2d` with the same weight and arguments.

    Every input adds the kernel times its value to the output at ``i * stride - padding + tap * dilation``. For any x
    and y: ``sum(conv2d(x, w) * y) == sum(x * conv_transpose2d(y, w))``.

    Parameters
    ----------
    input : array [N, C, H, W] or [C, H, W]
        float16, float32 or float64.
    weight : array [C, M / groups, KH, KW]
        Of the same dtype.
    bias : array [M], optional
    stride, padding, dilation, groups
        Those of the convolution that this is the transpose of; ``padding`` cuts the output. ``padding`` is integers or
        pairs.
    output_padding : int or (int, int)
        Rows and columns appended to the output, less than stride or dilation.
    output_size : (int, int), optional
        The spatial size wanted, of those that the convolution maps to the input's; instead of ``output_padding``.
    activation, out
        See `conv2d`.

    Returns
    -------
    array [N, M, OH, OW]
        ``OH = (H - 1) * stride - pads + dilation * (KH - 1) + output_padding + 1``.

    Raises
    ------
    InputError
        Ranks, channels, groups, dtypes or output sizes do not fit.
    """
    return batched(
        _conv_transpose, 2, "conv_transpose2d", input, weight, bias, stride, padding, output_padding, groups, dilation,
        output_size, activation, out=out,
    )  # fmt: skip


def conv_transpose1d(
    input: Any, weight: Any, bias: Any = None, stride: Ints = 1, padding: Padding = 0, output_padding: Ints = 0,
    groups: int = 1, dilation: Ints = 1, *, output_size: Sequence[int] | None = None,
    activation: Activation = None, out: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """The adjoint of `conv1d`: input [N, C, L], weight [C, M / groups, K]. See `conv_transpose2d`."""
    return batched(
        _conv_transpose, 1, "conv_transpose1d", input, weight, bias, stride, padding, output_padding, groups, dilation,
        output_size, activation, out=out,
    )  # fmt: skip


def conv_transpose3d(
    input: Any, weight: Any, bias: Any = None, stride: Ints = 1, padding: Padding = 0, output_padding: Ints = 0,
    groups: int = 1, dilation: Ints = 1, *, output_size: Sequence[int] | None = None,
    activation: Activation = None, out: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """The adjoint of `conv3d`: input [N, C, D, H, W], weight [C, M / groups, KD, KH, KW]. See `conv_transpose2d`."""
    return batched(
        _conv_transpose, 3, "conv_transpose3d", input, weight, bias, stride, padding, output_padding, groups, dilation,
        output_size, activation, out=out,
    )  # fmt: skip


def _conv_transpose(
    rank: int, x: np.ndarray, weight: Any, bias: Any, stride: Any, padding: Any, output_padding: Any, groups: Any,
    dilation: Any, output_size: Any, activation: Activation, out: np.ndarray | None,
) -> np.ndarray:  # fmt: skip
    parameters = (rank, stride, padding, output_padding, groups, dilation, output_size, activation)
    return call(_write_conv_transpose, parameters, x, weight, bias, out=out)


def _write_conv_transpose(
    net: Net, rank: int, stride: Any, padding: Any, output_padding: Any, groups: Any, dilation: Any, output_size: Any,
    activation: Activation, x: Var, w: Var, b: Var | None,
) -> Var:  # fmt: skip
    where = f"conv_transpose{rank}d"
    groups = _check_operands(where, rank, groups, x, w, b)
    if x.shape[1] != w.shape[0]:
        raise InputError(f"{where}: input {x.shape} has {x.shape[1]} channels; weight {w.shape} takes {w.shape[0]}")
    if w.shape[0] % groups:
        raise InputError(f"{where}: weight {w.shape} has {w.shape[0]} input channels, no multiple of groups={groups}")
    check_vector(where, "bias", b, w.shape[1] * groups, f"weight {w.shape} with groups={groups}")
    kernel, sizes = w.shape[2:], x.shape[2:]
    strides = integers(where, "stride", stride, rank, 1)
    dilations = integers(where, "dilation", dilation, rank, 1)
    if isinstance(padding, str):
        raise InputError(f"{where}: padding={padding!r}; integers or pairs are accepted")
    pairs = pad_pairs(where, padding, sizes, kernel, strides, dilations)
    extra = integers(where, "output_padding", output_padding, rank, 0)
    if output_size is not None:
        extra = _extra(where, rank, output_size, extra, (sizes, kernel, strides, dilations, pairs))
    attrs: dict[str, Any] = {
        "strides": strides,
        "dilations": dilations,
        "pads": onnx_pads(pairs),
        "output_padding": extra,
    }
    with explained(where, input=x.shape, weight=w.shape):
        TransposedWindow.of(sizes, kernel, **attrs)
    y = net.node("ConvTranspose", x, w, b, group=groups, **attrs)
    return activated(net, where, y, activation)


def _extra(
    where: str, rank: int, output_size: Any, extra: Sequence[int], axes: tuple[Sequence[Any], ...]
) -> tuple[int, ...]:
    """The output padding that gives ``output_size``."""
    if any(extra):
        raise InputError(f"{where}: give one of output_size={output_size!r} and output_padding={tuple(extra)}")
    wanted = integers(where, "output_size", output_size, rank, 1)
    least = [(n - 1) * s - lo - hi + (k - 1) * d + 1 for n, k, s, d, (lo, hi) in zip(*axes, strict=True)]
    most = [n + max(s, d) - 1 for n, s, d in zip(least, axes[2], axes[3], strict=True)]
    if any(not lo <= n <= hi for lo, n, hi in zip(least, wanted, most, strict=True)):
        raise InputError(
            f"{where}: output_size={output_size!r}; accepted are sizes from {tuple(least)} to {tuple(most)}"
        )
    return tuple(n - lo for n, lo in zip(wanted, least, strict=True))


def linear(
    input: Any, weight: Any, bias: Any = None, *, activation: Activation = None, out: np.ndarray | None = None
) -> np.ndarray:
    """``input @ weight.T + bias`` along the last axis.

    Parameters
    ----------
    input : array [..., K]
        float16, float32 or float64.
    weight : array [M, K]
        Of the same dtype.
    bias : array [M], optional
    activation, out
        See `conv2d`.

    Returns
    -------
    array [..., M]
    """
    return call(_write_linear, (activation,), input, weight, bias, out=out)


def _write_linear(net: Net, activation: Activation, x: Var, w: Var, b: Var | None) -> Var:
    check_floats("linear", "bias", input=x, weight=w, bias=b)
    if w.ndim != 2 or x.ndim < 1 or x.shape[-1] != w.shape[1]:
        raise InputError(f"linear: input {x.shape} and weight {w.shape}; (..., K) and (M, K) are accepted")
    check_vector("linear", "bias", b, w.shape[0], f"weight {w.shape}")
    rows = net.reshape(x, (math.prod(x.shape[:-1]), w.shape[1]))
    if PACKED_SHARE * rows.shape[0] <= w.shape[0]:
        y = net.node("Gemm", w, rows, transB=1)
        y = net.reshape(y, (1, w.shape[0])) if rows.shape[0] == 1 else net.node("Transpose", y, perm=(1, 0))
        y = y if b is None else net.node("Add", y, b)
    else:
        y = net.node("Gemm", rows, w, b, transB=1)
    y = activated(net, "linear", y, activation)
    return net.reshape(y, (*x.shape[:-1], w.shape[0]))
