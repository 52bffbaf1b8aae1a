"""House rules that no ready-made linter knows. Each comes with a source that breaks it."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping

import pytest

from tests import sources

DECORATORS = {"njit", "jit", "cfunc", "vectorize", "guvectorize", "generated_jit", "stencil", "overload", "CFunc"}

Finding = tuple[int, str]


def one_decorating_place(module: str, tree: ast.Module) -> Iterator[Finding]:
    """Only kernels/jit.py decorates with numba; ``intrinsic`` is no decorator of kernels and is free."""
    if module == "sigconv.kernels.jit":
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "numba":
            names = {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("numba", "nb"):
            names = {node.attr}
        else:
            continue
        for name in sorted(names & DECORATORS):
            yield node.lineno, f"numba.{name}: kernels/jit.py is the only place that decorates"


def no_value_changing_fastmath(module: str, tree: ast.Module) -> Iterator[Finding]:
    """NaN and Inf survive: no ``fastmath=True``, and no flag nnan, ninf or fast anywhere."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "fastmath":
            if isinstance(node.value, ast.Constant) and node.value.value is True:
                yield node.value.lineno, "fastmath=True implies nnan and ninf"
        elif isinstance(node, ast.Constant) and node.value in ("nnan", "ninf", "fast"):
            yield node.lineno, f"the flag {node.value!r} loses NaN or Inf"


def knobs_live_in_config(module: str, tree: ast.Module) -> Iterator[Finding]:
    """The environment is read in config.py only; kernels/host.py reads numba's own variables."""
    if module in ("sigconv.config", "sigconv.kernels.host"):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv"):
            yield node.lineno, f"os.{node.attr}: a knob belongs into sigconv/config.py"


def no_bare_except_no_stub(module: str, tree: ast.Module) -> Iterator[Finding]:
    """No bare ``except:`` and no stub."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            yield node.lineno, "bare except"
        elif isinstance(node, ast.Raise) and "NotImplementedError" in ast.dump(node):
            yield node.lineno, "NotImplementedError: a stub"


def kernels_are_declared_without_numba(module: str, tree: ast.Module) -> Iterator[Finding]:
    """A process that only loads kernels imports neither Numba nor LLVM: `kernels/late.py` stands in for them."""
    late = ("sigconv.kernels.compiler", "sigconv.kernels.vectors")
    if not module.startswith("sigconv.kernels") or module.startswith(("sigconv.kernels.cuda", *late)):
        return
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            for name in names:
                if name.split(".")[0] == "numba" or name.startswith("llvmlite.binding"):
                    yield node.lineno, f"{name} is imported with the module"


def modules_have_docstrings(module: str, tree: ast.Module) -> Iterator[Finding]:
    """The first line of a file says what it is."""
    if tree.body and not ast.get_docstring(tree):
        yield 1, "no module docstring"


LINTS: dict[Callable[[str, ast.Module], Iterator[Finding]], tuple[tuple[str, str], ...]] = {
    one_decorating_place: (
        ("sigconv.kernels.cpu.gemm", "from numba import njit"),
        ("sigconv.kernels.cpu.gemm", "import numba\n@numba.njit\ndef f(): pass"),
        ("sigconv.runtime.team", "from numba.core.ccallback import CFunc"),
    ),
    no_value_changing_fastmath: (
        ("sigconv.kernels.jit", "inline = numba.njit(fastmath=True)"),
        ("sigconv.kernels.jit", "FASTMATH = {'nsz', 'nnan'}"),
        ("sigconv.kernels.simd", "builder.fmul(a, b, flags=('fast',))"),
    ),
    knobs_live_in_config: (
        ("sigconv.runtime.team", "import os\nspin = os.environ.get('SIGCONV_SPIN_US')"),
        ("sigconv.cli", "import os\nspin = os.getenv('SIGCONV_SPIN_US')"),
    ),
    no_bare_except_no_stub: (
        ("sigconv.model", "try:\n    f()\nexcept:\n    pass"),
        ("sigconv.model", "def f():\n    raise NotImplementedError"),
    ),
    kernels_are_declared_without_numba: (
        ("sigconv.kernels.cpu.gemm", "from numba import carray"),
        ("sigconv.kernels.simd", "import llvmlite.binding as llvm"),
    ),
    modules_have_docstrings: (("sigconv.model", "x = 1"),),
}
"""Each lint with the sources it must object to."""


def findings(lint: Callable[[str, ast.Module], Iterator[Finding]], trees: Mapping[str, ast.Module]) -> list[str]:
    return [f"{module}:{line} {what}" for module, tree in trees.items() for line, what in lint(module, tree)]


@pytest.mark.parametrize("lint", LINTS, ids=lambda lint: lint.__name__)
def test_the_package_passes(lint: Callable[[str, ast.Module], Iterator[Finding]]):
    assert findings(lint, sources.modules()) == []


@pytest.mark.parametrize(
    ("lint", "module", "source"),
    [(lint, *case) for lint, cases in LINTS.items() for case in cases],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_breach_is_found(lint: Callable[[str, ast.Module], Iterator[Finding]], module: str, source: str):
    assert findings(lint, {module: ast.parse(source)})
