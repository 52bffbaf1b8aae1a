"""The simulator's threads take turns: one runs until a barrier, then another, in random order.

Numba's own simulator lets them all run and polls, which takes three times as long, and in which order they get to run
is luck. In random order a barrier that is missing shows itself.
"""

from __future__ import annotations

import random
import threading
from typing import Any

import numpy as np


class _Block:
    """One block's threads; exactly one of them holds its baton at any time."""

    def __init__(self, manager: Any, base: type, grid_point: Any, args: tuple[Any, ...], order: random.Random) -> None:
        self._main = threading.Lock()
        self._main.acquire()
        self._failed: list[BaseException] = []
        self._order = order
        points = list(np.ndindex(*manager._block_dim))
        self._batons = [threading.Lock() for _ in points]
        for baton in self._batons:
            baton.acquire()
        self._turns: list[int] = []
        self._waiting: list[int] = []
        self._threads = []
        for i, point in enumerate(points):
            thread = base(self._body(manager._f, args, i), manager, grid_point, point, False)
            thread.syncthreads = self._barrier(i)
            self._threads.append(thread)

    def _body(self, function: Any, args: tuple[Any, ...], i: int) -> Any:
        def body() -> None:
            self._batons[i].acquire()
            try:
                if not self._failed:
                    with np.errstate(all="ignore"):  # as on a device: overflow and NaN warn nobody
                        function(*args)
            except BaseException as error:
                self._failed.append(error)
            self._next()

        return body

    def _barrier(self, i: int) -> Any:
        def syncthreads() -> None:
            self._waiting.append(i)
            self._next()
            self._batons[i].acquire()
            if self._failed:
                raise RuntimeError("another thread of the block failed")

        return syncthreads

    def _next(self) -> None:
        """Hand the baton on: to a thread that has not reached the barrier, else to the first behind it."""
        if not self._turns:
            self._turns, self._waiting = self._waiting, []
            self._order.shuffle(self._turns)
        if self._turns:
            self._batons[self._turns.pop()].release()
        else:
            self._main.release()

    def run(self) -> None:
        self._turns = list(range(len(self._threads)))
        self._order.shuffle(self._turns)
        for thread in self._threads:
            thread.start()
        self._next()
        self._main.acquire()
        for thread in self._threads:
            thread.join()
        if self._failed:
            raise self._failed[0]


LAUNCHED: set[str] = set()
"""Names of the kernels that ran."""
USED: set[tuple[str, str]] = set()
"""(operator, candidate) of the programs whose results were compared."""


def use(program: Any) -> None:
    """Write down by which candidates the units of a compared program ran."""
    USED.update((row.op.split(" + ")[0], row.algorithm) for row in program.rows)


def install(seed: int) -> None:
    """Replace the simulator's way of running a block, and write down which kernels run."""
    from numba.cuda.simulator import kernel

    from sigconv.kernels.cuda.jit import Kernel

    configured = Kernel.configured

    def noted(self: Any, *args: Any) -> Any:
        LAUNCHED.add(self.name)
        return configured(self, *args)

    Kernel.configured = noted

    order = random.Random(seed)

    def run(self: Any, grid_point: Any, *args: Any) -> None:
        _Block(self, kernel.BlockThread, grid_point, args, order).run()

    kernel.BlockManager.run = run
