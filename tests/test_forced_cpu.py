"""The same networks on plainer CPUs than the host's, and the machine code that the hot loops become."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import pytest
from numba import from_dtype, types
from numba.core.ccallback import CFunc

from sigconv.kernels import simd
from sigconv.kernels.cpu import direct
from sigconv.kernels.jit import FASTMATH, Kernel

ROOT = Path(__file__).parents[1]
X86 = platform.machine() in ("x86_64", "AMD64")
FEATURES = {
    "x86-64": "+sse2",
    "haswell": "+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt,+movbe",
}
VECTOR_BYTES = {"x86-64": 16, "haswell": 32}
HOST = dict(llvm.get_host_cpu_features())

PROGRAM = """
import os
import numpy as np
import sigconv as sc
from sigconv.kernels import simd
from sigconv.graph.ir import Graph, Node, Value
from sigconv.planner.compile import compile_graph
from sigconv.planner import build
from sigconv.planner.lower.cpu import strips, winograd
from sigconv.runtime.session import Session
from tests.cases import networks, windows

assert simd.VECTOR_BYTES == int(os.environ["EXPECTED_BYTES"]), simd.VECTOR_BYTES
proto = networks.cnn(size=13)
feeds = {"x": np.random.default_rng(1).standard_normal((2, 3, 13, 13)).astype(np.float32)}
want = networks.onnxruntime_run(proto, feeds)["y"]
session = sc.load(proto).compile({"x": feeds["x"].shape}, threads=2)
np.testing.assert_allclose(session.run(feeds)["y"], want, rtol=0, atol=1e-6)
for kind in (np.float32, np.complex128):  # transforms finish registers of every width in their own way
    x, h = (np.random.default_rng(n).standard_normal(n).astype(kind) * (1 - 2j if kind is np.complex128 else 1)
            for n in (3000, 150))
    want = np.convolve(x.astype(complex), h)
    np.testing.assert_allclose(sc.oaconvolve(x, h), want, rtol=0, atol=100 * np.finfo(kind).eps * abs(want).max())
print(" ".join(row.algorithm for row in session.explain().rows))
strips.CACHED = 0  # nothing is too small for a strip
winograd.CHUNK_BYTES = 0  # no weights stay in a cache
for name, layers in (  # candidates that no small network picks: each is a list of (filters, taps, pad, stride, groups)
    ("direct_pixels", [(5, 3, 1, 1, 1)]),
    ("winograd_4x4", [(20, 7, 3, 2, 1)]),
    ("winograd_3x3_4x4", [(6, 8, 2, 1, 1)]),
    ("winograd_2x2_5x5", [(9, 5, 2, 1, 1)]),
    ("winograd_2x2_24bit", [(37, 3, 1, 1, 1)]),
    ("strips", [(37, 1, 0, 1, 1), (37, 3, 1, 2, 37), (6, 1, 0, 1, 1)]),
):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((2, 3, 19, 37)).astype(np.float32)
    want, nodes, constants = x.astype(float), [], {}
    for i, (filters, taps, pad, stride, groups) in enumerate(layers):
        w = rng.standard_normal((filters, want.shape[1] // groups, taps, taps)) / taps
        constants[f"w{i}"] = w.astype(np.float32)
        window = {"pads": [pad] * 4, "strides": [stride] * 2}
        nodes.append(Node("Conv", (f"v{i}", f"w{i}"), (f"v{i + 1}",), window | {"group": groups}, f"conv{i}"))
        want = windows.conv_nd(want, constants[f"w{i}"].astype(float), groups=groups, **window)
    graph = Graph(tuple(nodes), (Value("v0", x.dtype, x.shape),), (Value(f"v{len(layers)}", x.dtype),), constants)
    for build.SPARE in (0, 9):  # the points of weights are made by the kernel, or kept
        program = compile_graph(graph, {}, 2, only={name})
        (got,) = Session(program).run({"v0": x}).values()
        np.testing.assert_allclose(got, want, rtol=0, atol=(1e-4 if "winograd" in name else 3e-6) * abs(want).max())
        assert name in [row.algorithm for row in program.rows], name
"""


def runs_here(cpu: str) -> bool:
    """Whether the host has everything that code for ``cpu`` may use."""
    return X86 and all(HOST.get(f.lstrip("+"), False) for f in FEATURES[cpu].split(","))


@pytest.mark.parametrize("cpu", [c for c in FEATURES if runs_here(c)] or ["generic"])
def test_a_plainer_cpu_gives_the_same_answers(cpu):
    forced = {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": FEATURES.get(cpu, "")}
    environment = os.environ | {"PYTHONPATH": str(ROOT), "EXPECTED_BYTES": str(VECTOR_BYTES.get(cpu, 16))} | forced
    command = [sys.executable, "-W", "error", "-c", PROGRAM]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    used = set(done.stdout.split())
    assert {"bytecode", "softmax_shifted", "pool_separable"} <= used
    assert any(name.startswith("direct_") for name in used)
    assert any(name.startswith("depthwise") for name in used)
    assert any(name.startswith("subpixel_") for name in used)
    assert "numpy" not in used


# --- machine code ----------------------------------------------------------------------------------------------------
def assembly(kernel: Kernel) -> str:
    """The host's assembly of a kernel."""
    signature = (types.CPointer(from_dtype(kernel.args)), types.int64, types.int64)
    options = {"nopython": True, "error_model": "numpy", "fastmath": FASTMATH}
    compiled = CFunc(kernel.function, (signature, types.void), locals={}, options=options)
    compiled.compile()
    return compiled._library.get_asm_str()


def inner_loops(text: str) -> list[list[str]]:
    """Straight pieces of code that end by jumping back to their own label."""
    loops = []
    for match in re.finditer(r"^(\.?L\w+):(.*?)(?=^\S+:)", text + "\nend:\n", re.M | re.S):
        label, body = match.groups()
        lines = [
            line.strip() for line in body.splitlines() if line.strip() and not line.strip().startswith(("#", ".", "//"))
        ]
        jumps = [
            i for i, line in enumerate(lines) if re.match(rf"(j\w+|b\.\w+|cbnz\s+\w+,)\s+{re.escape(label)}\b", line)
        ]
        if jumps:
            loops.append(lines[: jumps[0] + 1])
    return loops


@pytest.fixture(scope="module", params=(direct.direct_f32, direct.pointwise_f32), ids=lambda kernel: kernel.name)
def hot_loop(request: pytest.FixtureRequest) -> list[str]:
    """The inner loop of a kernel with the most multiply-adds."""
    return max(inner_loops(assembly(request.param)), key=lambda loop: sum(bool(MULTIPLY_ADD.match(i)) for i in loop))


MULTIPLY_ADD = re.compile(r"v?f?m(add|la|ul)\w*ps|fmla|vfmadd")
REGISTER = {64: r"%zmm\d+", 32: r"%ymm\d+", 16: r"%xmm\d+|\bv\d+\.4s"}[simd.VECTOR_BYTES]


def test_vectors_are_as_wide_as_the_host_allows():
    if X86:
        wide = (
            64 if HOST.get("avx512f") and HOST.get("avx512vl") else 32 if HOST.get("avx2") and HOST.get("fma") else 16
        )
    else:
        wide = 16
    assert wide == simd.VECTOR_BYTES or "NUMBA_CPU_NAME" in os.environ


def test_the_hot_loop_works_in_full_registers(hot_loop):
    """At least a full tile of multiply-adds, all on the widest registers, and none of them spilled to the stack."""
    sums = [i for i in hot_loop if MULTIPLY_ADD.match(i)]
    assert len(sums) >= max(vectors * pixels for vectors, pixels in simd.TILE.items())
    assert all(re.search(REGISTER, i) for i in sums)
    stores = [i for i in hot_loop if re.match(r"v?mov[au]p\w*\s+" + REGISTER.split("|")[0] + r",.*\(", i)]
    assert not stores, "accumulators leave their registers inside the loop"


def test_inner_loops_are_found():
    """The search itself: one loop, one straight piece of code."""
    text = ".LBB0_1:\n\tvfmadd231ps\t%zmm1, %zmm2\n\tjne\t.LBB0_1\n.LBB0_2:\n\tvmulps\t%zmm1, %zmm2\n\tretq\n"
    assert inner_loops(text) == [["vfmadd231ps\t%zmm1, %zmm2", "jne\t.LBB0_1"]]
