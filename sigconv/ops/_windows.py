"""Sliding windows for the references of convolution and pooling, on top of `sigconv.geometry`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sigconv.errors import InputError, ModelError
from sigconv.geometry import Window, WindowAxis

Where = tuple[Any, ...]
"""An index into an array of any rank."""

WINDOW = ("strides", "pads", "dilations", "auto_pad", "ceil_mode")
TRANSPOSED = ("strides", "pads", "dilations", "auto_pad", "output_padding", "output_shape")


def geometry(attrs: Mapping[str, Any], names: Sequence[str] = WINDOW) -> dict[str, Any]:
    """The attributes that describe windows, as keyword arguments of `Window.of` and its kind."""
    return {name: attrs[name] for name in names if name in attrs}


@contextlib.contextmanager
def as_model_error() -> Iterator[None]:
    """What is a wrong argument to geometry is a malformed node here."""
    try:
        yield
    except InputError as e:
        raise ModelError(str(e)) from None


def _slice(axis: WindowAxis, tap: int) -> slice:
    """Where tap ``tap`` of all windows lies in an axis that has its halo."""
    start = axis.halo[0] + axis.start(0) + tap * axis.dilation
    return slice(start, start + max(0, (axis.output - 1) * axis.stride + 1), axis.stride) if axis.output else slice(0)


def _read_by(window: Window, tap: Sequence[int]) -> Where:
    """The index of what ``tap`` of all windows reads in an array whose last axes have their halos."""
    return (..., *(_slice(a, k) for a, k in zip(window.axes, tap, strict=True)))


def taps(x: np.ndarray, window: Window, fill: Any) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """Each tap with what it reads: (tap index, view of shape [..., *window.output]); ``fill`` where it reads padding.

    The windows slide over the last axes of ``x``.
    """
    halos = [(0, 0)] * (x.ndim - len(window.axes)) + [a.halo for a in window.axes]
    wide = np.pad(x, halos, constant_values=fill)
    for tap in np.ndindex(*window.kernel):
        yield tap, wide[_read_by(window, tap)]


def positions(window: Window, tap: Sequence[int]) -> tuple[list[np.ndarray], np.ndarray]:
    """Where ``tap`` of each window reads: an open mesh of input indices, and whether each is inside the input."""
    index = np.ix_(
        *(np.arange(a.output) * a.stride - a.before + k * a.dilation for a, k in zip(window.axes, tap, strict=True))
    )
    inside = np.ones(window.output, bool)
    for i, axis in zip(index, window.axes, strict=True):
        inside &= (i >= 0) & (i < axis.size)
    return list(index), inside


def correlate(x: np.ndarray, w: np.ndarray, window: Window, group: int = 1) -> np.ndarray:
    """Cross-correlation in float64: x [N, C, *sizes], w [M, C / group, *kernel] -> [N, M, *window.output].

    Exact for integers of up to 16 bits. One matrix product a tap.
    """
    x, w = x.astype(np.float64), w.astype(np.float64)
    n, c, m = x.shape[0], x.shape[1], w.shape[0]
    weights = w.reshape(group, m // group, c // group, *window.kernel)
    y = np.zeros((n, group, m // group, int(np.prod(window.output))))
    for tap, view in taps(x, window, 0.0):
        at: Where = (..., *tap)
        y += weights[at] @ view.reshape(n, group, c // group, y.shape[-1])
    return y.reshape(n, m, *window.output)


def scatter(x: np.ndarray, w: np.ndarray, adjoint: Window, group: int = 1) -> np.ndarray:
    """The adjoint of `correlate`: x [N, C, *adjoint.output], w [C, M / group, *kernel] -> [N, M, *adjoint.sizes]."""
    x, w = x.astype(np.float64), w.astype(np.float64)
    n, c, m = x.shape[0], x.shape[1], w.shape[1] * group
    weights = w.reshape(group, c // group, m // group, *adjoint.kernel)
    columns = x.reshape(n, group, c // group, int(np.prod(adjoint.output)))
    wide = np.zeros((n, m, *(a.size + sum(a.halo) for a in adjoint.axes)))
    for tap in np.ndindex(*adjoint.kernel):
        at: Where = (..., *tap)
        product = np.swapaxes(weights[at], -1, -2) @ columns
        wide[_read_by(adjoint, tap)] += product.reshape(n, m, *adjoint.output)
    inside: Where = (..., *(slice(a.halo[0], a.halo[0] + a.size) for a in adjoint.axes))
    return wide[inside]
