"""Reading where another tensor says: deformable convolution and the largest value of regions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import numpy as np

from sigconv.errors import ModelError
from sigconv.geometry import Window
from sigconv.ops._infer import FLOAT, Attrs, Facts, check_rank, check_vector, common_dtype, fact, merge_dim, present
from sigconv.ops._known import concrete
from sigconv.ops._numeric import widened
from sigconv.ops.nn import along_channels, conv_shape
from sigconv.ops.spec import Dim, Fact, register

Array = np.ndarray
Ints = Sequence[int] | None


def _infer_deform_conv(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    dtype = common_dtype(facts, allowed=FLOAT)
    x, w = fact(facts, 0), fact(facts, 1)
    shape, groups = conv_shape(x, w, attrs), attrs["offset_group"]
    check_vector(fact(facts, 3), shape[1] if shape else None, "the bias")
    if groups < 1 or (x.shape is not None and isinstance(x.shape[1], int) and x.shape[1] % groups):
        raise ModelError(f"offset_group is {groups}, which must divide the channels of X {x.shape}")
    if shape is not None and w.shape is not None:
        taps: Dim = math.prod(w.shape[2:]) if all(isinstance(d, int) for d in w.shape[2:]) else None  # type: ignore[arg-type]
        for i, what, each in ((2, "offset", len(shape) - 2), (4, "mask", 1)):
            given = fact(facts, i)
            if present(facts, i) and given.shape is not None:
                check_rank(given, (len(shape),), what=what)
                wanted = (shape[0], None if taps is None else groups * taps * each, *shape[2:])
                for axis, (have, want) in enumerate(zip(given.shape, wanted, strict=True)):
                    merge_dim(have, want, f"size {axis} of {what} {given.shape} and what it should be")
    return [Fact(dtype, shape)]


def _sampled(x: Array, position: Array) -> Array:
    """x (N, G, C, *sizes) at positions (N, G, r, P), linear between neighbours, 0 outside: (N, G, C, P)."""
    sizes = x.shape[3:]
    flat = x.reshape(*x.shape[:3], -1)
    base = np.floor(position)
    part = position - base
    found = np.zeros((*x.shape[:3], position.shape[-1]), x.dtype)
    for corner in product((0, 1), repeat=len(sizes)):
        index = np.zeros(position[:, :, 0].shape, np.int64)
        weight = np.ones(index.shape, x.dtype)
        for d, (size, step) in enumerate(zip(sizes, corner, strict=True)):
            at = base[:, :, d] + step
            weight = weight * (part[:, :, d] if step else 1 - part[:, :, d]) * ((at >= 0) & (at < size))
            index = index * size + np.clip(np.nan_to_num(at), 0, size - 1).astype(np.int64)
        found += np.take_along_axis(flat, index[:, :, None], -1) * weight[:, :, None]
    return found


@register("DeformConv", infer=_infer_deform_conv, since=22)
@widened
def DeformConv(
    X: Array,
    W: Array,
    offset: Array,
    B: Array | None = None,
    mask: Array | None = None,
    *,
    dilations: Ints = None,
    group: int = 1,
    kernel_shape: Ints = None,
    offset_group: int = 1,
    pads: Ints = None,
    strides: Ints = None,
) -> Array:
    """Conv whose taps are moved by ``offset`` (N, offset_group * taps * r, *out) and weighted by ``mask``.

    Dai et al., Deformable Convolutional Networks, 2017; the weights are Zhu et al.'s second version.
    """
    window = Window.of(X.shape[2:], W.shape[2:], strides=strides, pads=pads, dilations=dilations)
    output, rank = window.output, X.ndim - 2
    batch, filters = len(X), len(W)
    moved = offset.reshape(batch, offset_group, -1, rank, math.prod(output))
    grouped = X.reshape(batch, offset_group, -1, *X.shape[2:])
    weights = W.reshape(group, filters // group, W.shape[1], -1)
    y = np.zeros((batch, group, filters // group, math.prod(output)), X.dtype)
    for k, tap in enumerate(np.ndindex(*window.kernel)):
        places = [
            np.arange(a.output) * a.stride - a.before + t * a.dilation for a, t in zip(window.axes, tap, strict=True)
        ]
        start = np.stack([m.reshape(-1) for m in np.meshgrid(*places, indexing="ij")])
        read = _sampled(grouped, moved[:, :, k] + start.astype(X.dtype))
        if mask is not None:
            read = read * mask.reshape(batch, offset_group, -1, 1, math.prod(output))[:, :, k]
        y += weights[..., k] @ read.reshape(batch, group, -1, math.prod(output))
    y = y.reshape(batch, filters, *output)
    return y if B is None else y + along_channels(B, y.ndim)


def _infer_max_roi_pool(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    dtype = common_dtype(facts, allowed=FLOAT)
    x, rois = fact(facts, 0), fact(facts, 1)
    check_rank(x, (4,), what="X")
    check_rank(rois, (2,), what="rois")
    if len(attrs["pooled_shape"]) != 2 or min(attrs["pooled_shape"]) < 1:
        raise ModelError(f"pooled_shape is {tuple(attrs['pooled_shape'])}; two sizes of 1 or more are needed")
    if rois.shape is not None:
        merge_dim(rois.shape[1], 5, "the columns of rois (batch, x1, y1, x2, y2)")
    count = None if rois.shape is None else rois.shape[0]
    return [Fact(dtype, (count, None if x.shape is None else x.shape[1], *attrs["pooled_shape"]))]


@register("MaxRoiPool", infer=_infer_max_roi_pool, since=22, accuracy="exact")
@widened
def MaxRoiPool(X: Array, rois: Array, *, pooled_shape: Sequence[int], spatial_scale: float = 1.0) -> Array:
    """The largest value in each of the bins of a region, both of whose corners belong to it; 0 for an empty bin."""
    attrs = {"pooled_shape": pooled_shape}
    y = np.zeros(concrete(_infer_max_roi_pool([Fact.of(X), Fact.of(rois)], attrs, 1)[0].shape), X.dtype)
    for r, (batch, *box) in enumerate(rois):
        if not 0 <= batch < len(X):
            raise ModelError(f"roi {r} is of image {batch:g}, there are {len(X)}")
        x1, y1, x2, y2 = (math.floor(float(np.float32(v) * np.float32(spatial_scale)) + 0.5) for v in box)
        spans = [
            _bins(first, last, bins, size)
            for first, last, bins, size in zip((y1, x1), (y2, x2), pooled_shape, X.shape[2:], strict=True)
        ]
        for i, j in np.ndindex(*pooled_shape):
            part = X[int(batch), :, spans[0][i], spans[1][j]]
            if part.size:
                y[r, :, i, j] = part.max((1, 2))
    return y


def _bins(first: int, last: int, bins: int, size: int) -> list[slice]:
    """The slices of an axis that the bins of [first, last] cover."""
    width = np.float32(max(last - first + 1, 1)) / np.float32(bins)
    ends = [(math.floor(k * width) + first, math.ceil((k + 1) * width) + first) for k in range(bins)]
    return [slice(min(max(a, 0), size), min(max(b, 0), size)) for a, b in ends]
