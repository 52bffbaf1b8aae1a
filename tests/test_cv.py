"""OpenCV's filters: by their definition, and against OpenCV where it is installed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sigconv import cv
from sigconv.errors import InputError

rng = np.random.default_rng(3)
BORDERS = {
    cv.BORDER_CONSTANT: "constant",
    cv.BORDER_REPLICATE: "edge",
    cv.BORDER_REFLECT: "symmetric",
    cv.BORDER_WRAP: "wrap",
    cv.BORDER_REFLECT_101: "reflect",
}
IMAGES = {
    "uint8": rng.integers(0, 256, (23, 31), np.uint8),
    "three channels": rng.integers(0, 256, (12, 17, 3), np.uint8),
    "int16": rng.integers(-(2**15), 2**15, (13, 19)).astype(np.int16),
    "uint16": rng.integers(0, 2**16, (13, 19)).astype(np.uint16),
    "float32": rng.standard_normal((23, 31)).astype(np.float32),
    "float64": rng.standard_normal((23, 31)),
}


def naive(image, kernel, anchor, border):
    """Correlation in float64 on a padded image."""
    rows, columns = kernel.shape
    x, y = anchor
    channels = [(0, 0)] * (image.ndim - 2)
    padded = np.pad(image.astype(float), [(y, rows - 1 - y), (x, columns - 1 - x), *channels], BORDERS[border])
    n, m = image.shape[:2]
    return sum(kernel[i, j] * padded[i : i + n, j : j + m] for i, j in np.ndindex(rows, columns))


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("name", IMAGES)
def test_filter2D_is_correlation(name, border):
    image = IMAGES[name]
    kernel = rng.integers(-4, 5, (3, 4)).astype(float)
    expected = naive(image, kernel, (1, 2), border) + 7
    got = cv.filter2D(image, cv.CV_64F, kernel, anchor=(1, 2), delta=7, borderType=border)
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)
    kept = cv.filter2D(image, -1, kernel, anchor=(1, 2), delta=7, borderType=border)
    assert kept.dtype == image.dtype
    if image.dtype.kind in "iu":
        limits = np.iinfo(image.dtype)
        np.testing.assert_array_equal(kept, np.clip(expected, limits.min, limits.max))


def test_integers_are_rounded_and_saturate():
    image = np.array([[1, 2, 3, 250]], np.uint8)
    np.testing.assert_array_equal(cv.filter2D(image, -1, [[0.5]]), [[0, 1, 2, 125]])  # ties to even
    np.testing.assert_array_equal(cv.filter2D(image, -1, [[1.1]]), [[1, 2, 3, 255]])
    np.testing.assert_array_equal(cv.filter2D(image, cv.CV_8S, [[-1.0]]), [[-1, -2, -3, -128]])
    large = np.array([[3e9, -3e9]], np.float32)
    np.testing.assert_array_equal(cv.filter2D(large, cv.CV_32S, [[1.0]]), [[2**31 - 1, -(2**31)]])


def test_separable_is_the_outer_product():
    x, y = rng.standard_normal(5), rng.standard_normal(4)
    image = IMAGES["float64"]
    got = cv.sepFilter2D(image, -1, x, y, anchor=(1, 2), delta=0.5)
    np.testing.assert_allclose(got, cv.filter2D(image, -1, np.outer(y, x), anchor=(1, 2), delta=0.5), atol=1e-13)


def test_dst():
    image = IMAGES["uint8"].copy()
    expected = cv.blur(image, (3, 5))
    assert cv.blur(image, (3, 5), image) is image
    np.testing.assert_array_equal(image, expected)
    with pytest.raises(InputError, match="dst"):
        cv.blur(image, (3, 3), np.zeros((2, 2)))


@pytest.mark.parametrize(
    "call",
    [
        lambda: cv.filter2D(np.zeros(3), -1, np.ones((3, 3))),
        lambda: cv.filter2D(np.zeros((3, 3)), 9, np.ones((3, 3))),
        lambda: cv.filter2D(np.zeros((3, 3)), -1, np.ones((3, 3, 3))),
        lambda: cv.filter2D(np.zeros((3, 3)), -1, np.ones((3, 3)), anchor=(3, 0)),
        lambda: cv.filter2D(np.zeros((3, 3)), -1, np.ones((3, 3)), borderType=5),
        lambda: cv.GaussianBlur(np.zeros((3, 3)), (4, 3), 1),
        lambda: cv.GaussianBlur(np.zeros((3, 3)), (0, 0)),
        lambda: cv.Sobel(np.zeros((3, 3)), -1, 0, 0),
        lambda: cv.Scharr(np.zeros((3, 3)), -1, 1, 1),
        lambda: cv.blur(np.zeros((3, 3)), (0, 3)),
        lambda: cv.getDerivKernels(1, 0, 4),
    ],
)
def test_errors(call):
    with pytest.raises(InputError):
        call()


OPENCV_BORDERS = [b for b in BORDERS if b != cv.BORDER_WRAP]


def close(ours, theirs, steps=0):
    """Equal, up to `steps` of an integer type and the rounding of a float type."""
    assert ours.dtype == theirs.dtype
    if ours.dtype.kind == "f":
        scale = max(1.0, float(np.abs(theirs).max()))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=scale * (1e-12 if ours.dtype == np.float64 else 1e-5))
    else:
        np.testing.assert_allclose(ours.astype(np.int64), theirs.astype(np.int64), rtol=0, atol=steps)


@pytest.mark.parametrize("border", OPENCV_BORDERS)
@pytest.mark.parametrize("name", IMAGES)
def test_equal_to_opencv(name, border):
    cv2 = pytest.importorskip("cv2")
    image, b = IMAGES[name], dict(borderType=border)
    kernel = np.random.default_rng(1).standard_normal((4, 5))
    close(cv.filter2D(image, -1, kernel, **b), cv2.filter2D(image, -1, kernel, **b), 1)
    close(
        cv.sepFilter2D(image, -1, kernel[0], kernel[1], **b), cv2.sepFilter2D(image, -1, kernel[0], kernel[1], **b), 1
    )
    for size, sigma in itertools.product((3, 5, 7, 11, 15), (0, 0.8, 1.7)):
        ours, theirs = (m.GaussianBlur(image, (size, size), sigma, **b) for m in (cv, cv2))
        close(ours, theirs, 0 if image.dtype == np.uint8 else 2)
    close(
        *(m.GaussianBlur(image, (0, 0), 2.3, sigmaY=1.1, **b) for m in (cv, cv2)), 0 if image.dtype == np.uint8 else 2
    )
    for depth in (-1, cv.CV_16S, cv.CV_32F) if image.dtype == np.uint8 else (-1,):
        for (dx, dy), size in itertools.product(((1, 0), (0, 1), (2, 0), (1, 1)), (3, 5, 7)):
            close(*(m.Sobel(image, depth, dx, dy, ksize=size, delta=3, **b) for m in (cv, cv2)))
        close(*(m.Sobel(image, depth, 0, 1, ksize=1, **b) for m in (cv, cv2)))
        close(*(m.Scharr(image, depth, 1, 0, **b) for m in (cv, cv2)))
        for size in (1, 3, 5):
            close(*(m.Laplacian(image, depth, ksize=size, **b) for m in (cv, cv2)))
    close(*(m.blur(image, (5, 3), **b) for m in (cv, cv2)))
    close(*(m.blur(image, (4, 2), **b) for m in (cv, cv2)), 1)
    depth = cv.CV_64F if image.dtype == np.float64 else cv.CV_32F
    close(*(m.boxFilter(image, depth, (4, 3), anchor=(0, 1), normalize=False, **b) for m in (cv, cv2)))


def test_constants_and_kernels_are_opencvs():
    cv2 = pytest.importorskip("cv2")
    for name in cv.__all__:
        if name.isupper() and name != "BORDER_ISOLATED":
            assert getattr(cv, name) == getattr(cv2, name), name
    for size, order, normalize in itertools.product((3, 5, 7), ((1, 0), (0, 2), (1, 1)), (False, True)):
        for ours, theirs in zip(cv.getDerivKernels(*order, size, normalize),
                                cv2.getDerivKernels(*order, size, normalize=normalize), strict=True):  # fmt: skip
            np.testing.assert_array_equal(ours, theirs)
    for size, sigma in itertools.product((1, 3, 5, 7, 9, 11), (0, 1.4)):
        np.testing.assert_allclose(cv.getGaussianKernel(size, sigma), cv2.getGaussianKernel(size, sigma), atol=1e-15)


@pytest.mark.parametrize("shape", [(1, 1), (5, 37), (70, 131), (33, 40, 3)])
@pytest.mark.parametrize("size", [(1, 3), (5, 5), (4, 7), (12, 12)])
def test_bytes_with_float_taps_are_rounded_sums(shape, size, rng):
    x, w = rng.integers(0, 256, shape).astype(np.uint8), rng.normal(0.05, 0.1, size).astype(np.float32)
    before = [n // 2 for n in size]
    wide = np.pad(x.astype(float), [*((b, n) for b, n in zip(before, size, strict=True)), (0, 0)][: x.ndim], "edge")
    want = sum(
        w[i, j].astype(float) * wide[i : i + shape[0], j : j + shape[1]] for i in range(size[0]) for j in range(size[1])
    )
    out = cv.filter2D(x, -1, w, borderType=cv.BORDER_REPLICATE)
    assert out.dtype == np.uint8
    assert np.abs(out - np.clip(want, 0, 255)).max() <= 0.5 + 1e-3
    turned = cv.filter2D(np.ascontiguousarray(x[:, ::-1])[:, ::-1], -1, w, borderType=cv.BORDER_REPLICATE)
    np.testing.assert_array_equal(out, turned)
