"""A machine with other work, and a program at rest: ``python -m benchmarks.crowded``, then ``benchmarks.render``.

Two threads against one, a burst of runs each in turn in one process, beside 0 and more processes that never rest; then
the CPU time of a process that has just run a net and does nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
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

    Each has the machine for a burst at a time: a run alone would find the workers of the one before still awake.
    ``again``: a second session of one thread, which tells how far two equal ones are apart on this machine.
    """
    path = nets.path_of(net)
    feeds = {k: np.zeros(shape, np.float32) for k, shape in nets.input_shape(path, 1).items()}
    model = load(path)
    shapes = {k: x.shape for k, x in feeds.items()}
    sessions = {name: model.compile(shapes, threads=n) for name, n in (("1", 1), ("2", 2), ("again", 1))}
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for session in sessions.values():
        session.run(feeds)
    with busy(others):
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for name, session in sessions.items():
                stop = time.perf_counter() + burst
                while (start := time.perf_counter()) < stop:
                    session.run(feeds)
                    times[name].append(time.perf_counter() - start)
    figures = {
        figure: {name: average(t) * 1e3 for name, t in times.items()}
        for figure, average in (("mean_ms", statistics.mean), ("median_ms", statistics.median))
    }
    return {"net": net, "busy": others, **figures}


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
    ratios = ("mean, two / one", "one again / one", "median, two / one", "one again / one")
    lines = [f"| {' | '.join((*titles, *ratios))} |", "|" + " --- |" * 8]
    for row in document["rows"]:
        shown = [f"{row['mean_ms'][name]:.3g}" for name in ("1", "2")]
        shown += [f"{row[k][name] / row[k]['1']:.3f}" for k in ("mean_ms", "median_ms") for name in ("2", "again")]
        lines.append(f"| {row['net']} | {row['busy']} | {' | '.join(shown)} |")
    lines += [
        "",
        "| net | CPU in the first 50 ms after a run, ms | in the second that follows, ms |",
        "|" + " --- |" * 3,
    ]
    lines += [f"| {row['net']} | {row['first_ms']} | {row['then_ms']} |" for row in document["rest"]]
    about = document["machine"]
    return (
        f"# Beside other work, and at rest\n{document['date']}, {about['cpu']}, {about['cores']} cores. One and two "
        "threads and one again, a twentieth of a second each in turn, beside processes that never rest; the mean of "
        "all runs counts what the system takes, and one again over one is how far two equal sessions are apart. Then "
        "the CPU time of a process that has run a net with two threads and does nothing.\n\n" + "\n".join(lines) + "\n"
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
