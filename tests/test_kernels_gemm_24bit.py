"""Weights of 24 bits: how they are rounded, and products by them against float64."""

from __future__ import annotations

import numpy as np
import pytest

import sigconv as sc
from sigconv.graph.ir import Graph, Node, Value
from sigconv.kernels.cpu import gemm_24bit

F32 = np.dtype(np.float32)


def unpacked(weights: np.ndarray) -> np.ndarray:
    """What the kernel multiplies by: the identity times the packed weights."""
    n, k = weights.shape
    panel, panels = gemm_24bit.PANEL, -(-n // gemm_24bit.PANEL)
    stored = gemm_24bit.pack(weights).reshape(panels, k, 3 * panel)
    high = np.ascontiguousarray(stored[..., : 2 * panel]).view("<u2").astype(np.uint32)
    bits = high << 16 | stored[..., 2 * panel :].astype(np.uint32) << 8
    return bits.view(np.float32).swapaxes(1, 2).reshape(panels * panel, k)[:n]


def test_rounds_to_the_nearest_of_24_bits():
    rng = np.random.default_rng()
    w = (rng.standard_normal((70, 300)) * 10.0 ** rng.integers(-30, 30, (70, 300))).astype(np.float32)
    got = unpacked(w)
    assert np.abs((got - w) / w).max() <= 2.0**-16
    assert not (got.view(np.uint32) & 0xFF).any()
    halfway = np.array([[0x3F800080, 0x3F800180, 0x3F800181]], np.uint32).view(np.float32)
    assert unpacked(halfway).view(np.uint32).tolist() == [[0x3F800000, 0x3F800200, 0x3F800200]]  # ties to even


def test_keeps_what_is_not_finite_and_does_not_overflow():
    big = np.finfo(np.float32).max
    quiet = np.array([0x7F800001], np.uint32).view(np.float32)[0]  # a NaN with no bit among the first 24
    got = unpacked(np.array([[np.nan, np.inf, -np.inf, big, -big, quiet, -0.0, 0.0]], np.float32))[0]
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
