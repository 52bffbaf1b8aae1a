"""The operators that move, make or resample elements: ONNX's own cases and newest forms, symbols, refusals."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
import onnx
import pytest

from sigconv.errors import ModelError
from sigconv.ops import cast, generate, movement, resize, sampling, select, shape, spectral
from sigconv.ops.spec import REGISTRY, Fact
from tests.cases.operator_checks import BIG, check_inference, f32, i64, infer, spec_of

ROOMS = (cast, generate, movement, resize, sampling, select, shape, spectral)
OURS = sorted({s.name for s in REGISTRY.values() if s.reference.__module__ in {room.__name__ for room in ROOMS}})


# --- ONNX's own cases -------------------------------------------------------------------------------------------------

OLD_FORMS = {
    *(f"test_dft{part}_opset19" for part in ("", "_axis", "_inverse", "_rfft", "_irfft")),  # axis as attribute
    "test_dropout_random_old",  # ratio as attribute
}
"""Cases of older operator versions: the reader rewrites such nodes before they reach the registry."""


@functools.cache
def node_cases() -> dict[str, list[Any]]:
    """ONNX's one-node test cases by op."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some cases overflow on purpose while they are generated
        cases = load_model_tests(kind="node")
    found: dict[str, list[Any]] = {}
    for case in cases:
        nodes = case.model.graph.node
        if len(nodes) == 1 and not nodes[0].domain and case.name not in OLD_FORMS:
            found.setdefault(nodes[0].op_type, []).append(case)
    return found


def array_of(value: Any) -> np.ndarray:
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


def attribute_of(proto: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(proto)
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    return value.decode() if isinstance(value, bytes) else value


@pytest.mark.parametrize("op", OURS)
def test_onnx_node_cases(op):
    cases = node_cases().get(op, [])
    assert cases, f"ONNX has no case of {op}"
    for case in cases:
        (node,) = case.model.graph.node
        attrs = {a.name: attribute_of(a) for a in node.attribute}
        for feeds, results in case.data_sets:
            by_name = dict(zip((v.name for v in case.model.graph.input), map(array_of, feeds), strict=True))
            inputs = [by_name[name] if name else None for name in node.input]
            outputs = spec_of(op).evaluate(inputs, attrs, len(node.output))
            check_inference(op, inputs, attrs, outputs)
            named = [y for y, name in zip(outputs, node.output, strict=True) if name]
            for y, expected in zip(named, map(array_of, results), strict=True):
                assert (y.dtype, y.shape) == (expected.dtype, expected.shape), case.name
                if y.dtype.kind in "fcV":
                    y, expected = (v.astype(np.float64) for v in (y, expected))
                np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-7, err_msg=case.name)


# --- Inference with symbols, and refusals -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "have, target, expected",
    [
        (("N", 3, 8, 8), [0, -1], ("N", 192)),
        (("N", 3, 8, 8), [-1, 192], ("N", 192)),
        (("N", 4, "H", "W"), [0, 2, 2, 0, 0], None),
        (("N", 4, "H", "W"), [0, 4, -1], ("N", 4, None)),
        (("N", 4, 5), [-1, 10], (None, 10)),
        (("N", "T", 6), [0, 0, 2, 3], ("N", "T", 2, 3)),
        ((None, 6), [0, 2, -1], (None, 2, 3)),
        ((None, 6), [-1, 3], (None, 3)),
        ((0, 3, 4), [0, -1], (0, 12)),
        ((2, 3), [3, 2], (3, 2)),
        (("N", 2), [2, 2], (2, 2)),
    ],
)
def test_reshape_with_symbols(have, target, expected):
    if expected is None:
        with pytest.raises(ModelError, match="copies a size"):
            shape.resolve_reshape(have, target)
    else:
        assert shape.resolve_reshape(have, target) == expected


def test_symbols_flow_through():
    x = Fact(np.dtype(np.float32), ("N", 3, "H", 8))
    assert infer("Transpose", x, perm=[0, 2, 3, 1])[0].shape == ("N", "H", 8, 3)
    assert infer("Concat", x, x, axis=1)[0].shape == ("N", 6, "H", 8)
    assert infer("Slice", x, *map(Fact.of, (i64(0, 1), i64(BIG, 4), i64(2, 3))))[0].shape == ("N", 3, "H", 3)
    assert infer("Pad", x, Fact.of(i64(0, 0, 0, 1, 0, 0, 0, 1)))[0].shape == ("N", 3, "H", 10)
    assert infer("Gather", x, Fact.of(np.array(0)), axis=1)[0].shape == ("N", "H", 8)
    assert [f.shape for f in infer("Split", x, axis=3, n=3)] == [("N", 3, "H", 3)] * 2 + [("N", 3, "H", 2)]
    assert infer("Resize", x, None, Fact.of(np.array([1, 1, 2, 2], np.float32)))[0].shape == ("N", 3, None, 16)
    assert infer("Unsqueeze", x, Fact.of(i64(0)))[0].shape == (1, "N", 3, "H", 8)
    assert infer("Flatten", x)[0].shape == ("N", None)
    assert infer("Expand", Fact(x.dtype, ("N", 1)), Fact.of(i64(1, 4)))[0].shape == ("N", 4)
    assert infer("Tile", x, Fact.of(i64(1, 2, 1, 1)))[0].shape == ("N", 6, "H", 8)
    assert infer("Compress", x, Fact(np.dtype(bool), (3,)), axis=1)[0].shape == ("N", None, "H", 8)


def test_shape_gives_its_value_where_the_sizes_are_known():
    x = Fact(np.dtype(np.float32), ("N", 3, "H", 8))
    assert infer("Shape", x)[0] == Fact(np.dtype(np.int64), (4,))
    (last,) = infer("Shape", x, start=-1)
    assert last.value is not None
    assert last.value.tolist() == [8]
    assert infer("Size", x)[0].value is None
    assert infer("Size", Fact(x.dtype, ("N", 0)))[0].value == 0


def test_inference_allocates_nothing_of_the_claimed_size():
    """Each of these would take terabytes to evaluate."""
    huge = i64(1 << 20, 1 << 20)
    one = Fact(np.dtype(np.float32), (1, 1))
    assert infer("ConstantOfShape", Fact.of(huge))[0].shape == (1 << 20, 1 << 20)
    assert infer("Expand", one, Fact.of(huge))[0].shape == (1 << 20, 1 << 20)
    assert infer("Tile", one, Fact.of(huge))[0].shape == (1 << 20, 1 << 20)
    assert infer("Pad", one, Fact.of(np.concatenate([huge, huge])))[0].shape == (2**21 + 1, 2**21 + 1)
    assert infer("Resize", one, None, None, Fact.of(huge))[0].shape == (1 << 20, 1 << 20)
    bounds = (Fact.of(np.array(v, np.int64)) for v in (0, 1 << 40, 1))
    assert infer("Range", *bounds)[0].shape == (1 << 40,)


F32 = np.dtype(np.float32)
REFUSED = [
    ("Reshape", [Fact(F32, (2, 3)), Fact.of(i64(4, -1))], {}, r"\(2, 3\) cannot be reshaped to \(4, -1\)"),
    ("Reshape", [Fact(F32, (2, 3)), Fact.of(i64(7))], {}, r"\(2, 3\) cannot be reshaped to \(7,\)"),
    ("Reshape", [Fact(F32, ("N", 4)), Fact.of(i64(3, 3))], {}, "not a multiple of 4"),
    ("Reshape", [Fact(F32, (2, 3)), Fact.of(i64(-1, -1))], {}, "save for one -1"),
    ("Reshape", [Fact(F32, (0, 3)), Fact.of(i64(0, -1))], {"allowzero": 1}, "any size"),
    ("Reshape", [Fact(F32, (2, 3)), Fact.of(np.ones(1, np.float32))], {}, "shape has dtype float32"),
    ("Flatten", [Fact(F32, (2, 3))], {"axis": 3}, "axis 3"),
    ("Squeeze", [Fact(F32, (2, 3)), Fact.of(i64(1))], {}, "size is 3, not 1"),
    ("Unsqueeze", [Fact(F32, (2,)), Fact.of(i64(0, 0))], {}, "twice"),
    ("Expand", [Fact(F32, (2, 3)), Fact.of(i64(2, 4))], {}, "do not broadcast"),
    ("Expand", [Fact(F32, (2, 3)), Fact.of(i64(-1, 3))], {}, "must not be negative"),
    ("Transpose", [Fact(F32, (2, 3))], {"perm": [0, 0]}, "each of the 2 axes once"),
    ("Concat", [Fact(F32, (2, 3)), Fact(F32, (2, 4, 1))], {"axis": 0}, "one rank"),
    ("Concat", [Fact(F32, (2, 3)), Fact(F32, (2, 4))], {"axis": 0}, "must agree, but are 3 and 4"),
    ("Concat", [Fact(F32, (2,)), Fact(np.dtype(np.int64), (2,))], {"axis": 0}, "one dtype"),
    ("Split", [Fact(F32, (5,)), Fact.of(i64(2))], {}, "add up to 5"),
    ("Split", [Fact(F32, (5,))], {"num_outputs": 2}, "num_outputs is 2"),
    ("Slice", [Fact(F32, (5,)), *map(Fact.of, (i64(0), i64(1), i64(0), i64(0)))], {}, "step 0"),
    ("Slice", [Fact(F32, (5,)), *map(Fact.of, (i64(0, 1), i64(1)))], {}, "one length"),
    ("Pad", [Fact(F32, (5,)), Fact.of(i64(-3, -3))], {}, r"size 5 cannot be padded by \(-3, -3\)"),
    ("Pad", [Fact(F32, (0,)), Fact.of(i64(1, 0))], {"mode": "edge"}, "size 0 cannot be padded"),
    ("Pad", [Fact(F32, (5,)), Fact.of(i64(1))], {}, "a before and an after"),
    ("Pad", [Fact(F32, (5,)), Fact.of(i64(1, 1))], {"mode": "symmetric"}, "'symmetric'; accepted are 'constant'"),
    ("Tile", [Fact(F32, (2, 3)), Fact.of(i64(2))], {}, "one number for each axis"),
    ("DepthToSpace", [Fact(F32, (1, 6, 2, 2))], {"blocksize": 2}, "6, which is not a multiple of 4"),
    ("SpaceToDepth", [Fact(F32, (1, 6, 3, 2))], {"blocksize": 2}, "height"),
    ("Gather", [Fact(F32, (2, 3)), Fact.of(i64(3))], {"axis": 1}, r"index 3 is outside \[-3, 2\]"),
    ("Gather", [Fact(F32, ()), Fact.of(i64(0))], {}, "rank 1 or more"),
    ("GatherND", [Fact(F32, (2, 3)), Fact(np.dtype(np.int64), (4, 3))], {}, "name 3 axes"),
    ("ScatterND", [Fact(F32, (2, 3)), Fact(np.dtype(np.int64), (4, 1)), Fact(F32, (4, 2))], {}, r"shape \(4, 3\)"),
    ("TopK", [Fact(F32, (5,)), Fact.of(i64(6))], {}, "K is 6; accepted is 0 to 5"),
    ("Where", [Fact(F32, (5,)), Fact(F32, (5,)), Fact(F32, (5,))], {}, "condition has dtype float32"),
    ("Range", [Fact.of(np.array(v)) for v in (0, 5, 0)], {}, "never ends"),
    ("Range", [Fact.of(np.array(v)) for v in (0.0, np.inf, 1.0)], {}, "no finite length"),
    ("ConstantOfShape", [Fact.of(i64(2, -1))], {}, "must not be negative"),
    ("Resize", [Fact(F32, (1, 4))], {}, "none are"),
    ("Resize", [Fact(F32, (1, 4)), None, Fact.of(np.ones(2, np.float32)), Fact.of(i64(1, 4))], {}, "both are"),
    ("Resize", [Fact(F32, (1, 4)), None, Fact.of(np.ones(1, np.float32))], {}, "one number for each"),
    ("Resize", [Fact(F32, (1, 4)), None, Fact.of(np.array([1, 0], np.float32))], {}, "must be positive"),
    ("Resize", [Fact(F32, (1, 4)), None, None, Fact.of(i64(1, 2))], {"mode": "area"}, "'area'; accepted are 'nearest'"),
    ("Resize", [Fact(F32, (1, 0)), None, None, Fact.of(i64(1, 2))], {}, "an empty axis 1"),
    ("Einsum", [Fact(F32, (1, 4)), Fact(F32, (3, 2))], {"equation": "ij,jk"}, "'j'"),
    ("Einsum", [Fact(F32, (1, 4))], {"equation": "ij->k"}, "output label k"),
]


@pytest.mark.parametrize("op, facts, attrs, message", REFUSED)
def test_impossible_inputs_are_refused(op, facts, attrs, message):
    with pytest.raises(ModelError, match=message):
        infer(op, *facts, **attrs)


@pytest.mark.parametrize(
    "op, inputs, attrs",
    [
        ("Gather", [f32(2, 3, 5, 7), i64(5)], {"axis": 1}),
        ("GatherElements", [f32(2, 2), i64([2, 0])], {}),
        ("GatherND", [f32(2, 2), i64([-3])], {}),
        ("ScatterND", [f32(2, 2), i64([2]), f32(1, 2)], {}),
    ],
)
def test_indices_that_only_a_run_knows_are_checked(op, inputs, attrs):
    with pytest.raises(ModelError, match="is outside"):
        spec_of(op).evaluate(inputs, attrs)


def test_every_operator_has_the_newest_form():
    """``since`` is ONNX's newest version, and our parameters are its inputs and attributes."""
    missing = {"Constant": {"sparse_value", "value_string", "value_strings"}}  # tensors we do not hold
    for op in OURS:
        spec, schema = spec_of(op), onnx.defs.get_schema(op)
        assert spec.since == schema.since_version, op
        assert set(spec.defaults) == set(schema.attributes) - missing.get(op, set()), op
        assert spec.min_inputs == sum(
            i.option == onnx.defs.OpSchema.FormalParameterOption.Single for i in schema.inputs
        ), op
        assert spec.max_inputs in (None, len(schema.inputs)), op
