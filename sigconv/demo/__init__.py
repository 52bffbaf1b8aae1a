"""A LeNet-5 trained on handwritten digits, 450 digits it has never seen, and the script that made both."""

from __future__ import annotations

from pathlib import Path

import numpy as np

MODEL = Path(__file__).parent / "lenet5.onnx"
DIGITS = Path(__file__).parent / "digits.npz"


def held_out() -> tuple[np.ndarray, np.ndarray]:
    """The digits held out of training: (450, 8, 8) uint8 in 0…16, the first 20 being two of each class, and labels."""
    with np.load(DIGITS) as file:
        return file["digits"], file["labels"]


def upscale(digits: np.ndarray) -> np.ndarray:
    """Digits (N, 8, 8) in 0…16 as the network's input: (N, 1, 32, 32) float32 in [0, 1], bilinear, half-pixel."""
    position = np.clip((np.arange(32) + 0.5) / 4 - 0.5, 0, 7)
    weights = np.maximum(0, 1 - abs(position[:, None] - np.arange(8)))
    return (weights @ (digits / 16) @ weights.T)[:, None].astype(np.float32)
