"""The library inside the user's own ``@njit`` functions: `convolve`, `correlate`, `convolve2d`, `correlate2d`,
`nn.max_pool2d` and `nn.avg_pool2d` in nopython mode.

Numba calls `init` before it compiles anything, through the entry point ``numba_extensions``, in every program of an
environment that has sigconv installed. So `init` only leaves a note; the overloads are made when Numba first meets a
function of this package.
"""

from __future__ import annotations

import functools
import types
from typing import Any

PLACES = ("sigconv.signal.api", "sigconv.nn.pool")
"""The modules whose functions have overloads."""


def init() -> None:
    """Let Numba know; called by Numba itself."""
    from numba.extending import typeof_impl

    from sigconv.nopython import native

    native.publish()

    @typeof_impl.register(types.FunctionType)
    def function(value: Any, context: Any) -> None:
        """No type of ours: only the moment at which Numba asks for a function's type, before it looks for overloads."""
        if value.__module__ in PLACES:
            _load()


@functools.cache
def _load() -> None:
    """Make the overloads, and show them to a compilation that is under way."""
    from numba.core.registry import cpu_target

    from sigconv.nopython import pools, signals  # noqa: F401

    cpu_target.typing_context.refresh()
