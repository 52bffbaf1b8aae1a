"""The operators that move, pick, make or resample elements: against onnxruntime, NumPy and ONNX's own node cases."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest

from sigconv.errors import ModelError, UnsupportedError
from sigconv.ops import cast, generate, movement, resize, sampling, select, shape, spectral
from sigconv.ops.spec import REGISTRY, Fact, OpSpec, lookup
from tests.cases.onnx_nodes import run_ort

ROOMS = (cast, generate, movement, resize, sampling, select, shape, spectral)
OURS = sorted({s.name for s in REGISTRY.values() if s.reference.__module__ in {room.__name__ for room in ROOMS}})

RNG = np.random.default_rng(20)
BIG = np.iinfo(np.int64).max


def f32(*sizes: int) -> np.ndarray:
    return RNG.standard_normal(sizes).astype(np.float32)


def i64(*values: Any) -> np.ndarray:
    return np.array(values, np.int64)


def spec_of(op: str) -> OpSpec:
    found = lookup(op)
    assert found is not None, op
    return found


def agrees(known: Fact, actual: np.ndarray) -> bool:
    """Whether what was inferred is true of the tensor that came out."""
    if known.dtype is not None and known.dtype != actual.dtype:
        return False
    if known.value is not None and not np.array_equal(known.value, actual):
        return False
    if known.shape is None:
        return True
    pairs = zip(known.shape, actual.shape, strict=False)
    return len(known.shape) == actual.ndim and all(not isinstance(k, int) or k == a for k, a in pairs)


DATA_DEPENDENT = {"NonZero", "NonMaxSuppression", "Unique"}


def check_inference(
    op: str, inputs: Sequence[np.ndarray | None], attrs: dict[str, Any], outputs: Sequence[np.ndarray]
) -> None:
    """Inference never contradicts evaluation, whatever it is told; told everything, it knows every size."""
    spec = spec_of(op)
    full = spec.attributes(attrs)

    def infer(*facts: Fact | None) -> Sequence[Fact]:
        return spec.infer(facts, full, len(outputs))

    everything = infer(*(None if x is None else Fact.of(x) for x in inputs))
    sizes_only = infer(*(None if x is None else Fact(x.dtype, x.shape) for x in inputs))
    symbols = infer(
        *(
            None if x is None else Fact(x.dtype, tuple(f"s{i}{j}" for j in range(x.ndim)), x if i else None)
            for i, x in enumerate(inputs)
        )
    )
    ranks = infer(*(None if x is None else Fact(x.dtype, (None,) * x.ndim) for x in inputs))
    nothing = infer(*(None if x is None else Fact() for x in inputs))
    for known in (everything, sizes_only, symbols, ranks, nothing):
        assert len(known) == len(outputs)
        assert all(itertools.starmap(agrees, zip(known, outputs, strict=True))), (op, known, [y.shape for y in outputs])
    if op not in DATA_DEPENDENT:
        assert all(k.static and k.dtype is not None for k in everything), (op, everything)


def check(
    op: str,
    inputs: Sequence[np.ndarray | None],
    attrs: dict[str, Any],
    n_outputs: int = 1,
    tol: float = 0.0,
    **ort: Any,
) -> None:
    """Our reference equals onnxruntime's kernel, leaves its inputs alone, and inference agrees with it."""
    spec = spec_of(op)
    before = [None if x is None else x.copy() for x in inputs]
    got = spec.evaluate(inputs, attrs, n_outputs)
    for x, kept in zip(inputs, before, strict=True):
        np.testing.assert_array_equal(x, kept)
    expected = run_ort(op, inputs, attrs, n_outputs, **ort)
    assert len(got) == len(expected) == n_outputs
    for y, e in zip(got, expected, strict=True):
        assert isinstance(y, np.ndarray)
        assert (y.dtype, y.shape) == (e.dtype, e.shape)
        if tol:
            np.testing.assert_allclose(y, e, rtol=tol, atol=tol)
        else:
            np.testing.assert_array_equal(y, e)
    check_inference(op, inputs, attrs, got)


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


# --- Resize -----------------------------------------------------------------------------------------------------------

ORT_COORDINATES = [m for m in resize.COORDINATE_MODES if m != "tf_crop_and_resize"]


@pytest.mark.parametrize("coordinates", ORT_COORDINATES)
@pytest.mark.parametrize("rounding", list(resize.ROUNDING))
def test_nearest_picks_the_elements_that_onnxruntime_picks(coordinates, rounding):
    attrs = {"mode": "nearest", "coordinate_transformation_mode": coordinates, "nearest_mode": rounding}
    x = np.arange(5 * 6, dtype=np.float32).reshape(1, 1, 5, 6)
    for height, width in ((10, 12), (7, 20), (4, 4), (1, 1), (5, 9)):
        check("Resize", [x, None, None, i64(1, 1, height, width)], attrs)


@pytest.mark.parametrize("coordinates", ORT_COORDINATES)
@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("scales", [(2.0, 2.0), (1.7, 0.6), (0.5, 3.0)])
def test_interpolation_equals_onnxruntime(coordinates, mode, scales):
    if coordinates == "align_corners":
        scales = tuple(
            np.round(np.array([9, 7]) * scales) / np.array([9, 7])
        )  # onnxruntime ignores a fractional length
    attrs = {"mode": mode, "coordinate_transformation_mode": coordinates}
    check("Resize", [f32(2, 3, 9, 7), None, np.array([1, 1, *scales], np.float32)], attrs, tol=2e-5)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_options_of_interpolation(mode):
    x = f32(1, 2, 9, 7)
    check("Resize", [x, None, None, i64(1, 2, 4, 3)], {"mode": mode, "antialias": 1, "exclude_outside": 1}, tol=2e-5)
    if mode == "cubic":
        check(
            "Resize",
            [x, None, None, i64(1, 2, 5, 16)],
            {"mode": mode, "exclude_outside": 1, "cubic_coeff_a": -0.5},
            tol=2e-5,
        )
    sizes = {"mode": "linear", "axes": [3, 2]}
    for policy in resize.ASPECT_POLICIES:
        check("Resize", [x, None, None, i64(12, 12)], {**sizes, "keep_aspect_ratio_policy": policy}, tol=2e-5)


def test_crop_and_resize():
    x, region = f32(1, 1, 6, 6), np.array([0, 0, 0.2, -0.31, 1, 1, 0.9, 1.12], np.float32)
    for mode in ("nearest", "linear"):
        attrs = {"mode": mode, "coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 9.0}
        check("Resize", [x, region, None, i64(1, 1, 5, 8)], attrs, tol=2e-5)
    indices, weights = resize.resize_taps(6, 8, 8 / 6, (-0.31, 1.12), "linear", "tf_crop_and_resize")
    outside = indices[:, 0] < 0
    assert outside.any()
    assert (weights[outside] == 0).all()
    np.testing.assert_allclose(weights[~outside].sum(1), 1)


@pytest.mark.parametrize("rank", [1, 2, 3, 5])
def test_resize_of_any_rank(rank):
    sizes = (4, 3, 5, 2, 6)[:rank]
    if rank == 1:  # onnxruntime interpolates from rank 2 on
        x = np.arange(4, dtype=np.float32)
        (y,) = spec_of("Resize").evaluate([x, None, None, i64(8)], {"mode": "linear"})
        np.testing.assert_allclose(y, np.interp((np.arange(8) + 0.5) / 2 - 0.5, np.arange(4), x))
        return
    target = (*sizes[:-2], 7, 5)
    check("Resize", [f32(*sizes), None, None, i64(*target)], {"mode": "linear"}, tol=2e-5)


def test_resize_of_integers_and_empty_tensors():
    evaluate = spec_of("Resize").evaluate
    x = np.array([[0, 255]], np.uint8)
    (y,) = evaluate([x, None, None, i64(1, 4)], {"mode": "cubic"})
    assert y.dtype == np.uint8
    assert y[0, 0] == 0  # cubic undershoots below 0: clamped, not wrapped to 250
    assert y[0, 3] == 255
    (empty,) = evaluate([f32(0, 3, 4, 4), None, np.array([1, 1, 2, 2], np.float32)], {"mode": "linear"})
    assert empty.shape == (0, 3, 8, 8)
    (none,) = evaluate([f32(1, 3, 4, 4), None, None, i64(1, 3, 0, 4)], {"mode": "nearest"})
    assert none.shape == (1, 3, 0, 4)


def test_half_pixel_symmetric_has_no_offset_where_the_length_is_whole():
    """onnxruntime multiplies 9 by float32(1/3), gets a little more than 3, and floors 1 and 4 to 0 and 3."""
    attrs = {"coordinate_transformation_mode": "half_pixel_symmetric", "nearest_mode": "floor"}
    (y,) = spec_of("Resize").evaluate([np.arange(9), None, None, i64(3)], attrs)
    assert y.tolist() == [1, 4, 7]


def test_output_sizes_round_in_single_precision():
    """0.7 as float32 is less than 0.7: only in float32 does 10 x 0.7 reach 7."""
    (step,) = resize.resize_axes((10,), [float(np.float32(0.7))], None)
    assert step.output == 7


# --- Sampling and spectra ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
@pytest.mark.parametrize("padding", sampling.PADDING_MODES)
@pytest.mark.parametrize("corners", [0, 1])
def test_grid_sample(mode, padding, corners):
    points = (RNG.random((2, 4, 5, 2)) * 3 - 1.5).astype(np.float32)
    attrs = {"mode": mode, "padding_mode": padding, "align_corners": corners}
    check("GridSample", [f32(2, 3, 6, 7), points], attrs, tol=2e-4)


@pytest.mark.parametrize("corners", [0, 1])
def test_affine_grid(corners):
    check("AffineGrid", [f32(2, 2, 3), i64(2, 3, 5, 4)], {"align_corners": corners}, tol=1e-5)
    check("AffineGrid", [f32(1, 3, 4), i64(1, 2, 3, 5, 4)], {"align_corners": corners}, tol=1e-5)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_align(mode, ratio):
    corners = RNG.random((6, 2)) * 8
    rois = np.concatenate([corners, corners + RNG.random((6, 2)) * 9], 1).astype(np.float32)
    attrs = {"mode": mode, "output_height": 3, "output_width": 2, "sampling_ratio": ratio, "spatial_scale": 0.5}
    check("RoiAlign", [f32(2, 3, 8, 9), rois, RNG.integers(0, 2, 6)], attrs, tol=1e-5, opset=16)


def test_max_unpool():
    x = f32(1, 1, 4, 6)
    pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
    y, where = run_ort("MaxPool", [x], pool, 2)
    check("MaxUnpool", [y, where], pool)


def test_col2im():
    attrs = {"strides": [2, 1], "pads": [1, 0, 0, 1], "dilations": [1, 2]}
    columns = 3 * 5  # (7 + 1 - 2) / 2 + 1 = 4 rows would need 7; here 6 + 1 rows give 3, and 7 + 1 - 3 give 5
    check("Col2Im", [f32(2, 3 * 4, columns), i64(6, 6), i64(2, 2)], attrs, tol=1e-5)


@pytest.mark.parametrize("name", list(generate.COSINE_WINDOWS))
@pytest.mark.parametrize("periodic", [0, 1])
def test_windows(name, periodic):
    check(name, [np.array(10, np.int64)], {"periodic": periodic}, tol=2e-5)


def test_dft_and_stft_are_numpys():
    x = RNG.standard_normal((2, 9, 1))
    (y,) = spec_of("DFT").evaluate([x, None, np.array(1)], {"onesided": 1})
    np.testing.assert_allclose(y[..., 0] + 1j * y[..., 1], np.fft.rfft(x[..., 0]))
    (back,) = spec_of("DFT").evaluate([y, i64(9), np.array(1)], {"onesided": 1, "inverse": 1})
    np.testing.assert_allclose(back, x)
    window = np.hanning(4)
    (s,) = spec_of("STFT").evaluate([x, np.array(2), window], {})
    frames = np.stack([x[:, i : i + 4, 0] * window for i in (0, 2, 4)], 1)
    np.testing.assert_allclose(s[..., 0] + 1j * s[..., 1], np.fft.rfft(frames))
    check_inference("STFT", [x, np.array(2), window], {}, [s])


@pytest.mark.parametrize(
    "equation, sizes",
    [
        ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)]),
        ("...ij,jk->...ik", [(2, 3, 4), (4, 5)]),
        ("ii", [(4, 4)]),
        ("ij,jk,kl", [(2, 3), (3, 4), (4, 2)]),
        ("i,j->ji", [(3,), (2,)]),
    ],
)
def test_einsum(equation, sizes):
    check("Einsum", [f32(*s) for s in sizes], {"equation": equation}, tol=1e-5)


def test_det():
    check("Det", [f32(3, 4, 4)], {}, tol=1e-4)


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


def infer(op: str, *facts: Fact | None, n: int = 1, **attrs: Any) -> Sequence[Fact]:
    spec = spec_of(op)
    return spec.infer(facts, spec.attributes(attrs), n)


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
        ("Gather", [X4, i64(5)], {"axis": 1}),
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
