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
from sigconv.kernels import narrow
from sigconv.kernels.address import as_pointer, get, put
from sigconv.kernels.cpu.direct import tiles
from sigconv.kernels.cpu.movement import transfer
from sigconv.kernels.jit import Kernel, inline, kernel
from sigconv.kernels.late import carray, intrinsic, types
from sigconv.kernels.scratch import SCRATCH, own_scratch
from sigconv.kernels.simd import (
    I64,
    _clamp,
    _fma,
    _llvm_vector,
    _load,
    _prefetch,
    _splat,
    _store,
    lanes,
    narrow_tile,
    pointwise_tile,
)

WINOGRAD = np.dtype(
    [(name, np.int64) for name in (
        "x", "w", "bias", "y", "residual",  # addresses; residual may be 0; w is packed by `transform` or `pack_taps`
        "taps", "w_point",  # taps of a channel in w, to be transformed (0: w holds points); elements between points
        *SCRATCH,  # of a patch and of all points
        "tiles", "chunk_tiles", "least_tiles",  # of all images; most at a time; worth a thread of their own
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

    def dot(self, factors: Sequence[float], xs: Sequence[Any], start: Any = None) -> Any:
        """start + factors · xs"""
        for factor, x in zip(factors, xs, strict=True):
            if start is not None:
                start = self.fma(factor, x, start) if factor else start
            elif factor:
                start = x if factor == 1 else self.builder.fmul(x, ir.Constant(self.vec, [factor] * self.vec.count))
        return start


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

    def filter(self, v: _Vectors, *taps: Any) -> Sequence[Any]:
        """Apply G: rows of two opposite points share the sum of the even powers."""
        points: list[Any] = []
        for i, row in enumerate(self.filters):
            opposite = [factor * (-1) ** power for power, factor in enumerate(row)]
            if not i or opposite != list(self.filters[i - 1]):
                even = v.dot(row[::2], taps[::2])
            points.append(v.dot(row[1::2], taps[1::2], even))
        return points

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


def transform(form: Form, weights: np.ndarray, bits: int = 32) -> np.ndarray:
    """Weights [M, C, r, r] at the form's points, computed in float64, each point packed for the register tile.

    With 24 ``bits`` as `narrow` has them.
    """
    g = np.array(form.filters)
    both = np.kron(g, g)  # [n*n, r*r]: rows first
    m, c = weights.shape[:2]
    vl = lanes(weights.dtype)
    size = -(-m // vl) * vl * c
    if bits == 24:
        narrowed = narrow.room(len(both) * size)
    else:
        out = lines.zeros(len(both) * size, weights.dtype).reshape(len(both), size)
    for first, width, _ in zip(*(t * vl for t in tiles(m)), strict=True):  # a few at a time, for want of memory
        rows = weights[first : first + width].reshape(-1, c, form.r**2)
        points = np.empty((len(rows), len(both), c), weights.dtype)
        for row, taps in zip(points, rows, strict=True):  # so small a product stays in the cache and on one thread
            row[...] = both @ taps.T.astype(np.float64)
        panel = out[:, first * c : (first + width) * c] if bits == 32 else np.zeros((len(both), width * c), np.float32)
        panel = panel.reshape(len(both), c, width)
        transfer(panel[..., : len(rows)], points.transpose(1, 2, 0))
        if bits == 24:
            for i, point in enumerate(panel):
                narrow.pack(point, narrowed[narrow.BYTES * (i * size + first * c) :])
    return narrowed if bits == 24 else out.reshape(-1)


def pack_taps(weights: np.ndarray) -> np.ndarray:
    """Weights [M, C, r, r] as they are, in the order register tile, channel, register, tap, lane."""
    m, c, r, _ = weights.shape
    vl = lanes(weights.dtype)
    out = lines.zeros(-(-m // vl) * c * r * r * vl, weights.dtype)
    for first, width, _ in zip(*tiles(m), strict=True):
        panel = out[first * c * r * r * vl :][: width * c * r * r * vl].reshape(c, width, r, r, vl)
        for v in range(width):
            source = weights[(first + v) * vl : (first + v + 1) * vl]
            transfer(panel[:, v, ..., : len(source)], source.transpose(1, 2, 3, 0))
    return out


def _square(builder: Any, apply: Callable[..., Sequence[Any]], grid: list[list[Any]]) -> list[list[Any]]:
    """``apply`` along columns, then along rows, of a square of vectors."""
    v = _Vectors(builder, grid[0][0].type)
    columns = [apply(v, *column) for column in zip(*grid, strict=True)]
    return [list(apply(v, *row)) for row in zip(*columns, strict=True)]


def _make(form: Form, name: str, bits: int = 32) -> Kernel:
    dtype: type = np.float32
    n, m, r, vl, size = form.n, form.m, form.r, lanes(dtype), np.dtype(dtype).itemsize
    number = np.dtype(dtype).type
    square = n * n
    products_of, weight = (pointwise_tile, dtype) if bits == 32 else (narrow_tile, np.uint8)
    weight_size = bits // 8

    @intrinsic
    def to_points(typingctx, x, x_h, points, stride):
        """Bᵀ x B of a tile at ``x``, its points ``stride`` elements apart."""

        def codegen(context, builder, sig, args):
            vec = _llvm_vector(sig.args[0].dtype)
            rows = [builder.gep(args[0], [builder.mul(args[1], ir.Constant(I64, i))]) for i in range(n)]
            grid = [[_load(builder, row, ir.Constant(I64, j * vl), vec) for j in range(n)] for row in rows]
            for i, row in enumerate(_square(builder, form.input, grid)):
                for j, value in enumerate(row):
                    _store(builder, value, args[2], builder.mul(args[3], ir.Constant(I64, i * n + j)))
            return context.get_dummy_value()

        return types.void(x, types.int64, x, types.int64), codegen

    @intrinsic
    def to_filter(typingctx, taps, points, stride, reach):
        """G w Gᵀ of taps, its points ``stride`` elements apart; taps that lie ``reach`` further are asked for."""

        def codegen(context, builder, sig, args):
            taps, points, stride, reach = args
            vec = _llvm_vector(sig.args[0].dtype)
            grid = [[_load(builder, taps, ir.Constant(I64, (i * r + j) * vl), vec) for j in range(r)] for i in range(r)]
            for at in range(0, r * r * vl, lines.LINE // size):
                _prefetch(builder, builder.gep(taps, [builder.add(reach, ir.Constant(I64, at))]))
            for i, row in enumerate(_square(builder, form.filter, grid)):
                for j, value in enumerate(row):
                    _store(builder, value, points, builder.mul(stride, ir.Constant(I64, i * n + j)))
            return context.get_dummy_value()

        k = types.int64
        return types.void(taps, taps, k, k), codegen

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
            tile = _square(builder, form.output, grid)
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
    def depth_of(c0, pass_blocks, blocks, last_block):
        """Channels of the pass that begins with block c0."""
        return pass_blocks * vl if c0 + pass_blocks < blocks else (blocks - c0 - 1) * vl + last_block

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
        memory = own_scratch(a, thread)
        patch = as_pointer(memory, dtype)
        v = memory + square * vl * size
        last_block = a.channels - (a.blocks - 1) * vl
        in_image = a.tiles_h * a.tiles_w
        begin, end, first, last = 0, a.tiles, 0, a.panels
        if a.tiles >= threads * a.least_tiles:
            begin, end = a.tiles * thread // threads, a.tiles * (thread + 1) // threads
        else:  # so few that threads share output channels
            first, last = a.panels * thread // threads, a.panels * (thread + 1) // threads
        last_register = get(tile_first, last - 1) + get(tile_width, last - 1)
        chunks = (end - begin + a.chunk_tiles - 1) // a.chunk_tiles
        for chunk in range(chunks):
            t0 = begin + (end - begin) * chunk // chunks
            count = begin + (end - begin) * (chunk + 1) // chunks - t0
            v_point = (count * a.blocks | 1) * vl  # an odd number of cache lines: points fall into different sets
            products = v + square * v_point * size
            p_point = (count * a.out_blocks | 1) * vl
            filters = products + square * p_point * size  # points of a pass's weights, where `w` holds taps
            for block in range(a.blocks):
                h0, w0 = get(block_h, block), get(block_w, block)
                for t in range(count):
                    image, tile = (t0 + t) // in_image, (t0 + t) % in_image
                    h, w = h0 + tile // a.tiles_w * m, w0 + tile % a.tiles_w * m
                    x_block = a.x + (image * a.x_batch + get(block_at, block)) * size
                    to = as_pointer(v + (block * count + t) * vl * size, dtype)
                    at = as_pointer(x_block + (h * a.x_h + w * vl) * size, dtype)
                    if h >= 0 and w >= 0 and h + n <= a.in_h and w + n <= a.in_w:
                        to_points(at, a.x_h, to, v_point)
                    else:
                        for i in range(square * vl):
                            put(patch, i, number(0))
                        top, left = max(-h, 0), max(-w, 0)
                        copy_part(
                            as_pointer(x_block + ((h + top) * a.x_h + (w + left) * vl) * size, dtype), a.x_h,
                            as_pointer(memory + (top * n + left) * vl * size, dtype), n * vl,
                            min(a.in_h - h, n) - top, min(a.in_w - w, n) - left,
                        )  # fmt: skip
                        to_points(patch, n * vl, to, v_point)
            passes = (a.blocks + a.pass_blocks - 1) // a.pass_blocks
            parts = (last - first) * passes
            zeros = as_pointer(a.bias + a.out_blocks * vl * size, dtype)
            # Points are read in the order of `w`. Taps become points once for all products with them, those of the
            # next part of `w` between the products of this one, whose multiplications hide the stores.
            outer, inner = (parts, square) if a.taps else (square, parts)
            for i in range(-1 if a.taps else 0, outer):
                made, units, source, target, reach = 0, 0, a.w, filters, 0
                if a.taps and i + 1 < parts:
                    panel, c0 = first + (i + 1) // passes, (i + 1) % passes * a.pass_blocks
                    v0, nv = get(tile_first, panel), get(tile_width, panel)
                    units = depth_of(c0, a.pass_blocks, a.blocks, last_block) * nv
                    source += (v0 * a.channels + c0 * vl * nv) * a.taps * vl * size
                    target += (i + 1) % 2 * square * a.w_point * size
                    reach = units * a.taps * vl
                for j in range(inner):
                    p, s = (j, max(i, 0)) if a.taps else (i, j)
                    panel, c0 = first + s // passes, s % passes * a.pass_blocks
                    v0, nv, pixels = get(tile_first, panel), get(tile_width, panel), get(tile_pixels, panel)
                    blocks = min(a.pass_blocks, a.blocks - c0)
                    depth = depth_of(c0, a.pass_blocks, a.blocks, last_block)
                    pieces = (count + pixels - 1) // pixels
                    points = v + (p * v_point + c0 * count * vl) * size
                    sums = products + (p * p_point + v0 * count * vl) * size
                    if a.taps:
                        weights = filters + (i % 2 * square + p) * a.w_point * size
                        next_c0 = (s + 1) % passes * a.pass_blocks
                        ahead = v + (p * v_point + next_c0 * count * vl) * size
                        ahead_step = (blocks * count * vl * size + pieces * depth - 1) // (pieces * depth)
                    else:
                        row = nv * vl * weight_size  # bytes of one channel's weights; the next pass follows in memory
                        weights = a.w + (p * a.w_point + v0 * vl * a.channels + c0 * vl * nv * vl) * weight_size
                        ahead, ahead_step = weights + depth * row, (row + pieces - 1) // pieces
                    for piece in range(pieces):
                        p0, p1 = count * piece // pieces, count * (piece + 1) // pieces
                        if i >= 0:
                            products_of(
                                p1 - p0, nv, as_pointer(points + p0 * vl * size, dtype), as_pointer(weights, weight),
                                as_pointer(sums + p0 * vl * size, dtype), as_pointer(0, dtype), zeros, vl,
                                count * vl, 0, 0, 0, blocks, vl, depth - (blocks - 1) * vl, 0, 1, 0, 1, 1, 1,
                                1, vl, count * vl, 0, 0, vl, ahead + piece * depth * ahead_step, ahead_step,
                                c0 == 0, False, number(1), number(0), number(0),
                            )  # fmt: skip
                        upto = units * (j * pieces + piece + 1) // (square * pieces)
                        while made < upto:
                            of = as_pointer(source + made * a.taps * vl * size, dtype)
                            to_filter(of, as_pointer(target + made * vl * size, dtype), a.w_point, reach)
                            made += 1
            for block in range(get(tile_first, first), last_register):
                bias = as_pointer(a.bias + block * vl * size, dtype)
                for t in range(count):
                    image, tile = (t0 + t) // in_image, (t0 + t) % in_image
                    h, w = tile // a.tiles_w * m, tile % a.tiles_w * m
                    y_at = a.y + (image * a.y_batch + block * a.y_block + h * a.y_h + w * vl) * size
                    r_at = a.residual
                    if r_at != 0:
                        r_at += (image * a.r_batch + block * a.r_block + h * a.r_h + w * vl) * size
                    of = as_pointer(products + (block * count + t) * vl * size, dtype)
                    if h + m <= a.out_h and w + m <= a.out_w:
                        from_points(
                            of, p_point, bias, as_pointer(y_at, dtype), a.y_h, as_pointer(r_at, dtype), a.r_h,
                            alpha, lo, hi,
                        )  # fmt: skip
                    else:
                        rows, columns = min(m, a.out_h - h), min(m, a.out_w - w)
                        if r_at != 0:
                            copy_part(as_pointer(r_at, dtype), a.r_h, patch, m * vl, rows, columns)
                            r_at = memory
                        from_points(of, p_point, bias, patch, m * vl, as_pointer(r_at, dtype), m * vl, alpha, lo, hi)
                        copy_part(patch, m * vl, as_pointer(y_at, dtype), a.y_h, rows, columns)

    winograd.__name__ = winograd.__qualname__ = name
    return kernel(WINOGRAD)(winograd)


winograd_4_f32 = _make(F4, "winograd_4_f32")
winograd_2_f32 = _make(F2, "winograd_2_f32")
winograd_3_of_4_f32 = _make(F3_4, "winograd_3_of_4_f32")
winograd_2_of_5_f32 = _make(F2_5, "winograd_2_of_5_f32")
winograd_2_f32_24bit = _make(F2, "winograd_2_f32_24bit", 24)
