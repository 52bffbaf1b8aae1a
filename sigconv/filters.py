"""Filter kernels as arrays: smoothing, sharpening, derivatives, edges and effects.

Every function returns a new float64 array. Kernels are written as the pictures in books show them, for *correlation*:
under :func:`sigconv.cv.filter2D`, :func:`sigconv.ndimage.correlate` and `sigconv.nn.conv2d` a derivative kernel answers
with a positive value where the array grows along its axis. Under `convolve`, which flips the kernel, derivatives of odd
order change their sign; kernels that equal their own point reflection (identity, smoothing, sharpening, Laplacians)
give the same result under both. Each docstring states the sum of the kernel: 1 keeps the mean of an image, 0 answers
to flat regions with zero.

Examples
--------
The usual image effects, on an image of one bright line that grows to the right:

>>> import numpy as np
>>> from sigconv import cv, filters
>>> image = np.array([[0, 0, 0, 0], [0, 8, 16, 32], [0, 0, 0, 0.0]])
>>> cv.filter2D(image, -1, filters.binomial(3), borderType=cv.BORDER_CONSTANT)  # blur
array([[ 0.5,  2. ,  4.5,  5. ],
       [ 1. ,  4. ,  9. , 10. ],
       [ 0.5,  2. ,  4.5,  5. ]])
>>> cv.filter2D(image, -1, filters.sharpen(), borderType=cv.BORDER_CONSTANT)  # sharpen
array([[  0.,  -8., -16., -32.],
       [ -8.,  24.,  40., 144.],
       [  0.,  -8., -16., -32.]])
>>> cv.filter2D(image, -1, filters.sobel(1), borderType=cv.BORDER_CONSTANT)  # edges: derivative along axis 1
array([[  8.,  16.,  24., -16.],
       [ 16.,  32.,  48., -32.],
       [  8.,  16.,  24., -16.]])
>>> cv.filter2D(image, -1, filters.emboss(), borderType=cv.BORDER_CONSTANT)  # emboss
array([[ 16.,  40.,  80.,  32.],
       [  8.,  24.,  40.,  16.],
       [  0.,  -8., -32., -64.]])
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from sigconv.errors import InputError

Kernel = npt.NDArray[np.float64]

__all__ = [
    "binomial",
    "binomial1d",
    "box",
    "derivative1d",
    "disk",
    "dog",
    "emboss",
    "gabor",
    "gaussian",
    "gaussian1d",
    "identity",
    "laplacian",
    "log",
    "motion_blur",
    "outer",
    "prewitt",
    "roberts",
    "scharr",
    "sharpen",
    "sobel",
    "unsharp",
]


def identity(size: int | Sequence[int] = 3, *, ndim: int = 2) -> Kernel:
    """1 at the centre, 0 elsewhere: the kernel that leaves an array as it is. Sum 1.

    `size` is one odd length for all `ndim` axes, or one for each. The centre of an even length n is n // 2, as
    everywhere in image filtering.
    """
    kernel = np.zeros(_sizes(size, ndim))
    kernel[tuple(n // 2 for n in kernel.shape)] = 1.0
    return kernel


def box(size: int | Sequence[int] = 3, *, ndim: int = 2) -> Kernel:
    """The moving average: ``1 / number of elements`` everywhere. Sum 1, separable."""
    shape = _sizes(size, ndim)
    return np.full(shape, 1.0 / math.prod(shape))


def disk(radius: float) -> Kernel:
    """The mean over a disk (the blur of an unfocused lens): equal weights where ``x² + y² <= radius²``. Sum 1."""
    if not radius >= 0:
        raise InputError(f"radius is {radius!r}, a disk has a radius >= 0")
    y, x = _grid(int(radius), 2)
    inside = (x * x + y * y <= radius * radius).astype(np.float64)
    return inside / inside.sum()


def gaussian1d(sigma: float, *, order: int = 0, truncate: float = 4.0, radius: int | None = None) -> Kernel:
    """The sampled Gaussian of length ``2 radius + 1``, or its derivative of the given order.

    ``g(x) = exp(-x² / (2 sigma²)) / sum`` at the integers x from -radius to radius, where radius defaults to
    ``int(truncate * sigma + 0.5)``; sum 1. For order m the samples are those of ``d^m/dx^m`` with the Gaussian's
    normalisation, ``q(x) g(x)`` with the Hermite polynomial q, reversed so that correlation differentiates (sum 0 for
    odd orders, nearly 0 for even ones). It is the kernel of `scipy.ndimage.gaussian_filter1d`.

    >>> gaussian1d(0.5, radius=1).round(4)
    array([0.1065, 0.787 , 0.1065])
    """
    sigma = float(sigma)
    if not sigma > 0:
        raise InputError(f"sigma is {sigma}, a Gaussian has sigma > 0")
    if order < 0:
        raise InputError(f"order is {order}: the order of a derivative is 0 or more")
    reach = int(truncate * sigma + 0.5) if radius is None else _radius(radius)
    x = np.arange(-reach, reach + 1)
    g = np.exp(-0.5 / (sigma * sigma) * x**2)
    g = g / g.sum()
    if order == 0:
        return g
    q = np.polynomial.Polynomial([1.0])
    for _ in range(order):  # (q g)' = (q' - q x / sigma²) g
        q = q.deriv() - q * np.polynomial.Polynomial([0.0, 1.0 / (sigma * sigma)])
    return (q(x) * g)[::-1].copy()


def gaussian(
    sigma: float | Sequence[float],
    *,
    order: int | Sequence[int] = 0,
    truncate: float = 4.0,
    radius: int | Sequence[int] | None = None,
    ndim: int = 2,
) -> Kernel:
    """The outer product of `gaussian1d` over `ndim` axes; one value for all axes or one for each. Sum 1 for order 0."""
    sigmas, orders, radii = (
        _each(name, v, ndim) for name, v in (("sigma", sigma), ("order", order), ("radius", radius))
    )
    return outer(
        *(gaussian1d(s, order=o, truncate=truncate, radius=r) for s, o, r in zip(sigmas, orders, radii, strict=True))
    )


def binomial1d(size: int) -> Kernel:
    """Row ``size - 1`` of Pascal's triangle over ``2^(size - 1)``: repeated means of two neighbours. Sum 1.

    The variance is ``(size - 1) / 4``: the whole-number approximation of a Gaussian.
    """
    (size,) = _sizes(size, 1)
    return np.array([float(math.comb(size - 1, k)) for k in range(size)]) / 2.0 ** (size - 1)


def binomial(size: int | Sequence[int] = 3, *, ndim: int = 2) -> Kernel:
    """The outer product of `binomial1d` over `ndim` axes. Sum 1, separable.

    >>> binomial(3) * 16
    array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]])
    """
    return outer(*map(binomial1d, _sizes(size, ndim)))


def sharpen(amount: float = 1.0, *, ndim: int = 2) -> Kernel:
    """``identity - amount * laplacian``: the image minus its second derivative. Sum 1.

    >>> sharpen()
    array([[ 0., -1.,  0.],
           [-1.,  5., -1.],
           [ 0., -1.,  0.]])
    """
    return identity(3, ndim=ndim) - amount * laplacian(ndim=ndim)


def unsharp(sigma: float, amount: float = 1.0, *, truncate: float = 4.0, ndim: int = 2) -> Kernel:
    """Unsharp masking, ``identity + amount * (identity - gaussian(sigma))``. Sum 1."""
    blur = gaussian(sigma, truncate=truncate, ndim=ndim)
    delta = identity(blur.shape, ndim=ndim)
    return delta + amount * (delta - blur)


def derivative1d(order: int, size: int = 3) -> Kernel:
    """Sobel's derivative of length `size`: `order` differences ``[-1, 1]`` and ``size - 1 - order`` sums ``[1, 1]``.

    Sobel operators of any size and order are products of these (I. Sobel and G. Feldman, 1968; OpenCV's
    ``getDerivKernels``). Order 0 sums to ``2^(size - 1)``, the others to 0.

    >>> derivative1d(1, 5)
    array([-1., -2.,  0.,  2.,  1.])
    """
    (size,) = _sizes(size, 1)
    if not 0 <= order < size:
        raise InputError(f"order is {order}: a kernel of size {size} has derivatives of order 0 to {size - 1}")
    pairs = [np.array([-1.0, 1.0])] * order + [np.array([1.0, 1.0])] * (size - 1 - order)
    return reduce(np.convolve, pairs, np.ones(1))


def sobel(axis: int, size: int = 3, *, ndim: int = 2, normalize: bool = False) -> Kernel:
    """The derivative along `axis`, smoothed by a binomial along the others. Sum 0, separable.

    ``normalize=True`` scales it so that a ramp of slope 1 gives 1.

    >>> sobel(1)
    array([[-1.,  0.,  1.],
           [-2.,  0.,  2.],
           [-1.,  0.,  1.]])
    """
    return _gradient(axis, derivative1d(1, size), derivative1d(0, size), ndim, normalize)


def prewitt(axis: int, *, ndim: int = 2, normalize: bool = False) -> Kernel:
    """The central difference ``[-1, 0, 1]`` along `axis`, summed over three neighbours along the others. Sum 0.

    J. Prewitt, "Object enhancement and extraction", 1970. ``normalize`` as in `sobel`.
    """
    return _gradient(axis, derivative1d(1), np.ones(3), ndim, normalize)


def scharr(axis: int, *, ndim: int = 2, normalize: bool = False) -> Kernel:
    """The central difference along `axis` with weights ``[3, 10, 3]`` along the others: nearly isotropic. Sum 0.

    H. Scharr, "Optimal operators in digital image processing", Heidelberg 2000. ``normalize`` as in `sobel`.
    """
    return _gradient(axis, derivative1d(1), np.array([3.0, 10.0, 3.0]), ndim, normalize)


def roberts(diagonal: int = 0) -> Kernel:
    """Roberts' cross: the difference along the falling (0) or the rising (1) diagonal of 2×2 elements. Sum 0."""
    if diagonal not in (0, 1):
        raise InputError(f"diagonal is {diagonal!r}: 0 is the falling one, 1 the rising one")
    return np.array([[[1.0, 0.0], [0.0, -1.0]], [[0.0, 1.0], [-1.0, 0.0]]])[diagonal]


def laplacian(*, ndim: int = 2, diagonals: bool = False) -> Kernel:
    """The sum of the second differences ``[1, -2, 1]`` along all axes. Sum 0.

    With ``diagonals=True`` all 3^ndim - 1 neighbours count 1.

    >>> laplacian()
    array([[ 0.,  1.,  0.],
           [ 1., -4.,  1.],
           [ 0.,  1.,  0.]])
    """
    centre = identity(3, ndim=ndim)
    if diagonals:
        return 1.0 - centre * centre.size
    kernel = -2.0 * ndim * centre
    for axis in range(ndim):
        kernel += np.roll(centre, 1, axis) + np.roll(centre, -1, axis)
    return kernel


def log(sigma: float, *, truncate: float = 4.0, radius: int | None = None, ndim: int = 2) -> Kernel:
    """The Laplacian of a Gaussian, ``(r² / sigma⁴ - ndim / sigma²) g(r)``, less its mean. Sum 0.

    D. Marr and E. Hildreth, "Theory of edge detection", 1980. The sampled formula does not quite sum to 0; the mean is
    taken off as MATLAB's ``fspecial('log')`` does.
    """
    g = gaussian(sigma, truncate=truncate, radius=radius, ndim=ndim)
    r2 = sum(x * x for x in _grid(g.shape[0] // 2, ndim))
    kernel = (r2 / sigma**4 - ndim / sigma**2) * g
    return kernel - kernel.mean()


def dog(sigma: float, ratio: float = 1.6, *, truncate: float = 4.0, ndim: int = 2) -> Kernel:
    """The difference of the Gaussians of `sigma` and of ``ratio * sigma``, on the wider one's support. Sum 0.

    A band-pass; with ratio 1.6 close to ``-log(sigma)`` up to a factor (Marr and Hildreth, 1980).
    """
    reach = int(truncate * max(sigma, ratio * sigma) + 0.5)
    return gaussian(sigma, radius=reach, ndim=ndim) - gaussian(ratio * sigma, radius=reach, ndim=ndim)


def emboss() -> Kernel:
    """The image lit from the upper left, as a relief. Sum 1. ``np.rot90`` turns the light.

    >>> emboss()
    array([[-2., -1.,  0.],
           [-1.,  1.,  1.],
           [ 0.,  1.,  2.]])
    """
    return np.array([[-2.0, -1.0, 0.0], [-1.0, 1.0, 1.0], [0.0, 1.0, 2.0]])


def motion_blur(length: int, angle: float = 0.0) -> Kernel:
    """The mean over `length` points one element apart on a line, at `angle` degrees counter-clockwise. Sum 1.

    Points between elements are shared by their neighbours bilinearly, so an even length at angle 0 gives half weights
    at both ends.

    >>> motion_blur(2)
    array([[0.25, 0.5 , 0.25]])
    """
    (length,) = _sizes(length, 1)
    steps = np.arange(length) - (length - 1) / 2.0
    turn = np.exp(1j * math.radians(angle))
    x, y = (np.round(steps * part, 12) for part in (turn.real, -turn.imag))  # rows grow downwards
    half_x, half_y = (math.ceil(np.abs(v).max()) for v in (x, y))
    kernel = np.zeros((2 * half_y + 2, 2 * half_x + 2))
    col, row = np.floor(x).astype(int), np.floor(y).astype(int)
    fx, fy = x - col, y - row
    for i, wy in ((0, 1 - fy), (1, fy)):
        for j, wx in ((0, 1 - fx), (1, fx)):
            np.add.at(kernel, (row + half_y + i, col + half_x + j), wy * wx)
    return kernel[:-1, :-1] / length


def gabor(
    sigma: float,
    wavelength: float,
    *,
    theta: float = 0.0,
    aspect: float = 1.0,
    phase: float = 0.0,
    truncate: float = 3.0,
    radius: int | None = None,
) -> Kernel:
    """A plane wave under a Gaussian: edges and texture of one direction and scale. Not normalised, peak 1 at phase 0.

    ``exp(-(u² + aspect² v²) / (2 sigma²)) cos(2π u / wavelength + phase)`` with ``u = x cos theta + y sin theta`` and
    ``v = y cos theta - x sin theta``; angles in radians, x along axis 1, y along axis 0 (downwards). J. Daugman,
    "Uncertainty relation for resolution in space", 1985. OpenCV's ``getGaborKernel`` is this kernel with both axes
    reversed.
    """
    if not (sigma > 0 and wavelength > 0 and aspect > 0):
        raise InputError(f"sigma, wavelength, aspect are {sigma}, {wavelength}, {aspect}: all three must be > 0")
    reach = int(truncate * sigma / min(aspect, 1.0) + 0.5) if radius is None else _radius(radius)
    y, x = _grid(reach, 2)
    u = x * math.cos(theta) + y * math.sin(theta)
    v = y * math.cos(theta) - x * math.sin(theta)
    envelope = np.exp(-(u * u + (aspect * v) ** 2) / (2.0 * sigma * sigma))
    return envelope * np.cos(2.0 * math.pi * u / wavelength + phase)


def outer(*factors: npt.ArrayLike) -> Kernel:
    """The N-D kernel ``k[i, j, …] = f0[i] f1[j] …`` of N one-dimensional factors."""
    return reduce(np.multiply.outer, [np.asarray(f, dtype=np.float64) for f in factors])


def _gradient(axis: int, difference: Kernel, smooth: Kernel, ndim: int, normalize: bool) -> Kernel:
    if not -ndim <= axis < ndim:
        raise InputError(f"axis is {axis}: a kernel of {ndim} axes has the axes {-ndim} to {ndim - 1}")
    if normalize:
        ramp = np.arange(difference.size)
        difference, smooth = difference / (difference @ ramp), smooth / smooth.sum()
    return outer(*(difference if a == axis % ndim else smooth for a in range(ndim)))


def _radius(radius: int) -> int:
    if not isinstance(radius, int | np.integer) or radius < 0:
        raise InputError(f"radius is {radius!r}: it must be a nonnegative integer")
    return int(radius)


def _grid(radius: int, ndim: int) -> list[np.ndarray]:
    return list(np.meshgrid(*[np.arange(-radius, radius + 1.0)] * ndim, indexing="ij"))


def _each(name: str, value: Any, ndim: int) -> list[Any]:
    values = list(value) if np.iterable(value) else [value] * ndim
    if len(values) != ndim:
        raise InputError(f"{name} has {len(values)} values for {ndim} axes: give one value, or one for each axis")
    return values


def _sizes(size: int | Sequence[int], ndim: int) -> tuple[int, ...]:
    sizes = tuple(operator.index(n) for n in _each("size", size, ndim))
    if any(n < 1 for n in sizes):
        raise InputError(f"size is {size!r}: a kernel has at least one element along each axis")
    return sizes
