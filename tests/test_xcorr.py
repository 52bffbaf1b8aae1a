"""xcorr, match_template, phase_correlation, upfirdn, polymul and NumPy's functions against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sigconv.numpy as scn
from sigconv.errors import InputError
from sigconv.signal.template import match_template, phase_correlation
from sigconv.signal.upfirdn import upfirdn
from sigconv.signal.xcorr import xcorr

rng = np.random.default_rng(11)


def correlation(x, y, lag):
    return sum(x[n + lag] * np.conj(y[n]) for n in range(len(y)) if 0 <= n + lag < len(x))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 12), st.sampled_from("fdFDil"), st.integers(0, 50))
@settings(max_examples=100, deadline=None)
def test_xcorr_is_its_definition(nx, ny, max_lag, char, seed):
    numbers = np.random.default_rng(seed)
    x, y = ((numbers.standard_normal(n) * 9 + 1j * numbers.standard_normal(n)).astype(np.complex128) for n in (nx, ny))
    x, y = (v.astype(char) if char in "FD" else v.real.astype(char) for v in (x, y))
    for options in ({}, {"max_lag": max_lag}, {"lags": [max_lag, -3, 0]}):
        values, lags = xcorr(x, y, **options)
        assert values.dtype == x.dtype
        expected = [correlation(x.astype(complex), y.astype(complex), k) for k in lags]
        rtol, atol = (1e-5, 1e-3) if char in "fF" else (0, 1e-10)
        np.testing.assert_allclose(values, expected, rtol=rtol, atol=atol)
    np.testing.assert_array_equal(xcorr(x, y)[1], np.arange(1 - ny, nx))


def test_xcorr_normalizations():
    x, y = rng.standard_normal(20), rng.standard_normal(20)
    sums, lags = xcorr(x, y, max_lag=25)
    np.testing.assert_allclose(xcorr(x, y, max_lag=25, normalize="biased")[0], sums / 20)
    terms = 20.0 - np.abs(lags)
    inside = terms > 0
    unbiased = xcorr(x, y, max_lag=25, normalize="unbiased")[0]
    np.testing.assert_allclose(unbiased[inside], sums[inside] / terms[inside])
    assert np.isnan(unbiased[~inside]).all()
    coeff, _ = xcorr(x, 3 * x, normalize="coeff")
    assert coeff.argmax() == 19
    assert coeff.max() == pytest.approx(1, abs=1e-15)
    assert np.isnan(xcorr(x, 0 * x, normalize="coeff")[0]).all()
    assert xcorr(x.astype(np.float32), normalize="coeff")[0].dtype == np.float32


def test_xcorr_axis_and_broadcasting():
    x, y = rng.standard_normal((3, 8, 2)), rng.standard_normal((5, 2))
    values, lags = xcorr(x, y, axis=-2, max_lag=3)
    assert values.shape == (3, 7, 2)
    for i, j in np.ndindex(3, 2):
        np.testing.assert_allclose(values[i, :, j], xcorr(x[i, :, j], y[:, j], lags=lags)[0], atol=1e-13)


def test_delay_is_found():
    x = rng.standard_normal(50_000)
    values, lags = xcorr(np.roll(x, 37), x, max_lag=100)
    assert lags[values.argmax()] == 37


def window_scores(image, template, mask):
    """The four scores by their formulas, window by window."""
    shape = [n - k + 1 for n, k in zip(image.shape, template.shape, strict=True)]
    scores = {name: np.empty(shape) for name in ("zncc", "ncc", "ssd", None)}
    for p in np.ndindex(*shape):
        window = image[tuple(slice(i, i + k) for i, k in zip(p, template.shape, strict=True))]
        scores[None][p] = (mask * window * template).sum()
        scores["ssd"][p] = (mask * (window - template) ** 2).sum()
        scores["ncc"][p] = scores[None][p] / np.sqrt((mask * window**2).sum() * (mask * template**2).sum())
        a, b = (v - (mask * v).sum() / mask.sum() for v in (window, template))
        scores["zncc"][p] = (mask * a * b).sum() / np.sqrt((mask * a * a).sum() * (mask * b * b).sum())
    return scores


@pytest.mark.parametrize("shape, taps", [((40,), (7,)), ((15, 18), (4, 5)), ((7, 8, 9), (3, 2, 4))])
@pytest.mark.parametrize("masked", [False, True])
def test_match_template_is_its_definition(shape, taps, masked):
    image, template = rng.random(shape), rng.random(taps)
    mask = rng.integers(1, 4, taps).astype(float) if masked else None
    if masked:
        mask.flat[1] = 0
    for name, expected in window_scores(image, template, np.ones(taps) if mask is None else mask).items():
        got = match_template(image, template, normalize=name, mask=mask)
        np.testing.assert_allclose(got, expected, atol=1e-11)
        centre = tuple(slice(k // 2, k // 2 + n) for k, n in zip(taps, expected.shape, strict=True))
        same = match_template(image, template, normalize=name, mask=mask, mode="same")
        assert same.shape == shape
        np.testing.assert_allclose(same[centre], expected, atol=1e-11)


def test_partial_windows_are_compared_over_the_overlap():
    image = rng.random((9, 9))
    fit = match_template(image, np.pad(image[:3, :3], ((2, 0), (2, 0))), mode="same", normalize="ssd")
    overlap = image[:3, :3]
    assert fit[0, 0] == pytest.approx(((image[:3, :3] - overlap) ** 2).sum(), abs=1e-12)


def test_flat_images_stay_in_range():
    image = np.full((40, 40), 1e6)
    image[10:13, 20:24] += rng.random((3, 4))
    fit = match_template(image, image[9:14, 19:25])
    assert np.abs(fit).max() <= 1
    assert np.unravel_index(fit.argmax(), fit.shape) == (9, 19)
    assert (fit[20:, :10] == 0).all()


def test_nan_touches_its_windows_only():
    image = rng.random((20, 20))
    image[10, 10] = np.nan
    assert np.isnan(match_template(image, image[:3, :4])).sum() == 12


@pytest.mark.parametrize("shape", [(31,), (16, 21), (8, 9, 11)])
def test_phase_correlation_finds_shifts(shape):
    a = rng.random(shape)
    shift = [(-1) ** i * (i + 3) for i in range(len(shape))]
    found, peak = phase_correlation(a, np.roll(a, shift, tuple(range(len(shape)))))
    np.testing.assert_array_equal(found, shift)
    assert peak == pytest.approx(1, abs=1e-12)


def test_phase_correlation_finds_fractions():
    a = rng.random((31, 27))
    waves = [np.fft.fftfreq(n) for n in a.shape]
    moved = np.fft.ifft2(np.fft.fft2(a) * np.exp(-2j * np.pi * np.add.outer(2.3 * waves[0], -4.75 * waves[1]))).real
    found, peak = phase_correlation(a, moved, upsample=100)
    np.testing.assert_allclose(found, [2.3, -4.75], atol=1e-9)
    assert peak == pytest.approx(1, abs=1e-6)


def upfirdn_by_definition(h, x, up, down):
    spread = np.zeros((len(x) - 1) * up + 1, np.result_type(h, x))
    spread[::up] = x
    return np.convolve(h, spread)[::down]


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 7), st.integers(1, 7), st.sampled_from("fdFDl"))
@settings(max_examples=100, deadline=None)
def test_upfirdn_is_its_definition(taps, size, up, down, char):
    numbers = np.random.default_rng(taps + 13 * size)
    h, x = ((numbers.standard_normal(n) * 4).astype(char) for n in (taps, size))
    expected = upfirdn_by_definition(h.astype("D"), x.astype("D"), up, down)
    got = upfirdn(h, np.stack([x, 2 * x], 1), up, down, axis=0)
    assert got.shape == (len(expected), 2)
    assert got.dtype == (x.dtype if char != "l" else np.float64)
    np.testing.assert_allclose(got[:, 1], 2 * expected, rtol=1e-4, atol=1e-4 if char in "fF" else 1e-11)


def test_upfirdn_modes_at_length_1():
    for mode in ("symmetric", "reflect", "edge", "wrap"):
        np.testing.assert_array_equal(upfirdn([1, 2, 3], [5.0], mode=mode), [30, 30, 30])


def test_polymul():
    for a, b in (([1, 2, 3], [3, 2, 2]), ([0, 0, 1], [0, 2, 1]), ([0], [1, 2]), ([1.5], [2])):
        got = scn.polymul(a, b)
        np.testing.assert_array_equal(got, np.polymul(a, b))
    assert scn.polymul(np.poly1d([1, 1]), [1, -1]) == np.poly1d([1, 0, -1])


@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize("sizes", [(1, 1), (5, 3), (3, 5), (6, 4), (4, 6), (2, 4), (7, 7)])
@pytest.mark.parametrize("char", "?bBilfdFD")
def test_numpy_functions_are_numpys(mode, sizes, char):
    a, v = (rng.integers(0, 5, n).astype(char) for n in sizes)
    if char in "FD":
        a, v = a + 1j * a[::-1], v - 2j * v
    for name in ("convolve", "correlate"):
        got, expected = (getattr(m, name)(a, v, mode) for m in (scn, np))
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    "call",
    [
        lambda: xcorr([], [1]),
        lambda: xcorr([1], [1], max_lag=-1),
        lambda: xcorr([1], [1], max_lag=1, lags=[0]),
        lambda: xcorr([1], [1], normalize="sum"),
        lambda: xcorr(np.ones((2, 3)), np.ones((4, 3))),
        lambda: match_template(np.ones((2, 2)), np.ones((3, 3))),
        lambda: match_template(np.ones(3), np.ones((1, 1))),
        lambda: match_template(np.ones(3), np.ones(2), mask=[0, 0]),
        lambda: match_template(np.ones(3), np.ones(2), mask=[1, -1]),
        lambda: match_template(np.ones(3) * 1j, np.ones(2)),
        lambda: phase_correlation([1, np.nan], [1, 2]),
        lambda: phase_correlation([1, 2], [1, 2, 3]),
        lambda: phase_correlation([1, 2], [1, 2], upsample=0),
        lambda: upfirdn([], [1]),
        lambda: upfirdn([1], [1], 0),
        lambda: upfirdn([1], [1], mode="around"),
        lambda: scn.convolve([], [1]),
        lambda: scn.convolve([[1]], [1]),
        lambda: scn.correlate([1], [1], "some"),
    ],
)
def test_errors(call):
    with pytest.raises(InputError):
        call()
