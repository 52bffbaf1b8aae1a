"""What machine code depends on outside this package, told without importing Numba or LLVM where that can be."""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
import sys
from pathlib import Path

from sigconv.digest import digest

_PROCESSOR = ("vendor_id", "cpu family", "model", "flags")  # of x86 in /proc/cpuinfo: what LLVM looks at

_DEFAULTS = {
    "CPU_NAME": None,
    "CPU_FEATURES": None,
    "OPT": 3,
    "LOOP_VECTORIZE": 1,
    "SLP_VECTORIZE": 0,
    "BOUNDSCHECK": None,
    "DEBUGINFO_DEFAULT": 0,
}
"""Numba's settings that change its machine code."""


_AVX512_CPUS = (
    "x86-64-v4",
    "skylake-avx512",
    "cascadelake",
    "cooperlake",
    "icelake",
    "tigerlake",
    "rocketlake",
    "sapphirerapids",
    "emeraldrapids",
    "graniterapids",
    "znver4",
    "znver5",
)
_AVX2_CPUS = ("x86-64-v3", "haswell", "broadwell", "skylake", "znver", "alderlake", "raptorlake", "core-avx2")


@functools.cache
def _processor() -> dict[str, str]:
    """The first processor as Linux describes an x86; empty elsewhere."""
    found: dict[str, str] = {}
    try:
        with open("/proc/cpuinfo") as file:
            for line in iter(file.readline, "\n"):
                if not line:
                    break
                name, _, value = line.partition(":")
                found[name.strip()] = value.strip()
    except OSError:
        return {}
    return found if all(name in found for name in _PROCESSOR) else {}


def features() -> frozenset[str]:
    """Instruction sets of this CPU, by the names that LLVM and Linux share (``avx2``, ``fma``, ``avx512f``, …)."""
    if processor := _processor():
        return frozenset(processor["flags"].split())
    import llvmlite.binding as llvm

    return frozenset(name for name, present in llvm.get_host_cpu_features().items() if present)


@functools.cache
def vector_bytes() -> int:
    """Register width of the CPU that Numba compiles for, honouring NUMBA_CPU_NAME and NUMBA_CPU_FEATURES."""
    name, named_features = os.environ.get("NUMBA_CPU_NAME", ""), os.environ.get("NUMBA_CPU_FEATURES", "")
    if name in ("", "host") and not named_features:
        present = features()
    elif named_features:
        present = frozenset(f[1:] for f in named_features.split(",") if f.startswith("+"))
    elif name.startswith(_AVX512_CPUS):
        return 64
    else:
        return 32 if name.startswith(_AVX2_CPUS) else 16
    if {"avx512f", "avx512vl"} <= present:
        return 64
    return 32 if {"avx2", "fma"} <= present else 16


_AMX = {"amx_tile", "amx_bf16", "avx512_bf16"}
_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA = 158, 0x1023, 18
"""Linux's call by which a process asks for the tiles' registers, 8 KB a thread."""


@functools.cache
def matrix_tiles() -> bool:
    """Whether this process may use the bfloat16 tiles of Intel AMX: the CPU has them and Linux lets it."""
    named = {os.environ.get("NUMBA_CPU_NAME", ""), os.environ.get("NUMBA_CPU_FEATURES", "")} - {"", "host"}
    if named or sys.platform != "linux" or vector_bytes() != 64 or not features() >= _AMX:
        return False
    import ctypes

    return ctypes.CDLL(None).syscall(_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA) == 0


def identity() -> str:
    """Everything outside this package that its machine code depends on."""
    processor = _processor()
    if processor:
        cpu = [processor[name] for name in _PROCESSOR]
    else:
        import llvmlite.binding as llvm

        cpu = [llvm.get_process_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()]
    versions = [_version(name) for name in ("numba", "llvmlite", "numpy")]
    return "\0".join([sys.platform, platform.machine(), sys.version, *versions, *cpu, *_settings()])


def _settings() -> list[str]:
    """Numba's settings that are not its defaults; it is asked only if it is there already, or something was set."""
    told = any(f"NUMBA_{name.removesuffix('_DEFAULT')}" in os.environ for name in _DEFAULTS)
    if not (told or "numba" in sys.modules or Path(".numba_config.yaml").exists()):
        return []
    import numba

    given = {name: getattr(numba.config, name, default) for name, default in _DEFAULTS.items()}
    return [f"{name}={value!r}" for name, value in given.items() if value != _DEFAULTS[name]]


def _version(package: str) -> str:
    """The version of an installed package, which is not imported."""
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations if spec else None) or ():
        for name in ("_version.py", "version.py"):
            path = Path(folder) / name
            if path.exists():
                return digest(path.read_bytes()).hexdigest()
    from importlib.metadata import version

    return version(package)
