"""Ops that only move data: views where nothing has to move, else strided copies and gathers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sigconv.kernels.cpu import resize as resize_kernels
from sigconv.ops import lookup
from sigconv.ops.movement import pad_amounts, pad_indices, slice_ranges
from sigconv.ops.resize import resize_axes, resize_taps
from sigconv.planner.build import Builder
from sigconv.planner.candidates import Candidate, Cost, attach
from sigconv.planner.fuse import Unit
from sigconv.planner.lower.cpu.direct import known, spatial_strides
from sigconv.planner.lower.cpu.reduce import single, spatial_input, streaming, width
from sigconv.planner.tensors import Address, Tensor, c_strides

MAX_AXES = 8
Taps = tuple[np.ndarray, np.ndarray]
"""Input indices and their weights, [out, taps]."""

Lower = Callable[[Unit, Builder], None]
Legal = Callable[[Unit, Builder], "str | None"]


def _attrs(unit: Unit) -> dict[str, Any]:
    spec = lookup(unit.node.op)
    assert spec is not None
    return spec.attributes(unit.node.attrs, unit.node.label)


def _movable(unit: Unit, b: Builder) -> str | None:
    """Sizes known, an element the copy kernels can carry, parameters constant."""
    reason = known(unit, b)
    if reason:
        return reason
    if any(i and not b.is_constant(i) for i in unit.node.inputs[1:]) and unit.node.op not in ("Concat",):
        return "parameters are known at run time only"
    dtype = b.dtype(unit.node.inputs[0])
    if dtype.kind not in "fiub" or dtype.itemsize not in (1, 2, 4, 8):
        return f"dtype {dtype}"
    return "more than 8 axes" if len(b.shape(unit.output)) > MAX_AXES else None


def _any_plain(b: Builder, name: str) -> Tensor:
    return next((t for t in b.tensors(name) if t.block == 1), None) or b.plain(name)


def _copy_into(
    b: Builder,
    source: Tensor,
    strides: Sequence[int],
    offset: int,
    target: Address,
    target_strides: Sequence[int],
    sizes: Sequence[int],
) -> None:
    """Copy from ``offset`` elements into ``source``."""
    item = source.dtype.itemsize
    b.copy(
        Address(source.buffer, source.address.offset + offset * item),
        strides,
        target,
        target_strides,
        sizes,
        source.dtype,
    )


def _move(
    name: str,
    ops: Sequence[str],
    lower: Lower,
    legal: Legal | None = None,
    cost: Callable[[Unit, Builder], Cost] = streaming,
) -> None:
    def check(unit: Unit, b: Builder) -> str | None:
        return _movable(unit, b) or (legal(unit, b) if legal else None)

    attach(Candidate(name, tuple(ops), check, cost, lower, accuracy="exact"))


# --- views -----------------------------------------------------------------------------------------------------------
def _view(unit: Unit, b: Builder) -> None:
    source = b.plain(unit.node.inputs[0])
    shape = b.shape(unit.output)
    b.place(unit.output, Tensor(source.buffer, source.offset, source.dtype, shape, c_strides(shape)))


def _one_output(unit: Unit, b: Builder) -> str | None:
    return "a mask is asked for" if len([o for o in unit.outputs if o]) > 1 else None


_move(
    "view",
    ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"),
    _view,
    _one_output,
    lambda u, b: Cost(0, 0, 0),
)


# --- strided copies --------------------------------------------------------------------------------------------------
def _transpose(unit: Unit, b: Builder) -> None:
    x = _any_plain(b, unit.node.inputs[0])
    perm = unit.node.attrs.get("perm") or tuple(reversed(range(len(x.shape))))
    y = b.new(unit.output, 1, (0, 0))
    _copy_into(b, x, [x.strides[p] for p in perm], 0, y.address, y.strides, y.shape)


def _slice(unit: Unit, b: Builder) -> None:
    x = _any_plain(b, unit.node.inputs[0])
    parameters = [b.constant(i).reshape(-1).tolist() if i else None for i in unit.node.inputs[1:]]
    ranges = slice_ranges(x.shape, *parameters)  # type: ignore[arg-type]
    y = b.new(unit.output, 1, (0, 0))
    offset = sum(first * s for (first, _, _), s in zip(ranges, x.strides, strict=True))
    _copy_into(
        b,
        x,
        [step * s for (_, step, _), s in zip(ranges, x.strides, strict=True)],
        offset,
        y.address,
        y.strides,
        y.shape,
    )


def _parts(unit: Unit, b: Builder) -> tuple[tuple[str, ...], int]:
    """The pieces of a Concat or Split and the axis along which they lie."""
    pieces, whole = (unit.node.inputs, unit.output) if unit.node.op == "Concat" else (unit.outputs, unit.node.inputs[0])
    return pieces, int(unit.node.attrs.get("axis", 0)) % max(1, len(b.shape(whole)))


def _common_block(unit: Unit, b: Builder) -> int:
    """The channel block in which pieces can be joined or cut, 1 if they cannot."""
    pieces, axis = _parts(unit, b)
    sources = unit.node.inputs if unit.node.op == "Concat" else unit.node.inputs[:1]
    block = max((t.block for n in sources for t in b.tensors(n)), default=1)
    if block == 1 or axis == 0 or (axis == 1 and any(b.shape(p)[1] % block for p in pieces[:-1])):
        return 1
    return block


def _concat(unit: Unit, b: Builder) -> None:
    pieces, axis = _parts(unit, b)
    block = _common_block(unit, b)
    y = b.new(unit.output, block) if block > 1 else b.new(unit.output, 1, (0, 0))
    item, start = y.dtype.itemsize, 0
    for piece in pieces:
        x = b.blocked(piece) if block > 1 else _any_plain(b, piece)
        sizes, strides = x.physical()
        offset = start * y.strides[axis] // (block if axis == 1 else 1)
        _copy_into(b, x, strides, 0, Address(y.buffer, y.address.offset + offset * item), y.physical()[1], sizes)
        start += x.shape[axis]


def _split(unit: Unit, b: Builder) -> None:
    pieces, axis = _parts(unit, b)
    block = _common_block(unit, b)
    x = b.blocked(unit.node.inputs[0]) if block > 1 else _any_plain(b, unit.node.inputs[0])
    start = 0
    for piece in pieces:
        count = b.shape(piece)[axis] if piece else 0
        if piece:
            y = b.new(piece, block) if block > 1 else b.new(piece, 1, (0, 0))
            offset = start * x.strides[axis] // (block if axis == 1 else 1)
            _copy_into(b, x, x.physical()[1], offset, y.address, y.physical()[1], y.physical()[0])
        start += count


def _expand(unit: Unit, b: Builder) -> None:
    x = b.plain(unit.node.inputs[0])
    y = b.new(unit.output, 1, (0, 0))
    lead = len(y.shape) - len(x.shape)
    strides = [0] * lead + [
        0 if have == 1 != want else s for have, want, s in zip(x.shape, y.shape[lead:], x.strides, strict=True)
    ]
    _copy_into(b, x, strides, 0, y.address, y.strides, y.shape)


def _tile(unit: Unit, b: Builder) -> None:
    x = b.plain(unit.node.inputs[0])
    y = b.new(unit.output, 1, (0, 0))
    sizes: list[int] = []
    source: list[int] = []
    target: list[int] = []
    for have, want, sx, sy in zip(x.shape, y.shape, x.strides, y.strides, strict=True):
        sizes += [want // have, have]
        source += [0, sx]
        target += [have * sy, sy]
    _copy_into(b, x, source, 0, y.address, target, sizes)


def _space(unit: Unit, b: Builder) -> None:
    """DepthToSpace and SpaceToDepth: six axes in another order."""
    x = b.plain(unit.node.inputs[0])
    y = b.new(unit.output, 1, (0, 0))
    r = int(unit.node.attrs["blocksize"])
    small, large = (x, y) if unit.node.op == "DepthToSpace" else (y, x)
    n, c, h, w = large.shape[0], large.shape[1], small.shape[2], small.shape[3]
    column_row = unit.node.attrs.get("mode", "DCR") == "CRD"
    sizes = (n, c, h, r, w, r)
    deep = small.strides[1]
    c_step, i_step, j_step = (r * r * deep, r * deep, deep) if column_row else (deep, r * c * deep, c * deep)
    packed = (small.strides[0], c_step, small.strides[2], i_step, small.strides[3], j_step)
    spread = (*large.strides[:2], r * large.strides[2], large.strides[2], r * large.strides[3], large.strides[3])
    source, target = (packed, spread) if small is x else (spread, packed)
    _copy_into(b, x, source, 0, y.address, target, sizes)


_move("strided_copy", ("Transpose",), _transpose)
_move("strided_copy", ("Slice",), _slice)
_move("strided_copy", ("Concat",), _concat)
_move("strided_copy", ("Split",), _split)
_move("strided_copy", ("Expand",), _expand)
_move(
    "strided_copy",
    ("Tile",),
    _tile,
    lambda u, b: "more than 8 axes" if len(b.shape(u.output)) > MAX_AXES // 2 else None,
)
_move(
    "strided_copy",
    ("DepthToSpace", "SpaceToDepth"),
    _space,
    lambda u, b: None if len(b.shape(u.output)) == 4 else "not four axes",
)


# --- gathers ---------------------------------------------------------------------------------------------------------
def _gather_axes(b: Builder, x: Tensor, y: Tensor, indices: Sequence[np.ndarray | None]) -> None:
    """y[i0, i1, …] = x[indices[0][i0], …] along the axes of the value; None: every index."""
    sizes, source = x.physical()
    target_sizes, target = y.physical()
    full = [*indices, None][: len(sizes)] if x.block > 1 else list(indices)
    tables = []
    for index, stride, size in zip(full, source, target_sizes, strict=True):
        i = np.arange(size, dtype=np.int64) if index is None else index.astype(np.int64)
        tables.append(i * stride)
    b.gather(x.address, tables, y.address, target, x.dtype)


def _pad_rows(unit: Unit, b: Builder) -> list[tuple[int, int]]:
    node = unit.node
    axes = b.constant(node.inputs[3]).reshape(-1).tolist() if len(node.inputs) > 3 and node.inputs[3] else None
    return list(pad_amounts(len(b.shape(node.inputs[0])), b.constant(node.inputs[1]).reshape(-1).tolist(), axes))


def _pad(unit: Unit, b: Builder) -> None:
    node = unit.node
    amounts = _pad_rows(unit, b)
    mode = str(node.attrs.get("mode", "constant"))
    x = _any_plain(b, node.inputs[0])
    blocked = [t for t in b.tensors(node.inputs[0]) if t.block > 1]
    if blocked and not any(v for amount in amounts[:2] for v in amount):
        x = blocked[0]
    y = b.new(unit.output, x.block) if x.block > 1 else b.new(unit.output, 1, (0, 0))
    value = b.constant(node.inputs[2]).reshape(-1)[0] if len(node.inputs) > 2 and node.inputs[2] else 0
    if mode == "constant":
        strides = y.physical()[1]
        if any(v > 0 for amount in amounts for v in amount):
            b.fill_tensor(y, value)
        kept = [n + min(0, lo) + min(0, hi) for n, (lo, hi) in zip(x.shape, amounts, strict=True)]
        offset_x = sum(max(0, -lo) * s for (lo, _), s in zip(amounts, x.strides, strict=True))
        offset_y = sum(max(0, lo) * s for (lo, _), s in zip(amounts, y.strides, strict=True))
        box = kept if x.block == 1 else [kept[0], x.blocks, *kept[2:], x.block]
        target = Address(y.buffer, y.address.offset + offset_y * y.dtype.itemsize)
        _copy_into(b, x, x.physical()[1], offset_x, target, strides, box)
        return
    indices = [
        None if amount == (0, 0) else pad_indices(n, *amount, mode) for n, amount in zip(x.shape, amounts, strict=True)
    ]
    _gather_axes(b, x, y, indices)


def _gather(unit: Unit, b: Builder) -> None:
    x = b.plain(unit.node.inputs[0])
    axis = int(unit.node.attrs.get("axis", 0)) % len(x.shape)
    index = b.constant(unit.node.inputs[1]).reshape(-1).astype(np.int64)
    index = np.where(index < 0, index + x.shape[axis], index)
    y = b.new(unit.output, 1, (0, 0))
    before, after = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
    sizes = (before, len(index), after)
    steps = np.diff(index)
    if len(index) == 1 or (steps == steps[0]).all():
        step = int(steps[0]) if len(index) > 1 else 1
        _copy_into(
            b, x, (x.shape[axis] * after, step * after, 1), int(index[0]) * after, y.address, c_strides(sizes), sizes
        )
        return
    tables = [np.arange(before) * (x.shape[axis] * after), index * after, np.arange(after)]
    b.gather(x.address, tables, y.address, c_strides(sizes), x.dtype)


def _gather_legal(unit: Unit, b: Builder) -> str | None:
    size = b.shape(unit.node.inputs[0])[int(unit.node.attrs.get("axis", 0)) % max(1, len(b.shape(unit.node.inputs[0])))]
    index = b.constant(unit.node.inputs[1])
    return None if index.size and index.min() >= -size and index.max() < size else "an index is out of range"


_move("gather", ("Pad",), _pad, lambda u, b: "more than 6 axes" if len(b.shape(u.output)) > 5 else None)
_move("gather", ("Gather",), _gather, _gather_legal)


# --- resize ----------------------------------------------------------------------------------------------------------
def axis_taps(unit: Unit, b: Builder) -> list[Taps | None]:
    """(indices, weights) of every axis that is sampled anew."""
    a = _attrs(unit)
    shape = b.shape(unit.node.inputs[0])
    scales, sizes = (
        b.constant(i).reshape(-1).tolist() if i and b.constant(i).size else None
        for i in ([*unit.node.inputs, "", ""][2:4])
    )
    plan = resize_axes(shape, scales, sizes, None, a["axes"], a["keep_aspect_ratio_policy"])
    taps: list[Taps | None] = []
    for size, axis, output in zip(shape, plan, b.shape(unit.output), strict=True):
        if axis.scale is None or (output == size and axis.scale == 1):
            taps.append(None)
            continue
        taps.append(
            resize_taps(
                size, output, axis.scale, mode=a["mode"], coordinate_mode=a["coordinate_transformation_mode"],
                nearest_mode=a["nearest_mode"], cubic_coeff_a=a["cubic_coeff_a"],
                exclude_outside=bool(a["exclude_outside"]), antialias=bool(a["antialias"]),
            )
        )  # fmt: skip
    return taps


def _resize_legal(unit: Unit, b: Builder) -> str | None:
    a = _attrs(unit)
    if a["coordinate_transformation_mode"] == "tf_crop_and_resize":
        return "crops"
    rank = len(b.shape(unit.output))
    if a["mode"] == "nearest":
        return None if rank <= 5 else "more than 6 axes"
    if b.dtype(unit.output) not in (np.float32, np.float64):
        return f"dtype {b.dtype(unit.output)}"
    moved = [i for i, t in enumerate(axis_taps(unit, b)) if t is not None]
    return None if 3 <= rank <= 5 and all(i >= 2 for i in moved) else "other axes than spatial ones"


def _resize(unit: Unit, b: Builder) -> None:
    taps = axis_taps(unit, b)
    x = (
        spatial_input(b, unit.node.inputs[0])
        if len(b.shape(unit.output)) >= 3 and taps[0] is None and taps[1] is None
        else b.plain(unit.node.inputs[0])
    )
    y = b.new(unit.output, x.block) if x.block > 1 else b.new(unit.output, 1, (0, 0))
    if unit.node.attrs.get("mode", "nearest") == "nearest":
        _gather_axes(b, x, y, [None if t is None else t[0][:, 0] for t in taps])
        return
    xs, ys = spatial_strides(x), spatial_strides(y)
    inner = (*[1] * (5 - len(x.shape)), *x.shape[2:])
    outer = (*[1] * (5 - len(y.shape)), *y.shape[2:])
    spatial = [None] * (5 - len(x.shape)) + taps[2:]
    tables: dict[str, Any] = {}
    for dim, size, t in zip("dhw", inner, spatial, strict=True):
        index, weight = t if t is not None else (np.arange(size)[:, None], np.ones((size, 1)))
        tables.update(
            {
                f"index_{dim}": index.astype(np.int64),
                f"weight_{dim}": weight.astype(x.dtype),
                f"taps_{dim}": index.shape[1],
            }
        )
    row = -(-inner[2] * x.block // 16) * 16
    b.emit(
        single(resize_kernels.resize_f32, resize_kernels.resize_f64, x.dtype),
        width=width(b, 4 * b.nbytes(unit.output)), src=x.address, dst=y.address,
        **b.own_scratch(row * x.dtype.itemsize), items=x.shape[0] * x.blocks,
        lanes=x.block, in_w=inner[2], out_d=outer[0], out_h=outer[1], out_w=outer[2], src_item=xs.block, src_d=xs.d,
        src_h=xs.h, dst_item=ys.block, dst_d=ys.d, dst_h=ys.h, **tables,
    )  # fmt: skip


_move("interpolate", ("Resize",), _resize, _resize_legal)
