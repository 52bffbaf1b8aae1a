"""Layers: values that follow from their definitions, the shapes of the literature, errors, and how calls behave."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest

import sigconv
from sigconv import nn
from sigconv.errors import InputError
from sigconv.nn import call as calls
from sigconv.nn.activation import ACTIVATIONS
from tests.cases import windows

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    torch = None

needs_torch = pytest.mark.skipif(torch is None, reason="torch is not installed")


def near(got, want, dtype=np.float32):
    assert got.dtype == np.dtype(dtype)
    assert got.shape == want.shape
    step = {np.float16: 2e-3, np.float32: 1e-5, np.float64: 1e-12}[np.dtype(dtype).type]
    np.testing.assert_allclose(got, want, rtol=step, atol=step * max(1.0, float(np.abs(want).max(initial=0))))


# --- convolution -----------------------------------------------------------------------------------------------------
def test_conv_does_not_flip():
    image = np.arange(9.0).reshape(1, 1, 3, 3)
    kernel = np.array([[[[1.0, -2.0], [0.5, 3.0]]]])
    assert nn.conv2d(image, kernel)[0, 0].tolist() == [[11.5, 14.0], [19.0, 21.5]]
    assert nn.conv2d(image[0], kernel)[0].tolist() == [[11.5, 14.0], [19.0, 21.5]]
    assert nn.conv1d([[1.0, 2, 3, 4]], [[[1.0, 0, -1]]]).tolist() == [[-2.0, -2.0]]


def test_same_padding_with_an_even_kernel_keeps_the_size(rng):
    """A kernel of 4 on 32 x 100 gives 32 x 100, with zeros and with reflections."""
    x, w = rng.standard_normal((2, 3, 32, 100)), rng.standard_normal((5, 3, 4, 4))
    for mode in ("zeros", "reflect"):
        y = nn.conv2d(x, w, padding="same", padding_mode=mode)
        assert y.shape == (2, 5, 32, 100)
        edges = [(0, 0), (0, 0), (1, 2), (1, 2)]
        padded = np.pad(x, edges, mode="constant" if mode == "zeros" else "reflect")
        near(y, windows.conv_nd(padded, w), np.float64)


def test_stride_2_1_with_dilation_1_2(rng):
    x, w, b = rng.standard_normal((2, 4, 11, 13)), rng.standard_normal((6, 4, 3, 3)), rng.standard_normal(6)
    y = nn.conv2d(x, w, b, stride=(2, 1), dilation=(1, 2))
    assert y.shape == (2, 6, 5, 9)
    near(y, windows.conv_nd(x, w, b, strides=[2, 1], dilations=[1, 2]), np.float64)


N, K = 13, 4  # an input and a kernel size; the relationships hold for any

RELATIONSHIPS = {
    1: (N, K, {}, N - K + 1),
    2: (N, K, {"padding": 2}, N + 4 - K + 1),
    3: (N, 5, {"padding": 2}, N),
    4: (N, K, {"padding": K - 1}, N + K - 1),
    5: (N, K, {"stride": 3}, (N - K) // 3 + 1),
    6: (N, K, {"padding": 1, "stride": 3}, (N + 2 - K) // 3 + 1),
    7: (N, K, {"stride": 3}, (N - K) // 3 + 1),
    8: (N, K, {}, N + K - 1),
    9: (N, K, {"padding": 2}, N + K - 1 - 4),
    10: (N, 5, {"padding": 2}, N),
    11: (N, K, {"padding": K - 1}, N - K + 1),
    12: (N, K, {"stride": 3}, 3 * (N - 1) + K),
    13: (N, K, {"stride": 3, "padding": 1}, 3 * (N - 1) + K - 2),
    14: (N, K, {"stride": 3, "padding": 1, "output_padding": 2}, 3 * (N - 1) + 2 + K - 2),
    15: (N, K, {"dilation": 2, "stride": 2, "padding": 1}, (N + 2 - K - (K - 1)) // 2 + 1),
}
"""Dumoulin & Visin, A guide to convolution arithmetic for deep learning: input, kernel, arguments, output.

1 to 6 are convolutions, 7 is pooling, 8 to 14 are transposed convolutions, 15 is dilated.
"""


@pytest.mark.parametrize("number", RELATIONSHIPS)
def test_the_relationships_of_convolution_arithmetic(number):
    size, kernel, args, output = RELATIONSHIPS[number]
    x, w = np.ones((1, 1, size, size)), np.ones((1, 1, kernel, kernel))
    if number == 7:
        y = nn.max_pool2d(x, kernel, **args)
    else:
        y = (nn.conv_transpose2d if 8 <= number <= 14 else nn.conv2d)(x, w, **args)
    assert y.shape == (1, 1, output, output)
    if (
        8 <= number <= 13
    ):  # a transposed convolution gives the input size of the convolution that it is the transpose of
        assert nn.conv2d(y, w, **args).shape == x.shape


def test_conv_transpose_output_size(rng):
    x, w = rng.standard_normal((1, 2, 5)), rng.standard_normal((2, 3, 3))
    for size in (9, 10):
        y = nn.conv_transpose1d(x, w, stride=2, padding=1, output_size=(size,))
        near(y, windows.conv_transpose_nd(x, w, strides=[2], pads=[1, 1], output_padding=[size - 9]), np.float64)
    with pytest.raises(InputError, match=r"output_size=\(11,\); accepted are sizes from \(9,\) to \(10,\)"):
        nn.conv_transpose1d(x, w, stride=2, padding=1, output_size=(11,))


def test_groups_are_convolutions_side_by_side(rng):
    x, w = rng.standard_normal((2, 6, 9, 8)), rng.standard_normal((9, 2, 3, 3))
    parts = [nn.conv2d(x[:, 2 * g : 2 * g + 2].copy(), w[3 * g : 3 * g + 3]) for g in range(3)]
    near(nn.conv2d(x, w, groups=3), np.concatenate(parts, 1), np.float64)


def test_activation_of_a_layer_is_the_function(rng):
    x, w, b = rng.standard_normal((1, 3, 6, 6)), rng.standard_normal((4, 3, 3, 3)), rng.standard_normal(4)
    plain = nn.conv2d(x, w, b)
    for activation, want in (
        ("relu", nn.relu(plain)), ("relu6", nn.relu6(plain)), (("leaky_relu", 0.3), nn.leaky_relu(plain, 0.3)),
        ("gelu", nn.gelu(plain)), ("hardswish", nn.hardswish(plain)),
    ):  # fmt: skip
        near(nn.conv2d(x, w, b, activation=activation), want, np.float64)
    with pytest.raises(InputError, match="conv2d: activation='rellu'; accepted are None, relu"):
        nn.conv2d(x, w, b, activation="rellu")


def test_linear(rng):
    w, b = rng.standard_normal((7, 5)), rng.standard_normal(7)
    for shape in ((5,), (3, 5), (2, 3, 5), (0, 5)):
        x = rng.standard_normal(shape)
        near(nn.linear(x, w, b), x @ w.T + b, np.float64)
        near(nn.linear(x, w, activation="relu"), np.maximum(x @ w.T, 0), np.float64)
    for rows in (1, 3, 9, 10, 11, 40):  # fewer, and more, than a fourth of the filters
        x, w, b = rng.standard_normal((rows, 33)), rng.standard_normal((40, 33)), rng.standard_normal(40)
        near(nn.linear(x, w, b, activation="relu"), np.maximum(x @ w.T + b, 0), np.float64)


# --- pools and norms -------------------------------------------------------------------------------------------------
def test_max_unpool_puts_maxima_back(rng):
    x = rng.standard_normal((2, 3, 7, 9)).astype(np.float32)
    y, index = nn.max_pool2d(x, 3, 2, return_indices=True)
    back = nn.max_unpool2d(y, index, 3, 2, output_size=(7, 9))
    assert back.shape == x.shape
    where = back != 0
    np.testing.assert_array_equal(back[where], x[where])
    assert set(back[where]) == set(y.ravel())
    with pytest.raises(InputError, match="indices from 0 to 99 do not all lie in a plane"):
        nn.max_unpool2d(y[:1, :1, :1, :2], np.array([[[[0, 99]]]]), 3, 2)


def test_pools_with_nan_and_infinity():
    x = np.array([[1.0, np.nan, 2, 3, -np.inf, np.inf]])
    np.testing.assert_array_equal(nn.max_pool1d(x, 2), [[np.nan, 3, np.inf]])
    np.testing.assert_array_equal(nn.avg_pool1d(x, 2), [[np.nan, 2.5, np.nan]])
    np.testing.assert_array_equal(nn.adaptive_avg_pool1d(x[:, 3:], 2), [[-np.inf, np.nan]])
    np.testing.assert_array_equal(nn.adaptive_avg_pool1d(np.array([[1.0, np.inf, 2, 3, 4]]), 2), [[np.inf, 3.0]])


def test_global_pools(rng):
    x = rng.standard_normal((2, 3, 4, 5))
    near(nn.global_avg_pool(x), x.mean((2, 3), keepdims=True), np.float64)
    near(nn.global_max_pool(x), x.max((2, 3), keepdims=True), np.float64)
    for p in (1, 2, 3, math.inf):
        norm = np.linalg.norm(x.reshape(6, -1), p, axis=1).reshape(2, 3, 1, 1)
        near(nn.global_lp_pool(x, p), norm, np.float64)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_norms(rng, dtype):
    x = rng.standard_normal((2, 6, 5, 4)).astype(dtype)
    w, b, mean = (rng.standard_normal(6).astype(dtype) for _ in range(3))
    var = rng.random(6).astype(dtype)
    wide = x.astype(np.float64)
    per = (1, 6, 1, 1)

    def normal(v, axes):
        return (v - v.mean(axes, keepdims=True)) / np.sqrt(v.var(axes, keepdims=True) + 1e-5)

    scaled = (wide - mean.reshape(per)) / np.sqrt(var.reshape(per) + 1e-5)
    near(nn.batch_norm(x, mean, var), scaled, dtype)
    near(nn.batch_norm(x, mean, var, w, b), scaled * w.reshape(per) + b.reshape(per), dtype)
    near(nn.instance_norm(x), normal(wide, (2, 3)), dtype)
    near(nn.instance_norm(x, w, b), normal(wide, (2, 3)) * w.reshape(per) + b.reshape(per), dtype)
    groups = normal(wide.reshape(2, 3, 2, 5, 4), (2, 3, 4)).reshape(x.shape)
    near(nn.group_norm(x, 3, w, b), groups * w.reshape(per) + b.reshape(per), dtype)
    near(nn.group_norm(x[..., 0, 0].copy(), 2), normal(wide[..., 0, 0].reshape(2, 2, 3), (2,)).reshape(2, 6), dtype)
    ww, bb = (rng.standard_normal((5, 4)).astype(dtype) for _ in range(2))
    near(nn.layer_norm(x, (5, 4), ww, bb), normal(wide, (2, 3)) * ww + bb, dtype)
    near(nn.layer_norm(x, 4), normal(wide, (3,)), dtype)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7])
def test_local_response_norm(rng, size):
    x = rng.standard_normal((2, 5, 3, 4))
    square = np.pad(x**2, [(0, 0), (size // 2, (size - 1) // 2), (0, 0), (0, 0)])
    mean = sum(square[:, i : i + 5] for i in range(size)) / size
    near(nn.local_response_norm(x, size, 0.3, 0.7, 2.0), x / (2.0 + 0.3 * mean) ** 0.7, np.float64)


# --- activations -----------------------------------------------------------------------------------------------------
ERF = np.vectorize(math.erf)
FORMULAS = {
    "relu": lambda x: np.maximum(x, 0), "relu6": lambda x: np.clip(x, 0, 6), "hardtanh": lambda x: np.clip(x, -1, 1),
    "leaky_relu": lambda x: np.where(x < 0, 0.01 * x, x), "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)),
    "celu": lambda x: np.where(x > 0, x, np.expm1(x)), "gelu": lambda x: x * (1 + ERF(x / math.sqrt(2))) / 2,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "silu": lambda x: x / (1 + np.exp(-x)),
    "mish": lambda x: x * np.tanh(np.logaddexp(0, x)), "hardsigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "hardswish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1), "tanh": np.tanh, "tanhshrink": lambda x: x - np.tanh(x),
    "softplus": lambda x: np.logaddexp(0, x), "logsigmoid": lambda x: -np.logaddexp(0, -x),
    "softsign": lambda x: x / (1 + np.abs(x)), "softshrink": lambda x: np.sign(x) * np.maximum(np.abs(x) - 0.5, 0),
    "hardshrink": lambda x: np.where(np.abs(x) > 0.5, x, 0),
}  # fmt: skip
POINTS = np.concatenate([np.linspace(-9, 9, 181), [-100.0, 100.0, 0.5, -0.5, 6.0]])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activations(name, dtype):
    x = POINTS.astype(dtype)
    function = getattr(nn, name)
    if name == "threshold":
        near(function(x, 0.5, -3.0), np.where(x > 0.5, x, -3.0), dtype)
        return
    with np.errstate(over="ignore"):
        near(function(x), FORMULAS[name](x.astype(np.float64)), dtype)
    np.testing.assert_array_equal(function(x.reshape(6, 31, 1, 1)).ravel(), function(x))
    assert function(x[3]) == function(x)[3]
    assert np.isnan(function(np.array([np.nan], dtype)))
    assert function(np.zeros((0, 3), dtype)).shape == (0, 3)


@needs_torch
@pytest.mark.parametrize("name, args", [
    ("hardtanh", (-0.3, 2.0)), ("leaky_relu", (0.2,)), ("elu", (1.5,)), ("celu", (0.7,)), ("softplus", (2.0,)),
    ("softshrink", (1.0,)), ("hardshrink", (2.0,)), ("threshold", (0.3, 7.0)), ("softmax", (-1,)),
    ("log_softmax", (0,)),
])  # fmt: skip
def test_parameters_of_activations_are_torchs(name, args):
    x = POINTS.reshape(6, -1).astype(np.float32)
    near(getattr(nn, name)(x, *args), getattr(F, name)(torch.tensor(x), *args).numpy())


@needs_torch
def test_gelu_tanh_and_prelu_are_torchs(rng):
    x, w = rng.standard_normal((2, 3, 5)).astype(np.float32), rng.standard_normal(3).astype(np.float32)
    t = torch.tensor(x)
    near(nn.gelu(x, approximate="tanh"), F.gelu(t, approximate="tanh").numpy())
    for slope in (w, w[:1]):
        near(nn.prelu(x, slope), F.prelu(t, torch.tensor(slope)).numpy())


def test_softmax(rng):
    x = 50 * rng.standard_normal((3, 4, 5))
    for dim in (-3, 0, 1, 2):
        shifted = np.exp(x - x.max(dim, keepdims=True))
        near(nn.softmax(x, dim), shifted / shifted.sum(dim, keepdims=True), np.float64)
        logarithm = x - x.max(dim, keepdims=True) - np.log(shifted.sum(dim, keepdims=True))
        near(nn.log_softmax(x, dim), logarithm, np.float64)


# --- resampling ------------------------------------------------------------------------------------------------------
def test_pad_crops_and_fills():
    x = np.arange(6, dtype=np.int16).reshape(2, 3)
    assert nn.pad(x, (-1, 1), value=7).tolist() == [[1, 2, 7], [4, 5, 7]]
    assert nn.pad(x, (0, 0, 1, -1), "circular").dtype == np.int16
    copy = nn.pad(x, ())
    assert copy.tolist() == x.tolist()
    assert not np.shares_memory(copy, x)


def test_interpolate_of_integers_and_factors():
    x = np.arange(4, dtype=np.uint8).reshape(1, 1, 2, 2)
    assert nn.interpolate(x, scale_factor=2)[0, 0].tolist() == [[0, 0, 1, 1]] * 2 + [[2, 2, 3, 3]] * 2
    y = nn.interpolate(np.array([[[0.0, 1.0]]]), size=3, mode="linear", align_corners=True)
    assert y.tolist() == [[[0.0, 0.5, 1.0]]]


# --- errors ----------------------------------------------------------------------------------------------------------
X, W = np.zeros((1, 4, 8, 8), np.float32), np.zeros((6, 4, 3, 3), np.float32)

ERRORS = {
    "zero stride": (lambda: nn.conv2d(X, W, stride=0), r"conv2d: stride=0; an integer of at least 1"),
    "three strides": (lambda: nn.conv2d(X, W, stride=(1, 2, 3)), r"conv2d: stride=\(1, 2, 3\)"),
    "fractional stride": (lambda: nn.conv2d(X, W, stride=1.5), r"conv2d: stride=1.5"),
    "rank": (lambda: nn.conv2d(X[0, 0], W), r"conv2d: input has shape \(8, 8\); \[N, C, \*spatial\]"),
    "weight rank": (lambda: nn.conv2d(X, W[0]), r"conv2d: weight has shape \(4, 3, 3\); 4 axes are needed"),
    "channels": (lambda: nn.conv2d(X, W[:, :3]), r"\(1, 4, 8, 8\) has 4 channels; weight \(6, 3, 3, 3\) with groups=1"),
    "groups": (lambda: nn.conv2d(X, W[:, :1], groups=4), r"6 filters, no multiple of groups=4"),
    "no groups": (lambda: nn.conv2d(X, W, groups=0), r"groups=0; an integer of at least 1"),
    "bias": (lambda: nn.conv2d(X, W, X[0, 0, 0]), r"bias has shape \(8,\); weight \(6, 4, 3, 3\) needs \(6,\)"),
    "kernel too large": (lambda: nn.conv2d(X[..., :2], W), r"conv2d: .*span.*size 2 .*input \(1, 4, 8, 2\)"),
    "empty kernel": (lambda: nn.conv2d(X, W[..., :0]), r"a kernel of at least 1 along every axis"),
    "padding name": (lambda: nn.conv2d(X, W, padding="Same"), r"padding='Same'; accepted are valid, same"),
    "negative padding": (lambda: nn.conv2d(X, W, padding=-1), r"padding=-1"),
    "padding mode": (lambda: nn.conv2d(X, W, padding=1, padding_mode="wrap"), r"mode is 'wrap'; accepted are 'zeros'"),
    "integers": (lambda: nn.conv2d(X.astype(np.int32), W), r"input is int32; accepted are float16"),
    "two types": (lambda: nn.conv2d(X, W.astype(np.float64)), r"input is float32, weight is float64"),
    "no weight": (lambda: nn.conv2d(X, None), r"conv2d: weight must be given"),
    "no input": (lambda: nn.relu(None), r"relu: input must be given"),
    "no statistics": (lambda: nn.batch_norm(X, None, None), r"running_mean and running_var must be given"),
    "slope": (lambda: nn.leaky_relu(X, "a"), r"leaky_relu with parameters \('a',\): could not convert"),
    "complex": (lambda: nn.relu(np.zeros(3, complex)), r"relu: input is complex128"),
    "text": (lambda: nn.relu(np.array(["a"])), r"relu: input is <U1"),
    "out shape": (lambda: nn.conv2d(X, W, out=X), r"out is float32 of shape .* of shape \(1, 6, 6, 6\) is needed"),
    "parameter": (lambda: nn.conv2d(X, W, stride={1: 2}), r"neither a number, a string nor a sequence"),
    "output padding": (lambda: nn.conv_transpose2d(X, W[:4], output_padding=1), r"conv_transpose2d: output_padding: 1"),
    "transposed channels": (lambda: nn.conv_transpose2d(X, W), r"\(1, 4, 8, 8\) has 4 channels; weight .* takes 6"),
    "pool padding": (lambda: nn.max_pool2d(X, 2, padding=2), r"max_pool2d: padding=2 gives windows of nothing but pad"),
    "pool": (lambda: nn.avg_pool2d(X, 9), r"avg_pool2d: .*kernel of 9"),
    "two results": (lambda: nn.max_pool2d(X, 2, return_indices=True, out=X), r"return_indices=True gives two"),
    "norm type": (lambda: nn.lp_pool2d(X, 0, 2), r"norm_type=0"),
    "divisor": (lambda: nn.avg_pool2d(X, 2, divisor_override=0), r"divisor_override=0"),
    "adaptive": (lambda: nn.adaptive_avg_pool2d(X, (1, 2, 3)), r"output_size=\(1, 2, 3\) does not fit"),
    "linear": (lambda: nn.linear(X, W[0, 0]), r"linear: input \(1, 4, 8, 8\) and weight \(3, 3\)"),
    "batch norm": (lambda: nn.batch_norm(X, X[0, 0, 0], X[0, 0, 0]), r"running_mean has shape \(8,\).* needs \(4,\)"),
    "group norm": (lambda: nn.group_norm(X, 3), r"num_groups=3 does not divide the 4 channels"),
    "layer norm": (lambda: nn.layer_norm(X, (4, 8)), r"normalized_shape=\(4, 8\) are not the last sizes"),
    "axis": (lambda: nn.softmax(X, 4), r"softmax: dim=4 is no axis of input \(1, 4, 8, 8\)"),
    "pad": (lambda: nn.pad(X, (1,)), r"pad=\(1,\); two integers an axis"),
    "pad value": (lambda: nn.pad(np.zeros(3, np.uint8), (1, 1), value=300), r"value=300 for input of uint8"),
    "crop": (lambda: nn.pad(X, (-5, -4)), r"padding \(-5, -4\) of axis -1"),
    "mode": (lambda: nn.interpolate(X, 4, mode="cubic"), r"mode='cubic'; accepted are 'nearest'"),
    "mode's rank": (lambda: nn.interpolate(X, 4, mode="linear"), r"mode='linear' takes 3 axes"),
    "size and factor": (lambda: nn.interpolate(X, 4, 2.0), r"give one of size=4 and scale_factor=2.0"),
    "fold": (lambda: nn.fold(X[0], (8, 8), 2), r"fold: input \(4, 8, 8\); \[N, C \* 4, 49\] is needed"),
    "prelu": (lambda: nn.prelu(X, np.zeros(3, np.float32)), r"prelu: weight has shape \(3,\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_errors_say_what_is_wrong(case):
    function, message = ERRORS[case]
    with pytest.raises(InputError, match=message):
        function()


# --- calls -----------------------------------------------------------------------------------------------------------
def test_nothing_heavy_is_imported_before_the_first_call():
    import subprocess
    import sys

    code = "import sys, sigconv; sigconv.nn.conv2d; print(*sorted({'numba', 'onnx', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_layouts_and_byte_orders_do_not_change_a_bit(rng):
    x = rng.standard_normal((2, 3, 9, 10)).astype(np.float32)
    w = rng.standard_normal((5, 3, 3, 3)).astype(np.float32)
    want = nn.conv2d(x, w)
    reverse = np.ascontiguousarray(x[..., ::-1])[..., ::-1]
    moved = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    for same in (reverse, moved, np.asfortranarray(x), x.astype(">f4")):
        np.testing.assert_array_equal(nn.conv2d(same, np.asfortranarray(w)), want)
    x.flags.writeable = w.flags.writeable = False
    np.testing.assert_array_equal(nn.conv2d(x, w), want)


def test_weights_may_change_in_place(rng):
    x, w = rng.standard_normal((1, 3, 8, 8)), rng.standard_normal((4, 3, 3, 3))
    first = nn.conv2d(x, w)
    w *= 2
    np.testing.assert_array_equal(nn.conv2d(x, w), 2 * first)


def test_out_takes_the_result_even_if_it_overlaps(rng):
    x, w = rng.standard_normal((1, 4, 8, 8)), rng.standard_normal((4, 4, 3, 3))
    want = nn.conv2d(x, w, padding=1)
    out = np.empty_like(want)
    assert nn.conv2d(x, w, padding=1, out=out) is out
    np.testing.assert_array_equal(out, want)
    strided = np.empty((1, 4, 8, 16))[..., ::2]
    assert nn.conv2d(x, w, padding=1, out=strided) is strided
    np.testing.assert_array_equal(strided, want)
    single = np.empty((4, 8, 8))
    assert nn.conv2d(x[0], w, padding=1, out=single) is single
    np.testing.assert_array_equal(single, want[0])
    inside = x.copy()
    nn.conv2d(inside, w, padding=1, out=inside)
    np.testing.assert_array_equal(inside, want)


def test_float16_is_computed_in_float32(rng):
    x, w = (rng.standard_normal(s).astype(np.float16) for s in ((1, 64, 9, 9), (8, 64, 3, 3)))
    got = nn.conv2d(x, w, padding=1)
    assert got.dtype == np.float16
    wide = nn.conv2d(x.astype(np.float32), w.astype(np.float32), padding=1)
    np.testing.assert_array_equal(got, wide.astype(np.float16))
    out = np.empty_like(got)
    assert nn.conv2d(x, w, padding=1, out=out) is out
    np.testing.assert_array_equal(out, got)


def test_lists_are_arrays(rng):
    assert nn.relu([-1, 2]).tolist() == [0.0, 2.0]
    x = rng.standard_normal((1, 1, 4)).astype(np.float32)
    assert nn.conv1d(x, [[[1, 2]]], [0.5], stride=[1]).dtype == np.float32


def test_an_empty_batch(rng):
    assert nn.conv2d(X[:0], W).shape == (0, 6, 6, 6)
    assert nn.max_pool2d(X[:0], 2).shape == (0, 4, 4, 4)


def test_the_number_of_threads_does_not_change_a_bit(rng, monkeypatch):
    x, w, b = (rng.standard_normal(s).astype(np.float32) for s in ((2, 24, 30, 31), (40, 24, 3, 3), 40))
    results = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("SIGCONV_THREADS", threads)
        nn.clear_cache()
        y = nn.conv2d(x, w, b, padding=1, activation="relu")
        z = nn.conv_transpose2d(y, w, stride=2)
        results.append((y, z, nn.avg_pool2d(z, 3), nn.softmax(y, 1), nn.group_norm(y, 4)))
    nn.clear_cache()
    for other in results[1:]:
        for got, want in zip(other, results[0], strict=True):
            np.testing.assert_array_equal(got, want)


def test_threads_at_the_same_time(rng):
    """Calls of one layer from many threads each get their own answer."""
    x = [rng.standard_normal((1, 8, 20, 20)).astype(np.float32) for _ in range(6)]
    w = [rng.standard_normal((8, 8, 3, 3)).astype(np.float32) for _ in range(6)]
    want = [nn.conv2d(a, b) for a, b in zip(x, w, strict=True)]
    wrong = []

    def work(i):
        for _ in range(100):
            if not np.array_equal(nn.conv2d(x[i], w[i]), want[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_kept_layers_are_bounded(monkeypatch):
    nn.clear_cache()
    monkeypatch.setattr(calls, "KEPT_LAYERS", 3)
    for n in range(1, 6):
        nn.relu(np.ones(n))
    assert len(calls._layers) == 3
    monkeypatch.setattr(calls, "KEPT_BYTES", 0)
    nn.relu(np.ones(9))
    assert len(calls._layers) == 1
    nn.clear_cache()
    assert not calls._layers


def test_every_public_name_is_documented():
    for name in nn.__all__:
        assert getattr(nn, name).__doc__, name
    assert sigconv.nn is nn
