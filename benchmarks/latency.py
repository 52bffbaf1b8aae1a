"""What a call costs: ``python -m benchmarks.latency [--seconds 1] [-o FILE]``.

Two nodes on sixteen numbers, where the call is all there is, and LeNet-5. Each engine has a process of its own;
Python's share is a run of the session less the native call inside it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from benchmarks import machine
from sigconv import demo, load, race

GOAL_US = 15.0
"""Python's share of ``session.run`` on the graph of two nodes."""


def two_nodes() -> onnx.ModelProto:
    """y = softmax(sigmoid(x)), two kernels that do not fuse."""
    nodes = [helper.make_node("Sigmoid", ["x"], ["a"]), helper.make_node("Softmax", ["a"], ["y"])]
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 16]) for name in "xy")
    graph = helper.make_graph(nodes, "two_nodes", [x], [y])
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def python_share(path: Path, feeds: dict[str, np.ndarray], seconds: float) -> dict[str, float]:
    """Microseconds of a run of the session and of the model, and of the native call inside them."""
    model = load(path)
    session = model.compile({name: x.shape for name, x in feeds.items()}, threads=1)
    times = {
        "session.run": race.best(lambda: session.run(feeds), seconds),
        "model.run": race.best(lambda: model.run(feeds), seconds),
    }
    _outputs = session.run(feeds)  # kept: what the native call writes to
    (native,) = session._segments
    times["native"] = race.best(lambda: native.run(1), seconds)
    return {name: t * 1e6 for name, t in times.items()}


def measure(seconds: float, rounds: int) -> list[dict[str, Any]]:
    """A row a network: microseconds of each engine, and ours taken apart."""
    rng = np.random.default_rng(0)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "two_nodes.onnx"
        onnx.save(two_nodes(), small)
        for net, path, shape in (("two nodes", small, (1, 16)), ("LeNet-5", demo.MODEL, (1, 1, 32, 32))):
            feeds = {load(path).inputs[0].name: rng.random(shape, np.float32)}
            engines = [e for e in ("sigconv", "onnxruntime") if e in race.installed()]
            results = race.race(engines, path, feeds, 1, rounds=rounds, seconds=seconds)
            rows.append(
                {
                    "net": net,
                    "engines_us": {r.engine: round(r.seconds * 1e6, 2) for r in results},
                    "parts_us": {k: round(v, 2) for k, v in python_share(path, feeds, seconds).items()},
                }
            )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, help="write JSON there")
    arguments = parser.parse_args()
    rows = measure(arguments.seconds, arguments.rounds)
    for row in rows:
        parts = row["parts_us"]
        print(f"{row['net']:<10}", "   ".join(f"{engine} {us:.1f} us" for engine, us in row["engines_us"].items()))
        print(f"{'':<10}", "   ".join(f"{part} {us:.1f} us" for part, us in parts.items()))
    parts = rows[0]["parts_us"]
    share = parts["session.run"] - parts["native"]
    print(f"Python's share of session.run: {share:.1f} us (goal: {GOAL_US:.0f} us or less)")
    if arguments.output:
        record = {"machine": machine.describe(), "threads": 1, "python_us": round(share, 2), "rows": rows}
        arguments.output.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    return 0 if share <= GOAL_US else 1


if __name__ == "__main__":
    raise SystemExit(main())
