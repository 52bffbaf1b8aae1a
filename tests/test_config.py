"""Knobs: defaults, the environment, values that cannot be read, a container's CPU quota."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sigconv import config


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for knob in config.KNOBS.values():
        monkeypatch.delenv(knob.env, raising=False)


def test_defaults():
    assert config.get("threads") == config.available_cores() >= 1
    assert config.get("cache_dir").name == "sigconv"
    assert config.get("spin_us") == 1000
    assert config.get("progress") == "auto"


def test_the_environment_is_read_when_asked(monkeypatch, tmp_path: Path):
    for name, text, value in [("threads", "3", 3), ("spin_us", " 0 ", 0), ("cache_dir", str(tmp_path), tmp_path)]:
        monkeypatch.setenv(config.KNOBS[name].env, text)
        assert config.get(name) == value
    monkeypatch.setenv("SIGCONV_THREADS", "")
    assert config.get("threads") == config.available_cores()


@pytest.mark.parametrize(
    ("name", "text"), [("threads", "two"), ("threads", "-1"), ("spin_us", "1.5"), ("progress", "on")]
)
def test_a_bad_value_is_named(name: str, text: str, monkeypatch):
    variable = config.KNOBS[name].env
    monkeypatch.setenv(variable, text)
    with pytest.raises(ValueError, match=f"{variable}='{text}' cannot be read"):
        config.get(name)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity masks")
def test_cores_follow_the_affinity_mask():
    mask = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(mask)})
        assert config.available_cores() == 1
    finally:
        os.sched_setaffinity(0, mask)


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        ("0::/a/b\n", {"a/cpu.max": "150000 100000", "a/b/cpu.max": "max 100000"}, 1.5),
        ("0::/a/b\n", {"a/cpu.max": "400000 100000", "a/b/cpu.max": "200000 100000"}, 2.0),
        ("0::/\n", {"cpu.max": "50000 100000"}, 0.5),
        ("0::/a\n", {}, None),
        ("4:cpu,cpuacct:/a\n", {"cpu/a/cpu.cfs_quota_us": "300000", "cpu/a/cpu.cfs_period_us": "100000"}, 3.0),
        ("4:cpu:/a\n", {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, None),
        ("4:memory:/a\n", {"cpu/a/cpu.cfs_quota_us": "1", "cpu/a/cpu.cfs_period_us": "1"}, None),
    ],
)
def test_quota(membership: str, files: dict[str, str], quota: float | None, tmp_path: Path):
    for name, text in files.items():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    (tmp_path / "membership").write_text(membership)
    assert config._cgroup_quota(tmp_path / "root", tmp_path / "membership") == quota


def test_cores_are_cut_by_the_quota_but_never_below_one(monkeypatch):
    monkeypatch.setattr(config, "_cgroup_quota", lambda: 0.5)
    assert config.available_cores() == 1
