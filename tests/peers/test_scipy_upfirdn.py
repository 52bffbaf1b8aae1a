"""SciPy's own tests of `upfirdn`, with ours in SciPy's place. All of them apply."""

from __future__ import annotations

import pytest

from sigconv.signal.upfirdn import output_length, upfirdn
from tests.peers.borrow import with_listed_parameters

theirs = pytest.importorskip("scipy.signal.tests.test_upfirdn", reason="needs SciPy, with its tests")

TestUpfirdn = theirs.TestUpfirdn
for test in vars(TestUpfirdn).values():
    with_listed_parameters(test)


@pytest.fixture(autouse=True)
def in_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(theirs, "upfirdn", upfirdn)


def test_ours_is_called():
    assert theirs.upfirdn is upfirdn


def test_output_len_long_input():
    """SciPy's test of the same name, which calls a private function."""
    assert output_length(1001, 10**8, 320, 441) == 72562360
