"""The process' worker threads: plain Python threads inside a native loop, asleep on a lock while there is no work.

The protocol between a run and its workers is in `sigconv.kernels.cpu.team`. This side starts threads, wakes sleeping
ones without waiting for them, and ends them with the interpreter. Nothing here is needed for a run to be correct: a
worker that is late, asleep or gone only means that the caller does its share.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import sys
import threading
from collections import deque
from collections.abc import Callable

import numpy as np

from sigconv import config
from sigconv.kernels import atomic
from sigconv.kernels.cpu import team as native

MAX_WORKERS = 255

_current_cpu = getattr(ctypes.CDLL(None), "sched_getcpu", None) if sys.platform == "linux" else None

KernelFunction = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
"""A kernel as Python calls it; the call releases the GIL."""


class Sleeper:
    """A worker asleep on ``lock``. ``thread``: its system's id; ``line``: its words, shared with native code.
    ``cores``: those it was last told to run on."""

    def __init__(self, line: np.ndarray) -> None:
        self.line, self.thread, self.lock = line, threading.get_native_id(), threading.Lock()
        self.cores: set[int] | None = None
        self.lock.acquire()

    @property
    def doubted(self) -> bool:
        """Whether it held a run up and has not passed a trial since."""
        return bool(self.line[native.DOUBT // 8])

    @property
    def rest(self) -> int:
        """The time until which it rests, if it is doubted."""
        return int(self.line[native.REST // 8])


class Team:
    """Up to `MAX_WORKERS` worker threads that whoever runs a program shares; one run at a time has them.

    ``words``: the memory shared with native code, at ``address``. ``size``: workers started so far. ``asleep``: the
    sleeping ones; before the time ``earliest`` none of them is to be woken. ``spin``: seconds until an idle one sleeps.
    """

    def __init__(self) -> None:
        memory = np.zeros(native.FIRST_WORKER + (MAX_WORKERS + 1) * native.LINE, np.uint8)
        start = -memory.ctypes.data % native.LINE
        self.words = memory[start : start + native.FIRST_WORKER + MAX_WORKERS * native.LINE].view(np.int64)
        self.address = self.words.ctypes.data
        self.reset()

    def reset(self) -> None:
        """Forget all workers: in a forked child they do not exist, and a run of the parent may have had the team."""
        self.words[:] = 0
        self.size = 0
        self.spin = 0.0
        self.asleep: deque[Sleeper] = deque()
        self.earliest = 0
        self._threads: list[threading.Thread] = []
        self._growing = threading.Lock()
        self._limit = MAX_WORKERS

    def wake(self, helpers: int) -> bool:
        """Have ``helpers`` workers awake soon; starts those that do not exist yet. Does not wait for them.

        Whether one comes that works at once. A worker that held a run up comes when it has rested, to be tried first.
        Where the process has a single core nobody wakes: a worker there takes turns with the run it should help.
        """
        cores = _other_cores()
        if self.words[native.STOP // 8] or cores == set():
            return False
        before = self.size
        if before < min(helpers, self._limit):
            self._grow(helpers, cores)
        comes, rests = self.size > before, []
        with contextlib.suppress(IndexError):  # another caller may have woken the last one
            for _ in range(len(self.asleep)):
                if self.size - len(self.asleep) >= helpers:
                    break
                sleeper = self.asleep.pop()
                if sleeper.doubted and atomic.ticks() < sleeper.rest:
                    self.asleep.appendleft(sleeper)
                    rests.append(sleeper.rest)
                    continue
                comes = comes or not sleeper.doubted
                if sleeper.cores != cores:
                    sleeper.cores = cores
                    _keep_on(cores, sleeper.thread)
                sleeper.lock.release()
        if rests and len(rests) == len(self.asleep):
            self.earliest = min(rests)
        return comes

    def line(self, worker: int) -> np.ndarray:
        """The words of a worker."""
        return self.words[(native.FIRST_WORKER + worker * native.LINE) // 8 :][: native.LINE // 8]

    def stop(self) -> None:
        """End all workers, for good. Runs in progress finish without them."""
        with self._growing:
            self.words[native.STOP // 8] = 1
            with contextlib.suppress(IndexError):
                while True:
                    self.asleep.pop().lock.release()
            for thread in self._threads:
                thread.join(1.0)

    def _grow(self, size: int, cores: set[int] | None) -> None:
        self.spin = config.get("spin_us") * 1e-6
        serve = KernelFunction(native.serve.address)
        with self._growing:
            while self.size < min(size, self._limit) and not self.words[native.STOP // 8]:
                record = np.array([(self.address, self.size, self.spin * atomic.TICKS_PER_SECOND)], native.SERVE)
                name = f"sigconv-{self.size + 1}"
                thread = threading.Thread(target=self._work, args=(serve, record), name=name, daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # no more threads to be had: go on with those there are
                    self._limit = self.size
                    return
                _keep_on(cores, thread.native_id)
                self._threads.append(thread)
                self.size += 1
                self.words[native.WORKERS // 8] = self.size

    def _work(self, serve: Callable[[int, int, int], None], record: np.ndarray) -> None:
        address, asleep, sleeper = record.ctypes.data, self.asleep, Sleeper(self.line(int(record["worker"][0])))
        while True:
            serve(address, 0, 1)
            asleep.append(sleeper)
            until = sleeper.rest if sleeper.doubted else 0
            self.earliest = until if len(asleep) == 1 else min(until, self.earliest)
            if self.words[native.STOP // 8]:
                return
            sleeper.lock.acquire()


def _other_cores() -> set[int] | None:
    """The cores that the caller may use, except the one it is on; None where the system does not say.

    Linux prefers the waker's core for a thread that wakes; there it would take turns with the run it should help.
    """
    if _current_cpu is None:
        return None
    return os.sched_getaffinity(0) - {_current_cpu()}


def _keep_on(cores: set[int] | None, thread: int | None) -> None:
    if cores is not None:
        with contextlib.suppress(OSError):  # the thread has ended
            os.sched_setaffinity(thread or 0, cores)


TEAM = Team()
"""The process' team."""

atexit.register(TEAM.stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=TEAM.reset)
