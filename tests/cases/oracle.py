"""Whole networks through onnxruntime: fresh random feeds, and how close answers must be. Imports nothing of ours."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime

SEED = int(os.environ.get("SIGCONV_TEST_SEED", "") or secrets.randbits(32))
"""Fresh in every run; each test prints it, and the environment variable brings it back."""

TOLERANCE = 1e-3
LEAST_SCALE = 0.05


def generator(*words: object) -> np.random.Generator:
    """Random numbers of this run for one case, named by ``words``; the seed is printed for when the case fails."""
    print(f"SIGCONV_TEST_SEED={SEED}")
    return np.random.default_rng([SEED, *"/".join(map(str, words)).encode()])


def onnxruntime_session(
    model: str | os.PathLike[str] | onnx.ModelProto, optimized: bool = True
) -> onnxruntime.InferenceSession:
    """The oracle, on one thread; ``optimized`` False: every node as it is written."""
    options = onnxruntime.SessionOptions()
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else os.fspath(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def expected(session: onnxruntime.InferenceSession, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What onnxruntime answers, by output name."""
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def assert_matches(
    got: Mapping[str, Any], want: Mapping[str, np.ndarray], steps: Mapping[str, float] | None = None
) -> None:
    """Same names, dtypes, shapes, NaNs, infinities and integers; floats within ``TOLERANCE`` of the output's scale.

    The scale is the largest finite magnitude, at least ``LEAST_SCALE``. ``steps`` gives the quantization step of an
    output of a quantized network: what it may differ by instead.
    """
    assert list(got) == list(want)
    for name, reference in want.items():
        value = got[name]
        assert isinstance(value, np.ndarray), name
        assert (value.dtype, value.shape) == (reference.dtype, reference.shape), name
        if reference.dtype.kind != "f":
            np.testing.assert_array_equal(value, reference, err_msg=name)
            continue
        finite = np.isfinite(reference)
        np.testing.assert_array_equal(value[~finite], reference[~finite], err_msg=name)  # NaN equals NaN here
        np.testing.assert_array_equal(np.isfinite(value), finite, err_msg=name)
        scale = max(float(np.abs(reference[finite]).max(initial=0)), LEAST_SCALE)
        allowed = (steps or {}).get(name, TOLERANCE * scale)
        worst = float(np.abs(value[finite].astype(np.float64) - reference[finite]).max(initial=0))
        assert worst <= allowed * (1 + 1e-6), (
            f"{name}: off by {worst:.3g}, {allowed:.3g} is allowed (scale {scale:.3g})"
        )
