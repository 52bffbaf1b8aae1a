"""sigconv: convolution for signals and CNNs, kernels written in Python and compiled by Numba.

Names are loaded on first use: importing sigconv imports neither numba nor onnx.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "load": "sigconv.model",
    "Model": "sigconv.model",
    "InferenceSession": "sigconv.model",
    "SessionOptions": "sigconv.model",
    "GraphBuilder": "sigconv.graph.builder",
    "Sequential": "sigconv.models",
    "models": "sigconv.models",
    "SigconvError": "sigconv.errors",
    "ModelError": "sigconv.errors",
    "UnsupportedError": "sigconv.errors",
    "InputError": "sigconv.errors",
    "nn": "sigconv.nn",
    "choose_conv_method": "sigconv.signal.api",
    "convolve": "sigconv.signal.api",
    "convolve2d": "sigconv.signal.api",
    "correlate": "sigconv.signal.api",
    "correlate2d": "sigconv.signal.api",
    "correlation_lags": "sigconv.signal.api",
    "fftconvolve": "sigconv.signal.api",
    "oaconvolve": "sigconv.signal.api",
    "Plan": "sigconv.signal.plan",
    "Stream": "sigconv.signal.stream",
    "convolve_blocks": "sigconv.signal.tiles",
    "polymul": "sigconv.signal.plan",
    "match_template": "sigconv.signal.template",
    "phase_correlation": "sigconv.signal.template",
    "upfirdn": "sigconv.signal.upfirdn",
    "xcorr": "sigconv.signal.xcorr",
    "cv": "sigconv.cv",
    "filters": "sigconv.filters",
    "ndimage": "sigconv.ndimage",
    "numpy": "sigconv.numpy",
    "shapes": "sigconv.shapes",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'sigconv' has no attribute {name!r}")
    module = importlib.import_module(home)
    value = globals()[name] = (
        module if home == f"{__name__}.{name}" else getattr(module, name)
    )  # found at once next time
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
