"""Args records hold addresses as integers: these turn them into typed pointers inside a kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir

from sigconv.kernels.late import intrinsic, types


def pointer_to(dtype: Any) -> Any:
    """Numba's type of a pointer to numbers of a NumPy dtype or scalar type."""
    from numba import from_dtype

    return types.CPointer(from_dtype(np.dtype(dtype)))


@intrinsic
def as_pointer(typingctx, address, dtype):
    """The int64 ``address`` as a pointer to ``dtype`` (``np.float32``, ``np.int64``, …)."""
    pointer = types.CPointer(dtype.dtype)

    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(pointer))

    return pointer(types.int64, dtype), codegen


@intrinsic
def address_of(typingctx, pointer):
    """The int64 address in a pointer."""
    return types.int64(pointer), lambda context, builder, signature, args: builder.ptrtoint(args[0], ir.IntType(64))


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


@intrinsic
def get(typingctx, pointer, index):
    """pointer[index]; the index may be negative and is never wrapped."""

    def codegen(context, builder, signature, args):
        return builder.load(builder.gep(args[0], [args[1]]))

    return pointer.dtype(pointer, types.int64), codegen


@intrinsic
def put(typingctx, pointer, index, value):
    """pointer[index] = value; the index may be negative and is never wrapped."""

    def codegen(context, builder, signature, args):
        builder.store(args[2], builder.gep(args[0], [args[1]]))
        return context.get_dummy_value()

    return types.void(pointer, types.int64, pointer.dtype), codegen


@intrinsic
def fields(typingctx, args):
    """The args record, whose number fields are attributes."""
    record = args.dtype

    def codegen(context, builder, signature, values):
        return builder.bitcast(values[0], context.get_value_type(record))

    return record(args), codegen


def array_field(args: np.dtype[Any], name: str) -> Any:
    """An intrinsic that finds the array field ``name``: (args pointer) -> pointer to its numbers, in C order.

    Make it a module's global. A record's own arrays, read as attributes, would carry reference counts into the kernel.
    """
    dtype, offset = args.fields[name][:2]

    @intrinsic
    def field(typingctx, args):
        pointer = pointer_to(dtype.base)

        def codegen(context, builder, signature, values):
            first_byte = builder.bitcast(values[0], ir.IntType(8).as_pointer())
            at = builder.gep(first_byte, [ir.Constant(ir.IntType(64), offset)])
            return builder.bitcast(at, context.get_value_type(pointer))

        return pointer(args), codegen

    return field
