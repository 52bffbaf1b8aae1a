"""What a program does and how long each part takes, as data and as tables."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from sigconv.runtime.program import Row
from sigconv.text import short, sizes, table

WHAT = {"node": "<", "op": "<", "output": ">", "algorithm": "<"}


def _what(row: Row) -> list[str]:
    """The cells under `WHAT`."""
    return [short(row.label), row.op, "?" if row.shape is None else sizes(row.shape), row.algorithm]


@dataclass(frozen=True)
class Explanation:
    """Which algorithm runs each fused group, why, and why not the others.

    As text a line a group; `details` adds the reasons.
    """

    rows: tuple[Row, ...]
    arena_nbytes: int
    constant_nbytes: int
    threads: int

    def __str__(self) -> str:
        return "\n".join((*self._table(), self.memory()))

    def details(self) -> str:
        """Below each group why its algorithm was chosen, and why each of the others was not."""
        head, rule, *lines = self._table()
        text = [head, rule]
        for line, row in zip(lines, self.rows, strict=True):
            text += [line, f"    {row.algorithm}: {row.reason}"]
            text += [f"    not {name}: {why}" for name, why in row.rejected]
        return "\n".join((*text, self.memory()))

    def _table(self) -> list[str]:
        return table({**WHAT, "predicted us": ">"}, [[*_what(r), f"{r.predicted * 1e6:.1f}"] for r in self.rows])

    def memory(self) -> str:
        """What a session takes, in a line."""
        memory = {"arena": self.arena_nbytes, "constants": self.constant_nbytes}
        listed = ", ".join(f"{name} {n:,} bytes" for name, n in memory.items())
        return f"{listed}; {self.threads} {'thread' if self.threads == 1 else 'threads'}, predicted for one"

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
            [
                *_what(t.row),
                f"{t.seconds * 1e6:.1f}",
                f"{100 * t.seconds / total:.1f}",
                f"{t.gflops:.1f}",
                f"{t.gbytes:.1f}",
            ]
            for t in self.rows
        ]
        lines = table({**WHAT, "us": ">", "%": ">", "GFLOP/s": ">", "GB/s": ">"}, body)
        return "\n".join((*lines, f"total {self.seconds * 1e6:.1f} us"))

    def to_json(self) -> str:
        """The same as JSON."""
        rows: list[dict[str, Any]] = [
            {**asdict(t.row), "seconds": t.seconds, "gflops": t.gflops, "gbytes": t.gbytes} for t in self.rows
        ]
        return json.dumps({"seconds": self.seconds, "rows": rows})
