"""Stand-ins for what only a compilation needs, so that kernels are declared without Numba.

A process whose kernels all lie in the disk cache never imports Numba or LLVM: it starts in a third of the time and
keeps 60 MB less. Numba takes a `Late` global of a kernel for the object that it stands for.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any


class Late:
    """What ``make`` returns, made on first use: a function that compiled code calls."""

    def __init__(self, make: Callable[[], Any], like: Callable[..., Any] | None = None) -> None:
        self._make, self._made = make, None
        if like is not None:
            functools.update_wrapper(self, like)

    @property
    def made(self) -> Any:
        """The real object. No lock: compilations are one at a time, and a second lock could deadlock with theirs."""
        if self._made is None:
            self._made = self._make()
        return self._made

    @property
    def _numba_type_(self) -> Any:
        """Where Numba looks for the type of a global that it does not know."""
        from numba.core.registry import cpu_target

        made = self.made
        cpu_target.typing_context.refresh()  # it may have been registered only now
        return cpu_target.typing_context.resolve_value_type(made)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.made(*args, **kwargs)


class LateModule:
    """A module that is imported when the first attribute of it is asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(importlib.import_module(self._name), attribute)
        setattr(self, attribute, value)
        return value


types: Any = LateModule("numba.core.types")
cgutils: Any = LateModule("numba.core.cgutils")


def intrinsic(function: Callable[..., Any]) -> Any:
    """Decorate what gives a type and LLVM code: `numba.extending.intrinsic`, applied when a kernel first calls it."""

    def make() -> Any:
        from numba import extending

        return extending.intrinsic(function)

    return Late(make, function)


def _carray() -> Any:
    import numba

    return numba.carray


carray: Any = Late(_carray)
"""`numba.carray`: a pointer seen as an array."""
