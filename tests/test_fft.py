"""Transforms of our own beside sums of higher precision, pocketfft, and themselves with other threads."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import sigconv as sc
from sigconv.kernels.cpu import butterfly
from sigconv.kernels.simd import lanes
from sigconv.signal import fft, grids, methods
from sigconv.signal import problem as problems

KINDS = "fdFD"
EPS = {char: float(np.finfo(np.dtype(char)).eps) for char in KINDS}


def noise(rng, shape, char):
    a = rng.standard_normal(shape)
    return (a + 1j * rng.standard_normal(shape) if char in "FD" else a).astype(char)


def error(y, x, h):
    """Of outputs, as a share of ``norm2(x) * norm2(h)``; the reference is summed in longdouble."""
    wide = np.clongdouble if y.dtype.kind == "c" else np.longdouble
    return float(np.abs(y - np.convolve(x.astype(wide), h.astype(wide))).max() / np.linalg.norm(x) / np.linalg.norm(h))


def lengths(char, most):
    """Lengths of one dimension that have a grid."""
    found = {odd << p for odd in grids.ODD for p in range(20)}
    return [n for n in sorted(found) if n <= most and grids.grid((n,), char)]


@pytest.mark.parametrize("char", KINDS)
def test_every_length(char, rng):
    """Blocks of each length, with kernels up to almost their own; errors as the bound of `error_factor` says."""
    found = lengths(char, 20_000)
    assert len(found) > 20
    for length in found:
        k = int(rng.integers(2, min(length, 500)))
        x, h = noise(rng, int(rng.integers(k, k + 2 * length)), char), noise(rng, k, char)
        y = sc.oaconvolve(x, h, block=length)
        assert y.dtype == x.dtype
        assert error(y, x, h) < fft.error_factor(length, np.dtype(char.lower())), (length, len(x), k)


@pytest.mark.parametrize("char", KINDS)
def test_errors_are_those_of_pocketfft(char, rng):
    ours, theirs = [], []
    for n, k in ((3000, 900), (5000, 4000), (20_000, 300)):
        x, h = noise(rng, n, char), noise(rng, k, char)
        ours.append(error(sc.fftconvolve(x, h), x, h))
        sizes = (fft.good_size(n + k - 1, char in "fd"),)
        spectrum = fft.forward(x, sizes, (0,), 1) * fft.forward(h, sizes, (0,), 1)
        theirs.append(error(fft.inverse(spectrum, sizes, (0,), char in "fd", 1)[: n + k - 1], x, h))
    if char in "fF" and fft.backend().__name__ == "scipy.fft":  # float64 is near what longdouble can tell apart
        assert max(a / b for a, b in zip(ours, theirs, strict=True)) < 3
    assert max(ours) < 3 * EPS[char]


@pytest.mark.parametrize("char", KINDS)
@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize("boundary", ["fill", "edge", "symm", "reflect", "wrap"])
def test_tiles(char, mode, boundary, rng):
    for _ in range(3):
        shape, taps = rng.integers(40, 200, 2), rng.integers(2, 40, 2)
        fill = float(rng.integers(0, 2)) if boundary == "fill" else 0
        x, h = noise(rng, shape, char), noise(rng, taps, char)
        options = {"mode": mode, "boundary": boundary, "fillvalue": fill}
        want = sc.convolve(x, h, method="direct", **options)
        scale = 300 * EPS[char] * np.abs(want).max()
        problem = problems.make(x, h, convolves=True, **options)
        for blocks in (None, (48, 128), (40, 256)):
            y = methods.solve(problem, "oa", blocks=blocks)
            np.testing.assert_allclose(y, want, rtol=0, atol=scale)
        np.testing.assert_allclose(sc.convolve(x, h, method="fft", **options), want, rtol=0, atol=scale)


def test_blocks_that_do_not_fit():
    x, h = np.ones(3000), np.ones(300)
    for block in (299, (1024, 1024), 0):
        with pytest.raises(ValueError, match="not below the taps"):
            sc.oaconvolve(x, h, block=block)


def test_batches_axes_and_layouts(rng):
    for axis, char in itertools.product(range(3), "fD"):
        shape = [3, 4, 5]
        shape[axis] = 2000
        x = noise(rng, shape, char)
        shared, own = [1, 1, 1], [3, 4, 1] if axis == 2 else [1, 1, 5] if axis == 0 else [3, 1, 5]
        shared[axis] = own[axis] = 130
        for taps in (shared, own):
            h = noise(rng, taps, char)
            want = sc.convolve(x, h, axes=axis, method="direct")
            for method in ("oa", "fft"):
                for a in (
                    x,
                    x[::-1, ::-1, ::-1][::-1, ::-1, ::-1],
                    np.asfortranarray(x),
                    x.astype(x.dtype.newbyteorder()),
                ):
                    y = sc.convolve(a, h, axes=axis, method=method)
                    np.testing.assert_allclose(y, want, rtol=0, atol=300 * EPS[char] * np.abs(want).max())
                out = np.zeros(want.shape, char).transpose(2, 0, 1).copy().transpose(1, 2, 0)
                assert sc.convolve(x, h, axes=axis, method=method, out=out) is out
                np.testing.assert_array_equal(out, y)


def test_integers_are_exact(rng):
    for shape, taps in (((4000,), (300,)), ((90, 110), (20, 25))):
        x, h = rng.integers(-1000, 1000, shape), rng.integers(-1000, 1000, taps)
        want = sc.convolve(x, h, method="direct")
        for method in ("oa", "fft"):
            np.testing.assert_array_equal(sc.convolve(x, h, method=method), want)


@pytest.mark.parametrize("char", "fD")
def test_bits_do_not_depend_on_threads(char, rng):
    """Few blocks are shared by all threads, row by row, many are divided; large grids go down in strips."""
    for n, k, block in ((30_000, 800, 4096), (5000, 3000, 1 << 14), (300_000, 40_000, 1 << 18)):
        x, h = noise(rng, n, char), noise(rng, k, char)
        problem = problems.make(x, h, convolves=True)
        results = [methods.solve(problem, "oa", threads=t, blocks=(block,)) for t in (1, 2, 3, 5)]
        for y in results[1:]:
            np.testing.assert_array_equal(y, results[0])
        want = fft.inverse(fft.forward(x, (1 << 19,), (0,), 1) * fft.forward(h, (1 << 19,), (0,), 1), (1 << 19,), (0,),
                           char in "fd", 1)[: n + k - 1]  # fmt: skip
        np.testing.assert_allclose(results[0], want, rtol=0, atol=200 * EPS[char] * np.abs(want).max())


def test_a_block_does_not_depend_on_its_neighbours(rng):
    """Overlap-save blocks hold one piece of signal: a loud one leaves the others' bits alone."""
    x, h = noise(rng, 20_000, "f"), noise(rng, 101, "f")
    problem = problems.make(x, h, convolves=True)
    quiet = methods.solve(problem, "oa", blocks=(2048,))
    x[:1900] *= 1e20
    loud = methods.solve(problem, "oa", blocks=(2048,))
    np.testing.assert_array_equal(loud[2 * 1948 :], quiet[2 * 1948 :])
    assert np.abs(loud[:1900]).max() > 1e15


def test_a_signal_that_is_not_finite(rng):
    for value, shape in itertools.product((np.nan, np.inf, -np.inf), ((9000,), (150, 160))):
        x, h = noise(rng, shape, "d"), noise(rng, [9] * len(shape), "d")
        x.flat[x.size // 3] = value
        want = sc.convolve(x, h, method="direct")
        for method in ("oa", "fft"):
            np.testing.assert_allclose(sc.convolve(x, h, method=method), want, atol=1e-12)


def test_lanes_are_transposed_as_the_tables_say():
    """Twice is the identity, and every register ends up with one unit of each."""
    for dtype in (np.float32, np.float64):
        a = np.arange(butterfly.GROUP * lanes(dtype)).reshape(butterfly.GROUP, -1)
        for radix, unit in butterfly.lane_stages(dtype):
            b = butterfly.transposed(a, radix, unit)
            assert not np.array_equal(a, b)
            np.testing.assert_array_equal(butterfly.transposed(b, radix, unit), a)
