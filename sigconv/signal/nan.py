"""NaN and Inf: the same pattern from every method, and the policies for missing values.

Outputs that a value which is not finite reaches are themselves not finite, so it is enough to know which of NaN, +Inf
and -Inf their terms hold. That is counted by convolving indicators; all other outputs come from the finite values and
are the same as if the array held nothing else. A signal of a million samples with one NaN costs a second convolution,
not a million poisoned outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from sigconv.signal.problem import Array, Problem

POLICIES = ("propagate", "raise", "omit")
Solver = Callable[[Problem], Array]


def check_policy(policy: str) -> None:
    if policy not in POLICIES:
        raise ValueError(f"nan_policy must be one of {', '.join(map(repr, POLICIES))}, got {policy!r}")


def is_finite(a: Array) -> bool:
    """Whether every number is finite; one pass in the usual case."""
    if a.dtype.kind not in "fc":
        return True
    with np.errstate(all="ignore"):
        return bool(np.isfinite(a.sum()) or np.isfinite(a).all())


def solve_nonfinite(problem: Problem, solve: Solver) -> Array:
    """The result of ``problem`` by ``solve``, which is given finite numbers only."""
    if not problem.zero_fill and not is_finite(np.asarray(problem.fillvalue)):
        problem = problem.extended()
    x, w = finite_part(problem.x), finite_part(problem.w)
    y = np.array(solve(replace(problem, x=x, w=w)))
    mark(problem if problem.zero_fill else problem.extended(), y, solve)
    return y


def mark(problem: Problem, y: Array, solve: Solver) -> None:
    """Write NaN and Inf into the result ``y`` of the finite values of a problem with a zero fill."""
    if y.dtype.kind != "c":
        _write(y, _classes(problem, problem.x, problem.w, solve))
        return
    (xr, xi), (wr, wi) = _parts(problem.x), _parts(problem.w)
    for part, terms in ((y.real, ((xr, wr, 1), (xi, wi, -1))), (y.imag, ((xr, wi, 1), (xi, wr, 1)))):
        found = [_classes(problem, a, b, solve, sign) for a, b, sign in terms if a is not None and b is not None]
        for classes in found:
            _write(part, classes)


def finite_part(a: Array) -> Array:
    """``a`` with 0 for NaN and Inf."""
    if is_finite(a):
        return a
    if a.dtype.kind != "c":
        return np.where(np.isfinite(a), a, a.dtype.type(0))
    return (finite_part(a.real) + 1j * finite_part(a.imag)).astype(a.dtype)


def _parts(a: Array) -> tuple[Array, Array | None]:
    return (a.real, a.imag) if a.dtype.kind == "c" else (a, None)


def _classes(problem: Problem, x: Array, w: Array, solve: Solver, sign: int = 1) -> tuple[Array, Array, Array]:
    """Where the products of two real arrays hold NaN, +Inf (times ``sign``), -Inf: bool, of the result's shape."""
    shape = problem.count
    nan, up, down = (np.zeros(shape, bool) for _ in range(3))
    everywhere = np.ones((1,) * x.ndim, bool)
    pairs = (
        (nan, np.isnan(x), np.broadcast_to(everywhere, w.shape)),
        (nan, np.broadcast_to(everywhere, x.shape), np.isnan(w)),
        (nan, np.isinf(x), w == 0),
        (nan, x == 0, np.isinf(w)),
        (up, x == np.inf, w > 0),
        (up, x == -np.inf, w < 0),
        (up, x > 0, w == np.inf),
        (up, x < 0, w == -np.inf),
        (down, x == -np.inf, w > 0),
        (down, x == np.inf, w < 0),
        (down, x > 0, w == -np.inf),
        (down, x < 0, w == np.inf),
    )
    for target, a, b in pairs:
        if a.any() and b.any():
            target |= solve(_counting(problem, a, b)) > 0.5
    return (nan, up, down) if sign > 0 else (nan, down, up)


def _counting(problem: Problem, x: Array, w: Array) -> Problem:
    kind = np.dtype(np.float64)
    return replace(problem, x=x.astype(kind), w=w.astype(kind), dtype=kind, work=kind)


def _write(y: Array, classes: tuple[Array, Array, Array]) -> None:
    """Add the classes to what ``y`` holds, as a sum would."""
    nan, up, down = classes
    with np.errstate(invalid="ignore"):
        y[up] += np.inf
        y[down] -= np.inf
    y[nan] = np.nan


def apply_policy(problem: Problem, policy: str, solve: Solver) -> Array | None:
    """The result where ``nan_policy`` asks for another one than IEEE arithmetic; None: nothing is missing.

    'omit' is normalised convolution: NaN in the signal counts as missing, and each output is scaled by what share of
    the weight ``sum |w|`` of its window is there. Where nothing is there the output is NaN.

    References
    ----------
    H. Knutsson, C.-F. Westin, "Normalized and differential convolution", CVPR 1993.
    """
    check_policy(policy)
    if policy == "propagate" or problem.work.kind not in "fc":
        return None
    missing = np.isnan(problem.x)
    if policy == "raise":
        for name, array in (("the signal", problem.x), ("the kernel", problem.w)):
            if np.isnan(array).any():
                raise ValueError(f"{name} of shape {array.shape} contains NaN, and nan_policy is 'raise'")
        return None
    if not missing.any():
        return None
    known = replace(problem, x=np.where(missing, problem.x.dtype.type(0), problem.x))
    kind = np.dtype(np.float64)
    weights = np.abs(problem.w.astype(np.complex128 if problem.w.dtype.kind == "c" else kind))
    if not problem.zero_fill:
        known, missing = known.extended(), replace(problem, x=missing, fillvalue=0).extended().x
    ones = np.ones(missing.shape, kind)
    whole, there = (solve(replace(known, x=m, w=weights, dtype=kind, work=kind)) for m in (ones, ones - missing))
    y: Any = solve(known)
    with np.errstate(all="ignore"):
        share = np.where(there > 1e-12 * whole, whole / there, np.nan)
        return np.asarray(y * share).astype(problem.work)
