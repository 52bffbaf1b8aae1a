"""What the tests before these, in the order of their files, have run: nothing may be left out."""

from __future__ import annotations

from sigconv.kernels.cuda.jit import KERNELS
from sigconv.planner.candidates import CUDA
from sigconv.planner.elementwise import ELEMENTWISE
from tests.cuda.simulator import LAUNCHED, USED


def test_every_kernel_ran():
    assert sorted(set(KERNELS) - LAUNCHED) == []


def test_every_candidate_was_compared():
    served = {(op, c.name) for op, candidates in CUDA.items() for c in candidates if op != "Elementwise"}
    assert sorted(served - USED) == []
    assert {op for op, name in USED if name == "bytecode"} >= set(ELEMENTWISE)
