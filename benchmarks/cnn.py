"""CNNs side by side: ``python -m benchmarks.cnn [--nets …] [--threads 1 2] [--batch 1] [--quick]``.

One process an engine, taking turns, with nothing in it but the engine; the fastest run of all rounds counts.
Outputs are compared before anything is said.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import floor, machine, nets
from sigconv import race
from sigconv.export.check import random_feeds
from sigconv.graph.ir import Value

RESULTS = Path(__file__).parent / "results"
TOLERANCE = 1e-3
"""Of the largest output: engines that differ by more do not compute the same thing."""
MEMORY = "most resident memory of a process that has loaded nothing but the engine, kernels compiled before it"
"""What the peak is."""


def measure(
    net: str, engines: list[str], batch: int, threads: int, rounds: int, seconds: float, limits: dict[str, float]
) -> dict[str, Any]:
    """One row of the table: milliseconds, their rounds, peak memory and difference from sigconv of each engine."""
    path = nets.path_of(net)
    shapes = nets.input_shape(path, batch)
    feeds = random_feeds(Value(name, np.dtype(np.float32), shape) for name, shape in shapes.items())
    race.race(["sigconv"], path, feeds, threads, rounds=0)  # compiles: that would count as its memory
    results = race.race(engines, path, feeds, threads, rounds=rounds, seconds=seconds)
    ours = results[0].outputs
    return {
        "net": net,
        "batch": batch,
        "threads": threads,
        "floor_ms": round(floor.milliseconds(path, shapes, threads, limits), 4),
        "engines": {
            r.engine: {
                "ms": round(r.seconds * 1e3, 4),
                "rounds_ms": [round(t * 1e3, 4) for t in r.rounds],
                "peak_mb": round(r.peak_nbytes / 1e6, 1),
                "difference": max(race.difference(a, b) for a, b in zip(ours, r.outputs, strict=True)),
            }
            for r in results
        },
    }


def line(row: dict[str, Any]) -> str:
    """The row as text, with each peer's time over ours."""
    engines = row["engines"]
    ours = engines["sigconv"]["ms"]
    times = "".join(
        f"{name} {e['ms']:9.3f} ms" + (f" ({e['ms'] / ours:.2f}x)" if name != "sigconv" else "") + "   "
        for name, e in engines.items()
    )
    return f"{row['net']:<15} batch {row['batch']}, {row['threads']} threads   {times}".rstrip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--nets", nargs="+", choices=nets.NETS, default=list(nets.NETS), metavar="NET")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--batch", nargs="+", type=int, default=[1])
    parser.add_argument("--engines", nargs="+", choices=race.ENGINES, default=race.installed(), metavar="ENGINE")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each turn")
    parser.add_argument("--quick", action="store_true", help="two short rounds, nothing is written")
    parser.add_argument("-o", "--output", type=Path, help="default: results/cnn-<date>.json")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.seconds = 2, 0.1
    engines = ["sigconv", *(e for e in arguments.engines if e != "sigconv")]

    date = datetime.date.today().isoformat()
    settings = {"rounds": arguments.rounds, "seconds": arguments.seconds, "pause": race.PAUSE, "memory": MEMORY}
    limits = floor.limits()
    about = {**machine.describe(), "core": limits}
    document: dict[str, Any] = {"date": date, "machine": about, "settings": settings, "rows": []}
    output = arguments.output or RESULTS / f"cnn-{date}.json"
    wrong = []
    for net in arguments.nets:
        for batch in arguments.batch:
            for threads in arguments.threads:
                row = measure(net, engines, batch, threads, arguments.rounds, arguments.seconds, limits)
                document["rows"].append(row)
                print(line(row), flush=True)
                wrong += [f"{net}: {n}" for n, e in row["engines"].items() if not e["difference"] <= TOLERANCE]
                if (
                    not arguments.quick or arguments.output
                ):  # after every row: a long run that is stopped keeps its rows
                    output.write_text(json.dumps(document, indent=1) + "\n")
    if wrong:
        print(f"outputs differ by more than {TOLERANCE} of the largest: {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
