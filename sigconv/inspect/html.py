"""A graph as one HTML file that needs nothing else: boxes and lines, and what is known of each node.

Names come from files that nobody vouches for: they enter the page only escaped, or as JSON that scripts put into text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np

from sigconv.graph.ir import Graph, Node
from sigconv.inspect.layout import lay_out
from sigconv.inspect.summary import Summary, dims
from sigconv.runtime.program import Row

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 172, 56, 22, 32, 24
"""Pixels of a box and between boxes."""

GROUPS = {
    "conv": ("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "DeformConv"),
    "product": ("Gemm", "MatMul", "MatMulInteger", "QLinearMatMul", "QGemm", "Einsum", "LSTM", "GRU", "RNN"),
    "norm": ("BatchNormalization", "InstanceNormalization", "GroupNormalization", "LayerNormalization", "LRN"),
    "activation": (
        *("Relu", "LeakyRelu", "PRelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Swish", "Mish", "Softplus"),
        *("Softsign", "Erf", "Gelu", "Elu", "Celu", "Selu", "Softmax", "LogSoftmax", "Clip"),
    ),
    "arithmetic": ("Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Exp", "Log", "Max", "Min", "Sum", "Neg", "Abs", "Where"),
    "move": (
        *("Concat", "Split", "Slice", "Pad", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand"),
        *("Gather", "Tile", "Resize", "DepthToSpace", "SpaceToDepth", "Cast", "Identity", "Shape"),
    ),
}
"""The colours of a drawing, and who has them."""


def _group(op: str) -> str:
    if "Pool" in op or op.startswith("Reduce"):
        return "pool"
    return next((name for name, ops in GROUPS.items() if op in ops), "other")


def page(graph: Graph, summary: Summary, rows: Sequence[Row] = (), seconds: Sequence[float] | None = None) -> str:
    """The page. ``rows`` are what a program runs, ``seconds`` how long each of them took."""
    groups = _groups(rows, seconds)
    nodes = [
        *(_end("input", v.name, dims(v.shape), str(v.dtype or "")) for v in summary.inputs),
        *(_node(node, layer, groups) for node, layer in zip(graph.nodes, summary.layers, strict=True)),
        *(_end("output", v.name, dims(v.shape), str(v.dtype or "")) for v in summary.outputs),
    ]
    first = len(summary.inputs)
    writers = {v.name: i for i, v in enumerate(summary.inputs)}
    writers |= {out: first + i for i, node in enumerate(graph.nodes) for out in node.outputs if out}
    edges = [(writers[n], first + i) for i, node in enumerate(graph.nodes) for n in node.inputs if n in writers]
    ends = first + len(graph.nodes)
    edges += [(writers[v.name], ends + i) for i, v in enumerate(summary.outputs) if v.name in writers]
    data = {"profiled": seconds is not None, "nodes": nodes}
    text = files(__package__)
    title = graph.name or "network"
    facts = [
        ("nodes", f"{len(graph.nodes):,}"),
        ("parameters", f"{summary.parameters:,}"),
        ("MACs", "?" if summary.macs is None else f"{summary.macs:,}"),
        ("values", "?" if summary.peak_nbytes is None else f"{summary.peak_nbytes / 1e6:,.1f} MB"),
    ]
    if seconds is not None:
        facts.append(("time", f"{sum(seconds) * 1e3:,.2f} ms"))
    shown = "".join(f'<span class="fact"><b>{escape(value)}</b> {escape(name)}</span>' for name, value in facts)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        "script-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{text.joinpath('page.css').read_text('utf-8')}</style></head><body>"
        f"<header><h1>{escape(title)}</h1>{shown}"
        '<label>find <input type="search" id="search" placeholder="operator, name, algorithm"></label>'
        '<label>size <input type="range" id="zoom" min="0.2" max="1.6" step="0.05" value="1"></label></header>'
        f'<main id="graph">{_drawing(nodes, edges, seconds is not None)}</main><aside id="side"></aside>'
        f'<script type="application/json" id="data">{_json(data)}</script>'
        f"<script>{text.joinpath('page.js').read_text('utf-8')}</script></body></html>\n"
    )


def _json(data: Any) -> str:
    """JSON that no text in it can break out of."""
    return json.dumps(data, allow_nan=False).replace("<", "\\u003c")


def _groups(rows: Sequence[Row], seconds: Sequence[float] | None) -> Mapping[str, tuple[Row, float | None, float]]:
    """By the name of each node: the row that runs it, its seconds, and its share of all."""
    total = sum(seconds or ()) or 1.0
    found = {}
    for i, row in enumerate(rows):
        took = None if seconds is None else float(seconds[i])
        for name in row.fused or (row.label,):
            found[name] = (row, took, (took or 0.0) / total)
    return found


def _end(kind: str, name: str, shape: str, dtype: str) -> dict[str, Any]:
    empty: dict[str, Any] = dict.fromkeys(("parameters", "macs"), 0)
    empty |= dict.fromkeys(("field", "algorithm", "reason"), "") | {"nbytes": None, "seconds": None, "share": 0}
    empty |= {key: [] for key in ("group", "attrs", "inputs", "outputs", "rejected")}
    return {
        **empty,
        "op": kind,
        "name": name,
        "short": name,
        "together": kind,
        "shape": shape,
        "dtype": dtype,
        "end": True,
        "kind": "end",
    }


def _node(node: Node, layer: Any, groups: Mapping[str, tuple[Row, float | None, float]]) -> dict[str, Any]:
    row, took, share = groups.get(node.name or "", groups.get(node.outputs[0], (None, None, 0.0)))
    first = row is not None and row.fused[:1] in ((node.name,), node.outputs[:1])  # where a group's time is shown
    name = node.name or ", ".join(o for o in node.outputs if o)
    return {
        "op": layer.op,
        "name": name,
        "short": name if len(name) <= 44 else "…" + name[-43:],
        "shape": dims(layer.shape),
        "dtype": layer.dtype,
        "parameters": layer.parameters,
        "macs": layer.macs,
        "field": layer.field,
        "nbytes": layer.nbytes,
        "algorithm": row.algorithm if row else "folded away" if groups else "",
        "reason": row.reason if row else "",
        "rejected": [list(pair) for pair in row.rejected] if row else [],
        "group": [n for n in row.fused if n not in (node.name, *node.outputs)] if row else [],
        "seconds": took,
        "share": share if first else 0.0,
        "together": row.op if row and first else layer.op,
        "attrs": [[key, _shown(value)] for key, value in node.attrs.items()],
        "inputs": [[str(i), n] for i, n in enumerate(node.inputs) if n],
        "outputs": [[str(i), n] for i, n in enumerate(node.outputs) if n],
        "end": False,
        "kind": _group(node.op),
    }


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{list(value.shape)}"
    if isinstance(value, Graph):
        return f"graph of {len(value.nodes)} nodes"
    text = ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
    return text if len(text) <= 200 else text[:199] + "…"


def _drawing(nodes: Sequence[Mapping[str, Any]], edges: Sequence[tuple[int, int]], timed: bool) -> str:
    """The graph as SVG: it shows without scripts too."""
    laid = lay_out(len(nodes), edges)

    def spot(x: float, row: int) -> tuple[float, float]:
        return MARGIN + WIDTH / 2 + (x - laid.left) * (WIDTH + GAP_X), MARGIN + row * (HEIGHT + GAP_Y)

    width = (laid.right - laid.left) * (WIDTH + GAP_X) + WIDTH + 2 * MARGIN
    height = max(laid.rows, 1) * (HEIGHT + GAP_Y) + 2 * MARGIN
    lines = []
    for (a, b), path in laid.paths.items():
        points = [spot(*p) for p in path]
        x, y = points[0]
        d = f"M{x:.0f} {y + HEIGHT:.0f}"
        y += HEIGHT
        for i, (u, v) in enumerate(points[1:], 1):
            bend = (v - y) / 2
            d += f"C{x:.0f} {y + bend:.0f} {u:.0f} {v - bend:.0f} {u:.0f} {v:.0f}"
            x, y = u, v
            if i < len(points) - 1:  # past the boxes of the row
                y += HEIGHT
                d += f"V{y:.0f}"
        lines.append(f'<path class="edge" data-a="{a}" data-b="{b}" d="{d}"/>')
    boxes = [_box(i, node, *spot(*laid.place[i]), timed) for i, node in enumerate(nodes)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" data-width="{width:.0f}" '
        f'data-height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}">{"".join(lines)}{"".join(boxes)}</svg>'
    )


def _box(i: int, node: Mapping[str, Any], x: float, y: float, timed: bool) -> str:
    def text(kind: str, at: float, down: float, content: str, most: int) -> str:
        cut = content if len(content) <= most else content[: most - 1] + "…"
        return f'<text class="{kind}" x="{at:.0f}" y="{down:.0f}">{escape(cut)}</text>'

    left, hot = x - WIDTH / 2, node["share"]
    parts = [
        f'<g class="box{" end" if node["end"] else ""}" data-i="{i}"><title>{escape(node["name"])}</title>'
        f'<rect class="body" x="{left:.0f}" y="{y:.0f}" width="{WIDTH}" height="{HEIGHT}" rx="7"/>'
        f'<rect class="g-{node["kind"]}" x="{left:.0f}" y="{y + 6:.0f}" width="4" height="{HEIGHT - 12}" rx="2"/>'
    ]
    if timed and hot > 0:
        parts.append(
            f'<rect x="{left + 8:.0f}" y="{y + HEIGHT - 4:.0f}" width="{max(1.0, hot * (WIDTH - 16)):.0f}" height="3" '
            'rx="1.5" fill="#d1495b"/>'
        )
        parts.append(text("time", left + WIDTH - 8, y + 18, _time(node["seconds"]), 10))
    parts.append(text("op", left + 12, y + 18, node["op"] if not node["end"] else node["name"], 15 if hot else 20))
    parts.append(text("shape", left + 12, y + 33, node["shape"], 26))
    parts.append(text("algorithm", left + 12, y + 46, node["algorithm"] or node["dtype"], 27))
    return "".join((*parts, "</g>"))


def _time(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1e3:.2f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.1f} µs"
