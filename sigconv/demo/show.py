"""The demo: digits, what the network says they are, how long it takes beside onnxruntime, and what ran where."""

from __future__ import annotations

import sys

import numpy as np

import sigconv
from sigconv import race
from sigconv.demo import MODEL, held_out, upscale

BLOCKS = {"unicode": " ▄▀█", "ascii": " _^#"}
"""One character for two pixels, one above the other: neither, the lower, the upper, both."""

SHOWN, ACROSS = 20, 10


def art(digits: np.ndarray, characters: str) -> list[str]:
    """Digits (N, 8, 8) in 0…16 side by side: four lines of eight characters a digit."""
    ink = digits > 6
    codes = 2 * ink[:, ::2] + ink[:, 1::2]
    return ["  ".join("".join(characters[c] for c in row) for row in line) for line in codes.transpose(1, 0, 2)]


def show(threads: int | None = None) -> None:
    """Run the demo, printing to standard output; RuntimeError or SigconvError if an engine fails."""
    try:
        BLOCKS["unicode"].encode(sys.stdout.encoding or "ascii")
        characters = BLOCKS["unicode"]
    except UnicodeEncodeError:
        characters = BLOCKS["ascii"]

    digits, labels = held_out()
    images = upscale(digits)
    model = sigconv.load(MODEL)
    predictions = model(images).argmax(1)
    for row in range(0, SHOWN, ACROSS):
        some = slice(row, row + ACROSS)
        print("\n".join(art(digits[some], characters)))
        pairs = zip(predictions[some], labels[some], strict=True)
        said = [f"{p}" if p == label else f"{p}, not {label}" for p, label in pairs]
        print("  ".join(s.center(8) for s in said).rstrip(), end="\n\n")

    right = int((predictions == labels).sum())
    shown = int((predictions[:SHOWN] == labels[:SHOWN]).sum())
    share = f"{right} of all {len(labels)} held-out digits ({right / len(labels):.1%})"
    print(f"{shown} of the {SHOWN} above are right, {share}")

    name = model.inputs[0].name
    session = model.compile({name: images[:1].shape}, threads=threads)
    count = session.explain().threads
    engines = [e for e in ("sigconv", "onnxruntime") if e in race.installed()]
    results = race.race(engines, MODEL, {name: images[:1]}, count, rounds=3)
    times = ", ".join(f"{r.engine} {r.seconds * 1e3:.3f} ms" for r in results)
    print(f"one image, {count} {'thread' if count == 1 else 'threads'}: {times}")
    print("\nwhat ran where (`sigconv explain --verbose` says why)")
    print(session.explain())
