"""Winograd's F(4x4, 3x3): tiles of input to 36 points, a product at each point (`gemm`), and back to 4x4 outputs.

A quarter of the multiply-adds of the plain sum, for an error that grows to 1e-4 of the output's scale.
Source: Lavin & Gray, Fast Algorithms for Convolutional Neural Networks, arXiv:1509.09308.
"""

from __future__ import annotations

import numpy as np
from numba import cuda

from sigconv.kernels.cuda.epilogue import finish
from sigconv.kernels.cuda.index import unravel
from sigconv.kernels.cuda.jit import BLOCK, device, kernel, record

OUT, IN, POINTS = 4, 6, 36
"""Outputs and inputs of a tile along an axis, and points."""

WEIGHTS = np.array(
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], np.float64
) / 24  # fmt: skip
"""G: three taps to six points."""

INPUT = record("WinogradInput", "channels tiles tiles_h tiles_w in_h in_w before_h before_w")
"""points[p, c, t] of x[n, c, h, w]; t runs over n, rows and columns of tiles. Grid: (channels, tiles in blocks)."""

OUTPUT = record("WinogradOutput", "channels tiles tiles_h tiles_w out_h out_w has_bias has_residual", "alpha lo hi")
"""y[n, m, h, w] of points[p, m, t], with bias, residual and activation. Grid: (channels, tiles in blocks)."""


# A float32 times one of Python's integers would be a float64.
TWO, FOUR, FIVE, EIGHT = (np.float32(n) for n in (2, 4, 5, 8))


@device
def _to_points(a, b, c, d, e, f):
    """B' of six inputs."""
    p, q = e - FOUR * c, d - FOUR * b
    r, s = e - c, TWO * (d - b)
    return FOUR * a - FIVE * c + e, p + q, p - q, r + s, r - s, FOUR * b - FIVE * d + f


@device
def _from_points(a, b, c, d, e, f):
    """A' of six points."""
    p, q, r, s = b + c, b - c, d + e, d - e
    return a + p + r, q + TWO * s, p + FOUR * r, q + EIGHT * s + f


@kernel(INPUT, "float32 float32", BLOCK, hot=True)
def winograd_input_f32(p, x, points):
    d = cuda.local.array((IN, IN), np.float32)
    channel = cuda.blockIdx.x
    for t in range(cuda.blockIdx.y * BLOCK + cuda.threadIdx.x, p.tiles, cuda.gridDim.y * BLOCK):
        n, row, column = unravel(t, p.tiles_h, p.tiles_w)
        h0 = row * OUT - p.before_h
        w0 = column * OUT - p.before_w
        plane = (n * p.channels + channel) * p.in_h * p.in_w
        for i in range(IN):
            for j in range(IN):
                h, w = h0 + i, w0 + j
                d[i, j] = np.float32(0)
                if 0 <= h < p.in_h and 0 <= w < p.in_w:
                    d[i, j] = x[plane + h * p.in_w + w]
        for j in range(IN):
            d[0, j], d[1, j], d[2, j], d[3, j], d[4, j], d[5, j] = _to_points(
                d[0, j], d[1, j], d[2, j], d[3, j], d[4, j], d[5, j]
            )
        for i in range(IN):
            d[i, 0], d[i, 1], d[i, 2], d[i, 3], d[i, 4], d[i, 5] = _to_points(
                d[i, 0], d[i, 1], d[i, 2], d[i, 3], d[i, 4], d[i, 5]
            )
        for i in range(IN):
            for j in range(IN):
                points[((i * IN + j) * p.channels + channel) * p.tiles + t] = d[i, j]


@kernel(OUTPUT, "float32 float32 float32 float32", BLOCK, hot=True)
def winograd_output_f32(p, points, bias, residual, y):
    m = cuda.local.array((IN, IN), np.float32)
    channel = cuda.blockIdx.x
    shift = bias[channel] if p.has_bias else np.float32(0)
    for t in range(cuda.blockIdx.y * BLOCK + cuda.threadIdx.x, p.tiles, cuda.gridDim.y * BLOCK):
        for i in range(IN):
            for j in range(IN):
                m[i, j] = points[((i * IN + j) * p.channels + channel) * p.tiles + t]
        for j in range(IN):
            m[0, j], m[1, j], m[2, j], m[3, j] = _from_points(m[0, j], m[1, j], m[2, j], m[3, j], m[4, j], m[5, j])
        for i in range(OUT):
            m[i, 0], m[i, 1], m[i, 2], m[i, 3] = _from_points(m[i, 0], m[i, 1], m[i, 2], m[i, 3], m[i, 4], m[i, 5])
        n, row, column = unravel(t, p.tiles_h, p.tiles_w)
        h0 = row * OUT
        w0 = column * OUT
        plane = (n * p.channels + channel) * p.out_h * p.out_w
        for i in range(OUT):
            for j in range(OUT):
                if h0 + i < p.out_h and w0 + j < p.out_w:
                    at = plane + (h0 + i) * p.out_w + w0 + j
                    v = m[i, j] + shift
                    if p.has_residual:
                        v += residual[at]
                    y[at] = finish(v, p.alpha, p.lo, p.hi)
