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
import threading
from collections import deque
from typing import Any

import numpy as np

from sigconv import config
from sigconv.kernels import atomic
from sigconv.kernels.cpu import team as native

MAX_WORKERS = 255

KernelFunction = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
"""A kernel as Python calls it; the call releases the GIL."""


class Team:
    """Up to `MAX_WORKERS` worker threads that whoever runs a program shares; one run at a time has them.

    ``size``: workers started so far. ``asleep``: the locks that sleeping workers wait on.
    """

    def __init__(self) -> None:
        lines = native.FIRST_WORKER // native.LINE + MAX_WORKERS + 1
        self._memory = np.zeros(lines * native.LINE, np.uint8)
        self.address = -(-self._memory.ctypes.data // native.LINE) * native.LINE
        words = (self.address - self._memory.ctypes.data) // 8
        self._header = self._memory.view(np.int64)[words : words + native.LINE // 8]
        self.reset()

    def reset(self) -> None:
        """Forget all workers: in a forked child they do not exist, and a run of the parent may have had the team."""
        self._memory[:] = 0
        self.size = 0
        self.asleep: deque[Any] = deque()
        self._threads: list[threading.Thread] = []
        self._growing = threading.Lock()
        self._closed = False

    def wake(self, helpers: int) -> None:
        """Have ``helpers`` workers awake soon; starts those that do not exist yet. Does not wait for them."""
        if self.size < helpers and not self._closed:
            self._grow(min(helpers, MAX_WORKERS))
        with contextlib.suppress(IndexError):  # another caller may have woken the last one
            for _ in range(helpers - (self.size - len(self.asleep))):
                self.asleep.pop().release()

    def stop(self) -> None:
        """End all workers, for good. Runs in progress finish without them."""
        with self._growing:
            self._closed = True
            self._header[native.STOP // 8] = 1
            with contextlib.suppress(IndexError):
                while True:
                    self.asleep.pop().release()
            for thread in self._threads:
                thread.join(1.0)

    def _grow(self, size: int) -> None:
        spin = config.get("spin_us") * atomic.TICKS_PER_SECOND // 1_000_000
        with self._growing:
            while self.size < size and not self._closed:
                thread = threading.Thread(
                    target=self._work, args=(self.size, spin), name=f"sigconv-{self.size + 1}", daemon=True
                )
                try:
                    thread.start()
                except RuntimeError:  # no more threads to be had: go on with those there are
                    self._closed = True
                    return
                self._threads.append(thread)
                self.size += 1
                self._header[native.WORKERS // 8] = self.size

    def _work(self, worker: int, spin: int) -> None:
        serve = KernelFunction(native.serve.address)
        record = np.array([(self.address, worker, spin)], native.SERVE)
        address, asleep, lock = record.ctypes.data, self.asleep, threading.Lock()
        lock.acquire()
        while True:
            serve(address, 0, 1)
            asleep.append(lock)
            if self._header[native.STOP // 8]:
                return
            lock.acquire()


TEAM = Team()
"""The process' team."""

atexit.register(TEAM.stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=TEAM.reset)
