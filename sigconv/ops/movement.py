"""Operators that copy whole blocks of elements to other places, and the index arithmetic that kernels share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sigconv.errors import ModelError
from sigconv.ops._infer import (
    Attrs,
    Facts,
    axis_index,
    axis_indices,
    check_rank,
    common_dtype,
    fact,
    merge_dim,
    present,
)
from sigconv.ops._known import (
    INT_MAX,
    as_ints,
    check_choice,
    check_not_negative,
    concrete,
    count,
    divided,
    ints,
    scalar,
    unknown,
)
from sigconv.ops.spec import Dim, Fact, Shape, register

PAD_MODES = ("constant", "reflect", "edge", "wrap")


def concat_shape(shapes: Sequence[Shape | None], axis: int) -> Shape | None:
    """The shape of tensors joined along ``axis``; ModelError where ranks or the other sizes differ."""
    known = [s for s in shapes if s is not None]
    if not known:
        return None
    if len({len(s) for s in known}) > 1:
        raise ModelError(f"inputs must have one rank, but have shapes {', '.join(map(str, known))}")
    axis = axis_index(axis, len(known[0]))
    result: list[Dim] = list(known[0])
    for shape in known[1:]:
        for i, dim in enumerate(shape):
            if i != axis and result[i] != dim:  # a message for every size of every input would take its square
                where = f"sizes along axis {i} of shapes {tuple(result)} and {shape} joined along axis {axis}"
                result[i] = merge_dim(result[i], dim, where)
    joined = [None if s is None else s[axis] for s in shapes]
    sizes = [d for d in joined if isinstance(d, int)]
    result[axis] = joined[0] if len(joined) == 1 else sum(sizes) if len(sizes) == len(joined) else None
    return tuple(result)


def _infer_concat(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    if not facts:
        raise ModelError("at least one input is needed")
    return [Fact(common_dtype(facts), concat_shape([fact(facts, i).shape for i in range(len(facts))], attrs["axis"]))]


@register("Concat", infer=_infer_concat, since=13, accuracy="exact")
def concat(*inputs: np.ndarray, axis: int) -> np.ndarray:
    """The inputs one behind the other along ``axis``."""
    concat_shape([x.shape for x in inputs], axis)
    return np.concatenate(inputs, axis)


def split_sizes(size: Dim, parts: int, sizes: Sequence[int] | None = None) -> tuple[Dim, ...]:
    """How an axis of ``size`` is cut in ``parts``: ``sizes`` where given, else equal ones with a smaller last."""
    if sizes is not None:
        if len(sizes) != parts or any(s < 0 for s in sizes) or (isinstance(size, int) and sum(sizes) != size):
            raise ModelError(
                f"split is {tuple(sizes)}; it must hold {parts} sizes that are not negative and add up to {size}"
            )
        return tuple(sizes)
    if not isinstance(size, int):
        return (size if parts == 1 else None,) * parts
    each = -(-size // parts)
    last = size - each * (parts - 1)
    if last < 0:
        raise ModelError(f"an axis of size {size} cannot be split in {parts} parts of size {each} with a smaller last")
    return (each,) * (parts - 1) + (last,)


def _parts(num_outputs: int | None, n_outputs: int) -> int:
    if num_outputs is not None and num_outputs != n_outputs:
        raise ModelError(f"num_outputs is {num_outputs}, but the node has {n_outputs} outputs")
    return n_outputs


def _infer_split(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    given, sizes = fact(facts, 0), ints(facts, 1, "split")
    if present(facts, 1) and attrs["num_outputs"] is not None:
        raise ModelError("split and num_outputs exclude each other, and both are given")
    if given.shape is None:
        return [Fact(given.dtype)] * n
    axis = axis_index(attrs["axis"], len(given.shape))
    if present(facts, 1) and sizes is None:
        cuts: tuple[Dim, ...] = (None,) * n
    else:
        cuts = split_sizes(given.shape[axis], _parts(attrs["num_outputs"], n), sizes)
    return [Fact(given.dtype, (*given.shape[:axis], cut, *given.shape[axis + 1 :])) for cut in cuts]


@register("Split", infer=_infer_split, since=18, accuracy="exact")
def split(
    input: np.ndarray,
    split: np.ndarray | None = None,
    *,
    axis: int = 0,
    num_outputs: int | None = None,
    n_outputs: int = 1,
) -> tuple[np.ndarray, ...]:
    """Consecutive pieces along ``axis``; see `split_sizes`."""
    axis = axis_index(axis, input.ndim)
    sizes = None if split is None else as_ints(split)
    cuts = concrete(split_sizes(input.shape[axis], _parts(num_outputs, n_outputs), sizes))
    return tuple(np.split(input, np.cumsum(cuts[:-1], dtype=np.intp), axis))


def slice_range(size: int, start: int, end: int, step: int) -> tuple[int, int, int]:
    """(first index, step, count) of an ONNX slice of an axis of ``size``: bounds count from the end where negative,
    then clamp to [0, size] going forward, to [0, size - 1] and [-1, size - 1] going backward."""
    if step == 0:
        raise ModelError("step 0 never ends; steps must be positive or negative")
    start += size if start < 0 else 0
    end += size if end < 0 else 0
    if step > 0:
        start, end = min(max(start, 0), size), min(max(end, 0), size)
    else:
        start, end = min(max(start, 0), size - 1), min(max(end, -1), size - 1)
    return start, step, max(0, -((start - end) // step))


def slice_ranges(
    shape: Sequence[int],
    starts: Sequence[int],
    ends: Sequence[int],
    axes: Sequence[int] | None = None,
    steps: Sequence[int] | None = None,
) -> list[tuple[int, int, int]]:
    """(first index, step, count) of every axis of ``shape``; axes that are not sliced are whole."""
    ranges = [(0, 1, size) for size in shape]
    for axis, start, end, step in _slices(len(shape), starts, ends, axes, steps):
        ranges[axis] = slice_range(shape[axis], start, end, step)
    return ranges


def _slices(
    rank: int, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int] | None, steps: Sequence[int] | None
) -> list[tuple[int, int, int, int]]:
    axes = range(len(starts)) if axes is None else axes
    steps = (1,) * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise ModelError(f"starts {starts}, ends {ends}, axes {tuple(axes)} and steps {steps} must have one length")
    return list(zip(axis_indices(axes, rank), starts, ends, steps, strict=True))


def _sliced_dim(dim: Dim, start: int, end: int, step: int) -> Dim:
    if isinstance(dim, int):
        return slice_range(dim, start, end, step)[2]
    whole = (start == 0 and end >= INT_MAX and step == 1) or (
        (start == -1 or start >= INT_MAX) and end <= -INT_MAX and step == -1
    )
    return dim if whole else None


def _infer_slice(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    data = fact(facts, 0)
    starts, ends, axes, steps = (ints(facts, i, what) for i, what in enumerate(("starts", "ends", "axes", "steps"), 1))
    if data.shape is None:
        return [Fact(data.dtype)]
    if present(facts, 3) and axes is None:
        return [Fact(data.dtype, unknown(len(data.shape)))]
    result: list[Dim] = list(data.shape)
    if starts is None or ends is None or (present(facts, 4) and steps is None):
        sliced = range(count(facts, 1) or len(result)) if axes is None else axis_indices(axes, len(result))
        for axis in sliced:
            result[axis] = None
    else:
        for axis, start, end, step in _slices(len(result), starts, ends, axes, steps):
            result[axis] = _sliced_dim(result[axis], start, end, step)
    return [Fact(data.dtype, tuple(result))]


@register("Slice", infer=_infer_slice, since=13, accuracy="exact")
def slice_(
    data: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    axes: np.ndarray | None = None,
    steps: np.ndarray | None = None,
) -> np.ndarray:
    """Every ``step``-th element of the named axes; see `slice_range`."""
    optional = [None if v is None else as_ints(v) for v in (axes, steps)]
    index = []
    for start, step, number in slice_ranges(data.shape, as_ints(starts), as_ints(ends), *optional):
        stop = start + step * number
        index.append(slice(start, None if stop < 0 else stop, step) if number else slice(0))
    return data[tuple(index)]


def pad_size(size: Dim, before: int, after: int, mode: str) -> Dim:
    """The size of a padded axis; ModelError where more is cropped than there is, or nothing is left to continue."""
    if not isinstance(size, int):
        return size if before == after == 0 else None
    total, kept = before + size + after, size - max(0, -before) - max(0, -after)
    if total < 0 or (mode != "constant" and total > 0 and kept <= 0):
        raise ModelError(f"an axis of size {size} cannot be padded by ({before}, {after}) in mode {mode!r}")
    return total


def pad_indices(size: int, before: int, after: int, mode: str = "constant") -> np.ndarray:
    """Where each element of a padded axis comes from: int64 of shape (before + size + after,), -1 for the fill value.

    Negative amounts crop, and the other modes continue what is left: ``reflect`` mirrors without repeating the border
    (again and again where the amount exceeds the axis), ``edge`` repeats it, ``wrap`` starts over.
    """
    check_choice(mode, PAD_MODES, "mode")
    (total,) = concrete((pad_size(size, before, after, mode),))
    first = max(0, -before)
    kept = size - first - max(0, -after)
    i = np.arange(total, dtype=np.int64) - max(before, 0)
    if mode == "constant":
        return np.where((i >= 0) & (i < kept), i + first, -1)
    if mode == "edge":
        i = np.clip(i, 0, max(kept - 1, 0))
    elif mode == "wrap":
        i %= max(kept, 1)
    else:
        period = 2 * max(kept - 1, 0)
        i %= max(period, 1)
        i = np.minimum(i, period - i)
    return i + first


def pad_amounts(rank: int, pads: Sequence[int], axes: Sequence[int] | None) -> list[tuple[int, int]]:
    """(before, after) of every axis from ONNX's flat list of all befores and then all afters."""
    named = axis_indices(range(rank) if axes is None else axes, rank)
    if len(pads) != 2 * len(named):
        raise ModelError(
            f"pads {tuple(pads)} must hold a before and an after for each of {len(named)} axes (rank {rank})"
        )
    result = [(0, 0)] * rank
    for axis, before, after in zip(named, pads, pads[len(named) :], strict=False):
        result[axis] = before, after
    return result


def _infer_pad(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    check_choice(attrs["mode"], PAD_MODES, "mode")
    data, pads, axes = fact(facts, 0), ints(facts, 1, "pads"), ints(facts, 3, "axes")
    dtype = common_dtype(facts, (0, 2))
    if data.shape is None:
        return [Fact(dtype)]
    rank = len(data.shape)
    if present(facts, 3) and axes is None:
        return [Fact(dtype, unknown(rank))]
    if pads is None:
        padded = axis_indices(range(rank) if axes is None else axes, rank)
        return [Fact(dtype, tuple(None if i in padded else d for i, d in enumerate(data.shape)))]
    amounts = zip(data.shape, pad_amounts(rank, pads, axes), strict=True)
    return [Fact(dtype, tuple(pad_size(dim, *amount, attrs["mode"]) for dim, amount in amounts))]


@register("Pad", infer=_infer_pad, since=25, accuracy="exact")
def pad(
    data: np.ndarray,
    pads: np.ndarray,
    constant_value: np.ndarray | None = None,
    axes: np.ndarray | None = None,
    *,
    mode: str = "constant",
) -> np.ndarray:
    """Lengthen or crop each end of each axis; see `pad_indices`."""
    amounts = pad_amounts(data.ndim, as_ints(pads), None if axes is None else as_ints(axes))
    source = [pad_indices(n, *amount, mode) for n, amount in zip(data.shape, amounts, strict=True)]
    if mode != "constant":
        return np.asarray(data[np.ix_(*source)])
    fill = 0 if constant_value is None else np.reshape(constant_value, ())
    result = np.full([len(s) for s in source], fill, data.dtype)
    result[np.ix_(*(np.flatnonzero(s >= 0) for s in source))] = data[np.ix_(*(s[s >= 0] for s in source))]
    return result


def transpose_perm(rank: int, perm: Sequence[int] | None) -> tuple[int, ...]:
    """The permutation (default: reversed); ModelError unless it names every axis once."""
    order = tuple(reversed(range(rank))) if perm is None else tuple(perm)
    if sorted(order) != list(range(rank)):
        raise ModelError(f"perm {order} must name each of the {rank} axes once")
    return order


def _infer_transpose(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    given, perm = fact(facts, 0), attrs["perm"]
    if given.shape is None:
        return [Fact(given.dtype, unknown(None if perm is None else len(perm)))]
    return [Fact(given.dtype, tuple(given.shape[p] for p in transpose_perm(len(given.shape), perm)))]


@register("Transpose", infer=_infer_transpose, since=25, accuracy="exact")
def transpose(data: np.ndarray, *, perm: Sequence[int] | None = None) -> np.ndarray:
    """The axes in the order ``perm``."""
    return data.transpose(transpose_perm(data.ndim, perm))


def _times(dim: Dim, factor: int) -> Dim:
    return dim * factor if isinstance(dim, int) else 0 if factor == 0 else dim if factor == 1 else None


def tile_shape(shape: Shape, repeats: Sequence[int]) -> Shape:
    """``shape`` times ``repeats``; ModelError unless there is one repeat an axis."""
    check_not_negative(repeats, "repeats")
    if len(repeats) != len(shape):
        raise ModelError(f"repeats {tuple(repeats)} must hold one number for each axis of shape {shape}")
    return tuple(_times(d, r) for d, r in zip(shape, repeats, strict=True))


def _infer_tile(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    given, repeats = fact(facts, 0), ints(facts, 1, "repeats")
    if given.shape is None or repeats is None:
        return [Fact(given.dtype, unknown(count(facts, 1) if given.shape is None else len(given.shape)))]
    return [Fact(given.dtype, tile_shape(given.shape, repeats))]


@register("Tile", infer=_infer_tile, since=13, accuracy="exact")
def tile(input: np.ndarray, repeats: np.ndarray) -> np.ndarray:
    """The input repeated along each axis."""
    times = as_ints(repeats)
    tile_shape(input.shape, times)
    return np.tile(input, times)


DEPTH_ORDER = {"DCR": (0, 3, 4, 1, 5, 2), "CRD": (0, 1, 4, 2, 5, 3)}
"""How the axes of (N, ., ., ., H, W) move: DCR reads (N, b, b, C, H, W), CRD reads (N, C, b, b, H, W)."""


def _check_depth(given: Fact, attrs: Attrs) -> int:
    check_choice(attrs["mode"], tuple(DEPTH_ORDER), "mode")
    check_rank(given, (4,))
    if attrs["blocksize"] < 1:
        raise ModelError(f"blocksize is {attrs['blocksize']}; accepted is 1 or more")
    return int(attrs["blocksize"])


def _infer_depth_to_space(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    given = fact(facts, 0)
    b = _check_depth(given, attrs)
    if given.shape is None:
        return [Fact(given.dtype, unknown(4))]
    batch, channels, height, width = given.shape
    depth = divided(channels, b * b, f"the number of channels of shape {given.shape}")
    return [Fact(given.dtype, (batch, depth, _times(height, b), _times(width, b)))]


@register("DepthToSpace", infer=_infer_depth_to_space, since=28, accuracy="exact")
def depth_to_space(input: np.ndarray, *, blocksize: int, mode: str = "DCR") -> np.ndarray:
    """(N, b*b*C, H, W) to (N, C, H*b, W*b): channels become b x b blocks of pixels."""
    shape = concrete(_infer_depth_to_space([Fact.of(input)], {"blocksize": blocksize, "mode": mode}, 1)[0].shape)
    n, c, h, w = input.shape
    b, depth = blocksize, c // blocksize**2
    blocks = (n, b, b, depth, h, w) if mode == "DCR" else (n, depth, b, b, h, w)
    return input.reshape(blocks).transpose(DEPTH_ORDER[mode]).reshape(shape)


def _infer_space_to_depth(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    given = fact(facts, 0)
    b = _check_depth(given, attrs)
    if given.shape is None:
        return [Fact(given.dtype, unknown(4))]
    batch, channels, height, width = given.shape
    high, wide = (
        divided(d, b, f"the {what} of shape {given.shape}") for d, what in ((height, "height"), (width, "width"))
    )
    return [Fact(given.dtype, (batch, _times(channels, b * b), high, wide))]


@register("SpaceToDepth", infer=_infer_space_to_depth, since=28, accuracy="exact")
def space_to_depth(input: np.ndarray, *, blocksize: int, mode: str = "DCR") -> np.ndarray:
    """(N, C, H*b, W*b) to (N, b*b*C, H, W): the inverse of DepthToSpace in the same mode."""
    shape = concrete(_infer_space_to_depth([Fact.of(input)], {"blocksize": blocksize, "mode": mode}, 1)[0].shape)
    n, c, h, w = input.shape
    blocks = (n, c, h // blocksize, blocksize, w // blocksize, blocksize)
    return input.reshape(blocks).transpose(np.argsort(DEPTH_ORDER[mode])).reshape(shape)


def _infer_center_crop_pad(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    given, target = fact(facts, 0), ints(facts, 1, "shape")
    if given.shape is None:
        return [Fact(given.dtype)]
    axes = axis_indices(range(len(given.shape)) if attrs["axes"] is None else attrs["axes"], len(given.shape))
    if target is not None and len(target) != len(axes):
        raise ModelError(f"shape {target} must hold one size for each of the axes {axes}")
    sizes = (None,) * len(axes) if target is None else check_not_negative(target, "shape")
    new = dict(zip(axes, sizes, strict=True))
    return [Fact(given.dtype, tuple(new.get(i, d) for i, d in enumerate(given.shape)))]


@register("CenterCropPad", infer=_infer_center_crop_pad, since=18, accuracy="exact")
def center_crop_pad(input_data: np.ndarray, shape: np.ndarray, *, axes: Sequence[int] | None = None) -> np.ndarray:
    """Crop or zero-pad the axes to ``shape``, centred; the odd element goes to, or is taken from, the end."""
    target = concrete(_infer_center_crop_pad([Fact.of(input_data), Fact.of(shape)], {"axes": axes}, 1)[0].shape)
    amounts = []
    for have, want in zip(input_data.shape, target, strict=True):
        before = (want - have) // 2 if want > have else -((have - want) // 2)
        amounts.append((before, want - have - before))
    befores, afters = zip(*amounts, strict=True) if amounts else ((), ())
    return pad(input_data, np.array(befores + afters, np.int64))


def _infer_reverse_sequence(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    given = fact(facts, 0)
    check_rank(given, least=2)
    axes = (attrs["batch_axis"], attrs["time_axis"])
    if sorted(axes) != [0, 1]:
        raise ModelError(f"batch_axis and time_axis are {axes}; accepted are (0, 1) and (1, 0)")
    lengths = fact(facts, 1)
    check_rank(lengths, (1,), what="sequence_lens")
    if given.shape is not None and lengths.shape is not None:
        merge_dim(given.shape[axes[0]], lengths.shape[0], "the batch and the number of sequence_lens")
    return [Fact(given.dtype, given.shape)]


@register("ReverseSequence", infer=_infer_reverse_sequence, since=28, accuracy="exact")
def reverse_sequence(
    input: np.ndarray, sequence_lens: np.ndarray, *, batch_axis: int = 1, time_axis: int = 0
) -> np.ndarray:
    """For each batch entry, reverse the first ``sequence_lens`` steps."""
    _infer_reverse_sequence(
        [Fact.of(input), Fact.of(sequence_lens)], {"batch_axis": batch_axis, "time_axis": time_axis}, 1
    )
    steps = np.arange(input.shape[time_axis])[:, None]
    lengths = sequence_lens[None, :]
    if (sequence_lens < 0).any() or (sequence_lens > len(steps)).any():
        raise ModelError(f"sequence_lens {sequence_lens.tolist()} must lie in [0, {len(steps)}]")
    source = np.where(steps < lengths, lengths - 1 - steps, steps)
    if batch_axis == 0:
        source = source.T
    return np.take_along_axis(input, source.reshape(source.shape + (1,) * (input.ndim - 2)), time_axis)


def _infer_trilu(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    check_rank(fact(facts, 0), least=2)
    scalar(facts, 1, "k")
    return [Fact(fact(facts, 0).dtype, fact(facts, 0).shape)]


@register("Trilu", infer=_infer_trilu, since=14, accuracy="exact")
def trilu(input: np.ndarray, k: np.ndarray | None = None, *, upper: int = 1) -> np.ndarray:
    """The upper (or lower) triangle of the last two axes from diagonal ``k``, zero elsewhere."""
    diagonal = np.arange(input.shape[-1]) - np.arange(input.shape[-2])[:, None]
    offset = 0 if k is None else int(np.reshape(k, ()))
    return np.where(diagonal >= offset if upper else diagonal <= offset, input, np.zeros((), input.dtype))
