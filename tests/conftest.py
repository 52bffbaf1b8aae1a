"""What every test shares: seeded random numbers, and hypothesis without a clock."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import numpy as np
import pytest

from tests.sources import MODELS

# The first example may compile a kernel: a deadline would measure the compiler. CI draws the same examples each time.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(scope="session")
def models() -> Path:
    """The folder of trained networks beside the checkout; only outside of CI may it be absent."""
    if not any(MODELS.glob("*.onnx")):
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no trained networks at {MODELS}")
    return MODELS


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator whose seed is the test's own name: the same numbers in every run and in every order."""
    return np.random.default_rng(list(request.node.nodeid.encode()))
