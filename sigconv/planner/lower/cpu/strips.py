"""A convolution, a depthwise one and a 1x1 one in strips of rows: MobileNets' inverted residuals and first layers.

Worth it where what lies between would leave the cache: a layer of MobileNetV2 at 112x112 writes and reads 4.8 MB for
0.3 MB of results.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sigconv.kernels.cpu import depthwise as depthwise_kernels
from sigconv.kernels.cpu import strips as kernels
from sigconv.kernels.jit import ensure
from sigconv.kernels.simd import lanes
from sigconv.planner.build import Builder
from sigconv.planner.candidates import Candidate, Cost, attach
from sigconv.planner.chain import CHAIN
from sigconv.planner.fuse import Unit
from sigconv.planner.lower.cpu import depthwise, direct
from sigconv.planner.lower.cpu.direct import bias_of, conv_window, legal_conv, margin_of, spatial_strides, three
from sigconv.planner.lower.cpu.portable import clamp_only
from sigconv.planner.lower.cpu.weights import bias_table
from sigconv.planner.tensors import Buffer, Tensor

CACHED = 1 << 20
"""Bytes in between, of all images, that stay in the cache anyway: nothing to gain."""
WEIGHTS = 128 << 10
"""Most bytes of weights: they are read again for every strip and must stay in the cache beside it."""
STRIP_BYTES = 384 << 10
"""Most bytes of a strip, of what the depthwise convolution reads and writes. From 256 to 512 KB all are as fast."""


def _legal(unit: Unit, b: Builder) -> str | None:
    expand, between, project = unit.parts
    for part in unit.parts:
        reason = legal_conv(part, b)
        if reason:
            return reason
        if not all(b.is_constant(n) for n in part.node.inputs[1:] if n):
            return "weights are not constant"
        if len(b.shape(part.output)) != 4 or b.dtype(part.output) != np.float32:
            return "not two spatial axes of float32"
    hidden = b.shape(expand.output)[1]
    if [int(p.node.attrs.get("group", 1)) for p in unit.parts] != [1, hidden, 1] or hidden == 1:
        return "not a convolution, a depthwise one and a convolution"
    if b.shape(between.output)[1] != hidden or clamp_only(between) is None or expand.residual:
        return "more than one filter a channel, or a residual or an activation in between"
    if any(a.kernel != 1 or a.stride != 1 or a.before or a.output != a.size for a in conv_window(project, b).axes):
        return "the last convolution is not 1x1"
    nbytes = b.nbytes(expand.output)
    if sum(b.nbytes(p.node.inputs[1]) for p in unit.parts) > WEIGHTS:
        return "too many weights to read again for every image"
    if nbytes < CACHED:
        return f"the {nbytes:,} bytes in between stay in the cache"
    return None if min(b.shape(project.output)[2:]) > 1 else "a lone row"


def _strip(unit: Unit, b: Builder) -> tuple[int, int]:
    """Output rows done at a time, and rows of the depthwise input that are kept."""
    rows = conv_window(unit.parts[1], b).axes[0]
    _, hidden, _, width = b.shape(unit.parts[0].output)
    row_bytes = 4 * (hidden * (width * rows.stride + b.shape(unit.output)[3]))
    strip = max(1, min(rows.output, STRIP_BYTES // row_bytes))
    needed = (strip - 1) * rows.stride + rows.extent
    return strip, min(rows.size, needed + strip * rows.stride)


def _cost(unit: Unit, b: Builder) -> Cost:
    """The operations of all three; what lies between goes to memory in none of them."""
    flops = sum(2.0 * math.prod(b.shape(p.output)) * math.prod(b.shape(p.node.inputs[1])[1:]) for p in unit.parts)
    nbytes = float(sum(b.nbytes(n) for n in (*unit.inputs, unit.output)))
    return Cost(flops, nbytes, flops / (0.9 * direct.PEAK) + nbytes / 4e10)


def _share(nbytes: int) -> int:
    return -(-nbytes // 64) * 64


def _lower(unit: Unit, b: Builder) -> None:
    first, middle, last = unit.parts
    vl, name = lanes(np.float32), first.node.inputs[0]
    planar = b.shape(name)[1] < vl // 2 or not direct.has_layout(b, name, vl)
    window = conv_window(middle, b)
    rows, columns = window.axes
    strip, capacity = _strip(unit, b)
    n, hidden, _, width = b.shape(first.output)
    blocks = -(-hidden // vl)
    margin = margin_of(columns)

    def kept(buffer_rows: int, row: int, margin: tuple[int, int]) -> Tensor:
        """What a thread keeps of a value in between; a stand-in whose address is an offset in the thread's share."""
        pixels = row + sum(margin)
        strides = (0, buffer_rows * pixels * vl, pixels * vl, vl)
        shape = (1, hidden, buffer_rows, row)
        return Tensor(Buffer("arena", 0), margin[0] * vl, np.dtype(np.float32), shape, strides, vl, margin)

    between, filtered = kept(capacity, width, margin), kept(strip, columns.output, (0, 0))
    x = (b.planar if planar else b.blocked)(name, margin_of(conv_window(first, b).axes[-1]))
    r = b.blocked(last.residual) if last.residual else None
    y = b.new(unit.output, vl)

    def product(part: Unit, x: Tensor, y: Tensor, r: Tensor | None) -> dict[str, Any]:
        weights = b.constant(part.node.inputs[1])
        axes = three(conv_window(part, b).axes)
        record = direct.fields(
            b, x=x.address, y=y.address, residual=r.address if r else None, batch=1, block=x.block,
            weights=weights.reshape(1, *weights.shape[:2], *(a.kernel for a in axes)),
            bias=bias_of(part, b, len(weights), weights.dtype), axes=axes, xs=spatial_strides(x), ys=spatial_strides(y),
            rs=spatial_strides(r) if r else None, activation=part.activation, flat=False,
        )  # fmt: skip
        return {**record, "chunks": 1}

    expand = {**product(first, x, between, None), "y": between.address.offset}
    middle_fields = depthwise.fields(middle, b, between, filtered)
    bias = bias_of(middle, b, hidden, between.dtype)
    filters = {**middle_fields, "x": middle_fields["x"].offset, "y": 0, "bias": bias_table(b, bias, 1, hidden, x.dtype)}
    project = {**product(last, filtered, y, r), "x": 0}
    expander, projector = (direct.kernel_of(record, x.dtype) for record in (expand, project))
    for record in (expand, filters, project):
        del record["width"]
    between_at = _share(kernels.RECORDS)
    filtered_at = between_at + _share(4 * blocks * between.strides[1])
    share = filtered_at + _share(4 * blocks * filtered.strides[1])
    segments = b.threads // math.gcd(b.threads, n)
    ensure((expander, depthwise_kernels.depthwise_f32, projector))
    b.emit(
        kernels.strips, width=min(b.threads, n * segments), expander=expander,
        depthwise=depthwise_kernels.depthwise_f32, projector=projector, batch=n, segments=segments, strip=strip,
        capacity=capacity, size=rows.size, origin=-rows.before, extent=rows.extent, stride=rows.stride,
        left=4 * margin[0] * vl, right=4 * margin[1] * vl, **b.own_scratch(share),
        between=between_at, filtered=filtered_at, expand=expand, filter=filters, project=project,
    )  # fmt: skip


attach(Candidate("strips", (CHAIN,), _legal, _cost, _lower))
