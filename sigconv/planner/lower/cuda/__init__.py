"""CUDA candidates, and programs made of them. Importing this package attaches them; the CPU half never imports it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from sigconv.errors import UnsupportedError
from sigconv.graph.evaluate import Body
from sigconv.graph.ir import Graph
from sigconv.kernels.cuda.limits import OLDEST
from sigconv.planner.candidates import CUDA, Machine
from sigconv.planner.compile import compile_graph
from sigconv.planner.device import DeviceBuilder
from sigconv.planner.lower import HOST
from sigconv.planner.lower.cuda import convolution, movement, products, streaming, winograd
from sigconv.planner.select import TOLERANCE
from sigconv.runtime.program import Program

__all__ = ["OLDEST", "compile_cuda", "convolution", "movement", "products", "streaming", "winograd"]


def compile_cuda(
    graph: Graph,
    shapes: Mapping[str, Sequence[int]],
    *,
    only: Collection[str] = (),
    tolerance: float = TOLERANCE,
    fallback: str | None = None,
    body: Callable[[Graph], Body] = Body,
    capability: tuple[int, int] = OLDEST,
) -> Program:
    """The program of ``graph`` for a CUDA device of this compute capability, every input bound to a shape.

    Raises
    ------
    UnsupportedError
        Nodes have no CUDA kernel and ``fallback`` is not 'cpu': all of them are listed, each with the reasons.
    """
    machine = Machine("cuda", CUDA, lambda graph, units, threads: DeviceBuilder(graph, capability))
    program = compile_graph(graph, shapes, only=only, tolerance=tolerance, body=body, machine=machine)
    hosted = [row for row in program.rows if row.algorithm == HOST.name]
    if hosted and fallback != "cpu":
        missing = tuple(
            f"{row.op} {row.label!r} ({'; '.join(f'{name}: {why}' for name, why in row.rejected) or 'no kernel'})"
            for row in hosted
        )
        raise UnsupportedError(
            f"no CUDA kernel for {', '.join(missing)}. fallback='cpu' runs them on the host, with a copy each way",
            missing,
        )
    return program
