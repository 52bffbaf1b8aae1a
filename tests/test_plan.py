"""Convolutions planned once, and polynomial products."""

from __future__ import annotations

import doctest
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sigconv as sc
from sigconv.signal import fft, grids
from sigconv.signal import plan as plans
from tests.cases import naive_signal as naive


def test_examples_in_the_docs():
    result = doctest.testmod(plans)
    assert result.attempted >= 4
    assert result.failed == 0


@settings(max_examples=150, deadline=None)
@given(
    shape=st.lists(st.integers(1, 12), min_size=1, max_size=3),
    taps=st.lists(st.integers(1, 6), min_size=3, max_size=3),
    mode=st.sampled_from(("full", "same")),
    method=st.sampled_from(("direct", "separable", "oa", "fft")),
    boundary=st.sampled_from(("fill", "edge", "symm", "reflect", "wrap")),
    dtype=st.sampled_from(("float32", "float64", "complex64", "int16", "uint8")),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_plan_gives_the_bits_of_convolve(shape, taps, mode, method, boundary, dtype, seed):
    rng = np.random.default_rng(seed)
    kernel = (rng.standard_normal(taps[: len(shape)]) * 5).astype(dtype)
    options: dict[str, Any] = {"mode": mode, "method": method, "boundary": boundary, "fillvalue": 2}
    plan = sc.Plan(kernel, shape, **options)
    for _ in range(2):
        x = (rng.standard_normal(shape) * 9).astype(dtype)
        np.testing.assert_array_equal(plan(x), sc.convolve(x, kernel, **options))


@settings(max_examples=100, deadline=None)
@given(
    n=st.integers(1, 200), k=st.integers(2, 90), block=st.integers(2, 40), mode=st.sampled_from(("full", "same")),
    boundary=st.sampled_from(("fill", "edge", "symm", "reflect", "wrap")), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_partitions(n, k, block, mode, boundary, seed):
    rng = np.random.default_rng(seed)
    x, h = rng.standard_normal(n), rng.standard_normal(k)
    y = sc.Plan(h, n, mode, block=block, boundary=boundary, fillvalue=1)(x)
    expected = naive.convolve(x, h, mode, boundary, 1).astype(float)
    np.testing.assert_allclose(y, expected, atol=1e-11)


def test_partitions_meet_nan_and_channels(rng):
    x, h = rng.standard_normal((3, 50)), rng.standard_normal((3, 20))
    x[1, 7], x[2, 30] = np.nan, np.inf
    y = sc.Plan(h, x.shape, axes=-1, block=8)(x)
    np.testing.assert_allclose(y, sc.convolve(x, h, axes=-1, method="direct"), atol=1e-12)
    assert np.isnan(y).sum() == 20


@pytest.mark.parametrize("boundary", ["fill", "reflect"])
@pytest.mark.parametrize("block", [None, 16])
def test_policies_for_missing_values(block, boundary, rng):
    x, h = rng.standard_normal(100), rng.standard_normal(33)
    x[[3, 50, 51]] = np.nan
    plan = sc.Plan(h, 100, "same", boundary=boundary, block=block, nan_policy="omit")
    expected = sc.convolve(x, h, "same", "direct", boundary=boundary, nan_policy="omit")
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(plan(x), expected, atol=1e-11)
    with pytest.raises(ValueError, match="contains NaN"):
        sc.Plan(h, 100, block=block, nan_policy="raise")(x)
    with pytest.raises(ValueError, match="nan_policy must be one of"):
        sc.Plan(h, 100, block=block, nan_policy="ignore")


@pytest.mark.parametrize("dtypes", [("float64", "complex64"), ("float32", "float64"), ("complex128", "float32")])
def test_partitions_for_a_signal_of_another_type(dtypes, rng):
    h, x = (
        rng.standard_normal(n).astype(d) * (1 + 1j if "c" in d else 1) for n, d in zip((40, 90), dtypes, strict=True)
    )
    y, expected = sc.Plan(h, 90, block=16)(x), sc.convolve(x, h, method="direct")
    assert y.dtype == expected.dtype
    np.testing.assert_allclose(y, expected, atol=2e-5 if y.dtype == np.complex64 else 1e-10)


@pytest.mark.parametrize(
    ("shape", "taps", "options"),
    [
        ((3000,), (200,), {"method": "fft"}),
        ((3000,), (200,), {"method": "oa"}),
        ((200,), (3000,), {"method": "fft"}),  # the kernel is the longer one
        ((3, 500), (1, 40), {"method": "oa", "axes": -1, "boundary": "wrap"}),
        ((60, 70), (9, 8), {"method": "fft", "mode": "valid"}),
        ((60, 70), (9, 8), {"method": "oa", "block": (32, 32), "boundary": "edge", "mode": "same"}),
    ],
)
def test_the_kernel_is_transformed_once(shape, taps, options, rng, monkeypatch):
    x, h, library, own, seen = rng.standard_normal(shape), rng.standard_normal(taps), fft.forward, grids.spectra, []
    plan = sc.Plan(h, shape, **options)
    monkeypatch.setattr(fft, "forward", lambda a, *rest: seen.append("library") or library(a, *rest))
    monkeypatch.setattr(grids, "spectra", lambda grid, h, *rest: seen.append("own") or own(grid, h, *rest))
    first = plan(x)
    assert seen in (["own"], ["library", "library"])  # our own kernels transform the signal themselves
    expected = seen[1:] if max(taps) < max(shape) else [*seen]  # a longer kernel takes the signal's place
    for _ in range(2):  # the kept transform is not written to
        seen.clear()
        np.testing.assert_array_equal(plan(x), first)
        assert seen == expected
    options = {k: v for k, v in options.items() if k != "block"}
    np.testing.assert_allclose(first, sc.convolve(x, h, **{**options, "method": "direct"}), atol=1e-11)


def test_what_a_plan_tells():
    plan = sc.Plan(np.ones(5000, np.float32), 200_000)
    assert plan.method == "oa"
    assert plan.block is not None
    assert plan.workspace_nbytes >= 4 * plan.block[0]
    assert "not direct: predicted" in plan.explain()
    assert "4 partitions of 8 taps" in sc.Plan(np.ones(32), 100, block=16).explain()
    with pytest.raises(ValueError, match=r"for arrays of shape \(200000,\), got \(3,\)"):
        plan(np.ones(3))
    with pytest.raises(ValueError, match="block=8 is for method='oa'"):
        sc.Plan(np.ones(3), 9, method="fft", block=8)
    with pytest.raises(ValueError, match="not be shorter than the kernel"):
        sc.Plan(np.ones((9, 9)), (20, 20), block=(4, 4))
    out = np.empty(200_000 + 4999, np.float32)
    assert plan(np.ones(200_000, np.float32), out=out) is out
    assert out[:3].round().tolist() == [1, 2, 3]


def test_the_kernel_of_a_plan_is_a_copy():
    h = np.array([1.0, 2])
    plan = sc.Plan(h, 3)
    h[:] = 0
    assert plan([1.0, 0, 0]).tolist() == [1, 2, 0, 0]


@pytest.mark.parametrize(
    ("a", "b"),
    [([1, 2, 3], [3, 2, 2]), ([0, 0, 1.5], [2]), ([0, 0], [1, 2]), (3, [1, 1j]), ([1, -1], [1, 1])],
)
def test_polynomials(a, b):
    expected = np.polymul(a, b)
    assert np.asarray(sc.polymul(a, b)).tolist() == np.atleast_1d(expected).tolist()
    with pytest.raises(ValueError, match="vector of coefficients"):
        sc.polymul([[1]], a)
