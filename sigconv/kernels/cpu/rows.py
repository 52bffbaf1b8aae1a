"""Direct correlation along rows, the primitive of every rank and boundary: rows are given by a table of addresses.

    y[r, c] = sum over j < J, k < K of w[j, k] * X(r, j)[c * step + k * dilation]

Whoever fills the table decides what lies beyond an outer border (another row, a row of zeros), what the outer axes of
the kernel are, and what is flipped. A row holds (n - 1) * step + (K - 1) * dilation + 1 readable numbers.
"""

from __future__ import annotations

import numpy as np

from sigconv.kernels.address import as_pointer
from sigconv.kernels.cpu.rows_emitter import Numbers, period_of
from sigconv.kernels.cpu.rows_tile import (
    SHEAR_ROWS,
    SHEAR_VECTORS,
    SMALL,
    line_vectors,
    make_line,
    make_shear,
    make_small,
    make_step,
)
from sigconv.kernels.jit import Kernel, kernel
from sigconv.kernels.late import carray
from sigconv.lines import LINE

ARGS = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("rows", "w", "y"),  # addresses: int64 rows[n_rows, J] of addresses, w[J, K], the first output
            *("n_rows", "J", "K", "n"),  # output rows, taps, output columns
            *("step", "dilation"),  # in numbers; at least 1
            "shear",  # 0, or tap rows of a plane: rows[r, j] == rows[r + 1, j - 1] within a plane of both
            "run",  # output rows of a plane, 0 for all
            "y_row",  # numbers from one output row to the next; columns are dense
            *("ahead", "ahead_row"),  # 0, or where a row lies that will be read soon; bytes to the next
        )
    ]
)
"""A complex number counts as one everywhere."""

BLOCK_BYTES = 24 << 10  # inputs of a column block that several rows share: half of a first-level cache
SHORT = 8  # rows of a kernel that waits for memory
SHORT_BLOCK_BYTES = 512 << 10  # of these: a quarter of a second-level cache
ALIGNED = 16
"""Registers of outputs in a row from which those of few taps begin on a cache line: they are mostly loads and stores,
of which one across two lines takes twice as long."""
LINE_BLOCK = 4096  # columns of a block where no rows are shared


def make(numbers: Numbers) -> Kernel:
    """The kernel of one variant; its taps have the type of its sums."""
    line, step_line = make_line(numbers), make_step(numbers)
    parts, lanes, sum_type, target = numbers.parts, numbers.lanes, numbers.sum, numbers.target
    shears = parts == 1  # elsewhere one load serves two multiplications anyway
    shear_line, small_tile = make_shear(numbers), make_small(numbers)
    item, y_item = (np.dtype(t).itemsize for t in (numbers.source, target))
    depth, longest = numbers.depth, max(line_vectors(numbers)[0], SHEAR_VECTORS[0]) * lanes

    def rows_kernel(args, thread, threads):
        a = carray(args, 1)[0]
        J, K, n, n_rows, step = a.J, a.K, a.n * parts, a.n_rows, a.step
        dilation, y_row = a.dilation * parts, a.y_row * parts
        w, ahead = as_pointer(a.w, sum_type), a.ahead if a.ahead else a.y
        shear, run = a.shear if shears and step == 1 else 0, a.run if a.run else n_rows
        height = max(1, min(SHEAR_ROWS, shear, run, n_rows))
        period = period_of(lanes, K, dilation, shear != 0 or depth == 1 or step != 1)
        nbytes = SHORT_BLOCK_BYTES if J <= SHORT else BLOCK_BYTES
        block = max(longest, nbytes // (item * (J + SHEAR_ROWS))) if shear else LINE_BLOCK
        blocks = (n + block - 1) // block
        groups = 1
        if blocks and blocks < 4 * threads:
            groups = max(1, min(n_rows // height, (4 * threads + blocks - 1) // blocks))
        total = blocks * groups
        for task in range(total * thread // threads, total * (thread + 1) // threads):
            b, g = task // groups, task % groups
            first = n * b // blocks // longest * longest
            last = n if b == blocks - 1 else n * (b + 1) // blocks // longest * longest
            r, end = n_rows * g // groups, n_rows * (g + 1) // groups
            while r < end:
                left = min(end - r, run - r % run)
                tall = min(height, left)
                if left == height + 1 and height > SMALL:  # else a row would be left
                    tall -= 1
                rows = as_pointer(a.rows + 8 * J * r, np.int64)
                small = tall == SMALL and J == SMALL and K == SMALL
                y_line = a.y + y_item * (y_row * r + first)
                c, stop = first, last
                if small and last - first >= ALIGNED * lanes:  # of two runs the second begins on a line
                    stop = first + -y_line // y_item % (LINE // y_item)
                while c < last:
                    soon = ahead + r * a.ahead_row + c * item
                    if small:
                        small_tile(rows, c, w, dilation, as_pointer(y_line, target), y_row, soon, a.ahead_row, stop - c)
                    elif tall > 1:
                        shear_line(tall, rows, c, K, w, J, shear, dilation, y_line, y_row, soon, a.ahead_row, last - c)
                    elif step == 1:
                        line(rows, c, K, w, 1, J, period, dilation, lanes, y_line, last - c)
                    else:
                        step_line(rows, c * step, K, w, 1, J, period, dilation, step * parts, y_line, last - c)
                    y_line += y_item * (stop - c)
                    c, stop = stop, last
                r += tall

    rows_kernel.__name__ = rows_kernel.__qualname__ = f"rows_{numbers.name}"
    return kernel(ARGS)(rows_kernel)


NUMBERS = {
    numbers.name: numbers
    for numbers in (
        Numbers("f32", np.float32, np.float32, np.float32),
        Numbers("f64", np.float64, np.float64, np.float64),
        Numbers("c64", np.float32, np.float32, np.float32, parts=2),
        Numbers("c128", np.float64, np.float64, np.float64, parts=2),
        *(Numbers(f"{t}{bits}", getattr(np, f"{kind}{bits}"), np.int32, np.int32)
          for t, kind in (("i", "int"), ("u", "uint")) for bits in (8, 16)),
        Numbers("i32", np.int32, np.int32, np.int32),
        Numbers("i64", np.int64, np.int64, np.int64),
        Numbers("f32_u8", np.float32, np.float32, np.uint8),
    )
}  # fmt: skip
"""Variants by name. Integers wrap, so the signed ones serve unsigned arrays of the same size too; narrow integers are
summed in int32 with taps of int32. ``f32_u8`` rounds to the nearest integer and saturates. A complex
array with real taps is one of floats with n and the dilation doubled."""

KERNELS = {name: make(numbers) for name, numbers in NUMBERS.items()}
"""The kernel of each variant."""
