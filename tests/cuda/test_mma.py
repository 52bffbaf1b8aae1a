"""Tensor cores: where a fragment's words lie, what rounding does, and convolutions of operands rounded beforehand."""

from __future__ import annotations

import itertools

import ml_dtypes
import numpy as np
import pytest

from sigconv.graph.interpret import interpret
from sigconv.graph.ir import Graph, Node, Value
from sigconv.kernels.cuda import mma
from sigconv.planner.lower.cuda import compile_cuda
from sigconv.runtime.cuda import CudaSession
from tests.cases import windows
from tests.cuda.simulator import use

F32 = np.float32
FORMATS = tuple(mma.FORMATS)


def _tf32(x):
    mantissa, exponent = np.frexp(np.asarray(x, np.float64))
    return np.ldexp(np.floor(np.abs(mantissa) * 2**11 + 0.5) * np.sign(mantissa), exponent - 11).astype(F32)


ROUNDED = {
    "tf32": _tf32,
    "f16": lambda x: np.asarray(x, F32).astype(np.float16).astype(F32),
    "bf16": lambda x: np.asarray(x, F32).astype(ml_dtypes.bfloat16).astype(F32),
}
"""Other code than the kernels' own for the same rounding."""


# --- fragments -------------------------------------------------------------------------------------------------------
# CUTLASS's layouts of the same instructions (cute/atom/mma_traits_sm80.hpp): of a lane (t % 4, t // 4) and the value's
# own coordinates, (sizes, strides) into the column-major matrix: an account of the layout that is not the PTX manual's.
CUTE = {
    1: {"A": ((2, 2), (16, 1), (8, 64)), "B": ((2,), (8, 1), (32,))},
    2: {"A": ((2, 2, 2), (32, 1), (16, 8, 128)), "B": ((2, 2), (16, 1), (8, 64))},
}
CUTE_C = ((2, 2), (32, 1), (16, 8))


def _positions(layout, lane):
    """Where a lane's values lie, the first coordinate of a value running fastest."""
    sizes, of_lane, of_value = layout
    base = lane % 4 * of_lane[0] + lane // 4 * of_lane[1]
    for reverse in itertools.product(*(range(s) for s in reversed(sizes))):
        yield base + sum(v * s for v, s in zip(reversed(reverse), of_value, strict=True))


@pytest.mark.parametrize("per_word", [1, 2])
def test_fragments_lie_as_cutlass_says(per_word, rng):
    depth = mma.WORDS * per_word
    a, b, c = (rng.standard_normal(s) for s in ((16, depth), (depth, 8), (16, 8)))
    flat_a, flat_b = a.ravel("F"), np.ascontiguousarray(b.T).ravel("F")

    def words(flat, layout, lane):
        values = [float(flat[p]) for p in _positions(layout, lane)]
        return [tuple(values[i : i + per_word]) for i in range(0, len(values), per_word)]

    layouts = CUTE[per_word]
    warp = [(*words(flat_a, layouts["A"], t), *words(flat_b, layouts["B"], t)) for t in range(mma.WARP)]
    assert {len(lane) for lane in warp} == {6}
    got = np.empty(16 * 8)
    for t in range(mma.WARP):
        places = list(_positions(CUTE_C, t))
        got[places] = mma.simulated(t, warp, tuple(c.ravel("F")[places]))
    np.testing.assert_allclose(got.reshape(16, 8, order="F"), a @ b + c, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", FORMATS)
def test_rounding(name, rng):
    of = mma.FORMATS[name]
    x = np.concatenate([rng.standard_normal(300) * 10.0 ** rng.integers(-3, 4, 300), [0, -0.0, 1, -2, 1 + 2**-11]])
    x = x.astype(F32)
    numbers = mma._CODES[name][-1]
    got = [numbers(of.pack(u, v)) for u, v in zip(x, x[::-1], strict=True)]
    want = ROUNDED[name](x)
    np.testing.assert_array_equal([g[0] for g in got], want)
    if of.per_word == 2:
        np.testing.assert_array_equal([g[1] for g in got], want[::-1])
    assert (np.abs(want - x) <= np.abs(x) * 2.0**-of.bits + 2.0**-25).all()  # float16 is coarser near 0
    for special in (np.inf, -np.inf, np.nan):
        np.testing.assert_array_equal(numbers(of.pack(F32(special), F32(1)))[0], special)


# --- convolutions ----------------------------------------------------------------------------------------------------
def _session(op, x, w, bias, attrs, name, dtype=F32):
    graph = Graph(
        (Node(op, ("x", "w", "b"), ("y",), attrs),), (Value("x", np.dtype(dtype), x.shape),), (Value("y"),),
        {"w": w.astype(dtype), "b": bias.astype(dtype)},
    )  # fmt: skip
    program = compile_cuda(graph, {"x": x.shape}, only={name}, tolerance=1, capability=(8, 0))
    assert name in {row.algorithm for row in program.rows}
    use(program)
    return CudaSession(program)


CASES = {
    "one-product": ((1, 2, 3, 3), (3, 2, 2, 2), {}),
    "groups": ((2, 6, 5, 4), (4, 3, 3, 2), {"group": 2, "pads": [1, 0, 1, 1], "strides": [2, 1]}),
    "dilated": ((1, 3, 9), (5, 3, 4), {"dilations": [2], "pads": [3, 1]}),
    "many-channels": ((1, 2, 3, 4), (67, 2, 1, 3), {"pads": [0, 1, 0, 1]}),
    "many-pixels": ((1, 1, 9, 8), (2, 1, 3, 3), {"pads": [1, 1, 1, 1]}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", FORMATS)
def test_convolution_of_rounded_operands(name, case, rng):
    x_shape, w_shape, attrs = CASES[case]
    dtype = np.float16 if name == "f16" else F32
    x, w, b = (rng.standard_normal(s).astype(dtype).astype(F32) for s in (x_shape, w_shape, w_shape[0]))
    tile = "128x128" if case == "groups" else "64x64"
    got = _session("Conv", x, w, b, attrs, f"implicit_mma_{name}_{tile}", dtype).run({"x": x.astype(dtype)})["y"]
    x, w = (ROUNDED[name](a) for a in (x, w))
    rest = {k: attrs[k] for k in ("strides", "pads", "dilations") if k in attrs}
    want = windows.conv_nd(x, w, b, groups=attrs.get("group", 1), **rest)
    tolerance = 1e-3 if dtype == np.float16 else 1e-5  # the first gives float16 back
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * np.abs(want).max())


@pytest.mark.parametrize("name, tile", [("bf16", "64x64"), ("f16", "64x64"), ("f16", "128x128")])
def test_transposed_convolution_of_rounded_operands(name, tile, rng):
    dtype = np.float16 if name == "f16" else F32
    x, w, b = (rng.standard_normal(s).astype(dtype).astype(F32) for s in ((1, 3, 3, 2), (3, 2, 3, 2), (2,)))
    attrs = {"strides": [2, 1], "pads": [1, 0, 0, 1]}
    session = _session("ConvTranspose", x, w, b, attrs, f"subpixel_mma_{name}_{tile}", dtype)
    got = session.run({"x": x.astype(dtype)})["y"].astype(F32)
    x, w = (ROUNDED[name](a) for a in (x, w))
    graph = Graph(
        (Node("ConvTranspose", ("x", "w", "b"), ("y",), attrs),), (Value("x", np.dtype(F32), x.shape),), (Value("y"),),
        {"w": w, "b": b},
    )  # fmt: skip
    tolerance = 1e-2 if dtype == np.float16 else 1e-5
    np.testing.assert_allclose(got, interpret(graph, {"x": x})["y"], rtol=tolerance, atol=tolerance)


def test_nan_and_infinity_pass(rng):
    x, w, b = (rng.standard_normal(s).astype(F32) for s in ((1, 1, 6), (2, 1, 2), (2,)))
    x[0, 0, 1], x[0, 0, 4] = np.nan, np.inf
    got = _session("Conv", x, w, b, {}, "implicit_mma_tf32_64x64").run({"x": x})["y"]
    want = windows.conv_nd(x, w, b)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    np.testing.assert_array_equal(np.isinf(got), np.isinf(want))


# --- choice ----------------------------------------------------------------------------------------------------------
def _chosen(tolerance, dtype=F32, weights=None, **options):
    """What runs a convolution that is large enough for tensor cores; nothing is launched."""
    w = np.random.default_rng(0).standard_normal((128, 64, 3, 3)).astype(dtype) if weights is None else weights
    graph = Graph(
        (Node("Conv", ("x", "w"), ("y",), {"strides": [2, 2]}),), (Value("x", np.dtype(dtype), (8, 64, 56, 56)),),
        (Value("y"),), {"w": w},
    )  # fmt: skip
    rows = compile_cuda(graph, {"x": (8, 64, 56, 56)}, tolerance=tolerance, **options).rows
    return next(row for row in rows if row.op == "Conv")


def test_tensor_cores_run_where_the_tolerance_admits_their_rounding():
    new = {"capability": (8, 0)}
    exact = _chosen(1e-4, **new)
    assert "mma" not in exact.algorithm
    assert "over the tolerance" in dict(exact.rejected)["implicit_mma_tf32_128x128"]
    assert "mma_tf32" in _chosen(5e-3, **new).algorithm
    assert "mma_bf16" in _chosen(5e-2, **new).algorithm
    assert "mma_f16" in _chosen(5e-3, np.float16, **new).algorithm  # the model itself says that float16 will do


def test_tensor_cores_need_the_architecture_and_a_sum_that_may_be_rounded():
    assert "mma" not in _chosen(1).algorithm  # the oldest architecture
    assert "8.0" in dict(_chosen(1, capability=(7, 5)).rejected)["implicit_mma_bf16_64x64"]
    codes = np.random.default_rng(0).integers(-99, 99, (128, 64, 3, 3)).astype(F32)
    assert "mma" not in _chosen(1, weights=codes, capability=(9, 0)).algorithm
    assert "mma" not in _chosen(1, np.float64, capability=(9, 0)).algorithm


def test_the_session_asks_the_device(rng):
    from sigconv.graph.builder import GraphBuilder
    from sigconv.model import Model

    b = GraphBuilder("net", 1)
    model = Model(b.build(b.conv(b.input("x", (4, 32, 64, 64)), 128, 3)))
    for tolerance, expected in ((None, False), (5e-3, True)):
        (row,) = model.compile(device="cuda", tolerance=tolerance).explain().rows
        assert ("mma" in row.algorithm) == expected
