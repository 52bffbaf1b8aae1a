"""Convolution and products that are always legal: plain layout, any geometry, operands computed at run time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sigconv.geometry import TransposedAxis
from sigconv.kernels.cpu import portable as kernels
from sigconv.planner.build import Builder
from sigconv.planner.candidates import Candidate, Cost, attach
from sigconv.planner.fuse import Activation, Unit
from sigconv.planner.lower.cpu import elementwise
from sigconv.planner.lower.cpu.direct import (
    UNIT_AXIS,
    conv_window,
    float_type,
    known,
    spatial_strides,
    transposed_window,
)
from sigconv.planner.lower.cpu.reduce import single
from sigconv.planner.tensors import Address, Tensor, c_strides

SPEED = 2.5e9
"""Operations per second that predictions assume of the portable kernels."""


def finish(b: Builder, y: Tensor, residual: Tensor | None, activation: Activation) -> None:
    """What a kernel without an epilogue leaves to do, in place: + residual, leaky, clamp."""
    a = activation
    program: list[Any] = [("add", 8, (0, 1), ())] if residual else []
    if a.alpha != 1.0:
        program.append(("leaky_relu", 8, (program[-1][1] if program else 0,), (a.alpha,)))
    if a.lo > -math.inf or a.hi < math.inf:
        program.append(("clip", 8, (program[-1][1] if program else 0,), (a.lo, a.hi)))
    if program:
        operands = [y, *([residual] if residual else [])]
        elementwise.emit(b, program, [(t.address, t.physical()[1]) for t in operands], y, len(program))


def clamp_only(unit: Unit) -> tuple[float, float] | None:
    """The activation as a clamp, if a kernel that only clamps does all of the epilogue."""
    a = unit.activation
    return (a.lo, a.hi) if not unit.residual and a.alpha == 1.0 else None


def _legal_conv(unit: Unit, b: Builder) -> str | None:
    reason = known(unit, b) or float_type(unit, b)
    rank = 0 if reason else len(b.shape(unit.node.inputs[0])) - 2
    if reason or not 1 <= rank <= 3:
        return reason or f"{rank} spatial axes"
    dynamic_bias = len(unit.node.inputs) > 2 and unit.node.inputs[2] and not b.is_constant(unit.node.inputs[2])
    return "bias is not constant but fused with one" if dynamic_bias and unit.bias is not None else None


def _cost_conv(unit: Unit, b: Builder) -> Cost:
    x, w, y = (b.shape(n) for n in (unit.node.inputs[0], unit.node.inputs[1], unit.output))
    pixels = math.prod(x[2:]) if unit.node.op == "ConvTranspose" else math.prod(y[2:])
    flops = 2.0 * y[0] * math.prod(w) * pixels
    nbytes = float(sum(b.nbytes(n) for n in (*unit.inputs, unit.output)))
    return Cost(flops, nbytes, flops / SPEED)


def bias_field(unit: Unit, b: Builder) -> Address | np.ndarray | int:
    """The bias as a kernel field: a constant, a value computed at run time, or 0."""
    own = unit.node.inputs[2] if len(unit.node.inputs) > 2 else ""
    if own and not b.is_constant(own):
        return b.plain(own).address
    parts = [p for p in (b.constant(own).reshape(-1) if own else None, unit.bias) if p is not None]
    return np.ascontiguousarray(sum(parts[1:], parts[0]), dtype=b.dtype(unit.output)) if parts else 0


def _lower_conv(unit: Unit, b: Builder) -> None:
    transposed = unit.node.op == "ConvTranspose"
    w = b.shape(unit.node.inputs[1])
    groups = int(unit.node.attrs.get("group", 1))
    x, weights = b.plain(unit.node.inputs[0]), b.plain(unit.node.inputs[1])
    r = b.plain(unit.residual) if unit.residual else None
    y = b.new(unit.output, 1, (0, 0))
    axes: Sequence[Any] = transposed_window(unit, b).axes if transposed else conv_window(unit, b).axes
    padded = (*[TransposedAxis(1, 1, 1, 1, 0, 0, 1) if transposed else UNIT_AXIS] * (3 - len(axes)), *axes)
    taps = math.prod(w[2:])
    inputs, outputs = x.shape[1] // groups, y.shape[1] // groups
    strides = (taps, outputs * taps) if transposed else (inputs * taps, taps)
    xs, ys = spatial_strides(x), spatial_strides(y)
    clamp = clamp_only(unit)
    lo, hi = clamp or (-math.inf, math.inf)
    f32, f64 = (
        (kernels.conv_transpose_portable_f32, kernels.conv_transpose_portable_f64)
        if transposed
        else (kernels.conv_portable_f32, kernels.conv_portable_f64)
    )
    fields = {
        f"{field}_{dim}": getattr(axis, field)
        for dim, axis in zip("dhw", padded, strict=True)
        for field in kernels.AXIS
    }
    b.emit(
        single(f32, f64, x.dtype), x=x.address, w=weights.address, bias=bias_field(unit, b), y=y.address,
        batch=x.shape[0], groups=groups, inputs=inputs, outputs=outputs, x_batch=xs.batch, x_channel=xs.block,
        x_d=xs.d, x_h=xs.h, y_batch=ys.batch, y_channel=ys.block, y_d=ys.d, y_h=ys.h,
        w_group=inputs * outputs * taps, w_output=strides[0], w_input=strides[1], lo=lo, hi=hi, **fields,
    )  # fmt: skip
    if clamp is None:
        finish(b, y, r, unit.activation)


attach(Candidate("portable", ("Conv", "ConvTranspose"), _legal_conv, _cost_conv, _lower_conv))


# --- products --------------------------------------------------------------------------------------------------------
def _legal_matmul(unit: Unit, b: Builder) -> str | None:
    reason = known(unit, b) or float_type(unit, b)
    if reason:
        return reason
    if unit.bias is not None or len(unit.members) > 1:
        return "an epilogue"
    a, w = b.shape(unit.node.inputs[0]), b.shape(unit.node.inputs[1])
    return (
        None if len(a) >= 2 and len(w) >= 2 and len(b.shape(unit.output)) <= 4 else "fewer than 2 or more than 4 axes"
    )


def _cost_matmul(unit: Unit, b: Builder) -> Cost:
    flops = 2.0 * math.prod(b.shape(unit.output)) * b.shape(unit.node.inputs[0])[-1]
    nbytes = float(sum(b.nbytes(n) for n in (*unit.inputs, unit.output)))
    return Cost(flops, nbytes, flops / (2 * SPEED) + 1e-7)


def _lower_matmul(unit: Unit, b: Builder) -> None:
    a, w = b.plain(unit.node.inputs[0]), b.plain(unit.node.inputs[1])
    y = b.new(unit.output, 1, (0, 0))

    def four(t: Tensor) -> tuple[int, ...]:
        """Strides over (batch, batch, row, column), 0 where broadcast."""
        lead = 4 - len(t.shape)
        strides = (*[0] * lead, *c_strides(t.shape))
        return tuple(0 if i < 2 and ((1,) * lead + t.shape)[i] == 1 else s for i, s in enumerate(strides))

    full = (1,) * (4 - len(y.shape)) + y.shape
    sa, sb, sy = four(a), four(w), four(y)
    b.emit(
        single(kernels.matmul_portable_f32, kernels.matmul_portable_f64, y.dtype), a=a.address, b=w.address,
        y=y.address, batch0=full[0], batch1=full[1], m=full[2], k=a.shape[-1], n=full[3], a_batch0=sa[0],
        a_batch1=sa[1], a_m=sa[2], a_k=sa[3], b_batch0=sb[0], b_batch1=sb[1], b_k=sb[2], b_n=sb[3], y_batch0=sy[0],
        y_batch1=sy[1], y_m=sy[2], y_n=sy[3],
    )  # fmt: skip


attach(Candidate("portable", ("MatMul",), _legal_matmul, _cost_matmul, _lower_matmul))
