"""Where the boxes of a graph lie: rows by longest path, the order in a row by the neighbours above and below.

Source: Sugiyama, Tagawa & Toda, Methods for Visual Understanding of Hierarchical System Structures (1981). Edges over
several rows pass through points of their own in each, so that boxes and lines keep out of each other's way.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SWEEPS = 6
"""Turns of ordering and of straightening; more change little."""

Key = int | tuple[int, int, int]
"""A box by its number, or the point of an edge (from, to) in a row."""


@dataclass(frozen=True)
class Layout:
    """``place``: column and row of each box, columns in box widths. ``paths``: the points of each edge, from above."""

    place: Mapping[int, tuple[float, int]]
    paths: Mapping[tuple[int, int], Sequence[tuple[float, int]]]
    rows: int
    left: float
    right: float


def lay_out(count: int, edges: Sequence[tuple[int, int]]) -> Layout:
    """Places for boxes 0 … ``count`` - 1, numbered so that every edge goes from a lower to a higher one."""
    edges = list(dict.fromkeys(edges))
    row = [0] * count
    for a, b in sorted(edges, key=lambda e: e[1]):
        row[b] = max(row[b], row[a] + 1)
    below = {a: min(row[b] for x, b in edges if x == a) for a in {a for a, _ in edges}} if len(edges) < 4000 else {}
    fed = {b for _, b in edges}
    for a, first in below.items():  # what nothing feeds stands right above the first that needs it
        if a not in fed:
            row[a] = first - 1
    rows: list[list[Key]] = [[] for _ in range(max(row, default=-1) + 1)]
    for box in range(count):
        rows[row[box]].append(box)
    up: dict[Key, list[Key]] = {}
    down: dict[Key, list[Key]] = {}
    chains: dict[tuple[int, int], list[Key]] = {}
    for a, b in edges:
        chain: list[Key] = [a, *((a, b, r) for r in range(row[a] + 1, row[b])), b]
        for r, point in enumerate(chain[1:-1], row[a] + 1):
            rows[r].append(point)
        for above, under in itertools.pairwise(chain):
            down.setdefault(above, []).append(under)
            up.setdefault(under, []).append(above)
        chains[a, b] = chain
    x = {key: float(i) for keys in rows for i, key in enumerate(keys)}
    for sweep in range(SWEEPS):
        _order(rows if sweep % 2 == 0 else rows[::-1], up if sweep % 2 == 0 else down, x)
    for keys in rows:
        _spread(keys, {k: i - (len(keys) - 1) / 2 for i, k in enumerate(keys)}, x)
    for sweep in range(SWEEPS):
        for keys in rows if sweep % 2 == 0 else rows[::-1]:
            near = {k: (up if sweep % 2 == 0 else down).get(k) or [k] for k in keys}
            _spread(keys, {k: _median([x[n] for n in near[k]]) for k in keys}, x)
    place = {box: (x[box], row[box]) for box in range(count)}
    paths = {}
    for (a, b), chain in chains.items():
        paths[a, b] = [(x[key], r) for r, key in enumerate(chain, row[a])]
    return Layout(place, paths, len(rows), min(x.values(), default=0.0), max(x.values(), default=0.0))


def _median(values: Sequence[float]) -> float:
    ordered, middle = sorted(values), len(values) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def _order(rows: Sequence[list[Key]], near: Mapping[Key, Sequence[Key]], x: dict[Key, float]) -> None:
    """Each row in the order of the means of its neighbours in the row before."""
    for keys in rows:
        wish = {k: sum(x[n] for n in near[k]) / len(near[k]) if near.get(k) else x[k] for k in keys}
        keys.sort(key=lambda k: wish[k])  # stable: what is level stays
        x.update((k, float(i)) for i, k in enumerate(keys))


def _spread(keys: Sequence[Key], wish: Mapping[Key, float], x: dict[Key, float]) -> None:
    """The places nearest to the wishes, in the sum of squares, that leave every box its width.

    With the widths taken off this is isotonic regression: neighbours that would overlap are pooled at their mean.
    """
    widths = [0.0]
    for a, b in itertools.pairwise(keys):
        widths.append(widths[-1] + (1.0 if isinstance(a, int) and isinstance(b, int) else 0.62))
    pools: list[tuple[float, int]] = []
    for key, width in zip(keys, widths, strict=True):
        total, size = wish[key] - width, 1
        while pools and pools[-1][0] / pools[-1][1] >= total / size:
            before, n = pools.pop()
            total, size = total + before, size + n
        pools.append((total, size))
    placed = iter(widths)
    it = iter(keys)
    for total, size in pools:
        for _ in range(size):
            x[next(it)] = total / size + next(placed)
