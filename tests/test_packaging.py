"""The package as users get it: built and installed into a fresh virtual environment, both ways."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests import sources

SHIPPED = ["sigconv/py.typed", "sigconv/demo/lenet5.onnx", "sigconv/demo/digits.npz", "sigconv/signal/costs.json"]

PROBE = """
import importlib.metadata, importlib.util, json, pathlib, sigconv, sigconv.export, sigconv.cli, sigconv.demo
home = pathlib.Path(sigconv.__file__).parent
print(json.dumps({
    "sigconv": str(home),
    "export": str(pathlib.Path(sigconv.export.__file__).parent),
    "version": [sigconv.__version__, importlib.metadata.version("sigconv")],
    "missing": [name for name in NAMES if importlib.util.find_spec(name) is None],
    "shipped": [path for path in PATHS if (home.parent / path).is_file()],
    "digits": len(sigconv.demo.held_out()[1]),
}))
"""


def declared() -> set[str]:
    """The packages that pyproject.toml lists (no tomllib on Python 3.10)."""
    text = (sources.ROOT / "pyproject.toml").read_text("utf-8")
    block = re.search(r"^packages = \[(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    assert block is not None
    return set(re.findall(r'"([\w.]+)"', block[1]))


def test_every_package_is_declared():
    names = set()
    for package, home in sources.HOMES.items():
        folders = (path.parent.relative_to(home).parts for path in home.rglob("__init__.py"))
        names |= {".".join((package, *parts)) for parts in folders}
    assert declared() == names


def test_the_demo_is_small():
    assert sum(path.stat().st_size for path in (sources.ROOT / "sigconv/demo").glob("*.[on]*")) <= 300_000


@pytest.mark.parametrize("way", ["copied", "editable"])
def test_install(way: str, tmp_path: Path):
    """``pip install .`` and ``pip install -e .`` in a fresh environment.

    The dependencies come from the environment that runs the tests, by a .pth file; the package is what pip built.
    """
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("sigconv", "export"):
        shutil.copytree(sources.ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(sources.ROOT / name, source)

    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = environment / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run([*command, *(["-e"] if way == "editable" else []), source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    purelib = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.run([python, "-c", purelib], capture_output=True, text=True, check=True).stdout.strip())
    # Packages of the running environment, without its .pth files: those would bring this checkout in.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    names, paths = sorted(declared()), SHIPPED
    probe = PROBE.replace("NAMES", repr(names)).replace("PATHS", repr(paths))
    done = subprocess.run([python, "-W", "error", "-c", probe], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)

    home = source if way == "editable" else site
    assert Path(found["sigconv"]).resolve() == (home / "sigconv").resolve()
    assert Path(found["export"]).resolve() == (home / ("export" if way == "editable" else "sigconv/export")).resolve()
    assert found["version"][0] == found["version"][1]
    assert found["missing"] == []
    assert found["shipped"] == paths
    assert found["digits"] == 450

    entry = python.with_name("sigconv")
    done = subprocess.run([entry, "--version"], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout.split()) == (0, ["sigconv", found["version"][0]])
