"""Matrix products."""

from __future__ import annotations

import numpy as np

from sigconv.ops._infer import (
    NUMERIC,
    Attrs,
    Facts,
    broadcast_shapes,
    check_broadcasts_to,
    check_rank,
    common_dtype,
    fact,
    merge_dim,
)
from sigconv.ops._numeric import accumulator, widened
from sigconv.ops.spec import Fact, Shape, register


def matmul_shape(a: Fact, b: Fact) -> Shape | None:
    """The shape of NumPy's ``a @ b``; ModelError where the inner sizes or the batch sizes do not fit."""
    for given, what in ((a, "A"), (b, "B")):
        check_rank(given, least=1, what=what)
    if a.shape is None or b.shape is None:
        return None
    inner = b.shape[-2] if len(b.shape) > 1 else b.shape[0]
    merge_dim(a.shape[-1], inner, f"the inner sizes of A {a.shape} and B {b.shape}")
    batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
    assert batch is not None
    return (*batch, *a.shape[-2:-1], *(b.shape[-1:] if len(b.shape) > 1 else ()))


def _infer_matmul(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    return [Fact(common_dtype(facts, allowed=NUMERIC), matmul_shape(fact(facts, 0), fact(facts, 1)))]


@register("MatMul", infer=_infer_matmul, since=13)
@widened
def MatMul(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    kind = accumulator(A.dtype)
    return A.astype(kind, copy=False) @ B.astype(kind, copy=False)


def gemm_shape(a: Fact, b: Fact, attrs: Attrs) -> Shape:
    """The shape of a Gemm's output."""
    for given, what in ((a, "A"), (b, "B")):
        check_rank(given, (2,), what=what)
    m, k = (a.shape or (None, None))[:: -1 if attrs["transA"] else 1]
    inner, columns = (b.shape or (None, None))[:: -1 if attrs["transB"] else 1]
    sides = (("A", a.shape, attrs["transA"]), ("B", b.shape, attrs["transB"]))
    turned = " and ".join(f"{name} {shape}{' transposed' if flag else ''}" for name, shape, flag in sides)
    merge_dim(k, inner, f"the inner sizes of {turned}")
    return m, columns


def _infer_gemm(facts: Facts, attrs: Attrs, n: int) -> list[Fact]:
    dtype = common_dtype(facts, allowed=NUMERIC)
    shape = gemm_shape(fact(facts, 0), fact(facts, 1), attrs)
    check_broadcasts_to(fact(facts, 2), shape, "C")
    return [Fact(dtype, shape)]


@register("Gemm", infer=_infer_gemm, since=13)
@widened
def Gemm(
    A: np.ndarray,
    B: np.ndarray,
    C: np.ndarray | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> np.ndarray:
    """alpha A B + beta C, A and B transposed where asked; integers stay exact while alpha and beta are 1."""
    kind = accumulator(A.dtype)
    y = (A.T if transA else A).astype(kind, copy=False) @ (B.T if transB else B).astype(kind, copy=False)
    y = y if alpha == 1 else alpha * y
    if C is not None:
        y = y + (C if beta == 1 else beta * C)
    return y.astype(kind)
