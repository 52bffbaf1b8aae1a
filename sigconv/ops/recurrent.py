"""Recurrent layers: LSTM, GRU and RNN, in all their forms.

All input projections of a sequence are one matrix product; what is left for each step is the product by the recurrence
weights and the gates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from sigconv.errors import ModelError
from sigconv.ops._infer import FLOAT, Attrs, Facts, check_rank, common_dtype, fact, merge_dim, present
from sigconv.ops._known import check_choice
from sigconv.ops._numeric import widened
from sigconv.ops.activation import softplus
from sigconv.ops.spec import Dim, Fact, Infer, register

Array = np.ndarray
Function = Callable[[Array], Array]
Ints = Sequence[int] | None
Floats = Sequence[float] | None
Words = Sequence[str] | None

FEW_STEPS = 8
"""Steps below which transposing the recurrence weights costs more than it saves."""

DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
"""Whether each direction runs backwards."""


class _Activation(NamedTuple):
    """``function(x, alpha, beta)``; a default of None: the parameter is not taken from the attribute's list."""

    function: Callable[[Array, Any, Any], Array]
    alpha: float | None = None
    beta: float | None = None


ACTIVATIONS = {
    "affine": _Activation(lambda x, a, b: a * x + b, 1.0, 0.0),
    "relu": _Activation(lambda x, a, b: np.maximum(x, 0)),
    "leakyrelu": _Activation(lambda x, a, b: np.where(x >= 0, x, a * x), 0.01),
    "thresholdedrelu": _Activation(lambda x, a, b: np.where(x > a, x, x.dtype.type(0)), 1.0),
    "tanh": _Activation(lambda x, a, b: np.tanh(x)),
    "scaledtanh": _Activation(lambda x, a, b: a * np.tanh(b * x), 1.0, 1.0),
    "sigmoid": _Activation(lambda x, a, b: np.tanh(x * x.dtype.type(0.5)) * x.dtype.type(0.5) + x.dtype.type(0.5)),
    "hardsigmoid": _Activation(lambda x, a, b: np.clip(a * x + b, 0, 1), 0.2, 0.5),
    "elu": _Activation(lambda x, a, b: np.where(x >= 0, x, a * np.expm1(x)), 1.0),
    "softsign": _Activation(lambda x, a, b: x / (1 + np.abs(x))),
    "softplus": _Activation(lambda x, a, b: softplus(x)),
}
"""By ONNX's name in lower case, as onnxruntime compares them; the defaults are those of ONNX's own operators.

The sigmoid of a gate need not be exact near 0, and costs half as much by way of tanh.
"""


def activation_list(
    names: Words, alpha: Floats, beta: Floats, default: Sequence[str], directions: int, dtype: Any = np.float32
) -> list[list[Function]]:
    """For each direction the functions of its gates.

    ``alpha`` and ``beta`` are used up in order by those functions that have such a parameter.
    """
    needed = len(default) * directions
    words = list(default) * directions if names is None else list(names)
    if len(words) not in (needed, 2 * len(default)):  # RNN's own default lists both directions, for one direction too
        raise ModelError(f"activations are {words}; {needed} are needed")
    left = [list(alpha or ()), list(beta or ())]
    functions: list[Function] = []
    for word in words[:needed]:
        check_choice(word.lower(), tuple(ACTIVATIONS), "an activation")
        function, *usual = ACTIVATIONS[word.lower()]
        a, b = (
            None if value is None else np.dtype(dtype).type(rest.pop(0) if rest else value)
            for value, rest in zip(usual, left, strict=True)
        )
        functions.append(lambda x, f=function, a=a, b=b: f(x, a, b))  # type: ignore[misc]
    return [functions[i : i + len(default)] for i in range(0, len(functions), len(default))]


def _infer_recurrent(gates: int, activations: Sequence[str], states: int) -> Infer:
    """The rule for a layer with so many ``gates`` and ``states`` (initial states are inputs 5, 6)."""

    def infer(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
        dtype = common_dtype(facts, [i for i in range(len(facts)) if i != 4], FLOAT)
        check_choice(attrs["direction"], tuple(DIRECTIONS), "direction")
        check_choice(attrs["layout"], (0, 1), "layout")
        dirs = len(DIRECTIONS[attrs["direction"]])
        activation_list(attrs["activations"], None, None, activations, dirs)
        steps, batch, size = _dims(fact(facts, 0), 3, "X")
        if attrs["layout"]:
            steps, batch = batch, steps
        hidden: Dim = attrs["hidden_size"]
        recurrence = _dims(fact(facts, 2), 3, "R")
        hidden = merge_dim(hidden, recurrence[2], "hidden_size and the last size of R")
        rows = hidden * gates if isinstance(hidden, int) else None
        before = (batch, dirs, hidden) if attrs["layout"] else (dirs, batch, hidden)
        expected: dict[int, tuple[str, tuple[Dim, ...]]] = {
            1: ("W", (dirs, rows, size)),
            2: ("R", (dirs, rows, hidden)),
            3: ("B", (dirs, None if rows is None else 2 * rows)),
            4: ("sequence_lens", (batch,)),
            5: ("initial_h", before),
            6: ("initial_c", before),
            7: ("P", (dirs, hidden * 3 if isinstance(hidden, int) else None)),
        }
        for i, (what, shape) in expected.items():
            if present(facts, i):
                for axis, (have, want) in enumerate(zip(_dims(fact(facts, i), len(shape), what), shape, strict=True)):
                    merge_dim(have, want, f"size {axis} of {what} {fact(facts, i).shape} and what it should be")
        lengths = fact(facts, 4)
        if lengths.dtype is not None and lengths.dtype.name not in ("int32", "int64"):
            raise ModelError(f"sequence_lens has dtype {lengths.dtype.name}; int32 is accepted")
        every = (batch, steps, dirs, hidden) if attrs["layout"] else (steps, dirs, batch, hidden)
        return [Fact(dtype, every), *[Fact(dtype, before)] * states][:n]

    return infer


def _dims(given: Fact, rank: int, what: str) -> tuple[Dim, ...]:
    check_rank(given, (rank,), what=what)
    return (None,) * rank if given.shape is None else given.shape


Step = Callable[[Array, list[Array]], list[Array]]
"""(projected input of one time step (batch, gates * hidden), states) -> new states, the first of which is the output"""


class _Direction(NamedTuple):
    """What one direction of a layer computes with: gate weights transposed, biases of W and R, its functions."""

    recurrence: Array
    input_bias: Array
    recurrence_bias: Array
    functions: list[Function]
    peepholes: list[Array]
    hidden: int


def _run(
    X: Array,
    W: Array,
    R: Array,
    B: Array | None,
    lengths: Array | None,
    initial: Sequence[Array | None],
    P: Array | None,
    functions: Sequence[list[Function]],
    direction: str,
    layout: int,
    step: Callable[[_Direction], tuple[Step, Array]],
) -> tuple[Array, ...]:
    """Y and the last states of a layer whose ``step`` makes, for a direction, its function and the bias added ahead."""
    if layout:
        X = X.swapaxes(0, 1)
        initial = [None if h is None else h.swapaxes(0, 1) for h in initial]
    steps, batch, size = X.shape
    rows, hidden = R.shape[1:]
    if lengths is not None and ((lengths < 0) | (lengths > steps)).any():
        raise ModelError(f"sequence_lens must be from 0 to {steps}, but are {lengths.tolist()}")
    Y = np.zeros((steps, len(R), batch, hidden), X.dtype)
    last = [np.zeros((len(R), batch, hidden), X.dtype) for _ in initial]
    for d, backwards in enumerate(DIRECTIONS[direction]):
        bias = np.zeros(2 * rows, X.dtype) if B is None else B[d]
        peepholes = [] if P is None else [*P[d].reshape(3, hidden)]
        turned = R[d].T if steps < FEW_STEPS else np.ascontiguousarray(R[d].T)
        own = _Direction(turned, bias[:rows], bias[rows:], functions[d], peepholes, hidden)
        advance, ahead = step(own)
        projected = X.reshape(steps * batch, size) @ W[d].T
        projected = (projected + ahead).reshape(steps, batch, rows)
        states = [np.zeros((batch, hidden), X.dtype) if h is None else h[d] for h in initial]
        for t in reversed(range(steps)) if backwards else range(steps):
            new = advance(projected[t], states)
            if lengths is not None:
                running = (t < lengths)[:, None]
                Y[t, d] = np.where(running, new[0], 0)
                states = [np.where(running, a, b) for a, b in zip(new, states, strict=True)]
            else:
                Y[t, d] = new[0]
                states = new
        for k, state in enumerate(states):
            last[k][d] = state
    if layout:
        return Y.transpose(2, 0, 1, 3), *(s.swapaxes(0, 1) for s in last)
    return Y, *last


def _bounded(clip: float | None) -> Function:
    """Clipping to [-clip, clip], as onnxruntime does it before every gate's function."""
    return (lambda x: x) if clip is None else (lambda x: np.clip(x, -clip, clip))


@register("RNN", infer=_infer_recurrent(1, ("Tanh",), 1), since=22)
@widened
def RNN(
    X: Array,
    W: Array,
    R: Array,
    B: Array | None = None,
    sequence_lens: Array | None = None,
    initial_h: Array | None = None,
    *,
    activation_alpha: Floats = None,
    activation_beta: Floats = None,
    activations: Words = ("Tanh", "Tanh"),
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
) -> tuple[Array, ...]:
    """h' = f(x W^T + h R^T + b), over time."""
    functions = activation_list(
        activations, activation_alpha, activation_beta, ("Tanh",), len(DIRECTIONS[direction]), X.dtype
    )
    bounded = _bounded(clip)

    def make(d: _Direction) -> tuple[Step, Array]:
        (f,) = d.functions
        return lambda x, states: [f(bounded(x + states[0] @ d.recurrence))], d.input_bias + d.recurrence_bias

    return _run(X, W, R, B, sequence_lens, [initial_h], None, functions, direction, layout, make)


@register("GRU", infer=_infer_recurrent(3, ("Sigmoid", "Tanh"), 1), since=22)
@widened
def GRU(
    X: Array,
    W: Array,
    R: Array,
    B: Array | None = None,
    sequence_lens: Array | None = None,
    initial_h: Array | None = None,
    *,
    activation_alpha: Floats = None,
    activation_beta: Floats = None,
    activations: Words = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    linear_before_reset: int = 0,
) -> tuple[Array, ...]:
    """z, r = f(x W^T + h R^T + b); n = g(x W^T + (r h) R^T + b); h' = (1 - z) n + z h, over time.

    ``linear_before_reset``: n = g(x W^T + w + r (h R^T + b)), as cuDNN and PyTorch have it.
    """
    functions = activation_list(
        activations, activation_alpha, activation_beta, ("Sigmoid", "Tanh"), len(DIRECTIONS[direction]), X.dtype
    )
    bounded = _bounded(clip)

    def make(d: _Direction) -> tuple[Step, Array]:
        f, g = d.functions
        n = d.hidden
        both, new = d.recurrence[:, : 2 * n], d.recurrence[:, 2 * n :]
        hidden_bias = d.recurrence_bias[2 * n :]

        def after(x: Array, states: list[Array]) -> list[Array]:
            (h,) = states
            gates = f(bounded(x[:, : 2 * n] + h @ both))
            z, r = gates[:, :n], gates[:, n:]
            candidate = g(bounded(x[:, 2 * n :] + (r * h) @ new))
            return [(1 - z) * candidate + z * h]

        def before(x: Array, states: list[Array]) -> list[Array]:
            (h,) = states
            moved = h @ d.recurrence
            gates = f(bounded(x[:, : 2 * n] + moved[:, : 2 * n]))
            z, r = gates[:, :n], gates[:, n:]
            candidate = g(bounded(x[:, 2 * n :] + r * (moved[:, 2 * n :] + hidden_bias)))
            return [(1 - z) * candidate + z * h]

        ahead = d.input_bias + d.recurrence_bias
        if linear_before_reset:
            ahead[2 * n :] = d.input_bias[2 * n :]
        return before if linear_before_reset else after, ahead

    return _run(X, W, R, B, sequence_lens, [initial_h], None, functions, direction, layout, make)


@register("LSTM", infer=_infer_recurrent(4, ("Sigmoid", "Tanh", "Tanh"), 2), since=22)
@widened
def LSTM(
    X: Array,
    W: Array,
    R: Array,
    B: Array | None = None,
    sequence_lens: Array | None = None,
    initial_h: Array | None = None,
    initial_c: Array | None = None,
    P: Array | None = None,
    *,
    activation_alpha: Floats = None,
    activation_beta: Floats = None,
    activations: Words = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
    layout: int = 0,
) -> tuple[Array, ...]:
    """i, o, f = f(x W^T + h R^T + b + p c); c' = f c + i g(…); h' = o h(c'), over time.

    Gates lie in the order i, o, f, c; the output gate's peephole looks at the new c. ``input_forget``: f = 1 - i.
    """
    functions = activation_list(
        activations, activation_alpha, activation_beta, ("Sigmoid", "Tanh", "Tanh"), len(DIRECTIONS[direction]), X.dtype
    )
    bounded = _bounded(clip)

    def make(d: _Direction) -> tuple[Step, Array]:
        f, g, h_of = d.functions
        n = d.hidden

        def plain(x: Array, states: list[Array]) -> list[Array]:
            h, c = states
            gates = bounded(x + h @ d.recurrence)
            squashed = f(gates[:, : 3 * n])
            i, o, keep = squashed[:, :n], squashed[:, n : 2 * n], squashed[:, 2 * n :]
            c = (1 - i if input_forget else keep) * c + i * g(gates[:, 3 * n :])
            return [o * h_of(c), c]

        def peeping(x: Array, states: list[Array]) -> list[Array]:
            h, c = states
            gates = x + h @ d.recurrence
            see_i, see_o, see_f = d.peepholes
            i = f(bounded(gates[:, :n] + see_i * c))
            keep = 1 - i if input_forget else f(bounded(gates[:, 2 * n : 3 * n] + see_f * c))
            c = keep * c + i * g(bounded(gates[:, 3 * n :]))
            o = f(bounded(gates[:, n : 2 * n] + see_o * c))
            return [o * h_of(c), c]

        return peeping if d.peepholes else plain, d.input_bias + d.recurrence_bias

    return _run(X, W, R, B, sequence_lens, [initial_h, initial_c], P, functions, direction, layout, make)
