"""Numeric rules that the references share: what a dtype computes in, and how results go back to it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np


def narrow(dtype: np.dtype[Any]) -> bool:
    """Whether values are stored in ``dtype`` but computed in float32: float16 and bfloat16."""
    return dtype.name in ("float16", "bfloat16")


def widened(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compute in float32 where an array argument is float16 or bfloat16; those of float32 results go back to it."""

    @functools.wraps(function)
    def compute(*args: Any, **kwargs: Any) -> Any:
        dtype = next((a.dtype for a in args if isinstance(a, np.ndarray) and narrow(a.dtype)), None)
        if dtype is None:
            return function(*args, **kwargs)
        wide = (a.astype(np.float32) if isinstance(a, np.ndarray) and a.dtype == dtype else a for a in args)
        out = function(*wide, **kwargs)
        back = tuple(o.astype(dtype) if o.dtype == np.float32 else o for o in (out if isinstance(out, tuple) else (out,)))
        return back if isinstance(out, tuple) else back[0]

    return compute


def accumulator(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """What sums of ``dtype`` are kept in: float64 for floats, the dtype itself (which wraps) for integers."""
    return np.dtype(np.float64) if dtype.kind == "f" else dtype
