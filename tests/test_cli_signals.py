"""`sigconv convolve`, `filter` and `explain` of a convolution, as users meet them: files, output, exit codes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sigconv.cli.pictures import EFFECTS
from tests.cases import naive_signal as naive
from tests.cases.command import call


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def soundfile() -> Any:
    return pytest.importorskip("soundfile", reason="sounds need the extra 'cli'")


@pytest.fixture
def image() -> Any:
    return pytest.importorskip("PIL.Image", reason="pictures need the extra 'cli'")


# --- convolve ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("channels", [(1, 1), (2, 2), (2, 1), (1, 3)])
@pytest.mark.parametrize("mode", ["full", "same", "valid"])
def test_sounds(channels, mode, soundfile, rng, capsys):
    a, b = (0.1 * rng.standard_normal((n, c)) for n, c in zip((200, 37), channels, strict=True))
    soundfile.write("a.wav", a, 8000, "DOUBLE")
    soundfile.write("b.wav", b, 8000, "DOUBLE")
    assert call("convolve", "a.wav", "b.wav", "-o", "out.wav", "--mode", mode) == 0
    y, rate = soundfile.read("out.wav", always_2d=True)
    count = max(channels)
    expected = [naive.convolve(a[:, i % channels[0]], b[:, i % channels[1]], mode) for i in range(count)]
    np.testing.assert_allclose(y, np.array(expected, float).T, atol=1e-12)
    assert rate == 8000
    said = capsys.readouterr().out
    assert f"{len(y) / 8000:.3f} s at 8000 Hz" in said
    assert "DOUBLE" in said


@pytest.mark.parametrize("method", ["auto", "direct", "oa", "fft"])
def test_methods_agree(method, soundfile, rng):
    a, b = 0.1 * rng.standard_normal((2, 3000))
    soundfile.write("a.wav", a, 44100, "DOUBLE")
    soundfile.write("b.wav", b[:500], 44100, "DOUBLE")
    assert call("convolve", "a.wav", "b.wav", "-o", "out.wav", "--method", method, "--threads", "1") == 0
    np.testing.assert_allclose(soundfile.read("out.wav")[0], np.convolve(a, b[:500]), atol=1e-12)


def test_normalize_and_clipping(soundfile, capsys):
    soundfile.write("a.wav", np.array([0.5, -0.5, 0.25]), 8000, "PCM_16")
    soundfile.write("b.wav", np.array([0.9, -0.9, 0.9, -0.9]), 8000, "PCM_16")
    assert call("convolve", "a.wav", "b.wav", "-o", "clipped.wav") == 0
    out, err = capsys.readouterr()
    assert "PCM_16" in out
    assert err == (
        "sigconv: 2 of 6 samples were beyond full scale and are clipped: "
        "use --normalize, or a format of floating-point numbers\n"
    )
    for flags, level in (([], 1.0), (["-6"], 10**-0.3)):
        assert call("convolve", "a.wav", "b.wav", "-o", "o.wav", "--normalize", *flags) == 0
        assert capsys.readouterr().err == ""
        y = soundfile.read("o.wav")[0]
        assert np.abs(y).max() == pytest.approx(level, abs=1e-4)
        exact = np.convolve([0.5, -0.5, 0.25], [0.9, -0.9, 0.9, -0.9])
        np.testing.assert_allclose(y, exact / np.abs(exact).max() * level, atol=2e-4)


def test_silence_and_formats(soundfile, capsys):
    soundfile.write("a.wav", np.zeros(10), 8000, "PCM_24")
    for name, subtype in (("o.flac", "PCM_24"), ("o.aif", "PCM_24"), ("o.ogg", "VORBIS")):
        assert call("convolve", "a.wav", "a.wav", "-o", name, "--normalize") == 0
        said = capsys.readouterr().out
        assert subtype in said
        assert "silent" in said
        assert soundfile.info(name).frames == 19


# --- filter --------------------------------------------------------------------------------------------------------
def correlated(pixels: np.ndarray, kernel: np.ndarray, pad: str = "reflect") -> np.ndarray:
    """Plain loops over taps; the window's centre is size // 2."""
    rows, columns = kernel.shape
    spread = [(rows // 2, rows - 1 - rows // 2), (columns // 2, columns - 1 - columns // 2)]
    x = np.pad(pixels.astype(float), [*spread, (0, 0)][: pixels.ndim], mode=pad)
    y = np.zeros(pixels.shape)
    for i in range(rows):
        for j in range(columns):
            y += kernel[i, j] * x[i : i + pixels.shape[0], j : j + pixels.shape[1]]
    return y


SOBEL = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
GAUSS = np.exp(-(np.arange(-4, 5) ** 2) / 2.0) / np.exp(-(np.arange(-4, 5) ** 2) / 2.0).sum()


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        ("box:3", lambda x: correlated(x, np.full((3, 3), 1 / 9))),
        ("gaussian:1", lambda x: correlated(x, np.outer(GAUSS, GAUSS))),
        ("sharpen", lambda x: correlated(x, np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]]))),
        ("emboss", lambda x: correlated(x, np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]))),
        ("sobel", lambda x: np.hypot(correlated(x, SOBEL), correlated(x, SOBEL.T))),
        ("sobel-x", lambda x: np.abs(correlated(x, SOBEL))),
        ("laplacian", lambda x: np.abs(correlated(x, np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])))),
        ("0 1 2 3; 0.5 0 -1 0", lambda x: correlated(x, np.array([[0, 1, 2, 3], [0.5, 0, -1, 0]]))),
    ],
)
def test_pictures(mode, kernel, expected, image, rng, capsys):
    channels = len(mode) if mode != "I;16" else 1
    dtype = np.uint16 if mode == "I;16" else np.uint8
    pixels = rng.integers(0, np.iinfo(dtype).max, (13, 18, channels), dtype, endpoint=True)
    image.fromarray(pixels if channels > 1 else pixels[..., 0]).save("in.png")
    assert call("filter", "in.png", "--kernel", kernel, "-o", "out.png") == 0
    assert f"18x13, {mode}" in capsys.readouterr().out
    with image.open("out.png") as file:
        assert file.mode == mode
        y = np.asarray(file).reshape(pixels.shape)
    colours = channels - (channels in (2, 4))
    np.testing.assert_array_equal(y[..., colours:], pixels[..., colours:])
    exact = np.clip(expected(pixels[..., :colours]), 0, np.iinfo(dtype).max)
    assert np.abs(y[..., :colours] - exact).max() <= 0.5 + 1e-5 * np.iinfo(dtype).max


@pytest.mark.parametrize(
    ("boundary", "pad"),
    [("fill", "constant"), ("edge", "edge"), ("symm", "symmetric"), ("reflect", "reflect"), ("wrap", "wrap")],
)
def test_boundaries(boundary, pad, image, rng):
    pixels = rng.integers(0, 256, (7, 6), np.uint8)
    image.fromarray(pixels).save("in.png")
    assert call("filter", "in.png", "--kernel", "box:5", "-o", "out.png", "--boundary", boundary) == 0
    y = np.asarray(image.open("out.png")).astype(float)
    assert np.abs(y - correlated(pixels, np.full((5, 5), 0.04), pad)).max() <= 0.5 + 1e-4


def test_signed_scaled_and_floating_point(image, rng):
    pixels = rng.standard_normal((6, 7)).astype(np.float32)
    image.fromarray(pixels).save("in.tiff")
    assert call("filter", "in.tiff", "--kernel", "sobel-y", "-o", "out.tiff", "--signed", "--scale", "-0.5") == 0
    y = np.asarray(image.open("out.tiff"))
    np.testing.assert_allclose(y, -0.5 * correlated(pixels, SOBEL.T), atol=1e-5)
    image.fromarray(np.array([[0, 0, 255, 255]], np.uint8)).save("step.png")
    assert call("filter", "step.png", "--kernel", "-1 0 1", "-o", "out.png", "--signed") == 0
    assert np.asarray(image.open("out.png")).tolist() == [[128, 255, 255, 128]]
    assert call("filter", "step.png", "--kernel", "1 0 -1", "-o", "out.png", "--signed") == 0
    assert np.asarray(image.open("out.png")).tolist() == [[128, 0, 0, 128]]


def test_palettes_become_colours(image):
    picture = image.new("P", (3, 2))
    picture.putpalette([10, 20, 30] + [0] * 765)
    picture.save("in.png")
    assert call("filter", "in.png", "--kernel", "box:3", "-o", "out.bmp") == 0
    assert np.asarray(image.open("out.bmp")).tolist() == [[[10, 20, 30]] * 3] * 2


VALUES = {
    "SIZE": "5",
    "SIGMA": "1.5",
    "RADIUS": "2.5",
    "LENGTH": "4",
    "ANGLE": "30",
    "AMOUNT": "0.5",
    "WAVELENGTH": "4",
    "THETA": "1.1",
}


def test_every_kernel_of_the_help_runs(image, rng, capsys):
    assert call("filter", "--help") == 0
    shown = capsys.readouterr().out
    image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).save("in.png")
    for name, effect in EFFECTS.items():
        assert f"  {name}{effect.numbers}" in shown
        written = re.sub("[A-Z]+", lambda word: VALUES[word[0]], name + effect.numbers)
        for text in {re.sub(r"\[.*\]", "", written), re.sub(r"[\[\]]", "", written)}:
            assert call("filter", "in.png", "--kernel", text, "-o", "out.png") == 0, text


# --- explain -------------------------------------------------------------------------------------------------------
def test_explain_says_what_is_chosen_and_why_not_the_others(capsys):
    assert call("explain", "--signal", "1000000", "--kernel", "63", "--dtype", "float32") == 0
    said = capsys.readouterr().out
    assert said.startswith("float32 1000000 with 63, mode full, boundary fill: ")
    for method in ("direct", "separable", "oa", "fft"):
        assert f"\n{method} " in said
    assert "the kernel is long on one axis only" in said
    assert call("explain", "--signal", "1_000_000", "--kernel", "20000", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["method"] in ("oa", "fft")
    assert told["error_bound"] < 1e-10
    assert told["predicted_seconds"][told["method"]] == min(told["predicted_seconds"].values())
    assert set(told["rejected"]) == {"direct", "separable", "oa", "fft"} - {told["method"]}


def test_explain_of_pictures_and_integers(capsys):
    assert call("explain", "--signal", "512x512", "--kernel", "31x31", "--separable", "--mode", "same", "--json") == 0
    assert json.loads(capsys.readouterr().out)["method"] == "separable"
    assert call("explain", "--signal", "512x512", "--kernel", "31x31", "--dtype", "int64") == 0
    assert "not provably exact" in capsys.readouterr().out


def test_explain_measures(capsys):
    assert call("explain", "--signal", "60x70", "--kernel", "5x3", "--measure", "--json", "--boundary", "wrap") == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told["measured_seconds"]) == {"direct", "oa", "fft"}
    assert all(0 < t < 10 for t in told["measured_seconds"].values())
    assert call("explain", "--signal", "60x70", "--kernel", "5x3", "--measure", "--dtype", "uint8") == 0
    assert "measured" in capsys.readouterr().out


def test_explain_needs_no_memory_for_the_signal(capsys):
    assert call("explain", "--signal", "1000000000000", "--kernel", "3", "--dtype", "float16") == 0
    assert "1000000000000 with 3" in capsys.readouterr().out


# --- errors --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["convolve", "a.wav", "none.wav", "-o", "o.wav"], "none.wav: no such file"),
        (["convolve", "a.wav", "junk", "-o", "o.wav"], "junk: no sound that can be read"),
        (["convolve", "a.wav", "fast.wav", "-o", "o.wav"], "a.wav has 8000 samples a second and fast.wav 44100"),
        (["convolve", "two.wav", "three.wav", "-o", "o.wav"], "two.wav has 2 channels and three.wav 3"),
        (["convolve", "a.wav", "a.wav", "-o", "o.xyz"], "o.xyz: write it as .wav"),
        (["convolve", "a.wav", "a.wav", "-o", "no/o.wav"], "no/o.wav: no such folder"),
        (["filter", "none.png", "--kernel", "box:3", "-o", "o.png"], "sigconv: none.png: no such file"),
        (["filter", "junk", "--kernel", "box:3", "-o", "o.png"], "junk: no picture"),
        (["filter", "p.png", "--kernel", "bocks:3", "-o", "o.png"], "no kernel has this name (kernels: gaussian, box"),
        (["filter", "p.png", "--kernel", "gaussian", "-o", "o.png"], "write it as gaussian:SIGMA"),
        (["filter", "p.png", "--kernel", "gaussian:-2", "-o", "o.png"], "--kernel gaussian:-2: sigma is -2"),
        (["filter", "p.png", "--kernel", "gaussian:x", "-o", "o.png"], "write it as gaussian:SIGMA"),
        (["filter", "p.png", "--kernel", "gaussian:inf", "-o", "o.png"], "gaussian:SIGMA"),
        (["filter", "p.png", "--kernel", "box:2.5", "-o", "o.png"], "box:SIZE with whole numbers"),
        (["filter", "p.png", "--kernel", "1 2; 3", "-o", "o.png"], "rows of equally many numbers"),
        (["filter", "p.png", "--kernel", "", "-o", "o.png"], "rows of equally many numbers"),
        (["filter", "p.png", "--kernel", "box:3", "-o", "o.xyz"], "o.xyz: unknown file extension"),
        (["filter", "p.png", "--kernel", "box:3", "-o", "no/o.png"], "no/o.png: No such file"),
        (["filter", "rgba.png", "--kernel", "box:3", "-o", "o.jpg"], "o.jpg: cannot write mode RGBA as JPEG"),
        (["filter", "p.png", "--kernel", "sobel", "-o", "o.png", "--signed"], "--signed is for a single kernel"),
        (["explain", "--signal", "100"], "a MODEL, or about a convolution with --signal and --kernel"),
        (["explain"], "a MODEL, or about a convolution with --signal and --kernel\n"),
        (["export", "lenet5", "-o", "no/o.onnx"], "sigconv: no/o.onnx: No such file"),
        (["info", "m.onnx", "--profile"], "--html"),
        (["explain", "m.onnx", "--signal", "9", "--kernel", "3"], "not both"),
        (["explain", "--signal", "100", "--kernel", "3x3"], "same dimensionality"),
        (["explain", "--signal", "100", "--kernel", "3", "--profile"], "--measure"),
        (["explain", "--signal", "1000000000", "--kernel", "3", "--measure"], "too large"),
    ],
    ids=lambda value: None if isinstance(value, str) else " ".join(value),
)
def test_what_cannot_be_done_is_one_line_and_two(argv, said, capsys, soundfile, image):
    for name, shape, rate in (("a", 5, 8000), ("fast", 5, 44100), ("two", (5, 2), 8000), ("three", (5, 3), 8000)):
        soundfile.write(f"{name}.wav", np.zeros(shape), rate)
    image.new("L", (4, 4)).save("p.png")
    image.new("RGBA", (4, 4)).save("rgba.png")
    Path("junk").write_bytes(b"neither heard nor seen")
    assert call(*argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("sigconv: ")
    assert err.count("\n") == 1
    assert said in err
    assert not Path("o.png").exists()


@pytest.mark.parametrize(
    "argv",
    [
        ["explain", "--signal", "0", "--kernel", "3"],
        ["explain", "--signal", "3xx", "--kernel", "3"],
        ["explain", "--signal", "3", "--kernel", "3", "--dtype", "float33"],
        ["convolve", "a.wav", "b.wav"],
        ["convolve", "a.wav", "b.wav", "-o", "c.wav", "--normalize", "loud"],
        ["filter", "a.png", "-o", "b.png"],
    ],
)
def test_bad_usage_is_two(argv, capsys):
    assert call(*argv) == 2
    assert "usage: sigconv" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("package", "argv"),
    [
        ("soundfile", ["convolve", "a.wav", "a.wav", "-o", "o.wav"]),
        ("PIL", ["filter", "p", "--kernel", "sobel", "-o", "o"]),
    ],
)
def test_what_is_not_installed_is_named(package, argv, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    for name in ("a.wav", "p"):
        Path(name).touch()
    assert call(*argv) == 2
    assert "pip install 'sigconv[cli]'" in capsys.readouterr().err


def test_as_a_process(soundfile, image, rng):
    """The commands of the documents, as typed."""
    soundfile.write("a.wav", 0.1 * rng.standard_normal(100), 8000)
    image.fromarray(rng.integers(0, 256, (8, 9), np.uint8)).save("in.png")
    for line in (
        "convolve a.wav a.wav -o out.wav",
        "filter in.png --kernel gaussian:2 -o out.png",
        "explain --signal 1000000 --kernel 63 --dtype float32",
    ):
        done = subprocess.run([sys.executable, "-m", "sigconv.cli", *line.split()], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), line
        assert done.stdout
