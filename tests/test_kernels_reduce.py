"""Reduction and softmax kernels against NumPy in float64: axis orders, dtypes, NaN and Inf, long sums, threads."""

from __future__ import annotations

import numpy as np
import pytest

from sigconv.kernels.cpu import reduce as kernels
from sigconv.kernels.cpu import softmax
from tests.cases.kernel_calls import call

AXES = ("outer0", "outer1", "reduced0", "reduced1", "inner")
OPS = {
    "sum": lambda x: x.sum((2, 3)),
    "mean": lambda x: x.mean((2, 3)),
    "max": lambda x: x.max((2, 3)),
    "min": lambda x: x.min((2, 3)),
    "prod": lambda x: x.prod((2, 3)),
    "l1": lambda x: np.abs(x).sum((2, 3)),
    "l2": lambda x: np.sqrt((x * x).sum((2, 3))),
    "sum_square": lambda x: (x * x).sum((2, 3)),
    "log_sum": lambda x: np.log(x.sum((2, 3))),
    "log_sum_exp": lambda x: np.log(np.exp(x).sum((2, 3))),
}
DTYPES = [np.float32, np.float64]


def reduce(op, x, threads=1):
    y = np.full((*x.shape[:2], x.shape[4]), 7, x.dtype)
    step = x.itemsize
    call(
        getattr(kernels, f"reduce_{op}_f{8 * x.itemsize}"),
        threads=threads,
        src=x,
        dst=y,
        **dict(zip(AXES, x.shape, strict=True)),
        **{f"src_{axis}": s // step for axis, s in zip(AXES, x.strides, strict=True)},
        **{f"dst_{axis}": s // step for axis, s in zip(("outer0", "outer1", "inner"), y.strides, strict=True)},
    )
    return y


SHAPES = [(2, 3, 4, 5, 1), (1, 2, 3, 205, 1), (2, 1, 150, 3, 16), (1, 2, 2, 5, 150), (1, 1, 1, 1, 1), (2, 0, 3, 4, 5)]
TRANSPOSED = [
    ((5, 4, 3, 2, 37), (4, 1, 2, 3, 0)),
    ((2, 3, 4, 3, 40), (0, 1, 2, 4, 3)),
    ((3, 40, 7, 2, 2), (0, 4, 1, 2, 3)),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", OPS)
def test_reduction_matches_numpy(op, dtype, rng):
    layouts = [(shape, (0, 1, 2, 3, 4)) for shape in SHAPES] + TRANSPOSED
    for shape, order in layouts:
        x = rng.uniform(*((0.5, 1.4) if op in ("prod", "log_sum") else (-1, 1)), shape).astype(dtype).transpose(order)
        want = OPS[op](x.astype(np.float64))
        got = reduce(op, x)
        tolerance = 2e-6 if dtype == np.float32 else 1e-12
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * 10, err_msg=f"{shape} {order}")
        for threads in (2, 3, 7):
            np.testing.assert_array_equal(reduce(op, x, threads), got)


@pytest.mark.parametrize("shape", [(1, 1, 1, 3_000_000, 1), (1, 1, 300_000, 1, 16)])
def test_long_float32_sums_keep_six_digits(shape, rng):
    x = rng.random(shape, np.float32)
    np.testing.assert_allclose(reduce("sum", x), x.sum((2, 3), dtype=np.float64), rtol=2e-7)
    np.testing.assert_allclose(reduce("mean", x), x.mean((2, 3), dtype=np.float64), rtol=2e-7)


@pytest.mark.parametrize("dtype", DTYPES)
def test_reducing_nothing_gives_the_identity(dtype):
    x = np.zeros((1, 1, 0, 3, 2), dtype)
    want = {"sum": 0, "mean": np.nan, "max": -np.inf, "min": np.inf, "prod": 1, "l1": 0, "l2": 0, "sum_square": 0}
    want |= {"log_sum": -np.inf, "log_sum_exp": -np.inf}
    assert want.keys() == OPS.keys()
    for op, value in want.items():
        np.testing.assert_array_equal(reduce(op, x), np.full((1, 1, 2), value, dtype), err_msg=op)


@pytest.mark.parametrize("position", [0, 7, 36, 70])
@pytest.mark.parametrize("op", OPS)
def test_nan_and_infinities_in_a_reduction(op, position):
    """As NumPy: NaN anywhere is NaN (onnxruntime's max of it depends on the position)."""
    for value in (np.nan, np.inf, -np.inf):
        row = np.linspace(0.5, 2, 71, dtype=np.float32)
        row[position] = value
        for x in (row.reshape(1, 1, 1, 71, 1), np.repeat(row, 17).reshape(1, 1, 71, 1, 17)):
            with np.errstate(invalid="ignore"):
                want = OPS[op](x.astype(np.float64))
            np.testing.assert_allclose(reduce(op, x), want, rtol=1e-5)


def test_log_sum_exp_does_not_overflow():
    x = np.array([[1000.0, 1000.0], [-1e4, -1e4], [-np.inf, -np.inf]], np.float32).reshape(3, 1, 1, 2, 1)
    want = np.array([1000 + np.log(2), -1e4 + np.log(2), -np.inf])
    np.testing.assert_allclose(reduce("log_sum_exp", x).ravel(), want, rtol=1e-6)


SOFTMAX = {
    (np.float32, False): softmax.softmax_f32,
    (np.float64, False): softmax.softmax_f64,
    (np.float32, True): softmax.log_softmax_f32,
    (np.float64, True): softmax.log_softmax_f64,
}


def run_softmax(x, y, logarithmic=False, threads=1):
    axes = ("outer", "n", "inner")
    call(
        SOFTMAX[x.dtype.type, logarithmic],
        threads=threads,
        src=x,
        dst=y,
        **dict(zip(axes, x.shape, strict=True)),
        **{f"src_{axis}": s // x.itemsize for axis, s in zip(axes, x.strides, strict=True)},
        **{f"dst_{axis}": s // y.itemsize for axis, s in zip(axes, y.strides, strict=True)},
    )
    return y


def naive_softmax(x, logarithmic):
    x = x.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        shifted = x - x.max(1, keepdims=True, initial=-np.inf)
        total = np.exp(shifted).sum(1, keepdims=True)
        return shifted - np.log(total) if logarithmic else np.exp(shifted) / total


@pytest.mark.parametrize("logarithmic", [False, True], ids=["softmax", "log_softmax"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_matches_numpy(dtype, logarithmic, rng):
    close = dict(rtol=5e-6, atol=1e-6 * logarithmic) if dtype == np.float32 else dict(rtol=1e-13, atol=1e-14)
    for shape in ((3, 1000, 1), (2, 10, 1), (2, 7, 37), (5, 3, 4), (1, 1, 1), (0, 3, 2)):
        x = (rng.standard_normal(shape) * 10).astype(dtype)
        for source in (x, x.transpose(2, 1, 0), x.transpose(1, 2, 0)):
            want = naive_softmax(source, logarithmic)
            got = run_softmax(source, np.zeros(source.shape, dtype), logarithmic)
            np.testing.assert_allclose(got, want, **close)
            for threads in (2, 3, 7):
                again = run_softmax(source, np.zeros(source.shape, dtype), logarithmic, threads)
                np.testing.assert_array_equal(again, got)
        want = naive_softmax(x, logarithmic)
        np.testing.assert_allclose(run_softmax(x, x, logarithmic), want, **close)  # in place


@pytest.mark.parametrize("logarithmic", [False, True], ids=["softmax", "log_softmax"])
@pytest.mark.parametrize("inner", [1, 17])
def test_softmax_of_nan_and_infinities(inner, logarithmic):
    """As onnxruntime: -inf has probability 0; a row with NaN or +inf, or of -inf only, is NaN."""
    rows = np.linspace(-3, 3, 4 * 35, dtype=np.float32).reshape(4, 35)
    rows[0, 33], rows[1, 2], rows[2], rows[3, 34] = -np.inf, np.nan, -np.inf, np.inf
    x = np.repeat(rows, inner).reshape(4, 35, inner)
    got = run_softmax(x, np.zeros_like(x), logarithmic)
    np.testing.assert_allclose(got, naive_softmax(x, logarithmic), rtol=2e-6)
    assert np.isnan(got[2]).all()
    assert np.isfinite(got[0, :33]).all()
