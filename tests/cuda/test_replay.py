"""Launches recorded and replayed, against a driver that writes down what it is asked for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sigconv.runtime.replay import KEPT, Replay


class Driver:
    """``cuda.bindings.driver`` in small: every function returns (status, result)."""

    CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_RELAXED="relaxed")

    def __init__(self, failing: str = "") -> None:
        self.log: list[str] = []
        self.failing, self.capturing, self.graphs = failing, False, 0

    def __getattr__(self, name: str):
        def call(*arguments):
            self.log.append(name)
            begins, ends = name == "cuStreamBeginCapture" != self.failing, name == "cuStreamEndCapture"
            self.capturing = (self.capturing or begins) and not ends
            if name == self.failing:
                return (700,)
            self.graphs += {"cuGraphInstantiate": 1, "cuGraphExecDestroy": -1}.get(name, 0)
            return (0, f"{name}'s result")

        return call


def test_launched_once_recorded_once_then_replayed():
    driver, ran = Driver(), []
    replay = Replay(driver, 5)

    def launches() -> None:
        ran.append("recorded" if driver.capturing else "launched")

    for _ in range(4):
        replay.run("a", launches)
    assert ran == ["launched", "recorded"]  # the first run may compile, which a capture does not allow
    assert driver.log == [
        "cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate", "cuGraphDestroy",
        "cuGraphLaunch", "cuGraphLaunch", "cuGraphLaunch",
    ]  # fmt: skip
    replay.run("b", launches)  # other addresses
    assert ran[2:] == ["launched"]
    del replay
    assert driver.graphs == 0


@pytest.mark.parametrize("failing", ["cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate"])
def test_what_cannot_be_recorded_is_launched(failing):
    driver, launched = Driver(failing), []
    replay = Replay(driver, 5)
    for run in range(3):
        replay.run("a", lambda run=run: launched.append((run, driver.capturing)))
    assert [run for run, capturing in launched if not capturing] == [0, 1, 2]
    assert failing in replay.problem
    assert "cuGraphLaunch" not in driver.log


def test_a_failing_launch_ends_the_capture():
    driver, calls = Driver(), []
    replay = Replay(driver, 5)

    def launches() -> None:
        calls.append(driver.capturing)
        if driver.capturing:
            raise RuntimeError("not in a capture")

    for _ in range(3):
        replay.run("a", launches)
    assert calls == [False, True, False, False]
    assert not driver.capturing
    assert "not in a capture" in replay.problem


def test_few_graphs_are_kept():
    driver = Driver()
    replay = Replay(driver, 5)
    for key in range(3 * KEPT):
        for _ in range(2):
            replay.run(key, lambda: None)
    assert driver.graphs == KEPT


def test_without_bindings_everything_is_launched():
    ran = []
    replay = Replay(None, 5)
    for _ in range(3):
        replay.run("a", lambda: ran.append(1))
    assert len(ran) == 3


def test_the_real_driver_has_these_functions():
    driver = pytest.importorskip("cuda.bindings.driver")
    for name in ("cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate", "cuGraphDestroy", "cuGraphLaunch",
                 "cuGraphExecDestroy"):  # fmt: skip
        assert callable(getattr(driver, name))
    assert driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
