"""DeformConv, MaxRoiPool and CumProd against onnxruntime and loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sigconv.errors import ModelError
from sigconv.ops.spec import Fact
from tests.cases.compute_nodes import I32, I64, integers, normal, of
from tests.cases.onnx_nodes import run_ort
from tests.cases.operator_checks import spec_of


def evaluate(op: str, inputs: Any, **attrs: Any) -> np.ndarray:
    spec = spec_of(op)
    (known,) = spec.infer([None if x is None else Fact.of(x) for x in inputs], spec.attributes(attrs), 1)
    (y,) = spec.evaluate(inputs, attrs)
    assert (known.dtype, known.shape) == (y.dtype, y.shape)
    return y


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("group", "offset_group", "attrs", "output"),
    [
        (1, 1, {}, (5, 4)),
        (2, 1, {"pads": [1, 2, 0, 1]}, (6, 7)),
        (1, 2, {"strides": [2, 1], "pads": [1, 1, 1, 1]}, (4, 6)),
        (2, 4, {"dilations": [2, 1], "pads": [2, 0, 2, 0]}, (7, 4)),
    ],
)
def test_deform_conv(group: int, offset_group: int, attrs: Any, output: tuple[int, int], masked: bool) -> None:
    x, w = normal(2, 4, 7, 6), normal(6, 4 // group, 3, 3)
    offset = normal(2, offset_group * 18, *output, scale=1.5)
    mask = np.abs(normal(2, offset_group * 9, *output)) if masked else None
    inputs = [x, w, offset, normal(6), mask] if masked else [x, w, offset]
    given = {"group": group, "offset_group": offset_group, "kernel_shape": [3, 3], **attrs}
    want = run_ort("DeformConv", inputs, given, opset=22)[0]
    np.testing.assert_allclose(evaluate("DeformConv", inputs, **given), want, rtol=1e-4, atol=1e-4)


def test_deform_conv_that_moves_nothing_is_a_convolution() -> None:
    x, w = normal(1, 2, 9), normal(3, 2, 4)
    still = np.zeros((1, 4, 6), np.float32)
    conv = spec_of("Conv")
    np.testing.assert_allclose(
        evaluate("DeformConv", [x, w, still]), conv.evaluate([x, w], {})[0], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("inputs", "attrs", "message"),
    [
        ([(1, 4, 5, 5), (2, 4, 3, 3), (1, 17, 3, 3)], {}, "size 1 of offset"),
        ([(1, 4, 5, 5), (2, 4, 3, 3), (1, 18, 3, 2)], {}, "size 3 of offset"),
        ([(1, 4, 5, 5), (2, 4, 3, 3), (1, 54, 3, 3)], {"offset_group": 3}, "offset_group is 3"),
        ([(1, 4, 5, 5), (2, 4, 3, 3), (1, 18, 3, 3), (3,)], {}, "the bias"),
    ],
)
def test_impossible_deform_conv(inputs: Any, attrs: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        evaluate("DeformConv", [normal(*shape) for shape in inputs], **attrs)


def test_max_roi_pool() -> None:
    x = normal(2, 3, 9, 11)
    rois = of([[0, 0, 0, 10, 8], [1, 2, 3, 7, 5], [1, 4.4, 1.6, 4.4, 1.6], [0, -3, -2, 30, 20], [1, 9, 7, 3, 2]])
    for shape, scale in (([2, 3], 1.0), ([4, 5], 0.7), ([1, 1], 0.3)):
        attrs = {"pooled_shape": shape, "spatial_scale": scale}
        want = run_ort("MaxRoiPool", [x, rois], attrs, opset=21)[0]
        np.testing.assert_array_equal(evaluate("MaxRoiPool", [x, rois], **attrs), want)
    with pytest.raises(ModelError, match="roi 0 is of image 2, there are 2"):
        evaluate("MaxRoiPool", [x, of([[2, 0, 0, 1, 1]])], pooled_shape=[1, 1])


@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("axis", [0, -1])
def test_cumulative_products(axis: int, exclusive: int, reverse: int) -> None:
    for x in (normal(3, 4), integers(3, 4, dtype=I32), normal(0, 2)):
        have = evaluate("CumProd", [x, np.array(axis, I64)], exclusive=exclusive, reverse=reverse)
        want = np.ones_like(x)
        for i, j in np.ndindex(*x.shape):
            line, k = (x[:, j], i) if axis == 0 else (x[i], j)
            part = line[k + exclusive :] if reverse else line[: k + 1 - exclusive]
            want[i, j] = np.prod(part, dtype=x.dtype)
        np.testing.assert_allclose(have, want, rtol=1e-6)
