"""Numbers of one type as numbers of another, contiguous ones."""

from __future__ import annotations

import numpy as np

from sigconv.kernels.address import as_pointer
from sigconv.kernels.jit import inline, kernel
from sigconv.kernels.late import carray

ARGS = np.dtype([(name, np.int64) for name in ("src", "dst", "n", "pair")])
"""``n`` elements; ``pair`` is an entry of `PAIRS`."""

BLOCK = 4096
"""Elements that stay with one thread."""

PAIRS = {
    (np.dtype(a), np.dtype(b)): i
    for i, (a, b) in enumerate(
        [
            *((t, "float32") for t in ("uint8", "int8", "int32", "int64", "float64", "bool")),
            *(("float32", t) for t in ("uint8", "int8", "int32", "int64", "float64")),
            *(("float64", t) for t in ("int32", "int64")),
            *(("int32", "int64"), ("int64", "int32"), ("uint8", "int32"), ("int8", "int32")),
        ]
    )
}
"""(from, to) -> its number. Floats are cut off towards zero; what does not fit is as the machine has it (as NumPy)."""


@inline
def _loop(src, dst, first, stop, a, b, between):
    source, target = as_pointer(src, a), as_pointer(dst, b)
    for i in range(first, stop):
        target[i] = b(between(source[i]))


@kernel(ARGS)
def convert(args, thread, threads):
    """Elements of src as another type to dst."""
    a = carray(args, 1)[0]
    blocks = (a.n + BLOCK - 1) // BLOCK
    first, stop = blocks * thread // threads * BLOCK, min(a.n, blocks * (thread + 1) // threads * BLOCK)
    pair, src, dst = a.pair, a.src, a.dst
    if pair == 0:
        _loop(src, dst, first, stop, np.uint8, np.float32, np.float32)
    elif pair == 1:
        _loop(src, dst, first, stop, np.int8, np.float32, np.float32)
    elif pair == 2:
        _loop(src, dst, first, stop, np.int32, np.float32, np.float32)
    elif pair == 3:
        _loop(src, dst, first, stop, np.int64, np.float32, np.float32)
    elif pair == 4:
        _loop(src, dst, first, stop, np.float64, np.float32, np.float32)
    elif pair == 5:
        _loop(src, dst, first, stop, np.uint8, np.float32, np.float32)
    elif pair == 6:
        _loop(src, dst, first, stop, np.float32, np.uint8, np.int32)
    elif pair == 7:
        _loop(src, dst, first, stop, np.float32, np.int8, np.int32)
    elif pair == 8:
        _loop(src, dst, first, stop, np.float32, np.int32, np.int32)
    elif pair == 9:
        _loop(src, dst, first, stop, np.float32, np.int64, np.int64)
    elif pair == 10:
        _loop(src, dst, first, stop, np.float32, np.float64, np.float64)
    elif pair == 11:
        _loop(src, dst, first, stop, np.float64, np.int32, np.int32)
    elif pair == 12:
        _loop(src, dst, first, stop, np.float64, np.int64, np.int64)
    elif pair == 13:
        _loop(src, dst, first, stop, np.int32, np.int64, np.int64)
    elif pair == 14:
        _loop(src, dst, first, stop, np.int64, np.int32, np.int32)
    elif pair == 15:
        _loop(src, dst, first, stop, np.uint8, np.int32, np.int32)
    else:
        _loop(src, dst, first, stop, np.int8, np.int32, np.int32)
