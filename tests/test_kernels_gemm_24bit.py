"""Weights of 24 bits: how they are rounded, and products by them against float64."""

from __future__ import annotations

import numpy as np
import pytest

import sigconv as sc
from sigconv.graph.ir import Graph, Node, Value
from sigconv.kernels.cpu import gemm_24bit
from tests.cases.narrow import unpacked

F32 = np.dtype(np.float32)


def rounded(weights: np.ndarray) -> np.ndarray:
    """What the kernel multiplies by: the identity times the packed weights."""
    n, k = weights.shape
    panel, panels = gemm_24bit.PANEL, -(-n // gemm_24bit.PANEL)
    numbers = unpacked(gemm_24bit.pack(weights), panels * panel * k)
    return numbers.reshape(panels, k, panel).swapaxes(1, 2).reshape(panels * panel, k)[:n]


def test_rounds_to_the_nearest_of_24_bits():
    rng = np.random.default_rng()
    w = (rng.standard_normal((70, 300)) * 10.0 ** rng.integers(-30, 30, (70, 300))).astype(np.float32)
    got = rounded(w)
    assert np.abs((got - w) / w).max() <= 2.0**-16
    high = got.view(np.uint32).astype(np.int64) >> 8
    for step in (-1, 1):
        other = ((high + step) << 8 | (high + step) & 0xFF).astype(np.uint32).view(np.float32)
        assert (np.abs(got.astype(float) - w) <= np.abs(other.astype(float) - w)).all()


def test_small_whole_numbers_and_powers_of_two_are_kept():
    w = np.concatenate([np.arange(-255, 256), 2.0 ** np.arange(-126, 127)]).astype(np.float32)[None]
    assert np.array_equal(rounded(w), w)


def test_keeps_what_is_not_finite_and_does_not_overflow():
    big = np.finfo(np.float32).max
    quiet = np.array([0x7F800001], np.uint32).view(np.float32)[0]  # a NaN with no bit among the first 24
    got = rounded(np.array([[np.nan, np.inf, -np.inf, big, -big, quiet, -0.0, 0.0]], np.float32))[0]
    assert np.isnan(got[[0, 5]]).all()
    assert got[1] == np.inf
    assert got[2] == -np.inf
    assert np.isfinite(got[3:5]).all()
    assert np.signbit(got[6:]).tolist() == [True, False]


@pytest.mark.parametrize("rows", [1, 2, 7, 16])
@pytest.mark.parametrize("n, k", [(512, 512), (1001, 700), (70, 5001)])
def test_against_float64(rows, n, k):
    rng = np.random.default_rng()
    w, bias = rng.standard_normal((n, k), dtype=np.float32), rng.standard_normal(n, dtype=np.float32)
    x = rng.standard_normal((rows, k), dtype=np.float32)
    node = Node("Gemm", ("x", "w", "b"), ("y",), {"transB": 1}, "dense")
    model = sc.Model(Graph((node,), (Value("x", F32, x.shape),), (Value("y", F32),), {"w": w, "b": bias}))
    want = x.astype(np.float64) @ w.T.astype(np.float64) + bias
    results = []
    for threads in (1, 2, 3):
        session = model.compile(threads=threads)
        assert session.explain().rows[0].algorithm == "gemm_24bit"
        results.append(session.run({"x": x})["y"])
    assert np.abs(results[0] - want).max() <= 2e-5 * np.abs(want).max()
    assert all(np.array_equal(results[0], r) for r in results[1:])
    exact = model.compile(tolerance=0)
    assert exact.explain().rows[0].algorithm == "gemm_packed"
    assert np.abs(exact.run({"x": x})["y"] - want).max() <= 5e-6 * np.abs(want).max()
