"""What is known of every value before anything runs: dtypes, shapes, and the values of whole shape sub-graphs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from sigconv.errors import InputError, ModelError, UnsupportedError, unknown_names
from sigconv.graph.ir import Dim, Graph, Node, Shape, Value
from sigconv.ops.spec import Fact, OpSpec, lookup

SHAPE_ARITHMETIC = 4096
"""Bytes up to which `infer` computes a value from known inputs: sizes, axes, scales, never weights."""

LARGEST_FOLD = 1 << 30
"""Bytes up to which `specialize` computes a constant tensor."""

FOLD_GROWTH = 8
"""All computed constants together take at most so many times what the file's own do, and `LARGEST_FOLD`."""

RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial", "Dropout"}
)
"""Operators whose result is not a function of their inputs (Dropout: when it trains)."""


def spec_of(node: Node) -> OpSpec:
    """The node's operator; UnsupportedError where it is not registered."""
    spec = lookup(node.op, node.domain)
    if spec is None:
        raise UnsupportedError(f"{node.label}: the operator is not implemented", (node.label,))
    return spec


def evaluate(node: Node, inputs: Sequence[np.ndarray | None]) -> tuple[np.ndarray, ...]:
    """Run the node's reference, one array an output name; every failure is a ModelError that names the node."""
    try:
        with np.errstate(all="ignore"):
            found = spec_of(node).evaluate(inputs, node.attrs, len(node.outputs))
    except UnsupportedError:
        raise
    except (ArithmeticError, ValueError, TypeError, IndexError, LookupError, AttributeError, MemoryError) as e:
        shapes = ", ".join("absent" if x is None else f"{x.dtype}{list(x.shape)}" for x in inputs)
        raise ModelError(f"{node.label} on ({shapes}): {e}") from e
    if len(found) < len(node.outputs):
        raise ModelError(f"{node.label} has {len(node.outputs)} outputs, {node.op} makes {len(found)}")
    return tuple(np.asarray(x) for x in found[: len(node.outputs)])


def infer(
    graph: Graph, shapes: Mapping[str, Sequence[Dim]] | None = None, *, limit: int = SHAPE_ARITHMETIC
) -> dict[str, Fact]:
    """The fact of every value of the graph.

    ``shapes`` replaces the declared shapes of inputs. Values are computed where all inputs are known and the inputs and
    outputs of the node take at most ``limit`` bytes each. ModelError, with the node's label, where a node can never be
    legal.
    """
    facts = input_facts(graph, shapes)
    for node in graph.nodes:
        facts.update(node_facts(node, facts, limit))
    return facts


def input_facts(graph: Graph, shapes: Mapping[str, Sequence[Dim]] | None = None) -> dict[str, Fact]:
    """The facts of a graph's constants and inputs, ``shapes`` in place of the declared ones."""
    given = dict(shapes or {})
    unknown = sorted(set(given) - {v.name for v in graph.inputs})
    if unknown:
        raise unknown_names("input", unknown, (v.name for v in graph.inputs))
    facts = {name: Fact.of(array) for name, array in graph.constants.items()}
    for value in graph.inputs:
        facts[value.name] = Fact(
            value.dtype, _bind(value, tuple(given[value.name])) if value.name in given else value.shape
        )
    return facts


def _bind(value: Value, shape: Shape) -> Shape:
    fits = value.shape is None or (
        len(value.shape) == len(shape)
        and all(
            not isinstance(a, int) or not isinstance(b, int) or a == b for a, b in zip(value.shape, shape, strict=True)
        )
    )
    if not fits or any(isinstance(d, int) and d < 0 for d in shape):
        raise InputError(f"input {value.name!r} takes shape {list(value.shape or ())}, not {list(shape)}")
    return shape


def node_facts(node: Node, facts: Mapping[str, Fact], limit: int = SHAPE_ARITHMETIC) -> dict[str, Fact]:
    """The facts of the node's outputs, by name."""
    spec = spec_of(node)
    given = [facts.get(name, Fact()) if name else None for name in node.inputs]
    try:
        found = list(spec.infer(given, spec.attributes(node.attrs), len(node.outputs)))[: len(node.outputs)]
    except UnsupportedError:
        raise
    except (ArithmeticError, ValueError, TypeError, IndexError, LookupError, AttributeError, MemoryError) as e:
        raise ModelError(f"{node.label}: {e}") from e
    found += [Fact()] * (len(node.outputs) - len(found))
    if any(isinstance(d, int) and d >= 1 << 63 for f in found for d in f.shape or ()):
        raise ModelError(
            f"{node.label}: an output of shape {[f.shape for f in found]} takes more bytes than there are numbers for"
        )
    if _computable(node, given, found, limit):
        arrays = [None if f is None else f.value for f in given]
        results = evaluate(node, arrays)
        if all(r.nbytes <= limit for r in results):
            found = [Fact.of(_frozen(r, arrays)) for r in results]
    return {name: fact for name, fact in zip(node.outputs, found, strict=True) if name}


def _computable(node: Node, given: Iterable[Fact | None], found: Sequence[Fact], limit: int) -> bool:
    values = [f.value for f in given if f is not None]
    return (
        node.op not in RANDOM
        and any(f.value is None for f in found)
        and all(v is not None and v.nbytes <= limit for v in values)
        and all(nbytes(f) <= limit for f in found)
    )


def nbytes(fact: Fact) -> int:
    """Bytes of a tensor; 0 where they are not known ahead."""
    if fact.dtype is None or fact.shape is None:
        return 0
    return math.prod(d for d in fact.shape if isinstance(d, int)) * fact.dtype.itemsize if fact.static else 0


def _frozen(array: np.ndarray, sources: Iterable[np.ndarray | None]) -> np.ndarray:
    if any(s is not None and np.may_share_memory(s, array) for s in sources):
        array = array.copy()
    array.flags.writeable = False
    return array


def fold(graph: Graph, facts: Mapping[str, Fact]) -> Graph:
    """The graph with every known value as a constant without the nodes that made them; the same graph where none is."""
    known = [all(not out or facts[out].value is not None for out in node.outputs) for node in graph.nodes]
    if not any(known):
        return graph
    nodes = tuple(node for node, folded in zip(graph.nodes, known, strict=True) if not folded)
    used = {name for node in nodes for name in node.inputs} | {v.name for v in graph.outputs}
    constants: dict[str, np.ndarray] = {k: v for k, v in graph.constants.items() if k in used}
    for node, folded in zip(graph.nodes, known, strict=True):
        for out in node.outputs:
            value = facts[out].value if out in used and folded else None
            if value is not None:
                constants[out] = value
    return graph.replace(nodes=nodes, constants=constants)


def specialize(graph: Graph, shapes: Mapping[str, Sequence[Dim]] | None = None) -> Graph:
    """The graph at fixed input shapes: everything constant folded, ``values`` holding every dtype and shape known.

    ``shapes`` must name every input whose declared shape is not static. ModelError where a folded tensor would take
    more than `LARGEST_FOLD` bytes.
    """
    facts = input_facts(graph, shapes)
    for value in graph.inputs:
        if not facts[value.name].static:
            raise InputError(f"input {value.name!r} needs a static shape, it has {facts[value.name].shape}")
    budget = LARGEST_FOLD + FOLD_GROWTH * sum(c.nbytes for c in graph.constants.values())
    for node in graph.nodes:
        found = node_facts(node, facts, min(LARGEST_FOLD, budget))
        budget -= sum(fact.value.nbytes for fact in found.values() if fact.value is not None)
        constant = all(not name or facts[name].value is not None for name in node.inputs) and node.op not in RANDOM
        for name, fact in found.items():
            if constant and fact.value is None and nbytes(fact) > LARGEST_FOLD:
                raise ModelError(
                    f"{node.label}: constant {name!r} of {fact.dtype}{list(fact.shape or ())} "
                    f"takes more than {LARGEST_FOLD} bytes"
                )
        facts.update(found)
    folded = fold(graph, facts)
    names = (
        {v.name for v in folded.inputs}
        | set(folded.constants)
        | {out for node in folded.nodes for out in node.outputs if out}
    )
    values = {name: Value(name, facts[name].dtype, facts[name].shape) for name in names}
    return folded.replace(
        inputs=tuple(values[v.name] for v in folded.inputs),
        outputs=tuple(values.get(v.name, v) for v in folded.outputs),
        values=values,
    )
