"""The command line called in this process."""

from __future__ import annotations

from sigconv import cli


def call(*argv: str) -> int:
    """The exit code, also where argparse ends the process."""
    try:
        return cli.main(list(argv))
    except SystemExit as stop:
        return int(stop.code or 0)
