"""Image filters against loops over the definition, and against SciPy where it is installed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sigconv import ndimage
from sigconv.errors import InputError

MODES = ("reflect", "mirror", "nearest", "wrap", "constant", "grid-mirror", "grid-wrap", "grid-constant")
rng = np.random.default_rng(7)


def source(i: int, n: int, mode: str) -> int | None:
    """The element that lies at index i of the extended axis; None is `cval`."""
    if mode.endswith("constant"):
        return i if 0 <= i < n else None
    if mode == "nearest":
        return min(max(i, 0), n - 1)
    if mode.endswith("wrap"):
        return i % n
    while not 0 <= i < n:
        if mode == "mirror":
            i = 0 if n == 1 else -i if i < 0 else 2 * (n - 1) - i
        else:
            i = -1 - i if i < 0 else 2 * n - 1 - i
    return i


def naive(x, w, mode, cval, origins):
    """Correlation by its definition, in Python's numbers."""
    y = np.zeros(x.shape, complex)
    for p in np.ndindex(x.shape):
        total = 0
        for k in np.ndindex(w.shape):
            at = [source(a + b - n // 2 - o, size, mode)
                  for a, b, n, o, size in zip(p, k, w.shape, origins, x.shape, strict=True)]  # fmt: skip
            total += w[k].item() * (cval if None in at else x[tuple(at)].item())
        y[p] = total
    return y


@st.composite
def cases(draw):
    rank = draw(st.integers(1, 3))
    shape = [draw(st.integers(1, 5)) for _ in range(rank)]
    taps = [draw(st.integers(1, 7 if rank < 3 else 4)) for _ in range(rank)]
    origins = [draw(st.integers(-(n // 2), (n - 1) // 2)) for n in taps]
    return (
        shape,
        taps,
        origins,
        draw(st.sampled_from(MODES)),
        draw(st.sampled_from([0.0, 1.5])),
        draw(st.integers(0, 99)),
    )


@given(cases(), st.sampled_from([np.float64, np.float32, np.complex128, np.complex64]))
@settings(max_examples=150, deadline=None)
def test_correlate_is_its_definition(case, dtype):
    shape, taps, origins, mode, cval, seed = case
    numbers = np.random.default_rng(seed)
    x = numbers.standard_normal(shape).astype(dtype)
    w = numbers.standard_normal(taps)
    expected = naive(x, w, mode, cval, origins)
    got = ndimage.correlate(x, w, mode=mode, cval=cval, origin=origins)
    assert got.dtype == dtype
    tolerance = 1e-5 if np.finfo(dtype).bits == 32 else 1e-12
    np.testing.assert_allclose(got, expected if np.iscomplexobj(got) else expected.real, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype", [np.bool_, np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64])
@pytest.mark.parametrize("mode", MODES[:5])
def test_integer_weights_are_exact_and_wrap(dtype, mode):
    x = rng.integers(0, 2, (5, 6)).astype(bool) if dtype == np.bool_ else rng.integers(0, 127, (5, 6)).astype(dtype)
    w = np.array([[1, -2, 3], [0, 5, -7]])
    expected = naive(x, w, mode, 3, (0, 0)).real.astype(np.int64)
    np.testing.assert_array_equal(ndimage.correlate(x, w, np.int64, mode, 3), expected)
    np.testing.assert_array_equal(ndimage.correlate(x, w, np.int16, mode, 3), expected.astype(np.int16))
    np.testing.assert_array_equal(ndimage.correlate(x, w, np.float64, mode, 3), expected)


def test_large_integers_keep_their_last_bits():
    x = np.array([2**62 + 1, 3, 2**53 + 1])
    np.testing.assert_array_equal(ndimage.correlate1d(x, [0, 1, 0]), x)
    assert ndimage.correlate1d(x, [1, 1, 0], mode="constant")[2] == 2**53 + 4


def test_integer_output_is_truncated():
    x = np.array([10, 11, 13, -10, -13])
    np.testing.assert_array_equal(ndimage.correlate1d(x, [0.5, 0.5], mode="nearest"), [10, 10, 12, 1, -11])
    flat = np.full((9, 9), 128, np.uint8)
    np.testing.assert_array_equal(ndimage.gaussian_filter(flat, 1.7), flat)


def test_float32_mean_is_kept():
    x = rng.random((64, 64), np.float32)
    y = ndimage.gaussian_filter(x, 3.0, mode="wrap")
    assert y.dtype == np.float32
    assert y.mean(dtype=np.float64) == pytest.approx(x.mean(dtype=np.float64), rel=1e-8)


def test_nan_reaches_its_windows_only():
    x = np.zeros(1000)
    x[500] = np.nan
    for y in (
        ndimage.uniform_filter1d(x, 5),
        ndimage.correlate1d(x, np.ones(5)),
        ndimage.gaussian_filter1d(x, 1, radius=2),
    ):
        np.testing.assert_array_equal(np.flatnonzero(np.isnan(y)), np.arange(498, 503))


def test_output_array():
    x = rng.random((6, 7))
    expected = ndimage.gaussian_filter(x, 1.0)
    out = np.zeros((6, 14))[:, ::2]
    assert ndimage.gaussian_filter(x, 1.0, output=out) is out
    np.testing.assert_array_equal(out, expected)
    ndimage.gaussian_filter(x, 1.0, output=x)
    np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize("call", ["gaussian", "uniform", "correlate"])
def test_input_is_not_modified(call):
    x = rng.random((6, 7))
    kept = x.copy()
    result = {"gaussian": lambda: ndimage.gaussian_filter(x, 0), "uniform": lambda: ndimage.uniform_filter(x, 1),
              "correlate": lambda: ndimage.correlate(x, [[1.0]])}[call]()  # fmt: skip
    result[...] = 0
    np.testing.assert_array_equal(x, kept)


def test_empty():
    assert ndimage.correlate(np.zeros((0, 3)), np.ones((3, 3))).shape == (0, 3)


@pytest.mark.parametrize(
    "call, error",
    [
        (lambda: ndimage.correlate([1, 2], [1, 1], mode="nowhere"), RuntimeError),
        (lambda: ndimage.correlate([1, 2], [[1]]), RuntimeError),
        (lambda: ndimage.correlate([1, 2], [1, 1], origin=2), ValueError),
        (lambda: ndimage.correlate([1, 2], [1, 1], axes=(0, 0)), ValueError),
        (lambda: ndimage.correlate1d([1, 2], [], 0), RuntimeError),
        (lambda: ndimage.correlate1d([1, 2], [1], 1), ValueError),
        (lambda: ndimage.correlate([1, 2], [1j], cval=1j, mode="constant"), ValueError),
        (lambda: ndimage.uniform_filter1d([1, 2], 0), RuntimeError),
        (lambda: ndimage.gaussian_filter([1, 2], [1, 1]), RuntimeError),
        (lambda: ndimage.gaussian_filter([1, 2], 1, output=np.zeros(3)), RuntimeError),
    ],
)
def test_errors(call, error):
    with pytest.raises(InputError) as caught:
        call()
    assert isinstance(caught.value, error)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.complex128, np.uint8, np.int32])
@pytest.mark.parametrize("mode", MODES[:5])
def test_equal_to_scipy(dtype, mode):
    theirs = pytest.importorskip("scipy.ndimage")
    x = (rng.standard_normal((17, 23)) * 60 + 120).astype(dtype)
    w, line = rng.standard_normal((4, 5)), rng.standard_normal(6)
    tolerance = dict(rtol=1e-12, atol=1e-12 * 300) if dtype != np.float32 else dict(rtol=1e-5, atol=1e-4)
    calls = [
        *(("correlate", (w,), dict(mode=mode, cval=2, origin=o)) for o in (0, (-1, 2), (1, -2))),
        *(("convolve", (w,), dict(mode=mode, cval=2, origin=o)) for o in (0, (-2, 1))),
        *((name, (line, axis), dict(mode=mode, origin=o))
          for name, axis, o in itertools.product(("correlate1d", "convolve1d"), (0, 1), (-2, 0, 2))),
        ("gaussian_filter", (1.3,), dict(mode=mode, order=(0, 1))),
        ("gaussian_filter", ((2.1, 0.6),), dict(mode=[mode, "wrap"], truncate=3)),
        ("uniform_filter", ((4, 3),), dict(mode=mode, origin=(1, 0))),
        ("uniform_filter1d", (6, 0), dict(mode=mode, origin=-2)),
    ]  # fmt: skip
    for name, args, settings_ in calls:
        if dtype == np.uint8:
            settings_ = settings_ | dict(output=np.int32)  # beyond an output's range SciPy's cast is undefined
        got, expected = (getattr(m, name)(x, *args, **settings_) for m in (ndimage, theirs))
        assert got.dtype == expected.dtype
        np.testing.assert_allclose(got, expected, err_msg=f"{name} {settings_}", **tolerance)
