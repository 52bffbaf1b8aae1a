"""Data movement: strided copies and gathers of elements of 1, 2, 4 or 8 bytes, whatever they mean.

`COPY` serves everything that is two lists of strides: Transpose, Slice, Concat and Split (into and out of views),
Expand, Tile, DepthToSpace, the blocked layouts; from a single number with strides of 0 it fills. `GATHER` serves what
is a table of offsets per dimension: Gather with constant indices, every mode of Pad, nearest Resize.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from sigconv.kernels import strides as _strides
from sigconv.kernels.address import array_field, as_pointer, copy_bytes, fields, get, item_bytes, put
from sigconv.kernels.jit import Kernel, inline, kernel
from sigconv.kernels.late import intrinsic, types

COPY_DIMS = 8
GATHER_DIMS = 6
BLOCK = 8
"""Rows and columns of a block that is transposed in registers."""

_TILE = 4096  # elements of a copy's work item
_TILE_SIDE = 64  # of a transposing one: a few cache lines of every row that it touches
_SHORT_RUN = 64  # bytes, under which a loop beats memcpy

COPY_ARGS = np.dtype(
    [
        ("dims", np.int64, (COPY_DIMS,)),
        ("src", np.int64),
        ("src_strides", np.int64, (COPY_DIMS,)),
        ("dst", np.int64),
        ("dst_strides", np.int64, (COPY_DIMS,)),
        ("tile_rows", np.int64),
        ("tile_cols", np.int64),
    ]
)
"""dst[i0, …, i7] = src[i0, …, i7]; strides in elements. The last two dimensions are walked in tiles."""

GATHER_ARGS = np.dtype(
    [
        ("dims", np.int64, (GATHER_DIMS,)),
        ("offsets", np.int64, (GATHER_DIMS,)),
        ("src", np.int64),
        ("dst", np.int64),
        ("dst_strides", np.int64, (GATHER_DIMS,)),
        ("run", np.int64),
        ("fill", np.int64),
    ]
)
"""dst[i0, …, i5, r] = src[offsets0[i0] + … + offsets5[i5] + r] for r < run; `fill`'s bits where an offset is -1."""

_copy_dims, _src_strides, _dst_strides = (array_field(COPY_ARGS, f) for f in ("dims", "src_strides", "dst_strides"))
_gather_dims, _offsets, _gather_strides = (array_field(GATHER_ARGS, f) for f in ("dims", "offsets", "dst_strides"))


def plan_copy(shape: Sequence[int], dst_strides: Sequence[int], src_strides: Sequence[int]) -> dict[str, Any]:
    """The COPY_ARGS fields (all but the addresses) of ``dst[...] = src[...]``; strides in elements, of any sign or 0.

    The dimension where the destination is dense comes last; the one where the source is dense comes next to it, so
    that both meet in one tile. ValueError where more than 8 dimensions are left after collapsing.
    """
    dims, (dst, src) = _strides.collapse(shape, [dst_strides, src_strides])
    order = list(range(len(dims)))
    if len(dims) > 2 and src[-1] not in (0, 1):
        dense = min((d for d in order[:-1] if src[d]), key=lambda d: abs(src[d]), default=order[-2])
        if abs(src[dense]) < abs(src[-1]):
            order.remove(dense)
            order.insert(-1, dense)
    dims, dst, src = (tuple(v[d] for d in order) for v in (dims, dst, src))
    rows, cols = _strides.pad_front(dims, COPY_DIMS, 1)[-2:]
    transposes = len(dims) > 1 and src[-1] not in (0, 1)
    tile_cols = max(1, min(cols, _TILE_SIDE if transposes else _TILE))
    return {
        "dims": _strides.pad_front(dims, COPY_DIMS, 1),
        "dst_strides": _strides.pad_front(dst, COPY_DIMS, 0),
        "src_strides": _strides.pad_front(src, COPY_DIMS, 0),
        "tile_cols": tile_cols,
        "tile_rows": max(1, min(rows, _TILE // tile_cols)),
    }


def plan_gather(tables: Sequence[np.ndarray], dst_strides: Sequence[int]) -> dict[str, Any]:
    """The GATHER_ARGS fields (all but ``src``, ``dst`` and ``fill``): one table of source offsets per dimension.

    Offsets are in elements, -1 means the fill value. Innermost dimensions that are dense on both sides become one run.
    ``offsets`` are int64 arrays that must outlive the call. ValueError where more than 6 dimensions are left.
    """
    run, kept, steps = 1, [np.ascontiguousarray(t, np.int64) for t in tables], list(dst_strides)
    while (
        kept and (kept[-1].size == 1 or steps[-1] == run) and np.array_equal(kept[-1], np.arange(len(kept[-1])) * run)
    ):
        run *= len(kept.pop())
        steps.pop()
    d = 0
    while d + 1 < len(kept):  # neighbours merge while there are too many
        joins = steps[d] == steps[d + 1] * kept[d + 1].size
        if kept[d].size == 1 or kept[d + 1].size == 1 or (len(kept) > GATHER_DIMS and joins):
            outer, inner = kept[d][:, None], kept[d + 1][None, :]
            kept[d : d + 2] = [np.where((outer < 0) | (inner < 0), -1, outer + inner).ravel()]
            steps[d : d + 2] = [steps[d] if inner.size == 1 else steps[d + 1]]
        else:
            d += 1
    zero = np.zeros(1, np.int64)
    missing = GATHER_DIMS - len(kept)
    return {
        "dims": _strides.pad_front([t.size for t in kept], GATHER_DIMS, 1),
        "offsets": [*[zero] * missing, *kept],
        "dst_strides": _strides.pad_front(steps, GATHER_DIMS, 0),
        "run": run,
    }


@intrinsic
def _transpose_block(typingctx, dst, dst_stride, src, src_stride):
    """dst[j * dst_stride + i] = src[i * src_stride + j] for i, j < BLOCK, in registers."""

    def codegen(context, builder, signature, args):
        dst, dst_stride, src, src_stride = args
        element = context.get_value_type(signature.args[0].dtype)
        vector, align = ir.VectorType(element, BLOCK), context.get_abi_sizeof(element)

        def at(base, stride, k):
            place = builder.gep(base, [builder.mul(stride, ir.Constant(stride.type, k))])
            return builder.bitcast(place, vector.as_pointer())

        rows = [builder.load(at(src, src_stride, k), align=align) for k in range(BLOCK)]
        lanes = range(BLOCK)
        step = 1
        while step < BLOCK:  # exchange the off-diagonal quarters of every 2 step x 2 step block
            upper = [c if not c & step else BLOCK + c - step for c in lanes]
            lower = [c + step if not c & step else BLOCK + c for c in lanes]
            for r in (r for r in lanes if not r & step):
                a, b = rows[r], rows[r + step]
                for row, pick in ((r, upper), (r + step, lower)):
                    mask = ir.Constant(ir.VectorType(ir.IntType(32), BLOCK), pick)
                    rows[row] = builder.shuffle_vector(a, b, mask)
            step *= 2
        for k, row in enumerate(rows):
            builder.store(row, at(dst, dst_stride, k), align=align)
        return context.get_dummy_value()

    return types.void(dst, types.int64, src, types.int64), codegen


@inline
def _copy_strided(dst, dst_row, dst_col, src, src_row, src_col, rows, cols):
    for r in range(rows):
        for c in range(cols):
            put(dst, r * dst_row + c * dst_col, get(src, r * src_row + c * src_col))


@inline
def copy_tile(dst, dst_row, dst_col, src, src_row, src_col, rows, cols, dtype):
    """A tile at int64 addresses, by the densest way that its strides allow."""
    item = item_bytes(dtype)
    if dst_col == 1 and src_col == 1 and cols * item >= _SHORT_RUN:
        for r in range(rows):
            copy_bytes(dst + r * dst_row * item, src + r * src_row * item, cols * item)
    elif dst_col == 1 and src_col == 0:
        target, source = as_pointer(dst, dtype), as_pointer(src, dtype)
        for r in range(rows):
            value = get(source, r * src_row)
            for c in range(cols):
                put(target, r * dst_row + c, value)
    elif dst_col == 1 and src_row == 1 and rows >= BLOCK and cols >= BLOCK:
        whole_rows, whole_cols = rows // BLOCK * BLOCK, cols // BLOCK * BLOCK
        for c in range(0, whole_cols, BLOCK):
            for r in range(0, whole_rows, BLOCK):
                to, of = dst + (r * dst_row + c) * item, src + (r + c * src_col) * item
                _transpose_block(as_pointer(to, dtype), dst_row, as_pointer(of, dtype), src_col)
        for edge in range(2):  # the columns and then the rows that are left
            r, c = (0, whole_cols) if edge == 0 else (whole_rows, 0)
            to, of = dst + (r * dst_row + c) * item, src + (r + c * src_col) * item
            high, wide = (rows, cols - c) if edge == 0 else (rows - r, whole_cols)
            _copy_strided(as_pointer(to, dtype), dst_row, 1, as_pointer(of, dtype), 1, src_col, high, wide)
    else:
        _copy_strided(as_pointer(dst, dtype), dst_row, dst_col, as_pointer(src, dtype), src_row, src_col, rows, cols)


@inline
def _copy(args, thread, threads, dtype):
    """This thread's tiles."""
    a, item = fields(args), item_bytes(dtype)
    dims, src_strides, dst_strides = _copy_dims(args), _src_strides(args), _dst_strides(args)
    rows, cols = get(dims, COPY_DIMS - 2), get(dims, COPY_DIMS - 1)
    down, across = (rows + a.tile_rows - 1) // a.tile_rows, (cols + a.tile_cols - 1) // a.tile_cols
    tiles = down * across
    for d in range(COPY_DIMS - 2):
        tiles *= get(dims, d)
    dst_row, dst_col = get(dst_strides, COPY_DIMS - 2), get(dst_strides, COPY_DIMS - 1)
    src_row, src_col = get(src_strides, COPY_DIMS - 2), get(src_strides, COPY_DIMS - 1)
    for tile in range(thread * tiles // threads, (thread + 1) * tiles // threads):
        c = tile % across * a.tile_cols
        rest = tile // across
        r = rest % down * a.tile_rows
        rest //= down
        dst, src = r * dst_row + c * dst_col, r * src_row + c * src_col
        for k in range(COPY_DIMS - 2):
            d = COPY_DIMS - 3 - k
            index = rest % get(dims, d)
            rest //= get(dims, d)
            dst += index * get(dst_strides, d)
            src += index * get(src_strides, d)
        copy_tile(
            a.dst + dst * item,
            dst_row,
            dst_col,
            a.src + src * item,
            src_row,
            src_col,
            min(a.tile_rows, rows - r),
            min(a.tile_cols, cols - c),
            dtype,
        )


@inline
def _gather(args, thread, threads, dtype):
    """This thread's rows, pieces of at most _TILE indices of the innermost table."""
    a, item = fields(args), item_bytes(dtype)
    dims, tables, dst_strides = _gather_dims(args), _offsets(args), _gather_strides(args)
    cols, dst_col = get(dims, GATHER_DIMS - 1), get(dst_strides, GATHER_DIMS - 1)
    table = as_pointer(get(tables, GATHER_DIMS - 1), np.int64)
    across = (cols + _TILE - 1) // _TILE
    pieces = across if a.run > 0 else 0
    for d in range(GATHER_DIMS - 1):
        pieces *= get(dims, d)
    for piece in range(thread * pieces // threads, (thread + 1) * pieces // threads):
        first = piece % across * _TILE
        rest = piece // across
        to, of, filled = np.int64(0), np.int64(0), False
        for k in range(GATHER_DIMS - 1):
            d = GATHER_DIMS - 2 - k
            index = rest % get(dims, d)
            rest //= get(dims, d)
            offset = get(as_pointer(get(tables, d), np.int64), index)
            filled |= offset < 0
            of += offset
            to += index * get(dst_strides, d)
        dst, src = as_pointer(a.dst + to * item, dtype), as_pointer(a.src + of * item, dtype)
        for c in range(first, min(cols, first + _TILE)):
            offset = get(table, c)
            if filled or offset < 0:
                for r in range(a.run):
                    put(dst, c * dst_col + r, a.fill)
            elif a.run == 1:
                put(dst, c * dst_col, get(src, offset))
            else:
                copy_bytes(a.dst + (to + c * dst_col) * item, a.src + (of + offset) * item, a.run * item)


def _variant(name: str, args: np.dtype[Any], move: Any, dtype: type[np.unsignedinteger[Any]]) -> Kernel:
    def variant(args, thread, threads):
        move(args, thread, threads, dtype)

    variant.__name__ = f"{name}_{np.dtype(dtype).name}"
    return kernel(args)(variant)


_ELEMENTS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}

COPY = {size: _variant("copy", COPY_ARGS, _copy, dtype) for size, dtype in _ELEMENTS.items()}
"""Kernels of COPY_ARGS by the size of an element in bytes."""

GATHER = {size: _variant("gather", GATHER_ARGS, _gather, dtype) for size, dtype in _ELEMENTS.items()}
"""Kernels of GATHER_ARGS by the size of an element in bytes."""


def transfer(target: np.ndarray, source: np.ndarray) -> None:
    """``target[...] = source`` by the copy kernel: arrays of one shape and dtype, of any strides, up to 8 axes."""
    item = source.dtype.itemsize
    fields = plan_copy(source.shape, *[[s // item for s in array.strides] for array in (target, source)])
    record = np.zeros(1, COPY_ARGS)
    for name, value in {**fields, "src": source.ctypes.data, "dst": target.ctypes.data}.items():
        record[name] = value
    copy = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(COPY[item].address)
    copy(record.ctypes.data, 0, 1)
