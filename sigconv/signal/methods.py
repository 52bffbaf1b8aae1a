"""The ways to solve a problem: which are legal, what each is predicted to cost, and which one runs.

A method is legal or says why not. Of the legal ones 'auto' takes the one with the lowest predicted time; transforms
have to show first that their errors stay small against the signal where it is quiet (`accurate`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sigconv.signal import direct, fft, grids, kernels, nan, separable
from sigconv.signal.costs import COSTS, Costs
from sigconv.signal.problem import Array, Problem

METHODS = ("direct", "separable", "oa", "fft")

TOLERANCE = {"f": 1e-4, "d": 1e-9, "F": 1e-4, "D": 1e-9}
"""What the chooser accepts as error of a transform, as a share of the output's size where the signal is quietest."""
QUIET = 1e-2
"""Stretches of signal below this share of its level must still be accurate, quieter ones down to `TOLERANCE`."""
SEGMENTS = 64
HOPELESS = 1.5
"""Methods predicted to take this many times the direct one's time are not looked at."""
FEW = 1 << 16
"""Multiply-adds that take less time than a choice."""
FEW_TAPS = 24
"""Taps with which no other method is faster, whatever the signal."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What the chooser decided, and why.

    Attributes
    ----------
    method : str
        'direct', 'separable', 'oa' (overlap-add) or 'fft'.
    seconds : dict
        Predicted time of each legal method.
    rejected : dict
        Why each other method is not legal, or not taken.
    error_bound : float or None
        For a transform: its error as a share of the typical output; None for the others, whose errors are those of
        summing ``K`` terms.
    """

    method: str
    seconds: Mapping[str, float]
    rejected: Mapping[str, str]
    error_bound: float | None = None

    def __str__(self) -> str:
        lines = [f"{self.method}: predicted {_time(self.seconds[self.method])}"]
        lines += [f"  not {name}: {reason}" for name, reason in self.rejected.items()]
        if self.error_bound is not None:
            lines.append(f"  error of the transforms: {self.error_bound:.1e} of the typical output")
        return "\n".join(lines)


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} us"


# --- legal ---------------------------------------------------------------------------------------------------------
def _transforms(problem: Problem) -> str | None:
    kind = problem.work
    if kind.kind == "O":
        return "objects have no transform"
    if kind.kind in "biu":
        return _inexact(problem)
    return None


def _inexact(problem: Problem) -> str | None:
    """Why the rounded result of transforms in float64 might differ from the exact one.

    The bound is Percival's for the error of a cyclic convolution, ``norm2(x) norm2(w) eps (12.7 log2 n + 2.3)`` with
    some reserve for radices other than 2.
    """
    points = math.prod(fft.sizes_of(problem, fft.transformed_axes(problem)))
    sizes = []
    for a, fill in ((problem.x, problem.fillvalue), (problem.w, 0)):
        sizes.append(max(kernels.largest(a), abs(int(fill))) * math.sqrt(min(a.size, points)))
    error = sizes[0] * sizes[1] * 2.0**-53 * (16 * math.log2(max(points, 2)) + 8)
    if error < 0.25:
        return None
    return f"integers up to {kernels.largest(problem.x)} and {kernels.largest(problem.w)} are not provably exact"


def _no_factors(problem: Problem) -> str | None:
    if len(separable.long_axes(problem)) < 2:
        return "the kernel is long on one axis only"
    if any(k > 1 and not c for k, c in zip(problem.w.shape, problem.conv, strict=True)):
        return "each batch has a kernel of its own"
    return None if _vectors(problem) is not None else "the kernel is not an outer product"


def _vectors(problem: Problem) -> list[Array] | None:
    """The factors of the kernel in the type of the sums, where real taps stay real."""
    axes = separable.long_axes(problem)
    if len(axes) < 2:
        return None
    real = problem.work.kind == "c" and problem.w.dtype.kind != "c"
    w = problem.w.astype(problem.work.char.lower() if real else problem.work, copy=False)
    return separable.factors(w.reshape([w.shape[a] for a in axes]))


LEGAL: dict[str, Callable[[Problem], str | None]] = {
    "direct": lambda problem: None,
    "separable": _no_factors,
    "oa": _transforms,
    "fft": _transforms,
}


def workspace(problem: Problem, method: str) -> int:
    """Bytes beside inputs and result that a method needs, about."""
    dtype = fft.transform_dtype(problem)
    axes = fft.transformed_axes(problem)
    batch = math.prod(n for a, n in enumerate(problem.count) if a not in axes)
    if method == "fft":
        return 4 * math.prod(fft.sizes_of(problem, axes)) * batch * dtype.itemsize
    if method == "oa":
        return 4 * math.prod(fft.block_sizes(problem)) * dtype.itemsize
    return math.prod(problem.count) * problem.work.itemsize if method == "separable" else 0


# --- cost ----------------------------------------------------------------------------------------------------------
_KINDS = {"f": "float32", "d": "float64", "F": "complex64", "D": "complex128"}
"""The types that have costs of their own, by `numpy.dtype.char`."""


def _kind(problem: Problem) -> str:
    if problem.work.kind in "biu":
        return "float64" if problem.work.itemsize > 2 else "float32"
    return _KINDS.get(problem.work.char, "numpy")


def _direct_seconds(problem: Problem, costs: Costs = COSTS) -> float:
    if not problem.count:
        return float(costs["call"]["direct"])
    kind, long = _kind(problem), [a for a, k in enumerate(problem.w.shape) if k > 1]
    taps = math.prod(k for k, c in zip(problem.w.shape, problem.conv, strict=True) if c)
    batches = math.prod(k for k, c in zip(problem.w.shape, problem.conv, strict=True) if not c)
    outputs = math.prod(problem.count)
    last = long[-1] if long else len(problem.count) - 1
    row = math.prod(problem.count[last + 1 :])
    if across := row >= direct.LONG_ROW:  # as in `direct`: what lies behind the last tap axis is a row of its own
        mac = "mac_across"
    else:
        mac, row = ("mac", "mac", "mac_rows", "mac_apart")[min(len(long), 3)], row * problem.count[last]
    if across and len(long) > 1:
        mac = "mac_apart"
    call = costs["call"]["direct"] + costs["call"]["axis"] * (len(problem.count) - 1)
    if problem.work.char in "fd" and len(problem.count) <= 2:  # as `signal.quick` has them
        call = costs["call"]["quick"]
    rows = outputs / max(row, 1) * (taps / max(problem.w.shape[last], 1) if not across else taps)
    seconds = batches * call + outputs * (taps * costs[mac][kind] + costs["move"][kind]) + costs["row"] * rows
    return float(seconds)


def _separable_seconds(problem: Problem, costs: Costs = COSTS) -> float:
    vectors = [np.empty(problem.w.shape[a]) for a in separable.long_axes(problem)]
    steps = separable.passes(replace(problem, fillvalue=0), vectors)
    return float(costs["call"]["separable"] + sum(_direct_seconds(step, costs) for step in steps))


NEAR, FAR = 14, 23
"""Powers of two of the bytes along an axis between which a transform leaves the nearest cache, then every cache."""


def transform_seconds(sizes: Sequence[int], batch: int, kind: str, itemsize: int, costs: Costs = COSTS) -> float:
    """Of ``batch`` transforms of some lengths; it is the longest that may leave the cache."""
    points = math.prod(sizes)
    far = (math.log2(max(sizes, default=1) * itemsize) - NEAR) / (FAR - NEAR)
    unit = costs["transform"][kind] + min(max(far, 0.0), 1.0) * costs["transform_far"][kind]
    return float(batch * points * math.log2(max(points, 2)) * unit)


def _fft_seconds(problem: Problem, costs: Costs = COSTS) -> float:
    dtype, axes = fft.transform_dtype(problem), fft.transformed_axes(problem)
    kind = _KINDS.get(dtype.char, "complex128")
    sizes = fft.sizes_of(problem, axes)
    if grids.has(sizes, dtype.char):
        return float(costs["call"]["fft"] + _grid_seconds(problem, axes, sizes, 1, costs))
    points = math.prod(sizes)
    others = [(n, k) for a, (n, k) in enumerate(zip(problem.x.shape, problem.w.shape, strict=True)) if a not in axes]
    batch_x, batch_w, batch = (
        math.prod(v) for v in ([n for n, _ in others], [k for _, k in others], [*map(max, others)])
    )
    seconds = transform_seconds(sizes, batch_x + batch_w + batch, kind, dtype.itemsize, costs)
    return float(costs["call"]["fft"] + seconds + batch * points * costs["spectrum"][kind])


def _grid_seconds(problem: Problem, axes: Sequence[int], lengths: tuple[int, ...], blocks: int, costs: Costs) -> float:
    """Of transforms of our own; a kernel's way takes half of a block's."""
    batch, kernels = (math.prod(n for a, n in enumerate(v) if a not in axes) for v in (problem.count, problem.w.shape))
    return grids.seconds(lengths, batch * blocks + kernels / 2, fft.transform_dtype(problem).char, costs)


def _blocks(problem: Problem, axis: int, step: int) -> int:
    """How many blocks of an axis, which start at multiples of their step, hold outputs that are wanted."""
    start = problem.start[axis]
    return (start + problem.count[axis] - 1) // step - start // step + 1


def _oa_seconds(problem: Problem, costs: Costs = COSTS) -> float:
    dtype, axes = fft.transform_dtype(problem), fft.transformed_axes(problem)
    if not axes:
        return _fft_seconds(problem, costs)
    kind = _KINDS.get(dtype.char, "complex128")
    lengths = fft.block_sizes(problem)
    points = math.prod(lengths)
    blocks = math.prod(_blocks(problem, a, n - problem.w.shape[a] + 1) for a, n in zip(axes, lengths, strict=True))
    if grids.has(lengths, dtype.char):
        return float(costs["call"]["oa"] + _grid_seconds(problem, axes, lengths, blocks, costs))
    batch = math.prod(n for a, n in enumerate(problem.count) if a not in axes)
    seconds = transform_seconds(lengths, 2 * blocks * batch + 1, kind, dtype.itemsize, costs)
    handling = costs["spectrum"][kind] + costs["tiling"][kind] * (len(axes) - 1)
    return float(costs["call"]["oa"] + seconds + blocks * batch * points * handling)


SECONDS: dict[str, Callable[[Problem, Costs], float]] = {
    "direct": _direct_seconds,
    "separable": _separable_seconds,
    "oa": _oa_seconds,
    "fft": _fft_seconds,
}


def predicted(problem: Problem) -> dict[str, float]:
    """Seconds by each method, whether or not it is legal; remembered for shapes and types."""
    return _predicted(*_form(problem))


def _form(problem: Problem) -> tuple[Any, ...]:
    """What costs and error bounds depend on: all but the numbers."""
    fill = "none" if problem.zero_fill else problem.boundary
    shapes = (problem.x.shape, problem.w.shape, problem.conv, problem.start, problem.count)
    return (*shapes, fill, problem.work, problem.w.dtype.kind == "c")


def _of_form(
    shape: tuple[int, ...],
    taps: tuple[int, ...],
    conv: tuple[bool, ...],
    start: tuple[int, ...],
    count: tuple[int, ...],
    fill: str,
    work: np.dtype[Any],
    complex_taps: bool,
) -> Problem:
    """A problem of that `_form`, whose numbers take no memory."""
    kind = work if complex_taps or work.kind != "c" else np.dtype(work.char.lower())
    x, w = np.broadcast_to(np.zeros((), work), shape), np.broadcast_to(np.zeros((), kind), taps)
    boundary = "fill" if fill == "none" else fill
    return Problem(x, w, conv, start, count, boundary, 0 if fill == "none" else 1, work, work)


@functools.lru_cache(512)
def _predicted(*form: Any) -> dict[str, float]:
    problem = _of_form(*form)
    return {name: seconds(problem, COSTS) for name, seconds in SECONDS.items()}


# --- accuracy ------------------------------------------------------------------------------------------------------
def error_bound(problem: Problem, method: str) -> float:
    """Error of the transforms as a share of the typical output of a signal that is as loud everywhere.

    Remembered for shapes and types.
    """
    return _error_bound(method, *_form(problem))


@functools.lru_cache(512)
def _error_bound(method: str, *form: Any) -> float:
    problem = _of_form(*form)
    points = math.prod(
        fft.block_sizes(problem) if method == "oa" else fft.sizes_of(problem, fft.transformed_axes(problem))
    )
    dtype = fft.transform_dtype(problem)
    return fft.error_factor(points, np.dtype(dtype.char.lower()) if dtype.kind == "c" else dtype)


def accurate(problem: Problem, method: str) -> str | None:
    """Why the transforms' errors would show: they are as large where the signal is quiet as where it is loud.

    The signal is cut into `SEGMENTS` along its longest convolved axis. Each segment that is not silent must be louder
    than the errors that the loudest brings, by `TOLERANCE` (for quiet segments relaxed down to `QUIET` of the level).
    """
    if problem.work.kind in "biu" or problem.work.char not in TOLERANCE:
        return None
    x = problem.x
    axis = max((a for a, c in enumerate(problem.conv) if c), key=lambda a: x.shape[a], default=0)
    if not x.size:
        return None
    x = x.swapaxes(axis, 0)
    size = max(1, len(x) // SEGMENTS)
    whole = x[: len(x) // size * size].reshape(len(x) // size, -1)
    levels = _levels(whole, x.dtype.char if x.dtype.char in "fF" else "D" if x.dtype.kind == "c" else "d")
    sound = np.isfinite(levels) & (levels > 0)
    if x.dtype.char in "fF" and not sound.all():  # squares beyond single precision
        levels = _levels(whole, "D" if x.dtype.kind == "c" else "d")
        sound = np.isfinite(levels) & (levels > 0)
    levels = levels[sound]
    if not len(levels):
        return None
    error = error_bound(problem, method) * float(levels.max())
    quiet = float(levels.min())
    if error <= TOLERANCE[problem.work.char] * quiet / QUIET:
        return None
    accepted = TOLERANCE[problem.work.char] / QUIET
    return f"its errors reach {error / quiet:.1e} of the signal's quietest part; {accepted:.0e} is accepted"


def _levels(segments: Array, kind: str) -> Array:
    """Root mean square of each row, by sums of type ``kind``."""
    real = np.ascontiguousarray(segments, kind).view(kind.lower())
    with np.errstate(all="ignore"):
        return np.sqrt(np.einsum("ij,ij->i", real, real) / real.shape[1])


# --- pick and run --------------------------------------------------------------------------------------------------
def choose(problem: Problem, max_workspace: int | None = None) -> Choice:
    """The legal method with the lowest predicted time."""
    problem = problem.commuted()
    seconds: dict[str, float] = {}
    rejected: dict[str, str] = {}
    guesses = predicted(problem)
    for name in METHODS:
        if guesses[name] > HOPELESS * guesses["direct"]:
            rejected[name] = f"predicted {_time(guesses[name])}, direct takes {_time(guesses['direct'])}"
            continue
        reason = LEGAL[name](problem)
        if reason is None and max_workspace is not None and workspace(problem, name) > max_workspace:
            reason = f"needs {workspace(problem, name)} bytes, max_workspace is {max_workspace}"
        if reason is None:
            seconds[name] = guesses[name]
        else:
            rejected[name] = reason
    ranked = sorted(seconds, key=lambda name: seconds[name])
    best = ranked[0]
    for best in ranked:
        reason = accurate(problem, best) if best in ("oa", "fft") else None
        if reason is None:
            break
        rejected[best] = reason
    for name in ranked:
        if name != best and name not in rejected:
            rejected[name] = f"predicted {_time(seconds[name])}"
    return Choice(best, seconds, rejected, error_bound(problem, best) if best in ("oa", "fft") else None)


def surely_direct(problem: Problem, unless_separable: bool = False) -> bool:
    """Whether 'auto' sums directly whatever the numbers are, or whatever they are that make no outer product."""
    if problem.macs <= max(FEW, FEW_TAPS * math.prod(problem.count)):
        return True
    seconds = predicted(problem)
    may_split = not unless_separable and sum(k > 1 for k in problem.w.shape) > 1
    return min(s for name, s in seconds.items() if may_split or name != "separable") == seconds["direct"]


def check_method(method: str) -> None:
    if method not in (*METHODS, "auto"):
        accepted = ", ".join(map(repr, ("auto", *METHODS)))
        raise ValueError(f"acceptable method flags are {accepted}, got {method!r}")


def solve(
    problem: Problem,
    method: str = "auto",
    *,
    threads: int = 1,
    out: Array | None = None,
    nan_policy: str = "propagate",
    max_workspace: int | None = None,
    blocks: Any = None,
) -> Array:
    """The result in ``problem.dtype``. A method that is not legal for the problem gives way to 'direct'.

    ``out``: an array of the result's shape and type, not overlapping the inputs.
    """
    check_method(method)

    def finite(p: Problem) -> Array:
        return _run(p, method, threads, None, max_workspace, blocks)

    if 0 in problem.count or 0 in problem.x.shape or 0 in problem.w.shape:
        y: Array | None = np.zeros(problem.count, problem.work)
    else:
        y = nan.apply_policy(
            problem, nan_policy, lambda p: solve(p, method, threads=threads, max_workspace=max_workspace)
        )
    if y is None:
        problem = problem.commuted()
        place = out if out is not None and out.dtype == problem.work and out.flags.c_contiguous else None
        if problem.work.kind in "fc" and not nan.is_finite(problem.w):
            y = nan.solve_nonfinite(problem, finite)
        else:
            y = _run(problem, method, threads, place, max_workspace, blocks)
    if out is not None:
        if y is not out:
            np.copyto(out, y, casting="unsafe")
        return out
    return np.ascontiguousarray(y.astype(problem.dtype, copy=False)).reshape(problem.count)


def _run(
    problem: Problem, method: str, threads: int, out: Array | None, max_workspace: int | None, blocks: Any
) -> Array:
    if method == "auto":
        method = "direct" if surely_direct(problem) else choose(problem, max_workspace).method
    elif LEGAL[method](problem) is not None:
        method = "direct"
    if method in ("oa", "fft"):
        if method == "oa":
            room = None if max_workspace is None else max_workspace // 4
            y = fft.run_blocks(problem, threads, out, blocks, room)
        else:
            y = fft.run(problem, threads, out)
        if y is None:
            y = nan.solve_nonfinite(problem, lambda p: _run(p, method, threads, None, max_workspace, blocks))
        return y
    if method == "separable":
        vectors = _vectors(problem)
        assert vectors is not None
        return separable.run(problem, vectors, threads, out)
    return direct.run(problem, threads, out)
