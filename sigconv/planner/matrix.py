"""Every operator and how it can run, as the page docs/operators.md: ``python -m sigconv.planner.matrix``."""

from __future__ import annotations

from sigconv import ops
from sigconv.planner import candidates
from sigconv.planner.elementwise import ELEMENTWISE
from sigconv.planner.lower import HOST, cpu  # noqa: F401  importing cpu attaches its candidates

HEAD = """\
# Operators
Generated: `python -m sigconv.planner.matrix > docs/operators.md`.

Older forms are rewritten to the form of version `since` on loading. Every operator has shape inference and a reference
in NumPy, which runs what no candidate can, between native steps. Candidates are asked for each node at its shapes and
types; of the legal ones the fastest is picked, and `session.explain().details()` says why another was not legal.
`exact`: every correct implementation gives the same bits; `rounding`: the order of additions may differ.

Passes and rewrites come first: a `BatchNormalization` behind a convolution, say, is gone into its weights.

"""


def native(op: str, domain: str) -> list[str]:
    """The names of the candidates other than NumPy; elementwise nodes run together, under one name."""
    key = "" if domain else "Elementwise" if op in ELEMENTWISE else op
    return [candidate.name for candidate in candidates.REGISTRY.get(key, ())]


def as_markdown() -> str:
    """The page: one row an operator, by domain and name."""
    rows = [
        (op, domain or "ai.onnx", str(spec.since), spec.accuracy, ", ".join(native(op, domain)) or HOST.name)
        for (domain, op), spec in sorted(ops.spec.REGISTRY.items())
    ]
    compiled = sum(row[-1] != HOST.name for row in rows)
    count = f"{len(rows)} operators, {compiled} of them with candidates other than NumPy.\n"
    head = ("operator", "domain", "since", "accuracy", "on the CPU")
    table = [head, ("---",) * len(head), *rows]
    return HEAD + count + "\n" + "".join(f"| {' | '.join(cells)} |\n" for cells in table)


if __name__ == "__main__":
    print(as_markdown(), end="")
