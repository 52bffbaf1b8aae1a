"""Is a CUDA device right, and how fast is it: ``python -m benchmarks.gpu`` checks all, then times it beside peers.

One command, which needs nothing outside the repository. First every kernel and net runs on fresh random inputs, in
memory full of NaN, against the CPU. Then convolution layers, nets at several batch sizes and signals are timed beside
torch (cuDNN, TF32 off and on) and CuPy where they are installed: CUDA events after warm-up, medians, with the time that
the device needs at least beside each. JSON and a table go to benchmarks/results. ``--tiny`` takes small sizes: in the
simulator (NUMBA_ENABLE_CUDASIM=1) it proves that the command runs to its end, its times mean nothing.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import gpu_cases as cases
from benchmarks import gpu_peers as peers
from benchmarks import machine
from sigconv.kernels.cuda.jit import SIMULATED
from sigconv.planner.candidates import CUDA
from sigconv.planner.compile import compile_graph
from sigconv.planner.lower.cuda import compile_cuda
from sigconv.runtime import device
from sigconv.runtime.cuda import CudaSession
from sigconv.runtime.program import Program
from sigconv.runtime.session import Session
from sigconv.text import table

RESULTS = Path(__file__).parent / "results"
BUDGET = 900.0 if SIMULATED else 420.0
"""Seconds after which nothing new is begun."""
TOLERANCE = 1e-4
"""Largest difference from the CPU, as a share of the output's scale: sums of thousands of terms in another order.

An algorithm that declares a larger error, as those on tensor cores do, may be off by that."""
TF32 = 5e-3
"""What `compile` takes to admit tensor cores in TF32."""
REPEAT = 20


ERRORS = {c.name: c.error for candidates in CUDA.values() for c in candidates}
"""What algorithms declare."""


class Clock:
    """What is left of the budget."""

    def __init__(self, budget: float) -> None:
        self._end = time.perf_counter() + budget

    def over(self) -> bool:
        return time.perf_counter() > self._end


# --- checks ----------------------------------------------------------------------------------------------------------
def _difference(got: np.ndarray, want: np.ndarray) -> float:
    """The largest, as a share of the scale; infinite where NaN or a shape differs."""
    if got.shape != want.shape or not np.array_equal(np.isnan(got), np.isnan(want)):
        return float("inf")
    scale = max(float(np.abs(want).max(initial=0)), 1e-30)
    return float(np.abs(got.astype(np.float64) - want).max(initial=0)) / scale


def _poison(session: CudaSession) -> None:
    """NaN everywhere that the run should write."""
    for memory in (session._arena, *session._outputs):
        if memory is not None:
            flat = np.full(memory.nbytes, 0xFF, np.uint8).view(memory.dtype)
            memory.copy_to_device(flat, stream=session.stream)
    session.stream.synchronize()


def algorithms(program: Program) -> list[str]:
    """All that can run some unit of the program's graph, by name."""
    picked = {row.algorithm for row in program.rows}
    others = {name for row in program.rows for name, why in row.rejected if why.startswith("predicted")}
    return sorted((picked | others) - {"numpy"})


def check_case(case: cases.Case, rng: np.random.Generator) -> Iterable[dict[str, Any]]:
    """A row for every algorithm that can run the case."""
    graph, feeds = case.make(rng)
    shapes = {k: a.shape for k, a in feeds.items()}
    want = Session(compile_graph(graph, shapes, cases.threads(), tolerance=0)).run(feeds)
    options: dict[str, Any] = dict(tolerance=1.0, capability=device.capability())
    for name in algorithms(compile_cuda(graph, shapes, **options)):
        session = CudaSession(compile_cuda(graph, shapes, only={name}, **options))
        allowed = max(TOLERANCE, *(ERRORS.get(r.algorithm, 0.0) for r in session.program.rows))
        _poison(session)
        got = session.run(feeds)
        off = max(_difference(got[k], want[k]) for k in want)
        for _ in range(0 if SIMULATED else 2):  # recorded, then replayed as a CUDA graph: the same bits
            again = session.run(feeds)
            off = off if all(np.array_equal(again[k], got[k], equal_nan=True) for k in got) else float("inf")
        yield {"case": case.name, "algorithm": name, "difference": off, "ok": off <= allowed}


def check_all(sizes: cases.Sizes, rng: np.random.Generator, clock: Clock) -> list[dict[str, Any]]:
    """Every kernel and every net; a case that fails to run is a row that says why."""
    rows: list[dict[str, Any]] = []
    for case in (*sizes.checks, *(cases.net_case(n, shape) for n, shape in sizes.check_nets)):
        if clock.over():
            rows.append({"case": case.name, "algorithm": "-", "ok": None, "error": "no time left"})
            continue
        try:
            rows += check_case(case, rng)
        except Exception as error:
            rows.append({"case": case.name, "algorithm": "-", "ok": False, "error": peers.failure(error)})
    for signal in (*sizes.signals, *cases.DOUBLE):
        rows += [_check_signal(signal.small(), method, rng) for method in methods()]
    for row in rows:
        if row["ok"] is False:
            print(f"  WRONG {row}", file=sys.stderr)
    return rows


def methods() -> tuple[str, ...]:
    """How signals are convolved: transforms where CuPy is installed, too."""
    return ("direct", *(("fft", "oa") if device.cupy() else ()))


def _check_signal(signal: cases.Signal, method: str, rng: np.random.Generator) -> dict[str, Any]:
    x, w = signal.make(rng)
    try:
        off = _difference(signal.ours(x, w, "cuda", method), signal.ours(x, w, "cpu"))
    except Exception as error:
        return {"case": signal.name, "algorithm": method, "ok": False, "error": peers.failure(error)}
    return {"case": signal.name, "algorithm": method, "difference": off, "ok": off <= TOLERANCE}


# --- times -----------------------------------------------------------------------------------------------------------
def timed(run: Callable[[], Any], stream: Any, repeat: int) -> float:
    """Milliseconds of the median run on ``stream``."""
    from numba import cuda

    if SIMULATED:  # its events record nothing
        start = time.perf_counter()
        run()
        return (time.perf_counter() - start) * 1e3
    return peers.median_ms(run, repeat, lambda: cuda.event(timing=True), lambda a, b: a.elapsed_time(b), stream)


def _session_time(
    graph: Any, feeds: dict[str, np.ndarray], repeat: int, tolerance: float = TOLERANCE
) -> tuple[float, CudaSession]:
    """The run on arrays that lie on the device, into others there."""
    from numba import cuda

    shapes = {k: a.shape for k, a in feeds.items()}
    session = CudaSession(compile_cuda(graph, shapes, tolerance=tolerance, capability=device.capability()))
    there = {k: cuda.to_device(a) for k, a in feeds.items()}
    outputs = {p.name: cuda.device_array(p.shape, p.dtype) for p in session.program.outputs}
    return timed(lambda: session.run(there, outputs), session.stream, repeat), session


def time_graph(kind: str, case: cases.Case, rng: np.random.Generator, roof: cases.Roof, repeat: int) -> dict[str, Any]:
    """Ours and torch's time for a graph, and the least that the device needs."""
    graph, feeds = case.make(rng)
    ms, session = _session_time(graph, feeds, repeat)
    rows = session.program.rows
    flops, nbytes = sum(r.flops for r in rows), sum(r.nbytes for r in rows)
    result: dict[str, Any] = {
        "kind": kind, "case": case.name, "ms": ms, "floor_ms": sum(roof.ms(r.flops, r.nbytes) for r in rows),
        "gflops": flops / ms / 1e6, "gbytes": nbytes / ms / 1e6, "algorithms": sorted({r.algorithm for r in rows}),
    }  # fmt: skip
    result["tf32_ms"], session = _session_time(graph, feeds, repeat, TF32)
    result["tf32_algorithms"] = sorted({r.algorithm for r in session.program.rows})
    return {**result, **peers.torch_times(graph, feeds, repeat)}


def time_signal(signal: cases.Signal, rng: np.random.Generator, roof: cases.Roof, repeat: int) -> dict[str, Any]:
    """Ours, torch's and CuPy's time of a direct convolution, and ours by transforms."""
    from numba import cuda

    x, w = signal.make(rng)
    a, b = cuda.to_device(x), cuda.to_device(w)
    times = {
        method: timed(lambda m=method: signal.ours(a, b, None, m), cuda.default_stream(), repeat)  # type: ignore[misc]
        for method in methods()
    }
    ms = times["direct"]
    flops, nbytes = signal.flops, float(2 * x.nbytes + w.nbytes)
    result = {
        "kind": "signal", "case": signal.name, "ms": ms, "floor_ms": roof.ms(flops, nbytes),
        "gflops": flops / ms / 1e6, "gbytes": nbytes / ms / 1e6,
        **{f"{method}_ms": taken for method, taken in times.items() if method != "direct"},
    }  # fmt: skip
    return {**result, **peers.signal_times(x, w, len(signal.w), repeat)}


def time_all(sizes: cases.Sizes, rng: np.random.Generator, roof: cases.Roof, clock: Clock, repeat: int) -> list[Any]:
    """Every timing that there is time for."""
    nets = [cases.net_case(net, shape) for net, shape in sizes.nets]
    jobs: list[tuple[str, Callable[[], dict[str, Any]]]] = [
        *((c.name, partial(time_graph, "layer", c, rng, roof, repeat)) for c in sizes.layers),
        *((s.name, partial(time_signal, s, rng, roof, repeat)) for s in sizes.signals),
        *((c.name, partial(time_graph, "net", c, rng, roof, repeat)) for c in nets),
    ]
    rows = []
    for name, job in jobs:
        if clock.over():
            rows.append({"kind": "skipped", "case": name, "error": "no time left"})
            continue
        try:
            rows.append(job())
        except Exception as error:
            rows.append({"kind": "failed", "case": name, "error": peers.failure(error)})
            print(f"  FAILED {rows[-1]}", file=sys.stderr)
    return rows


# --- report ----------------------------------------------------------------------------------------------------------
COLUMNS = {
    "case": "<", "ms": ">", "TF32": ">", "FFT": ">", "floor": ">", "torch": ">", "torch TF32": ">", "CuPy": ">",
    "torch / ours": ">",
}  # fmt: skip


KEYS = ("ms", "tf32_ms", "fft_ms", "floor_ms", "torch_ms", "torch_tf32_ms", "cupy_ms")
"""Of a timing, in the columns' order."""


def _ms(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}"


def report(document: dict[str, Any]) -> str:
    """The document as text: what was wrong, then a line a timing."""
    checks, times = document["checks"], document["times"]
    wrong = [c for c in checks if c["ok"] is False]
    lines = [f"{len(checks)} checks, {len(wrong)} wrong, {sum(c['ok'] is None for c in checks)} left out"]
    lines += [f"  {c['case']} {c['algorithm']}: {c.get('error') or c.get('difference')}" for c in wrong]
    cells = [
        [
            t["case"],
            *(_ms(t.get(key)) for key in KEYS),
            f"{t['torch_ms'] / t['ms']:.2f}" if t.get("torch_ms") else "-",
        ]
        for t in times
        if "ms" in t
    ]
    lines += table(COLUMNS, cells)
    lines += [f"  {t['kind']}: {t['case']}: {t['error']}" for t in times if "error" in t]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Check, time, write. Exit code 1 where something was wrong."""
    parser = argparse.ArgumentParser("benchmarks.gpu", description=__doc__.split("\n\n")[0])
    parser.add_argument("--tiny", action="store_true", help="small sizes, for the simulator")
    parser.add_argument("--checks", action="store_true", help="no timings")
    parser.add_argument("--budget", type=float, default=BUDGET, metavar="S", help="seconds (default %(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="of the inputs (default: a fresh one, which is printed)")
    parser.add_argument("--output", type=Path, default=None, metavar="FILE.json", help="default: in benchmarks/results")
    arguments = parser.parse_args(argv)
    device.require()
    seed = int(np.random.default_rng().integers(2**32)) if arguments.seed is None else arguments.seed
    rng, clock = np.random.default_rng(seed), Clock(arguments.budget)
    sizes = cases.TINY if arguments.tiny else cases.REAL
    found = device.describe()
    print("\n".join(f"{name}: {value}" for name, value in found.items()), f"\nseed {seed}")
    start = time.perf_counter()
    checks = check_all(sizes, rng, clock)
    times = [] if arguments.checks else time_all(sizes, rng, cases.roof(), clock, 1 if SIMULATED else REPEAT)
    document = {
        "date": datetime.date.today().isoformat(), "simulated": SIMULATED, "tiny": arguments.tiny, "seed": seed,
        "device": found, "machine": machine.describe(), "peers": peers.versions(),
        "seconds": time.perf_counter() - start, "checks": checks, "times": times,
    }  # fmt: skip
    text = report(document)
    print(text)
    target = arguments.output or RESULTS / f"gpu-{document['date']}{'-simulated' if SIMULATED else ''}.json"
    target.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    print(f"wrote {target}; {document['seconds']:.0f} s")
    return 1 if any(c["ok"] is False for c in checks) or any(t["kind"] == "failed" for t in times) else 0


if __name__ == "__main__":
    sys.exit(main())
