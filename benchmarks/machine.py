"""What a result was measured on, without saying whose machine it was."""

from __future__ import annotations

import platform
import re
from pathlib import Path

from sigconv import config, race

PACKAGES = (
    "sigconv",
    "numba",
    "llvmlite",
    "numpy",
    "scipy",
    "opencv-python",
    "opencv-python-headless",
    "onnxruntime",
    "openvino",
)


def describe() -> dict[str, object]:
    """Processor, cores this process may use, vector extensions, system, and the versions of everything measured."""
    cpu, flags = platform.processor() or platform.machine(), set()
    info = Path("/proc/cpuinfo")
    if info.exists():
        text = info.read_text()
        name = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
        features = re.search(r"^flags\s*: (.*)$", text, re.MULTILINE)
        cpu = name[1].strip() if name else cpu
        flags = set(features[1].split()) if features else set()
    return {
        "cpu": cpu,
        "cores": config.available_cores(),
        "vectors": sorted(flags & {"avx2", "avx512f", "avx512_vnni", "fma", "amx_bf16", "amx_tile"}),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {p: v for p in PACKAGES if (v := race.version(p))},
    }
