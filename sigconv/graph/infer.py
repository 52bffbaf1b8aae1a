"""What is known of every value before anything runs: dtypes, shapes, and the values of whole shape sub-graphs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import numpy as np

from sigconv.errors import InputError, ModelError, UnsupportedError, unknown_names
from sigconv.graph.evaluate import FAILURES, check_count, evaluate, spec_of
from sigconv.graph.ir import Dim, Graph, Node, Shape, Value
from sigconv.ops.spec import Fact

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

LONGEST_LOOP = 1024
"""Rounds up to which a Loop or Scan on known values is run ahead."""

_ROUNDS = ("Loop", "Scan")


def infer(
    graph: Graph, shapes: Mapping[str, Sequence[Dim]] | None = None, *, limit: int = SHAPE_ARITHMETIC
) -> dict[str, Fact]:
    """The fact of every value of the graph.

    ``shapes`` replaces the declared shapes of inputs. Values are computed where all inputs are known and the inputs and
    outputs of the node take at most ``limit`` bytes each. ModelError, with the node's label, where a node can never be
    legal, and where an output is not of the declared dtype.
    """
    facts = input_facts(graph, shapes)
    for node in graph.nodes:
        if lost := [name for name in node.inputs if name and name not in facts]:
            raise ModelError(f"{node.label} reads {lost[0]!r}, which nothing before it writes")
        facts.update(node_facts(node, facts, limit))
    for value in graph.outputs:
        if value.name not in facts:
            raise ModelError(f"graph output {value.name!r} is never written")
        found = facts[value.name].dtype
        if found is not None and value.dtype is not None and found != value.dtype:  # float64 == None in NumPy
            raise ModelError(f"graph output {value.name!r} is said to be {value.dtype}, what is computed is {found}")
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
    spec.check_inputs(node.inputs, node.label)
    given = [facts.get(name, Fact()) if name else None for name in node.inputs]
    try:
        attrs = {k: partial(body_facts, v, limit=limit) if isinstance(v, Graph) else v for k, v in node.attrs.items()}
        found = list(spec.infer(given, spec.attributes(attrs), len(node.outputs)))[: len(node.outputs)]
    except UnsupportedError:
        raise
    except FAILURES as e:
        raise ModelError(f"{node.label}: {e}") from e
    found += [Fact()] * (len(node.outputs) - len(found))
    sizes = [d for f in found for d in f.shape or () if isinstance(d, int)]
    if not all(0 <= d < 1 << 63 for d in sizes):
        problem = "has negative sizes" if min(sizes) < 0 else "takes more bytes than there are numbers for"
        raise ModelError(f"{node.label}: an output of shape {[f.shape for f in found]} {problem}")
    if _computable(node, given, found, limit):
        arrays = [None if f is None else f.value for f in given]
        results = evaluate(node, arrays)
        if all(r.nbytes <= limit for r in results):
            found = [Fact.of(_frozen(r, arrays)) for r in results]
    return {name: fact for name, fact in zip(node.outputs, found, strict=True) if name}


def body_facts(graph: Graph, given: Sequence[Fact | None], *, limit: int = SHAPE_ARITHMETIC) -> list[Fact]:
    """The facts of a sub-graph's outputs for those of its inputs; what is declared where less is known."""
    facts = facts_inside(graph, given, limit=limit)
    return [_completed(facts[v.name], v) for v in graph.outputs]


def facts_inside(graph: Graph, given: Sequence[Fact | None], *, limit: int = SHAPE_ARITHMETIC) -> dict[str, Fact]:
    """The facts of all values of a sub-graph for those of its inputs (None: what is declared)."""
    check_count(graph, len(given))
    facts = input_facts(graph)
    for value, known in zip(graph.inputs, given, strict=True):
        declared = facts[value.name]
        known = known or Fact()
        shape = declared.shape if known.shape is None else known.shape
        facts[value.name] = Fact(known.dtype or declared.dtype, shape, known.value)
    for node in graph.nodes:
        facts.update(node_facts(node, facts, limit))
    return facts


def _completed(fact: Fact, declared: Value) -> Fact:
    if fact.dtype is not None and fact.shape is not None:
        return fact
    return Fact(fact.dtype or declared.dtype, declared.shape if fact.shape is None else fact.shape, fact.value)


def _computable(node: Node, given: Sequence[Fact | None], found: Sequence[Fact], limit: int) -> bool:
    values = [f.value for f in given if f is not None]
    return (
        _foldable(node, given)
        and any(f.value is None for f in found)
        and all(v is not None and v.nbytes <= limit for v in values)
        and all(nbytes(f) <= limit for f in found)
    )


def _foldable(node: Node, given: Sequence[Fact | None]) -> bool:
    """Whether the result is a function of the inputs, and soon found."""
    if node.op in RANDOM:
        return False
    if node.op in _ROUNDS and not _short(node, given):
        return False
    bodies = [v for v in node.attrs.values() if isinstance(v, Graph)]
    return all(inner.op not in _ROUNDS and _foldable(inner, ()) for body in bodies for inner in body.nodes)


def _short(node: Node, given: Sequence[Fact | None]) -> bool:
    """Whether a Loop or Scan ends after few rounds, whatever its condition."""
    facts = [f for f in given[: len(given) - int(node.attrs.get("captures", 0))] if f is not None]
    if node.op == "Scan":
        return all(isinstance(d, int) and d <= LONGEST_LOOP for f in facts for d in f.shape or ())
    trips = given[0].value if given and given[0] is not None else None
    return trips is not None and trips.size == 1 and int(trips.reshape(-1)[0]) <= LONGEST_LOOP


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
        given = [facts[name] if name else None for name in node.inputs]
        constant = all(f is None or f.value is not None for f in given) and _foldable(node, given)
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
