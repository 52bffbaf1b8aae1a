"""The command line: networks, signals, pictures, the cache of compiled kernels, and the CUDA device.

Exit codes: 0 fine, 1 a check failed, 2 bad usage or unreadable input (one line on stderr, no traceback).
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence

import sigconv
from sigconv.cli import compiled, explain, gpu, networks, pictures, sounds
from sigconv.cli.options import Commands
from sigconv.errors import SigconvError


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        "sigconv",
        description="Convolve sounds and pictures, and run CNNs, on kernels written in Python.",
        epilog="sigconv COMMAND --help tells more, with examples. Start with: sigconv demo",
    )
    top.add_argument("--version", action="version", version=f"sigconv {sigconv.__version__}")
    commands = Commands(top)
    for group in (networks, explain, sounds, pictures, compiled, gpu):
        group.add(commands)
    return top


def _refuse(why: str) -> int:
    """One line on stderr, and the exit code for what cannot be read or done."""
    print(f"sigconv: {' '.join(why.split())}", file=sys.stderr)
    return 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code. Argparse ends the process itself on bad usage, with 2."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a node may be named in letters that the terminal lacks
    arguments = parser().parse_args(argv)
    try:
        code = arguments.action_(arguments)
        sys.stdout.flush()
        return int(code)
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _refuse(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    except MemoryError as error:
        return _refuse(str(error) or "not enough memory")
    except (SigconvError, ValueError, RuntimeError, ModuleNotFoundError) as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        return 130
