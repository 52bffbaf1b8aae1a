"""All window arithmetic: pads, auto_pad, dilation, ceil_mode, output sizes, divisors, phases, halos and borders.

A *window* slides over one spatial axis: output ``o`` reads the inputs ``o * stride - before + k * dilation`` for taps
``k`` in ``range(kernel)``; those outside ``[0, size)`` are padding. Conventions are ONNX's: ``pads`` lists all begins,
then all ends; SAME_UPPER puts the odd pad at the end, SAME_LOWER at the start. Any rank; nothing here knows channels.

Where ONNX leaves a case open or its implementations differ, the rule is:

- a non-empty axis must hold at least one window, otherwise InputError; an empty axis may give no output;
- ``auto_pad`` counts dilation and never crops (the total pad is at least 0);
- in ceil_mode a window that starts beyond the input and its left pad does not exist.

References
----------
ONNX operator specifications Conv, ConvTranspose, MaxPool, AveragePool (opset 22).
V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sigconv.errors import InputError

Dim = int | str | None
Index = npt.NDArray[np.int64]
Box = tuple[tuple[int, int], ...]
"""A half-open (start, stop) per axis."""

AUTO_PADS = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


@dataclass(frozen=True, slots=True)
class WindowAxis:
    """One spatial axis of a convolution or pooling. ``before`` and ``after`` are the explicit (or auto) pads."""

    size: int
    kernel: int
    stride: int
    dilation: int
    before: int
    after: int
    output: int

    @property
    def extent(self) -> int:
        """Inputs spanned by one window: ``(kernel - 1) * dilation + 1``."""
        return (self.kernel - 1) * self.dilation + 1

    def start(self, o: int) -> int:
        """The input index that tap 0 of output ``o`` reads; negative inside the left pad."""
        return o * self.stride - self.before

    def _starts(self) -> Index:
        return np.arange(self.output, dtype=np.int64) * self.stride - self.before

    def _taps_below(self, bound: int) -> Index:
        """How many taps of each window read an index below ``bound``."""
        return np.clip(-((self._starts() - bound) // self.dilation), 0, self.kernel)

    def tap_ranges(self) -> tuple[Index, Index]:
        """``lo, hi`` of shape [output]: taps ``lo <= k < hi`` read inside the input (``lo == hi``: none does)."""
        return self._taps_below(0), self._taps_below(self.size)

    def divisors(self, count_include_pad: bool) -> Index:
        """Shape [output]: the taps that average pooling counts.

        With ``count_include_pad`` these are the taps inside ``[-before, size + after)``: the explicit pads count, what
        ceil_mode reads beyond them does not. Otherwise only taps inside the input count, which may be none.
        """
        if count_include_pad:
            return self._taps_below(self.size + self.after)
        lo, hi = self.tap_ranges()
        return hi - lo

    def interior(self) -> tuple[int, int]:
        """Half-open range of the outputs whose window lies inside the input; ``(output, output)`` if there is none."""
        first = max(0, _ceil_div(self.before, self.stride))
        stop = min(self.output, (self.size + self.before - self.extent) // self.stride + 1)
        return (first, stop) if first < stop else (self.output, self.output)

    @property
    def halo(self) -> tuple[int, int]:
        """Margins (left, right) that let every window be read without checks.

        The right one is what the last window reaches: less than ``after`` where the stride leaves a remainder, more
        where ceil_mode hangs over.
        """
        if not self.output:
            return 0, 0
        return max(0, self.before), max(0, self.start(self.output - 1) + self.extent - self.size)


@dataclass(frozen=True, slots=True)
class Window:
    """The windows of a convolution or pooling over all spatial axes."""

    axes: tuple[WindowAxis, ...]

    @classmethod
    def of(
        cls,
        sizes: Sequence[int],
        kernel: Sequence[int],
        *,
        strides: Sequence[int] | None = None,
        pads: Sequence[int] | None = None,
        dilations: Sequence[int] | None = None,
        auto_pad: str = "NOTSET",
        ceil_mode: bool | int = False,
    ) -> Window:
        """The windows for input ``sizes``; arguments are ONNX attributes.

        Raises InputError for attributes of the wrong length or range, for pads next to an ``auto_pad``, and for an axis
        that does not hold one window.
        """
        sizes = _integers("sizes", sizes, len(sizes), 0)
        columns = _attributes(len(sizes), kernel, strides, dilations, pads, auto_pad)
        rows = enumerate(zip(sizes, *columns, strict=True))
        return cls(tuple(_window_axis(i, *row, auto_pad=auto_pad, ceil_mode=bool(ceil_mode)) for i, row in rows))

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(a.size for a in self.axes)

    @property
    def kernel(self) -> tuple[int, ...]:
        return tuple(a.kernel for a in self.axes)

    @property
    def strides(self) -> tuple[int, ...]:
        return tuple(a.stride for a in self.axes)

    @property
    def dilations(self) -> tuple[int, ...]:
        return tuple(a.dilation for a in self.axes)

    @property
    def pads(self) -> tuple[int, ...]:
        """All begins, then all ends."""
        return (*(a.before for a in self.axes), *(a.after for a in self.axes))

    @property
    def output(self) -> tuple[int, ...]:
        return tuple(a.output for a in self.axes)

    def divisors(self, count_include_pad: bool) -> Index:
        """Shape ``output``: the divisor of average pooling at each position."""
        counts = [a.divisors(count_include_pad) for a in self.axes]
        return math.prod(np.ix_(*counts), start=np.ones(self.output, np.int64))


class Regions(NamedTuple):
    """Boxes that cover an output exactly once; the interior may be empty, the borders are not."""

    interior: Box
    borders: tuple[Box, ...]


def regions(window: Window) -> Regions:
    """Split the output into the box whose windows lie inside the input and at most ``2 * rank`` border boxes.

    Border boxes of axis ``i`` span the interior of the axes before it and the whole of the axes after it.
    """
    interior = tuple(a.interior() for a in window.axes)
    whole = tuple((0, a.output) for a in window.axes)
    borders = (
        (*interior[:i], side, *whole[i + 1 :])
        for i, (first, stop) in enumerate(interior)
        for side in ((0, first), (stop, window.axes[i].output))
    )
    return Regions(interior, tuple(box for box in borders if all(start < stop for start, stop in box)))


@dataclass(frozen=True, slots=True)
class Phase:
    """Outputs ``first, first + step, …`` of a transposed convolution: a stride-1 correlation of ``count`` outputs.

    Output ``first + j * step`` is the sum over ``t`` of ``w[taps[t]] * x[origin + j + t * dilation]``, inputs
    beyond the ends being 0. Without taps (a kernel smaller than the stride) the sum is 0.
    """

    first: int
    step: int
    count: int
    taps: tuple[int, ...]
    origin: int
    dilation: int

    def window(self, size: int) -> WindowAxis:
        """The phase as a window over an input of ``size``; its kernel is ``len(taps)``."""
        reach = self.origin + self.count + (len(self.taps) - 1) * self.dilation
        return WindowAxis(size, len(self.taps), 1, self.dilation, -self.origin, reach - size, self.count)


@dataclass(frozen=True, slots=True)
class TransposedAxis:
    """One axis of a transposed convolution: input ``i`` adds to the outputs ``i * stride - before + k * dilation``."""

    size: int
    kernel: int
    stride: int
    dilation: int
    before: int
    after: int
    output: int

    @property
    def adjoint(self) -> WindowAxis:
        """The convolution whose transpose this is: it reads what this axis writes, and the reverse."""
        return WindowAxis(self.output, self.kernel, self.stride, self.dilation, self.before, self.after, self.size)

    def phases(self) -> tuple[Phase, ...]:
        """The sub-pixel decomposition: one `Phase` for each residue of an output index modulo ``stride``.

        Output ``o`` takes tap ``k`` where ``stride`` divides ``o + before - k * dilation``: the taps of a phase are
        ``stride / gcd(stride, dilation)`` apart, the inputs that they read ``dilation / gcd(stride, dilation)``.
        """
        divisor = math.gcd(self.stride, self.dilation)
        period = self.stride // divisor
        return tuple(self._phase(r, period, self.dilation // divisor) for r in range(min(self.stride, self.output)))

    def _phase(self, first: int, period: int, dilation: int) -> Phase:
        count = max(0, _ceil_div(self.output - first, self.stride))
        offset = first + self.before
        lowest = next(
            (k for k in range(min(period, self.kernel)) if (offset - k * self.dilation) % self.stride == 0), None
        )
        if lowest is None:
            return Phase(first, self.stride, count, (), 0, 1)
        taps = tuple(reversed(range(lowest, self.kernel, period)))
        return Phase(first, self.stride, count, taps, (offset - taps[0] * self.dilation) // self.stride, dilation)


@dataclass(frozen=True, slots=True)
class TransposedWindow:
    """A transposed convolution over all spatial axes."""

    axes: tuple[TransposedAxis, ...]

    @classmethod
    def of(
        cls,
        sizes: Sequence[int],
        kernel: Sequence[int],
        *,
        strides: Sequence[int] | None = None,
        pads: Sequence[int] | None = None,
        dilations: Sequence[int] | None = None,
        auto_pad: str = "NOTSET",
        output_padding: Sequence[int] | None = None,
        output_shape: Sequence[int] | None = None,
    ) -> TransposedWindow:
        """The transposed windows for input ``sizes``; arguments are ONNX attributes (``output_shape`` is spatial only).

        ``output_shape`` overrides ``pads``: the surplus is cut, the odd one at the end for SAME_UPPER and at the start
        otherwise; up to ``stride - 1`` missing outputs are appended. Without it, SAME cuts down to ``size * stride``.
        """
        sizes = _integers("sizes", sizes, len(sizes), 0)
        rank = len(sizes)
        wanted = _integers("output_shape", output_shape, rank, 1) if _given(output_shape) else (None,) * rank
        columns = _attributes(rank, kernel, strides, dilations, pads, auto_pad)
        extra = _integers("output_padding", output_padding, rank, 0, default=0)
        rows = enumerate(zip(sizes, *columns, extra, wanted, strict=True))
        return cls(tuple(_transposed_axis(i, *row, auto_pad=auto_pad) for i, row in rows))

    @property
    def output(self) -> tuple[int, ...]:
        return tuple(a.output for a in self.axes)

    @property
    def pads(self) -> tuple[int, ...]:
        """What is cut from the full output: all begins, then all ends."""
        return (*(a.before for a in self.axes), *(a.after for a in self.axes))

    def phases(self) -> Iterator[tuple[Phase, ...]]:
        """One phase an axis, in every combination: together they write each output exactly once."""
        return itertools.product(*(a.phases() for a in self.axes))


def output_sizes(sizes: Sequence[Dim], kernel: Sequence[int], **attributes: Any) -> tuple[Dim, ...]:
    """``Window.of(…).output`` where sizes may be unknown: a symbol stays where its axis keeps its size, else None."""
    return _kept(sizes, Window.of(_probe(sizes), kernel, **attributes).axes)


def transposed_output_sizes(sizes: Sequence[Dim], kernel: Sequence[int], **attributes: Any) -> tuple[Dim, ...]:
    """``TransposedWindow.of(…).output`` where sizes may be unknown; ``output_shape`` is known regardless."""
    window = TransposedWindow.of(_probe(sizes), kernel, **attributes)
    return window.output if _given(attributes.get("output_shape")) else _kept(sizes, window.axes)


def same_pads(size: int, kernel: int, stride: int = 1, dilation: int = 1, *, lower: bool = False) -> tuple[int, int]:
    """The pads (before, after) that give ``ceil(size / stride)`` outputs; the odd one goes to the end, or start."""
    total = max(0, (_ceil_div(size, stride) - 1) * stride + (kernel - 1) * dilation + 1 - size)
    return _halve(total, lower)


def adaptive_ranges(size: int, output: int) -> tuple[Index, Index]:
    """``start, stop`` of shape [output] of adaptive pooling: output ``o`` covers ``floor(o*size/output)`` up to
    ``ceil((o+1)*size/output)``."""
    (size,), (output,) = _integers("size", [size], 1, 0), _integers("output", [output], 1, 0)
    o = np.arange(output, dtype=np.int64)
    return o * size // max(output, 1), -(-(o + 1) * size // max(output, 1))


@dataclass(frozen=True, slots=True)
class ReceptiveField:
    """Output ``o`` of a stack of layers depends on inputs ``o * stride - before`` up to ``size`` further."""

    size: int
    stride: int
    before: int


def receptive_field(layers: Iterable[Window]) -> tuple[ReceptiveField, ...]:
    """The receptive field an axis of ``layers``, given from input to output."""
    field: tuple[ReceptiveField, ...] | None = None
    for layer in layers:
        field = field or (ReceptiveField(1, 1, 0),) * len(layer.axes)
        if len(field) != len(layer.axes):
            raise InputError(f"layers: a window of {len(layer.axes)} spatial axes follows one of {len(field)}")
        field = tuple(
            ReceptiveField(f.size + (a.extent - 1) * f.stride, f.stride * a.stride, f.before + a.before * f.stride)
            for f, a in zip(field, layer.axes, strict=True)
        )
    return field or ()


def _window_axis(
    i: int,
    size: int,
    kernel: int,
    stride: int,
    dilation: int,
    before: int,
    after: int,
    *,
    auto_pad: str,
    ceil_mode: bool,
) -> WindowAxis:
    if auto_pad.startswith("SAME"):
        before, after = same_pads(size, kernel, stride, dilation, lower=auto_pad == "SAME_LOWER")
    extent = (kernel - 1) * dilation + 1
    room = size + before + after - extent
    output = room // stride + 1
    if ceil_mode:
        output = min(_ceil_div(room, stride) + 1, _ceil_div(size + before, stride))
    if output < 1 and size:
        raise InputError(
            f"spatial axis {i}: a kernel of {kernel} with dilation {dilation} spans {extent}, "
            f"more than the input size {size} with pads ({before}, {after})"
        )
    return WindowAxis(size, kernel, stride, dilation, before, after, max(0, output))


def _transposed_axis(
    i: int,
    size: int,
    kernel: int,
    stride: int,
    dilation: int,
    before: int,
    after: int,
    extra: int,
    wanted: int | None,
    *,
    auto_pad: str,
) -> TransposedAxis:
    if extra >= max(stride, dilation):
        raise InputError(
            f"output_padding: {extra} at spatial axis {i} is not less than stride {stride} or dilation {dilation}"
        )
    full = (size - 1) * stride + (kernel - 1) * dilation + 1 + extra
    target = size * stride if wanted is None and auto_pad.startswith("SAME") else wanted
    if target is not None:
        before, after = _halve(max(0, full - target), lower=auto_pad != "SAME_UPPER")
    output = full - before - after if wanted is None else wanted
    if output < 1 and size:
        raise InputError(f"spatial axis {i}: pads ({before}, {after}) leave nothing of the full output size {full}")
    most = full - extra + max(extra, stride - 1)
    if output > most:
        raise InputError(
            f"output_shape: {output} at spatial axis {i} is more than {most}, the most that input size {size}, "
            f"kernel {kernel}, stride {stride}, dilation {dilation} and output_padding {extra} reach"
        )
    return TransposedAxis(size, kernel, stride, dilation, before, after, max(0, output))


_PROBE = 1 << 40  # stands for an unknown size; wider than any kernel, and Python integers do not overflow


def _probe(sizes: Sequence[Dim]) -> list[int]:
    return [_PROBE if size is None or isinstance(size, str) else size for size in sizes]


def _kept(sizes: Sequence[Dim], axes: Sequence[WindowAxis | TransposedAxis]) -> tuple[Dim, ...]:
    """Outputs, where an unknown size stays if its axis preserves every size: with stride 1, if it preserves one."""

    def resolve(size: Dim, axis: WindowAxis | TransposedAxis) -> Dim:
        if size is not None and not isinstance(size, str):
            return axis.output
        return size if axis.stride == 1 and axis.output == axis.size else None

    return tuple(map(resolve, sizes, axes))


def _attributes(
    rank: int,
    kernel: Sequence[int],
    strides: Sequence[int] | None,
    dilations: Sequence[int] | None,
    pads: Sequence[int] | None,
    auto_pad: str,
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Checked columns kernel, stride, dilation, before, after: one entry an axis."""
    if auto_pad not in AUTO_PADS:
        raise InputError(f"auto_pad: {auto_pad!r} is none of {', '.join(AUTO_PADS)}")
    edges = _integers("pads", pads, 2 * rank, 0, default=0)
    if auto_pad != "NOTSET" and any(edges):
        raise InputError(f"pads: {list(edges)} contradict auto_pad {auto_pad}; give one of the two")
    return (
        _integers("kernel", kernel, rank, 1),
        _integers("strides", strides, rank, 1, default=1),
        _integers("dilations", dilations, rank, 1, default=1),
        edges[:rank],
        edges[rank:],
    )


def _given(values: Sequence[int] | None) -> bool:
    return values is not None and len(values) > 0


def _integers(
    name: str, values: Sequence[int] | None, count: int, least: int, default: int | None = None
) -> tuple[int, ...]:
    """``values`` as Python integers: exactly ``count``, none below ``least``. None or empty means ``default``."""
    if default is not None and not _given(values):
        return (default,) * count
    try:
        result = tuple(operator.index(v) for v in (() if values is None else values))
    except TypeError:
        raise InputError(f"{name}: {values} must be a sequence of integers") from None
    if len(result) != count:
        raise InputError(f"{name}: {list(result)} has {len(result)} entries, expected {count}")
    if any(v < least for v in result):
        raise InputError(f"{name}: {list(result)} has an entry below {least}")
    return result


def _halve(total: int, lower: bool) -> tuple[int, int]:
    """Split a pad in two, the odd one at the beginning if ``lower``."""
    small, large = total // 2, total - total // 2
    return (large, small) if lower else (small, large)
