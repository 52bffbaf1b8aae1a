"""Depthwise convolution: as many groups as channels."""

from __future__ import annotations

from typing import Any

import numpy as np

from sigconv.kernels.cpu import depthwise as kernels
from sigconv.kernels.simd import lanes
from sigconv.planner.build import Builder
from sigconv.planner.candidates import Candidate, Cost, attach
from sigconv.planner.fuse import Unit
from sigconv.planner.lower.cpu.direct import (
    GRAIN,
    bias_of,
    conv_window,
    has_layout,
    legal_conv,
    margin_of,
    spatial_strides,
    three,
)  # fmt: skip
from sigconv.planner.lower.cpu.portable import clamp_only, finish
from sigconv.planner.lower.cpu.reduce import single
from sigconv.planner.lower.cpu.weights import bias_table, operand, pack_depthwise, packing_seconds
from sigconv.planner.tensors import Address, Tensor


def _legal(unit: Unit, b: Builder) -> str | None:
    reason = legal_conv(unit, b)
    if reason:
        return reason
    m, c = b.shape(unit.node.inputs[1])[:2]
    groups = int(unit.node.attrs.get("group", 1))
    return None if m == groups and c == 1 and groups > 1 else f"groups of {c} -> {m // groups} channels"


def _cost(unit: Unit, b: Builder) -> Cost:
    y, w = b.shape(unit.output), b.shape(unit.node.inputs[1])
    flops = 2.0 * float(np.prod(y)) * float(np.prod(w[2:]))
    nbytes = float(sum(b.nbytes(n) for n in (*unit.inputs, unit.output)))
    seconds = flops / 3e10 + nbytes / 4e10
    if not has_layout(b, unit.node.inputs[0], lanes(b.dtype(unit.output))):
        seconds += b.nbytes(unit.node.inputs[0]) / 4e9
    seconds += packing_seconds(b, unit.node.inputs[1:2])
    return Cost(flops, nbytes, seconds)


def _lower(unit: Unit, b: Builder) -> None:
    x = b.blocked(unit.node.inputs[0], margin_of(conv_window(unit, b).axes[-1]))
    r = b.blocked(unit.residual) if unit.residual else None
    y = b.new(unit.output, x.block)
    b.emit(single(kernels.depthwise_f32, kernels.depthwise_f64, x.dtype), **fields(unit, b, x, y))
    if clamp_only(unit) is None:
        finish(b, y, r, unit.activation)


def fields(unit: Unit, b: Builder, x: Tensor, y: Tensor) -> dict[str, Any]:
    """The record of the depthwise kernel, and the ``width`` of its step; of the epilogue, what a clamp can do."""
    d, h, w = three(conv_window(unit, b).axes)
    weights, source = operand(b, unit.node.inputs[1])
    xs, ys = spatial_strides(x), spatial_strides(y)
    bias = bias_of(unit, b, weights.shape[0], weights.dtype)
    lo, hi = clamp_only(unit) or (-np.inf, np.inf)
    kd, kh = d.tap_ranges(), h.tap_ranges()
    first = Address(x.buffer, x.address.offset - w.before * xs.pixel * x.dtype.itemsize)
    flops = 2.0 * float(np.prod(y.shape)) * float(np.prod(weights.shape[2:]))
    packed = kernels.pack(weights) if source is None else pack_depthwise(b, source)
    return dict(
        width=min(b.threads, int(flops / GRAIN * 2) + 1),
        x=first, w=packed, bias=0 if bias is None else bias_table(b, bias, 1, len(weights), x.dtype), y=y.address,
        batch=x.shape[0], blocks=x.blocks, out_d=d.output, out_h=h.output, out_w=w.output,
        kernel_d=d.kernel, kernel_h=h.kernel, kernel_w=w.kernel, stride_d=d.stride, stride_h=h.stride,
        origin_d=-d.before, origin_h=-h.before, kd_lo=kd[0], kd_hi=kd[1], kh_lo=kh[0], kh_hi=kh[1],
        x_batch=xs.batch, x_block=xs.block, x_d=xs.d, x_h=xs.h, x_kd=xs.d * d.dilation, x_kh=xs.h * h.dilation,
        x_kw=xs.pixel * w.dilation, x_pixel=xs.pixel * w.stride,
        y_batch=ys.batch, y_block=ys.block, y_d=ys.d, y_h=ys.h, y_pixel=ys.pixel, lo=lo, hi=hi,
    )  # fmt: skip


attach(Candidate("depthwise_blocked", ("Conv",), _legal, _cost, _lower))
