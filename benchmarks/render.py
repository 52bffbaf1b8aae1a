"""The newest results as tables: ``python -m benchmarks.render`` writes results/cnn.md and the README's table."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.cnn import RESULTS

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- benchmarks.render: begin -->", "<!-- end -->"


def newest() -> dict[str, Any] | None:
    """The newest document in results/, by the date in its name, or None."""
    files = sorted(RESULTS.glob("cnn-*.json"))
    return json.loads(files[-1].read_text("utf-8")) if files else None


def origin(document: dict[str, Any]) -> str:
    """One sentence: where the figures come from."""
    machine, settings = document["machine"], document["settings"]
    versions = ", ".join(f"{p} {v}" for p, v in machine["versions"].items() if p != "sigconv")
    return (
        f"{document['date']}, {machine['cpu']}, {machine['cores']} cores, Python {machine['python']}; {versions}. "
        f"float32; one process an engine, taking turns; the fastest run of {settings['rounds']} rounds."
    )


def ratio(row: dict[str, Any]) -> float | None:
    """The best peer's time over ours, above 1 where we are faster; None without a peer."""
    peers = [e["ms"] for name, e in row["engines"].items() if name != "sigconv"]
    return min(peers) / row["engines"]["sigconv"]["ms"] if peers else None


def _ms(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def table(document: dict[str, Any], full: bool) -> str:
    """Markdown: every row, losing ones too; ``full`` adds batch sizes, memory and differences."""
    names = list(dict.fromkeys(name for row in document["rows"] for name in row["engines"]))
    head = ["net", *(["batch"] if full else []), "threads", *(f"{n}, ms" for n in names), "best peer / sigconv"]
    head += ["floor, ms", *(f"{n}, peak MB" for n in names), "difference"] if full else []
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in document["rows"]:
        if not full and row["batch"] != 1:
            continue
        engines, faster = row["engines"], ratio(row)
        cells = [row["net"], *([str(row["batch"])] if full else []), str(row["threads"])]
        cells += [_ms(engines[n]["ms"]) if n in engines else "–" for n in names]
        cells.append("–" if faster is None else f"**{faster:.2f}×**" if faster >= 1 else f"{faster:.2f}×")
        if full:
            cells.append(_ms(row["floor_ms"]) if "floor_ms" in row else "–")
            cells += [f"{engines[n]['peak_mb']:.0f}" if n in engines else "–" for n in names]
            cells.append(f"{max(e['difference'] for e in engines.values()):.0e}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def page(document: dict[str, Any]) -> str:
    """The text of results/cnn.md."""
    core = document["machine"].get("core")
    legend = "A ratio above 1 is a win. Difference: relative to the largest output."
    if core:
        legend += (
            f" Floor: the longer of the multiply-adds at {core['gflops']} GFLOP/s a core and the float32 weights, read "
            f"once, at {core['gbytes']} GB/s a core, both measured then; Winograd and weights of 24 bits may pass it."
        )
    return f"# CNNs side by side\n{origin(document)}\n\n{legend}\n\n{table(document, full=True)}"


def readme(text: str, document: dict[str, Any]) -> str:
    """The README with its table renewed."""
    body = f"{BEGIN}\n{table(document, full=False)}\n{origin(document)}\n{END}"
    return re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: body, text, flags=re.DOTALL)


def main() -> None:
    document = newest()
    if document is None:
        raise SystemExit("no results yet: run python -m benchmarks.cnn")
    (RESULTS / "cnn.md").write_text(page(document), "utf-8")
    README.write_text(readme(README.read_text("utf-8"), document), "utf-8")


if __name__ == "__main__":
    main()
