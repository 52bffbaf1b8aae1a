"""Addresses as kernels see them: an int64 becomes a typed pointer."""

from __future__ import annotations

from numba import types
from numba.extending import intrinsic


@intrinsic
def as_pointer(typingctx, address, dtype):
    """The pointer to ``dtype`` (a NumPy scalar type) at ``address``."""
    number = dtype.instance_type

    def codegen(context, builder, sig, args):
        return builder.inttoptr(args[0], context.get_value_type(sig.return_type))

    return types.CPointer(number)(types.int64, dtype), codegen
