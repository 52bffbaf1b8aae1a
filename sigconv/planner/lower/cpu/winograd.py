"""Convolution by Winograd's minimal filtering: 3x3 to 5x5, and longer or strided filters as several of those.

The taps k = s*(r*g + a) + b of an axis of stride s fall into groups g and phases b of r taps a each: filters of stride
1 over channels of their own, which are the old ones from other origins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from sigconv.geometry import WindowAxis
from sigconv.kernels.cpu import direct, winograd
from sigconv.kernels.cpu.spread import spread_f32
from sigconv.kernels.cpu.winograd import F2, F2_5, F3_4, F4, Form
from sigconv.kernels.jit import Kernel
from sigconv.kernels.simd import lanes
from sigconv.planner.build import Builder
from sigconv.planner.candidates import Candidate, Cost, attach
from sigconv.planner.fuse import Unit
from sigconv.planner.lower.cpu.direct import (
    L1_BYTES,
    PEAK,
    WIDEST,
    bias_of,
    conv_window,
    has_layout,
    legal_fixed,
    spatial_strides,
)  # fmt: skip
from sigconv.planner.tensors import Tensor

CHUNK_BYTES = 1 << 20
"""What the points of a chunk of tiles may take, inputs and products together: half of an L2 cache."""
CHUNK_TILES = 24
"""Tiles that a chunk has in any case, to fill register tiles; a thread of its own has as many."""
CHUNK_TILES_STREAMED = 64
"""As above, where the weights do not stay in L2: they are read once a chunk."""
FILTER_BYTES = 300 << 10
"""What the points of one pass's weights may take in L2, where they are made of taps beside the products."""
STREAM = 8e9
"""Bytes of weights per second that come from memory beside the products, at `PEAK`."""
FEW_TILES = 160
"""Tiles up to which filters count against `Builder.spare`: fewer are worth less time a byte."""
TAPS, TAPS_PRODUCTS = 5e9, 1.15
"""Bytes of taps per second that become points at `PEAK`, and how much longer the products beside that take."""
UNPACKING = {32: 1.0, 24: 1.15}
"""How much longer products take, by the bits of a weight."""
SPREAD = 1e9
"""Elements per second that `spread` writes at `PEAK`."""
TRANSFORM = 1.5e10
"""Bytes of points per second of the transforms at `PEAK`, fitted to layers of 3 to 512 channels."""


@dataclass(frozen=True, slots=True)
class Split:
    """How a filter falls into parts of ``form``'s taps, by axis: phases of the stride times groups of taps."""

    form: Form
    h: WindowAxis
    w: WindowAxis
    spread: bool
    """Whether the parts are gathered into channels of a new image; else each block of channels is read in place."""

    @property
    def groups(self) -> tuple[int, int]:
        return tuple(-(-a.kernel // (a.stride * self.form.r)) for a in (self.h, self.w))  # type: ignore[return-value]

    @property
    def parts(self) -> int:
        """Short filters that one long one becomes."""
        return math.prod(self.groups) * self.h.stride * self.w.stride

    def origins(self) -> list[tuple[int, int]]:
        """Of each part: the input row and column that its tap 0 reads for output 0."""
        rows, columns = (
            [a.stride * self.form.r * g + b - a.before for g in range(n) for b in range(a.stride)]
            for a, n in zip((self.h, self.w), self.groups, strict=True)
        )
        return [(h, w) for h in rows for w in columns]

    def weights(self, weights: np.ndarray) -> np.ndarray:
        """[M, C, KH, KW] as [M, parts * C, r, r], in the order of `origins`."""
        m, c, kh, kw = weights.shape
        (gh, gw), r, sh, sw = self.groups, self.form.r, self.h.stride, self.w.stride
        whole = np.zeros((m, c, gh * r * sh, gw * r * sw), weights.dtype)
        whole[:, :, :kh, :kw] = weights
        parts = whole.reshape(m, c, gh, r, sh, gw, r, sw).transpose(0, 2, 4, 5, 7, 1, 3, 6)
        return parts.reshape(m, -1, r, r)


def _split(form: Form, unit: Unit, b: Builder) -> Split | None:
    """Unless the window is dilated, or parts of the form's taps would be zeros for the most part."""
    h, w = conv_window(unit, b).axes
    strided = (h.stride, w.stride) != (1, 1)
    split = Split(form, h, w, strided or bool(b.shape(unit.node.inputs[1])[1] % lanes(np.float32)))
    if split.groups == (1, 1) and not strided:
        split = replace(split, spread=False)
        return split if h.kernel == w.kernel == form.r and h.dilation == w.dilation == 1 else None
    fits = all(
        a.dilation == 1 and g * form.r * a.stride < 2 * a.kernel for a, g in zip((h, w), split.groups, strict=True)
    )
    return split if fits else None


def _legal(unit: Unit, b: Builder, form: Form, bits: int) -> str | None:
    reason = legal_fixed(unit, b)
    if reason:
        return reason
    axes = conv_window(unit, b).axes
    if int(unit.node.attrs.get("group", 1)) != 1 or len(axes) != 2 or _split(form, unit, b) is None:
        return f"not one group of filters that fall into parts of {form.r}x{form.r} taps"
    fits = bits == 24 and _nbytes(form, *b.shape(unit.node.inputs[1])[:2])[0] <= CHUNK_BYTES
    return "the weights stay in L2" if fits else None


def _tiles(form: Form, unit: Unit, b: Builder) -> tuple[int, int]:
    h, w = b.shape(unit.output)[2:]
    return -(-h // form.m), -(-w // form.m)


def _nbytes(form: Form, m: int, c: int, bits: int = 32) -> tuple[int, int]:
    """What the weights take as points, of so many bits each, and as taps."""
    return bits // 8 * form.n**2 * m * c, 4 * form.r**2 * m * c


def _room(form: Form, m: int, c: int, unit: Unit, b: Builder) -> int:
    """Bytes of `Builder.spare` that points instead of taps take: none if they stay in L2 or many tiles share them."""
    points, taps = _nbytes(form, m, c)
    few = b.shape(unit.output)[0] * math.prod(_tiles(form, unit, b)) <= FEW_TILES
    return points - taps if few and points > CHUNK_BYTES else 0


def _as_taps(form: Form, m: int, c: int, unit: Unit, b: Builder, bits: int) -> bool:
    """Whether the kernel makes the weights' points itself, chunk by chunk: where keeping them takes too much memory."""
    return bits == 32 and _room(form, m, c, unit, b) > b.spare


def _chunk(form: Form, m: int, c: int) -> int:
    """Tiles of a chunk."""
    least = CHUNK_TILES if _nbytes(form, m, c)[0] <= CHUNK_BYTES else CHUNK_TILES_STREAMED
    return max(least, CHUNK_BYTES // (4 * form.n**2 * (m + c)))


def _cost(unit: Unit, b: Builder, form: Form, bits: int) -> Cost:
    split = _split(form, unit, b)
    assert split is not None
    x, y = b.shape(unit.node.inputs[0]), b.shape(unit.output)
    m, c = b.shape(unit.node.inputs[1])[:2]
    c *= split.parts
    vl, square = lanes(np.float32), form.n**2
    tiles = y[0] * math.prod(_tiles(form, unit, b))
    blocks, out_blocks = -(-c // vl), -(-m // vl)
    flops = 2.0 * tiles * square * c * m
    nbytes = float(sum(b.nbytes(n) for n in (*unit.inputs, unit.output)))
    points = 4.0 * square * vl * tiles * (blocks + out_blocks)
    seconds = 2.0 * tiles * square * c * out_blocks * vl / (PEAK * 0.95)
    chunks = -(-tiles // _chunk(form, m, c))
    at_points, at_taps = (chunks * size for size in _nbytes(form, out_blocks * vl, c, bits))
    if _as_taps(form, m, c, unit, b, bits):
        seconds = seconds * TAPS_PRODUCTS + at_taps / TAPS
    else:
        seconds = max(seconds * UNPACKING[bits], at_points / (STREAM if at_points > chunks * CHUNK_BYTES else 3e10))
    seconds += points / TRANSFORM
    if split.spread:
        seconds += x[0] * c * math.prod(y[2:]) / SPREAD
    elif not has_layout(b, unit.node.inputs[0], vl):
        seconds += 4.0 * math.prod(x) / 4e9
    return Cost(flops, nbytes, seconds)


def _spread(split: Split, unit: Unit, b: Builder) -> Tensor:
    """The parts of the filter as channels of a new image, large enough for every window of the form's taps."""
    x = b.planar(unit.node.inputs[0])
    h, w = split.h, split.w
    n, c = x.shape[:2]
    origins = split.origins()
    y = b.scratch(
        x.dtype, (n, c * len(origins), h.output + split.form.r - 1, w.output + split.form.r - 1), lanes(x.dtype)
    )
    xs, ys = spatial_strides(x), spatial_strides(y)
    origin_h, origin_w = np.repeat(np.array(origins, np.int64), c, axis=0).T.copy()
    b.emit(
        spread_f32, x=x.address, y=y.address, batch=n, channels=y.shape[1], rows=y.shape[2], in_h=h.size, in_w=w.size,
        out_w=y.shape[3], step_h=h.stride, step_w=w.stride, origin_h=origin_h, origin_w=origin_w,
        plane=np.tile(np.arange(c) * xs.block, len(origins)), x_batch=xs.batch, x_h=xs.h, x_w=xs.pixel,
        y_batch=ys.batch, y_block=ys.block, y_h=ys.h,
    )  # fmt: skip
    return y


def _lower(unit: Unit, b: Builder, form: Form, kernel: Kernel, bits: int) -> None:
    split = _split(form, unit, b)
    assert split is not None
    weights = split.weights(b.constant(unit.node.inputs[1]))
    m, c = weights.shape[:2]
    if split.spread:
        x, origins = _spread(split, unit, b), [(0, 0)]
    else:
        x, origins = b.blocked(unit.node.inputs[0]), split.origins()
    r = b.blocked(unit.residual) if unit.residual else None
    y = b.new(unit.output, x.block)
    vl, square = x.block, form.n**2
    first, width, pixels = direct.tiles(m)
    bias = np.zeros((y.blocks + WIDEST) * vl, np.float32)  # then zeros, with which products start
    own = bias_of(unit, b, m, weights.dtype)
    if isinstance(own, np.ndarray):
        bias[:m] = own
    tiles_h, tiles_w = _tiles(form, unit, b)
    tiles = x.shape[0] * tiles_h * tiles_w
    chunk_tiles = min(tiles, _chunk(form, m, c))
    shares = tiles // CHUNK_TILES if tiles >= b.threads * CHUNK_TILES else len(first)
    blocks = x.blocks * len(origins)
    taps = _as_taps(form, m, c, unit, b, bits)
    if taps:
        pass_blocks = max(1, FILTER_BYTES // (4 * square * vl * vl * WIDEST))
        w, w_point = winograd.pack_taps(weights), (pass_blocks * vl * WIDEST | 1) * vl
    else:
        pass_blocks = max(1, L1_BYTES // (4 * vl * vl * WIDEST))
        w, w_point = winograd.transform(form, weights, bits), c * y.blocks * vl
        b.spare -= _room(form, m, c, unit, b) if bits == 32 else 0
    share = square * (vl * (1 + (chunk_tiles * blocks | 1) + (chunk_tiles * y.blocks | 1)) + 2 * taps * w_point)
    xs, ys = spatial_strides(x), spatial_strides(y)
    rs = spatial_strides(r) if r else None
    block_h, block_w = np.repeat(np.array(origins, np.int64), x.blocks, axis=0).T.copy()
    b.emit(
        kernel, width=min(b.threads, shares), x=x.address, w=w, taps=taps * form.r**2, w_point=w_point,
        bias=bias, y=y.address, residual=r.address if r else 0, **b.own_scratch(4 * share),
        tiles=tiles, chunk_tiles=chunk_tiles, least_tiles=CHUNK_TILES, tiles_h=tiles_h,
        tiles_w=tiles_w, in_h=x.shape[2], in_w=x.shape[3], out_h=y.shape[2], out_w=y.shape[3],
        channels=c, blocks=blocks, out_blocks=y.blocks, pass_blocks=pass_blocks,
        block_at=np.tile(np.arange(x.blocks) * xs.block, len(origins)), block_h=block_h, block_w=block_w,
        x_batch=xs.batch, x_h=xs.h, y_batch=ys.batch, y_block=ys.block, y_h=ys.h, r_batch=rs.batch if rs else 0,
        r_block=rs.block if rs else 0, r_h=rs.h if rs else 0, panels=len(first), tile_first=first, tile_width=width,
        tile_pixels=pixels, alpha=unit.activation.alpha, lo=unit.activation.lo, hi=unit.activation.hi,
    )  # fmt: skip


for _name, _form, _kernel, _bits, _error in (
    ("winograd_4x4", F4, winograd.winograd_4_f32, 32, 1e-4),
    ("winograd_3x3_4x4", F3_4, winograd.winograd_3_of_4_f32, 32, 1e-4),
    ("winograd_2x2", F2, winograd.winograd_2_f32, 32, 1e-5),
    ("winograd_2x2_24bit", F2, winograd.winograd_2_f32_24bit, 24, 1e-4),
    ("winograd_2x2_5x5", F2_5, winograd.winograd_2_of_5_f32, 32, 1e-4),
):
    attach(
        Candidate(
            _name,
            ("Conv",),
            partial(_legal, form=_form, bits=_bits),
            partial(_cost, form=_form, bits=_bits),
            partial(_lower, form=_form, kernel=_kernel, bits=_bits),
            accuracy="winograd",
            error=_error,
        )
    )
