"""The graph room: inference, specialisation, passes and the oracle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from sigconv.errors import InputError, ModelError, UnsupportedError
from sigconv.export.reader import read
from sigconv.graph.infer import LARGEST_FOLD, infer, specialize
from sigconv.graph.interpret import interpret
from sigconv.graph.ir import Graph, Node, Value
from sigconv.graph.passes import (
    eliminate_dead,
    eliminate_identity,
    fold_batch_norm,
    fold_constants,
    share_constants,
    simplify,
    toposort,
)
from tests.cases.trained import SMALL, feeds_of
from tests.sources import MODELS

F32 = np.dtype(np.float32)
RNG = np.random.default_rng(3)


def graph_of(
    nodes: Sequence[Node], inputs: Mapping[str, tuple[int | str | None, ...]], outputs: str = "y", **constants: object
) -> Graph:
    """A graph of float32 inputs; constants are read-only."""
    arrays = {name: np.asarray(value) for name, value in constants.items()}
    for array in arrays.values():
        array.flags.writeable = False
    return Graph(
        tuple(nodes),
        tuple(Value(n, F32, s) for n, s in inputs.items()),
        tuple(Value(o) for o in outputs.split()),
        arrays,
    )


def op(name: str, inputs: str, outputs: str = "y", **attrs: object) -> Node:
    return Node(name, tuple("" if i == "-" else i for i in inputs.split()), tuple(outputs.split()), attrs)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def ops(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


def same(before: Graph, after: Graph, feeds: Mapping[str, np.ndarray], tolerance: float = 0.0) -> None:
    """Both graphs have the same inputs, outputs and results."""
    assert [v.name for v in before.inputs] == [v.name for v in after.inputs]
    a, b = interpret(before, feeds), interpret(after, feeds)
    assert list(a) == list(b)
    for x, y in zip(a.values(), b.values(), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_allclose(y, x, rtol=tolerance, atol=tolerance)


# --- inference ----------------------------------------------------------------------------------------------------

FLATTEN_BY_SHAPE = [
    op("Shape", "x", "s"),
    op("Gather", "s zero", "n", axis=0),
    op("Unsqueeze", "n first", "n1"),
    op("Concat", "n1 rest", "target", axis=0),
    op("Relu", "x", "r"),
    op("Reshape", "r target", "y"),
]
SHAPE_CONSTANTS = {"zero": np.int64(0), "first": np.int64([0]), "rest": np.int64([-1])}


def test_values_of_shape_arithmetic_are_known() -> None:
    graph = graph_of(FLATTEN_BY_SHAPE, {"x": ("N", 3, 4)}, **SHAPE_CONSTANTS)
    facts = infer(graph, {"x": (2, 3, 4)})
    assert facts["target"].value is not None
    assert facts["target"].value.tolist() == [2, -1]
    assert facts["y"].shape == (2, 12)
    assert infer(graph)["s"].shape == (3,)
    assert infer(graph)["r"].shape == ("N", 3, 4)


def test_errors_of_inference_name_the_node() -> None:
    graph = graph_of([Node("Add", ("x", "w"), ("y",), {}, "adder")], {"x": (2, 3)}, w=normal(4))
    with pytest.raises(ModelError, match="Add 'adder'"):
        infer(graph)


def test_an_unknown_operator_is_unsupported() -> None:
    with pytest.raises(UnsupportedError, match="Foo"):
        infer(graph_of([op("Foo", "x")], {"x": (2,)}))


def test_shapes_must_fit_the_inputs() -> None:
    graph = graph_of([op("Relu", "x")], {"x": ("N", 3)})
    for shapes, message in [
        ({"z": (1,)}, "no input is called 'z'"),
        ({"x": (1, 4)}, "takes shape"),
        ({"x": (1,)}, "takes shape"),
        ({"x": (-1, 3)}, "takes shape"),
    ]:
        with pytest.raises(InputError, match=message):
            infer(graph, shapes)


def test_specialize_folds_the_whole_shape_sub_graph() -> None:
    graph = graph_of(FLATTEN_BY_SHAPE, {"x": ("N", 3, 4)}, **SHAPE_CONSTANTS)
    fixed = specialize(graph, {"x": (2, 3, 4)})
    assert ops(fixed) == ["Relu", "Reshape"]
    assert set(fixed.constants) == {"target"}
    assert fixed.inputs[0].shape == (2, 3, 4)
    assert fixed.outputs[0] == fixed.values["y"] == Value("y", F32, (2, 12))
    assert all(v.dtype is not None and all(isinstance(d, int) for d in v.shape or ()) for v in fixed.values.values())
    same(graph, fixed, {"x": normal(2, 3, 4)})


def test_specialize_needs_every_size() -> None:
    with pytest.raises(InputError, match="'x' needs a static shape"):
        specialize(graph_of([op("Relu", "x")], {"x": ("N", 3)}))


def test_folding_is_bounded() -> None:
    sizes = np.int64([LARGEST_FOLD, 4])
    graph = graph_of(
        [Node("ConstantOfShape", ("sizes",), ("big",), {}, "huge"), op("ReduceMax", "big", "y", keepdims=0)],
        {},
        sizes=sizes,
    )
    with pytest.raises(ModelError, match=r"ConstantOfShape 'huge'.*more than"):
        specialize(graph)
    assert ops(simplify(graph)) == ["ConstantOfShape", "ReduceMax"]


def test_what_is_random_is_not_folded() -> None:
    graph = graph_of(
        [op("Dropout", "w ratio train", "y")],
        {},
        w=np.ones(64, np.float32),
        ratio=np.float32(0.5),
        train=np.array(True),
    )
    assert ops(simplify(graph)) == ["Dropout"]


# --- passes -------------------------------------------------------------------------------------------------------


def test_toposort_is_stable_and_names_cycles() -> None:
    nodes = [op("Relu", "b", "y"), op("Neg", "x", "c"), op("Exp", "x", "b")]
    assert ops(toposort.run(graph_of(nodes, {"x": (2,)}, "y c"))) == ["Neg", "Exp", "Relu"]
    with pytest.raises(ModelError, match="cycle: Relu '-> y' -> Exp '-> b' -> Neg '-> c' -> Relu '-> y'"):
        toposort.sort((op("Relu", "c"), op("Exp", "y", "b"), op("Neg", "b", "c"), op("Relu", "c", "d")))


def test_constants_are_folded_before_the_feeds() -> None:
    nodes = [op("DequantizeLinear", "q scale", "w"), op("Add", "w w", "v"), op("Mul", "x v", "y")]
    graph = graph_of(nodes, {"x": ("N", 3)}, q=np.int8([1, -2, 3]), scale=np.float32(0.5))
    after = fold_constants.run(graph)
    assert ops(after) == ["Mul"]
    assert after.constants["v"].tolist() == [1, -2, 3]
    assert set(after.constants) == {"v"}
    same(graph, after, {"x": normal(2, 3)})


def test_a_constant_graph_output_stays_one() -> None:
    after = simplify(graph_of([op("Neg", "w", "y"), op("Relu", "x", "z")], {"x": (3,)}, "y z", w=np.float32([1, 2])))
    assert after.constants["y"].tolist() == [-1, -2]
    assert [v.name for v in after.outputs] == ["y", "z"]


NO_OPS = {
    "identity": [op("Identity", "r", "y")],
    "dropout": [op("Dropout", "r", "y")],
    "dropout with inputs": [op("Dropout", "r half no", "y")],
    "cast": [op("Cast", "r", "y", to=1)],
    "pad": [op("Pad", "r zeros", "y")],
    "transpose": [op("Transpose", "r", "y", perm=(0, 1))],
    "clip": [op("Clip", "r", "y")],
    "concat": [op("Concat", "r", "y", axis=1)],
    "reshape": [op("Reshape", "r shape", "y")],
    "several": [op("Identity", "r", "a"), op("Dropout", "a", "b"), op("Cast", "b", "y", to=1)],
}
NO_OP_CONSTANTS = {
    "half": np.float32(0.5),
    "no": np.array(False),
    "zeros": np.int64([0] * 4),
    "shape": np.int64([2, 3]),
}


@pytest.mark.parametrize("name", NO_OPS)
def test_no_ops_go_and_the_output_keeps_its_name(name: str) -> None:
    graph = graph_of([op("Relu", "x", "r"), *NO_OPS[name]], {"x": (2, 3)}, **NO_OP_CONSTANTS)
    after = simplify(graph)
    assert ops(after) == ["Relu"]
    assert after.nodes[0].outputs == ("y",)
    same(graph, after, {"x": normal(2, 3)})


@pytest.mark.parametrize(
    "node",
    [
        op("Cast", "r", to=11),
        op("Pad", "r pads"),
        op("Transpose", "r", perm=(1, 0)),
        op("Clip", "r low"),
        op("Concat", "r r", axis=0),
        op("Dropout", "r half yes"),
        op("Reshape", "r shape"),
    ],
    ids=lambda n: n.op,
)
def test_what_does_something_stays(node: Node) -> None:
    constants = {
        "pads": np.int64([0, 0, 1, 0]),
        "low": np.float32(1),
        "half": np.float32(0.5),
        "yes": np.array(True),
        "shape": np.int64([3, 2]),
    }
    graph = graph_of([op("Relu", "x", "r"), node], {"x": (2, 3)}, **constants)
    assert ops(simplify(graph)) == ["Relu", node.op]


def test_identities_between_outputs_and_inputs_stay_correct() -> None:
    nodes = [
        op("Identity", "x", "a"),
        op("Relu", "x", "b"),
        op("Identity", "b", "c"),
        op("Identity", "b", "d"),
        op("Neg", "c", "e"),
    ]
    graph = graph_of(nodes, {"x": (2, 3)}, "a b c d e")
    after = simplify(graph)
    assert [v.name for v in after.outputs] == ["a", "b", "c", "d", "e"]
    same(graph, after, {"x": normal(2, 3)})


def test_a_value_renamed_to_an_output_keeps_its_other_readers() -> None:
    nodes = [op("Relu", "x", "r"), op("Identity", "r", "y"), op("Neg", "r", "z")]
    graph = graph_of(nodes, {"x": (2, 3)}, "y z")
    after = eliminate_identity.run(graph)
    assert ops(after) == ["Relu", "Neg"]
    same(graph, after, {"x": normal(2, 3)})


def statistics(channels: int) -> dict[str, np.ndarray]:
    return {"s": normal(channels), "b": normal(channels), "m": normal(channels), "v": np.abs(normal(channels)) + 0.1}


LINEAR = {
    "conv": (op("Conv", "x w c", "h"), (2, 4, 6, 5), (6, 4, 3, 3), 6),
    "conv without bias, grouped": (op("Conv", "x w", "h", group=2), (2, 4, 6), (6, 2, 3), 6),
    "conv transpose": (op("ConvTranspose", "x w c", "h", strides=(2, 2)), (2, 4, 3, 3), (4, 6, 2, 3), 6),
    "conv transpose, grouped": (op("ConvTranspose", "x w", "h", group=2), (2, 4, 6), (4, 3, 3), 6),
    "gemm": (op("Gemm", "x w c", "h", alpha=0.5), (3, 4), (4, 6), 6),
    "gemm, transposed": (op("Gemm", "x w", "h", transB=1), (3, 4), (6, 4), 6),
}


@pytest.mark.parametrize("name", LINEAR)
def test_batch_norm_is_folded(name: str) -> None:
    linear, x, w, channels = LINEAR[name]
    nodes = [linear, op("BatchNormalization", "h s b m v", epsilon=1e-3)]
    graph = graph_of(nodes, {"x": x}, w=normal(*w), c=normal(channels), **statistics(channels))
    after = simplify(graph)
    assert ops(after) == [linear.op]
    same(graph, after, {"x": normal(*x)}, 1e-4)


@pytest.mark.parametrize(
    ("outputs", "more", "changes"),
    [
        ("y h", [], {}),
        ("y z", [op("Relu", "h", "z")], {}),
        ("y", [], {"v": -np.ones(2, np.float32)}),
        ("y", [], {"w": np.full((2, 1, 3), 1e38, np.float32), "s": np.full(2, 1e9, np.float32)}),
    ],
    ids=["an output", "two readers", "negative variance", "overflow"],
)
def test_batch_norm_that_cannot_be_folded_stays(outputs: str, more: list[Node], changes: dict[str, np.ndarray]) -> None:
    nodes = [op("Conv", "x w", "h"), op("BatchNormalization", "h s b m v"), *more]
    graph = graph_of(nodes, {"x": (1, 1, 4)}, outputs, **{"w": normal(2, 1, 3), **statistics(2), **changes})
    assert fold_batch_norm.run(graph) is graph


def test_training_batch_norm_stays() -> None:
    nodes = [op("Conv", "x w", "h"), op("BatchNormalization", "h s b m v", training_mode=1)]
    graph = graph_of(nodes, {"x": (1, 1, 4)}, w=normal(2, 1, 3), **statistics(2))
    assert ops(simplify(graph)) == ["Conv", "BatchNormalization"]


def test_dead_nodes_and_constants_go() -> None:
    graph = graph_of([op("Relu", "x"), op("Add", "x w", "lost"), op("Neg", "lost", "also")], {"x": (2,)}, w=normal(2))
    after = eliminate_dead.run(graph)
    assert ops(after) == ["Relu"]
    assert not after.constants
    assert eliminate_dead.run(after) is after


def test_equal_constants_are_kept_once() -> None:
    constants = {
        "a": np.float32([1, 2]),
        "b": np.float32([1, 2]),
        "c": np.float32([[1, 2]]),
        "d": np.float32([-0.0, 2]),
        "e": np.float32([0.0, 2]),
    }
    graph = graph_of([op("Sum", "x a b c d e")], {"x": (2,)}, **constants)
    after = share_constants.run(graph)
    assert set(after.constants) == {"a", "c", "d", "e"}
    same(graph, after, {"x": normal(2)})


def test_passes_return_the_same_graph_at_their_fixpoint() -> None:
    graph = simplify(graph_of([op("Conv", "x w", "h"), op("Relu", "h")], {"x": (1, 1, 4)}, w=normal(2, 1, 3)))
    assert simplify(graph) is graph


# --- the oracle ---------------------------------------------------------------------------------------------------


def test_interpret_returns_what_is_asked() -> None:
    graph = graph_of([op("Relu", "x", "r"), op("Neg", "r")], {"x": (2,)})
    feeds = {"x": np.float32([-1, 2])}
    assert {k: v.tolist() for k, v in interpret(graph, feeds).items()} == {"y": [0, -2]}
    assert list(interpret(graph, feeds, outputs=["r"])) == ["r"]
    assert set(interpret(graph, feeds, keep=True)) == {"x", "r", "y"}
    with pytest.raises(InputError, match="'nothing'"):
        interpret(graph, feeds, outputs=["nothing"])
    with pytest.raises(InputError, match=r"feeds lack \['x'\], and \['z'\] are not inputs"):
        interpret(graph, {"z": feeds["x"]})


def test_interpret_in_double_precision() -> None:
    third = np.float32(1) / np.float32(3)
    graph = graph_of(
        [op("Cast", "x", "c", to=1), op("Mul", "c c", "p"), op("Sub", "p p2")],
        {"x": (1,)},
        p2=np.float32([third * third]),
    )
    feeds = {"x": np.float32([third])}
    assert interpret(graph, feeds)["y"] == 0
    wide = interpret(graph, feeds, float64=True)["y"]
    assert wide.dtype == np.float64
    assert wide[0] == np.float64(third) ** 2 - np.float64(np.float32(third * third)) != 0


def test_a_failing_node_is_named() -> None:
    graph = graph_of([Node("Reshape", ("x", "t"), ("y",), {}, "here")], {"x": ("N",)}, t=np.int64([2, 3]))
    with pytest.raises(ModelError, match=r"Reshape 'here'.*float32\[5\]"):
        interpret(graph, {"x": normal(5)})


# --- real models ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("name", SMALL)
def test_passes_do_not_change_a_real_model(name: str) -> None:
    graph, feeds = read(MODELS / f"{name}.onnx"), feeds_of(name)
    simple = simplify(graph)
    fixed = simplify(specialize(simple, {k: v.shape for k, v in feeds.items()}))
    assert len(fixed.nodes) <= len(simple.nodes) <= len(graph.nodes)
    assert not {"Shape", "Constant", "Identity", "BatchNormalization"} & set(ops(fixed))
    same(graph, fixed, feeds, 1e-4)
