"""A compiled layer on a CUDA device: called with device arrays, it gives arrays of the first one's kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sigconv.errors import InputError
from sigconv.graph.ir import Graph
from sigconv.nn.net import HALVES
from sigconv.planner.lower.cuda import compile_cuda
from sigconv.runtime.cuda import CudaSession


class DeviceLayer:
    """The device program of a graph; ``several``: a tuple is returned. Every node must have a CUDA kernel."""

    def __init__(self, graph: Graph, dtypes: Sequence[np.dtype[Any]], several: bool) -> None:
        halves = sorted({d.name for d in dtypes if d.name in HALVES})
        if halves:
            raise InputError(f"{', '.join(halves)} on a CUDA device: convert the operands to float32 there")
        self.program = compile_cuda(graph, {})
        self._session = CudaSession(self.program)
        self._several = several

    @property
    def nbytes(self) -> int:
        """Memory held between calls, on the device."""
        return sum(c.nbytes for c in self.program.constants) + self.program.arena_nbytes

    def __call__(self, arrays: Sequence[Any], out: Any = None) -> Any:
        """Run; ``out``, on the device, takes the only result."""
        names = [p.name for p in self.program.inputs]
        first = self.program.outputs[0].name
        outputs = {} if out is None else {first: out}
        results = tuple(self._session.run(dict(zip(names, arrays, strict=True)), outputs).values())
        return results if self._several else results[0]
