"""The disk cache of compiled kernels: byte strings by key, in a folder only this user can write. It never raises.

What it returns is machine code, so a folder that somebody else owns or may write to is not read. Every file is written
whole or not at all and carries its own digest: any number of processes may share the folder, and a damaged file counts
as missing. Where no folder can be used, nothing is kept.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from sigconv import config
from sigconv.digest import digest

_SUFFIX = ".kernel"
_DAY = 86400.0
_KEEP_DAYS = 30  # a file that no process has read for so long belongs to an older build


@dataclass(frozen=True, slots=True)
class CacheInfo:
    """State of the cache. ``problem`` says why the folder cannot be used; empty where it can."""

    folder: Path
    problem: str
    files: int
    nbytes: int


def folder() -> Path:
    """Where the kernels lie: a folder of our own inside ``config.cache_dir``, so that its permissions are ours."""
    return Path(config.get("cache_dir")) / "kernels"


def load(key: str) -> bytes | None:
    """The bytes stored under ``key``, or None."""
    try:
        directory = folder()
        if _problem(directory):
            return None
        path = directory / (key + _SUFFIX)
        content = path.read_bytes()
    except (OSError, RuntimeError):
        return None
    kept, blob = content[:32], content[32:]
    if digest(blob).digest() != kept:
        return None
    with contextlib.suppress(OSError):
        if time.time() - path.stat().st_mtime > _DAY:
            os.utime(path)
    return blob


def store(key: str, blob: bytes) -> bool:
    """Keep ``blob`` under ``key``; False where the folder cannot be used or is full."""
    try:
        directory = folder()
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
        if _problem(directory):
            return False
        handle, temporary = tempfile.mkstemp(dir=directory)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(digest(blob).digest() + blob)
            os.replace(temporary, directory / (key + _SUFFIX))
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            return False
    except (OSError, RuntimeError):
        return False
    _forget(directory, older_than=_KEEP_DAYS * _DAY)
    return True


def info() -> CacheInfo:
    """Where the cache is, whether it can be used, and what it holds."""
    directory = folder()
    try:
        sizes = [entry.stat().st_size for entry in os.scandir(directory) if entry.name.endswith(_SUFFIX)]
        return CacheInfo(directory, _problem(directory), len(sizes), sum(sizes))
    except OSError as error:
        return CacheInfo(directory, f"{error.strerror}: {directory}", 0, 0)


def clear() -> int:
    """Delete every stored kernel; how many there were. Programs that run keep theirs."""
    directory = folder()
    return 0 if _problem(directory) else _forget(directory, older_than=None)


def _problem(directory: Path) -> str:
    try:
        status = directory.stat()
    except OSError as error:
        return f"{error.strerror}: {directory}"
    if hasattr(os, "getuid"):
        if status.st_uid != os.getuid():
            return f"another user owns {directory}"
        if status.st_mode & 0o022:
            return f"other users may write to {directory}"
    return ""


def _forget(directory: Path, older_than: float | None) -> int:
    """Delete the files last read or written ``older_than`` seconds ago (None: all), leftovers of killed writers too."""
    deleted = 0
    with contextlib.suppress(OSError):
        for entry in os.scandir(directory):
            with contextlib.suppress(OSError):
                if older_than is None or time.time() - entry.stat().st_mtime > older_than:
                    os.unlink(entry.path)
                    deleted += entry.name.endswith(_SUFFIX)
    return deleted
