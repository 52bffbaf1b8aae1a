"""Whatever is fed, or a node is given: an answer, or one sigconv exception that names the argument or node."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import sigconv as sc
from tests.cases import networks
from tests.cases.refusals import NODE, ints, refused, session_for, ways, weights

# --- feeds -----------------------------------------------------------------------------------------------------------
X = np.linspace(-1, 1, 2 * 3 * 12 * 12, dtype=np.float32).reshape(2, 3, 12, 12)

BAD_FEEDS = {
    "missing": ({}, "input 'x' is missing"),
    "None": ({"x": None}, "input 'x' is missing"),
    "extra": ({"x": X, "extra": X}, "no input is called 'extra'"),
    "extra, of another type": ({"x": X, 3: X, "z": X}, "no input is called 'z', 3"),
    "misspelt": ({"X": X}, "'X'|'x' is missing"),
    "rank": ({"x": X[0]}, "input 'x' has shape .3, 12, 12., the model takes .N, 3, 12, 12."),
    "size": ({"x": X[:, :2]}, "input 'x' has shape .2, 2, 12, 12., the model takes .N, 3, 12, 12."),
    "number": ({"x": 1.0}, "input 'x' has (shape|no fixed shape)"),
    "zero-dimensional": ({"x": np.float32(1)}, "input 'x' has (shape|no fixed shape)"),
    "float64": ({"x": X.astype(np.float64)}, "input 'x' is float64, the model takes float32"),
    "float16": ({"x": X.astype(np.float16)}, "input 'x' is float16, the model takes float32"),
    "int": ({"x": X.astype(np.int64)}, "input 'x' is int64, the model takes float32"),
    "bool": ({"x": X > 0}, "input 'x' is bool, the model takes float32"),
    "complex": ({"x": X + 0j}, "input 'x' is complex64, the model takes float32"),
    "text": ({"x": np.full(X.shape, "one")}, "input 'x' is str"),
    "objects": ({"x": X.astype(object)}, "input 'x' is object"),
    "records": ({"x": np.zeros(X.shape, [("a", np.float32)])}, "input 'x' is void"),
    "not a mapping": ([X], "feeds is a list"),
    "nothing": (None, "feeds is a NoneType"),
}


@pytest.mark.parametrize("name", BAD_FEEDS)
def test_bad_feeds(name):
    feeds, message = BAD_FEEDS[name]
    model, session = sc.load(networks.cnn()), sc.load(networks.cnn()).compile({"x": X.shape})
    onnxruntime_like = sc.InferenceSession(networks.cnn().SerializeToString())
    for run in (model.run, lambda f: onnxruntime_like.run(None, f)):
        with pytest.raises(sc.InputError, match=message):
            run(feeds)
    with pytest.raises(
        sc.InputError, match=message.split(", the model takes .N")[0].replace("no fixed shape", "shape")
    ):
        session.run(feeds)
    if name != "missing":
        assert X.flags.writeable
    np.testing.assert_array_equal(session.run({"x": X})["y"], model.run({"x": X})["y"])


@pytest.mark.parametrize(
    "given, message",
    [([[1.0], [2.0, 3.0]], "'x'"), ("text", "'x' is str"), (object(), "'x' is object"), ({"a": 1}, "'x' is object")],
)
def test_bad_things_that_are_no_arrays(given, message):
    refused(networks.model([helper.make_node("Relu", ["x"], ["y"])], {"x": [2]}, ["y"]), {"x": given}, message)


@pytest.mark.parametrize(
    "dtype, given", [("float32", [-1, 2]), ("float32", (-1.5, 2.0)), ("int8", [-1, 2]), ("float64", [1, 2])]
)
def test_lists_of_numbers(dtype, given):
    proto = networks.model([helper.make_node("Neg", ["x"], ["y"])], {"x": [2]}, ["y"], dtype=dtype)
    for way in ways(proto, {"x": given}):
        (got,) = way()
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, -np.array(given, dtype))


@pytest.mark.parametrize(
    "dtype, given", [("int8", [300, 0]), ("int64", [1.5, 0]), ("bool", [1, 0]), ("float32", [1j, 0])]
)
def test_lists_of_numbers_that_do_not_fit(dtype, given):
    refused(
        networks.model([helper.make_node("Identity", ["x"], ["y"])], {"x": [2]}, ["y"], dtype=dtype),
        {"x": given},
        "input 'x'",
    )


def test_a_session_takes_the_shape_it_was_compiled_for():
    session = sc.load(networks.cnn()).compile({"x": X.shape})
    with pytest.raises(sc.InputError, match=r"'x' has shape \(1, 3, 12, 12\), this session was compiled for \(2, 3"):
        session.run({"x": X[:1]})
    with pytest.raises(sc.InputError, match="'x' has shape"):
        session.profile({"x": X[:1]})


@pytest.mark.parametrize(
    "shapes, message",
    [
        ({}, "'x' has no fixed shape"),
        ({"x": (1, 3, -12, 12)}, "'x': a size of shape .* is negative"),
        ({"x": (1, 3, 12.5, 12)}, "'x' has no fixed shape"),
        ({"x": (1, 3, None, 12)}, "'x' has no fixed shape"),
        ({"x": (1, 3, 12)}, "'x' has shape .1, 3, 12., the model takes"),
        ({"x": (1, 4, 12, 12)}, "'x' has shape .1, 4, 12, 12., the model takes"),
        ({"x": (1 << 40, 3, 12, 12)}, "planar.*takes .* bytes, there are"),
        ({"y": (1, 3, 12, 12)}, "no input is called 'y'"),
    ],
)
def test_bad_shapes_to_compile_for(shapes, message):
    with pytest.raises(sc.SigconvError, match=message):
        sc.load(networks.cnn()).compile(shapes)


def test_bad_names_of_outputs_threads_and_providers():
    model, data = sc.load(networks.cnn()), networks.cnn().SerializeToString()
    with pytest.raises(sc.InputError, match=r"no output is called 'z' .outputs: 'y'."):
        model.run({"x": X}, ["z"])
    with pytest.raises(sc.InputError, match="no output is called 'z'"):
        sc.InferenceSession(data).run(["y", "z"], {"x": X})
    for threads in (0, -1):
        with pytest.raises(sc.InputError, match=f"threads is {threads}"):
            model.compile({"x": X.shape}, threads=threads)
    with pytest.raises(sc.InputError, match="TensorrtExecutionProvider"):
        sc.InferenceSession(data, providers=["TensorrtExecutionProvider"])


# --- empty and zero-dimensional tensors ------------------------------------------------------------------------------
OF_ANY_SIZE = {
    "Relu": {}, "Softmax": {"axis": 1}, "GlobalAveragePool": {}, "MaxPool": {"kernel_shape": [2, 2]},
    "AveragePool": {"kernel_shape": [2, 2]}, "Flatten": {}, "Transpose": {}, "Shape": {}, "Identity": {},
    "ReduceMean": {"axes": [2, 3]}, "ReduceMax": {"axes": [1]}, "DepthToSpace": {"blocksize": 2}, "ArgMax": {"axis": 1},
    "Split": {"axis": 1}, "NonZero": {}, "LRN": {"size": 3},
}  # fmt: skip


@pytest.mark.parametrize("op", OF_ANY_SIZE)
def test_empty_batch(op):
    node = helper.make_node(op, ["x"], ["y", "z"] if op == "Split" else ["y"], name=NODE, **OF_ANY_SIZE[op])
    same_as_onnxruntime(
        networks.model([node], {"x": ["N", 4, 6, 6]}, list(node.output)), {"x": np.zeros((0, 4, 6, 6), np.float32)}
    )


def same_as_onnxruntime(proto: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> None:
    want = list(networks.onnxruntime_run(proto, feeds).values())
    for way in ways(proto, feeds):
        got = way()
        assert [(a.shape, a.dtype) for a in got] == [(a.shape, a.dtype) for a in want]
        for g, w in zip(got, want, strict=True):
            np.testing.assert_allclose(g, w, rtol=1e-6, atol=1e-7)


def test_empty_batch_of_a_network():
    same_as_onnxruntime(networks.cnn(), {"x": X[:0]})


@pytest.mark.parametrize("op", ["Relu", "Sigmoid", "Identity", "Neg", "Shape", "Size", "ReduceSum"])
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,) * 9])
def test_shapes_at_the_edge(op, shape):
    proto = networks.model([helper.make_node(op, ["x"], ["y"])], {"x": shape}, ["y"])
    same_as_onnxruntime(proto, {"x": np.full(shape, -1.5, np.float32)})


def test_broadcasting_empty_and_zero_dimensional():
    proto = networks.model([helper.make_node("Add", ["x", "z"], ["y"])], {"x": ["a", 1], "z": []}, ["y"])
    for n in (0, 1, 3):
        same_as_onnxruntime(proto, {"x": np.ones((n, 1), np.float32), "z": np.array(2, np.float32)})


# --- nodes that cannot be --------------------------------------------------------------------------------------------
def case(op: str, message: str, *constants: Any, outputs: int = 1, **attrs: Any) -> Any:
    """One node that reads x [1, 4, 6, 6] and then ``constants`` (None: absent)."""
    names = ["" if c is None else f"c{i}" for i, c in enumerate(constants)]
    named = {n: c for n, c in zip(names, constants, strict=True) if n}
    out = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, ["x", *names], out, name=NODE, **attrs)
    detail = ",".join(f"{k}={v}" for k, v in attrs.items()) or message
    return pytest.param(networks.model([node], {"x": [1, 4, 6, 6]}, out, named), message, id=f"{op}-{detail[:60]}")


W = weights(4, 4, 3, 3)
POOL = {"kernel_shape": [2, 2]}
BIG = 1 << 62

NODES = [
    *[case(op, "kernel", kernel_shape=[0, 2]) for op in ("MaxPool", "AveragePool")],
    *[case(op, "strides", strides=[s, 1], **POOL) for op in ("MaxPool", "AveragePool") for s in (0, -1)],
    *[case(op, "pads", pads=[-1, 0, 0, 0], **POOL) for op in ("MaxPool", "AveragePool")],
    case("MaxPool", "dilations", dilations=[0, 1], **POOL),
    case("MaxPool", "kernel", kernel_shape=[9, 9]),
    case("MaxPool", "kernel_shape", kernel_shape=[2]),
    case("MaxPool", "kernel", kernel_shape=[BIG, 2]),
    case("MaxPool", "bytes", kernel_shape=[2, 2], pads=[1 << 40, 0, 0, 0]),
    case("AveragePool", "bytes", kernel_shape=[2, 2], pads=[1 << 31, 0, 0, 0], count_include_pad=1),
    *[case(op, "strides", W, strides=[s, 1]) for op in ("Conv", "ConvTranspose") for s in (0, -1)],
    *[case(op, "dilations", W, dilations=[0, 1]) for op in ("Conv", "ConvTranspose")],
    *[case(op, "group", W, group=g) for op in ("Conv", "ConvTranspose") for g in (0, -1, 3)],
    case("Conv", "multiple of group 2", weights(3, 2, 3, 3), group=2),
    *[case(op, "channels", weights(3, 3, 3, 3)) for op in ("Conv", "ConvTranspose")],
    *[case(op, "rank", weights(*s)) for op in ("Conv", "ConvTranspose") for s in ((4, 4, 3), (4,), ())],
    *[case(op, "bias", W, weights(5)) for op in ("Conv", "ConvTranspose")],
    case("Conv", "bias", W, weights(4, 1)),
    case("Conv", "one dtype", W, weights(4, dtype=np.float64)),
    case("Conv", "one dtype", weights(4, 4, 3, 3, dtype=np.float64)),
    case("Conv", "dtype", weights(4, 4, 3, 3, dtype=np.int32)),
    case("Conv", "kernel_shape", W, kernel_shape=[2, 2]),
    case("Conv", "pads", W, pads=[-1, 0, 0, 0]),
    case("Conv", "pads", W, pads=[1, 1]),
    case("Conv", "bytes", W, pads=[1 << 40, 0, 0, 0]),
    case("Conv", "bytes", W, pads=[BIG, 0, BIG, 0]),
    case("Conv", "bytes|too large", W, dilations=[1, 1 << 40], pads=[0, 1 << 40, 0, 1 << 40]),
    case("Conv", "bytes|too large", W, dilations=[1, BIG], pads=[0, BIG, 0, BIG]),
    case("Conv", "kernel", weights(4, 4, 9, 9)),
    case("Conv", "kernel", weights(4, 4, 0, 3)),
    case("Conv", "auto_pad", W, auto_pad="SAME"),
    case("ConvTranspose", "bytes", W, strides=[1 << 31, 1 << 31]),
    case("ConvTranspose", "output_padding", W, output_padding=[9, 9]),
    case("ConvTranspose", "pads", W, pads=[9, 9, 9, 9]),
    case("Reshape", "reshape", ints(7, -1)),
    case("Reshape", "-1", ints(-1, -1)),
    case("Reshape", "-2", ints(-2, 3)),
    case("Reshape", "reshape", ints(BIG, BIG)),
    case("Reshape", "dtype float32", weights(2)),
    case("Expand", "bytes", ints(BIG, 4, 6, 6)),
    case("Expand", "-1", ints(-1, 4, 6, 6)),
    case("Expand", "broadcast", ints(5)),
    case("Tile", "bytes", ints(1 << 40, 1, 1, 1)),
    case("Tile", "-3", ints(-3, 1, 1, 1)),
    case("Pad", "bytes", ints(1 << 40, 0, 0, 0, 0, 0, 0, 0)),
    case("Pad", "bytes", ints(0, 0, BIG, 0, 0, 0, BIG, 0), mode="edge"),
    case("Pad", "pad", ints(0, 0, -9, 0, 0, 0, 0, 0)),
    case("Pad", "pads", ints(0, 0, 9, 0)),
    case("Pad", "mode", ints(0, 0, 9, 0, 0, 0, 0, 0), mode="strange"),
    *[case("Resize", "bytes", None, np.array([1, 1, s, s], np.float32), mode=m)
      for s in (1e9, 1e30) for m in ("nearest", "linear", "cubic")],
    *[case("Resize", "scale", None, np.array([1, 1, s, 1], np.float32)) for s in (-2, 0, np.nan, np.inf)],
    case("Resize", "sizes", None, None, ints(1, 4, -5, 6)),
    case("Resize", "sizes", None, None, ints(1, 4, 5)),
    case("Resize", "bytes", None, None, ints(1, 4, 1 << 40, 6)),
    case("Resize", "mode", None, np.array([1, 1, 2, 2], np.float32), mode="strange"),
    *[case("DepthToSpace", "blocksize|multiple", blocksize=b) for b in (0, -2, 3)],
    case("SpaceToDepth", "multiple", blocksize=4),
    *[case("Transpose", "perm", perm=p) for p in ([0, 1, 2], [0, 1, 1, 3], [0, 1, 2, 9])],
    case("Concat", "axis 9", weights(1, 4, 6, 6), axis=9),
    case("Concat", "axis 3", weights(1, 4, 6, 5), axis=1),
    case("Concat", "rank", weights(4, 6, 6), axis=1),
    case("Split", "split", ints(3, 3), outputs=2, axis=1),
    case("Split", "split", ints(-1, 5), outputs=2, axis=1),
    case("Slice", "step 0", ints(0), ints(5), ints(2), ints(0)),
    case("Slice", "axis 7", ints(0), ints(5), ints(7)),
    case("Gather", "index 4", ints(4), axis=1),
    case("Gather", "axis 6", ints(0), axis=6),
    case("Add", "broadcast", weights(5)),
    case("Add", "one dtype", weights(6, dtype=np.float64)),
    case("MatMul", "inner sizes", weights(5, 5)),
    case("MatMul", "rank 0", weights()),
    case("Gemm", "rank 4", weights(6, 5)),
    case("Softmax", "axis 7", axis=7),
    case("BatchNormalization", "channels", *[weights(5)] * 4),
    case("InstanceNormalization", "channels", *[weights(5)] * 2),
    case("LRN", "size", size=0),
    case("ReduceMean", "axis 9", axes=[9]),
    case("Clip", "min", weights(2)),
    case("PRelu", "broadcast", weights(5)),
    case("Cast", "99", to=99),
    case("Cast", "saturate", to=10, saturate=-1),
    case("CastLike", "saturate", weights(1), saturate=2),
    case("QuantizeLinear", "saturate", np.float32(1), saturate=2),
    *[case("RoiAlign", "output_height", weights(1, 4), ints(0), output_height=h, output_width=2) for h in (0, -1)],
    case("RoiAlign", "Unable|bytes", weights(1, 4), ints(0), output_height=2, output_width=2, sampling_ratio=1 << 40),
    case("MaxUnpool", "negative", np.zeros((1, 4, 6, 6), np.int64), kernel_shape=[1, 1], pads=[9, 0, 0, 0]),
    case("ReverseSequence", "sequence_lens", ints(1, 1), batch_axis=0, time_axis=1),
    case("ReverseSequence", "sequence_lens", ints(1), batch_axis=1, time_axis=0),
    case("Squeeze", "axis 1", ints(1)),
    case("Unsqueeze", "axis 9", ints(9)),
    case("Flatten", "axis 9", axis=9),
    case("TopK", "K is 99", ints(99), outputs=2),
    case("Relu", "attribute", alpha=1.0),
    case("Conv", "attribute 'strides'", W, strides="two"),
    case("Relu", "inputs", W),
    case("Conv", "inputs"),
    case("NoSuchOp", "NoSuchOp"),
]  # fmt: skip


@pytest.mark.parametrize("proto, message", NODES)
def test_nodes_that_cannot_be(proto, message):
    for way in ways(proto, {"x": np.ones((1, 4, 6, 6), np.float32)}):
        with pytest.raises(sc.ModelError, match=message) as caught:
            way()
        assert NODE in str(caught.value)


HUGE = [
    ("ConstantOfShape", [ints(1 << 40)]),
    ("ConstantOfShape", [ints(BIG, BIG)]),
    ("Range", [np.int64(0), np.int64(1 << 50), np.int64(1)]),
    ("Range", [np.float32(0), np.float32(1e30), np.float32(1e-30)]),
    ("OneHot", [ints(1, 2), np.int64(1 << 40), np.array([0, 1], np.float32)]),
    ("Expand", [np.float32(1), ints(1 << 20, 1 << 20)]),
    ("Tile", [ints(1, 2), ints(BIG)]),
]


@pytest.mark.parametrize("op, constants", HUGE)
def test_huge_constants_are_neither_made_nor_loaded(op, constants):
    named = {f"c{i}": np.asarray(c) for i, c in enumerate(constants)}
    node = helper.make_node(op, list(named), ["y"], name=NODE)
    proto = networks.model([node], {"x": [1]}, ["y"], named)
    assert len(proto.SerializeToString()) < 1000
    refused(proto, {"x": np.ones(1, np.float32)}, NODE, sc.ModelError)


AT_RUN_TIME = [
    ("Reshape", [5, 7], "reshape"),
    ("Expand", [5], "broadcast|shape"),
    ("Tile", [-1, 1], "-1"),
    ("Gather", [99], "99"),
    ("Unsqueeze", [99], "99"),
    ("Pad", [-9, 0, 0, 0], "pad"),
    ("Expand", [1 << 40, 2, 3], NODE),
    ("Tile", [1 << 50, 1], NODE),
    ("Pad", [1 << 50, 0, 0, 0], NODE),
]


@pytest.mark.parametrize("op, values, message", AT_RUN_TIME)
def test_nodes_that_fail_at_run_time(op, values, message):
    """What the second input holds is known only when the network runs; the same session then runs with better ones."""
    node = helper.make_node(op, ["x", "z"], ["y"], name=NODE)
    proto = networks.model([node], {"x": [2, 3], "z": ["n"]}, ["y"], dtype=np.int64)
    feeds = {"x": np.arange(6).reshape(2, 3), "z": ints(*values)}
    for way in ways(proto, feeds):
        with pytest.raises(sc.ModelError, match=message) as caught:
            way()
        assert NODE in str(caught.value)
    session = session_for(proto.SerializeToString(), feeds)
    with pytest.raises(sc.ModelError):
        session.run(feeds)
    good = np.array({"Reshape": [3, 2], "Expand": [1, 2, 3]}.get(op, [0] * len(values)))
    if len(good) == len(values):
        want = networks.onnxruntime_run(proto, {**feeds, "z": good})["y"]
        np.testing.assert_array_equal(session.run({**feeds, "z": good})["y"], want)
