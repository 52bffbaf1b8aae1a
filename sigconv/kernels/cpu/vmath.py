"""Elementary functions on vectors of floats, written as formulas that emit LLVM code.

`Lanes` wraps an LLVM vector, so ``1 / (1 + exp(-x))`` builds the instructions of a vectorised sigmoid. Everything is
branch-free: special cases are selects. float32 functions are polynomials, a few ulp at worst, with NumPy's results at
0, infinities and NaN; float64 calls libm for exp, log, tanh, erf and pow, lane by lane. Range reductions depend on the
order of operations: emit them only into functions decorated with `jit.strict`.

Sources: S. L. Moshier, Cephes (exp, log, tanh); N. Juffa (erf, NVIDIA forums 2016).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir

from sigconv.kernels.late import cgutils

_FLOAT, _DOUBLE = ir.FloatType(), ir.DoubleType()
_SUFFIX = {_FLOAT: "f32", _DOUBLE: "f64"}
_INT = {_FLOAT: ir.IntType(32), _DOUBLE: ir.IntType(64)}


class Lanes:
    """A vector of floats, of integers (``bits``) or of conditions (comparisons), with the operators of numbers.

    A Python number meeting a vector becomes a constant of the vector's type.
    """

    def __init__(self, builder: ir.IRBuilder, value: ir.Value) -> None:
        self.builder, self.value, self.type = builder, value, value.type

    def _lift(self, other: Lanes | float) -> ir.Value:
        return other.value if isinstance(other, Lanes) else ir.Constant(self.type, [other] * self.type.count)

    def _emit(self, float_op: str, int_op: str, other: Lanes | float, swap: bool = False) -> Lanes:
        operands = (self._lift(other), self.value) if swap else (self.value, self._lift(other))
        return Lanes(self.builder, getattr(self.builder, float_op if self.is_float else int_op)(*operands))

    def _compare(self, operator: str, other: Lanes | float) -> Lanes:
        """Ordered: false where either is NaN, except ``!=``."""
        emit = self.builder.fcmp_unordered if operator == "!=" else self.builder.fcmp_ordered
        return Lanes(self.builder, emit(operator, self.value, self._lift(other)))

    @property
    def is_float(self) -> bool:
        return self.type.element in _SUFFIX

    @property
    def is_single(self) -> bool:
        return self.type.element is _FLOAT

    def __add__(self, other):
        return self._emit("fadd", "add", other)

    def __radd__(self, other):
        return self._emit("fadd", "add", other, swap=True)

    def __sub__(self, other):
        return self._emit("fsub", "sub", other)

    def __rsub__(self, other):
        return self._emit("fsub", "sub", other, swap=True)

    def __mul__(self, other):
        return self._emit("fmul", "mul", other)

    def __rmul__(self, other):
        return self._emit("fmul", "mul", other, swap=True)

    def __truediv__(self, other):
        return self._emit("fdiv", "", other)

    def __rtruediv__(self, other):
        return self._emit("fdiv", "", other, swap=True)

    def __lshift__(self, other):
        return self._emit("", "shl", other)

    def __rshift__(self, other):
        return self._emit("", "ashr", other)

    def __and__(self, other):
        return self._emit("", "and_", other)

    def __or__(self, other):
        return self._emit("", "or_", other)

    def __invert__(self):
        return Lanes(self.builder, self.builder.not_(self.value))

    def __neg__(self):
        return Lanes(self.builder, self.builder.fneg(self.value))

    def __lt__(self, other):
        return self._compare("<", other)

    def __le__(self, other):
        return self._compare("<=", other)

    def __gt__(self, other):
        return self._compare(">", other)

    def __ge__(self, other):
        return self._compare(">=", other)

    def equals(self, other: Lanes | float) -> Lanes:
        return self._compare("==", other)

    def differs(self, other: Lanes | float) -> Lanes:
        return self._compare("!=", other)

    def _retyped(self, emit: str, element: ir.Type) -> Lanes:
        return Lanes(self.builder, getattr(self.builder, emit)(self.value, ir.VectorType(element, self.type.count)))

    def bits(self) -> Lanes:
        """The same bits as integers."""
        return self._retyped("bitcast", _INT[self.type.element])

    def floats(self) -> Lanes:
        """The same bits as floats."""
        return self._retyped("bitcast", _FLOAT if self.type.element.width == 32 else _DOUBLE)

    def to_float(self) -> Lanes:
        """Integers by value."""
        return self._retyped("sitofp", _FLOAT if self.type.element.width == 32 else _DOUBLE)

    def to_double(self) -> Lanes:
        return self._retyped("fpext", _DOUBLE)

    def to_single(self) -> Lanes:
        return self._retyped("fptrunc", _FLOAT)


def _intrinsic(name: str, *operands: Lanes) -> Lanes:
    """An LLVM intrinsic that is overloaded on its vector type."""
    first = operands[0]
    full_name = f"llvm.{name}.v{first.type.count}{_SUFFIX[first.type.element]}"
    function_type = ir.FunctionType(first.type, [first.type] * len(operands))
    function = cgutils.get_or_insert_function(first.builder.module, function_type, full_name)
    return Lanes(first.builder, first.builder.call(function, [operand.value for operand in operands]))


def _libm(name: str, *operands: Lanes) -> Lanes:
    """The C library's function, lane by lane."""
    builder, vector = operands[0].builder, operands[0].type
    scalar = vector.element
    function_type = ir.FunctionType(scalar, [scalar] * len(operands))
    c_name = name + "f" if scalar is _FLOAT else name
    function = cgutils.get_or_insert_function(builder.module, function_type, c_name)
    result = ir.Constant(vector, ir.Undefined)
    for lane in range(vector.count):
        index = ir.Constant(ir.IntType(32), lane)
        call = builder.call(function, [builder.extract_element(operand.value, index) for operand in operands])
        result = builder.insert_element(result, call, index)
    return Lanes(builder, result)


def where(condition: Lanes, yes: Lanes | float, no: Lanes | float) -> Lanes:
    like = yes if isinstance(yes, Lanes) else no
    assert isinstance(like, Lanes)
    return Lanes(like.builder, like.builder.select(condition.value, like._lift(yes), like._lift(no)))


def fma(x: Lanes, y: Lanes | float, z: Lanes | float) -> Lanes:
    """x*y + z, fused where the target can."""
    return _intrinsic("fmuladd", x, Lanes(x.builder, x._lift(y)), Lanes(x.builder, x._lift(z)))


def polynomial(x: Lanes, *coefficients: float) -> Lanes:
    """Horner's rule, the highest power first."""
    result: Lanes | float = coefficients[0]
    for c in coefficients[1:]:
        result = fma(x, result, c)
    assert isinstance(result, Lanes)
    return result


def absolute(x: Lanes) -> Lanes:
    return _intrinsic("fabs", x)


def sqrt(x: Lanes) -> Lanes:
    return _intrinsic("sqrt", x)


def floor(x: Lanes) -> Lanes:
    return _intrinsic("floor", x)


def ceil(x: Lanes) -> Lanes:
    return _intrinsic("ceil", x)


def round_half_even(x: Lanes) -> Lanes:
    return _intrinsic("rint", x)


def copy_sign(magnitude: Lanes, sign: Lanes) -> Lanes:
    return _intrinsic("copysign", magnitude, sign)


def sin(x: Lanes) -> Lanes:
    return _libm("sin", x)


def cos(x: Lanes) -> Lanes:
    return _libm("cos", x)


def maximum(x: Lanes, y: Lanes) -> Lanes:
    """NaN where either is NaN."""
    return where(x.differs(x), x, where(x > y, x, y))


def minimum(x: Lanes, y: Lanes) -> Lanes:
    """NaN where either is NaN."""
    return where(x.differs(x), x, where(x < y, x, y))


def clip(x: Lanes, low: Lanes | float, high: Lanes | float) -> Lanes:
    """min(max(x, low), high) for bounds that are numbers; NaN stays NaN."""
    x = where(x < low, low, x)
    return where(x > high, high, x)


_ROUND = {True: 1.5 * 2.0**23, False: 1.5 * 2.0**52}  # adding it rounds to an integer, left in the low bits


def _nearest_integer(x: Lanes) -> tuple[Lanes, Lanes]:
    """(the integer nearest to a small x as float, the same as int)."""
    magic = _ROUND[x.is_single]
    shifted = x + magic
    return shifted - magic, shifted.bits() - int(
        np.array(magic, "f4" if x.is_single else "f8").view("i4" if x.is_single else "i8")
    )


def _expm1_reduced(x: Lanes) -> tuple[Lanes, Lanes]:
    """(expm1(r), n) with x = n ln 2 + r, |r| <= ln(2)/2; x must be a float32 that is clipped to exp's range."""
    k, n = _nearest_integer(x * (1 / math.log(2)))
    r = fma(k, -0.693359375, x)
    r = fma(k, 2.12194440e-4, r)
    p = polynomial(
        r, 1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1
    )
    return fma(r * r, p, r), n


def _power_of_two(n: Lanes) -> Lanes:
    """2**n as float32, -126 <= n <= 127."""
    return ((n + 127) << 23).floats()


def exp(x: Lanes) -> Lanes:
    if not x.is_single:
        return _libm("exp", x)
    p, n = _expm1_reduced(clip(x, -104.0, 89.0))
    half = n >> 1  # 2**n in two factors reaches denormals and infinity
    return (p + 1.0) * _power_of_two(half) * _power_of_two(n - half)


def _expm1_of_negative(x: Lanes) -> Lanes:
    """expm1 where x <= 0, and 0 for positive x."""
    if not x.is_single:
        return _libm("expm1", where(x > 0.0, 0.0, x))
    p, n = _expm1_reduced(clip(x, -87.0, 0.0))
    scale = _power_of_two(n)
    return fma(scale, p, scale - 1.0)


def log(x: Lanes) -> Lanes:
    if not x.is_single:
        return _libm("log", x)
    tiny = x < 1.17549435e-38
    bits = where(tiny, x * 2.0**25, x).bits()
    exponent = (bits - 0x3F3504F3) >> 23
    f = (bits - (exponent << 23)).floats() - 1.0  # of a mantissa in [sqrt(1/2), sqrt(2))
    e = where(tiny, exponent.to_float() - 25.0, exponent.to_float())
    z = f * f
    p = polynomial(
        f,
        7.0376836292e-2,
        -1.1514610310e-1,
        1.1676998740e-1,
        -1.2420140846e-1,
        1.4249322787e-1,
        -1.6668057665e-1,
        2.0000714765e-1,
        -2.4999993993e-1,
        3.3333331174e-1,
    )
    y = fma(e, -2.12194440e-4, f * z * p) - 0.5 * z
    result = fma(e, 0.693359375, f + y)
    result = where(x.equals(math.inf), x, result)
    result = where(x.equals(0.0), -math.inf, result)
    return where(x >= 0.0, result, math.nan)


def log1p_of_small(x: Lanes) -> Lanes:
    """log(1 + x) for 0 <= x <= 1 (W. Kahan's correction of the rounding of 1 + x)."""
    if not x.is_single:
        return _libm("log1p", x)
    u = x + 1.0
    return where(u.equals(1.0), x, log(u) * (x / (u - 1.0)))


def tanh(x: Lanes) -> Lanes:
    if not x.is_single:
        return _libm("tanh", x)
    size, z = absolute(x), x * x
    p = polynomial(z, -5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1)
    far = 1.0 - 2.0 / (exp(size + size) + 1.0)
    return copy_sign(where(size < 0.625, fma(p * z, size, size), far), x)


def erf(x: Lanes) -> Lanes:
    if not x.is_single:
        return _libm("erf", x)
    t, s = absolute(x), x * x
    near = fma(
        polynomial(s, -5.96761703e-4, 4.99119423e-3, -2.67681349e-2, 1.12819925e-1, -3.76125336e-1, 1.28379166e-1), x, x
    )
    t = clip(t, 0.0, 4.0)  # erf(4) rounds to 1
    r = fma(polynomial(t, -1.72853470e-5, 3.83197126e-4), t * t, polynomial(t, -3.88396438e-3, 2.42546219e-2))
    for c in (-1.06777877e-1, -6.34846687e-1, -1.28717512e-1):
        r = fma(r, t, c)
    far = copy_sign(1.0 - exp(fma(r, t, -t)), x)
    return where(absolute(x) > 0.927734375, far, near)


def sigmoid(x: Lanes) -> Lanes:
    """1 / (1 + exp(-x)), to denormal results."""
    e = exp(-absolute(x))
    return where(x < 0.0, e, 1.0) / (e + 1.0)


def softplus(x: Lanes) -> Lanes:
    """log(1 + exp(x)) without overflow."""
    return where(x < 0.0, 0.0, x) + log1p_of_small(exp(-absolute(x)))


def mish(x: Lanes) -> Lanes:
    """x tanh(softplus(x)) = x n / (n + 2) with n = e**x (e**x + 2)."""
    e = exp(where(x > 30.0, 30.0, x))
    n = e * (e + 2.0)
    return x * (n / (n + 2.0))


def elu(x: Lanes, alpha: Lanes | float = 1.0) -> Lanes:
    return where(x > 0.0, x, alpha * _expm1_of_negative(x))


def pow(x: Lanes, y: Lanes) -> Lanes:
    """C's pow, in float64 inside."""
    if not x.is_single:
        return _libm("pow", x, y)
    size, exponent = absolute(x).to_double(), y.to_double()
    t = exponent * _log2(size)
    magnitude = _exp2(t).to_single()
    one = absolute(x).equals(1.0) & y.equals(y)
    magnitude = where(one, 1.0, magnitude)
    integer = round_half_even(y).equals(y)
    odd = integer & round_half_even(y * 0.5).differs(y * 0.5)
    result = where(odd, copy_sign(magnitude, x), magnitude)
    result = where((x < 0.0) & ~integer & x.differs(-math.inf), math.nan, result)
    result = where(x.differs(x), x, result)
    return where(y.equals(0.0) | x.equals(1.0), 1.0, result)


def _log2(x: Lanes) -> Lanes:
    """log2 of float64 x >= 0 to about 40 bits: what a float32 power needs. NaN gives a number."""
    bits = x.bits()
    exponent = (bits - 0x3FE6A09E667F3BCD) >> 52
    m = (bits - (exponent << 52)).floats()
    f = (m - 1.0) / (m + 1.0)
    series = polynomial(f * f, *(2 / math.log(2) / k for k in (17, 15, 13, 11, 9, 7, 5, 3, 1)))
    result = fma(f, series, exponent.to_float())
    return where(x.equals(0.0), -math.inf, where(x.equals(math.inf), x, result))


def _exp2(x: Lanes) -> Lanes:
    """2**x of float64 x to about 40 bits, clipped to 2**±200: beyond float32 on both sides."""
    k, n = _nearest_integer(clip(x, -200.0, 200.0))
    r = (clip(x, -200.0, 200.0) - k) * math.log(2)
    return polynomial(r, *(1 / math.factorial(i) for i in range(11, -1, -1))) * ((n + 1023) << 52).floats()


Formula = Callable[..., Any]
"""(operands …, immediates …), all `Lanes` of one type -> `Lanes`."""
