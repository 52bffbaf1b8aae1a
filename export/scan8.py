"""The Scan of opset 8, which had a batch: a Scan over the samples of today's Scan over the steps."""

from __future__ import annotations

from sigconv.errors import UnsupportedError
from sigconv.export.opsets import STEPS, Context
from sigconv.graph.ir import Graph, Node, Value


def scan_8(node: Node, context: Context) -> list[Node]:
    """Inputs are sequence_lens, states and scan inputs, all with the batch first; outputs likewise."""
    if node.inputs[0]:
        raise UnsupportedError(f"{node.label}: sequence_lens went away in opset 9", (node.label,))
    captures = int(node.attrs["captures"])
    own = len(node.inputs) - captures
    values = tuple(f"{node.label}.{i}" for i in range(1, own))
    captured = tuple(f"{node.label}.captured.{i}" for i in range(captures))
    results = tuple(f"{node.label}.result.{i}" for i in range(len(node.outputs)))
    attrs = {"body": node.attrs["body"], "num_scan_inputs": node.attrs["num_scan_inputs"], "captures": captures}
    if "directions" in node.attrs:
        attrs["scan_input_directions"] = node.attrs["directions"]
    sample = Graph(
        nodes=(Node("Scan", values + captured, results, attrs, node.name),),
        inputs=tuple(map(Value, values + captured)),
        outputs=tuple(map(Value, results)),
        name="sample",
        opset=node.attrs["body"].opset,
    )
    outer = {"body": sample, "num_scan_inputs": own - 1, "captures": captures}
    return [node.replace(inputs=node.inputs[1:], attrs=outer)]


STEPS["Scan"] = {9: scan_8}
