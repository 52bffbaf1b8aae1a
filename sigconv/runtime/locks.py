"""Locks that are open in a forked child: the threads that held them do not exist there."""

from __future__ import annotations

import os
import threading
import weakref

_ALL: weakref.WeakSet[threading.Lock] = weakref.WeakSet()


def lock() -> threading.Lock:
    """A `threading.Lock` that a fork opens in the child, whoever holds it."""
    made = threading.Lock()
    _ALL.add(made)
    return made


def _open_all() -> None:
    for each in _ALL:
        each._at_fork_reinit()  # type: ignore[attr-defined]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_open_all)
