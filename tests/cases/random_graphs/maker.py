"""A graph under construction, and the register of the kinds of node that may join it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sigconv.graph.ir import Node

MOST = 6000
"""Elements a value may have."""

CHANNELS = (1, 2, 3, 5, 8, 15, 16, 17, 20, 32, 33, 48)
KINDS: dict[str, Callable[[Maker], bool]] = {}
"""How to add one node, or a few; False where no value fits."""


@dataclass
class Made:
    """A value: what the maker must know of it to use it. ``static`` is False where the shape depends on data."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    exact: bool = False
    static: bool = True


@dataclass
class Maker:
    """A graph under construction."""

    seed: int
    float_type: np.dtype[Any] = field(init=False)
    nodes: list[Node] = field(default_factory=list)
    values: list[Made] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        kinds = (np.float32, np.float32, np.float32, np.float64, np.float16)
        self.float_type = np.dtype(kinds[self.rng.integers(len(kinds))])

    # --- choosing ------------------------------------------------------------------------------------------------
    def integer(self, low: int, high: int) -> int:
        """From low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def choice(self, options: Sequence[Any]) -> Any:
        return options[self.rng.integers(len(options))]

    def pick(self, fits: Callable[[Made], bool] = lambda v: True, dtype: Any = None) -> Made | None:
        """A value, more likely a recent one; of the graph's float type unless ``dtype`` says otherwise."""
        wanted = np.dtype(dtype) if dtype else self.float_type
        found = [v for v in self.values if v.dtype == wanted and fits(v)]
        if not found:
            return None
        return found[-1 - min(int(self.rng.exponential(2.0)), len(found) - 1)]

    def image(self, fits: Callable[[Made], bool] = lambda v: True) -> Made | None:
        return self.pick(lambda v: 3 <= len(v.shape) <= 5 and v.static and fits(v))

    # --- writing -------------------------------------------------------------------------------------------------
    def floats(self, *shape: int, fan: int = 1) -> str:
        return self.constant((self.rng.standard_normal(shape) / math.sqrt(fan)).astype(self.float_type))

    def positive(self, *shape: int) -> str:
        return self.constant(self.rng.uniform(0.5, 1.5, shape).astype(self.float_type))

    def constant(self, array: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(array)
        return name

    def add(
        self, op: str, inputs: Sequence[str], shape: Sequence[int], dtype: Any = None, *, exact: bool = False,
        static: bool = True, **attrs: Any,
    ) -> Made | None:  # fmt: skip
        """One node of one output; None if that is too large."""
        return self.add_many(op, inputs, [shape], dtype, exact=exact, static=static, **attrs)[0]

    def add_many(
        self, op: str, inputs: Sequence[str], shapes: Sequence[Sequence[int]], dtype: Any = None, *,
        exact: bool = False, static: bool = True, **attrs: Any,
    ) -> list[Made | None]:  # fmt: skip
        if any(math.prod(s) > MOST or 0 in s for s in shapes):
            return [None] * len(shapes)
        made = [
            Made(f"v{len(self.nodes)}_{i}", tuple(map(int, s)), np.dtype(dtype or self.float_type), exact, static)
            for i, s in enumerate(shapes)
        ]
        self.nodes.append(Node(op, tuple(inputs), tuple(v.name for v in made), attrs, f"{op.lower()}{len(self.nodes)}"))
        self.values += made
        return list(made)


def kind(function: Callable[[Maker], bool]) -> Callable[[Maker], bool]:
    KINDS[function.__name__.strip("_")] = function
    return function
