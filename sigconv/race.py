"""Engines side by side on one model: one process each, taking turns, the smallest time of several rounds.

Inference engines keep thread pools that spin for a while after a run. Two of them in one process, or in two at
once, measure each other; so every engine has a process of its own, and one runs while the others have long slept.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sigconv.errors import SigconvError

PAUSE = 0.25
"""Seconds between two turns: the longest a known pool spins (OpenMP's KMP_BLOCKTIME) is 0.2."""

Feeds = Mapping[str, np.ndarray]
Runner = Callable[[], Sequence[np.ndarray]]


def _sigconv(model: str, feeds: Feeds, threads: int) -> Runner:
    from sigconv.model import load

    session = load(model).compile({k: v.shape for k, v in feeds.items()}, threads=threads)
    return lambda: list(session.run(feeds).values())


def _onnxruntime(model: str, feeds: Feeds, threads: int) -> Runner:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, feeds)


def _openvino(model: str, feeds: Feeds, threads: int) -> Runner:
    import openvino as ov

    options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    net = ov.Core().read_model(model)
    net.reshape({k: list(v.shape) for k, v in feeds.items()})
    compiled = ov.compile_model(net, "CPU", options)
    request, outputs = compiled.create_infer_request(), compiled.outputs

    def run() -> list[np.ndarray]:
        results = request.infer(feeds, share_inputs=True, share_outputs=True)
        return [np.array(results[o]) for o in outputs]

    return run


ENGINES: dict[str, Callable[[str, Feeds, int], Runner]] = {
    "sigconv": _sigconv,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}
"""Every engine by the name of its package: (path of the model, inputs, threads) -> a function that runs once."""


def installed() -> list[str]:
    """The engines that are here; sigconv is the first."""
    return [name for name in ENGINES if importlib.util.find_spec(name)]


def version(package: str) -> str:
    """The installed version of a package, or ``''``."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


@dataclass(frozen=True)
class Result:
    """One engine: seconds of its fastest run in each round, its outputs, its process' peak memory in bytes."""

    engine: str
    rounds: tuple[float, ...]
    outputs: tuple[np.ndarray, ...]
    peak_nbytes: int

    @property
    def seconds(self) -> float:
        return min(self.rounds)


def best(run: Callable[[], object], seconds: float, least: int = 3) -> float:
    """Seconds of the fastest call among those that fit into ``seconds``, at least ``least`` of them."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def _peak_nbytes() -> int:
    """The largest resident size of this process so far; 0 where the system does not say."""
    with contextlib.suppress(OSError):  # Linux: what getrusage gives counts the parent before exec too
        for line in Path("/proc/self/status").read_text("ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    with contextlib.suppress(ImportError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return 0


def serve() -> None:
    """An engine's process: a job in, its outputs out, then a time for each number of seconds; None ends it."""
    ask, tell = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what engines print is no answer

    def answer(message: Any) -> None:
        pickle.dump(message, tell)
        tell.flush()

    engine, *job = pickle.load(ask)
    try:
        run = ENGINES[engine](*job)
        answer([np.array(a) for a in run()])
        while (seconds := pickle.load(ask)) is not None:
            answer(best(run, seconds))
        answer(_peak_nbytes())
    except EOFError:  # nobody asks any more
        pass
    except Exception as error:  # whatever an engine raises is for the parent to report
        answer(error if isinstance(error, SigconvError) else RuntimeError(f"{engine}: {error}"))
    except KeyboardInterrupt:
        pass


class _Worker:
    """An engine in a new interpreter, not a `multiprocessing` one: that would import all that the caller has, too."""

    def __init__(self, engine: str, *job: Any) -> None:
        self.engine = engine
        paths = [p or os.getcwd() for p in sys.path]
        start = f"import sys; sys.path[:] = {paths!r}; import {__name__} as race; race.serve()"
        self._process = subprocess.Popen([sys.executable, "-c", start], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._tell((engine, *job))

    def _tell(self, message: Any) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it has ended: `ask` says so
            pickle.dump(message, self._process.stdin)
            self._process.stdin.flush()

    def ask(self, *question: Any) -> Any:
        """The next answer, after sending a question if there is one; RuntimeError if the engine failed."""
        for q in question:
            self._tell(q)
        assert self._process.stdout is not None
        try:
            answer = pickle.load(self._process.stdout)
        except (EOFError, pickle.UnpicklingError):
            raise RuntimeError(f"{self.engine}: its process ended with code {self._process.wait()}") from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


def race(
    engines: Iterable[str], model: str | Path, feeds: Feeds, threads: int, *, rounds: int = 5, seconds: float = 0.3
) -> list[Result]:
    """Time the model file on ``feeds`` in every engine: ``rounds`` rounds, ``seconds`` a turn, A B A B ….

    Raises
    ------
    SigconvError, RuntimeError
        An engine failed: its own message.
    """
    workers: list[_Worker] = []
    try:
        outputs = []
        for engine in engines:  # one after the other: compiling engines disturb each other too
            workers.append(_Worker(engine, str(model), dict(feeds), threads))
            outputs.append(workers[-1].ask())
        times: list[list[float]] = [[] for _ in workers]
        for _ in range(rounds):
            for worker, own in zip(workers, times, strict=True):
                time.sleep(PAUSE if len(workers) > 1 else 0)
                own.append(worker.ask(seconds))
        return [
            Result(worker.engine, tuple(own), tuple(out), worker.ask(None))
            for worker, own, out in zip(workers, times, outputs, strict=True)
        ]
    finally:
        for worker in workers:
            worker.stop()


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest absolute difference over the largest magnitude of ``theirs``; inf where shapes or NaN patterns differ."""
    if ours.shape != theirs.shape or not np.array_equal(np.isfinite(ours), np.isfinite(theirs)):
        return float("inf")
    finite = np.isfinite(theirs)
    gap = np.abs(ours[finite].astype(np.float64) - theirs[finite].astype(np.float64)).max(initial=0.0)
    return float(gap / max(np.abs(theirs[finite]).max(initial=0.0), 1e-30))
