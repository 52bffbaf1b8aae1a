"""A new process, from ``python`` to its first result: ``python -m benchmarks.startup``, then ``benchmarks.render``.

Everybody does the same task in a process of their own, in turns, kernels compiled and files read before; the fastest
of all rounds by the clock, and the most memory that was resident.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks import machine, nets
from benchmarks.cnn import RESULTS

PEAK = "print([l.split()[1] for l in open('/proc/self/status') if l.startswith('VmHWM')][0])"
"""Prints the process' peak in KiB."""

ARRAYS = "import numpy as np; x, h = np.ones(100_000, np.float32), np.ones({taps}, np.float32)"


def _signal(taps: int, function: str) -> dict[str, str]:
    arrays = ARRAYS.format(taps=taps)
    return {
        "sigconv": f"{arrays}; import sigconv as sc; sc.{function}(x, h)",
        "scipy": f"{arrays}; import scipy.signal as ss; ss.{function}(x, h)",
    }


def _net(name: str) -> dict[str, str]:
    file = nets.path_of(name)
    ((value, shape),) = nets.input_shape(file, 1).items()
    path = str(file)
    feeds = f"import numpy as np; feeds = {{{value!r}: np.ones({shape}, np.float32)}}"
    return {
        "sigconv": f"{feeds}; import sigconv as sc; sc.load({path!r}).run(feeds)",
        "onnxruntime": f"{feeds}; import onnxruntime as ort; "
        f"ort.InferenceSession({path!r}, providers=['CPUExecutionProvider']).run(None, feeds)",
    }


TASKS: dict[str, Callable[[], dict[str, str]]] = {
    "import": lambda: {"sigconv": "import sigconv", "numpy": "import numpy", "scipy": "import scipy.signal"},
    "convolve 100,000 x 63": lambda: _signal(63, "convolve"),
    "oaconvolve 100,000 x 6,300": lambda: _signal(6300, "oaconvolve"),
    "LeNet-5": lambda: _net("LeNet-5"),
    "ResNet-50": lambda: _net("ResNet-50"),
}
"""A program for everybody who can do the task."""


def measure(task: str, rounds: int) -> dict[str, Any]:
    """Seconds and megabytes of everybody."""
    programs = TASKS[task]()
    best = dict.fromkeys(programs, float("inf"))
    peak = dict.fromkeys(programs, 0.0)
    # As installed: with byte code of every module, which pip makes.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    for turn in range(rounds + 1):  # the first compiles kernels and reads files
        for name, program in programs.items():
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", f"{program}; {PEAK}"],
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            seconds = time.perf_counter() - start
            if turn:
                best[name] = min(best[name], seconds)
                peak[name] = max(peak[name], int(done.stdout) * 1024 / 1e6)
    return {
        "task": task,
        "who": {n: {"seconds": round(best[n], 3), "peak_mb": round(peak[n], 1)} for n in programs},
    }


def page(document: dict[str, Any]) -> str:
    """The text of results/startup.md."""
    lines = ["| task | who | from start to end, s | peak, MB |", "|" + " --- |" * 4]
    for row in document["rows"]:
        for name, figures in row["who"].items():
            lines.append(f"| {row['task']} | {name} | {figures['seconds']:.3f} | {figures['peak_mb']:.0f} |")
    about = document["machine"]
    return (
        f"# From `python` to the first result\n{document['date']}, {about['cpu']}, {about['cores']} cores. One new "
        "process each, in turns; the fastest round, start and end of the interpreter included; kernels compiled "
        "before.\n\n" + "\n".join(lines) + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), metavar="TASK")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    date = datetime.date.today().isoformat()
    document: dict[str, Any] = {"date": date, "machine": machine.describe(), "rows": []}
    for task in arguments.tasks:
        document["rows"].append(measure(task, arguments.rounds))
        print(document["rows"][-1], flush=True)
    (RESULTS / f"startup-{date}.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
