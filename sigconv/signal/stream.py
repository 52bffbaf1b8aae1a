"""Convolution of a signal that arrives in chunks."""

from __future__ import annotations

import operator
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

from sigconv.signal import api, fft, methods, nan, partitions
from sigconv.signal import problem as problems
from sigconv.signal.costs import COSTS
from sigconv.signal.problem import Array, Problem, extension

__all__ = ["Stream"]

LONGEST = 1 << 16
"""Points of the longest transform that is considered, or 8 times the kernel."""

SHORT = 1024
"""Samples of latency below which a direct sum costs as much as where nothing is shared."""


class Stream:
    """Convolution with one kernel along one axis, of a signal that arrives in chunks of any size.

    What `push` and `flush` return, joined, is ``convolve(signal, kernel, 'full')`` to the last bit, however the signal
    was cut: for the direct method that of `convolve`, with transforms that of
    ``Plan(kernel, shape, method=stream.method, block=stream.block)``. (`convolve` sums in another order where the whole
    signal is shorter than the kernel.) Memory is bounded by the kernel and the block, however long the signal.

    Parameters
    ----------
    kernel : array_like
        Taps: a vector, or an array of the chunks' rank whose other axes are equal to theirs or 1.
    axis : int
        Along which chunks follow each other. All other axes are channels.
    boundary : {'fill', 'edge', 'symm', 'reflect'}
        What the signal is before its first and after its last element. The mirrored ones hold back the first K - 1
        (K) elements. 'wrap' would need the end first.
    fillvalue : scalar
        For 'fill'.
    method : {'auto', 'direct', 'oa'}
        'direct' returns each output with its last input; 'oa' (overlap-save) works in blocks. 'auto' takes what is
        predicted to be fastest within ``latency``. Integers and longdouble are always summed directly.
    latency : int, optional
        The most samples that an input may wait for others before the outputs that end at it are returned; 0: none.
        No bound by default.
    block : int, optional
        Length of the transforms, instead of a latency. Shorter than the kernel: partitions of ``block // 2`` taps.
    dtype : dtype, optional
        Of the result, as for `convolve`.
    workers : int, optional
        Threads of the direct method.

    Raises
    ------
    ValueError
        Arguments or chunks that do not fit. TypeError for a chunk of a type wider than the first one's.

    Examples
    --------
    >>> stream = Stream([1, 1, 1])
    >>> stream.push([1, 2]), stream.push([]), stream.push([3]), stream.flush()
    (array([1, 3]), array([], dtype=int64), array([6]), array([5, 3]))
    """

    def __init__(
        self,
        kernel: npt.ArrayLike,
        axis: int = -1,
        *,
        boundary: str = "fill",
        fillvalue: Any = 0,
        method: str = "auto",
        latency: int | None = None,
        block: int | None = None,
        dtype: npt.DTypeLike | None = None,
        workers: int | None = None,
    ) -> None:
        if boundary not in problems.BOUNDARIES or problems.BOUNDARIES[boundary] == "wrap":
            raise ValueError(f"boundary={boundary!r}; a stream accepts 'fill', 'edge', 'symm' and 'reflect'")
        if method not in ("auto", "direct", "oa"):
            raise ValueError(f"method={method!r}; a stream accepts 'auto', 'direct' and 'oa'")
        if latency is not None and operator.index(latency) < 0:
            raise ValueError(f"latency={latency}; accepted are samples, 0 or more")
        if block is not None and (operator.index(block) < 2 or method == "direct" or latency is not None):
            raise ValueError(f"block={block}; accepted is 2 or more, without latency, and not with method='direct'")
        self._kernel = np.array(problems.as_numbers(kernel, "kernel"))
        self._axis = operator.index(axis)
        if not self._kernel.ndim or not self._kernel.size:
            raise ValueError(f"kernel has shape {self._kernel.shape}; accepted are one tap or more")
        self._boundary, self._fillvalue = problems.BOUNDARIES[boundary], fillvalue
        self._asked, self._latency, self._wanted, self._dtype = method, latency, block, dtype
        self._threads = api._threads(workers)
        self.method: str | None = None
        self.block: int | None = None
        self._parts: partitions.Kernel | None = None
        self._template: Problem | None = None

    # --- the first chunk fixes type and channels ---------------------------------------------------------------------
    def _begin(self, x: Array) -> None:
        axis = self._axis + x.ndim if self._axis < 0 else self._axis
        if not 0 <= axis < x.ndim:
            raise ValueError(f"axis={self._axis} does not exist in a chunk of shape {x.shape}")
        h = self._kernel
        if h.ndim == 1:
            h = h.reshape([-1 if a == axis else 1 for a in range(x.ndim)])
        self._at, self._type, self._shape = axis, x.dtype, x.shape
        one = np.zeros([1 if a == axis else n for a, n in enumerate(x.shape)], x.dtype)
        p = problems.make(
            one, h, convolves=True, axes=axis, boundary=self._boundary, fillvalue=self._fillvalue, dtype=self._dtype
        )
        w = np.moveaxis(p.w, axis, -1)
        self._taps = w.shape[-1]
        self._zero_fill = p.zero_fill
        self._fill = p.fillvalue
        self._finite_kernel = nan.is_finite(w)
        channels = one.shape[:axis] + one.shape[axis + 1 :]
        self._source = p.x.dtype
        self._template = Problem(
            np.zeros((*channels, 0), self._source), w, (False,) * len(channels) + (True,), (0,) * x.ndim,
            (*np.broadcast_shapes(channels, w.shape[:-1]), 0), "fill", 0, p.dtype, p.work,
        )  # fmt: skip
        if self.method is None:
            self._choose(self._template)
        self._reset()

    def _choose(self, p: Problem) -> None:
        kind = fft.transform_dtype(p)
        legal = p.work.char in "fdFD" and self._finite_kernel and self._taps > 1
        if self._asked == "direct" or not legal:
            self.method = "direct"
            return
        lengths = [self._wanted] if self._wanted is not None else self._lengths()
        seconds = {n: _seconds(n, self._taps, kind) for n in lengths}
        best = min(seconds, key=lambda n: seconds[n], default=None)
        # chunks within a short latency are too short for the row kernels' tiles
        short = self._latency is not None and self._latency < SHORT
        call = COSTS["call"]["direct"] / ((self._latency or 0) + 1 if short else SHORT)
        alone = self._taps * COSTS["mac_few" if short else "mac"][methods._kind(p)] + call
        if best is None or (self._asked == "auto" and self._wanted is None and alone <= seconds[best]):
            self.method = "direct"
            return
        self.method, self.block = "oa", best
        self._parts = partitions.Kernel(p.w[..., ::-1].astype(kind), best, kind)

    def _lengths(self) -> list[int]:
        """Transform lengths whose hop is within the latency."""
        most = max(LONGEST, 8 * self._taps)
        found = (base << p for p in range(1, 40) for base in (2, 3) if base << p <= most)
        limit = most if self._latency is None else self._latency + 1
        return [n for n in found if partitions.hop(n, self._taps) <= limit]

    def _reset(self) -> None:
        assert self._template is not None
        self._inputs = self._outputs = 0
        self._head: list[Array] | None = None if self._zero_fill else []
        nothing = self._template.x
        self._last = nothing  # the last inputs, for what lies beyond the end
        self._buffer = nothing
        if self._parts is not None:
            k = self._parts
            self._engine = partitions.Engine(k, nothing.shape[:-1], 0 if self._zero_fill else -k.early)
            self._buffer = self._zeros(k.length - k.hop)
            self._seen: deque[tuple[Array, bool]] = deque(maxlen=-(-(k.taps - 1) // k.hop) + 1)
            self._seen.append((self._buffer, True))

    def _zeros(self, n: int) -> Array:
        assert self._template is not None
        return np.zeros((*self._template.x.shape[:-1], n), self._source)

    # --- chunks ----------------------------------------------------------------------
    def push(self, chunk: npt.ArrayLike) -> Array:
        """The outputs that ``chunk`` makes complete, perhaps none."""
        x = problems.as_numbers(chunk, "chunk")
        if self._template is None:
            if not x.size and not isinstance(chunk, np.ndarray) and x.ndim == 1:
                x = x.astype(self._kernel.dtype)
            self._begin(x)
        elif not x.size and x.ndim == len(self._shape) == 1:
            x = x.astype(self._type)
        at, shape = self._at, self._shape
        if x.ndim != len(shape) or any(a != at and n != m for a, (n, m) in enumerate(zip(x.shape, shape, strict=True))):
            raise ValueError(f"chunk has shape {x.shape}, the first one had {shape}; only axis {at} may differ")
        if not np.can_cast(x.dtype, self._type, "safe"):
            raise TypeError(f"chunk has dtype {x.dtype}, the first one had {self._type}, which cannot hold it")
        x = np.moveaxis(x, at, -1).astype(self._source, copy=False)
        n = x.shape[-1]
        self._inputs += n
        if not self._zero_fill:
            if n:
                kept = self._taps + (self._parts.hop if self._parts is not None else 0)
                self._last = np.concatenate([self._last, x[..., -kept:]], -1)[..., -kept:].copy()
            if self._head is not None:
                self._head.append(x)
                if not self._inputs or self._inputs < self._taps * (self._boundary in ("symm", "reflect")):
                    return self._given(self._empty())
                x = self._opened()
        return self._given(self._core(x))

    def flush(self) -> Array:
        """The outputs that are left; the stream then begins anew. Without any chunk there are none, 1-D."""
        if self._template is None:
            return np.zeros(0, self._kernel.dtype if self._dtype is None else np.dtype(self._dtype))
        total = self._inputs + self._taps - 1 if self._inputs else 0
        parts = [self._empty()]
        if total and not self._zero_fill:
            if self._head is not None:
                parts.append(self._core(self._opened()))
            parts.append(self._core(self._beyond(self._last, True, self._needed(total))))
        elif total and self._parts is None:
            parts.append(self._direct(self._zeros(0), self._taps - 1))
        if self._parts is not None and total > self._outputs:
            k = self._parts
            left = -(-total // k.hop) - self._engine.block
            parts.append(self._blocks(self._zeros((left - 1) * k.hop + k.length - self._buffer.shape[-1])))
        excess = self._outputs - total
        y = np.concatenate(parts, -1)
        y = y[..., : y.shape[-1] - excess] if excess > 0 else y
        self._reset()
        return self._given(y)

    def _opened(self) -> Array:
        """The first inputs, before them what lies before the signal."""
        assert self._head is not None
        head, self._head = np.concatenate(self._head, -1), None
        before = self._beyond(head, False, self._taps - 1)
        if self._parts is None:
            self._buffer = before
            return head
        k = self._parts
        lead = k.early * k.hop + k.length - k.hop - before.shape[-1]
        self._buffer = np.concatenate([self._zeros(lead), before], -1)
        self._seen.clear()
        self._seen.append((self._buffer[..., : k.length - k.hop], nan.is_finite(before)))
        return head

    def _needed(self, total: int) -> int:
        """Inputs beyond the end that the last block reads."""
        k = self._parts
        return self._taps - 1 if k is None or k.count > 1 else -(-total // k.hop) * k.hop - self._inputs

    def _beyond(self, x: Array, end: bool, more: int) -> Array:
        """``more`` elements beyond an end of the signal ``x``, of which the part near that end is enough."""
        n = x.shape[-1]
        where = extension(n, n + more, n, self._boundary) if end else extension(-more, 0, n, self._boundary)
        if self._boundary == "fill":
            return np.full((*x.shape[:-1], more), self._fill, x.dtype)
        return np.take(x, where, -1)

    def _core(self, x: Array) -> Array:
        return self._direct(x, x.shape[-1]) if self._parts is None else self._blocks(x)

    def _direct(self, new: Array, count: int) -> Array:
        """``count`` outputs from the next inputs; those beyond ``new`` read nothing."""
        if not count:
            return self._empty()
        p = self._template
        assert p is not None
        x = np.concatenate([self._buffer, new], -1)
        before = self._buffer.shape[-1]
        self._buffer = x[..., -self._taps :].copy()
        short = self._taps - x.shape[-1]
        if short > 0 and self._finite_kernel:  # signal and kernel are not to change places
            x = np.concatenate([x, self._zeros(short)], -1)
        self._outputs += count
        # The order of a sum depends on where its axis lies, so it goes back to its place.
        order = [a for a in range(x.ndim) if a != x.ndim - 1]
        order.insert(self._at, x.ndim - 1)
        x, w = x.transpose(order), p.w.transpose(order)
        count_of, start_of = [*p.count[:-1], count], [*(0 for _ in p.conv[1:]), before]
        conv, start, shape = (tuple(v[a] for a in order) for v in (p.conv, start_of, count_of))
        problem = Problem(x, w, conv, start, shape, "fill", 0, p.dtype, p.work)  # type: ignore[arg-type]
        return np.moveaxis(methods.solve(problem, "direct", threads=self._threads), self._at, -1)

    def _blocks(self, x: Array) -> Array:
        """The outputs of the blocks that are now complete."""
        k, p = self._parts, self._template
        assert k is not None
        assert p is not None
        buffer = np.concatenate([self._buffer, x], -1)
        count = max(0, (buffer.shape[-1] - k.length) // k.hop + 1)
        y = np.empty((*p.count[:-1], count * k.hop), p.work)
        done = 0
        for i in range(count):
            window = buffer[..., i * k.hop : i * k.hop + k.length]
            clean = nan.is_finite(window)
            new = window[..., k.length - k.hop :]
            early = self._engine.block < 0
            part = self._engine.run(nan.finite_part(window).astype(k.dtype, copy=False))
            self._seen.append((new if clean else new.copy(), clean or nan.is_finite(new)))
            if early:
                continue
            target = y[..., done : done + k.hop]
            target[...] = part
            if not all(fine for _, fine in self._seen):
                self._mark(target)
            done += k.hop
        self._buffer = buffer[..., count * k.hop :].copy()
        self._outputs += done
        return y[..., :done].astype(p.dtype, copy=False)

    def _mark(self, y: Array) -> None:
        """NaN and Inf of the inputs seen, in the outputs of a block."""
        p = self._template
        assert p is not None
        reads = self._taps - 1 + y.shape[-1]
        x = np.concatenate([a for a, _ in self._seen], -1)[..., -reads:]
        x = np.concatenate([self._zeros(reads - x.shape[-1]), x], -1)
        start = (*(0 for _ in p.conv[1:]), self._taps - 1)
        problem = Problem(x, p.w, p.conv, start, y.shape, "fill", 0, p.dtype, p.work)
        nan.mark(problem, y, methods.solve)

    def _empty(self) -> Array:
        assert self._template is not None
        return np.empty(self._template.count, self._template.dtype)

    def _given(self, y: Array) -> Array:
        return np.ascontiguousarray(np.moveaxis(y, -1, self._at))

    @property
    def nbytes(self) -> int:
        """Bytes held for the kernel and the past, once a chunk has come."""
        if self._template is None:
            return int(self._kernel.nbytes)
        held = self._buffer.nbytes + self._last.nbytes + self._kernel.nbytes
        if self._parts is not None:
            held += self._parts.nbytes + 2 * self._engine.ring.nbytes + sum(a.nbytes for a, _ in self._seen)
        return int(held)

    def __repr__(self) -> str:
        return f"Stream(kernel of shape {self._kernel.shape}, method={self.method!r}, block={self.block})"


def _seconds(length: int, taps: int, dtype: np.dtype[Any]) -> float:
    """Predicted time of an output by transforms of a length."""
    hop = partitions.hop(length, taps)
    count = 1 if length >= taps else -(-taps // hop)
    kind = methods._KINDS[dtype.char]
    work = methods.transform_seconds((length,), 2, kind, dtype.itemsize) + count * length * COSTS["spectrum"][kind]
    return float((work + COSTS["call"]["fft"]) / hop)
