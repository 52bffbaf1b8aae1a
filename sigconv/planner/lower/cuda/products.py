"""Convolution, transposed convolution and matrix products."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from sigconv.geometry import WindowAxis
from sigconv.kernels.cuda.depthwise import DEPTHWISE
from sigconv.kernels.cuda.gemm import GEMM, GEMVS, TILES, Tile
from sigconv.kernels.cuda.implicit_gemm import COLUMNS, CONV
from sigconv.kernels.cuda.limits import blocks
from sigconv.planner.build import Builder, Tensor, c_strides
from sigconv.planner.candidates import Cost
from sigconv.planner.device import DeviceBuilder
from sigconv.planner.fuse import Unit
from sigconv.planner.lower.cpu.direct import conv_window, three, transposed_window
from sigconv.planner.lower.cuda.common import (
    BANDWIDTH,
    LAUNCH,
    MULTIPROCESSORS,
    PEAK,
    add,
    by_axis,
    floats,
    streaming,
    traffic,
    triple,
    window_fields,
)

SHARE = {"128x128": 0.6, "64x64": 0.4, "32x32": 0.2}
"""Of the peak that a tile reaches once every multiprocessor has one, as predictions assume."""


def epilogue(unit: Unit) -> dict[str, float]:
    a = unit.activation
    return {"alpha": a.alpha, "lo": a.lo, "hi": a.hi}


def tiled_seconds(tile: Tile, m: int, n: int, k: int, batches: int) -> float:
    """A wave of blocks after another, every block at its tile's share of the peak."""
    count = -(-m // tile.m) * -(-n // tile.n) * batches
    one = 2.0 * tile.m * tile.n * k / (PEAK / MULTIPROCESSORS * SHARE[tile.name])
    return LAUNCH + -(-count // MULTIPROCESSORS) * one


# --- convolution -----------------------------------------------------------------------------------------------------
def _bias(unit: Unit, b: DeviceBuilder) -> Tensor | np.ndarray | None:
    """Constant or computed; a fused constant is added to a constant one."""
    name = unit.node.inputs[2] if len(unit.node.inputs) > 2 else ""
    if name and not b.is_constant(name):
        return b.plain(name)
    parts = [p for p in (b.constant(name).reshape(-1) if name else None, unit.bias) if p is not None]
    return np.asarray(sum(parts[1:], parts[0]), b.dtype(unit.output)) if parts else None


def legal_conv(unit: Unit, b: Builder, tile: Tile) -> str | None:
    reason = floats(unit, b)
    if reason:
        return reason
    rank = len(b.shape(unit.node.inputs[0])) - 2
    if not 1 <= rank <= 3:
        return f"{rank} spatial axes"
    if unit.bias is not None and any(n and not b.is_constant(n) for n in unit.node.inputs[2:3]):
        return "bias is not constant but fused with one"
    return None if (b.dtype(unit.output).name, tile.name) in CONV else f"no tile of {b.dtype(unit.output)}"


def _shape_of_product(unit: Unit, b: Builder) -> tuple[int, int, int, int]:
    """(outputs of a group, pixels, products, groups) of the implicit product."""
    x, w, y = b.shape(unit.node.inputs[0]), b.shape(unit.node.inputs[1]), b.shape(unit.output)
    groups = int(unit.node.attrs.get("group", 1))
    if unit.node.op == "ConvTranspose":  # as many products as inputs have taps, spread over the outputs
        pixels = y[0] * math.prod(y[2:])
        depth = x[1] // groups * max(1, math.prod(w[2:]) * math.prod(x[2:]) // max(1, math.prod(y[2:])))
        return y[1] // groups, pixels, depth, groups
    return y[1] // groups, y[0] * math.prod(y[2:]), math.prod(w[1:]), groups


def _cost_conv(unit: Unit, b: Builder, tile: Tile) -> Cost:
    m, n, k, groups = _shape_of_product(unit, b)
    nbytes = traffic(unit, b)
    seconds = max(tiled_seconds(tile, m, n, k, groups), LAUNCH + nbytes / BANDWIDTH)
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
    unit: Unit, b: DeviceBuilder, tile: Tile, x: Tensor, y: Tensor, w: Tensor | np.ndarray, bias: Any,
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
        CONV[x.dtype.name, tile.name], (-(-pixels // tile.n), -(-m // tile.m), groups),
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


def _lower_conv(unit: Unit, b: DeviceBuilder, tile: Tile) -> None:
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
        unit, b, tile, x, y, w, bias, axes, [range(k) for k in kernel], strides, triple(y.strides[2:], 0), 0, residual
    )  # fmt: skip


def _lower_transposed(unit: Unit, b: DeviceBuilder, tile: Tile) -> None:
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
        _emit_conv(unit, b, tile, x, y, w, bias, axes, chosen, strides, wide, first, residual)  # type: ignore[arg-type]


for _tile in TILES:
    for _op, _lower, _name in (
        ("Conv", _lower_conv, "implicit_gemm"),
        ("ConvTranspose", _lower_transposed, "subpixel_gemm"),
    ):
        _parts: Any = {part: partial(f, tile=_tile) for part, f in
                       (("lower", _lower), ("legal", legal_conv), ("cost", _cost_conv))}  # fmt: skip
        add(f"{_name}_{_tile.name}", (_op,), **_parts)


# --- depthwise -------------------------------------------------------------------------------------------------------
def _legal_depthwise(unit: Unit, b: Builder) -> str | None:
    reason = legal_conv(unit, b, TILES[-1])
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


# --- matrices --------------------------------------------------------------------------------------------------------
FEW_ROWS = 4
"""Rows of a product that reads its right operand once for each of them."""


def _legal_matrix(unit: Unit, b: Builder, tile: Tile) -> str | None:
    reason = floats(unit, b)
    if reason:
        return reason
    if (b.dtype(unit.output).name, tile.name) not in GEMM:
        return f"no tile of {b.dtype(unit.output)}"
    if unit.node.op == "MatMul":
        shapes = [b.shape(n) for n in unit.node.inputs]
        if any(len(s) < 2 for s in shapes):
            return "a vector"
        return "more than 2 batch axes" if len(b.shape(unit.output)) > 4 else None
    c = unit.node.inputs[2] if len(unit.node.inputs) > 2 else ""
    return "C and a fused constant" if c and unit.bias is not None and not _constant_row(unit, b) else None


def _constant_row(unit: Unit, b: Builder) -> bool:
    """Whether Gemm's C is a constant that only varies along the columns."""
    c = unit.node.inputs[2]
    return b.is_constant(c) and b.constant(c).size in (1, b.shape(unit.output)[1]) and b.shape(c)[-1:] == (
        b.constant(c).size,
    )  # fmt: skip


def _legal_vector(unit: Unit, b: Builder) -> str | None:
    reason = _legal_matrix(unit, b, TILES[-1])
    if reason:
        return reason
    shape = b.shape(unit.output)
    return None if len(shape) == 2 and shape[0] <= FEW_ROWS else f"more than {FEW_ROWS} rows"


def _sizes(unit: Unit, b: Builder) -> tuple[int, int, int, int]:
    """(batches, m, k, n)."""
    shape = b.shape(unit.output)
    trans = unit.node.op == "Gemm" and unit.node.attrs.get("transA", 0)
    return math.prod(shape[:-2]), shape[-2], b.shape(unit.node.inputs[0])[-2 if trans else -1], shape[-1]


def _cost_matrix(unit: Unit, b: Builder, tile: Tile) -> Cost:
    batches, m, k, n = _sizes(unit, b)
    nbytes = traffic(unit, b)
    seconds = max(tiled_seconds(tile, m, n, k, batches), LAUNCH + nbytes / BANDWIDTH)
    return Cost(2.0 * batches * m * n * k, nbytes, seconds)


def _cost_vector(unit: Unit, b: Builder) -> Cost:
    batches, m, k, n = _sizes(unit, b)
    nbytes = traffic(unit, b)
    return Cost(2.0 * batches * m * n * k, nbytes, LAUNCH + m * nbytes / (BANDWIDTH * 0.7))


def _strides(t: Tensor, rank: int, transposed: bool = False) -> tuple[int, int, int, int]:
    """Over (batch, batch, row, column), 0 where the operand repeats."""
    shape = (1,) * (4 - len(t.shape)) + t.shape
    s0, s1, row, column = (0,) * (4 - len(t.shape)) + c_strides(t.shape)
    s0, s1 = (0 if shape[0] == 1 else s0), (0 if shape[1] == 1 else s1)
    return (s0, s1, column, row) if transposed else (s0, s1, row, column)


def _third(unit: Unit, b: DeviceBuilder) -> tuple[Any, dict[str, int], float]:
    """What is added to a product: the array, its strides and its factor."""
    node, shape = unit.node, b.shape(unit.output)
    zero = {"c_m": 0, "c_n": 0, "c_batch0": 0, "c_batch1": 0}
    name = node.inputs[2] if node.op == "Gemm" and len(node.inputs) > 2 else ""
    beta = float(node.attrs.get("beta", 1.0)) if name else 1.0
    if unit.bias is not None:
        row = np.asarray(unit.bias, b.dtype(unit.output)).reshape(-1)
        if name:
            row = row + np.broadcast_to(b.constant(name).reshape(-1), row.shape) * np.asarray(beta, row.dtype)
        return row.astype(b.dtype(unit.output)), {**zero, "c_n": 1}, 1.0
    if not name:
        return None, zero, 0.0
    c = b.plain(name)
    full = (1,) * (2 - len(c.shape)) + c.shape
    row_stride = 0 if full[0] == 1 != shape[0] else c_strides(full)[0]
    return c, {**zero, "c_m": row_stride if full[0] > 1 else 0, "c_n": 0 if full[1] == 1 else 1}, beta


def _lower_matrix(unit: Unit, b: DeviceBuilder, tile: Tile | None) -> None:
    node = unit.node
    gemm = node.op == "Gemm"
    a, w = b.plain(node.inputs[0]), b.plain(node.inputs[1])
    residual = b.plain(unit.residual) if unit.residual else None
    c, c_strides_, beta = _third(unit, b)
    y = b.new(unit.output)
    batches, m, k, n = _sizes(unit, b)
    sa = _strides(a, 4, bool(gemm and node.attrs.get("transA", 0)))
    sw = _strides(w, 4, bool(gemm and node.attrs.get("transB", 0)))
    fields: dict[str, Any] = dict(
        m=m, n=n, k=k, a_m=sa[2], a_k=sa[3], b_k=sw[2], b_n=sw[3], has_residual=residual is not None,
        scale=float(node.attrs.get("alpha", 1.0)) if gemm else 1.0, beta=beta, **epilogue(unit),
    )  # fmt: skip
    arrays = [a, w, c, residual, y]
    if tile is None:
        fields.update(c_m=c_strides_["c_m"], c_n=c_strides_["c_n"])
        b.launch(GEMVS[y.dtype.name], (n, m), arrays, **fields)
        return
    full = (1,) * (4 - len(y.shape)) + y.shape
    b.launch(
        GEMM[y.dtype.name, tile.name], (-(-n // tile.n), -(-m // tile.m), batches), arrays, batch1=full[1],
        a_batch0=sa[0], a_batch1=sa[1], b_batch0=sw[0], b_batch1=sw[1], **c_strides_, **fields,
    )  # fmt: skip


def _each_tile() -> Iterator[tuple[str, dict[str, Any]]]:
    parts = (("lower", _lower_matrix), ("legal", _legal_matrix), ("cost", _cost_matrix))
    for tile in TILES:
        yield f"gemm_{tile.name}", {part: partial(f, tile=tile) for part, f in parts}  # type: ignore[operator]


for _name, _parts in _each_tile():
    add(_name, ("Gemm", "MatMul"), **_parts)
add("gemv", ("Gemm", "MatMul"), partial(_lower_matrix, tile=None), _legal_vector, _cost_vector)
