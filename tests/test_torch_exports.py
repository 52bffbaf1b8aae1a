"""The classic networks as torch exports them, by both exporters, with fixed and dynamic sizes, against onnxruntime."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import sigconv as sc
from tests.cases.oracle import assert_matches, expected, generator, onnxruntime_session

torch = pytest.importorskip("torch", reason="torch, whose exports are read here, is not installed")
pytest.importorskip("onnxscript", reason="onnxscript, which torch's newer exporter needs, is not installed")

from tests.cases import torch_nets  # noqa: E402  (imports torch)


@dataclass(frozen=True)
class Case:
    """``shape`` of the export; ``dynamic`` axes, the image's in multiples of ``multiple``; ``other``: another shape."""

    build: Callable[[], torch.nn.Module]
    shape: tuple[int, ...]
    dynamic: Mapping[int, str]
    other: tuple[int, ...]
    multiple: int = 1


BATCH = {0: "n"}
IMAGE = {0: "n", 2: "h", 3: "w"}

CASES = {
    "lenet5": Case(torch_nets.lenet5, (1, 1, 32, 32), BATCH, (7, 1, 32, 32)),
    "alexnet": Case(torch_nets.alexnet, (1, 3, 224, 224), BATCH, (2, 3, 224, 224)),
    "vgg11": Case(torch_nets.vgg11, (1, 3, 64, 64), BATCH, (3, 3, 64, 64)),
    "resnet18": Case(torch_nets.resnet18, (1, 3, 64, 64), IMAGE, (3, 3, 75, 49)),
    "resnet50": Case(torch_nets.resnet50, (1, 3, 64, 64), IMAGE, (2, 3, 51, 77)),
    "unet": Case(torch_nets.UNet, (1, 3, 48, 64), IMAGE, (2, 3, 88, 40), multiple=8),
}


def dynamic_shapes(case: Case) -> dict[int, torch.export.Dim]:
    """The dynamic axes as the newer exporter wants them."""
    dims = {axis: torch.export.Dim(name, min=2, max=256) for axis, name in case.dynamic.items()}
    return {axis: dim if axis == 0 or case.multiple == 1 else case.multiple * dim for axis, dim in dims.items()}


def export(case: Case, seed: int, path: Path, dynamo: bool, dynamic: bool) -> None:
    """Write the network with seeded weights; the newer exporter puts them into a file beside it."""
    net = torch_nets.initialized(case.build(), seed)
    # A batch of 1 at a dynamic export would be taken for a constant.
    example = torch.zeros((2, *case.shape[1:]) if dynamic else case.shape)
    sizes = {}
    if dynamic:
        sizes = {"dynamic_shapes": (dynamic_shapes(case),)} if dynamo else {"dynamic_axes": {"x": case.dynamic}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its own deprecations
        torch.onnx.export(
            net, (example,), path, input_names=["x"], output_names=["y"], dynamo=dynamo, verbose=False, **sizes
        )
    assert path.with_name(path.name + ".data").exists() == dynamo


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
@pytest.mark.parametrize("name", CASES)
def test_matches_onnxruntime(name: str, dynamo: bool, dynamic: bool, tmp_path: Path) -> None:
    case, path = CASES[name], tmp_path / f"{name}.onnx"
    rng = generator(name, dynamo, dynamic)
    export(case, int(rng.integers(1 << 31)), path, dynamo, dynamic)
    oracle = onnxruntime_session(path)
    if not dynamic:
        feeds = {"x": rng.standard_normal(case.shape, np.float32)}
        (y,) = sc.InferenceSession(path).run(None, feeds)
        assert_matches({"y": y}, expected(oracle, feeds))
        return
    model = sc.load(path)
    (x,) = model.inputs
    assert {i for i, d in enumerate(x.shape) if not isinstance(d, int)} == set(case.dynamic)
    for shape in (case.shape, case.other):
        feeds = {"x": rng.standard_normal(shape, np.float32)}
        want = expected(oracle, feeds)
        assert np.ptp(want["y"]) > 0.05
        assert_matches(model.run(feeds), want)
