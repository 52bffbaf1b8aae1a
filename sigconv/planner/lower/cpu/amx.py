"""Convolution on matrix tiles: `sigconv.kernels.cpu.amx`, where the CPU has them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np

from sigconv.geometry import WindowAxis
from sigconv.kernels.cpu import amx
from sigconv.kernels.cpu.amx import GUARD
from sigconv.kernels.cpu.matrix_tiles import CHANNELS, LANES, PAIR, PIXEL, PIXELS, SUMS, config
from sigconv.planner.build import Builder
from sigconv.planner.candidates import Candidate, Cost, attach
from sigconv.planner.fuse import Unit
from sigconv.planner.lower.cpu.direct import (
    GRAIN,
    L1_BYTES,
    PEAK,
    UNIT_AXIS,
    bias_of,
    conv_window,
    has_layout,
    legal_fixed,
    spatial_strides,
)  # fmt: skip
from sigconv.planner.tensors import Address

NEAR_BYTES = 1 << 20
"""What stays in L2 beside what streams through it."""
PRODUCTS = {1: 15.0, 2: 5.0}
"""How many times `PEAK` the products of tiles reach by their parts, columns in the borders and padding included."""
MEMORY = 1e10
"""Bytes per second that are read and written beside the products, at `PEAK`: nothing hides behind them."""
LARGEST = 3e38
"""Of weights; a little more is infinite as bfloat16."""
ENDLESS = 1 << 40
"""Pixels of a row that is the only one."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How a window falls into phases of its strides, and taps into distances from the output's pixel."""

    h: WindowAxis
    w: WindowAxis
    phases: tuple[tuple[int, int], ...]
    taps: tuple[tuple[int, int, int], ...]
    """Of each tap: its phase, rows and columns of that phase's plane from the output's pixel."""

    @classmethod
    def of(cls, h: WindowAxis, w: WindowAxis) -> Shape:
        rows, columns = ([divmod(k * a.dilation, a.stride) for k in range(a.kernel)] for a in (h, w))
        places = [((i[1], j[1]), i[0], j[0]) for i in rows for j in columns]
        phases = sorted({phase for phase, _, _ in places})
        return cls(h, w, tuple(phases), tuple((phases.index(phase), i, j) for phase, i, j in places))

    @property
    def line(self) -> bool:
        """Whether all pixels lie in one row, along the axis of rows."""
        return self.w == UNIT_AXIS

    @property
    def reach(self) -> tuple[int, int]:
        """Rows and columns of a plane beside those of the outputs."""
        return max(t[1] for t in self.taps), max(t[2] for t in self.taps)

    @property
    def pitch(self) -> int:
        """Pixels of a row of a plane."""
        return self.w.output + self.reach[1]

    @property
    def read(self) -> int:
        """Pixels of all phases that a tile reads of a pair of blocks."""
        rows = {(phase, row) for phase, row, _ in self.taps}
        return len(rows) * (PIXELS * LANES + self.reach[1])

    def plane(self, rows: int) -> int:
        """Pixels of a plane of a chunk of so many output rows."""
        return (rows + self.reach[0]) * self.pitch + GUARD + self.reach[1]


def _shape(unit: Unit, b: Builder, dense: bool) -> Shape:
    """``dense``: nothing lies between the rows of an image, so that those of a 1x1 convolution are a single one."""
    axes = conv_window(unit, b).axes
    if len(axes) == 1:
        return Shape.of(axes[0], UNIT_AXIS)
    if dense and all(a.kernel == a.stride == 1 and a.before == 0 and a.size == a.output for a in axes):
        pixels = axes[0].size * axes[1].size
        return Shape.of(WindowAxis(pixels, 1, 1, 1, 0, 0, pixels), UNIT_AXIS)
    return Shape.of(*axes)


def _legal(unit: Unit, b: Builder) -> str | None:
    if not amx.KERNELS:
        return "no matrix tiles"
    reason = legal_fixed(unit, b)
    if reason:
        return reason
    if int(unit.node.attrs.get("group", 1)) != 1 or len(conv_window(unit, b).axes) > 2:
        return "not one group on one or two axes"
    weights = b.constant(unit.node.inputs[1])
    return None if -LARGEST < weights.min() <= weights.max() < LARGEST else "weights are not finite"


@dataclass(frozen=True, slots=True)
class Plan:
    """How the rows of a batch are divided: in chunks of a thread's own, or split by all threads first (``shared``)."""

    shared: bool
    chunk_rows: int
    chunks: int
    threads: int
    group: int
    """Images of which a thread splits the same rows before it multiplies."""
    again: int
    """Bytes that are read from beyond L2 more than once."""


def _plan(unit: Unit, b: Builder, s: Shape, threads: int, parts: int) -> Plan:
    """What reads least from beyond L2: weights once for every chunk, or the split input once for every panel."""
    n, c = b.shape(unit.node.inputs[0])[:2]
    m, rows = b.shape(unit.output)[1], s.h.output
    planes, panels = len(s.phases) * -(-c // PAIR), -(-m // (LANES * CHANNELS))
    work = 2.0 * n * m * c * len(s.taps) * rows * s.w.output
    threads = min(threads, int(work // GRAIN) + 1)
    pixel = parts * PIXEL
    weights, image = parts * b.nbytes(unit.node.inputs[1]) // 2, planes * s.plane(rows) * pixel
    split = n * image
    room = NEAR_BYTES if weights > NEAR_BYTES // 2 else NEAR_BYTES // 2
    chunks = -(-rows // max(1, (room // (planes * pixel) - s.plane(0)) // s.pitch))
    if n * chunks < 8 * threads:
        even = threads // math.gcd(n, threads)
        chunks = min(rows, -(-chunks // even) * even)
    chunk_rows = -(-rows // chunks)
    if s.line:
        chunk_rows = -(-chunk_rows // (PIXELS * LANES)) * PIXELS * LANES
    chunks = -(-rows // chunk_rows)
    group = max(1, min(-(-n // threads), room // image)) if chunks == 1 else 1
    own = weights * (-(-n // group) * chunks - 1) if weights > NEAR_BYTES // 2 else 0
    all_at_once = split * (panels - 1) if split > NEAR_BYTES else 0
    if panels >= threads and (all_at_once < own or split <= NEAR_BYTES):
        return Plan(True, rows, 1, threads, 1, all_at_once)
    return Plan(False, chunk_rows, chunks, min(threads, -(-n // group) * chunks), group, own)


def _cost(unit: Unit, b: Builder, parts: int) -> Cost:
    s = _shape(unit, b, True)
    n, c = b.shape(unit.node.inputs[0])[:2]
    m = b.shape(unit.output)[1]
    plan = _plan(unit, b, s, 1, parts)
    pixels = -(-plan.chunk_rows * s.pitch // LANES) * LANES * plan.chunks * n
    out_tiles = -(-m // LANES)
    depth = -(-c // PAIR) * PAIR * len(s.taps)
    flops = 2.0 * n * m * c * len(s.taps) * s.h.output * s.w.output
    nbytes = float(sum(b.nbytes(name) for name in (*unit.inputs, unit.output)))
    seconds = 2.0 * pixels * out_tiles * LANES * depth / (PEAK * PRODUCTS[parts]) + (nbytes + plan.again) / MEMORY
    if not has_layout(b, unit.node.inputs[0], LANES):
        seconds += b.nbytes(unit.node.inputs[0]) / 4e9
    return Cost(flops, nbytes, seconds)


def _lower(unit: Unit, b: Builder, parts: int) -> None:
    weights = b.constant(unit.node.inputs[1])
    m, c = weights.shape[:2]
    x = b.blocked(unit.node.inputs[0])
    r = b.blocked(unit.residual) if unit.residual else None
    y = b.new(unit.output, LANES)
    s = _shape(unit, b, all(t.margin == (0, 0) for t in (x, y, r) if t is not None))
    plan = _plan(unit, b, s, b.threads, parts)
    n, pairs, plane = x.shape[0], -(-c // PAIR), s.plane(plan.chunk_rows) * parts * PIXEL
    bias = np.zeros(-(-m // (CHANNELS * LANES)) * CHANNELS * LANES, np.float32)
    own = bias_of(unit, b, m, weights.dtype)
    if isinstance(own, np.ndarray):
        bias[:m] = own
    near = parts * weights.nbytes // 2 <= NEAR_BYTES // 2
    phases = np.array(s.phases, np.int64)
    taps = np.array([f * pairs * plane + (h * s.pitch + w) * parts * PIXEL for f, h, w in s.taps], np.int64)
    reads = (np.arange(pairs)[:, None] * plane + taps).reshape(-1)
    split = len(phases) * pairs * plane
    all_split = Address(b.new_buffer(n * split)) if plan.shared else 0
    scratch = b.own_scratch(2 * SUMS + (0 if plan.shared else plan.group * split))
    packed, tiles = amx.pack(weights.reshape(m, c, -1), parts), config()
    strides = [spatial_strides(t) if t else None for t in (x, y, r)]
    batch, block, row = (
        [getattr(v, name) if v else 0 for v in strides] for name in ("batch", "block", "pixel" if s.line else "h")
    )
    for stages in (amx.SPLIT, amx.MULTIPLY) if plan.shared else (amx.SPLIT | amx.MULTIPLY,):
        b.emit(
            amx.KERNELS[parts], width=plan.threads, x=x.address, w=packed, bias=bias, y=y.address,
            residual=r.address if r else 0, config=tiles, split=all_split, **scratch, stages=stages,
            group=plan.group, near=near, pixels_first=near and parts * PIXEL * pairs * s.read <= L1_BYTES, batch=n,
            chunks=plan.chunks, rows=s.h.output, chunk_rows=plan.chunk_rows, pitch=s.pitch, line=s.line,
            row=ENDLESS if s.line else s.pitch, out_w=ENDLESS if s.line else s.w.output,
            phases=len(phases), pairs=pairs, steps=len(reads), reads=reads, plane=plane,
            phase_h=phases[:, 0] - s.h.before, phase_w=phases[:, 1] - s.w.before, reach=s.reach[0],
            stride_h=s.h.stride, stride_w=s.w.stride, in_h=s.h.size, in_w=s.w.size, channels=c, blocks=x.blocks,
            out_blocks=y.blocks, tail=m - (y.blocks - 1) * LANES, x_batch=batch[0], x_block=block[0], x_h=row[0],
            y_batch=batch[1], y_block=block[1], y_h=row[1], r_batch=batch[2], r_block=block[2], r_h=row[2],
            alpha=unit.activation.alpha, lo=unit.activation.lo, hi=unit.activation.hi,
        )  # fmt: skip


for _name, _parts, _error in (("amx_bf16x3", 2, 1e-5), ("amx_bf16", 1, 5e-2)):
    attach(
        Candidate(
            _name,
            ("Conv",),
            _legal,
            partial(_cost, parts=_parts),
            partial(_lower, parts=_parts),
            accuracy="rounded",
            error=_error,
        )
    )
