"""The operators that move, pick, make, order or cast elements: against onnxruntime and NumPy."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest

from sigconv.errors import ModelError, UnsupportedError
from sigconv.ops import cast, movement
from sigconv.ops.spec import Fact
from tests.cases.onnx_nodes import run_ort
from tests.cases.operator_checks import BIG, RNG, check, check_inference, f32, i64, spec_of

X4 = f32(2, 3, 5, 7)
EMPTY = f32(0, 3, 4)
SCALAR = np.array(3.5, np.float32)

SHAPE_CASES = [
    ("Reshape", [X4, i64(0, -1)], {}),
    ("Reshape", [X4, i64(6, 5, -1, 1)], {}),
    ("Reshape", [X4, i64(210)], {}),
    ("Reshape", [SCALAR, i64(1, 1)], {}),
    ("Reshape", [f32(1, 1), np.zeros(0, np.int64)], {}),
    ("Reshape", [EMPTY, i64(0, 12)], {}),
    ("Reshape", [EMPTY, i64(3, 0, 9)], {"allowzero": 1}),
    *(("Flatten", [X4], {"axis": axis}) for axis in range(-4, 5)),
    ("Flatten", [EMPTY], {}),
    ("Squeeze", [f32(1, 3, 1, 2)], {}),
    ("Squeeze", [f32(1, 3, 1, 2), i64(-2)], {}),
    ("Squeeze", [f32(1, 1), i64(0, 1)], {}),
    ("Unsqueeze", [X4, i64(-1, 0)], {}),
    ("Unsqueeze", [SCALAR, i64(0)], {}),
    ("Expand", [f32(3, 1), i64(2, 1, 6)], {}),
    ("Expand", [f32(3, 4), i64(1, 1)], {}),
    ("Expand", [f32(1, 3), i64(0, 3)], {}),
    ("Shape", [X4], {}),
    ("Shape", [X4], {"start": -3, "end": 3}),
    ("Shape", [X4], {"start": 2, "end": 1}),
    ("Shape", [X4], {"start": -9, "end": 9}),
    ("Shape", [SCALAR], {}),
    ("Size", [X4], {}),
    ("Size", [EMPTY], {}),
    ("Identity", [X4], {}),
    ("Transpose", [X4], {}),
    ("Transpose", [X4], {"perm": [2, 0, 3, 1]}),
    ("Transpose", [SCALAR], {}),
    ("Transpose", [EMPTY], {"perm": [1, 0, 2]}),
    ("Tile", [X4, i64(1, 2, 1, 3)], {}),
    ("Tile", [X4, i64(1, 0, 1, 1)], {}),
    ("Concat", [X4], {"axis": 1}),
    ("Concat", [f32(2, 3, 4), f32(2, 0, 4), f32(2, 5, 4)], {"axis": -2}),
    ("Concat", [i64(1, 2), i64(3)], {"axis": 0}),
    ("DepthToSpace", [f32(2, 12, 3, 5)], {"blocksize": 2}),
    ("DepthToSpace", [f32(2, 18, 3, 5)], {"blocksize": 3, "mode": "CRD"}),
    ("SpaceToDepth", [f32(2, 3, 4, 6)], {"blocksize": 2}),
    ("CenterCropPad", [X4, i64(8, 2)], {"axes": [2, 3]}),
    ("CenterCropPad", [f32(4, 7), i64(7, 4)], {}),
    ("ReverseSequence", [f32(4, 3, 2), i64(4, 1, 3)], {}),
    ("ReverseSequence", [f32(3, 4), i64(4, 1, 2)], {"batch_axis": 0, "time_axis": 1}),
    *(("Trilu", [f32(2, 4, 5), np.array(k, np.int64)], {"upper": upper}) for k in (-2, 0, 6) for upper in (0, 1)),
    ("Trilu", [f32(3, 3)], {}),
]
PICK_CASES = [
    *(("Gather", [X4, i64(0, -1, 1)], {"axis": axis}) for axis in range(-4, 4)),
    ("Gather", [X4, np.array(-2, np.int32)], {"axis": 3}),
    ("Gather", [X4, i64([0, 1], [2, 0])], {"axis": 1}),
    ("Gather", [X4, np.zeros((0, 2), np.int64)], {"axis": 1}),
    ("GatherElements", [f32(3, 4), i64([0, -1, 2, 1], [1, 1, 0, 0])], {"axis": 0}),
    ("GatherElements", [f32(3, 4), i64([0, -1], [3, 1], [0, 0])], {"axis": -1}),
    ("GatherND", [f32(2, 3, 4), i64([0, 1], [1, -1])], {}),
    ("GatherND", [f32(2, 3, 4), i64([[2, 0]], [[0, 3]])], {"batch_dims": 1}),
    ("GatherND", [f32(2, 3, 4, 2), i64([[[1]], [[0]], [[2]]], [[[1]], [[0]], [[2]]])], {"batch_dims": 2}),
    *(
        ("ScatterElements", [f32(3, 4), i64([0, -1, 2], [1, 1, 0]), f32(2, 3)], {"axis": 1, "reduction": r})
        for r in ("add", "mul", "max", "min")
    ),
    ("ScatterElements", [f32(3, 4), i64([0, -1, 2]), f32(1, 3)], {"axis": 1}),
    *(
        ("ScatterND", [f32(4, 3), i64([0], [-1], [0]), f32(3, 3)], {"reduction": r})
        for r in ("add", "mul", "max", "min")
    ),
    ("ScatterND", [f32(4, 3), i64([0, 1], [3, -1]), f32(2)], {}),
    ("Where", [RNG.random((3, 1, 4)) < 0.5, f32(2, 1), f32(4)], {}),
    ("Where", [np.array(True), i64(1, 2), i64(3, 4)], {}),
    ("Compress", [f32(3, 4), np.array([True, False, True])], {"axis": 1}),
    ("Compress", [f32(3, 4), RNG.random(12) < 0.5], {}),
    ("NonZero", [RNG.integers(-1, 2, (3, 4, 2))], {}),
    ("NonZero", [np.array(2.0, np.float32)], {}),
    ("NonZero", [EMPTY], {}),
    ("OneHot", [i64([0, -1], [7, 3]), np.array(4, np.int64), f32(2)], {}),
    ("OneHot", [i64(0, 2), i64(3), i64(5, 9)], {"axis": 0}),
    ("EyeLike", [f32(3, 5)], {"k": 1}),
    ("EyeLike", [f32(4, 2)], {"k": -1, "dtype": 7}),
    ("Range", [np.array(v, np.int64) for v in (3, 20, 4)], {}),
    ("Range", [np.array(v, np.int32) for v in (3, -8, -3)], {}),
    ("Range", [np.array(v, np.int64) for v in (3, 0, 4)], {}),
    ("Range", [np.array(v, np.float32) for v in (0.5, 2.0, 0.25)], {}),
    ("ConstantOfShape", [i64(2, 0, 3)], {}),
    ("ConstantOfShape", [np.zeros(0, np.int64)], {}),
]


@pytest.mark.parametrize("op, inputs, attrs", SHAPE_CASES + PICK_CASES)
def test_equals_onnxruntime(op, inputs, attrs):
    check(op, inputs, attrs)


@pytest.mark.parametrize("dtype", ["float16", "float64", "int8", "uint8", "int32", "bool"])
def test_movement_keeps_any_dtype(dtype):
    x = RNG.integers(0, 2, (2, 4, 4, 6)).astype(dtype)
    for op, rest, attrs in (
        ("Concat", [x], {"axis": 2}),
        ("Transpose", [], {"perm": [0, 2, 3, 1]}),
        ("Slice", [i64(1), i64(BIG), i64(3), i64(2)], {}),
        ("Gather", [i64(1, 0)], {"axis": 1}),
    ):
        check(op, [x, *rest], attrs)


def test_dropout_at_inference_is_the_identity_with_a_full_mask():
    check("Dropout", [X4, np.array(0.3, np.float32)], {}, n_outputs=2)
    check("Dropout", [X4], {})


def test_constant_takes_exactly_one_value():
    spec = spec_of("Constant")
    for attrs, expected in (
        ({"value": X4}, X4),
        ({"value_int": 3}, np.array(3, np.int64)),
        ({"value_ints": [3, 4]}, i64(3, 4)),
        ({"value_float": 0.5}, np.array(0.5, np.float32)),
        ({"value_floats": [0.5, 2]}, np.array([0.5, 2], np.float32)),
    ):
        (y,) = spec.evaluate([], attrs)
        assert y.dtype == expected.dtype
        np.testing.assert_array_equal(y, expected)
        check_inference("Constant", [], attrs, [y])
    for attrs in ({}, {"value_int": 1, "value_float": 1.0}):
        with pytest.raises(ModelError, match="exactly one value"):
            spec.evaluate([], attrs)


def test_constant_of_shape_has_the_dtype_of_its_value():
    (y,) = spec_of("ConstantOfShape").evaluate([i64(2, 3)], {"value": np.array([7], np.int32)})
    np.testing.assert_array_equal(y, np.full((2, 3), 7, np.int32), strict=True)


# --- Split, Slice, Pad ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sizes, attrs, n",
    [
        (None, {"num_outputs": 3, "axis": 3}, 3),  # 7 = 3 + 3 + 1
        (None, {"num_outputs": 1, "axis": 1}, 1),
        (i64(1, 0, 2), {"axis": 1}, 3),
        (i64(4, 1), {"axis": -2}, 2),
    ],
)
def test_split(sizes, attrs, n):
    check("Split", [X4] if sizes is None else [X4, sizes], attrs, n)


@pytest.mark.parametrize(
    "starts, ends, axes, steps",
    [
        ([1], [3], [1], None),
        ([0, 1], [BIG, -1], None, None),
        ([-1], [-BIG], [3], [-2]),
        ([BIG], [-BIG - 1], [2], [-1]),
        ([-100], [-BIG], [2], [-1]),
        ([4], [1], [2], [1]),
        ([100], [200], [2], [1]),
        ([5, 0], [1, 3], [3, 0], [-3, 2]),
        ([2], [-100], [-2], [-1]),
    ],
)
@pytest.mark.parametrize("dtype", [np.int64, np.int32])
def test_slice(starts, ends, axes, steps, dtype):
    if dtype == np.int32:
        starts, ends = (np.clip(v, -(2**31), 2**31 - 1) for v in (starts, ends))
    vectors = [None if v is None else np.array(v, dtype) for v in (starts, ends, axes, steps)]
    check("Slice", [X4, *vectors], {})


def test_slice_ranges_equal_onnxruntime_on_all_small_bounds():
    for size, step in itertools.product((1, 4), (-3, -1, 1, 2)):
        x = np.arange(size, dtype=np.int32)
        # Going backward, onnxruntime reads an end of BIG as -BIG; by ONNX's rule such a slice is empty.
        for start, end in itertools.product(range(-6, 7, 2), (-BIG, -5, -1, 0, 3, BIG if step > 0 else 2)):
            ((first, by, count),) = movement.slice_ranges((size,), [start], [end], [0], [step])
            (expected,) = run_ort("Slice", [x, i64(start), i64(end), i64(0), i64(step)])
            assert [first + by * i for i in range(count)] == expected.tolist(), (size, start, end, step)


@pytest.mark.parametrize("mode", movement.PAD_MODES)
@pytest.mark.parametrize("size", [1, 2, 5])
def test_pad_indices_are_numpys(mode, size):
    x = np.arange(size) + 10
    for before, after in itertools.product(range(8), repeat=2):
        index = movement.pad_indices(size, before, after, mode)
        expected = np.pad(x, (before, after), mode)  # 0 is the fill value
        np.testing.assert_array_equal(np.where(index < 0, 0, x[index]), expected)


@pytest.mark.parametrize("mode", movement.PAD_MODES)
@pytest.mark.parametrize(
    "pads, axes",
    [([0, 0, 2, 1, 0, 0, 1, 3], None), ([2, 0], [3]), ([1, 2, 0, 1], [-1, 2]), ([0, 0, -1, 2, 0, 0, 2, -3], None)],
)
def test_pad(mode, pads, axes):
    fill = np.array(2.5, np.float32) if mode == "constant" else None
    check("Pad", [X4, i64(*pads), fill, None if axes is None else i64(*axes)], {"mode": mode})


def test_pad_crops_before_it_continues():
    check("Pad", [np.arange(6, dtype=np.float32), i64(-2, 3)], {"mode": "reflect"})
    np.testing.assert_array_equal(movement.pad_indices(6, -2, 3, "reflect"), [2, 3, 4, 5, 4, 3, 2])


def test_pad_of_empty_axes():
    check("Pad", [EMPTY, i64(1, 0, 0, 2, 0, 0), np.array(4, np.float32)], {})
    check("Pad", [EMPTY, i64(0, 1, 1, 0, 1, 0)], {"mode": "edge"})


# --- Cast -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["float32", "float16", "float64", "int64", "int8", "uint8", "bool", "bfloat16"])
@pytest.mark.parametrize("to", [1, 2, 3, 5, 6, 7, 9, 10, 11, 12, 16])
def test_cast(source, to):
    values = np.array([0, 1, 2, 3.7, 100, 17.5], np.float32)
    dtype = cast.element_dtype(16) if source == "bfloat16" else np.dtype(source)
    x = values.astype(dtype)
    (y,) = spec_of("Cast").evaluate([x], {"to": to})
    check_inference("Cast", [x], {"to": to}, [y])
    (like,) = spec_of("CastLike").evaluate([x, np.zeros(1, cast.element_dtype(to))], {})
    np.testing.assert_array_equal(like, y, strict=True)
    if source == "bfloat16" or to == 16:
        wide = x.astype(np.float32).astype(cast.element_dtype(to))
        np.testing.assert_array_equal(y.astype(np.float32), wide.astype(np.float32))
    else:
        (expected,) = run_ort("Cast", [x], {"to": to})
        np.testing.assert_array_equal(y, expected, strict=True)


def test_cast_wraps_integers_and_overflows_floats():
    evaluate = spec_of("Cast").evaluate
    assert evaluate([np.array([200, -129], np.int16)], {"to": 3})[0].tolist() == [-56, 127]
    assert evaluate([np.array([1e6, -1e6, np.nan], np.float32)], {"to": 10})[0].tolist()[:2] == [np.inf, -np.inf]


def test_cast_refuses_strings():
    with pytest.raises(UnsupportedError, match="string"):
        spec_of("Cast").infer([Fact.of(X4)], {"to": 8, "saturate": 1, "round_mode": "up"}, 1)
    with pytest.raises(ModelError, match="element type 99"):
        spec_of("Cast").evaluate([X4], {"to": 99})


def test_element_types_are_onnxs():
    for code, name in cast.ELEMENT_TYPES.items():
        assert onnx.helper.tensor_dtype_to_np_dtype(code) == cast.element_dtype(code), name


# --- Ordering ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_topk_with_ties(largest, axis, dtype):
    x = RNG.integers(0, 4, (4, 5, 6)).astype(dtype)
    check("TopK", [x, i64(3)], {"axis": axis, "largest": largest}, 2)


@pytest.mark.parametrize("exclusive, reverse", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_cumsum(exclusive, reverse):
    for x in (f32(3, 4, 5), RNG.integers(-9, 9, (3, 4, 5)).astype(np.int32)):
        check("CumSum", [x, np.array(-2, np.int64)], {"exclusive": exclusive, "reverse": reverse}, tol=1e-6)


@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("in_order", [0, 1])
def test_unique(axis, in_order):
    x = RNG.integers(0, 2, (6, 3)).astype(np.float32)
    check("Unique", [x], {"sorted": in_order, **({} if axis is None else {"axis": axis})}, 4)


@pytest.mark.parametrize("centred", [0, 1])
def test_non_max_suppression(centred):
    boxes = RNG.random((2, 40, 4)).astype(np.float32)
    scores = RNG.random((2, 3, 40)).astype(np.float32)
    thresholds = [np.array([v], np.float32) for v in (0.3, 0.2)]
    check("NonMaxSuppression", [boxes, scores, i64(9), *thresholds], {"center_point_box": centred})
    check("NonMaxSuppression", [boxes, scores, i64(5)], {"center_point_box": centred})
    check("NonMaxSuppression", [boxes, scores], {})
