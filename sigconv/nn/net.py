"""A layer as a small graph of ONNX nodes: what every function of this package writes, once a shape and dtype."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sigconv.errors import InputError, ModelError
from sigconv.graph.infer import node_facts
from sigconv.graph.ir import Graph, Node, Value
from sigconv.ops.spec import Fact

FLOATS = ("float16", "bfloat16", "float32", "float64")
"""What layers compute with; the first two in float32."""
HALVES = FLOATS[:2]


@dataclass(frozen=True, slots=True)
class Var:
    """A value of the graph. ``given``: the dtype that the caller's array has."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    given: np.dtype[Any]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))


class Net:
    """A graph being written. Half-precision inputs are float32 here: `Layer` converts."""

    def __init__(self) -> None:
        self._nodes: list[Node] = []
        self._inputs: list[Value] = []
        self._facts: dict[str, Fact] = {}
        self._constants: dict[str, np.ndarray] = {}

    def input(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Var:
        """The next argument of the call."""
        wide = np.dtype(np.float32) if dtype.name in HALVES else dtype
        name = f"x{len(self._inputs)}"
        self._inputs.append(Value(name, wide, shape))
        self._facts[name] = Fact(wide, shape)
        return Var(name, wide, shape, dtype)

    def constant(self, value: Any, dtype: Any) -> Var:
        """A tensor that is part of the layer."""
        array = np.asarray(value, dtype)
        name = f"c{len(self._constants)}"
        self._constants[name] = array
        self._facts[name] = Fact.of(array)
        return Var(name, array.dtype, array.shape, array.dtype)

    def ints(self, *values: int) -> Var:
        """A constant vector of int64."""
        return self.constant(values, np.int64)

    def node(self, op: str, *inputs: Var | None, **attrs: Any) -> Var:
        """The result of an operation."""
        return self.nodes(op, *inputs, outputs=1, **attrs)[0]

    def nodes(self, op: str, *inputs: Var | None, outputs: int, **attrs: Any) -> tuple[Var, ...]:
        """All results of an operation."""
        names = tuple(f"y{len(self._nodes)}.{i}" for i in range(outputs))
        node = Node(op, tuple("" if v is None else v.name for v in inputs), names, attrs, op)
        facts = node_facts(node, self._facts)
        self._nodes.append(node)
        self._facts.update(facts)
        return tuple(self._var(n) for n in names)

    def _var(self, name: str) -> Var:
        fact = self._facts[name]
        if fact.dtype is None or not fact.static:
            raise ModelError(f"{name}: {fact.dtype}{fact.shape} is not known ahead")
        shape: Any = fact.shape
        return Var(name, fact.dtype, shape, fact.dtype)

    def reshape(self, x: Var, shape: Sequence[int]) -> Var:
        """``x`` seen with another shape."""
        return x if x.shape == tuple(shape) else self.node("Reshape", x, self.ints(*shape))

    def along_channels(self, x: Var, vector: Var) -> Var:
        """A [C] vector shaped to broadcast against ``x`` [N, C, …]."""
        return self.reshape(vector, (vector.size, *(1,) * (x.ndim - 2)))

    def graph(self, results: Sequence[Var]) -> Graph:
        """The finished graph."""
        outputs = tuple(Value(v.name, v.dtype, v.shape) for v in results)
        return Graph(tuple(self._nodes), tuple(self._inputs), outputs, self._constants)


def check_floats(where: str, *optional: str, **operands: Var | None) -> None:
    """InputError unless all operands that are given have one and the same floating-point type.

    Those not named in ``optional`` must be given.
    """
    absent = [name for name, v in operands.items() if v is None and name not in optional]
    if absent:
        raise InputError(f"{where}: {' and '.join(absent)} must be given, None is not accepted")
    present = {name: v.given for name, v in operands.items() if v is not None}
    for name, dtype in present.items():
        if dtype.name not in FLOATS:
            raise InputError(
                f"{where}: {name} is {dtype}; accepted are {', '.join(FLOATS)}: convert it with .astype('float32')"
            )
    if len(set(present.values())) > 1:
        kinds = ", ".join(f"{name} is {dtype}" for name, dtype in present.items())
        raise InputError(f"{where}: {kinds}; all must have one dtype: convert them with .astype()")


def check_vector(where: str, name: str, vector: Var | None, size: int, what: str) -> None:
    """InputError unless ``vector`` is absent or has shape (size,)."""
    if vector is not None and vector.shape != (size,):
        raise InputError(f"{where}: {name} has shape {vector.shape}; {what} needs ({size},)")
