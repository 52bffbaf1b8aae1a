"""Parameters as the functions of this package accept them: one integer for all axes, or one each; pads by name."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from sigconv.errors import InputError
from sigconv.geometry import same_pads
from sigconv.nn.call import as_array
from sigconv.nn.net import Net, Var

PADDINGS = ("valid", "same", "same_upper", "same_lower", "full")
PAD_MODES = {
    "zeros": "constant",
    "constant": "constant",
    "reflect": "reflect",
    "replicate": "edge",
    "circular": "wrap",
}
"""ONNX's names of padding modes."""


@contextmanager
def explained(where: str, **shapes: Any) -> Iterator[None]:
    """An InputError from inside, with the function's name and the shapes it was about."""
    try:
        yield
    except InputError as e:
        given = ", ".join(f"{k} {v}" for k, v in shapes.items())
        raise InputError(f"{where}: {e} ({given})") from None


def integer(where: str, name: str, value: Any, least: int) -> int:
    """An integer of at least ``least``."""
    try:
        result = operator.index(value)
    except TypeError:
        result = least - 1
    if result < least:
        raise InputError(f"{where}: {name}={value!r}; an integer of at least {least} is accepted")
    return result


def integers(where: str, name: str, value: Any, count: int, least: int) -> tuple[int, ...]:
    """One integer an axis, from one for all or a sequence."""
    try:
        values = [operator.index(v) for v in value] if isinstance(value, (tuple, list)) else [operator.index(value)]
    except TypeError:
        values = []
    if len(values) == 1:
        values *= count
    if len(values) != count or min(values) < least:
        each = f" or {count} of them, one an axis" if count > 1 else ""
        raise InputError(f"{where}: {name}={value!r}; an integer of at least {least}{each} is accepted")
    return tuple(values)


def pad_pairs(
    where: str,
    padding: Any,
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> list[tuple[int, int]]:
    """(before, after) of every axis."""
    rank = len(sizes)
    if isinstance(padding, str):
        if padding not in PADDINGS:
            raise InputError(f"{where}: padding={padding!r}; accepted are {', '.join(PADDINGS)} or integers")
        if padding == "valid":
            return [(0, 0)] * rank
        if padding == "full":
            return [((k - 1) * d,) * 2 for k, d in zip(kernel, dilation, strict=True)]
        lower = padding == "same_lower"
        return [same_pads(*axis, lower=lower) for axis in zip(sizes, kernel, stride, dilation, strict=True)]
    if isinstance(padding, (tuple, list)) and any(isinstance(p, (tuple, list)) for p in padding):
        if len(padding) != rank or not all(isinstance(p, (tuple, list)) and len(p) == 2 for p in padding):
            raise InputError(f"{where}: padding={padding!r}; {rank} pairs (before, after) are accepted")
        flat = integers(where, "padding", [v for pair in padding for v in pair], 2 * rank, 0)
        return list(zip(flat[::2], flat[1::2], strict=True))
    return [(p, p) for p in integers(where, "padding", padding, rank, 0)]


def onnx_pads(pairs: Sequence[tuple[int, int]]) -> list[int]:
    """All befores, then all afters."""
    return [p for p, _ in pairs] + [p for _, p in pairs]


def padded(net: Net, where: str, x: Var, pairs: Sequence[tuple[int, int]], mode: str, value: Any = None) -> Var:
    """``x`` with its last axes padded."""
    if mode not in PAD_MODES:
        raise InputError(f"{where}: the padding mode is {mode!r}; accepted are {', '.join(map(repr, PAD_MODES))}")
    if all(p == (0, 0) for p in pairs):
        return x
    for i, (pair, size) in enumerate(zip(pairs, x.shape[x.ndim - len(pairs) :], strict=True)):
        left = size + min(0, pair[0]) + min(0, pair[1])
        if left < 0 or (left < 1 and max(pair) > 0 and mode not in ("zeros", "constant")):
            raise InputError(f"{where}: padding {pair} of axis {i - len(pairs)} of shape {x.shape} with mode {mode!r}")
    amounts = onnx_pads([(0, 0)] * (x.ndim - len(pairs)) + list(pairs))
    fill = None if value is None else net.constant(value, x.dtype)
    return net.node("Pad", x, net.ints(*amounts), fill, mode=PAD_MODES[mode])


def batched(function: Callable[..., Any], rank: int, where: str, x: Any, *rest: Any, out: Any = None) -> Any:
    """Call ``function(x, …)`` with [N, C, *spatial]; [C, *spatial] is a batch of one that the result loses again."""
    if type(x) is not np.ndarray:
        x = as_array("input", x)
    if x.ndim == rank + 2:
        return function(rank, x, *rest, out)
    if x.ndim != rank + 1:
        raise InputError(
            f"{where}: input has shape {x.shape}; [N, C, *spatial] or [C, *spatial] with {rank} spatial "
            f"ax{'i' if rank == 1 else 'e'}s is accepted"
        )
    if not isinstance(x, np.ndarray):
        raise InputError(f"{where}: input has shape {tuple(x.shape)}; on the device [N, C, *spatial] is accepted")
    result = function(rank, x[None], *rest, None if out is None else out[None])
    return tuple(r[0] for r in result) if isinstance(result, tuple) else out if out is not None else result[0]
