"""What the commands share: how one is declared, types of arguments, JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any


class Commands:
    """The subcommands of a parser. A command is a function; its docstring's first line is its help."""

    def __init__(self, top: argparse.ArgumentParser) -> None:
        self._parsers = top.add_subparsers(metavar="COMMAND", required=True)

    def add(
        self, action: Callable[[argparse.Namespace], int], *groups: str, epilog: str | None = None
    ) -> argparse.ArgumentParser:
        """Declare a command with groups of options: 'model', 'shape', 'threads', 'device', 'json'."""
        first, _, rest = (action.__doc__ or "").strip().partition("\n")
        sub = self._parsers.add_parser(
            action.__name__.rstrip("_"),
            help=first,
            description="\n".join(line.removeprefix("    ") for line in [first, *rest.splitlines()]),
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(action_=action)
        if "model" in groups:
            sub.add_argument("model", metavar="MODEL", help="an .onnx file")
        if "shape" in groups:
            sub.add_argument(
                "--shape", action="append", default=[], metavar="NAME=1,3,224,224", help="shape of an input; repeatable"
            )
        if "threads" in groups:
            sub.add_argument(
                "--threads", type=positive, metavar="N", help="most threads to use (default: every core it may use)"
            )
        if "device" in groups:
            sub.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="what runs it (default: cpu)")
            sub.add_argument(
                "--fallback", choices=("cpu",), help="run nodes that have no CUDA kernel on the host, not an error"
            )
        if "json" in groups:
            sub.add_argument("--json", action="store_true", help="print JSON")
        return sub


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive integer")
    return int(text)


def numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(t) for t in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: one number, or one for each channel with commas between") from None


def divisors(text: str) -> tuple[float, ...]:
    values = numbers(text)
    if 0 in values:
        raise argparse.ArgumentTypeError(f"{text!r}: nothing can be divided by 0")
    return values


def lengths(text: str) -> tuple[int, ...]:
    """The sizes of an array: ``1000000`` or ``512x512``."""
    try:
        found = tuple(int(t.replace("_", "")) for t in text.lower().replace("×", "x").replace(",", "x").split("x"))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: write sizes as 1000000 or 512x512")
    return found


def print_json(document: dict[str, Any]) -> None:
    """One line; JSON knows no NaN and no infinity, so they are null."""
    print(json.dumps(json.loads(json.dumps(document), parse_constant=lambda _: None)))
