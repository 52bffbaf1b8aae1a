"""ONNX's own backend tests, run through `sigconv.export.backend` and held against `onnx_suite_expected.json`.

The file lists what may fail: ``operators`` that are not implemented, with how many cases need each, and single
``cases`` with a pattern of the error they must give, each with a reason; an entry no longer needed fails the test.
"""

from __future__ import annotations

import json
import re
import unittest
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from sigconv.errors import UnsupportedError
from sigconv.export import backend

EXPECTED = json.loads(Path(__file__).with_name("onnx_suite_expected.json").read_text())
LEAST_PASSING = {
    "OnnxBackendNodeModelTest": 1552,
    "OnnxBackendPyTorchConvertedModelTest": 82,
    "OnnxBackendPyTorchOperatorModelTest": 35,
    "OnnxBackendRealModelTest": 9,
    "OnnxBackendSimpleModelTest": 7,
}
"""Of 1,884, 82, 35, 9 and 23. The others need what ``operators`` lists: attention, losses, sequences, strings, …"""

Failures = Mapping[str, BaseException]


@pytest.fixture(scope="module")
def suite() -> Mapping[str, type[unittest.TestCase]]:
    from onnx.backend.test import BackendTest

    with warnings.catch_warnings():  # ONNX computes some of its expected values with overflow and division by zero
        warnings.simplefilter("ignore", RuntimeWarning)
        return BackendTest(backend, __name__).test_cases


@pytest.fixture(scope="module")
def results(
    suite: Mapping[str, type[unittest.TestCase]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[int, Failures]]:
    """How many cases passed, and the failures by case name, of each category."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONNX_HOME", str(tmp_path_factory.mktemp("onnx")))
        for category, cases in suite.items():
            names = [name for name in dir(cases) if name.startswith("test_") and name.endswith("_cpu")]
            errors = {name: error for name in names if (error := _error(cases, name)) is not None}
            found[category] = len(names) - len(errors), errors
    return found


def _error(cases: type[unittest.TestCase], name: str) -> BaseException | None:
    try:
        getattr(cases(name), name)()
    except (Exception, unittest.SkipTest) as e:
        return e
    return None


def lacking(error: BaseException) -> list[str]:
    """The operators an UnsupportedError lists."""
    return [item.partition(" (")[0] for item in error.missing] if isinstance(error, UnsupportedError) else []


def disagreements(failures: Failures, expected: Mapping[str, Mapping[str, Mapping[str, object]]]) -> list[str]:
    """Every failure without an entry and every entry without its failures, in words."""
    operators, cases = expected["operators"], expected["cases"]
    wrong, counts = [], Counter[str]()
    for name, error in failures.items():
        needs = lacking(error)
        counts.update(op for op in needs if op in operators)
        if name in cases:
            if not re.search(str(cases[name]["error"]), str(error)):
                wrong.append(f"{name} fails in another way than listed: {error}")
        elif not needs or not set(needs) <= set(operators):
            wrong.append(f"{name} fails: {type(error).__name__}: {error}")
    wrong += [f"{name} is listed as failing, and passes" for name in cases if name not in failures]
    wrong += [
        f"{op}: {entry['cases']} cases are listed as failing, {counts[op]} fail"
        for op, entry in operators.items()
        if entry["cases"] != counts[op]
    ]
    return wrong


def test_failures_are_those_listed(results: dict[str, tuple[int, Failures]]) -> None:
    failures = {name: error for _, errors in results.values() for name, error in errors.items()}
    wrong = disagreements(failures, EXPECTED)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("category", LEAST_PASSING)
def test_enough_pass(results: dict[str, tuple[int, Failures]], category: str) -> None:
    assert results[category][0] >= LEAST_PASSING[category]


def test_no_case_is_left_out(suite: Mapping[str, type[unittest.TestCase]]) -> None:
    assert sum(name.endswith("_cpu") for cases in suite.values() for name in dir(cases)) >= 1900


def test_every_entry_has_a_reason() -> None:
    assert all(entry["reason"] for kind in EXPECTED.values() for entry in kind.values())


@pytest.mark.parametrize(
    ("failures", "expected", "message"),
    [
        ({"a": ValueError("boom")}, {"operators": {}, "cases": {}}, "a fails: ValueError: boom"),
        ({}, {"operators": {}, "cases": {"a": {"error": "boom"}}}, "a is listed as failing, and passes"),
        ({"a": ValueError("bang")}, {"operators": {}, "cases": {"a": {"error": "boom"}}}, "another way"),
        ({}, {"operators": {"Op": {"cases": 1}}, "cases": {}}, "Op: 1 cases are listed as failing, 0 fail"),
        (
            {"a": UnsupportedError("", ["Op (1 node: x)", "Other (1 node: y)"])},
            {"operators": {"Op": {"cases": 1}}, "cases": {}},
            "a fails",
        ),
    ],
)
def test_a_disagreement_is_found(
    failures: Failures, expected: dict[str, dict[str, dict[str, object]]], message: str
) -> None:
    assert any(message in line for line in disagreements(failures, expected))
