"""A machine with other work, and a program at rest: ``python -m benchmarks.crowded``, then ``benchmarks.render``.

Two threads against one, a burst of runs each in turn in one process, beside 0 and more processes that never rest; then
the CPU time of a process that has just run a net and does nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks import machine, nets
from benchmarks.cnn import RESULTS
from sigconv import load

DEFAULT = ("LeNet-5", "SqueezeNet", "ResNet-18")
ORDERS = ((1, 2, 2, 1), (2, 1, 1, 2)) * 2
"""Threads of sessions that take turns."""


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """That many processes that compute without end."""
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        time.sleep(0.1 if processes else 0)
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()


def turns(net: str, others: int, seconds: float, burst: float = 0.05) -> dict[str, Any]:
    """Milliseconds of a run with one and two threads beside ``others``: of all runs the mean, and the median of them.

    Each has the machine for a burst at a time: a run alone would find the workers of the one before still awake. Where
    a session's memory happens to lie, and whom it follows, makes it up to 3 percent faster or slower. So there are two
    of either kind in `ORDERS`, made anew for each; ``apart``: by how much two of one kind differed, in the mean.
    """
    path = nets.path_of(net)
    feeds = {k: np.zeros(shape, np.float32) for k, shape in nets.input_shape(path, 1).items()}
    model = load(path)
    all_times: dict[int, list[float]] = {1: [], 2: []}
    apart = []
    for order in ORDERS:
        sessions = [model.compile({k: x.shape for k, x in feeds.items()}, threads=n) for n in order]
        times: list[list[float]] = [[] for _ in order]
        for session in sessions:
            session.run(feeds)
        with busy(others):
            end = time.perf_counter() + seconds / len(ORDERS)
            while time.perf_counter() < end:
                for session, seen in zip(sessions, times, strict=True):
                    stop = time.perf_counter() + burst
                    while (start := time.perf_counter()) < stop:
                        session.run(feeds)
                        seen.append(time.perf_counter() - start)
        for n in all_times:
            equal = [seen for threads, seen in zip(order, times, strict=True) if threads == n]
            low, high = sorted(statistics.mean(seen) for seen in equal)
            apart.append(high / low - 1)
            all_times[n] += itertools.chain(*equal)
    figures = {
        figure: {str(n): average(seen) * 1e3 for n, seen in all_times.items()}
        for figure, average in (("mean_ms", statistics.mean), ("median_ms", statistics.median))
    }
    return {"net": net, "busy": others, **figures, "apart": statistics.mean(apart)}


def rest(net: str, threads: int, seconds: float = 1.0) -> dict[str, Any]:
    """CPU milliseconds of this process in the first 50 ms after a run, and in the ``seconds`` that follow."""
    path = nets.path_of(net)
    feeds = {k: np.zeros(shape, np.float32) for k, shape in nets.input_shape(path, 1).items()}
    session = load(path).compile({k: x.shape for k, x in feeds.items()}, threads=threads)
    for _ in range(20):
        session.run(feeds)

    start = time.process_time()
    time.sleep(0.05)
    middle = time.process_time()
    time.sleep(seconds)
    first, then = middle - start, time.process_time() - middle
    return {"net": net, "threads": threads, "first_ms": round(first * 1e3, 3), "then_ms": round(then * 1e3, 3)}


def page(document: dict[str, Any]) -> str:
    """The text of results/crowded.md."""
    titles = ("net", "busy processes", "one thread, ms", "two, ms")
    ratios = ("mean, two / one", "median, two / one", "two equal sessions apart")
    lines = [f"| {' | '.join((*titles, *ratios))} |", "|" + " --- |" * 7]
    for row in document["rows"]:
        shown = [f"{row['mean_ms'][name]:.3g}" for name in ("1", "2")]
        shown += [f"{row[k]['2'] / row[k]['1']:.3f}" for k in ("mean_ms", "median_ms")] + [f"{row['apart']:.3f}"]
        lines.append(f"| {row['net']} | {row['busy']} | {' | '.join(shown)} |")
    lines += [
        "",
        "| net | CPU in the first 50 ms after a run, ms | in the second that follows, ms |",
        "|" + " --- |" * 3,
    ]
    lines += [f"| {row['net']} | {row['first_ms']} | {row['then_ms']} |" for row in document["rest"]]
    about = document["machine"]
    return (
        f"# Beside other work, and at rest\n{document['date']}, {about['cpu']}, {about['cores']} cores. Sessions of "
        "one and two threads, a twentieth of a second each in turn, beside processes that never rest; the mean of all "
        "runs counts what the system takes. Last by how much of a run two sessions of one kind differ. Then the CPU "
        "time of a process that has run a net with two threads and does nothing.\n\n" + "\n".join(lines) + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--nets", nargs="+", choices=nets.NETS, default=DEFAULT, metavar="NET")
    parser.add_argument("--busy", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--seconds", type=float, default=30.0)
    arguments = parser.parse_args()
    date = datetime.date.today().isoformat()
    document: dict[str, Any] = {"date": date, "machine": machine.describe(), "rows": [], "rest": []}
    for net in arguments.nets:
        document["rest"].append(rest(net, 2))
        document["rows"] += [turns(net, others, arguments.seconds) for others in arguments.busy]
        print(document["rest"][-1], *document["rows"][-len(arguments.busy) :], sep="\n", flush=True)
    (RESULTS / f"crowded-{date}.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
