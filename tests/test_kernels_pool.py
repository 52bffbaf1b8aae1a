"""Pooling kernels against naive windows: layouts, dtypes, dilation, ceil_mode, pads, NaN, any number of threads."""

from __future__ import annotations

import numpy as np
import pytest

from sigconv.geometry import Window
from sigconv.kernels.cpu import pool
from sigconv.kernels.simd import lanes
from tests.cases import windows
from tests.cases.kernel_calls import call, parts
from tests.cases.layouts import Activation

KERNELS = {
    ("max", np.float32): pool.max_pool_f32,
    ("max", np.float64): pool.max_pool_f64,
    ("average", np.float32): pool.average_pool_f32,
    ("average", np.float64): pool.average_pool_f64,
}


def run(op, x, kernel, c=1, margin=0, threads=1, by_rows=0, count_include_pad=False, **attributes):
    window = Window.of(x.shape[2:], kernel, **attributes)
    src, dst = Activation(x, c, margin), Activation.empty((*x.shape[:2], *window.output), x.dtype, c, margin)
    fields = {}
    for name, axis in zip("whd", [*reversed(window.axes)] + [None] * 3, strict=False):
        if axis is None:
            start, lo, hi, divisor, dilation = np.zeros(1, np.int64), *(np.full(1, v) for v in (0, 1, 1)), 1
        else:
            start = np.array([axis.start(o) for o in range(axis.output)], np.int64)
            (lo, hi), divisor, dilation = axis.tap_ranges(), axis.divisors(count_include_pad), axis.dilation
        fields |= {f"start_{name}": start, f"tap_lo_{name}": lo, f"tap_hi_{name}": hi, f"divisor_{name}": divisor}
        fields[f"dilation_{name}"] = dilation
    d, h, w = (1,) * (5 - x.ndim) + window.output
    row = np.full((threads, x.shape[-1] * c), np.nan, x.dtype)
    call(
        KERNELS[op, x.dtype.type],
        threads=threads,
        **dict(src=src.address, dst=dst.address, **parts(row), items=src.items, lanes=c),
        **dict(in_w=x.shape[-1], out_d=d, out_h=h, out_w=w, by_rows=by_rows),
        **dict(zip(("src_item", "src_d", "src_h"), src.strides[1:4], strict=True)),
        **dict(zip(("dst_item", "dst_d", "dst_h"), dst.strides[1:4], strict=True)),
        **fields,
    )
    assert dst.margins_hold(1e9)
    return dst.array()


CASES = [
    ((2, 5, 37), dict(kernel=[3])),
    ((1, 3, 40), dict(kernel=[40])),
    ((1, 2, 9, 37), dict(kernel=[2, 2], strides=[2, 2])),
    ((2, 18, 9, 11), dict(kernel=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])),
    ((1, 17, 8, 35), dict(kernel=[3, 3], strides=[2, 2], pads=[0, 1, 1, 0], ceil_mode=True)),
    ((1, 16, 13, 20), dict(kernel=[13, 13], pads=[6] * 4)),
    ((1, 4, 7, 50), dict(kernel=[3, 2], dilations=[2, 9], pads=[2, 5, 1, 3])),
    ((1, 1, 1, 1), dict(kernel=[1, 1])),
    ((1, 3, 5, 6, 37), dict(kernel=[2, 3, 3], strides=[2, 1, 1], pads=[1, 0, 1, 0, 1, 1])),
    ((1, 2, 3), dict(kernel=[2], dilations=[7], pads=[5, 4])),  # windows without inputs
    ((2, 3, 5, 7), dict(kernel=[2, 2], strides=[1, 2])),  # rows shorter than a register
    ((1, 2, 4, 13), dict(kernel=[3, 4], dilations=[1, 3])),
    ((1, 2, 28, 28), dict(kernel=[2, 2], strides=[2, 2])),  # fewer windows than lanes, or just more
    ((1, 2, 12, 45), dict(kernel=[3, 2], strides=[3, 2], pads=[1, 1, 2, 1])),
    ((2, 1, 9, 50), dict(kernel=[3, 3], strides=[2, 3], pads=[1, 1, 1, 1])),
    ((0, 3, 4, 4), dict(kernel=[2, 2])),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("blocked", [False, True], ids=["plain", "blocked"])
@pytest.mark.parametrize("shape, attributes", CASES)
def test_pooling_matches_naive_windows(shape, attributes, blocked, dtype):
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    layout = dict(c=lanes(dtype), margin=3) if blocked else {}
    np.testing.assert_array_equal(run("max", x, **attributes, **layout), windows.max_pool_nd(x, **attributes)[0])
    for count_include_pad in (False, True):
        average = run("average", x, count_include_pad=count_include_pad, **attributes, **layout)
        want = windows.avg_pool_nd(x, count_include_pad=count_include_pad, **attributes)
        np.testing.assert_allclose(average, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("op", ["max", "average"])
@pytest.mark.parametrize("c", [1, 3, lanes(np.float32), 2 * lanes(np.float32)])
def test_threads_and_nan_do_not_change_bits(op, c):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, 7, 9, 41)).astype(np.float32)
    x.ravel()[rng.choice(x.size, 40, replace=False)] = np.repeat([np.nan, np.inf, -np.inf, -0.0], 10)
    attributes = dict(kernel=[3, 3], strides=[2, 1], pads=[1, 1, 1, 1])
    one = run(op, x, c=c, **attributes)
    with np.errstate(invalid="ignore"):
        want = windows.max_pool_nd(x, **attributes)[0] if op == "max" else windows.avg_pool_nd(x, **attributes)
    np.testing.assert_allclose(one, want, rtol=1e-5, atol=1e-6)
    for threads in (1, 2, 3, 7):
        for by_rows in (0, 1):
            shared = run(op, x, c=c, threads=threads, by_rows=by_rows, **attributes)
            np.testing.assert_array_equal(shared.view(np.int32), one.view(np.int32))
