"""Commands about compiled kernels: ``sigconv warmup | cache``."""

from __future__ import annotations

import argparse

from sigconv.cli.options import Commands


def warmup(arguments: argparse.Namespace) -> int:
    """Compile every kernel ahead of its first use."""
    from sigconv.kernels import jit

    jit.warmup()
    return cache(argparse.Namespace(action="info"))


def cache(arguments: argparse.Namespace) -> int:
    """Show or empty the folder of compiled kernels."""
    from sigconv.kernels import jit

    if arguments.action == "clear":
        print(f"deleted {jit.cache_clear()} kernels")
    state = jit.cache_info()
    print(
        f"{state.folder}: {state.files} kernels, {state.nbytes:,} bytes" + f" ({state.problem})" * bool(state.problem)
    )
    return 0


def add(commands: Commands) -> None:
    """Declare the commands."""
    commands.add(warmup)
    sub = commands.add(cache)
    sub.add_argument("action", choices=("info", "clear"), nargs="?", default="info")
