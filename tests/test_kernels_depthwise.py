"""Depthwise kernels against naive loops: strides, dilation, borders, odd channels, clamp, threads."""

from __future__ import annotations

import numpy as np
import pytest

from sigconv.geometry import Window
from sigconv.kernels.cpu import depthwise
from sigconv.kernels.simd import lanes
from tests.cases import windows
from tests.cases.kernel_calls import call
from tests.cases.layouts import Activation

KERNELS = {np.float32: depthwise.depthwise_f32, np.float64: depthwise.depthwise_f64}
CLOSE = {np.float32: dict(rtol=1e-5, atol=1e-5), np.float64: dict(rtol=1e-12, atol=1e-12)}


def run(x, w, bias=None, threads=1, lo=-np.inf, hi=np.inf, **attributes):
    dtype, c = x.dtype.type, lanes(x.dtype)
    window = Window.of(x.shape[2:], w.shape[2:], **attributes)
    margin = max(window.axes[-1].halo)
    src = Activation(x, c, margin, filler=0)
    dst = Activation.empty((*x.shape[:2], *window.output), dtype, c, 1)
    unit = Window.of((1,) * (3 - len(window.axes)), (1,) * (3 - len(window.axes))).axes
    d, h, wide = (*unit, *window.axes)
    (kd_lo, kd_hi), (kh_lo, kh_hi) = d.tap_ranges(), h.tap_ranges()
    x_batch, x_block, x_d, x_h, x_w = src.strides
    call(
        KERNELS[dtype],
        threads=threads,
        **dict(x=src.address - wide.before * x_w * x.itemsize, y=dst.address, w=depthwise.pack(w), lo=lo, hi=hi),
        **dict(bias=0 if bias is None else depthwise.pack(bias), batch=x.shape[0], blocks=src.buffer.shape[1]),
        **dict(out_d=d.output, out_h=h.output, out_w=wide.output),
        **dict(kernel_d=d.kernel, kernel_h=h.kernel, kernel_w=wide.kernel, stride_d=d.stride, stride_h=h.stride),
        **dict(origin_d=-d.before, origin_h=-h.before, kd_lo=kd_lo, kd_hi=kd_hi, kh_lo=kh_lo, kh_hi=kh_hi),
        **dict(x_batch=x_batch, x_block=x_block, x_d=x_d, x_h=x_h),
        **dict(x_kd=x_d * d.dilation, x_kh=x_h * h.dilation, x_kw=x_w * wide.dilation, x_pixel=x_w * wide.stride),
        **dict(zip(("y_batch", "y_block", "y_d", "y_h", "y_pixel"), dst.strides, strict=True)),
    )
    assert dst.margins_hold(1e9)
    return dst.array()


CASES = [
    ((1, 3, 40), [5], dict(pads=[2, 2])),
    ((2, 18, 9, 11), [3, 3], dict(pads=[1, 1, 1, 1])),
    ((1, 33, 14, 29), [3, 3], dict(pads=[0, 0, 1, 1], strides=[2, 2])),
    ((1, 16, 9, 7), [5, 5], dict(pads=[4, 4, 4, 4], dilations=[2, 2])),
    ((1, 5, 13, 17), [3, 4], dict(pads=[0, 6, 2, 1], dilations=[3, 2], strides=[1, 3])),
    ((1, 17, 5, 6, 9), [2, 3, 3], dict(pads=[1, 0, 1, 0, 1, 1], strides=[2, 1, 1])),
    ((1, 1, 1, 1), [1, 1], {}),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape, kernel, attributes", CASES)
def test_depthwise_matches_naive_loops(shape, kernel, attributes, dtype, rng):
    channels = shape[1]
    x, w = rng.standard_normal(shape).astype(dtype), rng.standard_normal((channels, 1, *kernel)).astype(dtype)
    bias = rng.standard_normal(channels).astype(dtype)
    want = windows.conv_nd(x, w, groups=channels, **attributes)
    np.testing.assert_allclose(run(x, w, **attributes), want, **CLOSE[dtype])
    want = np.clip(want + bias.reshape(-1, *[1] * len(kernel)), 0, 2)
    got = run(x, w, bias, lo=0.0, hi=2.0, **attributes)
    np.testing.assert_allclose(got, want, **CLOSE[dtype])
    for threads in (2, 3, 7):
        np.testing.assert_array_equal(run(x, w, bias, threads=threads, lo=0.0, hi=2.0, **attributes), got)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_every_row_length_up_to_three_tiles(stride, rng):
    for width in range(1, 3 * depthwise.PIXELS):
        x = rng.standard_normal((1, 2, 3, (width - 1) * stride + 1)).astype(np.float32)
        w = rng.standard_normal((2, 1, 3, 3)).astype(np.float32)
        attributes = dict(pads=[1, 1, 1, 1], strides=[1, stride])
        want = windows.conv_nd(x, w, groups=2, **attributes)
        np.testing.assert_allclose(run(x, w, **attributes), want, **CLOSE[np.float32])


@pytest.mark.parametrize("kernel, dilation", [(3, 2), (2, 1), (4, 1)])
def test_rows_that_have_no_tile_of_their_own(kernel, dilation, rng):
    x = rng.standard_normal((1, 17, 6, 31)).astype(np.float32)
    w = rng.standard_normal((17, 1, 3, kernel)).astype(np.float32)
    attributes = dict(pads=[1, 1, 1, 1], dilations=[1, dilation])
    np.testing.assert_allclose(
        run(x, w, **attributes), windows.conv_nd(x, w, groups=17, **attributes), rtol=1e-5, atol=1e-5
    )


def test_nan_stays_in_its_channel_and_windows():
    x, w = np.zeros((1, 3, 5, 20), np.float32), np.ones((3, 1, 3, 3), np.float32)
    x[0, 1, 2, 9] = np.nan
    want = np.zeros_like(x, bool)
    want[0, 1, 1:4, 8:11] = True
    np.testing.assert_array_equal(np.isnan(run(x, w, pads=[1, 1, 1, 1], lo=0.0, hi=6.0)), want)
