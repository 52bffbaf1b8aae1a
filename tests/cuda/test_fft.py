"""Transforms on the device, with NumPy in CuPy's place: the same calls of the same names, on the simulator's memory."""

from __future__ import annotations

import contextlib
import sys
import types

import numpy as np
import pytest
from numba import cuda

import sigconv as sc
from sigconv.errors import InputError
from sigconv.signal import device_fft
from tests.cuda.test_signal import BOUNDARIES, check

F32, F64 = np.float32, np.float64


class CuPy(types.ModuleType):
    """NumPy's functions, on arrays of the simulator's; ``transforms`` counts calls of rfftn."""

    def __init__(self) -> None:
        super().__init__("cupy")
        self.transforms = 0
        stream = contextlib.nullcontext()
        self.cuda = types.SimpleNamespace(
            ExternalStream=lambda handle: stream, Stream=types.SimpleNamespace(null=stream)
        )
        self.fft = types.SimpleNamespace(rfftn=self._rfftn, irfftn=np.fft.irfftn)

    def _rfftn(self, *args, **kwargs):
        self.transforms += 1
        return np.fft.rfftn(*args, **kwargs)

    @staticmethod
    def asarray(value):
        return getattr(value, "_ary", value)

    def __getattr__(self, name):
        return getattr(np, name)


@pytest.fixture
def cupy(monkeypatch):
    module = CuPy()
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


@pytest.fixture
def without(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # importing it fails


@pytest.mark.parametrize("method", ["fft", "oa"])
@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize("n, k", [(1, 1), (7, 40), (900, 31), (301, 300)])
def test_vectors(n, k, mode, method, cupy, rng):
    for function, dtype in ((sc.convolve, F32), (sc.correlate, F64)):
        x, w = rng.standard_normal(n).astype(dtype), rng.standard_normal(k).astype(dtype)
        check(function(x, w, mode, method=method, device="cuda"), function(x, w, mode, method="direct"))
    assert cupy.transforms == 4


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_boundaries(boundary, cupy, rng):
    fill = {"fillvalue": -2.5} if boundary == "fill" else {}
    for shapes in (((5,), (12,)), ((500,), (33,)), ((5, 4), (3, 7)), ((300, 6), (4, 2))):
        x, w = (rng.standard_normal(s) for s in shapes)
        for method in ("fft", "oa"):
            got = sc.convolve(x, w, "same", method=method, boundary=boundary, device="cuda", **fill)
            check(got, sc.convolve(x, w, "same", method="direct", boundary=boundary, **fill))


@pytest.mark.parametrize("function", [sc.convolve2d, sc.correlate2d])
def test_planes(function, cupy, rng):
    x, w = rng.standard_normal((6, 20)).astype(F32), rng.standard_normal((3, 4)).astype(F32)
    a, b = cuda.to_device(x), cuda.to_device(w)
    for mode in ("full", "same", "valid"):
        check(function(a, b, mode).copy_to_host(), function(x, w, mode))
    got = sc.convolve(a, b, method="oa")
    assert not isinstance(got, np.ndarray)
    check(got.copy_to_host(), sc.convolve(x, w))


def test_batches(cupy, rng):
    x, one, each = (rng.standard_normal(s) for s in ((2, 3, 70), (1, 1, 9), (2, 3, 9)))
    for w in (one, each):
        for method in ("fft", "oa"):
            check(sc.convolve(x, w, axes=-1, method=method, device="cuda"), sc.convolve(x, w, axes=-1))


def test_scipys_functions_take_arrays_of_the_device(cupy, rng):
    x, w = rng.standard_normal((3, 400)), rng.standard_normal((3, 15))
    there = cuda.to_device(x), cuda.to_device(w)
    for function in (sc.fftconvolve, sc.oaconvolve):
        check(function(*there, mode="same", axes=1).copy_to_host(), function(x, w, mode="same", axes=1))
    assert cupy.transforms == 4
    with pytest.raises(InputError, match="block"):
        sc.oaconvolve(*there, axes=1, block=64)


def test_nan_and_infinity_reach_what_they_reach(cupy, rng):
    x, w = rng.standard_normal(30).astype(F32), rng.standard_normal(5).astype(F32)
    x[7], x[20] = np.nan, np.inf
    check(sc.convolve(x, w, method="fft", device="cuda"), sc.convolve(x, w, method="direct"))
    assert cupy.transforms == 0


def test_auto_transforms_what_is_long(cupy, rng, monkeypatch):
    x, w = rng.standard_normal(600), rng.standard_normal(200)
    sc.convolve(x, w[:9], device="cuda")
    assert cupy.transforms == 0
    monkeypatch.setattr(device_fft, "PEAK", 1e6)  # of a device that sums slowly
    check(sc.convolve(x, w, device="cuda"), sc.convolve(x, w, method="direct"))
    assert cupy.transforms == 2


@pytest.mark.parametrize("method", ["fft", "oa"])
def test_without_cupy_one_line_says_what_to_install(method, without, rng):
    x = rng.standard_normal(20)
    with pytest.raises(InputError, match=r"pip install cupy-cuda13x .*'direct'"):
        sc.convolve(x, x, method=method, device="cuda")
    check(sc.convolve(x, x, device="cuda"), sc.convolve(x, x))
