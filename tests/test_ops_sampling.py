"""Resize, sampling at positions that are computed, windows, spectra and einsum: against onnxruntime and NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from sigconv.ops import generate, resize, sampling
from tests.cases.onnx_nodes import run_ort
from tests.cases.operator_checks import RNG, check, check_inference, f32, i64, spec_of

# --- Resize -----------------------------------------------------------------------------------------------------------

ORT_COORDINATES = [m for m in resize.COORDINATE_MODES if m != "tf_crop_and_resize"]


@pytest.mark.parametrize("coordinates", ORT_COORDINATES)
@pytest.mark.parametrize("rounding", list(resize.ROUNDING))
def test_nearest_picks_the_elements_that_onnxruntime_picks(coordinates, rounding):
    attrs = {"mode": "nearest", "coordinate_transformation_mode": coordinates, "nearest_mode": rounding}
    x = np.arange(5 * 6, dtype=np.float32).reshape(1, 1, 5, 6)
    for height, width in ((10, 12), (7, 20), (4, 4), (1, 1), (5, 9)):
        check("Resize", [x, None, None, i64(1, 1, height, width)], attrs)


@pytest.mark.parametrize("coordinates", ORT_COORDINATES)
@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("scales", [(2.0, 2.0), (1.7, 0.6), (0.5, 3.0)])
def test_interpolation_equals_onnxruntime(coordinates, mode, scales):
    if coordinates == "align_corners":
        scales = tuple(
            np.round(np.array([9, 7]) * scales) / np.array([9, 7])
        )  # onnxruntime ignores a fractional length
    attrs = {"mode": mode, "coordinate_transformation_mode": coordinates}
    check("Resize", [f32(2, 3, 9, 7), None, np.array([1, 1, *scales], np.float32)], attrs, tol=2e-5)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_options_of_interpolation(mode):
    x = f32(1, 2, 9, 7)
    check("Resize", [x, None, None, i64(1, 2, 4, 3)], {"mode": mode, "antialias": 1, "exclude_outside": 1}, tol=2e-5)
    if mode == "cubic":
        check(
            "Resize",
            [x, None, None, i64(1, 2, 5, 16)],
            {"mode": mode, "exclude_outside": 1, "cubic_coeff_a": -0.5},
            tol=2e-5,
        )
    sizes = {"mode": "linear", "axes": [3, 2]}
    for policy in resize.ASPECT_POLICIES:
        check("Resize", [x, None, None, i64(12, 12)], {**sizes, "keep_aspect_ratio_policy": policy}, tol=2e-5)


def test_crop_and_resize():
    x, region = f32(1, 1, 6, 6), np.array([0, 0, 0.2, -0.31, 1, 1, 0.9, 1.12], np.float32)
    for mode in ("nearest", "linear"):
        attrs = {"mode": mode, "coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 9.0}
        check("Resize", [x, region, None, i64(1, 1, 5, 8)], attrs, tol=2e-5)
    indices, weights = resize.resize_taps(6, 8, 8 / 6, (-0.31, 1.12), "linear", "tf_crop_and_resize")
    outside = indices[:, 0] < 0
    assert outside.any()
    assert (weights[outside] == 0).all()
    np.testing.assert_allclose(weights[~outside].sum(1), 1)


@pytest.mark.parametrize("rank", [1, 2, 3, 5])
def test_resize_of_any_rank(rank):
    sizes = (4, 3, 5, 2, 6)[:rank]
    if rank == 1:  # onnxruntime interpolates from rank 2 on
        x = np.arange(4, dtype=np.float32)
        (y,) = spec_of("Resize").evaluate([x, None, None, i64(8)], {"mode": "linear"})
        np.testing.assert_allclose(y, np.interp((np.arange(8) + 0.5) / 2 - 0.5, np.arange(4), x))
        return
    target = (*sizes[:-2], 7, 5)
    check("Resize", [f32(*sizes), None, None, i64(*target)], {"mode": "linear"}, tol=2e-5)


def test_resize_of_integers_and_empty_tensors():
    evaluate = spec_of("Resize").evaluate
    x = np.array([[0, 255]], np.uint8)
    (y,) = evaluate([x, None, None, i64(1, 4)], {"mode": "cubic"})
    assert y.dtype == np.uint8
    assert y[0, 0] == 0  # cubic undershoots below 0: clamped, not wrapped to 250
    assert y[0, 3] == 255
    (empty,) = evaluate([f32(0, 3, 4, 4), None, np.array([1, 1, 2, 2], np.float32)], {"mode": "linear"})
    assert empty.shape == (0, 3, 8, 8)
    (none,) = evaluate([f32(1, 3, 4, 4), None, None, i64(1, 3, 0, 4)], {"mode": "nearest"})
    assert none.shape == (1, 3, 0, 4)


def test_half_pixel_symmetric_has_no_offset_where_the_length_is_whole():
    """onnxruntime multiplies 9 by float32(1/3), gets a little more than 3, and floors 1 and 4 to 0 and 3."""
    attrs = {"coordinate_transformation_mode": "half_pixel_symmetric", "nearest_mode": "floor"}
    (y,) = spec_of("Resize").evaluate([np.arange(9), None, None, i64(3)], attrs)
    assert y.tolist() == [1, 4, 7]


def test_output_sizes_round_in_single_precision():
    """0.7 as float32 is less than 0.7: only in float32 does 10 x 0.7 reach 7."""
    (step,) = resize.resize_axes((10,), [float(np.float32(0.7))], None)
    assert step.output == 7


# --- Sampling and spectra ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
@pytest.mark.parametrize("padding", sampling.PADDING_MODES)
@pytest.mark.parametrize("corners", [0, 1])
def test_grid_sample(mode, padding, corners):
    points = (RNG.random((2, 4, 5, 2)) * 3 - 1.5).astype(np.float32)
    attrs = {"mode": mode, "padding_mode": padding, "align_corners": corners}
    check("GridSample", [f32(2, 3, 6, 7), points], attrs, tol=2e-4)


@pytest.mark.parametrize("corners", [0, 1])
def test_affine_grid(corners):
    check("AffineGrid", [f32(2, 2, 3), i64(2, 3, 5, 4)], {"align_corners": corners}, tol=1e-5)
    check("AffineGrid", [f32(1, 3, 4), i64(1, 2, 3, 5, 4)], {"align_corners": corners}, tol=1e-5)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_align(mode, ratio):
    corners = RNG.random((6, 2)) * 8
    rois = np.concatenate([corners, corners + RNG.random((6, 2)) * 9], 1).astype(np.float32)
    attrs = {"mode": mode, "output_height": 3, "output_width": 2, "sampling_ratio": ratio, "spatial_scale": 0.5}
    check("RoiAlign", [f32(2, 3, 8, 9), rois, RNG.integers(0, 2, 6)], attrs, tol=1e-5, opset=16)


def test_max_unpool():
    x = f32(1, 1, 4, 6)
    pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
    y, where = run_ort("MaxPool", [x], pool, 2)
    check("MaxUnpool", [y, where], pool)


def test_col2im():
    attrs = {"strides": [2, 1], "pads": [1, 0, 0, 1], "dilations": [1, 2]}
    columns = 3 * 5  # (7 + 1 - 2) / 2 + 1 = 4 rows would need 7; here 6 + 1 rows give 3, and 7 + 1 - 3 give 5
    check("Col2Im", [f32(2, 3 * 4, columns), i64(6, 6), i64(2, 2)], attrs, tol=1e-5)


@pytest.mark.parametrize("name", list(generate.COSINE_WINDOWS))
@pytest.mark.parametrize("periodic", [0, 1])
def test_windows(name, periodic):
    check(name, [np.array(10, np.int64)], {"periodic": periodic}, tol=2e-5)


def test_dft_and_stft_are_numpys():
    x = RNG.standard_normal((2, 9, 1))
    (y,) = spec_of("DFT").evaluate([x, None, np.array(1)], {"onesided": 1})
    np.testing.assert_allclose(y[..., 0] + 1j * y[..., 1], np.fft.rfft(x[..., 0]))
    (back,) = spec_of("DFT").evaluate([y, i64(9), np.array(1)], {"onesided": 1, "inverse": 1})
    np.testing.assert_allclose(back, x)
    window = np.hanning(4)
    (s,) = spec_of("STFT").evaluate([x, np.array(2), window], {})
    frames = np.stack([x[:, i : i + 4, 0] * window for i in (0, 2, 4)], 1)
    np.testing.assert_allclose(s[..., 0] + 1j * s[..., 1], np.fft.rfft(frames))
    check_inference("STFT", [x, np.array(2), window], {}, [s])


@pytest.mark.parametrize(
    "equation, sizes",
    [
        ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)]),
        ("...ij,jk->...ik", [(2, 3, 4), (4, 5)]),
        ("ii", [(4, 4)]),
        ("ij,jk,kl", [(2, 3), (3, 4), (4, 2)]),
        ("i,j->ji", [(3,), (2,)]),
    ],
)
def test_einsum(equation, sizes):
    check("Einsum", [f32(*s) for s in sizes], {"equation": equation}, tol=1e-5)


def test_det():
    check("Det", [f32(3, 4, 4)], {}, tol=1e-4)
