"""Many threads, forked children and a busy machine: identical bits, nothing aborts, nothing hangs.

Everything runs in processes of its own: an abort or a deadlock would take the test run with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SECONDS = 10.0 if os.environ.get("CI") == "true" else 2.0

PRELUDE = """
import faulthandler, os, signal, subprocess, sys, threading, time, warnings
faulthandler.dump_traceback_later(60, exit=True)  # a deadlock shows where everyone is
import numpy as np
import sigconv as sc
from tests.cases import networks

rng = np.random.default_rng(0)
proto = networks.cnn(size=24)
model = sc.load(proto)
feeds = [{"x": rng.standard_normal((n, 3, 24, 24)).astype(np.float32)} for n in (1, 1, 2, 3)]
wants = [model.compile({"x": f["x"].shape}, threads=1).run(f)["y"] for f in feeds]
"""


def run(program: str, **env: str) -> str:
    """What a program prints; it must end well and say nothing on stderr."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELUDE + textwrap.dedent(program)],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


HAMMER = """
shared = model.compile({"x": feeds[0]["x"].shape}, threads=2)
failures, counts, end = [], [0] * 16, time.monotonic() + SECONDS

def own(i):
    sessions = [sc.load(proto).compile({"x": f["x"].shape}, threads=1 + i % 3) for f in feeds]
    return lambda k: sessions[k].run(feeds[k])["y"]

def hammer(i):
    try:
        kinds = (
            lambda: (lambda k: model.run(feeds[k])["y"]),
            lambda: (lambda k: shared.run(feeds[k % 2])["y"]),
            lambda: own(i),
        )
        call = kinds[i % 3]()
        while time.monotonic() < end or not counts[i]:
            k = (i + counts[i]) % (2 if i % 3 == 1 else 4)
            if not np.array_equal(call(k), wants[k]):
                failures.append(f"thread {i} got other bits for input {k} in its call {counts[i]}")
                return
            counts[i] += 1
    except BaseException as e:
        failures.append(f"thread {i}: {type(e).__name__}: {e}")

threads = [threading.Thread(target=hammer, args=(i,)) for i in range(16)]
for t in threads:
    t.start()
for t in threads:
    t.join()
assert not failures, failures
assert min(counts) > 0
print(sum(counts))
"""


def test_sixteen_threads_on_shared_and_own_sessions():
    assert int(run(f"SECONDS = {SECONDS}\n" + HAMMER)) > 16 * 10


def test_threads_that_all_compile_at_once():
    """Sixteen threads load the model's kernels together, from the first line on."""
    program = """
    fresh, barrier, results = sc.load(proto), threading.Barrier(16), [None] * 16
    def first(i):
        barrier.wait()
        results[i] = fresh.run(feeds[i % 4])["y"]
    threads = [threading.Thread(target=first, args=(i,)) for i in range(16)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert all(np.array_equal(r, wants[i % 4]) for i, r in enumerate(results))
    """
    run(program)


def test_a_busy_machine():
    """Other processes burn every core meanwhile: slower, never wrong."""
    program = f"""
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count())]
    try:
        time.sleep(0.2)
        session = model.compile({{"x": feeds[3]["x"].shape}}, threads=4)
        end, runs = time.monotonic() + {SECONDS / 2}, 0
        while time.monotonic() < end or not runs:
            assert np.array_equal(session.run(feeds[3])["y"], wants[3])
            runs += 1
        print(runs)
    finally:
        for b in burners: b.kill()
        for b in burners: b.wait()
    """
    assert int(run(program)) > 0


FORK = """
def child(work):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns where threads exist, as ours do
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(20)  # the watchdog's thread is gone, and starting another would wait for it
            status = 0 if work() else 2
        finally:
            os._exit(status)
    return pid

def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

session = model.compile({"x": feeds[3]["x"].shape}, threads=3)
session.run(feeds[3])
model.run(feeds[1])
def right():
    return (
        np.array_equal(session.run(feeds[3])["y"], wants[3])
        and np.array_equal(model.run(feeds[1])["y"], wants[1])
        and np.array_equal(sc.load(proto).compile({"x": feeds[2]["x"].shape}, threads=2).run(feeds[2])["y"], wants[2])
    )
"""

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@forks
def test_a_forked_child_works_and_so_does_its_parent():
    program = """
    children = [child(lambda: all(right() for _ in range(20))) for _ in range(3)]
    assert all(right() for _ in range(20))
    assert [ended(c) for c in children] == [0, 0, 0]
    assert right()
    """
    run(FORK + textwrap.dedent(program))


@forks
def test_a_child_forked_while_other_threads_run():
    """Locks that other threads held at that moment must not stay locked in the child."""
    program = """
    stop = threading.Event()
    def busy(call):
        while not stop.is_set():
            call()
    calls = [lambda: session.run(feeds[3]), lambda: session.run(feeds[3]), lambda: model.run(feeds[1])]
    threads = [threading.Thread(target=busy, args=(c,), daemon=True) for c in calls]
    for t in threads: t.start()
    for _ in range(8):
        assert ended(child(right)) == 0
    stop.set()
    for t in threads: t.join()
    assert right()
    """
    run(FORK + textwrap.dedent(program))


@forks
def test_a_grandchild():
    run(FORK + "assert ended(child(lambda: ended(child(right)) == 0 and right())) == 0\n")


def test_processes_that_are_spawned():
    """multiprocessing's other way: each child loads the model itself."""
    program = """
    import concurrent.futures, multiprocessing
    with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(networks_run, proto.SerializeToString(), f) for f in feeds]
        assert all(np.array_equal(j.result(), w) for j, w in zip(jobs, wants))
    """
    run("from tests.test_concurrency import networks_run\n" + textwrap.dedent(program))


def networks_run(data: bytes, feeds: dict[str, object]) -> object:
    import sigconv as sc

    return sc.load(data).run(feeds)["y"]
