"""Fourier transforms, Einstein sums and determinants: linear algebra that runs on the host."""

from __future__ import annotations

from collections import Counter

import numpy as np

from sigconv.errors import ModelError
from sigconv.ops._infer import (
    FLOAT,
    Attrs,
    Facts,
    axis_index,
    broadcast_shapes,
    check_dtype,
    check_rank,
    common_dtype,
    fact,
    merge_dim,
    present,
)
from sigconv.ops._known import concrete, count, scalar
from sigconv.ops._numeric import widened
from sigconv.ops.spec import Dim, Fact, Shape, register


def _complex(x: np.ndarray) -> np.ndarray:
    """The last axis, of size 1 or 2, read as real and imaginary part."""
    return x[..., 0] if x.shape[-1] == 1 else x[..., 0] + 1j * x[..., 1]


def _pairs(y: np.ndarray) -> np.ndarray:
    return np.stack([y.real, y.imag], -1)


def _dft_length(size: Dim, asked: int | None, attrs: Attrs) -> Dim:
    if asked is not None:
        return asked
    return 2 * (size - 1) if attrs["inverse"] and attrs["onesided"] and isinstance(size, int) else size


def _infer_dft(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    x = fact(facts, 0)
    check_dtype(x.dtype, FLOAT)
    check_rank(x, least=2)
    length, axis = scalar(facts, 1, "dft_length"), scalar(facts, 2, "axis")
    if x.shape is None:
        return [Fact(x.dtype)]
    if x.shape[-1] not in (1, 2) and isinstance(x.shape[-1], int):
        raise ModelError(f"the last size of shape {x.shape} is {x.shape[-1]}; accepted are 1 (real) and 2 (complex)")
    inverse_real = attrs["inverse"] and attrs["onesided"]
    if present(facts, 2) and axis is None:
        return [Fact(x.dtype, (None,) * (len(x.shape) - 1) + (1 if inverse_real else 2,))]
    along = axis_index(-2 if axis is None else int(axis), len(x.shape))
    if along == len(x.shape) - 1:
        raise ModelError(f"axis {axis} of shape {x.shape} is the complex axis, along which there is no transform")
    asked = present(facts, 1)
    size = (
        None
        if asked and length is None
        else _dft_length(x.shape[along], None if length is None else int(length), attrs)
    )
    if attrs["onesided"] and not attrs["inverse"]:
        size = size // 2 + 1 if isinstance(size, int) else None
    shape = [*x.shape[:-1], 1 if inverse_real else 2]
    shape[along] = size
    return [Fact(x.dtype, tuple(shape))]


@register("DFT", infer=_infer_dft, since=20)
@widened
def dft(
    input: np.ndarray,
    dft_length: np.ndarray | None = None,
    axis: np.ndarray | None = None,
    *,
    inverse: int = 0,
    onesided: int = 0,
) -> np.ndarray:
    """The discrete Fourier transform along ``axis`` (default -2); the last axis holds real and imaginary part.

    ``onesided`` forward keeps the first half of the spectrum; inverse reads one and gives a real signal.
    """
    attrs = {"inverse": inverse, "onesided": onesided}
    facts = [Fact.of(input), *(None if v is None else Fact.of(v) for v in (dft_length, axis))]
    _infer_dft(facts, attrs, 1)
    along = axis_index(-2 if axis is None else int(np.reshape(axis, ())), input.ndim)
    asked = None if dft_length is None else int(np.reshape(dft_length, ()))
    (length,) = concrete((_dft_length(input.shape[along], asked, attrs),))
    x = _complex(input)
    if inverse and onesided:
        return np.fft.irfft(x, length, along)[..., None].astype(input.dtype)
    y = np.fft.ifft(x, length, along) if inverse else np.fft.fft(x, length, along)
    if onesided:
        y = np.take(y, range(length // 2 + 1), along)
    return _pairs(y).astype(input.dtype)


def _infer_stft(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    signal, window = fact(facts, 0), fact(facts, 2)
    check_dtype(signal.dtype, FLOAT)
    check_rank(signal, (2, 3))
    step, length = scalar(facts, 1, "frame_step"), scalar(facts, 3, "frame_length")
    if step is not None and step < 1:
        raise ModelError(f"frame_step is {step}; accepted is 1 or more")
    batch, samples = (None, None) if signal.shape is None else signal.shape[:2]
    frame: Dim = None if length is None else int(length)
    if present(facts, 2):
        check_rank(window, (1,), what="window")
        frame = merge_dim(frame, count(facts, 2), "frame_length and the size of window")
    elif not present(facts, 3):
        frame = samples
    frames: Dim = None
    if isinstance(frame, int) and isinstance(samples, int) and step is not None:
        if not 1 <= frame <= samples:
            raise ModelError(f"frame_length is {frame}; accepted is 1 to {samples}, the length of the signal")
        frames = (samples - frame) // int(step) + 1
    bins = frame if not attrs["onesided"] else frame // 2 + 1 if isinstance(frame, int) else None
    return [Fact(signal.dtype, (batch, frames, bins, 2))]


@register("STFT", infer=_infer_stft, since=17)
@widened
def stft(
    signal: np.ndarray,
    frame_step: np.ndarray,
    window: np.ndarray | None = None,
    frame_length: np.ndarray | None = None,
    *,
    onesided: int = 1,
) -> np.ndarray:
    """The spectra of windowed frames: (batch, samples[, 1 or 2]) to (batch, frames, bins, 2)."""
    facts = [None if v is None else Fact.of(v) for v in (signal, frame_step, window, frame_length)]
    _infer_stft(facts, {"onesided": onesided}, 1)
    x = signal if signal.ndim == 2 else _complex(signal)
    length = (
        len(window) if window is not None else x.shape[1] if frame_length is None else int(np.reshape(frame_length, ()))
    )
    frames = np.lib.stride_tricks.sliding_window_view(x, length, 1)[:, :: int(np.reshape(frame_step, ()))]
    spectrum = np.fft.fft(frames if window is None else frames * window)
    return _pairs(spectrum[..., : length // 2 + 1 if onesided else length]).astype(signal.dtype)


def _einsum_terms(equation: str, operands: int) -> tuple[list[str], str]:
    """The labels of each input and of the output; ModelError where their number is wrong."""
    left, arrow, right = equation.replace(" ", "").replace("...", ".").partition("->")
    terms = left.split(",")
    if len(terms) != operands:
        raise ModelError(f"equation {equation!r} has {len(terms)} terms for {operands} inputs")
    if not arrow:
        used = Counter("".join(terms))
        right = "." * ("." in used) + "".join(sorted(c for c, k in used.items() if k == 1 and c != "."))
    return terms, right


def _infer_einsum(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    equation = attrs["equation"]
    terms, right = _einsum_terms(equation, len(facts))
    sizes: dict[str, Dim] = {}
    rest: Shape | None = ()
    for i, term in enumerate(terms):
        shape = fact(facts, i).shape
        before, dots, after = term.partition(".")
        if shape is None:
            rest = None if dots else rest
            sizes.update({c: sizes.get(c) for c in before + after})
            continue
        named = len(before) + len(after)
        if len(shape) < named or (not dots and len(shape) > named):
            raise ModelError(
                f"term {term.replace('.', '...')!r} of equation {equation!r} does not fit input {i} of shape {shape}"
            )
        stop = len(shape) - len(after)
        for c, dim in zip(before + after, (*shape[: len(before)], *shape[stop:]), strict=True):
            have = sizes.get(c, 1)
            sizes[c] = (
                dim
                if have == 1
                else have
                if dim == 1
                else merge_dim(have, dim, f"sizes of {c!r} in equation {equation!r}")
            )
        if dots and rest is not None:
            rest = broadcast_shapes(rest, shape[len(before) : stop])
    missing = sorted(set(right) - set(sizes) - {"."})
    if missing:
        raise ModelError(f"equation {equation!r} has output label {', '.join(missing)}, which no input has")
    if rest is None and "." in right:
        return [Fact(common_dtype(facts))]
    result: list[Dim] = []
    for c in right:
        result.extend(rest or ()) if c == "." else result.append(sizes[c])
    return [Fact(common_dtype(facts), tuple(result))]


@register("Einsum", infer=_infer_einsum, since=28)
@widened
def einsum(*Inputs: np.ndarray, equation: str) -> np.ndarray:
    """Sums of products over the labels that the output lacks; ``...`` broadcasts."""
    _infer_einsum([Fact.of(x) for x in Inputs], {"equation": equation}, 1)
    return np.asarray(np.einsum(equation, *Inputs, optimize=len(Inputs) > 2))


def _infer_det(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    x = fact(facts, 0)
    check_dtype(x.dtype, FLOAT)
    check_rank(x, least=2)
    if x.shape is None:
        return [Fact(x.dtype)]
    merge_dim(x.shape[-2], x.shape[-1], "both sizes of a square matrix")
    return [Fact(x.dtype, x.shape[:-2])]


@register("Det", infer=_infer_det, since=22)
@widened
def det(X: np.ndarray) -> np.ndarray:
    """The determinants of the matrices in the last two axes."""
    return np.asarray(np.linalg.det(X))
