"""One operator's reference and inference: against onnxruntime, and against each other."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from sigconv.ops.spec import Fact, OpSpec, lookup
from tests.cases.onnx_nodes import run_ort

RNG = np.random.default_rng(20)
BIG = np.iinfo(np.int64).max


def f32(*sizes: int) -> np.ndarray:
    return RNG.standard_normal(sizes).astype(np.float32)


def i64(*values: Any) -> np.ndarray:
    return np.array(values, np.int64)


def spec_of(op: str, domain: str = "") -> OpSpec:
    found = lookup(op, domain)
    assert found is not None, f"{op} is not registered"
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


def infer(op: str, *facts: Fact | None, n: int = 1, **attrs: Any) -> Sequence[Fact]:
    spec = spec_of(op)
    return spec.infer(facts, spec.attributes(attrs), n)
