"""A session on a CUDA device: weights and one arena stay there, a run is a sequence of launches on one stream."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sigconv.errors import InputError, unknown_names
from sigconv.kernels.cuda.jit import SIMULATED
from sigconv.runtime import device
from sigconv.runtime.kinds import is_device_array
from sigconv.runtime.locks import lock
from sigconv.runtime.program import HostStep, Launch, Operand, Place, Program, Ref
from sigconv.runtime.replay import Replay
from sigconv.runtime.report import Explanation, Profile, Timing
from sigconv.runtime.session import as_array, check_mapping


class CudaSession:
    """Runs one Program. Calls from several threads take turns; make a session a thread to run side by side.

    Attributes
    ----------
    program : Program
        What runs. Immutable; any number of sessions may share it.
    stream : numba.cuda stream
        Where everything is queued, the copies of NumPy arrays included: one of its own, or the caller's (a stream of
        Numba, CuPy or torch, or its handle).
    """

    def __init__(self, program: Program, stream: Any = None) -> None:
        device.require()
        self.program = program
        self._lock = lock()
        with device.explained("this session"):
            self.stream = device.new_stream() if stream is None else device.stream_from(stream)
            self._arena = device.empty((max(program.arena_nbytes, 1),), np.uint8)
            self._constants = [device.upload(c) for c in program.constants]
            self._inputs = [self._home(p) for p in program.inputs]
            self._outputs = [self._home(p) for p in program.outputs]
            absent = {o.dtype for s in program.steps if isinstance(s, Launch) for o in s.operands if o.ref is None}
            self._nothing = {dtype: device.upload(np.zeros(1, dtype)) for dtype in absent}
            self._calls = [
                s.kernel.configured(s.grid, self.stream) if isinstance(s, Launch) else None for s in program.steps
            ]  # compiled now
        self._views: dict[tuple[Ref, np.dtype[Any], int], Any] = {}
        self._input_names = frozenset(p.name for p in program.inputs)
        self._only_launches = all(isinstance(s, Launch) for s in program.steps)
        self._replay = Replay(device.graph_driver(), self.stream)

    @staticmethod
    def _home(place: Place) -> Any:
        """Memory of a NumPy array while it is on the device."""
        if place.shape is None or place.dtype is None or place.dtype.kind == "O":
            return None
        return device.empty((max(1, math.prod(place.shape)),), place.dtype)

    # --- running -----------------------------------------------------------------------------------------------------
    def run(self, feeds: Mapping[str, Any], outputs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Outputs by name for inputs by name.

        NumPy arrays are copied to the device, and the outputs back, once each. If the feeds lie on the device
        (``__cuda_array_interface__``) nothing is copied: the outputs are new arrays of the first feed's kind, and
        whoever uses them in that array's stream order needs no synchronisation.

        Parameters
        ----------
        feeds : mapping of name to array
        outputs : mapping of name to device array, optional
            Where to write outputs instead, contiguous and of their shape and dtype; only with feeds on the device.

        Raises
        ------
        InputError
            A feed is missing or not an input, or has another shape or dtype than the program was compiled for.
        DeviceError
            The device fails.
        """
        check_mapping(feeds)
        extra = set(feeds) - self._input_names
        if extra:
            raise unknown_names("input", extra, self._input_names)
        on_device = [is_device_array(feeds.get(p.name)) for p in self.program.inputs]
        if any(on_device) and not all(on_device):
            kinds = ", ".join(
                f"{p.name!r} on the {'device' if there else 'host'}"
                for p, there in zip(self.program.inputs, on_device, strict=True)
            )
            raise InputError(f"the inputs lie in different places: {kinds}; nothing is copied silently")
        with self._lock, device.explained("this run"):
            if any(on_device):
                return self._run_there(feeds, outputs or {})
            if outputs:
                raise InputError("outputs can only be given with inputs that lie on the device")
            return self._run_here(feeds)

    def _run_here(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """NumPy in, NumPy out."""
        arrays = [self._checked(p, as_array(p.name, feeds.get(p.name), p.dtype, p.shape)) for p in self.program.inputs]
        for home, array in zip(self._inputs, arrays, strict=True):
            if home is not None and array.size:
                home.copy_to_device(np.ascontiguousarray(array).reshape(-1), stream=self.stream)
        loose = self._execute(self._inputs, self._outputs)
        results: dict[str, Any] = {}
        for place, home in zip(self.program.outputs, self._outputs, strict=True):
            results[place.name] = self._fetch(place, home) if home is not None else loose[place.name]
        self.stream.synchronize()
        return results

    def _fetch(self, place: Place, home: Any) -> np.ndarray:
        assert place.shape is not None
        array = np.empty(place.shape, place.dtype)
        if array.size:
            home.copy_to_host(array.reshape(-1), stream=self.stream)
        return array

    def _run_there(self, feeds: Mapping[str, Any], outputs: Mapping[str, Any]) -> dict[str, Any]:
        """Device arrays in and out, in place."""
        unknown = set(outputs) - {p.name for p in self.program.outputs}
        if unknown:
            raise unknown_names("output", unknown, (p.name for p in self.program.outputs))
        first = feeds[self.program.inputs[0].name]
        inputs = [self._adopted(p, feeds[p.name]) for p in self.program.inputs]
        homes: list[Any] = []
        for p in self.program.outputs:
            if p.name in outputs:
                homes.append(self._adopted(p, outputs[p.name]))
            elif p.shape is None or p.dtype is None:
                raise InputError(f"output {p.name!r} has a size that depends on data: run with NumPy arrays")
            else:
                homes.append(device.empty((max(1, math.prod(p.shape)),), p.dtype))
        self._execute(inputs, homes)
        if not SIMULATED:  # there nothing is queued
            device.follow(device.stream_of(first), self.stream)  # who uses the results there waits for them
        results = {}
        for p, home in zip(self.program.outputs, homes, strict=True):
            assert p.shape is not None
            results[p.name] = outputs.get(p.name)
            if p.name not in outputs:
                results[p.name] = device.like(first, home[: math.prod(p.shape)].reshape(p.shape))
        return results

    def _adopted(self, place: Place, value: Any) -> Any:
        array = device.adopt(value, self.stream)
        self._checked(place, array)
        if array.dtype != place.dtype:
            raise InputError(f"{place.name!r} is {array.dtype}, the model takes {place.dtype}")
        if not array.is_c_contiguous():
            raise InputError(f"{place.name!r} is not contiguous on the device: make a contiguous copy of it")
        return array.reshape(-1) if array.size else device.empty((1,), place.dtype)

    @staticmethod
    def _checked(place: Place, array: Any) -> Any:
        if place.shape is not None and tuple(array.shape) != place.shape:
            raise InputError(
                f"{place.name!r} has shape {tuple(array.shape)}, this session was compiled for {place.shape}"
            )
        return array

    def _execute(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> dict[str, np.ndarray]:
        """Queue every step; what host steps made of sizes that depend on data is returned."""
        if self._only_launches and self._replay.problem is None:
            addresses = tuple(map(device.address, (*inputs, *outputs)))
            self._replay.run(addresses, lambda: self._queue(inputs, outputs))
            return {}
        return self._queue(inputs, outputs)

    def _queue(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> dict[str, np.ndarray]:
        """Step after step, each launched by itself."""
        loose: dict[str, np.ndarray] = {}
        for step, call in zip(self.program.steps, self._calls, strict=True):
            self._do(step, call, inputs, outputs, loose)
        return loose

    def _do(
        self, step: Any, call: Any, inputs: Sequence[Any], outputs: Sequence[Any], loose: dict[str, np.ndarray]
    ) -> None:
        if isinstance(step, Launch):
            call(step.params, *(self._array(o, inputs, outputs) for o in step.operands))
        elif isinstance(step, HostStep):
            self._run_host(step, inputs, outputs, loose)

    def _array(self, operand: Operand, inputs: Sequence[Any], outputs: Sequence[Any]) -> Any:
        """The flat device array of an operand; those in the session's own memory are cut once."""
        ref = operand.ref
        if ref is None:
            return self._nothing[operand.dtype]
        if ref.space in ("input", "output"):
            return self._cut((inputs if ref.space == "input" else outputs)[ref.index], operand)
        key = (ref, operand.dtype, operand.count)
        if key not in self._views:
            base = self._constants[ref.index] if ref.space == "constant" else self._arena
            self._views[key] = self._cut(base, operand)
        return self._views[key]

    @staticmethod
    def _cut(base: Any, operand: Operand) -> Any:
        """``operand`` out of an array of any dtype."""
        assert operand.ref is not None
        start, item = operand.ref.offset, base.dtype.itemsize
        nbytes = operand.count * operand.dtype.itemsize
        part = base if start == 0 and nbytes >= base.size * item else base[start // item : -(-(start + nbytes) // item)]
        return part if part.dtype == operand.dtype else part.view(operand.dtype)

    # --- what has no kernel ------------------------------------------------------------------------------------------
    def _run_host(
        self, step: HostStep, inputs: Sequence[Any], outputs: Sequence[Any], loose: dict[str, np.ndarray]
    ) -> None:
        """Fetch the operands, call NumPy, bring the results back."""

        def there(place: Place) -> Any:
            assert place.ref is not None
            assert place.dtype is not None
            assert place.shape is not None
            operand = Operand(place.ref, place.dtype, math.prod(place.shape))
            return self._array(operand, inputs, outputs)

        def fetched(place: Place | None) -> np.ndarray | None:
            if place is None:
                return None
            if place.ref is None or place.shape is None:
                return loose[place.name]
            array = np.empty(place.shape, place.dtype)
            if array.size:
                there(place).copy_to_host(array.reshape(-1), stream=self.stream)
            return array

        arguments = [fetched(p) for p in step.inputs]
        self.stream.synchronize()
        for place, result in zip(step.outputs, step.function(arguments), strict=False):
            if place is None:
                continue
            if place.ref is None or place.dtype is None:
                loose[place.name] = result if result.flags.owndata else result.copy()
            elif result.size:
                flat = np.ascontiguousarray(result, place.dtype).reshape(-1)
                there(place).copy_to_device(flat, stream=self.stream)
                self.stream.synchronize()  # `flat` must outlive the copy

    # --- reports -----------------------------------------------------------------------------------------------------
    def explain(self) -> Explanation:
        """Which algorithm runs each fused group, why, and why not the others; 'numpy' is what runs on the host."""
        p = self.program
        constants = sum(c.nbytes for c in p.constants)
        return Explanation(p.rows, p.arena_nbytes, constants, p.threads)

    def profile(self, feeds: Mapping[str, Any], *, repeat: int = 5) -> Profile:
        """Seconds for each fused group, every step on its own and waited for, the smallest of ``repeat`` runs."""
        self.run(feeds)  # inputs of the host lie in the session's memory from here on
        there = any(map(is_device_array, feeds.values()))
        inputs = [self._adopted(p, feeds[p.name]) for p in self.program.inputs] if there else self._inputs
        best = np.full(len(self.program.rows), np.inf)
        with self._lock, device.explained("this run"):
            for _ in range(repeat):
                seconds = np.zeros(len(best))
                loose: dict[str, np.ndarray] = {}
                for step, call in zip(self.program.steps, self._calls, strict=True):
                    start = time.perf_counter()
                    self._do(step, call, inputs, self._outputs, loose)
                    self.stream.synchronize()
                    seconds[step.node] += time.perf_counter() - start
                best = np.minimum(best, seconds)
        return Profile(tuple(Timing(row, float(s)) for row, s in zip(self.program.rows, best, strict=True)))
