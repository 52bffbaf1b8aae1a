"""Winograd's minimal filtering for correlation of stride 1 in blocked layout: F(m x m, r x r) of three to five taps.

Every tile of m x m outputs is Aᵀ[(G w Gᵀ) · (Bᵀ x B)]A, a product of n x n = (m + r - 1) x (m + r - 1) points;
summed over channels each point is a matrix product (Lavin & Gray 2016, points 0, ±1, ±2, ∞). A work item takes a
chunk of tiles through all three steps, so that what lies between them stays in cache. A NaN or Inf spreads within the
tiles that read it. Nothing is padded: tiles at the border read a copy with zeros. Every block of input channels has a
place of its own to start from, so that a longer filter runs as several short ones side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir

from sigconv import lines
from sigconv.kernels.address import as_pointer, get, put
from sigconv.kernels.cpu.direct import pack
from sigconv.kernels.jit import Kernel, inline, kernel
from sigconv.kernels.late import carray, intrinsic, types
from sigconv.kernels.simd import I64, _clamp, _fma, _llvm_vector, _load, _splat, _store, lanes, pointwise_tile

WINOGRAD = np.dtype(
    [(name, np.int64) for name in (
        "x", "w", "bias", "y", "residual",  # addresses; residual may be 0; w is packed by `transform`
        "points", "points_thread",  # workspace: address, and elements of one thread's share
        "tiles", "chunks", "chunk_tiles", "slices",  # of all images; items: chunks of tiles x slices of output channels
        "tiles_h", "tiles_w", "in_h", "in_w", "out_h", "out_w",
        "channels", "blocks", "out_blocks",  # input channels and blocks, blocks of output channels
        "pass_blocks",  # blocks of the input whose weights for one register tile stay in L1
        "block_at", "block_h", "block_w",  # int64 by block: where it lies, row and column of its first tile
        "x_batch", "x_h", "y_batch", "y_block", "y_h", "r_batch", "r_block", "r_h",  # strides in elements
        "panels", "tile_first", "tile_width", "tile_pixels",  # register tiles of the output channels, see direct.tiles
    )]
    + [("alpha", np.float64), ("lo", np.float64), ("hi", np.float64)]
)  # fmt: skip


class _Vectors:
    """Vector arithmetic in a block of LLVM code."""

    def __init__(self, builder: Any, vec: Any) -> None:
        self.builder, self.vec = builder, vec
        self.add, self.sub = builder.fadd, builder.fsub

    def fma(self, factor: float, x: Any, y: Any) -> Any:
        """factor * x + y"""
        return _fma(self.builder, x, ir.Constant(self.vec, [factor] * self.vec.count), y)


def _input_4(v: _Vectors, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any) -> Sequence[Any]:
    even, odd = v.fma(-4, c, e), v.fma(-4, b, d)
    wide, twice = v.sub(e, c), v.sub(d, b)
    return (
        v.fma(4, a, v.fma(-5, c, e)), v.add(even, odd), v.sub(even, odd),
        v.fma(2, twice, wide), v.fma(-2, twice, wide), v.fma(4, b, v.fma(-5, d, f)),
    )  # fmt: skip


def _output_4(v: _Vectors, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any) -> Sequence[Any]:
    near, far, slope, steep = v.add(b, c), v.add(d, e), v.sub(b, c), v.sub(d, e)
    return (
        v.add(a, v.add(near, far)), v.fma(2, steep, slope), v.fma(4, far, near), v.add(v.fma(8, steep, slope), f),
    )  # fmt: skip


def _output_2_of_6(v: _Vectors, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any) -> Sequence[Any]:
    near, far, slope, steep = v.add(b, c), v.add(d, e), v.sub(b, c), v.sub(d, e)
    return v.add(a, v.add(near, far)), v.add(v.fma(2, steep, slope), f)


def _output_3(v: _Vectors, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any) -> Sequence[Any]:
    near, far, slope, steep = v.add(b, c), v.add(d, e), v.sub(b, c), v.sub(d, e)
    return v.add(a, v.add(near, far)), v.fma(2, steep, slope), v.add(v.fma(4, far, near), f)


def _input_2(v: _Vectors, a: Any, b: Any, c: Any, d: Any) -> Sequence[Any]:
    return v.sub(a, c), v.add(b, c), v.sub(c, b), v.sub(b, d)


def _output_2(v: _Vectors, a: Any, b: Any, c: Any, d: Any) -> Sequence[Any]:
    return v.add(a, v.add(b, c)), v.sub(v.sub(b, c), d)


@dataclass(frozen=True, slots=True)
class Form:
    """One F(m x m, r x r): ``filters`` is G, the functions apply Bᵀ and Aᵀ to the vectors of a row or column."""

    m: int
    filters: tuple[tuple[float, ...], ...]
    input: Callable[..., Sequence[Any]]
    output: Callable[..., Sequence[Any]]

    @property
    def n(self) -> int:
        """Points along an axis."""
        return len(self.filters)

    @property
    def r(self) -> int:
        """Taps along an axis."""
        return len(self.filters[0])


def _six_points(r: int) -> tuple[tuple[float, ...], ...]:
    """G of the points 0, ±1, ±2, ∞ for ``r`` taps: powers of each point, over the product of its distances."""
    powers = ((0, 1 / 4), (1, -1 / 6), (-1, -1 / 6), (2, 1 / 24), (-2, 1 / 24))
    return (*(tuple(factor * point**i for i in range(r)) for point, factor in powers), (*(0,) * (r - 1), 1))


F4 = Form(4, _six_points(3), _input_4, _output_4)
F3_4 = Form(3, _six_points(4), _input_4, _output_3)
F2_5 = Form(2, _six_points(5), _input_4, _output_2_of_6)
F2 = Form(2, ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1)), _input_2, _output_2)


def transform(form: Form, weights: np.ndarray) -> np.ndarray:
    """Weights [M, C, r, r] at the form's points, computed in float64, each point packed for the register tile."""
    g = np.array(form.filters)
    both = np.kron(g, g)  # [n*n, r*r]: rows first
    m, c = weights.shape[:2]
    points = np.empty((len(both), m, c), weights.dtype)
    for i, taps in enumerate(weights.reshape(m, c, -1)):  # so small a product stays in the cache and on one thread
        points[:, i] = both @ taps.T.astype(np.float64)
    packed = [pack(p.reshape(m, c, 1, 1, 1), c) for p in points]
    return np.concatenate(packed, out=lines.zeros(sum(p.size for p in packed), weights.dtype))


def _square(builder: Any, form: Form, apply: Callable[..., Sequence[Any]], grid: list[list[Any]]) -> list[list[Any]]:
    """``apply`` along columns, then along rows, of a square of vectors."""
    v = _Vectors(builder, grid[0][0].type)
    columns = [apply(v, *(row[j] for row in grid)) for j in range(form.n)]
    return [list(apply(v, *(column[i] for column in columns))) for i in range(len(columns[0]))]


def _make(form: Form, dtype: type, name: str) -> Kernel:
    n, m, vl, size = form.n, form.m, lanes(dtype), np.dtype(dtype).itemsize
    number = np.dtype(dtype).type
    square = n * n

    @intrinsic
    def to_points(typingctx, x, x_h, points, stride):
        """Bᵀ x B of a tile at ``x``, its points ``stride`` elements apart."""

        def codegen(context, builder, sig, args):
            vec = _llvm_vector(sig.args[0].dtype)
            rows = [builder.gep(args[0], [builder.mul(args[1], ir.Constant(I64, i))]) for i in range(n)]
            grid = [[_load(builder, row, ir.Constant(I64, j * vl), vec) for j in range(n)] for row in rows]
            for i, row in enumerate(_square(builder, form, form.input, grid)):
                for j, value in enumerate(row):
                    _store(builder, value, args[2], builder.mul(args[3], ir.Constant(I64, i * n + j)))
            return context.get_dummy_value()

        return types.void(x, types.int64, x, types.int64), codegen

    @intrinsic
    def from_points(typingctx, points, stride, bias, y, y_h, r, r_h, alpha, lo, hi):
        """Aᵀ · A of a tile's points, + bias, + residual (unless null), leaky(alpha), clamp(lo, hi)."""

        def codegen(context, builder, sig, args):
            points, stride, bias, y, y_h, r, r_h, *limits = args
            vec = _llvm_vector(sig.args[0].dtype)
            grid = [
                [_load(builder, points, builder.mul(stride, ir.Constant(I64, i * n + j)), vec) for j in range(n)]
                for i in range(n)
            ]
            start = _load(builder, bias, ir.Constant(I64, 0), vec)
            zero = ir.Constant(vec, [0.0] * vl)
            slope, low, high = (_splat(builder, s, vec) for s in limits)
            tile = _square(builder, form, form.output, grid)
            plain = builder.icmp_unsigned("==", builder.ptrtoint(r, I64), ir.Constant(I64, 0))
            for i, row in enumerate(tile):
                y_row = builder.gep(y, [builder.mul(y_h, ir.Constant(I64, i))])
                # Without a residual its row is the bias, whose value is then left out by the select.
                r_row = builder.select(plain, bias, builder.gep(r, [builder.mul(r_h, ir.Constant(I64, i))]))
                for j, value in enumerate(row):
                    at = builder.select(plain, ir.Constant(I64, 0), ir.Constant(I64, j * vl))
                    value = builder.fadd(value, start)
                    value = builder.select(plain, value, builder.fadd(value, _load(builder, r_row, at, vec)))
                    leaky = builder.fmul(value, slope)
                    value = builder.select(builder.fcmp_ordered("<", value, zero), leaky, value)
                    _store(builder, _clamp(builder, value, low, high), y_row, ir.Constant(I64, j * vl))
            return context.get_dummy_value()

        k = types.int64
        return types.void(points, k, bias, y, k, r, k, alpha, lo, hi), codegen

    @inline
    def copy_part(source, source_h, target, target_h, rows, columns):
        for i in range(rows):
            for j in range(columns * vl):
                put(target, i * target_h + j, get(source, i * source_h + j))

    def winograd(args, thread, threads):
        a = carray(args, 1)[0]
        tile_first, tile_width = as_pointer(a.tile_first, np.int64), as_pointer(a.tile_width, np.int64)
        tile_pixels = as_pointer(a.tile_pixels, np.int64)
        block_at, block_h, block_w = (
            as_pointer(a.block_at, np.int64), as_pointer(a.block_h, np.int64), as_pointer(a.block_w, np.int64)
        )  # fmt: skip
        alpha, lo, hi = number(a.alpha), number(a.lo), number(a.hi)
        scratch = a.points + thread * a.points_thread * size
        patch = as_pointer(scratch, dtype)
        v = scratch + square * vl * size
        v_point = (a.chunk_tiles * a.blocks | 1) * vl  # an odd number of cache lines: points fall into different sets
        products = v + square * v_point * size
        p_point = (a.chunk_tiles * a.out_blocks | 1) * vl
        w_point = a.channels * a.out_blocks * vl
        last_block = a.channels - (a.blocks - 1) * vl
        in_image = a.tiles_h * a.tiles_w
        items = a.chunks * a.slices
        ready = -1
        for item in range(items * thread // threads, items * (thread + 1) // threads):
            part, chunk = item % a.slices, item // a.slices
            t0 = chunk * a.chunk_tiles
            count = min(a.chunk_tiles, a.tiles - t0)
            if ready != chunk:  # the slices of a chunk share its points
                ready = chunk
                for block in range(a.blocks):
                    h0, w0 = get(block_h, block), get(block_w, block)
                    for t in range(count):
                        image, tile = (t0 + t) // in_image, (t0 + t) % in_image
                        h, w = h0 + tile // a.tiles_w * m, w0 + tile % a.tiles_w * m
                        x_block = a.x + (image * a.x_batch + get(block_at, block)) * size
                        to = as_pointer(v + (block * a.chunk_tiles + t) * vl * size, dtype)
                        at = as_pointer(x_block + (h * a.x_h + w * vl) * size, dtype)
                        if h >= 0 and w >= 0 and h + n <= a.in_h and w + n <= a.in_w:
                            to_points(at, a.x_h, to, v_point)
                        else:
                            for i in range(square * vl):
                                put(patch, i, number(0))
                            top, left = max(-h, 0), max(-w, 0)
                            copy_part(
                                as_pointer(x_block + ((h + top) * a.x_h + (w + left) * vl) * size, dtype), a.x_h,
                                as_pointer(scratch + (top * n + left) * vl * size, dtype), n * vl,
                                min(a.in_h - h, n) - top, min(a.in_w - w, n) - left,
                            )  # fmt: skip
                            to_points(patch, n * vl, to, v_point)
            first, last = a.panels * part // a.slices, a.panels * (part + 1) // a.slices
            for p in range(square):
                for panel in range(first, last):
                    v0, nv, pixels = get(tile_first, panel), get(tile_width, panel), get(tile_pixels, panel)
                    zeros = as_pointer(a.bias + a.out_blocks * vl * size, dtype)
                    pieces = (count + pixels - 1) // pixels
                    row = nv * vl * size  # bytes of one channel's weights
                    ahead = a.w + (p * w_point + v0 * vl * a.channels) * size
                    for c0 in range(0, a.blocks, a.pass_blocks):
                        blocks = min(a.pass_blocks, a.blocks - c0)
                        final = last_block if c0 + blocks == a.blocks else vl
                        weights = as_pointer(ahead, dtype)
                        ahead += ((blocks - 1) * vl + final) * row  # the next pass follows in memory
                        ahead_step = (row + pieces - 1) // pieces
                        for piece in range(pieces):
                            p0, p1 = count * piece // pieces, count * (piece + 1) // pieces
                            of = as_pointer(v + (p * v_point + (c0 * a.chunk_tiles + p0) * vl) * size, dtype)
                            to = as_pointer(products + (p * p_point + (v0 * a.chunk_tiles + p0) * vl) * size, dtype)
                            pointwise_tile(
                                p1 - p0, nv, of, weights, to, as_pointer(0, dtype), zeros, vl, a.chunk_tiles * vl,
                                0, 0, 0, blocks, vl, final, 0, 1, 0, 1, 1, 1, 1, vl, a.chunk_tiles * vl, 0, 0, vl,
                                ahead + piece * ((blocks - 1) * vl + final) * ahead_step, ahead_step,
                                c0 == 0, False, number(1), number(0), number(0),
                            )  # fmt: skip
            end = get(tile_first, last - 1) + get(tile_width, last - 1)
            for block in range(get(tile_first, first), end):
                bias = as_pointer(a.bias + block * vl * size, dtype)
                for t in range(count):
                    image, tile = (t0 + t) // in_image, (t0 + t) % in_image
                    h, w = tile // a.tiles_w * m, tile % a.tiles_w * m
                    y_at = a.y + (image * a.y_batch + block * a.y_block + h * a.y_h + w * vl) * size
                    r_at = a.residual
                    if r_at != 0:
                        r_at += (image * a.r_batch + block * a.r_block + h * a.r_h + w * vl) * size
                    of = as_pointer(products + (block * a.chunk_tiles + t) * vl * size, dtype)
                    if h + m <= a.out_h and w + m <= a.out_w:
                        from_points(
                            of, p_point, bias, as_pointer(y_at, dtype), a.y_h, as_pointer(r_at, dtype), a.r_h,
                            alpha, lo, hi,
                        )  # fmt: skip
                    else:
                        rows, columns = min(m, a.out_h - h), min(m, a.out_w - w)
                        if r_at != 0:
                            copy_part(as_pointer(r_at, dtype), a.r_h, patch, m * vl, rows, columns)
                            r_at = scratch
                        from_points(of, p_point, bias, patch, m * vl, as_pointer(r_at, dtype), m * vl, alpha, lo, hi)
                        copy_part(patch, m * vl, as_pointer(y_at, dtype), a.y_h, rows, columns)

    winograd.__name__ = winograd.__qualname__ = name
    return kernel(WINOGRAD)(winograd)


winograd_4_f32 = _make(F4, np.float32, "winograd_4_f32")
winograd_2_f32 = _make(F2, np.float32, "winograd_2_f32")
winograd_3_of_4_f32 = _make(F3_4, np.float32, "winograd_3_of_4_f32")
winograd_2_of_5_f32 = _make(F2_5, np.float32, "winograd_2_of_5_f32")
