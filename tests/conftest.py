"""What every test shares: seeded random numbers, and hypothesis without a clock."""

from __future__ import annotations

import os

import hypothesis
import numpy as np
import pytest

# The first example may compile a kernel: a deadline would measure the compiler. CI draws the same examples each time.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator whose seed is the test's own name: the same numbers in every run and in every order."""
    return np.random.default_rng(list(request.node.nodeid.encode()))
