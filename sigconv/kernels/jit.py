"""The only place that decorates. Kernels are C functions ``void kernel(Args* args, int64 thread, int64 threads)``.

`kernel(ARGS)` turns a Python function into a `Kernel`: compiled on first use of ``.address`` (from the disk cache when
it can), never on import. `inline` marks helpers that kernels call, `strict` those whose order of operations counts
(range reductions). No kernel allocates, raises or touches Python.

What is cached is the object file that LLVM made of a kernel, not Numba's own pickle of it: it is linked in a fraction
of a millisecond, and neither Numba nor LLVM is imported. Only this package's kernels are cached on disk, since the key
covers the sources of this package and no others.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from sigconv import __version__, config
from sigconv.digest import digest
from sigconv.kernels import cache, elf, host
from sigconv.kernels.late import Late

FASTMATH = {"nsz", "arcp", "contract", "afn", "reassoc"}  # never nnan or ninf: NaN and Inf must survive


def inline(function: Callable[..., Any]) -> Any:
    """Decorate a helper that kernels call."""
    return _helper(function, FASTMATH)


def within(function: Callable[..., Any]) -> Any:
    """Decorate a helper that becomes part of its callers however large it is."""
    return _helper(function, FASTMATH, forceinline=True)


def strict(function: Callable[..., Any]) -> Any:
    """Decorate a helper that computes in the order it is written in, whatever its callers' flags."""
    return _helper(function, False)


def _helper(function: Callable[..., Any], fastmath: Any, **options: Any) -> Any:
    def make() -> Any:
        import numba

        return numba.njit(nogil=True, error_model="numpy", fastmath=fastmath, **options)(function)

    return Late(make, function)


def overload(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate what gives the implementation of a public function inside users' own compiled code.

    Literal arguments arrive as such, so that a mode or a boundary is settled while types are inferred.
    """
    from numba import extending

    return extending.overload(function, prefer_literal=True)  # type: ignore[no-any-return]


KERNELS: dict[str, Kernel] = {}
"""Every kernel of this package whose module is imported, by module and name."""

COMPILED: list[str] = []
"""Names of the kernels that this process has compiled itself, in order."""


def _sources_digest() -> str:
    """Digest of every kernel source: kernels inline helpers of each other, so a change anywhere counts everywhere."""
    sources = digest()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        sources.update(f"{path.name}\0".encode() + path.read_bytes() + b"\0")
    return sources.hexdigest()


_SOURCES = _sources_digest()


@functools.cache
def build_id() -> str:
    """What the machine code depends on besides the kernel itself."""
    return "\0".join([_SOURCES, __version__, host.identity()])


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
        return digest(f"{build_id()}\0{self.qualified_name}\0{self.args!r}".encode()).hexdigest()

    @property
    def address(self) -> int:
        """The machine address; compiles (or loads from the disk cache) on first use. RuntimeError if it allocates."""
        if not self._address and not self.load():
            from sigconv.kernels import compiler

            with compiler.LOCK:
                if not self._address:
                    symbol, code = compiler.object_file(self.function, self.args, self.qualified_name)
                    COMPILED.append(self.qualified_name)
                    if self._cached and _sources_digest() == _SOURCES:  # else one was edited since it was imported
                        cache.store(self.key, symbol.encode() + b"\0" + code)
                    self._address = _link(symbol, code)
        return self._address

    def load(self) -> bool:
        """Whether the kernel is ready without compiling it: in memory already, or now loaded from the disk cache."""
        if not self._address and self._cached and (blob := cache.load(self.key)) is not None:
            symbol, _, code = blob.partition(b"\0")
            self._address = _link(symbol.decode(), code)  # by two threads at once: either's copy will do
        return self._address != 0


def _link(symbol: str, code: bytes) -> int:
    """Load an object file into this process; the address of ``symbol``."""
    if address := elf.link(code, symbol):
        return address
    from sigconv.kernels import compiler

    return compiler.link(code, symbol)


def kernel(args: np.dtype[Any]) -> Callable[[Callable[..., None]], Kernel]:
    """Decorate a kernel whose arguments are one record of dtype ``args``."""
    return lambda function: Kernel(function, args)


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
