"""Filter kernels: values, sums, symmetry; the examples of the modules' documentation."""

from __future__ import annotations

import doctest
import importlib

import numpy as np
import pytest

from sigconv import cv, filters, ndimage
from sigconv.errors import InputError

RAMP = np.add.outer(3.0 * np.arange(7), 5.0 * np.arange(9))  # slope 3 along axis 0, 5 along axis 1
INSIDE = (slice(2, -2), slice(2, -2))


@pytest.mark.parametrize(
    "name",
    ["filters", "cv", "ndimage", "numpy", "signal.xcorr", "signal.template", "signal.upfirdn"],
)
def test_documented_examples(name):
    module = importlib.import_module(f"sigconv.{name}")
    found = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted > 0
    assert found.failed == 0


SUM_1 = {
    "identity": filters.identity((3, 4)),
    "box": filters.box((2, 5)),
    "disk": filters.disk(2.5),
    "gaussian": filters.gaussian(1.3),
    "binomial": filters.binomial((4, 5)),
    "sharpen": filters.sharpen(0.7),
    "unsharp": filters.unsharp(1.1, 0.6),
    "emboss": filters.emboss(),
    "motion_blur": filters.motion_blur(6, 30),
}
SUM_0 = {
    "sobel": filters.sobel(0, 5),
    "prewitt": filters.prewitt(1),
    "scharr": filters.scharr(0),
    "roberts": filters.roberts(1),
    "laplacian": filters.laplacian(diagonals=True),
    "log": filters.log(1.2),
    "dog": filters.dog(1.0),
}


@pytest.mark.parametrize("name", SUM_1)
def test_sum_1(name):
    assert SUM_1[name].sum() == pytest.approx(1.0, abs=1e-14)


@pytest.mark.parametrize("name", SUM_0)
def test_sum_0(name):
    assert SUM_0[name].sum() == pytest.approx(0.0, abs=1e-14)


@pytest.mark.parametrize(
    "name", sorted({*SUM_1, *SUM_0} - {"identity", "emboss", "sobel", "prewitt", "scharr", "roberts"})
)
def test_point_symmetric(name):
    kernel = {**SUM_1, **SUM_0}[name]
    np.testing.assert_allclose(kernel, np.flip(kernel), atol=1e-15)


@pytest.mark.parametrize("make", [filters.sobel, filters.prewitt, filters.scharr])
@pytest.mark.parametrize("axis, slope", [(0, 3.0), (1, 5.0), (-1, 5.0)])
def test_normalized_derivatives_measure_slopes(make, axis, slope):
    got = ndimage.correlate(RAMP, make(axis, normalize=True))[INSIDE]
    np.testing.assert_allclose(got, slope, rtol=1e-14)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_derivatives_of_gaussians(order):
    x = np.arange(-20, 21) / 10.0
    got = ndimage.correlate1d(x**order, filters.gaussian1d(2.0, order=order, truncate=6))[20]
    assert got == pytest.approx(np.prod(np.arange(1, order + 1)) / 10.0**order, rel=1e-4)


def test_values():
    np.testing.assert_array_equal(filters.derivative1d(2, 5), [1, 0, -2, 0, 1])
    np.testing.assert_array_equal(filters.laplacian(ndim=3)[1], [[0, 1, 0], [1, -6, 1], [0, 1, 0]])
    np.testing.assert_array_equal(filters.motion_blur(3), [[1 / 3, 1 / 3, 1 / 3]])
    np.testing.assert_array_equal(filters.motion_blur(3, 90), [[1 / 3], [1 / 3], [1 / 3]])
    rising = filters.motion_blur(5, 45)
    assert rising[0, -1] > rising[0, 0] == 0
    np.testing.assert_array_equal(filters.disk(1) * 5, [[0, 1, 0], [1, 1, 1], [0, 1, 0]])
    assert filters.gabor(2.0, 5.0, radius=4).shape == (9, 9)
    assert filters.gabor(2.0, 5.0, phase=np.pi / 2)[6, 6] == pytest.approx(0, abs=1e-15)


def test_effects_as_convolution():
    """Blur, sharpen, edges and emboss by `convolve`: it flips, so only the derivatives change their sign."""
    image = np.random.default_rng(0).random((8, 9))
    for kernel, sign in ((filters.binomial(3), 1), (filters.sharpen(), 1), (filters.sobel(1), -1)):
        np.testing.assert_allclose(ndimage.convolve(image, kernel), sign * cv.filter2D(image, -1, kernel,
            borderType=cv.BORDER_REFLECT), atol=1e-14)  # fmt: skip
    turned = ndimage.convolve(image, filters.emboss())
    np.testing.assert_allclose(turned, ndimage.correlate(image, np.rot90(filters.emboss(), 2)), atol=1e-14)


@pytest.mark.parametrize(
    "call",
    [
        lambda: filters.box(0),
        lambda: filters.box((3, 3, 3)),
        lambda: filters.gaussian(0.0),
        lambda: filters.gaussian1d(1.0, order=-1),
        lambda: filters.gaussian1d(1.0, radius=-2),
        lambda: filters.derivative1d(3, 3),
        lambda: filters.sobel(2),
        lambda: filters.roberts(2),
        lambda: filters.disk(-1),
        lambda: filters.gabor(1.0, 0.0),
    ],
)
def test_errors(call):
    with pytest.raises(InputError):
        call()
