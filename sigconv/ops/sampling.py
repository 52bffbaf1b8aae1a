"""Operators that read or write a tensor at computed positions: grids, regions of interest, unpooling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product as grid_product

import numpy as np

from sigconv.errors import ModelError
from sigconv.ops._infer import FLOAT, Attrs, Facts, check_dtype, check_rank, common_dtype, fact, merge_dim, present
from sigconv.ops._known import as_ints, check_choice, concrete, count, divided, ints
from sigconv.ops._numeric import widened
from sigconv.ops.resize import FILTERS
from sigconv.ops.select import wrap_indices
from sigconv.ops.spec import Dim, Fact, register

PADDING_MODES = ("zeros", "border", "reflection")


def _infer_grid_sample(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    x, points = fact(facts, 0), fact(facts, 1)
    check_choice(attrs["mode"], ("linear", "nearest", "cubic"), "mode")
    check_choice(attrs["padding_mode"], PADDING_MODES, "padding_mode")
    check_rank(x, least=3)
    if x.shape is None or points.shape is None:
        return [Fact(x.dtype)]
    check_rank(points, (len(x.shape),), what="grid")
    merge_dim(points.shape[-1], len(x.shape) - 2, "the last size of grid and the number of spatial axes")
    return [
        Fact(
            x.dtype, (merge_dim(x.shape[0], points.shape[0], "batches of X and grid"), x.shape[1], *points.shape[1:-1])
        )
    ]


def _reflect(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """Positions folded into [low, high] by mirrors at both ends."""
    span = high - low
    if span <= 0:
        return np.full_like(x, low)
    folded = np.mod(x - low, 2 * span)
    return low + np.minimum(folded, 2 * span - folded)


@register("GridSample", infer=_infer_grid_sample, since=22)
@widened
def grid_sample(
    X: np.ndarray, grid: np.ndarray, *, align_corners: int = 0, mode: str = "linear", padding_mode: str = "zeros"
) -> np.ndarray:
    """``X`` (N, C, d1...dr) at ``grid`` (N, o1...or, r): positions in [-1, 1], the last axis of X first.

    -1 and 1 are the centres of the corner elements if ``align_corners``, else their outer edges.
    """
    attrs = {"mode": mode, "padding_mode": padding_mode}
    shape = concrete(_infer_grid_sample([Fact.of(X), Fact.of(grid)], attrs, 1)[0].shape)
    sizes = X.shape[2:]
    points = grid.astype(np.float64).reshape(len(grid), -1, len(sizes))
    taps = []
    for axis, size in enumerate(sizes):
        low, high = (0.0, size - 1.0) if align_corners else (-0.5, size - 0.5)
        x = low + (points[..., len(sizes) - 1 - axis] + 1) / 2 * (high - low)
        if mode == "nearest":
            index = np.rint(x)[..., None]
            weight = np.ones_like(index)
        else:
            filter_, reach = FILTERS[mode]
            index = np.floor(x)[..., None] + np.arange(1 - reach, reach + 1)
            weight = filter_(index - x[..., None], -0.75)
        if padding_mode == "reflection":
            index = np.rint(_reflect(index, low, high))
        weight = np.where((index >= 0) & (index < size) | (padding_mode != "zeros"), weight, 0)
        taps.append((np.clip(np.nan_to_num(index), 0, size - 1).astype(np.int64), weight))
    flat = X.reshape(*X.shape[:2], -1)
    result = np.zeros((*X.shape[:2], points.shape[1]))
    for combination in grid_product(*(range(weight.shape[-1]) for _, weight in taps)):
        at = np.zeros(points.shape[:2], np.int64)
        by = np.ones(points.shape[:2])
        for size, tap, (index, weight) in zip(sizes, combination, taps, strict=True):
            at = at * size + index[..., tap]
            by = by * weight[..., tap]
        result += np.take_along_axis(flat, at[:, None], 2) * by[:, None]
    return result.reshape(shape).astype(X.dtype)


def _infer_affine_grid(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    theta, size = fact(facts, 0), ints(facts, 1, "size")
    check_rank(theta, (3,))
    if size is None:
        return [Fact(theta.dtype)]
    rank = len(size) - 2
    if rank not in (2, 3):
        raise ModelError(f"size is {size}; accepted are (N, C, H, W) and (N, C, D, H, W)")
    if theta.shape is not None:
        for have, want in zip(theta.shape, (size[0], rank, rank + 1), strict=True):
            merge_dim(have, want, f"theta {theta.shape} and {(size[0], rank, rank + 1)}, which size {size} needs,")
    return [Fact(theta.dtype, (size[0], *size[2:], rank))]


@register("AffineGrid", infer=_infer_affine_grid, since=20)
def affine_grid(theta: np.ndarray, size: np.ndarray, *, align_corners: int = 0) -> np.ndarray:
    """Positions for GridSample: ``theta`` (N, r, r + 1) applied to an even grid over [-1, 1]."""
    shape = concrete(_infer_affine_grid([Fact.of(theta), Fact.of(size)], {}, 1)[0].shape)
    steps = []
    for length in as_ints(size)[2:]:
        edge = 1.0 if align_corners else 1 - 1 / max(length, 1)
        steps.append(np.linspace(-edge, edge, length))
    axes = np.meshgrid(*steps, indexing="ij")
    base = np.stack([*reversed(axes), np.ones_like(axes[0])], -1).reshape(-1, len(steps) + 1)
    return (base @ theta.astype(np.float64).transpose(0, 2, 1)).reshape(shape).astype(theta.dtype)


def _infer_roi_align(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    x, rois, batch = fact(facts, 0), fact(facts, 1), fact(facts, 2)
    check_choice(attrs["mode"], ("avg", "max"), "mode")
    check_choice(
        attrs["coordinate_transformation_mode"], ("half_pixel", "output_half_pixel"), "coordinate_transformation_mode"
    )
    size = attrs["output_height"], attrs["output_width"]
    if min(size) < 1:
        raise ModelError(f"output_height and output_width are {size}; 1 or more is accepted")
    dtype = common_dtype(facts, (0, 1), FLOAT)
    check_rank(x, (4,))
    check_rank(rois, (2,), what="rois")
    check_rank(batch, (1,), what="batch_indices")
    regions: Dim = None if rois.shape is None else rois.shape[0]
    if rois.shape is not None:
        merge_dim(rois.shape[1], 4, "the second size of rois")
    if batch.shape is not None:
        regions = merge_dim(regions, batch.shape[0], "numbers of rois and batch_indices")
    return [Fact(dtype, (regions, None if x.shape is None else x.shape[1], *size))]


@register("RoiAlign", infer=_infer_roi_align, since=22)
@widened
def roi_align(
    X: np.ndarray,
    rois: np.ndarray,
    batch_indices: np.ndarray,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> np.ndarray:
    """Each region (x1, y1, x2, y2) of its image pooled to (output_height, output_width) from bilinear samples.

    ``max`` takes the largest of the weighted corners of the samples, as ONNX defines it.
    """
    attrs = {
        "mode": mode,
        "coordinate_transformation_mode": coordinate_transformation_mode,
        "output_height": output_height,
        "output_width": output_width,
    }
    _infer_roi_align([Fact.of(v) for v in (X, rois, batch_indices)], attrs, 1)
    images = wrap_indices(batch_indices, len(X))
    result = np.zeros((len(rois), X.shape[1], output_height, output_width), X.dtype)
    half_pixel = coordinate_transformation_mode == "half_pixel"
    for r, (region, image) in enumerate(zip(rois.astype(np.float64), images, strict=True)):
        corners = region * spatial_scale - (0.5 if half_pixel else 0.0)
        taps = []
        for low, high, bins, size in (
            (corners[1], corners[3], output_height, X.shape[2]),
            (corners[0], corners[2], output_width, X.shape[3]),
        ):
            extent = high - low if half_pixel else max(high - low, 1.0)
            samples = sampling_ratio if sampling_ratio > 0 else max(math.ceil(extent / bins), 0)
            position = low + (np.arange(bins * samples) + 0.5) * (extent / (bins * max(samples, 1)))
            inside = (position >= -1) & (position <= size)
            at = np.clip(position, 0, size - 1)
            below = np.floor(at).astype(np.int64)
            index = np.stack([below, np.minimum(below + 1, size - 1)])
            weight = np.stack([1 - (at - below), at - below]) * inside
            taps.append((index, weight, samples))
        (rows, row_weight, high_samples), (columns, column_weight, wide_samples) = taps
        if not (high_samples and wide_samples):
            continue
        # (corner y, corner x, channel, y, x)
        parts = X[image][:, rows[:, None, :, None], columns[None, :, None, :]].transpose(1, 2, 0, 3, 4)
        parts = parts * (row_weight[:, None, None, :, None] * column_weight[None, :, None, None, :])
        corner = parts.sum((0, 1)) if mode == "avg" else parts.max((0, 1))
        bins = corner.reshape(X.shape[1], output_height, high_samples, output_width, wide_samples)
        result[r] = bins.mean((2, 4)) if mode == "avg" else bins.max((2, 4))
    return result


def _infer_max_unpool(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    x, indices = fact(facts, 0), fact(facts, 1)
    kernel = attrs["kernel_shape"]
    rank = len(kernel)
    check_rank(x, (rank + 2,))
    check_dtype(x.dtype, FLOAT)
    check_dtype(indices.dtype, ("int64",), "indices")
    if present(facts, 2):
        asked = ints(facts, 2, "output_shape")
        return [Fact(x.dtype, asked or (None,) * (rank + 2))]
    if x.shape is None:
        return [Fact(x.dtype, (None,) * (rank + 2))]
    return [Fact(x.dtype, (*x.shape[:2], *_unpooled(x.shape[2:], attrs)))]


def _unpooled(sizes: Sequence[Dim], attrs: Attrs) -> tuple[Dim, ...]:
    kernel = attrs["kernel_shape"]
    rank = len(kernel)
    strides, pads = attrs["strides"] or [1] * rank, attrs["pads"] or [0] * 2 * rank
    return tuple(
        (size - 1) * strides[i] - pads[i] - pads[i + rank] + kernel[i] if isinstance(size, int) else None
        for i, size in enumerate(sizes)
    )


@register("MaxUnpool", infer=_infer_max_unpool, since=22, accuracy="exact")
def max_unpool(
    X: np.ndarray,
    I: np.ndarray,  # noqa: E741
    output_shape: np.ndarray | None = None,
    *,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> np.ndarray:
    """Zeros, with each element of ``X`` at its flat index in the pooled tensor; ``output_shape`` extends that."""
    attrs = {"kernel_shape": kernel_shape, "pads": pads, "strides": strides}
    _infer_max_unpool([Fact.of(X), Fact.of(I)], attrs, 1)
    pooled = concrete((*X.shape[:2], *_unpooled(X.shape[2:], attrs)))
    flat = np.zeros(math.prod(pooled), X.dtype)
    flat[wrap_indices(I.reshape(-1), flat.size)] = X.reshape(-1)
    if output_shape is None:
        return flat.reshape(pooled)
    result = np.zeros(as_ints(output_shape), X.dtype)
    result[tuple(slice(n) for n in pooled)] = flat.reshape(pooled)
    return result


def _col2im_geometry(attrs: Attrs, rank: int) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
    return attrs["strides"] or [1] * rank, attrs["pads"] or [0] * 2 * rank, attrs["dilations"] or [1] * rank


def _infer_col2im(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    given, image, block = fact(facts, 0), ints(facts, 1, "image_shape"), ints(facts, 2, "block_shape")
    check_rank(given, (3,))
    rank = count(facts, 1) or count(facts, 2)
    if rank is None:
        return [Fact(given.dtype)]
    batch, columns, blocks = (None,) * 3 if given.shape is None else given.shape
    channels = (
        None if block is None else divided(columns, int(np.prod(block)), f"the second size of input 0, {given.shape},")
    )
    strides, pads, dilations = _col2im_geometry(attrs, rank)
    if image is not None and block is not None:
        if not rank == len(image) == len(block) == len(strides) == len(dilations) == len(pads) // 2:
            raise ModelError(
                f"image_shape {image}, block_shape {block}, strides, dilations and pads must have one rank"
            )
        counts = [
            (size + pads[i] + pads[i + rank] - dilations[i] * (block[i] - 1) - 1) // strides[i] + 1
            for i, size in enumerate(image)
        ]
        merge_dim(blocks, int(np.prod(counts)), f"the number of blocks {tuple(counts)} and the last size of input 0")
    return [Fact(given.dtype, (batch, channels, *(image or (None,) * rank)))]


@register("Col2Im", infer=_infer_col2im, since=18)
def col2im(
    input: np.ndarray,
    image_shape: np.ndarray,
    block_shape: np.ndarray,
    *,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> np.ndarray:
    """(N, C*prod(block), L) to (N, C, *image): sum the columns back where an im2col took them from."""
    attrs = {"dilations": dilations, "pads": pads, "strides": strides}
    shape = concrete(_infer_col2im([Fact.of(x) for x in (input, image_shape, block_shape)], attrs, 1)[0].shape)
    image, block = as_ints(image_shape), as_ints(block_shape)
    rank = len(image)
    stride, amounts, dilation = _col2im_geometry(attrs, rank)
    padded = [size + amounts[i] + amounts[i + rank] for i, size in enumerate(image)]
    counts = [(padded[i] - dilation[i] * (block[i] - 1) - 1) // stride[i] + 1 for i in range(rank)]
    columns = input.reshape(*shape[:2], *block, *counts)
    result = np.zeros((*shape[:2], *padded), input.dtype)
    whole: tuple[slice, ...] = (slice(None), slice(None))
    for tap in grid_product(*map(range, block)):
        steps = zip(tap, dilation, stride, counts, strict=True)
        window = tuple(slice(t * d, t * d + (n - 1) * s + 1, s) for t, d, s, n in steps)
        result[whole + window] += columns[whole + tap]
    return result[whole + tuple(slice(amounts[i], amounts[i] + size) for i, size in enumerate(image))]
