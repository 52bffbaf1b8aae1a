"""Ways to run a unit. Machines attach theirs by op name from `planner.lower`; the NumPy reference is always legal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sigconv.planner.build import Builder
from sigconv.planner.fuse import Unit


@dataclass(frozen=True, slots=True)
class Cost:
    """What a candidate is predicted to do: floating-point operations, bytes moved, seconds on one thread."""

    flops: float
    nbytes: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to run units of ``ops``.

    ``legal`` returns why it cannot run the unit (None: it can), ``cost`` a prediction, ``lower`` writes the steps.
    ``accuracy``: ``'exact'`` gives the reference's bits, ``'direct'`` differs in the order of additions only,
    ``'winograd'`` adds an ``error`` of at most that share of the output's scale.
    """

    name: str
    ops: tuple[str, ...]
    legal: Callable[[Unit, Builder], str | None]
    cost: Callable[[Unit, Builder], Cost]
    lower: Callable[[Unit, Builder], None]
    accuracy: str = "direct"
    error: float = 0.0


REGISTRY: dict[str, list[Candidate]] = {}
"""Candidates by op, in order of registration."""


def attach(candidate: Candidate) -> Candidate:
    """Add a candidate to every op it serves."""
    for op in candidate.ops:
        REGISTRY.setdefault(op, []).append(candidate)
    return candidate
