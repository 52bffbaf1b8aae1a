"""Every knob, as data: its name, environment variable, default and help text.

`get` reads the environment when it is called, so a variable set after the import still counts. Imports nothing of ours.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Knob:
    """One setting. ``parse`` turns the variable's text into the value, or raises ValueError saying what is accepted."""

    name: str
    default: str
    parse: Callable[[str], Any]
    help: str

    @property
    def env(self) -> str:
        """The environment variable."""
        return f"SIGCONV_{self.name.upper()}"


def available_cores() -> int:
    """Cores this process may use: its affinity mask, cut by a container's CPU quota; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota()
    return cores if quota is None else max(1, min(cores, int(quota)))


def _cgroup_quota(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> float | None:
    """The CPU quota of this process' control group in cores (the tightest on the way up), or None."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    quotas = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        group = root / "cpu" if controllers else root
        for folder in (group, *(group.joinpath(*Path(path).parts[1 : n + 1]) for n in range(1, len(Path(path).parts)))):
            try:
                if controllers:
                    quota, period = ((folder / f"cpu.cfs_{n}_us").read_text().strip() for n in ("quota", "period"))
                else:
                    quota, period = (folder / "cpu.max").read_text().split()
            except (OSError, ValueError):
                continue
            if quota not in ("max", "-1"):
                quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


_CONTAINER = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def available_memory() -> int:
    """Bytes this process could ever have: the machine's memory, cut by a container's limit and by ``ulimit -v``."""
    limits = [sys.maxsize]
    with contextlib.suppress(AttributeError, ValueError, OSError):
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for file in _CONTAINER:
        with contextlib.suppress(OSError, ValueError):  # "max": none
            limits.append(int(file.read_text()))
    with contextlib.suppress(ImportError):
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        limits.append(soft if soft != resource.RLIM_INFINITY else sys.maxsize)
    return min(limit for limit in limits if limit > 0)


def _integer(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError
    return value


def _threads(text: str) -> int:
    return _integer(text) or available_cores()


def _folder(text: str) -> Path:
    if text:
        return Path(text).expanduser()
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("sigconv", appauthor=False))


def _on(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError
    return text == "1"


def _switch(text: str) -> str:
    if text not in ("auto", "0", "1"):
        raise ValueError
    return text


KNOBS = {
    knob.name: knob
    for knob in (
        Knob(
            "threads",
            "0",
            _threads,
            "Threads of a session that names none; an integer. 0: every core this process may use "
            "(its affinity mask, cut by a container's CPU quota).",
        ),
        Knob(
            "cache_dir",
            "",
            _folder,
            "Folder of the compiled kernels. Empty: the user's cache folder (~/.cache/sigconv on Linux).",
        ),
        Knob(
            "spin_us",
            "1000",
            _integer,
            "Microseconds, an integer: how long an idle worker thread spins for the next run before it sleeps. "
            "Longer answers sooner, shorter leaves the cores to others.",
        ),
        Knob(
            "cuda_graphs",
            "1",
            _on,
            "Whether a session on a CUDA device records its launches at the second run and replays them as a CUDA "
            "graph from then on; 0 or 1. 0: every kernel is launched by itself.",
        ),
        Knob(
            "progress",
            "auto",
            _switch,
            "Progress bar while kernels compile, on stderr. auto: on a terminal, once it takes longer than a second; "
            "0: never; 1: always.",
        ),
    )
}
"""Every knob by name."""


def get(name: str) -> Any:
    """The knob's value now: its environment variable's, else its default's.

    ``threads`` comes resolved (at least 1), ``cache_dir`` as a Path. A value that cannot be read is a ValueError that
    names the variable, the value and what it accepts.
    """
    knob = KNOBS[name]
    text = os.environ.get(knob.env, "").strip() or knob.default
    try:
        return knob.parse(text)
    except ValueError:
        raise ValueError(f"{knob.env}={text!r} cannot be read. {knob.help}") from None


def as_markdown() -> str:
    """The knobs as a Markdown table: the page in docs is this text."""
    rows = [f"| `{k.env}` | {f'`{k.default}`' if k.default else 'empty'} | {k.help} |" for k in KNOBS.values()]
    return "\n".join(["| Variable | Default | Meaning |", "| --- | --- | --- |", *rows]) + "\n"


if __name__ == "__main__":
    print("# Configuration\nEnvironment variables, read when they are needed.\n")
    print(as_markdown(), end="")
