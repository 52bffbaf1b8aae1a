"""Convolution and correlation on a CUDA device: the last one or two axes, everything before them batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sigconv.errors import InputError
from sigconv.kernels.border import BOUNDARIES
from sigconv.kernels.cuda import planes, rows
from sigconv.kernels.cuda.limits import MAX_GRID, check
from sigconv.runtime import device
from sigconv.runtime.kinds import is_device_array
from sigconv.signal import device_fft
from sigconv.signal import problem as problems

_OTHERS = MAX_GRID[1]
METHODS = ("auto", "direct", *device_fft.METHODS)


@dataclass(frozen=True)
class Task:
    """A convolution or correlation of the last axes, as a correlation: y[o] = sum_t x[start + o - (K - 1) + t] w[t].

    Attributes
    ----------
    x, w : device array
        Of one rank; off the last axes ``w`` has their sizes, or 1.
    x_flip, w_flip : bool
        Whether it is read backwards.
    start, count : tuple of int
        The first output in the full result, and how many there are, on each convolved axis.
    boundary, fill
        What lies beyond the ends of ``x``.
    """

    x: Any
    w: Any
    x_flip: bool
    w_flip: bool
    start: tuple[int, ...]
    count: tuple[int, ...]
    boundary: str
    fill: Any

    @property
    def last(self) -> int:
        """How many axes are convolved."""
        return len(self.count)

    @property
    def lead(self) -> tuple[int, ...]:
        """Sizes of the axes before them."""
        return tuple(self.x.shape[: -self.last])

    @property
    def kernel(self) -> tuple[int, ...]:
        """Taps on each convolved axis."""
        return tuple(self.w.shape[-self.last :])


def solve(
    in1: Any,
    in2: Any,
    mode: str,
    method: str = "auto",
    *,
    convolves: bool,
    axes: Any = None,
    boundary: str = "fill",
    fillvalue: Any = 0,
    late_centre: bool = False,
) -> Any:
    """The result as an array of ``in1``'s kind, on the stream that ``in1`` names.

    Two NumPy arrays are copied to the device, and the result back. float32 and float64; both inputs alike.

    ``method``: 'direct' sums; 'fft' and 'oa' transform by CuPy's cuFFT; 'auto' transforms where CuPy is installed and
    that is predicted to be faster. Transforms would carry NaN and infinity everywhere: before them the host waits for
    the answer whether there are any, and if so the sums are direct.

    Raises
    ------
    InputError
        Types, shapes or axes that the device has no kernel for, or a transform without CuPy. DeviceError if there is no
        device.
    """
    if method not in METHODS:
        raise InputError(f"method={method!r}: on a CUDA device {', '.join(map(repr, METHODS))} are accepted")
    device.require()
    problems.check_mode(mode)
    if boundary not in problems.BOUNDARIES:
        raise ValueError(f"acceptable boundary flags are {', '.join(map(repr, BOUNDARIES))}, got {boundary!r}")
    there = [is_device_array(a) for a in (in1, in2)]
    if any(there) and not all(there):
        raise InputError("in1 and in2 lie in different places, one on the device; nothing is copied silently")
    with device.explained("this convolution"):
        stream = device.stream_of(in1) if all(there) else device.new_stream()
        x, w = (_operand(a, name, stream) for a, name in ((in1, "in1"), (in2, "in2")))
        task = _task(x, w, mode, convolves, axes, problems.BOUNDARIES[boundary], fillvalue, late_centre)
        y = device_fft.solve(task, method, stream)
        if y is None:
            y = _direct(task, stream)
        if all(there):
            return device.like(in1, y)
        result = y.copy_to_host(stream=stream)
        stream.synchronize()
        return result


def _operand(value: Any, name: str, stream: Any) -> Any:
    """A contiguous float array on the device."""
    array = device.adopt(value, stream) if is_device_array(value) else np.ascontiguousarray(value)
    if array.dtype not in (np.float32, np.float64):
        raise InputError(f"{name} is {array.dtype}; the device takes float32 and float64")
    if isinstance(array, np.ndarray):
        return device.upload(array, stream).reshape(array.shape)
    if not array.is_c_contiguous():
        raise InputError(f"{name} is not contiguous on the device: make a contiguous copy of it")
    return array


def _convolved(shapes: Sequence[tuple[int, ...]], axes: Any) -> int:
    """How many of the last axes are convolved: 1 or 2."""
    rank = len(shapes[0])
    positions = problems.axis_numbers(axes, rank)
    last = len(positions)
    if positions != tuple(range(rank - last, rank)) or not 1 <= last <= 2:
        raise InputError(f"axes {positions} of {rank}: on the device the last one or two axes are convolved")
    return last


def _task(
    in1: Any, in2: Any, mode: str, convolves: bool, axes: Any, boundary: str, fillvalue: Any, late_centre: bool
) -> Task:  # fmt: skip
    """The inputs, checked, as a task."""
    shapes = tuple(in1.shape), tuple(in2.shape)
    if len(shapes[0]) != len(shapes[1]):
        raise ValueError(f"in1 and in2 should have the same dimensionality, got shapes {shapes[0]} and {shapes[1]}")
    if in1.dtype != in2.dtype:
        raise InputError(f"in1 is {in1.dtype}, in2 is {in2.dtype}; on the device both must have one dtype")
    last = _convolved(shapes, axes)
    if 0 in shapes[0] or 0 in shapes[1]:
        raise InputError(f"in1 of shape {shapes[0]} or in2 of shape {shapes[1]} is empty")
    lead = tuple(s[:-last] for s in shapes)
    swaps = mode == "valid" and problems.valid_swaps(*shapes, range(len(shapes[0]) - last, len(shapes[0])), True)
    if lead[0] != lead[1] and (math.prod(lead[1]) > 1 or swaps):
        raise InputError(f"batches of shape {lead[0]} and {lead[1]}: in2 has one kernel, or one for each batch")
    # The kernel is read reversed for a convolution. Where 'valid' exchanges the inputs, the signal is in2 (reversed for
    # a correlation) and the kernel is in1, reversed.
    x, w, x_flip, w_flip = (in2, in1, not convolves, True) if swaps else (in1, in2, False, convolves)
    ranges = [
        problems.region(n, k, mode, (k if late_centre else k - 1) // 2)
        for n, k in zip(shapes[0][-last:], shapes[1][-last:], strict=True)
    ]
    fill = problems.fill_scalar(fillvalue, np.dtype(in1.dtype)) if boundary == "fill" else 0
    start, count = zip(*ranges, strict=True)
    return Task(x, w, x_flip, w_flip, start, count, boundary, fill)


def _direct(task: Task, stream: Any) -> Any:
    """Queue the kernel that sums."""
    x, w, count, kernel = task.x, task.w, task.count, task.kernel
    sizes = tuple(x.shape[-task.last :])
    origin = tuple(start - (k - 1) for start, k in zip(task.start, kernel, strict=True))
    batches = math.prod(task.lead)
    step = math.prod(kernel) if math.prod(w.shape) > math.prod(kernel) else 0
    y = device.empty((*task.lead, *count), x.dtype)
    common: dict[str, Any] = dict(
        boundary=BOUNDARIES[task.boundary], x_flip=task.x_flip, w_flip=task.w_flip, fill=task.fill
    )  # fmt: skip
    arrays = [a.reshape(-1) for a in (x, w, y)]
    if task.last == 1:
        compiled = rows.ROWS[np.dtype(x.dtype).name]
        grid = (-(-count[0] // rows.TILE), min(batches, _OTHERS), 1)
        params = compiled.params(
            rows=batches, n=sizes[0], count=count[0], taps=kernel[0], origin=origin[0], w_row=step, **common
        )
    else:
        compiled = planes.PLANES[np.dtype(x.dtype).name]
        grid = (-(-count[1] // planes.TILE_W), -(-count[0] // planes.TILE_H), min(batches, _OTHERS))
        params = compiled.params(
            planes=batches, n_h=sizes[0], n_w=sizes[1], count_h=count[0], count_w=count[1], taps_h=kernel[0],
            taps_w=kernel[1], origin_h=origin[0], origin_w=origin[1], w_plane=step, **common,
        )  # fmt: skip
    if any(math.prod(a.shape) >= 2**31 for a in arrays):
        raise InputError("an array of 2^31 elements or more: convolve parts of it")
    check(compiled.name, grid, compiled.threads)
    compiled.launch(grid, params, arrays, stream)
    return y
