"""Every exception sigconv raises on purpose. Each message names the argument, node or file it is about."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class SigconvError(Exception):
    """Base class of all errors raised by sigconv."""


class ModelError(SigconvError, ValueError):
    """A model file or graph is malformed: the message names the file, node or tensor."""


class UnsupportedError(ModelError):
    """A valid model needs something sigconv lacks; ``missing`` lists every such item at once."""

    def __init__(self, message: str, missing: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.missing = tuple(missing)


class InputError(SigconvError, ValueError):
    """A feed or argument has the wrong name, shape or dtype."""


class DeviceError(SigconvError, RuntimeError):
    """There is no usable CUDA device, or it failed: the message says what to install or change."""


def unknown_names(kind: str, names: Iterable[str], known: Iterable[str]) -> InputError:
    """The error for names that no input (``kind='input'``) or output has."""
    asked, have = ", ".join(sorted(map(repr, names))), ", ".join(map(repr, known))
    return InputError(f"no {kind} is called {asked} ({kind}s: {have or 'none'})")


def wrong_dtype(name: str, given: object, wanted: object) -> InputError:
    """The error for a feed of another dtype; nothing is converted silently."""
    return InputError(f"input {name!r} is {given}, the model takes {wanted}: convert it with .astype({str(wanted)!r})")
