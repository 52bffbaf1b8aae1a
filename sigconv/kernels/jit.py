"""The only place that decorates. Kernels are C functions ``void kernel(Args* args, int64 thread, int64 threads)``.

`kernel(ARGS)` turns a Python function into a `Kernel`: compiled on first use of ``.address`` (from the disk cache when
it can), never on import. `inline` marks helpers that kernels call,
`strict` those whose order of operations counts (range reductions). No kernel allocates, raises or touches Python.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import types
from numba.core.ccallback import CFunc

FASTMATH = {"nsz", "arcp", "contract", "afn", "reassoc"}  # never nnan or ninf: NaN and Inf must survive

inline = numba.njit(nogil=True, error_model="numpy", fastmath=FASTMATH)
strict = numba.njit(nogil=True, error_model="numpy", fastmath=False)  # said, not left out: flags are inherited from the caller


class Kernel:
    """A compiled C function and the structured dtype of its first argument."""

    def __init__(self, function: Callable[..., None], args: np.dtype[Any]) -> None:
        self.function, self.args, self.name = function, args, function.__name__
        self._compiled: CFunc | None = None

    @property
    def address(self) -> int:
        """The machine address; compiles (or loads from the disk cache) on first use."""
        if self._compiled is None:
            signature = types.void(types.CPointer(numba.from_dtype(self.args)), types.int64, types.int64)
            options = {"nopython": True, "error_model": "numpy", "fastmath": FASTMATH}
            compiled = CFunc(self.function, (signature.args, signature.return_type), locals={}, options=options)
            compiled.compile()
            self._compiled = compiled
        return int(self._compiled.address)


def kernel(args: np.dtype[Any]) -> Callable[[Callable[..., None]], Kernel]:
    """Decorate a kernel whose arguments are one record of dtype ``args``."""
    return lambda function: Kernel(function, args)
