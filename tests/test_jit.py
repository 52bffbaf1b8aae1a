"""The disk cache of kernels, proven with real processes on a copy of the package that has one small kernel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import llvmlite.binding as llvm
import numba
import numpy as np
import pytest
from numba import carray

import sigconv
from sigconv.kernels import host, jit

TINY = """
import math
import numpy as np
from numba import carray
from sigconv.kernels.jit import kernel

ARGS = np.dtype([("x", np.int64), ("y", np.int64)])


@kernel(ARGS)
def tiny(args, thread, threads):
    a = carray(args, 1)[0]
    a.y = a.x + int(math.erf(a.x))  # 1, from a C function outside the object
"""

RUN = """
import ctypes
import math
import numpy as np
from sigconv.kernels import jit
from sigconv.kernels.cpu.tiny import ARGS, tiny
record = np.array([(41, 0)], ARGS)
ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(tiny.address)(record.ctypes.data, 0, 1)
info = jit.cache_info()
print("y", record["y"][0], "compilations", jit.compilations(), "files", info.files, "problem", info.problem or "none")
"""

Result = tuple[int, int, int, str]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder for PYTHONPATH: the package with its kernels replaced by one small one."""
    source, copy = Path(sigconv.__file__).parent, tmp_path / "site" / "sigconv"
    (copy / "kernels" / "cpu").mkdir(parents=True)
    own = ("__init__", "cache", "compiler", "elf", "host", "jit", "late")
    for name in ("__init__.py", "config.py", "errors.py", *(f"kernels/{module}.py" for module in own)):
        shutil.copy(source / name, copy / name)
    (copy / "kernels/cpu/__init__.py").touch()
    (copy / "kernels/cpu/tiny.py").write_text(TINY)
    return copy


@pytest.fixture
def start(package: Path, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start a process that runs a program on the copied package."""

    def start(program: str = RUN, **env: str) -> subprocess.Popen[str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SIGCONV_", "NUMBA_"))}
        inherited |= {"PYTHONPATH": str(package.parent), "SIGCONV_CACHE_DIR": str(tmp_path / "cache"), **env}
        command = [sys.executable, "-W", "error", "-c", program]
        return subprocess.Popen(
            command, env=inherited, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    return start


def finish(process: subprocess.Popen[str]) -> Result:
    """What the program printed: (y, compilations, files in the cache, problem). It must have ended well and quietly."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert not err
    match = re.fullmatch(r"y (\d+) compilations (\d+) files (\d+) problem (.*)\n", out)
    assert match, out
    return int(match[1]), int(match[2]), int(match[3]), match[4]


def stored(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "kernels").glob("*.kernel"))


def test_second_process_compiles_nothing(start, tmp_path: Path) -> None:
    assert finish(start()) == (42, 1, 1, "none")
    assert finish(start()) == (42, 0, 1, "none")
    assert (tmp_path / "cache" / "kernels").stat().st_mode & 0o777 == 0o700


def test_cold_processes_at_once(start, tmp_path: Path) -> None:
    results = [finish(p) for p in [start() for _ in range(6)]]
    assert {r[0] for r in results} == {42}
    assert sum(r[1] for r in results) >= 1
    assert len(list((tmp_path / "cache" / "kernels").iterdir())) == 1, "no temporary file is left behind"
    assert finish(start()) == (42, 0, 1, "none")


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:-1] + bytes([b[-1] ^ 1])])
def test_damaged_file_is_compiled_anew(start, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    finish(start())
    (path,) = stored(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert finish(start()) == (42, 1, 1, "none")
    assert path.read_bytes()[:32] != damage(whole)[:32] or len(path.read_bytes()) != len(damage(whole))
    assert finish(start()) == (42, 0, 1, "none")


def test_unusable_folders_only_cost_a_compilation(start, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    blocked = start(SIGCONV_CACHE_DIR=str(tmp_path / "file" / "cache"))  # a file is in the way, for root too
    homeless = start(SIGCONV_CACHE_DIR="", HOME="/proc/nowhere", XDG_CACHE_HOME="")
    shared = tmp_path / "shared" / "kernels"
    shared.mkdir(parents=True)
    shared.chmod(0o777)
    untrusted = start(SIGCONV_CACHE_DIR=str(tmp_path / "shared"))
    for process in (blocked, homeless, untrusted):
        y, compilations, files, problem = finish(process)
        assert (y, compilations, files) == (42, 1, 0)
        assert problem != "none"
    assert not list(shared.iterdir())


def test_files_in_a_folder_others_may_write_to_are_not_read(start, tmp_path: Path) -> None:
    finish(start())
    (tmp_path / "cache" / "kernels").chmod(0o775)
    assert finish(start())[1] == 1
    (tmp_path / "cache" / "kernels").chmod(0o700)
    assert finish(start())[1] == 0


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes to read-only folders")
def test_read_only_folder_still_serves(start, tmp_path: Path) -> None:
    finish(start())
    folder = tmp_path / "cache" / "kernels"
    folder.chmod(0o500)
    try:
        assert finish(start()) == (42, 0, 1, "none")
        assert finish(start(NUMBA_OPT="1")) == (42, 1, 1, "none")
    finally:
        folder.chmod(0o700)


def test_full_disk_only_costs_a_compilation(start) -> None:
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
    ignore = "import signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    quiet = {"PYTHONDONTWRITEBYTECODE": "1"}  # Python takes its own files, cut short, for whole
    assert finish(start(limit + ignore + RUN, **quiet)) == (42, 1, 0, "none")
    assert finish(start()) == (42, 1, 1, "none")


def test_any_kernel_source_is_part_of_the_key(start, package: Path) -> None:
    finish(start())
    (package / "kernels" / "helper.py").write_text("ONE = 1\n")
    assert finish(start()) == (42, 1, 2, "none")
    (package / "kernels" / "cpu" / "tiny.py").write_text(TINY.replace("+ int", "+ 1 + int"))
    assert finish(start()) == (43, 1, 3, "none")


def test_source_edited_after_the_import_is_not_stored(start, package: Path) -> None:
    edit = f"import sigconv.kernels.jit\nopen({str(package / 'kernels' / 'added.py')!r}, 'w').close()\n"
    assert finish(start(edit + RUN))[:3] == (42, 1, 0)


def test_cpu_is_part_of_the_key(start) -> None:
    finish(start())
    plain = {"NUMBA_CPU_NAME": "x86-64" if "x86" in os.uname().machine else "generic", "NUMBA_CPU_FEATURES": ""}
    assert finish(start(**plain)) == (42, 1, 2, "none")
    assert finish(start(**plain)) == (42, 0, 2, "none")
    assert finish(start()) == (42, 0, 2, "none")


def test_old_files_are_forgotten_and_used_ones_are_not(start, tmp_path: Path) -> None:
    finish(start())
    (used,) = stored(tmp_path)
    old, leftover = used.with_name("0" * 64 + ".kernel"), used.with_name("tmpabc")
    for path in (old, leftover):
        path.write_bytes(b"x")
        os.utime(path, (time.time() - 40 * 86400,) * 2)
    os.utime(used, (time.time() - 40 * 86400,) * 2)
    finish(start())  # a hit: the file counts as used today
    finish(start(NUMBA_OPT="1"))  # a write: tidies up
    assert used.exists()
    assert not old.exists()
    assert not leftover.exists()


def test_clear_empties_the_folder(start, tmp_path: Path) -> None:
    finish(start())
    process = start("from sigconv.kernels import jit\nprint(jit.cache_clear())")
    assert process.communicate(timeout=60)[0] == "1\n"
    assert not stored(tmp_path)


def test_threads_that_compile_at_once(start) -> None:
    program = """
from concurrent.futures import ThreadPoolExecutor
import numba
from sigconv.kernels import jit
from sigconv.kernels.cpu.tiny import tiny
with ThreadPoolExecutor(16) as pool:  # half of the threads hold Numba's own lock meanwhile
    addresses = [pool.submit(lambda: tiny.address) for _ in range(8)]
    others = [pool.submit(numba.njit("int64(int64)"), lambda x: x + 1) for _ in range(8)]
    assert len({a.result(60) for a in addresses}) == 1
    assert [o.result(60)(1) for o in others] == [2] * 8
assert jit.compilations() == 1
"""
    process = start(program)
    assert process.communicate(timeout=120) == ("", "")
    assert process.returncode == 0


@pytest.mark.parametrize("switch, shown", [("1", True), ("0", False), ("auto", False)])
def test_progress_bar(start, switch: str, shown: bool) -> None:
    process = start("from sigconv.kernels import jit\njit.warmup()\nprint(jit.COMPILED)", SIGCONV_PROGRESS=switch)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "['sigconv.kernels.cpu.tiny.tiny']\n")
    assert ("compiling kernels" in err) == shown


def test_two_kernels_of_one_name_are_refused() -> None:
    def variant(args, thread, threads):
        pass

    variant.__module__, variant.__name__ = "sigconv.kernels.cpu.nowhere", "variant"
    record = np.dtype([("x", np.int64)])
    try:
        jit.kernel(record)(variant)
        with pytest.raises(RuntimeError, match=r"nowhere\.variant.*__name__"):
            jit.kernel(record)(variant)
    finally:
        del jit.KERNELS["sigconv.kernels.cpu.nowhere.variant"]


def test_a_kernel_that_allocates_is_refused() -> None:
    @jit.kernel(np.dtype([("n", np.int64)]))
    def greedy(args, thread, threads):
        a = carray(args, 1)[0]
        a.n = np.ones(a.n).sum()

    with pytest.raises(RuntimeError, match="greedy allocates memory"):
        _ = greedy.address


def test_a_kernel_that_calls_an_unknown_function_is_refused(start) -> None:
    """In a process of its own: Numba's engine keeps the object that cannot be linked."""
    process = start("""
import numpy as np
from numba import carray, types
from sigconv.kernels import jit
nowhere = types.ExternalFunction("sigconv_nowhere", types.int64())
@jit.kernel(np.dtype([("n", np.int64)]))
def lost(args, thread, threads):
    carray(args, 1)[0].n = nowhere()
try:
    lost.address
except RuntimeError as error:
    print(error)
""")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "lost calls sigconv_nowhere" in out


def test_kernels_outside_the_package_stay_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGCONV_CACHE_DIR", str(tmp_path))

    @jit.kernel(np.dtype([("n", np.int64)]))
    def foreign(args, thread, threads):
        carray(args, 1)[0].n = 1

    before = jit.compilations()
    assert foreign.address
    assert jit.compilations() == before + 1
    assert not any(tmp_path.iterdir())
    assert foreign.qualified_name not in jit.KERNELS


def test_the_key_is_the_same_with_and_without_numba() -> None:
    """`host` knows this Numba's defaults: else no process would find the kernels of another."""
    program = "from sigconv.kernels import jit; print(jit.build_id().encode().hex())"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")}
    keys = [
        subprocess.run([sys.executable, "-c", first + program], env=environment, capture_output=True, check=True).stdout
        for first in ("", "import numba; ")
    ]
    assert keys[0] == keys[1]


def test_settings_of_numba_are_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = host.identity()
    monkeypatch.setattr(numba.config, "OPT", 1)
    assert host.identity() != before


def test_the_cpu_is_what_llvm_takes_it_for() -> None:
    named = ("sse2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512vl", "avx512bw")
    theirs = llvm.get_host_cpu_features()
    assert {f for f in named if f in host.features()} == {f for f in named if theirs.get(f)}
