"""The CUDA half on a machine without a GPU: its simulator suite, its kernels' assembly, and a CPU half without it.

A process either simulates or does not, so the suite under tests/cuda runs in one of its own while the tests here run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sigconv import demo
from tests.cases.oracle import SEED
from tests.sources import ROOT

CAPABILITIES = ((8, 0), (9, 0))
"""Ampere's A100 and Hopper's H100 and H200."""

MOST_REGISTERS = 255
"""A thread's; the compiler would spill what does not fit."""


Suite = tuple["subprocess.Popen[bytes]", Path]


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    """The simulator suite, running, and where it writes."""
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "SIGCONV_TEST_SEED": str(SEED)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--durations=5", "tests/cuda"]
    log = tmp_path_factory.mktemp("suite") / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT)
        yield process, log
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    "statement",
    [
        "import sigconv, sigconv.cli, sigconv.model, sigconv.nn, sigconv.signal.api",
        "import numpy, sigconv; sigconv.convolve([1., 2.], [3.]); sigconv.nn.relu(numpy.ones(3, 'f4'))",
        "import sigconv; from sigconv import demo; sigconv.load(demo.MODEL).compile({'image': (1, 1, 32, 32)})",
    ],
)
def test_the_cpu_half_imports_nothing_of_cuda(statement: str, suite: Suite):
    code = (
        f"{statement}\nimport sys\n"
        "print([m for m in sys.modules if m.startswith(('numba.cuda.cudadrv', 'numba_cuda', 'cuda.', 'cupy', 'torch'))"
        " or (m.startswith('sigconv') and 'cuda' in m)])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (out.stdout.strip(), out.stderr) == ("[]", "")


def test_without_a_gpu_one_line_says_what_to_install(suite: Suite):
    """Where no driver is: the command line's exit code is 1 for the question, 2 for the attempt."""
    shown = [
        subprocess.run([sys.executable, "-m", "sigconv.cli", *command], capture_output=True, text=True, cwd=ROOT)
        for command in (["gpu"], ["explain", str(demo.MODEL), "--device", "cuda", "--shape", "1,1,32,32"])
    ]
    if shown[0].returncode == 0:
        pytest.skip("there is a GPU")
    assert [done.returncode for done in shown] == [1, 2]
    for text in (shown[0].stdout, shown[1].stderr):
        assert re.search(r"driver|NVVM|pip install", text)
        assert "Traceback" not in text
    assert len(shown[1].stderr.splitlines()) == 1


def _kernels() -> list[str]:
    import sigconv.planner.lower.cuda
    import sigconv.signal.device  # noqa: F401  the two import every kernel
    from sigconv.kernels.cuda.jit import KERNELS

    return sorted(KERNELS)


def _ptxas() -> str | None:
    """The assembler: of NVIDIA's package, which is as new as the compiler, else on the path."""
    homes = [Path(p) / "nvidia" for p in sys.path if p.endswith("site-packages")]
    return next((str(p) for home in homes for p in home.glob("**/bin/ptxas")), None) or shutil.which("ptxas")


@pytest.mark.parametrize("capability", CAPABILITIES, ids=lambda c: f"sm_{c[0]}{c[1]}")
@pytest.mark.parametrize("name", _kernels())
def test_kernels_compile(name: str, capability: tuple[int, int], tmp_path: Path, suite: Suite):
    """To PTX, and to machine code where ptxas is installed: within the register file, hot kernels without the stack."""
    pytest.importorskip("cuda.bindings", reason="the CUDA compiler is not installed: pip install -e '.[ptx]'")
    pytest.importorskip("nvidia", reason="the CUDA compiler is not installed: pip install -e '.[ptx]'")
    from sigconv.kernels.cuda.jit import KERNELS
    from sigconv.kernels.cuda.limits import MAX_SHARED

    kernel = KERNELS[name]
    ptx = kernel.ptx(capability)
    assert f".target sm_{capability[0]}{capability[1]}" in ptx
    assert ("mma.sync" in ptx) == ("_mma_" in name)
    if kernel.hot:
        assert ".local" not in ptx, "a hot kernel indexes its registers"
    ptxas = _ptxas()
    if ptxas is None:
        pytest.skip("compiled to PTX; ptxas, which assembles it, is not installed: pip install -e '.[ptx]'")
    source = tmp_path / "kernel.ptx"
    source.write_text(ptx)
    arch = f"-arch=sm_{capability[0]}{capability[1]}"
    done = subprocess.run([ptxas, "-v", arch, source, "-o", tmp_path / "kernel.cubin"], capture_output=True, text=True)
    if "Unsupported .version" in done.stderr:
        pytest.skip(f"compiled to PTX; this ptxas is older than the compiler: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stderr
    report = done.stderr
    spills = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", report)
    registers = [int(n) for n in re.findall(r"Used (\d+) registers", report)]
    shared = [int(n) for n in re.findall(r"(\d+) bytes smem", report)]
    assert max(registers) <= MOST_REGISTERS
    assert max(registers) * kernel.threads <= 65536, "a block does not fit a multiprocessor's registers"
    assert max(shared, default=0) <= MAX_SHARED
    assert all(stores == loads == "0" for _, stores, loads in spills), report
    if kernel.hot:
        assert all(frame == "0" for frame, _, _ in spills), report


def test_the_simulator_suite_passes(suite: Suite):
    process, log = suite
    process.wait(900)
    out = log.read_text("utf-8", errors="replace")
    assert process.returncode == 0, out[-20000:]
    assert re.search(r"\d{3,} passed", out), out[-2000:]
