"""What the documents say is what the code does: generated parts, links, names, and Python that runs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import sigconv
from benchmarks import crowded, render, startup
from sigconv import cli, config, demo
from sigconv.ops import spec
from sigconv.planner import matrix
from sigconv.planner.candidates import REGISTRY
from tests.sources import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_configuration_is_generated():
    text = (ROOT / "docs/configuration.md").read_text("utf-8")
    assert config.as_markdown() in text, "run: python -m sigconv.config > docs/configuration.md"


def test_the_operators_are_generated():
    text = (ROOT / "docs/operators.md").read_text("utf-8")
    assert text == matrix.as_markdown(), "run: python -m sigconv.planner.matrix > docs/operators.md"


def test_every_candidate_is_in_the_page():
    named = {name for domain, op in spec.REGISTRY for name in matrix.native(op, domain)}
    assert named == {c.name for candidates in REGISTRY.values() for c in candidates}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_every_decision_is_listed():
    folder = ROOT / "docs/decisions"
    listed = re.findall(r"\((\d{4}-[\w-]+\.md)\)", (folder / "README.md").read_text("utf-8"))
    assert listed == sorted(p.name for p in folder.glob("0*.md"))


def test_the_guide_names_every_command():
    text = (ROOT / "docs/guide.md").read_text("utf-8")
    (commands,) = (a.choices for a in cli.parser()._actions if isinstance(a.choices, dict))
    assert [name for name in commands if f"sigconv {name}" not in text] == []


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", *(ROOT / "docs" / name for name in ("guide.md", "inspection.md", "convolution.md"))],
    ids=lambda p: p.name,
)
def test_python_in_the_pages_runs(page: Path, tmp_path: Path, monkeypatch):
    """The blocks of a page in order, with the demo's model as their file."""
    monkeypatch.chdir(tmp_path)
    Path("model.onnx").write_bytes(demo.MODEL.read_bytes())
    images = demo.upscale(demo.held_out()[0][:8])
    blocks = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    assert blocks
    code = "\n".join(blocks).replace("(8, 3, 224, 224)", str(images.shape))
    names = {"x": images}
    exec(compile(code, str(page), "exec"), names)
    assert names["sc"] is sigconv
    assert isinstance(names["y"], np.ndarray)


def test_tables_hold_the_newest_results():
    document = render.newest()
    readme = (ROOT / "README.md").read_text("utf-8")
    assert render.BEGIN in readme
    signal = render.newest("signal")
    if document is None:
        assert "|" not in readme.split(render.BEGIN)[1].split(render.END)[0], "figures without results"
    else:
        assert render.readme(readme, document, signal) == readme, "run: python -m benchmarks.render"
        assert render.page(document) == (render.RESULTS / "cnn.md").read_text("utf-8")
    for kind, script in render.OTHERS.items():
        found = render.newest(kind)
        if found is not None:
            page = (render.RESULTS / f"{kind}.md").read_text("utf-8")
            assert script.page(found) == page, "run: python -m benchmarks.render"
    if signal is not None:
        page = render.signal_page(signal, render.newest("calibrate"))
        assert page == (render.RESULTS / "signal.md").read_text("utf-8"), "run: python -m benchmarks.render"


DOCUMENT = {
    "date": "2026-01-01",
    "machine": {"cpu": "C", "cores": 2, "python": "3", "versions": {"sigconv": "0", "onnxruntime": "1"}},
    "settings": {"rounds": 3},
    "rows": [
        {
            "net": net,
            "batch": batch,
            "threads": 1,
            "engines": {
                "sigconv": {"ms": 2.0, "peak_mb": 10, "difference": 0.0},
                "onnxruntime": {"ms": ms, "peak_mb": 20, "difference": 1e-6},
            },
        }
        for net, batch, ms in (("A", 1, 4.0), ("B", 1, 1.0), ("B", 8, 123.4))
    ],
}


def test_rendering():
    short, full = render.table(DOCUMENT, full=False), render.table(DOCUMENT, full=True)
    assert "| A | 1 | 2 | 4 | **2.00×** |" in short
    assert "| B | 1 | 2 | 1 | 0.50× |" in short  # a losing row is a row
    assert "123" not in short
    assert "| B | 8 | 1 | 2 | 123 | **61.70×** | – | 10 | 20 | 1e-06 |" in full  # measured before floors were
    text = f"before {render.BEGIN}old{render.END} after"
    assert render.readme(text, DOCUMENT) == render.readme(render.readme(text, DOCUMENT), DOCUMENT)
    assert "old" not in render.readme(text, DOCUMENT)


def test_the_page_of_first_results_shows_what_was_measured():
    row = startup.measure("import", rounds=1)
    cells = [line.split(" | ") for line in startup.page({**DOCUMENT, "rows": [row]}).splitlines() if "import" in line]
    assert [c[1] for c in cells] == list(row["who"])
    assert [c[2] for c in cells] == [f"{figures['seconds']:.3f}" for figures in row["who"].values()]


def test_the_page_beside_other_work_shows_what_was_measured():
    rows = [crowded.turns("LeNet-5", others=0, seconds=0.2)]
    document = {**DOCUMENT, "rows": rows, "rest": [crowded.rest("LeNet-5", threads=2, seconds=0.01)]}
    cells = [line.split(" | ") for line in crowded.page(document).splitlines() if line.startswith("| LeNet-5")]
    assert cells[0][2:4] == [f"{rows[0]['mean_ms'][n]:.3g}" for n in "12"]
    assert len(cells) == 2
