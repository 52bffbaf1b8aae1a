"""The one place that decorates CUDA kernels: their parameter records, how they are compiled and launched.

A kernel is ``kernel(p, array, …)``: ``p`` is a record of integers and floats that lie in the launch's constant bank,
every array is flat and contiguous. Nothing is compiled before the first launch, and importing this needs no driver.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import cuda, types
from numba.core import config as numba_config

SIMULATED = bool(numba_config.ENABLE_CUDASIM)
"""Whether Numba's simulator stands for the device: a process is one or the other from its start."""

BLOCK = 16 if SIMULATED else 128
"""Threads of a block where the algorithm leaves it open (a power of 2); the simulator's are threads of Python."""


@dataclass(frozen=True)
class Record:
    """The fields of a kernel's first parameter: whole numbers (int32), then numbers of the kernel's float type."""

    name: str
    integers: tuple[str, ...]
    floats: tuple[str, ...]
    type: Any

    def __call__(self, **fields: Any) -> Any:
        """The record of one launch; every field must be given. OverflowError where a size takes more than 32 bits."""
        integers = {name: int(fields.pop(name)) for name in self.integers}
        for number in integers.values():
            np.int32(number)
        floats = {name: float(fields.pop(name)) for name in self.floats}
        return self.type(**integers, **floats, **fields)  # a field too many: its own TypeError names it

    def numba_type(self, real: Any) -> Any:
        """As Numba sees it."""
        return types.NamedTuple([types.int32] * len(self.integers) + [real] * len(self.floats), self.type)


def record(name: str, integers: str, floats: str = "") -> Record:
    """A parameter record with fields named by words."""
    whole, real = tuple(integers.split()), tuple(floats.split())
    fields = [(n, int) for n in whole] + [(n, float) for n in real]
    made = NamedTuple(name, fields)  # type: ignore[misc]
    return Record(name, whole, real, made)


@dataclass(eq=False)
class Kernel:
    """A CUDA kernel.

    Attributes
    ----------
    name : str
    params : Record
    arrays : tuple of dtype
        Of the flat arrays, in their order.
    threads : int
        In a block, one-dimensional.
    real : dtype
        Of the record's numbers that are not whole.
    hot : bool
        It must not spill, nor index its registers.
    """

    name: str
    function: Callable[..., None]
    params: Record
    arrays: tuple[np.dtype[Any], ...]
    threads: int
    real: np.dtype[Any]
    hot: bool
    _compiled: Any = None

    @property
    def signature(self) -> tuple[Any, ...]:
        """The argument types, as Numba names them."""
        arrays = [types.Array(numba.from_dtype(dtype), 1, "C") for dtype in self.arrays]
        return (self.params.numba_type(numba.from_dtype(self.real)), *arrays)

    def ready(self) -> Any:
        """What launches it, compiled for the current device."""
        if self._compiled is None:
            self._compiled = cuda.jit(self.function) if SIMULATED else _compile(self.function, self.signature)
        return self._compiled

    def configured(self, grid: Sequence[int], stream: Any) -> Callable[..., None]:
        """What launches ``grid`` blocks on a stream when it is called with the record and the arrays."""
        if SIMULATED:  # there a configuration is a state of the kernel, not an object
            return lambda *arguments: self.ready()[tuple(grid), self.threads, stream](*arguments)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Numba warns of every grid of fewer than 128 blocks
            launch: Callable[..., None] = self.ready()[tuple(grid), self.threads, stream]
        return launch

    def launch(self, grid: Sequence[int], params: Any, arrays: Sequence[Any], stream: Any = 0) -> None:
        """Run ``grid`` blocks on a stream."""
        self.configured(grid, stream)(params, *arrays)

    def ptx(self, capability: tuple[int, int]) -> str:
        """The assembly for a compute capability; needs the compiler (NVVM), no driver."""
        with _as_if_on(capability), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the toolkit's own deprecations
            return str(cuda.compile_ptx(self.function, self.signature, cc=capability)[0])


@contextmanager
def _as_if_on(capability: tuple[int, int]) -> Iterator[None]:
    """Numba asks the current device for its capability when it compiles a device function: answer in its place."""
    from numba.cuda import dispatcher

    real = dispatcher.get_current_device
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=capability)
    try:
        yield
    finally:
        dispatcher.get_current_device = real


def _compile(function: Callable[..., None], signature: tuple[Any, ...]) -> Any:
    """For the current device; kept on disk where Numba finds a place to write, unless that would be of no use.

    The key of what is kept holds the function's cells: a compiled function among them differs in every process.
    """
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    plain = all(isinstance(c, (int, float, np.generic, type)) for c in cells)
    try:
        return cuda.jit(signature, cache=plain)(function)
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
        return cuda.jit(signature)(function)


KERNELS: dict[str, Kernel] = {}
"""Every kernel by name."""


def kernel(
    params: Record, arrays: str, threads: int, *, real: Any = np.float32, hot: bool = False
) -> Callable[[Callable[..., None]], Kernel]:
    """Make a `Kernel` of a function.

    ``arrays``: their dtypes by words; ``real`` stands for the float type ``real``. ``hot``: it must not spill.
    """
    dtypes = tuple(np.dtype(real if word == "real" else word) for word in arrays.split())

    def wrap(function: Callable[..., None]) -> Kernel:
        name = function.__name__
        if name in KERNELS:
            raise RuntimeError(f"two CUDA kernels are called {name}")
        made = Kernel(name, function, params, dtypes, threads, np.dtype(real), hot)
        KERNELS[name] = made
        return made

    return wrap


def device(function: Callable[..., Any]) -> Any:
    """A function that kernels call; it must not use ``cuda`` itself, so that the simulator may call it as it is."""
    return function if SIMULATED else cuda.jit(function, device=True)


def suffix(real: Any) -> str:
    """``f32`` or ``f64``: how kernels of a float type end."""
    return f"f{8 * np.dtype(real).itemsize}"
