"""Whole numbers modulo one number: what turns places in a batch into places in its planes."""

from __future__ import annotations

from numba import cuda

from sigconv.kernels.cuda.jit import BLOCK, kernel, record

PARAMS = record("Modulo", "n")
"""y[i] = x[i] mod divisor[0], with the sign of the divisor, for i < n."""


@kernel(PARAMS, "int64 int64 int64", BLOCK)
def modulo_i64(p, x, divisor, y):
    for i in range(cuda.grid(1), p.n, cuda.gridsize(1)):
        y[i] = x[i] % divisor[0]
