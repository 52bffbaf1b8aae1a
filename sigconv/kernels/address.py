"""Args records hold addresses as integers: these turn them into typed pointers and arrays inside a kernel."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from sigconv.kernels.jit import inline


@intrinsic
def as_pointer(typingctx, address, dtype):
    """The int64 ``address`` as a pointer to ``dtype`` (``np.float32``, ``np.int64``, …)."""
    pointer = types.CPointer(dtype.dtype)

    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(pointer))

    return pointer(types.int64, dtype), codegen


@intrinsic
def item_bytes(typingctx, dtype):
    """Bytes of one element of ``dtype``."""
    size = np.dtype(str(dtype.dtype)).itemsize
    return types.int64(dtype), lambda context, builder, signature, args: ir.Constant(ir.IntType(64), size)


@intrinsic
def copy_bytes(typingctx, target, source, count):
    """memcpy between int64 addresses."""

    def codegen(context, builder, signature, args):
        byte_pointer = ir.IntType(8).as_pointer()
        memcpy = builder.module.declare_intrinsic("llvm.memcpy", [byte_pointer, byte_pointer, ir.IntType(64)])
        to, of = (builder.inttoptr(arg, byte_pointer) for arg in args[:2])
        builder.call(memcpy, [to, of, args[2], ir.Constant(ir.IntType(1), 0)])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@inline
def array_at(address, n, dtype):
    """The ``n`` elements of ``dtype`` at ``address`` as a 1-D array."""
    return carray(as_pointer(address, dtype), n)
