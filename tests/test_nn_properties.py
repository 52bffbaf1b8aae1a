"""Layers on random parameters: against naive loops, against each other, and against torch where it is installed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sigconv import nn
from tests.cases import windows

try:
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(1)
except ImportError:
    torch = None

needs_torch = pytest.mark.skipif(torch is None, reason="torch is not installed")

CONV = {1: nn.conv1d, 2: nn.conv2d, 3: nn.conv3d}
CONV_TRANSPOSE = {1: nn.conv_transpose1d, 2: nn.conv_transpose2d, 3: nn.conv_transpose3d}
MAX_POOL = {1: nn.max_pool1d, 2: nn.max_pool2d, 3: nn.max_pool3d}
AVG_POOL = {1: nn.avg_pool1d, 2: nn.avg_pool2d, 3: nn.avg_pool3d}
LP_POOL = {1: nn.lp_pool1d, 2: nn.lp_pool2d, 3: nn.lp_pool3d}
NUMPY_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}

many = settings(max_examples=200)
some = settings(max_examples=100)


def normal(seed: int, *shape: int, dtype: type = np.float64) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def close(got: np.ndarray, want: np.ndarray, dtype: type | np.dtype | None = None) -> None:
    """Same shape, and equal within the rounding of sums in ``dtype`` (that of ``got``)."""
    assert got.shape == want.shape
    step = 2e-5 if np.dtype(dtype or got.dtype) == np.float32 else 1e-12
    scale = max(1.0, float(np.abs(want[np.isfinite(want)]).max(initial=0)))
    np.testing.assert_allclose(got, want, rtol=0, atol=step * scale)


def against_torch(name: str, *args, dtype=None, **kwargs):
    """What torch gives, as an array."""

    def convert(v):
        return torch.tensor(v) if isinstance(v, np.ndarray) else v

    result = getattr(F, name)(*map(convert, args), **{k: convert(v) for k, v in kwargs.items()})
    return tuple(r.numpy() for r in result) if isinstance(result, tuple) else result.numpy()


ranks = st.integers(1, 3)
dtypes = st.sampled_from([np.float32, np.float64])
seeds = st.integers(0, 2**32 - 1)


def per_axis(draw, rank, low, high):
    return tuple(draw(st.integers(low, high)) for _ in range(rank))


@st.composite
def convolutions(draw):
    """(rank, x, w, b, arguments) of a convolution that is legal."""
    rank = draw(ranks)
    top = {1: 20, 2: 7, 3: 3}[rank]
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    c, m = draw(st.integers(1, 6)), draw(st.integers(1, 20 if rank == 1 else 6))
    if draw(st.booleans()) and groups > 1:
        c, m = 1, draw(st.integers(1, 2))
    kernel = per_axis(draw, rank, 1, 4 if rank < 3 else 3)
    stride, dilation = per_axis(draw, rank, 1, 3), per_axis(draw, rank, 1, 3)
    pads = [(draw(st.integers(0, 3)), draw(st.integers(0, 3))) for _ in range(rank)]
    sizes = []
    for k, d, (lo, hi) in zip(kernel, dilation, pads, strict=True):
        sizes.append(draw(st.integers(max(1, (k - 1) * d + 1 - lo - hi), top + (k - 1) * d)))
    seed, dtype = draw(seeds), draw(dtypes)
    x = normal(seed, draw(st.integers(1, 2)), c * groups, *sizes, dtype=dtype)
    w = normal(seed + 1, m * groups, c, *kernel, dtype=dtype)
    b = normal(seed + 2, m * groups, dtype=dtype) if draw(st.booleans()) else None
    return rank, x, w, b, {"stride": stride, "padding": tuple(pads), "dilation": dilation, "groups": groups}


def naive_conv(x, w, b, stride, padding, dilation, groups):
    pads = [p for p, _ in padding] + [p for _, p in padding]
    return windows.conv_nd(x, w, b, strides=stride, pads=pads, dilations=dilation, groups=groups)


@many
@given(convolutions())
def test_conv_is_the_naive_loop(case):
    rank, x, w, b, args = case
    got = CONV[rank](x, w, b, **args)
    assert got.dtype == x.dtype
    close(got, naive_conv(x, w, b, **args))


@some
@given(convolutions(), st.sampled_from(sorted(NUMPY_MODES)))
def test_conv_of_a_padding_mode_is_conv_of_the_padded_input(case, mode):
    rank, x, w, b, args = case
    padded = np.pad(x, [(0, 0), (0, 0), *args["padding"]], mode=NUMPY_MODES[mode])
    want = naive_conv(padded, w, b, args["stride"], [(0, 0)] * rank, args["dilation"], args["groups"])
    close(CONV[rank](x, w, b, **args, padding_mode=mode), want)


@some
@given(convolutions(), st.sampled_from(["same", "same_upper", "same_lower", "full", "valid"]))
def test_conv_of_a_named_padding(case, padding):
    rank, x, w, b, args = case
    kernel, sizes = w.shape[2:], x.shape[2:]
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, args["dilation"], strict=True)]
    if padding == "valid" and any(n < e for n, e in zip(sizes, extents, strict=True)):
        return
    got = CONV[rank](x, w, b, **{**args, "padding": padding})
    if padding.startswith("same"):
        assert got.shape[2:] == tuple(-(-n // s) for n, s in zip(sizes, args["stride"], strict=True))
        totals = [
            max(0, (o - 1) * s + e - n)
            for o, s, e, n in zip(got.shape[2:], args["stride"], extents, sizes, strict=True)
        ]
        small = [(t // 2, t - t // 2) for t in totals]
        pads = [p[::-1] for p in small] if padding == "same_lower" else small
    else:
        pads = [(e - 1,) * 2 if padding == "full" else (0, 0) for e in extents]
    close(got, naive_conv(x, w, b, args["stride"], pads, args["dilation"], args["groups"]))


@many
@given(convolutions())
def test_conv_transpose_is_the_adjoint_of_conv(case):
    """<conv(x), y> = <x, conv_transpose(y)>, for the output size that is x's."""
    rank, x, w, _, args = case
    x, w = x.astype(np.float64), w.astype(np.float64)
    forward = CONV[rank](x, w, **args)
    y = normal(1, *forward.shape)
    back = CONV_TRANSPOSE[rank](y, w, **args, output_size=x.shape[2:])
    assert back.shape == x.shape
    left, right = float((forward * y).sum()), float((x * back).sum())
    assert abs(left - right) <= 1e-9 * max(1.0, float(np.abs(forward * y).sum()))


@st.composite
def transposed(draw):
    """(rank, x, w, b, arguments) of a legal transposed convolution."""
    rank = draw(ranks)
    groups = draw(st.sampled_from([1, 1, 2]))
    c, m = draw(st.integers(1, 5)), draw(st.integers(1, 20 if rank == 1 else 5))
    kernel, stride, dilation = (per_axis(draw, rank, 1, top) for top in (4, 3, 3))
    sizes = per_axis(draw, rank, 1, {1: 9, 2: 6, 3: 4}[rank])
    extra = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
    full = [
        (n - 1) * s + (k - 1) * d + 1 + e for n, s, k, d, e in zip(sizes, stride, kernel, dilation, extra, strict=True)
    ]
    padding = tuple(draw(st.integers(0, min(3, (f - 1) // 2))) for f in full)
    seed, dtype = draw(seeds), draw(dtypes)
    x = normal(seed, draw(st.integers(1, 2)), c * groups, *sizes, dtype=dtype)
    w = normal(seed + 1, c * groups, m, *kernel, dtype=dtype)
    b = normal(seed + 2, m * groups, dtype=dtype) if draw(st.booleans()) else None
    args = {"stride": stride, "padding": padding, "output_padding": extra, "groups": groups, "dilation": dilation}
    return rank, x, w, b, args


@many
@given(transposed())
def test_conv_transpose_is_the_naive_scatter(case):
    rank, x, w, b, args = case
    want = windows.conv_transpose_nd(
        x, w, b, strides=args["stride"], pads=[*args["padding"]] * 2, dilations=args["dilation"],
        groups=args["groups"], output_padding=args["output_padding"],
    )  # fmt: skip
    close(CONV_TRANSPOSE[rank](x, w, b, **args), want, x.dtype)


@st.composite
def pools(draw):
    """(rank, x, arguments) of a legal pooling."""
    rank = draw(ranks)
    kernel = per_axis(draw, rank, 1, 4)
    stride = draw(st.none() | st.just(per_axis(draw, rank, 1, 4)))
    dilation = per_axis(draw, rank, 1, 2)
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    sizes = [
        draw(st.integers(max(1, (k - 1) * d + 1 - 2 * p), 9 if rank < 3 else 5 + (k - 1) * d))
        for k, d, p in zip(kernel, dilation, padding, strict=True)
    ]
    x = normal(draw(seeds), draw(st.integers(1, 2)), draw(st.integers(1, 3)), *sizes, dtype=draw(dtypes))
    if draw(st.booleans()):
        x = np.round(x)  # equal elements
    return rank, x, kernel, stride, padding, dilation, draw(st.booleans())


@many
@given(pools())
def test_max_pool_is_the_naive_loop(case):
    rank, x, kernel, stride, padding, dilation, ceil_mode = case
    want, where = windows.max_pool_nd(
        x, kernel, strides=stride or kernel, pads=[*padding] * 2, dilations=dilation, ceil_mode=ceil_mode
    )
    args = (kernel, stride, padding, dilation, ceil_mode)
    np.testing.assert_array_equal(MAX_POOL[rank](x, *args), want)
    got, index = MAX_POOL[rank](x, *args, return_indices=True)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(index, where % math.prod(x.shape[2:]))


@many
@given(pools(), st.booleans(), st.sampled_from([None, None, 3]))
def test_avg_pool_is_the_naive_loop(case, count_include_pad, divisor):
    rank, x, kernel, stride, padding, _, ceil_mode = case
    args = {"strides": stride or kernel, "pads": [*padding] * 2, "ceil_mode": ceil_mode}
    if divisor is None:
        want = windows.avg_pool_nd(x, kernel, **args, count_include_pad=count_include_pad)
    else:
        ones = windows.avg_pool_nd(np.ones_like(x), kernel, **args, count_include_pad=count_include_pad)
        inside = windows.conv_nd(np.ones((1, 1, *x.shape[2:])), np.ones((1, 1, *kernel)), strides=stride or kernel,
                                 pads=[*padding, *(p + k for p, k in zip(padding, kernel, strict=True))])  # fmt: skip
        counts = inside[(slice(None), slice(None), *(slice(n) for n in ones.shape[2:]))]
        want = windows.avg_pool_nd(x, kernel, **args) * counts / divisor
    close(AVG_POOL[rank](x, kernel, stride, padding, ceil_mode, count_include_pad, divisor), want, x.dtype)


@some
@given(pools(), st.sampled_from([1, 2, 3, 2.5, math.inf]))
def test_lp_pool_is_the_norm_of_each_window(case, p):
    rank, x, kernel, stride, _, _, ceil_mode = case
    if any(n < k for n, k in zip(x.shape[2:], kernel, strict=True)):
        return
    out_sizes, walk = windows.windows(x.shape[2:], kernel, stride or kernel, None, None, ceil_mode)
    want = np.zeros((*x.shape[:2], *out_sizes))
    for position, indices in walk:
        inside = [[i for i in axis if i < n] for axis, n in zip(indices, x.shape[2:], strict=True)]
        patch = x[np.ix_(range(x.shape[0]), range(x.shape[1]), *inside)].astype(np.float64)
        want[(..., *position)] = np.linalg.norm(patch.reshape(*x.shape[:2], -1), p, axis=-1)
    close(LP_POOL[rank](x, p, kernel, stride, ceil_mode), want, x.dtype)


@many
@given(st.data())
def test_adaptive_pools_are_means_and_maxima_of_regions(data):
    rank, seed = data.draw(ranks), data.draw(seeds)
    sizes = per_axis(data.draw, rank, 1, 9)
    output = tuple(data.draw(st.none() | st.integers(1, 11)) for _ in sizes)
    x = normal(seed, 2, 3, *sizes, dtype=data.draw(dtypes))
    out = tuple(n if o is None else o for n, o in zip(sizes, output, strict=True))
    mean, best, where = np.empty((2, 3, *out)), np.empty((2, 3, *out), x.dtype), np.empty((2, 3, *out), np.int64)
    flat = np.arange(math.prod(sizes)).reshape(sizes)
    for position in np.ndindex(*out):
        box = tuple(slice(i * n // o, -(-(i + 1) * n // o)) for i, n, o in zip(position, sizes, out, strict=True))
        region = x[(..., *box)].reshape(2, 3, -1)
        mean[(..., *position)] = region.mean(-1, dtype=np.float64)
        best[(..., *position)] = region.max(-1)
        where[(..., *position)] = flat[box].reshape(-1)[region.argmax(-1)]
    average = {1: nn.adaptive_avg_pool1d, 2: nn.adaptive_avg_pool2d, 3: nn.adaptive_avg_pool3d}[rank]
    maximum = {1: nn.adaptive_max_pool1d, 2: nn.adaptive_max_pool2d, 3: nn.adaptive_max_pool3d}[rank]
    close(average(x, output), mean, x.dtype)
    np.testing.assert_array_equal(maximum(x, output), best)
    got, index = maximum(x, output, return_indices=True)
    np.testing.assert_array_equal(got, best)
    np.testing.assert_array_equal(index, where)


@some
@given(pools())
def test_fold_is_the_adjoint_of_unfold_and_unfold_is_every_window(case):
    rank, x, kernel, stride, padding, dilation, _ = case
    x = x.astype(np.float64)
    args = (dilation, padding, stride or kernel)
    columns = nn.unfold(x, kernel, *args)
    padded = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)])
    _, walk = windows.windows(padded.shape[2:], kernel, args[2], None, dilation)
    want = np.stack(
        [padded[np.ix_(range(len(x)), range(x.shape[1]), *taps)].reshape(len(x), -1) for _, taps in walk], -1
    )
    np.testing.assert_array_equal(columns, want)
    y = normal(3, *columns.shape)
    back = nn.fold(y, x.shape[2:], kernel, *args)
    assert back.shape == x.shape
    assert math.isclose((columns * y).sum(), (x * back).sum(), rel_tol=0, abs_tol=1e-9 * max(1, np.abs(y).sum()))
    weight = np.ones((1, x.shape[1], *kernel))
    summed = CONV[rank](x, weight, stride=args[2], padding=padding, dilation=dilation)
    close(columns.sum(1), summed.reshape(len(x), -1))


@some
@given(st.data())
def test_pad_is_numpys(data):
    rank = data.draw(st.integers(1, 5))
    shape = per_axis(data.draw, rank, 1, 5)
    mode = data.draw(st.sampled_from(["constant", *sorted(NUMPY_MODES)]))
    padded = data.draw(st.integers(0, rank))
    pairs = [(data.draw(st.integers(0, 7)), data.draw(st.integers(0, 7))) for _ in range(padded)]
    dtype = data.draw(st.sampled_from([np.float32, np.float64, np.float16, np.int32, np.int64, np.uint8, np.bool_]))
    x = (10 * normal(data.draw(seeds), *shape)).astype(dtype)
    amounts = [(0, 0)] * (rank - padded) + pairs[::-1]
    want = np.pad(x, amounts, mode=NUMPY_MODES.get(mode, "constant"))
    got = nn.pad(x, [v for pair in pairs for v in pair], mode)
    assert got.dtype == x.dtype
    np.testing.assert_array_equal(got, want)


@needs_torch
@many
@given(convolutions())
def test_conv_is_torchs(case):
    rank, x, w, b, args = case
    pads = args["padding"]
    x_padded = np.pad(x, [(0, 0), (0, 0), *pads])
    args = {k: v for k, v in args.items() if k != "padding"}
    close(CONV[rank](x_padded, w, b, **args), against_torch(f"conv{rank}d", x_padded, w, b, **args))


@needs_torch
@many
@given(transposed())
def test_conv_transpose_is_torchs(case):
    rank, x, w, b, args = case
    close(CONV_TRANSPOSE[rank](x, w, b, **args), against_torch(f"conv_transpose{rank}d", x, w, b, **args))


@needs_torch
@many
@given(pools(), st.booleans())
def test_pools_are_torchs(case, count_include_pad):
    rank, x, kernel, stride, padding, dilation, ceil_mode = case
    args = (kernel, stride, padding, dilation, ceil_mode)
    got, want = MAX_POOL[rank](x, *args, True), against_torch(f"max_pool{rank}d", x, *args, return_indices=True)
    np.testing.assert_array_equal(got[0], want[0])
    seen = np.isfinite(got[0])  # torch's index of a window of nothing but padding lies outside
    np.testing.assert_array_equal(got[1][seen], want[1][seen])
    if rank == 3 and any(n < k for n, k in zip(x.shape[2:], kernel, strict=True)):
        return  # torch refuses, whatever the padding
    average = (kernel, stride, padding, ceil_mode, count_include_pad)
    close(AVG_POOL[rank](x, *average), against_torch(f"avg_pool{rank}d", x, *average))


@needs_torch
@settings(max_examples=300)
@given(st.data())
def test_interpolate_is_torchs(data):
    rank = data.draw(ranks)
    modes = ["nearest", "nearest-exact", "area", *{1: ["linear"], 2: ["bilinear", "bicubic"], 3: ["trilinear"]}[rank]]
    mode = data.draw(st.sampled_from(modes))
    dtype = data.draw(dtypes)
    x = normal(data.draw(seeds), 1, 2, *per_axis(data.draw, rank, 1, 9), dtype=dtype)
    args = {"mode": mode}
    if data.draw(st.booleans()):
        args["size"] = per_axis(data.draw, rank, 1, 13)
    else:
        factors = st.sampled_from([0.5, 0.7, 1.0, 1.3, 2.0, 2.5, 3.0, 1 / 3])
        args["scale_factor"] = tuple(data.draw(factors) for _ in range(rank))
        if any(math.floor(n * f) < 1 for n, f in zip(x.shape[2:], args["scale_factor"], strict=True)):
            return
        if mode != "area":
            args["recompute_scale_factor"] = data.draw(st.sampled_from([None, False, True]))
    if "linear" in mode or mode == "bicubic":
        args["align_corners"] = data.draw(st.booleans())
        sizes = args.get("size") or [math.floor(n * f) for n, f in zip(x.shape[2:], args["scale_factor"], strict=True)]
        wide = 1 not in (*x.shape[2:], *sizes)  # torch 2.13 repeats one row of columns of width 1
        if mode in ("bilinear", "bicubic") and wide and not args["align_corners"]:
            args["antialias"] = data.draw(st.booleans())
    got = nn.interpolate(x, **args)
    if mode == "nearest" and any(n == o for n, o in zip(x.shape[2:], got.shape[2:], strict=True)):
        return  # torch leaves such an axis alone in 2-D only
    want = against_torch("interpolate", x, **args)
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=0, atol=3e-5 if dtype is np.float32 else 3e-6)


@needs_torch
@some
@given(st.data())
def test_adaptive_pools_are_torchs(data):
    rank = data.draw(ranks)
    x = normal(data.draw(seeds), 2, 2, *per_axis(data.draw, rank, 1, 9))
    output = per_axis(data.draw, rank, 1, 11)
    for kind in ("avg", "max"):
        name = f"adaptive_{kind}_pool{rank}d"
        close(getattr(nn, name)(x, output), against_torch(name, x, output))
