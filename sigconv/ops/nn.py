"""Convolution and transposed convolution (correlation, as everywhere in ONNX: the kernel is not flipped)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sigconv.errors import ModelError
from sigconv.geometry import TransposedWindow, Window, output_sizes, transposed_output_sizes
from sigconv.ops._infer import (
    FLOAT,
    Attrs,
    Facts,
    check_rank,
    check_vector,
    common_dtype,
    fact,
    merge_dim,
    spatial,
)
from sigconv.ops._numeric import widened
from sigconv.ops._windows import TRANSPOSED, as_model_error, correlate, geometry, scatter
from sigconv.ops.spec import Dim, Fact, Shape, register


def spatial_sizes(x: Fact, w: Fact, kernel_shape: Sequence[int] | None) -> tuple[Shape, Shape] | None:
    """The spatial sizes of input and kernel (from the weight or the attribute), None where the rank is not known.

    ModelError where ranks or kernel sizes contradict each other.
    """
    check_rank(w, least=3, what="the weight")
    sizes = spatial(x)
    if sizes is None:
        return None
    if w.rank is not None and w.rank != x.rank:
        raise ModelError(
            f"the weight has shape {w.shape}, rank {w.rank}; the input of shape {x.shape} needs rank {x.rank}"
        )
    kernel = (None,) * len(sizes) if w.shape is None else w.shape[2:]
    if kernel_shape is None:
        return sizes, kernel
    if len(kernel_shape) != len(sizes):
        raise ModelError(f"kernel_shape {list(kernel_shape)} must have {len(sizes)} entries, one a spatial axis")
    both = zip(kernel_shape, kernel, strict=True)
    return sizes, tuple(merge_dim(int(k), d, "kernel_shape and the weight's sizes") for k, d in both)


def _known(sizes: Shape) -> tuple[int, ...] | None:
    found = tuple(d for d in sizes if isinstance(d, int))
    return found if len(found) == len(sizes) else None


def check_groups(group: int, channels: Dim, filters: Dim, per_group: Dim, what: str) -> None:
    """ModelError unless ``channels`` = ``per_group`` x group and ``filters`` is a multiple of the groups."""
    if group < 1:
        raise ModelError(f"group is {group}; 1 or more is accepted")
    if isinstance(channels, int) and isinstance(per_group, int) and channels != per_group * group:
        raise ModelError(
            f"the input has {channels} channels, but the weight takes {per_group} x group {group} = {per_group * group}"
        )
    if isinstance(filters, int) and filters % group:
        raise ModelError(f"the weight has {filters} {what}, not a multiple of group {group}")


def conv_shape(x: Fact, w: Fact, attrs: Attrs) -> Shape | None:
    """The shape of a convolution's output; ModelError where input, weight and attributes contradict each other."""
    found = spatial_sizes(x, w, attrs["kernel_shape"])
    filters, per_group = w.shape[:2] if w.shape is not None else (None, None)
    check_groups(attrs["group"], x.shape[1] if x.shape is not None else None, filters, per_group, "filters")
    if found is None or x.shape is None:
        return None if w.shape is None else (None, filters, *(None,) * (len(w.shape) - 2))
    sizes, kernel = found[0], _known(found[1])
    if kernel is None:
        return (x.shape[0], filters, *(None,) * len(sizes))
    with as_model_error():
        return (x.shape[0], filters, *output_sizes(sizes, kernel, **geometry(attrs)))


def _infer_conv(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    dtype = common_dtype(facts, allowed=FLOAT)
    shape = conv_shape(fact(facts, 0), fact(facts, 1), attrs)
    check_vector(fact(facts, 2), shape[1] if shape else None, "the bias")
    return [Fact(dtype, shape)]


@register("Conv", infer=_infer_conv, since=22)
@widened
def Conv(
    X: np.ndarray,
    W: np.ndarray,
    B: np.ndarray | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> np.ndarray:
    """X [N, C, *sizes], W [M, C / group, *kernel], B [M] -> [N, M, *output]; any number of spatial axes."""
    window = Window.of(X.shape[2:], W.shape[2:], strides=strides, pads=pads, dilations=dilations, auto_pad=auto_pad)
    y = correlate(X, W, window, group)
    return y if B is None else y + along_channels(B, y.ndim)


def along_channels(vector: np.ndarray, rank: int) -> np.ndarray:
    """A [C] vector shaped to broadcast against [N, C, ...] of ``rank``."""
    return vector.reshape(-1, *(1,) * (rank - 2))


def _infer_conv_transpose(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    dtype = common_dtype(facts, allowed=FLOAT)
    x, w = fact(facts, 0), fact(facts, 1)
    found = spatial_sizes(x, w, attrs["kernel_shape"])
    channels, per_group = w.shape[:2] if w.shape is not None else (None, None)
    check_groups(attrs["group"], None, channels, None, "input channels")
    filters = per_group * attrs["group"] if isinstance(per_group, int) else None
    check_vector(fact(facts, 2), filters, "the bias")
    if found is None or x.shape is None:
        return [Fact(dtype)]
    merge_dim(x.shape[1], channels, "the channels of input and weight")
    sizes, kernel = found[0], _known(found[1])
    if kernel is None:
        return [Fact(dtype, (x.shape[0], filters, *(None,) * len(sizes)))]
    with as_model_error():
        output = transposed_output_sizes(sizes, kernel, **_transposed(attrs, len(sizes)))
    return [Fact(dtype, (x.shape[0], filters, *output))]


def _transposed(attrs: Attrs, rank: int) -> dict[str, Any]:
    """Geometry's arguments: old exporters write ``output_shape`` with batch and channels."""
    found = geometry(attrs, TRANSPOSED)
    if found["output_shape"] is not None:
        found["output_shape"] = found["output_shape"][-rank:]
    return found


@register("ConvTranspose", infer=_infer_conv_transpose, since=22)
@widened
def ConvTranspose(
    X: np.ndarray,
    W: np.ndarray,
    B: np.ndarray | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> np.ndarray:
    """X [N, C, *sizes], W [C, M / group, *kernel], B [M] -> [N, M, *output]: the adjoint of a convolution."""
    attrs = {
        "auto_pad": auto_pad,
        "dilations": dilations,
        "output_padding": output_padding,
        "output_shape": output_shape,
        "pads": pads,
        "strides": strides,
    }
    window = TransposedWindow.of(X.shape[2:], W.shape[2:], **_transposed(attrs, X.ndim - 2))
    y = scatter(X, W, Window(tuple(a.adjoint for a in window.axes)), group)
    return y if B is None else y + along_channels(B, y.ndim)
