"""The Builder: where lowering writes steps, while a Program is being made."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sigconv import lines
from sigconv.config import available_memory
from sigconv.errors import ModelError
from sigconv.graph.evaluate import Body
from sigconv.graph.ir import Graph, Value
from sigconv.kernels.cpu import movement
from sigconv.kernels.jit import Kernel
from sigconv.kernels.scratch import SCRATCH
from sigconv.kernels.simd import lanes
from sigconv.planner.memory import assign
from sigconv.planner.pool import Pool
from sigconv.planner.tensors import Address, Buffer, Tensor, c_strides
from sigconv.runtime.program import HostStep, Launch, Place, Program, Ref, Row, Step

SPARE = 0.4
"""Share of what a graph's filters take by which all may grow, where that makes convolutions faster."""
COPY_GRAIN = 64 * 1024
"""Bytes worth a thread of their own in a copy."""


class Builder:
    """Steps, constants and placed values of the Program being made from ``graph`` (static shapes)."""

    device = "cpu"

    def __init__(
        self,
        graph: Graph,
        threads: int,
        margins: Mapping[str, tuple[int, int]],
        body: Callable[[Graph], Body] = Body,
    ) -> None:
        self.graph, self.threads, self.margins, self.body = graph, threads, margins, body
        self.values: dict[str, Value] = dict(graph.values)
        self.values.update({v.name: v for v in (*graph.inputs, *graph.outputs) if v.name not in self.values})
        self.rows: list[Row] = []
        self.pool = Pool()
        filters = {name for n in graph.nodes if n.op == "Conv" for name in n.inputs[1:2]}
        self.spare = SPARE * sum(c.nbytes for name, c in graph.constants.items() if name in filters)
        self._steps: list[Any] = []  # of `emit` and `host`, frozen at the end
        self._constants: list[np.ndarray] = []
        self._constant_of: dict[tuple[int, str], Buffer] = {}
        self._alive: list[np.ndarray] = []  # arrays whose id is a key above
        self._arena: list[Buffer] = []
        self._others: list[Buffer] = []  # scratch of all threads but the first
        self._available = available_memory()
        self._joined = False
        self._moment = 0  # of the last step; those that may run beside each other share one
        self._tensors: dict[str, list[Tensor]] = {}
        self._outputs = {v.name: Buffer("output", 0, i) for i, v in enumerate(graph.outputs)}
        self._uses: dict[int, int] = {}
        self.pending_uses: dict[str, int] = {}
        for i, v in enumerate(graph.inputs):
            if self.is_static(v.name):
                self._tensors[v.name] = [self._plain(v.name, Buffer("input", self.nbytes(v.name), i))]

    # --- facts ---------------------------------------------------------------------------------------------------
    def is_constant(self, name: str) -> bool:
        return name in self.graph.constants

    def constant(self, name: str) -> np.ndarray:
        return self.graph.constants[name]

    def is_static(self, name: str) -> bool:
        """Whether dtype and every size are known before the run; strings never lie in program memory."""
        if name in self.graph.constants:
            return True
        v = self.values.get(name)
        if v is not None and v.dtype is not None and v.dtype.kind == "O":
            return False
        return (
            v is not None and v.dtype is not None and v.shape is not None and all(isinstance(d, int) for d in v.shape)
        )

    def shape(self, name: str) -> tuple[int, ...]:
        if name in self.graph.constants:
            return self.graph.constants[name].shape
        return tuple(self.values[name].shape)  # type: ignore[arg-type]

    def dtype(self, name: str) -> np.dtype[Any]:
        """As the graph says."""
        if name in self.graph.constants:
            return self.graph.constants[name].dtype
        dtype = self.values[name].dtype
        assert dtype is not None
        return dtype

    def nbytes(self, name: str) -> int:
        return math.prod(self.shape(name)) * self.dtype(name).itemsize

    def margin(self, name: str) -> tuple[int, int]:
        """The zeros that readers of a value want beside its rows."""
        return self.margins.get(name, (0, 0))

    # --- placing values --------------------------------------------------------------------------------------------
    def new_buffer(self, nbytes: int) -> Buffer:
        if nbytes > self._available:
            raise MemoryError(f"a buffer takes {nbytes:,} bytes, there are {self._available:,}")
        buffer = Buffer("arena", max(nbytes, 1))
        self._arena.append(buffer)
        return buffer

    def _plain(self, name: str, buffer: Buffer, offset: int = 0) -> Tensor:
        shape = self.shape(name)
        return Tensor(buffer, offset, self.dtype(name), shape, c_strides(shape))

    def new(self, name: str, block: int = 1, margin: tuple[int, int] | None = None) -> Tensor:
        """Memory for a value about to be written. Plain memory of a graph output is the caller's own array."""
        shape, dtype = self.shape(name), self.dtype(name)
        left, right = self.margin(name) if margin is None else margin
        if block == 1 and not (left or right):
            tensor = self._plain(
                name, self._outputs[name] if name in self._outputs else self.new_buffer(self.nbytes(name))
            )
        else:
            tensor = self._spatial(dtype, shape, block, left, right)
        self._tensors.setdefault(name, []).append(tensor)
        return tensor

    def _spatial(self, dtype: np.dtype[Any], shape: tuple[int, ...], block: int, left: int, right: int) -> Tensor:
        spatial = (*shape[2:-1], shape[-1] + left + right)
        inner = [block]
        for size in reversed(spatial[1:]):
            inner.insert(0, inner[0] * size)
        plane = inner[0] * spatial[0]
        blocks = -(-shape[1] // block)
        buffer = self.new_buffer(shape[0] * blocks * plane * dtype.itemsize)
        tensor = Tensor(buffer, left * block, dtype, shape, (blocks * plane, plane, *inner), block, (left, right))
        pixel_rows = (shape[0] * blocks * math.prod(spatial[:-1]), spatial[-1] * block)
        for at, width in ((0, left), (spatial[-1] - right, right)):
            if width:
                self.fill(
                    Address(buffer, at * block * dtype.itemsize),
                    dtype,
                    (pixel_rows[0], width * block),
                    (pixel_rows[1], 1),
                    joins_next=True,
                )
        return tensor

    def scratch(self, dtype: np.dtype[Any], shape: tuple[int, ...], block: int) -> Tensor:
        """Memory [N, C, spatial…] in channel blocks for a step between the values of the graph."""
        return self._spatial(dtype, shape, block, 0, 0)

    def place(self, name: str, tensor: Tensor) -> None:
        """Record that a value lies in ``tensor`` (a view or a buffer written in place)."""
        self._tensors.setdefault(name, []).append(tensor)

    def tensors(self, name: str) -> list[Tensor]:
        """Every place where a value lies now."""
        if name in self.graph.constants and name not in self._tensors:
            array = self.graph.constants[name]
            self._tensors[name] = [self._plain(name, self.constant_buffer(array))]
        return self._tensors.get(name, [])

    def constant_buffer(self, array: np.ndarray) -> Buffer:
        """The buffer of a constant array (kept contiguous)."""
        key = (id(array), str(array.dtype))
        if key not in self._constant_of:
            kept = lines.on_line(array)
            kept.flags.writeable = False
            kept = self.pool.shared(kept)
            self._constants.append(kept)
            self._constant_of[key] = Buffer("constant", kept.nbytes, len(self._constants) - 1)
            self._alive.append(array)
        return self._constant_of[key]

    def plain(self, name: str) -> Tensor:
        """The value in C order, converting if need be."""
        for tensor in self.tensors(name):
            if tensor.contiguous:
                return tensor
        return self._convert(name, 1, (0, 0))

    def blocked(self, name: str, margin: tuple[int, int] = (0, 0)) -> Tensor:
        """The value in channel blocks with at least ``margin`` zeros beside its rows, converting if need be."""
        return self._with_layout(name, lanes(self.dtype(name)), margin)

    def planar(self, name: str, margin: tuple[int, int] = (0, 0)) -> Tensor:
        """The value with each channel a plane of its own and at least ``margin`` zeros beside its rows."""
        return self._with_layout(name, 1, margin)

    def _with_layout(self, name: str, block: int, margin: tuple[int, int]) -> Tensor:
        for t in self.tensors(name):
            if t.block == block and t.margin[0] >= margin[0] and t.margin[1] >= margin[1]:
                return t
        wish = self.margin(name)
        return self._convert(name, block, (max(margin[0], wish[0]), max(margin[1], wish[1])))

    def blocked_as(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """The value seen with ``shape`` (axes of size 1 in front), in channel blocks."""
        block = lanes(self.dtype(name))
        if self.is_constant(name):
            return self._constant_tensor(self.constant(name).reshape(shape), block)
        plain = self.plain(name)
        source = Tensor(plain.buffer, plain.offset, plain.dtype, shape, c_strides(shape))
        target = self._spatial(source.dtype, shape, block, 0, 0)
        self.copy_value(source, target)
        return target

    def _constant_tensor(self, array: np.ndarray, block: int) -> Tensor:
        """A constant [N, C, spatial…] in channel blocks, laid out now."""
        n, c, *spatial = array.shape
        blocks = -(-c // block)
        out = np.zeros((n, blocks, *spatial, block), array.dtype)
        for i in range(blocks):
            part = np.moveaxis(array[:, i * block : (i + 1) * block], 1, -1)
            out[:, i, ..., : part.shape[-1]] = part
        return Tensor(self.constant_buffer(out), 0, array.dtype, array.shape, c_strides(out.shape)[:-1], block)

    def _convert(self, name: str, block: int, margin: tuple[int, int]) -> Tensor:
        if self.is_constant(name) and block > 1 and margin == (0, 0):
            tensor = self._constant_tensor(self.constant(name), block)
            self.place(name, tensor)
            return tensor
        sources = self.tensors(name)
        if not sources:
            raise ModelError(f"value {name!r} is read before anything writes it")
        source = min(sources, key=lambda t: t.block != 1)
        target = self.new(name, block, margin)
        self.copy_value(source, target)
        return target

    def copy_value(self, source: Tensor, target: Tensor) -> None:
        """Copy a value between two places of any layouts (same shape and dtype)."""
        if source.block == target.block:
            sizes, strides = source.physical()
            self.copy(source.address, strides, target.address, target.physical()[1], sizes, source.dtype)
            return
        big = max(source.block, target.block)
        n, channels, *spatial = source.shape
        item = source.dtype.itemsize
        whole, rest = divmod(channels, big)

        def view(t: Tensor) -> tuple[int, ...]:
            """Strides over (n, block, *spatial, lane)."""
            if t.block == big:
                return (*t.strides, 1)
            return (t.strides[0], t.strides[1] * big, *t.strides[2:], t.strides[1])

        for start, blocks, width in ((0, whole, big), (whole, 1, rest)):
            if blocks and width:
                src, dst = view(source), view(target)
                self.copy(
                    Address(source.buffer, source.address.offset + start * src[1] * item), src,
                    Address(target.buffer, target.address.offset + start * dst[1] * item), dst,
                    (n, blocks, *spatial, width), source.dtype,
                )  # fmt: skip

    def can_overwrite(self, tensor: Tensor, readers: int) -> bool:
        """Whether the unit being lowered, which reads ``tensor``'s buffer ``readers`` times, is the last to need it."""
        if tensor.buffer.space != "arena":
            return False
        remaining = sum(
            self.pending_uses.get(name, 0)
            for name, places in self._tensors.items()
            if any(t.buffer is tensor.buffer for t in places)
        )
        return remaining <= readers

    # --- steps -----------------------------------------------------------------------------------------------------
    def own_scratch(self, nbytes: int) -> dict[str, Any]:
        """Fields that give each thread ``nbytes`` bytes for its own use during the next step.

        The first thread's lie among the values, the others' past all of them: see `sigconv.kernels.scratch`.
        """
        part = lines.whole(nbytes)
        self._arena.append(Buffer("arena", part))
        self._others.append(Buffer("arena", part * (self.threads - 1)))
        places = (Address(self._arena[-1]), Address(self._others[-1]), part)
        return dict(zip(SCRATCH, places, strict=True))

    def emit(self, kernel: Kernel, *, width: int = 1 << 30, joins_next: bool = False, **fields: Any) -> None:
        """Append a kernel call.

        A field is a number, an `Address`, an array or a `Kernel` (its address), a list of those, or the fields of a
        record within the record. ``joins_next``: the next step may run beside this one, since neither
        touches what the other writes.
        """
        record = np.zeros(1, kernel.args)
        addresses: dict[int, Address] = {}
        self._set_all(record[0], fields, 0, addresses)
        fence = not self._joined
        self._moment += fence
        self._joined = joins_next
        self._touch(addresses.values())
        self._steps.append((kernel, record, addresses, len(self.rows), width if self.threads > 1 else 1, fence))

    def _set_all(self, record: Any, fields: Mapping[str, Any], start: int, addresses: dict[int, Address]) -> None:
        """Fill in a record that begins ``start`` bytes into the step's."""
        for name, value in fields.items():
            dtype, position = record.dtype.fields[name][:2]
            if dtype.fields is not None:
                self._set_all(record[name], value, start + position, addresses)
            elif dtype.subdtype is None:
                self._set(record, name, value, start + position, addresses)
            else:
                step = dtype.subdtype[0].itemsize
                for i, item in enumerate(value):
                    self._set(record[name], i, item, start + position + i * step, addresses)

    def _set(self, record: Any, key: str | int, value: Any, position: int, addresses: dict[int, Address]) -> None:
        if isinstance(value, np.ndarray):
            value = Address(self.constant_buffer(value))
        if isinstance(value, Address):
            addresses[position] = value
        else:
            record[key] = value.address if isinstance(value, Kernel) else value

    def _touch(self, addresses: Any) -> None:
        for address in addresses:
            buffer = address.buffer
            buffer.first = self._moment if buffer.first < 0 else buffer.first
            buffer.last = self._moment

    def fill(
        self, target: Address, dtype: np.dtype[Any], sizes: Sequence[int], strides: Sequence[int], value: float = 0,
        *, joins_next: bool = False,
    ) -> None:  # fmt: skip
        """Strided fill with a constant."""
        fields = movement.plan_copy(sizes, strides, [0] * len(sizes))
        src = np.array([value], dtype)
        self.emit(movement.COPY[dtype.itemsize], joins_next=joins_next, src=src, dst=target, width=1, **fields)

    def copy(
        self, source: Address, source_strides: Sequence[int], target: Address, target_strides: Sequence[int],
        sizes: Sequence[int], dtype: np.dtype[Any],
    ) -> None:  # fmt: skip
        """Strided copy; strides in elements."""
        fields = movement.plan_copy(sizes, target_strides, source_strides)
        width = self._copy_width(sizes, dtype)
        self.emit(movement.COPY[dtype.itemsize], width=width, src=source, dst=target, **fields)

    def fill_tensor(self, target: Tensor, value: float) -> None:
        """Write ``value`` everywhere in a tensor but its margins."""
        sizes, strides = target.physical()
        self.fill(target.address, target.dtype, sizes, strides, value)

    def gather(
        self, source: Address, tables: Sequence[np.ndarray], target: Address, target_strides: Sequence[int],
        dtype: np.dtype[Any], fill: float = 0,
    ) -> None:  # fmt: skip
        """target[i0, i1, …] = source[tables[0][i0] + tables[1][i1] + …], or ``fill`` where an entry is -1."""
        fields = movement.plan_gather(tables, target_strides)
        bits = int.from_bytes(np.array(fill, dtype).tobytes(), "little", signed=dtype.itemsize == 8)
        width = self._copy_width([len(t) for t in tables], dtype)
        self.emit(movement.GATHER[dtype.itemsize], width=width, src=source, dst=target, fill=bits, **fields)

    def _copy_width(self, sizes: Sequence[int], dtype: np.dtype[Any]) -> int:
        """Threads that a copy is worth."""
        return min(self.threads, math.prod(sizes) * dtype.itemsize // COPY_GRAIN + 1)

    def host(
        self,
        function: Callable[[Sequence[np.ndarray | None]], tuple[np.ndarray, ...]],
        inputs: Sequence[str],
        outputs: Sequence[str],
    ) -> None:
        """Append a NumPy call. Values of unknown shape stay with the session."""
        sources = [self._place_in(name) for name in inputs]
        targets = [self._place_out(name) for name in outputs]
        self._moment += 1
        self._touch(Address(t.buffer) for t in (*sources, *targets) if isinstance(t, Tensor))
        self._steps.append(
            _Host(
                function,
                list(zip(inputs, sources, strict=True)),
                list(zip(outputs, targets, strict=True)),
                len(self.rows),
            )
        )
        self._joined = False

    def _place_in(self, name: str) -> Tensor | None:
        if not name or not self.is_static(name):
            return None
        return self.plain(name)

    def _place_out(self, name: str) -> Tensor | None:
        if not name or not self.is_static(name):
            return None
        return self.new(name, 1, (0, 0))

    # --- the end ---------------------------------------------------------------------------------------------------
    def finish(self) -> Program:
        """Copy outputs home, give every buffer its place in the arena, freeze the tables."""
        before = len(self._steps)
        for value in self.graph.outputs:
            home = self._outputs[value.name]
            if self.is_static(value.name) and all(t.buffer is not home for t in self.tensors(value.name)):
                self.copy_value(min(self.tensors(value.name), key=lambda t: t.block), self._plain(value.name, home))
        if len(self._steps) > before:
            label, first = "(outputs)", self.graph.outputs[0].name
            shape = self.shape(first) if self.is_static(first) else None
            self.rows.append(Row(label, "Copy", label, shape, "strided_copy", "outputs in plain layout"))
        arena = assign([b for b in self._arena if b.first >= 0])
        others = assign(self._others)
        for buffer in self._others:
            buffer.offset += arena

        steps = tuple(map(self._frozen, self._steps))
        inputs = tuple(
            Place(v.name, self.dtype(v.name), self.shape(v.name), Ref("input", 0, i))
            for i, v in enumerate(self.graph.inputs)
        )
        outputs = tuple(
            Place(v.name, self.dtype(v.name), self.shape(v.name), Ref("output", 0, i))
            if self.is_static(v.name)
            else Place(v.name, v.dtype, None, None)
            for i, v in enumerate(self.graph.outputs)
        )
        return Program(
            steps=steps,
            constants=tuple(self._constants),
            inputs=inputs,
            outputs=outputs,
            arena_nbytes=arena + others,
            threads=self.threads,
            rows=tuple(self.rows),
            device=self.device,
        )

    def _frozen(self, entry: Any) -> Step | HostStep | Launch:
        """A step with addresses resolved, once every buffer has its place."""
        if isinstance(entry, _Host):
            inputs, outputs = (tuple(self._put(*p) for p in places) for places in (entry.inputs, entry.outputs))
            return HostStep(entry.function, inputs, outputs, entry.node)
        kernel, record, addresses, node, width, fence = entry
        record.flags.writeable = False
        return Step(kernel, record, {at: self._ref(a) for at, a in addresses.items()}, node, width, fence)

    @staticmethod
    def _ref(address: Address) -> Ref:
        b = address.buffer
        return Ref(b.space, (b.offset if b.space == "arena" else 0) + address.offset, b.index)

    def _put(self, name: str, tensor: Tensor | None) -> Place | None:
        if not name:
            return None
        if tensor is None:
            dtype = self.values[name].dtype if name in self.values else None
            return Place(name, dtype, None, None)
        return Place(name, tensor.dtype, tensor.shape, self._ref(tensor.address))


@dataclass(frozen=True, slots=True)
class _Host:
    function: Callable[[Sequence[np.ndarray | None]], tuple[np.ndarray, ...]]
    inputs: list[tuple[str, Tensor | None]]
    outputs: list[tuple[str, Tensor | None]]
    node: int
