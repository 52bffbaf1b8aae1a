"""A compiled layer: a Program and the sessions that run it, one for each call at the same time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sigconv import config
from sigconv.errors import InputError
from sigconv.graph.ir import Graph
from sigconv.nn.net import HALVES
from sigconv.planner.compile import compile_graph
from sigconv.runtime.program import Program
from sigconv.runtime.session import Session


class Layer:
    """The program of a graph, called with arrays of the given dtypes.

    ``several``: a tuple is returned. Half precision is computed in float32 and rounded at the end.
    """

    def __init__(self, graph: Graph, dtypes: Sequence[np.dtype[Any]], several: bool) -> None:
        self.program: Program = compile_graph(graph, {}, config.get("threads"))
        self._several = several
        self._idle = [Session(self.program)]
        self._half = next((d for d in dtypes if d.name in HALVES), None)
        self._wide = [v.dtype for v in graph.inputs] if self._half is not None else None
        self._results = [(p.shape, p.dtype) for p in self.program.outputs]

    @property
    def nbytes(self) -> int:
        """Memory held between calls."""
        p = self.program
        constants = sum(c.nbytes for c in p.constants)
        return constants + max(1, len(self._idle)) * p.arena_nbytes

    def __call__(self, arrays: Sequence[np.ndarray], out: np.ndarray | None = None) -> Any:
        """Run; ``out`` takes the only result."""
        if self._wide is not None:
            arrays = [a.astype(d, copy=False) for a, d in zip(arrays, self._wide, strict=True)]
        feeds = [a if a.flags.c_contiguous and a.flags.aligned else np.array(a, order="C") for a in arrays]
        results: list[Any] = [None if shape is None else np.empty(shape, dtype) for shape, dtype in self._results]
        if out is not None:
            self._check_out(out)
            if self._half is None and _usable(out, feeds):
                results[0] = out
        try:
            session = self._idle.pop()
        except IndexError:
            session = Session(self.program)
        try:
            session.call(feeds, results)
        finally:
            self._idle.append(session)
        if self._half is not None:
            results = [r.astype(self._half) if r.dtype == np.float32 else r for r in results]
        if out is not None:
            if results[0] is not out:
                out[...] = results[0]
            return out
        return tuple(results) if self._several else results[0]

    def _check_out(self, out: Any) -> None:
        shape, dtype = self._results[0]
        wanted = self._half if self._half is not None and dtype == np.float32 else dtype
        if not isinstance(out, np.ndarray) or out.shape != shape or out.dtype != wanted or not out.flags.writeable:
            given = f"{out.dtype} of shape {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
            raise InputError(f"out is {given}; a writeable array of {wanted} of shape {shape} is needed")


def _usable(out: np.ndarray, feeds: Sequence[np.ndarray]) -> bool:
    """Whether kernels can write to ``out`` while they read the operands."""
    flags = out.flags
    return bool(flags.c_contiguous and flags.aligned) and not any(np.may_share_memory(out, a) for a in feeds)
