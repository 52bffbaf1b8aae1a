"""Activations: elementwise functions of arrays of any shape, and softmax."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from sigconv.errors import InputError
from sigconv.nn.call import call
from sigconv.nn.net import Net, Var, check_floats

Writer = Callable[..., Var]

ACTIVATIONS: dict[str, Writer] = {}
"""What ``activation=`` of other layers accepts, by name."""

_COMMON = """

    Parameters
    ----------
    input : array
        Of any shape; float16, float32 or float64.
    out : array, optional
        Takes the result; may be ``input``.

    Returns
    -------
    array
        Of the shape and dtype of ``input``.
"""


def _activation(write: Writer) -> Callable[..., np.ndarray]:
    """The function of arrays that a writer describes; its parameters after (net, x) become the function's."""
    name = write.__name__
    _, _, *own = inspect.signature(write).parameters.values()
    defaults = tuple(p.default for p in own)
    optional = inspect.Parameter.empty not in defaults
    ACTIVATIONS[name] = write
    own = [p.replace(kind=p.POSITIONAL_OR_KEYWORD) for p in own]
    bind = inspect.Signature(own).bind

    @functools.wraps(write)
    def checked(net: Net, *parameters_and_x: Any) -> Var:
        *parameters, x = parameters_and_x
        check_floats(name, input=x)
        return write(net, x, *parameters)

    def function(input: Any, *args: Any, out: np.ndarray | None = None, **kwargs: Any) -> np.ndarray:
        parameters = defaults
        if args or kwargs or not optional:
            bound = bind(*args, **kwargs)
            bound.apply_defaults()
            parameters = bound.args
        return call(checked, parameters, input, out=out)

    first = inspect.Parameter("input", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    last = inspect.Parameter("out", inspect.Parameter.KEYWORD_ONLY, default=None)
    function.__signature__ = inspect.Signature([first, *own, last])  # type: ignore[attr-defined]
    function.__name__ = function.__qualname__ = name
    function.__module__ = __name__
    function.__doc__ = (write.__doc__ or "") + _COMMON
    return function


def activated(net: Net, where: str, x: Var, activation: Any) -> Var:
    """``x`` through the activation that a layer's argument names: None, a name, or (name, parameter, …)."""
    if activation is None:
        return x
    name, *parameters = activation if isinstance(activation, tuple) else (activation,)
    if name not in ACTIVATIONS:
        raise InputError(f"{where}: activation={activation!r}; accepted are None, {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name](net, x, *parameters)


def _number(net: Net, x: Var, value: float) -> Var:
    return net.constant(value, x.dtype)


@_activation
def relu(net: Net, x: Var) -> Var:
    """max(x, 0); NaN stays."""
    return net.node("Relu", x)


@_activation
def relu6(net: Net, x: Var) -> Var:
    """min(max(x, 0), 6)."""
    return net.node("Clip", x, _number(net, x, 0), _number(net, x, 6))


@_activation
def hardtanh(net: Net, x: Var, min_val: float = -1.0, max_val: float = 1.0) -> Var:
    """min(max(x, min_val), max_val)."""
    if not min_val <= max_val:
        raise InputError(f"hardtanh: min_val={min_val!r} is above max_val={max_val!r}")
    return net.node("Clip", x, _number(net, x, min_val), _number(net, x, max_val))


@_activation
def leaky_relu(net: Net, x: Var, negative_slope: float = 0.01) -> Var:
    """x where x >= 0, else negative_slope * x."""
    return net.node("LeakyRelu", x, alpha=float(negative_slope))


@_activation
def elu(net: Net, x: Var, alpha: float = 1.0) -> Var:
    """x where x > 0, else alpha * (exp(x) - 1)."""
    return net.node("Elu", x, alpha=float(alpha))


@_activation
def selu(net: Net, x: Var) -> Var:
    """1.0507 * elu(x, 1.6733), the constants of self-normalising networks (Klambauer et al., 2017)."""
    return net.node("Selu", x, alpha=1.6732632423543772848170429916717, gamma=1.0507009873554804934193349852946)


@_activation
def celu(net: Net, x: Var, alpha: float = 1.0) -> Var:
    """max(x, 0) + min(alpha * (exp(x / alpha) - 1), 0)."""
    if alpha == 0:
        raise InputError("celu: alpha=0; any other number is accepted")
    return net.node("Celu", x, alpha=float(alpha))


@_activation
def gelu(net: Net, x: Var, approximate: str = "none") -> Var:
    """x times the normal distribution's cumulative function of x; ``approximate='tanh'`` by the tanh formula."""
    if approximate not in ("none", "tanh"):
        raise InputError(f"gelu: approximate={approximate!r}; accepted are 'none' and 'tanh'")
    return net.node("Gelu", x, approximate=approximate)


@_activation
def sigmoid(net: Net, x: Var) -> Var:
    """1 / (1 + exp(-x))."""
    return net.node("Sigmoid", x)


@_activation
def silu(net: Net, x: Var) -> Var:
    """x * sigmoid(x), also called swish."""
    return net.node("Mul", x, net.node("Sigmoid", x))


@_activation
def mish(net: Net, x: Var) -> Var:
    """x * tanh(softplus(x))."""
    return net.node("Mish", x)


@_activation
def hardsigmoid(net: Net, x: Var) -> Var:
    """min(max(x / 6 + 1 / 2, 0), 1)."""
    return net.node("HardSigmoid", x, alpha=1 / 6, beta=0.5)


@_activation
def hardswish(net: Net, x: Var) -> Var:
    """x * hardsigmoid(x)."""
    return net.node("HardSwish", x)


@_activation
def tanh(net: Net, x: Var) -> Var:
    """The hyperbolic tangent."""
    return net.node("Tanh", x)


@_activation
def tanhshrink(net: Net, x: Var) -> Var:
    """x - tanh(x)."""
    return net.node("Sub", x, net.node("Tanh", x))


@_activation
def softplus(net: Net, x: Var, beta: float = 1.0) -> Var:
    """log(1 + exp(beta * x)) / beta, without overflow for any x (torch's threshold is not needed)."""
    if not beta > 0:
        raise InputError(f"softplus: beta={beta!r}; a positive number is accepted")
    if beta == 1:
        return net.node("Softplus", x)
    factor = _number(net, x, beta)
    return net.node("Div", net.node("Softplus", net.node("Mul", x, factor)), factor)


@_activation
def logsigmoid(net: Net, x: Var) -> Var:
    """log(sigmoid(x)), without overflow."""
    return net.node("Neg", net.node("Softplus", net.node("Neg", x)))


@_activation
def softsign(net: Net, x: Var) -> Var:
    """x / (1 + abs(x))."""
    return net.node("Softsign", x)


@_activation
def softshrink(net: Net, x: Var, lambd: float = 0.5) -> Var:
    """x - lambd where x > lambd, x + lambd where x < -lambd, else 0."""
    if not lambd >= 0:
        raise InputError(f"softshrink: lambd={lambd!r}; a number that is not negative is accepted")
    return net.node("Sub", x, net.node("Clip", x, _number(net, x, -lambd), _number(net, x, lambd)))


@_activation
def hardshrink(net: Net, x: Var, lambd: float = 0.5) -> Var:
    """x where abs(x) > lambd, else 0."""
    if not lambd >= 0:
        raise InputError(f"hardshrink: lambd={lambd!r}; a number that is not negative is accepted")
    beyond = net.node("Sub", x, net.node("Clip", x, _number(net, x, -lambd), _number(net, x, lambd)))
    return net.node("Mul", x, net.node("Abs", net.node("Sign", beyond)))  # one native pass


@_activation
def threshold(net: Net, x: Var, threshold: float, value: float) -> Var:
    """x where x > threshold, else value; NaN stays."""
    below = net.node("LessOrEqual", x, _number(net, x, threshold))
    return net.node("Where", below, _number(net, x, value), x)


def prelu(input: Any, weight: Any, *, out: np.ndarray | None = None) -> np.ndarray:
    """x where x >= 0, else weight * x.

    Parameters
    ----------
    input : array [N, C, …]
        float16, float32 or float64.
    weight : array [C] or [1]
        A slope for each channel (axis 1), or one for all.
    out : array, optional
        Takes the result; may be ``input``.
    """
    return call(_prelu, (), input, weight, out=out)


def _prelu(net: Net, x: Var, w: Var) -> Var:
    check_floats("prelu", input=x, weight=w)
    if w.size != 1 and (w.ndim != 1 or x.ndim < 2 or w.size != x.shape[1]):
        channels = x.shape[1] if x.ndim > 1 else 1
        raise InputError(f"prelu: weight has shape {w.shape}; input {x.shape} needs (1,) or ({channels},)")
    slope = net.reshape(w, ()) if w.size == 1 else net.along_channels(x, w)
    return net.node("PRelu", x, slope)


def softmax(input: Any, dim: int = -1, *, out: np.ndarray | None = None) -> np.ndarray:
    """exp(x) / sum of exp(x) along axis ``dim``, shifted by the greatest element: no overflow.

    Parameters
    ----------
    input : array
        Of at least one axis; float16, float32 or float64.
    dim : int
        The axis that sums to 1.
    out : array, optional
        Takes the result; may be ``input``.
    """
    return call(_soft, ("softmax", "Softmax", dim), input, out=out)


def log_softmax(input: Any, dim: int = -1, *, out: np.ndarray | None = None) -> np.ndarray:
    """The logarithm of `softmax`, computed without taking it: x - max - log(sum of exp(x - max)).

    Parameters are those of `softmax`.
    """
    return call(_soft, ("log_softmax", "LogSoftmax", dim), input, out=out)


def _soft(net: Net, where: str, op: str, dim: Any, x: Var) -> Var:
    check_floats(where, input=x)
    return net.node(op, x, axis=axis(where, "dim", dim, x))


def axis(where: str, name: str, value: Any, x: Var) -> int:
    """An axis of ``x``, counted from the front."""
    if isinstance(value, (int, np.integer)) and -x.ndim <= value < x.ndim:
        return int(value) % x.ndim
    raise InputError(f"{where}: {name}={value!r} is no axis of input {x.shape}")
