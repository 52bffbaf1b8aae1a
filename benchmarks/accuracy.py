"""How far each net is from double precision: ``python -m benchmarks.accuracy [--nets …]``, then ``benchmarks.render``.

The reference is `sigconv.graph.interpret` in float64: the definition of every operator, operator by operator.
"""

from __future__ import annotations

import argparse
import datetime
import json
from typing import Any

import numpy as np

from benchmarks import machine, nets
from benchmarks.cnn import RESULTS
from sigconv import load, race
from sigconv.export.check import random_feeds
from sigconv.graph.interpret import interpret
from sigconv.graph.ir import Value
from sigconv.planner.select import TOLERANCE

THREADS = (1, 2, 3)
TOLERANCES = (TOLERANCE, 0.0)


def measure(net: str) -> dict[str, Any]:
    """Errors over the largest output at each tolerance, and whether all thread counts gave the same bits."""
    path = nets.path_of(net)
    shapes = nets.input_shape(path, 1)
    feeds = random_feeds(Value(name, np.dtype(np.float32), shape) for name, shape in shapes.items())
    model = load(path)
    exact = interpret(model.graph, feeds, float64=True)
    errors, same = {}, True
    for tolerance in TOLERANCES:
        found = [model.compile(shapes, threads=n, tolerance=tolerance).run(feeds) for n in THREADS]
        same &= all(run[k].tobytes() == array.tobytes() for run in found for k, array in found[0].items())
        errors[f"{tolerance:g}"] = max(race.difference(array, exact[k]) for k, array in found[0].items())
    return {"net": net, "errors": errors, "same_bits": same}


def page(document: dict[str, Any]) -> str:
    """The text of results/accuracy.md."""
    columns = list(document["rows"][0]["errors"])
    head = ["net", *(f"error, tolerance={c}" for c in columns), f"same bits with {document['threads']} threads"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in document["rows"]:
        cells = [row["net"], *(f"{row['errors'][c]:.1e}" for c in columns), "yes" if row["same_bits"] else "**no**"]
        lines.append("| " + " | ".join(cells) + " |")
    return (
        f"# Nets against double precision\n{document['date']}, {document['machine']['cpu']}. Random inputs and "
        "weights, batch 1. Error: the largest difference from float64 over the largest output. `tolerance` is what an "
        "algorithm may add to rounding; 0 leaves out Winograd and weights of 24 bits.\n\n" + "\n".join(lines) + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--nets", nargs="+", choices=nets.NETS, default=list(nets.NETS), metavar="NET")
    arguments = parser.parse_args()
    date = datetime.date.today().isoformat()
    threads = f"{', '.join(map(str, THREADS[:-1]))} and {THREADS[-1]}"
    document: dict[str, Any] = {"date": date, "machine": machine.describe(), "threads": threads, "rows": []}
    for net in arguments.nets:
        document["rows"].append(measure(net))
        print(document["rows"][-1], flush=True)
    (RESULTS / f"accuracy-{date}.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
