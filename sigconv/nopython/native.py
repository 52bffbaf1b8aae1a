"""Calls of this package's kernels from code that Numba compiles for the user.

Inlining a kernel would cost seconds in every function around it, and an address in machine code could not be cached. So
compiled code holds a kernel's name and an empty place. The first call asks `resolve`, the only symbol that it refers
to, and keeps the address: kernels are those of the library, out of its own cache.
"""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import sys
import traceback
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

SYMBOL = "sigconv_kernel"
"""The function ``int64 (const char* name)`` in every program; its meaning may never change, compiled code is cached."""

OUTDATED = "this function was compiled with another version of sigconv: clear Numba's cache of it"

_count = itertools.count()


def name_of(kernel: Any) -> str:
    """The kernel and the layout of its arguments: code that was compiled for another layout must not find it."""
    layout = hashlib.sha256(repr(kernel.args).encode()).hexdigest()[:16]
    return f"{kernel.qualified_name}:{layout}"


@ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_char_p)
def resolve(name: bytes) -> int:
    """The machine address of the kernel that `name_of` names; 0 if there is none. Compiles it where it has to."""
    try:
        from sigconv.kernels.cpu import image, plain, pool  # noqa: F401
        from sigconv.kernels.jit import KERNELS

        wanted = name.decode()
        kernel = KERNELS.get(wanted.partition(":")[0])
        return kernel.address if kernel is not None and name_of(kernel) == wanted else 0
    except Exception:  # there is nobody to catch it
        traceback.print_exc(file=sys.stderr)
        return 0


def publish() -> None:
    """Make `resolve` known to the linker."""
    binding.add_symbol(SYMBOL, ctypes.cast(resolve, ctypes.c_void_p).value)


def finder(kernel: Any) -> Any:
    """An intrinsic ``() -> int64``: the address of a kernel; 0 if the program has it no more."""
    name = name_of(kernel)

    @intrinsic
    def find(typingctx):
        def codegen(context, b, signature, values):
            word, char = ir.IntType(64), ir.IntType(8).as_pointer()
            place = cgutils.add_global_variable(b.module, word, f".sigconv.{next(_count)}")
            place.linkage, place.initializer = "internal", word(0)
            with b.if_then(b.icmp_signed("==", b.load(place), word(0)), likely=False):
                ask = cgutils.get_or_insert_function(b.module, ir.FunctionType(word, [char]), SYMBOL)
                b.store(b.call(ask, [b.bitcast(context.insert_const_string(b.module, name), char)]), place)
            return b.load(place)

        return types.int64(), codegen

    kernel.address  # compiled now, not when the user's function runs
    return find


@intrinsic
def call(typingctx, address, args, *arrays):
    """Run the kernel at ``address`` on a record array.

    ``arrays``: whatever the record holds addresses of. They are there only to be alive during the call.
    """

    def codegen(context, b, signature, values):
        word, char = ir.IntType(64), ir.IntType(8).as_pointer()
        record = cgutils.create_struct_proxy(signature.args[1])(context, b, values[1]).data
        kernel_type = ir.FunctionType(ir.VoidType(), [char, word, word]).as_pointer()
        b.call(b.inttoptr(values[0], kernel_type), [b.bitcast(record, char), word(0), word(1)])
        return context.get_dummy_value()

    return types.void(address, args, types.StarArgTuple(arrays)), codegen
