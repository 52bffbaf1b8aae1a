"""LSTM, GRU and RNN over time: one direction, every sequence of the batch on its own."""

from __future__ import annotations

import numpy as np

from sigconv.kernels.address import as_pointer
from sigconv.kernels.cpu.lanes import exp
from sigconv.kernels.jit import inline, kernel
from sigconv.kernels.late import carray
from sigconv.kernels.scratch import SCRATCH, own_scratch

LSTM, GRU, GRU_AFTER, RNN, RNN_RELU = range(5)
"""Kinds of layer. GRU is linear before reset, GRU_AFTER multiplies the reset state."""

ARGS = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("x", "weights", "bias", "peepholes", "y", "h", "c", *SCRATCH),
            *("steps", "batch", "size", "hidden", "backwards", "kind", "columns", "own_columns"),
            *("x_step", "x_row", "y_step", "y_row"),  # in elements
        )
    ]
)
"""weights: ``size`` rows of ``columns``, what x is multiplied by, and ``hidden`` rows of ``own_columns``, what h is.

Gates of ``hidden`` columns each. LSTM: i, o, f, c, and ``peepholes``, 0 or those of i, o, f. GRU: z, r, what x gives to
the new state, what h gives. GRU_AFTER: z, r, what x gives; of h only z and r, and ``hidden`` rows more for the reset h.
h and c hold the states, (batch, hidden), before and after; scratch: 4 * hidden numbers.
"""


@inline
def _add_products(work, v, count, rows, n):
    """work += v[k] * row k, four rows at a time."""
    body = count - count % 4
    for k in range(0, body, 4):
        a, b, c, d = v[k], v[k + 1], v[k + 2], v[k + 3]
        at = k * n
        for r in range(n):
            work[r] += a * rows[at + r] + b * rows[at + n + r] + (c * rows[at + 2 * n + r] + d * rows[at + 3 * n + r])
    for k in range(body, count):
        for r in range(n):
            work[r] += v[k] * rows[k * n + r]


@inline
def _sigmoid(x):
    return np.float32(1) / (np.float32(1) + exp(-x))


@inline
def _tanh(x):
    """Of magnitudes up to 15; it is 1 beyond in float32."""
    bounded = min(max(x, np.float32(-15)), np.float32(15))
    power = exp(bounded + bounded)
    y = (power - np.float32(1)) / (power + np.float32(1))
    return x if x != x else y


@kernel(ARGS)
def recurrent_f32(args, thread, threads):
    """Threads share the sequences of the batch."""
    a = carray(args, 1)[0]
    hidden, size, columns, own_columns = a.hidden, a.size, a.columns, a.own_columns
    one = np.float32(1)
    at = own_scratch(a, thread)
    work, new = as_pointer(at, np.float32), as_pointer(at + 8 * hidden, np.float32)
    reset_h = as_pointer(at + 12 * hidden, np.float32)
    bias, p = as_pointer(a.bias, np.float32), as_pointer(a.peepholes, np.float32)
    first, second = as_pointer(a.weights, np.float32), as_pointer(a.weights + 4 * size * columns, np.float32)
    third = as_pointer(a.weights + 4 * (size * columns + hidden * own_columns), np.float32)
    for b in range(a.batch * thread // threads, a.batch * (thread + 1) // threads):
        h = as_pointer(a.h + 4 * b * hidden, np.float32)
        c = as_pointer(a.c + 4 * b * hidden, np.float32)
        for i in range(a.steps):
            t = a.steps - 1 - i if a.backwards else i
            x = as_pointer(a.x + 4 * (t * a.x_step + b * a.x_row), np.float32)
            y = as_pointer(a.y + 4 * (t * a.y_step + b * a.y_row), np.float32)
            for r in range(columns):
                work[r] = bias[r]
            _add_products(work, x, size, first, columns)
            _add_products(work, h, hidden, second, own_columns)
            if a.kind == GRU:
                for k in range(hidden):
                    z, reset = _sigmoid(work[k]), _sigmoid(work[hidden + k])
                    state = _tanh(work[2 * hidden + k] + reset * work[3 * hidden + k])
                    h[k] = (one - z) * state + z * h[k]
                    y[k] = h[k]
            elif a.kind == GRU_AFTER:
                for k in range(hidden):
                    reset_h[k] = _sigmoid(work[hidden + k]) * h[k]
                _add_products(new, reset_h, hidden, third, hidden)
                for k in range(hidden):
                    z = _sigmoid(work[k])
                    h[k] = (one - z) * _tanh(new[k]) + z * h[k]
                    y[k] = h[k]
            elif a.kind == LSTM:
                if a.peepholes:
                    for k in range(hidden):
                        work[k] += p[k] * c[k]
                        work[2 * hidden + k] += p[2 * hidden + k] * c[k]
                for k in range(hidden):
                    kept = _sigmoid(work[2 * hidden + k]) * c[k]
                    c[k] = kept + _sigmoid(work[k]) * _tanh(work[3 * hidden + k])
                if a.peepholes:
                    for k in range(hidden):
                        work[hidden + k] += p[hidden + k] * c[k]
                for k in range(hidden):
                    h[k] = _sigmoid(work[hidden + k]) * _tanh(c[k])
                    y[k] = h[k]
            else:
                for k in range(hidden):
                    h[k] = _tanh(work[k]) if a.kind == RNN else max(work[k], np.float32(0))
                    y[k] = h[k]
