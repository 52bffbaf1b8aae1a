"""Depthwise correlation in blocked layout: every lane is a channel with its own filter.

A tile of neighbouring outputs stays in registers over all taps and shares each tap's weights. Where a row of the kernel
has three neighbouring taps and the stride is 1 or 2, an input is loaded once for all of them, and the multiplications
set the pace. The kernel never checks the W borders: the planner gives the input a margin of zeros there. D and H
borders are trimmed through tables.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir

from sigconv.kernels.address import as_pointer
from sigconv.kernels.jit import Kernel, kernel
from sigconv.kernels.late import carray, cgutils, intrinsic, types
from sigconv.kernels.simd import I64, VECTOR_BYTES, _clamp, _fma, _llvm_vector, _load, _splat, _store, lanes

PIXELS = 14 if VECTOR_BYTES == 64 else 8
"""Accumulators: enough to hide the latency of fma, few enough for the registers. Maps are often 7 << n wide."""
ROW_TAPS = 3
"""Taps in a row of the kernels that have tiles of their own, one for each stride up to `MOST_STRIDE`."""
MOST_STRIDE = 2

ARGS = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("x", "w", "bias", "y"),  # x: what tap 0 of column 0 reads in row 0 (the pad of W is in the margin)
            *("batch", "blocks", "out_d", "out_h", "out_w"),  # blocks of `simd.lanes` channels
            *("kernel_d", "kernel_h", "kernel_w", "stride_d", "stride_h"),
            *("origin_d", "origin_h"),  # index of tap 0 of output 0: minus the pad
            *("kd_lo", "kd_hi", "kh_lo", "kh_hi"),  # addresses of int64 tables: taps inside the input, by output index
            *("x_batch", "x_block", "x_d", "x_h", "x_kd", "x_kh", "x_kw", "x_pixel"),  # strides in elements
            *("y_batch", "y_block", "y_d", "y_h", "y_pixel"),
        )
    ]
    + [("lo", np.float64), ("hi", np.float64)]  # the result is clamped to [lo, hi]; NaN stays NaN
)
"""w[blocks, kernel_d, kernel_h, kernel_w, lanes] and bias[blocks, lanes] (0: absent) are contiguous."""


def pack(weights: np.ndarray) -> np.ndarray:
    """Weights [C, 1, KD, KH, KW] or per-channel values [C] in the kernel's order; the lanes beyond C are 0."""
    c = lanes(weights.dtype)
    channels, blocks = weights.shape[0], -(-weights.shape[0] // c)
    padded = np.zeros((blocks * c, weights[0].size if channels else 1), weights.dtype)
    padded[:channels] = weights.reshape(channels, -1)
    return np.ascontiguousarray(padded.reshape(blocks, c, -1).transpose(0, 2, 1))


@intrinsic
def _tile(
    typingctx, pixels, step, x, w, bias, y, kd0, kd1, kh0, kh1, KH, KW, x_kd, x_kh, x_kw, x_pixel, y_pixel, lo, hi
):
    """``pixels`` (1 … PIXELS) neighbouring outputs; ``bias`` may be a null pointer.

    ``step``: the stride where a row of taps is `ROW_TAPS` neighbours and the stride at most `MOST_STRIDE`, else 0.
    """
    n, number = types.int64, x.dtype
    sig = types.void(n, n, x, x, x, x, *[n] * 11, number, number)

    def codegen(context, builder, sig, args):
        vec = _llvm_vector(sig.args[2].dtype)
        done = builder.append_basic_block("tile.done")
        key = builder.add(builder.mul(args[1], ir.Constant(I64, PIXELS + 1)), args[0])
        switch = builder.switch(key, done)
        for step in range(MOST_STRIDE + 1):
            for p in range(1, PIXELS + 1):
                case = builder.append_basic_block(f"tile.{p}.{step}")
                switch.add_case(ir.Constant(I64, step * (PIXELS + 1) + p), case)
                builder.position_at_end(case)
                _emit_tile(builder, vec, p, step, *args[2:])
                builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return sig, codegen


def _emit_tile(
    builder, vec, pixels, step, x, w, bias, y, kd0, kd1, kh0, kh1, KH, KW, x_kd, x_kh, x_kw, x_pixel, y_pixel, lo, hi
):
    mul, plus = builder.mul, builder.add
    zero, one, width = ir.Constant(I64, 0), ir.Constant(I64, 1), ir.Constant(I64, vec.count)
    acc = [cgutils.alloca_once(builder, vec) for _ in range(pixels)]
    for cell in acc:
        builder.store(ir.Constant(vec, [0.0] * vec.count), cell)
    with builder.if_then(builder.icmp_unsigned("!=", builder.ptrtoint(bias, I64), zero)):
        start = _load(builder, bias, zero, vec)
        for cell in acc:
            builder.store(start, cell)

    def row_of_neighbours(x_row, w_row):
        """The taps of a row all at once: neighbouring outputs share inputs."""
        weights = [_load(builder, w_row, ir.Constant(I64, k * vec.count), vec) for k in range(ROW_TAPS)]
        for at in range((pixels - 1) * step + ROW_TAPS):
            readers = [(p, at - p * step) for p in range(pixels) if 0 <= at - p * step < ROW_TAPS]
            value = _load(builder, x_row, ir.Constant(I64, at * vec.count), vec) if readers else None
            for p, k in readers:
                builder.store(_fma(builder, value, weights[k], builder.load(acc[p])), acc[p])

    def row_of_any(x_row, w_row):
        with cgutils.for_range(builder, KW) as columns:
            weights = _load(builder, w_row, mul(columns.index, width), vec)
            x_tap = builder.gep(x_row, [mul(columns.index, x_kw)])
            for p, cell in enumerate(acc):
                value = _load(builder, x_tap, mul(x_pixel, ir.Constant(I64, p)), vec)
                builder.store(_fma(builder, value, weights, builder.load(cell)), cell)

    row = row_of_neighbours if step else row_of_any
    with cgutils.for_range_slice(builder, kd0, kd1, one, inc=True) as (kd, _):
        with cgutils.for_range_slice(builder, kh0, kh1, one, inc=True) as (kh, _):
            taps = mul(plus(mul(kd, KH), kh), KW)
            row(builder.gep(x, [plus(mul(kd, x_kd), mul(kh, x_kh))]), builder.gep(w, [mul(taps, width)]))
    low, high = _splat(builder, lo, vec), _splat(builder, hi, vec)
    for p, cell in enumerate(acc):
        _store(builder, _clamp(builder, builder.load(cell), low, high), y, mul(y_pixel, ir.Constant(I64, p)))


def make(dtype: type, name: str) -> Kernel:
    size, width = np.dtype(dtype).itemsize, lanes(dtype)

    def depthwise(args, thread, threads):
        a = carray(args, 1)[0]
        kd_lo, kd_hi = as_pointer(a.kd_lo, np.int64), as_pointer(a.kd_hi, np.int64)
        kh_lo, kh_hi = as_pointer(a.kh_lo, np.int64), as_pointer(a.kh_hi, np.int64)
        lo, hi = dtype(a.lo), dtype(a.hi)
        taps = a.kernel_d * a.kernel_h * a.kernel_w
        step = a.x_pixel // width
        if a.kernel_w != ROW_TAPS or a.x_kw != width or step > MOST_STRIDE:
            step = 0
        tiles = (a.out_w + PIXELS - 1) // PIXELS
        rows = a.batch * a.blocks * a.out_d * a.out_h
        for r in range(rows * thread // threads, rows * (thread + 1) // threads):
            h = r % a.out_h
            d = r // a.out_h % a.out_d
            block = r // a.out_h // a.out_d % a.blocks
            batch = r // a.out_h // a.out_d // a.blocks
            in_d, in_h = d * a.stride_d + a.origin_d, h * a.stride_h + a.origin_h
            x = a.x + size * (batch * a.x_batch + block * a.x_block + in_d * a.x_d + in_h * a.x_h)
            y = a.y + size * (batch * a.y_batch + block * a.y_block + d * a.y_d + h * a.y_h)
            w = as_pointer(a.w + size * block * taps * width, dtype)
            bias = as_pointer(a.bias + size * block * width if a.bias else 0, dtype)
            for tile in range(tiles):
                first, last = a.out_w * tile // tiles, a.out_w * (tile + 1) // tiles
                _tile(
                    last - first,
                    step,
                    as_pointer(x + size * first * a.x_pixel, dtype),
                    w,
                    bias,
                    as_pointer(y + size * first * a.y_pixel, dtype),
                    kd_lo[d],
                    kd_hi[d],
                    kh_lo[h],
                    kh_hi[h],
                    a.kernel_h,
                    a.kernel_w,
                    a.x_kd,
                    a.x_kh,
                    a.x_kw,
                    a.x_pixel,
                    a.y_pixel,
                    lo,
                    hi,
                )

    depthwise.__name__ = depthwise.__qualname__ = name
    return kernel(ARGS)(depthwise)


depthwise_f32 = make(np.float32, "depthwise_f32")
depthwise_f64 = make(np.float64, "depthwise_f64")
