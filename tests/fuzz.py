"""Malformed models by the thousand: each is refused with a ModelError, or gives the right answer. Nothing else.

    python -m tests.fuzz --count 20000 --jobs 2 --keep failures/

Workers load, run, save and sum up damaged models (`tests.cases.mutations`) in processes of their own, which may take a
gigabyte more than they start with. What runs is compared with the slow NumPy interpreter and, in another process that
may die of the file, with onnxruntime. A worker that dies, hangs, or lets another exception through is a failure; its
file is kept. Case ``i`` of a seed is always the same file: ``--only i`` runs it alone, in this process.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto

import sigconv as sc
from sigconv.errors import InputError, ModelError
from sigconv.export.reader import read
from sigconv.export.writer import to_proto
from sigconv.graph.interpret import interpret
from tests.cases import mutations, networks
from tests.sources import MODELS, ROOT

SLOW = 5.0
"""Seconds of a processor that one file may take. One that takes more is tried again: the first compiles kernels."""

HANGS = 60.0
"""Seconds by the clock after which a worker is killed: other processes may have the processors."""

MEMORY = 1 << 30
"""Bytes a file may take."""

LARGEST_FEED = 1 << 20
LARGEST_ANSWER = 1 << 22
"""Elements up to which an input is made, and up to which an answer is computed again by the references."""

TOLERANCE = {"float16": 2e-2, "bfloat16": 1e-1, "float32": 2e-3, "float64": 2e-3}
"""Error of an answer as a share of its scale; one that was rounded to integers on the way may be a step off."""

QUANTIZED = 0.1
"""The same where layer after layer is rounded: a sum near a tie goes either way, and the next layer multiplies that."""

WIDE = 1e6
"""Numbers beyond which the default tolerance, a share of an output's scale, may cover all else that the output holds:
an activation clips the large ones, what is left is Winograd's error. Plain sums answer such models."""

LARGEST = 1e15
"""Numbers beyond which rounding alone decides what they leave behind; such models are not compared."""

Feeds = dict[str, np.ndarray]


# --- what is damaged -------------------------------------------------------------------------------------------------
def seeds() -> list[tuple[str, bytes, Feeds]]:
    """Small models with feeds: ONNX's own single nodes, our hand-made networks, trained ones."""
    from onnx.backend.test.loader import load_model_tests

    found = []
    for batch in (1, "N"):
        feeds = {"x": np.linspace(-1, 1, 3 * 64, dtype=np.float32).reshape(1, 3, 8, 8)}
        found += [(f"cnn {batch}", cnn(batch), feeds)] * 150
    for path in sorted(MODELS.glob("*.onnx")):
        if path.stat().st_size < 250_000:
            found += [(path.stem, path.read_bytes(), {})] * 8
    with warnings.catch_warnings():  # ONNX computes some of its expected values with overflow and division by zero
        warnings.simplefilter("ignore", RuntimeWarning)
        cases = load_model_tests(kind="node")
    for case in cases:
        if case.model is not None and case.model.ByteSize() < 200_000:
            arrays = [a for a in case.data_sets[0][0] if isinstance(a, np.ndarray)]
            names = [v.name for v in case.model.graph.input]
            found.append((case.name, case.model.SerializeToString(), dict(zip(names, arrays, strict=False))))
    return found


def cnn(batch: int | str = 1) -> bytes:
    """A network with every hot kernel, its outputs typed as ONNX wants them."""
    return onnx.shape_inference.infer_shapes(networks.cnn(batch, size=8, seed=3)).SerializeToString()


@dataclass(frozen=True)
class Case:
    """A damaged file. ``hostile``: it must be refused. ``sound`` is the model it was, which takes ``feeds``."""

    name: str
    data: bytes
    hostile: bool
    sound: bytes
    feeds: Feeds


def damaged(found: list[tuple[str, bytes, Feeds]], seed: int, i: int, folder: Path) -> Case:
    """Case ``i`` of a seed: always the same."""
    rng = np.random.default_rng([seed, i])
    name, sound, feeds = found[int(rng.integers(len(found)))]
    data, how, hostile = mutations.mutate(sound, rng, folder)
    return Case(f"{name}: {how}", data, hostile, sound, feeds)


# --- one file --------------------------------------------------------------------------------------------------------
class Wrong(Exception):
    """An answer that is not the right one."""


def attempt(case: Case, folder: Path, oracle: Oracle) -> str:
    """What became of the file: ``refused``, ``right``, or ``loaded``, where there is nothing to compare with."""
    path = folder / "model.onnx"
    path.write_bytes(case.data)
    try:
        model = sc.load(path)
        if case.hostile:
            raise Wrong("a file was loaded that must be refused")
        model.summary()
        with contextlib.suppress(ModelError):
            read(to_proto(model.graph))
        feeds = fitting(model, case.feeds)
        if feeds is None:
            return "loaded"
        got = model.run(feeds)
    except ModelError as e:
        if not str(e):
            raise Wrong("an error without a message") from e
        return "refused"
    except InputError:  # of symbolic sizes that do not fit one another, say
        return "feeds refused"
    if sum(a.size for a in got.values()) > LARGEST_ANSWER:
        return "loaded"
    quantized = any("Quantize" in node.op or node.op.startswith("QLinear") for node in model.graph)
    finite, references = True, None
    with contextlib.suppress(ModelError):  # of a node that no output needs: the engine does without
        try:
            every = interpret(read(path), feeds, keep=True)
            largest = max(map(_largest, every.values()), default=0)
        except MemoryError:  # the references keep everything
            return "loaded"
        if LARGEST < largest < np.inf:
            return "loaded"
        finite, references = largest < np.inf, {v.name: every[v.name] for v in model.outputs}
        if largest > WIDE:
            got = model.compile({name: a.shape for name, a in feeds.items()}, tolerance=0).run(feeds)
    problem = "" if references is None else differs(got, references, quantized)
    # What a contradiction means, nobody can say. onnxruntime's Relu makes 0 of NaN, and a few sound models part us too.
    theirs = oracle.run(case.data, feeds) if finite and valid(case.data) else None
    # The references add in double precision: what both engines find in single precision is what it can say.
    if problem and (theirs is None or differs(got, theirs, quantized)):
        raise Wrong(f"other than the references: {problem}")
    if theirs is not None and (problem := differs(got, theirs, quantized)):
        fit = fitting(sc.load(case.sound), case.feeds) or {}
        if not differs(sc.load(case.sound).run(fit), oracle.run(case.sound, fit) or {}):
            raise Wrong(f"other than onnxruntime: {problem}")
    return "loaded" if references is None and theirs is None else "right" if theirs else "right by the references"


def fitting(model: Any, given: Feeds) -> Feeds | None:
    """Feeds the model takes: the given ones where they do, else random; None where they would be too large."""
    rng = np.random.default_rng(7)
    feeds, sizes = {}, {}
    for value in model.inputs:
        own, dtype = given.get(value.name), value.dtype or np.dtype(np.float32)
        if value.shape is None and own is None:
            return None
        if own is not None and own.dtype == dtype:
            wanted = own.shape if value.shape is None else value.shape
            if len(wanted) == own.ndim and all(
                d == s or (isinstance(d, str) and sizes.setdefault(d, s) == s) or d is None
                for d, s in zip(wanted, own.shape, strict=True)
            ):
                feeds[value.name] = own
                continue
        shape = [
            d if isinstance(d, int) else sizes.setdefault(d, 2)
            for d in (own.shape if value.shape is None else value.shape)
        ]
        if np.prod(shape, dtype=float) > LARGEST_FEED:
            return None
        if dtype.kind == "O":
            feeds[value.name] = np.full(shape, "text", object)
        else:
            numbers = rng.standard_normal(shape) if dtype.kind not in "biu" else rng.integers(0, 3, shape)
            feeds[value.name] = np.asarray(numbers).astype(dtype)
    return feeds


def differs(got: Feeds, want: Feeds, quantized: bool = False) -> str:
    """Why these are not the same answers; nothing where they are, or where rounding alone decides."""
    for name, b in want.items():
        a = np.asarray(got[name]) if name in got else None
        if a is None or (a.dtype, a.shape) != (b.dtype, b.shape):
            return f"{name!r} is {None if a is None else (a.dtype, a.shape)}, not {(b.dtype, b.shape)}"
        if a.dtype.kind not in "fV" and a.dtype.name != "bfloat16":
            close: Any = a == b
            if a.dtype.kind in "iu":
                wide = b.astype(float)
                close = np.abs(a - wide) <= (max(1, QUANTIZED * np.abs(wide).max(initial=0)) if quantized else 1)
            if not np.all(close):
                return f"{name!r} differs"
            continue
        with np.errstate(all="ignore"):
            x, y = a.astype(np.float64), b.astype(np.float64)
            if not np.all(np.isfinite(y)):
                continue
            off = np.abs(x - y).max(initial=0)
        if not off <= (QUANTIZED if quantized else TOLERANCE.get(a.dtype.name, 0.1)) * max(
            np.abs(y).max(initial=0), 0.05
        ):
            return f"{name!r} is off by {off:.3g}"
    return ""


def _largest(value: np.ndarray) -> float:
    """The largest magnitude; infinity where one is not finite, 0 of what are no floats."""
    if value.dtype.kind not in "fV" and value.dtype.name != "bfloat16":
        return 0.0
    largest = float(np.abs(value).max(initial=0))
    return np.inf if np.isnan(largest) else largest


def valid(data: bytes) -> bool:
    """Whether ONNX itself finds nothing wrong: its checker, and types and shapes as the file states them."""
    try:
        onnx.checker.check_model(ModelProto.FromString(data), full_check=True)
    except Exception:
        return False
    return True


class Oracle:
    """onnxruntime, in a process that may die."""

    def __init__(self) -> None:
        self.pool: ProcessPoolExecutor | None = None

    def run(self, data: bytes, feeds: Feeds) -> Feeds | None:
        """Its outputs; None where it refuses the model or does not survive it."""
        if self.pool is None:
            self.pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        try:
            return self.pool.submit(_theirs, data, feeds).result(30)
        except (BrokenProcessPool, TimeoutError):
            self.close()
            return None

    def close(self) -> None:
        if self.pool is not None:
            for process in list((self.pool._processes or {}).values()):
                process.kill()
            self.pool.shutdown(wait=False, cancel_futures=True)
            self.pool = None


def _theirs(data: bytes, feeds: Feeds) -> Feeds | None:
    limit_memory(2 * MEMORY)
    try:
        return networks.onnxruntime_run(data, feeds)
    except Exception:
        return None


def limit_memory(more: int) -> None:
    """This process may take ``more`` bytes beyond what it has."""
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + more
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


# --- many files ------------------------------------------------------------------------------------------------------
def work(path: Path, seed: int, first: int, last: int) -> None:
    """A worker: a line before each case and one after it."""
    import resource

    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the oracle's: it would keep the pipe open when this process has died
    found = pickle.loads(path.read_bytes())
    oracle = Oracle()
    sc.load(networks.cnn(1, size=8)).run({"x": np.zeros((1, 3, 8, 8), np.float32)})  # what is loaded once
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "model"
        folder.mkdir()
        for i in range(first, last):
            print("try", i, flush=True, file=out)
            case = damaged(found, seed, i, folder)
            for again in (False, True):
                limit_memory(MEMORY)  # kernels compiled for earlier files stay
                start = time.process_time()
                outcome, detail = "", ""
                try:
                    outcome = attempt(case, folder, oracle)
                except Exception as e:
                    lines = traceback.format_exception(e)
                    outcome, detail = "FAILED", f"{type(e).__name__}: {e} | {lines[-2].strip()}"
                seconds = time.process_time() - start
                if seconds < SLOW:
                    break
                if again and not detail:
                    outcome, detail = "FAILED", f"{seconds:.1f} s"
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            print("did", i, outcome, f"{seconds:.3f}", peak, f"{case.name} {detail!r}", sep="\t", flush=True, file=out)
    oracle.close()


def run(count: int, seed: int, jobs: int, keep: Path | None = None) -> dict[str, int]:
    """All cases; counts by outcome. Failures are printed and their files kept."""
    with tempfile.TemporaryDirectory() as root:
        found = seeds()
        path = Path(root) / "seeds"
        path.write_bytes(pickle.dumps(found))
        bounds = [count * j // jobs for j in range(jobs + 1)]
        counts: collections.Counter[str] = collections.Counter()
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(jobs) as threads:
            lists = threads.map(lambda j: list(_supervised(path, seed, bounds[j], bounds[j + 1])), range(jobs))
            for i, outcome, detail in (item for items in lists for item in items):
                counts[outcome] += 1
                if outcome == "FAILED":
                    print(f"case {i}: {detail}", flush=True)
                    if keep is not None:
                        keep.mkdir(parents=True, exist_ok=True)
                        folder = Path(root) / "model"
                        folder.mkdir(exist_ok=True)
                        (keep / f"{seed}-{i}.onnx").write_bytes(damaged(found, seed, i, folder).data)
    return dict(counts)


def _supervised(path: Path, seed: int, first: int, last: int) -> Iterator[tuple[int, str, str]]:
    """(case, outcome, detail) of every case, by as many workers in turn as die on the way."""
    while first < last:
        command = [sys.executable, "-X", "faulthandler", "-W", "ignore", "-m", "tests.fuzz"]
        command += ["--work", str(path), "--seed", str(seed), "--first", str(first), "--count", str(last)]
        with tempfile.TemporaryFile("w+") as errors, subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT, start_new_session=True
        ) as worker:  # fmt: skip
            trying = first
            for line in _lines(worker):
                word, *rest = line.rstrip("\n").split("\t" if line.startswith("did") else " ")
                if word == "try":
                    trying = int(rest[0])
                elif word == "did":
                    first = int(rest[0]) + 1
                    yield int(rest[0]), rest[1], f"{rest[4]} ({rest[2]} s)"
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)  # its oracle too
            code = worker.wait()
            errors.seek(0)
            if first < last:
                last_words = " / ".join(errors.read().strip().splitlines()[-12:])
                yield trying, "FAILED", f"the worker died or hung ({code}): {last_words}"
                first = trying + 1


def _lines(worker: subprocess.Popen[str]) -> Iterator[str]:
    """The worker's lines; it is killed when it says nothing for too long."""
    import threading

    timer = threading.Timer(0, lambda: None)
    assert worker.stdout is not None
    for line in worker.stdout:
        timer.cancel()
        timer = threading.Timer(HANGS + 60 * (not line.startswith("try")), worker.kill)
        timer.daemon = True
        timer.start()
        yield line
    timer.cancel()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="folder for the files that fail")
    parser.add_argument("--only", type=int, help="run this case alone, here")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.work, args.seed, args.first, args.count)
        return 0
    if args.only is not None:
        with tempfile.TemporaryDirectory() as root:
            (folder := Path(root) / "model").mkdir()
            case = damaged(seeds(), args.seed, args.only, folder)
            print(case.name, f"({len(case.data)} bytes)")
            if len(case.data) < 3000:
                with contextlib.suppress(Exception):
                    print(onnx.printer.to_text(ModelProto.FromString(case.data)))
            oracle = Oracle()
            try:
                print(attempt(case, folder, oracle))
            finally:
                oracle.close()
        return 0
    start = time.monotonic()
    counts = run(args.count, args.seed, args.jobs, args.keep)
    seconds = time.monotonic() - start
    print(f"{sum(counts.values())} files in {seconds:.0f} s: {', '.join(f'{n} {k}' for k, n in counts.items())}")
    return 1 if counts.get("FAILED") else 0


if __name__ == "__main__":
    sys.exit(main())
