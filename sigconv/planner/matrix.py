"""Every operator and how it can run, as the page docs/operators.md: ``python -m sigconv.planner.matrix``."""

from __future__ import annotations

from sigconv import ops
from sigconv.planner import candidates
from sigconv.planner.chain import CHAIN
from sigconv.planner.elementwise import ELEMENTWISE
from sigconv.planner.lower import HOST, cpu, cuda  # noqa: F401  importing the two attaches their candidates

HEAD = """\
# Operators
Generated: `python -m sigconv.planner.matrix > docs/operators.md`.

Older forms are rewritten to the form of version `since` on loading. Every operator has shape inference and a reference
in NumPy, which runs what no candidate can, between native steps. Candidates are asked for each node at its shapes and
types; of the legal ones the fastest is picked, and `session.explain().details()` says why another was not legal.
`exact`: every correct implementation gives the same bits; `rounding`: the order of additions may differ.

On a CUDA device `numpy` stands for the host, where a node runs only with `fallback="cpu"`.

Passes and rewrites come first: a `BatchNormalization` behind a convolution, say, is gone into its weights.

"""


def native(op: str, domain: str, registry: candidates.Registry = candidates.REGISTRY) -> list[str]:
    """The names of the candidates other than NumPy; elementwise nodes run together, under one name, Convs in chains."""
    key = "" if domain else "Elementwise" if op in ELEMENTWISE else op
    chains = registry.get(CHAIN, ()) if key == "Conv" else ()
    return [candidate.name for candidate in (*registry.get(key, ()), *chains)]


REGISTRIES = (candidates.REGISTRY, candidates.CUDA)


def _names(op: str, domain: str, registry: candidates.Registry) -> str:
    """A cell: candidates, or the reference, which on a CUDA device is the host's and runs with fallback='cpu' only."""
    return ", ".join(native(op, domain, registry)) or HOST.name


def as_markdown() -> str:
    """The page: one row an operator, by domain and name."""
    rows = [
        (op, domain or "ai.onnx", str(spec.since), spec.accuracy, *(_names(op, domain, r) for r in REGISTRIES))
        for (domain, op), spec in sorted(ops.spec.REGISTRY.items())
    ]
    cpu_count, cuda_count = (sum(row[i] != HOST.name for row in rows) for i in (-2, -1))
    count = (
        f"{len(rows)} operators; other candidates than NumPy: {cpu_count} on the CPU, {cuda_count} on CUDA devices.\n"
    )
    head = ("operator", "domain", "since", "accuracy", "on the CPU", "on CUDA devices")
    table = [head, ("---",) * len(head), *rows]
    return HEAD + count + "\n" + "".join(f"| {' | '.join(cells)} |\n" for cells in table)


if __name__ == "__main__":
    print(as_markdown(), end="")
