"""The elementwise kernels against NumPy in float64: every instruction, every kind of operand, any number of threads."""

from __future__ import annotations

import math
import os
import platform
import re
import subprocess
import sys

import numba
import numpy as np
import pytest
from numba import types

from sigconv.kernels.cpu import elementwise
from tests.cases.kernel_calls import call, parts

ERF = np.vectorize(math.erf, otypes=[np.float64])


def clip(x, low, high):
    return np.minimum(np.maximum(x, low), high)


def elu(x, alpha):
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


REFERENCE = {
    "copy": lambda x: x,
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "mul_add": lambda x, y, z: x * y + z,
    "pow": np.power,
    "min": np.minimum,
    "max": np.maximum,
    "neg": np.negative,
    "abs": np.abs,
    "sqrt": np.sqrt,
    "square": np.square,
    "reciprocal": lambda x: 1 / x,
    "exp": np.exp,
    "log": np.log,
    "sin": np.sin,
    "cos": np.cos,
    "erf": ERF,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "sign": np.sign,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    "clip": clip,
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x, alpha: np.where(x < 0, alpha * x, x),
    "prelu": lambda x, slope: np.where(x < 0, slope * x, x),
    "thresholded_relu": lambda x, alpha: np.where(x > alpha, x, 0),
    "elu": elu,
    "selu": lambda x, alpha, gamma: gamma * elu(x, alpha),
    "celu": lambda x, alpha: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0) / alpha)),
    "hard_sigmoid": lambda x, alpha, beta: clip(alpha * x + beta, 0, 1),
    "hard_swish": lambda x: x * clip(x / 6 + 0.5, 0, 1),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: 0.5 * x * (1 + ERF(x / np.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "mish": lambda x: x * np.tanh(np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))),
    "saturate": lambda x, zero, low, high: np.fmin(np.fmax(np.rint(x) + zero, low), high),
}
IMMEDIATES = {
    "saturate": (-128.0, 127.0),
    "clip": (-0.75, 1.25),
    "leaky_relu": (0.01,),
    "thresholded_relu": (0.5,),
    "elu": (1.5,),
    "selu": (1.6732632423543772, 1.0507009873554805),
    "celu": (0.7,),
    "hard_sigmoid": (0.2, 0.5),
}
# units in the last place, 1 where not said
ULP = {
    "pow": 1,
    "exp": 2,
    "log": 2,
    "erf": 2,
    "tanh": 2,
    "sigmoid": 3,
    "softplus": 3,
    "mish": 5,
    "elu": 3,
    "selu": 4,
    "celu": 4,
    "silu": 4,
    "gelu": 4,
    "gelu_tanh": 6,
    "softsign": 2,
    "hard_swish": 2,
}
# what the error is measured against where terms cancel, or where an intermediate is denormal before the result is
SCALE = {
    "gelu": lambda x: np.abs(x),
    "gelu_tanh": lambda x: np.abs(x),
    "hard_sigmoid": lambda x, alpha, beta: beta,
    "hard_swish": lambda x: np.abs(x),
    "mish": lambda x: 1e-35,
    "silu": lambda x: 1e-35,
}
DTYPES = [np.float32, np.float64]


def run(program, operands, *, shape=None, out=None, threads=1):
    """Run ``program`` on broadcast ``operands`` of one dtype; the result in ``out`` or in a new array."""
    shape = np.broadcast_shapes(*(x.shape for x in operands)) if shape is None else shape
    dtype = operands[0].dtype
    out = np.full(shape, 77, dtype) if out is None else out
    views = [np.broadcast_to(x, shape) for x in operands]
    table, immediates = elementwise.assemble(program)
    call(
        elementwise.KERNELS[dtype],
        threads=threads,
        **elementwise.plan(shape, steps(out), [steps(v) for v in views]),
        operands=operands,
        output=out,
        instructions=table,
        n_instructions=len(table),
        immediates=immediates,
        **parts(np.zeros((threads, elementwise.SCRATCH_BYTES), np.uint8)),
    )
    return out


def steps(array):
    return [s // array.itemsize for s in array.strides]


def one(name, *operands, **options):
    return run([(name, 0, range(len(operands)), IMMEDIATES.get(name, ()))], operands, **options)


def reference(name, *operands):
    """In float64, but for `mul_add`, whose product is rounded (and overflows) on its own."""
    wide = operands if name == "mul_add" else [x.astype(np.float64) for x in operands]
    with np.errstate(all="ignore"):
        return REFERENCE[name](*wide, *IMMEDIATES.get(name, ()))


def samples(dtype, seed=0):
    rng = np.random.default_rng(seed)
    parts = [
        rng.normal(size=3000),
        rng.normal(size=3000) * 20,
        np.exp(rng.uniform(-80, 80, 2000)),
        -np.exp(rng.uniform(-80, 5, 1001)),
    ]
    return rng.permutation(np.concatenate(parts)).astype(dtype)


def assert_close(name, got, want, operands):
    """Same NaN and infinities; numbers within ULP[name]."""
    scale = SCALE.get(name, lambda *_: 0.0)(*(x.astype(np.float64) for x in operands), *IMMEDIATES.get(name, ()))
    with np.errstate(all="ignore"):
        rounded = want.astype(got.dtype)
        spacing = np.spacing(np.maximum(np.abs(rounded), scale).astype(got.dtype))
    finite = np.isfinite(rounded)
    np.testing.assert_array_equal(got[~finite], rounded[~finite])
    error = np.abs(got[finite] - want[finite]) / spacing[finite]
    assert error.max(initial=0) <= ULP.get(name, 1), (name, error.max(), operands[0][finite][error.argmax()])


def test_every_instruction_has_a_reference():
    assert set(REFERENCE) == set(elementwise.OPCODES)
    assert {name for name, op in elementwise.OPCODES.items() if op.immediates} == set(IMMEDIATES)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", elementwise.OPCODES)
def test_instruction(name, dtype):
    operands = [samples(dtype, seed) for seed in range(elementwise.OPCODES[name].arity)]
    assert_close(name, one(name, *operands), reference(name, *operands), operands)


SPECIAL = [
    math.nan,
    math.inf,
    -math.inf,
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    2.0,
    -2.0,
    3.0,
    -3.0,
    1e-40,
    -1e-40,
    3e38,
    -3e38,
    89.0,
    -104.0,
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", elementwise.OPCODES)
def test_special_values(name, dtype):
    grid = np.meshgrid(*[np.array(SPECIAL, dtype)] * elementwise.OPCODES[name].arity)
    operands = [np.ascontiguousarray(x).ravel() for x in grid]
    got, want = one(name, *operands), reference(name, *operands)
    with np.errstate(all="ignore"):
        want = want.astype(dtype)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    np.testing.assert_array_equal(np.isinf(got), np.isinf(want))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6 if name in SCALE else 2e-38)
    if name in ("copy", "neg", "reciprocal", "pow", "tanh", "erf", "sqrt", "prelu"):
        np.testing.assert_array_equal(np.signbit(got[want == 0]), np.signbit(want[want == 0]))


def test_exp_reaches_denormals_and_overflows():
    x = np.array([-87.5, -95.0, -103.0, -103.9, -104.5, 88.7, 88.8], np.float32)
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(
            one("exp", x), np.exp(x.astype(np.float64)).astype(np.float32), rtol=1e-6, atol=1.5e-45
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shapes",
    [
        ((5, 7, 3), (7, 1)),
        ((2, 33, 49), (33, 1)),
        ((2, 33, 49), ()),
        ((1, 700, 3), (3,)),
        ((4, 1, 5), (1, 6, 1)),
        ((3, 2500), (3, 1)),
        ((1030,), (1030,)),
        ((), ()),
        ((2, 0, 3), (2, 1, 1)),
        ((2, 3, 2, 3, 2, 3), (3, 1, 3, 1, 3)),
    ],
)
def test_broadcasting(shapes, dtype):
    rng = np.random.default_rng(1)
    x, y = (rng.normal(size=s).astype(dtype) for s in shapes)
    np.testing.assert_array_equal(one("sub", x, y), x - y)
    np.testing.assert_array_equal(one("sub", y, x), y - x)


def test_views_in_and_out():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(9, 14, 40)).astype(np.float32)
    operands = x[::2, ::-1, 3:30:2], x[4:, 5, 17:3:-1].reshape(5, 1, 14)
    buffer = np.full((14, 5, 30), 7, np.float32)
    out = buffer.transpose(1, 0, 2)[:, :, 2:16]
    run([("add", 0, (0, 1), ())], operands, out=out)
    np.testing.assert_array_equal(out, operands[0] + operands[1])
    np.testing.assert_array_equal(buffer[:, :, :2], 7)
    np.testing.assert_array_equal(buffer[:, :, 16:], 7)


def test_in_place():
    x = np.clip(samples(np.float32), -1e3, 1e3)
    want = x * x + x
    np.testing.assert_array_equal(run([("mul", 8, (0, 0), ()), ("add", 0, (8, 0), ())], [x], out=x), want)


def test_chain_of_hard_swish():
    x = samples(np.float32)[:2048].reshape(2, 32, 32)
    program = [
        ("add", 8, (0, 1), ()),
        ("clip", 9, (8,), (0.0, 6.0)),
        ("mul", 8, (0, 9), ()),
        ("div", 0, (8, 2), ()),
    ]
    three, six = np.array(3, np.float32), np.array(6, np.float32)
    np.testing.assert_array_equal(run(program, [x, three, six]), x * np.clip(x + three, 0, six) / six)


@pytest.mark.parametrize("shape", [(3, 5, 7), (2, 700, 5), (5000,), (4, 33, 49)])
def test_threads_agree(shape):
    rng = np.random.default_rng(3)
    x, y = (
        rng.normal(size=shape).astype(np.float32),
        rng.normal(size=(shape[0],) + (1,) * (len(shape) - 1)).astype(np.float32),
    )
    program = [("sigmoid", 8, (0,), ()), ("mul_add", 9, (8, 1, 0), ()), ("tanh", 0, (9,), ())]
    first = run(program, [x, y])
    for threads in (2, 3, 7):
        assert run(program, [x, y], threads=threads).tobytes() == first.tobytes()


def test_a_value_does_not_depend_on_its_position():
    x = samples(np.float32)[:1500]
    for name in ("sigmoid", "tanh", "erf", "gelu", "pow"):
        operands = [x, x[::-1].copy()][: elementwise.OPCODES[name].arity]
        shifted = one(name, *(v[5:] for v in operands))
        assert shifted.tobytes() == one(name, *operands)[5:].tobytes()


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ([], "at least one"),
        ([("sine", 0, (0,), ())], "unknown instruction 'sine'"),
        ([("add", 0, (0,), ())], "add takes 2 operands and 0 immediates, not 1 and 0"),
        ([("clip", 0, (0,), (1.0,))], "clip takes 1 operands and 2 immediates"),
        ([("copy", 0, (16,), ())], "numbered 0 to 15"),
        ([("copy", 3, (0,), ()), ("copy", 0, (0,), ())], "registers 8 to 15, not 3"),
    ],
)
def test_assemble_refuses(program, message):
    with pytest.raises(ValueError, match=message):
        elementwise.assemble(program)


def test_plan_refuses_what_does_not_collapse():
    with pytest.raises(ValueError, match="7 dimensions"):
        elementwise.plan((2,) * 7, [3**d for d in range(7)], [])
    with pytest.raises(ValueError, match="9 operands"):
        elementwise.plan((2,), (1,), [(1,)] * 9)


def test_machine_code_is_vectors():
    kernel = elementwise.elementwise_float32
    signature = types.void(types.CPointer(numba.from_dtype(kernel.args)), types.int64, types.int64)
    assembly = numba.cfunc(signature)(kernel.function)._library.get_asm_str()
    assert len(re.findall(r"mulps|fmadd\d+ps|fml?a\S*\s+v\d", assembly)) > 50


def test_on_a_plain_cpu():
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("names an x86 processor")
    subset = "test_instruction and float32 or test_special_values and float32 or threads or broadcasting"
    environment = {**os.environ, "NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": ""}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-W",
        "error",
        "-p",
        "no:cacheprovider",
        __file__,
        "-k",
        subset,
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
