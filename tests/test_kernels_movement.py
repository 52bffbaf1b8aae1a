"""Copies and gathers against NumPy: any strides, element sizes and numbers of threads, and nothing written outside."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import numpy as np
import pytest

from sigconv.kernels import strides
from sigconv.kernels.cpu import movement
from tests.cases.kernel_calls import call

DTYPES = [np.int8, np.float16, np.float32, np.float64]


def steps(array):
    return [s // array.itemsize for s in array.strides]


def copy(dst, src, threads=1):
    plan = movement.plan_copy(dst.shape, steps(dst), steps(np.broadcast_to(src, dst.shape)))
    call(movement.COPY[dst.itemsize], threads=threads, **plan, dst=dst, src=src)


def gather(dst, src, tables, threads=1, fill=0):
    plan = movement.plan_gather(tables, steps(dst))
    bits = int(np.array(fill, src.dtype).view(f"i{src.itemsize}"))
    call(movement.GATHER[dst.itemsize], threads=threads, **plan, dst=dst, src=src, fill=bits)


def numbers(shape, dtype, seed=0):
    """Random bit patterns, so NaN payloads too."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8).view(dtype).reshape(shape)


def assert_same_bits(got, want):
    assert got.shape == want.shape
    assert np.ascontiguousarray(got).tobytes() == np.ascontiguousarray(want).tobytes()


@pytest.mark.parametrize(
    ("shape", "operands", "dims", "collapsed"),
    [
        ((2, 3, 4), [(12, 4, 1), (12, 4, 1)], (24,), [(1,), (1,)]),
        ((2, 3, 4), [(12, 4, 1), (0, 4, 1)], (2, 12), [(12, 1), (0, 1)]),
        ((2, 1, 4), [(4, 99, 1), (8, 7, 1)], (2, 4), [(4, 1), (8, 1)]),
        ((3, 4), [(1, 3), (4, 1)], (4, 3), [(3, 1), (1, 4)]),
        ((1, 1), [(1, 1)], (), [()]),
        ((5, 0), [(0, 1)], (0,), [(0,)]),
    ],
)
def test_collapse(shape, operands, dims, collapsed):
    assert strides.collapse(shape, operands) == (dims, collapsed)


def test_broadcast_strides():
    assert strides.broadcast((3, 1), strides.contiguous((3, 1)), (2, 3, 4)) == (0, 1, 0)
    with pytest.raises(ValueError, match=r"\(3,\) does not broadcast to \(2, 4\)"):
        strides.broadcast((3,), (1,), (2, 4))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_copy_of_random_views(dtype, threads):
    """Random permutations, steps of either sign and repeats, into a random view of a larger buffer."""
    rng = np.random.default_rng(threads)
    for _ in range(60):
        rank = int(rng.integers(0, 6))
        shape = [
            int(rng.choice([1, 2, 3, 7, 8, 9, 17, 33])) if rank < 5 else int(rng.integers(1, 5)) for _ in range(rank)
        ]
        order = rng.permutation(rank)
        wide, index = [0] * rank, []
        for d in range(rank):
            step = int(rng.choice([1, 1, 1, 2, -1, -3]))
            wide[d] = shape[d] * abs(step) + 2
            index.append(
                slice(1, 1 + shape[d] * step, step)
                if step > 0
                else slice(wide[d] - 1, wide[d] - 1 + shape[d] * step, step)
            )
        inverse = np.argsort(order)
        src = numbers([wide[d] for d in order], dtype).transpose(inverse)[(..., *index)]
        if rank and rng.random() < 0.3:
            d = int(rng.integers(rank))
            src = np.broadcast_to(src.take([0], d), shape)
        buffer = numbers([s + 3 for s in shape], dtype, 1)
        expected = buffer.copy()
        inner = (..., *(slice(2, 2 + s) for s in shape))
        expected[inner] = src
        copy(buffer[inner], src, threads)
        assert_same_bits(buffer, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(8, 8), (9, 8), (64, 64), (67, 131), (16, 300), (300, 16), (5, 5000), (2, 65, 70)])
def test_transpose(shape, dtype):
    src = numbers(shape, dtype)
    for axes in {(1, 0, 2)[: len(shape)], tuple(range(len(shape)))[::-1]}:
        want = np.ascontiguousarray(src.transpose(axes))
        for threads in (1, 3):
            out = numbers(want.shape, dtype, 1)
            copy(out, src.transpose(axes), threads)
            assert_same_bits(out, want)


def test_blocked_layout_round_trip():
    x = numbers((2, 32, 5, 7), np.float32)
    blocked = np.zeros((2, 2, 5, 7, 16), np.float32)
    copy(blocked.transpose(0, 1, 4, 2, 3), x.reshape(2, 2, 16, 5, 7))
    assert_same_bits(blocked, x.reshape(2, 2, 16, 5, 7).transpose(0, 1, 3, 4, 2))
    back = np.zeros_like(x)
    copy(back.reshape(2, 2, 16, 5, 7), blocked.transpose(0, 1, 4, 2, 3))
    assert_same_bits(back, x)


def test_depth_to_space_is_one_copy():
    x = numbers((2, 12, 3, 5), np.float32)
    out = np.zeros((2, 3, 6, 10), np.float32)
    copy(out.reshape(2, 3, 3, 2, 5, 2), x.reshape(2, 2, 2, 3, 3, 5).transpose(0, 3, 4, 1, 5, 2))
    assert_same_bits(out, x.reshape(2, 2, 2, 3, 3, 5).transpose(0, 3, 4, 1, 5, 2).reshape(out.shape))


@pytest.mark.parametrize("dtype", DTYPES)
def test_fill_of_margins(dtype):
    x = numbers((3, 9, 11), dtype)
    want = x.copy()
    want[:, :, :2] = want[:, -1:] = 5
    value = np.array(5, dtype)
    copy(x[:, :, :2], value)
    copy(x[:, -1:], value, threads=2)
    assert_same_bits(x, want)


@pytest.mark.parametrize("shape", [(0,), (3, 0, 2), (0, 5), ()])
def test_copy_of_nothing_and_of_one(shape):
    src, out = numbers(shape, np.float32), np.full(shape, 7, np.float32)
    copy(out, src, threads=3)
    assert_same_bits(out, src)


def test_copy_refuses_nine_dimensions():
    with pytest.raises(ValueError, match="9 dimensions"):
        movement.plan_copy((2,) * 9, [3**d for d in range(9)], [3**d for d in range(9)])


def pad_table(size, before, after, mode, stride):
    """Source offsets of a padded axis, by np.pad itself."""
    if mode == "constant":
        return np.pad(np.arange(size) * stride, (before, after), constant_values=-1)
    return np.pad(np.arange(size) * stride, (before, after), mode=mode)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
@pytest.mark.parametrize("pads", [((0, 0), (1, 2), (2, 1)), ((1, 1), (0, 3), (0, 0)), ((0, 0), (0, 0), (4, 5))])
def test_pad(dtype, mode, pads):
    x = numbers((3, 6, 7), dtype)
    tables = [pad_table(n, *p, mode, s) for n, p, s in zip(x.shape, pads, steps(x), strict=True)]
    want = np.pad(x, pads, constant_values=3) if mode == "constant" else np.pad(x, pads, mode=mode)
    for threads in (1, 2, 3, 7):
        buffer = numbers([n + 2 for n in want.shape], dtype, 1)
        expected = buffer.copy()
        expected[1:-1, 1:-1, 1:-1] = want
        gather(buffer[1:-1, 1:-1, 1:-1], x, tables, threads, fill=3)
        assert_same_bits(buffer, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gather_of_random_indices(dtype):
    rng = np.random.default_rng(5)
    x = numbers((4, 1, 9, 5, 3), dtype)
    for _ in range(20):
        chosen = [rng.integers(0, n, rng.integers(1, 9)) if rng.random() < 0.6 else np.arange(n) for n in x.shape]
        want = x[np.ix_(*chosen)]
        out = numbers(want.shape, dtype, 1)
        gather(out, x, [i * s for i, s in zip(chosen, steps(x), strict=True)], threads=int(rng.integers(1, 5)))
        assert_same_bits(out, want)


def test_nearest_upsampling_of_long_rows():
    x = numbers((2, 3, 3000), np.float32)
    i, j = np.arange(6) // 2, np.arange(9000) // 3
    want = x[:, i][:, :, j]
    for threads in (1, 3):
        out = np.zeros_like(want)
        gather(out, x, [np.arange(2) * 9000, i * 3000, j], threads)
        assert_same_bits(out, want)


def test_gather_merges_what_it_can():
    """Whole rows are one run; seven dimensions become six where the destination is dense."""
    x = numbers((4, 6, 5), np.float32)
    plan = movement.plan_gather([np.array([2, 0]) * 30, np.arange(6) * 5, np.arange(5)], [30, 5, 1])
    assert plan["run"] == 30
    x = numbers((2,) * 7, np.float32)
    want = x[::-1, ::-1, ::-1, ::-1, ::-1, ::-1, ::-1]
    out = np.zeros((2,) * 7, np.float32)
    gather(out, x, [np.array([1, 0]) * s for s in steps(x)])
    assert_same_bits(out, want)
    with pytest.raises(ValueError, match="7 dimensions"):
        movement.plan_gather([np.array([1, 0])] * 7, [3 ** (7 - d) for d in range(7)])


@pytest.mark.parametrize("tables", [[np.arange(0), np.arange(3)], [np.arange(2) * 3, np.arange(0)], [np.arange(0)], []])
def test_gather_of_nothing_and_of_one(tables):
    x = numbers((2, 3), np.float32)
    out = np.full([len(t) for t in tables], 7, np.float32)
    gather(out, x, tables, threads=2)
    assert_same_bits(out, x[0, 0] if not tables else out)


def test_on_a_plain_cpu():
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("names an x86 processor")
    environment = {**os.environ, "NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": ""}
    subset = "float32 and (random_views or transpose or pad) or upsampling"
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
