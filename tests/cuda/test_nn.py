"""The functions of `sigconv.nn` on device arrays give the CPU's results, as device arrays."""

from __future__ import annotations

import numpy as np
import pytest
from numba import cuda

from sigconv import nn
from sigconv.errors import InputError

F32 = np.float32


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(F32)


CALLS = {
    "conv2d": (nn.conv2d, [(2, 4, 6, 5), (6, 2, 3, 2), (6,)], dict(padding=1, groups=2, activation="relu")),
    "conv1d": (nn.conv1d, [(1, 3, 12), (4, 3, 3)], dict(stride=2, dilation=2)),
    "conv3d": (nn.conv3d, [(1, 2, 4, 3, 5), (3, 2, 2, 2, 2), (3,)], {}),
    "circular": (nn.conv2d, [(1, 2, 4, 5), (2, 2, 3, 3)], dict(padding=1, padding_mode="circular")),
    "depthwise": (nn.conv2d, [(1, 6, 5, 5), (6, 1, 3, 3)], dict(groups=6, padding="same")),
    "transposed": (nn.conv_transpose2d, [(1, 3, 4, 3), (3, 2, 3, 3), (2,)], dict(stride=2, padding=1)),
    "max_pool2d": (nn.max_pool2d, [(1, 3, 7, 6)], dict(kernel_size=3, stride=2, padding=1)),
    "avg_pool1d": (nn.avg_pool1d, [(2, 3, 9)], dict(kernel_size=3)),
    "adaptive": (nn.adaptive_avg_pool2d, [(1, 3, 6, 6)], dict(output_size=1)),
    "linear": (nn.linear, [(5, 7), (4, 7), (4,)], {}),
    "layer_norm": (nn.layer_norm, [(3, 8)], dict(normalized_shape=8)),
    "softmax": (nn.softmax, [(3, 5)], {}),
    "gelu": (nn.gelu, [(3, 5)], {}),
    "pad": (nn.pad, [(1, 2, 4, 4)], dict(pad=(1, 2, 0, 1), mode="reflect")),
    "interpolate": (nn.interpolate, [(1, 2, 3, 4)], dict(scale_factor=2, mode="bilinear")),
}


@pytest.mark.parametrize("name", CALLS)
def test_functions(name, rng):
    function, shapes, parameters = CALLS[name]
    operands = [normal(rng, *s) for s in shapes]
    want = function(*operands, **parameters)
    for _ in range(2):  # the second call finds the layer compiled
        got = function(*map(cuda.to_device, operands), **parameters)
    assert not isinstance(got, np.ndarray)
    np.testing.assert_allclose(got.copy_to_host(), want, rtol=2e-5, atol=2e-5 * np.abs(want).max())


def test_places_of_the_maximum(rng):
    x = normal(rng, 2, 3, 7, 6)
    want = nn.max_pool2d(x, 3, 2, 1, return_indices=True)
    got = nn.max_pool2d(cuda.to_device(x), 3, 2, 1, return_indices=True)
    for there, here in zip(got, want, strict=True):
        np.testing.assert_array_equal(there.copy_to_host(), here)


def test_out(rng):
    x = normal(rng, 3, 5)
    out = cuda.device_array((3, 5), F32)
    assert nn.relu(cuda.to_device(x), out=out) is out
    np.testing.assert_array_equal(out.copy_to_host(), np.maximum(x, 0))


def test_nothing_is_copied_silently(rng):
    x, w = normal(rng, 1, 2, 4, 4), normal(rng, 3, 2, 3, 3)
    with pytest.raises(InputError, match="nothing is copied silently"):
        nn.conv2d(cuda.to_device(x), w)
    with pytest.raises(InputError, match="on the device"):
        nn.conv2d(cuda.to_device(x[0]), cuda.to_device(w))
    with pytest.raises(InputError, match="float16"):
        nn.relu(cuda.to_device(x.astype(np.float16)))
