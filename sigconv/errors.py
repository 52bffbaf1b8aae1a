"""Every exception sigconv raises on purpose. Each message names the argument, node or file it is about."""

from __future__ import annotations

from collections.abc import Sequence


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
