"""Every keyword of `convolve` and `correlate` with every method, rank and kind of numbers, against plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

import sigconv as sc
from sigconv.signal import methods
from tests.cases import naive_signal as naive

MODES = ("full", "same", "valid")
BOUNDARIES = ("fill", "edge", "symm", "reflect", "wrap")
DTYPES = (
    *("float32", "float64", "complex64", "complex128", "float16", "longdouble", "bool"),
    *(f"{sign}int{bits}" for bits in (8, 16, 32, 64) for sign in ("", "u")),
)
TOLERANCE = {2: 2e-2, 4: 3e-6, 8: 1e-12, 16: 1e-12}
"""By the size of a real number, as a share of what the terms of a sum add up to."""


def numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    kind = np.dtype(dtype)
    if kind.kind in "biu":
        top = 1 if kind.kind == "b" else np.iinfo(kind).max
        return rng.integers(0 if kind.kind == "b" else np.iinfo(kind).min, top, shape, endpoint=True, dtype=kind)
    values = rng.standard_normal(shape)
    return (values + 1j * rng.standard_normal(shape) if kind.kind == "c" else values).astype(kind)


@st.composite
def calls(draw: st.DrawFn) -> dict[str, Any]:
    rank = draw(st.integers(1, 3))
    axes = draw(st.none() | st.sets(st.integers(0, rank - 1), min_size=1))
    mode = draw(st.sampled_from(MODES))
    shape1, shape2 = [], []
    for a in range(rank):
        if axes is None or a in axes:
            longest = {1: 24, 2: 7, 3: 4}[rank]
            n, k = draw(st.integers(1, longest)), draw(st.integers(1, longest))
            n, k = (max(n, k), min(n, k)) if mode == "valid" else (n, k)
        else:
            size = draw(st.integers(1, 3))
            n, k = draw(st.sampled_from([(size, size), (size, 1), (1, size)]))
        shape1.append(n)
        shape2.append(k)
    given_axes: Any = None
    if axes is not None:
        given_axes = [a - rank if draw(st.booleans()) else a for a in draw(st.permutations(sorted(axes)))]
        given_axes = given_axes[0] if len(given_axes) == 1 and draw(st.booleans()) else tuple(given_axes)
    return {
        "shapes": (tuple(shape1), tuple(shape2)),
        "dtypes": (draw(st.sampled_from(DTYPES)), draw(st.sampled_from(DTYPES))),
        "conv": tuple(range(rank)) if axes is None else tuple(sorted(axes)),
        "correlates": draw(st.booleans()),
        "out": draw(st.sampled_from((None, "new", "strided", "on in1", "on in2"))),
        "nan": draw(st.sampled_from((None, None, "in1", "in2"))),
        "seed": draw(st.integers(0, 2**32 - 1)),
        "options": {
            "mode": mode,
            "method": draw(st.sampled_from((*methods.METHODS, "auto"))),
            "axes": given_axes,
            "boundary": draw(st.sampled_from(BOUNDARIES)),
            "fillvalue": draw(st.sampled_from((0, 0, 1, 2.5, 1 + 2j))),
            "dtype": draw(st.none() | st.none() | st.none() | st.sampled_from(DTYPES)),
            "nan_policy": draw(st.sampled_from(("propagate", "propagate", "raise", "omit"))),
            "workers": draw(st.sampled_from((None, 1, 2, -1))),
            "max_workspace": draw(st.sampled_from((None, 0, 4096, 1 << 30))),
        },
    }


def sums(x: np.ndarray, h: np.ndarray, call: dict[str, Any], fill: Any) -> np.ndarray:
    """The definition; a correlation as a convolution with the conjugate reversed along the convolved axes."""
    if call["correlates"]:
        h = np.flip(h, call["conv"])
        h = h.conj() if h.dtype.kind in "cO" else h
    options = {"boundary": call["options"]["boundary"], "fillvalue": fill}
    return naive.batched(x, h, call["conv"], call["options"]["mode"], **options)


def placed(call: dict[str, Any], shape: tuple[int, ...], dtype: np.dtype, x: np.ndarray, h: np.ndarray):
    """``out`` as the call wants it, and the inputs, which may lie where it does."""
    where = call["out"]
    if where is None:
        return None, x, h
    if where == "new":
        return np.zeros(shape, dtype), x, h
    if where == "strided":
        wide = np.zeros([2 * n + 1 for n in shape], dtype)
        return wide[tuple(slice(2 * n, 0, -2) for n in shape)], x, h
    given = x if where == "on in1" else h
    size = int(np.prod(shape))
    memory = np.zeros((size + given.size + 1) * max(dtype.itemsize, given.itemsize) * 2, np.uint8)
    moved = memory[: given.nbytes].view(given.dtype).reshape(given.shape)
    moved[...] = given
    start = given.nbytes // 2 // 32 * 32
    out = memory[start : start + size * dtype.itemsize].view(dtype).reshape(shape)
    return out, *((moved, h) if where == "on in1" else (x, moved))


@settings(max_examples=3000)
@given(calls())
def test_keywords(call: dict[str, Any]) -> None:
    rng = np.random.default_rng(call["seed"])
    options = dict(call["options"])
    x, h = (numbers(rng, s, d) for s, d in zip(call["shapes"], call["dtypes"], strict=True))
    common = np.result_type(x, h)
    wanted = common if options["dtype"] is None else np.dtype(options["dtype"])
    if call["nan"] and common.kind in "fc":
        array = x if call["nan"] == "in1" else h
        if array.dtype.kind in "fc":
            array.flat[rng.integers(array.size, size=2)] = np.nan
    missing = [bool(np.isnan(a.astype(complex)).any()) for a in (x, h)]
    ours = sc.correlate if call["correlates"] else sc.convolve

    def refused() -> bool:
        if not np.can_cast(common, wanted, "same_kind"):
            return True
        fills = options["boundary"] == "fill"
        if fills and isinstance(options["fillvalue"], complex) and wanted.kind != "c" and common.kind != "c":
            return True
        return options["nan_policy"] == "raise" and any(missing)

    if refused():
        event("refused")
        with pytest.raises(ValueError):
            ours(x, h, **options)
        return
    fill = options["fillvalue"] if options["boundary"] == "fill" else 0
    work = wanted if wanted.kind in "biu" else np.promote_types(common, wanted)
    fill = np.asarray(fill).astype(work).item() if work.char not in "gG" else fill
    with np.errstate(all="ignore"):
        scale = 1 + (np.nanmax(np.abs(x.astype(complex)), initial=0.0) + abs(fill)) * np.nansum(
            np.abs(h.astype(complex))
        )
    if wanted.kind in "fc" and scale > np.finfo(wanted).max:
        return
    expected = sums(x, h, call, fill)
    out, x_, h_ = placed(call, expected.shape, wanted, x, h)
    y = ours(x_, h_, out=out, **options)
    if out is not None:
        assert y is out
    assert y.shape == expected.shape
    assert y.dtype == wanted
    if wanted.kind in "biu":
        np.testing.assert_array_equal(y, naive.wrapped(expected, wanted))
        return
    if options["nan_policy"] == "omit" and missing[0]:
        known = np.isnan(x) == 0
        zero = np.where(known, x, x.dtype.type(0))
        weight = np.abs(h.astype(complex if h.dtype.kind == "c" else float))
        call = {**call, "options": {**call["options"]}}
        whole, there = (
            sums(m.astype(float), weight, call, 1 if fill and options["boundary"] == "fill" else 0).astype(float)
            for m in (np.ones(x.shape), known)
        )
        with np.errstate(all="ignore"):
            share = np.where(there > 1e-12 * whole, whole / there, np.nan)
            expected = sums(zero, h, call, fill).astype(complex) * share
    kind = complex if wanted.kind == "c" else float
    with np.errstate(all="ignore"):
        exact = expected.astype(complex)
        exact = exact if kind is complex else exact.real
    size = wanted.itemsize // (2 if wanted.kind == "c" else 1)
    precision = TOLERANCE[min(size, np.dtype(work).itemsize // (2 if work.kind == "c" else 1))]
    np.testing.assert_allclose(y.astype(kind), exact, rtol=precision, atol=precision * scale)
