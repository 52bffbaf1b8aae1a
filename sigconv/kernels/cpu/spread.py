"""An image of few channels as one of more, in channel blocks: lane q of pixel (i, j) is one channel at (s_h*i, s_w*j)
from an origin of its own; zero outside. Phases of a strided window and shifts of a long one so become channels.
"""

from __future__ import annotations

import numpy as np

from sigconv.kernels.address import as_pointer, get, put
from sigconv.kernels.jit import kernel
from sigconv.kernels.late import carray
from sigconv.kernels.simd import lanes

ARGS = np.dtype(
    [(name, np.int64) for name in (
        "x", "y",  # addresses
        "batch", "channels", "rows", "in_h", "in_w", "out_w", "step_h", "step_w",
        "plane", "origin_h", "origin_w",  # int64 by channel of y: where its channel of x lies, what its pixel 0 reads
        "x_batch", "x_h", "x_w", "y_batch", "y_block", "y_h",  # strides in elements; a pixel of y is one register
    )]
)  # fmt: skip
LANES = lanes(np.float32)


@kernel(ARGS)
def spread_f32(args, thread, threads):
    a = carray(args, 1)[0]
    vl, size = LANES, 4
    plane, origin_h = as_pointer(a.plane, np.int64), as_pointer(a.origin_h, np.int64)
    origin_w = as_pointer(a.origin_w, np.int64)
    blocks = (a.channels + vl - 1) // vl
    items = a.batch * a.rows * blocks
    for item in range(items * thread // threads, items * (thread + 1) // threads):
        block, row, image = item % blocks, item // blocks % a.rows, item // blocks // a.rows
        y = as_pointer(a.y + (image * a.y_batch + block * a.y_block + row * a.y_h) * size, np.float32)
        for i in range(a.out_w * vl):
            put(y, i, np.float32(0))
        for lane in range(min(vl, a.channels - block * vl)):
            q = block * vl + lane
            h, w = row * a.step_h + get(origin_h, q), get(origin_w, q)
            if 0 <= h < a.in_h:
                first = max(0, (a.step_w - 1 - w) // a.step_w)
                last = min(a.out_w, (a.in_w - w + a.step_w - 1) // a.step_w)
                x = as_pointer(a.x + (image * a.x_batch + get(plane, q) + h * a.x_h + w * a.x_w) * size, np.float32)
                for i in range(first, last):
                    put(y, i * vl + lane, get(x, i * a.step_w * a.x_w))
