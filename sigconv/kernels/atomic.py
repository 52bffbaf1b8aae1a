"""What threads share memory with: atomic words at int64 addresses, a spin hint, a clock, and calls by address."""

from __future__ import annotations

import ctypes
import sys
import time

from llvmlite import ir

from sigconv.kernels.late import cgutils, intrinsic, types

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_WORD = 8  # bytes, and the alignment of every atomic word

_SPIN_HINTS = {"x86_64": ("llvm.x86.sse2.pause", ()), "aarch64": ("llvm.aarch64.hint", (1,))}  # hint 1: yield
_SPIN_HINTS |= {"arm64": _SPIN_HINTS["aarch64"], "i686": _SPIN_HINTS["x86_64"]}


def _pointer(builder, address):
    return builder.inttoptr(address, _I64.as_pointer())


@intrinsic
def atomic_load(typingctx, address):
    """The word at ``address``; later reads and writes stay behind it (acquire)."""

    def codegen(context, builder, sig, args):
        return builder.load_atomic(_pointer(builder, args[0]), "acquire", _WORD)

    return types.int64(types.int64), codegen


@intrinsic
def atomic_store(typingctx, address, value):
    """Write the word at ``address``; earlier reads and writes stay ahead of it (release)."""

    def codegen(context, builder, sig, args):
        builder.store_atomic(args[1], _pointer(builder, args[0]), "release", _WORD)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def atomic_add(typingctx, address, value):
    """Add to the word at ``address``; what it held before (sequentially consistent)."""

    def codegen(context, builder, sig, args):
        return builder.atomic_rmw("add", _pointer(builder, args[0]), args[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def atomic_replace(typingctx, address, expected, value):
    """Write ``value`` if the word at ``address`` is ``expected``; whether it was (sequentially consistent)."""

    def codegen(context, builder, sig, args):
        pair = builder.cmpxchg(_pointer(builder, args[0]), args[1], args[2], "seq_cst", "seq_cst")
        return builder.extract_value(pair, 1)

    return types.boolean(types.int64, types.int64, types.int64), codegen


@intrinsic
def pause(typingctx):
    """Tell the core that this is a spin loop; nothing where the CPU has no such hint."""

    def codegen(context, builder, sig, args):
        import llvmlite.binding as llvm

        name, values = _SPIN_HINTS.get(llvm.get_process_triple().split("-")[0], ("", ()))
        if name:
            hint = ir.FunctionType(ir.VoidType(), [_I32] * len(values))
            builder.call(
                cgutils.get_or_insert_function(builder.module, hint, name), [ir.Constant(_I32, v) for v in values]
            )
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def call_kernel(typingctx, address, args_address, thread, threads):
    """Call the kernel at ``address`` for share ``thread`` of ``threads``."""

    def codegen(context, builder, sig, args):
        function = ir.FunctionType(ir.VoidType(), [_I64.as_pointer(), _I64, _I64])
        kernel = builder.inttoptr(args[0], function.as_pointer())
        builder.call(kernel, [_pointer(builder, args[1]), args[2], args[3]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), codegen


if sys.platform == "win32":
    _frequency = ctypes.c_int64()
    ctypes.windll.kernel32.QueryPerformanceFrequency(ctypes.byref(_frequency))
    TICKS_PER_SECOND = _frequency.value

    def ticks() -> int:
        """What `read_clock` reads."""
        return int(time.perf_counter() * TICKS_PER_SECOND)

    @intrinsic
    def read_clock(typingctx):
        """A monotonic clock in ticks."""

        def codegen(context, builder, sig, args):
            ticks = cgutils.alloca_once(builder, _I64)
            query = ir.FunctionType(_I32, [_I64.as_pointer()])
            builder.call(cgutils.get_or_insert_function(builder.module, query, "QueryPerformanceCounter"), [ticks])
            return builder.load(ticks)

        return types.int64(), codegen

else:
    TICKS_PER_SECOND = 1_000_000_000

    def ticks() -> int:
        """What `read_clock` reads."""
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC)

    @intrinsic
    def read_clock(typingctx):
        """A monotonic clock in ticks."""

        def codegen(context, builder, sig, args):
            timespec = cgutils.alloca_once(builder, ir.ArrayType(_I64, 2))
            function = ir.FunctionType(_I32, [_I32, timespec.type])
            gettime = cgutils.get_or_insert_function(builder.module, function, "clock_gettime")
            builder.call(gettime, [ir.Constant(_I32, time.CLOCK_MONOTONIC), timespec])
            seconds, nanoseconds = (builder.extract_value(builder.load(timespec), i) for i in (0, 1))
            return builder.add(builder.mul(seconds, ir.Constant(_I64, TICKS_PER_SECOND)), nanoseconds)

        return types.int64(), codegen
