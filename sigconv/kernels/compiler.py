"""Numba's and LLVM's part: from a kernel's function to an object file. Only a process that compiles imports this."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core.ccallback import _CFuncCompiler
from numba.core.compiler import Compiler
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

from sigconv.kernels.jit import FASTMATH

LOCK = global_compiler_lock
"""Numba's own: a lock of ours beside it could deadlock."""

# Made here, without `LOCK`: Numba makes them under another lock of its own, inside which it takes this one.
cpu_target.typing_context, cpu_target.target_context


class _Function(_CFuncCompiler):
    """Numba's compiler of C callbacks, without the wrapper that would print exceptions: kernels raise none."""

    def _customize_flags(self, flags: Any) -> Any:
        flags = super()._customize_flags(flags)
        flags.no_cfunc_wrapper = True
        return flags


@LOCK
def object_file(function: Callable[..., None], args: np.dtype[Any], name: str) -> tuple[str, bytes]:
    """The symbol of the C function ``void (args*, int64, int64)`` and the object file that defines it."""
    options = {"nopython": True, "error_model": "numpy", "fastmath": FASTMATH}
    compiler = _Function(function, cpu_target, options, {}, pipeline_class=Compiler)
    compiled = compiler.compile((types.CPointer(numba.from_dtype(args)), types.int64, types.int64), types.void)
    library, body = compiled.library, compiled.fndesc
    symbol = f"sigconv.{name}"
    library.add_ir_module(_entry(symbol, body))
    library.get_pointer_to_function(symbol)  # compiles
    code = library._get_compiled_object()
    _check(library, name)
    return symbol, code


def _entry(symbol: str, body: Any) -> ir.Module:
    """A C function that calls what Numba compiled."""
    context = cpu_target.target_context
    module = context.create_module(symbol)
    parameters = [context.get_value_type(t) for t in body.argtypes]
    callee = ir.Function(module, context.call_conv.get_function_type(body.restype, body.argtypes), body.llvm_func_name)
    entry = ir.Function(module, ir.FunctionType(ir.VoidType(), parameters), symbol)
    builder = ir.IRBuilder(entry.append_basic_block())
    context.call_conv.call_function(builder, callee, body.restype, body.argtypes, entry.args)
    builder.ret_void()
    # Views of memory that nobody counts still carry code that would free it.
    free = ir.Function(module, ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer()]), "NRT_MemInfo_call_dtor")
    ir.IRBuilder(free.append_basic_block()).ret_void()
    return module


def _check(library: Any, name: str) -> None:
    """RuntimeError where a kernel does what none may."""
    functions = library._final_module.functions
    called = [f.name for f in functions if f.is_declaration and not f.name.startswith("llvm.")]
    if allocators := [n for n in called if n.startswith("NRT_MemInfo_alloc")]:
        raise RuntimeError(f"kernel {name} allocates memory ({', '.join(allocators)})")
    if unknown := [n for n in called if llvm.address_of_symbol(n) is None]:
        raise RuntimeError(f"kernel {name} calls {', '.join(unknown)}, which this process does not have")
    if library.has_dynamic_globals:
        raise RuntimeError(f"kernel {name} holds an address, which must come in its arguments")


def link(code: bytes, symbol: str) -> int:
    """What `elf.link` does, by LLVM.

    One engine an object: helpers of the same mangled name, compiled in different processes, never meet. The engine is
    detached, hence never freed: a thread may still be running its code when the interpreter shuts down.
    """
    with LOCK:
        machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(jit=True)
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
        engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        address = int(engine.get_function_address(symbol))
        engine.detach()
        return address
