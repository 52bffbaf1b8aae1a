"""The package's own source files as syntax trees, by module name: what the layering and lint tests walk."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODELS = ROOT.parent / "shared" / "models"
"""The trained networks beside the checkout; the fixture ``models`` sees that they are there."""

HOMES = {"sigconv": ROOT / "sigconv", "sigconv.export": ROOT / "export"}
"""Each source folder by the package it is installed as."""


def modules() -> dict[str, ast.Module]:
    """Every module of the package."""
    trees = {}
    for package, home in HOMES.items():
        for path in sorted(home.rglob("*.py")):
            parts = path.relative_to(home).with_suffix("").parts
            name = ".".join((package, *(parts[:-1] if parts[-1] == "__init__" else parts)))
            trees[name] = ast.parse(path.read_text("utf-8"), str(path))
    return trees


def imports(tree: ast.Module, known: Mapping[str, object]) -> Iterator[tuple[int, str]]:
    """(line, module) of every import anywhere in the tree, inside functions too.

    ``from a import b`` is an import of ``a.b`` where that is one of the ``known`` modules, else of ``a``.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield node.lineno, full if full in known else base
