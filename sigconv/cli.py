"""The command line: ``sigconv demo | run | check | info | explain | bench | export | warmup | cache``.

Exit codes: 0 fine, 1 a check failed, 2 bad usage or unreadable input (one line on stderr, no traceback).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sigconv
from sigconv.errors import InputError, SigconvError
from sigconv.text import sizes, table

if TYPE_CHECKING:
    import numpy as np

    from sigconv.model import Model

TOP = 5


def _load(arguments: argparse.Namespace) -> Model:
    from sigconv.files import existing

    return sigconv.load(existing(arguments.model))


def _shapes(model: Model, given: Sequence[str]) -> dict[str, tuple[int, ...]]:
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


def _random_feeds(model: Model, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
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


def _print_json(document: dict[str, Any]) -> None:
    """One line; JSON knows no NaN and no infinity, so they are null."""
    print(json.dumps(json.loads(json.dumps(document), parse_constant=lambda _: None)))


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

    model, labels = _load(arguments), _labels(arguments.labels)
    feeds = read_feeds(arguments.input, model.inputs, Picture(arguments.layout, arguments.mean, arguments.std))
    session = model.compile({k: v.shape for k, v in feeds.items()}, threads=arguments.threads)
    outputs = session.run(feeds)
    if arguments.output:
        write_npz(arguments.output, outputs)
    tops = {name: _top(array, arguments.top, labels) for name, array in outputs.items()}
    if arguments.json:
        described = {
            name: {"dtype": a.dtype.name, "shape": list(a.shape), "top": tops[name]} for name, a in outputs.items()
        }
        _print_json({"model": arguments.model, "outputs": described})
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
    model = _load(arguments)
    report = model.check(_random_feeds(model, _shapes(model, arguments.shape)), float64=arguments.float64)
    print(report.to_json() if arguments.json else report)
    return 0 if report.ok else 1


def info(arguments: argparse.Namespace) -> int:
    """What a model holds, and what would run where."""
    from sigconv.summary import summarize

    model = _load(arguments)
    free = summarize(model.graph)
    print(free)
    try:
        shapes = _shapes(model, arguments.shape)
    except InputError as error:
        if arguments.shape:
            raise
        print(f"\nto see what runs where, {error}")
        return 0
    macs = summarize(model.graph, shapes).macs
    at = ", ".join(f"{name} {sizes(shape)}" for name, shape in shapes.items())
    print(f"\nat {at}" + ("" if macs in (None, free.macs) else f": {macs:,} multiply-accumulates"))
    print(model.compile(shapes, threads=arguments.threads).explain())
    return 0


def explain(arguments: argparse.Namespace) -> int:
    """Which algorithm runs each node; with --verbose why, with --profile how long each takes."""
    model = _load(arguments)
    shapes = _shapes(model, arguments.shape)
    session = model.compile(shapes, threads=arguments.threads)
    shown = session.profile(_random_feeds(model, shapes)) if arguments.profile else session.explain()
    if arguments.json:
        print(shown.to_json())
    else:
        print(session.explain().details() if arguments.verbose else shown)
    return 0


def bench(arguments: argparse.Namespace) -> int:
    """Time a model beside the other engines that are installed."""
    from sigconv import config, race

    model = _load(arguments)
    threads = arguments.threads or config.get("threads")
    feeds = _random_feeds(model, _shapes(model, arguments.shape))
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
        _print_json({"model": arguments.model, "threads": threads, "results": rows})
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


def warmup(arguments: argparse.Namespace) -> int:
    """Compile every kernel ahead of its first use."""
    from sigconv.kernels import jit

    jit.warmup()
    return cache(argparse.Namespace(action="info"))


def cache(arguments: argparse.Namespace) -> int:
    """Show or empty the folder of compiled kernels."""
    from sigconv.kernels import jit

    if arguments.action == "clear":
        print(f"deleted {jit.cache_clear()} kernels")
    state = jit.cache_info()
    print(
        f"{state.folder}: {state.files} kernels, {state.nbytes:,} bytes" + f" ({state.problem})" * bool(state.problem)
    )
    return 0


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive integer")
    return int(text)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(t) for t in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: one number, or one for each channel with commas between") from None


def _divisors(text: str) -> tuple[float, ...]:
    numbers = _numbers(text)
    if 0 in numbers:
        raise argparse.ArgumentTypeError(f"{text!r}: nothing can be divided by 0")
    return numbers


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser("sigconv", description="Run CNNs on kernels written in Python.")
    top.add_argument("--version", action="version", version=f"sigconv {sigconv.__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    def command(action: Callable[[argparse.Namespace], int], *groups: str) -> argparse.ArgumentParser:
        text = (action.__doc__ or "").strip()
        sub = commands.add_parser(action.__name__, help=text, description=text)
        sub.set_defaults(action_=action)
        if "model" in groups:
            sub.add_argument("model", metavar="MODEL", help="an .onnx file")
        if "shape" in groups:
            sub.add_argument(
                "--shape", action="append", default=[], metavar="NAME=1,3,224,224", help="shape of an input; repeatable"
            )
        if "threads" in groups:
            sub.add_argument(
                "--threads", type=_positive, metavar="N", help="most threads to use (default: every core it may use)"
            )
        if "json" in groups:
            sub.add_argument("--json", action="store_true", help="print JSON")
        return sub

    command(demo, "threads")

    sub = command(run, "model", "threads", "json")
    sub.add_argument(
        "-i", "--input", required=True, metavar="FILE", help="a picture, .npy (one input) or .npz (by name)"
    )
    sub.add_argument("-o", "--output", metavar="OUT.npz", help="write every output to this file")
    sub.add_argument("--labels", metavar="FILE", help="names of the classes, one a line")
    sub.add_argument(
        "--top", type=_positive, default=TOP, metavar="K", help=f"how many classes to show (default {TOP})"
    )
    sub.add_argument("--layout", choices=("nchw", "nhwc"), help="of a picture's input (default: by its channel count)")
    sub.add_argument("--mean", type=_numbers, default=(0.0,), metavar="M", help="subtracted from a picture in [0, 1]")
    sub.add_argument("--std", type=_divisors, default=(1.0,), metavar="S", help="what a picture is then divided by")

    sub = command(check, "model", "shape", "json")
    sub.add_argument("--float64", action="store_true", help="also say who is closer to double precision (slow)")
    command(info, "model", "shape", "threads")
    sub = command(explain, "model", "shape", "threads", "json")
    how = sub.add_mutually_exclusive_group()
    how.add_argument(
        "-v", "--verbose", action="store_true", help="say why each was chosen, and why the others were not"
    )
    how.add_argument("--profile", action="store_true", help="run it on random input and show the time of each part")
    sub = command(bench, "model", "shape", "threads", "json")
    sub.add_argument("--rounds", type=_positive, metavar="N", default=5, help="turns of each engine (default 5)")
    sub = command(export)
    sub.add_argument("net", metavar="NET", help="lenet5, alexnet, vgg16, vgg16_bn, resnet18, unet …")
    sub.add_argument("-o", "--output", required=True, metavar="OUT.onnx", help="the file to write")
    sub.add_argument("--weights", metavar="FILE", help=".npz or .onnx with torchvision's names (default: random)")
    sub.add_argument("--opset", type=_positive, metavar="N", help="13 to the newest (default: 17, or what it needs)")
    command(warmup)
    sub = command(cache)
    sub.add_argument("action", choices=("info", "clear"), nargs="?", default="info")
    return top


def _refuse(why: str) -> int:
    """One line on stderr, and the exit code for what cannot be read or done."""
    print(f"sigconv: {' '.join(why.split())}", file=sys.stderr)
    return 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code. Argparse ends the process itself on bad usage, with 2."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a node may be named in letters that the terminal lacks
    arguments = parser().parse_args(argv)
    try:
        code = arguments.action_(arguments)
        sys.stdout.flush()
        return int(code)
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _refuse(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    except (SigconvError, ValueError, RuntimeError, ModuleNotFoundError) as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
