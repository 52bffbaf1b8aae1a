"""Commands about the CUDA device: ``sigconv gpu``."""

from __future__ import annotations

import argparse

from sigconv.cli.options import Commands, print_json


def gpu(arguments: argparse.Namespace) -> int:
    """Show the CUDA device and the software found, and let it run a network.

    Exit code 1 where there is no device that can be used, with a line that says what to install or change, or where
    its results differ from the CPU's.
    """
    from sigconv.errors import DeviceError
    from sigconv.runtime import device

    found = device.describe()
    try:
        device.require()
        found["self_test"] = _self_test()
    except DeviceError as error:
        found["problem"] = str(error)
    if arguments.json:
        print_json(found)
    else:
        width = max(map(len, found))
        for name, value in found.items():
            print(f"{name.replace('_', ' '):<{width}}  {value}")
    return 1 if "problem" in found else 0


def _self_test() -> str:
    """A network of convolutions, pools and products, on both."""
    import numpy as np

    from sigconv import demo, load
    from sigconv.errors import DeviceError

    model = load(demo.MODEL)
    digits, labels = demo.held_out()
    feeds = {model.inputs[0].name: demo.upscale(digits[:1])}
    (want,), (got,) = (list(model.run(feeds, device=where).values()) for where in ("cpu", "cuda"))
    off = float(np.abs(got - want).max() / np.abs(want).max())
    if not off <= 1e-4:
        raise DeviceError(f"the self-test's results are off by {off:.2g} of their scale: please report this GPU")
    return f"LeNet-5 reads a {got.argmax()} where a {labels[0]} is written; {off:.1g} from the CPU's scores"


def add(commands: Commands) -> None:
    """Declare the command."""
    commands.add(gpu, "json")
