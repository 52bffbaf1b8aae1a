"""Single torch layers, exported by both torch exporters with fixed and with dynamic sizes, against onnxruntime.

`python -m tests.test_torch_layers` prints every kind that does not match, and the count.
"""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import sigconv as sc
from tests.cases.oracle import assert_matches, expected, generator, onnxruntime_session

torch = pytest.importorskip("torch", reason="torch, whose exports are read here, is not installed")
pytest.importorskip("onnxscript", reason="onnxscript, which torch's newer exporter needs, is not installed")

logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # of operators of packages that are not installed

from tests.cases.torch_layers import LAYERS, Layer  # noqa: E402  (imports torch)

KINDS = [(name, dynamo, dynamic) for name in LAYERS for dynamo in (False, True) for dynamic in (False, True)]

LEAST = 300
"""Kinds that must match."""


def export(layer: Layer, path: Path, dynamo: bool, dynamic: bool) -> list[str]:
    """Write the layer with seeded weights; the names of its inputs."""
    torch.manual_seed(3)
    module = layer.make().eval()
    for buffer in module.buffers():  # running statistics that are not 0 and 1
        if buffer.dtype == torch.float32:
            buffer.copy_(torch.rand(buffer.shape) + 0.5)
    names = [f"x{i}" for i in range(len(layer.shapes))]
    sizes: dict = {}
    if dynamic and dynamo:
        axes = {axis: torch.export.Dim(f"d{axis}", min=2, max=64) for axis in layer.dynamic}
        sizes = {"dynamic_shapes": (tuple({a: axes[a] for a in layer.dynamic} for _ in names),)}
        if not names[1:] and not hasattr(module, "function"):
            sizes = {"dynamic_shapes": ({a: axes[a] for a in layer.dynamic},)}
    elif dynamic:
        sizes = {"dynamic_axes": {n: {a: f"d{a}" for a in layer.dynamic} for n in names}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its own deprecations
        torch.onnx.export(
            module, tuple(map(torch.zeros, layer.shapes)), path, input_names=names, output_names=["y"], dynamo=dynamo,
            verbose=False, **sizes,
        )  # fmt: skip
    return names


def match(name: str, dynamo: bool, dynamic: bool, folder: Path) -> bool:
    """Whether torch can export the kind; what it exports must match onnxruntime."""
    layer, path = LAYERS[name], folder / "layer.onnx"
    if dynamic and not layer.dynamic:
        return False
    try:
        names = export(layer, path, dynamo, dynamic)
    except Exception as e:
        print(f"{name}: torch cannot export it: {str(e).splitlines()[0][:100] if str(e) else type(e).__name__}")
        return False
    model, oracle, rng = sc.load(path), onnxruntime_session(path), generator(name)
    free = {i.name: i.shape for i in oracle.get_inputs()}  # torch leaves out unused inputs, and fixes some sizes
    for more in (0, 2) if dynamic else (0,):
        feeds = {}
        for n, shape in zip(names, layer.shapes, strict=True):
            if n in free:
                sizes = [s + more * isinstance(d, str) for s, d in zip(shape, free[n], strict=True)]
                feeds[n] = rng.standard_normal(sizes, np.float32)
        assert_matches(model.run(feeds), expected(oracle, feeds))
    return True


def test_layers_match_onnxruntime(tmp_path: Path) -> None:
    matched, wrong = count(tmp_path)
    assert not wrong
    assert matched >= LEAST


def count(folder: Path) -> tuple[int, dict[str, Exception]]:
    """How many kinds match, and those that do not."""
    matched, wrong = 0, {}
    for name, dynamo, dynamic in KINDS:
        try:
            matched += match(name, dynamo, dynamic, folder)
        except Exception as e:
            kind = f"{name} ({'dynamo' if dynamo else 'torchscript'}, {'dynamic' if dynamic else 'static'})"
            wrong[kind] = e
            print(f"{kind}: {type(e).__name__} {str(e)[:300]}", flush=True)
    return matched, wrong


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as root:
        found, failed = count(Path(root))
    print(f"{found} of {len(KINDS)} kinds match, {len(failed)} do not, the others torch cannot export")
    sys.exit(found < LEAST)
