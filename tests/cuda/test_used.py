"""What the tests before these, in the order of their files, have run: nothing may be left out."""

from __future__ import annotations

from sigconv.kernels.cuda.jit import KERNELS
from tests.cuda.simulator import LAUNCHED


def test_every_kernel_ran():
    assert sorted(set(KERNELS) - LAUNCHED) == []
