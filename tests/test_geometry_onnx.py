"""sigconv.geometry and the naive loops against ONNX shape inference and onnxruntime, on thousands of parameter sets.

Where the two and the specification disagree, the predicates below say how, and one test holds each case to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from sigconv.errors import InputError
from sigconv.geometry import AUTO_PADS, TransposedWindow, Window
from tests.cases import windows as naive
from tests.cases.onnx_nodes import IR_VERSION, run_ort

Case = tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]]


def weights(kernel: tuple[int, ...]) -> np.ndarray:
    return (1 + np.arange(np.prod(kernel), dtype=np.float32)).reshape(1, 1, *kernel)


def image(op: str, sizes: tuple[int, ...]) -> np.ndarray:
    ones = np.ones((1, 1, *sizes), np.float32)
    return ones if op == "AveragePool" else ones.cumsum(axis=-1, dtype=np.float32)


def feed_name(op: str, sizes: tuple[int, ...]) -> str:
    return f"{'ones' if op == 'AveragePool' else 'x'}_{'x'.join(map(str, sizes))}"


def one_model(cases: list[Case]) -> onnx.ModelProto:
    """A model with one node and one output a case."""
    nodes, inputs, initializers, outputs = [], {}, {}, []
    for number, (op, sizes, kernel, attrs) in enumerate(cases):
        x = feed_name(op, sizes)
        inputs[x] = helper.make_tensor_value_info(x, TensorProto.FLOAT, (1, 1, *sizes))
        names = [x]
        if op.startswith("Conv"):
            names.append(f"w_{'x'.join(map(str, kernel))}")
            initializers[names[1]] = numpy_helper.from_array(weights(kernel), names[1])
        nodes.append(helper.make_node(op, names, [f"y{number}"], kernel_shape=kernel, **attrs))
        outputs.append(helper.make_tensor_value_info(f"y{number}", TensorProto.FLOAT, None))
    graph = helper.make_graph(nodes, "grid", list(inputs.values()), outputs, list(initializers.values()))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=IR_VERSION)


def inferred(cases: list[Case]) -> list[tuple[int, ...]]:
    graph = onnx.shape_inference.infer_shapes(one_model(cases), strict_mode=True).graph
    return [tuple(d.dim_value for d in value.type.tensor_type.shape.dim)[2:] for value in graph.output]


def computed(cases: list[Case]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(one_model(cases).SerializeToString(), options, ["CPUExecutionProvider"])
    feeds = {feed_name(op, sizes): image(op, sizes) for op, sizes, _, _ in cases}
    return [y[0, 0] for y in session.run(None, feeds)]


def drawn(op: str, count: int, rank: int, seed: int, excluded: Callable[[Case], bool]) -> list[Case]:
    """Distinct random parameter sets that geometry accepts, without those ``excluded``."""
    random = np.random.default_rng(seed)
    cases: dict[str, Case] = {}
    while len(cases) < count:
        sizes, kernel = (tuple(random.integers(1, high, rank).tolist()) for high in (10, 5))
        strides, dilations = (tuple(random.integers(1, high, rank).tolist()) for high in (5, 4))
        attrs: dict[str, Any] = {"strides": strides, "dilations": dilations}
        auto_pad = str(random.choice(AUTO_PADS, p=[0.55, 0.05, 0.2, 0.2]))
        if auto_pad == "NOTSET":
            attrs["pads"] = tuple(int(random.integers(0, 4 if op.startswith("Conv") else k)) for k in kernel * 2)
        else:
            attrs["auto_pad"] = auto_pad
        if op.endswith("Pool"):
            attrs["ceil_mode"] = int(random.integers(2))
        if op == "AveragePool":
            attrs["count_include_pad"] = int(random.integers(2))
        if op == "ConvTranspose":
            attrs["output_padding"] = tuple(
                int(random.integers(max(pair))) for pair in zip(strides, dilations, strict=True)
            )
            if random.integers(4) == 0:
                attrs["output_shape"] = tuple(random.integers(1, 12, rank).tolist())
                attrs.pop("pads", None)
        case = (op, sizes, kernel, attrs)
        try:
            window(*case)
        except InputError:
            continue
        if not excluded(case):
            cases[repr(case)] = case
    return list(cases.values())


def window(
    op: str, sizes: tuple[int, ...], kernel: tuple[int, ...], attrs: dict[str, Any]
) -> Window | TransposedWindow:
    given = {name: value for name, value in attrs.items() if name != "count_include_pad"}
    return TransposedWindow.of(sizes, kernel, **given) if op == "ConvTranspose" else Window.of(sizes, kernel, **given)


def auto(attrs: dict[str, Any]) -> bool:
    return attrs.get("auto_pad", "").startswith("SAME")


def shape_inference_differs(case: Case) -> bool:
    """For SAME the specification wants ``input_shape * strides`` outputs; shape inference adds output_padding. It also
    gives up where output_shape is less than the input."""
    op, sizes, _, attrs = case
    if op != "ConvTranspose":
        return False
    if "output_shape" in attrs:
        return any(wanted < size for wanted, size in zip(attrs["output_shape"], sizes, strict=True))
    return auto(attrs) and any(attrs["output_padding"])


def onnxruntime_differs(case: Case) -> bool:
    """What onnxruntime does and the specification does not.

    With SAME, Conv refuses dilation and pools ignore it, and a stride wider than the kernel gives a negative total pad
    (shape inference clamps it): pools refuse it, Conv skips inputs from -2 on. ConvTranspose refuses output_padding of
    a stride or more, which a larger dilation allows.
    """
    op, sizes, kernel, attrs = case
    if op == "ConvTranspose":
        return any(extra >= stride for extra, stride in zip(attrs["output_padding"], attrs["strides"], strict=True))
    if not auto(attrs):
        return False
    total = [(-(-n // s) - 1) * s + k - n for n, k, s in zip(sizes, kernel, attrs["strides"], strict=True)]
    return any(d > 1 for d in attrs["dilations"]) or min(total) < (-1 if op == "Conv" else 0)


def expected(case: Case) -> np.ndarray:
    op, sizes, kernel, attrs = case
    x = image(op, sizes)
    shared = {name: attrs[name] for name in ("strides", "dilations") if name in attrs}
    geometry = window(*case)
    if op == "ConvTranspose":
        # Naive scattering with output_padding enough for any output_shape, cut to the output.
        surplus = {**shared, "output_padding": (16,) * len(sizes)}
        full = naive.conv_transpose_nd(x, weights(kernel), **surplus)[0, 0]
        return full[tuple(slice(lo, lo + n) for lo, n in zip(geometry.pads, geometry.output, strict=False))]
    shared["pads"] = geometry.pads
    if op == "Conv":
        return naive.conv_nd(x, weights(kernel), **shared)[0, 0]
    if op == "MaxPool":
        # A window without inputs (dilated, in the padding) is -inf; onnxruntime writes the lowest finite number.
        y = naive.max_pool_nd(x, kernel, **shared, ceil_mode=attrs["ceil_mode"])[0][0, 0]
        return np.maximum(y, np.finfo(y.dtype).min)
    counted = geometry.divisors(bool(attrs["count_include_pad"]))
    return geometry.divisors(False) / np.maximum(counted, 1)


OPS = ("Conv", "MaxPool", "AveragePool", "ConvTranspose")


@pytest.mark.parametrize("rank, count", [(1, 1200), (2, 600), (3, 200)])
@pytest.mark.parametrize("op", OPS)
def test_shape_inference_on_a_grid(op: str, rank: int, count: int) -> None:
    cases = drawn(op, count, rank, rank, shape_inference_differs)
    for case, shape in zip(cases, inferred(cases), strict=True):
        assert window(*case).output == shape, case


@pytest.mark.parametrize("rank, count", [(1, 1200), (2, 400), (3, 60)])
@pytest.mark.parametrize("op", OPS)
def test_onnxruntime_on_a_grid(op: str, rank: int, count: int) -> None:
    """Shapes of all ops, values of convolutions and maxima, and divisors through average pools of ones."""
    cases = drawn(op, count, rank, 10 + rank, onnxruntime_differs)
    for case, y in zip(cases, computed(cases), strict=True):
        assert window(*case).output == y.shape, case
        np.testing.assert_allclose(y, expected(case), rtol=1e-5, atol=1e-5, err_msg=str(case))


def test_the_stated_differences_are_real() -> None:
    """Where a grid leaves cases out, one of each is held against both sides here."""
    transposed: Case = (
        "ConvTranspose",
        (3,),
        (4,),
        {"strides": (2,), "auto_pad": "SAME_UPPER", "output_padding": (1,)},
    )
    assert inferred([transposed]) == [(7,)]
    assert computed([transposed])[0].shape == window(*transposed).output == (6,)
    pool: Case = ("MaxPool", (7,), (3,), {"dilations": (2,), "auto_pad": "SAME_UPPER"})
    assert computed([pool])[0].shape == (5,)
    assert inferred([pool]) == [window(*pool).output] == [(7,)]
    for refused in (
        ("Conv", (7,), (3,), {"dilations": (2,), "auto_pad": "SAME_UPPER"}),
        ("MaxPool", (5,), (1,), {"strides": (3,), "auto_pad": "SAME_UPPER"}),
    ):
        assert inferred([refused]) == [window(*refused).output]
        with pytest.raises(Exception, match=r"Dilation not supported|must be non-negative"):
            computed([refused])
    skipping: Case = ("Conv", (4,), (1,), {"strides": (4,), "auto_pad": "SAME_UPPER"})
    assert window(*skipping).pads == (0, 0)
    assert (expected(skipping).tolist(), computed([skipping])[0].tolist()) == ([1.0], [2.0])
    extra: Case = ("ConvTranspose", (3,), (2,), {"dilations": (2,), "output_padding": (1,)})
    assert inferred([extra]) == [window(*extra).output] == [(6,)]
    with pytest.raises(Exception, match="output_padding"):
        computed([extra])
    # A kernel wider than its padded input: C's division rounds towards zero and invents a window.
    too_wide: Case = ("MaxPool", (2,), (3,), {"strides": (2,)})
    assert computed([too_wide])[0].shape == inferred([too_wide])[0] == (1,)
    with pytest.raises(InputError, match="spans 3, more than the input size 2"):
        window(*too_wide)


# The oracle itself


@pytest.mark.parametrize("seed", range(8))
def test_naive_loops_agree_with_onnxruntime(seed: int) -> None:
    """Batches, groups and bias, which the grids leave at one."""
    random = np.random.default_rng(seed)
    groups = int(random.integers(1, 4))
    x = random.standard_normal((2, 2 * groups, 6, 7), np.float32)
    w = random.standard_normal((3 * groups, 2, 3, 2), np.float32)
    attrs = {"strides": [1, 2], "dilations": [2, 1], "pads": [1, 0, 2, 1]}
    b = random.standard_normal(3 * groups, np.float32)
    (y,) = run_ort("Conv", [x, w, b], {**attrs, "group": groups})
    np.testing.assert_allclose(naive.conv_nd(x, w, b, **attrs, groups=groups), y, rtol=1e-4, atol=1e-4)
    u = random.standard_normal((2 * groups, 3, 3, 2), np.float32)
    (y,) = run_ort("ConvTranspose", [x, u, b], {**attrs, "group": groups, "output_padding": [0, 1]})
    scattered = naive.conv_transpose_nd(x, u, b, **attrs, groups=groups, output_padding=[0, 1])
    np.testing.assert_allclose(scattered, y, rtol=1e-4, atol=1e-4)
    (y, where) = run_ort("MaxPool", [x], {**attrs, "kernel_shape": [3, 2], "ceil_mode": 1}, n_outputs=2)
    values, indices = naive.max_pool_nd(x, [3, 2], **attrs, ceil_mode=True)
    np.testing.assert_array_equal(values, y)
    np.testing.assert_array_equal(indices, where)
    for include in (0, 1):
        (y,) = run_ort(
            "AveragePool", [x], {**attrs, "kernel_shape": [3, 2], "ceil_mode": 1, "count_include_pad": include}
        )
        mean = naive.avg_pool_nd(x, [3, 2], **attrs, ceil_mode=True, count_include_pad=bool(include))
        np.testing.assert_allclose(mean, y, rtol=1e-5, atol=1e-5)


def test_naive_loops_do_not_touch_their_inputs(rng) -> None:
    x, w = rng.standard_normal((1, 2, 5)), rng.standard_normal((2, 2, 3))
    before = x.copy(), w.copy()
    (
        naive.conv_nd(x, w, pads=[1, 1]),
        naive.conv_transpose_nd(x, w),
        naive.max_pool_nd(x, [2]),
        naive.avg_pool_nd(x, [2]),
    )
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(w, before[1])
