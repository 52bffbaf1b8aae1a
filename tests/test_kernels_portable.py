"""The always-legal kernels (convolution, transposed convolution, matrix product) and resize, against naive loops."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from sigconv.geometry import TransposedWindow, Window
from sigconv.kernels.cpu import portable, resize
from sigconv.kernels.simd import lanes
from tests.cases import windows
from tests.cases.kernel_calls import call, parts
from tests.cases.layouts import Activation

CONV = {
    (np.float32, False): portable.conv_portable_f32,
    (np.float64, False): portable.conv_portable_f64,
    (np.float32, True): portable.conv_transpose_portable_f32,
    (np.float64, True): portable.conv_transpose_portable_f64,
}
MATMUL = {np.float32: portable.matmul_portable_f32, np.float64: portable.matmul_portable_f64}
RESIZE = {np.float32: resize.resize_f32, np.float64: resize.resize_f64}
CLOSE = {np.float32: dict(rtol=1e-4, atol=2e-5), np.float64: dict(rtol=1e-11, atol=1e-11)}
UNIT = SimpleNamespace(size=1, kernel=1, stride=1, dilation=1, before=0, output=1)


def conv(x, w, bias=None, *, groups=1, transposed=False, threads=1, lo=-np.inf, hi=np.inf, **attributes):
    window = (TransposedWindow if transposed else Window).of(x.shape[2:], w.shape[2:], **attributes)
    maps = w.shape[1] * groups if transposed else w.shape[0]
    src, dst = Activation(x, margin=2), Activation.empty((x.shape[0], maps, *window.output), x.dtype, margin=2)
    w = np.ascontiguousarray(w)
    pair = int(np.prod(w.shape[2:]))
    inputs, outputs = x.shape[1] // groups, maps // groups
    if transposed:
        w_strides = dict(w_group=inputs * outputs * pair, w_output=pair, w_input=outputs * pair)
    else:
        w_strides = dict(w_group=inputs * outputs * pair, w_output=inputs * pair, w_input=pair)
    axes = [UNIT] * (3 - len(window.axes)) + list(window.axes)
    call(
        CONV[x.dtype.type, transposed],
        threads=threads,
        **dict(x=src.address, w=w, y=dst.address, bias=0 if bias is None else bias, lo=lo, hi=hi),
        **dict(batch=x.shape[0], groups=groups, inputs=inputs, outputs=outputs),
        **dict(zip(("x_batch", "x_channel", "x_d", "x_h"), src.strides, strict=False)),
        **dict(zip(("y_batch", "y_channel", "y_d", "y_h"), dst.strides, strict=False)),
        **w_strides,
        **{f"{f}_{dim}": getattr(axis, f) for dim, axis in zip("dhw", axes, strict=True) for f in portable.AXIS},
    )
    assert dst.margins_hold(1e9)
    return dst.array()


CASES = [  # x, kernel, maps, groups, attributes
    ((2, 3, 40), [5], 4, 1, dict(pads=[2, 2])),
    ((1, 2, 7), [9], 2, 2, dict(pads=[8, 8])),  # the kernel is longer than the input
    ((1, 4, 9, 37), [3, 3], 6, 2, dict(pads=[1, 1, 1, 1])),
    ((2, 4, 11, 23), [3, 2], 4, 4, dict(strides=[2, 3], pads=[0, 1, 2, 0])),
    ((1, 3, 13, 29), [3, 3], 2, 1, dict(dilations=[2, 5], pads=[3, 5, 0, 6], strides=[1, 2])),
    ((1, 2, 5, 6, 19), [2, 3, 3], 3, 1, dict(strides=[2, 1, 1], pads=[1, 0, 1, 0, 1, 1])),
    ((1, 1, 1, 1), [1, 1], 1, 1, {}),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape, kernel, maps, groups, attributes", CASES)
def test_conv_matches_naive_loops(shape, kernel, maps, groups, attributes, dtype, rng):
    x, w = (
        rng.standard_normal(shape).astype(dtype),
        rng.standard_normal((maps, shape[1] // groups, *kernel)).astype(dtype),
    )
    bias = rng.standard_normal(maps).astype(dtype)
    want = windows.conv_nd(x, w, bias, groups=groups, **attributes)
    got = conv(x, w, bias, groups=groups, **attributes)
    np.testing.assert_allclose(got, want, **CLOSE[dtype])
    clamped = conv(x, w, bias, groups=groups, lo=-0.5, hi=1.25, **attributes)
    np.testing.assert_allclose(clamped, np.clip(want, -0.5, 1.25), **CLOSE[dtype])
    plain = windows.conv_nd(x, w, groups=groups, **attributes)
    np.testing.assert_allclose(conv(x, w, groups=groups, **attributes), plain, **CLOSE[dtype])
    for threads in (2, 3, 7):
        np.testing.assert_array_equal(conv(x, w, bias, groups=groups, threads=threads, **attributes), got)


TRANSPOSED = [
    ((2, 3, 11), [4], 2, 1, dict(strides=[3], output_padding=[2])),
    ((1, 4, 5, 19), [3, 3], 3, 2, dict(pads=[1, 1, 1, 1])),
    ((1, 2, 4, 9), [2, 2], 3, 1, dict(strides=[2, 2])),
    ((1, 4, 5, 7), [3, 4], 2, 2, dict(strides=[3, 2], dilations=[2, 3], pads=[2, 1, 0, 3], output_padding=[1, 1])),
    ((1, 2, 3, 4), [1, 1], 2, 1, dict(strides=[3, 4])),  # outputs that no tap reaches
    ((1, 2, 3, 4, 5), [2, 3, 3], 2, 1, dict(strides=[1, 2, 2], pads=[0, 1, 1, 1, 0, 1])),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape, kernel, maps, groups, attributes", TRANSPOSED)
def test_conv_transpose_matches_scattering(shape, kernel, maps, groups, attributes, dtype, rng):
    x, w = rng.standard_normal(shape).astype(dtype), rng.standard_normal((shape[1], maps, *kernel)).astype(dtype)
    bias = rng.standard_normal(maps * groups).astype(dtype)
    want = windows.conv_transpose_nd(x, w, bias, groups=groups, **attributes)
    got = conv(x, w, bias, groups=groups, transposed=True, **attributes)
    np.testing.assert_allclose(got, want, **CLOSE[dtype])
    for threads in (2, 3, 7):
        again = conv(x, w, bias, groups=groups, transposed=True, threads=threads, **attributes)
        np.testing.assert_array_equal(again, got)


@pytest.mark.parametrize("transposed", [False, True])
def test_nan_reaches_the_windows_that_hold_it(transposed):
    x, w = np.zeros((1, 1, 5, 20), np.float32), np.ones((1, 1, 3, 3), np.float32)
    x[0, 0, 2, 9] = np.nan
    got = conv(x, w, pads=[1, 1, 1, 1], transposed=transposed, lo=0.0, hi=6.0)
    want = np.zeros_like(x, bool)
    want[0, 0, 1:4, 8:11] = True
    np.testing.assert_array_equal(np.isnan(got), want)


def matmul(a, b, y, threads=1):
    batch, (m, n), k, size = y.shape[:2], y.shape[2:], a.shape[3], y.itemsize
    strides = {}
    for name, array, axes in (("a", a, "mk"), ("b", b, "kn"), ("y", y, "mn")):
        array = np.broadcast_to(array, (*batch, *array.shape[2:])) if name != "y" else array
        for axis, stride in zip(("batch0", "batch1", *axes), array.strides, strict=True):
            strides[f"{name}_{axis}"] = stride // size
    call(
        MATMUL[y.dtype.type], threads=threads, a=a, b=b, y=y, batch0=batch[0], batch1=batch[1], m=m, k=k, n=n, **strides
    )
    return y


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_matmul_with_any_strides_and_broadcast_batches(dtype, rng):
    for m, k, n in ((1, 1, 1), (5, 37, 3), (3, 20, 600), (1, 100, 1100), (4, 0, 9)):
        for a_batch, b_batch in (((2, 3), (2, 3)), ((1, 3), (2, 1))):
            a, b = (
                rng.standard_normal((*a_batch, m, k)).astype(dtype),
                rng.standard_normal((*b_batch, k, n)).astype(dtype),
            )
            want = a.astype(np.float64) @ b
            for left in (a, np.asfortranarray(a)):
                for right in (b, np.ascontiguousarray(b.swapaxes(2, 3)).swapaxes(2, 3)):
                    got = matmul(left, right, np.full(want.shape, np.nan, dtype))
                    np.testing.assert_allclose(got, want, **CLOSE[dtype])
                    np.testing.assert_array_equal(matmul(left, right, np.empty_like(got), 3), got)
            across = matmul(a, b, np.full((2, 3, n, m), np.nan, dtype).swapaxes(2, 3))
            np.testing.assert_allclose(across, want, **CLOSE[dtype])


def interpolation(size, out, taps, dtype, rng):
    """Random taps: indices [out, taps] inside the input, weights [out, taps]."""
    return rng.integers(0, size, (out, taps)), rng.standard_normal((out, taps)).astype(dtype)


def run_resize(x, tables, c=1, margin=0, threads=1):
    """``tables``: (indices, weights) of every spatial axis."""
    dtype = x.dtype.type
    unit = np.zeros((1, 1), np.int64), np.ones((1, 1), dtype)
    src = Activation(x, c, margin)
    dst = Activation.empty((*x.shape[:2], *(len(index) for index, _ in tables)), dtype, c, margin)
    fields = {}
    for dim, (index, weight) in zip("dhw", [unit] * (3 - len(tables)) + tables, strict=True):
        fields |= {f"index_{dim}": index, f"weight_{dim}": weight, f"taps_{dim}": index.shape[1]}
    d, h, w = dst.view.shape[2:5]
    row = np.zeros((threads, x.shape[-1] * c), dtype)
    call(
        RESIZE[dtype],
        threads=threads,
        **dict(src=src.address, dst=dst.address, **parts(row), items=src.items, lanes=c),
        **dict(in_w=x.shape[-1], out_d=d, out_h=h, out_w=w),
        **dict(zip(("src_item", "src_d", "src_h"), src.strides[1:4], strict=True)),
        **dict(zip(("dst_item", "dst_d", "dst_h"), dst.strides[1:4], strict=True)),
        **fields,
    )
    assert dst.margins_hold(1e9)
    return dst.array()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("blocked", [False, True], ids=["plain", "blocked"])
@pytest.mark.parametrize(
    "shape, outputs, taps", [((2, 3, 37), (50,), 2), ((1, 18, 5, 9), (10, 18), 4), ((1, 2, 3, 4, 21), (6, 2, 40), 2)]
)
def test_resize_matches_matrices(shape, outputs, taps, blocked, dtype, rng):
    x = rng.standard_normal(shape).astype(dtype)
    tables = [interpolation(size, out, taps, dtype, rng) for size, out in zip(shape[2:], outputs, strict=True)]
    want = x.astype(np.float64)
    for axis, (index, weight) in enumerate(tables, 2):
        matrix = np.zeros((len(index), shape[axis]))
        for o, k in np.ndindex(*index.shape):
            matrix[o, index[o, k]] += weight[o, k]
        want = np.moveaxis(np.tensordot(matrix, want, (1, axis)), 0, axis)
    layout = dict(c=lanes(dtype), margin=2) if blocked else {}
    got = run_resize(x, tables, **layout)
    np.testing.assert_allclose(got, want, **CLOSE[dtype])
    for threads in (2, 3, 7):
        np.testing.assert_array_equal(run_resize(x, tables, threads=threads, **layout), got)
