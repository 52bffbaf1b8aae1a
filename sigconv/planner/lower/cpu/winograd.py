"""3x3 and 5x5 convolution of stride 1 by Winograd's minimal filtering."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from sigconv.geometry import WindowAxis
from sigconv.kernels.cpu import direct, winograd
from sigconv.kernels.cpu.winograd import F2, F2_5, F4, Form
from sigconv.kernels.jit import Kernel
from sigconv.kernels.simd import lanes
from sigconv.planner.build import Builder
from sigconv.planner.candidates import Candidate, Cost, attach
from sigconv.planner.fuse import Unit, of_codes
from sigconv.planner.lower.cpu.direct import (
    L1_BYTES,
    PEAK,
    WIDEST,
    bias_of,
    conv_window,
    has_layout,
    legal_conv,
    spatial_strides,
)  # fmt: skip

CHUNK_BYTES = 2 << 20
"""What the points of a chunk of tiles may take, inputs and products together: about the L2 cache."""
CHUNK_TILES = 96
"""Tiles that a chunk has in any case: the weights are read once a chunk."""
TRANSFORM = 1e10
"""Bytes of points per second of the transforms at `PEAK`, fitted to layers of 3 to 512 channels."""


def _legal(unit: Unit, b: Builder, form: Form) -> str | None:
    reason = legal_conv(unit, b)
    if reason:
        return reason
    if not b.is_constant(unit.node.inputs[1]) or any(n and not b.is_constant(n) for n in unit.node.inputs[2:3]):
        return "weights are not constant"
    axes = conv_window(unit, b).axes
    if int(unit.node.attrs.get("group", 1)) != 1 or len(axes) != 2 or not all(_fits(a, form.r) for a in axes):
        return f"not one group of {form.r}x{form.r} taps with stride and dilation 1"
    if b.dtype(unit.output) != np.float32:
        return f"dtype {b.dtype(unit.output)}"
    return "sums of whole numbers stay exact" if of_codes(b.constant(unit.node.inputs[1])) else None


def _fits(axis: WindowAxis, taps: int) -> bool:
    return (axis.kernel, axis.stride, axis.dilation) == (taps, 1, 1)


def _tiles(form: Form, unit: Unit, b: Builder) -> tuple[int, int]:
    h, w = b.shape(unit.output)[2:]
    return -(-h // form.m), -(-w // form.m)


def _chunks(form: Form, unit: Unit, b: Builder) -> int:
    """Chunks of the tiles of all images, shared evenly among the threads where there are enough."""
    m, c = b.shape(unit.node.inputs[1])[:2]
    tiles = b.shape(unit.output)[0] * math.prod(_tiles(form, unit, b))
    per_tile = 4 * form.n**2 * (m + c)
    chunks = -(-tiles // max(CHUNK_TILES, CHUNK_BYTES // per_tile))
    if chunks % b.threads and tiles >= b.threads * CHUNK_TILES // 2:
        chunks = -(-chunks // b.threads) * b.threads
    return chunks


def _cost(unit: Unit, b: Builder, form: Form) -> Cost:
    x, y = b.shape(unit.node.inputs[0]), b.shape(unit.output)
    m, c = b.shape(unit.node.inputs[1])[:2]
    vl, square = lanes(np.float32), form.n**2
    tiles = y[0] * math.prod(_tiles(form, unit, b))
    blocks, out_blocks = -(-c // vl), -(-m // vl)
    flops = 2.0 * tiles * square * c * m
    nbytes = float(sum(b.nbytes(n) for n in (*unit.inputs, unit.output)))
    points = 4.0 * square * vl * tiles * (blocks + out_blocks)
    weights = 4.0 * square * c * out_blocks * vl
    seconds = 2.0 * tiles * square * c * out_blocks * vl / (PEAK * 0.95) + points / TRANSFORM
    seconds += weights * _chunks(form, unit, b) / (3e10 if weights <= CHUNK_BYTES else 6.5e9)
    if not has_layout(b, unit.node.inputs[0], vl):
        seconds += 4.0 * math.prod(x) / 4e9
    return Cost(flops, nbytes, seconds)


def _lower(unit: Unit, b: Builder, form: Form, kernel: Kernel) -> None:
    h, w = conv_window(unit, b).axes
    weights = b.constant(unit.node.inputs[1])
    m, c = weights.shape[:2]
    x = b.blocked(unit.node.inputs[0])
    r = b.blocked(unit.residual) if unit.residual else None
    y = b.new(unit.output, x.block)
    vl, square = x.block, form.n**2
    first, width, pixels = direct.tiles(m)
    bias = np.zeros((y.blocks + WIDEST) * vl, np.float32)  # then zeros, with which products start
    own = bias_of(unit, b, m, weights.dtype)
    if isinstance(own, np.ndarray):
        bias[:m] = own
    tiles_h, tiles_w = _tiles(form, unit, b)
    chunks = _chunks(form, unit, b)
    tiles = x.shape[0] * tiles_h * tiles_w
    chunk_tiles = -(-tiles // chunks)
    chunks = -(-tiles // chunk_tiles)
    slices = 1 if chunks >= b.threads else min(len(first), -(-b.threads // chunks))
    share = square * vl * (1 + chunk_tiles * (x.blocks + y.blocks))
    xs, ys = spatial_strides(x), spatial_strides(y)
    rs = spatial_strides(r) if r else None
    b.emit(
        kernel, width=min(b.threads, chunks * slices), x=x.address, w=winograd.transform(form, weights),
        bias=bias, y=y.address, residual=r.address if r else 0, points=b.workspace(4 * share * b.threads),
        points_thread=share, tiles=tiles, chunks=chunks, chunk_tiles=chunk_tiles, slices=slices, tiles_h=tiles_h,
        tiles_w=tiles_w, in_h=h.size, in_w=w.size, out_h=h.output, out_w=w.output, pad_h=h.before, pad_w=w.before,
        channels=c, blocks=x.blocks, out_blocks=y.blocks,
        pass_blocks=max(1, L1_BYTES // (4 * vl * vl * WIDEST)), x_batch=xs.batch, x_block=xs.block, x_h=xs.h,
        y_batch=ys.batch, y_block=ys.block, y_h=ys.h, r_batch=rs.batch if rs else 0, r_block=rs.block if rs else 0,
        r_h=rs.h if rs else 0, panels=len(first), tile_first=first, tile_width=width, tile_pixels=pixels,
        alpha=unit.activation.alpha, lo=unit.activation.lo, hi=unit.activation.hi,
    )  # fmt: skip


for _name, _form, _kernel, _error in (
    ("winograd_4x4", F4, winograd.winograd_4_f32, 1e-4),
    ("winograd_2x2", F2, winograd.winograd_2_f32, 1e-5),
    ("winograd_2x2_5x5", F2_5, winograd.winograd_2_of_5_f32, 1e-4),
):
    attach(
        Candidate(
            _name,
            ("Conv",),
            partial(_legal, form=_form),
            partial(_cost, form=_form),
            partial(_lower, form=_form, kernel=_kernel),
            accuracy="winograd",
            error=_error,
        )
    )
