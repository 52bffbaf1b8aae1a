"""The cost model of convolution's methods: ``python -m benchmarks.calibrate [--seconds 50] [--fit | --check]``.

Measures direct, separable, overlap-add and fft on a grid of sizes, types and ranks, one thread, and fits the table that
`sigconv.signal.costs` reads; then times 'auto' beside every method on another grid, of sizes between those of the
first. What is measured is kept in results/calibrate-<date>.json at once, and a run that ``--seconds`` stopped is gone
on with by the next.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.optimize

from benchmarks import machine
from benchmarks.cnn import RESULTS
from sigconv.signal import api, costs, methods
from sigconv.signal import problem as problems
from sigconv.signal import stream as streams

TABLE = Path(costs.__file__).with_name("costs.json")
TYPES = ("float32", "float64", "complex64", "complex128")
LARGEST = 3e9
"""Multiply-adds up to which the direct method is tried, a fifth of a second."""
HOPELESS = 4.0
"""A method whose first call takes this many times the fastest method's time is not timed again."""
FEW = 64
"""Outputs of a stream's chunk that is short for the tiles of the row kernels."""
WITHIN = 1.3
"""The share of the best method's time that 'auto' may take."""

FIT = {
    1: ([100, 1000, 10_000, 100_000, 1_000_000], [3, 9, 31, 100, 316, 1000, 3162, 10_000, 100_000]),
    2: ([32, 128, 512, 1024], [3, 5, 9, 17, 33, 65]),
    3: ([16, 40, 96], [3, 5, 9, 15]),
}
"""By rank: sizes of signals and of kernels along every axis."""
CHECK = {
    1: ([50, 300, 1500, 4000, 30_000, 250_000, 700_000], [2, 5, 15, 25, 50, 63, 127, 255, 700, 2047, 7000, 65_537]),
    2: ([24, 64, 200, 360, 800], [2, 4, 7, 11, 15, 25, 31, 50]),
    3: ([12, 25, 64], [2, 4, 7, 11]),
}


def points(grid: dict[int, tuple[list[int], list[int]]]) -> Iterator[tuple[int, int, int, str, bool]]:
    """Rank, size of the signal, of the kernel, type, and whether the kernel is an outer product."""
    for rank, (sizes, kernels) in grid.items():
        for n in sizes:
            for k in kernels:
                for dtype in TYPES:
                    for outer in (False, True) if rank > 1 else (False,):
                        if k <= n:
                            yield rank, n, k, dtype, outer


def arrays(rank: int, n: int, k: int, dtype: str, outer: bool) -> tuple[np.ndarray, np.ndarray]:
    """A signal and a kernel of noise."""
    rng = np.random.default_rng(n + k)

    def noise(*shape: int) -> np.ndarray:
        a = rng.standard_normal(shape)
        return (a + 1j * rng.standard_normal(shape) if dtype[0] == "c" else a).astype(dtype)

    w = noise(*(k,) * rank)
    if outer:
        w = noise(k)
        for _ in range(rank - 1):
            w = w[..., None] * noise(k)
    return noise(*(n,) * rank), w


def measure(x: np.ndarray, w: np.ndarray, names: list[str], seconds: float) -> dict[str, float]:
    """Seconds of the fastest 'same' convolution by each method, taking turns."""
    calls: dict[str, Callable[[], Any]] = {
        name: lambda name=name: api.convolve(x, w, "same", name)  # type: ignore[misc]
        for name in names
    }
    best: dict[str, float] = {}
    for name, call in calls.items():
        for _ in range(3):  # kernels are compiled, plans made
            start = time.perf_counter()
            call()
        best[name] = time.perf_counter() - start
    racing = [name for name in names if best[name] < HOPELESS * min(best.values()) or name == "auto"]
    repeats = {name: max(1, int(5e-4 / best[name])) for name in racing}
    begun, rounds = time.perf_counter(), 0
    while rounds < 5 or (time.perf_counter() - begun < seconds and rounds < 50):
        for name in racing:
            start = time.perf_counter()
            for _ in range(repeats[name]):
                calls[name]()
            best[name] = min(best[name], (time.perf_counter() - start) / repeats[name])
        rounds += 1
    return best


def row(point: tuple[int, int, int, str, bool], auto: bool, seconds: float) -> dict[str, Any]:
    """What was measured at a point."""
    x, w = arrays(*point)
    problem = problems.make(x, w, "same", convolves=True).commuted()
    names = [name for name in methods.METHODS if methods.LEGAL[name](problem) is None]
    if problem.macs > LARGEST:
        names.remove("direct")
    names += ["auto"] if auto else []
    rank, n, k, dtype, outer = point
    measured = measure(x, w, names, seconds)
    result: dict[str, Any] = {"rank": rank, "n": n, "k": k, "dtype": dtype, "outer": outer}
    if auto:
        result["choice"] = methods.choose(problem).method
    return {**result, "us": {name: round(s * 1e6, 2) for name, s in measured.items()}}


# --- fit -----------------------------------------------------------------------------------------------------------
def entries(table: costs.Costs) -> list[tuple[str, ...]]:
    """Where the table's fitted numbers are."""
    paths: list[tuple[str, ...]] = []
    for name, value in table.items():
        if isinstance(value, dict) and name != "machine":
            paths += [(name, key) for key in value]
        elif name != "machine":
            paths.append((name,))
    return paths


def table_of(paths: list[tuple[str, ...]], values: np.ndarray, given: dict[str, Any]) -> costs.Costs:
    """The table with these numbers at these places."""
    table: dict[str, Any] = dict(given)
    for path, value in zip(paths, values, strict=True):
        if len(path) == 1:
            table[path[0]] = float(value)
        else:
            table.setdefault(path[0], {})[path[1]] = float(value)
    return table


def counts(point: tuple[int, int, int, str, bool], method: str, paths: list[tuple[str, ...]]) -> np.ndarray:
    """How often a method's prediction holds each number of the table: it is linear in them."""
    problem = problems.make(*arrays(*point), "same", convolves=True).commuted()
    units = np.eye(len(paths))
    return np.array([methods.SECONDS[method](problem, table_of(paths, unit, {})) for unit in units])


def fit(rows: list[dict[str, Any]], about: dict[str, Any]) -> costs.Costs:
    """The table whose predictions have the smallest relative errors; no number is negative.

    Entries that nothing measured depends on (sums that NumPy has to do) stay as they are.
    """
    paths = entries(costs.COSTS)
    now = np.array([costs.COSTS[p[0]] if len(p) == 1 else costs.COSTS[p[0]][p[1]] for p in paths])
    matrix = []
    for r in rows:
        point = (r["rank"], r["n"], r["k"], r["dtype"], r["outer"])
        for name, us in r["us"].items():
            matrix.append(counts(point, name, paths) / (us * 1e-6))
    a = np.array(matrix)
    used = a.any(0)
    scale = np.where(used, np.abs(a).max(0), 1.0)[used]
    weights = np.ones(len(a))
    for _ in range(20):  # errors of the logarithm rather than of the ratio: half the time is as wrong as twice
        solution, _ = scipy.optimize.nnls(a[:, used] / scale * weights[:, None], weights)
        ratio = np.maximum(a[:, used] / scale @ solution, 0.05)
        error = np.maximum(np.abs(ratio - 1), 1e-3)
        weights = np.sqrt(np.abs(np.log(ratio)) / error) / np.sqrt(1 + (np.log(ratio) / 0.5) ** 2)
    values = now.copy()
    values[used] = [float(f"{v:.3g}") for v in solution / scale]
    return table_of(paths, values, {"machine": about})


def few() -> dict[str, float]:
    """Seconds of a multiply-add where a stream sums some outputs at a time: what 32,000 more taps cost."""

    def push(taps: int, dtype: str) -> float:
        stream = streams.Stream(np.ones(taps, dtype), latency=FEW - 1, method="direct")
        chunk, best = np.ones(FEW, dtype), math.inf
        for _ in range(200):
            start = time.perf_counter()
            stream.push(chunk)
            best = min(best, time.perf_counter() - start)
        return best

    return {t: float(f"{(push(34_000, t) - push(2000, t)) / (32_000 * FEW):.3g}") for t in TYPES}


# --- report --------------------------------------------------------------------------------------------------------
def report(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """On how many points 'auto' took at most `WITHIN` of the best method's time, and where it took longest."""
    ratios = []
    for r in rows:
        best = min(us for name, us in r["us"].items() if name != "auto")
        ratios.append(r["us"]["auto"] / best)
    within = [ratio <= WITHIN for ratio in ratios]
    order = sorted(range(len(rows)), key=lambda i: -ratios[i])
    return {
        "points": len(rows),
        "within": WITHIN,
        "share": round(sum(within) / len(rows), 4),
        "geometric_mean": round(math.exp(float(np.mean(np.log(ratios)))), 3),
        "worst": [{**rows[i], "ratio": round(ratios[i], 2)} for i in order[:12]],
    }


def gather(document: dict[str, Any], key: str, path: Path, deadline: float, seconds: float) -> bool:
    """Measure the points of a grid that are not there yet, until the deadline; whether all are there."""
    grid = FIT if key == "fit" else CHECK
    done = {(r["rank"], r["n"], r["k"], r["dtype"], r["outer"]) for r in document[key]}
    for point in points(grid):
        if point in done:
            continue
        if time.perf_counter() > deadline:
            return False
        document[key].append(row(point, key == "check", seconds))
        if len(document[key]) % 20 == 0:
            write(document, path)
    write(document, path)
    return True


def write(document: dict[str, Any], path: Path) -> None:
    """One row a line, so that a change of one is a line of a diff."""
    parts = []
    for key, value in document.items():
        if isinstance(value, list):
            lines = ",\n".join("  " + json.dumps(r) for r in value)
            parts.append(f' "{key}": [\n{lines}\n ]')
        else:
            parts.append(f' "{key}": {json.dumps(value)}')
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n", "utf-8")


def main() -> int:
    """0 when 'auto' is near the best method often enough, 1 when not, 3 when the time was up before."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=math.inf, help="stop after this time; the next run goes on")
    parser.add_argument("--turn", type=float, default=0.03, help="seconds of each point's turns")
    parser.add_argument("--fit", action="store_true", help="only fit, and write the table")
    parser.add_argument("--check", action="store_true", help="only check the table that is there, from the beginning")
    parser.add_argument("-o", "--output", type=Path, help="default: results/calibrate-<date>.json")
    arguments = parser.parse_args()
    os.environ["SIGCONV_THREADS"] = "1"
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    date = datetime.date.today().isoformat()
    path = arguments.output or RESULTS / f"calibrate-{date}.json"
    about = {**machine.describe(), "date": date}
    document: dict[str, Any] = {"machine": about, "report": None, "fit": [], "check": []}
    if path.exists():
        document = json.loads(path.read_text("utf-8"))
    deadline = time.perf_counter() + arguments.seconds
    if arguments.check:
        document["report"], document["check"] = None, document["check"] if arguments.seconds < math.inf else []
    elif not gather(document, "fit", path, deadline, arguments.turn):
        write(document, path)
        print(f"{len(document['fit'])} points measured; run again to go on")
        return 3
    elif arguments.fit or not document["check"]:
        table = {**fit(document["fit"], about), "mac_few": few()}
        TABLE.write_text(json.dumps(table, indent=1) + "\n", "utf-8")
        costs.COSTS.clear()
        costs.COSTS.update(table)
        if arguments.fit:
            return 0
    if not gather(document, "check", path, deadline, arguments.turn):
        write(document, path)
        print(f"{len(document['check'])} points checked; run again to go on")
        return 3
    document["report"] = report(document["check"])
    write(document, path)
    summary = document["report"]
    for r in summary["worst"]:
        print(r)
    print(f"{summary['share']:.1%} of {summary['points']} points within {WITHIN} of the best method")
    return 0 if summary["share"] >= 0.9 else 1


if __name__ == "__main__":
    raise SystemExit(main())
