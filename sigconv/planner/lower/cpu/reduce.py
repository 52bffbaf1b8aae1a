"""Pooling, reductions and softmax."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sigconv.geometry import Window
from sigconv.kernels.cpu import pool, reduce, softmax
from sigconv.planner.build import Builder
from sigconv.planner.candidates import Candidate, Cost, attach
from sigconv.planner.fuse import Unit
from sigconv.planner.lower.cpu.direct import known, spatial_strides, three
from sigconv.planner.tensors import Buffer, Tensor, c_strides

GRAIN = 64 * 1024
"""Bytes worth a thread of their own."""
ROWS = 4
"""Rows of a plane for each thread from which on they are even shares."""


def streaming(unit: Unit, b: Builder, work: float = 1.0) -> Cost:
    """A unit that reads and writes everything once, ``work`` operations an element."""
    nbytes = float(sum(b.nbytes(n) for n in (*unit.inputs, *unit.outputs) if n))
    return Cost(work * math.prod(b.shape(unit.inputs[0])), nbytes, nbytes / 8e9 + 1e-7)


def width(b: Builder, nbytes: float) -> int:
    """Threads that ``nbytes`` are worth."""
    return min(b.threads, int(nbytes // GRAIN) + 1)


def single(kernel_f32: Any, kernel_f64: Any, dtype: np.dtype[Any]) -> Any:
    """The kernel of a float type."""
    return kernel_f32 if dtype == np.float32 else kernel_f64


def first_float(unit: Unit, b: Builder) -> str | None:
    """Why the data operand is no float tensor of known size."""
    reason = known(unit, b)
    dtype = b.dtype(unit.node.inputs[0]) if reason is None else None
    return reason or (None if dtype in (np.float32, np.float64) else f"dtype {dtype}")


# --- pools -----------------------------------------------------------------------------------------------------------
def pool_window(unit: Unit, b: Builder) -> Window:
    a = unit.node.attrs
    return Window.of(
        b.shape(unit.node.inputs[0])[2:], a["kernel_shape"], strides=a.get("strides"), pads=a.get("pads"),
        dilations=a.get("dilations"), auto_pad=a.get("auto_pad", "NOTSET"), ceil_mode=bool(a.get("ceil_mode", 0)),
    )  # fmt: skip


def _legal_pool(unit: Unit, b: Builder) -> str | None:
    if len([o for o in unit.outputs if o]) > 1:
        return "indices are asked for"
    rank = len(b.shape(unit.node.inputs[0])) - 2 if b.is_static(unit.node.inputs[0]) else 0
    return first_float(unit, b) or (None if 1 <= rank <= 3 else f"{rank} spatial axes")


def _cost_pool(unit: Unit, b: Builder) -> Cost:
    return streaming(unit, b, float(sum(unit.node.attrs["kernel_shape"])))


def spatial_input(b: Builder, name: str) -> Tensor:
    """The value in channel blocks if it lies so already, else with planes of its own."""
    places = b.tensors(name)
    blocked = [t for t in places if t.block > 1]
    return blocked[0] if blocked else (places[0] if places else b.planar(name))


def _lower_pool(unit: Unit, b: Builder) -> None:
    x = spatial_input(b, unit.node.inputs[0])
    y = b.new(unit.output, x.block)
    window = three(pool_window(unit, b).axes)
    average = unit.node.op == "AveragePool"
    include = bool(unit.node.attrs.get("count_include_pad", 0))
    xs, ys = spatial_strides(x), spatial_strides(y)
    items = x.shape[0] * x.blocks
    row = -(-window[2].size * x.block // 16) * 16
    item = x.dtype.itemsize
    tables: dict[str, Any] = {}
    for dim, axis in zip("dhw", window, strict=True):
        lo, hi = axis.tap_ranges()
        starts = np.array([axis.start(o) for o in range(axis.output)], np.int64)
        divisor = axis.divisors(include) if average else np.zeros(axis.output, np.int64)
        values = (starts, lo, hi, divisor, axis.dilation)
        tables.update({f"{field}_{dim}": v for field, v in zip(pool.WINDOW, values, strict=True)})
    kernel = (
        single(pool.average_pool_f32, pool.average_pool_f64, x.dtype)
        if average
        else single(pool.max_pool_f32, pool.max_pool_f64, x.dtype)
    )
    # Convolutions share the rows of an image: a thread then finds what it wrote itself in its own cache.
    by_rows = int(x.shape[0] < b.threads and window[1].output >= ROWS * b.threads)
    b.emit(
        kernel, width=width(b, b.nbytes(unit.node.inputs[0])), by_rows=by_rows, src=x.address, dst=y.address,
        **b.own_scratch(row * item), items=items, lanes=x.block, in_w=window[2].size,
        out_d=window[0].output, out_h=window[1].output, out_w=window[2].output, src_item=xs.block, src_d=xs.d,
        src_h=xs.h, dst_item=ys.block, dst_d=ys.d, dst_h=ys.h, **tables,
    )  # fmt: skip


attach(Candidate("pool_separable", ("MaxPool", "AveragePool"), _legal_pool, _cost_pool, _lower_pool))


# --- reductions ------------------------------------------------------------------------------------------------------
REDUCTIONS = {
    "ReduceSum": "sum", "ReduceMean": "mean", "ReduceMax": "max", "ReduceMin": "min", "ReduceProd": "prod",
    "ReduceL1": "l1",
    "ReduceL2": "l2", "ReduceSumSquare": "sum_square", "ReduceLogSum": "log_sum", "ReduceLogSumExp": "log_sum_exp",
    "GlobalAveragePool": "mean", "GlobalMaxPool": "max",
}  # fmt: skip


def reduced_axes(unit: Unit, b: Builder) -> tuple[int, ...] | None:
    """The axes reduced over (None: known at run time only)."""
    node, rank = unit.node, len(b.shape(unit.node.inputs[0]))
    if node.op.startswith("Global"):
        return tuple(range(2, rank))
    axes: Sequence[int] = ()
    if len(node.inputs) > 1 and node.inputs[1]:
        if not b.is_constant(node.inputs[1]):
            return None
        axes = b.constant(node.inputs[1]).reshape(-1).tolist()
    if not axes and not node.attrs.get("noop_with_empty_axes", 0):
        axes = range(rank)
    return tuple(sorted({int(a) % rank for a in axes}))


def _segments(
    sizes: Sequence[int], strides: Sequence[int], reduced: Sequence[bool], out: Sequence[int]
) -> list[tuple[int, int, bool, int]]:
    """Runs of axes of one kind that follow each other in memory, merged: (size, stride, reduced, output stride)."""
    merged: list[tuple[int, int, bool, int]] = []
    for size, stride, red, o in zip(sizes, strides, reduced, out, strict=True):
        if size == 1:
            continue
        if merged and merged[-1][2] == red and merged[-1][1] == size * stride and (red or merged[-1][3] == size * o):
            merged[-1] = (merged[-1][0] * size, stride, red, o)
        else:
            merged.append((size, stride, red, o))
    return merged


def plan_reduction(unit: Unit, b: Builder, x: Tensor, out_strides: Sequence[int]) -> dict[str, Any] | None:
    """The kernel's fields, or None if the axes do not fit."""
    axes = reduced_axes(unit, b)
    assert axes is not None
    sizes, strides = x.physical()
    flags = [i in axes for i in range(len(x.shape))] + [False] * (len(sizes) - len(x.shape))
    segments = _segments(sizes, strides, flags, out_strides)
    kept = [s for s in segments if not s[2]]
    red = [s for s in segments if s[2]]
    if len(kept) > 3 or len(red) > 2:
        return None
    one = (1, 0, False, 0)
    inner = kept.pop() if kept and (len(kept) == 3 or kept[-1][1] == 1) else one
    outer = [one] * (2 - len(kept)) + kept
    red = [one] * (2 - len(red)) + red
    return dict(
        outer0=outer[0][0], outer1=outer[1][0], reduced0=red[0][0], reduced1=red[1][0], inner=inner[0],
        src_outer0=outer[0][1], src_outer1=outer[1][1], src_reduced0=red[0][1], src_reduced1=red[1][1],
        src_inner=inner[1], dst_outer0=outer[0][3], dst_outer1=outer[1][3], dst_inner=inner[3],
    )  # fmt: skip


def kept_strides(shape: Sequence[int], axes: Sequence[int]) -> tuple[int, ...]:
    """Strides of the plain output along the input's axes (0 where reduced)."""
    sizes = [1 if i in axes else d for i, d in enumerate(shape)]
    return tuple(0 if i in axes else s for i, s in enumerate(c_strides(sizes)))


def irreducible(unit: Unit, b: Builder) -> str | None:
    """Why the axes of a reduction rule out a kernel, on whatever device."""
    axes = reduced_axes(unit, b)
    if axes is None:
        return "axes are known at run time only"
    if not axes:
        return "nothing to reduce"
    shape = b.shape(unit.node.inputs[0])
    probe = Tensor(Buffer("arena", 0), 0, b.dtype(unit.node.inputs[0]), shape, c_strides(shape))
    return None if plan_reduction(unit, b, probe, kept_strides(shape, axes)) else "too many separate axes"


def _legal_reduce(unit: Unit, b: Builder) -> str | None:
    return first_float(unit, b) or irreducible(unit, b)


def _lower_reduce(unit: Unit, b: Builder) -> None:
    name = unit.node.inputs[0]
    axes = reduced_axes(unit, b)
    assert axes is not None
    shape = b.shape(name)
    blocked = [t for t in b.tensors(name) if t.block > 1]
    plan = None
    if blocked and axes == tuple(range(2, len(shape))) and len(b.shape(unit.output)) == len(shape):
        x = blocked[0]
        y = b.new(unit.output, x.block)
        plan = plan_reduction(unit, b, x, (*(0 if i in axes else s for i, s in enumerate(y.strides)), 1))
    if plan is None:
        x = b.plain(name)
        y = b.new(unit.output, 1, (0, 0))
        plan = plan_reduction(unit, b, x, kept_strides(shape, axes))
    assert plan is not None
    kernel = getattr(reduce, f"reduce_{REDUCTIONS[unit.node.op]}_{'f32' if x.dtype == np.float32 else 'f64'}")
    b.emit(kernel, width=width(b, b.nbytes(name)), src=x.address, dst=y.address, **plan)


attach(Candidate("reduce_strided", tuple(REDUCTIONS), _legal_reduce, streaming, _lower_reduce))


# --- softmax ---------------------------------------------------------------------------------------------------------
def _lower_softmax(unit: Unit, b: Builder) -> None:
    name = unit.node.inputs[0]
    x = b.plain(name)
    y = b.new(unit.output, 1, (0, 0))
    axis = int(unit.node.attrs.get("axis", -1)) % len(x.shape)
    n, inner = x.shape[axis], math.prod(x.shape[axis + 1 :])
    kernel = getattr(
        softmax,
        ("log_" if unit.node.op == "LogSoftmax" else "") + f"softmax_{'f32' if x.dtype == np.float32 else 'f64'}",
    )
    layout: dict[str, Any] = {
        f"{side}_{k}": v for side in ("src", "dst") for k, v in (("outer", n * inner), ("n", inner), ("inner", 1))
    }
    b.emit(
        kernel, width=width(b, 4 * b.nbytes(name)), src=x.address, dst=y.address, outer=math.prod(x.shape[:axis]),
        n=n, inner=inner, **layout,
    )  # fmt: skip


def _legal_softmax(unit: Unit, b: Builder) -> str | None:
    return first_float(unit, b) or (None if b.shape(unit.node.inputs[0]) else "a scalar")


attach(
    Candidate(
        "softmax_shifted", ("Softmax", "LogSoftmax"), _legal_softmax, lambda u, b: streaming(u, b, 20.0), _lower_softmax
    )
)
