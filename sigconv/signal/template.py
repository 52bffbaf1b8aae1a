"""Finding a template in an image, and the shift between two images."""

from __future__ import annotations

import operator

import numpy as np
import numpy.typing as npt

from sigconv.errors import InputError
from sigconv.signal.api import correlate

NORMALIZATIONS = ("zncc", "ncc", "ssd", None)


def match_template(
    image: npt.ArrayLike,
    template: npt.ArrayLike,
    *,
    normalize: str | None = "zncc",
    mask: npt.ArrayLike | None = None,
    mode: str = "valid",
) -> np.ndarray:
    """How well a template fits each window of an image of any rank.

    Parameters
    ----------
    image, template : array_like of real numbers, of equal rank
        The template is no larger than the image.
    normalize : {'zncc', 'ncc', 'ssd', None}
        With sums over a window I and the template T, and weights m (the mask, or 1):

        - 'zncc': ``sum m (I - mean I)(T - mean T) / sqrt(sum m (I - mean I)² sum m (T - mean T)²)``, in [-1, 1]: 1
          where the window is the template up to brightness and contrast; 0 where window or template is constant.
          OpenCV's TM_CCOEFF_NORMED.
        - 'ncc': ``sum m I T / sqrt(sum m I² sum m T²)``, in [-1, 1]; 0 where one of them is 0. TM_CCORR_NORMED.
        - 'ssd': ``sum m (I - T)²``, at least 0: 0 is a perfect fit. TM_SQDIFF.
        - None: ``sum m I T``. TM_CCORR.
    mask : array_like of the template's shape, optional
        Weights >= 0 of the template's elements.
    mode : {'valid', 'same'}
        'valid': windows inside the image; element i is the window that starts at i. 'same': the image's shape;
        element i is the window centred there (its element ``K // 2`` on i), and windows that leave the image are
        compared over their overlap with it.

    Returns
    -------
    ndarray of float64, or of float32 for float32 and float16 images and templates; sums are taken in float64

    Raises
    ------
    InputError
        Ranks or shapes that do not fit, complex numbers, a mask that has negative elements or only zeros.

    Notes
    -----
    The image's mean is taken off before the sums of 'zncc', and windows whose variance is lost in rounding count as
    constant, so that values stay in [-1, 1] however flat the image is. Sums over partial windows follow D. Padfield,
    "Masked object registration in the Fourier domain", 2012.

    Examples
    --------
    >>> import numpy as np
    >>> from sigconv.signal.template import match_template
    >>> image = np.array([[0, 0, 0, 0], [0, 5, 9, 0], [0, 7, 3, 0], [0, 0, 0, 0.0]])
    >>> fit = match_template(image, [[5, 9], [7, 3]])
    >>> np.unravel_index(fit.argmax(), fit.shape), round(float(fit.max()), 12)
    ((np.int64(1), np.int64(1)), 1.0)
    """
    if normalize not in NORMALIZATIONS:
        raise InputError(f"normalize is {normalize!r}, it must be one of {', '.join(map(repr, NORMALIZATIONS))}")
    if mode not in ("valid", "same"):
        raise InputError(f"mode is {mode!r}, it must be 'valid' or 'same'")
    x, t = np.asarray(image), np.asarray(template)
    if x.ndim != t.ndim or x.ndim == 0 or any(k > n or k == 0 for n, k in zip(x.shape, t.shape, strict=True)):
        raise InputError(
            f"image and template have the shapes {x.shape} and {t.shape}: the same rank is needed, and a template that "
            "is not empty and no larger than the image"
        )
    if x.dtype.kind not in "biuf" or t.dtype.kind not in "biuf":
        raise InputError(f"image is {x.dtype}, template {t.dtype}: real numbers are needed")
    m = _mask(mask, t.shape)
    kind = np.result_type(x.dtype, t.dtype, np.float32 if x.dtype.kind == t.dtype.kind == "f" else np.float64)
    x, t = x.astype(np.float64), t.astype(np.float64)
    result = _scores(x, t, m, normalize, mode)
    return result.astype(kind, copy=False)


def _mask(mask: npt.ArrayLike | None, shape: tuple[int, ...]) -> np.ndarray:
    m = np.ones(shape) if mask is None else np.asarray(mask).astype(np.float64)
    if m.shape != shape:
        raise InputError(f"mask has the shape {m.shape}, the template {shape}: they must be equal")
    if not (m >= 0).all() or not m.any():
        raise InputError("mask must have no negative elements, and one that is positive")
    return m


def _scores(x: np.ndarray, t: np.ndarray, m: np.ndarray, normalize: str | None, mode: str) -> np.ndarray:
    even = (m == m.flat[0]).all()

    def windows(a: np.ndarray, w: np.ndarray) -> np.ndarray:
        # Transforms are as inexact in quiet windows as in loud ones; sums under equal weights are cheap without them.
        return np.asarray(correlate(a, w, mode, "separable" if even and w is m else "auto"))

    def template_sum(w: np.ndarray) -> np.ndarray:
        """Over the part of the template that lies on the image."""
        return windows(np.ones_like(x), w) if mode == "same" else np.asarray(w.sum())

    if normalize is None:
        return windows(x, t * m)
    centred = normalize == "zncc"
    if centred:
        finite = np.isfinite(x)
        x, t = x - np.where(finite, x, 0).sum() / max(finite.sum(), 1), t - (t * m).sum() / m.sum()
    product, x2, t2 = windows(x, t * m), windows(x * x, m), template_sum(t * t * m)
    if normalize == "ssd":
        return np.maximum(x2 - 2 * product + t2, 0.0)
    total = template_sum(m)
    # Rounding in a sum of squares, against which a variance must stand out.
    rounding = 8 * np.finfo(np.float64).eps * m.size**0.5
    noise_x, noise_t = rounding * (x2 if even else np.nanmax(np.where(np.isfinite(x2), x2, 0))), rounding * t2
    if centred:
        x1, t1 = windows(x, m), template_sum(t * m)
        weight = np.where(total > 0, total, 1.0)
        product, x2, t2 = product - x1 * t1 / weight, x2 - x1 * x1 / weight, t2 - t1 * t1 / weight
    varies = (x2 > noise_x) & (t2 > noise_t)
    scale = np.sqrt(np.where(varies, x2, 1.0)) * np.sqrt(np.where(varies, t2, 1.0))
    return np.where(varies, np.clip(product / scale, -1.0, 1.0), np.where(np.isnan(product), np.nan, 0.0))


def phase_correlation(a: npt.ArrayLike, b: npt.ArrayLike, *, upsample: int = 1) -> tuple[np.ndarray, float]:
    """The shift between two arrays of the same shape: b is a, moved by `shift` (cyclically).

    The cross-power spectrum ``conj(A) B / |A B|`` has only phases left; its inverse transform peaks at the shift
    (C. Kuglin and D. Hines, 1975). With ``upsample > 1`` the peak is refined to ``1 / upsample`` of an element by a
    matrix-multiplied transform around it (M. Guizar-Sicairos, S. Thurman and J. Fienup, "Efficient subpixel image
    registration algorithms", 2008).

    Parameters
    ----------
    a, b : array_like of any rank, real or complex, finite
    upsample : int >= 1

    Returns
    -------
    shift : ndarray of float64, one number an axis, from ``-(N // 2)`` to ``(N - 1) // 2`` (to rounding of `upsample`)
        ``b ≈ np.roll(a, shift)``
    peak : float
        Height of the correlation there, 1 for an exact cyclic shift by whole elements

    Raises
    ------
    InputError
        Shapes that differ or are empty, NaN or Inf, `upsample` < 1.

    Examples
    --------
    >>> import numpy as np
    >>> from sigconv.signal.template import phase_correlation
    >>> a = np.random.default_rng(0).random((16, 12))
    >>> shift, peak = phase_correlation(a, np.roll(a, (3, -2), (0, 1)))
    >>> shift, round(peak, 12)
    (array([ 3., -2.]), 1.0)
    """
    x, y = np.asarray(a), np.asarray(b)
    upsample = operator.index(upsample)
    if x.shape != y.shape or x.size == 0 or x.ndim == 0:
        raise InputError(f"a and b have the shapes {x.shape} and {y.shape}: equal shapes are needed, not empty")
    if upsample < 1:
        raise InputError(f"upsample is {upsample}: it must be 1 or more")
    for name, array in (("a", x), ("b", y)):
        if not np.isfinite(array).all():
            raise InputError(f"{name} has NaN or Inf: one of them leaves no phase anywhere; replace them first")
    spectrum = np.fft.fftn(x).conj() * np.fft.fftn(y)
    size = np.abs(spectrum)
    known = size > np.finfo(np.float64).eps * size.max()
    spectrum = np.where(known, spectrum / np.where(known, size, 1.0), 0.0)
    correlation = np.fft.ifftn(spectrum)
    peak = np.unravel_index(np.argmax(np.abs(correlation)), x.shape)
    shift = np.array([float((p + n // 2) % n - n // 2) for p, n in zip(peak, x.shape, strict=True)])
    height = float(np.abs(correlation[peak]))
    if upsample > 1:
        shift, height = _refined(spectrum, shift, upsample)
    return shift, height


def _refined(spectrum: np.ndarray, shift: np.ndarray, upsample: int) -> tuple[np.ndarray, float]:
    """The peak within 3/4 of an element of a whole shift, on a grid of 1 / upsample."""
    reach = int(np.ceil(0.75 * upsample))
    offsets = np.arange(-reach, reach + 1) / upsample
    values = spectrum
    for n, whole in zip(spectrum.shape, shift, strict=True):
        wave = np.exp(2j * np.pi * np.outer(np.fft.fftfreq(n), whole + offsets)) / n
        values = np.tensordot(values, wave, (0, 0))  # the axis transformed goes last: after all, the order is kept
    size = np.abs(values)
    peak = np.unravel_index(np.argmax(size), size.shape)
    return shift + offsets[list(peak)], float(size[peak])
