"""Activation functions: elementwise ones with attributes, and the softmax family along an axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

import numpy as np

from sigconv.errors import ModelError
from sigconv.ops._infer import (
    FLOAT,
    NUMERIC,
    SIGNED,
    Attrs,
    Facts,
    axis_index,
    check_broadcasts_to,
    check_dtype,
    common_dtype,
    fact,
    unary_of,
)
from sigconv.ops._numeric import widened
from sigconv.ops.spec import Fact, register

Function = Callable[..., np.ndarray]


def _activation(
    name: str, since: int, allowed: Collection[str] = FLOAT, accuracy: str = "rounding"
) -> Callable[[Function], Function]:
    """Register an elementwise function of one tensor."""
    return lambda f: register(name, infer=unary_of(allowed), since=since, accuracy=accuracy)(widened(f))


def logistic(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) without overflow."""
    z = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + z), z / (1 + z))


def softplus(x: np.ndarray) -> np.ndarray:
    """log(1 + exp(x)) without overflow."""
    return np.logaddexp(x, x.dtype.type(0))


_erf = np.vectorize(math.erf, otypes=[np.float64])


@_activation("Relu", 14, FLOAT | SIGNED, "exact")
def Relu(X: np.ndarray) -> np.ndarray:
    return np.maximum(X, X.dtype.type(0))


@_activation("LeakyRelu", 16)
def LeakyRelu(X: np.ndarray, *, alpha: float = 0.01) -> np.ndarray:
    return np.where(X < 0, alpha * X, X)


def _infer_prelu(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    dtype = common_dtype(facts, allowed=NUMERIC)
    check_broadcasts_to(fact(facts, 1), fact(facts, 0).shape, "slope")
    return [Fact(dtype, fact(facts, 0).shape)]


@register("PRelu", infer=_infer_prelu, since=16, accuracy="exact")
@widened
def PRelu(X: np.ndarray, slope: np.ndarray) -> np.ndarray:
    return np.where(X < 0, slope * X, X)


@_activation("Sigmoid", 13)
def Sigmoid(X: np.ndarray) -> np.ndarray:
    return logistic(X)


@_activation("Tanh", 13)
def Tanh(input: np.ndarray) -> np.ndarray:
    return np.tanh(input)


@_activation("HardSigmoid", 22)
def HardSigmoid(X: np.ndarray, *, alpha: float = 0.2, beta: float = 0.5) -> np.ndarray:
    return np.clip(alpha * X + beta, 0, 1)


@_activation("HardSwish", 22)
def HardSwish(X: np.ndarray) -> np.ndarray:
    return X * np.clip(X / 6 + 0.5, 0, 1)


@_activation("Swish", 24)
def Swish(X: np.ndarray, *, alpha: float = 1.0) -> np.ndarray:
    return X * logistic(alpha * X)


@_activation("Mish", 22)
def Mish(X: np.ndarray) -> np.ndarray:
    return X * np.tanh(softplus(X))


@_activation("Softplus", 22)
def Softplus(X: np.ndarray) -> np.ndarray:
    return softplus(X)


@_activation("Softsign", 22)
def Softsign(input: np.ndarray) -> np.ndarray:
    return input / (1 + np.abs(input))


@_activation("Erf", 13)
def Erf(input: np.ndarray) -> np.ndarray:
    return _erf(input)


@_activation("Gelu", 20)
def Gelu(X: np.ndarray, *, approximate: str = "none") -> np.ndarray:
    """x Φ(x), Φ the normal distribution function, or its tanh approximation (Hendrycks, Gimpel, arXiv:1606.08415)."""
    if approximate == "tanh":
        return 0.5 * X * (1 + np.tanh(math.sqrt(2 / math.pi) * (X + 0.044715 * X**3)))
    if approximate != "none":
        raise ModelError(f"approximate is {approximate!r}; accepted are 'none' and 'tanh'")
    return 0.5 * X * (1 + _erf(X / math.sqrt(2)))


@_activation("Elu", 22)
def Elu(X: np.ndarray, *, alpha: float = 1.0) -> np.ndarray:
    return np.where(X < 0, alpha * np.expm1(X), X)


@_activation("Celu", 28)
def Celu(X: np.ndarray, *, alpha: float = 1.0) -> np.ndarray:
    return np.where(X < 0, alpha * np.expm1(X / alpha), X)


@_activation("Selu", 22)
def Selu(
    X: np.ndarray, *, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875
) -> np.ndarray:
    return gamma * np.where(X <= 0, alpha * np.expm1(X), X)


@_activation("ThresholdedRelu", 22, accuracy="exact")
def ThresholdedRelu(X: np.ndarray, *, alpha: float = 1.0) -> np.ndarray:
    return np.where(alpha < X, X, X.dtype.type(0))


@_activation("Shrink", 9, NUMERIC)
def Shrink(input: np.ndarray, *, bias: float = 0.0, lambd: float = 0.5) -> np.ndarray:
    """Towards zero by ``bias`` outside [-lambd, lambd], 0 inside."""
    shrunk = np.where(input < -lambd, input + bias, np.where(input > lambd, input - bias, 0))
    return shrunk.astype(input.dtype)


def _infer_along_axis(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    given = fact(facts, 0)
    check_dtype(given.dtype, FLOAT)
    if given.rank is not None:
        axis_index(attrs["axis"], max(given.rank, 1))
    return [Fact(given.dtype, given.shape)]


def _shifted(x: np.ndarray, axis: int) -> np.ndarray:
    """``x`` in float64 with its greatest element along ``axis`` moved to 0."""
    return np.subtract(x, x.max(axis, keepdims=True, initial=-np.inf), dtype=np.float64)


@register("Softmax", infer=_infer_along_axis, since=13)
@widened
def Softmax(input: np.ndarray, *, axis: int = -1) -> np.ndarray:
    e = np.exp(_shifted(input, axis))
    return e / e.sum(axis, keepdims=True)


@register("LogSoftmax", infer=_infer_along_axis, since=13)
@widened
def LogSoftmax(input: np.ndarray, *, axis: int = -1) -> np.ndarray:
    z = _shifted(input, axis)
    return z - np.log(np.exp(z).sum(axis, keepdims=True))


@register("Hardmax", infer=_infer_along_axis, since=13, accuracy="exact")
@widened
def Hardmax(input: np.ndarray, *, axis: int = -1) -> np.ndarray:
    """1 at the first greatest element along ``axis``, 0 elsewhere."""
    y = np.zeros_like(input)
    if input.size:
        np.put_along_axis(y, np.expand_dims(input.argmax(axis), axis), 1, axis)
    return y
