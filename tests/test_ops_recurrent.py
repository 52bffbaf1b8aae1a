"""LSTM, GRU and RNN: against onnxruntime, and, where it has no such form, against loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sigconv as sc
from sigconv.errors import ModelError
from sigconv.ops.spec import Fact
from tests.cases.compute_nodes import F16, F64, Case
from tests.cases.onnx_nodes import node_model, run_ort
from tests.cases.operator_checks import spec_of
from tests.cases.recurrent_nodes import GATES, NATIVE, WEIGHTS, layer, naive

LOOPS = [
    *(layer(op, layout=layout, direction="bidirectional", initial=True) for op in GATES for layout in (0, 1)),
    *(layer(op, layout=1, lengths=True, direction="reverse") for op in GATES),
    *(layer(op, dtype=F64, lengths=True) for op in GATES),
    layer("GRU", layout=1, linear_before_reset=1),
    layer("LSTM", layout=1, peepholes=True, input_forget=1),
]


def evaluate(case: Case) -> tuple[np.ndarray, ...]:
    return spec_of(case.op).evaluate(case.inputs, case.attrs, case.n_outputs)


@pytest.mark.parametrize("case", LOOPS, ids=str)
def test_reference_matches_loops(case: Case) -> None:
    for have, want in zip(evaluate(case), naive(case), strict=True):
        tolerance = 1e-12 if have.dtype == F64 else 1e-5
        assert have.shape == want.shape
        np.testing.assert_allclose(have, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("opset", [7, 14, 22])
@pytest.mark.parametrize("op", GATES)
def test_a_model_of_every_opset_matches_onnxruntime(op: str, opset: int) -> None:
    case = layer(op, direction="bidirectional", lengths=True, initial=True)
    model = sc.load(node_model(op, case.inputs, case.attrs, case.n_outputs, opset, constant=(1, 2, 3)))
    feeds = {f"x{i}": x for i, x in enumerate(case.inputs) if i not in (1, 2, 3)}
    want = run_ort(op, case.inputs, case.attrs, case.n_outputs, opset)
    for have, right in zip(model.run(feeds).values(), want, strict=True):
        np.testing.assert_allclose(have, right, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", NATIVE, ids=str)
@pytest.mark.parametrize("wanted", ["all", "last", "first"])
def test_the_usual_forms_run_natively(case: Case, wanted: str) -> None:
    """Whichever outputs are asked for; states are inputs of the run."""
    model = node_model(case.op, case.inputs, case.attrs, case.n_outputs, 22, constant=WEIGHTS)
    keep = {"all": slice(None), "last": slice(-1, None), "first": slice(1)}[wanted]
    outputs = list(model.graph.output)[keep]
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    feeds = {f"x{i}": x for i, x in enumerate(case.inputs) if i not in WEIGHTS and x is not None}
    loaded = sc.load(model)
    session = loaded.compile({k: x.shape for k, x in feeds.items()}, threads=2)
    assert "over_time" in {row.algorithm for row in session.program.rows}
    want = run_ort(case.op, case.inputs, case.attrs, case.n_outputs, 22)[keep]
    for _ in range(2):
        for have, right in zip(session.run(feeds).values(), want, strict=True):
            np.testing.assert_allclose(have, right, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("op", GATES)
def test_no_steps_and_empty_sequences(op: str) -> None:
    case = layer(op, steps=3, batch=2, initial=True, lengths=True)
    none = [np.zeros((0, 2, 5), np.float32), *case.inputs[1:4], None, *case.inputs[5:]]
    spec = spec_of(op)
    Y, *states = spec.evaluate(none, case.attrs, case.n_outputs)
    assert Y.shape == (0, 1, 2, 6)
    for have, first in zip(states, case.inputs[5:], strict=False):
        np.testing.assert_array_equal(have, first)
    case.inputs[4][:] = (0, 2)
    Y, H, *_ = evaluate(case)
    assert not Y[:, 0, 0].any()
    assert not Y[2].any()
    np.testing.assert_array_equal(H[0, 0], case.inputs[5][0, 0])


@pytest.mark.parametrize("op", GATES)
def test_half_precision_computes_in_float32(op: str) -> None:
    case = layer(op, dtype=F16)
    wide = Case(op, [None if x is None else x.astype(np.float32) for x in case.inputs], case.attrs, case.n_outputs)
    for have, want in zip(evaluate(case), evaluate(wide), strict=True):
        np.testing.assert_array_equal(have, want.astype(np.float16))


@pytest.mark.parametrize(
    ("op", "change", "message"),
    [
        ("LSTM", {"activations": ["Tanh"]}, r"activations are \['Tanh'\]; 3 are needed"),
        ("GRU", {"activations": ["Tanh", "Swish"]}, "an activation is 'swish'; accepted are 'affine'"),
        ("RNN", {"direction": "sideways"}, "direction is 'sideways'"),
        ("RNN", {"hidden_size": 7}, "hidden_size and the last size of R must agree, but are 7 and 6"),
        ("GRU", {"layout": 2}, "layout is 2"),
    ],
)
def test_wrong_attributes(op: str, change: dict[str, Any], message: str) -> None:
    case = layer(op)
    with pytest.raises(ModelError, match=message):
        infer(op, case.inputs, {**case.attrs, **change})


@pytest.mark.parametrize(
    ("i", "shape", "message"),
    [
        (0, (4, 3), "X has shape"),
        (1, (1, 23, 5), "size 1 of W"),
        (1, (1, 24, 4), "size 2 of W"),
        (2, (2, 24, 6), "size 0 of R"),
        (3, (1, 24), "size 1 of B"),
        (4, (2,), "size 0 of sequence_lens"),
        (5, (1, 3, 5), "size 2 of initial_h"),
        (6, (3, 1, 6), "size 0 of initial_c"),
        (7, (1, 17), "size 1 of P"),
    ],
)
def test_wrong_shapes(i: int, shape: tuple[int, ...], message: str) -> None:
    case = layer("LSTM", lengths=True, initial=True, peepholes=True)
    inputs = list(case.inputs)
    inputs[i] = np.zeros(shape, inputs[i].dtype)
    with pytest.raises(ModelError, match=message):
        infer("LSTM", inputs, case.attrs)


def test_lengths_beyond_the_sequence() -> None:
    case = layer("RNN", lengths=True)
    case.inputs[4][0] = 5
    with pytest.raises(ModelError, match=r"sequence_lens must be from 0 to 4, but are \[5, 3, 2\]"):
        evaluate(case)


def infer(op: str, inputs: Any, attrs: Any) -> Any:
    spec = spec_of(op)
    return spec.infer([None if x is None else Fact.of(x) for x in inputs], spec.attributes(attrs), 2)
