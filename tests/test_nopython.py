"""sigconv's functions inside users' own ``@njit`` functions: the same results as from Python."""

from __future__ import annotations

import importlib.metadata
import itertools
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

import sigconv as sc
from sigconv import nn, nopython
from sigconv.errors import InputError
from sigconv.nopython import native
from tests.cases import naive_signal as naive

MODES = ("full", "same", "valid")
BOUNDARIES = ("fill", "edge", "symm", "reflect", "wrap")
nopython.init()  # what Numba does by itself where the package is installed with this version's metadata


@numba.njit
def convolve(x, w, mode, boundary, fillvalue):
    return sc.convolve(x, w, mode, boundary=boundary, fillvalue=fillvalue)


@numba.njit
def correlate(x, w, mode, boundary, fillvalue):
    return sc.correlate(x, w, mode, boundary=boundary, fillvalue=fillvalue)


@numba.njit
def convolve2d(x, w, mode, boundary, fillvalue):
    return sc.convolve2d(x, w, mode, boundary, fillvalue)


@numba.njit
def correlate2d(x, w, mode, boundary, fillvalue):
    return sc.correlate2d(x, w, mode, boundary, fillvalue)


def numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    if kind.kind in "iu":
        info = np.iinfo(kind)
        return rng.integers(info.min, info.max, shape, kind, endpoint=True)
    values = rng.standard_normal(shape)
    return (values + 1j * rng.standard_normal(shape) if kind.kind == "c" else values).astype(kind)


def laid_out(a: np.ndarray, layout: str) -> np.ndarray:
    """The same numbers: C-ordered, Fortran-ordered, spread out, reversed, or read-only."""
    if layout == "F":
        return np.asfortranarray(a)
    if layout == "spread":
        wide = np.zeros([2 * n for n in a.shape], a.dtype)
        wide[tuple(slice(None, None, 2) for _ in a.shape)] = a
        return wide[tuple(slice(None, None, 2) for _ in a.shape)]
    if layout == "reversed":
        return np.flip(np.flip(a).copy())
    a = a.copy()
    a.setflags(write=layout != "frozen")
    return a


SIZES = {1: [((9,), (4,)), ((3,), (7,)), ((1,), (1,)), ((40,), (5,))], 2: [((6, 7), (3, 2)), ((2, 5), (4, 6))]}


def check(function: Any, python: Any, loops: Any, rank: int, dtypes: tuple[str, str], layouts: tuple[str, str], rng):
    """Every mode, boundary and fill, against the function in Python and against loops (a third of them)."""
    number = "bc".count(np.result_type(*dtypes).kind)
    cases = itertools.product(SIZES[rank], MODES, BOUNDARIES, (0.0, 1.0 if number else 2.0))
    for i, ((shape1, shape2), mode, boundary, fill) in enumerate(cases):
        if mode == "valid" and len({n >= k for n, k in zip(shape1, shape2, strict=True)}) > 1:
            continue
        x, w = (
            laid_out(numbers(rng, shape1, dtypes[0]), layouts[0]),
            laid_out(numbers(rng, shape2, dtypes[1]), layouts[1]),
        )
        y = function(x, w, mode, boundary, fill)
        expected = python(x, w, mode, boundary=boundary, fillvalue=fill, method="direct")
        assert y.dtype == expected.dtype
        exact = y.dtype.kind in "biu"
        atol = (
            0
            if exact
            else (1e-6 if y.dtype.char in "fF" else 1e-13)
            * np.abs(w.astype(complex)).sum()
            * max(2, abs(x.astype(complex)).max())
        )
        np.testing.assert_allclose(y, expected, rtol=0, atol=atol)
        if i % 3 == 0 and loops is not None:
            plain = loops(x, w, mode, boundary, int(fill)).astype(object)
            if exact:
                np.testing.assert_array_equal(y, naive.wrapped(plain, y.dtype))
            else:
                np.testing.assert_allclose(y, plain.astype(complex), rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("dtypes", "layouts"),
    [
        (("float64", "float64"), ("C", "C")),
        (("float32", "float32"), ("spread", "C")),
        (("complex128", "complex128"), ("F", "F")),
        (("complex64", "float32"), ("frozen", "C")),
        (("float64", "complex64"), ("C", "reversed")),
        (("uint8", "uint8"), ("C", "C")),
        (("bool", "bool"), ("reversed", "spread")),
        (("int64", "uint32"), ("C", "F")),
        (("int16", "float32"), ("F", "C")),
    ],
    ids=lambda v: "-".join(v),
)
def test_matrices(dtypes, layouts, rng):
    check(convolve, sc.convolve, naive.convolve, 2, dtypes, layouts, rng)


@pytest.mark.parametrize(
    ("dtypes", "layouts"),
    [(("float32", "float32"), ("C", "C")), (("complex64", "complex64"), ("spread", "C")),
     (("uint64", "int8"), ("frozen", "reversed"))],
    ids=lambda v: "-".join(v),
)  # fmt: skip
def test_vectors(dtypes, layouts, rng):
    check(convolve, sc.convolve, naive.convolve, 1, dtypes, layouts, rng)


@pytest.mark.parametrize("dtypes", [("float64", "complex128"), ("int32", "int32")], ids="-".join)
def test_correlation(dtypes, rng):
    check(correlate, sc.correlate, naive.correlate, 1, dtypes, ("C", "C"), rng)
    check(correlate2d, sc.correlate2d, None, 2, dtypes, ("C", "C"), rng)


def test_convolve2d(rng):
    check(convolve2d, sc.convolve2d, naive.convolve, 2, ("float64", "float64"), ("C", "C"), rng)


@pytest.mark.parametrize("shapes", [((100_000,), (37,)), ((700,), (600,)), ((3000,), (2999,)), ((200, 301), (9, 7))])
@pytest.mark.parametrize("boundary", ["fill", "reflect"])
def test_long_ones_have_the_bits_of_the_direct_method(shapes, boundary, rng):
    x, w = (rng.standard_normal(s) for s in shapes)
    for mode in MODES:
        y = convolve(x, w, mode, boundary, 0.0)
        np.testing.assert_array_equal(y, sc.convolve(x, w, mode, "direct", boundary=boundary))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("in_kernel", [False, True])
def test_what_is_not_finite_reaches_what_it_does_in_python(value, in_kernel, rng):
    for mode, boundary, shapes in itertools.product(MODES, BOUNDARIES, SIZES[2]):
        if mode == "valid" and shapes == SIZES[2][1]:
            shapes = shapes[::-1]
        x, w = (rng.standard_normal(s) for s in shapes)
        array = w if in_kernel else x
        array.flat[rng.integers(array.size)] = value
        y, expected = convolve(x, w, mode, boundary, 0.0), sc.convolve(x, w, mode, boundary=boundary)
        np.testing.assert_allclose(y, expected, atol=1e-12)
        z = w + 1j * (w.real > 9)  # complex, with imaginary parts of 0
        y, expected = convolve(z[:, ::-1], z, mode, boundary, 0.0), sc.convolve(z[:, ::-1], z, mode, boundary=boundary)
        np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))


@pytest.mark.parametrize("shapes", [((0,), (3,)), ((4,), (0,)), ((0,), (0,)), ((0, 3), (2, 2)), ((3, 3), (2, 0))])
def test_empty(shapes):
    for mode in ("full", "same"):
        x, w = (np.ones(s) for s in shapes)
        y, expected = convolve(x, w, mode, "fill", 0.0), sc.convolve(x, w, mode)
        assert y.shape == expected.shape
        np.testing.assert_array_equal(y, expected)


def test_errors():
    x, w = np.ones((3, 5)), np.ones((4, 2))
    with pytest.raises(ValueError, match="For 'valid' mode"):
        convolve(x, w, "valid", "fill", 0.0)
    with pytest.raises(ValueError, match="acceptable mode flags"):
        convolve(x, w, "most", "fill", 0.0)
    with pytest.raises(ValueError, match="acceptable boundary flags"):
        convolve(x, w, "full", "cliff", 0.0)
    with pytest.raises(ValueError, match="could not cast `fillvalue`"):
        convolve(x, w, "full", "fill", 1j)

    @numba.njit
    def literal(x, w):
        return sc.convolve(x, w, "all")

    with pytest.raises(ValueError, match="acceptable mode flags"):
        literal(x, w)

    @numba.njit
    def ranks(x, w):
        return sc.convolve(x, w)

    with pytest.raises(ValueError, match="same dimensionality"):
        ranks(x, np.ones(3))

    @numba.njit
    def by_fft(x, w, method):
        return sc.convolve(x, w, "full", method)

    with pytest.raises(ValueError, match="in compiled code the method is 'direct'"):
        by_fft(x, w, "fft")
    with pytest.raises(numba.TypingError, match="arrays of 1 or 2 axes"):
        ranks(np.ones((2, 2, 2)), w)
    with pytest.raises(numba.TypingError, match="arrays of 1 or 2 axes"):
        ranks(x, 3.0)


def test_nested_and_parallel(rng):
    @numba.njit
    def smooth(x):
        return sc.convolve(x, np.array([0.25, 0.5, 0.25]), mode="same", boundary="reflect")

    @numba.njit(nogil=True)
    def twice(x):
        return smooth(smooth(x))

    @numba.njit(parallel=True)
    def each(xs):
        y = np.empty_like(xs)
        for i in numba.prange(len(xs)):
            y[i] = twice(xs[i])
        return y

    xs = rng.standard_normal((50, 333))
    h = np.array([0.25, 0.5, 0.25])
    expected = [sc.convolve(sc.convolve(x, h, "same", boundary="reflect"), h, "same", boundary="reflect") for x in xs]
    np.testing.assert_array_equal(each(xs), expected)


# --- pooling -------------------------------------------------------------------------------------------------------
@numba.njit
def max_pool(x, k, s, p, d, ceil_mode):
    return nn.max_pool2d(x, k, s, p, d, ceil_mode)


@numba.njit
def avg_pool(x, k, s, p, ceil_mode, include):
    return nn.avg_pool2d(x, k, s, p, ceil_mode, include)


@pytest.mark.parametrize(("dtype", "shape"), [("float32", (2, 3, 9, 11)), ("float64", (3, 12, 7))])
def test_pools(dtype, shape, rng):
    for _ in range(60):
        x = numbers(rng, shape, dtype)
        x.flat[rng.integers(x.size, size=3)] = [np.nan, np.inf, -np.inf]
        k, s, d = (tuple(int(v) for v in rng.integers(1, top, 2)) for top in (4, 4, 3))
        p = tuple(int(rng.integers(0, n)) for n in k)
        ceil_mode, include = (bool(b) for b in rng.integers(0, 2, 2))
        y, expected = max_pool(x, k, s, p, d, ceil_mode), nn.max_pool2d(x, k, s, p, d, ceil_mode)
        np.testing.assert_array_equal(y, expected)
        assert y.dtype == expected.dtype
        y, expected = avg_pool(x, k, s, p, ceil_mode, include), nn.avg_pool2d(x, k, s, p, ceil_mode, include)
        np.testing.assert_allclose(y, expected, rtol=1e-5 if dtype == "float32" else 1e-12)


def test_pools_with_other_arguments(rng):
    @numba.njit
    def pools(x):
        return (
            nn.max_pool2d(x, 3),
            nn.max_pool2d(x, (3, 2), padding=((1, 0), (0, 1))),
            nn.avg_pool2d(x, (3, 2), stride=1, divisor_override=7),
        )

    x = laid_out(rng.standard_normal((2, 2, 8, 9)), "spread")
    expected = pools.py_func(x)
    for y, e in zip(pools(x), expected, strict=True):
        np.testing.assert_allclose(y, e, rtol=1e-12)


def test_pools_refuse_what_python_refuses():
    x = np.ones((1, 4, 4))
    for k, s, p, d in (
        ((5, 5), (1, 1), (0, 0), (1, 1)),
        ((2, 2), (1, 1), (2, 2), (1, 1)),
        ((2, 2), (0, 1), (0, 0), (1, 1)),
    ):
        with pytest.raises(InputError):
            nn.max_pool2d(x, k, s, p, d)
        with pytest.raises(InputError):
            max_pool(x, k, s, p, d, False)

    @numba.njit
    def indices(x):
        return nn.max_pool2d(x, 2, return_indices=True)

    with pytest.raises(numba.TypingError):
        indices(x)
    with pytest.raises(numba.TypingError, match="float32 and float64"):
        max_pool(x.astype(np.int64), (2, 2), (1, 1), (0, 0), (1, 1), False)


# --- how it gets there ---------------------------------------------------------------------------------------------
def installed() -> bool:
    """Whether this environment's metadata have the entry point; always in CI."""
    points = importlib.metadata.entry_points(group="numba_extensions")
    return any(p.value == "sigconv.nopython:init" for p in points)


PROGRAM = """
import sys
import numpy as np
import numba
import sigconv as sc

@numba.njit(cache=True, parallel=True)
def each(xs, w):
    y = np.empty_like(xs)
    for i in numba.prange(len(xs)):
        y[i] = sc.convolve(xs[i], w, "same", boundary="wrap")
    return y

@numba.njit(cache=True)
def pooled(x):
    return sc.nn.max_pool2d(x, 2)

xs = np.arange(40.0).reshape(4, 10)
y = each(xs, np.array([1.0, 10.0]))
print(y.sum(), pooled(xs[None])[0, 0, 0], each.stats.cache_hits[each.signatures[0]] if each.stats.cache_hits else 0)
"""


def test_a_fresh_process_needs_the_entry_point_only(tmp_path: Path):
    """Twice: the second run takes the user's functions out of Numba's cache, and the first call is a thread's."""
    if not installed():
        assert not os.environ.get("CI")
        pytest.skip("the installed metadata lack the entry point: install the package again (pip install -e .)")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    for hits in (0, 1):
        done = subprocess.run(
            [sys.executable, program], capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=120
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == ["8580.0", "11.0", str(hits)]
        assert done.stderr == ""


def test_numba_alone_loads_nothing_of_ours():
    """Other people's programs in the same environment pay nothing."""
    code = textwrap.dedent("""
        import sys, numba
        from sigconv.nopython import init
        init()
        numba.njit(lambda x: x + 1)(1)
        print(sorted(m for m in sys.modules if m.startswith("sigconv.") and m != "sigconv.nopython"))
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['sigconv.nopython.native']"


def test_code_for_another_layout_of_arguments_finds_no_kernel():
    from sigconv.kernels.cpu import image

    name = native.name_of(image.LAY_OUT)
    assert native.resolve(name.encode()) == image.LAY_OUT.address
    assert native.resolve(f"{name}x".encode()) == 0
    assert native.resolve(b"nowhere:0") == 0
