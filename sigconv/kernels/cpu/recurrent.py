"""LSTM and GRU over time: one direction, every sequence of the batch on its own."""

from __future__ import annotations

import numba
import numpy as np

from sigconv.kernels.address import as_pointer
from sigconv.kernels.cpu.lanes import exp
from sigconv.kernels.jit import inline, kernel

ARGS = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("x", "weights", "bias", "y", "h", "c", "work"),
            *("steps", "batch", "size", "hidden", "backwards", "gru"),
            *("x_step", "x_row", "y_step", "y_row"),  # in elements
        )
    ]
)
"""weights: (size + hidden) rows of four gates of ``hidden`` columns each, what x and what h is multiplied by.

LSTM: gates i, o, f, c. GRU (linear before reset): z, r, what x gives to the new state, what h gives. h and c hold the
states, (batch, hidden), before and after; work: 4 * hidden numbers a thread.
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
    a = numba.carray(args, 1)[0]
    n, hidden, size = 4 * a.hidden, a.hidden, a.size
    work = as_pointer(a.work + 4 * thread * n, np.float32)
    bias = as_pointer(a.bias, np.float32)
    first, second = as_pointer(a.weights, np.float32), as_pointer(a.weights + 4 * size * n, np.float32)
    for b in range(a.batch * thread // threads, a.batch * (thread + 1) // threads):
        h = as_pointer(a.h + 4 * b * hidden, np.float32)
        c = as_pointer(a.c + 4 * b * hidden, np.float32)
        for i in range(a.steps):
            t = a.steps - 1 - i if a.backwards else i
            x = as_pointer(a.x + 4 * (t * a.x_step + b * a.x_row), np.float32)
            y = as_pointer(a.y + 4 * (t * a.y_step + b * a.y_row), np.float32)
            for r in range(n):
                work[r] = bias[r]
            _add_products(work, x, size, first, n)
            _add_products(work, h, hidden, second, n)
            if a.gru:
                for k in range(hidden):
                    z, reset = _sigmoid(work[k]), _sigmoid(work[hidden + k])
                    new = _tanh(work[2 * hidden + k] + reset * work[3 * hidden + k])
                    h[k] = (np.float32(1) - z) * new + z * h[k]
                    y[k] = h[k]
            else:
                for k in range(hidden):
                    kept = _sigmoid(work[2 * hidden + k]) * c[k]
                    c[k] = kept + _sigmoid(work[k]) * _tanh(work[3 * hidden + k])
                    h[k] = _sigmoid(work[hidden + k]) * _tanh(c[k])
                    y[k] = h[k]
