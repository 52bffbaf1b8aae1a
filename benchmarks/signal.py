"""Signals side by side: ``python -m benchmarks.signal [--cases PATTERN] [--types float32] [--threads 1 2] [--quick]``.

sigconv beside NumPy, SciPy and OpenCV in one process, taking turns, the fastest of all turns; a process for each number
of threads, since libraries read it when they start. Results are compared before anything is said. A run that names
some cases renews their rows in the document of the day and keeps the others.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
import scipy.ndimage
import scipy.signal

import sigconv as sc
from benchmarks import machine
from benchmarks.cnn import RESULTS

try:
    import cv2
except ImportError:
    cv2 = None  # type: ignore[assignment]

Calls = dict[str, Callable[[], Any]]
"""Library and, where it offers several ways, the function: what to time."""

TOLERANCE = {"float32": 1e-4, "float64": 1e-9, "uint8": 1.0}
"""Of the largest result (uint8: in units), by which libraries may differ and still compute the same thing."""
BOTH, PICTURE = ("float32", "float64"), ("uint8",)


@dataclass(frozen=True)
class Case:
    """A row: its name, the types it is measured with, and the calls for one of them.

    ``goal``: how many times faster than the best peer (or than the library named) we want to be.
    """

    name: str
    types: tuple[str, ...]
    calls: Callable[[np.random.Generator, str], Calls]
    goal: dict[str, float]


def _vectors(n: int, k: int) -> Callable[[np.random.Generator, str], Calls]:
    def calls(rng: np.random.Generator, dtype: str) -> Calls:
        x, w = rng.standard_normal(n).astype(dtype), rng.standard_normal(k).astype(dtype)
        found: Calls = {
            "sigconv": lambda: sc.convolve(x, w, "same"),
            "scipy.convolve": lambda: scipy.signal.convolve(x, w, "same"),
            "scipy.oaconvolve": lambda: scipy.signal.oaconvolve(x, w, "same"),
        }
        if n * k <= 3e8:
            found["numpy"] = lambda: np.convolve(x, w, "same")
        return found

    return calls


def _overlap_add(n: int, k: int) -> Callable[[np.random.Generator, str], Calls]:
    def calls(rng: np.random.Generator, dtype: str) -> Calls:
        x, w = rng.standard_normal(n).astype(dtype), rng.standard_normal(k).astype(dtype)
        return {"sigconv": lambda: sc.oaconvolve(x, w), "scipy": lambda: scipy.signal.oaconvolve(x, w)}

    return calls


def _whole(n: int, k: int) -> Callable[[np.random.Generator, str], Calls]:
    def calls(rng: np.random.Generator, dtype: str) -> Calls:
        x, w = rng.standard_normal(n).astype(dtype), rng.standard_normal(k).astype(dtype)
        return {"sigconv": lambda: sc.fftconvolve(x, w), "scipy": lambda: scipy.signal.fftconvolve(x, w)}

    return calls


def _image(n: int, k: int) -> Callable[[np.random.Generator, str], Calls]:
    """Zeros beyond the borders everywhere; OpenCV correlates, so it gets the kernel reversed."""

    def calls(rng: np.random.Generator, dtype: str) -> Calls:
        x, w = rng.standard_normal((n, n)).astype(dtype), rng.standard_normal((k, k)).astype(dtype)
        found: Calls = {
            "sigconv": lambda: sc.convolve2d(x, w, "same"),
            "scipy.fftconvolve": lambda: scipy.signal.fftconvolve(x, w, "same"),
        }
        if n * n * k * k <= 3e8:
            found["scipy.convolve2d"] = lambda: scipy.signal.convolve2d(x, w, "same")
            found["scipy.ndimage"] = lambda: scipy.ndimage.convolve(x, w, mode="constant")
        if cv2 is not None:
            turned = np.ascontiguousarray(w[::-1, ::-1])
            found["opencv"] = lambda: cv2.filter2D(x, -1, turned, borderType=cv2.BORDER_CONSTANT)
        return found

    return calls


def _gaussian(n: int, sigma: float) -> Callable[[np.random.Generator, str], Calls]:
    def calls(rng: np.random.Generator, dtype: str) -> Calls:
        x, size = rng.standard_normal((n, n)).astype(dtype), 2 * int(4 * sigma + 0.5) + 1
        found: Calls = {
            "sigconv": lambda: sc.ndimage.gaussian_filter(x, sigma, mode="mirror"),
            "scipy": lambda: scipy.ndimage.gaussian_filter(x, sigma, mode="mirror"),
        }
        if cv2 is not None:
            found["opencv"] = lambda: cv2.GaussianBlur(x, (size, size), sigma, borderType=cv2.BORDER_REFLECT_101)
        return found

    return calls


def _bytes(n: int, k: int) -> Callable[[np.random.Generator, str], Calls]:
    def calls(rng: np.random.Generator, dtype: str) -> Calls:
        x = rng.integers(0, 256, (n, n)).astype(dtype)
        w = rng.random((k, k)).astype(np.float32)
        w /= w.sum()
        found: Calls = {"sigconv": lambda: sc.cv.filter2D(x, -1, w)}
        if cv2 is not None:
            found["opencv"] = lambda: cv2.filter2D(x, -1, w)
        return found

    return calls


CASES = (
    Case("convolve 8 × 3", BOTH, _vectors(8, 3), {"numpy": 1}),
    Case("convolve 100 × 5", BOTH, _vectors(100, 5), {"numpy": 1}),
    Case("convolve 1 000 × 5", BOTH, _vectors(1000, 5), {"numpy": 1}),
    Case("convolve 100 000 × 15", BOTH, _vectors(100_000, 15), {"numpy": 15}),
    Case("convolve 1 M × 63", BOTH, _vectors(1_000_000, 63), {"numpy": 12, "scipy": 4}),
    Case("convolve 1 M × 255", BOTH, _vectors(1_000_000, 255), {"scipy": 2}),
    Case("oaconvolve 4 M × 4 095", BOTH, _overlap_add(4_000_000, 4095), {"scipy": 3}),
    Case("oaconvolve 4 M × 65 537", BOTH, _overlap_add(4_000_000, 65_537), {"scipy": 2}),
    Case("fftconvolve 1 M × 1 M", BOTH, _whole(1_000_000, 1_000_000), {"scipy": 1.5}),
    Case("2-D 8² × 3²", BOTH, _image(8, 3), {}),
    Case("2-D 64² × 3²", BOTH, _image(64, 3), {}),
    Case("2-D 512² × 3²", BOTH, _image(512, 3), {"opencv": 1.3, "scipy": 15}),
    Case("2-D 1024² × 7²", BOTH, _image(1024, 7), {"opencv": 1.5}),
    Case("2-D 1024² × 15²", BOTH, _image(1024, 15), {"opencv": 1.5}),
    Case("2-D 1024² × 31²", BOTH, _image(1024, 31), {"opencv": 1.5}),
    Case("Gaussian σ=2 on 2048²", BOTH, _gaussian(2048, 2), {"opencv": 1.5}),
    Case("uint8 5×5 on 2048²", PICTURE, _bytes(2048, 5), {"opencv": 1}),
)


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference as a share of the largest result; of bytes in units."""
    if ours.shape != theirs.shape:
        return float("inf")
    apart = float(np.abs(ours.astype(np.float64) - theirs).max())
    return apart if ours.dtype.kind == "u" else apart / float(np.abs(theirs).max())


def measure(case: Case, dtype: str, threads: int, rounds: int, seconds: float) -> dict[str, Any]:
    """One row: milliseconds of each way's fastest turn, and how far its result is from ours."""
    calls = case.calls(np.random.default_rng(0), dtype)
    best, apart = {}, {}
    with scipy.fft.set_workers(threads):
        ours = calls["sigconv"]()
        repeats = {}
        for name, call in calls.items():
            apart[name] = difference(ours, call())
            start = time.perf_counter()
            call()
            best[name] = time.perf_counter() - start
            repeats[name] = max(1, int(seconds / rounds / best[name]))
        for _ in range(rounds):
            for name, call in calls.items():
                start = time.perf_counter()
                for _ in range(repeats[name]):
                    call()
                best[name] = min(best[name], (time.perf_counter() - start) / repeats[name])
    ways = {n: {"ms": float(f"{s * 1e3:.4g}"), "difference": float(f"{apart[n]:.2g}")} for n, s in best.items()}
    return {"case": case.name, "dtype": dtype, "threads": threads, "goal": case.goal, "ways": ways}


def ratios(row: dict[str, Any]) -> dict[str, float]:
    """By library, the fastest of its ways over ours: above 1 where we are faster."""
    ours = row["ways"]["sigconv"]["ms"]
    best: dict[str, float] = {}
    for name, way in row["ways"].items():
        library = name.split(".")[0]
        best[library] = min(way["ms"], best.get(library, float("inf")))
    return {library: ms / ours for library, ms in best.items() if library != "sigconv"}


def line(row: dict[str, Any]) -> str:
    """The row as text."""
    times = "".join(f"{name} {way['ms']:.4g} ms   " for name, way in row["ways"].items())
    faster = ", ".join(f"{library} {ratio:.2f}x" for library, ratio in ratios(row).items())
    return f"{row['case']:<24} {row['dtype']:<8} {row['threads']} thr   {times} [{faster}]"


def _key(row: dict[str, Any]) -> tuple[int, int, str]:
    names = [case.name for case in CASES]
    return (names.index(row["case"]), row["threads"], row["dtype"])


def main() -> int:
    """1 where results differ, else 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cases", default="", metavar="PATTERN", help="only those whose name this finds")
    parser.add_argument("--types", nargs="+", choices=[*BOTH, *PICTURE], default=[*BOTH, *PICTURE], metavar="TYPE")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.3, help="of each way's turns together")
    parser.add_argument("--quick", action="store_true", help="two short rounds, nothing is written")
    parser.add_argument("-o", "--output", type=Path, help="default: results/signal-<date>.json")
    arguments = parser.parse_args()
    if len(arguments.threads) > 1:
        given, codes = sys.argv[1:], []
        for threads in arguments.threads:  # the last --threads counts
            command = [sys.executable, "-m", "benchmarks.signal", *given, "--threads", str(threads)]
            codes.append(subprocess.run(command, env=_environment(threads), check=False).returncode)
        return max(codes)
    (threads,) = arguments.threads
    os.environ.update(_environment(threads))
    if cv2 is not None:
        cv2.setNumThreads(threads)
    rounds, seconds = (2, 0.01) if arguments.quick else (arguments.rounds, arguments.seconds)
    date = datetime.date.today().isoformat()
    path = arguments.output or (None if arguments.quick else RESULTS / f"signal-{date}.json")
    document: dict[str, Any] = {"rows": []}
    if path is not None and path.exists():
        document = json.loads(path.read_text("utf-8"))
    document |= {"date": date, "machine": machine.describe(), "settings": {"rounds": rounds, "seconds": seconds}}
    wrong = []
    for case in CASES:
        for dtype in case.types if re.search(arguments.cases, case.name) else ():
            if dtype not in arguments.types:
                continue
            row = measure(case, dtype, threads, rounds, seconds)
            print(line(row), flush=True)
            wrong += [
                f"{case.name} {dtype}: {name}"
                for name, way in row["ways"].items()
                if not way["difference"] <= TOLERANCE[dtype]
            ]
            kept = [r for r in document["rows"] if _key(r) != _key(row)]
            document["rows"] = sorted([*kept, row], key=_key)
            if path is not None:
                path.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    if wrong:
        print(f"results differ: {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


def _environment(threads: int) -> dict[str, str]:
    names = ("SIGCONV_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {**os.environ, **dict.fromkeys(names, str(threads))}


if __name__ == "__main__":
    sys.exit(main())
