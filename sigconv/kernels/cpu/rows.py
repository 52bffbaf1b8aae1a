"""Direct correlation along rows, the primitive of every rank and boundary: rows are given by a table of addresses.

    y[r, c] = sum over j < J, k < K of w[j, k] * X(r, j)[c * step + k * dilation]

Whoever fills the table decides what lies beyond an outer border (another row, a row of zeros), what the outer axes of
the kernel are, and what is flipped. A row holds (n - 1) * step + (K - 1) * dilation + 1 readable numbers.
"""

from __future__ import annotations

import numpy as np
from numba import carray

from sigconv.kernels.address import as_pointer
from sigconv.kernels.cpu.rows_tile import SHEAR_ROWS, SHEAR_VECTORS, STEP_VECTORS, Numbers
from sigconv.kernels.cpu.rows_tile import make_line as _make_line
from sigconv.kernels.cpu.rows_tile import make_shear as _make_shear
from sigconv.kernels.cpu.rows_tile import make_step as _make_step
from sigconv.kernels.jit import Kernel, inline, kernel

ARGS = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("rows", "w", "y"),  # addresses: int64 rows[n_rows, J] of addresses, w[J, K], the first output
            *("n_rows", "J", "K", "n"),  # output rows, taps, output columns
            *("step", "dilation"),  # in numbers; at least 1
            "shear",  # 1: rows[r, j] == rows[r + 1, j - 1]
            "y_row",  # numbers from one output row to the next; columns are dense
        )
    ]
)
"""A complex number counts as one everywhere."""

BLOCK_BYTES = 24 << 10  # inputs of a column block that several rows share: half of a first-level cache
LINE_BLOCK = 4096  # columns of a block where no rows are shared


@inline
def period_of(lanes, taps, dilation, natural):
    """How many taps apart inputs lie a register apart; all taps where the order is the natural one."""
    return taps if natural or lanes % dilation else lanes // dilation


def make(numbers: Numbers) -> Kernel:
    """The kernel of one variant; its taps have the type of its sums."""
    line, step_tile = _make_line(numbers), _make_step(numbers)
    parts, lanes, sum_type, target = numbers.parts, numbers.lanes, numbers.sum, numbers.target
    shears = parts == 1
    shear_tile = _make_shear(numbers) if shears else None
    item, y_item, w_item = (np.dtype(t).itemsize for t in (numbers.source, target, sum_type))
    line_vectors, depth = numbers.line_vectors, numbers.depth
    widest = max(line_vectors[0], SHEAR_VECTORS[0]) * lanes

    @inline
    def line_columns(rows, w, y, J, K, period, step, dilation, first, last):
        """Outputs first … last - 1 (in elements) of one row."""
        c = first
        for size in line_vectors:
            if size > 1:
                while last - c >= size * lanes:
                    line(
                        size, rows, c, K, w, 1, J, period, dilation, 0, as_pointer(y + y_item * c, target), lanes
                    )  # fmt: skip
                    c += size * lanes
        while c < last:
            line(1, rows, c, K, w, 1, J, period, dilation, 0, as_pointer(y + y_item * c, target), min(lanes, last - c))
            c += lanes

    @inline
    def step_columns(rows, w, y, J, K, step, dilation, first, last):
        c = first
        for size in STEP_VECTORS:
            while last - c >= size * parts:
                step_tile(
                    size, rows, c * step, K, w, 1, J, K, dilation, step * parts, as_pointer(y + y_item * c, target), 0
                )  # fmt: skip
                c += size * parts

    if shears:

        @inline
        def shear_columns(height, rows, w, y, y_row, J, K, dilation, first, last):
            c = first
            for size in SHEAR_VECTORS:
                while last - c >= size * lanes:
                    shear_tile(
                        height, size, rows, c, K, w, J, dilation, as_pointer(y + y_item * c, target), y_row, lanes
                    )  # fmt: skip
                    c += size * lanes
            if c < last:
                shear_tile(
                    height, 1, rows, c, K, w, J, dilation, as_pointer(y + y_item * c, target), y_row, last - c
                )  # fmt: skip
    else:

        @inline
        def shear_columns(height, rows, w, y, y_row, J, K, dilation, first, last):
            return

    def rows_kernel(args, thread, threads):
        a = carray(args, 1)[0]
        J, K, n, n_rows, step = a.J, a.K, a.n * parts, a.n_rows, a.step
        dilation, y_row = a.dilation * parts, a.y_row * parts
        w = as_pointer(a.w, sum_type)
        shear = shears and a.shear != 0 and step == 1
        height = min(SHEAR_ROWS, J, n_rows) if shear else 1
        period = period_of(lanes, K, dilation, shear or depth == 1 or K == 0)
        block = max(widest, BLOCK_BYTES // (item * (J + SHEAR_ROWS))) if shear else LINE_BLOCK
        blocks = (n + block - 1) // block
        groups = 1
        if blocks and blocks < 4 * threads:
            groups = max(1, min(n_rows // height, (4 * threads + blocks - 1) // blocks))
        total = blocks * groups
        for task in range(total * thread // threads, total * (thread + 1) // threads):
            b, g = task // groups, task % groups
            first = n * b // blocks // lanes * lanes
            last = n if b == blocks - 1 else n * (b + 1) // blocks // lanes * lanes
            r, end = n_rows * g // groups, n_rows * (g + 1) // groups
            while r < end:
                tall = height if end - r >= height else 1
                rows = as_pointer(a.rows + 8 * J * r, np.int64)
                y = a.y + y_item * y_row * r
                if tall > 1:
                    shear_columns(tall, rows, w, y, y_row, J, K, dilation, first, last)
                elif step == 1:
                    line_columns(rows, w, y, J, K, period, step, dilation, first, last)
                else:
                    step_columns(rows, w, y, J, K, step, dilation, first, last)
                r += tall

    rows_kernel.__name__ = rows_kernel.__qualname__ = f"rows_{numbers.name}"
    return kernel(ARGS)(rows_kernel)


FLOAT32 = Numbers("f32", np.float32, np.float32, np.float32)
FLOAT64 = Numbers("f64", np.float64, np.float64, np.float64)

rows_f32 = make(FLOAT32)
rows_f64 = make(FLOAT64)
