"""Old forms of operators: the tables against onnx's history, the rewritten nodes against onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import sigconv as sc
from sigconv.export import opsets
from sigconv.export.reader import read
from sigconv.graph.interpret import interpret
from sigconv.ops.spec import REGISTRY
from tests.cases.onnx_models import I64, V3, Arrays, X, model_of, node

# --- the table of old forms ---------------------------------------------------------------------------------------


def _parameters(formal: Sequence[Any]) -> list[tuple[str, str]]:
    """How many inputs there are and which may be left out; their names are free to change."""
    return [("", p.option.name) for p in formal]


def breaking_changes(schemas: Sequence[onnx.defs.OpSchema]) -> list[int]:
    """The versions, of files of opset 6 or later, whose attributes, defaults or inputs differ from those before."""
    versions = sorted(schemas, key=lambda s: s.since_version)
    first = max((s.since_version for s in versions if s.since_version <= 6), default=0)
    versions = [s for s in versions if s.since_version >= first]

    def form(s: onnx.defs.OpSchema) -> object:
        attributes = {
            name: (a.required, helper.get_attribute_value(a.default_value) if a.default_value.type else None)
            for name, a in s.attributes.items()
        }
        return attributes, _parameters(s.inputs), len(s.outputs), s.deprecated

    return [new.since_version for old, new in pairwise(versions) if form(old) != form(new)]


HISTORY: dict[str, list[onnx.defs.OpSchema]] = {}
for _schema in onnx.defs.get_all_schemas_with_history():
    if not _schema.domain:
        HISTORY.setdefault(_schema.name, []).append(_schema)


@pytest.mark.parametrize("op", sorted({name for domain, name in REGISTRY if not domain} | {"Upsample", "Scatter"}))
def test_every_change_of_every_operator_is_handled(op: str) -> None:
    handled = {*opsets.STEPS.get(op, {}), *opsets.SAME.get(op, {})}
    assert set(breaking_changes(HISTORY[op])) <= handled


def test_a_forgotten_change_is_found() -> None:
    assert breaking_changes(HISTORY["Clip"]) == [11]
    assert breaking_changes(HISTORY["Slice"]) == [10]


@pytest.mark.parametrize("op", sorted(name for domain, name in REGISTRY if not domain))
def test_the_registered_form_is_the_newest(op: str) -> None:
    """An installed onnx newer than the registry may know newer forms; none known to opset 26 may be missing."""
    newest = max(s.since_version for s in HISTORY[op] if s.since_version <= 26)
    assert REGISTRY["", op].since >= newest


@pytest.mark.parametrize("table", [opsets.STEPS, opsets.SAME])
def test_the_tables_name_real_versions(table: dict[str, dict[int, object]]) -> None:
    gone = {"Crop", "ImageScaler", "Affine"}
    for op in set(table) - gone:
        assert set(table[op]) <= {s.since_version for s in HISTORY[op]}, op


# --- old forms, run -----------------------------------------------------------------------------------------------

C6 = np.linspace(0.5, 2, 6, dtype=np.float32)
STATISTICS = {"s": C6, "b": C6 - 1, "m": C6 / 3, "v": C6 * 2}


I1 = np.int64([1])

RUN_CASES: dict[str, tuple[int, onnx.NodeProto, Arrays]] = {
    "clip both": (6, node("Clip", min=-1.0, max=2.0), {}),
    "clip below": (10, node("Clip", min=-1.0), {}),
    "pad reflect": (2, node("Pad", pads=[0, 0, 1, 2, 0, 0, 3, 1], mode="reflect"), {}),
    "pad value": (9, node("Pad", pads=[0, 0, 1, 2, 0, 0, 3, 1], value=7.5), {}),
    "slice": (7, node("Slice", starts=[1, -3], ends=[9, -1], axes=[2, 3]), {}),
    "slice without axes": (9, node("Slice", starts=[0, 1], ends=[1, 4]), {}),
    "squeeze": (11, node("Squeeze", "u", axes=[0, -1]), {"u": np.ones((1, 3, 1, 1), np.float32)}),
    "squeeze all": (7, node("Squeeze", "u"), {"u": np.ones((1, 3, 1, 1), np.float32)}),
    "unsqueeze": (11, node("Unsqueeze", axes=[0, -1]), {}),
    "reduce sum": (11, node("ReduceSum", axes=[1, -1], keepdims=0), {}),
    "reduce sum all": (9, node("ReduceSum"), {}),
    "reduce mean": (13, node("ReduceMean", axes=[2, 3]), {}),
    "reduce max": (12, node("ReduceMax", axes=[1]), {}),
    "reduce log sum exp": (13, node("ReduceLogSumExp", axes=[-1], keepdims=0), {}),
    "split": (11, node("Split", outputs="y z", axis=1, split=[2, 4]), {}),
    "split evenly": (7, node("Split", outputs="y z", axis=1), {}),
    "split evenly, 13": (13, node("Split", outputs="y z", axis=1), {}),
    "dropout": (7, node("Dropout", ratio=0.3), {}),
    "dropout 10": (10, node("Dropout"), {}),
    "batch norm 7": (7, node("BatchNormalization", "x s b m v", epsilon=1e-3), STATISTICS),
    "batch norm 9": (9, node("BatchNormalization", "x s b m v"), STATISTICS),
    "softmax flattens": (11, node("Softmax"), {}),
    "softmax axis 2": (9, node("Softmax", axis=2), {}),
    "softmax last": (9, node("Softmax", axis=3), {}),
    "softmax axis 0": (11, node("Softmax", axis=0), {}),
    "log softmax flattens": (11, node("LogSoftmax", axis=-3), {}),
    "hardmax flattens": (11, node("Hardmax", axis=2), {}),
    "upsample 7": (7, node("Upsample", scales=[1.0, 1.0, 2.0, 3.0]), {}),
    "upsample 7 linear": (8, node("Upsample", scales=[1.0, 1.0, 2.0, 2.5], mode="linear"), {}),
    "upsample 9": (9, node("Upsample", "x scales"), {"scales": np.float32([1, 1, 2, 2])}),
    "resize 10 up": (10, node("Resize", "x scales"), {"scales": np.float32([1, 1, 2.5, 2])}),
    "resize 10 down": (10, node("Resize", "x scales"), {"scales": np.float32([1, 1, 0.6, 0.4])}),
    "resize 10 both": (10, node("Resize", "x scales"), {"scales": np.float32([1, 1, 0.6, 2.4])}),
    "resize 10 linear": (10, node("Resize", "x scales", mode="linear"), {"scales": np.float32([1, 1, 0.6, 2.4])}),
    "resize 11 tf": (
        11,
        node("Resize", "x roi scales", coordinate_transformation_mode="tf_half_pixel_for_nn", nearest_mode="floor"),
        {"roi": np.zeros(0, np.float32), "scales": np.float32([1, 1, 2.5, 0.7])},
    ),
    **{
        f"resize 11 tf {mode} {nearest}": (
            11,
            node(
                "Resize",
                "x roi scales",
                mode=mode,
                nearest_mode=nearest,
                coordinate_transformation_mode="tf_half_pixel_for_nn",
            ),
            {"roi": np.zeros(0, np.float32), "scales": np.float32([1, 1, 2.5, 0.7])},
        )
        for mode, nearest in (
            ("nearest", "ceil"),
            ("nearest", "round_prefer_ceil"),
            ("nearest", "round_prefer_floor"),
            ("linear", "floor"),
            ("cubic", "ceil"),
        )
    },
    "reduce log sum of integers": (18, node("ReduceLogSum", "n a"), {"n": np.int32([[9, 2], [1, 400]]), "a": I1}),
    "reduce log sum exp of integers": (13, node("ReduceLogSumExp", "n", axes=[1]), {"n": np.int64([[9, 2], [1, 40]])}),
    "layer norm's statistics": (
        17,
        node("LayerNormalization", "d w", "y mean inverse"),
        {"d": np.float64([[1, 2, 4], [0, 1, 0]]), "w": np.float64([1, 2, 3])},
    ),
    "resize 11 sizes": (
        11,
        node("Resize", "x roi scales sizes", mode="linear"),
        {"roi": np.zeros(0, np.float32), "scales": np.zeros(0, np.float32), "sizes": np.int64([2, 6, 7, 3])},
    ),
    "top k 1": (9, node("TopK", outputs="y i", k=2, axis=2), {}),
    "top k 10": (10, node("TopK", "x k", "y i"), {"k": np.int64([3])}),
    "argmax": (11, node("ArgMax", axis=-1), {}),
    "cast": (9, node("Cast", to=I64), {}),
    "flatten": (7, node("Flatten", axis=2), {}),
    "gemm": (
        9,
        node("Gemm", "a a c", transB=1),
        {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "c": np.float32([1, 2])},
    ),
    "grid sample 16": (
        16,
        node("GridSample", "x g", mode="bicubic"),
        {"g": np.linspace(-1.2, 1.2, 2 * 3 * 3 * 2, dtype=np.float32).reshape(2, 3, 3, 2)},
    ),
    "scatter": (9, node("Scatter", "w i u"), {"w": V3, "i": np.int64([2, 0]), "u": np.float32([9, 8])}),
    "max pool 8": (8, node("MaxPool", outputs="y i", kernel_shape=[2, 2], strides=[2, 1]), {}),
    "max pool 10": (10, node("MaxPool", kernel_shape=[2, 2], ceil_mode=1, strides=[2, 2]), {}),
    "average pool 7": (7, node("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1), {}),
    "depth to space": (
        10,
        node("DepthToSpace", "d", blocksize=2),
        {"d": np.arange(16, dtype=np.float32).reshape(1, 8, 1, 2)},
    ),
    "shape": (13, node("Shape"), {}),
    "dft": (
        17,
        node("DFT", "t", axis=1, onesided=1),
        {"t": np.linspace(0, 1, 8, dtype=np.float32).reshape(1, 8, 1) ** 2},
    ),
    "constant of shape": (9, node("ConstantOfShape", "n"), {"n": np.int64([2, 3])}),
}


@pytest.mark.parametrize("name", RUN_CASES)
@pytest.mark.parametrize("constant", [True, False], ids=["constants", "feeds"])
def test_old_form_as_onnxruntime(name: str, constant: bool) -> None:
    import onnxruntime

    opset, proto, more = RUN_CASES[name]
    arrays = {n: x for n, x in {**X, **more}.items() if n in proto.input}
    data = proto.input[0]
    constants = {n: x for n, x in arrays.items() if constant and n != data}
    feeds = {n: x for n, x in arrays.items() if n not in constants}
    model = model_of([proto], feeds, list(proto.output), constants, opset=max(opset, 7))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        expected = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        ).run(None, feeds)
    except Exception:
        assert not constant, "onnxruntime itself must run every case with constants"
        pytest.skip("onnxruntime takes this input as a constant only")
    graph = read(model)
    assert {(n.domain, n.op) for n in graph.nodes} <= set(REGISTRY)
    for got, want in zip(interpret(graph, feeds).values(), expected, strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Pow"])
@pytest.mark.parametrize(("axis", "shape"), [(1, (6,)), (1, (6, 4)), (-2, (4,)), (None, (4, 5)), (0, (2,)), (None, ())])
def test_limited_broadcast_of_opset_6(op: str, axis: int | None, shape: tuple[int, ...]) -> None:
    a, b = np.abs(X["x"]) + 1, np.linspace(1, 2, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    attrs = {"broadcast": 1} | ({} if axis is None else {"axis": axis})
    first = 4 - len(shape) if axis is None else axis % 4
    lined_up = b.reshape((*shape, *[1] * (4 - first - len(shape))))
    got = interpret(read(model_of([node(op, "a b", **attrs)], {"a": a, "b": b}, opset=6)), {"a": a, "b": b})["y"]
    function = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "Pow": np.power}[op]
    np.testing.assert_allclose(got, function(a, lined_up), rtol=1e-6)


@pytest.mark.parametrize(
    ("opset", "proto", "more", "expected"),
    [
        (6, node("PRelu", "x s"), {"s": C6}, lambda x, s: np.where(x < 0, x * s[:, None, None], x)),
        (6, node("PRelu", "x s"), {"s": V3[:1]}, lambda x, s: np.where(x < 0, x * s, x)),
        (6, node("Upsample", height_scale=2.0, width_scale=3.0), {}, lambda x: x.repeat(2, 2).repeat(3, 3)),
        (6, node("Dropout", is_test=1), {}, lambda x: x),
        (4, node("Reshape", shape=[2, -1]), {}, lambda x: x.reshape(2, -1)),
        (5, node("Cast", to="INT32"), {}, lambda x: x.astype(np.int32)),
        (7, node("Crop", border=[1, 0, 2, 1]), {}, lambda x: x[:, :, :-1, 1:-2]),
        (7, node("Crop", border=[1, 1, 0, 0], scale=[2, 3]), {}, lambda x: x[:, :, 1:3, 1:4]),
        (
            7,
            node("ImageScaler", scale=2.0, bias=[1.0, 2, 3, 4, 5, 6]),
            {},
            lambda x: x * 2 + np.arange(1, 7, dtype=np.float32)[:, None, None],
        ),
        (7, node("Affine", alpha=2.0, beta=0.5), {}, lambda x: x * 2 + np.float32(0.5)),
        (
            7,
            node("BatchNormalization", "x s b m v", spatial=0),
            {k: np.linspace(1, 2, 120, dtype=np.float32).reshape(6, 4, 5) * i for i, k in enumerate("sbmv", 1)},
            lambda x, s, b, m, v: (x - m) / np.sqrt(v + 1e-5) * s + b,
        ),
        (
            13,
            node("LRN", size=4, alpha=0.5, beta=0.6, bias=2.0),
            {},
            lambda x: np.stack(
                [
                    x[:, c] / (2 + 0.125 * np.square(x[:, max(0, c - 1) : c + 3]).sum(1)) ** np.float32(0.6)
                    for c in range(6)
                ],
                1,
            ),
        ),
        (
            18,
            node("GroupNormalization", "x s b", num_groups=3),
            {"s": V3, "b": V3 + 1},
            lambda x, s, b: (
                ((g := x.reshape(2, 3, -1)) - g.mean(-1, keepdims=True))
                / np.sqrt(g.var(-1, keepdims=True) + 1e-5)
                * s[:, None]
                + b[:, None]
            ).reshape(x.shape),
        ),
    ],
    ids=lambda v: f"{v.op_type}" if isinstance(v, onnx.NodeProto) else "",
)
def test_forms_that_onnxruntime_lacks(
    opset: int, proto: onnx.NodeProto, more: Arrays, expected: Callable[..., np.ndarray]
) -> None:
    got = interpret(read(model_of([proto], X, constants=more, opset=opset)), X)["y"]
    np.testing.assert_allclose(got, expected(X["x"], *more.values()), rtol=2e-5, atol=1e-5)
    assert got.dtype == expected(X["x"], *more.values()).dtype


def test_a_group_norm_of_opset_18_with_any_number_of_channels() -> None:
    model = model_of([node("GroupNormalization", "x s b", num_groups=3)], X, constants={"s": V3, "b": V3 + 1}, opset=18)
    want = interpret(read(model), X)["y"]
    for dim in model.graph.input[0].type.tensor_type.shape.dim:
        dim.Clear()
    np.testing.assert_array_equal(interpret(read(model), X)["y"], want)


def test_a_resize_of_opset_11_is_told_its_zero_length_inputs_at_run_time() -> None:
    feeds = {**X, "roi": np.zeros(0, np.float32), "scales": np.zeros(0, np.float32), "sizes": np.int64([2, 6, 7, 3])}
    model = model_of([node("Resize", "x roi scales sizes", mode="linear")], feeds, opset=11)
    want = sc.load(model).run(feeds)["y"]
    assert want.shape == (2, 6, 7, 3)
    for value in model.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            dim.Clear()
    np.testing.assert_array_equal(sc.load(model).run(feeds)["y"], want)


def test_batch_norm_with_statistics_nobody_reads_is_inference() -> None:
    proto = node("BatchNormalization", "x s b m v", "y mean var saved_mean saved_var")
    graph = read(model_of([proto], X, constants=STATISTICS, opset=7))
    assert graph.nodes[0].outputs == ("y",)
    assert not graph.nodes[0].attrs.get("training_mode")


def test_new_values_have_readable_unique_names() -> None:
    nodes = [node("Clip", min=0.0), helper.make_node("Clip", ["y"], ["z"], name="the_clip", min=0.5)]
    graph = read(model_of(nodes, X, ["z"], constants={"the_clip_min": V3}, opset=6))
    assert set(graph.constants) == {"the_clip_min_1", "the_clip_min_2"}
