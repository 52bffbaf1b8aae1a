"""The CUDA device: whether there is one, its memory, and arrays that other libraries hold there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numba import cuda

from sigconv.errors import DeviceError
from sigconv.kernels.cuda.jit import SIMULATED

OLDEST = (7, 0)
"""Compute capability that the kernels need: what CUDA 13 still compiles for starts at 7.5, CUDA 12 at 5.0."""

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


def require() -> None:
    """DeviceError unless a device can be used."""
    why = problem()
    if why is not None:
        raise DeviceError(why)


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
    """A stream of its own; work on it waits for nothing else."""
    return cuda.stream()


# --- other libraries' arrays -----------------------------------------------------------------------------------------
def adopt(value: Any, stream: Any) -> Any:
    """The value as Numba's device array, without a copy; ``stream`` waits for what its producer has queued."""
    if getattr(value, "__cuda_ndarray__", False):
        return value
    if not hasattr(value, "__cuda_array_interface__"):
        raise DeviceError(
            f"{type(value).__name__} offers DLPack but no __cuda_array_interface__: wrap it, "
            "cupy.from_dlpack(x) or torch.from_dlpack(x)"
        )
    producer = value.__cuda_array_interface__.get("stream")
    if producer is not None:
        follow(stream, cuda.external_stream(producer))
    return cuda.as_cuda_array(value, sync=False)


def follow(later: Any, earlier: Any) -> None:
    """What is queued on ``later`` from now on waits for what is on ``earlier`` now; the host waits for nothing."""
    event = cuda.event(timing=False)
    event.record(earlier)
    event.wait(later)


def hand_over(stream: Any, consumer: int | None) -> None:
    """Let the caller's stream (its handle; None: the default one) wait for what is queued on ``stream``."""
    follow(cuda.default_stream() if consumer is None else cuda.external_stream(consumer), stream)


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


def like(value: Any, array: Any) -> Any:
    """``array`` as the kind of array that ``value`` is."""
    convert = KINDS.get(type(value).__module__.split(".")[0])
    return array if convert is None else convert(array)
