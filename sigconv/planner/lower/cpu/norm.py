"""Layer, instance and group normalisation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sigconv.kernels.cpu import norm as kernels
from sigconv.planner.build import Builder
from sigconv.planner.candidates import Candidate, attach
from sigconv.planner.fuse import Unit
from sigconv.planner.lower.cpu.direct import spatial_strides
from sigconv.planner.lower.cpu.reduce import first_float, single, spatial_input, streaming, width
from sigconv.planner.tensors import Tensor


def _parameters(unit: Unit, b: Builder) -> list[np.ndarray | None]:
    """scale and bias as constants (None: absent)."""
    names = [*unit.node.inputs[1:3], "", ""][:2]
    return [b.constant(n) if n else None for n in names]


def _legal(unit: Unit, b: Builder) -> str | None:
    reason = first_float(unit, b)
    if reason:
        return reason
    if len([o for o in unit.outputs if o]) > 1:
        return "mean or deviation is asked for"
    if any(n and not b.is_constant(n) for n in unit.node.inputs[1:3]):
        return "scale or bias is not constant"
    if unit.node.op == "LayerNormalization":
        shape = b.shape(unit.node.inputs[0])
        n = math.prod(shape[int(unit.node.attrs.get("axis", -1)) % len(shape) :])
        return None if all(p is None or p.size == n for p in _parameters(unit, b)) else "scale or bias broadcasts"
    return None if 3 <= len(b.shape(unit.node.inputs[0])) <= 5 else "no spatial axes"


def _lower_layer(unit: Unit, b: Builder) -> None:
    x = b.plain(unit.node.inputs[0])
    y = b.new(unit.output, 1, (0, 0))
    n = math.prod(x.shape[int(unit.node.attrs.get("axis", -1)) % len(x.shape) :])
    scale, bias = (0 if p is None else np.ascontiguousarray(p.reshape(-1)) for p in _parameters(unit, b))
    b.emit(
        single(kernels.layer_norm_f32, kernels.layer_norm_f64, x.dtype), width=width(b, b.nbytes(unit.output)),
        src=x.address, dst=y.address, scale=scale, bias=bias, rows=math.prod(x.shape) // n, n=n, src_row=n,
        dst_row=n, epsilon=float(unit.node.attrs.get("epsilon", 1e-5)),
    )  # fmt: skip


def _emit_group(b: Builder, unit: Unit, x: Tensor, y: Tensor, groups: int) -> None:
    """Normalise each group of channels of [N, C, spatial…]; blocked only where every channel is its own group."""
    xs, ys = spatial_strides(x), spatial_strides(y)
    channels = 1 if x.block > 1 else x.shape[1] // groups
    inner = (*[1] * (5 - len(x.shape)), *x.shape[2:])
    size = x.blocks * x.block

    def table(p: np.ndarray | None) -> np.ndarray | int:
        if p is None:
            return 0
        full = np.zeros(size, x.dtype)
        full[: p.size] = p.reshape(-1)
        return full

    scale, bias = (table(p) for p in _parameters(unit, b))
    layout: dict[str, Any] = {}
    for side, s in (("src", xs), ("dst", ys)):
        layout.update(
            {
                f"{side}_batch": s.batch,
                f"{side}_group": s.block * channels,
                f"{side}_channel": s.block,
                f"{side}_plane": s.d,
                f"{side}_row": s.h,
            }
        )
    b.emit(
        single(kernels.group_norm_f32, kernels.group_norm_f64, x.dtype), width=width(b, b.nbytes(unit.output)),
        src=x.address, dst=y.address, scale=scale, bias=bias, lanes=x.block, batch=x.shape[0],
        groups=x.blocks if x.block > 1 else groups, channels=channels, planes=inner[0], rows=inner[1], cols=inner[2],
        epsilon=float(unit.node.attrs.get("epsilon", 1e-5)), **layout,
    )  # fmt: skip


def _lower_instance(unit: Unit, b: Builder) -> None:
    x = spatial_input(b, unit.node.inputs[0])
    _emit_group(b, unit, x, b.new(unit.output, x.block), x.shape[1])


def _lower_group(unit: Unit, b: Builder) -> None:
    x = b.plain(unit.node.inputs[0])
    _emit_group(b, unit, x, b.new(unit.output, 1, (0, 0)), int(unit.node.attrs["num_groups"]))


for _op, _lower in (
    ("LayerNormalization", _lower_layer),
    ("InstanceNormalization", _lower_instance),
    ("GroupNormalization", _lower_group),
):
    attach(Candidate("two_pass", (_op,), _legal, lambda u, b: streaming(u, b, 8.0), _lower))
