"""The computing operators: references against onnxruntime on random inputs, inference against what is evaluated."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import math
import pkgutil
import re
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx.defs
import pytest

import sigconv.ops
from sigconv.errors import ModelError
from sigconv.ops.spec import REGISTRY, Fact
from tests.cases.compute_nodes import F16, F32, F64, FAMILIES, I8, I32, I64, INF, NAN, U8, Case, normal, of
from tests.cases.onnx_nodes import run_ort
from tests.cases.operator_checks import infer, spec_of
from tests.cases.recurrent_nodes import recurrent_cases

MODULES = ("elementwise", "activation", "nn", "pool", "norm", "reduce", "linear", "quant", "contrib", "recurrent")
CASES = [case for family in (*FAMILIES, recurrent_cases) for case in family()]
TOLERANCE = {"float16": 2e-3, "float32": 1e-5, "float64": 1e-12}


def evaluated(case: Case) -> tuple[np.ndarray, ...]:
    spec = spec_of(case.op, case.domain)
    before = [None if x is None else x.copy() for x in case.inputs]
    out = spec.evaluate(case.inputs, case.attrs, case.n_outputs)
    for x, old in zip(case.inputs, before, strict=True):
        np.testing.assert_array_equal(x, old)
    return out


def inferred(case: Case, facts: Sequence[Fact | None]) -> Sequence[Fact]:
    spec = spec_of(case.op, case.domain)
    return spec.infer(facts, spec.attributes(case.attrs), case.n_outputs)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference_matches_onnxruntime(case: Case) -> None:
    ours = evaluated(case)
    theirs = run_ort(case.op, case.inputs, case.attrs, case.n_outputs, case.opset, case.domain, case.constant)
    assert len(ours) == len(theirs)
    for have, want in zip(ours, theirs, strict=True):
        assert (have.dtype, have.shape) == (want.dtype, want.shape)
        if want.dtype.kind == "f":
            finite = np.abs(want[np.isfinite(want)], dtype=np.float64)
            tolerance = TOLERANCE[want.dtype.name]
            np.testing.assert_allclose(have, want, rtol=tolerance, atol=tolerance * finite.max(initial=0))
        elif case.steps:
            assert np.abs(have.astype(np.int64) - want.astype(np.int64)).max(initial=0) <= case.steps
        else:
            np.testing.assert_array_equal(have, want)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_inference_agrees_with_evaluation(case: Case) -> None:
    """Exactly where everything is known; never in contradiction where less is."""
    outputs = evaluated(case)
    facts = [None if x is None else Fact.of(x) for x in case.inputs]
    known = inferred(case, facts)
    assert [(f.dtype, f.shape) for f in known] == [(y.dtype, y.shape) for y in outputs]

    blurred = {
        "nothing": [None if f is None else Fact() for f in facts],
        "rank": [None if f is None else Fact(f.dtype, (None,) * (f.rank or 0), f.value) for f in facts],
        "no values": [None if f is None else Fact(f.dtype, f.shape) for f in facts],
        "symbolic batch": [
            Fact(f.dtype, ("N", *f.shape[1:]), f.value) if f is not None and f.shape and i == 0 else f
            for i, f in enumerate(facts)
        ],
    }
    for how, given in blurred.items():
        for guess, y in zip(inferred(case, given), outputs, strict=True):
            assert guess.dtype in (None, y.dtype), how
            if guess.shape is not None:
                assert len(guess.shape) == y.ndim, how
                assert all(not isinstance(d, int) or d == size for d, size in zip(guess.shape, y.shape, strict=True)), (
                    how
                )


def computing() -> list[Any]:
    return [s for s in REGISTRY.values() if s.reference.__module__.rpartition(".")[2] in MODULES]


def test_every_computing_operator_has_a_case() -> None:
    tested = {(case.domain, case.op) for case in CASES}
    only_mathematical = {("", "Swish")}  # onnxruntime has no kernel for it: test_swish
    only_inside = {("sigconv", "Saturate")}  # the end of a quantisation in a program: test_quantized.py
    assert {(s.domain, s.name) for s in computing()} == tested | only_mathematical | only_inside


def test_package_imports_every_module() -> None:
    before = set(REGISTRY)
    for module in pkgutil.iter_modules(sigconv.ops.__path__):
        importlib.import_module(f"sigconv.ops.{module.name}")
    assert set(REGISTRY) == before


@pytest.mark.parametrize("spec", [s for s in computing() if s.domain == ""], ids=lambda s: s.name)
def test_signature_is_the_newest_schema(spec: Any) -> None:
    schema = onnx.defs.get_schema(spec.name)
    assert spec.since == schema.since_version
    assert set(spec.defaults) == set(schema.attributes)
    assert spec.min_inputs == schema.min_input
    assert spec.max_inputs == (None if schema.max_input > 100 else schema.max_input)
    for name, attribute in schema.attributes.items():
        if attribute.required:
            with pytest.raises(ModelError, match=name):
                spec.attributes({})
        elif attribute.default_value.type:
            default = onnx.helper.get_attribute_value(attribute.default_value)
            default = default.decode() if isinstance(default, bytes) else default
            if isinstance(default, list) and isinstance(default[0], bytes):
                assert spec.defaults[name] == tuple(word.decode() for word in default)
                continue
            np.testing.assert_allclose(spec.defaults[name], default, rtol=1e-7) if not isinstance(
                default, str
            ) else None
            assert isinstance(default, str) is isinstance(spec.defaults[name], str)


def evaluate(op: str, *inputs: np.ndarray | None, n_outputs: int = 1, **attrs: Any) -> Any:
    out = spec_of(op).evaluate(inputs, attrs, n_outputs)
    return out if n_outputs > 1 else out[0]


def test_swish() -> None:
    x = normal(3, 4, scale=5)
    np.testing.assert_allclose(evaluate("Swish", x, alpha=1.5), x / (1 + np.exp(-1.5 * x.astype(F64))), rtol=1e-6)


def test_erf_to_float64_rounding() -> None:
    x = np.linspace(-6, 6, 301)
    np.testing.assert_allclose(evaluate("Erf", x), [math.erf(v) for v in x], rtol=4e-16)


def test_nan_wins() -> None:
    """NaN survives wherever it is compared, in every position."""
    for i in range(5):
        x = np.arange(5, dtype=F32)
        x[i] = NAN
        for op in ("ReduceMax", "ReduceMin"):
            assert np.isnan(evaluate(op, x)).all()
        for op in ("Max", "Min"):
            assert np.isnan(evaluate(op, np.ones(5, F32), x)).tolist() == [k == i for k in range(5)]
        y, index = evaluate("MaxPool", x[None, None], kernel_shape=[2], n_outputs=2)
        assert np.isnan(y[0, 0]).tolist() == [i in (k, k + 1) for k in range(4)]
        assert all(index[0, 0, k] == i for k in range(4) if i in (k, k + 1))
        for op in ("Relu", "LeakyRelu", "HardSigmoid", "Sigmoid", "Gelu", "Elu", "Softplus"):
            assert np.isnan(evaluate(op, x)).tolist() == [k == i for k in range(5)], op
        assert np.isnan(evaluate("Clip", x, of(0), of(1))).tolist() == [k == i for k in range(5)]


def test_max_pool_of_padding_only_and_of_minus_infinity() -> None:
    y, index = evaluate("MaxPool", np.full((1, 1, 3), -INF, F32), kernel_shape=[2], pads=[1, 1], n_outputs=2)
    assert (y == -INF).all()
    assert index.tolist() == [[[0, 0, 1, 2]]]
    y, index = evaluate("MaxPool", np.ones((1, 1, 1), I8), kernel_shape=[2], pads=[2, 0], n_outputs=2)
    assert (y.tolist(), index.tolist()) == ([[[-128, 1]]], [[[-1, 0]]])


@pytest.mark.parametrize("size", [1, 2, 3, 4, 12])
def test_lrn_windows_lean_towards_later_channels(size: int) -> None:
    x = normal(2, 5, 3)
    want = np.empty_like(x)
    for c in range(5):
        span = x[:, max(0, c - (size - 1) // 2) : c + size // 2 + 1]
        want[:, c] = x[:, c] / (1 + 0.3 / size * np.square(span).sum(1)) ** 0.6
    np.testing.assert_allclose(evaluate("LRN", x, alpha=0.3, beta=0.6, size=size), want, rtol=1e-5)


@pytest.mark.parametrize("shape", [(6, 3), (2, 3, 5), (4, 3, 2, 5)])
def test_batch_norm_in_training(shape: tuple[int, ...]) -> None:
    x, scale, bias, mean, var = normal(*shape), normal(3), normal(3), normal(3), np.abs(normal(3))
    y, new_mean, new_var = evaluate(
        "BatchNormalization", x, scale, bias, mean, var, training_mode=1, momentum=0.7, n_outputs=3
    )
    for c in range(3):
        plane = x[:, c].astype(F64)
        want = (plane - plane.mean()) / np.sqrt(plane.var() + 1e-5) * scale[c] + bias[c]
        np.testing.assert_allclose(y[:, c], want, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(new_mean[c], 0.7 * mean[c] + 0.3 * plane.mean(), rtol=1e-5)
        np.testing.assert_allclose(new_var[c], 0.7 * var[c] + 0.3 * plane.var(), rtol=1e-5)
    facts = [Fact.of(a) for a in (x, scale, bias, mean, var)]
    known = infer("BatchNormalization", *facts, n=3, training_mode=1)
    assert [(f.dtype, f.shape) for f in known] == [(F32, shape), (F32, (3,)), (F32, (3,))]


def test_batch_norm_of_single_channel_values() -> None:
    x, one = normal(5), np.ones(1, F32)
    assert evaluate("BatchNormalization", x, one, one, 0 * one, one, epsilon=0.0).tolist() == (x + 1).tolist()
    assert infer("BatchNormalization", *(Fact.of(a) for a in (x, one, one, one, one)))[0].shape == (5,)


def test_reductions_of_nothing() -> None:
    empty = np.zeros((0, 2), F32)
    wanted = {"ReduceSum": 0, "ReduceMean": NAN, "ReduceProd": 1, "ReduceMax": -INF, "ReduceMin": INF, "ReduceL1": 0}
    for op, value in {
        **wanted,
        "ReduceL2": 0,
        "ReduceSumSquare": 0,
        "ReduceLogSum": -INF,
        "ReduceLogSumExp": -INF,
    }.items():
        np.testing.assert_array_equal(evaluate(op, empty, of([0], I64), keepdims=0), of([value, value]), err_msg=op)
    assert evaluate("ReduceMax", empty.astype(U8)).tolist() == [[0]]
    assert evaluate("ReduceMin", empty.astype(bool)).tolist() == [[True]]


def test_noop_reductions_still_do_what_is_not_a_reduction() -> None:
    x = of([[1, -2]])
    for op, want in (("ReduceSumSquare", [[1, 4]]), ("ReduceL1", [[1, 2]]), ("ReduceSum", [[1, -2]])):
        assert evaluate(op, x, noop_with_empty_axes=1).tolist() == want


def test_shifts_of_all_bits_and_of_signed_integers() -> None:
    x, y = of([-8, -1, 5, 64], I8), of([1, 9, -1, 1], I8)
    assert evaluate("BitShift", x, y, direction="RIGHT").tolist() == [-4, -1, 0, 32]
    assert evaluate("BitShift", x, y, direction="LEFT").tolist() == [-16, 0, 0, -128]


def test_integer_division_by_zero_does_not_crash() -> None:
    assert evaluate("Div", of([7, -7], I32), of([0, 0], I32)).tolist() == [0, 0]


def test_half_precision_is_computed_in_single() -> None:
    """A sum of 4096 ones would stop at 2048 in float16."""
    for dtype in (F16, np.dtype(ml_dtypes.bfloat16)):
        ones = np.ones((1, 1, 64, 64), dtype)
        for op, want in (("GlobalAveragePool", 1), ("ReduceSum", 4096), ("ReduceMean", 1)):
            out = evaluate(op, ones)
            assert out.dtype == dtype
            assert out.astype(F32).reshape(-1).tolist() == [want]
        out = evaluate("Conv", ones, ones)
        assert (out.dtype, float(out[0, 0, 0, 0])) == (dtype, 4096)
        assert evaluate("Relu", ones).dtype == dtype
        assert evaluate("BatchNormalization", ones, *(np.ones(1, F32),) * 4).dtype == dtype
        y, mean, _ = evaluate("LayerNormalization", ones, ones[0, 0, 0], n_outputs=3)
        assert (y.dtype, mean.dtype) == (dtype, F32)


def test_narrow_quantised_types() -> None:
    """4-bit integers saturate, float8 keeps three bits of mantissa."""
    x = of([-100, -7.6, 0.5, 1.5, 6.9, 100])
    int4 = evaluate("QuantizeLinear", x, of(1), np.zeros((), ml_dtypes.int4))
    assert int4.astype(I8).tolist() == [-8, -8, 0, 2, 7, 7]
    uint4 = evaluate("QuantizeLinear", x, of(1), output_dtype=21)
    assert uint4.astype(I8).tolist() == [0, 0, 0, 2, 7, 15]
    assert evaluate("DequantizeLinear", int4, of(0.5)).tolist() == [-4, -4, 0, 1, 3.5, 3.5]
    float8 = evaluate("QuantizeLinear", of([1.07, 1000, -3.3]), of(1), np.zeros((), ml_dtypes.float8_e4m3fn))
    assert float8.astype(F32).tolist() == [1.125, 448, -3.25]


def test_symbols_survive() -> None:
    image = Fact(F32, ("N", 3, "H", "W"))
    weight, bias = Fact(F32, (8, 3, 3, 3)), Fact(F32, (8,))
    assert infer("Conv", image, weight, bias, pads=[1, 1, 1, 1])[0].shape == ("N", 8, "H", "W")
    assert infer("Conv", image, weight, pads=[1, 1, 1, 1], strides=[2, 1])[0].shape == ("N", 8, None, "W")
    assert infer("Conv", Fact(), weight)[0] == Fact(F32, (None, 8, None, None))
    assert infer("MaxPool", image, kernel_shape=[3, 1])[0].shape == ("N", 3, None, "W")
    assert infer("GlobalAveragePool", image)[0].shape == ("N", 3, 1, 1)
    assert infer("Add", image, Fact(F32, (3, 1, 1)))[0].shape == ("N", 3, "H", "W")
    assert infer("Add", image, Fact(F32, ("M", 3, 5, "W")))[0].shape == (None, 3, 5, "W")
    assert infer("Equal", image, image)[0] == Fact(np.dtype(bool), image.shape)
    assert infer("ReduceMean", image, Fact.of(of([2, -1], I64)))[0].shape == ("N", 3, 1, 1)
    assert infer("ReduceMean", image, Fact(I64, (2,)), keepdims=0)[0].shape == (None, None)
    assert infer("ArgMax", image, axis=1, keepdims=0)[0] == Fact(I64, ("N", "H", "W"))
    assert infer("MatMul", Fact(None, ("B", "T", 4)), Fact(None, (4, 7)))[0].shape == ("B", "T", 7)
    assert infer("Gemm", Fact(None, ("N", 4)), Fact(None, (7, 4)), Fact(None, (7,)), transB=1)[0].shape == ("N", 7)
    assert infer("ConvTranspose", image, Fact(None, (3, 2, 2, 2)), strides=[2, 2])[0].shape == ("N", 2, None, None)


IMPOSSIBLE: tuple[tuple[str, list[Fact | None], dict[str, Any], str], ...] = (
    ("Add", [Fact(F32, (2, 3)), Fact(F32, (4,))], {}, "(2, 3) and (4,) do not broadcast: sizes 3 and 4"),
    ("Add", [Fact(F32, ()), Fact(I32, ())], {}, "inputs 0 and 1 must have one dtype, but have float32 and int32"),
    ("Sqrt", [Fact(I32, ())], {}, "input 0 has dtype int32; accepted are bfloat16"),
    ("Clip", [Fact(F32, (4,)), Fact(F32, (4,))], {}, "min has shape (4,); a scalar"),
    ("PRelu", [Fact(F32, (1, 3)), Fact(F32, (2, 3))], {}, "slope has shape (2, 3), which does not broadcast to (1, 3)"),
    ("Softmax", [Fact(F32, (2, 3))], {"axis": 2}, "axis 2 is outside [-2, 1]"),
    ("Conv", [Fact(F32, (1, 3, 8)), Fact(F32, (4, 2, 3))], {}, "has 3 channels, but the weight takes 2 x group 1"),
    ("Conv", [Fact(F32, (1, 4, 8)), Fact(F32, (3, 2, 3))], {"group": 2}, "3 filters, not a multiple of group 2"),
    ("Conv", [Fact(F32, (1, 4)), Fact(F32, (3, 4, 3))], {}, "rank 2; accepted is rank 3 or more"),
    ("Conv", [Fact(F32, (1, 4, 8, 8)), Fact(F32, (3, 4, 3))], {}, "needs rank 4"),
    ("Conv", [Fact(F32, (1, 4, 2)), Fact(F32, (3, 4, 3))], {}, "a kernel of 3 with dilation 1 spans 3"),
    ("Conv", [Fact(F32, (1, 4, 8)), Fact(F32, (3, 4, 3))], {"kernel_shape": [5]}, "must agree, but are 5 and 3"),
    ("Conv", [Fact(F32, (1, 4, 8)), Fact(F32, (3, 4, 3)), Fact(F32, (4,))], {}, "the bias"),
    ("Conv", [Fact(F32, (1, 4, 8)), Fact(F32, (3, 4, 3))], {"strides": [1, 1]}, "strides"),
    ("ConvTranspose", [Fact(F32, (1, 4, 8)), Fact(F32, (3, 4, 3))], {}, "channels of input and weight"),
    ("MaxPool", [Fact(F32, (1, 4, 8))], {"kernel_shape": [2, 2]}, "kernel_shape [2, 2] must have 1 entries"),
    ("MatMul", [Fact(F32, (2, 3)), Fact(F32, (4, 5))], {}, "inner sizes of A (2, 3) and B (4, 5)"),
    (
        "Gemm",
        [Fact(F32, (2, 3)), Fact(F32, (3, 5)), Fact(F32, (4,))],
        {},
        "C has shape (4,), which does not broadcast to (2, 5)",
    ),
    ("Gemm", [Fact(F32, (2, 3)), Fact(F32, (4, 5))], {"transB": 1}, "B (4, 5) transposed"),
    ("ReduceSum", [Fact(F32, (2, 3)), Fact.of(of([2], I64))], {}, "axis 2 is outside"),
    ("ReduceSum", [Fact(F32, (2, 3)), Fact.of(of([1, -1], I64))], {}, "name an axis twice"),
    ("ArgMax", [Fact(F32, (2, 0))], {"axis": 1}, "axis 1 of shape (2, 0) is empty"),
    ("BatchNormalization", [Fact(F32, (2, 3, 4)), *[Fact(F32, (4,))] * 4], {}, "must agree, but are 4 and 3"),
    ("GroupNormalization", [Fact(F32, (2, 6, 4)), *[Fact(F32, (6,))] * 2], {"num_groups": 4}, "num_groups is 4"),
    ("LayerNormalization", [Fact(F32, (2, 6)), Fact(F32, (3, 2, 6))], {}, "input 1 has shape (3, 2, 6)"),
    ("QuantizeLinear", [Fact(F32, (2, 6)), Fact(F32, (5,))], {}, "must agree, but are 5 and 6"),
    ("QLinearConv", [Fact(I32), *[None] * 8], {}, "input 0 has dtype int32; accepted are int8, uint8"),
)


@pytest.mark.parametrize("op,facts,attrs,message", IMPOSSIBLE, ids=lambda v: v if isinstance(v, str) else "")
def test_impossible_inputs_are_named(op: str, facts: list[Fact | None], attrs: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=re.escape(message)):
        infer(op, *facts, **attrs)


REQUIRED: dict[str, Any] = {
    "low": 0,
    "high": 255,
    "kernel_shape": [2, 2],
    "axis": -1,
    "num_groups": 2,
    "size": 3,
    "direction": "LEFT",
    "opset": 13,
}


@pytest.mark.parametrize("spec", computing(), ids=lambda s: s.name)
def test_inference_of_nonsense_is_an_answer_or_a_model_error(spec: Any) -> None:
    """Any mixture of dtypes, ranks, sizes and symbols: a Fact an output, or ModelError, and nothing else."""
    draw = np.random.default_rng(len(spec.name))
    attrs = spec.attributes({k: v for k, v in REQUIRED.items() if spec.defaults.get(k) is inspect.Parameter.empty})
    answers = 0
    for _ in range(300):
        dtype = draw.choice([F32, F32, F32, F16, I32, I64, U8, I8, np.dtype(bool)])
        ignorance = draw.random()
        facts: list[Fact | None] = []
        for _ in range(draw.integers(max(1, spec.min_inputs), (spec.max_inputs or spec.min_inputs + 4) + 1)):
            dims = tuple([0, 1, 2, 3, 4, 4, "N", None][k] for k in draw.integers(0, 8, draw.integers(0, 6)))
            known = draw.choice([dtype, dtype, dtype, I64, None])
            facts.append(Fact() if draw.random() < ignorance else Fact(known, dims))
        with contextlib.suppress(ModelError):
            answers += len(spec.infer(facts, attrs, 1)) == 1
    assert answers
