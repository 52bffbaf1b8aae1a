"""The CPU's cases through every CUDA candidate that is legal for them, against the operators' references."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import onnx
import pytest

from sigconv.graph.interpret import interpret
from sigconv.graph.ir import Graph, Node, Value
from sigconv.kernels.cpu.elementwise import OPCODES
from sigconv.kernels.cuda.cast import PAIRS
from sigconv.kernels.cuda.elementwise import INSTRUCTIONS
from sigconv.planner.candidates import CUDA
from sigconv.planner.elementwise import ELEMENTWISE
from sigconv.planner.lower.cuda import compile_cuda
from sigconv.runtime.cuda import CudaSession
from tests.cases import windows
from tests.cases.compute_nodes import FAMILIES, Case
from tests.cuda.simulator import use
from tests.test_candidates import CONVS, OTHERS, _graph

MOST = 60_000
"""Multiply-adds and elements of a case: the simulator takes a microsecond for each."""

TOLERANCE = {"float16": 2e-3, "float32": 2e-5, "float64": 1e-12}
SLOW = ("128x128", "64x64")
"""Tiles whose blocks have up to 256 threads: a few cases of each operator are enough (tensor cores: see test_mma)."""
SLOW_CASES = 3

ERRORS = {c.name: c.error for candidates in CUDA.values() for c in candidates}
COUNTS: Counter[tuple[str, str]] = Counter()


def run_all(graph: Graph, feeds: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> list[str]:
    """Run the graph once with each CUDA candidate that takes its first unit; their names."""
    shapes = {k: a.shape for k, a in feeds.items()}
    options = dict(fallback="cpu", tolerance=1.0, capability=(9, 0))
    first = compile_cuda(graph, shapes, **options)
    names = {row.algorithm for row in first.rows} | {
        name for row in first.rows for name, why in row.rejected if why.startswith("predicted")
    }
    tried = []
    op = first.rows[0].op.split(" + ")[0]
    for name in sorted(names - {"numpy"}):
        kind = f"{name}-{next(iter(feeds.values())).dtype}"
        if name.endswith(SLOW) and COUNTS[op, kind] >= (1 if "_mma_" in name else SLOW_CASES):
            continue
        COUNTS[op, kind] += 1
        program = compile_cuda(graph, shapes, only={name}, **options)
        session = CudaSession(program)
        for memory in (session._arena, *filter(lambda m: m is not None, session._outputs)):
            poison(memory)
        got = session.run(feeds)
        assert list(got) == list(want)
        for output, reference in want.items():
            assert (got[output].dtype, got[output].shape) == (reference.dtype, reference.shape)
            close(got[output], reference, name, max(ERRORS.get(row.algorithm, 0.0) for row in program.rows))
        use(program)
        tried.append(name)
    return tried


def poison(memory) -> None:
    """Fill device memory with what no kernel would leave: NaN as float32 and float64."""
    flat = memory.copy_to_host()
    flat.view(np.uint8)[...] = 0xFF
    memory.copy_to_device(flat)


def close(got: np.ndarray, want: np.ndarray, name: str, error: float) -> None:
    """Equal but for rounding and the algorithm's own error, at the scale of the whole output."""
    if want.dtype.kind != "f":
        np.testing.assert_array_equal(got, want, err_msg=name)
        return
    tolerance = max(TOLERANCE[want.dtype.name], error)
    finite = np.abs(want[np.isfinite(want)], dtype=np.float64)
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * finite.max(initial=0), err_msg=name)


def graph_of(case: Case) -> tuple[Graph, dict[str, np.ndarray]]:
    """The case as a graph of one node; inputs that are weights, or no floats, are constants."""
    feeds, constants, names = {}, {}, []
    for i, x in enumerate(case.inputs):
        names.append("" if x is None else f"x{i}")
        if x is not None:
            (constants if i in case.constant or (i > 0 and x.dtype.kind != "f") else feeds)[f"x{i}"] = x
    outputs = tuple(f"y{i}" for i in range(case.n_outputs))
    node = Node(case.op, tuple(names), outputs, case.attrs, "node", case.domain)
    inputs = tuple(Value(k, a.dtype, a.shape) for k, a in feeds.items())
    return Graph((node,), inputs, tuple(Value(o) for o in outputs), constants), feeds


def families() -> list[Case]:
    """Cases of the computing operators that CUDA candidates serve, every other one of the many alike."""
    cases = [
        c
        for family in FAMILIES
        for c in family()
        if not c.domain and all(x is None or x.dtype.kind != "f" or x.dtype.itemsize > 2 for x in c.inputs)
    ]
    served = {*CUDA, *ELEMENTWISE}
    return [c for c in cases if c.op in served and 0 < math.prod(c.inputs[0].shape) <= MOST]


@pytest.mark.parametrize("case", families(), ids=str)
def test_operators(case: Case):
    graph, feeds = graph_of(case)
    with np.errstate(all="ignore"):
        want = interpret(graph, feeds)
    run_all(graph, feeds, want)


def _work(nodes, feeds, constants) -> int:
    (x, *_), node = feeds.values(), nodes[0]
    if node.op in ("Conv", "ConvTranspose"):
        return math.prod(x.shape) * math.prod(constants["w"].shape) // max(1, x.shape[1])
    return x.size * max((c.shape[0] for c in constants.values() if c.ndim > 1), default=1)


BY_NUMPY = ("scatter-nd-nothing",)
"""Cases that no kernel runs, on the CPU neither."""


def units() -> list:
    """The CPU's small cases of operators that CUDA candidates serve; docs/operators.md lists the others."""
    served = {*CUDA, *ELEMENTWISE}
    return [
        p
        for p in (*CONVS, *OTHERS)
        if any(node.op in served for node in p.values[0])
        and p.id not in BY_NUMPY
        and (_work(*p.values) <= MOST or "residual" in p.id)
    ]


@pytest.mark.parametrize("nodes, feeds, constants", units())
def test_units(nodes, feeds, constants):
    graph = _graph(nodes, feeds, constants)
    tried = run_all(graph, feeds, interpret(graph, feeds))
    assert tried, "no CUDA candidate is legal"


@pytest.mark.parametrize("nodes, feeds, constants", [p for p in CONVS if _work(*p.values) <= MOST // 4])
def test_weights_that_the_run_computes(nodes, feeds, constants):
    inputs = {**feeds, **constants}
    graph = _graph(nodes, inputs, {})
    assert run_all(graph, inputs, interpret(graph, inputs))


def test_convolution_against_naive_loops(rng):
    x, w, b = (rng.standard_normal(s).astype(np.float32) for s in ((2, 4, 5, 6), (6, 2, 3, 2), (6,)))
    attrs = {"pads": [1, 0, 2, 1], "strides": [2, 1], "dilations": [1, 2], "group": 2}
    graph = _graph([Node("Conv", ("x", "w", "b"), ("y",), attrs)], {"x": x}, {"w": w, "b": b})
    want = windows.conv_nd(x, w, b, groups=2, **{k: attrs[k] for k in ("strides", "pads", "dilations")})
    assert run_all(graph, {"x": x}, {"y": want.astype(np.float32)})


def _case(op, inputs, attrs=None, constant=(), n=1):
    return Case(op, inputs, attrs or {}, n, constant=constant)


def _extra() -> list[Case]:
    """What the families have no case of: long reductions, double precision, elements of every size, ties in Gather."""
    rng = np.random.default_rng(7)
    f32, f64 = (lambda *s, t=t: rng.standard_normal(s).astype(t) for t in (np.float32, np.float64))
    i64 = lambda *v: np.array(v, np.int64)  # noqa: E731
    window = {"kernel_shape": [2, 3], "pads": [1, 0, 0, 1]}
    cases = [_case(op, [np.abs(f32(2, 70)) + 0.1, i64(1)], constant=(1,)) for op in CUDA if op.startswith("Reduce")]
    cases += [_case(op, [f32(1, 2, 9, 9)]) for op in ("GlobalAveragePool", "GlobalMaxPool")]
    cases += [_case(op, [f64(1, 2, 9, 9)]) for op in ("GlobalAveragePool", "GlobalMaxPool")]
    cases += [_case("ReduceSum", [f64(3, 4), i64(1)], constant=(1,))]
    cases += [_case(op, [f64(1, 2, 5, 6)], window) for op in ("MaxPool", "AveragePool")]
    x, many = f32(2, 2, 5, 6), dict(window, strides=[1, 2], dilations=[2, 1])
    x[0, 1, 2, 3], x[1, 0, 1:3] = np.nan, x.max()  # the greatest, and equals
    cases += [_case("MaxPool", [x], {**many, "storage_order": order}, n=2) for order in (0, 1)]
    cases += [_case("MaxPool", [f64(1, 2, 7)], {"kernel_shape": [3]}, n=2)]
    cases += [_case("MaxPool", [np.full((1, 1, 3, 2, 3), -np.inf, np.float32)], {"kernel_shape": [2, 1, 2]}, n=2)]
    cases += [_case("Mod", [rng.integers(-99, 99, (3, 4)), np.array(d)], constant=(1,)) for d in (7, -5)]
    cases += [_case("Softmax", [f64(3, 5)]), _case("Identity", [f32(3)]), _case("Dropout", [f32(3, 4)])]
    cases += [_case("InstanceNormalization", [f64(2, 3, 4), f64(3), f64(3)])]
    cases += [_case("BatchNormalization", [f64(2, 3, 4), f64(3), f64(3), f64(3), np.abs(f64(3)) + 1])]
    cases += [_case("Conv", [f64(1, 4, 5, 6), f64(6, 4, 3, 2)], constant=(1,))]
    cases += [_case("Conv", [f64(1, 4, 5), f64(4, 1, 3)], {"group": 4}, constant=(1,))]
    cases += [_case("ConvTranspose", [f64(1, 3, 4, 3), f64(3, 2, 2, 2)], {"strides": [2, 1]}, constant=(1,))]
    cases += [_case("MatMul", [f64(5, 4), f64(4, 3)]), _case("Gemm", [f64(2, 4), f64(4, 3)])]
    sizes = [np.array([], np.float32), np.array([1, 1, 2, 1.5], np.float32)]
    for mode in ("linear", "cubic", "nearest"):
        cases += [
            _case("Resize", [x, None, sizes[1]], {"mode": mode}, (2,)) for x in (f32(1, 2, 3, 4), f64(1, 2, 3, 4))
        ]
    for dtype in (np.int8, np.int16, np.int32, np.int64):
        x = rng.integers(-99, 99, (3, 4, 5)).astype(dtype)
        cases += [_case("Transpose", [x], {"perm": [2, 0, 1]})]
        cases += [_case("Pad", [x, i64(0, 1, 0, 2, 0, 1)], {"mode": "reflect"}, (1,))]
        cases += [_case("Pad", [x, i64(0, 1, -1, 2, 0, 1), np.array(-3, dtype)], {}, (1, 2))]
        cases += [_case("Gather", [x, i64(2, 0, -1)], {"axis": 1}, (1,))]
    return cases


@pytest.mark.parametrize("case", _extra(), ids=str)
def test_more_operators(case: Case):
    graph, feeds = graph_of(case)
    assert run_all(graph, feeds, interpret(graph, feeds))


@pytest.mark.parametrize("source, target", PAIRS)
def test_casts(source, target, rng):
    values = rng.standard_normal(40) * 100
    values = np.abs(values) if "uint8" in (source, target) else np.clip(values, -128, 127)
    x = (values > 0 if source == "bool" else values.clip(-255, 255)).astype(source)
    graph = _graph([Node("Cast", ("x",), ("y",), {"to": int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(target)))})],
                   {"x": x}, {}).replace(outputs=(Value("y"),))  # fmt: skip
    if "float16" in (source, target):  # a graph in half precision computes in float32 between casts
        got = CudaSession(compile_cuda(graph, {"x": x.shape})).run({"x": x})["y"]
        np.testing.assert_array_equal(got, x.astype(target))
    else:
        assert run_all(graph, {"x": x}, interpret(graph, {"x": x})) == ["cast"]


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gather_with_indices_of_the_run(index, dtype, rng):
    feeds = {"x": rng.standard_normal((3, 5, 4)).astype(dtype), "i": np.array([[4, -5], [0, 2]], index)}
    graph = _graph([Node("Gather", ("x", "i"), ("y",), {"axis": 1})], feeds, {})
    graph = graph.replace(outputs=(Value("y"),))
    assert run_all(graph, feeds, interpret(graph, feeds)) == ["take"]


def test_the_instructions_are_those_of_the_cpu():
    assert set(OPCODES) == INSTRUCTIONS


def test_saturate(rng):
    """Rounding half to even, then the zero point, then the limits: what quantised networks end with."""
    x = np.array([-300, -1.5, -0.5, 0.5, 1.5, 2.5, 126.4, 300, np.nan, np.inf, -np.inf], np.float32)
    feeds = {"x": x, "z": np.float32([3])}
    graph = _graph([Node("Saturate", ("x", "z"), ("y",), {"low": -128.0, "high": 127.0}, "s", "sigconv")], feeds, {})
    want = {"y": np.array([-128, 1, 3, 3, 5, 5, 127, 127, -128, 127, -128], np.float32)}
    assert run_all(graph, feeds, want) == ["bytecode"]
