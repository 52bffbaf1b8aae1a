"""What docs/numerics.md promises about inputs at the edges: types, orders in memory, sizes, scalars, overflow."""

from __future__ import annotations

import numpy as np
import pytest

import sigconv as sc
from sigconv.signal import methods
from tests.cases import naive_signal as naive

EVERY = (*methods.METHODS, "auto")


def test_scalars_take_every_keyword():
    y = sc.convolve(2, 3, dtype="float32", method="fft", boundary="wrap", workers=1)
    assert (y, type(y)) == (6, np.float32)
    assert type(sc.correlate(np.float32(2), np.float32(3))) is np.float32
    assert sc.correlate(2j, 3j) == 6
    out = np.zeros((), np.float64)
    assert sc.convolve(2, 3, out=out) is out
    assert out == 6
    assert np.isnan(sc.convolve(np.nan, 3))
    for options, message in (
        ({"nan_policy": "raise"}, "contains NaN"),
        ({"boundary": "cliff"}, "acceptable boundary flags"),
        ({"axes": 0}, "the inputs have 0 axes"),
        ({"out": np.zeros(1)}, "an array without axes"),
        ({"out": np.zeros((), np.int8)}, "an array without axes that can take float64"),
        ({"mode": "most"}, "acceptable mode flags"),
        ({"dtype": "int8"}, "cannot hold float64"),
    ):
        with pytest.raises(ValueError, match=message):
            sc.convolve(np.nan, 3, **options)
    with pytest.raises(ValueError, match="same dimensionality"):
        sc.convolve(2, [1, 2])


@pytest.mark.parametrize("method", EVERY)
def test_memory_of_any_kind(method, rng, tmp_path):
    a, h = rng.standard_normal((9, 11)), rng.standard_normal((3, 4))
    expected = sc.convolve(a, h, method=method)
    frozen = a.copy()
    frozen.setflags(write=False)
    bytes_ = bytearray(8 * a.size + 1)
    odd = np.frombuffer(bytes_, np.float64, a.size, 1).reshape(a.shape)
    odd[...] = a
    assert not odd.flags.aligned
    mapped = np.memmap(tmp_path / "a", np.float64, "w+", shape=a.shape)
    mapped[...] = a
    wide = np.zeros((18, 33))
    wide[::-2, ::-3] = a
    for other in (
        frozen,
        odd,
        mapped,
        wide[::-2, ::-3],
        a.astype(">f8"),
        np.asfortranarray(a),
        a.tolist(),
        memoryview(a),
    ):
        np.testing.assert_array_equal(sc.convolve(other, h, method=method), expected)
        np.testing.assert_allclose(sc.convolve(h, other, method=method), expected, atol=1e-13)
    with pytest.raises(ValueError, match="read-only"):
        sc.convolve(a, h, "same", out=frozen)
    repeated = np.broadcast_to(a[:1], a.shape)
    np.testing.assert_allclose(sc.convolve(repeated, h, method=method), sc.convolve(repeated.copy(), h), atol=1e-13)


@pytest.mark.parametrize("method", EVERY)
@pytest.mark.parametrize("n", [1, 3])
def test_a_kernel_far_longer_than_the_signal(method, n, rng):
    x, h = rng.standard_normal(n), rng.standard_normal(100_001)
    np.testing.assert_allclose(sc.convolve(x, h, method=method), np.convolve(x, h), atol=1e-12)
    middle = np.convolve(x, h)[50_000 : 50_000 + n]
    np.testing.assert_allclose(sc.convolve(x, h, "same", method), middle, atol=1e-12)
    period = np.array([h[k::n].sum() for k in range(n)])  # of a periodic signal only the sums of the taps count
    lag = (len(h) - 1) // 2
    expected = [sum(x[(i + lag - k) % n] * period[k] for k in range(n)) for i in range(n)]
    np.testing.assert_allclose(sc.convolve(x, h, "same", method, boundary="wrap"), expected, atol=1e-9)


@pytest.mark.parametrize("method", EVERY)
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_overflow_is_modulo_and_dtype_widens(method, dtype, rng):
    info = np.iinfo(dtype)
    x, h = (rng.integers(info.min, info.max, n, dtype, endpoint=True) for n in (40, 9))
    exact = naive.convolve(x, h)
    np.testing.assert_array_equal(sc.convolve(x, h, method=method), naive.wrapped(exact, dtype))
    wide = np.result_type(dtype, np.int64 if info.min else np.uint64)
    np.testing.assert_array_equal(sc.convolve(x, h, method=method, dtype=wide), naive.wrapped(exact, wide))


def test_half_precision_overflows_to_infinity():
    x = np.array([6e4, -6e4, 1], np.float16)
    with np.errstate(over="ignore"):
        assert sc.convolve(x, np.array([2], np.float16)).tolist() == [np.inf, -np.inf, 2]
    assert sc.convolve(x, np.array([2], np.float16), dtype=np.float32).tolist() == [120000, -120000, 2]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_fill_values(value):
    integers = np.array([1, 2, 3], np.int16)
    with pytest.raises(ValueError, match="could not cast `fillvalue`"):
        sc.convolve(integers, integers, fillvalue=value)
    y = sc.convolve([1.0, 2, 3], [1.0, 1], fillvalue=value)
    np.testing.assert_array_equal(y, [value, 3, 5, value])
    assert sc.convolve([1, 2, 3], [1, 1], fillvalue=2.7).tolist() == [3, 3, 5, 5]  # cast as NumPy casts
    bytes_ = np.array([1, 2, 3], np.uint8)
    assert sc.convolve(bytes_, bytes_[:1], "valid", fillvalue=300).tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("ab", "dtype <U2"),
        (np.array(["2020"], "M8[Y]"), "dtype datetime64"),
        (np.zeros(1, "V1"), "accepted are numbers"),
    ],
)
def test_what_is_no_number_is_a_type_error(value, message):
    for pair in ((value, [1]), ([1], value)):
        with pytest.raises(TypeError, match=message):
            sc.convolve(*pair)


def test_subclasses_become_plain_arrays():
    masked = np.ma.masked_array([1, 2], [False, True])
    y = sc.convolve(masked, [1, 1])
    assert type(y) is np.ndarray
    assert y.tolist() == [1, 3, 2]  # what a mask hides is not known to be missing: fill it with NaN, and omit


def test_many_axes():
    x = np.arange(4.0).reshape((1,) * 30 + (2, 2))
    np.testing.assert_array_equal(sc.convolve(x, x).ravel(), [0, 0, 1, 0, 4, 6, 4, 12, 9])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape, taps", [((9,), (4,)), ((7, 9), (3, 2)), ((7, 9), (1, 4)), ((3, 5, 9), (1, 2, 3))])
def test_arrays_of_any_layout_again_and_again(dtype, shape, taps, rng):
    """Calls that are remembered take the next arrays' memory as it lies: turned, transposed, unaligned, not finite."""
    close = 100 * np.finfo(dtype).eps  # sums of 12 products at most
    for _ in range(3):
        x, w = rng.standard_normal(shape).astype(dtype), rng.standard_normal(taps).astype(dtype)
        unaligned = np.zeros(x.nbytes + 1, np.uint8)[1:].view(dtype).reshape(shape)
        unaligned[...] = x
        odd_taps = np.zeros(w.nbytes + 1, np.uint8)[1:].view(dtype).reshape(taps)
        odd_taps[...] = w
        spoilt = w.copy()
        spoilt.flat[-1] = np.inf
        for function, expected in ((sc.convolve, naive.convolve), (sc.correlate, naive.correlate)):
            right = expected(x, w, "same").astype(dtype)
            for a in (x, np.asfortranarray(x), x[::-1].copy()[::-1], unaligned):
                for b in (w, np.asfortranarray(w), w[..., ::-1].copy()[..., ::-1], odd_taps):
                    np.testing.assert_allclose(function(a, b, "same"), right, rtol=0, atol=close)
            with np.errstate(invalid="ignore"):
                right = expected(x, spoilt, "same").astype(dtype)
                np.testing.assert_array_equal(np.isfinite(function(x, spoilt, "same")), np.isfinite(right))
