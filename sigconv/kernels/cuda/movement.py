"""Data movement: strided copies and gathers of elements of 1, 2, 4 or 8 bytes, whatever they mean."""

from __future__ import annotations

from numba import cuda

from sigconv.kernels.cuda.index import quotient, unravel
from sigconv.kernels.cuda.jit import BLOCK, Kernel, kernel, record

DIMS = 8

COPY = record("Copy", "n rank src dst")
"""dst[dst + i0 * s0 + …] = src[src + i0 * t0 + …] over n elements in ``rank`` dimensions.

``table`` (int32): three rows of `DIMS`: sizes, strides of dst, strides of src; the last ``rank`` of each count.
From a single number with strides of 0 it fills."""

GATHER = record("Gather", "n rank dst")
"""dst[dst + i0 * s0 + …] = src[table0[i0] + table1[i1] + …], or fill[0] where an entry is -1.

``table`` (int32): sizes and strides of dst in rows of `DIMS`, then where each dimension's offsets start in ``offsets``.
"""

TAKE = record("Take", "n axis inner count")
"""y[o, i, r] = x[o, index[i], r] for x[outer, axis, inner] and ``count`` indices, negative ones from the end.

Indices out of range are clamped: a kernel has nobody to tell."""


def make_copy(word: str) -> Kernel:
    """``copy_uint32`` and its kin."""

    def copy(p, table, src, dst):
        for i in range(cuda.grid(1), p.n, cuda.gridsize(1)):
            rest = i
            source, target = p.src, p.dst
            for d in range(DIMS - 1, DIMS - 1 - p.rank, -1):
                above = quotient(rest, table[d])
                index = rest - above * table[d]
                rest = above
                target += index * table[DIMS + d]
                source += index * table[2 * DIMS + d]
            dst[target] = src[source]

    copy.__name__ = f"copy_{word}"
    return kernel(COPY, f"int32 {word} {word}", BLOCK)(copy)


def make_gather(word: str) -> Kernel:
    """``gather_uint32`` and its kin."""

    def gather(p, table, offsets, src, dst, fill):
        for i in range(cuda.grid(1), p.n, cuda.gridsize(1)):
            rest = i
            source, target = 0, p.dst
            there = True
            for d in range(DIMS - 1, DIMS - 1 - p.rank, -1):
                above = quotient(rest, table[d])
                index = rest - above * table[d]
                rest = above
                target += index * table[DIMS + d]
                step = offsets[table[2 * DIMS + d] + index]
                there = there and step >= 0
                source += step
            dst[target] = src[source] if there else fill[0]

    gather.__name__ = f"gather_{word}"
    return kernel(GATHER, f"int32 int32 {word} {word} {word}", BLOCK)(gather)


def make_take(word: str, index: str) -> Kernel:
    """``take_uint32_int64`` and its kin."""

    def take(p, indices, x, y):
        for at in range(cuda.grid(1), p.n, cuda.gridsize(1)):
            o, k, r = unravel(at, p.count, p.inner)
            i = indices[k]
            i = i + p.axis if i < 0 else i
            i = min(max(i, 0), p.axis - 1)
            y[at] = x[(o * p.axis + i) * p.inner + r]

    take.__name__ = f"take_{word}_{index}"
    return kernel(TAKE, f"{index} {word} {word}", BLOCK)(take)


WORDS = {1: "uint8", 2: "uint16", 4: "uint32", 8: "uint64"}
COPIES = {nbytes: make_copy(word) for nbytes, word in WORDS.items()}
GATHERS = {nbytes: make_gather(word) for nbytes, word in WORDS.items()}
"""By bytes of an element."""
TAKES = {(nbytes, i): make_take(WORDS[nbytes], i) for nbytes in (4, 8) for i in ("int32", "int64")}
"""By bytes of an element and dtype of the indices."""
