"""The short run of `tests.fuzz`: damaged models are refused or right; and the fuzzer sees what it should."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import sigconv as sc
from tests import fuzz
from tests.cases import mutations, networks

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no resource limits, pipes or links there")


def test_damaged_models_are_refused_or_right(models: Path, tmp_path: Path) -> None:
    counts = fuzz.run(600, seed=2, jobs=1, keep=tmp_path)
    assert sum(counts.values()) == 600
    assert "FAILED" not in counts, f"see {sorted(tmp_path.iterdir())}"
    assert counts["refused"] > 200
    assert counts["right"] > 30, "the damage is too heavy to tell anything"


@pytest.mark.parametrize("name", mutations.HOSTILE)
def test_hostile_files_are_refused(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    import resource

    folder = tmp_path / "model"
    folder.mkdir()
    mutations.furnish(folder)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    fuzz.limit_memory(fuzz.MEMORY)  # rather a failed test than a machine without memory
    request.addfinalizer(lambda: resource.setrlimit(resource.RLIMIT_AS, (soft, hard)))
    for i in range(2 * len(mutations.LOCATIONS) if name.startswith("external") else 3):
        model = networks.cnn(1, size=8)
        mutations.HOSTILE[name](model, np.random.default_rng([3, i]))
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(sc.ModelError):
            sc.load(folder / "model.onnx")


class Oracle(fuzz.Oracle):
    """Says what it was told to."""

    def __init__(self, answers: list[fuzz.Feeds]) -> None:
        self.answers = iter(answers)

    def run(self, data: bytes, feeds: fuzz.Feeds) -> fuzz.Feeds | None:
        return next(self.answers)


def test_the_fuzzer_sees_wrong_answers_and_other_exceptions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    feeds = {"x": np.ones((1, 3, 8, 8), np.float32)}
    case = fuzz.Case("sound", fuzz.cnn(), False, fuzz.cnn(), feeds)
    answers = [{"y": np.zeros((1, 10), np.float32)}, networks.onnxruntime_run(case.sound, feeds)]
    with pytest.raises(fuzz.Wrong, match="other than onnxruntime: 'y' is off"):
        fuzz.attempt(case, tmp_path, Oracle(answers))
    with pytest.raises(fuzz.Wrong, match="must be refused"):
        fuzz.attempt(replace(case, hostile=True), tmp_path, Oracle([]))
    monkeypatch.setattr(sc.Model, "run", lambda self, feeds: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fuzz.attempt(case, tmp_path, Oracle([]))
