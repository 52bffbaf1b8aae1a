"""What the chooser believes a method costs: seconds for the parts of each, with the machine they were measured on.

`benchmarks/calibrate` fits and rewrites the table; the model is in `sigconv.signal.methods`.
"""

from __future__ import annotations

from typing import Any

COSTS: dict[str, Any] = {
    "machine": {"cpu": "AMD EPYC (Zen 4), AVX-512", "date": "2026-11-21", "numba": "0.68", "scipy": "1.17.1"},
    # seconds of a call, whatever its size
    "call": {"small": 3e-6, "direct": 4e-5, "separable": 1e-4, "fft": 6e-5, "oa": 8e-5},
    # seconds of a multiply-add of the row kernels, by the type of the sums
    "mac": {"float32": 1.5e-11, "float64": 3.0e-11, "complex64": 6e-11, "complex128": 1.2e-10, "numpy": 1.5e-9},
    # the same where output rows cannot share what they read: kernels long on three axes and more
    "mac_apart": {"float32": 1.5e-10, "float64": 2.2e-10, "complex64": 2.4e-10, "complex128": 4e-10, "numpy": 1.5e-9},
    # seconds of a row of output, and of a number read or written
    "row": 2.0e-8,
    "move": {"float32": 4e-10, "float64": 8e-10, "complex64": 8e-10, "complex128": 1.6e-9, "numpy": 5e-9},
    # seconds of a transform: of n * log2(n), in cache and beyond it; and of a product of spectra, for a real number
    "transform": {"float32": 1.2e-10, "float64": 2.4e-10, "complex64": 2.4e-10, "complex128": 4.8e-10},
    "transform_far": {"float32": 4e-10, "float64": 8e-10, "complex64": 6e-10, "complex128": 1.2e-9},
    "spectrum": {"float32": 1e-9, "float64": 2e-9, "complex64": 2e-9, "complex128": 4e-9},
    # the share of a spectrum's product that cutting and joining blocks takes, for each axis after the first
    "tiling": 2.5,
    # bytes of a transform along one axis that still count as in cache
    "cache": 1 << 20,
}  # fmt: skip
