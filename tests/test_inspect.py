"""What is said of a network without running it: costs, receptive fields, memory; and the page that draws it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

import sigconv as sc
from sigconv.graph.infer import infer
from sigconv.graph.interpret import interpret
from sigconv.graph.ir import Graph, Node, Value
from sigconv.inspect.layout import lay_out
from sigconv.inspect.macs import macs
from sigconv.inspect.receptive import RULES, reaches
from sigconv.ops.spec import REGISTRY
from tests.cases import networks

IMAGE = {"x": (1, 3, 224, 224)}


# --- costs -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("net, billions", [("resnet18", 1.81), ("resnet50", 4.09), ("alexnet", 0.71)])
def test_macs_are_torchvisions(net: str, billions: float) -> None:
    """The figures of torchvision's table of models."""
    graph = sc.models.NETS[net]().graph
    facts = infer(graph, IMAGE)
    assert round(sum(macs(node, facts) for node in graph.nodes) / 1e9, 2) == billions


COUNTED = [
    ("Conv", [(2, 4, 9, 8), (6, 2, 3, 2)], {"group": 2}, 2 * 6 * 7 * 7 * (2 * 3 * 2)),
    ("ConvTranspose", [(2, 4, 5), (4, 3, 2)], {}, 2 * 4 * 5 * (3 * 2)),
    ("Gemm", [(7, 3), (7, 5)], {"transA": 1}, 3 * 5 * 7),
    ("MatMul", [(2, 1, 3, 4), (5, 4, 6)], {}, 2 * 5 * 3 * 6 * 4),
    ("GRU", [(7, 2, 4), (1, 9, 4), (1, 9, 3)], {"hidden_size": 3}, 7 * 2 * (9 * 4 + 9 * 3)),
    ("Relu", [(2, 3)], {}, 0),
]


@pytest.mark.parametrize("op, shapes, attrs, count", COUNTED, ids=[c[0] for c in COUNTED])
def test_macs_of_a_node(op: str, shapes: list[tuple[int, ...]], attrs: dict, count: int) -> None:
    names = [f"i{i}" for i in range(len(shapes))]
    inputs = tuple(Value(n, np.dtype(np.float32), s) for n, s in zip(names, shapes, strict=True))
    node = Node(op, tuple(names), ("y",), attrs)
    facts = infer(Graph((node,), inputs, (Value("y"),)))
    assert macs(node, facts) == count
    open_sizes = infer(Graph((node,), inputs, (Value("y"),)), {"i0": ("N", *shapes[0][1:])})
    assert macs(node, open_sizes) == (None if count else 0)


def test_memory_of_a_chain() -> None:
    b = sc.GraphBuilder("chain")
    x = b.input("x", (1, 10))
    small = b.op("Concat", x, x, axis=1)  # 20 values; with x 30
    large = b.op("Concat", small, small, small, axis=1)  # 60; with x and the one before 90
    summary = sc.Model(b.build(b.op("ReduceMax", large))).summary()
    assert summary.peak_nbytes == 4 * 90
    assert [layer.nbytes for layer in summary.layers] == [80, 240, 4]


def test_summary_counts_what_training_sets() -> None:
    summary = sc.models.resnet(18).summary(IMAGE)
    assert summary.parameters == 11_689_512
    assert sum(layer.macs for layer in summary.layers) == summary.macs
    found = json.loads(summary.to_json())
    assert found["inputs"] == [{"name": "x", "dtype": "float32", "shape": [1, 3, 224, 224]}]
    assert found["layers"][0]["field"] == "7x7"
    text = str(sc.load(networks.cnn()).summary())
    assert "depend on the input's size" in text
    assert "Nx20x12x12" in text
    assert text.isascii()


# --- receptive fields ------------------------------------------------------------------------------------------------
def test_the_field_of_alexnet_is_the_published_one() -> None:
    """Araujo, Norris & Sim 2019, table 1."""
    graph = sc.models.alexnet().graph
    assert str(reaches(graph, infer(graph, IMAGE))["pool_2"]) == "195x195"


def layers(rng: np.random.Generator) -> list[tuple[str, dict]]:
    """A random chain of one-dimensional layers."""

    def one() -> tuple[str, dict]:
        kernel, stride, dilation = (int(rng.integers(*r)) for r in ((1, 5), (1, 3), (1, 3)))
        window = {"kernel_shape": (kernel,), "strides": (stride,)}
        return [
            ("Conv", {**window, "dilations": (dilation,)}), ("MaxPool", {**window, "dilations": (dilation,)}),
            ("AveragePool", window), ("Relu", {}), ("ConvTranspose", {"kernel_shape": (kernel,), "strides": (stride,)}),
        ][rng.integers(5)]  # fmt: skip

    return [one() for _ in range(rng.integers(1, 5))]


@pytest.mark.parametrize("seed", range(25))
def test_fields_are_what_a_change_reaches(seed: int) -> None:
    """Every input element is changed in turn: an output element moves for a stretch of them, as long as is said."""
    rng = np.random.default_rng(seed)
    b = sc.GraphBuilder("chain")
    y, length = b.input("x", (1, 1, 64)), 64
    for i, (op, attrs) in enumerate(layers(rng)):
        weight = [b.constant(f"w{i}", np.full((1, 1, *attrs["kernel_shape"]), 0.5, np.float32))] if "Conv" in op else []
        y = b.op(op, y, *weight, **attrs)
    graph = b.build(y)
    length = graph.outputs[0].shape[2]
    size = reaches(graph, infer(graph))[y].sizes().get(2, 1)
    if length < 1 or size > 40:
        return
    x = rng.uniform(1, 2, (1, 1, 64)).astype(np.float32)
    base = interpret(graph, {"x": x})[y][0, 0]
    moved = np.zeros((64, length), bool)
    for i in range(64):
        more = x.copy()
        more[0, 0, i] = 10  # above all others: a maximum moves too
        moved[i] = interpret(graph, {"x": more})[y][0, 0] != base
    extents = [int(np.ptp(np.flatnonzero(column))) + 1 for column in moved.T if column.any()]
    exact = all(node.op != "ConvTranspose" for node in graph.nodes)
    assert max(extents) == size if exact else max(extents) <= size


def test_fields_through_the_other_operators() -> None:
    b = sc.GraphBuilder("net")
    x = b.input("x", (1, 16, 16, 4))  # channels last
    y = b.conv(b.op("Transpose", x, perm=(0, 3, 1, 2)), 8, 3, padding=1)
    sees = {"conv": y}
    sees["depth"] = b.op("SpaceToDepth", y, blocksize=2)
    sees["resized"] = b.op("Resize", y, "", b.constant("s", np.float32([1, 1, 2, 0.5])), mode="linear")
    sees["joined"] = b.op("Add", b.op("Transpose", x, perm=(0, 3, 1, 2)), b.conv(y, 4, 5, padding=2, name="second"))
    sees["softmax"] = b.op("Softmax", y, axis=3)
    sees["pooled"] = b.global_average_pool(y)
    sees["squeezed"] = b.op("Squeeze", sees["pooled"], b.constant("axes", np.int64([2, 3])))
    sees["flat"] = b.flatten(y)
    sees["scores"] = b.linear(sees["flat"], 10)
    graph = b.build(*sees.values())
    found = reaches(graph, infer(graph))
    assert {name: str(found[value]) for name, value in sees.items()} == {
        "conv": "3x3", "depth": "4x4", "resized": "4x4", "joined": "7x7", "softmax": "3xall", "pooled": "all",
        "squeezed": "all", "flat": "", "scores": "all",
    }  # fmt: skip


def test_rules_are_for_operators_there_are() -> None:
    assert set(RULES) - {op for _, op in REGISTRY} == set()


# --- the page --------------------------------------------------------------------------------------------------------
class Page(HTMLParser):
    """The elements of a page, and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self._open = ""
        self.feed(text)
        self.data = json.loads(self.scripts["data"])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = str(dict(attrs).get("id", "code")) if tag == "script" else ""

    def handle_data(self, data: str) -> None:
        if self._open:
            self.scripts[self._open] = data
            self._open = ""

    def of(self, kind: str) -> list[dict[str, str | None]]:
        return [attrs for _, attrs in self.elements if kind in (attrs.get("class") or "").split()]


def test_the_page_holds_every_node(tmp_path: Path) -> None:
    model = sc.load(networks.cnn())
    text = model.to_html(tmp_path / "net.html", {"x": (2, 3, 12, 12)}, profile=True)
    assert (tmp_path / "net.html").read_text("utf-8") == text
    page = Page(text)
    nodes = page.data["nodes"]
    assert [n["name"] for n in nodes] == ["x", *(n.name for n in model.graph.nodes), "y"]
    assert len(page.of("box")) == len(nodes) == 19
    lines = {(int(e["data-a"]), int(e["data-b"])) for e in page.of("edge")}
    assert (0, 1) in lines
    assert (3, 5) in lines, "the residual"
    conv = next(n for n in nodes if n["name"] == "planar")
    assert (conv["shape"], conv["field"], conv["algorithm"] != "") == ("2x20x12x12", "3x3", True)
    assert conv["together"].startswith("Conv + ")
    assert conv["seconds"] > 0
    assert sum(n["share"] for n in nodes) == pytest.approx(1, abs=0.2)  # but for copies of outputs
    assert not re.findall(r"(?:src|href|url|import)\W{1,3}https?:", text)
    assert page.data["profiled"]


def test_the_page_without_sizes_and_profiles() -> None:
    model = sc.load(networks.cnn())
    page = Page(model.to_html())
    assert not page.data["profiled"]
    assert all(n["algorithm"] == "" for n in page.data["nodes"])
    feeds = {"x": np.ones((1, 3, 12, 12), np.float32)}
    assert Page(model.to_html(profile=feeds)).data["profiled"]
    with pytest.raises(sc.InputError, match="needs fixed input shapes"):
        model.to_html(profile=True)


def test_names_cannot_break_out_of_the_page() -> None:
    evil = "</script><img src=x onerror=alert(1)>\"'&\u2028<!--"
    nodes = [helper.make_node("Relu", ["x"], ["y"], name=evil)]
    proto = networks.model(nodes, {"x": [2]}, ["y"])
    proto.graph.name = evil
    page = Page(sc.load(proto).to_html())
    assert {tag for tag, _ in page.elements} & {"img", "iframe", "a", "object"} == set()
    assert page.data["nodes"][1]["name"] == evil
    assert sum(tag == "script" for tag, _ in page.elements) == 2


@pytest.mark.parametrize("seed", range(10))
def test_boxes_and_lines_keep_their_distance(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 40))
    pairs = rng.integers(0, count, (2 * count, 2))
    edges = [(int(min(p)), int(max(p))) for p in pairs if p[0] != p[1]]
    laid = lay_out(count, edges)
    assert set(laid.paths) == set(edges)
    taken: dict[int, list[float]] = {}
    for x, row in laid.place.values():
        taken.setdefault(row, []).append(x)
    assert all(np.diff(sorted(xs)).min(initial=1) > 0.999 for xs in taken.values())
    for (a, b), path in laid.paths.items():
        assert path[0] == laid.place[a]
        assert path[-1] == laid.place[b]
        assert [row for _, row in path] == list(range(path[0][1], path[-1][1] + 1))
        for x, row in path[1:-1]:
            assert min(abs(x - other) for other in taken.get(row, [x + 9])) > 0.6


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_browser_opens_the_page(models: Path, tmp_path: Path) -> None:
    model = sc.load(models / "yunet_n_320.onnx")
    model.to_html(tmp_path / "net.html", profile=True)
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--window-size=1400,900",
        "--enable-logging=stderr",
    ]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=2000", "--dump-dom"]

    def opened(at: str) -> str:
        address = (tmp_path / "net.html").as_uri() + at
        page = subprocess.run([*command, address], capture_output=True, text=True, timeout=60, check=True)
        assert "Uncaught" not in page.stderr
        assert 'data-ready="yes"' in page.stdout
        return page.stdout

    shown = opened("")
    assert "Where the time goes" in shown
    assert shown.count('<tr class="row">') > 30
    chosen = opened("#1")
    assert shown.count('class="box chosen"') == 0
    assert chosen.count('class="box chosen"') == 1
    assert "direct_planar" in chosen.split("<aside")[1]
