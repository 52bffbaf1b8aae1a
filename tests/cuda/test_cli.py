"""The command line on a device."""

from __future__ import annotations

import json

import numpy as np

from sigconv import cli, demo


def test_run_and_explain(tmp_path, capsys):
    name = "x.npy"
    digits, labels = demo.held_out()
    np.save(tmp_path / name, demo.upscale(digits[:1]))
    command = ["run", str(demo.MODEL), "-i", str(tmp_path / name), "--device", "cuda", "--json"]
    assert cli.main(command) == 0
    (output,) = json.loads(capsys.readouterr().out)["outputs"].values()
    assert output["top"][0][0]["class"] == labels[0]
    assert cli.main(["explain", str(demo.MODEL), "--device", "cuda", "--shape", "1,1,32,32"]) == 0
    assert "implicit_gemm" in capsys.readouterr().out


def test_gpu_shows_what_was_found(capsys):
    assert cli.main(["gpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "simulator" in found["device"]
    assert "LeNet-5 reads a" in found["self_test"]
