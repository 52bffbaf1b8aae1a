"""What a program does and how long each part takes, as data and as tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sigconv.runtime.program import Row


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned text columns, numbers to the right."""
    cells = [list(header), *map(list, rows)]
    widths = [max(len(r[i]) for r in cells) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        return "  ".join(
            c.rjust(w) if c[:1].isdigit() else c.ljust(w) for c, w in zip(row, widths, strict=True)
        ).rstrip()

    return "\n".join([line(header), "  ".join("-" * w for w in widths), *(line(r) for r in rows)])


def _shape(row: Row) -> str:
    return "?" if row.shape is None else "x".join(map(str, row.shape)) or "scalar"


@dataclass(frozen=True)
class Explanation:
    """Which algorithm runs each fused group, why, and why not the others."""

    rows: tuple[Row, ...]
    arena_nbytes: int
    workspace_nbytes: int
    constant_nbytes: int
    threads: int

    def __str__(self) -> str:
        body = [
            (r.label, r.op, _shape(r), r.algorithm, r.reason, "; ".join(f"{n}: {why}" for n, why in r.rejected))
            for r in self.rows
        ]
        memory = {"arena": self.arena_nbytes, "workspace": self.workspace_nbytes, "constants": self.constant_nbytes}
        sizes = ", ".join(f"{name} {n:,} bytes" for name, n in memory.items()) + f"; threads {self.threads}"
        return table(("node", "op", "output", "algorithm", "why", "not chosen"), body) + "\n" + sizes

    def to_json(self) -> str:
        """The same as JSON."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Timing:
    """One fused group: seconds, operations and bytes it needs at least, and what that makes a second."""

    row: Row
    seconds: float

    @property
    def gflops(self) -> float:
        return self.row.flops / self.seconds / 1e9 if self.seconds else 0.0

    @property
    def gbytes(self) -> float:
        return self.row.nbytes / self.seconds / 1e9 if self.seconds else 0.0


@dataclass(frozen=True)
class Profile:
    """Seconds for each fused group, the smallest of several runs."""

    rows: tuple[Timing, ...]

    @property
    def seconds(self) -> float:
        return sum(t.seconds for t in self.rows)

    def __str__(self) -> str:
        total = self.seconds or 1.0
        body = [
            (
                t.row.label,
                t.row.op,
                _shape(t.row),
                t.row.algorithm,
                f"{t.seconds * 1e6:.1f}",
                f"{100 * t.seconds / total:.1f}",
                f"{t.gflops:.1f}",
                f"{t.gbytes:.1f}",
            )
            for t in self.rows
        ]
        return (
            table(("node", "op", "output", "algorithm", "us", "%", "GFLOP/s", "GB/s"), body)
            + f"\ntotal {self.seconds * 1e6:.1f} us"
        )

    def to_json(self) -> str:
        """The same as JSON."""
        rows: list[dict[str, Any]] = [
            {**asdict(t.row), "seconds": t.seconds, "gflops": t.gflops, "gbytes": t.gbytes} for t in self.rows
        ]
        return json.dumps({"seconds": self.seconds, "rows": rows})
