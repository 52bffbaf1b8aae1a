"""Correlation along rows against naive loops: every type, step, dilation and border; guarded memory; identical bits."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import subprocess
import sys

import llvmlite.binding as llvm
import numpy as np
import pytest

from sigconv.kernels.cpu import rows, rows_short
from tests.cases.kernel_calls import call

COMPLEX = {"c64": np.complex64, "c128": np.complex128}
FLOATS = ["f32", "f64"]
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-13}  # of the sum of magnitudes
PAGE = mmap.PAGESIZE

CASES = [  # J, K, n, output rows, step, dilation
    (1, 1, 1, 1, 1, 1),
    (1, 3, 5, 2, 1, 1),
    (1, 15, 700, 1, 1, 1),
    (1, 77, 333, 2, 1, 1),
    (1, 150, 40, 1, 1, 1),
    (2, 5, 131, 7, 1, 2),
    (3, 3, 64, 7, 1, 1),
    (3, 3, 5, 3, 1, 1),
    (3, 3, 203, 9, 1, 2),
    (3, 20, 97, 5, 1, 3),
    (5, 2, 17, 11, 1, 4),
    (4, 40, 300, 2, 1, 1),
    (1, 33, 100, 2, 1, 8),
    (2, 7, 45, 3, 2, 1),
    (3, 4, 3, 4, 5, 3),
    (7, 1, 19, 1, 1, 1),
]


def types_of(name):
    """NumPy's types of input, taps and output."""
    numbers = rows.NUMBERS[name]
    return (COMPLEX[name],) * 3 if name in COMPLEX else (numbers.source, numbers.sum, numbers.target)


def draw(rng, shape, dtype, scale=1.0):
    kind = np.dtype(dtype).kind
    if kind in "iu":
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, shape, dtype, endpoint=True)
    values = rng.standard_normal(shape) * scale
    return (values + 1j * rng.standard_normal(shape) if kind == "c" else values).astype(dtype)


def loudness(name):
    """Of taps, for sums that take many values: those of bytes spread over 0 … 255 and beyond."""
    return 30.0 if name == "f32_u8" else 1.0


def naive(x, w, step, dilation, n):
    """Output row r reads x[r], …, x[r + J - 1]; integers wrap in int64."""
    integers = x.dtype.kind in "iu" and w.dtype.kind in "iu"
    wide = np.int64 if integers else np.complex128 if x.dtype.kind == "c" else np.float64
    J, K = w.shape
    y = np.zeros((len(x) - J + 1, n), wide)
    for r in range(len(y)):
        for j in range(J):
            for k in range(K):
                with np.errstate(over="ignore", invalid="ignore"):
                    y[r] += w[j, k].astype(wide) * x[r + j, k * dilation :: step][:n].astype(wide)
    return y


def columns(n, K, step, dilation):
    return (n - 1) * step + max(K - 1, 0) * dilation + 1


class Row:
    """One row that ends where unreadable memory begins, or begins where it ends."""

    def __init__(self, values, at_end):
        pages = -(-values.nbytes // PAGE)
        self.map = mmap.mmap(-1, (pages + 2) * PAGE)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        self.address = base + PAGE + (pages * PAGE - values.nbytes if at_end else 0)
        ctypes.memmove(self.address, np.ascontiguousarray(values).ctypes.data, values.nbytes)
        protect = ctypes.CDLL(None).mprotect
        for guard in (base, base + (pages + 1) * PAGE):
            assert protect(ctypes.c_void_p(guard), ctypes.c_size_t(PAGE), 0) == 0

    def values(self, n, dtype):
        return np.frombuffer(ctypes.string_at(self.address, n * np.dtype(dtype).itemsize), dtype)


def correlate(name, x, w, n, step=1, dilation=1, shear=0, threads=1, table=None, planes=1, run=0):
    """y[rows, n] between canaries; input row r + j for output row r, unless a table says otherwise.

    ``shear``: whether the rows of each of ``planes`` of taps do, for ``run`` rows of outputs (0: all).
    """
    J, K = w.shape
    if table is None:
        table = x.ctypes.data + x.strides[0] * (np.arange(len(x) - J + 1)[:, None] + np.arange(J))
    table, canary = np.ascontiguousarray(table, np.int64), 99
    y = np.full((len(table) + 2, n + 6), canary, types_of(name)[2])
    call(
        rows.KERNELS[name],
        threads=threads,
        **dict(rows=table, w=np.ascontiguousarray(w), y=y[1:, 3:], n_rows=len(table), J=J, K=K, n=n),
        **dict(step=step, dilation=dilation, shear=J // planes if shear else 0, run=run, y_row=n + 6),
    )
    inside = y[1:-1, 3:-3].copy()
    y[1:-1, 3:-3] = canary
    assert (y == canary).all()
    return inside


def assert_close(name, out, x, w, step=1, dilation=1):
    want = naive(x, w, step, dilation, out.shape[1])
    if name == "f32_u8":
        exact = np.clip(want, 0, 255)
        assert (np.abs(out - exact) <= 0.5 + 1e-3).all()
    elif out.dtype.kind in "iu":
        np.testing.assert_array_equal(out, want.astype(out.dtype))
    else:
        bound = naive(np.abs(x), np.abs(w), step, dilation, out.shape[1])
        assert (np.abs(out - want) <= TOLERANCE[rows.NUMBERS[name].sum] * bound).all()


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("name", rows.NUMBERS)
def test_naive_loops(name, case, rng):
    J, K, n, height, step, dilation = case
    source, taps, _ = types_of(name)
    x = draw(rng, (height + J - 1, columns(n, K, step, dilation)), source)
    w = draw(rng, (J, K), taps, loudness(name))
    for shear in (0, 1):
        assert_close(name, correlate(name, x, w, n, step, dilation, shear), x, w, step, dilation)


@pytest.mark.parametrize("name", rows.NUMBERS)
def test_no_taps_and_no_outputs(name, rng):
    source, taps, _ = types_of(name)
    x = draw(rng, (5, 40), source)
    for J, K in ((0, 3), (3, 0)):
        table = np.full((4, J), x.ctypes.data)
        for shear in (0, 1):
            assert (correlate(name, x, np.zeros((J, K), taps), 40, shear=shear, table=table) == 0).all()
    assert correlate(name, x, np.zeros((2, 2), taps), 0).shape == (4, 0)
    assert correlate(name, x[:1], np.zeros((2, 2), taps), 9).shape == (0, 9)


@pytest.mark.parametrize("shear", [0, 1])
@pytest.mark.parametrize("name", FLOATS)
def test_nan_and_infinity_reach_what_reads_them_and_nothing_else(name, shear, rng):
    source, _, _ = types_of(name)
    x, w = draw(rng, (12, 300), source), draw(rng, (3, 21), source)
    x[4, 150], x[6, 10], x[6, 20], x[9, 299] = np.nan, np.inf, -np.inf, np.inf
    w[1, 2] = 0.0
    out, want = correlate(name, x, w, 280, shear=shear), naive(x, w, 1, 1, 280)
    assert np.isnan(want).any()
    assert np.isinf(want).any()
    np.testing.assert_array_equal(np.isnan(out), np.isnan(want))
    np.testing.assert_array_equal(out[np.isinf(want)], want[np.isinf(want)])
    np.testing.assert_array_equal(np.isfinite(out), np.isfinite(want))


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mprotect"), reason="no mprotect")
@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("name", rows.NUMBERS)
def test_nothing_outside_the_rows_is_read(name, at_end, rng):
    source, taps, _ = types_of(name)
    for J, K, n, height, step, dilation in CASES:
        width = columns(n, K, step, dilation)
        x, w = draw(rng, (height + J - 1, width), source), draw(rng, (J, K), taps, loudness(name))
        guarded = [Row(row, at_end) for row in x]
        table = [[guarded[r + j].address for j in range(J)] for r in range(height)]
        for shear in (0, 1):
            out = correlate(name, x, w, n, step, dilation, shear, table=table)
            np.testing.assert_array_equal(out, correlate(name, x, w, n, step, dilation, shear))


@pytest.mark.parametrize("shear", [0, 1])
@pytest.mark.parametrize("name", rows.NUMBERS)
def test_threads_and_blocks_give_the_same_bits(name, shear, rng):
    source, taps, _ = types_of(name)
    for J, K, n, height in ((1, 70, 9000, 1), (3, 5, 1000, 10), (4, 35, 200, 9), (3, 3, 300, 10)):
        x, w = draw(rng, (height + J - 1, n + K - 1), source), draw(rng, (J, K), taps, loudness(name))
        whole = correlate(name, x, w, n, shear=shear)
        for threads in (2, 3, 7):
            np.testing.assert_array_equal(whole, correlate(name, x, w, n, shear=shear, threads=threads))
        for r, c in ((0, 1), (height // 2, 13), (height - 1, n - 5)):
            part = correlate(name, x[r:, c:], w, n - c, shear=shear)
            np.testing.assert_array_equal(whole[r:, c:], part)
            head = correlate(name, x[: r + J], w, c, shear=shear)
            np.testing.assert_array_equal(whole[: r + 1, :c], head)


def test_a_complex_array_with_real_taps_is_one_of_floats(rng):
    x, w = draw(rng, (4, 140), np.complex64), draw(rng, (2, 9), np.float32)
    out = correlate("f32", x.view(np.float32), w, 2 * 132, dilation=2).view(np.complex64)
    np.testing.assert_allclose(out, naive(x, w.astype(np.complex64), 1, 1, 132), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", rows.NUMBERS)
@pytest.mark.parametrize(
    "shape", [(1, 5, 2, 2), (3, 7, 3, 3), (4, 6, 2, 5), (2, 13, 2, 7), (6, 3, 3, 2), (3, 1, 2, 3)], ids=str
)
def test_planes_of_rows(name, shape, rng):
    """Output row (z, r) reads the rows (z + p, r + j): neighbours share rows in a plane, and not across planes."""
    z, r, planes, J = shape
    K, n = 3, 91
    source, taps, _ = types_of(name)
    x = draw(rng, (z + planes - 1, r + J - 1, columns(n, K, 1, 1)), source)
    w = draw(rng, (planes, J, K), taps, loudness(name) / planes)
    index = np.arange(z)[:, None, None, None] + np.arange(planes)[:, None]
    index = index * x.shape[1] + np.arange(r)[:, None, None] + np.arange(J)
    table = x.ctypes.data + x.strides[1] * index.reshape(z * r, planes * J)
    options = dict(table=table, planes=planes, run=r)
    out = correlate(name, x, w.reshape(planes * J, K), n, shear=1, **options)
    for at in range(z):
        one_plane = x[at : at + planes].transpose(1, 0, 2).reshape(r + J - 1, -1)  # its rows beside each other …
        beside = np.zeros((J, (planes - 1) * x.shape[2] + K), w.dtype)  # … and the taps as far apart
        for p in range(planes):
            beside[:, p * x.shape[2] : p * x.shape[2] + K] = w[p]
        assert_close(name, out[at * r : (at + 1) * r], one_plane, beside)
    for threads in (2, 3, 7):
        parts = correlate(name, x, w.reshape(planes * J, K), n, shear=1, threads=threads, **options)
        np.testing.assert_array_equal(out, parts)


def test_rows_may_repeat_and_come_from_anywhere(rng):
    x, w = draw(rng, (3, 50), np.float32), draw(rng, (3, 4), np.float32)
    order = np.array([2, 2, 0, 1, 0])
    out = correlate(
        "f32", x, w, 47, shear=1, table=x.ctypes.data + x.strides[0] * order[np.arange(3)[:, None] + np.arange(3)]
    )
    assert_close("f32", out, x[order], w)


def test_saturating_result_rounds_to_even_and_ends_at_0_and_255():
    x = np.arange(256, dtype=np.float32)[None]
    half = correlate("f32_u8", x, np.float32([[0.5]]), 256)[0]
    np.testing.assert_array_equal(half, np.rint(np.arange(256) * 0.5))
    for tap, want in ((3.0, np.minimum(np.arange(256) * 3, 255)), (-1.0, np.zeros(256)), (np.nan, np.zeros(256))):
        np.testing.assert_array_equal(correlate("f32_u8", x, np.float32([[tap]]), 256)[0], want)
    np.testing.assert_array_equal(correlate("f32_u8", x, np.float32([[np.inf]]), 256)[0][1:], 255)
    np.testing.assert_array_equal(correlate("f32_u8", x, np.float32([[1e30]]), 256)[0][1:], 255)


def short(name, x, h, start, count, flip):
    y = np.full(count + 8, 99, x.dtype)
    last = len(h) - 1 if flip else 0
    fields = dict(x=x, n=len(x), w=h[last:], K=len(h), w_step=-1 if flip else 1, y=y[4:], start=start, count=count)
    call(rows_short.KERNELS[name], **fields)
    assert (y[:4] == 99).all()
    assert (y[count + 4 :] == 99).all()
    return y[4 : count + 4]


@pytest.mark.parametrize("name", rows_short.KERNELS)
def test_short_signals(name, rng):
    dtype = types_of(name)[0]
    for n, K in ((1, 1), (1, 40), (5, 3), (16, 16), (17, 70), (100, 9), (300, 37), (1000, 130)):
        x, h = draw(rng, n, dtype), draw(rng, K, dtype)
        wide = np.complex128 if name in COMPLEX else np.float64
        full = np.convolve(x.astype(wide), h.astype(wide))
        bound = TOLERANCE[rows.NUMBERS[name].sum] * np.convolve(np.abs(x), np.abs(h))
        for start, stop in ((0, n + K - 1), (min(n, K) - 1, max(n, K)), (K // 2, K // 2 + n)):
            out = short(name, x, h, start, stop - start, True)
            assert (np.abs(out - full[start:stop]) <= bound[start:stop]).all()
            np.testing.assert_array_equal(out, short(name, x, h[::-1].copy(), start, stop - start, False))


@pytest.mark.parametrize("name", rows_short.KERNELS)
def test_short_signals_have_the_bits_of_rows(name, rng):
    dtype = types_of(name)[0]
    for n, K in ((40, 3), (200, 18), (900, 77), (700, 300)):
        x, h = draw(rng, n, dtype), draw(rng, K, dtype)
        padded = np.concatenate([np.zeros(K - 1, dtype), x, np.zeros(K - 1, dtype)])
        want = correlate(name, padded[None], h[None], n + K - 1)[0]
        np.testing.assert_array_equal(short(name, x, h, 0, n + K - 1, False), want)


@pytest.mark.parametrize("name", FLOATS)
def test_a_short_signal_meets_no_tap_beyond_its_ends(name):
    dtype = types_of(name)[0]
    x, h = np.ones(50, dtype), np.ones(30, dtype)
    h[0], h[29] = np.inf, np.nan
    np.testing.assert_array_equal(short(name, x, h, 0, 79, True), np.convolve(x, h))


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mprotect"), reason="no mprotect")
@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("name", rows_short.KERNELS)
def test_nothing_outside_a_short_signal_is_read(name, at_end, rng):
    dtype = types_of(name)[0]
    for n, K in ((1, 1), (3, 40), (50, 7), (333, 65)):
        x, h = draw(rng, n, dtype), draw(rng, K, dtype)
        a, b, y = Row(x, at_end), Row(h, at_end), Row(np.zeros(n + K - 1, dtype), at_end)
        fields = dict(x=a.address, n=n, K=K, y=y.address, start=0, count=n + K - 1)
        call(rows_short.KERNELS[name], w=b.address + (K - 1) * h.itemsize, w_step=-1, **fields)
        np.testing.assert_array_equal(y.values(n + K - 1, dtype), short(name, x, h, 0, n + K - 1, True))


@pytest.mark.parametrize("cpu", ["haswell", "x86-64"])
def test_on_a_plainer_cpu(cpu):
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("names an x86 processor")
    if cpu == "haswell" and not llvm.get_host_cpu_features().get("fma"):
        pytest.skip("this processor is plainer")
    environment = {**os.environ, "NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": "+avx2,+fma" if cpu == "haswell" else ""}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-W", "error", "-p", "no:cacheprovider", __file__]
    subset = ["-k", "(f32 or c64 or i16) and not plainer"]
    done = subprocess.run([*command, *subset], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
