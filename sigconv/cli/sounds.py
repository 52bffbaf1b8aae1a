"""``sigconv convolve``: one sound with another, the room's echo say."""

from __future__ import annotations

import argparse
import math
import sys

from sigconv.cli.explain import MODES
from sigconv.cli.options import Commands
from sigconv.errors import InputError

EXAMPLES = """\
examples:
  sigconv convolve voice.wav cathedral.wav -o sung.wav --normalize   reverberation, as loud as it can be
  sigconv convolve voice.wav cathedral.wav -o sung.flac --normalize -3 --mode same
The first file may have any number of channels and the second as many (each with its own) or one (for all);
one channel first and several second gives several.
"""


def convolve(arguments: argparse.Namespace) -> int:
    """Convolve a sound with another, such as a room's impulse response."""
    import numpy as np

    import sigconv as sc
    from sigconv.files import Sound, read_sound, write_sound

    first, second = read_sound(arguments.first), read_sound(arguments.second)
    if first.rate != second.rate:
        raise InputError(
            f"{arguments.first} has {first.rate} samples a second and {arguments.second} {second.rate}: "
            "resample one of them first"
        )
    channels = first.samples.shape[1], second.samples.shape[1]
    if 1 not in channels and channels[0] != channels[1]:
        raise InputError(
            f"{arguments.first} has {channels[0]} channels and {arguments.second} {channels[1]}: "
            "as many are needed, or one in either"
        )
    samples = sc.convolve(
        first.samples, second.samples, arguments.mode, arguments.method, axes=0, workers=arguments.threads
    )
    peak = float(np.abs(samples).max(initial=0.0))
    if arguments.normalize is not None and peak > 0:
        samples *= 10 ** (arguments.normalize / 20) / peak
        peak = float(np.abs(samples).max())
    kept = write_sound(arguments.output, Sound(samples, first.rate, first.subtype))
    if peak > 1 and kept.startswith("PCM"):
        clipped = int((np.abs(samples) > 1).sum())
        print(
            f"sigconv: {clipped:,} of {samples.size:,} samples were beyond full scale and are clipped: "
            "use --normalize, or a format of floating-point numbers",
            file=sys.stderr,
        )
    loud = f"peak {20 * math.log10(peak):.1f} dBFS" if peak > 0 else "silent"
    print(
        f"wrote {arguments.output}: {len(samples) / first.rate:.3f} s at {first.rate} Hz, "
        f"{samples.shape[1]} {'channel' if samples.shape[1] == 1 else 'channels'}, {kept}, {loud}"
    )
    return 0


def _decibels(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not -200 <= value <= 200:
        raise argparse.ArgumentTypeError(f"{text!r} is no level in dB, such as 0 or -3")
    return value


def add(commands: Commands) -> None:
    """Declare the command."""
    sub = commands.add(convolve, "threads", epilog=EXAMPLES)
    sub.add_argument("first", metavar="A.wav", help="a sound: wav, flac, ogg, aiff …")
    sub.add_argument("second", metavar="B.wav", help="what to convolve it with, of the same sampling rate")
    sub.add_argument("-o", "--output", required=True, metavar="OUT.wav", help="the file to write; its ending says how")
    sub.add_argument("--mode", choices=MODES, default="full", help="full: with the tail (default); same: as long as A")
    sub.add_argument("--method", choices=("auto", "direct", "oa", "fft"), default="auto", help="how (default auto)")
    sub.add_argument(
        "--normalize", nargs="?", type=_decibels, const=0.0, metavar="DB",
        help="scale the loudest sample to this level below full scale, such as -3 (0 without a number)",
    )  # fmt: skip
