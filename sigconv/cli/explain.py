"""``sigconv explain``: which algorithm runs a network's nodes, or a convolution of given sizes, and why."""

from __future__ import annotations

import argparse
import math
from typing import Any

from sigconv.cli.networks import fixed_shapes, load, random_feeds_of
from sigconv.cli.options import Commands, lengths, print_json
from sigconv.errors import InputError
from sigconv.kernels.border import BOUNDARIES
from sigconv.text import sizes, table

MODES = ("full", "same", "valid")
DTYPES = (
    *("float32", "float64", "float16", "complex64", "complex128", "bool"),
    *(f"{sign}int{bits}" for bits in (8, 16, 32, 64) for sign in ("", "u")),
)
LARGEST_REAL_SIGNAL = 1 << 27
"""Numbers up to which --measure makes a signal: half a minute of some methods, a gigabyte of float64."""

EXAMPLES = """\
examples:
  sigconv explain --signal 1000000 --kernel 63 --dtype float32
  sigconv explain --signal 512x512 --kernel 9x9 --separable --measure
  sigconv explain model.onnx --verbose
"""


def explain(arguments: argparse.Namespace) -> int:
    """Which algorithm runs each node of a network, or a convolution; and why, and how long it takes.

    With a MODEL: every node of the network. With --signal and --kernel: a convolution of these sizes.
    """
    about_signal = [name for name in ("signal", "kernel") if getattr(arguments, name) is not None]
    if arguments.model is None and len(about_signal) == 2:
        return _signal(arguments)
    if arguments.model is None or about_signal:
        both = ", not both" if arguments.model and about_signal else ""
        raise InputError(f"explain is about a MODEL, or about a convolution with --signal and --kernel{both}")
    return _model(arguments)


def _model(arguments: argparse.Namespace) -> int:
    if arguments.measure or arguments.separable:
        raise InputError("--measure and --separable are for a convolution; a MODEL is timed with --profile")
    model = load(arguments)
    shapes = fixed_shapes(model, arguments.shape)
    session = model.compile(shapes, threads=arguments.threads, device=arguments.device, fallback=arguments.fallback)
    shown = session.profile(random_feeds_of(model, shapes)) if arguments.profile else session.explain()
    if arguments.json:
        print(shown.to_json())
    else:
        print(session.explain().details() if arguments.verbose else shown)
    return 0


def _arrays(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """A signal and a kernel of the sizes: noise, integers over the whole range, the signal without memory of its own
    unless it will be convolved."""
    import numpy as np

    dtype, rng = np.dtype(arguments.dtype), np.random.default_rng(0)

    def noise(shape: tuple[int, ...]) -> Any:
        if dtype.kind in "iu":
            info = np.iinfo(dtype)
            return rng.integers(info.min, info.max, shape, dtype, endpoint=True)
        values = rng.standard_normal(shape)
        if dtype.kind == "b":
            return values > 0
        return (values + 1j * rng.standard_normal(shape) if dtype.kind == "c" else values).astype(dtype)

    if arguments.separable:
        kernel = np.ones((), dtype)
        for n in arguments.kernel:
            kernel = kernel[..., None] * (np.ones(n, dtype) if dtype.kind in "biu" else noise((n,)))
    else:
        kernel = noise(arguments.kernel)
    if arguments.measure:
        if math.prod(arguments.signal) > LARGEST_REAL_SIGNAL:
            raise InputError(f"--measure runs the methods; a signal of {sizes(arguments.signal)} is too large for that")
        return noise(arguments.signal), kernel
    value = np.iinfo(dtype).max if dtype.kind in "iu" else 0
    return np.broadcast_to(np.asarray(value, dtype), arguments.signal), kernel


def _signal(arguments: argparse.Namespace) -> int:
    """The chooser's view of one convolution."""
    import sigconv as sc
    from sigconv.signal.methods import METHODS

    if arguments.profile or arguments.shape:
        raise InputError("--profile and --shape are for a MODEL; a convolution is timed with --measure")
    x, kernel = _arrays(arguments)
    options: dict[str, Any] = {"mode": arguments.mode, "boundary": arguments.boundary}
    choice = sc.choose_conv_method(x, kernel, explain=True, **options)[-1]
    measured = sc.choose_conv_method(x, kernel, measure=True, **options)[1] if arguments.measure else {}
    if arguments.json:
        print_json(
            {
                "method": choice.method,
                "predicted_seconds": dict(choice.seconds),
                "measured_seconds": measured,
                "rejected": dict(choice.rejected),
                "error_bound": choice.error_bound,
            }
        )
        return 0
    print(
        f"{arguments.dtype} {sizes(arguments.signal)} with {sizes(arguments.kernel)}, "
        f"mode {arguments.mode}, boundary {arguments.boundary}: {choice.method}"
    )
    columns = {"method": "<", "predicted": ">", **({"measured": ">"} if measured else {}), "": "<"}
    rows = [
        [
            name,
            _time(choice.seconds.get(name)),
            *([_time(measured.get(name))] if measured else []),
            "chosen" if name == choice.method else "slower" if why.startswith("predicted ") else f"not taken: {why}",
        ]
        for name in METHODS
        for why in [choice.rejected.get(name, "")]
    ]
    print("\n".join(table(columns, rows)))
    if choice.error_bound is None:
        print("errors: those of adding the products" + " (none: integers)" * (arguments.dtype in DTYPES[5:]))
    else:
        print(f"errors: those of the transforms, up to {choice.error_bound:.1e} of the typical output")
    return 0


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    size, unit = next((s, u) for s, u in ((1.0, "s"), (1e-3, "ms"), (0.0, "us")) if seconds >= s)
    return f"{seconds / (size or 1e-6):.3g} {unit}"


def add(commands: Commands) -> None:
    """Declare the command."""
    sub = commands.add(explain, "shape", "threads", "device", "json", epilog=EXAMPLES)
    sub.add_argument("model", metavar="MODEL", nargs="?", help="an .onnx file")
    how = sub.add_mutually_exclusive_group()
    how.add_argument(
        "-v", "--verbose", action="store_true", help="say why each was chosen, and why the others were not"
    )
    how.add_argument("--profile", action="store_true", help="run it on random input and show the time of each part")
    signal = sub.add_argument_group("a convolution")
    signal.add_argument("--signal", type=lengths, metavar="N", help="size of the signal: 1000000 or 512x512")
    signal.add_argument("--kernel", type=lengths, metavar="K", help="size of the kernel: 63 or 9x9")
    signal.add_argument(
        "--dtype", choices=DTYPES, default="float64", metavar="T", help="of both, such as float32 (default float64)"
    )
    signal.add_argument("--mode", choices=MODES, default="full", help="which outputs (default full)")
    signal.add_argument("--boundary", choices=BOUNDARIES, default="fill", help="beyond the ends (default fill: zeros)")
    signal.add_argument("--separable", action="store_true", help="the kernel is an outer product of vectors")
    signal.add_argument("--measure", action="store_true", help="run every legal method on noise and time it as well")
