"""Normalisations. Statistics are taken in float64; scale and shift come after, in the order ONNX gives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sigconv.errors import ModelError
from sigconv.ops._infer import (
    FLOAT,
    Attrs,
    Facts,
    axis_index,
    axis_indices,
    check_broadcasts_to,
    check_dtype,
    check_rank,
    check_vector,
    common_dtype,
    fact,
    unary,
)
from sigconv.ops._numeric import widened
from sigconv.ops.cast import element_dtype
from sigconv.ops.nn import along_channels
from sigconv.ops.spec import Dim, Fact, register


def _standardise(x: np.ndarray, axes: tuple[int, ...], epsilon: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``(x - mean) / sqrt(var + epsilon)`` over ``axes`` with mean and 1 / sqrt(var + epsilon), in float64."""
    x = x.astype(np.float64)
    count = np.prod([x.shape[a] for a in axes], dtype=np.int64)
    mean = x.sum(axes, keepdims=True) / count
    deviation = x - mean
    inverse = 1 / np.sqrt(np.square(deviation).sum(axes, keepdims=True) / count + epsilon)
    return deviation * inverse, mean, inverse


def _infer_channels(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    """As input 0; the others are vectors of one element a channel."""
    check_dtype(fact(facts, 0).dtype, FLOAT)
    for i in range(1, len(facts)):
        check_dtype(fact(facts, i).dtype, FLOAT, f"input {i}")
        check_vector(fact(facts, i), _channels(fact(facts, 0)), f"input {i}")
    return unary(facts, attrs, n)


def _channels(x: Fact) -> Dim:
    """The size of axis 1; a tensor of rank 1 is a batch of one channel."""
    check_rank(x, least=1)
    return None if x.shape is None else x.shape[1] if len(x.shape) > 1 else 1


def _infer_batch_norm(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    (y,) = _infer_channels(facts, attrs, 1)
    if n > 1 and not attrs["training_mode"]:
        raise ModelError(f"{n} outputs are given; without training_mode there is 1")
    return [y, *(Fact(fact(facts, i).dtype, (_channels(y),)) for i in (3, 4))][:n]


@register("BatchNormalization", infer=_infer_batch_norm, since=15)
def BatchNormalization(
    X: np.ndarray,
    scale: np.ndarray,
    B: np.ndarray,
    input_mean: np.ndarray,
    input_var: np.ndarray,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
    n_outputs: int = 1,
) -> tuple[np.ndarray, ...]:
    """Y and, in training_mode, the running mean and (biased) variance: momentum x old + (1 - momentum) x batch."""
    x = X.astype(np.float64)
    mean, var = input_mean.astype(np.float64), input_var.astype(np.float64)
    if training_mode:
        axes = (0, *range(2, x.ndim))
        count = x.size / max(mean.size, 1)
        batch_mean = x.sum(axes) / count
        batch_var = np.square(x - along_channels(batch_mean, x.ndim)).sum(axes) / count
        running = [(old * momentum + new * (1 - momentum)) for old, new in ((mean, batch_mean), (var, batch_var))]
        mean, var = batch_mean, batch_var
    else:
        running = [mean, var]
    gain = scale.astype(np.float64) / np.sqrt(var + epsilon)
    shift = B.astype(np.float64) - mean * gain
    y = (x * along_channels(gain, x.ndim) + along_channels(shift, x.ndim)).astype(X.dtype)
    return (y, running[0].astype(input_mean.dtype), running[1].astype(input_var.dtype))[:n_outputs]


@register("InstanceNormalization", infer=_infer_channels, since=22)
@widened
def InstanceNormalization(input: np.ndarray, scale: np.ndarray, B: np.ndarray, *, epsilon: float = 1e-5) -> np.ndarray:
    y, _, _ = _standardise(input, tuple(range(2, input.ndim)), epsilon)
    return y * along_channels(scale, input.ndim) + along_channels(B, input.ndim)


def _infer_group_norm(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    x, groups = fact(facts, 0), attrs["num_groups"]
    if groups < 1 or (x.shape is not None and len(x.shape) > 1 and isinstance(x.shape[1], int) and x.shape[1] % groups):
        raise ModelError(f"num_groups is {groups}; a divisor of the channels of {x.shape} is accepted")
    return _infer_channels(facts, attrs, n)


@register("GroupNormalization", infer=_infer_group_norm, since=21)
@widened
def GroupNormalization(
    X: np.ndarray, scale: np.ndarray, bias: np.ndarray, *, epsilon: float = 1e-5, num_groups: int, stash_type: int = 1
) -> np.ndarray:
    """Statistics over the channels of a group and all positions; scale and bias are per channel."""
    n, c, *sizes = X.shape
    y, _, _ = _standardise(X.reshape(n, num_groups, c // num_groups, *sizes), tuple(range(2, X.ndim + 1)), epsilon)
    return y.reshape(X.shape) * along_channels(scale, X.ndim) + along_channels(bias, X.ndim)


def _infer_layer_norm(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    x = fact(facts, 0)
    dtype = common_dtype(facts, allowed=FLOAT)
    stash = element_dtype(attrs["stash_type"])
    if x.shape is None:
        return [Fact(dtype), Fact(stash), Fact(stash)][:n]
    axis = axis_index(attrs["axis"], len(x.shape))
    for i in (1, 2):
        check_broadcasts_to(fact(facts, i), x.shape, f"input {i}")
    statistics = Fact(stash, (*x.shape[:axis], *(1,) * (len(x.shape) - axis)))
    return [Fact(dtype, x.shape), statistics, statistics][:n]


@register("LayerNormalization", infer=_infer_layer_norm, since=17)
def LayerNormalization(
    X: np.ndarray,
    Scale: np.ndarray,
    B: np.ndarray | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    n_outputs: int = 1,
) -> tuple[np.ndarray, ...]:
    """Y and the statistics Mean and InvStdDev, which are of ``stash_type``, float32."""
    first = axis_index(axis, X.ndim)
    y, mean, inverse = _standardise(X, tuple(range(first, X.ndim)), epsilon)
    y = y * Scale.astype(np.float64)
    y = y if B is None else y + B.astype(np.float64)
    stash = element_dtype(stash_type)
    return (y.astype(X.dtype), mean.astype(stash), inverse.astype(stash))[:n_outputs]


def _infer_rms_norm(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    x, scale = fact(facts, 0), fact(facts, 1)
    check_dtype(x.dtype, FLOAT)
    check_dtype(scale.dtype, FLOAT, "input 1")
    if x.shape is not None:
        axis_index(attrs["axis"], len(x.shape))
    check_broadcasts_to(scale, x.shape, "input 1")
    return [Fact(scale.dtype, x.shape)]


@register("RMSNormalization", infer=_infer_rms_norm, since=23)
def RMSNormalization(
    X: np.ndarray, scale: np.ndarray, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> np.ndarray:
    """X over its root mean square, then scaled; in the dtype of ``scale``."""
    axes = tuple(range(axis_index(axis, X.ndim), X.ndim))
    x = X.astype(np.float64)
    square = np.square(x).sum(axes, keepdims=True) / np.prod([x.shape[a] for a in axes], dtype=np.int64)
    return (x / np.sqrt(square + epsilon) * scale.astype(np.float64)).astype(scale.dtype)


def _infer_same_float(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    x = fact(facts, 0)
    check_dtype(x.dtype, FLOAT)
    if x.rank is not None:
        axis_indices(attrs["axes"] if "axes" in attrs else (attrs["axis"],), x.rank)
    return unary(facts, attrs, n)


@register("MeanVarianceNormalization", infer=_infer_same_float, since=13)
@widened
def MeanVarianceNormalization(X: np.ndarray, *, axes: Sequence[int] = (0, 2, 3)) -> np.ndarray:
    """(X - mean) / (standard deviation + 1e-9), as ONNX's function body has it."""
    chosen = axis_indices(axes, X.ndim)
    x = X.astype(np.float64)
    deviation = x - x.mean(chosen, keepdims=True)
    return deviation / (np.sqrt(np.square(deviation).mean(chosen, keepdims=True)) + 1e-9)


@register("LpNormalization", infer=_infer_same_float, since=22)
@widened
def LpNormalization(input: np.ndarray, *, axis: int = -1, p: int = 2) -> np.ndarray:
    """The input over its p-norm (p is 1 or 2) along ``axis``; 0 where that is 0."""
    x = input.astype(np.float64)
    norm = (np.abs(x) ** p).sum(axis, keepdims=True) ** (1 / p)
    return np.where(norm == 0, 0, x / np.where(norm == 0, 1, norm))


def _infer_lrn(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    x = fact(facts, 0)
    check_dtype(x.dtype, FLOAT)
    check_rank(x, least=2)
    if attrs["size"] < 1:
        raise ModelError(f"size is {attrs['size']}; 1 or more is accepted")
    return unary(facts, attrs, n)


@register("LRN", infer=_infer_lrn, since=13)
@widened
def LRN(X: np.ndarray, *, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0, size: int) -> np.ndarray:
    """X / (bias + alpha / size * s) ** beta, with s the sum of squares over ``size`` channels around each one."""
    channels, before = X.shape[1], (size - 1) // 2
    square = np.square(X, dtype=np.float64)
    total = np.zeros_like(square)
    for offset in range(max(-before, 1 - channels), min(size - before, channels)):
        total[:, max(0, -offset) : channels - max(0, offset)] += square[:, max(0, offset) : channels - max(0, -offset)]
    return X / (bias + alpha / size * total) ** beta
