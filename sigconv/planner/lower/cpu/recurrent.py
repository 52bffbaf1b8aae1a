"""LSTM, GRU and RNN in their usual forms: known weights, default functions, whole sequences."""

from __future__ import annotations

import numpy as np

from sigconv.kernels.cpu import recurrent as kernels
from sigconv.ops.recurrent import DIRECTIONS
from sigconv.planner.build import Builder
from sigconv.planner.candidates import Candidate, Cost, attach
from sigconv.planner.fuse import Unit
from sigconv.planner.tensors import Address

SPEED = 2e10
"""Operations per second that predictions assume."""

MOST_SEQUENCES, SMALL = 4, 64
"""The kernel reads all weights for every sequence, which costs nothing while they lie in the first cache."""


FUNCTIONS = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh"), "RNN": ("tanh",)}
"""ONNX's defaults."""


def _legal(unit: Unit, b: Builder) -> str | None:
    node = unit.node
    names = [n for n in (*unit.inputs, *unit.outputs) if n]  # the first output may be left out, unlike elsewhere
    if not all(b.is_static(n) for n in names) or any(0 in b.shape(n) for n in names):
        return "sizes depend on data, or are 0"
    if b.shape(node.inputs[0])[1] > MOST_SEQUENCES and b.shape(node.inputs[2])[2] > SMALL:
        return f"more than {MOST_SEQUENCES} sequences through more than {SMALL} units: matrix products are faster"
    if b.dtype(node.inputs[0]) != np.float32:
        return f"dtype {b.dtype(node.inputs[0])}"
    given = [*node.inputs, *[""] * 8][:8]
    if any(n and not b.is_constant(n) for n in given[1:4]):
        return "weights are not constant"
    if given[4]:
        return "lengths of sequences"
    if given[7] and not b.is_constant(given[7]):
        return "peepholes are not constant"
    attrs = node.attrs
    if any(attrs.get(k) for k in ("layout", "input_forget")) or attrs.get("clip") is not None:
        return "clipping, layout 1 or input_forget"
    return None if _kind(unit) is not None else "other functions"


def _kind(unit: Unit) -> int | None:
    """The kernel's kind of layer; None where its functions are others."""
    attrs, op = unit.node.attrs, unit.node.op
    usual = FUNCTIONS[op]
    directions = len(DIRECTIONS[str(attrs.get("direction", "forward"))])
    given = [str(word).lower() for word in attrs.get("activations") or ()][: directions * len(usual)]
    if given and given != [*usual] * directions:
        return kernels.RNN_RELU if op == "RNN" and set(given) == {"relu"} else None
    if op == "GRU":
        return kernels.GRU if attrs.get("linear_before_reset", 0) else kernels.GRU_AFTER
    return kernels.LSTM if op == "LSTM" else kernels.RNN


def _cost(unit: Unit, b: Builder) -> Cost:
    steps, batch, _ = b.shape(unit.node.inputs[0])
    flops = 2.0 * steps * batch * sum(b.constant(n).size for n in unit.node.inputs[1:3])
    nbytes = float(sum(b.nbytes(n) for n in unit.inputs))
    return Cost(flops, nbytes, flops / SPEED + 1e-6)


def _gates(unit: Unit, b: Builder, d: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Blocks of weights and the bias as the kernel reads them."""
    W, R = (b.constant(n)[d] for n in unit.node.inputs[1:3])
    rows, hidden = R.shape
    name = [*unit.node.inputs, ""][3]
    both = b.constant(name)[d] if name else np.zeros(2 * rows, np.float32)
    own, recurrent = both[:rows], both[rows:]
    two = 2 * hidden
    if _kind(unit) == kernels.GRU:
        wide = np.concatenate([W.T, np.zeros((W.shape[1], hidden), np.float32)], 1)
        apart = np.concatenate([R.T[:, :two], np.zeros((hidden, hidden), np.float32), R.T[:, two:]], 1)
        return [wide, apart], np.concatenate([own[:two] + recurrent[:two], own[two:], recurrent[two:]])
    if _kind(unit) == kernels.GRU_AFTER:
        return [W.T, R.T[:, :two], R.T[:, two:]], own + recurrent
    return [W.T, R.T], own + recurrent


def _lower(unit: Unit, b: Builder) -> None:
    node = unit.node
    x = b.plain(node.inputs[0])
    steps, batch, size = x.shape
    dirs, _, hidden = b.shape(node.inputs[2])
    outputs = [*node.outputs, "", ""][:3]
    inputs = [*node.inputs, *[""] * 8]
    item, rows = 4, batch * hidden

    def place(name: str, elements: int) -> Address:
        return b.new(name, 1, (0, 0)).address if name else Address(b.new_buffer(item * elements))

    y = place(outputs[0], steps * dirs * rows)
    states = [place(name, dirs * rows) for name in outputs[1:]]
    f32 = np.dtype(np.float32)
    for state, first in zip(states, inputs[5:7], strict=True):
        if first and (node.op == "LSTM" or state is states[0]):
            b.copy(b.plain(first).address, (1,), state, (1,), (dirs * rows,), f32)
        else:
            b.fill(state, f32, (dirs * rows,), (1,))
    for d, backwards in enumerate(DIRECTIONS[str(node.attrs.get("direction", "forward"))]):
        blocks, bias = _gates(unit, b, d)
        weights = np.concatenate([block.reshape(-1) for block in blocks])
        peepholes = np.ascontiguousarray(b.constant(inputs[7])[d], np.float32) if inputs[7] else 0
        h, c = (Address(s.buffer, s.offset + item * d * rows) for s in states)
        b.emit(
            kernels.recurrent_f32, width=min(b.threads, batch), x=x.address, weights=weights,
            bias=np.ascontiguousarray(bias, np.float32), peepholes=peepholes,
            y=Address(y.buffer, y.offset + item * d * rows), h=h, c=c, **b.own_scratch(item * 4 * hidden),
            steps=steps, batch=batch, size=size, hidden=hidden, backwards=backwards, kind=_kind(unit),
            columns=blocks[0].shape[1], own_columns=blocks[1].shape[1],
            x_step=batch * size, x_row=size, y_step=dirs * rows, y_row=hidden,
        )  # fmt: skip


attach(Candidate("over_time", ("LSTM", "GRU", "RNN"), _legal, _cost, _lower))
