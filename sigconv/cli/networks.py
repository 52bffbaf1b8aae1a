"""Commands about networks: ``sigconv demo | run | check | info | bench | export``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sigconv
from sigconv.cli.options import Commands, divisors, numbers, positive, print_json
from sigconv.errors import InputError
from sigconv.text import sizes, table

if TYPE_CHECKING:
    import numpy as np

    from sigconv.model import Model

TOP = 5


def load(arguments: argparse.Namespace) -> Model:
    from sigconv.files import existing

    return sigconv.load(existing(arguments.model))


def fixed_shapes(model: Model, given: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """A fixed shape for every input: what ``--shape`` says, else the model's own with a free first size taken as 1."""
    named = {}
    for text in given:
        name, _, sizes = text.rpartition("=")
        try:
            named[name or model.inputs[0].name] = tuple(int(size) for size in sizes.replace("x", ",").split(","))
        except ValueError:
            raise InputError(f"--shape {text}: write it as NAME=1,3,224,224") from None
    unknown = sorted(set(named) - {v.name for v in model.inputs})
    if unknown:
        raise InputError(f"--shape {unknown[0]}: the model's inputs are {', '.join(v.name for v in model.inputs)}")
    for value in model.inputs:
        if value.name not in named:
            own = [1 if i == 0 and not isinstance(d, int) else d for i, d in enumerate(value.shape or (None, None))]
            if not all(isinstance(d, int) for d in own):
                sizes = ",".join(str(d or "?") for d in own)
                raise InputError(f"say how large input {value.name!r} is: --shape {value.name}={sizes} with numbers")
            named[value.name] = tuple(int(d) for d in own if d is not None)
    return named


def random_feeds_of(model: Model, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    from sigconv.export.check import random_feeds

    return random_feeds(replace(v, shape=shapes[v.name]) for v in model.inputs)


def _labels(path: str | None) -> list[str]:
    try:
        return Path(path).read_text("utf-8").splitlines() if path else []
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: no UTF-8 text ({error.reason} at byte {error.start})") from None


def _top(output: np.ndarray, count: int, labels: list[str]) -> list[list[dict[str, Any]]] | None:
    """The ``count`` best classes of each sample, best first; None if the output is no (N, classes[, 1, 1])."""
    if output.dtype.kind != "f" or output.ndim < 2 or output.shape[1] < 2 or output.shape[2:] not in ((), (1, 1)):
        return None
    scores = output.reshape(output.shape[:2])
    best = (-scores).argsort(1, kind="stable")[:, :count]
    return [
        [{"class": int(c), "label": labels[c] if c < len(labels) else None, "score": float(row[c])} for c in classes]
        for row, classes in zip(scores, best, strict=True)
    ]


def _range(array: np.ndarray) -> str:
    """The spread of an array's finite numbers, and how many are not."""
    import numpy as np

    finite = array[np.isfinite(array)].astype(np.float64)
    spread = f"min {finite.min():.6g}, mean {finite.mean():.6g}, max {finite.max():.6g}" if finite.size else ""
    others = f"{array.size - finite.size:,} of {array.size:,} not finite" if finite.size < array.size else ""
    return ", ".join(filter(None, (spread, others)))


def run(arguments: argparse.Namespace) -> int:
    """Feed a picture or arrays to a model and show, or keep, what comes out."""
    from sigconv.files import Picture, read_feeds, write_npz

    model, labels = load(arguments), _labels(arguments.labels)
    feeds = read_feeds(arguments.input, model.inputs, Picture(arguments.layout, arguments.mean, arguments.std))
    shapes = {k: v.shape for k, v in feeds.items()}
    session = model.compile(shapes, threads=arguments.threads, device=arguments.device, fallback=arguments.fallback)
    outputs = session.run(feeds)
    if arguments.output:
        write_npz(arguments.output, outputs)
    tops = {name: _top(array, arguments.top, labels) for name, array in outputs.items()}
    if arguments.json:
        described = {
            name: {"dtype": a.dtype.name, "shape": list(a.shape), "top": tops[name]} for name, a in outputs.items()
        }
        print_json({"model": arguments.model, "outputs": described})
        return 0
    for name, array in outputs.items():
        print(f"{name}: {array.dtype.name} {list(array.shape)}")
        top = tops[name]
        if top is not None:
            columns = {"sample": ">", "score": ">", "class": ">", **({"label": "<"} if labels else {})}
            rows = [
                [str(sample), f"{b['score']:.4f}", str(b["class"]), b["label"] or ""][: len(columns)]
                for sample, best in enumerate(top)
                for b in best
            ]
            print("\n".join("  " + line for line in table(columns, rows)))
        elif array.size and array.dtype.kind in "biuf":
            print("  " + _range(array))
    if arguments.output:
        print(f"wrote {arguments.output}")
    return 0


def check(arguments: argparse.Namespace) -> int:
    """Compare every node's output with onnxruntime's."""
    model = load(arguments)
    report = model.check(random_feeds_of(model, fixed_shapes(model, arguments.shape)), float64=arguments.float64)
    print(report.to_json() if arguments.json else report)
    return 0 if report.ok else 1


def info(arguments: argparse.Namespace) -> int:
    """What a model holds: every node's shape, parameters, multiply-accumulates, receptive field and memory."""
    if arguments.profile and not arguments.html:
        raise InputError("--profile is shown on the page of --html; times alone: sigconv explain MODEL --profile")
    model = load(arguments)
    shapes: dict[str, tuple[int, ...]] = {}
    unknown = ""
    try:
        shapes = fixed_shapes(model, arguments.shape)
    except InputError as error:
        if arguments.shape:
            raise
        unknown = f"\nto see more, {error}"
    if arguments.html:
        profile = random_feeds_of(model, shapes) if arguments.profile and shapes else False
        model.to_html(arguments.html, shapes, profile=profile, threads=arguments.threads)
    summary = model.summary(shapes)
    if arguments.json:
        print(summary.to_json())
        return 0
    print(summary)
    if shapes:
        at = ", ".join(f"{name} {sizes(shape)}" for name, shape in shapes.items())
        print(f"{'a session':<10} {model.compile(shapes, threads=arguments.threads).explain().memory()}; at {at}")
    print(f"wrote {arguments.html}" if arguments.html else unknown, end="\n" if arguments.html or unknown else "")
    return 0


def bench(arguments: argparse.Namespace) -> int:
    """Time a model beside the other engines that are installed."""
    from sigconv import config, race

    model = load(arguments)
    threads = arguments.threads or config.get("threads")
    feeds = random_feeds_of(model, fixed_shapes(model, arguments.shape))
    results = race.race(race.installed(), arguments.model, feeds, threads, rounds=arguments.rounds)
    ours = results[0]
    rows: list[dict[str, Any]] = [
        {
            "engine": r.engine,
            "version": race.version(r.engine),
            "ms": r.seconds * 1e3,
            "ratio": r.seconds / ours.seconds,
            "difference": max(
                (race.difference(a, b) for a, b in zip(ours.outputs, r.outputs, strict=True)), default=0.0
            ),
            "peak_mb": r.peak_nbytes / 1e6,
        }
        for r in results
    ]
    if arguments.json:
        print_json({"model": arguments.model, "threads": threads, "results": rows})
        return 0
    columns = {"engine": "<", "version": "<", "ms": ">", "ms / ours": ">", "difference": ">", "peak MB": ">"}
    cells = [
        [
            row["engine"],
            row["version"],
            f"{row['ms']:.3f}",
            f"{row['ratio']:.2f}",
            f"{row['difference']:.2g}",
            f"{row['peak_mb']:.0f}",
        ]
        for row in rows
    ]
    print("\n".join(table(columns, cells)))
    print(
        f"{threads} {'thread' if threads == 1 else 'threads'}, the fastest run of {arguments.rounds} turns; "
        "difference: relative to the largest output"
    )
    return 0


def export(arguments: argparse.Namespace) -> int:
    """Write a classic net as an ONNX file."""
    from sigconv.files import existing
    from sigconv.models import NETS

    if arguments.net not in NETS:
        raise InputError(f"no net is called {arguments.net!r} (nets: {', '.join(NETS)})")
    NETS[arguments.net](arguments.weights and existing(arguments.weights)).save(arguments.output, arguments.opset)
    print(f"wrote {arguments.output}")
    return 0


def demo(arguments: argparse.Namespace) -> int:
    """Classify handwritten digits with the LeNet-5 that comes along."""
    from sigconv.demo.show import show

    show(arguments.threads)
    return 0


def add(commands: Commands) -> None:
    """Declare the commands."""
    commands.add(demo, "threads")

    sub = commands.add(run, "model", "threads", "device", "json")
    sub.add_argument(
        "-i", "--input", required=True, metavar="FILE", help="a picture, .npy (one input) or .npz (by name)"
    )
    sub.add_argument("-o", "--output", metavar="OUT.npz", help="write every output to this file")
    sub.add_argument("--labels", metavar="FILE", help="names of the classes, one a line")
    sub.add_argument("--top", type=positive, default=TOP, metavar="K", help=f"how many classes to show (default {TOP})")
    sub.add_argument("--layout", choices=("nchw", "nhwc"), help="of a picture's input (default: by its channel count)")
    sub.add_argument("--mean", type=numbers, default=(0.0,), metavar="M", help="subtracted from a picture in [0, 1]")
    sub.add_argument("--std", type=divisors, default=(1.0,), metavar="S", help="what a picture is then divided by")

    sub = commands.add(check, "model", "shape", "json")
    sub.add_argument("--float64", action="store_true", help="also say who is closer to double precision (slow)")
    sub = commands.add(info, "model", "shape", "threads", "json")
    sub.add_argument("--html", metavar="OUT.html", help="also draw the graph: one page that needs no network")
    sub.add_argument("--profile", action="store_true", help="with --html: how long each node takes")
    sub = commands.add(bench, "model", "shape", "threads", "json")
    sub.add_argument("--rounds", type=positive, metavar="N", default=5, help="turns of each engine (default 5)")
    sub = commands.add(export)
    sub.add_argument("net", metavar="NET", help="lenet5, alexnet, vgg16, vgg16_bn, resnet18, unet …")
    sub.add_argument("-o", "--output", required=True, metavar="OUT.onnx", help="the file to write")
    sub.add_argument("--weights", metavar="FILE", help=".npz or .onnx with torchvision's names (default: random)")
    sub.add_argument("--opset", type=positive, metavar="N", help="13 to the newest (default: 17, or what it needs)")
