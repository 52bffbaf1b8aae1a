"""Arrays convolved in tiles: the bits of the whole."""

from __future__ import annotations

import doctest
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sigconv as sc
from sigconv.signal import tiles


class Stored:
    """An array that can only be sliced, as files are; remembers the largest read."""

    def __init__(self, a: np.ndarray) -> None:
        self._a, self.shape, self.dtype, self.largest = a, a.shape, a.dtype, 0

    def __getitem__(self, key: Any) -> np.ndarray:
        assert all(isinstance(s, slice) and s.step in (None, 1) for s in key)
        part = self._a[key].copy()
        self.largest = max(self.largest, part.nbytes)
        return part


def test_examples_in_the_docs():
    assert doctest.testmod(tiles, extraglobs={"np": np}).failed == 0


@settings(max_examples=200, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(6, 30), st.integers(1, 6), st.integers(1, 12)), min_size=1, max_size=3),
    mode=st.sampled_from(("full", "same", "valid")), method=st.sampled_from(("direct", "separable", "oa")),
    boundary=st.sampled_from(("fill", "edge", "symm", "reflect", "wrap")), fill=st.sampled_from((0, 2)),
    dtype=st.sampled_from(("float32", "float64", "complex64", "int16", "uint8")),
    odd=st.booleans(), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_tiles_give_the_bits_of_the_whole(sizes, mode, method, boundary, fill, dtype, odd, seed):
    rng = np.random.default_rng(seed)
    sizes = sizes if len(sizes) < 3 else [(min(n, 9), k, t) for n, k, t in sizes]
    shape, taps, tile = zip(*sizes, strict=True)
    x = (rng.standard_normal(shape) * 9).astype(dtype)
    h = (rng.standard_normal(taps) * 5).astype(dtype)
    if odd and x.dtype.kind in "fc":
        x.flat[0] = np.nan
    options: dict[str, Any] = {"mode": mode, "method": method, "boundary": boundary, "fillvalue": fill}
    with np.errstate(all="ignore"):
        expected = sc.convolve(x, h, **options)
        y = sc.convolve_blocks(Stored(x), h, block_shape=tile, **options)
    assert y.dtype == expected.dtype
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("method", ["auto", "direct", "separable", "oa"])
def test_files_in_bounded_memory(method, tmp_path, rng):
    data, h = rng.standard_normal((1500, 700)), np.outer(np.arange(1.0, 8), np.arange(2.0, 9))
    data.tofile(tmp_path / "x")
    x = np.memmap(tmp_path / "x", float, "r", shape=data.shape)
    sink = np.memmap(tmp_path / "y", float, "w+", shape=data.shape)
    limit = 2_000_000
    options: dict[str, Any] = {"mode": "same", "method": method, "boundary": "symm"}
    sc.convolve_blocks(x[:100], h, mode="same", method=method)  # imports and compiles
    tracemalloc.start()
    try:
        assert sc.convolve_blocks(x, h, sink, max_workspace=limit, **options) is sink
        assert tracemalloc.get_traced_memory()[1] < 1.5 * limit
    finally:
        tracemalloc.stop()
    np.testing.assert_allclose(sink, sc.convolve(data, h, **options), atol=1e-9)


def test_what_is_refused():
    x, h = np.ones((20, 20)), np.ones((3, 3))
    for options, message in (
        ({"method": "fft"}, "whole array at once"),
        ({"max_workspace": 10}, "the smallest tile"),
        ({"block_shape": (0, 3)}, "block_shape"),
        ({"out": np.ones((3, 3))}, "out has shape"),
    ):
        with pytest.raises(ValueError, match=message):
            sc.convolve_blocks(x, h, **options)
    with pytest.raises(ValueError, match="longer than the source"):
        sc.convolve_blocks(h, x)
