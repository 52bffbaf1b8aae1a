"""The classic nets in torch: their weights, handed over by name, give torch's numbers here."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

import sigconv as sc
from tests.cases.oracle import assert_matches, generator

torch = pytest.importorskip("torch", reason="torch, whose weights are handed over, is not installed")

from tests.cases import torch_classics  # noqa: E402  (imports torch)

PRESERVE = torch.onnx.TrainingMode.PRESERVE
SHAPES = {"lenet5": (3, 1, 32, 32), "unet": (2, 3, 48, 32)}


def trained(name: str) -> torch.nn.Module:
    """The net, its numbers all random: running statistics and biases too."""
    torch.manual_seed(int(generator(name, "weights").integers(1 << 31)))
    net = torch_classics.NETS[name]().eval()
    with torch.no_grad():
        for key, value in net.state_dict().items():
            if key.endswith(("running_var", "bn1.weight", "bn2.weight")):
                value.uniform_(0.5, 1.5)
            elif key.endswith(("running_mean", "bias")):
                value.normal_(0, 0.1)
            elif key.endswith("weight") and value.ndim > 1:
                torch.nn.init.kaiming_normal_(value)
    return net


def test_every_net_has_its_counterpart() -> None:
    assert set(torch_classics.NETS) == set(sc.models.NETS)


@pytest.mark.parametrize("name", torch_classics.NETS)
def test_a_state_dict_gives_torchs_numbers(name: str) -> None:
    net = trained(name)
    model = sc.models.NETS[name](net.state_dict())
    x = generator(name).standard_normal(SHAPES.get(name, (2, 3, 224, 224)), np.float32)
    with torch.no_grad():
        want = net(torch.from_numpy(x)).numpy()
    assert np.ptp(want) > 0.05
    assert_matches({"y": model(x)}, {"y": want})


@pytest.mark.parametrize("how", ["npz", "torchscript", "dynamo"])
def test_files_of_weights(how: str, tmp_path: Path) -> None:
    """An .npz of a state dict, and what torch exports: weights keep their names there."""
    net = trained("resnet18")
    path = tmp_path / ("w.npz" if how == "npz" else "w.onnx")
    x = generator("files").standard_normal((1, 3, 224, 224), np.float32)
    if how == "npz":
        np.savez(path, **{k: v.numpy() for k, v in net.state_dict().items()})
    else:
        pytest.importorskip("onnxscript", reason="onnxscript, which torch's exporters need, is not installed")
        # As it is trained, so that batch normalisations stay nodes with names.
        options = {"optimize": False} if how == "dynamo" else {"do_constant_folding": False, "training": PRESERVE}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of its own deprecations
            torch.onnx.export(net, (torch.from_numpy(x),), path, dynamo=how == "dynamo", verbose=False, **options)
    with torch.no_grad():
        want = net(torch.from_numpy(x)).numpy()
    assert_matches({"y": sc.models.resnet(18, path)(x)}, {"y": want})
