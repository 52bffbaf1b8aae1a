"""3x3 convolution of stride 1 by Winograd's F(4x4, 3x3) and F(2x2, 3x3)."""

from __future__ import annotations

from functools import partial

import numpy as np

from sigconv.kernels.cpu import winograd as kernels
from sigconv.kernels.cpu.direct import tiles
from sigconv.kernels.simd import lanes
from sigconv.planner.build import Builder
from sigconv.planner.candidates import Candidate, Cost, attach
from sigconv.planner.fuse import Unit
from sigconv.planner.lower.cpu.direct import (
    GRAIN,
    PEAK,
    bias_of,
    conv_window,
    has_layout,
    legal_conv,
    spatial_strides,
)

L2_BYTES = 1024 * 1024
"""What the transformed tiles of a work item may take, so that they stay in L2 beside the weights that stream past."""
FEWEST, MOST = 24, 192
"""Tiles of a work item: fewer would read the weights too often, more would gain nothing."""
TRANSFORM = {4: 45e-9, 2: 20e-9}
"""Seconds a tile and register take on the way there; the way back takes as long."""
STREAM = 1.2e10
"""Bytes per second of weights that do not stay in L2."""


def _tiles(unit: Unit, b: Builder, m: int) -> tuple[int, int]:
    h, w = b.shape(unit.output)[2:]
    return -(-h // m), -(-w // m)


def _blocks(total: int, channels: int, m: int, threads: int) -> int:
    """Work items along the tiles: as even as can be, and a multiple of ``threads`` where there are enough."""
    vl = lanes(np.float32)
    a_tile = 4 * (m + 2) ** 2 * (channels + kernels.WIDEST * vl)
    most = min(MOST, max(FEWEST, L2_BYTES // a_tile))
    blocks = -(-total // most)
    return -(-blocks // threads) * threads if blocks > 1 and total >= threads * FEWEST // 2 else blocks


def _legal(unit: Unit, b: Builder) -> str | None:
    reason = legal_conv(unit, b)
    if reason:
        return reason
    if b.dtype(unit.output) != np.float32:
        return f"dtype {b.dtype(unit.output)}, takes float32"
    if int(unit.node.attrs.get("group", 1)) != 1:
        return "groups"
    axes = conv_window(unit, b).axes
    shapes = [(a.kernel, a.stride, a.dilation) for a in axes]
    return None if shapes == [(3, 1, 1)] * 2 else "takes 3x3 windows of stride and dilation 1"


def _cost(unit: Unit, b: Builder, m: int) -> Cost:
    n, channels = b.shape(unit.output)[:2]
    c, vl = b.shape(unit.node.inputs[1])[1], lanes(np.float32)
    th, tw = _tiles(unit, b, m)
    total, points = n * th * tw, (m + 2) ** 2
    c_blocks, k_blocks = -(-c // vl), -(-channels // vl)
    flops = 2.0 * points * total * c * k_blocks * vl
    nbytes = float(sum(b.nbytes(i) for i in (*unit.inputs, unit.output)))
    weights = 4.0 * points * c * k_blocks * vl
    transforms = total * (c_blocks + k_blocks) * TRANSFORM[m]
    streamed = weights * _blocks(total, c, m, 1) / STREAM
    seconds = max(flops / (PEAK * 0.85), streamed) + transforms + nbytes / 4e10
    if not has_layout(b, unit.node.inputs[0], vl):
        seconds += b.nbytes(unit.node.inputs[0]) / 4e9
    return Cost(flops, nbytes, seconds)


def _lower(unit: Unit, b: Builder, m: int) -> None:
    weights = b.constant(unit.node.inputs[1])
    channels, c = weights.shape[:2]
    vl, dtype = lanes(weights.dtype), weights.dtype
    h, w = conv_window(unit, b).axes
    x = b.blocked(unit.node.inputs[0])
    r = b.blocked(unit.residual) if unit.residual else None
    y = b.new(unit.output, vl)
    xs, ys, rs = spatial_strides(x), spatial_strides(y), spatial_strides(r or y)
    th, tw = _tiles(unit, b, m)
    total = x.shape[0] * th * tw
    first, width, pixels = tiles(channels, dtype)
    flops = 2.0 * (m + 2) ** 2 * total * c * channels
    threads = min(b.threads, int(flops // GRAIN) + 1)
    blocks = _blocks(total, c, m, threads)
    block_tiles = -(-total // blocks)
    bias = np.zeros(-(-channels // vl) * vl, dtype)
    own = bias_of(unit, b, channels, dtype)
    if own is not None:
        bias[:channels] = own
    part = -(-kernels.scratch_elements(c, block_tiles, m, dtype) * dtype.itemsize // 64) * 64
    b.emit(
        kernels.KERNELS[m], width=threads, x=x.address, w=kernels.pack(weights, m), bias=bias, y=y.address,
        residual=r.address if r else 0, scratch=b.workspace(part * b.threads), scratch_thread=part,
        zeros=np.zeros(kernels.WIDEST * vl, dtype), tiles_h=th, tiles_w=tw, total=total, block_tiles=block_tiles,
        blocks=blocks, channels=c, in_blocks=x.blocks, in_h=h.size, in_w=w.size, out_h=h.output, out_w=w.output,
        origin_h=-h.before, origin_w=-w.before, x_batch=xs.batch, x_block=xs.block, x_h=xs.h, x_pixel=xs.pixel,
        y_batch=ys.batch, y_block=ys.block, y_h=ys.h, y_pixel=ys.pixel, r_batch=rs.batch, r_block=rs.block,
        r_h=rs.h, r_pixel=rs.pixel, tiles=len(first), tile_first=first, tile_width=width, tile_pixels=pixels,
        alpha=unit.activation.alpha, lo=unit.activation.lo, hi=unit.activation.hi,
    )  # fmt: skip


for _m, _error in ((4, 1e-4), (2, 1e-5)):
    attach(
        Candidate(
            f"winograd_{_m}x{_m}",
            ("Conv",),
            _legal,
            partial(_cost, m=_m),
            partial(_lower, m=_m),
            accuracy="winograd",
            error=_error,
        )
    )
