"""The thread team: every share once, fences hold, and nobody waits for a worker that is not there."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numba import carray

from sigconv.kernels import atomic
from sigconv.kernels.address import as_pointer
from sigconv.kernels.cpu import team as native
from sigconv.kernels.jit import kernel
from sigconv.runtime.runner import STEP, Prepared
from sigconv.runtime.team import TEAM, KernelFunction, Team

MARK = np.dtype([("shares", np.int64), ("times", np.int64)])
MIX = np.dtype([("x", np.int64), ("y", np.int64), ("n", np.int64)])
WORDS = np.dtype([("address", np.int64), ("results", np.int64)])


@kernel(MARK)
def mark(args, thread, threads):
    """Note who did which share; last about ``times`` microseconds or more."""
    a = carray(args, 1)[0]
    shares = carray(as_pointer(a.shares, np.int64), (2, 64))
    for _ in range(a.times * 8):
        atomic.pause()
    atomic.atomic_add(a.shares + 8 * thread, 1)
    shares[1, thread] = threads


@kernel(MARK)
def lag(args, thread, threads):
    """The leader's share, the last, is done at once; the others last some 2 ms, as if the system held them up."""
    if thread < threads - 1:
        end = atomic.read_clock() + atomic.TICKS_PER_SECOND // 500
        while atomic.read_clock() < end:
            atomic.pause()


@kernel(MIX)
def mix(args, thread, threads):
    """y[i] = 3 x[n-1-i] + i: every share reads what other shares of the step before have written."""
    a = carray(args, 1)[0]
    x, y = carray(as_pointer(a.x, np.int64), a.n), carray(as_pointer(a.y, np.int64), a.n)
    for i in range(a.n * thread // threads, a.n * (thread + 1) // threads):
        y[i] = 3 * x[a.n - 1 - i] + i


@kernel(WORDS)
def use_words(args, thread, threads):
    a = carray(args, 1)[0]
    results = carray(as_pointer(a.results, np.int64), 8)
    results[0] = atomic.atomic_add(a.address, 5)
    results[1] = atomic.atomic_replace(a.address, 8, 9)
    results[2] = atomic.atomic_load(a.address)
    results[3] = atomic.atomic_replace(a.address, 15, 9)
    results[4] = atomic.atomic_load(a.address)
    results[5] = atomic.read_clock()
    atomic.atomic_store(a.address, 11)


class Marks:
    """Steps of the kernel `mark`, each with its own table of who did what."""

    def __init__(self, widths: list[int], fences: list[int] | None = None, times: int = 0) -> None:
        self.shares = np.zeros((len(widths), 2, 64), np.int64)
        self.records = np.array([(table.ctypes.data, times) for table in self.shares], MARK)
        self.steps = np.zeros(len(widths), STEP)
        self.steps["kernel"], self.steps["width"] = mark.address, widths
        self.steps["args"] = [r.ctypes.data for r in np.split(self.records, len(widths))] if widths else []
        self.steps["fence"] = fences or 1

    def check(self, runs: int, threads: int) -> None:
        """Every share of every step was done once a run, for some number of threads up to the width."""
        for (counts, split), width in zip(self.shares, self.steps["width"], strict=True):
            assert counts[0] == runs
            assert (np.diff(counts) <= 0).all(), "share i+1 exists only where share i does"
            assert split.max() <= min(width, threads)
            assert not counts[min(width, threads) :].any()


class Chain:
    """A chain of the kernel `mix` on two buffers, and its result by NumPy."""

    def __init__(self, seed: int, n: int = 257, length: int = 40, team: Team = TEAM) -> None:
        self.buffers = np.zeros((2, n), np.int64)
        self.start = np.random.default_rng(seed).integers(0, 1 << 20, n)
        addresses = [b.ctypes.data for b in self.buffers]
        self.records = np.array([(addresses[i % 2], addresses[1 - i % 2], n) for i in range(length)], MIX)
        steps = np.zeros(length, STEP)
        steps["kernel"], steps["width"], steps["fence"] = mix.address, 64, 1
        steps["args"] = self.records.ctypes.data + MIX.itemsize * np.arange(length)
        self.prepared = Prepared(steps, team)
        self.expected = self.start.copy()
        for _ in range(length):
            self.expected = 3 * self.expected[::-1] + np.arange(n)
        self.result = self.buffers[length % 2]

    def check(self, threads: int) -> None:
        self.buffers[0] = self.start
        self.prepared.run(threads)
        np.testing.assert_array_equal(self.result, self.expected)


@pytest.fixture
def team():
    """A team of our own, ended after the test."""
    team = Team()
    yield team
    team.stop()


@contextlib.contextmanager
def hogs() -> Iterator[None]:
    """A process for each core that never rests."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        time.sleep(0.2)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def python(program: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a program beside this module's kernels."""
    prelude = "import os, sys, time, threading\nfrom tests.test_team import *\n"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])} | env
    return subprocess.run(
        [sys.executable, "-c", prelude + textwrap.dedent(program)],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_atomic_words() -> None:
    word, results = np.array([10], np.int64), np.zeros(8, np.int64)
    record = np.array([(word.ctypes.data, results.ctypes.data)], WORDS)
    before = time.monotonic()
    KernelFunction(use_words.address)(record.ctypes.data, 0, 1)
    assert results[:5].tolist() == [10, 0, 15, 1, 9]
    assert word[0] == 11
    assert before <= results[5] / atomic.TICKS_PER_SECOND <= time.monotonic() or sys.platform != "linux"


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_fences_hold(team: Team, threads: int) -> None:
    chains = [Chain(seed, team=team) for seed in range(3)]
    for _ in range(200):
        for chain in chains:
            chain.check(threads)
    assert team.size == threads - 1


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_share_once(team: Team, threads: int) -> None:
    marks = Marks([1, 7, 2, 1, 64, 3, 1, 1, 5], [1, 0, 1, 1, 0, 0, 1, 0, 1])
    prepared = Prepared(marks.steps, team)
    for _ in range(500):
        prepared.run(threads)
    marks.check(500, threads)


def test_narrow_steps_need_no_team(team: Team) -> None:
    marks = Marks([1, 1, 1])
    Prepared(marks.steps, team).run(8)
    marks.check(1, 1)
    assert team.size == 0


def test_no_steps(team: Team) -> None:
    Prepared(np.zeros(0, STEP), team).run(4)


def test_a_worker_that_never_comes_costs_nothing(team: Team) -> None:
    """A worker whose thread was taken off its core right after it got ready: the leader does its share."""
    words, gap = team.words, native.LINE // 8
    first = native.FIRST_WORKER // 8
    words[native.WORKERS // 8] = 3
    words[first] = words[first + 2 * gap] = native.READY
    marks = Marks([64] * 50)
    prepared = Prepared(marks.steps, team)
    prepared._call(prepared._address, 0, 4)
    assert (marks.shares[:, 0, :3] == 1).all()
    assert (marks.shares[:, 1, :3] == 3).all()
    assert not marks.shares[:, :, 3:].any()
    assert words[first : first + 3 * gap : gap].tolist() == [native.READY, native.AWAY, native.READY]


def test_workers_join_a_run_that_has_begun(team: Team) -> None:
    marks = Marks([64] * 2000, times=20)
    prepared = Prepared(marks.steps, team)
    for _ in range(50):
        time.sleep(0.01)  # they sleep
        marks.shares[:] = 0
        prepared.run(2)
        marks.check(1, 2)
        split = marks.shares[:, 1, 0]
        if split[0] == 1 and split.max() == 2:
            return
    pytest.fail("no worker ever joined a run under way")


def test_the_team_serves_one_run_at_a_time(team: Team) -> None:
    team.words[native.LEADER // 8] = 1  # as if another thread were running
    marks = Marks([64] * 5)
    prepared = Prepared(marks.steps, team)
    prepared.run(4)
    time.sleep(0.01)
    prepared.run(4)
    marks.check(2, 1)
    assert team.words[native.LEADER // 8] == 1


def test_sixteen_threads(team: Team) -> None:
    end = time.monotonic() + 2

    def hammer(seed: int) -> int:
        chain, runs = Chain(seed, team=team), 0
        while time.monotonic() < end:
            chain.check(threads=2 + seed % 3)
            runs += 1
        return runs

    with ThreadPoolExecutor(16) as pool:
        assert min(pool.map(hammer, range(16))) > 0
    assert team.size == 3


def test_oversubscribed_machine(team: Team) -> None:
    """More spinning threads than cores, and cores taken by others: a run takes about as long as without a team."""
    chain = Chain(0, n=20000, length=50, team=team)

    def seconds(threads: int) -> float:
        start = time.perf_counter()
        for _ in range(100):
            chain.prepared.run(threads)
        return time.perf_counter() - start

    with hogs():
        alone, together = (min(seconds(threads) for _ in range(2)) for threads in (1, 8))
    chain.check(8)
    assert together < 3 * alone


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity masks")
def test_a_single_core_has_no_workers(team: Team) -> None:
    mask = os.sched_getaffinity(0)
    chain = Chain(0, n=20000, length=50, team=team)
    try:
        os.sched_setaffinity(0, {min(mask)})
        for _ in range(50):
            chain.check(4)
        assert team.size == 0
    finally:
        os.sched_setaffinity(0, mask)
    if len(mask) > 1:
        for _ in range(50):
            chain.check(4)
        assert team.size == 3


MILLISECOND = atomic.TICKS_PER_SECOND // 1000


def until_asleep(team: Team) -> None:
    """Wait until the only worker sleeps."""
    end = time.monotonic() + 20
    while not team.asleep:
        assert time.monotonic() < end
        time.sleep(0.01)


def held_against(team: Team, rested: int, ago: int, doubt: int = 0) -> np.ndarray:
    """The words of the first worker, after a rest of ``rested`` ms that ended ``ago`` ms before now."""
    line = team.line(0)
    line[native.RESTED // 8], line[native.REST // 8] = rested * MILLISECOND, atomic.ticks() - ago * MILLISECOND
    line[native.DOUBT // 8] = doubt
    return line


def test_a_rest_is_as_long_as_the_delay_asks_for(team: Team) -> None:
    """Whatever came before: a machine that was loaded for long and no longer is has all its threads again."""
    steps = np.zeros(1, STEP)
    steps["kernel"], steps["width"], steps["fence"] = lag.address, 2, 1
    prepared = Prepared(steps, team)

    def held_up(before: int) -> int:
        """The rest when a worker is next held up, after one of ``before`` that has just ended, in ms."""
        line, end = held_against(team, before, ago=0), time.monotonic() + 20
        while not line[native.DOUBT // 8]:
            assert time.monotonic() < end, "no worker ever came"
            prepared.run(2)
        return int(line[native.RESTED // 8]) // MILLISECOND

    for before in (0, 200, 500):
        assert 6 <= min(held_up(before) for _ in range(5)) < 200  # others may hold it up for longer


def test_a_doubted_worker_is_tried_before_it_works(team: Team) -> None:
    marks = Marks([64] * 50, times=20)
    prepared = Prepared(marks.steps, team)
    prepared.run(2)
    until_asleep(team)
    line = held_against(team, rested=100, ago=-200, doubt=1)
    marks.shares[:], slept = 0, False
    while atomic.ticks() < line[native.REST // 8]:
        prepared.run(2)
        slept = slept or bool(team.asleep)
    assert marks.shares[:, 1].max() == 1, "it rested"
    assert slept

    end = time.monotonic() + 60
    while line[native.DOUBT // 8]:  # others may take its core meanwhile, any number of times
        assert time.monotonic() < end
        assert marks.shares[:, 1].max() == 1
        prepared.run(2)
    while marks.shares[:, 1].max() == 1:
        assert time.monotonic() < end
        prepared.run(2)


def test_a_worker_that_shares_its_core_fails_its_trial(team: Team) -> None:
    chain = Chain(0, n=20000, length=50, team=team)
    chain.check(2)
    until_asleep(team)
    line = held_against(team, rested=100, ago=1, doubt=1)
    with hogs():
        end = time.monotonic() + 20
        while line[native.RESTED // 8] == 100 * MILLISECOND:
            assert time.monotonic() < end
            if not line[native.DOUBT // 8]:
                held_against(team, rested=100, ago=1, doubt=1)
            chain.check(2)
        assert line[native.DOUBT // 8]
        assert line[native.RESTED // 8] >= 200 * MILLISECOND
        assert line[native.REST // 8] > atomic.ticks() + 50 * MILLISECOND


def test_idle_workers_sleep(team: Team) -> None:
    chain = Chain(0, team=team)
    for _ in range(10):
        chain.check(3)
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.01
    assert len(team.asleep) == 2
    chain.check(3)


def test_profile_times_every_step(team: Team) -> None:
    marks = Marks([64, 64, 64], [1, 0, 0])
    marks.records["times"] = [10, 2000, 10]
    prepared = Prepared(marks.steps, team)
    seconds = np.min([prepared.profile(2) for _ in range(5)], axis=0)  # whatever else the machine does meanwhile
    assert seconds.shape == (3,)
    assert seconds.argmax() == 1
    assert (seconds > 0).all()
    prepared.run(2)
    marks.check(6, 2)


def test_steps_are_checked() -> None:
    with pytest.raises(ValueError, match=r"contiguous vector.*shape \(2,\)"):
        Prepared(np.zeros(4, STEP)[::2])
    with pytest.raises(ValueError, match="int64"):
        Prepared(np.zeros(4, np.int64))


def test_team_ends(team: Team) -> None:
    chain = Chain(0, team=team)
    chain.check(4)
    team.stop()
    assert not [t for t in team._threads if t.is_alive()]
    assert team.size == 3
    chain.check(8)
    assert team.size == 3


def test_no_more_threads_to_be_had(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = Chain(0, team=team)
    chain.check(2)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    for _ in range(10):
        chain.check(4)
    assert team.size == 1


def test_bad_setting_is_named(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGCONV_SPIN_US", "long")
    with pytest.raises(ValueError, match="SIGCONV_SPIN_US='long'"):
        Chain(0, team=team).check(2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_forked_child() -> None:
    done = python("""
        chain = Chain(0)
        end, busy = time.monotonic() + 1, threading.Event()
        def hammer():
            other = Chain(1)
            while time.monotonic() < end:
                other.check(3)
                busy.set()
        thread = threading.Thread(target=hammer)
        thread.start()
        busy.wait()
        for _ in range(5):  # the other thread may have the team at this moment
            child = os.fork()
            if child == 0:
                assert TEAM.size == 0
                for _ in range(200):
                    chain.check(3)
                assert TEAM.size == 2
                sys.exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        thread.join()
        chain.check(3)
    """)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("spin_us", ["1000", "10000000"])
def test_interpreter_exits_with_workers_at_work(spin_us: str) -> None:
    """Hot workers, a daemon thread in the middle of a run, and a run after the team was ended: a clean, quick exit."""
    done = python(
        """
        import atexit
        start = time.monotonic()
        last = Chain(1)
        atexit.register(lambda: (last.check(3), print(time.monotonic() - start)))
        chain = Chain(0)
        chain.check(3)
        def forever():
            own = Chain(2, length=4000)
            while True:
                own.check(3)
        threading.Thread(target=forever, daemon=True).start()
        time.sleep(0.05)
        """,
        SIGCONV_SPIN_US=spin_us,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert float(done.stdout) < 5


def test_no_threading_layer_is_loaded() -> None:
    done = python("""
        Chain(0).check(4)
        assert not [m for m in sys.modules if m.startswith("numba.np.ufunc.") and m.endswith(("pool", "workqueue"))]
        assert threading.active_count() == 4
    """)
    assert (done.returncode, done.stderr) == (0, "")


def test_workers_are_daemons_with_names() -> None:
    Chain(0).check(2)
    names = [t.name for t in threading.enumerate() if t.daemon]
    assert "sigconv-1" in names
