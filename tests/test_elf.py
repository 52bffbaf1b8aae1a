"""Kernels linked without LLVM: the same machine code, no import of Numba, and whatever is unusual is refused."""

from __future__ import annotations

import ctypes
import math
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sigconv.kernels import compiler, elf
from sigconv.kernels.late import carray

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="elsewhere LLVM links, as test_jit.py tries"
)

ROOT = Path(__file__).parents[1]
ARGS = np.dtype([("x", np.float64), ("y", np.float64), ("n", np.int64)])
POINTER_AND_SHARE = (ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)


def sample(args, thread, threads):
    """A C function, a switch and constants: references to another library, to a table of addresses, to data."""
    a = carray(args, 1)[0]
    total = math.erf(a.x)
    for i in range(a.n):
        case = i % 5
        if case == 0:
            total += 0.1
        elif case == 1:
            total *= 1.25
        elif case == 2:
            total -= a.x
        elif case == 3:
            total = abs(total)
        else:
            total += thread
    a.y = total


@pytest.fixture(scope="module")
def built() -> tuple[str, bytes]:
    return compiler.object_file(sample, ARGS, "tests.sample")


def run(address: int) -> float:
    record = np.array([(0.3, 0, 23)], ARGS)
    ctypes.CFUNCTYPE(None, *POINTER_AND_SHARE)(address)(record.ctypes.data, 1, 2)
    return float(record["y"][0])


def test_the_same_as_llvm_and_as_python(built: tuple[str, bytes]) -> None:
    symbol, code = built
    ours, theirs = elf.link(code, symbol), compiler.link(code, symbol)
    assert ours
    assert run(ours) == run(theirs)
    record = np.array([(0.3, 0, 23)], ARGS).view(np.recarray)
    total = math.erf(0.3)
    for i in range(23):
        total = (total + 0.1, total * 1.25, total - 0.3, abs(total), total + 1)[i % 5]
    assert run(ours) == pytest.approx(total, rel=1e-14)
    assert record.y[0] == 0


def test_what_runs_cannot_be_written(built: tuple[str, bytes]) -> None:
    address = elf.link(built[1], built[0])
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, permissions, *_ = line.split()
        first, last = (int(end, 16) for end in span.split("-"))
        if first <= address < last:
            assert permissions.startswith("r-x")
            return
    pytest.fail("the address is in no memory")


def test_every_truncated_object_is_refused(built: tuple[str, bytes]) -> None:
    symbol, code = built
    assert not any(elf.link(code[:n], symbol) for n in range(0, len(code), 7))


@pytest.mark.parametrize(
    "old, new",
    [
        (b"\x7fELF\x02\x01", b"\x7fELF\x01\x01"),  # 32 bits
        (b"\x01\x00\x3e\x00", b"\x01\x00\xb7\x00"),  # another machine
        (b"\0erf\0", b"\0erq\0"),  # a function that is nowhere
        (b"sigconv.tests.sample\0", b"sigconv.tests.simple\0"),
    ],
)
def test_an_unusual_object_is_refused(built: tuple[str, bytes], old: bytes, new: bytes) -> None:
    symbol, code = built
    assert old in code
    assert elf.link(code.replace(old, new, 1), symbol) == 0


@pytest.mark.parametrize("name, value", [("_ABSOLUTE", 2), ("_WRITE", 2), ("_PROGBITS", 8)])
def test_other_references_and_sections_are_refused(
    built: tuple[str, bytes], name: str, value: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the object's were of another kind."""
    monkeypatch.setattr(elf, name, value)
    assert elf.link(built[1], built[0]) == 0


@pytest.mark.parametrize("missing", ["_memory", "_protect"])
def test_where_memory_may_not_be_run_llvm_is_asked(
    built: tuple[str, bytes], missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(elf, missing, refuse)
    assert elf.link(built[1], built[0]) == 0


PROGRAM = """
import hashlib, sys
import numpy as np
import sigconv as sc
from sigconv.kernels import elf, jit
if "llvm" in sys.argv:
    elf.link = lambda code, symbol: 0
rng = np.random.default_rng(1)
model = sc.models.lenet5()
x = rng.standard_normal((2, *model.inputs[0].shape[1:])).astype(np.float32)
results = [model.run({model.inputs[0].name: x})[model.outputs[0].name]]
for taps in (5, 999):
    results.append(sc.convolve(rng.standard_normal(5000), rng.standard_normal(taps)))
results.append(sc.nn.max_pool2d(rng.standard_normal((1, 2, 9, 9)).astype(np.float32), 2))
digest = hashlib.sha256(b"".join(r.tobytes() for r in results)).hexdigest()
print(digest, jit.compilations(), sorted({"numba", "llvmlite.binding"} & set(sys.modules)))
"""


def test_a_warm_process_imports_neither_numba_nor_llvm() -> None:
    """Networks, direct and FFT methods and layers; LLVM's linker gives the same bits."""

    def start(*arguments: str) -> list[str]:
        command = [sys.executable, "-c", PROGRAM, *arguments]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=True
        )
        return done.stdout.split(maxsplit=2)

    start()
    digest, compiled, imported = start()
    assert (compiled, imported) == ("0", "[]\n")
    assert start("llvm")[:2] == [digest, "0"]
