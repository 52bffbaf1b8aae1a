"""Trained networks that are small enough for many tests: their names, and feeds."""

from __future__ import annotations

import json

import numpy as np

from tests.sources import MODELS

SMALL = [
    "mnist8_cntk",
    "cifar_pytorch",
    "ppocr_v2_cls",
    "yunet_n_dynamic",
    "kws_m_qdq",
    "st_yamnet_256",
    "ultraface_rfb320",
    "oww_embedding",
]


def feeds_of(name: str) -> dict[str, np.ndarray]:
    """Random float32 inputs of the shapes that the manifest names."""
    (entry,) = [e for e in json.loads((MODELS / "manifest.json").read_text()) if e["name"] == name]
    rng = np.random.default_rng(0)
    return {n: rng.standard_normal(s).astype(np.float32) for n, s in entry["ort_test_input_shapes"].items()}
