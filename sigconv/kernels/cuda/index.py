"""Whole numbers inside kernels: division in 32 bits, and where an index beyond the ends of an axis leads."""

from __future__ import annotations

from numba import types

from sigconv.kernels import border
from sigconv.kernels.cuda.jit import SIMULATED, device

try:  # numba-cuda's own extension API; Numba's built-in target has the common one
    from numba.cuda.extending import intrinsic
except ImportError:
    from numba.extending import intrinsic


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
def unravel(i, rows, columns):
    """(plane, row, column) of element ``i`` of planes of ``rows`` x ``columns``."""
    above = quotient(i, columns)
    plane = quotient(above, rows)
    return plane, above - plane * rows, i - above * columns


element = device(border.element)
"""`border.element` on the device."""
