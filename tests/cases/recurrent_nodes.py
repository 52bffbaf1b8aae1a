"""LSTM, GRU and RNN nodes for every engine, and the same layers written out with loops. Imports nothing of ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.cases.compute_nodes import F32, Case, normal

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
FUNCTIONS = {"RNN": 1, "GRU": 2, "LSTM": 3}
DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}

EVERY_ACTIVATION = ["Relu", "LeakyRelu", "Tanh", "Sigmoid", "HardSigmoid", "Elu", "Softsign", "Softplus"]
NEED_PARAMETERS = ["Affine", "ThresholdedRelu", "ScaledTanh", "LeakyRelu", "HardSigmoid", "Elu"]
"""onnxruntime takes 0 for what the first three are not given, against ONNX's text."""


def layer(
    op: str,
    *,
    steps: int = 4,
    batch: int = 3,
    size: int = 5,
    hidden: int = 6,
    bias: bool = True,
    lengths: bool = False,
    initial: bool = False,
    peepholes: bool = False,
    dtype: Any = F32,
    scale: float = 0.6,
    **attrs: Any,
) -> Case:
    """A node with random weights and the optional inputs asked for."""
    dirs = DIRECTIONS[attrs.get("direction", "forward")]
    rows = GATES[op] * hidden
    swap = bool(attrs.get("layout", 0))
    states = (batch, dirs, hidden) if swap else (dirs, batch, hidden)

    def some(*shape: int) -> np.ndarray:
        return normal(*shape, dtype=dtype, scale=scale)

    inputs = [
        some(batch, steps, size) if swap else some(steps, batch, size),
        some(dirs, rows, size),
        some(dirs, rows, hidden),
        some(dirs, 2 * rows) if bias else None,
        np.array([steps - i % steps for i in range(batch)], np.int32) if lengths else None,
        some(*states) if initial else None,
    ]
    if op == "LSTM":
        inputs += [some(*states) if initial else None, some(dirs, 3 * hidden) if peepholes else None]
    while inputs[-1] is None:
        inputs.pop()
    return Case(op, inputs, {"hidden_size": hidden, **attrs}, 3 if op == "LSTM" else 2)


WEIGHTS = (1, 2, 3, 7)
"""Inputs that the native form takes as constants."""

NATIVE = [
    *(layer(op, direction=d, initial=i, bias=not i, **more)
      for op, more in (("GRU", {"linear_before_reset": 1}), ("GRU", {}), ("LSTM", {}), ("RNN", {}),
                       ("LSTM", {"peepholes": True}))
      for d in ("forward", "reverse", "bidirectional") for i in (False, True)),
    layer("LSTM", steps=1, batch=1, size=1, hidden=1),
    layer("GRU", steps=2, batch=1, size=1, hidden=1),
    layer("RNN", steps=2, batch=1, size=3, hidden=1, activations=["Relu"]),
    layer("RNN", direction="bidirectional", activations=["Tanh"] * 2),
    layer("LSTM", direction="bidirectional", activations=["Sigmoid", "Tanh", "Tanh"] * 2),
    layer("GRU", steps=40, batch=4, size=17, hidden=33, scale=0.2),
    layer("LSTM", steps=40, batch=4, size=17, hidden=33, scale=0.2),
    layer("LSTM", scale=9.0),
    layer("GRU", steps=40, batch=1, size=16, hidden=16, linear_before_reset=1, scale=0.2),
]  # fmt: skip


def recurrent_cases() -> Iterator[Case]:
    for op in GATES:
        for direction in DIRECTIONS:
            yield layer(op, direction=direction)
            yield layer(op, direction=direction, bias=False, initial=True)
            yield layer(op, direction=direction, lengths=True, initial=True, clip=0.4)
        yield layer(op, steps=1, batch=1, size=1, hidden=1, initial=True)
        yield layer(op, steps=11, batch=1, size=17, hidden=19)
        yield layer(op, clip=0.1)
        for word in EVERY_ACTIVATION:
            yield layer(op, activations=[word] * FUNCTIONS[op], scale=0.3)
        for word in NEED_PARAMETERS:
            given = {"activation_alpha": [0.6] * FUNCTIONS[op], "activation_beta": [0.7] * FUNCTIONS[op]}
            yield layer(op, activations=[word] * FUNCTIONS[op], scale=0.3, **given)
        alpha, beta = [0.3, 0.4, 0.5][: FUNCTIONS[op]], [0.6, 0.7, 0.8][: FUNCTIONS[op]]
        words = ["HardSigmoid", "ScaledTanh", "Affine"][: FUNCTIONS[op]]
        yield layer(op, activations=words, activation_alpha=alpha, activation_beta=beta)
        yield layer(
            op, activations=words * 2, direction="bidirectional", activation_alpha=alpha * 2, activation_beta=beta * 2
        )
    for before in (0, 1):
        yield layer("GRU", linear_before_reset=before, direction="bidirectional", lengths=True, clip=0.7)
        yield layer("GRU", linear_before_reset=before, bias=False)
    yield layer("LSTM", peepholes=True, initial=True)
    yield layer("LSTM", peepholes=True, direction="bidirectional", clip=0.3)
    yield layer("LSTM", input_forget=1)
    yield layer("LSTM", input_forget=1, peepholes=True, lengths=True)


def sigmoid(x: float) -> float:
    return 1 / (1 + np.exp(-x))


def naive(case: Case) -> list[np.ndarray]:
    """The default functions, no clipping, one direction at a time, one unit at a time."""
    X, W, R, B, lengths, h0, c0, P = [*case.inputs, *[None] * (8 - len(case.inputs))]
    direction, layout = case.attrs.get("direction", "forward"), case.attrs.get("layout", 0)
    if layout:
        X = X.transpose(1, 0, 2)
        h0, c0 = (None if s is None else s.transpose(1, 0, 2) for s in (h0, c0))
    steps, batch, _ = X.shape
    dirs, _, n = R.shape
    Y = np.zeros((steps, dirs, batch, n))
    H, C = np.zeros((dirs, batch, n)), np.zeros((dirs, batch, n))
    for d in range(dirs):
        for b in range(batch):
            h = np.zeros(n) if h0 is None else h0[d, b].astype(float)
            c = np.zeros(n) if c0 is None else c0[d, b].astype(float)
            count = steps if lengths is None else int(lengths[b])
            backwards = direction == "reverse" or d == 1
            for t in reversed(range(count)) if backwards else range(count):
                h, c = _unit(case, X[t, b], W[d], R[d], None if B is None else B[d], None if P is None else P[d], h, c)
                Y[t, d, b] = h
            H[d, b], C[d, b] = h, c
    if layout:
        Y, H, C = Y.transpose(2, 0, 1, 3), H.transpose(1, 0, 2), C.transpose(1, 0, 2)
    return [Y, H, C][: case.n_outputs]


def _unit(
    case: Case, x: np.ndarray, W: np.ndarray, R: np.ndarray, B: Any, P: Any, h: np.ndarray, c: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    n = len(h)
    wb, rb = (np.zeros(len(W)), np.zeros(len(W))) if B is None else (B[: len(W)], B[len(W) :])
    peep = np.zeros(3 * n) if P is None else P
    new_h, new_c = np.zeros(n), np.zeros(n)

    def total(row: int, state: np.ndarray = h) -> float:
        return float(np.sum(W[row] * x) + wb[row] + np.sum(R[row] * state) + rb[row])

    if case.op == "GRU":
        reset = np.array([sigmoid(total(n + i)) for i in range(n)])
    for i in range(n):
        if case.op == "RNN":
            new_h[i] = np.tanh(total(i))
        elif case.op == "GRU":
            z, row = sigmoid(total(i)), 2 * n + i
            if case.attrs.get("linear_before_reset", 0):
                inner = np.sum(W[row] * x) + wb[row] + reset[i] * (np.sum(R[row] * h) + rb[row])
            else:
                inner = total(row, reset * h)
            new_h[i] = (1 - z) * np.tanh(inner) + z * h[i]
        else:
            gate = sigmoid(total(i) + peep[i] * c[i])
            keep = 1 - gate if case.attrs.get("input_forget", 0) else sigmoid(total(2 * n + i) + peep[2 * n + i] * c[i])
            new_c[i] = keep * c[i] + gate * np.tanh(total(3 * n + i))
            new_h[i] = sigmoid(total(n + i) + peep[n + i] * new_c[i]) * np.tanh(new_c[i])
    return new_h, new_c
