"""What reductions need beside `simd`: extrema that keep NaN, division, roots, exp, log, float64 accumulators, lanes.

Every operation (and `simd.add`, `sub`, `mul`) takes numbers or vectors alike, so that one function serves the vector
body and the scalar tail.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from sigconv.kernels.cpu import vmath
from sigconv.kernels.jit import strict
from sigconv.kernels.late import cgutils, intrinsic, types
from sigconv.kernels.simd import _llvm_vector, _load, _masked_load, _splat, _suffix, _tail_mask, vector_of


def _extremum(builder, name, x, y):
    """LLVM's own, which gives NaN where either is: two instructions more than the processor's, which gives y."""
    fn_type = ir.FunctionType(x.type, [x.type, x.type])
    fn = cgutils.get_or_insert_function(builder.module, fn_type, f"llvm.{name}.{_suffix(x.type)}")
    return builder.call(fn, [x, y], fastmath=("nsz",))


@intrinsic
def maximum(typingctx, x, y):
    """The larger; NaN where either is."""
    return x(x, x), lambda ctx, b, sig, a: _extremum(b, "maximum", *a)


@intrinsic
def minimum(typingctx, x, y):
    """The smaller; NaN where either is."""
    return x(x, x), lambda ctx, b, sig, a: _extremum(b, "minimum", *a)


@intrinsic
def div(typingctx, x, y):
    """x / y."""
    return x(x, x), lambda ctx, b, sig, a: b.fdiv(*a)


def _apply(formula, builder, value):
    """A `vmath` formula on a vector, or on a number as a vector of one lane: the same bits."""
    if isinstance(value.type, ir.VectorType):
        return formula(vmath.Lanes(builder, value)).value
    zero, one_lane = ir.Constant(ir.IntType(32), 0), ir.VectorType(value.type, 1)
    vector = builder.insert_element(ir.Constant(one_lane, ir.Undefined), value, zero)
    return builder.extract_element(formula(vmath.Lanes(builder, vector)).value, zero)


@intrinsic
def magnitude(typingctx, x):
    """|x|; NaN stays NaN."""
    return x(x), lambda ctx, b, sig, a: _apply(vmath.absolute, b, a[0])


@intrinsic
def sqrt(typingctx, x):
    """The square root, correctly rounded."""
    return x(x), lambda ctx, b, sig, a: _apply(vmath.sqrt, b, a[0])


@intrinsic
def _exp(typingctx, x):
    return x(x), lambda ctx, b, sig, a: _apply(vmath.exp, b, a[0])


@strict
def exp(x):
    """e**x."""
    return _exp(x)


@intrinsic
def _log(typingctx, x):
    return x(x), lambda ctx, b, sig, a: _apply(vmath.log, b, a[0])


@strict
def log(x):
    """The natural logarithm."""
    return _log(x)


def _as_double(x: Any) -> Any:
    from sigconv.kernels.vectors import VectorType

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


def _evens(builder, low, high):
    """Every other element of two vectors of which the second begins with the last element of the first."""
    n = low.type.count
    picks = [*range(0, n, 2), *range(n + 1, 2 * n, 2)]
    return builder.shuffle_vector(low, high, ir.Constant(ir.VectorType(ir.IntType(32), n), picks))


@intrinsic
def load_even(typingctx, pointer, offset):
    """The vector of every other element from ``pointer + offset``; reads nothing beyond its last one."""
    vector = vector_of(pointer.dtype)

    def codegen(ctx, b, sig, a):
        vec = _llvm_vector(sig.args[0].dtype)
        low = _load(b, a[0], a[1], vec)
        high = _load(b, a[0], b.add(a[1], ir.Constant(a[1].type, vec.count - 1)), vec)
        return _evens(b, low, high)

    return vector(pointer, types.intp), codegen


@intrinsic
def load_first(typingctx, pointer, offset, count):
    """The first ``count`` elements of the vector at ``pointer + offset``, then zeros; reads nothing else."""
    vector = vector_of(pointer.dtype)

    def codegen(ctx, b, sig, a):
        vec = _llvm_vector(sig.args[0].dtype)
        return _masked_load(b, a[0], a[1], vec, _tail_mask(b, a[2], vec))

    return vector(pointer, types.intp, types.int64), codegen


@intrinsic
def load_first_even(typingctx, pointer, offset, count):
    """The first ``count`` elements of what `load_even` gives, then any; reads nothing beyond the last of them."""
    vector = vector_of(pointer.dtype)

    def codegen(ctx, b, sig, a):
        vec, last = _llvm_vector(sig.args[0].dtype), ir.Constant(a[1].type, vector.count - 1)
        extent = b.sub(b.add(a[2], a[2]), ir.Constant(a[2].type, 1))
        low = _masked_load(b, a[0], a[1], vec, _tail_mask(b, extent, vec))
        high = _masked_load(b, a[0], b.add(a[1], last), vec, _tail_mask(b, b.sub(extent, last), vec))
        return _evens(b, low, high)

    return vector(pointer, types.intp, types.int64), codegen


@intrinsic
def lane(typingctx, vector, index):
    """One number of a vector."""
    return vector.dtype(vector, types.int64), lambda ctx, b, sig, a: b.extract_element(a[0], a[1])


@intrinsic
def filled(typingctx, x, like):
    """``x`` in every lane of a vector of the type of ``like`` (`simd.broadcast` fills a register)."""
    return like(like.dtype, like), lambda ctx, b, sig, a: _splat(b, a[0], a[1].type)
