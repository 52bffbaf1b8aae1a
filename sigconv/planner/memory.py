"""Where buffers lie in the one arena: those alive at the same time never overlap."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

ALIGN = 64


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
        need = -(-buffer.nbytes // ALIGN) * ALIGN
        best, best_gap, end = -1, 0, 0
        for rival in rivals:
            gap = rival.offset - end
            if gap >= need and (best < 0 or gap < best_gap):
                best, best_gap = end, gap
            end = max(end, rival.offset + -(-rival.nbytes // ALIGN) * ALIGN)
        buffer.offset = end if best < 0 else best
        total = max(total, buffer.offset + need)
        placed.append(buffer)
    return total
