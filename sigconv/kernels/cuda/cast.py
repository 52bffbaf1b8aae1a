"""Element types changed: between float types, and from whole numbers and bool and back."""

from __future__ import annotations

import numpy as np
from numba import cuda

from sigconv.kernels.cuda.jit import BLOCK, Kernel, kernel, record

PARAMS = record("Cast", "n")
"""y[i] = x[i]; float16 is rounded to the nearest, whole numbers are cut towards 0."""

PAIRS = (
    ("float16", "float32"), ("float32", "float16"), ("float64", "float32"), ("float32", "float64"),
    ("int32", "float32"), ("int64", "float32"), ("uint8", "float32"), ("bool", "float32"), ("float32", "int32"),
    ("float32", "int64"), ("int32", "int64"), ("int64", "int32"), ("int8", "float32"), ("float32", "int8"),
    ("float32", "uint8"),
)  # fmt: skip


def make(source: str, target: str) -> Kernel:
    """``cast_float16_float32`` and its kin."""
    convert = np.dtype(target).type

    def cast(p, x, y):
        for i in range(cuda.grid(1), p.n, cuda.gridsize(1)):
            y[i] = convert(x[i])

    cast.__name__ = f"cast_{source}_{target}"
    return kernel(PARAMS, f"{source} {target}", BLOCK)(cast)


CASTS = {pair: make(*pair) for pair in PAIRS}
"""By names of the dtypes, (from, to)."""
