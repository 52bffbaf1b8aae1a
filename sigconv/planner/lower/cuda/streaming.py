"""Units that read and write everything once: elementwise work, pools, reductions, softmax, norms and resizing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sigconv.kernels import strides as spaces
from sigconv.kernels.cpu.elementwise import MAX_DIMS, MAX_OPERANDS, assemble
from sigconv.kernels.cuda import norm, pool, reduce
from sigconv.kernels.cuda.elementwise import ELEMENTWISE, INSTRUCTIONS
from sigconv.kernels.cuda.limits import blocks
from sigconv.kernels.cuda.modulo import modulo_i64
from sigconv.kernels.cuda.resize import RESIZE
from sigconv.kernels.cuda.softmax import SOFTMAX
from sigconv.planner.build import Builder
from sigconv.planner.device import DeviceBuilder
from sigconv.planner.elementwise import program
from sigconv.planner.fuse import Unit
from sigconv.planner.lower.cpu.direct import three
from sigconv.planner.lower.cpu.movement import axis_taps
from sigconv.planner.lower.cpu.reduce import (
    REDUCTIONS,
    irreducible,
    kept_strides,
    plan_reduction,
    pool_window,
    reduced_axes,
)
from sigconv.planner.lower.cuda.common import add, by_axis, floats, legal, streaming, triple, window_fields
from sigconv.planner.tensors import Tensor, c_strides

LONG = 64
"""Elements of a reduction that a block shares; shorter ones get a thread."""


# --- elementwise -----------------------------------------------------------------------------------------------------
def _plan(unit: Unit, b: Builder) -> tuple[list[str], Any, np.ndarray]:
    """Operands, instructions, and the table of dims and strides; ValueError where they do not fit."""
    found = program(b.graph, unit.members)
    assert found is not None
    operands, instructions = found
    shape = b.shape(unit.output)
    views = [spaces.broadcast(b.shape(n), c_strides(b.shape(n)), shape) for n in operands]
    dims, (_, *strides) = spaces.collapse(shape, [c_strides(shape), *views])
    rows = [spaces.pad_front(dims, MAX_DIMS, 1), *(spaces.pad_front(s, MAX_DIMS, 0) for s in strides)]
    rows += [(0,) * MAX_DIMS] * (1 + MAX_OPERANDS - len(rows))
    return operands, instructions, np.array(rows, np.int32)


def _legal_elementwise(unit: Unit, b: Builder) -> str | None:
    reason = floats(unit, b)
    if reason:
        return reason
    try:
        _, instructions, _ = _plan(unit, b)
    except ValueError as error:
        return str(error)
    absent = {name for name, *_ in instructions} - INSTRUCTIONS
    return f"instructions {', '.join(sorted(absent))}" if absent else None


def _lower_elementwise(unit: Unit, b: DeviceBuilder) -> None:
    operands, instructions, table = _plan(unit, b)
    arrays = [b.plain(n) for n in operands]
    y = _in_place(unit, b, arrays) or b.new(unit.output)
    code, immediates = assemble(instructions)
    code = code.astype(np.int32)
    code[-1, 1] = MAX_OPERANDS  # the last result goes out, its register is any that can be written
    n = math.prod(y.shape)
    padding: list[Tensor | None] = [None] * (MAX_OPERANDS - len(arrays))
    b.launch(
        ELEMENTWISE[y.dtype.name], (blocks(n),),
        [table, code, np.append(immediates, (0, 0)).astype(y.dtype), *arrays, *padding, y], n=n,
        n_operands=len(arrays), n_instructions=len(code),
    )  # fmt: skip


def _in_place(unit: Unit, b: DeviceBuilder, arrays: list[Tensor]) -> Tensor | None:
    """The output in the memory of an operand that nobody reads any more."""
    if any(v.name == unit.output for v in b.graph.outputs):
        return None
    for t in arrays:
        if t.shape == b.shape(unit.output) and b.can_overwrite(t, 1):
            b.place(unit.output, t)
            return t
    return None


add(
    "bytecode",
    ("Elementwise",),
    _lower_elementwise,
    _legal_elementwise,
    lambda u, b: streaming(u, b, 10.0 * len(u.members)),
)


# --- pools -----------------------------------------------------------------------------------------------------------
def _legal_pool(unit: Unit, b: Builder) -> str | None:
    reason = floats(unit, b)
    if reason:
        return reason
    rank = len(b.shape(unit.node.inputs[0])) - 2
    return None if 1 <= rank <= 3 else f"{rank} spatial axes"


def _lower_pool(unit: Unit, b: DeviceBuilder) -> None:
    x, y, places = b.plain(unit.node.inputs[0]), b.new(unit.node.outputs[0]), None
    axes = three(pool_window(unit, b).axes)
    kind = pool.AVERAGE if unit.node.op == "AveragePool" else pool.MAX
    if any(unit.node.outputs[1:]):
        kind, places = pool.PLACED, b.new(unit.node.outputs[1])
    include = bool(unit.node.attrs.get("count_include_pad", 0))
    counts = np.concatenate([a.divisors(include) for a in axes]).astype(np.int32)
    planes = y.shape[0] * y.shape[1]
    grid = planes, blocks(math.prod(y.shape[2:]), planes)
    sizes = [a.size for a in axes]
    steps = c_strides(sizes)
    if unit.node.attrs.get("storage_order", 0):
        steps = c_strides(sizes[::-1])[::-1]
    b.launch(
        pool.POOLS[x.dtype.name, kind], grid, [counts, x, y, places], **window_fields(axes), **by_axis("step", steps)
    )  # fmt: skip


add(
    "pool",
    ("MaxPool", "AveragePool"),
    _lower_pool,
    _legal_pool,
    lambda u, b: streaming(u, b, 2.0 * math.prod(u.node.attrs["kernel_shape"])),
)


def _legal_modulo(unit: Unit, b: Builder) -> str | None:
    reason = legal(unit, b)
    if reason:
        return reason
    x, divisor = unit.node.inputs
    if b.dtype(x) != np.int64 or unit.node.attrs.get("fmod", 0):
        return f"dtype {b.dtype(x)}, or the sign of the dividend"
    known = b.constant(divisor) if b.is_constant(divisor) else np.zeros(0)
    return None if known.size == 1 and known.all() and b.shape(x) == b.shape(unit.output) else "no constant divisor"


def _lower_modulo(unit: Unit, b: DeviceBuilder) -> None:
    x, divisor = (b.plain(n) for n in unit.node.inputs)
    y = b.new(unit.output)
    n = math.prod(y.shape)
    b.launch(modulo_i64, (blocks(n),), [x, divisor, y], n=n)


add("modulo", ("Mod",), _lower_modulo, _legal_modulo, accuracy="exact")


# --- reductions ------------------------------------------------------------------------------------------------------
def _legal_reduce(unit: Unit, b: Builder) -> str | None:
    return floats(unit, b) or irreducible(unit, b)


def _legal_rows(unit: Unit, b: Builder) -> str | None:
    return _legal_reduce(unit, b) or (None if _reduced(unit, b) >= LONG else f"fewer than {LONG} elements each")


def _reduced(unit: Unit, b: Builder) -> int:
    return math.prod(b.shape(unit.node.inputs[0])) // max(1, math.prod(b.shape(unit.output)))


def _lower_reduce(unit: Unit, b: DeviceBuilder, rows: bool) -> None:
    x, y = b.plain(unit.node.inputs[0]), b.new(unit.output)
    axes = reduced_axes(unit, b)
    assert axes is not None
    plan = plan_reduction(unit, b, x, kept_strides(x.shape, axes))
    assert plan is not None
    fields = {name.replace("src_", "x_").replace("dst_", "y_"): value for name, value in plan.items()}
    outputs = math.prod(y.shape)
    kernel = (reduce.ROWS if rows else reduce.COLUMNS)[x.dtype.name]
    grid = (outputs,) if rows else (blocks(outputs),)
    b.launch(kernel, grid, [x, y], kind=reduce.KINDS.index(REDUCTIONS[unit.node.op]), **fields)


for _name, _rows, _legality, _work in (
    ("reduce_rows", True, _legal_rows, 2.0),
    ("reduce_columns", False, _legal_reduce, 40.0),
):
    add(
        _name,
        tuple(REDUCTIONS),
        lambda u, b, rows=_rows: _lower_reduce(u, b, rows),  # type: ignore[misc]
        _legality,
        lambda u, b, work=_work: streaming(u, b, work * _reduced(u, b)),  # type: ignore[misc]
    )


# --- softmax, norms --------------------------------------------------------------------------------------------------
def _lower_softmax(unit: Unit, b: DeviceBuilder) -> None:
    x, y = b.plain(unit.node.inputs[0]), b.new(unit.output)
    axis = int(unit.node.attrs.get("axis", -1)) % len(x.shape)
    n, inner = x.shape[axis], math.prod(x.shape[axis + 1 :])
    rows = math.prod(x.shape) // n
    b.launch(SOFTMAX[x.dtype.name], (rows,), [x, y], n=n, inner=inner, log=unit.node.op == "LogSoftmax")


add(
    "softmax_shifted",
    ("Softmax", "LogSoftmax"),
    _lower_softmax,
    lambda u, b: floats(u, b) or (None if b.shape(u.node.inputs[0]) else "a scalar"),
    lambda u, b: streaming(u, b, 20.0),
)


def _row_layout(unit: Unit, b: Builder) -> dict[str, int]:
    """(elements of a row, and where a row's parameters lie) of a normalisation."""
    shape, attrs = b.shape(unit.node.inputs[0]), unit.node.attrs
    if unit.node.op == "LayerNormalization":
        n = math.prod(shape[int(attrs.get("axis", -1)) % len(shape) :])
        return dict(n=n, parameter_rows=1, parameter_step=0, inner=1)
    spatial = math.prod(shape[2:])
    groups = int(attrs["num_groups"]) if unit.node.op == "GroupNormalization" else shape[1]
    channels = shape[1] // groups
    return dict(n=channels * spatial, parameter_rows=groups, parameter_step=channels, inner=spatial)


def _legal_norm(unit: Unit, b: Builder) -> str | None:
    reason = floats(unit, b)
    if reason:
        return reason
    if len([o for o in unit.outputs if o]) > 1:
        return "mean or deviation is asked for"
    shape = b.shape(unit.node.inputs[0])
    if unit.node.op == "LayerNormalization":
        n = _row_layout(unit, b)["n"]
        given = [math.prod(b.shape(i)) for i in unit.node.inputs[1:] if i]
        return None if all(size == n for size in given) else "scale or bias broadcasts"
    return None if len(shape) >= 3 else "no spatial axes"


def _lower_norm(unit: Unit, b: DeviceBuilder) -> None:
    names = [*unit.node.inputs[1:3], "", ""][:2]
    x, scale, bias = b.plain(unit.node.inputs[0]), *(b.plain(n) if n else None for n in names)
    y = b.new(unit.output)
    layout = _row_layout(unit, b)
    b.launch(
        norm.NORM_ROWS[x.dtype.name], (math.prod(x.shape) // layout["n"],), [x, scale, bias, y],
        has_scale=scale is not None, has_bias=bias is not None,
        epsilon=float(unit.node.attrs.get("epsilon", 1e-5)), **layout,
    )  # fmt: skip


add(
    "two_pass",
    ("LayerNormalization", "InstanceNormalization", "GroupNormalization"),
    _lower_norm,
    _legal_norm,
    lambda u, b: streaming(u, b, 8.0),
)


def _legal_batch(unit: Unit, b: Builder) -> str | None:
    if len([o for o in unit.outputs if o]) > 1 or unit.node.attrs.get("training_mode", 0):
        return "training"
    return floats(unit, b)


def _lower_batch(unit: Unit, b: DeviceBuilder) -> None:
    x, *parameters = map(b.plain, unit.node.inputs)
    y = b.new(unit.output)
    n = math.prod(y.shape)
    b.launch(
        norm.BATCH_NORM[x.dtype.name], (blocks(n),), [x, *parameters, y], n=n, channels=x.shape[1],
        inner=math.prod(x.shape[2:]), epsilon=float(unit.node.attrs.get("epsilon", 1e-5)),
    )  # fmt: skip


add("batch_norm", ("BatchNormalization",), _lower_batch, _legal_batch, lambda u, b: streaming(u, b, 8.0))


# --- resize ----------------------------------------------------------------------------------------------------------
def _legal_resize(unit: Unit, b: Builder) -> str | None:
    reason = legal(unit, b)
    if reason:
        return reason
    if any(i and not b.is_constant(i) for i in unit.node.inputs[1:]):
        return "parameters are known at run time only"
    if unit.node.attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        return "crops"
    rank = len(b.shape(unit.output))
    if not 3 <= rank <= 5:
        return f"{rank} axes"
    if b.dtype(unit.output).name not in RESIZE:
        return f"dtype {b.dtype(unit.output)}"
    return None if all(t is None for t in axis_taps(unit, b)[:2]) else "other axes than spatial ones"


def _lower_resize(unit: Unit, b: DeviceBuilder) -> None:
    x, y = b.plain(unit.node.inputs[0]), b.new(unit.output)
    inner, outer = triple(x.shape[2:]), triple(y.shape[2:])
    spatial = [None] * (5 - len(x.shape)) + axis_taps(unit, b)[2:]
    tables = [
        t if t is not None else (np.arange(size)[:, None], np.ones((size, 1)))
        for size, t in zip(inner, spatial, strict=True)
    ]
    sizes = [index.size for index, _ in tables]
    planes = y.shape[0] * y.shape[1]
    b.launch(
        RESIZE[x.dtype.name], (planes, blocks(math.prod(y.shape[2:]), planes)),
        [np.concatenate([i.reshape(-1) for i, _ in tables]).astype(np.int32),
         np.concatenate([w.reshape(-1) for _, w in tables]).astype(x.dtype), x, y],
        **by_axis("out", outer), **by_axis("in", inner),
        **by_axis("taps", [index.shape[1] for index, _ in tables]),
        first_h=sizes[0], first_w=sizes[0] + sizes[1],
    )  # fmt: skip


add("interpolate", ("Resize",), _lower_resize, _legal_resize, lambda u, b: streaming(u, b, 16.0))
