"""The only place that decorates. Kernels are C functions ``void kernel(Args* args, int64 thread, int64 threads)``.

`kernel(ARGS)` turns a Python function into a `Kernel`: compiled on first use of ``.address`` (from the disk cache when
it can), never on import. `inline` marks helpers that kernels call, `strict` those whose order of operations counts
(range reductions). No kernel allocates, raises or touches Python.

What is cached is the object file that LLVM made of a kernel, not Numba's own pickle of it: the linker loads it in a
fraction of a millisecond, and typing, lowering and Numba's registries are never set up. Only this package's kernels are
cached on disk, since the key covers the sources of this package and no others.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numba
import numba.extending
import numpy as np
from numba import types
from numba.core.ccallback import CFunc
from numba.core.codegen import get_host_cpu_features
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.core.runtime import _nrt_python

from sigconv import __version__, config
from sigconv.kernels import cache

FASTMATH = {"nsz", "arcp", "contract", "afn", "reassoc"}  # never nnan or ninf: NaN and Inf must survive

inline = numba.njit(nogil=True, error_model="numpy", fastmath=FASTMATH)
strict = numba.njit(nogil=True, error_model="numpy", fastmath=False)  # said, not left out: callers' flags are inherited


def overload(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate what gives the implementation of a public function inside users' own compiled code.

    Literal arguments arrive as such, so that a mode or a boundary is settled while types are inferred.
    """
    return numba.extending.overload(function, prefer_literal=True)  # type: ignore[no-any-return]


KERNELS: dict[str, Kernel] = {}
"""Every kernel of this package whose module is imported, by module and name."""

COMPILED: list[str] = []
"""Names of the kernels that this process has compiled itself, in order."""

_CODEGEN_SETTINGS = ("OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "BOUNDSCHECK", "DEBUGINFO_DEFAULT", "USING_SVML")


def _sources_digest() -> str:
    """Digest of every kernel source: kernels inline helpers of each other, so a change anywhere counts everywhere."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(f"{path.name}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


_SOURCES = _sources_digest()


@functools.cache
def build_id() -> str:
    """What the machine code depends on besides the kernel itself: sources, versions, CPU and Numba's settings."""
    settings = numba.config
    cpu = settings.CPU_NAME or llvm.get_host_cpu_name()
    features = get_host_cpu_features() if settings.CPU_FEATURES is None else settings.CPU_FEATURES
    versions = [__version__, numba.__version__, llvmlite.__version__, np.__version__, sys.version]
    codegen = [f"{name}={getattr(settings, name, None)!r}" for name in _CODEGEN_SETTINGS]
    return "\0".join([_SOURCES, *versions, llvm.get_process_triple(), cpu, features, *codegen])


class Kernel:
    """A compiled C function and the structured dtype of its first argument.

    The function's ``__name__`` is the kernel's name; variants that a factory makes need one each (RuntimeError).
    """

    def __init__(self, function: Callable[..., None], args: np.dtype[Any]) -> None:
        self.function, self.args, self.name = function, args, function.__name__
        self._address = 0
        self._cached = function.__module__.startswith(f"{__package__}.")
        if self._cached and KERNELS.setdefault(self.qualified_name, self) is not self:
            raise RuntimeError(f"two kernels are named {self.qualified_name}; set __name__ before decorating a variant")

    @property
    def qualified_name(self) -> str:
        """Module and name."""
        return f"{self.function.__module__}.{self.name}"

    @property
    def key(self) -> str:
        """Name of the kernel in the disk cache."""
        return hashlib.sha256(f"{build_id()}\0{self.qualified_name}\0{self.args!r}".encode()).hexdigest()

    @property
    def address(self) -> int:
        """The machine address; compiles (or loads from the disk cache) on first use. RuntimeError if it allocates."""
        if not self._address:
            with global_compiler_lock:  # Numba's own: a lock of ours beside it could deadlock
                if not self.load():
                    self._address = _link(*self._compile())
        return self._address

    def load(self) -> bool:
        """Whether the kernel is ready without compiling it: in memory already, or now loaded from the disk cache."""
        if not self._address and self._cached:
            with global_compiler_lock:
                blob = None if self._address else cache.load(self.key)
                if blob is not None:
                    symbol, _, code = blob.partition(b"\0")
                    self._address = _link(symbol.decode(), code)
        return self._address != 0

    def _compile(self) -> tuple[str, bytes]:
        """The symbol of the C function and the object file that defines it; stored in the disk cache."""
        signature = types.void(types.CPointer(numba.from_dtype(self.args)), types.int64, types.int64)
        options = {"nopython": True, "error_model": "numpy", "fastmath": FASTMATH}
        compiled = CFunc(self.function, (signature.args, signature.return_type), locals={}, options=options)
        compiled.compile()
        COMPILED.append(self.qualified_name)
        library = compiled._library
        _register_symbols()
        called = [
            f.name for f in library._final_module.functions if f.is_declaration and not f.name.startswith("llvm.")
        ]
        if allocators := [name for name in called if name.startswith("NRT_MemInfo_alloc")]:
            raise RuntimeError(f"kernel {self.qualified_name} allocates memory ({', '.join(allocators)})")
        if unknown := [name for name in called if llvm.address_of_symbol(name) is None]:
            raise RuntimeError(
                f"kernel {self.qualified_name} calls {', '.join(unknown)}, which this process does not have"
            )
        if library.has_dynamic_globals:
            raise RuntimeError(f"kernel {self.qualified_name} holds an address, which must come in its arguments")
        symbol, code = compiled.native_name, library._get_compiled_object()
        if self._cached and _sources_digest() == _SOURCES:  # else a source was edited since it was imported
            cache.store(self.key, symbol.encode() + b"\0" + code)
        return symbol, code


def kernel(args: np.dtype[Any]) -> Callable[[Callable[..., None]], Kernel]:
    """Decorate a kernel whose arguments are one record of dtype ``args``."""
    return lambda function: Kernel(function, args)


@functools.cache
def _register_symbols() -> None:
    """Name every C function that an object may refer to: LLVM leaves *all* of its calls null where one is unknown."""
    cpu_target.target_context  # libm and Numba's helpers
    for name, address in _nrt_python.c_helpers.items():
        llvm.add_symbol(name if name.startswith("_") else f"NRT_{name}", address)


def _link(symbol: str, code: bytes) -> int:
    """Load an object file into this process; the address of ``symbol``.

    One engine an object: helpers of the same mangled name, compiled in different processes, never meet. The engine is
    detached, hence never freed: a thread may still be running its code when the interpreter shuts down.
    """
    _register_symbols()
    machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    address = int(engine.get_function_address(symbol))
    engine.detach()
    return address


def compilations() -> int:
    """How many kernels this process has compiled itself; loading one from the disk cache does not count."""
    return len(COMPILED)


def ensure(kernels: Iterable[Kernel], progress: bool = True) -> None:
    """Load or compile every kernel of ``kernels``; shows a bar on stderr as ``config.progress`` says."""
    missing = [k for k in dict.fromkeys(kernels) if not k.load()]
    if not missing:
        return
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[type-arg]
        monitor_interval = 0  # no thread of its own

    when = config.get("progress") if progress else "0"
    disable = {"auto": None, "0": True, "1": False}[when]  # None: only on a terminal
    delay = 1.0 if when == "auto" else 0.0
    with Bar(missing, "compiling kernels", unit="kernel", disable=disable, delay=delay, leave=False, miniters=1) as bar:
        for k in bar:
            k.address


def warmup(progress: bool = True) -> None:
    """Load or compile every CPU kernel of the package."""
    package = importlib.import_module("sigconv.kernels.cpu")
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
    ensure(KERNELS.values(), progress)


def cache_info() -> cache.CacheInfo:
    """Where the disk cache is, whether it can be used, and what it holds."""
    return cache.info()


def cache_clear() -> int:
    """Empty the disk cache; how many kernels it held. Kernels already loaded stay."""
    return cache.clear()
