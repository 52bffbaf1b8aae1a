"""sigconv.geometry against windows enumerated one by one (tests/test_geometry_onnx.py: against ONNX's own)."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sigconv.errors import InputError
from sigconv.geometry import (
    AUTO_PADS,
    Phase,
    TransposedAxis,
    TransposedWindow,
    Window,
    WindowAxis,
    adaptive_ranges,
    output_sizes,
    receptive_field,
    regions,
    same_pads,
    transposed_output_sizes,
)
from tests.cases import windows as naive
from tests.cases.onnx_nodes import run_ort

SIZES, KERNELS, STRIDES, DILATIONS = range(10), range(1, 5), range(1, 5), range(1, 4)


def window_axis(
    size: int, kernel: int, stride: int, dilation: int, before: int, after: int, ceil: bool = False
) -> WindowAxis:
    window = Window.of(
        (size,), (kernel,), strides=(stride,), dilations=(dilation,), pads=(before, after), ceil_mode=ceil
    )
    return window.axes[0]


# One axis, every window enumerated


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("kernel", KERNELS)
def test_axis_enumerated(kernel: int, ceil: bool) -> None:
    for case in itertools.product(SIZES, [kernel], STRIDES, DILATIONS, range(3), range(4)):
        size, _, _, dilation, before, after = case
        starts = naive.outputs(*case, ceil)
        if size and not starts:
            with pytest.raises(InputError, match="spatial axis 0"):
                window_axis(*case, ceil)
            continue
        axis = window_axis(*case, ceil)
        assert axis.output == len(starts), case
        assert [axis.start(o) for o in range(axis.output)] == starts
        lo, hi = axis.tap_ranges()
        included, excluded = axis.divisors(True), axis.divisors(False)
        assert all(t.dtype == np.int64 for t in (lo, hi, included, excluded))
        whole = []
        for o, start in enumerate(starts):
            reads = naive.taps(start, kernel, dilation)
            inside = [i for i in reads if 0 <= i < size]
            assert [reads[k] for k in range(lo[o], hi[o])] == inside, case
            assert excluded[o] == len(inside), case
            assert included[o] == sum(-before <= i < size + after for i in reads), case
            if inside == reads:
                whole.append(o)
        assert list(range(*axis.interior())) == whole, case
        assert whole or axis.interior() == (axis.output, axis.output), case
        reads = [i for start in starts for i in naive.taps(start, kernel, dilation)] or [0]
        assert axis.halo == (max(0, -min(reads)), max(0, max(reads) + 1 - size) if starts else 0), case


@pytest.mark.parametrize("lower", [False, True])
def test_same_pads_are_the_fewest(lower: bool) -> None:
    """The least total pad with which ``ceil(size / stride)`` windows fit, found by trying."""
    for size, kernel, stride, dilation in itertools.product(range(1, 14), KERNELS, STRIDES, DILATIONS):
        wanted = len(range(0, size, stride))
        total = next(t for t in itertools.count() if len(naive.outputs(size, kernel, stride, dilation, 0, t)) >= wanted)
        small, large = total // 2, total - total // 2
        pads = (large, small) if lower else (small, large)
        assert same_pads(size, kernel, stride, dilation, lower=lower) == pads
        for ceil in (False, True):
            attributes = {"strides": (stride,), "dilations": (dilation,), "ceil_mode": ceil}
            auto = Window.of((size,), (kernel,), auto_pad="SAME_LOWER" if lower else "SAME_UPPER", **attributes)
            assert (auto.pads, auto.output) == (pads, (wanted,))


def test_valid_is_no_pads() -> None:
    assert Window.of((7, 9), (3, 2), strides=(2, 1), auto_pad="VALID") == Window.of((7, 9), (3, 2), strides=(2, 1))


@pytest.mark.parametrize("auto_pad", AUTO_PADS)
def test_empty_axis_has_no_output(auto_pad: str) -> None:
    assert Window.of((0, 5), (3, 3), strides=(2, 2), auto_pad=auto_pad).output[0] == 0
    assert TransposedWindow.of((0, 5), (3, 3), strides=(4, 4), auto_pad=auto_pad).output[0] == 0


def test_empty_axis_with_room_in_its_pads() -> None:
    """Two windows lie wholly in the padding: onnxruntime's Conv gives two zeros as well."""
    axis = window_axis(0, 3, 1, 1, 2, 2)
    assert axis.output == 2
    assert axis.divisors(False).tolist() == [0, 0]
    assert (
        run_ort("Conv", [np.ones((1, 1, 0), np.float32), np.ones((1, 1, 3), np.float32)], {"pads": [2, 2]})[0].size == 2
    )


# Many axes


@st.composite
def attributes(draw: st.DrawFn, rank: int) -> dict[str, Any]:
    ints = {
        "strides": st.integers(1, 3),
        "dilations": st.integers(1, 3),
    }
    given = {
        name: tuple(draw(st.lists(i, min_size=rank, max_size=rank))) for name, i in ints.items() if draw(st.booleans())
    }
    if draw(st.booleans()):
        given["pads"] = tuple(draw(st.lists(st.integers(0, 3), min_size=2 * rank, max_size=2 * rank)))
    return given


@st.composite
def window_cases(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
    """(sizes, kernel, attributes) in which every axis holds a window."""
    rank = draw(st.integers(1, 3))
    given = draw(attributes(rank))
    kernel = tuple(draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank)))
    dilations, pads = given.get("dilations", (1,) * rank), given.get("pads", (0,) * 2 * rank)
    least = [max(1, (kernel[i] - 1) * dilations[i] + 1 - pads[i] - pads[rank + i]) for i in range(rank)]
    return tuple(low + draw(st.integers(0, 4)) for low in least), kernel, given


@given(window_cases(), st.booleans())
def test_regions_cover_once(case, ceil: bool) -> None:
    sizes, kernel, given_attributes = case
    window = Window.of(sizes, kernel, **given_attributes, ceil_mode=ceil)
    interior, borders = regions(window)
    covered = np.zeros(window.output, int)
    for box in (interior, *borders):
        covered[tuple(slice(*span) for span in box)] += 1
    assert (covered == 1).all()
    assert len(borders) <= 2 * len(sizes)
    assert all(start < stop for box in borders for start, stop in box)
    inside = np.zeros(window.output, bool)
    inside[tuple(slice(*span) for span in interior)] = True
    _, walk = naive.windows(sizes, kernel, window.strides, window.pads, window.dilations, ceil)
    for position, reads in walk:
        assert inside[position] == all(0 <= i < n for axis, n in zip(reads, sizes, strict=True) for i in axis)


def test_rank_zero() -> None:
    window = Window.of((), ())
    assert window.output == ()
    assert window.divisors(True) == 1
    assert regions(window) == ((), ())


@given(window_cases(), st.booleans(), st.booleans())
def test_divisors_are_the_product_over_axes(case, ceil: bool, include: bool) -> None:
    sizes, kernel, given_attributes = case
    window = Window.of(sizes, kernel, **given_attributes, ceil_mode=ceil)
    divisors = window.divisors(include)
    assert divisors.shape == window.output
    pads = window.pads
    bounds = [(-pads[i], n + pads[len(sizes) + i]) if include else (0, n) for i, n in enumerate(sizes)]
    out_sizes, walk = naive.windows(sizes, kernel, window.strides, pads, window.dilations, ceil)
    assert window.output == out_sizes
    for position, reads in walk:
        inside = itertools.product(
            *([i for i in axis if lo <= i < hi] for axis, (lo, hi) in zip(reads, bounds, strict=True))
        )
        assert divisors[position] == len(list(inside))


@given(window_cases())
def test_attributes_round_trip(case) -> None:
    sizes, kernel, given_attributes = case
    rank = len(sizes)
    window = Window.of(np.array(sizes), list(kernel), **{k: np.array(v) for k, v in given_attributes.items()})
    assert (window.sizes, window.kernel) == (sizes, kernel)
    assert window.strides == given_attributes.get("strides", (1,) * rank)
    assert window.dilations == given_attributes.get("dilations", (1,) * rank)
    assert window.pads == given_attributes.get("pads", (0,) * 2 * rank)
    assert Window.of(sizes, kernel, strides=window.strides, dilations=window.dilations, pads=window.pads) == window


# Transposed convolution


def by_phases(x: np.ndarray, w: np.ndarray, axis: TransposedAxis) -> np.ndarray:
    """A 1-D transposed convolution evaluated phase by phase; NaN where no phase writes."""
    y = np.full(axis.output, np.nan)
    for phase in axis.phases():
        for j in range(phase.count):
            reads = [(k, phase.origin + j + t * phase.dilation) for t, k in enumerate(phase.taps)]
            assert np.isnan(y[phase.first + j * phase.step])
            y[phase.first + j * phase.step] = sum(w[k] * x[i] for k, i in reads if 0 <= i < len(x))
    return y


@pytest.mark.parametrize("stride", STRIDES)
def test_phases_equal_scattering(stride: int) -> None:
    x = np.array([1.0, 10.0, 100.0, 1000.0])
    for size, kernel, dilation, before, after in itertools.product(
        (1, 2, 4), range(1, 6), DILATIONS, range(4), range(3)
    ):
        w = np.arange(1.0, kernel + 1)
        for extra in range(max(stride, dilation)):
            shared = {
                "strides": (stride,),
                "dilations": (dilation,),
                "pads": (before, after),
                "output_padding": (extra,),
            }
            if before + after >= (size - 1) * stride + (kernel - 1) * dilation + 1 + extra:
                with pytest.raises(InputError, match="leave nothing"):
                    TransposedWindow.of((size,), (kernel,), **shared)
                continue
            (axis,) = TransposedWindow.of((size,), (kernel,), **shared).axes
            expected = naive.conv_transpose_nd(x[None, None, :size], w[None, None], **shared)[0, 0]
            np.testing.assert_array_equal(by_phases(x[:size], w, axis), expected)
            lo, hi = axis.adjoint.tap_ranges()
            for i in range(size):
                targets = [i * stride - before + k * dilation for k in range(kernel)]
                assert [k for k, o in enumerate(targets) if 0 <= o < axis.output] == list(range(lo[i], hi[i]))


def test_phases_of_a_stride_two_kernel() -> None:
    """By hand: stride 2, kernel 3, one cut at the start. Even outputs take tap 1, odd ones taps 2 and 0."""
    (axis,) = TransposedWindow.of((4,), (3,), strides=(2,), pads=(1, 0)).axes
    assert axis.phases() == (Phase(0, 2, 4, (1,), 0, 1), Phase(1, 2, 4, (2, 0), 0, 1))


def test_phases_are_no_more_than_the_outputs():
    """A file may ask for a stride of 2**40."""
    axis = TransposedWindow.of((3,), (3,), strides=(1 << 40,), output_shape=(8,)).axes[0]
    assert [phase.count for phase in axis.phases()] == [1] * 8


def test_phases_without_taps() -> None:
    (axis,) = TransposedWindow.of((3,), (1,), strides=(3,)).axes
    assert [phase.taps for phase in axis.phases()] == [(0,), (), ()]
    assert [phase.count for phase in axis.phases()] == [3, 2, 2]


def test_phases_of_all_axes_write_each_output_once() -> None:
    window = TransposedWindow.of((3, 2, 2), (2, 3, 1), strides=(2, 1, 3), dilations=(1, 2, 1))
    written = np.zeros(window.output, int)
    for phases in window.phases():
        written[tuple(slice(p.first, None, p.step) for p in phases)] += 1
        assert written[tuple(slice(p.first, None, p.step) for p in phases)].shape == tuple(p.count for p in phases)
    assert (written == 1).all()


def test_phase_as_a_window() -> None:
    for size, kernel, stride, dilation, before in itertools.product((1, 3, 5), KERNELS, STRIDES, DILATIONS, range(3)):
        if before >= (size - 1) * stride + (kernel - 1) * dilation + 1:
            continue
        shared = {"strides": (stride,), "dilations": (dilation,), "pads": (before, 0)}
        for phase in TransposedWindow.of((size,), (kernel,), **shared).axes[0].phases():
            window = phase.window(size)
            lo, hi = window.tap_ranges()
            first, last = window.interior()
            for j in range(phase.count):
                inside = [0 <= phase.origin + j + t * phase.dilation < size for t in range(len(phase.taps))]
                assert [lo[j] <= t < hi[j] for t in range(len(phase.taps))] == inside
                assert not phase.taps or (first <= j < last) == all(inside)
            if phase.count and phase.taps:
                assert window.start(phase.count - 1) + window.extent == size + window.after


def test_output_shape_splits_the_surplus() -> None:
    shared = {"strides": (2,), "output_shape": (6,)}  # the full output has 7
    assert TransposedWindow.of((3,), (3,), **shared).pads == (1, 0)
    assert TransposedWindow.of((3,), (3,), **shared, auto_pad="SAME_LOWER").pads == (1, 0)
    assert TransposedWindow.of((3,), (3,), **shared, auto_pad="SAME_UPPER").pads == (0, 1)
    assert TransposedWindow.of((3,), (3,), **shared, pads=(2, 2)).pads == (1, 0)


def test_output_shape_may_exceed_the_full_output_by_less_than_a_stride() -> None:
    longest = TransposedWindow.of((3,), (3,), strides=(2,), output_shape=(8,))
    assert (longest.output, longest.pads) == ((8,), (0, 0))
    with pytest.raises(InputError, match="output_shape: 9 at spatial axis 0 is more than 8"):
        TransposedWindow.of((3,), (3,), strides=(2,), output_shape=(9,))


# Unknown sizes


def test_symbols_stay_where_the_size_does() -> None:
    assert output_sizes(("n", None, 6), (3, 3, 3), auto_pad="SAME_UPPER") == ("n", None, 6)
    assert output_sizes(("n", "m", 6), (3, 3, 3), pads=(1, 0, 0, 1, 1, 1)) == ("n", None, 5)
    assert output_sizes(("n", "m"), (3, 1), strides=(1, 2), auto_pad="SAME_LOWER") == ("n", None)
    assert output_sizes(("n", "m"), (3, 3), dilations=(2, 2), pads=(2, 1, 2, 2), ceil_mode=True) == ("n", None)
    assert output_sizes(("n",), (1,), strides=(2,), pads=(1 << 40, 0)) == (None,)
    assert transposed_output_sizes(("n", "m", 4), (3, 2, 2), strides=(1, 1, 2), pads=(1, 0, 0, 1, 0, 0)) == (
        "n",
        None,
        8,
    )
    assert transposed_output_sizes(("n", 4), (2, 2), strides=(2, 2), auto_pad="SAME_UPPER") == (None, 8)
    assert transposed_output_sizes((None, "m"), (3, 3), strides=(2, 2), output_shape=(9, 10)) == (9, 10)


@given(window_cases(), st.sampled_from(AUTO_PADS), st.booleans())
def test_output_sizes_agree_with_windows(case, auto_pad: str, ceil: bool) -> None:
    sizes, kernel, given_attributes = case
    if auto_pad != "NOTSET":
        given_attributes.pop("pads", None)
    given_attributes |= {"auto_pad": auto_pad, "ceil_mode": ceil}
    sizes = tuple(n + 9 for n in sizes)
    output = Window.of(sizes, kernel, **given_attributes).output
    assert output_sizes(sizes, kernel, **given_attributes) == output
    symbols = tuple(f"n{i}" for i in range(len(sizes)))
    for i, size in enumerate(output_sizes(symbols, kernel, **given_attributes)):
        assert size == (symbols[i] if output[i] == sizes[i] else None)


# Bad attributes


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"kernel": (3,)}, "kernel: .* has 1 entries, expected 2"),
        ({"kernel": (0, 3)}, "kernel: .* below 1"),
        ({"kernel": (1.0, 3)}, "kernel: .* integers"),
        ({"kernel": None}, "kernel: .* has 0 entries, expected 2"),
        ({"sizes": (-1, 5)}, "sizes: .* below 0"),
        ({"strides": (0, 1)}, "strides: .* below 1"),
        ({"strides": (1,)}, "strides: .* expected 2"),
        ({"dilations": (1, 1, 1)}, "dilations: .* expected 2"),
        ({"dilations": (1, -1)}, "dilations: .* below 1"),
        ({"pads": (1, 1)}, "pads: .* expected 4"),
        ({"pads": (0, 0, -1, 0)}, "pads: .* below 0"),
        ({"pads": (1, 1, 1, 1), "auto_pad": "VALID"}, "contradict auto_pad VALID"),
        ({"auto_pad": "SAME"}, "'SAME' is none of NOTSET, VALID, SAME_UPPER, SAME_LOWER"),
        ({"sizes": (5, 4), "dilations": (1, 2)}, r"spatial axis 1: a kernel of 3 with dilation 2 spans 5, .* size 4"),
    ],
)
def test_bad_attributes(kwargs: dict[str, Any], message: str) -> None:
    arguments = {"sizes": (5, 5), "kernel": (3, 3), **kwargs}
    with pytest.raises(InputError, match=message):
        Window.of(**arguments)
    if "sizes" not in kwargs or -1 in kwargs["sizes"]:
        with pytest.raises(InputError, match=message):
            TransposedWindow.of(**arguments)


@pytest.mark.parametrize(
    "kwargs, message",
    [
        (
            {"output_padding": (2, 0), "strides": (2, 2)},
            "output_padding: 2 at spatial axis 0 is not less than stride 2",
        ),
        ({"output_padding": (1,)}, "output_padding: .* expected 2"),
        ({"output_shape": (1, 1, 9, 9)}, "output_shape: .* expected 2"),
        ({"output_shape": (0, 5)}, "output_shape: .* below 1"),
        ({"pads": (4, 0, 3, 0)}, r"spatial axis 0: pads \(4, 3\) leave nothing of the full output size 7"),
    ],
)
def test_bad_transposed_attributes(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TransposedWindow.of((5, 5), (3, 3), **kwargs)


# Adaptive pooling and receptive fields


def test_adaptive_ranges() -> None:
    for size, output in itertools.product(range(12), range(1, 12)):
        start, stop = adaptive_ranges(size, output)
        assert start.tolist() == [int(np.floor(o * size / output)) for o in range(output)]
        assert stop.tolist() == [int(np.ceil((o + 1) * size / output)) for o in range(output)]
    assert [t.size for t in adaptive_ranges(5, 0)] == [0, 0]
    with pytest.raises(InputError, match="output"):
        adaptive_ranges(5, -1)


def test_receptive_field_is_what_an_output_reads() -> None:
    first = Window.of((40,), (3,), strides=(2,), pads=(1, 1))
    second = Window.of(first.output, (2,), dilations=(3,), pads=(2, 0))
    third = Window.of(second.output, (3,), strides=(3,))
    (field,) = receptive_field((first, second, third))
    o = 2
    reads = {o}
    for (axis,) in (third.axes, second.axes, first.axes):
        reads = {i for r in reads for i in naive.taps(axis.start(r), axis.kernel, axis.dilation)}
    assert (min(reads), max(reads) + 1) == (
        o * field.stride - field.before,
        o * field.stride - field.before + field.size,
    )
    assert receptive_field(()) == ()


def test_receptive_field_of_mixed_ranks() -> None:
    with pytest.raises(InputError, match="1 spatial axes follows one of 2"):
        receptive_field((Window.of((5, 5), (1, 1)), Window.of((5,), (1,))))
