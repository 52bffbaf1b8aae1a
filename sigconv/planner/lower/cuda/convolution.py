"""Convolution and transposed convolution: implicit products, on tensor cores or not, and depthwise sums."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from sigconv.geometry import WindowAxis
from sigconv.kernels.cuda import implicit_gemm, implicit_mma, mma
from sigconv.kernels.cuda.depthwise import DEPTHWISE
from sigconv.kernels.cuda.gemm import TILES
from sigconv.kernels.cuda.implicit_gemm import COLUMNS
from sigconv.kernels.cuda.jit import Kernel
from sigconv.kernels.cuda.limits import blocks
from sigconv.kernels.cuda.roofline import BANDWIDTH, LAUNCH, PEAK
from sigconv.planner.build import Builder
from sigconv.planner.candidates import Cost
from sigconv.planner.device import DeviceBuilder
from sigconv.planner.fuse import Unit, of_codes
from sigconv.planner.lower.cpu.direct import conv_window, three, transposed_window
from sigconv.planner.lower.cuda.common import (
    Tile,
    add,
    by_axis,
    epilogue,
    floats,
    streaming,
    tiled_seconds,
    traffic,
    triple,
    window_fields,
)
from sigconv.planner.tensors import Tensor

TENSOR_PEAK = {"": PEAK, "tf32": 1.5e14, "f16": 2e14, "bf16": 2e14}
"""Operations per second that predictions assume: what fetching operands may leave of an H200's 5e14 and 1e15."""


@dataclass(frozen=True)
class Way:
    """How a product runs: its tile, and the format that tensor cores round operands to ('': none, plain sums)."""

    tile: Tile
    format: str = ""

    @property
    def kernels(self) -> dict[tuple[str, str], Kernel]:
        return implicit_mma.CONV if self.format else implicit_gemm.CONV

    @property
    def name(self) -> str:
        return f"mma_{self.format}_{self.tile.name}" if self.format else f"gemm_{self.tile.name}"

    @property
    def error(self) -> float:
        """As a share of the output's scale: 8 roundings of an operand, for sums that cancel."""
        return 2.0 ** (3 - mma.FORMATS[self.format].bits) if self.format else 0.0

    def seconds(self, m: int, n: int, k: int, batches: int) -> float:
        return tiled_seconds(self.tile, m, n, k, batches, TENSOR_PEAK[self.format])


WAYS = (*map(Way, TILES), *(Way(tile, name) for name in mma.FORMATS for tile in implicit_mma.TILES))


def _bias(unit: Unit, b: DeviceBuilder) -> Tensor | np.ndarray | None:
    """Constant or computed; a fused constant is added to a constant one."""
    name = unit.node.inputs[2] if len(unit.node.inputs) > 2 else ""
    if name and not b.is_constant(name):
        return b.plain(name)
    parts = [p for p in (b.constant(name).reshape(-1) if name else None, unit.bias) if p is not None]
    return np.asarray(sum(parts[1:], parts[0]), b.dtype(unit.output)) if parts else None


def legal_conv(unit: Unit, b: Builder) -> str | None:
    """Why no kernel runs this convolution."""
    reason = floats(unit, b)
    if reason:
        return reason
    rank = len(b.shape(unit.node.inputs[0])) - 2
    if not 1 <= rank <= 3:
        return f"{rank} spatial axes"
    if unit.bias is not None and any(n and not b.is_constant(n) for n in unit.node.inputs[2:3]):
        return "bias is not constant but fused with one"
    return None


def legal_product(unit: Unit, b: Builder, way: Way) -> str | None:
    """Why it cannot run as this product."""
    reason = legal_conv(unit, b)
    if reason:
        return reason
    if (way.format or b.dtype(unit.output).name, way.tile.name) not in way.kernels:
        return f"no tile of {b.dtype(unit.output)}"
    return _illegal_format(unit, b, way.format) if way.format else None


def _illegal_format(unit: Unit, b: Builder, name: str) -> str | None:
    """Why operands must not be rounded to a format of the tensor cores."""
    if b.dtype(unit.output) != np.float32:
        return f"dtype {b.dtype(unit.output)}"
    assert isinstance(b, DeviceBuilder)
    if b.capability < mma.CAPABILITY:
        return "the device's compute capability is below 8.0"
    weights = b.constant(unit.node.inputs[1]) if b.is_constant(unit.node.inputs[1]) else None
    if of_codes(weights):
        return "weights are codes, whose sums are exact"
    if name == "f16" and not b.halves:
        return "values may exceed float16: the model's own type is another"
    return None


def _shape_of_product(unit: Unit, b: Builder) -> tuple[int, int, int, int]:
    """(outputs of a group, pixels, products, groups) of the implicit product."""
    x, w, y = b.shape(unit.node.inputs[0]), b.shape(unit.node.inputs[1]), b.shape(unit.output)
    groups = int(unit.node.attrs.get("group", 1))
    if unit.node.op == "ConvTranspose":  # as many products as inputs have taps, spread over the outputs
        pixels = y[0] * math.prod(y[2:])
        depth = x[1] // groups * max(1, math.prod(w[2:]) * math.prod(x[2:]) // max(1, math.prod(y[2:])))
        return y[1] // groups, pixels, depth, groups
    return y[1] // groups, y[0] * math.prod(y[2:]), math.prod(w[1:]), groups


def _cost_conv(unit: Unit, b: Builder, way: Way) -> Cost:
    m, n, k, groups = _shape_of_product(unit, b)
    nbytes = traffic(unit, b)
    seconds = max(way.seconds(m, n, k, groups), LAUNCH + nbytes / BANDWIDTH)
    return Cost(2.0 * m * n * k * groups, nbytes, seconds)


def _table(
    channels: int, axes: Sequence[WindowAxis], taps: Sequence[Sequence[int]], x_strides: Sequence[int],
    w_strides: Sequence[int],
) -> np.ndarray:  # fmt: skip
    """A row for each channel and tap: offset in x, positions along the three axes, offset in the weights.

    ``taps``: the kernel's taps on each axis in the order in which windows meet them; strides along (channel, d, h, w).
    """
    c, kd, kh, kw = np.meshgrid(np.arange(channels), *(np.arange(len(t)) for t in taps), indexing="ij")
    at = [k * a.dilation for k, a in zip((kd, kh, kw), axes, strict=True)]
    own = [np.asarray(t, np.int64)[k] if len(t) else k for t, k in zip(taps, (kd, kh, kw), strict=True)]
    x = c * x_strides[0] + sum(p * s for p, s in zip(at, x_strides[1:], strict=True))
    w = c * w_strides[0] + sum(p * s for p, s in zip(own, w_strides[1:], strict=True))
    rows = np.stack([x, *at, w], -1).reshape(-1, COLUMNS)
    return rows.astype(np.int32) if len(rows) else np.zeros((1, COLUMNS), np.int32)


def _emit_conv(
    unit: Unit, b: DeviceBuilder, way: Way, x: Tensor, y: Tensor, w: Tensor | np.ndarray, bias: Any,
    axes: Sequence[WindowAxis], taps: Sequence[Sequence[int]], w_strides: tuple[int, int, int, Sequence[int]],
    y_steps: Sequence[int], y_first: int, residual: Tensor | None,
) -> None:  # fmt: skip
    """One launch: a convolution, or a phase of a transposed one."""
    groups = int(unit.node.attrs.get("group", 1))
    channels, m = x.shape[1] // groups, y.shape[1] // groups
    in_d, in_h, in_w = (a.size for a in axes)
    plane = in_d * in_h * in_w
    w_group, w_m, w_channel, w_taps = w_strides
    table = _table(channels, axes, taps, (plane, in_h * in_w, in_w, 1), (w_channel, *w_taps))
    out = tuple(a.output for a in axes)
    pixels = x.shape[0] * math.prod(out)
    y_plane = math.prod(y.shape[2:])
    b.launch(
        way.kernels[way.format or x.dtype.name, way.tile.name],
        (-(-pixels // way.tile.n), -(-m // way.tile.m), groups),
        [x, w, table, bias, residual, y], m=m, k=channels * math.prod(map(len, taps)), pixels=pixels,
        **by_axis("out", out), **by_axis("in", (in_d, in_h, in_w)), **by_axis("stride", [a.stride for a in axes]),
        **by_axis("origin", [-a.before for a in axes]),
        x_batch=x.shape[1] * plane, x_group=channels * plane, x_d=in_h * in_w, x_h=in_w, w_group=w_group, w_m=w_m,
        y_batch=y.shape[1] * y_plane, y_group=m * y_plane, y_m=y_plane, y_d=y_steps[0], y_h=y_steps[1],
        y_w=y_steps[2], y_first=y_first, has_bias=bias is not None, has_residual=residual is not None,
        **epilogue(unit),
    )  # fmt: skip


def conv_operands(unit: Unit, b: DeviceBuilder) -> tuple[Tensor, Tensor | None, Any]:
    x = b.plain(unit.node.inputs[0])
    return x, b.plain(unit.residual) if unit.residual else None, _bias(unit, b)


def _weights(
    unit: Unit, b: DeviceBuilder, reorder: Callable[[np.ndarray], np.ndarray]
) -> tuple[Tensor | np.ndarray, bool]:
    """Constant weights in the kernel's own order, computed ones where they lie."""
    name = unit.node.inputs[1]
    return (np.ascontiguousarray(reorder(b.constant(name))), True) if b.is_constant(name) else (b.plain(name), False)


def _lower_conv(unit: Unit, b: DeviceBuilder, way: Way) -> None:
    groups = int(unit.node.attrs.get("group", 1))
    axes = three(conv_window(unit, b).axes)
    total, channels = b.shape(unit.node.inputs[1])[:2]
    m, kernel = total // groups, tuple(a.kernel for a in axes)
    count = math.prod(kernel)
    w, packed = _weights(unit, b, lambda w: w.reshape(groups, m, channels * count).swapaxes(1, 2))
    step = m if packed else 1  # packed: neighbouring threads, which fetch neighbouring m, read neighbours
    taps = (kernel[1] * kernel[2] * step, kernel[2] * step, step)
    strides = (m * channels * count, 1 if packed else channels * count, count * step, taps)
    x, residual, bias = conv_operands(unit, b)
    y = b.new(unit.output)
    _emit_conv(
        unit, b, way, x, y, w, bias, axes, [range(k) for k in kernel], strides, triple(y.strides[2:], 0), 0, residual
    )  # fmt: skip


def _lower_transposed(unit: Unit, b: DeviceBuilder, way: Way) -> None:
    groups = int(unit.node.attrs.get("group", 1))
    window = transposed_window(unit, b)
    total, m = b.shape(unit.node.inputs[1])[:2]
    channels = total // groups
    kernel = triple([a.kernel for a in window.axes])
    count = math.prod(kernel)
    w, packed = _weights(unit, b, lambda w: w.reshape(groups, channels, m, count).transpose(0, 1, 3, 2))
    step = m if packed else 1
    taps = (kernel[1] * kernel[2] * step, kernel[2] * step, step)
    strides = (channels * m * count, 1 if packed else count, m * count, taps)
    x, residual, bias = conv_operands(unit, b)
    y = b.new(unit.output)
    missing = 3 - len(window.axes)
    for phases in window.phases():
        if any(p.count == 0 for p in phases):
            continue
        axes = three([p.window(a.size) for p, a in zip(phases, window.axes, strict=True)])
        chosen = [*[range(1)] * missing, *(p.taps for p in phases)]
        steps = triple(y.strides[2:], 0)
        first = sum(p.first * s for p, s in zip(phases, steps[missing:], strict=True))
        wide = tuple(s * p for s, p in zip(steps, triple([p.step for p in phases]), strict=True))
        _emit_conv(unit, b, way, x, y, w, bias, axes, chosen, strides, wide, first, residual)


for _way in WAYS:
    for _op, _lower, _name in (("Conv", _lower_conv, "implicit"), ("ConvTranspose", _lower_transposed, "subpixel")):
        add(
            f"{_name}_{_way.name}",
            (_op,),
            partial(_lower, way=_way),
            partial(legal_product, way=_way),
            partial(_cost_conv, way=_way),
            "rounded" if _way.format else "direct",
            _way.error,
        )


# --- depthwise -------------------------------------------------------------------------------------------------------
def _legal_depthwise(unit: Unit, b: Builder) -> str | None:
    reason = legal_conv(unit, b)
    if reason:
        return reason
    channels = b.shape(unit.node.inputs[0])[1]
    return None if int(unit.node.attrs.get("group", 1)) == channels else "outputs read several channels"


def _cost_depthwise(unit: Unit, b: Builder) -> Cost:
    base = streaming(unit, b)
    flops = 2.0 * math.prod(b.shape(unit.output)) * math.prod(b.shape(unit.node.inputs[1])[2:])
    return Cost(flops, base.nbytes, max(base.seconds, LAUNCH + flops / (PEAK * 0.1)))


def _lower_depthwise(unit: Unit, b: DeviceBuilder) -> None:
    axes = three(conv_window(unit, b).axes)
    x, residual, bias = conv_operands(unit, b)
    w = b.plain(unit.node.inputs[1])
    y = b.new(unit.output)
    planes = y.shape[0] * y.shape[1]
    b.launch(
        DEPTHWISE[x.dtype.name], (planes, blocks(math.prod(y.shape[2:]), planes)), [x, w, bias, residual, y],
        channels=y.shape[1], multiplier=y.shape[1] // x.shape[1], has_bias=bias is not None,
        has_residual=residual is not None, **window_fields(axes), **epilogue(unit),
    )  # fmt: skip


add("depthwise", ("Conv",), _lower_depthwise, _legal_depthwise, _cost_depthwise)
