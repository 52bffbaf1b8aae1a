"""Every method, boundary, mode, type and rank of the convolution family against plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import sigconv as sc
from sigconv.signal import methods
from tests.cases import naive_signal as naive

MODES = ("full", "same", "valid")
BOUNDARIES = ("fill", "edge", "symm", "reflect", "wrap")
FLOATS = ("float16", "float32", "float64", "complex64", "complex128", "longdouble")
INTEGERS = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
TOLERANCE = {2: 2e-2, 4: 2e-5, 8: 1e-10, 16: 1e-10, 32: 1e-10}


def numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    if kind.kind in "iu":
        info = np.iinfo(kind)
        return rng.integers(info.min, info.max, shape, dtype=kind, endpoint=True)
    values = rng.standard_normal(shape)
    return (values + 1j * rng.standard_normal(shape) if kind.kind == "c" else values).astype(kind)


def layout(rng: np.random.Generator, a: np.ndarray) -> np.ndarray:
    """The same numbers in another place and order in memory."""
    choice = rng.integers(5)
    if choice == 0:
        return a
    if choice == 1:
        return np.asfortranarray(a)
    if choice == 2:
        return np.flip(np.ascontiguousarray(np.flip(a)))
    if choice == 3:
        wide = np.zeros([2 * n for n in a.shape], a.dtype)
        view = wide[tuple(slice(None, None, 2) for _ in a.shape)]
        view[...] = a
        return view
    frozen = a.astype(a.dtype.newbyteorder(">"))
    frozen.setflags(write=False)
    return frozen


def assert_close(y: np.ndarray, expected: np.ndarray, dtype: np.dtype[Any], terms: float) -> None:
    assert y.dtype == dtype
    assert y.shape == expected.shape
    if dtype.kind in "biu":
        np.testing.assert_array_equal(y, naive.wrapped(expected, dtype))
        return
    size = dtype.itemsize // (2 if dtype.kind == "c" else 1)
    kind = complex if dtype.kind == "c" else float
    np.testing.assert_allclose(y.astype(kind), expected.astype(kind), rtol=0, atol=TOLERANCE[size] * (1 + terms))


@st.composite
def tasks(draw: st.DrawFn, kinds: tuple[str, ...]) -> dict[str, Any]:
    rank = draw(st.integers(1, 3))
    longest = {1: 40, 2: 9, 3: 5}[rank]
    side = st.integers(1, longest)
    shape1, shape2 = draw(st.tuples(*[side] * rank)), draw(st.tuples(*[side] * rank))
    mode = draw(st.sampled_from(MODES))
    if mode == "valid":
        shape1, shape2 = (tuple(map(f, shape1, shape2)) for f in (max, min))
        if draw(st.booleans()):
            shape1, shape2 = shape2, shape1
    return {
        "shapes": (shape1, shape2),
        "dtypes": (draw(st.sampled_from(kinds)), draw(st.sampled_from(kinds))),
        "mode": mode,
        "boundary": draw(st.sampled_from(BOUNDARIES)),
        "fillvalue": draw(st.sampled_from((0, 0, 1, 3))),
        "method": draw(st.sampled_from((*methods.METHODS, "auto"))),
        "separable": draw(st.booleans()),
        "correlates": draw(st.booleans()),
        "seed": draw(st.integers(0, 2**32 - 1)),
    }


def check(task: dict[str, Any]) -> None:
    rng = np.random.default_rng(task["seed"])
    x, h = (numbers(rng, s, d) for s, d in zip(task["shapes"], task["dtypes"], strict=True))
    if task["separable"] and h.dtype.kind != "b":
        vectors = [numbers(rng, (n,), "int8" if h.dtype.kind in "iu" else h.dtype.name) // 16 + 1
                   if h.dtype.kind in "iu" else numbers(rng, (n,), h.dtype.name) for n in h.shape]  # fmt: skip
        for axis, v in enumerate(vectors):
            h = (h if axis else np.ones_like(h)) * v.reshape([-1 if a == axis else 1 for a in range(h.ndim)]).astype(
                h.dtype
            )
    fill = task["fillvalue"] if "bool" not in task["dtypes"] else min(task["fillvalue"], 1)
    options = {"mode": task["mode"], "boundary": task["boundary"], "fillvalue": fill}
    expected = (naive.correlate if task["correlates"] else naive.convolve)(x, h, **options)
    ours = sc.correlate if task["correlates"] else sc.convolve
    y = ours(layout(rng, x), layout(rng, h), method=task["method"], **options)
    common = np.result_type(x, h)
    loudest = max(float(np.abs(x.astype(complex)).max()), fill, 4.0)
    assert_close(y, expected, common, float(np.abs(h.astype(complex)).sum()) * loudest)


@settings(max_examples=600)
@given(tasks(FLOATS))
def test_floats(task: dict[str, Any]) -> None:
    check(task)


@settings(max_examples=600)
@given(tasks(INTEGERS))
def test_integers_are_exact(task: dict[str, Any]) -> None:
    check(task)


@settings(max_examples=200)
@given(tasks((*FLOATS[:5], *INTEGERS)))
def test_mixed_types(task: dict[str, Any]) -> None:
    check(task)


@settings(max_examples=150)
@given(
    st.data(),
    st.sampled_from(MODES),
    st.sampled_from(BOUNDARIES),
    st.sampled_from((*methods.METHODS, "auto")),
    st.integers(0, 2**32 - 1),
)
def test_batches(data: st.DataObject, mode: str, boundary: str, method: str, seed: int) -> None:
    rank = data.draw(st.integers(2, 4))
    axes = tuple(sorted(data.draw(st.sets(st.integers(0, rank - 1), min_size=1, max_size=min(2, rank - 1)))))
    shape1, shape2 = [], []
    for a in range(rank):
        if a in axes:
            n, k = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 5))
            n, k = (max(n, k), min(n, k)) if mode == "valid" else (n, k)
        else:
            size = data.draw(st.integers(1, 3))
            n, k = data.draw(st.sampled_from([(size, size), (size, 1), (1, size)]))
        shape1.append(n)
        shape2.append(k)
    rng = np.random.default_rng(seed)
    x, h = rng.standard_normal(shape1), rng.standard_normal(shape2)
    y = sc.convolve(x, h, mode, method, axes=axes, boundary=boundary)
    expected = naive.batched(x, h, axes, mode, boundary=boundary)
    assert_close(y, expected, np.dtype(float), 10)


@settings(max_examples=300)
@given(
    tasks(("float32", "float64", "complex128")),
    st.lists(st.tuples(st.booleans(), st.integers(0, 10**6), st.sampled_from([np.nan, np.inf, -np.inf])), max_size=4),
    st.booleans(),
)
@example(
    {
        "shapes": ((1, 1, 2), (1, 1, 3)), "dtypes": ("float32", "float32"), "mode": "full", "boundary": "fill",
        "fillvalue": 0, "method": "direct", "seed": 0,
    },
    [(False, 0, np.nan)],
    False,
)  # fmt: skip
def test_every_method_has_the_pattern_of_the_definition(
    task: dict[str, Any], bad: list[tuple[bool, int, float]], zeros: bool
) -> None:
    """Where NaN, +Inf and -Inf stand; finite elsewhere."""
    rng = np.random.default_rng(task["seed"])
    x, h = (numbers(rng, s, d) for s, d in zip(task["shapes"], task["dtypes"], strict=True))
    if zeros:
        h.flat[rng.integers(h.size)] = 0
    for in_kernel, at, value in bad:
        array = h if in_kernel else x
        array.flat[at % array.size] = value
    parts = "c" in (x.dtype.kind, h.dtype.kind)
    options = {"mode": task["mode"], "boundary": task["boundary"], "fillvalue": task["fillvalue"]}
    y = sc.convolve(x, h, method=task["method"], **options)
    if not parts:
        expected = naive.convolve(x, h, **options).astype(float)
        for test in (np.isnan, np.isposinf, np.isneginf):
            np.testing.assert_array_equal(test(y), test(expected))
    else:
        direct = sc.convolve(x, h, method="direct", **options)
        np.testing.assert_array_equal(np.isfinite(y), np.isfinite(direct))
        np.testing.assert_array_equal(np.isnan(y), np.isnan(direct))


vectors = st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=30).map(np.array)


@given(vectors, vectors, st.sampled_from(["direct", "fft", "oa", "auto"]))
@example(np.array([1.0, 2, 3]), np.array([3.0, 2, 2]), "direct")
def test_commutativity(a: np.ndarray, b: np.ndarray, method: str) -> None:
    atol = 1e-10 * (1 + np.abs(a).sum() * np.abs(b).max())
    np.testing.assert_allclose(sc.convolve(a, b, method=method), sc.convolve(b, a, method=method), rtol=0, atol=atol)


@given(vectors, vectors, vectors, st.sampled_from(["direct", "fft", "oa", "auto"]))
def test_associativity_and_distributivity(a: np.ndarray, b: np.ndarray, c: np.ndarray, method: str) -> None:
    def conv(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        return sc.convolve(p, q, method=method)

    scale = 1 + np.abs(a).sum() * np.abs(b).sum() * np.abs(c).sum()
    np.testing.assert_allclose(conv(conv(a, b), c), conv(a, conv(b, c)), rtol=0, atol=1e-10 * scale)
    d = np.resize(c, len(b))
    scale = 1 + np.abs(a).sum() * (np.abs(b).sum() + np.abs(d).sum())
    np.testing.assert_allclose(conv(a, b + d), conv(a, b) + conv(a, d), rtol=0, atol=1e-10 * scale)


@given(vectors, vectors)
def test_correlation_is_convolution_with_the_conjugate_reversed(a: np.ndarray, b: np.ndarray) -> None:
    h = b + 1j * b[::-1]
    atol = 1e-10 * (1 + np.abs(a).sum() * np.abs(h).max())
    np.testing.assert_allclose(sc.correlate(a, h), sc.convolve(a, h[::-1].conj()), rtol=0, atol=atol)


@pytest.mark.parametrize("method", methods.METHODS)
def test_threads_and_layout_do_not_change_a_bit(method: str, rng: np.random.Generator) -> None:
    x, h = rng.standard_normal((200, 300)), np.outer(rng.standard_normal(5), rng.standard_normal(7))
    y = sc.convolve(x, h, "same", method, workers=1)
    for other in (np.asfortranarray(x), x[::-1].copy()[::-1]):
        np.testing.assert_array_equal(sc.convolve(other, h, "same", method, workers=2), y)
