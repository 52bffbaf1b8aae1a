"""Normalisation kernels against NumPy in float64: layouts, absent scale and bias, large means, threads."""

from __future__ import annotations

import numpy as np
import pytest

from sigconv.kernels.cpu import norm
from sigconv.kernels.simd import lanes
from tests.cases.kernel_calls import call
from tests.cases.layouts import Activation

LAYER = {np.float32: norm.layer_norm_f32, np.float64: norm.layer_norm_f64}
GROUP = {np.float32: norm.group_norm_f32, np.float64: norm.group_norm_f64}
CLOSE = {np.float32: dict(rtol=1e-5, atol=3e-6), np.float64: dict(rtol=1e-12, atol=1e-12)}


def normalise(x, axes, epsilon):
    x = x.astype(np.float64)
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + epsilon)


def layer(x, scale, bias, threads=1):
    y = np.zeros_like(x)
    rows, n = x.shape
    given = dict(scale=0 if scale is None else scale, bias=0 if bias is None else bias)
    call(
        LAYER[x.dtype.type], threads=threads, src=x, dst=y, rows=rows, n=n, src_row=n, dst_row=n, epsilon=1e-5, **given
    )
    return y


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(3, 1000), (5, 10), (1, 5001), (1, 1), (0, 4)])
def test_layer_norm(shape, dtype, rng):
    x = (rng.standard_normal(shape) * 2 + 3).astype(dtype)
    scale, bias = rng.standard_normal((2, shape[1])).astype(dtype)
    plain = normalise(x, 1, 1e-5) if x.size else x
    for s, b in ((scale, bias), (scale, None), (None, bias), (None, None)):
        want = plain * (1 if s is None else s) + (0 if b is None else b)
        got = layer(x, s, b)
        np.testing.assert_allclose(got, want, **CLOSE[dtype])
        for threads in (2, 3, 7):
            np.testing.assert_array_equal(layer(x, s, b, threads), got)


def test_variance_survives_a_large_mean(rng):
    """A mean 4000 times the deviation: E[x²] − E[x]² in float32 would lose everything."""
    x = (rng.standard_normal((2, 4000)) + 4000).astype(np.float32)
    np.testing.assert_allclose(layer(x, None, None), normalise(x, 1, 1e-5), atol=1e-3)


def test_constant_and_nan_rows():
    x = np.full((3, 40), 5, np.float32)
    x[1, 39], x[2, 0] = np.nan, np.inf
    got = layer(x, None, None)
    np.testing.assert_array_equal(got[0], 0)
    assert np.isnan(got[1:]).all()


def group(x, groups, scale, bias, c=1, margin=0, threads=1):
    n, channels = x.shape[:2]
    src, dst = Activation(x, c, margin), Activation.empty(x.shape, x.dtype, c, margin)
    per_group = channels // groups if c == 1 else 1
    d, h, w = (1,) * (5 - x.ndim) + x.shape[2:]
    padded = [np.zeros(-(-channels // c) * c, x.dtype) for _ in range(2)]
    given = {}
    for name, values, buffer in zip(("scale", "bias"), (scale, bias), padded, strict=True):
        if values is not None:
            buffer[:channels] = values
            given[name] = buffer
    strides = {}
    for side, a in (("src", src), ("dst", dst)):
        batch, block, plane, row = a.strides[:4]
        strides |= {f"{side}_batch": batch, f"{side}_group": block * per_group, f"{side}_channel": block}
        strides |= {f"{side}_plane": plane, f"{side}_row": row}
    call(
        GROUP[x.dtype.type],
        threads=threads,
        **dict(src=src.address, dst=dst.address, lanes=c, batch=n, groups=groups if c == 1 else src.buffer.shape[1]),
        **dict(channels=per_group, planes=d, rows=h, cols=w, epsilon=1e-3),
        **strides,
        **given,
    )
    assert dst.margins_hold(1e9)
    return dst.array()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize(
    "shape, groups", [((2, 6, 5, 7), 6), ((2, 6, 2, 5, 37), 3), ((1, 4, 300), 1), ((2, 33, 9, 11), 33)]
)
def test_instance_and_group_norm(shape, groups, affine, dtype, rng):
    x = (rng.standard_normal(shape) * 2 + 10).astype(dtype)
    scale, bias = rng.standard_normal((2, shape[1])).astype(dtype) if affine else (None, None)
    want = normalise(x.reshape(shape[0], groups, -1), 2, 1e-3).reshape(shape)
    if affine:
        along = (1, -1) + (1,) * (len(shape) - 2)
        want = want * scale.reshape(along) + bias.reshape(along)
    layouts = [dict(c=1), dict(c=1, margin=2)]
    if groups == shape[1]:
        layouts += [dict(c=lanes(dtype), margin=2), dict(c=2 * lanes(dtype))]
    for layout in layouts:
        got = group(x, groups, scale, bias, **layout)
        np.testing.assert_allclose(got, want, **CLOSE[dtype])
        for threads in (2, 3, 7):
            np.testing.assert_array_equal(group(x, groups, scale, bias, threads=threads, **layout), got)
