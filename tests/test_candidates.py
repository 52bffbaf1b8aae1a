"""The same cases through every legal candidate, against the references (and naive loops for windows)."""

from __future__ import annotations

import numpy as np
import pytest

from sigconv.graph.interpret import interpret
from sigconv.graph.ir import Graph, Node, Value
from sigconv.kernels.cpu import amx
from sigconv.planner.candidates import REGISTRY
from sigconv.planner.chain import CHAIN
from sigconv.planner.compile import compile_graph
from sigconv.planner.select import TOLERANCE
from sigconv.runtime.session import Session
from tests.cases import windows

F32 = np.dtype(np.float32)


def _graph(nodes, feeds, constants):
    inputs = tuple(Value(k, a.dtype, a.shape) for k, a in feeds.items())
    return Graph(tuple(nodes), inputs, (Value(nodes[-1].outputs[0], F32),), constants)


def _seed(name):
    return np.random.default_rng(sum(map(ord, name)))


def _conv(name, x, w, *, bias=True, tail=(), transposed=False, dtype=np.float32, **attrs):
    rng = _seed(name)
    op = "ConvTranspose" if transposed else "Conv"
    constants = {"w": (rng.standard_normal(w) / np.sqrt(np.prod(w[1:]))).astype(dtype)}
    m = w[1] * attrs.get("group", 1) if transposed else w[0]
    if bias:
        constants["b"] = rng.standard_normal(m).astype(dtype)
    nodes = [Node(op, ("x", "w", "b" if bias else ""), ("y",), attrs, "conv")]
    feeds = {"x": rng.standard_normal(x).astype(dtype)}
    for i, (tail_op, inputs, tail_attrs) in enumerate(tail):
        named = tuple(nodes[-1].outputs[0] if n == "y" else n for n in inputs)
        nodes.append(Node(tail_op, named, (f"y{i}",), tail_attrs, f"tail{i}"))
    return pytest.param(nodes, feeds, constants, id=name)


CONVS = [
    _conv("1x1", (2, 19, 5, 7), (33, 19, 1, 1)),
    _conv("3x3-same", (1, 16, 9, 11), (64, 16, 3, 3), pads=[1, 1, 1, 1]),
    _conv("3x3-odd-channels", (2, 5, 8, 9), (7, 5, 3, 3), pads=[1, 1, 1, 1]),
    _conv("first-layer", (1, 3, 31, 29), (24, 3, 7, 7), pads=[3, 3, 3, 3], strides=[2, 2]),
    _conv("asymmetric-pads-dilated", (1, 18, 13, 12), (20, 18, 3, 2), pads=[2, 0, 1, 3], dilations=[2, 3]),
    _conv("pad-wider-than-input", (1, 4, 2, 3), (5, 4, 5, 5), pads=[4, 4, 4, 4]),
    _conv("auto-pad-lower-stride", (1, 17, 10, 13), (16, 17, 3, 4), auto_pad="SAME_LOWER", strides=[2, 3]),
    _conv("5x5-same", (1, 19, 9, 11), (35, 19, 5, 5), pads=[2, 2, 2, 2]),
    _conv("many-channels", (1, 300, 6, 6), (130, 300, 3, 3), pads=[1, 1, 1, 1]),
    _conv("wide-row", (1, 20, 3, 301), (16, 20, 1, 5), pads=[0, 2, 0, 2]),
    _conv("1d-dilated-causal", (2, 12, 40), (32, 12, 3), pads=[8, 0], dilations=[4]),
    _conv("3d", (1, 6, 7, 6, 5), (16, 6, 3, 3, 3), pads=[1, 1, 1, 1, 1, 1], dilations=[2, 1, 1]),
    _conv("3d-stride", (1, 17, 6, 7, 8), (18, 17, 2, 3, 1), strides=[2, 1, 2]),
    _conv("groups-aligned", (1, 64, 7, 7), (32, 32, 3, 3), group=2, pads=[1, 1, 1, 1]),
    _conv("groups-ragged", (2, 12, 7, 6), (8, 3, 3, 3), group=4, pads=[1, 0, 0, 1]),
    _conv("groups-ragged-wide", (2, 10, 7, 6), (70, 5, 3, 3), group=2, pads=[1, 0, 0, 1]),
    _conv("groups-ragged-1x1", (1, 12, 9, 7), (57, 4, 1, 1), group=3, tail=[("Relu", ("y",), {})]),
    _conv("groups-ragged-3d", (1, 6, 4, 5, 6), (40, 3, 2, 2, 3), group=2, strides=[1, 2, 1]),
    _conv("groups-ragged-residual", (1, 18, 6, 7), (18, 9, 3, 3), pads=[1, 1, 1, 1], group=2,
          tail=[("Add", ("x", "y"), {}), ("Relu", ("y",), {})]),
    _conv("depthwise", (2, 21, 9, 10), (21, 1, 3, 3), group=21, pads=[1, 1, 1, 1], strides=[2, 2]),
    _conv("depthwise-5x5-dilated", (1, 32, 11, 12), (32, 1, 5, 5), group=32, pads=[4, 4, 4, 4], dilations=[2, 2]),
    _conv("depthwise-1d", (1, 16, 50), (16, 1, 9), group=16),
    _conv("no-bias", (1, 8, 5, 5), (8, 8, 3, 3), bias=False),
    _conv("float64", (1, 9, 6, 7), (10, 9, 3, 3), dtype=np.float64, pads=[1, 1, 1, 1]),
    _conv("relu", (1, 8, 6, 6), (16, 8, 3, 3), tail=[("Relu", ("y",), {})]),
    _conv("leaky", (1, 8, 6, 6), (16, 8, 3, 3), tail=[("LeakyRelu", ("y",), {"alpha": 0.2})]),
    _conv("depthwise-leaky", (1, 16, 6, 6), (16, 1, 3, 3), group=16, tail=[("LeakyRelu", ("y",), {"alpha": 0.2})]),
    _conv("residual-relu", (1, 16, 6, 7), (16, 16, 3, 3), pads=[1, 1, 1, 1],
          tail=[("Add", ("x", "y"), {}), ("Relu", ("y",), {})]),
    _conv("depthwise-residual", (1, 16, 6, 7), (16, 1, 3, 3), pads=[1, 1, 1, 1], group=16,
          tail=[("Add", ("x", "y"), {}), ("Relu", ("y",), {})]),
    _conv("silu", (1, 8, 6, 6), (16, 8, 3, 3), tail=[("HardSwish", ("y",), {})]),
    _conv("transposed", (1, 18, 5, 6), (18, 20, 4, 4), transposed=True, strides=[2, 2], pads=[1, 1, 1, 1]),
    _conv("transposed-smaller-than-stride", (2, 5, 4, 3), (5, 7, 2, 2), transposed=True, strides=[3, 3]),
    _conv("transposed-dilated", (1, 6, 7, 5), (6, 4, 3, 3), transposed=True, strides=[2, 3], dilations=[3, 2]),
    _conv("transposed-output-padding", (1, 6, 7), (6, 16, 3), transposed=True, strides=[2], output_padding=[1]),
    _conv("transposed-3d", (1, 4, 3, 4, 5), (4, 16, 2, 3, 2), transposed=True, strides=[2, 1, 2]),
    _conv("transposed-groups", (1, 32, 5, 5), (32, 16, 3, 3), transposed=True, group=2, strides=[2, 2]),
    _conv("transposed-groups-ragged", (1, 6, 5, 5), (6, 2, 3, 3), transposed=True, group=3, strides=[2, 2]),
]  # fmt: skip


def _node(name, op, inputs, attrs=None, constants=None, dtype=np.float32, outputs=("y",)):
    """A node of one op on random inputs of given shapes."""
    rng = _seed(name)
    feeds = {f"x{i}": rng.standard_normal(s).astype(dtype) for i, s in enumerate(inputs)}
    constants = {k: np.asarray(v) for k, v in (constants or {}).items()}
    node = Node(op, (*feeds, *constants), outputs, attrs or {}, name)
    return pytest.param([node], feeds, constants, id=name)


def _ints(*values):
    return np.array(values, np.int64)


def _box(first, *ranges):
    """The points of a box as ScatterND takes them."""
    return np.stack(np.meshgrid(*[np.add(first, r) for r in ranges], indexing="ij"), -1).astype(np.int64)


def _scatter(name, op, shape, indices, **attrs):
    """Updates at constant indices."""
    rng = _seed(name)
    updates = (*indices.shape[:-1], *shape[indices.shape[-1] :]) if op == "ScatterND" else indices.shape
    feeds = {k: rng.standard_normal(s).astype(np.float32) for k, s in (("x", shape), ("u", updates))}
    return pytest.param([Node(op, ("x", "i", "u"), ("y",), attrs, name)], feeds, {"i": indices}, id=name)


def _ramp(*shape, start=-1):
    """From ``start`` to 1 in equal steps."""
    return np.linspace(start, 1, np.prod(shape), dtype=np.float32).reshape(shape)


OTHERS = [
    _node("gemm", "Gemm", [(5, 37)], {"transB": 1, "alpha": 0.5, "beta": 2.0},
          {"w": _ramp(70, 37), "c": np.arange(70, dtype=np.float32)}),
    _node("gemm-vector", "Gemm", [(1, 300)], {}, {"w": _ramp(300, 10)}),
    _node("gemm-transposed", "Gemm", [(37, 5)], {"transA": 1},
          {"w": _ramp(37, 19)}),
    _node("gemm-streamed", "Gemm", [(5, 600)], {"transB": 1, "alpha": 0.5}, {"w": _ramp(450, 600), "c": _ramp(450)}),
    _node("matmul-streamed", "MatMul", [(1, 523)], {}, {"w": _ramp(523, 513)}),
    _node("matmul-constant", "MatMul", [(2, 3, 11, 19)], {}, {"w": _ramp(19, 45)}),
    _node("matmul-batched-constant", "MatMul", [(3, 11, 19)], {},
          {"w": _ramp(3, 19, 5)}),
    _node("matmul", "MatMul", [(2, 1, 7, 9), (3, 9, 33)]),
    _node("max-pool", "MaxPool", [(2, 5, 9, 10)], {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}),
    _node("max-pool-ceil-dilated", "MaxPool", [(1, 3, 11)],
          {"kernel_shape": [3], "strides": [2], "dilations": [2], "ceil_mode": 1}),
    _node("average-pool", "AveragePool", [(1, 4, 7, 8)],
          {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "ceil_mode": 1, "strides": [2, 2]}),
    _node("average-pool-counting", "AveragePool", [(1, 4, 7, 8, 5)],
          {"kernel_shape": [3, 3, 2], "pads": [1, 1, 1, 1, 1, 0], "count_include_pad": 1}),
    _node("global-average", "GlobalAveragePool", [(2, 19, 5, 7)]),
    _node("global-max", "GlobalMaxPool", [(2, 3, 50)]),
    *[_node(op, op, [(3, 4, 5, 6)], {"keepdims": 0}, {"axes": _ints(1, 3)})
      for op in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
                 "ReduceSumSquare", "ReduceLogSumExp")],
    _node("softmax-last", "Softmax", [(3, 50)]),
    _node("softmax-channels", "Softmax", [(2, 5, 6, 7)], {"axis": 1}),
    _node("log-softmax", "LogSoftmax", [(2, 30)]),
    _node("layer-norm", "LayerNormalization", [(2, 7, 30)], {"axis": -1},
          {"s": _ramp(30, start=0.5), "b": _ramp(30)}),
    _node("instance-norm", "InstanceNormalization", [(2, 5, 6, 7)], {},
          {"s": _ramp(5, start=0.5), "b": _ramp(5)}),
    _node("group-norm", "GroupNormalization", [(2, 6, 5, 4)], {"num_groups": 3},
          {"s": _ramp(6, start=0.5), "b": _ramp(6)}),
    _node("lstm", "LSTM", [(3, 2, 5)], {"hidden_size": 7},
          {"w": _ramp(1, 28, 5), "r": _ramp(1, 28, 7), "b": _ramp(1, 56)}),
    _node("gru", "GRU", [(3, 2, 5)], {"hidden_size": 7, "linear_before_reset": 1, "direction": "reverse"},
          {"w": _ramp(1, 21, 5), "r": _ramp(1, 21, 7), "b": _ramp(1, 42)}),
    _node("rnn", "RNN", [(3, 2, 5)], {"hidden_size": 7}, {"w": _ramp(1, 7, 5), "r": _ramp(1, 7, 7)}),
    _node("broadcast", "Add", [(2, 3, 4, 5), (3, 1, 5)]),
    _node("reshape", "Reshape", [(2, 3, 4)], {}, {"s": _ints(4, -1)}),
    _node("flatten", "Flatten", [(2, 3, 4)]),
    _node("squeeze", "Squeeze", [(2, 1, 4)], {}, {"a": _ints(1)}),
    _node("unsqueeze", "Unsqueeze", [(2, 4)], {}, {"a": _ints(0, 3)}),
    _node("transpose", "Transpose", [(2, 3, 4, 5)], {"perm": [0, 2, 3, 1]}),
    _node("slice", "Slice", [(5, 6, 7)], {},
          {"s": _ints(4, 1), "e": _ints(-9, 6), "a": _ints(0, 2), "t": _ints(-2, 2)}),
    _node("concat", "Concat", [(2, 3, 4), (2, 5, 4)], {"axis": 1}),
    _node("split", "Split", [(2, 7, 4)], {"axis": 1}, {"s": _ints(3, 4)}, outputs=("y", "z")),
    _node("cast", "Cast", [(2, 3, 4)], {"to": 6}),
    _node("expand", "Expand", [(3, 1)], {}, {"s": _ints(2, 3, 4)}),
    _node("tile", "Tile", [(3, 2)], {}, {"s": _ints(2, 3)}),
    _node("depth-to-space", "DepthToSpace", [(1, 12, 3, 5)], {"blocksize": 2}),
    _node("pixel-shuffle", "DepthToSpace", [(1, 12, 3, 5)], {"blocksize": 2, "mode": "CRD"}),
    _node("space-to-depth", "SpaceToDepth", [(2, 3, 4, 6)], {"blocksize": 2}),
    _node("gather", "Gather", [(3, 5, 4)], {"axis": 1}, {"i": _ints(4, -5, 1)}),
    _node("gather-scalar", "Gather", [(3, 5, 4)], {"axis": 1}, {"i": np.array(-2)}),
    _node("gather-nd", "GatherND", [(3, 5, 4)], {}, {"i": _ints(0, -1, 2, 3, 2, 3).reshape(3, 2)}),
    _node("gather-nd-batch", "GatherND", [(2, 5, 4)], {"batch_dims": 1}, {"i": _ints(4, -2).reshape(2, 1)}),
    _node("gather-nd-points", "GatherND", [(3, 5)], {}, {"i": _ints(0, -1, 2, 3).reshape(2, 2)}),
    _node("gather-elements", "GatherElements", [(3, 5)], {"axis": 1}, {"i": _ints(4, 0, -5, 1).reshape(2, 2)}),
    _scatter("scatter-nd-box", "ScatterND", (3, 5, 4), _box(0, [2, 0], [1, 3])),
    _scatter("scatter-nd-slice", "ScatterND", (3, 5, 4), _ints(-1).reshape(1, 1)),
    _scatter("scatter-nd-all-points", "ScatterND", (2, 3, 5), _box(0, [1], [2, 0], [4, 2, 0])),
    _scatter("scatter-nd-nothing", "ScatterND", (2, 3), np.zeros((0, 1), np.int64)),
    _scatter("scatter-elements", "ScatterElements", (4, 6), np.tile(_ints(5, 3, 1), (4, 1)), axis=1),
    _node("pad-constant", "Pad", [(1, 2, 5, 6)], {},
          {"p": _ints(0, 0, 1, -2, 0, 1, 2, 3), "v": np.float32(1.5)}),
    _node("pad-reflect", "Pad", [(1, 2, 5, 6)], {"mode": "reflect"}, {"p": _ints(0, 0, 1, 2, 0, 0, 3, 4)}),
    _node("resize-nearest", "Resize", [(1, 3, 5, 6)],
          {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"},
          {"r": np.zeros(0, np.float32), "s": np.array([1, 1, 2, 2.5], np.float32)}),
    _node("resize-linear", "Resize", [(1, 3, 5, 6)], {"mode": "linear"},
          {"r": np.zeros(0, np.float32), "s": np.array([1, 1, 2, 0.6], np.float32)}),
    _node("resize-cubic", "Resize", [(1, 3, 5, 6)], {"mode": "cubic"},
          {"r": np.zeros(0, np.float32), "s": np.array([1, 1, 2, 2], np.float32)}),
]  # fmt: skip


def _layouts(nodes, feeds, constants):
    """The graph as it is, and with a 1x1 convolution in front that leaves its result in channel blocks."""
    yield _graph(nodes, feeds, constants), feeds, constants
    x = next(iter(feeds))
    shape = feeds[x].shape
    if len(shape) not in (3, 4, 5) or feeds[x].dtype != np.float32:
        return
    w = np.random.default_rng(1).standard_normal((shape[1], 2) + (1,) * (len(shape) - 2)).astype(np.float32)
    front = Node("Conv", ("image", "front.w"), (x,), {}, "front")
    image = np.random.default_rng(2).standard_normal((shape[0], 2, *shape[2:])).astype(np.float32)
    more = {"image": image, **{k: v for k, v in feeds.items() if k != x}}
    yield _graph([front, *nodes], more, {**constants, "front.w": w}), more, {**constants, "front.w": w}


USED: set[tuple[str, str]] = set()


@pytest.mark.parametrize("nodes, feeds, constants", [*CONVS, *OTHERS])
def test_every_candidate(nodes, feeds, constants):
    op = nodes[0].op
    for candidate in REGISTRY.get(op, REGISTRY["Elementwise"]):
        for graph, inputs, _ in _layouts(nodes, feeds, constants):
            expected = interpret(graph, inputs)
            results = []
            for threads in (1, 2, 3):
                shapes = {k: a.shape for k, a in inputs.items()}
                tolerance = max(TOLERANCE, candidate.error)
                program = compile_graph(graph, shapes, threads, only={candidate.name}, tolerance=tolerance)
                if all(r.algorithm != candidate.name for r in program.rows):
                    break
                USED.add((op, candidate.name))
                results.append(Session(program).run(inputs))
            for result in results:
                for name, want in expected.items():
                    got = result[name]
                    assert got.dtype == want.dtype
                    assert got.shape == want.shape
                    scale = max(1.0, np.abs(want).max(initial=0))
                    tolerance = max(2e-5, candidate.error) if want.dtype == np.float32 else 1e-12
                    assert np.abs(got - want).max(initial=0) <= tolerance * scale, (candidate.name, name)
                    assert np.array_equal(got, results[0][name]), "results depend on the number of threads"


COMPUTED = [
    *CONVS,
    _conv("groups-aligned-ragged-tile", (1, 48, 5, 6), (144, 16, 3, 3), group=3, pads=[1, 1, 1, 1]),
    _conv("tiles-and-passes", (1, 700, 3, 4), (90, 700, 2, 2)),
    _conv("transposed-reversed-taps", (1, 17, 6, 5), (17, 19, 5, 7), transposed=True, strides=[2, 3], dilations=[1, 2]),
    *[_node(f"gemm-{n}", "Gemm", [(m, k)], {"transB": t}, {"w": np.ones((n, k) if t else (k, n), np.float32), "c": c})
      for m, k, n, t, c in ((5, 37, 70, 1, np.zeros(70, np.float32)), (1, 300, 10, 0, np.ones((1, 10), np.float32)))],
    _node("gemm-plain", "Gemm", [(19, 33)], {"transA": 1}, {"w": np.ones((19, 16), np.float32)}),
]  # fmt: skip


@pytest.mark.parametrize("nodes, feeds, constants", COMPUTED)
def test_weights_that_the_run_computes_give_the_bits_of_constant_ones(nodes, feeds, constants):
    """Weights and bias as inputs: packed by steps of the program, by the candidate that constant ones would have."""
    fresh = {k: _seed(k).standard_normal(v.shape).astype(v.dtype) for k, v in constants.items()}
    inputs = {**feeds, **fresh}
    wanted, shapes = _graph(nodes, feeds, fresh), {k: a.shape for k, a in inputs.items()}
    for candidate in REGISTRY[nodes[0].op]:
        for threads in (1, 3):
            how = dict(threads=threads, only={candidate.name}, tolerance=0)  # what is not direct needs constant weights
            constant = compile_graph(wanted, {k: a.shape for k, a in feeds.items()}, **how)
            program = compile_graph(_graph(nodes, inputs, {}), shapes, **how)
            if dict(program.rows[0].rejected).get(candidate.name) == "weights are not constant":
                continue
            assert program.rows[0].algorithm == constant.rows[0].algorithm
            session = Session(program)
            for _ in range(2):
                got = session.run(inputs)
                for name, want in Session(constant).run(feeds).items():
                    assert np.array_equal(got[name], want), candidate.name


@pytest.mark.parametrize("nodes, feeds, constants", [p for p in CONVS if len(p.values[0]) == 1])
def test_convolution_against_naive_loops(nodes, feeds, constants):
    (node,) = nodes
    attrs = {k: v for k, v in node.attrs.items() if k in ("strides", "pads", "dilations")}
    if "auto_pad" in node.attrs or "output_padding" in node.attrs:
        attrs = None
    graph = _graph(nodes, feeds, constants)
    got = Session(compile_graph(graph, {k: a.shape for k, a in feeds.items()})).run(feeds)["y"]
    naive = windows.conv_transpose_nd if node.op == "ConvTranspose" else windows.conv_nd
    if attrs is None:
        want = interpret(graph, feeds)["y"]
    else:
        want = naive(feeds["x"], constants["w"], constants.get("b"), groups=node.attrs.get("group", 1), **attrs)
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-5 * max(1, np.abs(want).max()))


ELSEWHERE = ("Elementwise", CHAIN)
"""Ops that no single node has: test_kernels_elementwise.py and test_strips.py prove their candidates."""


def test_every_candidate_was_used():
    """A candidate that no case reaches is untested (run after the cases above, in file order)."""
    served = {(op, c.name) for op, candidates in REGISTRY.items() for c in candidates if op not in ELSEWHERE}
    missed = served - USED - {("Identity", "view"), ("Dropout", "view"), ("ReduceLogSum", "reduce_strided")}
    if not amx.KERNELS:
        missed -= {("Conv", "amx_bf16x3"), ("Conv", "amx_bf16")}
    if len(USED) > 1:
        assert not missed


@pytest.mark.parametrize(("channels", "filters", "size", "kernel"), [(64, 192, 27, 5), (32, 64, 28, 3), (3, 16, 61, 7)])
def test_what_is_chosen_does_not_depend_on_threads(channels: int, filters: int, size: int, kernel: int) -> None:
    """Hence neither do the bits: the first of these, AlexNet's, was cut for two threads when its cost was asked for."""
    rng = np.random.default_rng(channels)
    weights = rng.standard_normal((filters, channels, kernel, kernel)).astype(np.float32)
    x = rng.standard_normal((1, channels, size, size)).astype(np.float32)
    graph = Graph(
        (Node("Conv", ("x", "w"), ("y",), {"pads": (kernel // 2,) * 4}),),
        (Value("x", x.dtype, x.shape),),
        (Value("y"),),
        {"w": weights},
    )
    programs = [compile_graph(graph, {}, threads) for threads in (1, 2, 3, 5)]
    assert len({tuple((row.algorithm, row.predicted) for row in program.rows) for program in programs}) == 1
    assert len({Session(program).run({"x": x})["y"].tobytes() for program in programs}) == 1
