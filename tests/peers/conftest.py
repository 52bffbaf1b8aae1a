"""What SciPy's tests expect of their own conftest, for NumPy arrays only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

MARKERS = (
    "skip_xp_backends",
    "xfail_xp_backends",
    "array_api_backends",
    "xfail_on_32bit",
    "thread_unsafe",
    "xslow",
    "fail_slow",
    "timeout",
    "parallel_threads_limit",
    "iterations",
)


def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", f"{marker}: SciPy's")


@pytest.fixture(params=["numpy"])
def xp(request: pytest.FixtureRequest) -> Iterator[Any]:
    """SciPy's namespace of NumPy; tests that SciPy skips for NumPy are skipped."""
    array_api = pytest.importorskip("scipy._lib._array_api")
    np = pytest.importorskip("numpy")
    for kind, act in (("skip_xp_backends", pytest.skip), ("xfail_xp_backends", pytest.xfail)):
        for marker in request.node.iter_markers(kind):
            if "numpy" in marker.args:
                act(marker.kwargs.get("reason", "SciPy does not run it with NumPy"))
    return array_api.array_namespace(np.empty(0))
