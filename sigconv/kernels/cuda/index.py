"""Whole numbers inside kernels: division in 32 bits, and where an index beyond the ends of an axis leads."""

from __future__ import annotations

from numba import types

from sigconv.kernels.cuda.jit import SIMULATED, device

try:  # numba-cuda's own extension API; Numba's built-in target has the common one
    from numba.cuda.extending import intrinsic
except ImportError:
    from numba.extending import intrinsic

FILL, EDGE, SYMM, REFLECT, WRAP = range(5)
"""What lies beyond the ends: a value, the last element, mirrored with or without repeating it, periodic."""
BOUNDARIES = {"fill": FILL, "edge": EDGE, "symm": SYMM, "reflect": REFLECT, "wrap": WRAP}


@intrinsic
def _quotient(typingctx, a, b):
    """a // b of numbers that are not negative: Numba itself would divide in 64 bits, four times as slow."""

    def codegen(context, builder, signature, args):
        return builder.udiv(*args)

    return types.int32(types.int32, types.int32), codegen


if SIMULATED:

    def quotient(a, b):
        return a // b

else:
    quotient = device(lambda a, b: _quotient(a, b))


@device
def border(i, n, mode):
    """The element in [0, n) that index ``i`` of an extended axis reads; -1 for the fill value."""
    if 0 <= i < n:
        return i
    if mode == FILL:
        return -1
    if mode == EDGE:
        return 0 if i < 0 else n - 1
    if mode == WRAP:
        return i % n
    if mode == SYMM:
        i %= 2 * n
        return i if i < n else 2 * n - 1 - i
    if n == 1:
        return 0
    i %= 2 * n - 2
    return i if i < n else 2 * n - 2 - i
