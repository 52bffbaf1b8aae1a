"""Resize: per-axis sampling positions and weights, apart from the NumPy evaluation that applies them.

Interpolation is separable: each axis has a table of the input indices and weights of every output (`resize_taps`), and
one pass per axis applies it. Kernels use the same tables.

References
----------
ONNX Resize-19. R. Keys, "Cubic convolution interpolation for digital image processing", IEEE TASSP 29 (1981), eq. 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sigconv.errors import ModelError
from sigconv.ops._infer import Attrs, Facts, axis_indices, fact
from sigconv.ops._known import as_ints, check_choice, check_not_negative, concrete
from sigconv.ops.spec import Dim, Fact, Shape, register

MODES = ("nearest", "linear", "cubic")
COORDINATE_MODES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_crop_and_resize",
    "tf_half_pixel_for_nn",  # of opset 11 only
)
ASPECT_POLICIES = ("stretch", "not_larger", "not_smaller")
ROUNDING: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


@dataclass(frozen=True, slots=True)
class AxisResize:
    """What happens to one axis: ``scale`` is output size / input size before the output size is rounded down."""

    size: Dim
    output: Dim
    scale: float | None
    roi: tuple[float, float] = (0.0, 1.0)


def resize_axes(
    shape: Shape,
    scales: Sequence[float] | None,
    sizes: Sequence[int] | None,
    roi: Sequence[float] | None = None,
    axes: Sequence[int] | None = None,
    policy: str = "stretch",
) -> tuple[AxisResize, ...]:
    """One `AxisResize` for each size of ``shape``, from exactly one of ``scales`` and ``sizes``.

    With ``policy`` not_larger or not_smaller all named axes share one scale, the smallest or largest of those asked
    for. Output sizes follow ONNX's single precision: ``floor(float32(scale) * size)``.
    """
    check_choice(policy, ASPECT_POLICIES, "keep_aspect_ratio_policy")
    named = axis_indices(range(len(shape)) if axes is None else axes, len(shape))
    if (scales is None) == (sizes is None):
        raise ModelError(f"exactly one of scales and sizes must be given, but scales is {scales} and sizes is {sizes}")
    for what, values in (("scales", scales), ("sizes", sizes)):
        if values is not None and len(values) != len(named):
            raise ModelError(
                f"{what} {tuple(values)} must hold one number for each of the axes {named} of shape {shape}"
            )
    if scales is not None and not all(0 < s < math.inf for s in scales):
        raise ModelError(f"scales must be positive, but are {tuple(scales)}")
    if roi is not None and len(roi) != 2 * len(named):
        raise ModelError(f"roi {tuple(roi)} must hold a start and an end for each of the axes {named}")

    shared: float | None = None
    if sizes is not None:
        check_not_negative(sizes, "sizes")
        if policy != "stretch":
            asked = [(s, shape[a]) for a, s in zip(named, sizes, strict=True)]
            ratios = [s / d for s, d in asked if isinstance(d, int) and d]
            if ratios and len(ratios) == len(named):
                shared = min(ratios) if policy == "not_larger" else max(ratios)
    result = [AxisResize(d, d, 1.0) for d in shape]
    for i, axis in enumerate(named):
        size = shape[axis]
        output: Dim
        scale: float | None
        if scales is not None:
            scale = float(scales[i])
            output = (
                int(np.float32(scale) * np.float32(size)) if isinstance(size, int) else size if scale == 1 else None
            )
        elif sizes is not None and policy == "stretch":
            output = sizes[i]
            scale = output / size if isinstance(size, int) and size else None
        else:
            scale = shared
            output = math.floor(shared * size + 0.5) if shared is not None and isinstance(size, int) else None
        if size == 0 and output:
            raise ModelError(f"an empty axis {axis} of shape {shape} cannot be resized to {output}")
        result[axis] = AxisResize(size, output, scale, (0.0, 1.0) if roi is None else (roi[i], roi[i + len(named)]))
    return tuple(result)


def source_positions(
    in_size: int,
    out_size: int,
    scale: float,
    roi: tuple[float, float],
    coordinate_mode: str,
    dtype: type[np.floating] = np.float64,
) -> np.ndarray:
    """Where each output lies on the input axis (0 is the centre of the first element), computed in ``dtype``."""
    check_choice(coordinate_mode, COORDINATE_MODES, "coordinate_transformation_mode")
    x, s, half = np.arange(out_size).astype(dtype), dtype(scale), dtype(0.5)
    # A length within the rounding of a float32 scale of the whole number is that number.
    exact = scale * in_size
    length = dtype(out_size if abs(exact - out_size) <= exact * 2.0**-23 else exact)
    last, start, end = dtype(in_size - 1), dtype(roi[0]), dtype(roi[1])
    if coordinate_mode == "asymmetric":
        return x / s
    if coordinate_mode == "align_corners":
        return x * last / (length - 1) if length != 1 else x * 0
    if coordinate_mode == "tf_crop_and_resize":
        if length == 1:
            return x * 0 + half * (start + end) * last
        return start * last + x * (end - start) * last / (length - 1)
    if coordinate_mode == "pytorch_half_pixel" and out_size == 1:
        return x * 0
    if coordinate_mode == "tf_half_pixel_for_nn":
        return (x + half) / s
    centred = (x + half) / s - half
    if coordinate_mode == "half_pixel_symmetric":
        centred += dtype(in_size / 2) * (1 - dtype(out_size) / length)
    return centred


def _hat(t: np.ndarray, a: float) -> np.ndarray:
    return np.maximum(1 - np.abs(t), 0)


def _keys(t: np.ndarray, a: float) -> np.ndarray:
    t = np.abs(t)
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return np.where(t <= 1, near, np.where(t < 2, far, 0))


FILTERS: dict[str, tuple[Callable[[np.ndarray, float], np.ndarray], int]] = {"linear": (_hat, 1), "cubic": (_keys, 2)}
"""The interpolation kernel of each mode and how far it reaches to each side."""


def resize_taps(
    in_size: int,
    out_size: int,
    scale: float,
    roi: tuple[float, float] = (0.0, 1.0),
    mode: str = "nearest",
    coordinate_mode: str = "half_pixel",
    *,
    nearest_mode: str = "round_prefer_floor",
    cubic_coeff_a: float = -0.75,
    exclude_outside: bool = False,
    antialias: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """(indices, weights) of one axis, int64 and float64 of shape (out_size, taps): an output sums weights * inputs.

    Indices are clamped to the axis. An output that tf_crop_and_resize places outside the input has indices of -1 and
    weights of 0: it takes the extrapolation value. Nearest positions are computed in float32, ONNX's type of scales,
    so that ties fall where other implementations have them; the rest in float64.
    """
    check_choice(mode, MODES, "mode")
    x = source_positions(
        in_size, out_size, scale, roi, coordinate_mode, np.float32 if mode == "nearest" else np.float64
    )
    x = x.astype(np.float64)
    if mode == "nearest":
        check_choice(nearest_mode, tuple(ROUNDING), "nearest_mode")
        indices = ROUNDING[nearest_mode](x)[:, None].astype(np.int64)
        weights = np.ones(indices.shape)
    else:
        filter_, reach = FILTERS[mode]
        squeeze = min(scale, 1.0) if antialias else 1.0
        half = math.ceil(reach / squeeze)
        # The window is centred between x0 and x0 + 1, where x0 < x <= x0 + 1.
        indices = np.ceil(x)[:, None].astype(np.int64) - 1 + np.arange(1 - half, half + 1)
        weights = filter_((indices - x[:, None]) * squeeze, cubic_coeff_a)
        if exclude_outside:
            weights = np.where((indices < 0) | (indices >= in_size), 0.0, weights)
        if exclude_outside or antialias:
            total = weights.sum(1, keepdims=True)
            weights = weights / np.where(total == 0, 1, total)
    indices = np.clip(indices, 0, max(in_size - 1, 0))
    if coordinate_mode == "tf_crop_and_resize":
        outside = (x < 0) | (x > in_size - 1)
        indices[outside], weights[outside] = -1, 0
    return indices, weights


def _given(facts: Facts, i: int) -> tuple[bool | None, np.ndarray | None]:
    """Whether optional input ``i`` is given (an empty tensor is not; None: its length is open), and its value."""
    found = facts[i] if i < len(facts) else None
    if found is None or (found.shape is not None and 0 in found.shape):
        return False, None
    return True if found.static else None, found.value


def _infer_resize(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    check_choice(attrs["mode"], MODES, "mode")
    check_choice(attrs["coordinate_transformation_mode"], COORDINATE_MODES, "coordinate_transformation_mode")
    check_choice(attrs["nearest_mode"], tuple(ROUNDING), "nearest_mode")
    x, (has_scales, scales), (has_sizes, sizes) = fact(facts, 0), _given(facts, 2), _given(facts, 3)
    if has_scales == has_sizes is not None:
        raise ModelError(f"exactly one of scales and sizes must be given, but {'both' if has_scales else 'none'} are")
    if x.shape is None:
        return [Fact(x.dtype)]
    if scales is None and sizes is None:
        named = axis_indices(range(len(x.shape)) if attrs["axes"] is None else attrs["axes"], len(x.shape))
        return [Fact(x.dtype, tuple(None if i in named else d for i, d in enumerate(x.shape)))]
    plan = resize_axes(x.shape, *_numbers(scales, sizes), None, attrs["axes"], attrs["keep_aspect_ratio_policy"])
    return [Fact(x.dtype, tuple(a.output for a in plan))]


def _numbers(scales: np.ndarray | None, sizes: np.ndarray | None) -> tuple[list[float] | None, tuple[int, ...] | None]:
    return (
        scales.reshape(-1).tolist() if scales is not None and scales.size else None,
        as_ints(sizes) if sizes is not None and sizes.size else None,
    )


@register("Resize", infer=_infer_resize, since=19)
def resize(
    X: np.ndarray,
    roi: np.ndarray | None = None,
    scales: np.ndarray | None = None,
    sizes: np.ndarray | None = None,
    *,
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> np.ndarray:
    """Sample each axis anew; see `resize_axes` for the sizes and `resize_taps` for the weights.

    Sums are kept in float64; integers are rounded to nearest even and clamped to their range.
    """
    crop = coordinate_transformation_mode == "tf_crop_and_resize"
    region = roi.astype(np.float64).reshape(-1).tolist() if crop and roi is not None and roi.size else None
    if crop and region is None:
        raise ModelError("coordinate_transformation_mode 'tf_crop_and_resize' needs the input roi")
    plan = resize_axes(X.shape, *_numbers(scales, sizes), region, axes, keep_aspect_ratio_policy)
    y = X if mode == "nearest" else X.astype(np.float64)
    outside: dict[int, np.ndarray] = {}
    for axis, step in enumerate(plan):
        size, output = concrete((step.size, step.output))
        if step.scale is None or (step.scale == 1 and output == size and step.roi == (0, 1)):
            continue
        indices, weights = resize_taps(
            size,
            output,
            step.scale,
            step.roi,
            mode,
            coordinate_transformation_mode,
            nearest_mode=nearest_mode,
            cubic_coeff_a=cubic_coeff_a,
            exclude_outside=bool(exclude_outside),
            antialias=bool(antialias),
        )
        outside[axis] = np.flatnonzero(indices[:, 0] < 0)
        y = _apply(y, axis, indices, None if mode == "nearest" else weights)
    y = _as_dtype(y, X.dtype)
    for axis, rows in outside.items():
        y[(slice(None),) * axis + (rows,)] = extrapolation_value
    return y


def _apply(y: np.ndarray, axis: int, indices: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """One pass of weighted sums along ``axis``; a copy where there are no weights."""
    if weights is None:
        return np.take(y, indices[:, 0], axis)
    column = (-1,) + (1,) * (y.ndim - axis - 1)
    total = np.zeros((*y.shape[:axis], len(indices), *y.shape[axis + 1 :]))
    for tap in range(indices.shape[1]):
        total += np.take(y, indices[:, tap], axis) * weights[:, tap].reshape(column)
    return total


def _as_dtype(y: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if y.dtype == dtype:
        return y.copy()
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        y = np.clip(np.rint(y), limits.min, limits.max)
    return y.astype(dtype)
