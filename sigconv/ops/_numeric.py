"""Numeric rules that the references share: what a dtype is computed in, and how results go back to it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from sigconv.ops._infer import FLOAT


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether ``dtype`` is a float, bfloat16 (which NumPy does not know as one) included."""
    return dtype.name in FLOAT


def widen(x: np.ndarray) -> np.ndarray:
    """``x`` in float32 if it is float16 or bfloat16, else ``x`` itself."""
    return x.astype(np.float32) if x.dtype.name in ("float16", "bfloat16") else x


def widened(reference: Callable[..., Any]) -> Callable[..., Any]:
    """Let ``reference`` compute as precisely as it likes: it gets float16 and bfloat16 arrays as float32, and what it
    returns in any float dtype is rounded to the dtype of its first argument where that is a float."""

    @functools.wraps(reference)
    def compute(first: np.ndarray, *others: Any, **attrs: Any) -> Any:
        arrays = (widen(a) if isinstance(a, np.ndarray) else a for a in others)
        out = reference(widen(first), *arrays, **attrs)
        if not is_float(first.dtype):
            return out
        outs = out if isinstance(out, tuple) else (out,)
        outs = tuple(o.astype(first.dtype, copy=False) if is_float(o.dtype) else o for o in map(np.asarray, outs))
        return outs if isinstance(out, tuple) else outs[0]

    return compute


def accumulator(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """What sums of ``dtype`` are kept in: float64 for floats, the dtype itself (which wraps) for integers."""
    return np.dtype(np.float64) if is_float(dtype) else dtype


def divide_truncated(a: np.ndarray, b: np.ndarray | int) -> np.ndarray:
    """Integer quotients rounded towards zero, as C; 0 where ``b`` is 0."""
    return (a - np.fmod(a, b)) // b


def integer_range(dtype: np.dtype[Any]) -> tuple[int, int]:
    """The least and greatest value of an integer dtype, of 4 and 2 bits too (NumPy's iinfo refuses those)."""
    bits = int(dtype.name.lstrip("uint"))
    return (0, 2**bits - 1) if dtype.name.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def least(dtype: np.dtype[Any]) -> Any:
    """The value below all others: -inf, False or the least integer."""
    return -np.inf if is_float(dtype) else False if dtype.name == "bool" else integer_range(dtype)[0]


def greatest(dtype: np.dtype[Any]) -> Any:
    """The value above all others: inf, True or the greatest integer."""
    return np.inf if is_float(dtype) else True if dtype.name == "bool" else integer_range(dtype)[1]
