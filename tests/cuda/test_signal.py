"""Convolution and correlation on the device, against SciPy's definition by the CPU's own functions and naive loops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numba import cuda

import sigconv as sc
from sigconv.errors import InputError
from sigconv.kernels.cuda import planes, rows
from tests.cases import naive_signal

F32, F64 = np.float32, np.float64
BOUNDARIES = ("fill", "edge", "symm", "reflect", "wrap")


def check(got, want):
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    tolerance = 1e-5 if want.dtype == F32 else 1e-12
    np.testing.assert_allclose(
        got, want, rtol=tolerance, atol=tolerance * np.abs(want[np.isfinite(want)]).max(initial=0)
    )


LENGTHS = [(1, 1), (5, 3), (3, 5), (40, 7), (7, 40), (rows.TILE + 9, 11), (23, rows.TAPS + 5)]


@pytest.mark.parametrize("n, k", LENGTHS)
@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize("function", ["convolve", "correlate"])
def test_vectors(function, mode, n, k, rng):
    dtype = F32 if (n + k) % 2 else F64
    x, w = rng.standard_normal(n).astype(dtype), rng.standard_normal(k).astype(dtype)
    got = getattr(sc, function)(x, w, mode, device="cuda")
    check(got, getattr(sc, function)(x, w, mode))
    if n >= k and mode != "same":
        check(got, getattr(np, function)(x, w, mode))


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("n, k", [(9, 4), (3, 10), (1, 5)])
def test_boundaries(boundary, n, k, rng):
    x, w = rng.standard_normal(n), rng.standard_normal(k)
    for function, mode in itertools.product((sc.convolve, sc.correlate), ("full", "same")):
        fill = {"fillvalue": 1.5} if boundary == "fill" else {}
        check(
            function(x, w, mode, boundary=boundary, device="cuda", **fill),
            function(x, w, mode, boundary=boundary, **fill),
        )


SIZES = [((1, 1), (1, 1)), ((7, 6), (3, 2)), ((2, 3), (5, 4)), ((planes.TILE_H + 3, planes.TILE_W + 5), (3, 3)),
         ((11, 20), (planes.TAPS_H + 2, planes.TAPS_W + 3)), ((5, 4), (1, 4))]  # fmt: skip


@pytest.mark.parametrize("x, w", SIZES)
@pytest.mark.parametrize("mode", ["full", "same", "valid"])
def test_planes(x, w, mode, rng):
    a, b = rng.standard_normal(x).astype(F32), rng.standard_normal(w).astype(F32)
    for function in (sc.convolve2d, sc.correlate2d):
        check(function(a, b, mode, device="cuda"), function(a, b, mode))


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_boundaries_of_planes(boundary, rng):
    a, b = rng.standard_normal((4, 5)), rng.standard_normal((3, 6))
    for function, mode in itertools.product((sc.convolve, sc.correlate), ("full", "same")):
        check(function(a, b, mode, boundary=boundary, device="cuda"), function(a, b, mode, boundary=boundary))


def test_batches(rng):
    x, one, each = (rng.standard_normal(s).astype(F32) for s in ((2, 3, 11), (1, 1, 4), (2, 3, 4)))
    for w in (one, each):
        check(sc.convolve(x, w, axes=-1, device="cuda"), sc.convolve(x, w, axes=-1))
    images, kernels = rng.standard_normal((3, 5, 6)), rng.standard_normal((3, 2, 3))
    check(
        sc.correlate(images, kernels, "same", axes=(1, 2), device="cuda"),
        sc.correlate(images, kernels, "same", axes=(1, 2)),
    )


def test_nan_and_infinity_reach_what_they_reach(rng):
    x, w = rng.standard_normal(30).astype(F32), rng.standard_normal(5).astype(F32)
    x[7], x[20] = np.nan, np.inf
    got, want = sc.convolve(x, w, device="cuda"), sc.convolve(x, w, method="direct")
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    np.testing.assert_array_equal(np.isinf(got), np.isinf(want))


def test_naive(rng):
    x, w = rng.standard_normal((4, 6)), rng.standard_normal((2, 3))
    check(sc.convolve(x, w, device="cuda"), np.asarray(naive_signal.convolve(x, w, "full"), F64))


def test_device_arrays_stay_there(rng):
    x, w = rng.standard_normal(20).astype(F32), rng.standard_normal(3).astype(F32)
    y = sc.convolve(cuda.to_device(x), cuda.to_device(w))
    assert not isinstance(y, np.ndarray)
    check(y.copy_to_host(), sc.convolve(x, w))
    with pytest.raises(InputError, match="different places"):
        sc.convolve(cuda.to_device(x), w)


def test_what_the_device_lacks_is_said(rng):
    x = rng.standard_normal(20).astype(F32)
    with pytest.raises(InputError, match="method='separable'"):
        sc.convolve(x, x, method="separable", device="cuda")
    with pytest.raises(InputError, match="nan_policy"):
        sc.convolve(x, x, nan_policy="omit", device="cuda")
    with pytest.raises(InputError, match="int64"):
        sc.convolve(np.arange(3), np.arange(3), device="cuda")
    with pytest.raises(InputError, match="one dtype"):
        sc.convolve(x, x.astype(F64), device="cuda")
    with pytest.raises(InputError, match="the last one or two axes"):
        sc.convolve(np.ones((2, 2, 2)), np.ones((2, 2, 2)), device="cuda")
    with pytest.raises(InputError, match="device is 'npu'"):
        sc.convolve(x, x, device="npu")
