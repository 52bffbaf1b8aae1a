"""``sigconv filter``: kernels such as a Gaussian or Sobel's, over a picture."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sigconv import filters
from sigconv.cli.options import Commands
from sigconv.errors import InputError
from sigconv.kernels.border import BOUNDARIES

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Effect:
    """A kernel by name: how to write its numbers, what it does, and how it is made (several: their magnitude)."""

    numbers: str
    does: str
    make: Callable[..., list[np.ndarray]]


def _gradient(kernel: Callable[..., np.ndarray]) -> dict[str, Callable[..., list[np.ndarray]]]:
    return {
        "": lambda *size: [kernel(1, *size), kernel(0, *size)],
        "-x": lambda *size: [kernel(1, *size)],
        "-y": lambda *size: [kernel(0, *size)],
    }


EFFECTS: dict[str, Effect] = {
    "gaussian": Effect(":SIGMA", "blurs, softly", lambda sigma: [filters.gaussian(sigma)]),
    "box": Effect(":SIZE", "blurs: the mean of a square", lambda size: [filters.box(size)]),
    "binomial": Effect(":SIZE", "blurs, nearly as a Gaussian", lambda size: [filters.binomial(size)]),
    "disk": Effect(":RADIUS", "blurs as a lens out of focus", lambda radius: [filters.disk(radius)]),
    "motion": Effect(
        ":LENGTH[,ANGLE]", "blurs along a line", lambda length, angle=0: [filters.motion_blur(length, angle)]
    ),
    "sharpen": Effect("[:AMOUNT]", "sharpens", lambda amount=1: [filters.sharpen(amount)]),
    "unsharp": Effect(
        ":SIGMA[,AMOUNT]", "sharpens, with a wider reach", lambda sigma, amount=1: [filters.unsharp(sigma, amount)]
    ),
    "emboss": Effect("", "a relief, lit from the upper left", lambda: [filters.emboss()]),
    **{
        f"sobel{axis}": Effect("[:SIZE]", f"edges{text}", make)
        for (axis, make), text in zip(
            _gradient(lambda axis, size=3: filters.sobel(axis, size)).items(),
            (": the steepness", " across columns only", " across rows only"),
            strict=True,
        )
    },
    "prewitt": Effect("", "edges, with equal weights", _gradient(lambda axis: filters.prewitt(axis))[""]),
    "scharr": Effect("", "edges, alike in all directions", _gradient(lambda axis: filters.scharr(axis))[""]),
    "roberts": Effect("", "edges, of the finest detail", lambda: [filters.roberts(0), filters.roberts(1)]),
    "laplacian": Effect("", "edges: the second derivative", lambda: [filters.laplacian()]),
    "log": Effect(":SIGMA", "edges of a scale: Laplacian of a Gaussian", lambda sigma: [filters.log(sigma)]),
    "dog": Effect(":SIGMA", "edges of a scale: difference of Gaussians", lambda sigma: [filters.dog(sigma)]),
    "gabor": Effect(
        ":SIGMA,WAVELENGTH[,THETA]", "texture of one direction",
        lambda sigma, wavelength, theta=0.0: [filters.gabor(sigma, wavelength, theta=theta)],
    ),
    "identity": Effect("", "leaves the picture as it is", lambda: [filters.identity()]),
}  # fmt: skip

EXAMPLES = f"""\
kernels:
{chr(10).join(f"  {name + effect.numbers:31}{effect.does}" for name, effect in EFFECTS.items())}
  {'"1 2 1; 2 4 2; 1 2 1"':31}your own, row by row (not flipped, not divided)

examples:
  sigconv filter in.png --kernel gaussian:2 -o soft.png
  sigconv filter in.png --kernel sobel -o edges.png
  sigconv filter in.png --kernel "0 -1 0; -1 5 -1; 0 -1 0" -o crisp.png
Colours are filtered one by one, transparency stays. Values are rounded and cut to what the picture can hold.
Of kernels that sum to 0, the size of the answer is shown; with --signed 0 is middle grey, dark below, bright above.
"""


def filter_(arguments: argparse.Namespace) -> int:
    """Filter a picture: blur, sharpen, edges, emboss, or a kernel of your own."""
    from sigconv.files import read_picture, write_picture

    kernels = _kernels(arguments.kernel)
    picture = read_picture(arguments.picture)
    colours, alpha = picture.split()
    filtered = _filtered(colours, kernels, arguments.boundary, arguments.scale, arguments.signed)
    write_picture(arguments.output, picture.joined(filtered, alpha))
    height, width = filtered.shape[:2]
    size = " and ".join(f"{w.shape[1]}x{w.shape[0]}" for w in kernels)
    print(f"wrote {arguments.output}: {width}x{height}, {picture.mode}, kernel {size}")
    return 0


def _filtered(colours: np.ndarray, kernels: list[np.ndarray], boundary: str, scale: float, signed: bool) -> np.ndarray:
    """The picture's values, in its own type, after correlation with the kernel, or the magnitude of several."""
    import numpy as np

    from sigconv import cv

    sums = [
        cv.filter2D(colours, cv.CV_64F if colours.dtype == np.int32 else cv.CV_32F, w, borderType=border)
        for w in kernels
        for border in [cv.BOUNDARIES.index(boundary)]
    ]
    zero_sum = all(abs(w.sum()) <= 1e-6 * np.abs(w).sum() for w in kernels)
    if signed and (len(sums) > 1 or not zero_sum):
        raise InputError("--signed is for a single kernel that sums to 0, such as sobel-x or laplacian")
    y = np.hypot(*sums) if len(sums) > 1 else sums[0]
    y = y * scale if signed or not zero_sum else np.abs(y) * scale
    if colours.dtype.kind == "f":
        return y.astype(colours.dtype)
    limits = np.iinfo(colours.dtype)
    if signed:
        y = y / 2 + (limits.max / 2 + limits.min / 2)
    return np.clip(np.rint(y.astype(np.float64)), limits.min, limits.max).astype(colours.dtype)


def _number(text: str) -> float:
    value = float(text)
    return int(value) if value.is_integer() else value


def _kernels(text: str) -> list[np.ndarray]:
    """The kernels that ``NAME:NUMBERS`` or rows of numbers stand for."""
    import numpy as np

    name, _, numbers = text.partition(":")
    effect = EFFECTS.get(name)
    if effect is None and not any(c.isalpha() for c in text.replace("e", "")):
        return [_own(text)]
    if effect is None:
        raise InputError(f"--kernel {text}: no kernel has this name (kernels: {', '.join(EFFECTS)})")
    wanted = f"--kernel {text}: write it as {name}{effect.numbers}"
    try:
        values = [_number(n) for n in numbers.split(",")] if numbers else []
        inspect.signature(effect.make).bind(*values)
    except (TypeError, ValueError, OverflowError):
        raise InputError(wanted) from None
    try:
        kernels = effect.make(*values)
    except InputError as error:
        raise InputError(f"--kernel {text}: {error}") from None
    except (TypeError, OverflowError):
        raise InputError(f"{wanted} with whole numbers where a size is meant") from None
    assert all(isinstance(w, np.ndarray) for w in kernels)
    return kernels


def _own(text: str) -> np.ndarray:
    import numpy as np

    try:
        rows = [[float(v) for v in row.replace(",", " ").split()] for row in text.split(";")]
    except ValueError:
        rows = []
    if not rows or not rows[0] or any(len(row) != len(rows[0]) for row in rows) or not np.isfinite(rows).all():
        raise InputError(f'--kernel {text}: write rows of equally many numbers as "1 2 1; 2 4 2; 1 2 1"')
    return np.array(rows)


def add(commands: Commands) -> None:
    """Declare the command."""
    sub = commands.add(filter_, epilog=EXAMPLES)
    sub.add_argument("picture", metavar="IN.png", help="grey or colour, 8 or 16 bits or floating point")
    sub.add_argument("--kernel", required=True, metavar="KERNEL", help="see below")
    sub.add_argument("-o", "--output", required=True, metavar="OUT.png", help="the file to write; its ending says how")
    sub.add_argument(
        "--boundary", choices=BOUNDARIES, default="reflect", help="beyond the edges (default reflect; fill: black)"
    )
    sub.add_argument("--scale", type=float, default=1.0, metavar="S", help="what the result is multiplied by")
    sub.add_argument("--signed", action="store_true", help="0 becomes middle grey")
