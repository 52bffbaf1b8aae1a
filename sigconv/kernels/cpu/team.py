"""A program run by one leader and whatever workers are there: `run` for the leader, `serve` for a worker.

A worker owns one word, its state, and the only transitions are
    AWAY -> READY            worker: arrives
    READY -> AWAY            worker: leaves, by compare-and-swap
    READY -> OFFERED         leader: has a share for it, by compare-and-swap; the share is described beside the state
    OFFERED -> WORKING       worker: takes the share, by compare-and-swap
    OFFERED -> READY         leader: takes the share back and does it itself, by compare-and-swap
    WORKING -> READY         worker: has done the share
Hence each share is done exactly once, and the leader only ever waits for a worker that is at work. If the system takes
such a worker off its core, the leader is held up. It doubts that worker from then on and offers it nothing: the worker
rests for several times as long, then is on trial: it spins, and has the leader's trust again if nothing takes it off
its core meanwhile. If something does, it rests again; so a core that others use costs the leader next to nothing.
The other workers are tried at once.
"""

from __future__ import annotations

import numpy as np

from sigconv.kernels.address import as_pointer
from sigconv.kernels.atomic import (
    TICKS_PER_SECOND,
    atomic_load,
    atomic_replace,
    atomic_store,
    call_kernel,
    pause,
    read_clock,
)
from sigconv.kernels.jit import inline, kernel
from sigconv.kernels.late import carray

STEP = np.dtype([("kernel", np.int64), ("args", np.int64), ("width", np.int64), ("fence", np.int64)])
"""One kernel call. ``width``: most shares of use. ``fence``: all earlier steps end before this one begins."""

RUN = np.dtype([(name, np.int64) for name in ("steps", "n_steps", "team", "profile", "patience")])
"""``profile``: 0, or where to write n_steps + 1 clock readings (every step is fenced then). ``patience``: ticks to wait
for workers that are waking up: a run of one long step would do it alone."""

SERVE = np.dtype([("team", np.int64), ("worker", np.int64), ("spin", np.int64)])
"""``spin``: ticks without work after which the worker leaves."""

LINE = 128  # bytes: two cache lines, since cores fetch them in pairs
STOP, WORKERS = 0, 8  # byte offsets in the first line of a team: leave now; how many workers have a line
LEADER = LINE  # in the second line: whether a run has the team
FIRST_WORKER = 2 * LINE

STATE, STEPS, FIRST, LAST, THREAD, THREADS = range(0, 48, 8)  # byte offsets in a worker's line
DOUBT, REST, RESTED = range(48, 72, 8)
"""Words of a worker's line too. DOUBT: it held the leader up (which writes 1) and has not passed a trial since (then it
writes 0). REST, RESTED: the time until which it rests, and for how long it was to."""

AWAY, READY, OFFERED, WORKING = range(4)

_KERNEL, _ARGS, _WIDTH, _FENCE = range(4)  # fields of STEP as words
_REST_FACTOR = 4  # a worker rests this many times as long as it held the leader up: a run loses at most a quarter so
_TRIAL = TICKS_PER_SECOND // 100  # longer than a system lets one of two threads have a core
_TRIAL_FACTOR = 10  # after a trial that failed a worker rests at least this many times as long as it could have lasted
_LONGEST_REST = TICKS_PER_SECOND // 2  # one trial after the other fails: rests twice as long each time, up to this
_PATIENCE = TICKS_PER_SECOND // 10_000  # a worker may take this much longer than twice the leader
_GLANCE = 64  # spins between two looks at the clock


@inline
def _word(address):
    return carray(as_pointer(address, np.int64), 1)[0]


@inline
def _execute(steps, first, last, thread, threads):
    """What ``thread`` of ``threads`` does of the steps first..last-1; the last ones share a narrow step."""
    table = carray(as_pointer(steps, np.int64), (last, 4))
    for i in range(first, last):
        shares = min(table[i, _WIDTH], threads)
        share = thread - (threads - shares)
        if share >= 0:
            call_kernel(table[i, _KERNEL], table[i, _ARGS], share, shares)


@inline
def _execute_offer(line):
    """The share described in a worker's line."""
    offer = carray(as_pointer(line, np.int64), 6)
    _execute(offer[STEPS // 8], offer[FIRST // 8], offer[LAST // 8], offer[THREAD // 8], offer[THREADS // 8])


@inline
def _ready(line):
    """Whether a worker may be offered a share."""
    return atomic_load(line) == READY and _word(line + DOUBT) == 0


@inline
def _hold_against(line, delay, now):
    """Doubt a worker that held the leader up."""
    words = carray(as_pointer(line, np.int64), LINE // 8)
    words[RESTED // 8], words[REST // 8] = _REST_FACTOR * delay, now + _REST_FACTOR * delay
    atomic_store(line + DOUBT, 1)


@inline
def _try_others(team, delay, now):
    """Have all workers tried before they work again: where one was held up, others soon will be."""
    line, end = team + FIRST_WORKER, team + FIRST_WORKER + LINE * atomic_load(team + WORKERS)
    while line < end:
        words = carray(as_pointer(line, np.int64), LINE // 8)
        if words[DOUBT // 8] == 0:
            words[RESTED // 8], words[REST // 8] = _REST_FACTOR * delay, now
            atomic_store(line + DOUBT, 1)
        line += LINE


@inline
def _present(team, limit):
    """How many of at most ``limit`` threads are there now: the leader and the workers that it can offer a share."""
    end, threads = team + FIRST_WORKER + LINE * atomic_load(team + WORKERS), 1
    line = team + FIRST_WORKER
    while line < end and threads < limit:
        threads += _ready(line)
        line += LINE
    return threads


@inline
def _execute_together(team, steps, first, last, threads):
    """All shares of the steps first..last-1, split among ``threads``; returns when all are done."""
    start = read_clock()
    end = team + FIRST_WORKER + LINE * atomic_load(team + WORKERS)
    offered = 1
    line = team + FIRST_WORKER
    while line < end and offered < threads:
        if _ready(line):
            offer = carray(as_pointer(line, np.int64), 6)
            offer[STEPS // 8], offer[FIRST // 8], offer[LAST // 8] = steps, first, last
            offer[THREAD // 8], offer[THREADS // 8] = offered - 1, threads
            offered += atomic_replace(line, READY, OFFERED)
        line += LINE
    end = line
    # Kernels make the last share the largest. It is the leader's: else it would take uneven shares for a late worker.
    _execute(steps, first, last, threads - 1, threads)
    for thread in range(offered - 1, threads - 1):
        _execute(steps, first, last, thread, threads)
    line = team + FIRST_WORKER
    while line < end:
        if atomic_load(line) == OFFERED and atomic_replace(line, OFFERED, READY):
            _execute_offer(line)
        line += LINE
    line, spins, waited, done, delay, now = team + FIRST_WORKER, 0, 0, 0, 0, 0
    while line < end:
        while atomic_load(line) == WORKING:
            pause()
            spins += 1
            if spins == _GLANCE:
                done = read_clock()
        if done != 0 and spins > waited:
            waited, now = spins, read_clock()
            if now - done > done - start + _PATIENCE:
                delay = now - done
                _hold_against(line, delay, now)
        line += LINE
    if delay != 0:
        _try_others(team, delay, now)


@inline
def _await_workers(team, count, patience):
    """Return when ``count`` workers are ready, or after ``patience`` ticks."""
    end = team + FIRST_WORKER + LINE * atomic_load(team + WORKERS)
    deadline, ready = read_clock() + patience, 0
    while ready < count and read_clock() < deadline:
        pause()
        ready, line = 0, team + FIRST_WORKER
        while line < end:
            ready += _ready(line)
            line += LINE


@kernel(RUN)
def run(args, thread, threads):
    """Run a program with up to ``threads`` threads, the caller being one; alone while another run has the team."""
    a = carray(args, 1)[0]
    steps, n_steps, team, profile = a.steps, a.n_steps, a.team, a.profile
    table = carray(as_pointer(steps, np.int64), (n_steps, 4))
    times = carray(as_pointer(profile, np.int64), n_steps + 1)
    leads = threads > 1 and atomic_replace(team + LEADER, 0, 1)
    if leads and a.patience != 0:
        _await_workers(team, threads - 1, a.patience)
    if profile != 0:
        times[0] = read_clock()
    first = 0
    while first < n_steps:
        width, last = table[first, _WIDTH], first + 1
        while last < n_steps and table[last, _FENCE] == 0 and profile == 0:
            width = max(width, table[last, _WIDTH])
            last += 1
        there = _present(team, min(width, threads)) if leads else 1
        if there > 1:
            _execute_together(team, steps, first, last, there)
        else:
            _execute(steps, first, last, 0, 1)
        if profile != 0:
            times[last] = read_clock()
        first = last
    if leads:
        atomic_store(team + LEADER, 0)


@inline
def _trial(line, end, last, now):
    """When a doubted worker's trial ends; 0: not begun, or passed; -1: it must rest. ``last``: its last glance."""
    words = carray(as_pointer(line, np.int64), LINE // 8)
    if end <= 0:
        rest = words[REST // 8]
        return -1 if rest - now > _TRIAL else max(rest, now + min(words[RESTED // 8], _TRIAL))
    if now - last > _PATIENCE:
        rest = min(words[RESTED // 8], _TRIAL)
        words[RESTED // 8] = min(2 * words[RESTED // 8], _LONGEST_REST)
        words[REST // 8] = now + max(_TRIAL_FACTOR * rest, words[RESTED // 8])
        return 0
    if now < end:
        return end
    atomic_store(line + DOUBT, 0)
    return 0


@kernel(SERVE)
def serve(args, thread, threads):
    """Work for a team until no run wanted help for ``spin`` ticks, or it stops; within a run nobody wakes a worker."""
    a = carray(args, 1)[0]
    team, spin = a.team, a.spin
    line = team + FIRST_WORKER + LINE * a.worker
    atomic_store(line, READY)
    idle, deadline, trial, last = 0, 0, 0, 0
    while True:
        if atomic_load(line) == OFFERED:
            if atomic_replace(line, OFFERED, WORKING):
                _execute_offer(line)
                atomic_store(line, READY)
                idle = deadline = 0
            continue
        pause()
        idle += 1
        if idle % _GLANCE == 0:
            now = read_clock()
            if _word(line + DOUBT) != 0:
                trial = _trial(line, trial, last, now)
                deadline = now if trial < 0 else now + spin
            elif deadline == 0 or atomic_load(team + LEADER) != 0:
                deadline = now + spin
            last = now
            if (now >= deadline or atomic_load(team + STOP) != 0) and atomic_replace(line, READY, AWAY):
                return
