"""Every node's output against onnxruntime's, on the same feeds: where two runtimes part is named, not guessed."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto, numpy_helper

from sigconv.errors import InputError, ModelError, UnsupportedError
from sigconv.export.external import NOWHERE, External
from sigconv.export.reader import read
from sigconv.export.tensors import dtype_of, to_array
from sigconv.export.writer import SMALLEST_EXTERNAL, to_proto
from sigconv.graph.evaluate import evaluate
from sigconv.graph.infer import infer, nbytes
from sigconv.graph.interpret import interpret
from sigconv.graph.ir import Graph, Node, Value
from sigconv.ops.spec import Fact
from sigconv.text import short, sizes, table

TOLERANCE = 1e-3
"""Largest accepted error of a float value, relative to its scale."""

QUANTIZED_TOLERANCE = 0.02
"""The same for models with 8-bit values: rounding to the other side is one step of at most 255."""

SMALLEST_SCALE = 0.05
"""The scale of a value is its largest finite magnitude, but at least this."""

KEEP_NBYTES = 1 << 30
"""Bytes of values that one run keeps on each side; a model with more is run again for the next ones."""

HANDED_OVER = frozenset(np.dtype(name) for name in ("float16", "float32", "float64", "int8", "uint8", "int32", "int64"))
"""Types of which onnxruntime's Python interface takes arrays as they are."""

Values = Callable[[Mapping[str, np.ndarray], Collection[str]], Mapping[str, np.ndarray]]
"""Feeds, and the names of values, to those values by name."""


@dataclass(frozen=True, slots=True)
class Row:
    """One value as both computed it.

    ``error`` is the largest difference, ``relative`` that over the scale of the value, ``ulp`` the
    largest distance in representable numbers (None for integers).
    """

    node: str
    value: str
    dtype: str
    shape: tuple[int, ...]
    error: float
    relative: float
    ulp: int | None
    same_nan: bool
    ok: bool
    problem: str = ""
    inherited: bool = False
    """Whether each side computed this node rightly from its own inputs: the difference came in through them."""
    closer: str = ""
    """``'sigconv'``, ``'onnxruntime'`` or ``'equal'``: who is nearer to double precision, where that was computed."""


@dataclass(frozen=True, slots=True)
class Report:
    """The values both computed, in the order of the graph."""

    rows: tuple[Row, ...]
    outputs: frozenset[str] = frozenset()
    tolerance: float = TOLERANCE

    @property
    def ok(self) -> bool:
        """Whether no node is at fault and every graph output agrees."""
        return all(row.ok or (row.inherited and row.value not in self.outputs) for row in self.rows)

    @property
    def first_divergence(self) -> Row | None:
        """Where to look: the first value whose own node made it differ, else the first output that differs."""
        if self.ok:
            return None
        faults = [row for row in self.rows if not row.ok and not row.inherited]
        return faults[0] if faults else next(row for row in self.rows if not row.ok and row.value in self.outputs)

    def to_json(self) -> str:
        """``{"ok", "tolerance", "first_divergence", "rows"}``; non-finite errors are null."""
        rows = [
            {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in asdict(r).items()}
            for r in self.rows
        ]
        first = self.first_divergence
        return json.dumps(
            {"ok": self.ok, "tolerance": self.tolerance, "first_divergence": first and first.node, "rows": rows}
        )

    def __str__(self) -> str:
        body = []
        for row in self.rows:
            op, _, name = row.node.partition(" ")
            mark = "" if row.ok else "~" if row.inherited else "!"
            errors = [f"{row.error:.2g}", f"{row.relative:.2g}", "" if row.ulp is None else str(row.ulp)]
            body.append(
                [mark, op, short(name.strip("'")), row.dtype, sizes(row.shape), *errors, row.closer, row.problem]
            )
        left, right = ("", "op", "node", "dtype"), ("shape", "error", "relative", "ulp")
        lines = table({**dict.fromkeys(left, "<"), **dict.fromkeys(right, ">"), "closer": "<", "problem": "<"}, body)
        first = self.first_divergence
        if first is None:
            inherited = sum(row.inherited for row in self.rows)
            most = f"all {len(self.rows)}" if not inherited else f"{len(self.rows) - inherited} of {len(self.rows)}"
            lines.append(f"{most} values agree with onnxruntime within {self.tolerance:g} of their scale")
        else:
            lines.append(
                f"{sum(not r.ok for r in self.rows)} of {len(self.rows)} values differ; "
                f"the first is {first.value!r} of {first.node}"
            )
        return "\n".join(lines)


def check(
    model: Any,
    feeds: Mapping[str, np.ndarray] | None = None,
    seed: int = 0,
    *,
    values: Values | None = None,
    tolerance: float | None = None,
    float64: bool = False,
    keep_nbytes: int = KEEP_NBYTES,
) -> Report:
    """Compare every value of a model with onnxruntime's.

    Parameters
    ----------
    model : path, bytes, onnx.ModelProto or sigconv.Model
        A ``Model`` that was not loaded is written as ONNX for onnxruntime.
    feeds : mapping of input name to array, optional
        By default random, from ``seed``: standard normal, integers 0 and 1; an unknown first size is 1.
    values : callable, optional
        Computes our side; by default the engine for a ``Model`` and `interpret` for anything else.
    tolerance : float, optional
        Accepted error relative to a value's scale; by default `TOLERANCE`, or `QUANTIZED_TOLERANCE` for quantized
        models.
    float64 : bool
        Also compute every value in double precision, by the slow references, and say who is closer to it.
    keep_nbytes : int
        Values that one run keeps, in bytes: the others are compared by running the model again, as often as it takes.

    Raises
    ------
    InputError
        A size other than the batch is unknown and no feeds are given.
    UnsupportedError
        onnxruntime is not installed, or cannot run the model.
    """
    source = getattr(model, "source", model)
    if source is None:
        source = to_proto(model.graph)
    graph = read(source)
    run: Values = values or getattr(model, "values", None) or partial(_interpreted, graph)
    feeds = random_feeds(graph.inputs, seed) if feeds is None else dict(feeds)
    if tolerance is None:
        quantized = any("Quantize" in node.op or node.op.startswith(("QLinear", "QGemm")) for node in graph.nodes)
        tolerance = QUANTIZED_TOLERANCE if quantized else TOLERANCE
    oracle = _Onnxruntime(source, [out for node in graph.nodes for out in node.outputs if out])
    outputs = frozenset(v.name for v in graph.outputs)
    rows = []
    for nodes in _chunks(graph, feeds, keep_nbytes):
        wanted = {name for node in nodes for name in (*node.inputs, *node.outputs) if name in oracle.names}
        theirs, ours = oracle(feeds, wanted), run(feeds, wanted)
        sides = [{**graph.constants, **feeds, **side} for side in (ours, theirs)]
        precise = interpret(graph, feeds, outputs=sorted(wanted), float64=True) if float64 else {}
        for node in nodes:
            for i, name in enumerate(node.outputs):
                if name in ours and name in theirs:
                    rows.append(_row(node, i, sides, precise, tolerance, name in outputs))
    return Report(tuple(rows), outputs, tolerance)


def _interpreted(graph: Graph, feeds: Mapping[str, np.ndarray], names: Collection[str]) -> dict[str, np.ndarray]:
    return interpret(graph, feeds, outputs=sorted(names))


def _chunks(graph: Graph, feeds: Mapping[str, np.ndarray], limit: int) -> Iterator[list[Node]]:
    """The nodes in order, in groups whose inputs and outputs take at most ``limit`` bytes where one node's do."""
    facts = infer(graph, {name: array.shape for name, array in feeds.items()})
    kept: set[str] = set()
    nodes: list[Node] = []
    for node in graph.nodes:
        names = {n for n in (*node.inputs, *node.outputs) if n and n not in graph.constants}
        if nodes and sum(nbytes(facts.get(n, Fact())) for n in kept | names) > limit:
            yield nodes
            nodes, kept = [], set()
        nodes.append(node)
        kept |= names
    if nodes:
        yield nodes


def _row(
    node: Node,
    i: int,
    sides: Sequence[Mapping[str, np.ndarray]],
    precise: Mapping[str, np.ndarray],
    tolerance: float,
    is_output: bool,
) -> Row:
    """Output ``i`` of the node as both ``sides``, ours first, have it."""
    name = node.outputs[i]
    ours, theirs = (side[name] for side in sides)
    if not is_output and ours.dtype.kind == theirs.dtype.kind == "f":
        ours = ours.astype(theirs.dtype)  # inner values may be kept wider than the model says
    row = compare(node.label, name, ours, theirs, tolerance)
    if not row.ok and all(_consistent(node, i, side, tolerance) for side in sides):
        row = replace(row, inherited=True, problem=f"{row.problem} (inherited)")
    if ours.dtype.kind == "f" and name in precise:
        row = replace(row, closer=_closer(precise[name], ours, theirs))
    return row


def _closer(precise: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> str:
    """Whose largest finite error against double precision is smaller; nothing where the shapes differ."""
    if not precise.shape == ours.shape == theirs.shape:
        return ""
    with np.errstate(all="ignore"):
        off = [np.abs(side.astype(np.float64) - precise) for side in (ours, theirs)]
    mine, other = (float(np.max(e, where=np.isfinite(e), initial=0)) for e in off)
    return "equal" if mine == other else "sigconv" if mine < other else "onnxruntime"


def _consistent(node: Node, i: int, values: Mapping[str, np.ndarray], tolerance: float) -> bool:
    """Whether output ``i`` of the node is what its reference makes of the inputs among the same ``values``."""
    if not all(name in values for name in node.inputs if name):
        return False
    try:
        again = evaluate(node, [values[name] if name else None for name in node.inputs])[i]
    except ModelError:
        return False
    found = values[node.outputs[i]]
    return compare(node.label, node.outputs[i], found, again.astype(found.dtype), tolerance).ok


def random_feeds(inputs: Iterable[Value], seed: int = 0) -> dict[str, np.ndarray]:
    """Seeded feeds for inputs whose sizes are known, save perhaps for the first, which then is 1."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for value in inputs:
        shape = value.shape
        if shape is None or not all(isinstance(d, int) for d in shape[1:]):
            raise InputError(
                f"input {value.name!r} has shape {None if shape is None else list(shape)}: give feeds for it"
            )
        sizes = [d if isinstance(d, int) else 1 for d in shape]
        dtype = value.dtype or np.dtype(np.float32)
        integer = dtype.kind in "biu"
        feeds[value.name] = (rng.integers(0, 2, sizes) if integer else rng.standard_normal(sizes)).astype(dtype)
    return feeds


def compare(node: str, value: str, ours: np.ndarray, theirs: np.ndarray, tolerance: float = TOLERANCE) -> Row:
    """One row. Floats agree within ``tolerance`` of the scale, with one NaN and infinity pattern; bytes within 1; the
    rest exactly."""
    problem, error, relative, ulp, same_nan = "", 0.0, 0.0, None, True
    if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
        problem = f"onnxruntime has {theirs.dtype}{list(theirs.shape)}"
        error = relative = float("inf")
    elif ours.dtype.kind not in "fiu":
        error = relative = float((ours != theirs).any())
        problem = "differs" if error else ""
    elif ours.size:
        a, b = ours.astype(np.float64), theirs.astype(np.float64)
        finite = np.isfinite(a) & np.isfinite(b)
        same_nan = bool(np.array_equal(np.where(finite, 0, a), np.where(finite, 0, b), equal_nan=True))
        error = float(np.abs(a - b, where=finite, out=np.zeros_like(a)).max())
        scale = max(float(np.abs(b, where=finite, out=np.zeros_like(b)).max()), SMALLEST_SCALE)
        relative = error / scale
        if ours.dtype.kind == "f":
            ulp = _ulp(ours[finite], theirs[finite])
            problem = "differs" if relative > tolerance else ""
        else:
            problem = "differs" if error > (ours.dtype.itemsize == 1) else ""
        problem = problem if same_nan else "NaN or infinity elsewhere"
    return Row(node, value, ours.dtype.name, ours.shape, error, relative, ulp, same_nan, not problem, problem)


def _ulp(a: np.ndarray, b: np.ndarray) -> int:
    """The largest distance, counted in representable numbers of the dtype."""
    if not a.size:
        return 0
    integer = np.dtype(f"i{a.dtype.itemsize}")
    least = np.iinfo(integer).min

    def ordered(x: np.ndarray) -> np.ndarray:
        bits = np.ascontiguousarray(x).view(integer)
        return np.where(bits < 0, least - bits, bits).astype(np.float64)

    return int(np.abs(ordered(a) - ordered(b)).max())


class _Onnxruntime:
    """Any values as onnxruntime computes them, one thread, nothing fused; ``names`` are those that it has."""

    def __init__(self, source: Any, names: Iterable[str]) -> None:
        try:
            import onnxruntime
        except ImportError as e:
            raise UnsupportedError(
                "the check compares with onnxruntime, which is not installed: pip install onnxruntime",
                ("onnxruntime",),
            ) from e
        model, outside = _without_weights(source)
        written = {out for node in model.graph.node for out in node.output if node.op_type != "Constant"}
        listed = {info.name for info in model.graph.output}
        self.names = frozenset(names) & written
        model.graph.output.extend(ValueInfoProto(name=name) for name in sorted(self.names - listed))
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads, options.log_severity_level = 1, 4
        handles = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in outside.values()]
        options.add_external_initializers(list(outside), handles)
        self._kept = outside  # the session reads these arrays where they lie
        self._session = self._guarded(
            lambda: onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        )

    def __call__(self, feeds: Mapping[str, np.ndarray], names: Collection[str]) -> dict[str, np.ndarray]:
        wanted = sorted(names)
        found = self._guarded(lambda: self._session.run(wanted, dict(feeds))) if wanted else []
        return dict(zip(wanted, found, strict=True))

    @staticmethod
    def _guarded(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as e:  # its own exception types share no base class but this
            raise UnsupportedError(f"onnxruntime cannot run this model: {e}", ("onnxruntime",)) from e


def _without_weights(source: Any) -> tuple[ModelProto, dict[str, np.ndarray]]:
    """A copy of the model without its large constants, and these by name; what was in other files is in memory.

    They go to onnxruntime beside the model: serialised, all together, protobuf takes no more than 2 GiB.
    """
    model, external, outside = ModelProto(), NOWHERE, {}
    if isinstance(source, ModelProto):
        model.CopyFrom(source)
    elif isinstance(source, (str, os.PathLike)):
        external = External(Path(source).parent)
        model.ParseFromString(Path(source).read_bytes())
    else:
        model.ParseFromString(bytes(source))
    for tensor in model.graph.initializer:
        dtype = dtype_of(tensor.data_type)
        if dtype in HANDED_OVER and math.prod(tensor.dims) * dtype.itemsize >= SMALLEST_EXTERNAL:
            outside[tensor.name] = to_array(tensor, f"initializer {tensor.name!r}", external)
            stub = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
            stub.data_location = TensorProto.EXTERNAL
            stub.external_data.add(key="location", value="beside")
            tensor.CopyFrom(stub)
    for tensor in _tensors(model.graph):
        if tensor.data_location == TensorProto.EXTERNAL and tensor.name not in outside:
            tensor.CopyFrom(numpy_helper.from_array(to_array(tensor, repr(tensor.name), external), tensor.name))
    return model, outside


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """The constants of a graph and of those inside it."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _tensors(inner)
