"""The command line as users meet it: output, files and exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from sigconv import demo, race
from sigconv.files import Picture, read_feeds, write_npz
from sigconv.graph.ir import Value
from tests.cases.command import call

LENET = str(demo.MODEL)


@pytest.fixture
def digit(tmp_path: Path) -> str:
    """A held-out 7 as a picture of another size than the model's."""
    image = pytest.importorskip("PIL.Image", reason="pictures need the extra 'cli'")
    digits, labels = demo.held_out()
    pixels = demo.upscale(digits[labels == 7][:1])[0, 0]
    path = tmp_path / "seven.png"
    image.fromarray((pixels * 255).round().astype(np.uint8)).resize((64, 48)).save(path)
    return str(path)


def model_file(path: Path, nodes: list[onnx.NodeProto], inputs: dict[str, list], outputs: list[str]) -> str:
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in inputs.items()]
    results = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs]
    graph = helper.make_graph(nodes, "g", values, results)
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)
    return str(path)


def test_run_classifies_a_picture(digit: str, tmp_path: Path, capsys):
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(f"digit {d}" for d in range(10)))
    out = tmp_path / "out.npz"
    assert call("run", LENET, "-i", digit, "--labels", str(labels), "--top", "2", "-o", str(out)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "logits: float32 [1, 10]"
    assert lines[1].split() == ["sample", "score", "class", "label"]
    assert lines[3].endswith("7  digit 7")
    assert len(lines) == 6  # output, header, rule, two classes, the file
    with np.load(out) as file:
        assert file["logits"].argmax() == 7


def test_what_is_no_list_of_scores_is_told_by_its_range(tmp_path: Path, capsys):
    model = model_file(tmp_path / "m.onnx", [helper.make_node("Log", ["a"], ["y"])], {"a": [2, 2, 2]}, ["y"])
    np.save(tmp_path / "x.npy", np.exp(np.array([[[0, 1], [2, -np.inf]], [[3, 4], [-5, 6]]], np.float32)))
    assert call("run", model, "-i", str(tmp_path / "x.npy")) == 0
    said = capsys.readouterr().out
    assert said == "y: float32 [2, 2, 2]\n  min -5, mean 1.57143, max 6, 1 of 8 not finite\n"


def test_run_as_json(digit: str, capsys):
    assert call("run", LENET, "-i", digit, "--json", "--top", "1", "--threads", "1") == 0
    logits = json.loads(capsys.readouterr().out)["outputs"]["logits"]
    assert (logits["dtype"], logits["shape"]) == ("float32", [1, 10])
    assert [best["class"] for (best,) in logits["top"]] == [7]


def test_json_has_no_nan(tmp_path: Path, capsys):
    model = model_file(tmp_path / "m.onnx", [helper.make_node("Log", ["a"], ["y"])], {"a": [1, 2]}, ["y"])
    np.save(tmp_path / "x.npy", np.array([[1, 0]], np.float32))
    assert call("run", model, "-i", str(tmp_path / "x.npy"), "--json") == 0
    (top,) = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["outputs"]["y"]["top"]
    assert [best["score"] for best in top] == [0, None]


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_run_takes_arrays(kind: str, tmp_path: Path, capsys):
    digits, labels = demo.held_out()
    path = tmp_path / f"x.{kind}"
    images = demo.upscale(digits[:4])
    np.save(path, images) if kind == "npy" else np.savez(path, image=images)
    assert call("run", LENET, "-i", str(path), "--json", "--top", "1") == 0
    top = json.loads(capsys.readouterr().out)["outputs"]["logits"]["top"]
    assert [best["class"] for (best,) in top] == labels[:4].tolist()


def test_outputs_keep_names_that_savez_refuses(tmp_path: Path):
    write_npz(str(tmp_path / "o.npz"), {"file": np.arange(3), "a/b": np.float32(2)})
    with np.load(tmp_path / "o.npz") as file:
        assert file["file"].tolist() == [0, 1, 2]
        assert file["a/b"] == 2


@pytest.mark.parametrize(
    ("shape", "layout", "expected"),
    [
        ((1, 3, 4, 6), None, (1, 3, 4, 6)),
        ((1, 4, 6, 3), None, (1, 4, 6, 3)),
        (("N", 3, None, "W"), None, (1, 3, 5, 2)),  # free sizes: the picture's own
        ((1, 3, 6, 1), "nhwc", (1, 3, 6, 1)),
    ],
)
def test_pictures_take_the_inputs_layout(shape, layout, expected, tmp_path: Path):
    image = pytest.importorskip("PIL.Image", reason="pictures need the extra 'cli'")
    path = tmp_path / "p.png"
    image.new("RGB", (2, 5), (255, 0, 51)).save(path)
    picture = Picture(layout, mean=(0.2,), std=(0.5,))
    (array,) = read_feeds(str(path), [Value("x", np.dtype(np.float32), shape)], picture).values()
    assert array.shape == expected
    assert array.dtype == np.float32
    assert array.flags.c_contiguous
    colours = array[0, :, 0, 0] if expected[1] == 3 and layout is None else array[0, 0, 0]
    if len(colours) == 3:
        np.testing.assert_allclose(colours, [1.6, -0.4, 0.0], atol=1e-6)


def test_pictures_stand_upright(tmp_path: Path):
    image = pytest.importorskip("PIL.Image", reason="pictures need the extra 'cli'")
    picture, exif = image.new("L", (3, 1)), image.Exif()
    picture.putdata([10, 20, 30])
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise
    picture.save(tmp_path / "p.png", exif=exif)
    value = Value("x", np.dtype(np.uint8), (1, 1, None, None))
    (array,) = read_feeds(str(tmp_path / "p.png"), [value], Picture()).values()
    assert array.tolist() == [[[[10], [20], [30]]]]


def test_an_integer_input_gets_the_pixels_themselves(tmp_path: Path):
    image = pytest.importorskip("PIL.Image", reason="pictures need the extra 'cli'")
    path = tmp_path / "p.png"
    image.new("RGB", (1, 1), (255, 0, 51)).save(path)
    (array,) = read_feeds(str(path), [Value("x", np.dtype(np.uint8), (1, 1, 1, 3))], Picture()).values()
    assert array.tolist() == [[[[255, 0, 51]]]]


def test_info(capsys):
    assert call("info", LENET) == 0
    out = capsys.readouterr().out
    for part in ("61,706", "416,520", "image: float32 [1, 1, 32, 32]", "Conv 3", "/0/Conv", "arena"):
        assert part in out


def test_explain_and_profile(capsys):
    assert call("explain", LENET, "--json", "--shape", "image=3,1,32,32") == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert rows[0]["shape"] == [3, 6, 28, 28]
    assert all(row["algorithm"] for row in rows)
    assert call("explain", LENET, "--profile") == 0
    assert "GFLOP/s" in capsys.readouterr().out
    assert call("explain", LENET) == 0
    short = capsys.readouterr().out
    assert call("explain", LENET, "--verbose") == 0
    full = capsys.readouterr().out.splitlines()
    assert [line for line in full if not line.startswith("    ")] == short.splitlines()
    assert any(line.startswith("    not numpy: predicted") for line in full)
    assert all(line.isascii() and len(line) <= 100 for line in full)


def test_names_that_the_terminal_cannot_show(tmp_path: Path):
    model = model_file(
        tmp_path / "m.onnx", [helper.make_node("Relu", ["a"], ["y"], name="n" * 50 + "ő")], {"a": [2]}, ["y"]
    )
    command = [sys.executable, "-m", "sigconv.cli", "explain", model]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}, check=True)
    assert b"?" + b"n" * 38 + b"?" in done.stdout


def test_check(capsys):
    pytest.importorskip("onnxruntime")
    assert call("check", LENET, "--json") == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True


def test_a_failed_check_is_one(monkeypatch, capsys):
    from sigconv.model import Model

    class Report:
        ok = False

        def __str__(self) -> str:
            return "Conv '/0/Conv' differs"

    monkeypatch.setattr(Model, "check", lambda self, feeds, float64: Report())
    assert call("check", LENET) == 1
    assert "differs" in capsys.readouterr().out


def test_bench(capsys):
    assert call("bench", LENET, "--rounds", "1", "--threads", "1", "--json") == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert [r["engine"] for r in results] == race.installed()
    assert all(r["ms"] > 0 and r["difference"] < 1e-5 for r in results)


def test_a_race_reports_the_engine_that_fails(tmp_path: Path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises((RuntimeError, ValueError), match="broken"):
        race.race(["sigconv"], broken, {"x": np.zeros(1, np.float32)}, 1)


def test_a_race_loads_nothing_of_its_caller(tmp_path: Path):
    """Neither time nor memory of an engine includes the caller's script; nor need that be guarded."""
    script = tmp_path / "script.py"
    script.write_text(
        "import numpy as np\nfrom sigconv import race\nprint('once')\n"
        "feeds = {'image': np.zeros((1, 1, 32, 32), np.float32)}\n"
        f"result = race.race(['sigconv'], {LENET!r}, feeds, 1, rounds=1)[0]\n"
        "print(len(result.rounds), result.peak_nbytes > 20e6)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["once", "1", "True"], done.stderr


def test_differences():
    a = np.array([1.0, np.nan, -4.0])
    assert race.difference(a, a) == 0
    assert race.difference(np.array([1.0, np.nan, -3.0]), a) == 0.25
    assert race.difference(np.zeros(3), a) == np.inf
    assert race.difference(np.zeros(2), np.zeros(3)) == np.inf


def test_cache(monkeypatch, tmp_path: Path, capsys):
    monkeypatch.setenv("SIGCONV_CACHE_DIR", str(tmp_path))
    assert call("cache") == 0
    assert str(tmp_path) in capsys.readouterr().out
    assert call("cache", "clear") == 0
    assert "deleted 0 kernels" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["run", "none.onnx", "-i", "x.npy"], "none.onnx"),
        (["run", LENET, "-i", "none.png"], "none.png"),
        (["run", LENET, "-i", "junk.png"], "junk.png"),
        (["run", LENET, "-i", "junk.npy"], "junk.npy"),
        (["run", LENET, "-i", "junk.npz"], "junk.npz"),
        (["run", LENET, "-i", "object.npy"], "object.npy"),
        (["run", LENET, "-i", "float64.npy"], "float64"),
        (["run", LENET, "-i", "wrong.npz"], "wrong_name"),
        (["run", LENET, "-i", "flat.npy"], "(1, 1024)"),
        (["run", LENET, "-i", "flat.npy", "--labels", "none.txt"], "none.txt"),
        (["run", "two.onnx", "-i", "flat.npy"], "a, b"),
        (["run", "two.onnx", "-i", "picture.bmp"], ".npz"),
        (["run", "vector.onnx", "-i", "picture.bmp"], "4 axes"),
        (["run", LENET, "-i", "picture.bmp", "--mean", "1,2,3"], "--mean has 3 numbers"),
        (["run", LENET, "-i", "picture.bmp", "--layout", "nhwc"], "NHWC"),
        (["info", "junk.onnx"], "junk.onnx"),
        (["info", "empty.onnx"], "empty.onnx"),
        (["info", "odd.onnx"], "NoSuchOp"),
        (["info", "."], ".: a folder"),
        (["run", LENET, "-i", "."], ".: a folder"),
        (["run", LENET, "-i", "picture.bmp", "--labels", "."], ".: "),
        (["run", LENET, "-i", "picture.bmp", "--labels", "latin1.txt"], "latin1.txt: no UTF-8"),
        (["run", LENET, "-i", "picture.bmp", "-o", "no/such/folder.npz"], "no/such/folder.npz: "),
        (["explain", "free.onnx"], "--shape"),
        (["explain", LENET, "--shape", "image=1,2"], "image"),
        (["explain", LENET, "--shape", "picture=1,1,32,32"], "picture"),
        (["explain", LENET, "--shape", "image=big"], "image=big"),
        (["explain", LENET, "--measure"], "timed with --profile"),
    ],
    ids=lambda value: None if isinstance(value, str) else " ".join(Path(v).name for v in value),
)
def test_what_cannot_be_read_is_one_line_and_two(argv, said, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("junk.png", "junk.npy", "junk.npz", "junk.onnx"):
        Path(name).write_bytes(b"\x93NUMPY or not, this is no file of any kind")
    Path("empty.onnx").touch()
    Path("latin1.txt").write_bytes("Löwe".encode("latin-1"))
    np.save("object.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save("float64.npy", np.zeros((1, 1, 32, 32)))
    np.save("flat.npy", np.zeros((1, 1024), np.float32))
    np.savez("wrong.npz", wrong_name=np.zeros((1, 1, 32, 32), np.float32))
    Path("picture.bmp").write_bytes(
        bytes.fromhex("424d3a0000000000000036000000280000000100000001000000010018") + bytes(28)
    )
    add = helper.make_node("Add", ["a", "b"], ["y"])
    model_file(Path("two.onnx"), [add], {"a": [1, 4], "b": [1, 4]}, ["y"])
    model_file(Path("vector.onnx"), [helper.make_node("Relu", ["a"], ["y"])], {"a": [1, 4]}, ["y"])
    model_file(Path("free.onnx"), [helper.make_node("Relu", ["a"], ["y"])], {"a": [1, 3, "H", "W"]}, ["y"])
    model_file(Path("odd.onnx"), [helper.make_node("NoSuchOp", ["a"], ["y"], name="n")], {"a": [1]}, ["y"])

    assert call(*argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("sigconv: ")
    assert err.count("\n") == 1
    assert said in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["fly"],
        ["run", LENET],
        ["run", LENET, "-i", "x.npy", "--threads", "0"],
        ["run", LENET, "-i", "x.png", "--std", "1,0,1"],
        ["explain", LENET, "--verbose", "--profile"],
    ],
)
def test_bad_usage_is_two(argv: list[str], capsys):
    assert call(*argv) == 2
    assert "usage: sigconv" in capsys.readouterr().err


def test_a_reader_that_leaves_early_is_no_error():
    """``sigconv explain … | head -n 1``: the pipe closes before everything is written."""
    command = [sys.executable, "-m", "sigconv.cli", "explain", LENET]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_demo(capfd):
    assert call("demo", "--threads", "1") == 0
    out, err = capfd.readouterr()
    assert "445 of all 450 held-out digits (98.9%)" in out
    assert "sigconv 0.0" in out
    assert "/11/Gemm" in out
    assert err == ""
