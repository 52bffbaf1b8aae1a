"""The convolution family at its edges: the seeds' examples, empty and odd inputs, options, the chooser, shapes."""

from __future__ import annotations

import decimal
import doctest
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import sigconv as sc
from sigconv import geometry, shapes
from sigconv.signal import api, direct, methods, separable
from sigconv.signal import fft as transforms
from tests.cases import naive_signal as naive
from tests.cases import windows

EVERY = (*methods.METHODS, "auto")


@pytest.mark.parametrize("module", [api, shapes])
def test_examples_in_the_docs(module):
    result = doctest.testmod(module)
    assert result.attempted > 3
    assert result.failed == 0


# --- the seeds' cases ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", EVERY)
def test_polynomial_product(method):
    y = sc.convolve([1, 2, 3], [3, 2, 2], method=method)
    assert y.tolist() == [3, 8, 15, 10, 6] == np.polymul([1, 2, 3], [3, 2, 2]).tolist()


@pytest.mark.parametrize(("mode", "expected"), [("full", [0, 1, 2.5, 4, 1.5]), ("same", [1, 2.5, 4]), ("valid", [2.5])])
def test_modes_as_numpy_documents_them(mode, expected):
    assert sc.convolve([1, 2, 3], [0, 1, 0.5], mode).tolist() == expected


def test_same_keeps_the_shape_with_reflection_and_an_even_kernel(rng):
    image, kernel = rng.standard_normal((32, 100)), rng.standard_normal((4, 4))
    y = sc.convolve(image, kernel, "same", boundary="reflect")
    assert y.shape == (32, 100)
    np.testing.assert_allclose(y, naive.convolve(image, kernel, "same", "reflect").astype(float), atol=1e-12)


@pytest.mark.parametrize(
    ("kernel", "flat"),
    [
        ([[0, 0, 0], [0, 1, 0], [0, 0, 0]], 1),
        ([[1, 1, 1], [1, 1, 1], [1, 1, 1]], 9),
        ([[0, -1, 0], [-1, 5, -1], [0, -1, 0]], 1),
        ([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]], 0),
        ([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], 1),
    ],
    ids=["identity", "blur", "sharpen", "edges", "emboss"],
)
def test_image_effects(kernel, flat, rng):
    image = rng.integers(0, 256, (7, 9))
    y = sc.convolve2d(image, kernel, "same", "symm")
    assert y.tolist() == naive.convolve(image, np.array(kernel), "same", "symm").tolist()
    assert (sc.convolve2d(np.full((5, 5), 3), kernel, "same", "symm") == 3 * flat).all()


# --- odd inputs ----------------------------------------------------------------------------------------------------
def test_empty_with_boundaries():
    for boundary in ("edge", "wrap", "symm", "reflect"):
        assert sc.convolve(np.ones((4, 0)), np.full((3, 2), np.nan), "same", boundary=boundary).shape == (4, 0)


@pytest.mark.parametrize("method", EVERY)
@pytest.mark.parametrize(
    ("x", "h", "mode", "expected"),
    [
        ([], [], "full", []),
        ([], [1.0], "full", []),
        ([1.0, 2], [], "full", []),
        ([1.0, 2], [], "valid", []),
        ([1.0, 2], [], "same", [0, 0]),
        ([], [1.0, 2], "same", []),
    ],
)
def test_empty(method, x, h, mode, expected):
    y = sc.convolve(np.array(x, float), np.array(h, float), mode, method)
    assert y.tolist() == expected
    assert y.dtype == float


def test_scalars():
    assert sc.convolve(3, 4) == 12
    assert sc.correlate(2j, 3j) == 6
    assert sc.convolve([[5]], [[7]]).tolist() == [[35]]
    with pytest.raises(ValueError, match="mode"):
        sc.convolve(1, 2, "some")


def test_objects_and_longdouble():
    d = decimal.Decimal
    y = sc.convolve([d("0.1"), d("0.2")], [d("0.3"), d("1")])
    assert y.tolist() == [d("0.03"), d("0.16"), d("0.2")]
    assert sc.correlate(np.array([1, 2], object), np.array([3, 10**30], object)).tolist() == [10**30, 3 + 2 * 10**30, 6]
    third = np.longdouble(1) / 3
    assert sc.convolve([third], np.array([3], np.longdouble), method="direct")[0] == third * 3
    with pytest.raises(TypeError, match="in2 has dtype"):
        sc.convolve([1, 2], ["a", "b"])


def test_memmap_and_lists(tmp_path: Path):
    data = np.arange(20.0)
    data.tofile(tmp_path / "x")
    mapped = np.memmap(tmp_path / "x", float, "r")
    np.testing.assert_array_equal(sc.convolve(mapped, [1, -1]), np.convolve(data, [1, -1]))


def test_inputs_are_not_changed(rng):
    for dtype in (float, np.float32, complex, np.int16):
        x, h = (rng.standard_normal((9, 11)) * 9).astype(dtype), (rng.standard_normal((3, 3)) * 9).astype(dtype)
        before = x.copy(), h.copy()
        for method in EVERY:
            sc.convolve(x, h, method=method)
        np.testing.assert_array_equal(x, before[0])
        np.testing.assert_array_equal(h, before[1])


def test_integers_wrap_or_widen():
    x, h = np.full(5, 200, np.uint8), np.full(3, 200, np.uint8)
    assert sc.convolve(x, h).tolist() == [(200 * 200 * k) % 256 for k in (1, 2, 3, 3, 3, 2, 1)]
    assert sc.convolve(x, h, dtype=np.int64)[2] == 120_000
    big = np.array([2**40], np.int64)
    for method in EVERY:
        assert sc.convolve(big, big, method=method)[0] == 0  # modulo 2**64, not INT_MIN
    with pytest.raises(ValueError, match="dtype=int32 cannot hold float64"):
        sc.convolve([1.0], [2.0], dtype=np.int32)


def test_float16_is_summed_in_float32():
    x = np.full(5000, 1.0, np.float16)
    y = sc.convolve(x, np.ones(5000, np.float16), "valid", "direct")
    assert y.dtype == np.float16
    assert y[0] == 5000  # adding ones in float16 stops at 2048


# --- options -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", EVERY)
def test_out(method, rng):
    x, h = rng.standard_normal((20, 30)), np.outer([1.0, 2, 1], [1.0, 0, -1])
    expected = sc.convolve(x, h, "same", method)
    for out in (np.empty((20, 30)), np.empty((30, 20)).T, np.empty((20, 60))[:, ::2], np.empty((20, 30), complex)):
        assert sc.convolve(x, h, "same", method, out=out) is out
        np.testing.assert_array_equal(out, expected)
    shared = x.copy()
    assert sc.convolve(shared, h, "same", method, out=shared) is shared
    np.testing.assert_array_equal(shared, expected)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.empty(3), "out has shape"),
        (np.empty(4, np.int32), "out has dtype int32"),
        (np.broadcast_to(0.0, 4), "read-only"),
    ],
)
def test_out_that_cannot_take_the_result(out, message):
    with pytest.raises(ValueError, match=message):
        sc.convolve([1.0, 2, 3], [1.0, 1], out=out)


@pytest.mark.parametrize("method", EVERY)
def test_nan_policies(method):
    x, h = np.array([1.0, 2, np.nan, 4, 5]), np.array([0.25, 0.5, 0.25])
    with pytest.raises(ValueError, match="contains NaN"):
        sc.convolve(x, h, "same", method, nan_policy="raise")
    assert np.isnan(sc.convolve(x, h, "same", method)).tolist() == [False, True, True, True, False]
    y = sc.convolve(x, h, "same", method, nan_policy="omit")
    np.testing.assert_allclose(y, [1, (0.25 + 1) / 0.75, (0.5 + 1) / 0.5, (2 + 1.25) / 0.75, 3.5], atol=1e-14)
    assert np.isnan(sc.convolve([np.nan] * 3, h, "same", method, nan_policy="omit")).all()
    clean = np.arange(5.0)
    np.testing.assert_allclose(
        sc.convolve(clean, h, "same", method, nan_policy="omit"), sc.convolve(clean, h, "same", method), atol=1e-15
    )
    with pytest.raises(ValueError, match="nan_policy must be"):
        sc.convolve(x, h, nan_policy="ignore")


def test_axes_and_ranks(rng):
    x, h = rng.standard_normal((3, 50)), rng.standard_normal(5)
    expected = np.array([np.convolve(row, h) for row in x])
    for method in ("direct", "fft", "oa"):
        np.testing.assert_allclose(sc.convolve(x, h, method=method, axes=-1), expected, atol=1e-12)
        np.testing.assert_allclose(sc.convolve(x, h[None], method=method, axes=1), expected, atol=1e-12)
        np.testing.assert_allclose(sc.convolve(x.T, h[:, None], method=method, axes=0), expected.T, atol=1e-12)
    bank = rng.standard_normal((4, 1, 5))
    y = sc.convolve(x[None], bank, axes=-1)
    np.testing.assert_allclose(y, [[np.convolve(row, k[0]) for row in x] for k in bank], atol=1e-12)


def test_a_kernel_longer_than_the_signal_meets_every_boundary(rng):
    x, h = rng.standard_normal(4), rng.standard_normal(23)
    for boundary in ("fill", "edge", "symm", "reflect", "wrap"):
        for method in EVERY:
            y = sc.convolve(x, h, "same", method, boundary=boundary, fillvalue=2)
            np.testing.assert_allclose(y, naive.convolve(x, h, "same", boundary, 2).astype(float), atol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "some"}, "acceptable mode flags"),
        ({"mode": ["full"]}, "acceptable mode flags"),
        ({"method": "magic"}, "acceptable method flags"),
        ({"boundary": "odd"}, "acceptable boundary flags"),
        ({"axes": [5]}, "axes exceeds dimensionality"),
        ({"axes": [0, 0]}, "unique"),
        ({"workers": 0}, "workers=0"),
        ({"max_workspace": -1}, "max_workspace=-1"),
        ({"fillvalue": 1j}, "could not cast `fillvalue`"),
        ({"fillvalue": [1, 2]}, "`fillvalue` must be scalar"),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        sc.convolve(np.arange(5.0), np.arange(3.0), **options)


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="same dimensionality"):
        sc.convolve([1.0], [[1.0]])
    with pytest.raises(ValueError, match="incompatible shapes"):
        sc.convolve(np.ones((3, 5)), np.ones((2, 5)), axes=1)
    with pytest.raises(ValueError, match="at least as large"):
        sc.convolve(np.ones((3, 5)), np.ones((5, 3)), "valid")


# --- the chooser ---------------------------------------------------------------------------------------------------
def test_chooser_explains():
    rng = np.random.default_rng(0)
    method, choice = sc.choose_conv_method(rng.random(200_000), rng.random(9001), explain=True)
    assert method == choice.method == "oa"
    assert choice.seconds["oa"] < choice.seconds["direct"]
    assert 0 < choice.error_bound < 1e-12
    assert "not direct: predicted" in str(choice)
    assert sc.choose_conv_method(rng.random(1000), rng.random(5)) == "direct"
    assert sc.choose_conv_method(np.ones(10, bool), np.ones(4, bool)) == "direct"
    image = rng.random((800, 800))
    assert sc.choose_conv_method(image, np.outer(np.arange(1.0, 16), np.arange(2.0, 17))) == "separable"


def test_chooser_measures():
    method, times = sc.choose_conv_method(np.arange(500.0), np.arange(20.0), measure=True)
    assert method == min(times, key=times.get)
    assert set(times) == {"direct", "oa", "fft"}


def test_chooser_keeps_quiet_parts_from_transforms():
    """Errors of a transform are as large where the signal is quiet as where it is loud."""
    rng = np.random.default_rng(0)
    x, h = rng.standard_normal(200_000), rng.standard_normal(20_001)
    x[100_000:] *= 1e-11
    method, choice = sc.choose_conv_method(x, h, explain=True)
    assert method == "direct"
    assert "quietest part" in choice.rejected["oa"]
    y = sc.convolve(x[-30_000:], h, "valid")
    assert np.abs(y).max() < 1e-7


def test_transforms_of_integers_are_exact_or_refused():
    rng = np.random.default_rng(0)
    x, h = rng.integers(-1000, 1000, 5000), rng.integers(-1000, 1000, 3000)
    assert methods.LEGAL["fft"](api.problems.make(x, h, convolves=True)) is None
    np.testing.assert_array_equal(sc.convolve(x, h, method="fft"), np.convolve(x, h))
    large = x * 10**6
    assert "not provably exact" in methods.LEGAL["fft"](api.problems.make(large, h, convolves=True))
    np.testing.assert_array_equal(sc.convolve(large, h, method="fft"), np.convolve(large, h))


def test_max_workspace_rules_methods_out():
    x, h = np.ones(300_000), np.ones(30_000)
    problem = api.problems.make(x, h, convolves=True)
    assert methods.choose(problem).method in ("oa", "fft")
    choice = methods.choose(problem, 1000)
    assert choice.method == "direct"
    assert "max_workspace is 1000" in choice.rejected["fft"]


def test_factors_of_kernels():
    binomial = np.array([1, 4, 6, 4, 1])
    found = separable.factors(np.outer(binomial, binomial) * 3)
    assert np.array_equal(np.outer(*found), np.outer(binomial, binomial) * 3)
    assert separable.factors(np.array([[1, 2], [3, 4]])) is None
    rng = np.random.default_rng(0)
    a, b, c = rng.standard_normal(5), rng.standard_normal(4), rng.standard_normal(3)
    solid = a[:, None, None] * b[:, None] * c
    assert separable.factors(solid) is not None
    solid[2, 1, 1] += 1e-9
    assert separable.factors(solid) is None


def test_good_sizes():
    sizes = [transforms.good_size(n) for n in range(1, 300)]
    assert all(s >= n for n, s in enumerate(sizes, 1))
    assert all(s <= 1.3 * n + 2 for n, s in enumerate(sizes, 1))


@pytest.mark.parametrize("real", [True, False])
def test_good_sizes_are_those_of_scipy(real, rng):
    fft = pytest.importorskip("scipy.fft")
    for n in (*range(1, 2000), *rng.integers(10**4, 10**9, 50).tolist()):
        assert transforms.good_size(n, real) == fft.next_fast_len(n, real)


def test_many_threads_at_once(rng):
    x, h = rng.standard_normal(3000), rng.standard_normal(31)
    expected, bad = sc.convolve(x, h), []

    def work():
        for _ in range(200):
            if not np.array_equal(sc.convolve(x, h), expected):
                bad.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not bad


def test_choosing_a_method_imports_no_transforms():
    """scipy.fft takes a third of a second to import; whoever sums directly does not wait for it."""
    code = (
        "import sys, numpy as np, sigconv as sc\n"
        "sc.convolve(np.ones(1_000_000, np.float32), np.ones(63, np.float32))\n"
        "print('scipy.fft' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_importing_the_functions_imports_no_numba():
    code = "import sigconv, sys; sigconv.convolve, sigconv.shapes; print({'numba', 'scipy'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


# --- lags and shapes -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize(("n", "k"), [(7, 3), (6, 4), (4, 4), (3, 8)])
def test_lags(mode, n, k):
    """The lag of an impulse against an impulse."""
    lags = sc.correlation_lags(n, k, mode)
    for i in range(n):
        for j in range(k):
            y = sc.correlate(np.eye(n)[i], np.eye(k)[j], mode)
            assert lags.shape == y.shape
            assert lags[y != 0].tolist() == [i - j][: np.count_nonzero(y)]
    assert np.abs(sc.correlation_lags(n, k, mode, max_lag=1)).max(initial=0) <= 1


def test_conv_matrix_is_the_convolution(rng):
    kernel, image = rng.standard_normal((3, 2)), rng.standard_normal((6, 5))
    matrix = shapes.conv_matrix(kernel, image.shape, stride=(2, 1), padding=((1, 0), (0, 1)), dilation=(1, 2))
    expected = windows.conv_nd(
        image[None, None], kernel[None, None], strides=(2, 1), pads=(1, 0, 0, 1), dilations=(1, 2)
    )[0, 0]
    assert expected.shape == shapes.conv_output_shape((6, 5), (3, 2), (2, 1), ((1, 0), (0, 1)), (1, 2))
    np.testing.assert_allclose((matrix @ image.ravel()).reshape(expected.shape), expected, atol=1e-12)


def test_input_sizes_make_the_outputs():
    for kernel, stride, padding, dilation in [(3, 2, 1, 1), (2, 3, 0, 2), (5, 1, 2, 1)]:
        ((least, most),) = shapes.input_sizes_for(4, kernel, stride, padding, dilation)
        sizes = [n for n in range(least - 2, most + 3) if _outputs(n, kernel, stride, padding, dilation) == 4]
        assert (sizes[0], sizes[-1]) == (least, most)
    with pytest.raises(ValueError, match="no input gives"):
        shapes.input_sizes_for(0, 3)


def _outputs(n, kernel, stride, padding, dilation):
    try:
        return shapes.conv_output_shape(n, kernel, stride, padding, dilation)[0]
    except ValueError:
        return 0


def test_shapes_agree_with_geometry():
    assert shapes.pool_output_shape((7,), 3, 2, ceil_mode=True) == geometry.Window.of([7], [3], strides=[2]).output
    assert shapes.conv_transpose_output_shape(shapes.conv_output_shape(9, 3, 2, 1), 3, 2, 1) == (9,)
    assert shapes.halo((8,), 4, padding="same") == ((1, 2),) == shapes.same_padding((8,), 4)
    with pytest.raises(ValueError, match="padding='same'"):
        shapes.conv_transpose_output_shape(4, 3, padding="same")


@pytest.mark.parametrize("shape", [(300,), (40, 70)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_given_array_gets_the_bits_of_a_new_one(shape, dtype, rng):
    x, h = rng.standard_normal(shape).astype(dtype), rng.standard_normal((3,) * len(shape)).astype(dtype)
    strided, wide, unaligned = (
        np.empty((*shape, 2), dtype)[..., 0],
        np.empty(shape, complex),
        np.empty(x.nbytes + 1, "b"),
    )
    for taps in (h, np.where(h == h.flat[1], dtype(np.nan), h)):
        want = sc.convolve(x, taps, "same")
        for out in (np.empty(shape, dtype), strided, wide, unaligned[1:].view(dtype).reshape(shape)):
            assert sc.convolve(x, taps, "same", out=out) is out
            np.testing.assert_array_equal(out, want)
        shared = x.copy()
        np.testing.assert_array_equal(sc.convolve(shared, taps, "same", out=shared), want)
    fixed = np.zeros(shape, dtype)
    fixed.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        sc.convolve(x, h, "same", out=fixed)
    assert not fixed.any()


@pytest.mark.parametrize("mode", ["same", "valid", "full"])
@pytest.mark.parametrize("shapes", [((4, 11, 40), (2, 3, 5)), ((2, 3, 6, 70), (2, 2, 4, 3)), ((2, 4, 540), (2, 2, 3))])
def test_volumes_in_calls_of_any_size(monkeypatch, shapes, mode):
    """Whole planes in a call, a part of one, a row."""
    rng = np.random.default_rng(7)
    x, w = (rng.standard_normal(shape) for shape in shapes)
    expected = naive.convolve(x, w, mode).astype(float)
    for table in (1 << 21, 120, 30, 1):
        monkeypatch.setattr(direct, "TABLE", table)
        np.testing.assert_allclose(sc.convolve(x, w, mode, "direct"), expected, atol=1e-11)


@pytest.mark.parametrize("first", ["outer product", "none"])
def test_taps_decide_in_calls_of_the_same_shapes(first):
    """Where a kernel that is an outer product is summed in passes, whatever kernel came before."""
    rng = np.random.default_rng(5)
    x, w = rng.standard_normal((400, 600 if first == "none" else 601)), rng.standard_normal((11, 11))
    kernels = {"none": w, "outer product": np.outer(w[0], w[1])}
    for name in (first, *kernels, *kernels):
        expected = {method: sc.convolve(x, kernels[name], "same", method) for method in ("direct", "separable")}
        y = sc.convolve(x, kernels[name], "same")
        np.testing.assert_array_equal(y, expected["direct" if name == "none" else "separable"])
        np.testing.assert_allclose(expected["direct"], expected["separable"], atol=1e-11)
    assert (expected["direct"] != expected["separable"]).any() == (name == "outer product")
    spoilt = w.copy()
    spoilt[0, 0] = np.nan
    assert np.isnan(sc.convolve(x, spoilt, "same")).any()
