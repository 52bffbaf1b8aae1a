"""A Session: a Program bound to memory. One arena, allocated once; `run` makes one native call per native segment."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sigconv import lines
from sigconv.errors import InputError, ModelError, unknown_names, wrong_dtype
from sigconv.kernels.jit import ensure
from sigconv.runtime import fixups
from sigconv.runtime.locks import lock
from sigconv.runtime.program import HostStep, Launch, Place, Program, Ref, Step
from sigconv.runtime.report import Explanation, Profile, Timing
from sigconv.runtime.runner import STEP, Prepared

_PYTHON_KINDS = {"f": "biuf", "i": "biu", "u": "biu", "b": "b", "c": "biufc"}
"""What Python's own numbers may be converted to: kinds of NumPy dtype, the values still checked for range."""


def check_mapping(feeds: Any) -> None:
    """InputError unless ``feeds`` maps names to arrays."""
    if not isinstance(feeds, Mapping):
        raise InputError(f"feeds is a {type(feeds).__name__}, it must map each input's name to an array")


def as_array(name: str, given: Any, dtype: np.dtype[Any] | None, shape: object) -> np.ndarray:
    """A feed as an array of ``dtype`` (None: of any) in native byte order. Only Python's own numbers change their type.

    ``shape`` is what the message says that the input takes. InputError names the input.
    """
    if given is None:
        raise InputError(f"input {name!r} is missing (it takes {dtype} of shape {shape})")
    try:
        array = np.asarray(given)
        numbers = isinstance(given, (list, tuple, bool, int, float, complex)) and dtype is not None
        if numbers and array.dtype.kind in _PYTHON_KINDS.get(dtype.kind, ""):  # type: ignore[union-attr]
            array = np.asarray(given, dtype)
    except (ValueError, TypeError, OverflowError) as e:
        raise InputError(f"input {name!r} is no array of {dtype}: {e}") from e
    if dtype is None or array.dtype == dtype:
        return array
    if array.dtype.kind in "OUS" and dtype.kind != "O":
        what = "str" if isinstance(given, str) else array.dtype.name
        raise InputError(f"input {name!r} is {what}, the model takes {dtype} of shape {shape}")
    if array.dtype.newbyteorder("=") != dtype:
        raise wrong_dtype(name, array.dtype.name, dtype.name)
    return array.astype(dtype)


def _out_of_memory(error: MemoryError) -> ModelError:
    return ModelError(f"the model at these shapes takes more memory than there is: {error}")


def _memory(nbytes: int) -> np.ndarray:
    """Zeros that begin on a cache line; ModelError where there is no memory left for them."""
    try:
        return lines.zeros(nbytes)
    except MemoryError as e:
        raise _out_of_memory(e) from e


class Session:
    """Runs one Program. Calls from several threads take turns; make a Session a thread to run side by side.

    Attributes
    ----------
    program : Program
        What runs. Immutable; any number of sessions may share it.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self._lock = lock()
        self._arena = _memory(program.arena_nbytes)
        native = [s for s in program.steps if isinstance(s, Step)]
        ensure(dict.fromkeys((fixups.KERNEL, *(s.kernel for s in native))))
        self._records = _memory(sum(lines.whole(s.record.nbytes) for s in native))
        self._base = self._arena.ctypes.data
        self._constants = [c.ctypes.data for c in program.constants]
        self._steps = np.zeros(len(native) + 1, STEP)
        at, of_arrays = 0, []
        for step, entry in zip(native, self._steps[1:], strict=True):
            of_arrays += self._bind(step, entry, at)
            at += lines.whole(step.record.nbytes)
        self._fixups = fixups.Fixups(len(program.inputs) + len(program.outputs), self._records, of_arrays)
        self._steps[0] = self._fixups.step
        self._segments: list[Prepared | HostStep] = []
        self._segment_rows: list[Sequence[int]] = []
        self._cut(program.steps)
        self._inputs = [
            (p.name, p.dtype, p.shape) for p in program.inputs if p.dtype is not None and p.shape is not None
        ]
        self._input_names = frozenset(p.name for p in program.inputs)
        self._results = [None if p.shape is None or p.dtype is None else (p.shape, p.dtype) for p in program.outputs]
        self._output_names = tuple(p.name for p in program.outputs)
        only = self._segments[0] if len(self._segments) == 1 else None
        self._only_native = only if isinstance(only, Prepared) else None

    def _bind(self, step: Step, entry: np.ndarray, at: int) -> list[tuple[int, int, int]]:
        """Copy a record into place, write its addresses and the step; where those of arrays go: array, offset, byte."""
        self._records[at : at + step.record.nbytes] = step.record.view(np.uint8)
        words, of_arrays = self._records.view(np.int64), []
        for position, ref in step.addresses.items():
            if ref.space in ("input", "output"):
                first = len(self.program.inputs) if ref.space == "output" else 0
                of_arrays.append((first + ref.index, ref.offset, at + position))
            else:
                base = self._constants[ref.index] if ref.space == "constant" else self._base
                words[(at + position) // 8] = base + ref.offset
        entry["kernel"], entry["args"] = step.kernel.address, self._records.ctypes.data + at
        entry["width"], entry["fence"] = step.width, step.fence
        return of_arrays

    def _cut(self, steps: Sequence[Step | HostStep | Launch]) -> None:
        """Native segments and the host steps between them; the first one also writes the addresses of arrays."""
        start, end = 0, 1
        rows: list[int] = []
        for step in (*steps, None):
            if isinstance(step, Step):
                end += 1
                rows += [step.node] * (end - start - len(rows))  # the first one's also counts the step before it
                continue
            if rows:
                self._segments.append(Prepared(self._steps[start:end]))
                self._segment_rows.append(rows)
                start, rows = end, []
            if isinstance(step, HostStep):
                self._segments.append(step)
                self._segment_rows.append([step.node])

    # --- running ---------------------------------------------------------------------------------------------------
    def run(self, feeds: Mapping[str, np.ndarray], threads: int | None = None) -> dict[str, np.ndarray]:
        """Outputs by name for inputs by name.

        Raises
        ------
        InputError
            A feed is missing or not an input, or has another shape or dtype than the program was compiled for.
        """
        arrays = self._arrays(feeds)
        outputs = self._outputs()
        with self._lock:
            self.call(arrays, outputs, threads)
        return dict(zip(self._output_names, outputs, strict=True))  # type: ignore[arg-type]

    def call(self, arrays: Sequence[np.ndarray], outputs: list[np.ndarray | None], threads: int | None = None) -> None:
        """Run on contiguous ``arrays`` of the program's shapes and dtypes, in its order, while nobody else does.

        Fills ``outputs``, and sets those that are None: they must be where a shape depends on data.
        """
        self._fixups.point([*arrays, *outputs])
        if self._only_native is not None:
            self._only_native.run(threads or self.program.threads)
        else:
            self._run_mixed(arrays, outputs, threads or self.program.threads)

    def explain(self) -> Explanation:
        """Which algorithm runs each fused group, why, and why not the others."""
        p = self.program
        constants = sum(c.nbytes for c in p.constants)
        return Explanation(p.rows, p.arena_nbytes, constants, p.threads)

    def profile(self, feeds: Mapping[str, np.ndarray], *, threads: int | None = None, repeat: int = 5) -> Profile:
        """Seconds for each fused group (every step on its own), the smallest of ``repeat`` runs."""
        arrays = self._arrays(feeds)
        outputs = self._outputs()
        best = np.full(len(self.program.rows), np.inf)
        with self._lock:
            self._fixups.point([*arrays, *outputs])
            for _ in range(repeat):
                seconds = np.zeros(len(best))
                loose = self._strings(arrays)
                for segment, rows in zip(self._segments, self._segment_rows, strict=True):
                    if isinstance(segment, HostStep):
                        start = time.perf_counter()
                        self._run_host(segment, arrays, outputs, loose)
                        seconds[rows[0]] += time.perf_counter() - start
                    else:
                        np.add.at(seconds, list(rows), segment.profile(threads or self.program.threads))
                best = np.minimum(best, seconds)
        return Profile(tuple(Timing(row, float(s)) for row, s in zip(self.program.rows, best, strict=True)))

    def _arrays(self, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The feeds in the program's order, checked: native, aligned, contiguous, copied only where they are not."""
        if type(feeds) is not dict:
            check_mapping(feeds)
        arrays: list[np.ndarray] = []
        for name, dtype, shape in self._inputs:
            array: Any = feeds.get(name)
            if type(array) is not np.ndarray or array.dtype != dtype:
                array = as_array(name, array, dtype, shape)
            if array.shape != shape:
                raise InputError(f"input {name!r} has shape {array.shape}, this session was compiled for {shape}")
            flags = array.flags
            arrays.append(array if flags.c_contiguous and flags.aligned else np.array(array, order="C"))
        if len(feeds) != len(arrays):
            raise unknown_names("input", set(feeds) - self._input_names, self._input_names)
        return arrays

    def _outputs(self) -> list[np.ndarray | None]:
        """New arrays for the outputs; None where the shape depends on data."""
        try:
            return [None if result is None else np.empty(*result) for result in self._results]
        except MemoryError as e:
            raise _out_of_memory(e) from e

    def _run_mixed(self, arrays: Sequence[np.ndarray], outputs: list[np.ndarray | None], threads: int) -> None:
        loose = self._strings(arrays)
        for segment in self._segments:
            if isinstance(segment, HostStep):
                self._run_host(segment, arrays, outputs, loose)
            else:
                segment.run(threads)
        for i, place in enumerate(self.program.outputs):
            if outputs[i] is None:
                outputs[i] = np.array(loose[place.name])

    def _strings(self, arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Inputs that have no address."""
        return {p.name: a for p, a in zip(self.program.inputs, arrays, strict=True) if a.dtype.kind == "O"}

    def _run_host(
        self,
        step: HostStep,
        arrays: Sequence[np.ndarray],
        outputs: list[np.ndarray | None],
        loose: dict[str, np.ndarray],
    ) -> None:
        def array(place: Place | None) -> np.ndarray | None:
            if place is None:
                return None
            if place.ref is None or place.shape is None or place.dtype is None:
                return loose[place.name]
            return self._view(place.ref, place.dtype, place.shape, arrays, outputs)

        results = step.function([array(p) for p in step.inputs])
        for place, result in zip(step.outputs, results, strict=False):
            if place is None:
                continue
            if place.ref is None:
                loose[place.name] = result if result.flags.owndata else result.copy()  # a view's memory is reused
            else:
                target = array(place)
                assert target is not None
                if result.shape != target.shape:
                    raise ModelError(f"{place.name!r} of shape {result.shape} was expected to have {target.shape}")
                target[...] = result

    def _view(
        self,
        ref: Ref,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        arrays: Sequence[np.ndarray],
        outputs: Sequence[np.ndarray | None],
    ) -> np.ndarray:
        memory: Any
        if ref.space == "input":
            memory = arrays[ref.index]
        elif ref.space == "output":
            memory = outputs[ref.index]
        elif ref.space == "constant":
            memory = self.program.constants[ref.index]
        else:
            memory = self._arena
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        flat = memory.reshape(-1).view(np.uint8) if memory.size else memory.reshape(-1)
        return flat[ref.offset : ref.offset + nbytes].view(dtype).reshape(shape) if nbytes else np.empty(shape, dtype)
