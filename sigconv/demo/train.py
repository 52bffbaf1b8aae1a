"""Trains the demo's network and writes the two files beside this one: ``python -m sigconv.demo.train``.

LeNet-5 (LeCun et al., Gradient-based learning applied to document recognition, 1998) in today's usual form: ReLU and
max pooling; 61,706 parameters, input (N, 1, 32, 32) in [0, 1], output (N, 10) logits. The data are scikit-learn's 1,797
handwritten digits of 8×8, upscaled bilinearly. A quarter of them, drawn per class, is held out and never trained on.

Needs the extra ``train``. Everything is seeded and runs in one thread: the same torch on the same processor gives the
same files; they were made with torch 2.13.0 and scikit-learn 1.9.1.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional

from sigconv.demo import DIGITS, MODEL, upscale

SEED = 1998
EPOCHS = 40
BATCH = 32
SHOWN = 2


def lenet5() -> nn.Sequential:
    """The network: two convolutions with pooling, a third that sees all of its input, two dense layers."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 120, 5),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    )


def split() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Digits (N, 8, 8) in 0…16 and labels, both uint8: to train on, and held out.

    The held-out part begins with two digits of each class, in order: the ones the demo shows.
    """
    digits, labels = load_digits(return_X_y=True)
    digits, labels = digits.reshape(-1, 8, 8).astype(np.uint8), labels.astype(np.uint8)
    fit, held = train_test_split(np.arange(len(labels)), test_size=0.25, stratify=labels, random_state=SEED)
    first = np.concatenate([held[labels[held] == digit][:SHOWN] for digit in range(10)])
    held = np.concatenate([first, np.setdiff1d(held, first)])
    return (digits[fit], labels[fit]), (digits[held], labels[held])


def tensors(digits: np.ndarray, labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (N, 1, 32, 32) and labels as torch takes them."""
    return torch.from_numpy(upscale(digits)), torch.from_numpy(labels).long()


def shifted(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each image moved by up to two pixels either way, so that the network learns shapes rather than places."""
    moves = torch.randint(-2, 3, (len(images), 2), generator=generator).tolist()
    return torch.stack([torch.roll(image, move, (1, 2)) for image, move in zip(images, moves, strict=True)])


def train(images: torch.Tensor, labels: torch.Tensor) -> nn.Sequential:
    """A network trained on (N, 1, 32, 32) images and their (N,) labels: Adam, one cosine from 2e-3 to 0."""
    generator = torch.Generator().manual_seed(SEED)
    torch.manual_seed(SEED)
    net = lenet5()
    steps = EPOCHS * -(-len(images) // BATCH)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(EPOCHS):
        total = 0.0
        for batch in torch.randperm(len(images), generator=generator).split(BATCH):
            loss = functional.cross_entropy(net(shifted(images[batch], generator)), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(batch)
        if epoch % 5 == 4:
            print(f"epoch {epoch + 1:2d}  loss {total / len(images):.4f}")
    return net.eval()


def export(net: nn.Module, path: Path, *, dynamo: bool) -> None:
    """Write the network as one self-contained file with a dynamic batch, by either of torch's exporters."""
    names = dict(input_names=["image"], output_names=["logits"])
    example = torch.zeros(2, 1, 32, 32)
    if dynamo:
        batch = {0: torch.export.Dim("batch")}
        torch.onnx.export(net, (example,), path, dynamo=True, external_data=False, dynamic_shapes=(batch,), **names)
    else:
        axes = {"image": {0: "batch"}, "logits": {0: "batch"}}
        torch.onnx.export(net, (example,), path, dynamo=False, dynamic_axes=axes, opset_version=17, **names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=MODEL.parent, help="folder of the two files")
    parser.add_argument("--dynamo", action="store_true", help="export with torch's newer exporter")
    arguments = parser.parse_args()

    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    fit, held = split()
    print(f"torch {torch.__version__}: {len(fit[1])} digits to train on, {len(held[1])} held out")
    net = train(*tensors(*fit))
    print(f"{sum(p.numel() for p in net.parameters()):,} parameters")
    images, labels = tensors(*held)
    with torch.no_grad():
        right = int((net(images).argmax(1) == labels).sum())
    print(f"held-out accuracy {right / len(labels):.2%} ({right} of {len(labels)})")

    arguments.output.mkdir(parents=True, exist_ok=True)
    model, data = arguments.output / MODEL.name, arguments.output / DIGITS.name
    export(net, model, dynamo=arguments.dynamo)
    np.savez_compressed(data, digits=held[0], labels=held[1])
    for path in (model, data):
        print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
