"""SciPy's own tests of linear image filters, with our functions in SciPy's place.

SciPy's filters made of these (prewitt, sobel, laplace, gaussian_laplace, gaussian_gradient_magnitude) call ours too, so
their tests are run as well.
"""

from __future__ import annotations

import importlib
from typing import Any

import pytest

import sigconv.ndimage as ours
from tests.peers.borrow import with_listed_parameters

ndimage = pytest.importorskip("scipy.ndimage", reason="needs SciPy, with its tests")
filters = importlib.import_module("scipy.ndimage._filters")
capabilities = importlib.import_module("scipy._lib._array_api").xp_capabilities_table

CANNOT_APPLY = {"test_gaussian_filter_float16": "asks for an error where ours filters float16, summed in float32"}
"""Tests of SciPy's that state another behaviour, and why ours is meant."""

OTHERS = (
    "minimum",
    "maximum",
    "minmax",
    "rank",
    "median",
    "generic",
    "vectorized",
    "footprint",
    "size_footprint",
    "gh_",
)
"""What the names of tests of filters that are not ours begin with, or hold."""


def replace(place: pytest.MonkeyPatch) -> None:
    """Ours under SciPy's names, also for SciPy's own use of them."""
    for name in ours.__all__:
        place.setitem(capabilities, getattr(ours, name), capabilities[getattr(ndimage, name)])
        for module in (ndimage, filters):
            place.setattr(module, name, getattr(ours, name))


def wanted(name: str) -> bool:
    return name.startswith("test_") and not any(word in name for word in OTHERS)


with pytest.MonkeyPatch.context() as while_importing:  # parametrized tests take the functions here
    replace(while_importing)
    theirs: Any = importlib.import_module("scipy.ndimage.tests.test_filters")
    for class_name in ("TestNdimageFilters", "TestThreading"):
        original = getattr(theirs, class_name)
        tests = {name: test for name, test in vars(original).items() if name.startswith("test_")}
        chosen = {name: with_listed_parameters(test) if wanted(name) else None for name, test in tests.items()}
        globals()[class_name] = type(class_name, (original,), chosen)
    globals().update({name: with_listed_parameters(test) for name, test in vars(theirs).items() if wanted(name)})


@pytest.fixture
def num_parallel_threads() -> int:
    """Of the plugin that SciPy runs its tests with."""
    return 1


@pytest.fixture(autouse=True)
def in_their_place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.originalname in CANNOT_APPLY:
        pytest.skip(CANNOT_APPLY[request.node.originalname])
    replace(monkeypatch)


def test_ours_are_called():
    assert all(getattr(theirs.ndimage, name) is getattr(ours, name) for name in ours.__all__)
    assert filters.correlate1d is ours.correlate1d


def test_what_cannot_apply_is_there():
    assert all(callable(getattr(theirs, name)) for name in CANNOT_APPLY)
