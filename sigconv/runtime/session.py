"""A Session: a Program bound to memory. One arena, allocated once; `run` makes one native call per native segment."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from ctypes import addressof, c_char
from typing import Any

import numpy as np

from sigconv import lines
from sigconv.errors import InputError, ModelError, unknown_names, wrong_dtype
from sigconv.kernels.jit import ensure
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


def _address(array: np.ndarray) -> int:
    """Where a contiguous array's elements lie."""
    try:
        return addressof(c_char.from_buffer(array))  # type: ignore[arg-type]  # a third of the time of the line below
    except (TypeError, ValueError, BufferError):  # read-only, empty, or a dtype that buffers do not know
        return int(array.__array_interface__["data"][0])


@contextlib.contextmanager
def _out_of_memory() -> Iterator[None]:
    """ModelError where there is no memory left."""
    try:
        yield
    except MemoryError as e:
        raise ModelError(f"the model at these shapes takes more memory than there is: {e}") from e


def _empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """An uninitialised array."""
    with _out_of_memory():
        return np.empty(shape, dtype)


def _memory(nbytes: int) -> np.ndarray:
    """Zeros that begin on a cache line; ModelError where there is no memory left for them."""
    with _out_of_memory():
        return lines.zeros(nbytes)


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
        self._workspace = _memory(program.workspace_nbytes)
        native = [s for s in program.steps if isinstance(s, Step)]
        ensure(dict.fromkeys(s.kernel for s in native))
        self._records = _memory(sum(lines.whole(s.record.nbytes) for s in native))
        self._words = self._records.view(np.int64)
        self._steps = np.zeros(len(native), STEP)
        self._fixups: tuple[list[list[tuple[int, int]]], list[list[tuple[int, int]]]] = (
            [[] for _ in program.inputs],
            [[] for _ in program.outputs],
        )
        self._bases = {"arena": self._arena.ctypes.data, "workspace": self._workspace.ctypes.data}
        self._constants = [c.ctypes.data for c in program.constants]
        at = 0
        for i, step in enumerate(native):
            self._bind(i, step, at)
            at += lines.whole(step.record.nbytes)
        self._memory = memoryview(self._records.data).cast("q") if self._records.nbytes else None
        self._segments: list[Prepared | HostStep] = []
        self._segment_rows: list[Sequence[int]] = []
        self._cut(program.steps)
        self._inputs = [
            (p.name, p.dtype, p.shape) for p in program.inputs if p.dtype is not None and p.shape is not None
        ]
        self._input_names = frozenset(p.name for p in program.inputs)
        self._only_native = len(self._segments) == 1 and isinstance(self._segments[0], Prepared)

    def _bind(self, i: int, step: Step, at: int) -> None:
        """Copy a record into place and write its addresses."""
        self._records[at : at + step.record.nbytes] = step.record.view(np.uint8)
        for position, ref in step.addresses.items():
            word = (at + position) // 8
            if ref.space in ("input", "output"):
                self._fixups[ref.space == "output"][ref.index].append((word, ref.offset))
            else:
                base = self._constants[ref.index] if ref.space == "constant" else self._bases[ref.space]
                self._words[word] = base + ref.offset
        entry = self._steps[i]
        entry["kernel"], entry["args"] = step.kernel.address, self._records.ctypes.data + at
        entry["width"], entry["fence"] = step.width, step.fence

    def _cut(self, steps: Sequence[Step | HostStep | Launch]) -> None:
        """Native segments and the host steps between them."""
        start = end = 0
        rows: list[int] = []
        for step in (*steps, None):
            if isinstance(step, Step):
                end += 1
                rows.append(step.node)
                continue
            if end > start:
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
            self._point(self._fixups[0], arrays)
            self._point(self._fixups[1], outputs)
            if self._only_native:
                self._segments[0].run(threads or self.program.threads)  # type: ignore[union-attr]
            else:
                self._run_mixed(arrays, outputs, threads or self.program.threads)
        return {p.name: o for p, o in zip(self.program.outputs, outputs, strict=True)}  # type: ignore[misc]

    def explain(self) -> Explanation:
        """Which algorithm runs each fused group, why, and why not the others."""
        p = self.program
        constants = sum(c.nbytes for c in p.constants)
        return Explanation(p.rows, p.arena_nbytes, p.workspace_nbytes, constants, p.threads)

    def profile(self, feeds: Mapping[str, np.ndarray], *, threads: int | None = None, repeat: int = 5) -> Profile:
        """Seconds for each fused group (every step on its own), the smallest of ``repeat`` runs."""
        arrays = self._arrays(feeds)
        outputs = self._outputs()
        best = np.full(len(self.program.rows), np.inf)
        with self._lock:
            self._point(self._fixups[0], arrays)
            self._point(self._fixups[1], outputs)
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
        """The feeds in the program's order, checked."""
        if type(feeds) is not dict:
            check_mapping(feeds)
        arrays = [self._check(feeds, *spec) for spec in self._inputs]
        if len(feeds) != len(arrays):
            raise unknown_names("input", set(feeds) - self._input_names, self._input_names)
        return arrays

    def _outputs(self) -> list[np.ndarray | None]:
        """New arrays for the outputs; None where the shape depends on data."""
        places = self.program.outputs
        return [None if p.shape is None or p.dtype is None else _empty(p.shape, p.dtype) for p in places]

    def _check(
        self, feeds: Mapping[str, np.ndarray], name: str, dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> np.ndarray:
        """The feed as a native, aligned, contiguous array; a copy only if it is not."""
        array: Any = feeds.get(name)
        if type(array) is not np.ndarray or array.dtype != dtype:
            array = as_array(name, array, dtype, shape)
        if array.shape != shape:
            raise InputError(f"input {name!r} has shape {array.shape}, this session was compiled for {shape}")
        flags = array.flags
        return array if flags.c_contiguous and flags.aligned else np.array(array, order="C")

    def _point(self, fixups: list[list[tuple[int, int]]], arrays: Sequence[np.ndarray | None]) -> None:
        memory = self._memory
        for places, array in zip(fixups, arrays, strict=True):
            if places and array is not None and memory is not None:
                address = _address(array)
                for word, offset in places:
                    memory[word] = address + offset

    def _run_mixed(self, arrays: list[np.ndarray], outputs: list[np.ndarray | None], threads: int) -> None:
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
        self, step: HostStep, arrays: list[np.ndarray], outputs: list[np.ndarray | None], loose: dict[str, np.ndarray]
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
            memory = self._arena if ref.space == "arena" else self._workspace
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        flat = memory.reshape(-1).view(np.uint8) if memory.size else memory.reshape(-1)
        return flat[ref.offset : ref.offset + nbytes].view(dtype).reshape(shape) if nbytes else np.empty(shape, dtype)
