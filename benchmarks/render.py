"""The newest results as tables: ``python -m benchmarks.render`` writes results/*.md and the README's tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import accuracy, crowded, startup
from benchmarks.cnn import RESULTS

README = Path(__file__).parents[1] / "README.md"
OTHERS: dict[str, Any] = {"accuracy": accuracy, "crowded": crowded, "startup": startup}
"""Scripts that have a page of their own, by the kind of their results."""
BEGIN, END = "<!-- benchmarks.render: begin -->", "<!-- end -->"
TILES = (
    " sigconv multiplies on this CPU's matrix tiles (AMX), within 1e-5 of the output's scale. OpenVINO is held to "
    "float32; by default it would take bfloat16 there, several times faster and with errors of 5e-3. On vectors alone, "
    "as on CPUs without tiles: [results/{name}]({folder}{name})."
)
"""What follows the origin of figures that were measured with matrix tiles."""
SIGNAL_BEGIN, SIGNAL_END = "<!-- benchmarks.render signals: begin -->", "<!-- signals: end -->"


def newest(kind: str = "cnn") -> dict[str, Any] | None:
    """The newest document of a kind in results/, by the date in its name, or None."""
    files = sorted(RESULTS.glob(f"{kind}-*.json"))
    return json.loads(files[-1].read_text("utf-8")) if files else None


def origin(document: dict[str, Any], folder: str) -> str:
    """Where the figures come from; ``folder``: results/ seen from the page."""
    machine, settings = document["machine"], document["settings"]
    versions = ", ".join(f"{p} {v}" for p, v in machine["versions"].items() if p != "sigconv")
    return (
        f"{document['date']}, {machine['cpu']}, {machine['cores']} cores, Python {machine['python']}; {versions}. "
        f"float32; one process an engine, taking turns; the fastest run of {settings['rounds']} rounds."
        + (TILES.format(folder=folder, name="cnn-vectors.md") if "amx_bf16" in machine.get("vectors", ()) else "")
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
            f"once, at {core['gbytes']} GB/s a core, both measured then; matrix tiles, Winograd, weights of 24 "
            "bits and those that stay in a cache may pass it."
        )
    if "memory" in document["settings"]:
        legend += f" Peak: {document['settings']['memory']}; LeNet-5's is what an engine takes without any weights."
    return f"# CNNs side by side\n{origin(document, '')}\n\n{legend}\n\n{table(document, full=True)}"


def signal_origin(document: dict[str, Any]) -> str:
    """Where the figures come from, and what a ratio is."""
    machine, versions = document["machine"], document["machine"]["versions"]
    used = ", ".join(f"{p} {v}" for p, v in versions.items() if p in ("numba", "numpy", "scipy") or "opencv" in p)
    return (
        f"{document['date']}, {machine['cpu']}, {machine['cores']} cores, Python {machine['python']}; {used}. One "
        "process, the libraries taking turns; the fastest turn, in ms. Ratios: the fastest of a library's ways over "
        "ours, above 1 where we are faster, in bold where the goal is met."
    )


def signal_table(document: dict[str, Any], full: bool) -> str:
    """Markdown: every row, losing ones too; unless ``full`` those of float32 and bytes on one thread."""
    names = ("case", "type", "threads", "sigconv", "NumPy", "SciPy", "OpenCV", "NumPy ÷", "SciPy ÷", "OpenCV ÷", "goal")
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    for row in document["rows"]:
        if not full and (row["threads"] != 1 or row["dtype"] == "float64"):
            continue
        best: dict[str, float] = {}
        for name, way in row["ways"].items():
            library = name.split(".")[0]
            best[library] = min(way["ms"], best.get(library, float("inf")))
        ours, peers = best["sigconv"], ("numpy", "scipy", "opencv")
        cells = [row["case"], row["dtype"], str(row["threads"]), f"{ours:.3g}"]
        cells += [f"{best[p]:.3g}" if p in best else "–" for p in peers]
        for p in peers:
            met = p in row["goal"] and p in best and best[p] / ours >= row["goal"][p]
            cells.append("–" if p not in best else f"**{best[p] / ours:.2f}×**" if met else f"{best[p] / ours:.2f}×")
        cells.append(", ".join(f"{p} {g:g}×" for p, g in row["goal"].items()))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def signal_page(document: dict[str, Any], calibration: dict[str, Any] | None) -> str:
    """The text of results/signal.md: every row, losing ones too."""
    text = f"# Signals side by side\n{signal_origin(document)}\n\n{signal_table(document, full=True)}"
    if calibration and calibration["report"]:
        r = calibration["report"]
        worst = ", ".join(
            f"{w['rank']}-D {w['n']} × {w['k']} {w['dtype']} {w['ratio']:.2f}× ({w['choice']})" for w in r["worst"][:6]
        )
        text += (
            f"\n## The chooser\n'auto' takes at most {r['within']}× the time of the best method on {r['share']:.1%} of "
            f"{r['points']} (N, K, dtype, rank) points, one thread, its own decision included; geometric mean "
            f"{r['geometric_mean']}×. Farthest: {worst}.\n"
        )
    return text


def readme(text: str, document: dict[str, Any], signal: dict[str, Any] | None = None) -> str:
    """The README with its tables renewed."""
    bodies = [(BEGIN, END, f"{table(document, full=False)}\n{origin(document, 'benchmarks/results/')}")]
    if signal is not None:
        bodies.append((SIGNAL_BEGIN, SIGNAL_END, f"{signal_table(signal, full=False)}\n{signal_origin(signal)}"))
    for begin, end, body in bodies:
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n{body}\n{end}{rest.partition(end)[2]}"
    return text


def main() -> None:
    document = newest()
    if document is None:
        raise SystemExit("no results yet: run python -m benchmarks.cnn")
    (RESULTS / "cnn.md").write_text(page(document), "utf-8")
    vectors = newest("vectors")
    if vectors is not None:
        (RESULTS / "cnn-vectors.md").write_text(page(vectors), "utf-8")
    signal = newest("signal")
    if signal is not None:
        (RESULTS / "signal.md").write_text(signal_page(signal, newest("calibrate")), "utf-8")
    for kind, script in OTHERS.items():
        found = newest(kind)
        if found is not None:
            (RESULTS / f"{kind}.md").write_text(script.page(found), "utf-8")
    README.write_text(readme(README.read_text("utf-8"), document, signal), "utf-8")


if __name__ == "__main__":
    main()
