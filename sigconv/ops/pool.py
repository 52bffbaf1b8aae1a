"""Pooling over windows and over all spatial axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sigconv.errors import ModelError
from sigconv.geometry import Window, output_sizes
from sigconv.ops._infer import FLOAT, Attrs, Facts, check_dtype, fact, spatial
from sigconv.ops._numeric import least, widened
from sigconv.ops._windows import as_model_error, geometry, positions, taps
from sigconv.ops.spec import Fact, Shape, register


def pool_shape(x: Fact, attrs: Attrs) -> Shape | None:
    """The shape of pooling [N, C, *sizes] with the windows that ``attrs`` describe."""
    sizes = spatial(x)
    if x.shape is None or sizes is None:
        return None
    kernel = attrs["kernel_shape"]
    if len(kernel) != len(sizes):
        raise ModelError(f"kernel_shape {list(kernel)} must have {len(sizes)} entries, one a spatial axis of {x.shape}")
    with as_model_error():
        return (*x.shape[:2], *output_sizes(sizes, kernel, **geometry(attrs)))


def _infer_pool(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    check_dtype(fact(facts, 0).dtype, FLOAT)
    return [Fact(fact(facts, 0).dtype, pool_shape(fact(facts, 0), attrs))]


def _infer_max_pool(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    check_dtype(fact(facts, 0).dtype, FLOAT | {"int8", "uint8"})
    shape = pool_shape(fact(facts, 0), attrs)
    return [Fact(fact(facts, 0).dtype, shape), Fact(np.dtype(np.int64), shape)][:n]


def _infer_global(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    given = fact(facts, 0)
    check_dtype(given.dtype, FLOAT)
    sizes = spatial(given, least=2)
    return [Fact(given.dtype, None if sizes is None else (*given.shape[:2], *(1,) * len(sizes)))]  # type: ignore[index]


@register("MaxPool", infer=_infer_max_pool, since=22, accuracy="exact")
@widened
def MaxPool(
    X: np.ndarray,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    storage_order: int = 0,
    strides: Sequence[int] | None = None,
    n_outputs: int = 1,
) -> tuple[np.ndarray, ...]:
    """The greatest element of each window and its index in the flattened X. NaN is the greatest; the first one wins.

    With ``storage_order`` 1 the index counts the spatial axes first axis fastest. A window of nothing but padding gives
    the least value of the dtype and the index -1.
    """
    window = Window.of(
        X.shape[2:],
        kernel_shape,
        strides=strides,
        pads=pads,
        dilations=dilations,
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
    )
    best = np.full((*X.shape[:2], *window.output), least(X.dtype), X.dtype)
    index = np.full(best.shape, -1, np.int64)
    for tap, value in taps(X, window, least(X.dtype)):
        where, inside = positions(window, tap)
        flat = _flat(where, window.sizes, "F" if storage_order else "C")
        better = inside & ((index < 0) | (value > best) | ((value != value) & (best == best)))
        best, index = np.where(better, value, best), np.where(better, flat, index)
    planes = np.arange(X.shape[0] * X.shape[1]).reshape(*X.shape[:2], *(1,) * len(window.axes))
    index = np.where(index < 0, index, index + planes * int(np.prod(window.sizes)))
    return (best, index)[:n_outputs]


def _flat(where: Sequence[np.ndarray], sizes: Sequence[int], order: str) -> np.ndarray:
    """The offset of the mesh ``where`` in an array of ``sizes``, last ("C") or first ("F") axis fastest."""
    axes = list(zip(where, sizes, strict=True))
    flat = np.zeros((1,) * len(axes), np.int64)
    for i, size in axes if order == "C" else reversed(axes):
        flat = flat * size + i
    return flat


@register("AveragePool", infer=_infer_pool, since=22)
@widened
def AveragePool(
    X: np.ndarray,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Sequence[int] | None = None,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> np.ndarray:
    """The mean of each window, padding included or not; 0 for a window of nothing that counts."""
    window = Window.of(
        X.shape[2:],
        kernel_shape,
        strides=strides,
        pads=pads,
        dilations=dilations,
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
    )
    total = np.zeros((*X.shape[:2], *window.output))
    for _, value in taps(X, window, 0):
        total += value
    return total / np.maximum(window.divisors(bool(count_include_pad)), 1)


@register("LpPool", infer=_infer_pool, since=22)
@widened
def LpPool(
    X: np.ndarray,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    kernel_shape: Sequence[int],
    p: int = 2,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> np.ndarray:
    """The p-norm of each window."""
    window = Window.of(
        X.shape[2:],
        kernel_shape,
        strides=strides,
        pads=pads,
        dilations=dilations,
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
    )
    total = np.zeros((*X.shape[:2], *window.output))
    for _, value in taps(np.abs(X.astype(np.float64)) ** p, window, 0):
        total += value
    return total ** (1 / p)


def _spatial_axes(x: np.ndarray) -> tuple[int, ...]:
    return tuple(range(2, x.ndim))


@register("GlobalAveragePool", infer=_infer_global, since=22)
@widened
def GlobalAveragePool(X: np.ndarray) -> np.ndarray:
    axes = _spatial_axes(X)
    return X.sum(axes, keepdims=True, dtype=np.float64) / np.prod([X.shape[a] for a in axes])


@register("GlobalMaxPool", infer=_infer_global, since=22, accuracy="exact")
@widened
def GlobalMaxPool(X: np.ndarray) -> np.ndarray:
    return X.max(_spatial_axes(X), keepdims=True, initial=-np.inf)


@register("GlobalLpPool", infer=_infer_global, since=22)
@widened
def GlobalLpPool(X: np.ndarray, *, p: int = 2) -> np.ndarray:
    return (np.abs(X.astype(np.float64)) ** p).sum(_spatial_axes(X), keepdims=True) ** (1 / p)
