"""What an operator is, on every machine: one `OpSpec` an op, in one registry. NumPy only.

A reference implementation's signature is its schema: positional parameters are the ONNX inputs (``None`` where an
optional one is absent, ``*args`` where variadic), keyword-only parameters are the ONNX attributes with ONNX's defaults.
A reference that needs to know how many outputs the node has declares the keyword-only parameter ``n_outputs``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sigconv.errors import ModelError

Dim = int | str | None
Shape = tuple[Dim, ...]


@dataclass(frozen=True, slots=True)
class Fact:
    """What is known of a tensor: dtype, shape (None: unknown rank; entries: size, symbol or None), constant value."""

    dtype: np.dtype[Any] | None = None
    shape: Shape | None = None
    value: np.ndarray | None = None

    @classmethod
    def of(cls, array: np.ndarray) -> Fact:
        return cls(array.dtype, array.shape, array)

    @property
    def rank(self) -> int | None:
        return None if self.shape is None else len(self.shape)

    @property
    def static(self) -> bool:
        """Whether every size is known."""
        return self.shape is not None and all(isinstance(d, int) for d in self.shape)


Infer = Callable[[Sequence["Fact | None"], Mapping[str, Any], int], Sequence[Fact]]
"""(facts of the inputs, attributes with defaults filled in, number of outputs) -> facts of the outputs.

Raises ModelError for inputs that can never be legal; returns less knowledge (None) where an input is not known enough.
"""


@dataclass(frozen=True)
class OpSpec:
    """An operator of the newest ONNX form.

    ``since``: the ONNX version of ``domain`` whose form this is. ``accuracy``: ``'exact'`` where every correct
    implementation gives the same bits, ``'rounding'`` where the order of float operations may differ.
    """

    name: str
    reference: Callable[..., Any]
    infer: Infer
    since: int
    domain: str
    accuracy: str
    defaults: Mapping[str, Any]
    min_inputs: int
    max_inputs: int | None
    wants_n_outputs: bool

    def attributes(self, attrs: Mapping[str, Any], label: str = "") -> dict[str, Any]:
        """The attributes with defaults filled in; an unknown or missing one is a ModelError."""
        unknown = sorted(set(attrs) - set(self.defaults))
        if unknown:
            known = ", ".join(sorted(self.defaults)) or "none"
            raise ModelError(f"{label or self.name}: unknown attribute {', '.join(unknown)} (known: {known})")
        full = {**self.defaults, **attrs}
        missing = sorted(k for k, v in full.items() if v is inspect.Parameter.empty)
        if missing:
            raise ModelError(f"{label or self.name}: required attribute {', '.join(missing)} is missing")
        return full

    def check_inputs(self, names: Sequence[str], label: str) -> None:
        """ModelError unless there are as many as the operator takes, the required ones among them."""
        given = len(names)
        if given < self.min_inputs or (self.max_inputs is not None and given > self.max_inputs):
            most = "or more" if self.max_inputs is None else f"to {self.max_inputs}"
            raise ModelError(f"{label} has {given} inputs, {self.name} takes {self.min_inputs} {most}")
        absent = [i for i in range(self.min_inputs) if not names[i]]
        if absent:
            raise ModelError(f"{label}: required input {absent[0]} is absent")

    def evaluate(
        self, inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any], n_outputs: int = 1
    ) -> tuple[np.ndarray, ...]:
        """Run the reference: always a tuple of arrays. Overflow and NaN follow IEEE 754 without warnings."""
        extra = {"n_outputs": n_outputs} if self.wants_n_outputs else {}
        with np.errstate(all="ignore"):
            out = self.reference(*inputs, **self.attributes(attrs), **extra)
        return tuple(map(np.asarray, out)) if isinstance(out, tuple) else (np.asarray(out),)


REGISTRY: dict[tuple[str, str], OpSpec] = {}
"""Every operator by (domain, name)."""


def register(
    name: str, *, infer: Infer, since: int, domain: str = "", accuracy: str = "rounding"
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a reference implementation: its signature becomes the op's schema."""

    def wrap(reference: Callable[..., Any]) -> Callable[..., Any]:
        parameters = inspect.signature(reference).parameters.values()
        positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        keywords = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        wants = keywords.pop("n_outputs", None) is not None
        if (domain, name) in REGISTRY:
            raise RuntimeError(f"operator {domain}::{name} is registered twice")
        REGISTRY[domain, name] = OpSpec(
            name=name,
            reference=reference,
            infer=infer,
            since=since,
            domain=domain,
            accuracy=accuracy,
            defaults=keywords,
            min_inputs=sum(p.default is p.empty for p in positional),
            max_inputs=None if variadic else len(positional),
            wants_n_outputs=wants,
        )
        return reference

    return wrap


def lookup(op: str, domain: str = "") -> OpSpec | None:
    """The registered operator, or None."""
    return REGISTRY.get((domain, op))
