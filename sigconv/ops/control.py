"""Control flow: If, Loop and Scan.

A sub-graph is closed: what it reads from outside are its last inputs, and ``captures`` says how many those are. They
are the node's last inputs too. A reference gets each sub-graph as something to call with arrays (its ``outputs`` say
what is declared of the results), an ``infer`` gets it as something to call with facts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sigconv.errors import ModelError
from sigconv.ops._infer import BOOL, Attrs, Facts, axis_index, check_dtype, check_rank, fact, merge_dim, present
from sigconv.ops._known import check_choice, ints, scalar
from sigconv.ops.spec import Dim, Fact, Shape, register

Array = np.ndarray
FactsOf = Callable[[Sequence[Fact | None]], list[Fact]]


def _truth(condition: Array) -> bool:
    if condition.size != 1:
        raise ModelError(f"a condition must hold one element, but has shape {list(condition.shape)}")
    return bool(condition.reshape(-1)[0])


def _either(a: Fact, b: Fact, what: str) -> Fact:
    """What is known of a value that is one of two."""
    if a.dtype is not None and b.dtype is not None and a.dtype != b.dtype:
        raise ModelError(f"{what} must have one dtype, but is {a.dtype} and {b.dtype}")
    return Fact(a.dtype or b.dtype, _common(a.shape, b.shape))


def _common(a: Shape | None, b: Shape | None) -> Shape | None:
    if a is None or b is None or len(a) != len(b):
        return None
    return tuple(x if x == y else None for x, y in zip(a, b, strict=True))


# --- If -----------------------------------------------------------------------------------------------------------


def _infer_if(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    check_dtype(fact(facts, 0).dtype, BOOL, "cond")
    condition = scalar(facts, 0, "cond")
    captured = list(facts[1:])
    if condition is not None:
        return list(attrs["then_branch" if condition else "else_branch"](captured))[:n]
    ways = [attrs["then_branch"](captured), attrs["else_branch"](captured)]
    if len(ways[0]) != len(ways[1]):
        raise ModelError(f"then_branch has {len(ways[0])} outputs, else_branch {len(ways[1])}")
    return [_either(a, b, f"output {i} of the branches") for i, (a, b) in enumerate(zip(*ways, strict=True))][:n]


@register("If", infer=_infer_if, since=25)
def If(cond: Array, *captured: Array, then_branch: Any, else_branch: Any, captures: int = 0) -> tuple[Array, ...]:
    """The results of one of two sub-graphs."""
    return tuple((then_branch if _truth(cond) else else_branch)(*captured))


# --- Loop ---------------------------------------------------------------------------------------------------------


def _parts(items: Sequence[Any], captures: int, first: int = 0) -> tuple[list[Any], list[Any]]:
    """The items from ``first`` on, and the last ``captures`` of them apart."""
    end = len(items) - captures
    if captures < 0 or end < first:
        raise ModelError(f"{captures} captured values among {len(items)} inputs")
    return list(items[first:end]), list(items[end:])


def _settle(
    body: FactsOf, given: list[Fact | None], states: list[Any], rest: list[Any], skip: int
) -> tuple[list[Fact], list[Fact]]:
    """What holds of the states before every round, and of the body's outputs then.

    ``given`` + states + ``rest`` are the body's inputs; its outputs from ``skip`` on are the new states. Sizes that a
    round changes are unknown.
    """
    before = [Fact(f.dtype, f.shape) if f is not None else Fact() for f in states]
    while True:
        outputs = body([*given, *before, *rest])
        after = outputs[skip : skip + len(before)]
        if len(after) < len(before):
            raise ModelError(f"the body has {len(outputs)} outputs, too few for {len(before)} states")
        joined = [_either(a, b, f"state {i}") for i, (a, b) in enumerate(zip(before, after, strict=True))]
        if [f.shape for f in joined] == [f.shape for f in before]:
            return joined, outputs
        before = joined


FOREVER = 1 << 40
"""Rounds that nobody waits for: at a microsecond each they take 12 days."""


def _infer_loop(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    check_dtype(fact(facts, 0).dtype, {"int64"}, "M")
    check_dtype(fact(facts, 1).dtype, BOOL, "cond")
    states, captured = _parts(facts, attrs["captures"], 2)
    most = ints(facts, 0, "M") if present(facts, 0) else None
    start = scalar(facts, 1, "cond") if present(facts, 1) else True
    round_facts = [Fact(np.dtype(np.int64), ()), Fact(np.dtype(bool), (), np.array(True))]
    joined, outputs = _settle(attrs["body"], round_facts, states, captured, 1)  # type: ignore[arg-type]
    goes_on = outputs[0].value
    to_the_end = bool(start) and goes_on is not None and _truth(goes_on)
    if to_the_end and (most[0] >= FOREVER if most else not present(facts, 0)):
        raise ModelError(
            "it would never end: its condition stays true, and " + ("M is huge" if most else "M is absent")
        )
    trips: Dim = max(most[0], 0) if most and to_the_end else None
    trips = 0 if start is not None and not start else trips
    collected = [Fact(f.dtype, None if f.shape is None else (trips, *f.shape)) for f in outputs[1 + len(states) :]]
    return [*joined, *collected][:n]


@register("Loop", infer=_infer_loop, since=25)
def Loop(
    M: Array | None = None, cond: Array | None = None, *values: Array, body: Any, captures: int = 0
) -> tuple[Array, ...]:
    """``states = body(i, cond, *states)`` while i < M and cond; further results are collected along a new axis 0."""
    states, captured = _parts(values, captures)
    most = None if M is None else int(M.reshape(-1)[0])
    going = cond is None or _truth(cond)
    collected: list[list[Array]] = [[] for _ in body.outputs[1 + len(states) :]]
    i = 0
    while going and (most is None or i < most):
        again, *results = body(np.array(i, np.int64), np.array(True), *states, *captured)
        states, rest = results[: len(states)], results[len(states) :]
        for kept, new in zip(collected, rest, strict=True):
            kept.append(new)
        going = _truth(again)
        i += 1
    names = body.outputs[1 + len(states) :]
    return *states, *(_stacked(kept, declared, 0) for kept, declared in zip(collected, names, strict=True))


def _stacked(parts: Sequence[Array], declared: Any, axis: int) -> Array:
    """The results of all rounds along a new axis; without a round, none of what the sub-graph declares."""
    if not parts:
        shape = [d if isinstance(d, int) else 0 for d in declared.shape or ()]
        axis = axis_index(axis, len(shape) + 1)
        return np.zeros((*shape[:axis], 0, *shape[axis:]), declared.dtype or np.float32)
    if len({p.shape for p in parts}) > 1:
        shapes = " and ".join(str(list(s)) for s in sorted({p.shape for p in parts})[:2])
        raise ModelError(f"what is collected over the rounds must keep its shape, but has {shapes}")
    return np.stack(parts, axis)


# --- Scan ---------------------------------------------------------------------------------------------------------


def _per_item(values: Sequence[int] | None, count: int, what: str) -> list[int]:
    """An attribute with an entry an item, 0 where it is absent."""
    if values is None:
        return [0] * count
    if len(values) != count:
        raise ModelError(f"{what} is {tuple(values)}; {count} entries are needed")
    return [int(v) for v in values]


def _directions(values: Sequence[int] | None, count: int, what: str) -> list[int]:
    found = _per_item(values, count, what)
    for value in found:
        check_choice(value, (0, 1), what)
    return found


def _infer_scan(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    plain, captured = _parts(facts, attrs["captures"])
    count = attrs["num_scan_inputs"]
    if not 0 < count <= len(plain):
        raise ModelError(f"num_scan_inputs is {count}, there are {len(plain)} inputs")
    states, scanned = plain[: len(plain) - count], plain[len(plain) - count :]
    axes = _per_item(attrs["scan_input_axes"], count, "scan_input_axes")
    _directions(attrs["scan_input_directions"], count, "scan_input_directions")
    length: Dim = None
    slices: list[Fact | None] = []
    for i, (given, axis) in enumerate(zip(scanned, axes, strict=True)):
        known = given or Fact()
        check_rank(known, least=1, what=f"scan input {i}")
        if known.shape is None:
            slices.append(Fact(known.dtype))
            continue
        at = axis_index(axis, len(known.shape))
        length = merge_dim(length, known.shape[at], "the lengths of the scan inputs")
        slices.append(Fact(known.dtype, known.shape[:at] + known.shape[at + 1 :]))
    joined, outputs = _settle(attrs["body"], [], states, [*slices, *captured], 0)
    rest = outputs[len(states) :]
    along = _per_item(attrs["scan_output_axes"], len(rest), "scan_output_axes")
    _directions(attrs["scan_output_directions"], len(rest), "scan_output_directions")
    collected = []
    for result, axis in zip(rest, along, strict=True):
        shape = result.shape
        if shape is not None:
            at = axis_index(axis, len(shape) + 1)
            shape = (*shape[:at], length, *shape[at:])
        collected.append(Fact(result.dtype, shape))
    return [*joined, *collected][:n]


Ints = Sequence[int] | None


@register("Scan", infer=_infer_scan, since=25)
def Scan(
    *values: Array,
    body: Any,
    num_scan_inputs: int,
    scan_input_axes: Ints = None,
    scan_input_directions: Ints = None,
    scan_output_axes: Ints = None,
    scan_output_directions: Ints = None,
    captures: int = 0,
) -> tuple[Array, ...]:
    """``states = body(*states, *slices)`` for every slice of the scan inputs; further results are collected."""
    plain, captured = _parts(values, captures)
    first = len(plain) - num_scan_inputs
    states, scanned = plain[:first], plain[first:]
    axes = _per_item(scan_input_axes, num_scan_inputs, "scan_input_axes")
    backwards = _directions(scan_input_directions, num_scan_inputs, "scan_input_directions")
    sequences = [
        np.moveaxis(x, axis, 0)[:: -1 if b else 1] for x, axis, b in zip(scanned, axes, backwards, strict=True)
    ]
    if len({len(s) for s in sequences}) > 1:
        raise ModelError(f"the scan inputs have lengths {[len(s) for s in sequences]}, which must agree")
    names = body.outputs[first:]
    collected: list[list[Array]] = [[] for _ in names]
    for slices in zip(*sequences, strict=True):
        results = body(*states, *map(np.asarray, slices), *captured)
        states = list(results[:first])
        for kept, new in zip(collected, results[first:], strict=True):
            kept.append(new)
    along = _per_item(scan_output_axes, len(names), "scan_output_axes")
    reverse = _directions(scan_output_directions, len(names), "scan_output_directions")
    return *states, *(
        _stacked(kept[::-1] if r else kept, declared, axis)
        for kept, declared, axis, r in zip(collected, names, along, reverse, strict=True)
    )
