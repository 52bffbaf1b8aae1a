"""Ways to run a unit. Machines attach theirs by op name from `planner.lower`; the NumPy reference is always legal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sigconv.graph.ir import Graph
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
    ``'winograd'`` and ``'rounded'`` (weights) add an ``error`` of at most that share of the output's scale.
    """

    name: str
    ops: tuple[str, ...]
    legal: Callable[[Unit, Builder], str | None]
    cost: Callable[[Unit, Builder], Cost]
    lower: Callable[[Unit, Builder], None]
    accuracy: str = "direct"
    error: float = 0.0


Registry = dict[str, list[Candidate]]

REGISTRY: Registry = {}
"""Candidates of the CPU by op, in order of registration."""

CUDA: Registry = {}
"""Those of CUDA devices; `sigconv.planner.lower.cuda` fills it when it is imported."""


def attach(candidate: Candidate, registry: Registry = REGISTRY) -> Candidate:
    """Add a candidate to every op it serves."""
    for op in candidate.ops:
        registry.setdefault(op, []).append(candidate)
    return candidate


@dataclass(frozen=True, slots=True)
class Machine:
    """A kind of device that programs are made for: its candidates and its Builder of (graph, units, threads)."""

    name: str
    registry: Registry
    builder: Callable[[Graph, Sequence[Unit], int], Builder]
