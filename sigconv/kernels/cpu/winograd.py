"""Winograd correlation F(m x m, 3x3), m = 4 or 2, on channel blocks: (m + 2)^2 products where direct code takes 9 m^2.

A block of tiles is transformed into V [(m + 2)^2, tiles, channels], multiplied by the transformed weights of one
register tile of output channels at a time into M [(m + 2)^2, tiles, channels of the register tile], and transformed
back with the epilogue. V and M live in a scratch of the thread's own. Tiles that reach over a border go through a copy
of one tile; the input itself is never padded. Lanes of the input beyond its channels are never reduced over.

A NaN or Inf in the input reaches all outputs of the tiles that read it, an Inf as NaN.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic

from sigconv.kernels.address import as_pointer, get
from sigconv.kernels.cpu.direct import tiles
from sigconv.kernels.jit import inline, kernel
from sigconv.kernels.simd import (
    I64,
    TILE,
    _clamp,
    _fma,
    _llvm_vector,
    _load,
    _splat,
    _store,
    broadcast,
    lanes,
    load,
    prefetch,
    register_tile,
    store,
)

WINOGRAD = np.dtype(
    [(name, np.int64) for name in (
        "x", "w", "bias", "y", "residual",  # addresses; residual may be 0; w is packed by `pack`; bias is padded
        "scratch", "scratch_thread",  # address, and bytes of each thread's part: see `scratch_elements`
        "zeros",  # address of as many zeros as the widest register tile has channels
        "tiles_h", "tiles_w", "total", "block_tiles", "blocks",  # output tiles of an image, of all, of a work item
        "channels", "in_blocks", "in_h", "in_w", "out_h", "out_w", "origin_h", "origin_w",  # origin: minus the pad
        "x_batch", "x_block", "x_h", "x_pixel", "y_batch", "y_block", "y_h", "y_pixel",  # strides in elements
        "r_batch", "r_block", "r_h", "r_pixel",
        "tiles", "tile_first", "tile_width", "tile_pixels",  # register tiles: number, addresses of int64 tables
    )]
    + [("alpha", np.float64), ("lo", np.float64), ("hi", np.float64)]
)  # fmt: skip

G = {
    2: np.array([[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]]),
    4: np.array([[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6], [1 / 24, 1 / 12, 1 / 6],
                 [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]]),
}  # fmt: skip
"""The weight transforms, by m."""

WIDEST = max(TILE)


def pack(weights: np.ndarray, m: int) -> np.ndarray:
    """Weights [M, C, 3, 3] transformed in float64, in the order register tile, point, channel, lane."""
    channels, c = weights.shape[:2]
    vl, points = lanes(weights.dtype), (m + 2) ** 2
    flat = np.kron(G[m], G[m]).astype(np.float64)  # [points, 9]
    out = np.zeros(points * c * -(-channels // vl) * vl, weights.dtype)
    first, width, _ = tiles(channels, weights.dtype)
    for v0, nv in zip((first * vl).tolist(), (width * vl).tolist(), strict=True):
        source = weights[v0 : v0 + nv].reshape(-1, c, 9).astype(np.float64)
        at = v0 * points * c
        target = out[at : at + points * c * nv].reshape(points, c, nv)[..., : len(source)]
        target[...] = np.matmul(flat, source.transpose(1, 2, 0)).transpose(1, 0, 2)
    return out


def row_elements(channels: int, dtype: type | np.dtype) -> int:
    """From one tile of V to the next; a register more than the channels, so that rows do not share cache sets."""
    vl = lanes(dtype)
    return (-(-channels // vl) + 1) * vl


def scratch_elements(channels: int, block_tiles: int, m: int, dtype: type | np.dtype) -> int:
    """What a thread needs for V, M, a border tile of the input, one of the output and one of the residual."""
    vl, points = lanes(dtype), (m + 2) ** 2
    return points * block_tiles * (row_elements(channels, dtype) + WIDEST * vl) + (points + 2 * m * m) * vl


class _Vectors:
    """Arithmetic of the transforms on LLVM vectors."""

    def __init__(self, builder, vec):
        self.builder, self.vec = builder, vec

    def fma(self, k, x, y):
        return _fma(self.builder, ir.Constant(self.vec, [float(k)] * self.vec.count), x, y)

    def add(self, x, y):
        return self.builder.fadd(x, y)

    def sub(self, x, y):
        return self.builder.fsub(x, y)


def _input_4(o, a, b, c, d, e, f):
    p, q, r, s = o.fma(-4, c, e), o.fma(-4, b, d), o.sub(e, c), o.sub(d, b)
    first, last = o.fma(-5, c, o.fma(4, a, e)), o.fma(4, b, o.fma(-5, d, f))
    return first, o.add(p, q), o.sub(p, q), o.fma(2, s, r), o.fma(-2, s, r), last


def _input_2(o, a, b, c, d):
    return o.sub(a, c), o.add(b, c), o.sub(c, b), o.sub(b, d)


def _output_4(o, a, b, c, d, e, f):
    s, q, m, n = o.add(b, c), o.add(d, e), o.sub(b, c), o.sub(d, e)
    return o.add(a, o.add(s, q)), o.fma(2, n, m), o.fma(4, q, s), o.add(o.fma(8, n, m), f)


def _output_2(o, a, b, c, d):
    return o.add(a, o.add(b, c)), o.sub(o.sub(b, c), d)


TRANSFORMS = {2: (_input_2, _output_2), 4: (_input_4, _output_4)}


def _intrinsics(m):
    """(input transform, output transform with epilogue) of one tile, one register of channels, as straight code."""
    to_points, to_outputs = TRANSFORMS[m]
    n = m + 2

    @intrinsic
    def input_tile(typingctx, x, x_h, x_pixel, v, v_point):
        """v[(i, j) * v_point] from the (m + 2)^2 inputs x[i*x_h + j*x_pixel]."""

        def codegen(context, b, sig, args):
            x, x_h, x_pixel, v, v_point = args
            vec = _llvm_vector(sig.args[0].dtype)
            o = _Vectors(b, vec)

            def at(i, j):
                return b.add(b.mul(x_h, ir.Constant(I64, i)), b.mul(x_pixel, ir.Constant(I64, j)))

            columns = [to_points(o, *[_load(b, x, at(i, j), vec) for i in range(n)]) for j in range(n)]
            for i in range(n):
                for j, value in enumerate(to_points(o, *[column[i] for column in columns])):
                    _store(b, value, v, b.mul(v_point, ir.Constant(I64, i * n + j)))
            return context.get_dummy_value()

        return types.void(x, types.int64, types.int64, v, types.int64), codegen

    @intrinsic
    def output_tile(typingctx, p, p_point, bias, r, r_h, r_pixel, y, y_h, y_pixel, alpha, lo, hi):
        """y[i*y_h + j*y_pixel] of a tile: back-transform + bias + r (may be null), leaky(alpha), clamp(lo, hi)."""
        i64 = types.int64
        sig = types.void(p, i64, bias, r, i64, i64, y, i64, i64, p.dtype, p.dtype, p.dtype)

        def codegen(context, b, sig, args):
            p, p_point, bias, r, r_h, r_pixel, y, y_h, y_pixel, alpha, lo, hi = args
            vec = _llvm_vector(sig.args[0].dtype)
            o = _Vectors(b, vec)
            zero = ir.Constant(vec, [0.0] * vec.count)
            start = _load(b, bias, ir.Constant(I64, 0), vec)
            slope, low, high = (_splat(b, s, vec) for s in (alpha, lo, hi))

            def point(i, j):
                return _load(b, p, b.mul(p_point, ir.Constant(I64, i * n + j)), vec)

            def at(stride_h, stride, i, j):
                return b.add(b.mul(stride_h, ir.Constant(I64, i)), b.mul(stride, ir.Constant(I64, j)))

            columns = [to_outputs(o, *[point(i, j) for i in range(n)]) for j in range(n)]
            cells = {}
            for i in range(m):
                for j, value in enumerate(to_outputs(o, *[column[i] for column in columns])):
                    cells[i, j] = cgutils.alloca_once(b, vec)
                    b.store(b.fadd(value, start), cells[i, j])
            with b.if_then(b.icmp_unsigned("!=", b.ptrtoint(r, I64), ir.Constant(I64, 0))):
                for (i, j), cell in cells.items():
                    b.store(b.fadd(b.load(cell), _load(b, r, at(r_h, r_pixel, i, j), vec)), cell)
            for (i, j), cell in cells.items():
                value = b.load(cell)
                value = b.select(b.fcmp_ordered("<", value, zero), b.fmul(value, slope), value)
                _store(b, _clamp(b, value, low, high), y, at(y_h, y_pixel, i, j))
            return context.get_dummy_value()

        return sig, codegen

    return input_tile, output_tile


@inline
def _copy(src, src_h, src_pixel, dst, dst_h, dst_pixel, rows, columns):
    """Registers of a rectangle of pixels."""
    for i in range(rows):
        for j in range(columns):
            store(dst, i * dst_h + j * dst_pixel, load(src, i * src_h + j * src_pixel))


def _make(dtype, m):
    vl, size, number = lanes(dtype), np.dtype(dtype).itemsize, np.dtype(dtype).type
    n, points, m_row = m + 2, (m + 2) ** 2, WIDEST * lanes(dtype)
    input_tile, output_tile = _intrinsics(m)

    def winograd(args, thread, threads):
        a = carray(args, 1)[0]
        tile_first, tile_width = as_pointer(a.tile_first, np.int64), as_pointer(a.tile_width, np.int64)
        tile_pixels = as_pointer(a.tile_pixels, np.int64)
        v_row = (a.in_blocks + 1) * vl
        v_point, m_point = a.block_tiles * v_row, a.block_tiles * m_row
        v_at = a.scratch + thread * a.scratch_thread
        m_at = v_at + points * v_point * size
        edge = m_at + points * m_point * size
        edge_y = edge + points * vl * size
        edge_r = edge_y + m * m * vl * size
        zeros, edge_in = as_pointer(a.zeros, dtype), as_pointer(edge, dtype)
        alpha, lo, hi = number(a.alpha), number(a.lo), number(a.hi)
        image = a.tiles_h * a.tiles_w
        items = a.blocks * a.tiles
        held = -1
        for item in range(items * thread // threads, items * (thread + 1) // threads):
            block, t = item // a.tiles, item % a.tiles
            tile0 = a.total * block // a.blocks
            count = a.total * (block + 1) // a.blocks - tile0
            if block != held:
                held = block
                for q in range(count):
                    tile = (tile0 + q) % image
                    h = tile // a.tiles_w * m + a.origin_h
                    w = tile % a.tiles_w * m + a.origin_w
                    i0, i1 = max(0, -h), max(0, min(n, a.in_h - h))
                    j0, j1 = max(0, -w), max(0, min(n, a.in_w - w))
                    inside = i0 == 0 and j0 == 0 and i1 == n and j1 == n
                    x = a.x + ((tile0 + q) // image * a.x_batch + h * a.x_h + w * a.x_pixel) * size
                    if not inside:
                        for i in range(points):
                            store(edge_in, i * vl, broadcast(number(0)))
                    for c in range(a.in_blocks):
                        v = as_pointer(v_at + (q * v_row + c * vl) * size, dtype)
                        at = x + c * a.x_block * size
                        if inside:
                            input_tile(as_pointer(at, dtype), a.x_h, a.x_pixel, v, v_point)
                        else:
                            at += (i0 * a.x_h + j0 * a.x_pixel) * size
                            to = as_pointer(edge + (i0 * n + j0) * vl * size, dtype)
                            _copy(as_pointer(at, dtype), a.x_h, a.x_pixel, to, n * vl, vl, i1 - i0, j1 - j0)
                            input_tile(edge_in, n * vl, vl, v, v_point)
            v0, nv, pixels = get(tile_first, t), get(tile_width, t), get(tile_pixels, t)
            pieces = (count + pixels - 1) // pixels
            panel = a.channels * nv * vl * size
            lines = (panel // 64 + pieces - 1) // pieces
            for p in range(points):
                weights = a.w + v0 * vl * points * a.channels * size + p * panel
                ahead = weights + panel  # the next point follows in memory
                for piece in range(pieces):
                    q0, q1 = count * piece // pieces, count * (piece + 1) // pieces
                    for line in range(lines):
                        prefetch(ahead + line * 64)
                    ahead += lines * 64
                    register_tile(
                        q1 - q0, nv, as_pointer(v_at + (p * v_point + q0 * v_row) * size, dtype),
                        as_pointer(weights, dtype), as_pointer(m_at + (p * m_point + q0 * m_row) * size, dtype),
                        as_pointer(0, dtype), zeros, v_row, 0, 0, 0, 0, 1, a.channels, a.channels, 0, 1, 0, 1, 1, 1, 1,
                        m_row, vl, 0, 0, vl, True, False, alpha, lo, hi,
                    )  # fmt: skip
            for q in range(count):
                tile = (tile0 + q) % image
                batch = (tile0 + q) // image
                h, w = tile // a.tiles_w * m, tile % a.tiles_w * m
                rows, columns = min(m, a.out_h - h), min(m, a.out_w - w)
                for k in range(nv):
                    p = as_pointer(m_at + (q * m_row + k * vl) * size, dtype)
                    bias = as_pointer(a.bias + (v0 + k) * vl * size, dtype)
                    y = as_pointer(
                        a.y + (batch * a.y_batch + (v0 + k) * a.y_block + h * a.y_h + w * a.y_pixel) * size, dtype
                    )
                    r = a.residual
                    if r != 0:
                        r += (batch * a.r_batch + (v0 + k) * a.r_block + h * a.r_h + w * a.r_pixel) * size
                    if rows == m and columns == m:
                        output_tile(
                            p, m_point, bias, as_pointer(r, dtype), a.r_h, a.r_pixel, y, a.y_h, a.y_pixel,
                            alpha, lo, hi,
                        )  # fmt: skip
                    else:
                        to, own = as_pointer(edge_y, dtype), np.int64(0)
                        if r != 0:
                            own = edge_r
                            _copy(
                                as_pointer(r, dtype), a.r_h, a.r_pixel, as_pointer(own, dtype), m * vl, vl, rows,
                                columns,
                            )  # fmt: skip
                        output_tile(
                            p, m_point, bias, as_pointer(own, dtype), m * vl, vl, to, m * vl, vl, alpha, lo, hi
                        )
                        _copy(to, m * vl, vl, y, a.y_h, a.y_pixel, rows, columns)

    winograd.__name__ = f"winograd_{m}x{m}_{np.dtype(dtype).name}"
    return kernel(WINOGRAD)(winograd)


KERNELS = {m: _make(np.float32, m) for m in (4, 2)}
"""By m."""
