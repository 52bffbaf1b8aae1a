"""Arithmetic of window shapes: output sizes, the inputs they need, receptive fields, and a convolution as a matrix.

Sizes are spatial: no batch, no channels. Parameters are one integer for all axes or one an axis; ``padding``, as in
`sigconv.nn`, may be (before, after) pairs, 'valid', 'same' (odd element after), 'same_upper', 'same_lower' or 'full'.

References
----------
V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sigconv import geometry
from sigconv.errors import InputError
from sigconv.geometry import ReceptiveField, TransposedWindow, Window
from sigconv.nn.arguments import integers, onnx_pads, pad_pairs

__all__ = [
    "conv_matrix",
    "conv_output_shape",
    "conv_transpose_output_shape",
    "halo",
    "input_sizes_for",
    "pool_output_shape",
    "receptive_field",
    "same_padding",
]

Ints = int | Sequence[int]


def _sizes(where: str, sizes: Any) -> tuple[int, ...]:
    return integers(where, "sizes", sizes, len(sizes) if isinstance(sizes, tuple | list) else 1, 0)


def _window(
    where: str, sizes: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool = False
) -> Window:
    sizes = _sizes(where, sizes)
    rank = len(sizes)
    kernel, stride, dilation = (
        integers(where, name, value, rank, 1)
        for name, value in (("kernel_size", kernel), ("stride", stride), ("dilation", dilation))
    )
    pairs = pad_pairs(where, padding, sizes, kernel, stride, dilation)
    return Window.of(
        sizes, kernel, strides=stride, dilations=dilation, pads=onnx_pads(pairs), ceil_mode=ceil_mode
    )  # fmt: skip


def conv_output_shape(
    sizes: Ints, kernel_size: Ints, stride: Ints = 1, padding: Any = 0, dilation: Ints = 1
) -> tuple[int, ...]:
    """``(size + pads - dilation (kernel - 1) - 1) // stride + 1`` on each axis.

    Raises
    ------
    InputError
        Parameters out of range, or an axis that holds no window.

    Examples
    --------
    >>> conv_output_shape((32, 100), 4, padding='same')
    (32, 100)
    >>> conv_output_shape((5, 7), 3, stride=(2, 1), padding=1, dilation=(1, 2))
    (3, 5)
    """
    return _window("conv_output_shape", sizes, kernel_size, stride, padding, dilation).output


def pool_output_shape(
    sizes: Ints,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Any = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
) -> tuple[int, ...]:
    """The same for pooling: the stride is the kernel's size by default, and ``ceil_mode`` rounds up.

    A window that ``ceil_mode`` adds must start inside the input or its left pad.

    Examples
    --------
    >>> pool_output_shape((6, 6), 3, 2), pool_output_shape((6, 6), 3, 2, ceil_mode=True)
    ((2, 2), (3, 3))
    """
    stride = kernel_size if stride is None else stride
    return _window("pool_output_shape", sizes, kernel_size, stride, padding, dilation, ceil_mode).output


def conv_transpose_output_shape(
    sizes: Ints,
    kernel_size: Ints,
    stride: Ints = 1,
    padding: Any = 0,
    output_padding: Ints = 0,
    dilation: Ints = 1,
) -> tuple[int, ...]:
    """``(size - 1) stride - pads + dilation (kernel - 1) + output_padding + 1`` on each axis.

    Examples
    --------
    >>> conv_transpose_output_shape((4,), 3, stride=2, padding=1, output_padding=1)
    (8,)
    """
    where = "conv_transpose_output_shape"
    sizes = _sizes(where, sizes)
    rank = len(sizes)
    if isinstance(padding, str):
        raise InputError(f"{where}: padding={padding!r}; accepted are integers or pairs")
    kernel, strides, dilations = (
        integers(where, name, value, rank, 1)
        for name, value in (("kernel_size", kernel_size), ("stride", stride), ("dilation", dilation))
    )
    pairs = pad_pairs(where, padding, sizes, kernel, strides, dilations)
    extra = integers(where, "output_padding", output_padding, rank, 0)
    return TransposedWindow.of(
        sizes, kernel, strides=strides, dilations=dilations, pads=onnx_pads(pairs), output_padding=extra
    ).output


def input_sizes_for(
    output_sizes: Ints, kernel_size: Ints, stride: Ints = 1, padding: Ints = 0, dilation: Ints = 1
) -> tuple[tuple[int, int], ...]:
    """The smallest and largest input size of each axis from which a convolution makes ``output_sizes``.

    There are ``stride`` of them, since the stride may leave a remainder.

    Examples
    --------
    >>> input_sizes_for((3,), 3, stride=2)
    ((7, 8),)
    """
    where = "input_sizes_for"
    sizes = _sizes(where, output_sizes)
    rank = len(sizes)
    kernel, strides, dilations = (
        integers(where, name, value, rank, 1)
        for name, value in (("kernel_size", kernel_size), ("stride", stride), ("dilation", dilation))
    )
    pads = integers(where, "padding", padding, rank, 0)
    result = []
    for i, (o, k, s, d, p) in enumerate(zip(sizes, kernel, strides, dilations, pads, strict=True)):
        least = (o - 1) * s + (k - 1) * d + 1 - 2 * p
        if o < 1 or least + s - 1 < 0:
            raise InputError(f"{where}: no input gives {o} outputs on axis {i} (kernel {k}, stride {s}, padding {p})")
        result.append((max(least, 0), least + s - 1))
    return tuple(result)


def same_padding(
    sizes: Ints, kernel_size: Ints, stride: Ints = 1, dilation: Ints = 1, *, lower: bool = False
) -> tuple[tuple[int, int], ...]:
    """The pads (before, after) that give ``ceil(size / stride)`` outputs; the odd one after, or before if ``lower``.

    Examples
    --------
    >>> same_padding((32, 100), 4)
    ((1, 2), (1, 2))
    """
    where = "same_padding"
    sizes = _sizes(where, sizes)
    rank = len(sizes)
    columns = [
        integers(where, name, value, rank, 1)
        for name, value in (("kernel_size", kernel_size), ("stride", stride), ("dilation", dilation))
    ]
    return tuple(geometry.same_pads(*axis, lower=lower) for axis in zip(sizes, *columns, strict=True))


def halo(
    sizes: Ints, kernel_size: Ints, stride: Ints = 1, padding: Any = 0, dilation: Ints = 1
) -> tuple[tuple[int, int], ...]:
    """How far the windows reach beyond each axis (before, after): what to fetch from the neighbours of a tile.

    Examples
    --------
    >>> halo((8,), 5, padding='same')
    ((2, 2),)
    """
    return tuple(axis.halo for axis in _window("halo", sizes, kernel_size, stride, padding, dilation).axes)


def receptive_field(layers: Sequence[Window]) -> tuple[ReceptiveField, ...]:
    """The receptive field (size, stride, before) an axis of a stack of layers, given from input to output.

    Layers are `sigconv.geometry.Window`.

    Examples
    --------
    >>> from sigconv.geometry import Window
    >>> receptive_field([Window.of([32], [3]), Window.of([30], [3], strides=[2])])
    (ReceptiveField(size=5, stride=2, before=0),)
    """
    return geometry.receptive_field(layers)


def conv_matrix(
    kernel: npt.ArrayLike, sizes: Ints, stride: Ints = 1, padding: Any = 0, dilation: Ints = 1
) -> np.ndarray:
    """The matrix C for which ``C @ x.ravel()`` is the correlation of ``x`` with ``kernel``, flattened.

    Shape (outputs, inputs) and the kernel's dtype. Its transpose is the transposed convolution, its rows hold the
    kernel at each position of the window.

    Examples
    --------
    >>> conv_matrix([1, 2], 3)
    array([[1, 2, 0],
           [0, 1, 2]])
    """
    taps = np.asarray(kernel)
    window = _window("conv_matrix", sizes, taps.shape, stride, padding, dilation)
    matrix = np.zeros((int(np.prod(window.output)), int(np.prod(window.sizes))), taps.dtype)
    for row, at in enumerate(itertools.product(*(range(n) for n in window.output))):
        for tap in np.ndindex(taps.shape):
            source = [a.start(o) + k * a.dilation for a, o, k in zip(window.axes, at, tap, strict=True)]
            if all(0 <= i < n for i, n in zip(source, window.sizes, strict=True)):
                matrix[row, np.ravel_multi_index(source, window.sizes)] += taps[tap]
    return matrix
