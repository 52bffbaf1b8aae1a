"""Pick how a unit runs: legal -> rank -> pick, with every reason kept."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sigconv.planner import lower
from sigconv.planner.build import Builder
from sigconv.planner.candidates import REGISTRY, Candidate, Cost, Registry
from sigconv.planner.fuse import Unit


@dataclass(frozen=True, slots=True)
class Choice:
    """The candidate picked, its predicted cost, why, and why not the others."""

    candidate: Candidate
    cost: Cost
    reason: str
    rejected: tuple[tuple[str, str], ...]


TOLERANCE = 1e-4
"""What results may differ from exact ones beyond rounding, as a share of the output's scale, unless a caller says."""


def select(
    unit: Unit,
    builder: Builder,
    only: Collection[str] = (),
    tolerance: float = TOLERANCE,
    registry: Registry = REGISTRY,
) -> Choice:
    """The legal candidate of the registry predicted to be fastest, native ones before NumPy.

    If ``only`` names candidates, one of them wherever one is legal. Candidates whose error is over
    ``tolerance`` are not.
    """
    rejected: list[tuple[str, str]] = []
    ranked: list[tuple[float, int, Candidate, Cost]] = []
    for order, candidate in enumerate((*registry.get(unit.op, ()), lower.HOST)):
        reason = candidate.legal(unit, builder)
        if reason is None and candidate.error > tolerance:
            reason = f"its error of {candidate.error:g} is over the tolerance of {tolerance:g}"
        if reason is not None:
            rejected.append((candidate.name, reason))
            continue
        cost = candidate.cost(unit, builder)
        ranked.append((cost.seconds, order, candidate, cost))
    ranked.sort(key=lambda r: (bool(only) and r[2].name not in only, r[2] is lower.HOST, *r[:2]))
    seconds, _, best, cost = ranked[0]
    rejected += [(c.name, f"predicted {s * 1e6:.1f} us") for s, _, c, _ in ranked[1:]]
    reason = f"predicted {seconds * 1e6:.1f} us" + ("" if len(ranked) > 1 else ", the only legal way")
    return Choice(best, cost, reason, tuple(rejected))
