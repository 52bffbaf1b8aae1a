"""The short run of `tests.soak`: no memory is lost over hundreds of shapes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import soak

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")


def test_resident_memory_is_flat(models: Path) -> None:
    found = soak.soak(8, probes=4)
    print(found)
    assert found["calls"] > 200
    assert found["growth"] < 0.1  # the first seconds fill more caches than a model's own


def test_a_leak_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[bytearray] = []
    subjects = soak.subjects

    def leaking() -> dict:
        model, draw = subjects()["batch"]
        return {"leak": (model, lambda rng: (kept.append(bytearray(b"x" * (1 << 26))), draw(rng))[1])}

    monkeypatch.setattr(soak, "subjects", leaking)
    assert soak.soak(0, probes=2)["growth"] > 0.1
