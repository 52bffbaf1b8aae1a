"""Image filters with OpenCV's names, arguments and constants. All of them are *correlation*: kernels are not flipped.

Images are arrays (rows, columns) or (rows, columns, channels); channels are filtered one by one. Sizes and anchors are
``(x, y)``, that is (columns, rows), as in OpenCV; ``(-1, -1)`` is the centre, ``size // 2``.

`ddepth` is the output's depth: -1 for the input's, one of the constants `CV_8U` … `CV_16F`, or a NumPy type. Sums are
exact for integer images under integer-valued kernels, else in float32, or float64 for float64 and 32-bit integers.
Integer outputs are rounded to nearest (ties to even) and *saturate*. `GaussianBlur` of uint8 uses OpenCV's fixed point
kernels and agrees bit by bit; where OpenCV uses fixed point elsewhere (other symmetric kernels on 8 and 16 bits, means
of an even number of elements, whose ties it rounds up) the last digit can differ.

Borders: `BORDER_REFLECT_101` (the default, ``c b | a b c d | c b``), `BORDER_REFLECT`, `BORDER_REPLICATE`,
`BORDER_WRAP` (for all functions; OpenCV has it for some) and `BORDER_CONSTANT` (zeros).

Examples
--------
>>> import numpy as np
>>> image = np.array([[10, 20, 30], [40, 50, 200]], np.uint8)
>>> filter2D(image, -1, np.array([[0, 0, 0], [0, 0, 2], [0, 0, 0]]))  # twice the neighbour on the right
array([[ 40,  60,  40],
       [100, 255, 100]], dtype=uint8)
>>> Sobel(image, CV_16S, 1, 0)
array([[  0, 360,   0],
       [  0, 360,   0]], dtype=int16)
>>> blur(image, (3, 1))
array([[ 17,  20,  23],
       [ 47,  97, 100]], dtype=uint8)
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sigconv import filters
from sigconv.errors import InputError
from sigconv.window_sums import exact_type, rounded_sums, separable_sums, window_sums

CV_8U, CV_8S, CV_16U, CV_16S, CV_32S, CV_32F, CV_64F, CV_16F = range(8)
DEPTHS = tuple(map(np.dtype, ("u1", "i1", "u2", "i2", "i4", "f4", "f8", "f2")))

BORDER_CONSTANT, BORDER_REPLICATE, BORDER_REFLECT, BORDER_WRAP, BORDER_REFLECT_101 = range(5)
BORDER_REFLECT101 = BORDER_DEFAULT = BORDER_REFLECT_101
BORDER_ISOLATED = 16
"""Accepted together with another border and without meaning here: an array has no surroundings."""
BOUNDARIES = ("fill", "edge", "symm", "wrap", "reflect")

FILTER_SCHARR = -1

__all__ = [
    "BORDER_CONSTANT",
    "BORDER_DEFAULT",
    "BORDER_ISOLATED",
    "BORDER_REFLECT",
    "BORDER_REFLECT101",
    "BORDER_REFLECT_101",
    "BORDER_REPLICATE",
    "BORDER_WRAP",
    "CV_8S",
    "CV_8U",
    "CV_16F",
    "CV_16S",
    "CV_16U",
    "CV_32F",
    "CV_32S",
    "CV_64F",
    "FILTER_SCHARR",
    "GaussianBlur",
    "Laplacian",
    "Scharr",
    "Sobel",
    "blur",
    "boxFilter",
    "filter2D",
    "getDerivKernels",
    "getGaussianKernel",
    "sepFilter2D",
]

_GAUSSIANS = {
    1: [1.0],
    3: [0.25, 0.5, 0.25],
    5: [0.0625, 0.25, 0.375, 0.25, 0.0625],
    7: [0.03125, 0.109375, 0.21875, 0.28125, 0.21875, 0.109375, 0.03125],
    9: [v / 256 for v in (4, 13, 30, 51, 60, 51, 30, 13, 4)],
}
"""OpenCV's kernels for sigma <= 0 and small sizes."""


def filter2D(
    src: npt.ArrayLike,
    ddepth: int | npt.DTypeLike,
    kernel: npt.ArrayLike,
    dst: np.ndarray | None = None,
    anchor: tuple[int, int] = (-1, -1),
    delta: float = 0,
    borderType: int = BORDER_DEFAULT,
) -> np.ndarray:
    """Correlation with a 2-D kernel, as `cv2.filter2D`: ``y[p] = sum_k kernel[k] src[p + k - anchor] + delta``.

    Parameters
    ----------
    src : array_like (rows, columns) or (rows, columns, channels) of real numbers
    ddepth : the output's type, see the module
    kernel : array_like (rows, columns), or 1-D for a column
    dst : array to write to, of the output's shape and type; it may be `src`
    anchor : (x, y) of the kernel's element that lies on the output
    delta : added before rounding
    borderType : see the module

    Raises
    ------
    InputError
        Shapes, types, anchor or border that are not as described.
    """
    image, depth = _image(src), _depth(ddepth, src)
    w = np.asarray(kernel)
    w = w.reshape(-1, 1) if w.ndim == 1 else w
    if w.ndim != 2 or w.size == 0 or w.dtype.kind not in "biuf":
        raise InputError(f"kernel is {w.dtype} of shape {w.shape}: a 2-D kernel of real numbers is needed, not empty")
    lead = [_anchor(a, n) for a, n in zip(reversed(anchor), w.shape, strict=True)]
    return _store(_sums(image, [(w, lead)], delta, borderType, depth), depth, dst)


def sepFilter2D(
    src: npt.ArrayLike,
    ddepth: int | npt.DTypeLike,
    kernelX: npt.ArrayLike,
    kernelY: npt.ArrayLike,
    dst: np.ndarray | None = None,
    anchor: tuple[int, int] = (-1, -1),
    delta: float = 0,
    borderType: int = BORDER_DEFAULT,
) -> np.ndarray:
    """Correlation of each row with `kernelX`, then of each column with `kernelY`, as `cv2.sepFilter2D`.

    The kernels are 1-D, or 2-D with one row or column; nothing is rounded in between. Otherwise as `filter2D`.
    """
    image, depth = _image(src), _depth(ddepth, src)
    x, y = _line("kernelX", kernelX), _line("kernelY", kernelY)
    passes = [(x.reshape(1, -1), [0, _anchor(anchor[0], x.size)]), (y.reshape(-1, 1), [_anchor(anchor[1], y.size), 0])]
    return _store(_sums(image, passes, delta, borderType, depth), depth, dst)


def GaussianBlur(
    src: npt.ArrayLike,
    ksize: tuple[int, int],
    sigmaX: float = 0,
    dst: np.ndarray | None = None,
    sigmaY: float = 0,
    borderType: int = BORDER_DEFAULT,
) -> np.ndarray:
    """Gaussian smoothing, as `cv2.GaussianBlur`, in the input's type.

    `ksize` is (columns, rows), odd; 0 derives a size from its sigma, a sigma of 0 is derived from the size (and
    `sigmaY` of 0 is `sigmaX`). uint8 images are computed with kernels of 8 fractional bits and rounded once, half up.
    """
    image = _image(src)
    sigmas = sigmaX, sigmaY if sigmaY > 0 else sigmaX
    sizes = [_gaussian_size(operator.index(n), s, image.dtype) for n, s in zip(ksize, sigmas, strict=True)]
    x, y = (getGaussianKernel(n, s).ravel() for n, s in zip(sizes, sigmas, strict=True))
    if image.dtype != np.uint8:
        return sepFilter2D(image, -1, x, y, dst, borderType=borderType)
    x, y = _fixed_point(x), _fixed_point(y)
    passes = [(x.reshape(1, -1), [0, x.size // 2]), (y.reshape(-1, 1), [y.size // 2, 0])]
    sums = _sums(image, passes, 0, borderType, np.dtype(np.uint8))
    return _store((sums + (1 << 15)) >> 16, image.dtype, dst)


def Sobel(
    src: npt.ArrayLike,
    ddepth: int | npt.DTypeLike,
    dx: int,
    dy: int,
    dst: np.ndarray | None = None,
    ksize: int = 3,
    scale: float = 1,
    delta: float = 0,
    borderType: int = BORDER_DEFAULT,
) -> np.ndarray:
    """The derivative of order `dx` in x and `dy` in y, smoothed, as `cv2.Sobel`.

    `ksize` is 1 (no smoothing), 3, 5, 7, … or `FILTER_SCHARR`; the kernels are those of `getDerivKernels`, times
    `scale`.
    """
    x, y = getDerivKernels(dx, dy, ksize)
    # The scale goes where the image is smoothed, as in OpenCV.
    x, y = (x * scale, y) if dx == 0 else (x, y * scale)
    return sepFilter2D(src, ddepth, x, y, dst, delta=delta, borderType=borderType)


def Scharr(
    src: npt.ArrayLike,
    ddepth: int | npt.DTypeLike,
    dx: int,
    dy: int,
    dst: np.ndarray | None = None,
    scale: float = 1,
    delta: float = 0,
    borderType: int = BORDER_DEFAULT,
) -> np.ndarray:
    """The first derivative in x or in y with Scharr's 3×3 kernel, as `cv2.Scharr`."""
    return Sobel(src, ddepth, dx, dy, dst, FILTER_SCHARR, scale, delta, borderType)


def Laplacian(
    src: npt.ArrayLike,
    ddepth: int | npt.DTypeLike,
    dst: np.ndarray | None = None,
    ksize: int = 1,
    scale: float = 1,
    delta: float = 0,
    borderType: int = BORDER_DEFAULT,
) -> np.ndarray:
    """The sum of the second derivatives, as `cv2.Laplacian`.

    `ksize` 1 is ``[0 1 0; 1 -4 1; 0 1 0]``, 3, 5, … the sum of the two second derivatives of `Sobel`.
    """
    if ksize == 1:
        kernel = filters.laplacian()
    else:
        second, smooth = (k.ravel() for k in getDerivKernels(2, 0, ksize))
        kernel = np.outer(smooth, second) + np.outer(second, smooth)
    return filter2D(src, ddepth, kernel * scale, dst, delta=delta, borderType=borderType)


def boxFilter(
    src: npt.ArrayLike,
    ddepth: int | npt.DTypeLike,
    ksize: tuple[int, int],
    dst: np.ndarray | None = None,
    anchor: tuple[int, int] = (-1, -1),
    normalize: bool = True,
    borderType: int = BORDER_DEFAULT,
) -> np.ndarray:
    """The mean (or with ``normalize=False`` the sum) over ksize = (columns, rows) elements, as `cv2.boxFilter`.

    Sums of integers are exact.
    """
    image, depth = _image(src), _depth(ddepth, src)
    columns, rows = map(operator.index, ksize)
    if columns < 1 or rows < 1:
        raise InputError(f"ksize is {tuple(ksize)}: both sizes must be at least 1")
    passes = [
        (np.ones((1, columns)), [0, _anchor(anchor[0], columns)]),
        (np.ones((rows, 1)), [_anchor(anchor[1], rows), 0]),
    ]
    sums = _sums(image, passes, 0, borderType, depth)
    if normalize:
        if sums.dtype.kind != "f":  # float32 rounds quotients of up to 24 bits as float64 does
            small = image.dtype.itemsize == 1 and columns * rows < 1 << 14
            sums = sums.astype(np.float32 if small else np.float64)
        sums /= sums.dtype.type(columns * rows)
    return _store(sums, depth, dst)


def blur(
    src: npt.ArrayLike,
    ksize: tuple[int, int],
    dst: np.ndarray | None = None,
    anchor: tuple[int, int] = (-1, -1),
    borderType: int = BORDER_DEFAULT,
) -> np.ndarray:
    """The mean over ksize = (columns, rows) elements in the input's type, as `cv2.blur`."""
    return boxFilter(src, -1, ksize, dst, anchor, True, borderType)


def getGaussianKernel(ksize: int, sigma: float, ktype: int = CV_64F) -> np.ndarray:
    """The Gaussian of `ksize` samples as a column, sum 1, as `cv2.getGaussianKernel`.

    A sigma <= 0 stands for ``0.3 ((ksize - 1) / 2 - 1) + 0.8``, with fixed kernels for the sizes 1, 3, 5, 7 and 9.
    """
    if ksize < 1 or ksize % 2 == 0:
        raise InputError(f"ksize is {ksize}: a Gaussian kernel has an odd size")
    if sigma <= 0 and ksize in _GAUSSIANS:
        taps = np.array(_GAUSSIANS[ksize])
    else:
        taps = filters.gaussian1d(sigma if sigma > 0 else 0.3 * ((ksize - 1) * 0.5 - 1) + 0.8, radius=ksize // 2)
    return taps.reshape(-1, 1).astype(DEPTHS[ktype])


def getDerivKernels(
    dx: int, dy: int, ksize: int, normalize: bool = False, ktype: int = CV_32F
) -> tuple[np.ndarray, np.ndarray]:
    """The columns (for x, for y) of a derivative, as `cv2.getDerivKernels`.

    `ksize` is 1, 3, 5, … for Sobel's (:func:`sigconv.filters.derivative1d`; size 1 means 3 along the derivative's axis
    and 1 along the other) or `FILTER_SCHARR`. ``normalize=True`` divides by the power of two that makes them
    derivatives.
    """
    if dx < 0 or dy < 0 or dx + dy == 0:
        raise InputError(f"dx, dy are {dx}, {dy}: orders are 0 or more, and one of them is positive")
    if ksize == FILTER_SCHARR:
        if dx + dy != 1:
            raise InputError(f"dx, dy are {dx}, {dy}: Scharr's kernels are for the orders 1, 0 and 0, 1")
        smooth = np.array([3.0, 10.0, 3.0]) / (32 if normalize else 1)
        lines = [filters.derivative1d(1) if order else smooth for order in (dx, dy)]
    else:
        if ksize % 2 == 0 or ksize < 1 or ksize > 31:
            raise InputError(f"ksize is {ksize}: it must be odd, from 1 to 31, or FILTER_SCHARR")
        sizes = [3 if ksize == 1 and order else ksize for order in (dx, dy)]
        lines = [filters.derivative1d(order, n) for order, n in zip((dx, dy), sizes, strict=True)]
        if normalize:
            lines = [k / 2.0 ** (n - order - 1) for k, n, order in zip(lines, sizes, (dx, dy), strict=True)]
    x, y = (k.reshape(-1, 1).astype(DEPTHS[ktype]) for k in lines)
    return x, y


def _sums(
    image: np.ndarray, passes: Sequence[tuple[np.ndarray, Sequence[int]]], delta: float, border: int, depth: np.dtype
) -> np.ndarray:
    """The passes (2-D kernel, elements before the anchor) over an image, one after the other, plus delta.

    In the type of the sums, or in that of the output where they are rounded already.
    """
    kind = border & ~BORDER_ISOLATED
    if not 0 <= kind < len(BOUNDARIES):
        raise InputError(f"borderType is {border}: BORDER_CONSTANT, _REPLICATE, _REFLECT, _WRAP and _REFLECT_101 exist")
    whole = np.multiply.outer(*(w.ravel() for w, _ in passes)) if len(passes) > 1 else passes[0][0]
    exact = exact_type(image, np.append(whole, delta), 0, wraps=False)
    work = (
        exact if exact is not None else np.result_type(np.float32, image.dtype, *([depth] if depth.kind == "f" else []))
    )
    taps = [(np.rint(w) if exact is not None else w).astype(work) for w, _ in passes]
    boundary = BOUNDARIES[kind]
    if len(taps) == 2 and all(w.size > 1 and np.isfinite(w).all() for w in taps):
        (_, across), (_, down) = passes
        y = separable_sums(image, [taps[1].ravel(), taps[0].ravel()], (0, 1), [down[0], across[1]], boundary, 0, work)
    else:
        deep = [(w[..., None], [*lead, 0]) if image.ndim == 3 else (w, lead)
                for w, (_, lead) in zip(taps, passes, strict=True)]  # fmt: skip
        if image.dtype == depth == np.uint8 and work == np.float32 and len(deep) == 1 and not delta:
            done = rounded_sums(image, *deep[0], boundary)
            if done is not None:
                return done
        y = image.astype(work, copy=False)
        for w, lead in deep:
            y = window_sums(y, w, lead, boundary, 0, work)
    return y + work.type(delta) if delta else y


def _store(sums: np.ndarray, depth: np.dtype, dst: np.ndarray | None) -> np.ndarray:
    """The sums, an array of ours, rounded, saturated and written."""
    if depth.kind in "iu" and sums.dtype != depth:
        limits = np.iinfo(depth)
        if sums.dtype.kind == "f":
            if sums.dtype.itemsize < 8 <= 2 * depth.itemsize:
                sums = sums.astype(np.float64)  # float32 has no 2^31 - 1
            np.rint(sums, out=sums)
        np.clip(sums, limits.min, limits.max, out=sums)
    if dst is None:
        return np.ascontiguousarray(sums.astype(depth, copy=False))
    if dst.shape != sums.shape or dst.dtype != depth:
        raise InputError(f"dst is {dst.dtype} of shape {dst.shape}, the output {depth} of shape {sums.shape}")
    dst[...] = sums.astype(depth, copy=False)
    return dst


def _image(src: npt.ArrayLike) -> np.ndarray:
    image = np.asarray(src)
    if image.ndim not in (2, 3) or image.size == 0 or image.dtype.kind not in "biuf":
        raise InputError(
            f"src is {image.dtype} of shape {image.shape}: an image is (rows, columns) or (rows, columns, channels) of "
            "real numbers, not empty"
        )
    return image


def _depth(ddepth: int | npt.DTypeLike, src: npt.ArrayLike) -> np.dtype:
    if not isinstance(ddepth, int | np.integer):
        return np.dtype(ddepth)
    if not -1 <= ddepth < len(DEPTHS):
        raise InputError(f"ddepth is {ddepth}: it must be -1 (the input's), CV_8U … CV_16F (0 … 7) or a NumPy type")
    return np.asarray(src).dtype if ddepth == -1 else DEPTHS[ddepth]


def _line(name: str, kernel: npt.ArrayLike) -> np.ndarray:
    w = np.asarray(kernel)
    if w.size == 0 or w.size != max(w.shape, default=0) or w.dtype.kind not in "biuf":
        raise InputError(f"{name} is {w.dtype} of shape {w.shape}: one row or column of real numbers is needed")
    return w.ravel()


def _anchor(anchor: int, size: int) -> int:
    if not -1 <= anchor < size:
        raise InputError(f"anchor is {anchor} in a kernel of {size}: it must be inside, or -1 for the centre")
    return size // 2 if anchor == -1 else anchor


def _gaussian_size(size: int, sigma: float, depth: np.dtype) -> int:
    if size <= 0:
        if sigma <= 0:
            raise InputError(f"ksize is {size} and sigma {sigma}: one of them must be positive")
        size = round(sigma * (3 if depth == np.uint8 else 4) * 2 + 1) | 1
    if size % 2 == 0:
        raise InputError(f"ksize is {size}: the sizes of a Gaussian kernel are odd")
    return size


def _fixed_point(taps: np.ndarray) -> np.ndarray:
    """A symmetric kernel in units of 1 / 256 with sum 256; rounding errors go on to the next tap inwards."""
    half = taps.size // 2
    fixed, error = np.zeros(taps.size, np.int64), 0.0
    for i in range(half):
        wanted = taps[i] * 256 + error
        fixed[i] = fixed[-1 - i] = int(np.rint(wanted))
        error = wanted - fixed[i]
    fixed[half] = 256 - 2 * fixed[:half].sum()
    return fixed
