"""``python -m benchmarks.gpu`` runs to its end."""

from __future__ import annotations

import json

import pytest

from benchmarks import gpu
from sigconv.kernels.cuda.jit import KERNELS
from sigconv.runtime.program import Launch


def test_the_command_checks_times_and_writes(tmp_path, capsys):
    target = tmp_path / "gpu.json"
    assert gpu.main(["--tiny", "--budget", "3", "--output", str(target)]) == 0
    document = json.loads(target.read_text())
    assert document["simulated"]
    done = [c for c in document["checks"] if c["ok"]]
    assert done
    assert all(c["difference"] <= max(gpu.TOLERANCE, gpu.ERRORS.get(c["algorithm"], 0)) for c in done)
    assert len({c["case"] for c in document["checks"]}) > 30  # those that there was no time for are listed
    assert "wrong" in capsys.readouterr().out


def test_every_kernel_is_among_the_checks(rng):
    """Those of tiny sizes, whose programs are made and not run."""
    seen = {"correlate_rows_f32", "correlate_planes_f32", "correlate_rows_f64", "correlate_planes_f64"}  # the signals
    options = dict(tolerance=1.0, capability=(9, 0))
    for case in gpu.cases.TINY.checks:
        graph, feeds = case.make(rng)
        shapes = {k: a.shape for k, a in feeds.items()}
        for name in gpu.algorithms(gpu.compile_cuda(graph, shapes, **options)):
            program = gpu.compile_cuda(graph, shapes, only={name}, **options)
            seen.update(step.kernel.name for step in program.steps if isinstance(step, Launch))
    assert sorted(set(KERNELS) - seen) == []


def test_a_wrong_result_is_found(monkeypatch, tmp_path):
    sizes = gpu.cases.TINY
    softmax = tuple(c for c in sizes.checks if c.name.startswith("Softmax"))
    few = gpu.cases.Sizes(softmax, (), (), (), sizes.signals[:1])
    monkeypatch.setattr(gpu.cases, "TINY", few)
    right = gpu._difference
    monkeypatch.setattr(gpu, "_difference", lambda got, want: right(got + 1e-3, want))
    assert gpu.main(["--tiny", "--checks", "--output", str(tmp_path / "gpu.json")]) == 1


@pytest.mark.parametrize("op", ["conv", "MaxPool", "Gemm", "GlobalAveragePool", "ConvTranspose"])
def test_torch_runs_the_same_nodes(op, rng):
    """The stand-in for torch's side of the comparison, on torch's CPU where torch is installed."""
    torch = pytest.importorskip("torch")
    from benchmarks import gpu_peers
    from sigconv.graph.interpret import interpret

    made = next(c for c in gpu.cases.TINY.checks if c.name.startswith(op))
    graph, feeds = made.make(rng)
    want = interpret(graph, feeds)
    got = gpu_peers.runner(torch, graph, feeds, "cpu")()
    for name, reference in want.items():
        assert abs(got[name].numpy() - reference).max() <= 1e-4
