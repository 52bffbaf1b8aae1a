"""Programs kept by the shapes they were made for, with idle sessions; sub-graphs that run the same way."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sigconv.errors import InputError
from sigconv.graph.evaluate import Body, check_count
from sigconv.graph.ir import Graph, Value
from sigconv.planner.compile import compile_graph
from sigconv.planner.pool import Pool
from sigconv.runtime.locks import lock
from sigconv.runtime.program import Program
from sigconv.runtime.session import Session

if TYPE_CHECKING:
    from sigconv.runtime.cuda import CudaSession

PROGRAMS_KEPT = 8
"""Input shapes whose programs are remembered; the least recently used one is dropped."""

PROGRAMS_NBYTES = 1 << 30
"""Bytes that they may take beside the weights, which they share; the one in use is kept in any case."""

SESSIONS_KEPT = 4
"""Idle sessions a program keeps for callers that run side by side."""


def session_of(program: Program, stream: Any = None) -> Session | CudaSession:
    """What runs a program on its device, on a stream of the caller's if one is given."""
    if program.device == "cpu":
        if stream is not None:
            raise InputError(f"stream={stream!r}: only device='cuda' runs on a stream")
        return Session(program)
    from sigconv.runtime.cuda import CudaSession

    return CudaSession(program, stream)


class Compiled:
    """A program and the idle sessions that run it."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._idle: list[Session | CudaSession] = []

    @property
    def nbytes(self) -> int:
        """What the idle sessions take."""
        return self.program.arena_nbytes * max(len(self._idle), 1)

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        try:
            session = self._idle.pop()
        except IndexError:
            session = session_of(self.program)
        try:
            return session.run(feeds)
        finally:
            if len(self._idle) < SESSIONS_KEPT:
                self._idle.append(session)


class Programs:
    """At most `PROGRAMS_KEPT` programs by key, of at most `PROGRAMS_NBYTES`; what they share is in the ``pool``."""

    def __init__(self) -> None:
        self.pool = Pool()
        self._lock = lock()
        self._kept: OrderedDict[Hashable, Compiled] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._kept

    def get(self, key: Hashable, make: Callable[[], Program]) -> Compiled:
        """The program of ``key``, made now if it is not there."""
        with self._lock:
            compiled = self._kept.get(key)
            if compiled is None:
                compiled = self._kept[key] = Compiled(make())
                while len(self._kept) > PROGRAMS_KEPT or (len(self._kept) > 1 and self._nbytes > PROGRAMS_NBYTES):
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return compiled

    @property
    def _nbytes(self) -> int:
        return sum(compiled.nbytes for compiled in self._kept.values())


class CompiledBody(Body):
    """A sub-graph that runs as a program; one whose shapes change from round to round is interpreted in the end."""

    def __init__(self, graph: Graph, threads: int, tolerance: float) -> None:
        super().__init__(graph)
        self._threads, self._tolerance = threads, tolerance
        self._programs = Programs()

    def __call__(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        check_count(self.graph, len(arrays))
        key = tuple((x.dtype, x.shape) for x in arrays)
        if key not in self._programs and len(self._programs) == PROGRAMS_KEPT:
            return super().__call__(*arrays)
        results = self._programs.get(key, lambda: self._program(arrays)).run(
            {v.name: x for v, x in zip(self.graph.inputs, arrays, strict=True)}
        )
        return tuple(results[v.name] for v in self.graph.outputs)

    def _program(self, arrays: tuple[np.ndarray, ...]) -> Program:
        inputs = tuple(Value(v.name, x.dtype, x.shape) for v, x in zip(self.graph.inputs, arrays, strict=True))
        return program_of(
            self.graph.replace(inputs=inputs), {}, self._threads, self._tolerance, pool=self._programs.pool
        )


def program_of(
    graph: Graph,
    shapes: Mapping[str, Any],
    threads: int,
    tolerance: float,
    *,
    device: str = "cpu",
    fallback: str | None = None,
    pool: Pool | None = None,
) -> Program:
    """The graph's program, whose sub-graphs run as programs too: those of a device's program on the host."""

    def body(inner: Graph) -> Body:
        return CompiledBody(inner, threads, tolerance)

    if device == "cuda":
        from sigconv.planner.lower.cuda import compile_cuda
        from sigconv.runtime.device import capability, require

        require()
        return compile_cuda(
            graph, shapes, tolerance=tolerance, fallback=fallback, body=body, capability=capability()
        )  # fmt: skip
    return compile_graph(graph, shapes, threads, tolerance=tolerance, body=body, pool=pool)
