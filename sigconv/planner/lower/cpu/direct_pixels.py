"""Convolution to fewer channels than a register holds: pixels in the lanes."""

from __future__ import annotations

import math

import numpy as np

from sigconv.kernels.cpu import direct_pixels as kernels
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
    legal_constant,
    margin_of,
    spatial_strides,
    three,
)  # fmt: skip
from sigconv.planner.tensors import Address, Tensor


def _legal(unit: Unit, b: Builder) -> str | None:
    reason = legal_constant(unit, b)
    if reason:
        return reason
    *_, w = axes = conv_window(unit, b).axes
    if int(unit.node.attrs.get("group", 1)) != 1 or len(axes) > 2 or w.stride != 1:
        return "not one group of rows of stride 1"
    vl = lanes(b.dtype(unit.output))
    return None if w.output >= vl else f"rows of {w.output} pixels do not fill a register of {vl}"


def _cost(unit: Unit, b: Builder) -> Cost:
    y, w = b.shape(unit.output), b.shape(unit.node.inputs[1])
    flops = 2.0 * math.prod(y) * math.prod(w[1:])
    nbytes = float(sum(b.nbytes(n) for n in (*unit.inputs, unit.output)))
    vl = lanes(b.dtype(unit.output))
    used = y[-1] / (-(-y[-1] // vl) * vl)
    seconds = flops / (PEAK * used * {1: 0.4, 2: 0.7}.get(y[1], 0.8)) + nbytes / 4e10
    if not has_layout(b, unit.node.inputs[0], 1):
        seconds += b.nbytes(unit.node.inputs[0]) / 4e9
    return Cost(flops, nbytes, seconds)


def _lower(unit: Unit, b: Builder) -> None:
    weights = b.constant(unit.node.inputs[1])
    axes = conv_window(unit, b).axes
    _, h, w = three(axes)
    weights = weights.reshape(*weights.shape[:2], h.kernel, w.kernel)
    m, c = weights.shape[:2]
    item, vl = weights.dtype.itemsize, lanes(weights.dtype)
    x = b.planar(unit.node.inputs[0], margin_of(w))
    r = b.planar(unit.residual) if unit.residual else None
    y = b.new(unit.output)
    own = bias_of(unit, b, m, weights.dtype)
    channels = kernels.tiles(m)
    vectors = -(-w.output // vl)
    rows = np.array([max(1, kernels.TILE[n] // vectors) for n in channels.tolist()], np.int64)
    columns = np.minimum(np.arange(vectors) * vl, w.output - vl)

    def places(t: Tensor | None, stride: int) -> np.ndarray:
        height = spatial_strides(t).h * stride if t else 0
        return (np.arange(rows.max())[:, None] * height + columns).ravel()

    kh_lo, kh_hi = h.tap_ranges()
    xs, ys = spatial_strides(x), spatial_strides(y)
    rs = spatial_strides(r) if r else None
    flops = 2.0 * y.shape[0] * m * c * h.kernel * w.kernel * h.output * w.output
    b.emit(
        kernels.direct_pixels_f32 if item == 4 else kernels.direct_pixels_f64,
        width=min(b.threads, int(flops // GRAIN) + 1),
        x=Address(x.buffer, x.address.offset - w.before * item), w=kernels.pack(weights),
        bias=own if isinstance(own, np.ndarray) else np.zeros(m, weights.dtype), y=y.address,
        residual=r.address if r else 0, batch=x.shape[0], channels=c, KH=h.kernel, KW=w.kernel, out_h=h.output,
        vectors=vectors, stride_h=h.stride, origin_h=-h.before, kh_lo=kh_lo, kh_hi=kh_hi, x_batch=xs.batch,
        x_plane=xs.block, x_h=xs.h, x_kh=xs.h * h.dilation, x_kw=w.dilation, y_batch=ys.batch, y_plane=ys.block,
        y_h=ys.h, r_batch=rs.batch if rs else 0,
        r_plane=rs.block if rs else 0, r_h=rs.h if rs else 0, x_at=places(x, h.stride),
        y_at=places(y, 1), r_at=places(r, 1), tiles=len(channels), tile_first=np.cumsum(channels) - channels,
        tile_channels=channels, tile_rows=rows, alpha=unit.activation.alpha, lo=unit.activation.lo,
        hi=unit.activation.hi,
    )  # fmt: skip


attach(Candidate("direct_pixels", ("Conv",), _legal, _cost, _lower))
