"""The CUDA device: whether there is one, its memory, and arrays that other libraries hold there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numba import cuda

from sigconv import config
from sigconv.errors import DeviceError
from sigconv.kernels.cuda.jit import SIMULATED
from sigconv.kernels.cuda.limits import OLDEST
from sigconv.runtime.dlpack import Taken

INSTALL = "pip install 'sigconv[cuda13]' (driver 580 or newer) or 'sigconv[cuda12]' (driver 525 or newer)"


def problem() -> str | None:
    """Why there is no usable device: one line that says what to install or change. None if there is one."""
    if SIMULATED:
        return None
    driver = cuda.cudadrv.driver.driver
    if not driver.is_available:
        return (
            "no CUDA driver was found: install NVIDIA's driver (`nvidia-smi` then shows the GPU; in a container, pass "
            "the GPU in)"
        )
    try:
        if not cuda.cudadrv.nvvm.is_available():
            return f"the CUDA compiler (NVVM) is missing: {INSTALL}"
        device = cuda.get_current_device()
    except cuda.cudadrv.error.CudaSupportError as error:
        return f"CUDA does not start: {_line(error)}"
    except cuda.cudadrv.driver.CudaAPIError as error:
        return f"the CUDA driver refuses: {_line(error)}"
    return too_old(str(device.name), tuple(device.compute_capability))


def too_old(name: str, capability: tuple[int, ...]) -> str | None:
    """Why a GPU of this compute capability cannot be used."""
    if capability[:2] >= OLDEST:
        return None
    have, need = (".".join(map(str, c[:2])) for c in (capability, OLDEST))
    return f"{name} has compute capability {have}; {need} or newer is needed (Volta, 2017)"


def capability() -> tuple[int, int]:
    """The compute capability of the current device; the simulator can what the newest can."""
    if SIMULATED:
        return 9, 0
    major, minor = tuple(cuda.get_current_device().compute_capability)[:2]
    return int(major), int(minor)


def require() -> None:
    """DeviceError unless a device can be used."""
    why = problem()
    if why is not None:
        raise DeviceError(why)


def describe() -> dict[str, str]:
    """What was found, by name: the software, and the device if there is one."""
    found = {"software": _software()}
    if SIMULATED:
        return {**found, "device": "none: Numba's simulator runs kernels as threads of Python"}
    with suppress(cuda.cudadrv.error.CudaSupportError, cuda.cudadrv.driver.CudaAPIError):
        found["driver"] = "CUDA " + ".".join(map(str, cuda.cudadrv.driver.driver.get_version()))
        gpu = cuda.get_current_device()
        name = gpu.name.decode() if isinstance(gpu.name, bytes) else str(gpu.name)
        free, total = cuda.current_context().get_memory_info()
        found["device"] = f"{name}, compute capability {'.'.join(map(str, tuple(gpu.compute_capability)[:2]))}"
        found["memory"] = f"{total / 2**30:.1f} GiB, {free / 2**30:.1f} of them free"
    return found


def _software() -> str:
    """Which package compiles kernels."""
    versions = {}
    for package in ("numba-cuda", "numba", "cuda-bindings"):
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    names = ", ".join(f"{package} {number}" for package, number in versions.items())
    return names if "numba-cuda" in versions else f"{names} (its own CUDA target; {INSTALL} brings numba-cuda)"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())


@contextmanager
def explained(what: str) -> Iterator[None]:
    """CUDA's errors in one line that says what to do, as DeviceError."""
    try:
        yield
    except DeviceError:
        raise
    except Exception as error:
        text = _line(error)
        lower = text.lower()
        if "out_of_memory" in lower or "out of memory" in lower:
            raise DeviceError(
                f"{what}: the GPU's memory is full; a smaller batch, or fewer sessions, would fit"
            ) from error
        if "unsupported_ptx_version" in lower or "unsupported toolchain" in lower:
            raise DeviceError(f"{what}: the driver is older than the CUDA compiler: {INSTALL}") from error
        if type(error).__module__.startswith("numba.cuda.cudadrv"):
            raise DeviceError(f"{what}: {text}") from error
        raise


# --- memory ----------------------------------------------------------------------------------------------------------
def upload(array: np.ndarray, stream: Any = 0) -> Any:
    """A flat copy on the device; at least one element, so that it has an address."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return cuda.to_device(flat if flat.size else np.zeros(1, array.dtype), stream=stream)


def empty(shape: tuple[int, ...], dtype: Any) -> Any:
    """Uninitialised device memory."""
    return cuda.device_array(shape, dtype)


def new_stream() -> Any:
    """A stream of its own; work on it keeps the default stream's order and no other's."""
    return cuda.stream()


def address(array: Any) -> int:
    """Where a device array lies."""
    return int(array.__cuda_array_interface__["data"][0])


def graph_driver() -> Any:
    """The driver's own functions, which record launches; None where they are not to be had, or not wanted."""
    if SIMULATED or not config.get("cuda_graphs"):
        return None
    try:
        from cuda.bindings import driver
    except ImportError:
        return None
    return driver


def cupy() -> Any:
    """CuPy, which brings cuFFT; None where it is not installed."""
    try:
        import cupy
    except ImportError:
        return None
    return cupy


def on_stream(cupy: Any, stream: Any) -> Any:
    """A context in which CuPy queues on ``stream``."""
    handle = 0 if SIMULATED else int(stream)
    return cupy.cuda.ExternalStream(handle) if handle else cupy.cuda.Stream.null


# --- other libraries' arrays -----------------------------------------------------------------------------------------
_LEGACY = 1
"""The default stream's number in DLPack."""


def adopt(value: Any, stream: Any) -> Any:
    """The value as Numba's device array, without a copy; ``stream`` waits for what its producer has queued."""
    interface = getattr(value, "__cuda_array_interface__", None)
    named = interface is not None and interface.get("stream") is not None
    ours = getattr(value, "__cuda_ndarray__", False)
    if not named and not ours and hasattr(value, "__dlpack__"):  # its producer lets our stream wait
        return cuda.as_cuda_array(Taken(value.__dlpack__(stream=int(stream) or _LEGACY)), sync=False)
    if named:
        follow(stream, stream_of(value))
    return value if ours else cuda.as_cuda_array(value, sync=False)


def dtype_of(value: Any) -> np.dtype[Any]:
    """The dtype of a device array of any library."""
    interface = getattr(value, "__cuda_array_interface__", None)
    return np.dtype(interface["typestr"] if interface else value.dtype)


def stream_of(value: Any) -> Any:
    """The stream whose order the array's users keep: work queued there needs no synchronisation with them."""
    interface = getattr(value, "__cuda_array_interface__", None) or {}
    handle = interface.get("stream")
    if handle is None and _library(value) == "torch":  # torch names none: its users keep its current stream's order
        import torch

        return stream_from(torch.cuda.current_stream(value.device))
    if handle is None:
        return getattr(cuda, "default_stream", cuda.stream)()  # the simulator has no default one
    return cuda.external_stream(handle)


def stream_from(stream: Any) -> Any:
    """A stream of Numba, CuPy or torch, or a handle, as one of Numba's."""
    for name in ("ptr", "cuda_stream"):  # CuPy's, torch's
        stream = getattr(stream, name, stream)
    return cuda.external_stream(stream) if isinstance(stream, int) else stream


def follow(later: Any, earlier: Any) -> None:
    """What is queued on ``later`` from now on waits for what is on ``earlier`` now; the host waits for nothing."""
    event = cuda.event(timing=False)
    event.record(earlier)
    event.wait(later)


def _to_torch(array: Any) -> Any:
    import torch

    return torch.as_tensor(array, device="cuda")


def _to_cupy(array: Any) -> Any:
    import cupy

    return cupy.asarray(array)


def _to_jax(array: Any) -> Any:
    import cupy
    import jax

    return jax.dlpack.from_dlpack(cupy.asarray(array))


KINDS = {"torch": _to_torch, "cupy": _to_cupy, "jax": _to_jax, "jaxlib": _to_jax}
"""How a device array becomes another library's, without a copy."""


def _library(value: Any) -> str:
    """The package that an array's type comes from."""
    return type(value).__module__.split(".")[0]


def like(value: Any, array: Any) -> Any:
    """``array`` as the kind of array that ``value`` is."""
    convert = KINDS.get(_library(value))
    return array if convert is None else convert(array)
