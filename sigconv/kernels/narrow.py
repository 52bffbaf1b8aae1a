"""float32 weights of 24 bits, for kernels that wait for memory: sign, exponent and 15 bits of the mantissa.

In a register the third byte stands in for the fourth, so that one shuffle of bytes unpacks a vector. The nearest such
number is within 2**-16 of a weight; 0, Inf and numbers of up to 8 significant bits are kept as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir

from sigconv import lines

BYTES = 3
"""Of a weight."""
_TAIL = 16
"""Bytes that may be read past the last vector."""


def room(size: int) -> np.ndarray:
    """Bytes for ``size`` weights, that `load` may read past the end of."""
    return lines.zeros(BYTES * size + _TAIL)


def pack(values: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Contiguous float32 ``values`` in their order, written to the first bytes of ``out``. NaN stays NaN."""
    out = room(values.size) if out is None else out
    rows = out[: BYTES * values.size].reshape(-1, BYTES)
    values = values.reshape(-1)
    for start in range(0, values.size, 1 << 16):  # small enough for the cache
        part = values[start : start + (1 << 16)]
        bits = part.view(np.uint32)
        high, last = bits >> 8, bits & 0xFF
        third = high & 0xFF
        high = high + (third + 129 <= last) - (third >= last + 129)
        high[np.isnan(part)] |= 0x4000
        rows[start : start + len(part)] = high.astype("<u4").view(np.uint8).reshape(-1, 4)[:, :BYTES]
    return out


def load(builder: Any, pointer: Any, offset: int, vec: Any) -> Any:
    """The vector whose bytes begin ``offset`` weights after the byte pointer ``pointer``."""
    size = 4 * vec.count
    wide = ir.VectorType(ir.IntType(8), size)
    at = builder.gep(pointer, [ir.Constant(ir.IntType(64), BYTES * offset)])
    value = builder.load(builder.bitcast(at, wide.as_pointer()))
    value.align = 1
    order = [BYTES * i + byte for i in range(vec.count) for byte in (0, 0, 1, 2)]
    mask = ir.Constant(ir.VectorType(ir.IntType(32), size), order)
    return builder.bitcast(builder.shuffle_vector(value, ir.Constant(wide, ir.Undefined), mask), vec)
