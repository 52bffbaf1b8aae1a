"""Who may import whom: docs/architecture.md's table, held by walking the imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Mapping

import pytest

from tests import sources

LEAVES = ("sigconv.errors", "sigconv.text", "sigconv.config", "sigconv.digest")
BASE = (*LEAVES, "sigconv.geometry")

# Room -> what it may import: of ours, and of others'. The longest name that fits is a module's room; a room may import
# itself, and anyone the standard library.
RULES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "sigconv.errors": ((), ()),
    "sigconv.text": ((), ()),
    "sigconv.config": ((), ("platformdirs",)),
    "sigconv.digest": ((), ()),
    "sigconv.lines": ((), ("numpy",)),
    "sigconv.geometry": (LEAVES, ("numpy",)),
    "sigconv.kernels": (("sigconv.lines",), ("numpy", "numba", "llvmlite")),
    "sigconv.kernels.cache": (("sigconv", "sigconv.config", "sigconv.digest"), ()),
    "sigconv.kernels.host": (("sigconv.digest",), ("llvmlite", "numba")),
    "sigconv.kernels.jit": (
        ("sigconv", "sigconv.config", "sigconv.digest", "sigconv.kernels"),
        ("numpy", "numba", "tqdm"),
    ),
    "sigconv.kernels.elf": ((), ()),
    "sigconv.ops": (BASE, ("numpy", "ml_dtypes")),
    "sigconv.graph": ((*BASE, "sigconv.ops"), ("numpy",)),
    "sigconv.runtime": ((*LEAVES, "sigconv.lines", "sigconv.kernels"), ("numpy",)),
    "sigconv.runtime.device": (
        (*LEAVES, "sigconv.kernels", "sigconv.runtime"),
        ("numpy", "numba", "cuda", "torch", "cupy", "jax"),
    ),
    "sigconv.planner": (
        (*BASE, "sigconv.lines", "sigconv.ops", "sigconv.graph", "sigconv.kernels", "sigconv.runtime.program"),
        ("numpy", "ml_dtypes"),
    ),
    "sigconv.export": (
        (*BASE, "sigconv.lines", "sigconv.ops", "sigconv.graph"),
        ("numpy", "ml_dtypes", "google", "onnx"),
    ),
    "sigconv.export.check": (
        (*BASE, "sigconv.ops", "sigconv.graph", "sigconv.export"),
        ("numpy", "onnx", "onnxruntime"),
    ),
    "sigconv.export.backend": (("sigconv", *LEAVES, "sigconv.model", "sigconv.export"), ("numpy", "onnx")),
    "sigconv.programs": ((*LEAVES, "sigconv.graph", "sigconv.planner", "sigconv.runtime"), ("numpy",)),
    "sigconv.model": (
        (
            *BASE,
            "sigconv.ops",
            "sigconv.graph",
            "sigconv.planner",
            "sigconv.runtime",
            "sigconv.programs",
            "sigconv.export",
            "sigconv.inspect",
        ),
        ("numpy",),
    ),
    "sigconv.inspect": ((*BASE, "sigconv.ops", "sigconv.graph", "sigconv.runtime"), ("numpy",)),
    "sigconv.shapes": ((*BASE, "sigconv.nn.arguments"), ("numpy",)),
    "sigconv.filters": (BASE, ("numpy",)),
    "sigconv.signal": (
        (*BASE, "sigconv.lines", "sigconv.kernels", "sigconv.runtime", "sigconv.planner.select", "sigconv.shapes"),
        ("numpy", "scipy"),
    ),
    "sigconv.nn": (
        (
            *BASE,
            "sigconv.kernels",
            "sigconv.runtime",
            "sigconv.planner",
            "sigconv.graph",
            "sigconv.ops",
            "sigconv.shapes",
        ),
        ("numpy",),
    ),
    "sigconv.nopython": (
        (*BASE, "sigconv.lines", "sigconv.kernels", "sigconv.signal", "sigconv.nn"),
        ("numpy", "numba", "llvmlite"),
    ),
    "sigconv.numpy": (("sigconv.signal", *BASE), ("numpy",)),
    "sigconv.window_sums": (("sigconv.signal",), ("numpy",)),
    "sigconv.ndimage": (("sigconv.window_sums", "sigconv.filters", *BASE), ("numpy",)),
    "sigconv.cv": (("sigconv.window_sums", "sigconv.filters", *BASE), ("numpy",)),
    "sigconv.models": ((*BASE, "sigconv.graph", "sigconv.model"), ("numpy",)),
    "sigconv.race": (("sigconv.errors", "sigconv.model"), ("numpy", "onnxruntime", "openvino")),
    "sigconv.files": (("sigconv.errors", "sigconv.graph.ir"), ("numpy", "PIL", "soundfile")),
    "sigconv.demo": (("sigconv", "sigconv.race"), ("numpy",)),
    "sigconv.demo.train": (("sigconv.demo",), ("numpy", "sklearn", "torch")),
    "sigconv.cli": (
        (
            *(
                "sigconv" + room
                for room in (
                    *(
                        "",
                        ".model",
                        ".inspect",
                        ".files",
                        ".race",
                        ".models",
                        ".demo",
                        ".kernels.border",
                        ".kernels.jit",
                    ),
                    *(".cv", ".filters", ".signal", ".runtime.device"),
                )
            ),
            "sigconv.export.check",
            *LEAVES,
        ),
        ("numpy",),
    ),
    "sigconv": ((), ()),  # __init__ knows names, and imports their homes when they are asked for
}
ALONE = ("sigconv",)
"""Where an allowance means this module only, not the rooms below it."""


def room_of(module: str) -> str:
    """The longest rule name that is ``module`` or a package around it; only ``sigconv`` itself falls under its rule."""
    rooms = [room for room in RULES if module == room or (room not in ALONE and module.startswith(room + "."))]
    return max(rooms, key=len, default="")


def within(module: str, allowed: tuple[str, ...]) -> bool:
    return any(module == a or (a not in ALONE and module.startswith(a + ".")) for a in allowed)


def violations(trees: Mapping[str, ast.Module]) -> list[str]:
    """One line for each import that its room does not allow, and for each module that has no room."""
    found = []
    for module, tree in trees.items():
        room = room_of(module)
        if not room:
            found.append(f"{module} has no room in RULES")
            continue
        ours, others = RULES[room]
        for line, target in sources.imports(tree, trees):
            top = target.split(".")[0]
            if top in sys.stdlib_module_names:
                continue
            if top == "sigconv":
                legal = within(target, (room, *ours))
            else:
                legal = top in others
            if not legal:
                found.append(f"{module}:{line} imports {target}, which {room} may not")
    return found


def test_every_import_is_allowed():
    assert violations(sources.modules()) == []


@pytest.mark.parametrize(
    ("module", "source", "target"),
    [
        ("sigconv.ops.conv", "import numba", "numba"),
        ("sigconv.graph.passes.fold", "def f():\n    from numba import njit", "numba"),
        ("sigconv.export.reader", "import sigconv.kernels.jit", "sigconv.kernels.jit"),
        ("sigconv.kernels.cpu.gemm", "from sigconv import geometry", "sigconv.geometry"),
        ("sigconv.geometry", "from sigconv.ops import spec", "sigconv.ops.spec"),
        ("sigconv.runtime.session", "from sigconv.graph.ir import Graph", "sigconv.graph.ir"),
        ("sigconv.planner.compile", "from sigconv.runtime.session import Session", "sigconv.runtime.session"),
        ("sigconv.model", "from sigconv.cli import main", "sigconv.cli"),
        ("sigconv.ops.conv", "import sigconv", "sigconv"),
        ("sigconv", "import sigconv.model", "sigconv.model"),
    ],
)
def test_a_forbidden_import_is_found(module: str, source: str, target: str):
    trees = {**sources.modules(), "sigconv.geometry": ast.parse(""), module: ast.parse(source)}
    assert any(v.startswith(module) and f"imports {target}," in v for v in violations(trees))


def test_a_module_without_a_room_is_found():
    assert violations({"sigconv.attic": ast.parse("")}) == ["sigconv.attic has no room in RULES"]


def test_an_allowed_import_is_not_found():
    source = "import math\nimport numpy as np\nfrom sigconv.errors import ModelError\nfrom sigconv.ops.spec import Fact"
    assert violations({"sigconv.ops.conv": ast.parse(source)}) == []


@pytest.mark.parametrize("statement", ["import sigconv", "import sigconv.cli", "import sigconv.geometry, sigconv.ops"])
def test_heavy_packages_stay_out(statement: str):
    """Importing sigconv, its command line or its NumPy rooms imports neither numba nor onnx (nor onnxruntime)."""
    code = f"{statement}\nimport sys\nprint(sorted({{'numba', 'llvmlite', 'onnx', 'onnxruntime'}} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
    assert out.stderr == ""
