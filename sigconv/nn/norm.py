"""Normalisations, as they are in inference."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from sigconv.errors import InputError
from sigconv.nn.arguments import integer
from sigconv.nn.call import call
from sigconv.nn.net import Net, Var, check_floats, check_vector


def batch_norm(
    input: Any, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None, *, eps: float = 1e-5,
    out: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """``(x - running_mean) / sqrt(running_var + eps) * weight + bias``, a number for each channel (axis 1).

    Parameters
    ----------
    input : array [N, C, …]
        float16, float32 or float64.
    running_mean, running_var : array [C]
        Statistics of the training; they are not changed.
    weight, bias : array [C], optional
    eps : float
    out : array, optional
        Takes the result; may be ``input``.
    """
    return call(_write_batch_norm, (float(eps),), input, running_mean, running_var, weight, bias, out=out)


def _write_batch_norm(net: Net, eps: float, x: Var, mean: Var, var: Var, w: Var | None, b: Var | None) -> Var:
    where = "batch_norm"
    check_floats(where, "weight", "bias", input=x, running_mean=mean, running_var=var, weight=w, bias=b)
    if x.ndim < 2:
        raise InputError(f"{where}: input has shape {x.shape}; [N, C, …] is needed")
    for name, vector in (("running_mean", mean), ("running_var", var), ("weight", w), ("bias", b)):
        check_vector(where, name, vector, x.shape[1], f"input {x.shape}")
    deviation = net.node("Sqrt", net.node("Add", var, net.constant(eps, x.dtype)))
    factor = net.node("Reciprocal", deviation) if w is None else net.node("Div", w, deviation)
    centred = net.node("Sub", x, net.along_channels(x, mean))
    return _affine(net, centred, net.along_channels(x, factor), None if b is None else net.along_channels(x, b))


def _affine(net: Net, x: Var, weight: Var | None, bias: Var | None) -> Var:
    """x * weight + bias, either absent."""
    if weight is not None:
        x = net.node("Mul", x, weight)
    return x if bias is None else net.node("Add", x, bias)


def instance_norm(
    input: Any, weight: Any = None, bias: Any = None, *, eps: float = 1e-5, out: np.ndarray | None = None
) -> np.ndarray:
    """Each plane of [N, C, …] with mean 0 and variance 1, then ``* weight + bias`` for each channel.

    Parameters
    ----------
    input : array [N, C, …] with one to three spatial axes
        float16, float32 or float64.
    weight, bias : array [C], optional
    eps : float
        Added to the variance.
    out : array, optional
        Takes the result; may be ``input``.
    """
    return call(_write_instance_norm, (float(eps),), input, weight, bias, out=out)


def _write_instance_norm(net: Net, eps: float, x: Var, w: Var | None, b: Var | None) -> Var:
    where = "instance_norm"
    _check_channels(where, x, w, b, 3)
    ones, zeros = (net.constant(np.full(x.shape[1], v), x.dtype) for v in (1, 0))
    y = net.node("InstanceNormalization", x, ones, zeros, epsilon=eps)
    return _per_channel(net, y, w, b)


def _check_channels(where: str, x: Var, w: Var | None, b: Var | None, least: int) -> None:
    check_floats(where, "weight", "bias", input=x, weight=w, bias=b)
    if x.ndim < least:
        raise InputError(f"{where}: input has shape {x.shape}; at least {least} axes [N, C, …] are needed")
    check_vector(where, "weight", w, x.shape[1], f"input {x.shape}")
    check_vector(where, "bias", b, x.shape[1], f"input {x.shape}")


def _per_channel(net: Net, y: Var, w: Var | None, b: Var | None) -> Var:
    return _affine(net, y, *(None if v is None else net.along_channels(y, v) for v in (w, b)))


def group_norm(
    input: Any, num_groups: int, weight: Any = None, bias: Any = None, *, eps: float = 1e-5,
    out: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Each of ``num_groups`` groups of channels with mean 0 and variance 1, then ``* weight + bias`` for each channel.

    Parameters
    ----------
    input : array [N, C, …]
        float16, float32 or float64.
    num_groups : int
        A divisor of C.
    weight, bias : array [C], optional
    eps : float
        Added to the variance.
    out : array, optional
        Takes the result; may be ``input``.
    """
    return call(_write_group_norm, (num_groups, float(eps)), input, weight, bias, out=out)


def _write_group_norm(net: Net, num_groups: Any, eps: float, x: Var, w: Var | None, b: Var | None) -> Var:
    where = "group_norm"
    _check_channels(where, x, w, b, 2)
    groups = integer(where, "num_groups", num_groups, 1)
    if x.shape[1] % groups:
        raise InputError(f"{where}: num_groups={num_groups} does not divide the {x.shape[1]} channels of {x.shape}")
    ones, zeros = (net.constant(np.full(x.shape[1], v), x.dtype) for v in (1, 0))
    spatial = net.reshape(x, (*x.shape[:2], math.prod(x.shape[2:])))
    y = net.node("GroupNormalization", spatial, ones, zeros, num_groups=groups, epsilon=eps)
    return _per_channel(net, net.reshape(y, x.shape), w, b)


def layer_norm(
    input: Any, normalized_shape: int | Sequence[int], weight: Any = None, bias: Any = None, *, eps: float = 1e-5,
    out: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """The last axes, of sizes ``normalized_shape``, with mean 0 and variance 1, then ``* weight + bias``.

    Parameters
    ----------
    input : array [..., *normalized_shape]
        float16, float32 or float64.
    normalized_shape : int or sequence of int
    weight, bias : array of normalized_shape, optional
    eps : float
        Added to the variance.
    out : array, optional
        Takes the result; may be ``input``.
    """
    return call(_write_layer_norm, (normalized_shape, float(eps)), input, weight, bias, out=out)


def _write_layer_norm(net: Net, normalized_shape: Any, eps: float, x: Var, w: Var | None, b: Var | None) -> Var:
    where = "layer_norm"
    check_floats(where, "weight", "bias", input=x, weight=w, bias=b)
    given = normalized_shape if isinstance(normalized_shape, tuple) else (normalized_shape,)
    shape = tuple(map(operator.index, given))
    if not shape or x.shape[-len(shape) :] != shape:
        raise InputError(f"{where}: normalized_shape={normalized_shape!r} are not the last sizes of input {x.shape}")
    for name, v in (("weight", w), ("bias", b)):
        if v is not None and v.shape != shape:
            raise InputError(f"{where}: {name} has shape {v.shape}; normalized_shape {shape} needs the same")
    ones = net.constant(np.ones(shape), x.dtype)
    y = net.node("LayerNormalization", x, ones, axis=-len(shape), epsilon=eps)
    return _affine(net, y, w, b)


def local_response_norm(
    input: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0, *, out: np.ndarray | None = None
) -> np.ndarray:
    """``x / (k + alpha * mean of x ** 2 over size neighbouring channels) ** beta`` (AlexNet's).

    Parameters
    ----------
    input : array [N, C, …]
        float16, float32 or float64.
    size : int
        Channels from ``size // 2`` before to ``(size - 1) // 2`` after; beyond the ends they count as 0.
    alpha, beta, k : float
    out : array, optional
        Takes the result; may be ``input``.
    """
    return call(_write_local_response_norm, (size, float(alpha), float(beta), float(k)), input, out=out)


def _write_local_response_norm(net: Net, size: Any, alpha: float, beta: float, k: float, x: Var) -> Var:
    where = "local_response_norm"
    _check_channels(where, x, None, None, 3)
    size = integer(where, "size", size, 1)
    n, c, *spatial = x.shape
    planes = net.reshape(net.node("Mul", x, x), (n, 1, c, math.prod(spatial)))
    attrs = {"kernel_shape": (size, 1), "pads": (size // 2, 0, (size - 1) // 2, 0), "count_include_pad": 1}
    mean = net.reshape(net.node("AveragePool", planes, **attrs), x.shape)
    scaled = net.node("Add", net.node("Mul", mean, net.constant(alpha, x.dtype)), net.constant(k, x.dtype))
    return net.node("Div", x, net.node("Pow", scaled, net.constant(beta, x.dtype)))
