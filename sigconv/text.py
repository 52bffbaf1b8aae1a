"""Tables for the terminal, and names that fit into them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

NAME_WIDTH = 40


def short(name: str) -> str:
    """The name, or its end: exporters put the scope first, and last what tells one node from another."""
    return name if len(name) <= NAME_WIDTH else "…" + name[1 - NAME_WIDTH :]


def sizes(shape: Sequence[int]) -> str:
    """A shape as ``1x3x224x224``, ``scalar`` where it has no axes."""
    return "x".join(map(str, shape)) or "scalar"


def table(columns: Mapping[str, str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table: header, rule, rows. ``columns``: each header with its alignment, ``<`` or ``>``."""
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    lines = [list(columns), ["-" * w for w in widths], *rows]
    aligned = [
        [f"{cell:{align}{width}}" for cell, align, width in zip(line, columns.values(), widths, strict=True)]
        for line in lines
    ]
    return ["  ".join(line).rstrip() for line in aligned]
