"""Signals in chunks: the bits of the whole, for every way to cut it."""

from __future__ import annotations

import doctest
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sigconv as sc
from sigconv.signal import stream as streams
from tests.cases import naive_signal as naive

DTYPES = ("float16", "float32", "float64", "complex64", "complex128", "int16", "uint8", "int64", "bool")


def streamed(stream: Any, x: np.ndarray, cuts: list[int], axis: int = -1) -> np.ndarray:
    chunks = np.split(x, sorted(min(c, x.shape[axis]) for c in cuts), axis)
    return np.concatenate([*(stream.push(c) for c in chunks), stream.flush()], axis)


def test_examples_in_the_docs():
    result = doctest.testmod(streams)
    assert result.attempted >= 2
    assert result.failed == 0


def signal(rng: np.random.Generator, shape: Any, dtype: str) -> np.ndarray:
    values = rng.standard_normal(shape) * 9
    return (values + 1j * rng.standard_normal(shape) if dtype.startswith("c") else np.abs(values)).astype(dtype)


@settings(max_examples=400, deadline=None)
@given(
    n=st.integers(1, 300), k=st.integers(1, 60), cuts=st.lists(st.integers(0, 300), max_size=12),
    ones=st.booleans(), boundary=st.sampled_from(("fill", "edge", "symm", "reflect")), fill=st.sampled_from((0, 0, 1)),
    block=st.sampled_from((None, 2, 7, 16, 64, 90)), dtypes=st.tuples(st.sampled_from(DTYPES), st.sampled_from(DTYPES)),
    odd=st.sampled_from((None, None, np.nan, np.inf, -np.inf)), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_any_chunking_gives_the_bits_of_the_whole(n, k, cuts, ones, boundary, fill, block, dtypes, odd, seed):
    rng = np.random.default_rng(seed)
    n = max(n, k)
    x, h = signal(rng, n, dtypes[0]), signal(rng, k, dtypes[1])
    if odd is not None and x.dtype.kind in "fc":
        x[rng.integers(n)] = odd
    options: dict[str, Any] = {"boundary": boundary, "fillvalue": fill}
    method = "direct" if block is None else "oa"
    stream = sc.Stream(h, method=method, block=block, **options)
    with np.errstate(all="ignore"):
        y = streamed(stream, x, list(range(n)) if ones else cuts)
        expected = sc.Plan(h, n, method=stream.method, block=stream.block, dtype=y.dtype, **options)(x)
        whole = sc.convolve(x, h, method="direct", **options)
        again = streamed(stream, x, [])
    assert y.dtype == expected.dtype
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(again, expected)
    if stream.method == "direct":
        np.testing.assert_array_equal(y, whole)
    else:
        rough = 2e-2 if y.dtype == np.float16 else 1e-3 if y.dtype.char in "fF" else 1e-9
        finite = np.isfinite(whole)
        np.testing.assert_array_equal(np.isfinite(y), finite)
        np.testing.assert_allclose(y[finite], whole[finite], rtol=rough, atol=rough * 9 * k)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 25), k=st.integers(1, 40), boundary=st.sampled_from(("fill", "edge", "symm", "reflect")),
       block=st.sampled_from((None, 8, 64)), seed=st.integers(0, 2**32 - 1))  # fmt: skip
def test_signals_of_any_length_are_right(n, k, boundary, block, seed):
    rng = np.random.default_rng(seed)
    x, h = rng.standard_normal(n), rng.standard_normal(k)
    stream = sc.Stream(h, boundary=boundary, block=block, method="direct" if block is None else "oa")
    y = streamed(stream, x, list(range(0, n, 3)))
    np.testing.assert_allclose(y, naive.convolve(x, h, "full", boundary).astype(float), atol=1e-11)


@pytest.mark.parametrize("block", [None, 16, 128])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_channels(axis, block, rng):
    x, h = rng.standard_normal((40, 3, 50)).astype(np.float32), rng.standard_normal(33).astype(np.float32)
    stream = sc.Stream(h, axis, block=block, method="direct" if block is None else "oa")
    y = streamed(stream, x, [1, 1, 20, 37], axis)
    kernel = h.reshape([-1 if a == axis % 3 else 1 for a in range(3)])
    if x.shape[axis] >= 33:
        plan = sc.Plan(kernel, x.shape, axes=axis, method=stream.method, block=stream.block)
        np.testing.assert_array_equal(y, plan(x))
    np.testing.assert_allclose(y, sc.convolve(x, kernel, axes=axis, method="direct"), atol=1e-4)


@pytest.mark.parametrize("block", [None, 8])
def test_a_kernel_for_each_channel(block, rng):
    x, h = rng.standard_normal((2, 60)), rng.standard_normal((2, 20))
    y = streamed(sc.Stream(h, block=block, method="direct" if block is None else "oa"), x, [3, 30])
    np.testing.assert_allclose(y, [np.convolve(a, b) for a, b in zip(x, h, strict=True)], atol=1e-11)


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_a_kernel_that_is_not_finite(odd, rng):
    x, h = rng.standard_normal(50), rng.standard_normal(9)
    h[3] = odd
    np.testing.assert_array_equal(streamed(sc.Stream(h), x, [2, 30]), sc.convolve(x, h, method="direct"))


def test_reverberation_runs_in_short_blocks():
    stream = sc.Stream(np.ones(96_000, np.float32), latency=63)
    assert stream.push(np.ones(64, np.float32)).shape == (64,)
    assert (stream.method, stream.block) == ("oa", 128)


@pytest.mark.parametrize("latency", [0, 5, 63, 500])
def test_latency_and_memory_are_bounded(latency, rng):
    h = rng.standard_normal(900)
    stream = sc.Stream(h, latency=latency)
    given, held = 0, 0
    for i in range(2500):
        given += len(stream.push(rng.standard_normal(1)))
        assert given >= i + 1 - latency
        if i == 1000:
            held = stream.nbytes
    assert stream.nbytes <= 1.1 * held + 64
    assert given + len(stream.flush()) == 2500 + 899


def test_memmap(tmp_path, rng):
    data = rng.standard_normal(5000)
    data.tofile(tmp_path / "x")
    x, h = np.memmap(tmp_path / "x", float, "r"), rng.standard_normal(300)
    stream = sc.Stream(h)
    y = streamed(stream, x, [100, 4000])
    np.testing.assert_array_equal(y, sc.Plan(h, 5000, method=stream.method, block=stream.block)(data))


def test_chunks_that_do_not_fit():
    stream = sc.Stream([1.0, 2])
    assert stream.flush().shape == (0,)
    stream.push(np.ones((2, 3), np.float32))
    with pytest.raises(ValueError, match="only axis 1 may differ"):
        stream.push(np.ones((3, 3), np.float32))
    with pytest.raises(TypeError, match="the first one had float32"):
        stream.push(np.ones((2, 3)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"boundary": "wrap"}, "a stream accepts 'fill'"),
        ({"method": "fft"}, "a stream accepts 'auto'"),
        ({"latency": -1}, "latency=-1"),
        ({"block": 1}, "block=1"),
        ({"block": 8, "latency": 8}, "without latency"),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        sc.Stream([1.0, 2], **options)
    with pytest.raises(ValueError, match="one tap or more"):
        sc.Stream([])
