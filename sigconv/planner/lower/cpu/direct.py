"""Convolution, transposed convolution and products by a constant, on the direct kernel."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from sigconv.geometry import TransposedWindow, Window, WindowAxis
from sigconv.kernels.cpu import direct as kernels
from sigconv.kernels.jit import Kernel
from sigconv.kernels.simd import lanes
from sigconv.planner.build import Builder
from sigconv.planner.candidates import Candidate, Cost, attach
from sigconv.planner.fuse import Activation, Unit, of_codes
from sigconv.planner.lower.cpu.weights import Source, bias_table, operand, pack_direct, packing_seconds
from sigconv.planner.tensors import Address, Tensor

L1_BYTES = 32 * 1024
"""What one pass of packed weights may take, so that it stays in L1 beside the rows it meets."""
L2_BYTES = 1024 * 1024
"""What the rows of a work item may take, so that they stay in L2 over all channel tiles and passes."""
PEAK = 1.0e11
"""Operations per second of one core that predictions assume; only ratios between candidates matter."""
ROW = 48
"""Pixels of a row where they can be cut anywhere: whole tiles of every width."""
GRAIN = 500_000
"""Operations worth a thread of their own."""

WIDEST = next(iter(kernels.TILE))
"""Registers of the widest tile."""

UNIT_AXIS = WindowAxis(1, 1, 1, 1, 0, 0, 1)


@dataclass(frozen=True, slots=True)
class Strides:
    """Element strides of a tensor as the kernel walks it."""

    batch: int
    group: int
    block: int
    d: int
    h: int
    pixel: int


def three(axes: Sequence[WindowAxis]) -> tuple[WindowAxis, WindowAxis, WindowAxis]:
    """1-D and 2-D windows as (D, H, W)."""
    padded = (*[UNIT_AXIS] * (3 - len(axes)), *axes)
    return padded[0], padded[1], padded[2]


def spatial_strides(t: Tensor, group: int = 0) -> Strides:
    """Of a tensor [N, C, spatial…] of up to three spatial axes."""
    inner = (*[0] * (5 - len(t.strides)), *t.strides[2:])
    return Strides(t.strides[0], group, t.strides[1], inner[0], inner[1], inner[2])


def margin_of(axis: WindowAxis) -> tuple[int, int]:
    """Zeros that must lie before and after a row so that every window of it can be read."""
    reach = (axis.output - 1) * axis.stride - axis.before + axis.extent
    return (max(0, axis.before), max(0, reach - axis.size)) if axis.output and axis.kernel else (0, 0)


def emit(b: Builder, **call: Any) -> None:
    """One call of the direct kernel; see `fields`."""
    record = fields(b, **call)
    b.emit(kernel_of(record, call["weights"].dtype), **record)


def kernel_of(record: dict[str, Any], dtype: np.dtype[Any]) -> Kernel:
    """The kernel for what `fields` gives: the one that takes most for granted of what holds."""
    unread = () if record["residual"] else ("r_pixel",)
    return next(
        kernel
        for kernel, settled in kernels.VARIANTS[dtype.type]
        if all(name in unread or np.all(record[name] == value) for name, value in settled.items())
    )


def fields(
    b: Builder, *, x: Address, weights: np.ndarray, bias: np.ndarray | Address | None, y: Address,
    residual: Address | None, batch: int, block: int, axes: tuple[WindowAxis, WindowAxis, WindowAxis],
    xs: Strides, ys: Strides, rs: Strides | None, activation: Activation, flat: bool, masked: bool = False,
    source: Source | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The record of the direct kernel, and the ``width`` of its step.

    ``weights``: [groups, M, C, KD, KH, KW]. ``flat``: one tap, unit strides and rows that follow each other without
    margins, so that all pixels form one long row that can be cut anywhere. ``masked``: lanes past M belong to others.
    ``source``: where the weights lie if the run computes them.
    """
    dtype = weights.dtype
    groups, m, c = weights.shape[:3]
    vl, item = lanes(dtype), dtype.itemsize
    d, h, w = axes
    taps, read = d.kernel * h.kernel * w.kernel, d.size * h.size * w.size
    n_blocks = max(1, -(-c // block))
    along_row = block == 1 and w.kernel > 1 and w.dilation == 1 and xs.pixel == 1
    depth = w.kernel if along_row else 1  # the taps of a row are neighbours in x and w: reduce over them as one block
    first, width, pixels = kernels.tiles(m, dtype)
    channels = -(-m // vl) * vl
    starts = bias_table(b, bias, groups, m, dtype)
    if source is None:
        parts = [kernels.pack(g, block) for g in weights]
        packed: np.ndarray | Address = parts[0] if groups == 1 else np.concatenate(parts)
    else:
        packed = pack_direct(b, weights, source, block)
    rows, out_w, last_w, row_stride = d.output * h.output, w.output, w.output, h.stride
    y_h, x_h, r_h = ys.h, xs.h, rs.h if rs else 0
    if flat or (d == UNIT_AXIS and h == UNIT_AXIS):  # a lone row is cut too, so that threads can share it
        total = rows * out_w
        out_w = _piece(total, b.threads)
        rows = -(-total // out_w)
        last_w = total - (rows - 1) * out_w
        x_h, y_h, r_h, row_stride = out_w * xs.pixel * w.stride, out_w * ys.pixel, out_w * (rs.pixel if rs else 0), 1
        d, h, w = UNIT_AXIS, WindowAxis(rows, 1, 1, 1, 0, 0, rows), w
    row_bytes = item * (c * (out_w * row_stride if flat else w.size * h.stride) + int(width.max()) * vl * out_w)
    chunk_rows = max(1, min(rows, L2_BYTES // max(row_bytes, 1)))
    flops = 2.0 * batch * groups * m * c * taps * rows * out_w
    threads = min(b.threads, int(flops // GRAIN) + 1)
    least = -(-rows // chunk_rows)
    if batch * groups < threads and read >= m * taps and (rows % threads == 0 or rows >= 8 * threads):
        least = max(least, threads)  # a thread reads rows that it wrote itself, and all weights, which are less
    chunks = _balanced(least, rows, batch * groups, width, threads)
    chunk_rows = -(-rows // chunks)
    kd, kh = d.tap_ranges(), h.tap_ranges()
    zero = Strides(0, 0, 0, 0, 0, 0)
    r = rs or zero
    return dict(
        width=threads,
        x=Address(x.buffer, x.offset - w.before * xs.pixel * item), w=packed, bias=starts, y=y,
        residual=residual or 0, batch=batch, groups=groups, chunks=-(-rows // chunk_rows), tiles=len(first),
        rows=rows, chunk_rows=chunk_rows, out_h=h.output, out_w=out_w, last_w=last_w, n_blocks=n_blocks,
        block=block * depth, last_block=(c - (n_blocks - 1) * block) * depth,
        pass_blocks=max(1, L1_BYTES // max(1, block * taps * int(width.max()) * vl * item)), KD=d.kernel,
        KH=h.kernel, KW=w.kernel // depth, stride_d=d.stride, stride_h=h.stride, origin_d=-d.before,
        origin_h=-h.before, kd_lo=kd[0], kd_hi=kd[1], kh_lo=kh[0], kh_hi=kh[1], x_batch=xs.batch, x_group=xs.group,
        x_block=xs.block, x_d=xs.d, x_h=x_h, x_kd=xs.d * d.dilation, x_kh=x_h * h.dilation,
        x_kw=xs.pixel * w.dilation, x_pixel=xs.pixel * w.stride, y_batch=ys.batch, y_group=ys.group,
        y_vector=ys.block, y_d=ys.d, y_h=y_h, y_pixel=ys.pixel, r_batch=r.batch, r_group=r.group, r_vector=r.block,
        r_d=r.d, r_h=r_h, r_pixel=r.pixel, w_group=c * taps * channels, bias_group=channels, tile_first=first,
        tile_width=width, tile_pixels=pixels, tail=m - (channels // vl - 1) * vl if masked else vl,
        alpha=activation.alpha, lo=activation.lo, hi=activation.hi,
    )  # fmt: skip


def _piece(pixels: int, threads: int) -> int:
    """Length of the rows to cut ``pixels`` in a row into: about `ROW`, and where they are few an even share for all."""
    rows = -(-pixels // ROW)
    if rows > 16 * threads:
        return ROW
    rows = max(1, round(pixels / ROW))
    shared = -(-rows // threads) * threads
    return -(-pixels // (shared if pixels >= shared * ROW // 2 else rows))


def _balanced(least: int, rows: int, others: int, widths: np.ndarray, threads: int) -> int:
    """Number of row chunks, at least ``least``, that shares the work evenly: items are ``others`` x chunks x tiles."""
    if threads == 1:
        return least

    def waste(chunks: int) -> float:
        height = -(-rows // chunks)
        heights = [min(height, rows - first) for first in range(0, rows, height)]
        done = np.cumsum(np.tile(np.outer(heights, widths).ravel(), others))
        cuts = np.append(0, done)[len(done) * np.arange(threads + 1) // threads]
        return np.diff(cuts).max() * threads / done[-1] * (1 + 0.01 * chunks)

    return min(range(least, min(rows, least + 4 * threads) + 1), key=waste, default=least)


def conv_window(unit: Unit, b: Builder) -> Window:
    a, x, w = unit.node.attrs, b.shape(unit.node.inputs[0]), b.shape(unit.node.inputs[1])
    return Window.of(
        x[2:],
        w[2:],
        strides=a.get("strides"),
        pads=a.get("pads"),
        dilations=a.get("dilations"),
        auto_pad=a.get("auto_pad", "NOTSET"),
    )


def transposed_window(unit: Unit, b: Builder) -> TransposedWindow:
    a, x, w = unit.node.attrs, b.shape(unit.node.inputs[0]), b.shape(unit.node.inputs[1])
    keys = ("strides", "pads", "dilations", "output_padding", "output_shape")
    return TransposedWindow.of(x[2:], w[2:], **{k: a.get(k) for k in keys}, auto_pad=a.get("auto_pad", "NOTSET"))


def bias_of(unit: Unit, b: Builder, channels: int, dtype: np.dtype[Any]) -> np.ndarray | Address | None:
    """The node's own bias and the fused constant; where the own one lies if the run computes it."""
    name = unit.node.inputs[2] if len(unit.node.inputs) > 2 else ""
    if name and not b.is_constant(name):
        return b.plain(name).address
    own = b.constant(name) if name else None
    parts = [p for p in (own, unit.bias) if p is not None]
    return sum(parts[1:], parts[0]).astype(dtype, copy=False).reshape(channels) if parts else None


def float_type(unit: Unit, b: Builder) -> str | None:
    """Why the operands are not of one float type."""
    kinds = {b.dtype(n) for n in unit.inputs}
    return (
        None
        if kinds in ({np.dtype(np.float32)}, {np.dtype(np.float64)})
        else f"dtype {', '.join(sorted(map(str, kinds)))}"
    )


def known(unit: Unit, b: Builder) -> str | None:
    """Why sizes rule out every native kernel."""
    names = [n for n in (*unit.inputs, *unit.outputs) if n]
    if not unit.output:
        return "only further outputs are asked for"
    if not all(b.is_static(n) for n in names):
        return "sizes depend on data"
    return "an empty tensor" if any(0 in b.shape(n) for n in names if not b.is_constant(n)) else None


def legal_conv(unit: Unit, b: Builder) -> str | None:
    """Why no kernel with packed weights can run the convolution."""
    reason = known(unit, b) or float_type(unit, b)
    if reason:
        return reason
    if unit.bias is not None and any(n and not b.is_constant(n) for n in unit.node.inputs[2:3]):
        return "bias is not constant but fused with one"
    rank = len(b.shape(unit.node.inputs[0])) - 2
    return None if 1 <= rank <= 3 else f"{rank} spatial axes"


def legal_constant(unit: Unit, b: Builder) -> str | None:
    """Why no kernel can run it that arranges constant weights of its own."""
    reason = legal_conv(unit, b)
    if reason:
        return reason
    if not b.is_constant(unit.node.inputs[1]) or any(n and not b.is_constant(n) for n in unit.node.inputs[2:3]):
        return "weights are not constant"
    return None


def legal_fixed(unit: Unit, b: Builder) -> str | None:
    """Why no float32 kernel can run it that changes constant weights, and rounds them."""
    reason = legal_constant(unit, b)
    if reason:
        return reason
    if b.dtype(unit.output) != np.float32:
        return f"dtype {b.dtype(unit.output)}"
    return "sums of whole numbers stay exact" if of_codes(b.constant(unit.node.inputs[1])) else None


def _legal_direct(unit: Unit, b: Builder, planar: bool) -> str | None:
    reason = legal_conv(unit, b)
    groups = int(unit.node.attrs.get("group", 1))
    if reason or groups == 1:
        return reason
    w, vl = b.shape(unit.node.inputs[1]), lanes(b.dtype(unit.output))
    m, c = (w[1], w[0] // groups) if unit.node.op == "ConvTranspose" else (w[0] // groups, w[1])
    apart = planar and unit.node.op == "Conv" and c > 1 and not unit.residual
    fits = (m % vl == 0 or apart) and (planar or c % vl == 0)
    return None if fits else f"groups of {c} -> {m} channels do not fill registers of {vl}"


def has_layout(b: Builder, name: str, block: int) -> bool:
    """Whether the value lies in blocks of ``block`` somewhere already."""
    return any(t.block == block for t in b.tensors(name))


def _cost_conv(unit: Unit, b: Builder, planar: bool) -> Cost:
    y, w = b.shape(unit.output), b.shape(unit.node.inputs[1])
    transposed = unit.node.op == "ConvTranspose"
    m, groups = y[1], int(unit.node.attrs.get("group", 1))
    vl = lanes(b.dtype(unit.output))
    pixels = math.prod(b.shape(unit.node.inputs[0])[2:]) if transposed else math.prod(y[2:])
    depth = w[0] // groups if transposed else w[1]
    flops = 2.0 * y[0] * m * depth * math.prod(w[2:]) * pixels
    nbytes = float(sum(b.nbytes(n) for n in (*unit.inputs, unit.output)))
    in_group = m // groups
    used = in_group / (-(-in_group // vl) * vl)
    seconds = flops / (PEAK * used * (0.9 if planar or depth < vl // 2 else 0.95)) + nbytes / 4e10
    if not has_layout(b, unit.node.inputs[0], 1 if planar else vl):
        seconds += b.nbytes(unit.node.inputs[0]) / 4e9
    if groups > 1 and used < 1:
        seconds += b.nbytes(unit.output) / 4e9
    seconds += packing_seconds(b, unit.node.inputs[1:2])
    return Cost(flops, nbytes, seconds)


def _operands(
    unit: Unit, b: Builder, planar: bool, margin: tuple[int, int], wanted: tuple[int, ...]
) -> tuple[Tensor, Tensor, Tensor | None]:
    """x, y and residual, placed."""
    name = unit.node.inputs[0]
    x = b.planar(name, margin) if planar else b.blocked(name, margin)
    r = b.blocked(unit.residual) if unit.residual else None
    y = b.new(unit.output, lanes(b.dtype(unit.output)))
    return x, y, r


def _group_strides(t: Tensor, groups: int, channels: int) -> Strides:
    return spatial_strides(t, 0 if groups == 1 else channels // groups // t.block * t.strides[1])


def _lower_conv(unit: Unit, b: Builder, planar: bool) -> None:
    window = conv_window(unit, b)
    axes = three(window.axes)
    weights, source = operand(b, unit.node.inputs[1])
    groups = int(unit.node.attrs.get("group", 1))
    m, c = weights.shape[:2]
    if groups > 1 and m // groups % lanes(weights.dtype):
        x, r = b.planar(unit.node.inputs[0], margin_of(axes[2])), None
        y = _apart(unit, b, groups)
    else:
        x, y, r = _operands(unit, b, planar, margin_of(axes[2]), ())
    flat = all(a.kernel == 1 and a.stride == 1 and not a.before and a.output == a.size for a in axes) and not any(
        t.margin != (0, 0) for t in (x, y, *([r] if r else []))
    )
    emit(
        b, x=x.address, y=y.address, residual=r.address if r else None, batch=x.shape[0], block=x.block,
        weights=weights.reshape(groups, m // groups, c, *(a.kernel for a in axes)), source=source,
        bias=bias_of(unit, b, m, weights.dtype), axes=axes, xs=_group_strides(x, groups, x.shape[1]),
        ys=_group_strides(y, groups, y.shape[1]), rs=_group_strides(r, groups, m) if r else None,
        activation=unit.activation, flat=flat,
    )  # fmt: skip
    if y.shape[1] != m:
        _bring_together(b, y, b.new(unit.output, 1), groups)


def _apart(unit: Unit, b: Builder, groups: int) -> Tensor:
    """Memory for an output whose groups do not fill registers: each group has channel blocks of its own."""
    n, m, *spatial = b.shape(unit.output)
    dtype = b.dtype(unit.output)
    vl = lanes(dtype)
    return b.scratch(dtype, (n, groups * -(-(m // groups) // vl) * vl, *spatial), vl)


def _bring_together(b: Builder, source: Tensor, target: Tensor, groups: int) -> None:
    """Copy an output from channel blocks of each group's own into planes."""
    n, m, *spatial = target.shape
    vl, item = source.block, source.dtype.itemsize
    whole, rest = divmod(m // groups, vl)
    (sn, sb, *si), (dn, dc, *di) = source.strides, target.strides
    src_group, dst_group = source.blocks // groups * sb, m // groups * dc
    for first, blocks, width in ((0, whole, vl), (whole, 1, rest)):
        if blocks and width:
            b.copy(
                Address(source.buffer, source.address.offset + first * sb * item),
                (sn, src_group, sb, *si, 1),
                Address(target.buffer, target.address.offset + first * vl * dc * item),
                (dn, dst_group, vl * dc, *di, dc),
                (n, groups, blocks, *spatial, width),
                source.dtype,
            )


def _lower_transposed(unit: Unit, b: Builder, planar: bool) -> None:
    window = transposed_window(unit, b)
    weights, source = operand(b, unit.node.inputs[1])
    groups = int(unit.node.attrs.get("group", 1))
    c, m = weights.shape[0], weights.shape[1] * groups
    by_group = weights.reshape(groups, c // groups, m // groups, *weights.shape[2:]).swapaxes(1, 2)
    x, y, r = _operands(unit, b, planar, _transposed_margin(window), ())
    item = y.dtype.itemsize

    def part(t: Tensor, phases: Sequence[Any]) -> tuple[Address, Strides]:
        """The outputs of one phase as a tensor of their own."""
        s = _group_strides(t, groups, m)
        inner = [0] * (3 - len(phases)) + list(t.strides[2:])
        offset = sum(p.first * i for p, i in zip(phases, inner[3 - len(phases) :], strict=True))
        steps = [1] * (3 - len(phases)) + [p.step for p in phases]
        d, h, w = (i * k for i, k in zip(inner, steps, strict=True))
        return Address(t.buffer, t.address.offset + offset * item), Strides(s.batch, s.group, s.block, d, h, w)

    for phases in window.phases():
        if any(p.count == 0 for p in phases):
            continue
        axes = three([p.window(a.size) for p, a in zip(phases, window.axes, strict=True)])
        chosen = (
            by_group[(slice(None),) * 3 + tuple(_taps(p.taps) for p in phases)]
            if all(p.taps for p in phases)
            else by_group[..., :0]
        )
        chosen = chosen[(slice(None),) * 3 + (None,) * (3 - len(phases))]
        y_address, ys = part(y, phases)
        r_address, rs = part(r, phases) if r else (None, None)
        emit(
            b, x=x.address, y=y_address, residual=r_address, batch=x.shape[0], block=x.block, weights=chosen,
            bias=bias_of(unit, b, m, weights.dtype), axes=axes, xs=_group_strides(x, groups, c), ys=ys, rs=rs,
            activation=unit.activation, flat=False, source=source,
        )  # fmt: skip


def _taps(taps: Sequence[int]) -> slice:
    """The taps of a phase, which fall in equal steps."""
    step = taps[0] - taps[1] if len(taps) > 1 else 1
    return slice(taps[0], taps[-1] - 1 if taps[-1] else None, -step)


def _transposed_margin(window: TransposedWindow) -> tuple[int, int]:
    axis = window.axes[-1]
    margins = [margin_of(p.window(axis.size)) for p in axis.phases() if p.taps] or [(0, 0)]
    return max(m[0] for m in margins), max(m[1] for m in margins)


def margins(unit: Unit, b: Builder) -> Iterable[tuple[str, tuple[int, int]]]:
    """The zeros beside rows that a convolution wants of the value it reads."""
    unit = unit.parts[0] if unit.parts else unit
    if unit.op in ("Conv", "ConvTranspose") and known(unit, b) is None:
        if unit.op == "Conv":
            yield unit.node.inputs[0], margin_of(conv_window(unit, b).axes[-1])
        else:
            yield unit.node.inputs[0], _transposed_margin(transposed_window(unit, b))


for _op, _name, _lower in (("Conv", "direct", _lower_conv), ("ConvTranspose", "subpixel", _lower_transposed)):
    for _planar in (False, True):
        attach(
            Candidate(
                f"{_name}_{'planar' if _planar else 'blocked'}",
                (_op,),
                partial(_legal_direct, planar=_planar),
                partial(_cost_conv, planar=_planar),
                partial(_lower, planar=_planar),
            )
        )
