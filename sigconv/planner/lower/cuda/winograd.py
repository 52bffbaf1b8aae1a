"""Convolutions of 3x3 and stride 1 by Winograd's F(4x4, 3x3): a transform, 36 products, a transform back."""

from __future__ import annotations

import math

import numpy as np

from sigconv.kernels.cuda import winograd as kernels
from sigconv.kernels.cuda.gemm import GEMM, TILES, Tile
from sigconv.kernels.cuda.limits import blocks
from sigconv.kernels.cuda.roofline import BANDWIDTH, LAUNCH
from sigconv.planner.build import Builder
from sigconv.planner.candidates import Cost
from sigconv.planner.device import DeviceBuilder
from sigconv.planner.fuse import Unit, of_codes
from sigconv.planner.lower.cpu.direct import conv_window
from sigconv.planner.lower.cuda.common import MOST_ELEMENTS, add, epilogue, tiled_seconds, traffic
from sigconv.planner.lower.cuda.convolution import Way, conv_operands, legal_product
from sigconv.planner.tensors import Tensor, c_strides

ERROR = 1e-4
"""What it adds to rounding, as a share of the output's scale: the CPU's figure for the same algorithm."""


def _tiles(unit: Unit, b: Builder) -> tuple[int, int, int]:
    """(all of them, rows, columns of an image)."""
    n, _, h, w = b.shape(unit.output)
    rows, columns = -(-h // kernels.OUT), -(-w // kernels.OUT)
    return n * rows * columns, rows, columns


def _legal(unit: Unit, b: Builder) -> str | None:
    reason = legal_product(unit, b, Way(TILES[0]))
    if reason:
        return reason
    w = b.shape(unit.node.inputs[1])
    if w[2:] != (3, 3) or int(unit.node.attrs.get("group", 1)) != 1:
        return "no 3x3 kernel of one group"
    if any(a.stride != 1 or a.dilation != 1 for a in conv_window(unit, b).axes):
        return "a stride or a dilation"
    if not b.is_constant(unit.node.inputs[1]):
        return "weights are known at run time only"
    if not np.isfinite(b.constant(unit.node.inputs[1])).all():
        return "weights are not finite"
    if of_codes(b.constant(unit.node.inputs[1])):
        return "weights are codes, whose sums are exact"
    most = kernels.POINTS * _tiles(unit, b)[0] * max(w[:2])
    return "more than 2^31 points" if most > MOST_ELEMENTS else None


def _tile(unit: Unit, b: Builder) -> tuple[Tile, float]:
    """The tile of the products that is predicted to be fastest, and their seconds."""
    m, channels = b.shape(unit.node.inputs[1])[:2]
    count = _tiles(unit, b)[0]
    return min(((t, tiled_seconds(t, m, count, channels, kernels.POINTS)) for t in TILES), key=lambda choice: choice[1])


def _cost(unit: Unit, b: Builder) -> Cost:
    m, channels = b.shape(unit.node.inputs[1])[:2]
    count, *_ = _tiles(unit, b)
    points = 4.0 * kernels.POINTS * count * (m + channels)
    nbytes = traffic(unit, b)
    flops = 2.0 * kernels.POINTS * count * m * channels
    seconds = _tile(unit, b)[1] + 2 * LAUNCH + (2 * points + nbytes) / BANDWIDTH
    return Cost(flops, nbytes, seconds)


def _lower(unit: Unit, b: DeviceBuilder) -> None:
    x, residual, bias = conv_operands(unit, b)
    y = b.new(unit.output)
    m, channels = b.shape(unit.node.inputs[1])[:2]
    count, rows, columns = _tiles(unit, b)
    top, left = (a.before for a in conv_window(unit, b).axes)
    g = kernels.WEIGHTS
    weights = np.einsum("ia,mcab,jb->ijmc", g, b.constant(unit.node.inputs[1]).astype(np.float64), g)
    u = np.ascontiguousarray(weights.reshape(kernels.POINTS, m, channels), np.float32)

    def points(size: int) -> Tensor:
        shape = (kernels.POINTS, size, count)
        buffer = b.new_buffer(4 * math.prod(shape))
        return Tensor(buffer, 0, x.dtype, shape, c_strides(shape))

    before, after = points(channels), points(m)
    b.launch(
        kernels.winograd_input_f32, (channels, blocks(count, channels)), [x, before], channels=channels, tiles=count,
        tiles_h=rows, tiles_w=columns, in_h=x.shape[2], in_w=x.shape[3], before_h=top, before_w=left,
    )  # fmt: skip
    tile, _ = _tile(unit, b)
    none = dict(c_m=0, c_n=0, c_batch0=0, c_batch1=0, has_residual=False, alpha=1.0, lo=-math.inf, hi=math.inf)
    b.launch(
        GEMM["float32", tile.name], (-(-count // tile.n), -(-m // tile.m), kernels.POINTS),
        [u, before, None, None, after], m=m, n=count, k=channels, a_m=channels, a_k=1, b_k=count, b_n=1,
        batch1=kernels.POINTS, a_batch0=0, a_batch1=m * channels, b_batch0=0, b_batch1=channels * count, scale=1.0,
        beta=0.0, **none,
    )  # fmt: skip
    b.launch(
        kernels.winograd_output_f32, (m, blocks(count, m)), [after, bias, residual, y], channels=m, tiles=count,
        tiles_h=rows, tiles_w=columns, out_h=y.shape[2], out_w=y.shape[3], has_bias=bias is not None,
        has_residual=residual is not None, **epilogue(unit),
    )  # fmt: skip


add("winograd_4x4", ("Conv",), _lower, _legal, _cost, "winograd", ERROR)
