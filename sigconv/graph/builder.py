"""Networks built in Python: every call adds a node and returns the name of the value it makes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sigconv.errors import InputError
from sigconv.graph.infer import node_facts
from sigconv.graph.ir import Dim, Graph, Node, Value, fresh
from sigconv.ops.spec import REGISTRY, Fact


class GraphBuilder:
    """A graph under construction: methods take value names and return the name of what they make.

    Weights are drawn from ``seed`` (normal, variance 2 / fan-in: He et al., 2015), biases are 0; layers name them
    ``<name>.weight`` and ``<name>.bias`` as torch does. Layers without a name are numbered: conv, conv_1, conv_2.
    A node that can never be legal is a ModelError at once.
    """

    def __init__(self, name: str = "graph", seed: int = 0) -> None:
        self.name = name
        self._rng = np.random.default_rng(seed)
        self._nodes: list[Node] = []
        self._inputs: list[Value] = []
        self._constants: dict[str, np.ndarray] = {}
        self._facts: dict[str, Fact] = {}
        self._taken: set[str] = set()

    def input(self, name: str, shape: Sequence[Dim], dtype: Any = np.float32) -> str:
        """A graph input; sizes are numbers, names or None."""
        self._inputs.append(Value(self._new(name), np.dtype(dtype), tuple(shape)))
        self._facts[name] = Fact(np.dtype(dtype), tuple(shape))
        return name

    def constant(self, name: str, array: Any) -> str:
        """A weight or another constant; the array is copied."""
        kept = np.array(array)
        kept.flags.writeable = False
        self._constants[self._new(name)] = kept
        self._facts[name] = Fact.of(kept)
        return name

    def _new(self, name: str) -> str:
        if not name or name in self._taken:
            raise InputError(f"name {name!r} is taken already" if name else "a value needs a name")
        self._taken.add(name)
        return name

    def _layer(self, name: str, usual: str) -> str:
        """The name given, else the first of ``usual``, ``usual_1`` … of which no weight has the name."""
        tries = (f"{usual}_{i}" if i else usual for i in range(len(self._taken) + 1))
        owners = {taken.rsplit(".", 1)[0] for taken in self._taken}
        return name or next(n for n in tries if n not in owners)

    def op(self, op: str, *inputs: str, name: str = "", domain: str = "", **attrs: Any) -> str:
        """A node of any operator with one output, in ONNX's newest form; ``""`` for an absent input."""
        unknown = [i for i in inputs if i and i not in self._facts]
        if unknown:
            raise InputError(f"{op} reads {', '.join(map(repr, unknown))}, which nothing has written yet")
        attrs = {k: float(np.float32(v)) if isinstance(v, float) else v for k, v in attrs.items()}  # as a file keeps it
        out = fresh(name or op.lower(), self._taken)
        node = Node(op, inputs, (out,), attrs, out, domain)
        self._facts.update(node_facts(node, self._facts))
        self._nodes.append(node)
        return out

    def shape(self, value: str) -> tuple[Dim, ...] | None:
        """What is known of a value's shape; None for an unknown rank."""
        if value not in self._facts:
            raise InputError(f"no value is called {value!r}")
        return self._facts[value].shape

    def _size(self, x: str, axis: int, what: str) -> int:
        shape = self.shape(x)
        size = shape[axis] if shape is not None and len(shape) > 1 else None
        if not isinstance(size, int):
            raise InputError(f"{what}: axis {axis} of {x!r} must have a known size, its shape is {shape}")
        return size

    def _weight(self, name: str, shape: Sequence[int], fan_in: int) -> str:
        drawn = self._rng.standard_normal(tuple(shape), np.float32)
        return self.constant(f"{name}.weight", drawn * np.float32(math.sqrt(2 / fan_in)))

    def _bias(self, name: str, size: int, wanted: bool) -> tuple[str, ...]:
        return (self.constant(f"{name}.bias", np.zeros(size, np.float32)),) if wanted else ()

    def _spatial(self, x: str) -> int:
        return len(self.shape(x) or ()) - 2

    def conv(
        self,
        x: str,
        channels: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        name: str = "",
    ) -> str:
        """A convolution over all spatial axes; ``padding`` on every side."""
        name = self._layer(name, "conv")
        inputs, rank = self._size(x, 1, name), self._spatial(x)
        shape = (channels, inputs // groups, *[kernel] * rank)
        weight = self._weight(name, shape, math.prod(shape[1:]))
        attrs: dict[str, Any] = {
            "kernel_shape": (kernel,) * rank,
            "strides": (stride,) * rank,
            "pads": (padding,) * (2 * rank),
        }
        attrs |= {"dilations": (dilation,) * rank}
        return self.op("Conv", x, weight, *self._bias(name, channels, bias), name=name, group=groups, **attrs)

    def conv_transpose(self, x: str, channels: int, kernel: int, *, stride: int = 1, name: str = "") -> str:
        """A transposed convolution with bias over all spatial axes."""
        name = self._layer(name, "up")
        inputs, rank = self._size(x, 1, name), self._spatial(x)
        weight = self._weight(name, (inputs, channels, *[kernel] * rank), inputs)
        attrs: dict[str, Any] = {"kernel_shape": (kernel,) * rank, "strides": (stride,) * rank}
        return self.op("ConvTranspose", x, weight, *self._bias(name, channels, True), name=name, **attrs)

    def linear(self, x: str, features: int, *, name: str = "") -> str:
        """A dense layer on (N, inputs)."""
        name = self._layer(name, "linear")
        inputs = self._size(x, -1, name)
        weight = self._weight(name, (features, inputs), inputs)
        return self.op("Gemm", x, weight, *self._bias(name, features, True), name=name, transB=1)

    def batch_norm(self, x: str, *, epsilon: float = 1e-5, name: str = "") -> str:
        """Batch normalisation by running statistics."""
        name = self._layer(name, "bn")
        size = self._size(x, 1, name)
        start = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}
        inputs = [self.constant(f"{name}.{k}", np.full(size, v, np.float32)) for k, v in start.items()]
        return self.op("BatchNormalization", x, *inputs, name=name, epsilon=epsilon)

    def relu(self, x: str, *, name: str = "relu") -> str:
        return self.op("Relu", x, name=name)

    def max_pool(self, x: str, kernel: int, stride: int | None = None, padding: int = 0, *, name: str = "pool") -> str:
        """The largest value of each window; the stride is the window's size where none is given."""
        rank, stride = self._spatial(x), stride or kernel
        attrs: dict[str, Any] = {
            "kernel_shape": (kernel,) * rank,
            "strides": (stride,) * rank,
            "pads": (padding,) * (2 * rank),
        }
        return self.op("MaxPool", x, name=name, **attrs)

    def global_average_pool(self, x: str, *, name: str = "average") -> str:
        return self.op("GlobalAveragePool", x, name=name)

    def flatten(self, x: str, *, name: str = "flatten") -> str:
        return self.op("Flatten", x, name=name, axis=1)

    def add(self, a: str, b: str, *, name: str = "add") -> str:
        return self.op("Add", a, b, name=name)

    def concat(self, *inputs: str, axis: int = 1, name: str = "concat") -> str:
        return self.op("Concat", *inputs, name=name, axis=axis)

    def build(self, *outputs: str) -> Graph:
        """The graph with these outputs."""
        unknown = [o for o in outputs if o not in self._facts]
        if unknown or not outputs:
            raise InputError(f"no value is called {', '.join(map(repr, unknown))}" if unknown else "name an output")
        return Graph(
            tuple(self._nodes),
            tuple(self._inputs),
            tuple(Value(o, self._facts[o].dtype, self._facts[o].shape) for o in outputs),
            dict(self._constants),
            name=self.name,
            opset=max(spec.since for (domain, _), spec in REGISTRY.items() if not domain),
        )
