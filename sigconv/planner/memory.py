"""Where buffers lie in the one arena: those alive at the same time never overlap. And what is too large to try."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from sigconv import lines
from sigconv.config import available_memory
from sigconv.errors import ModelError
from sigconv.graph.infer import Fact, nbytes
from sigconv.graph.ir import Graph


def check_sizes(graph: Graph) -> None:
    """ModelError, naming the node, where a single value takes more memory than there is."""
    limit = available_memory()
    for node in graph.nodes:
        for value in (graph.values[o] for o in node.outputs if o in graph.values):
            if nbytes(Fact(value.dtype, value.shape)) > limit:
                raise ModelError(
                    f"{node.label}: {value.name!r} of {value.dtype}{list(value.shape or ())} takes "
                    f"{nbytes(Fact(value.dtype, value.shape)):,} bytes, there are {limit:,}"
                )


class Interval(Protocol):
    """A buffer of ``nbytes`` alive from step ``first`` to step ``last``, both included."""

    nbytes: int
    first: int
    last: int
    offset: int


def assign(buffers: Iterable[Interval]) -> int:
    """Set every ``offset``; the size of the arena is returned. Greedy by size: each takes the tightest gap that fits.

    Source: the greedy-by-size strategy of Pisarchyk & Lee, Efficient Memory Management for Deep Neural Net Inference
    (2020).
    """
    placed: list[Interval] = []
    total = 0
    for buffer in sorted(buffers, key=lambda b: (-b.nbytes, b.first)):
        rivals = sorted(
            (p for p in placed if p.first <= buffer.last and buffer.first <= p.last), key=lambda p: p.offset
        )
        need = lines.whole(buffer.nbytes)
        best, best_gap, end = -1, 0, 0
        for rival in rivals:
            gap = rival.offset - end
            if gap >= need and (best < 0 or gap < best_gap):
                best, best_gap = end, gap
            end = max(end, rival.offset + lines.whole(rival.nbytes))
        buffer.offset = end if best < 0 else best
        total = max(total, buffer.offset + need)
        placed.append(buffer)
    return total
