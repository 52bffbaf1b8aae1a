"""Taking over tests of another project."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def with_listed_parameters(test: Callable[..., Any]) -> Callable[..., Any]:
    """The test with its parametrizations as lists: pytest warns of the iterators that SciPy uses."""
    for i, mark in enumerate(getattr(test, "pytestmark", [])):
        if mark.name == "parametrize" and not isinstance(mark.args[1], (list, tuple)):
            test.pytestmark[i] = pytest.mark.parametrize(mark.args[0], list(mark.args[1]), **mark.kwargs).mark
    return test
