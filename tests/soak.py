"""Networks at a new shape every call, for minutes: resident memory stays where it was.

    python -m tests.soak --seconds 300

Every call draws a batch, height, width or length for the next model. Ten times on the way the same calls are made
again, and memory is read.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import sigconv as sc
from tests.cases import networks
from tests.sources import MODELS

AGAIN = 9
"""Calls of each model before memory is read: more than the programs a model keeps."""

ALLOWED = 0.03
"""Growth of the resident memory from the first reading to the last, as a share; less is noise of the allocator."""

Draw = Callable[[np.random.Generator], tuple[int, ...]]


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def subjects() -> dict[str, tuple[sc.Model, Draw]]:
    """Models with symbolic sizes, and how to draw a shape of their first input."""
    found: dict[str, tuple[sc.Model, Draw]] = {
        "batch": (sc.load(networks.cnn("N", size=24)), lambda rng: (int(rng.integers(1, 40)), 3, 24, 24)),
        "batch, height and width": (
            sc.models.unet(base=8, levels=2),
            lambda rng: (int(rng.integers(1, 3)), 3, 4 * int(rng.integers(1, 40)), 4 * int(rng.integers(1, 40))),
        ),
    }
    trained: dict[str, Draw] = {
        "yunet_n_dynamic": lambda rng: (1, 3, 32 * int(rng.integers(1, 12)), 32 * int(rng.integers(1, 12))),
        "ppocr_v2_cls": lambda rng: (int(rng.integers(1, 4)), 3, 48, 32 * int(rng.integers(1, 10))),
        "oww_melspectrogram": lambda rng: (1, int(rng.integers(1200, 40000))),
    }
    return found | {k: (sc.load(MODELS / f"{k}.onnx"), draw) for k, draw in trained.items()}


def soak(seconds: float, seed: int = 1, probes: int = 10) -> dict[str, object]:
    """Calls, and resident megabytes at the ``probes``: each after the same calls, which follow calls of any shapes."""
    models = subjects()
    names, calls = list(models), 0

    def call(rng: np.random.Generator) -> None:
        nonlocal calls
        model, draw = models[names[calls % len(names)]]
        calls += 1
        model.run({model.inputs[0].name: rng.standard_normal(draw(rng), np.float32)})

    rng, found = np.random.default_rng(seed), []
    start = time.monotonic()
    for i in range(probes + 1):  # the first probe is the warm-up
        while time.monotonic() < start + seconds * i / probes:
            call(rng)
        calls, same = calls - calls % len(names), np.random.default_rng(0)
        for _ in range(AGAIN * len(names)):
            call(same)
        gc.collect()
        _trim()
        found.append(resident() / 1e6)
    return {"calls": calls, "seconds": seconds, "resident_mb": found[1:], "growth": found[-1] / found[1] - 1}


def _trim() -> None:
    """Free memory goes back to the system, where the C library can do that: what is left is held by somebody."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    result = soak(arguments.seconds, arguments.seed)
    print(json.dumps(result))
    sys.exit(result["growth"] > ALLOWED)
