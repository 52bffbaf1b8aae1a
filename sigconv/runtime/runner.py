"""A table of kernel calls as one native call."""

from __future__ import annotations

import math
import time

import numpy as np

from sigconv.kernels import atomic
from sigconv.kernels.cpu import team as native
from sigconv.kernels.cpu.team import STEP
from sigconv.runtime.team import TEAM, KernelFunction, Team

__all__ = ["KERNELS", "STEP", "Prepared"]

KERNELS = (native.run, native.serve)
"""What running anything needs, for `sigconv.kernels.jit.ensure`."""

_WAKING_SECONDS = 200e-6  # what waking a thread costs the caller, and until it is there


class Prepared:
    """Steps that can be run. The array is not copied: addresses in it may be changed between runs.

    ``steps``: contiguous, dtype `STEP`; what its addresses point at must outlive this object. One object must not run
    in two threads at once, since its steps write the same memory. ``patience``: seconds that a run waits for workers
    which it had to wake.
    """

    def __init__(self, steps: np.ndarray, team: Team = TEAM, patience: float = 0.0) -> None:
        if steps.dtype != STEP or steps.ndim != 1 or not steps.flags.c_contiguous:
            raise ValueError(f"steps must be a contiguous vector of {STEP}, got {steps.dtype} of shape {steps.shape}")
        self._steps, self._team = steps, team
        self._record = np.array([(steps.ctypes.data, len(steps), team.address, 0, 0)], native.RUN)
        self._address = self._record.ctypes.data
        self._width = int(steps["width"].max(initial=1))
        self._call = KernelFunction(native.run.address)
        self._patience = int(patience * atomic.TICKS_PER_SECOND)
        self._last, self._end, self._alone = math.inf, -math.inf, 0.0

    def run(self, threads: int) -> None:
        """Run all steps with at most ``threads`` threads, the caller being one of them."""
        if self._width < threads:
            threads = self._width
        team = self._team
        if threads > 1 and team.size - len(team.asleep) < threads - 1 and atomic.ticks() >= team.earliest:
            self._run_short_of_workers(threads)
        else:
            self._call(self._address, 0, threads)

    def _run_short_of_workers(self, threads: int) -> None:
        """Wake workers, unless this run and those just before it, done without, are shorter than waking takes."""
        start, team = time.perf_counter(), self._team
        if start - self._end > team.spin:
            self._alone = 0.0  # they would be asleep again by the next run
        if self._alone + self._last >= _WAKING_SECONDS:
            self._record["patience"] = self._patience if team.wake(threads - 1) else 0
            self._alone = 0.0
        self._call(self._address, 0, threads)
        self._record["patience"] = 0
        self._end = time.perf_counter()
        self._last = self._end - start
        self._alone += self._last

    def profile(self, threads: int) -> np.ndarray:
        """Run all steps one after the other; the seconds each took, float64 of shape (steps,)."""
        ticks = np.zeros(len(self._steps) + 1, np.int64)
        self._record["profile"] = ticks.ctypes.data
        try:
            self.run(threads)
        finally:
            self._record["profile"] = 0
        return np.diff(ticks) / atomic.TICKS_PER_SECOND
