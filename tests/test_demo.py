"""The demo's files: what they are, that they are right, and that the script makes them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import sigconv
from sigconv import demo
from sigconv.demo import show


def test_the_model_is_lenet5():
    model = onnx.load(demo.MODEL)
    onnx.checker.check_model(model, full_check=True)
    assert sum(np.prod(w.dims, dtype=int) for w in model.graph.initializer) == 61_706
    (image,) = sigconv.load(demo.MODEL).inputs
    assert (image.dtype, image.shape) == (np.float32, ("batch", 1, 32, 32))


def test_held_out_digits():
    digits, labels = demo.held_out()
    assert digits.shape == (450, 8, 8)
    assert digits.dtype == np.uint8
    assert digits.max() == 16
    assert labels[:20].tolist() == [d for d in range(10) for _ in range(2)]
    assert np.bincount(labels).min() >= 40  # stratified: 1,797 / 10 / 4 of each class


def test_upscale_is_bilinear_between_pixel_centres():
    ramp = np.tile(np.arange(8), (1, 8, 1))
    row = demo.upscale(ramp)[0, 0, 5] * 16
    np.testing.assert_allclose(row[2:-2], (np.arange(2, 30) + 0.5) / 4 - 0.5, atol=1e-6)
    np.testing.assert_array_equal(row[[0, 1, -2, -1]], [0, 0, 7, 7])
    column = demo.upscale(ramp.swapaxes(1, 2))[0, 0, :, 5] * 16
    np.testing.assert_array_equal(column, row)


def test_accuracy_over_the_whole_held_out_part():
    digits, labels = demo.held_out()
    predictions = sigconv.load(demo.MODEL)(demo.upscale(digits)).argmax(1)
    assert (predictions == labels).mean() >= 0.97


@pytest.mark.parametrize("characters", show.BLOCKS.values(), ids=show.BLOCKS)
def test_art(characters: str):
    digits = np.zeros((2, 8, 8), np.uint8)
    digits[0, 0, 0] = digits[0, 3, 1] = 16  # an upper pixel, a lower one
    digits[1, 6:, 7] = 16  # both
    first, second, third, last = show.art(digits, characters)
    _, lower, upper, both = characters
    assert first == upper + " " * 17
    assert second == " " + lower + " " * 16
    assert third == " " * 18
    assert last == " " * 17 + both


def test_the_script_holds_out_the_same_digits():
    pytest.importorskip("torch", reason="training needs the extra 'train'")
    pytest.importorskip("sklearn", reason="training needs the extra 'train'")
    from sigconv.demo import train

    (fit, _), (held, labels) = train.split()
    digits, kept = demo.held_out()
    np.testing.assert_array_equal(held, digits)
    np.testing.assert_array_equal(labels, kept)
    assert len(fit) == 1347


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's exporter, about itself
def test_the_script_reproduces_the_files(tmp_path, monkeypatch):
    """The same digits, and a network as accurate: its bits depend on torch's version and the processor."""
    pytest.importorskip("torch", reason="training needs the extra 'train'")
    pytest.importorskip("sklearn", reason="training needs the extra 'train'")
    from sigconv.demo import train

    monkeypatch.setattr("sys.argv", ["train", "-o", str(tmp_path)])
    train.main()
    assert (tmp_path / demo.DIGITS.name).read_bytes() == demo.DIGITS.read_bytes()
    digits, labels = demo.held_out()
    predictions = sigconv.load(tmp_path / demo.MODEL.name)(demo.upscale(digits)).argmax(1)
    assert (predictions == labels).mean() >= 0.97
