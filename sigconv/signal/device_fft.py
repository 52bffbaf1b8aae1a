"""Convolution by transforms on a CUDA device: overlap-save with CuPy's cuFFT, where CuPy is installed.

The signal is cut into blocks that overlap by K - 1 on each axis, each is transformed, multiplied and transformed back,
and the outputs that the period of the transform has not touched are kept. 'fft' is the same with a single block.
Source: Oppenheim & Schafer, Discrete-Time Signal Processing, 3rd ed., section 8.7.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from sigconv.errors import InputError
from sigconv.kernels.cuda.roofline import BANDWIDTH, LAUNCH, PEAK
from sigconv.runtime import device
from sigconv.signal.fft import good_size
from sigconv.signal.problem import extension

if TYPE_CHECKING:
    from sigconv.signal.device import Task

METHODS = ("fft", "oa")

SMALLEST = 256
"""Elements of a block along an axis at least."""
PASSES, LAUNCHES = 14, 12
"""How often a transformed value is read or written, and kernels that are launched, as predictions assume."""


def solve(task: Task, method: str, stream: Any) -> Any:
    """The result, queued on ``stream``; None where the sums are to be direct."""
    if method == "direct":
        return None
    cupy = device.cupy()
    if cupy is None:
        if method in METHODS:
            raise InputError(
                f"method={method!r} on a CUDA device needs CuPy: pip install cupy-cuda13x (or cupy-cuda12x); "
                "method='direct' needs nothing"
            )
        return None
    plans = {name: _blocks(task, name) for name in METHODS}
    if method == "auto":
        method = min(plans, key=lambda name: _seconds(task, plans[name]))
        if _direct_seconds(task) <= _seconds(task, plans[method]):
            return None
    with device.on_stream(cupy, stream):
        x, w = cupy.asarray(task.x), cupy.asarray(task.w)
        if not bool(cupy.isfinite(x).all() & cupy.isfinite(w).all()):
            return None
        y = device.empty((*task.lead, *task.count), task.x.dtype)
        cupy.asarray(y)[...] = _convolved(cupy, task, x, w, plans[method])
    return y


def _blocks(task: Task, method: str) -> list[tuple[int, int]]:
    """(length of a transform, how many there are) on each axis."""
    plan = []
    for count, k in zip(task.count, task.kernel, strict=True):
        whole = good_size(count + k - 1)
        size = min(whole, good_size(max(4 * k, SMALLEST))) if method == "oa" else whole
        plan.append((size, -(-count // (size - k + 1))))
    return plan


def _convolved(cupy: Any, task: Task, x: Any, w: Any, plan: list[tuple[int, int]]) -> Any:
    """The result as CuPy's array."""
    last, lead = task.last, task.lead
    axes = tuple(range(-last, 0))
    x = cupy.flip(x, axes) if task.x_flip else x
    w = w if task.w_flip else cupy.flip(w, axes)  # a transform's product convolves
    for axis, ((size, blocks), k) in enumerate(zip(plan, task.kernel, strict=True)):
        step, at = size - k + 1, len(lead) + 2 * axis  # every axis before this one has become two
        first = task.start[axis] - (k - 1)
        source = extension(first, first + (blocks - 1) * step + size, x.shape[at], task.boundary)
        table = cupy.asarray(source[np.arange(blocks)[:, None] * step + np.arange(size)])
        x = x.take(table, at)
        if task.boundary == "fill":
            beyond = (table < 0).reshape(table.shape + (1,) * (x.ndim - at - 2))
            x = cupy.where(beyond, x.dtype.type(task.fill), x)
    sizes = [size for size, _ in plan]
    each = tuple(range(-2 * last + 1, 0, 2))
    spectrum = cupy.fft.rfftn(w, s=sizes, axes=axes)
    between = [n for size in spectrum.shape[-last:] for n in (1, size)]
    y = cupy.fft.rfftn(x, axes=each) * spectrum.reshape(*spectrum.shape[:-last], *between)
    y = cupy.fft.irfftn(y, s=sizes, axes=each)
    untouched = tuple(part for k in task.kernel for part in (slice(None), slice(k - 1, None)))
    batches = (slice(None),) * len(lead)
    steps = [blocks * (size - k + 1) for (size, blocks), k in zip(plan, task.kernel, strict=True)]
    return y[batches + untouched].reshape(*lead, *steps)[batches + tuple(map(slice, task.count))]


# --- prediction ------------------------------------------------------------------------------------------------------
def _double(task: Task) -> int:
    """How much longer double precision takes."""
    return int(task.x.dtype.itemsize) // 4


def _seconds(task: Task, plan: list[tuple[int, int]]) -> float:
    """By transforms: all launches, then what they read and write."""
    values = math.prod(size * blocks for size, blocks in plan) * math.prod(task.lead)
    return LAUNCHES * LAUNCH + PASSES * 4 * _double(task) * values / BANDWIDTH


def _direct_seconds(task: Task) -> float:
    """By sums, at half the peak."""
    sums = math.prod(task.count) * math.prod(task.lead) * math.prod(task.kernel)
    return LAUNCH + 2 * sums * _double(task) / (0.5 * PEAK)
