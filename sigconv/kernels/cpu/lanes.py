"""What reductions need beside `simd`: extrema that keep NaN, division, wider accumulators, single lanes.

Every operation takes numbers or vectors alike, so that one `combine` serves the vector body and the scalar tail.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from sigconv.kernels.simd import VectorType


@intrinsic
def maximum(typingctx, x, y):
    """The larger; NaN where either is."""
    return x(x, x), lambda ctx, b, sig, a: b.select(
        b.or_(b.fcmp_ordered(">", a[0], a[1]), b.fcmp_unordered("uno", a[0], a[0])), a[0], a[1]
    )


@intrinsic
def minimum(typingctx, x, y):
    """The smaller; NaN where either is."""
    return x(x, x), lambda ctx, b, sig, a: b.select(
        b.or_(b.fcmp_ordered("<", a[0], a[1]), b.fcmp_unordered("uno", a[0], a[0])), a[0], a[1]
    )


@intrinsic
def plus(typingctx, x, y):
    """x + y, rounded, in the order written."""
    return x(x, x), lambda ctx, b, sig, a: b.fadd(*a)


@intrinsic
def times(typingctx, x, y):
    """x * y, rounded, in the order written."""
    return x(x, x), lambda ctx, b, sig, a: b.fmul(*a)


@intrinsic
def over(typingctx, x, y):
    """x / y."""
    return x(x, x), lambda ctx, b, sig, a: b.fdiv(*a)


@intrinsic
def magnitude(typingctx, x):
    """|x|; NaN stays NaN."""

    def codegen(ctx, b, sig, a):
        value = a[0].type
        element = "f32" if isinstance(getattr(value, "element", value), ir.FloatType) else "f64"
        name = f"llvm.fabs.v{value.count}{element}" if isinstance(value, ir.VectorType) else f"llvm.fabs.{element}"
        return b.call(cgutils.get_or_insert_function(b.module, ir.FunctionType(value, [value]), name), [a[0]])

    return x(x), codegen


def _as_double(x: types.Type) -> types.Type:
    return VectorType(types.float64, x.count) if isinstance(x, VectorType) else types.float64


def _cast(ctx, b, value, source, target):
    if source == target:
        return value
    to = ctx.get_value_type(target)
    narrows = getattr(target, "dtype", target) == types.float32
    return b.fptrunc(value, to) if narrows else b.fpext(value, to)


@intrinsic
def widen(typingctx, x):
    """x in float64 (the same lanes)."""
    wide = _as_double(x)
    return wide(x), lambda ctx, b, sig, a: _cast(ctx, b, a[0], sig.args[0], sig.return_type)


@intrinsic
def narrow(typingctx, x, like):
    """The float64 ``x`` in the type of ``like``."""
    return like(x, like), lambda ctx, b, sig, a: _cast(ctx, b, a[0], sig.args[0], sig.return_type)


@intrinsic
def lane(typingctx, vector, index):
    """One number of a vector."""
    return vector.dtype(vector, types.int64), lambda ctx, b, sig, a: b.extract_element(a[0], a[1])
