"""Files as arrays and arrays as files: a model's inputs and outputs, pictures, sounds."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sigconv.errors import InputError
from sigconv.graph.ir import Value

MODES = {3: "RGB", 1: "L", 4: "RGBA"}
"""Pillow's mode for each channel count that a picture can have, the likeliest first."""


@dataclass(frozen=True)
class Picture:
    """How pixels become numbers: scaled to [0, 1], minus ``mean``, over ``std`` (one number, or one a channel).

    ``layout``: ``'nchw'``, ``'nhwc'``, or None for the one that has 3, else 1, else 4 channels in the model's shape.
    """

    layout: str | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)


def existing(path: str) -> str:
    """The path of a file; InputError if there is none."""
    if not Path(path).is_file():
        raise InputError(f"{path}: " + ("a folder, where a file is needed" if Path(path).is_dir() else "no such file"))
    return path


def read_feeds(path: str, inputs: Sequence[Value], picture: Picture) -> dict[str, np.ndarray]:
    """The file as inputs by name: an ``.npz`` has its own names, anything else is the model's only input.

    Raises
    ------
    InputError
        The file cannot be read, or does not fit a model with these inputs.
    """
    kind = Path(existing(path)).suffix.lower()
    if kind == ".npz":
        arrays = _numpy(path)
        return dict(arrays) if isinstance(arrays, dict) else {inputs[0].name: arrays}
    if len(inputs) != 1:
        names = ", ".join(v.name for v in inputs)
        raise InputError(f"{path}: the model has {len(inputs)} inputs ({names}); give them by name in an .npz file")
    array = _numpy(path) if kind == ".npy" else _picture(path, inputs[0], picture)
    if isinstance(array, dict):
        raise InputError(f"{path}: holds several arrays; name it .npz")
    return {inputs[0].name: array}


def write_npz(path: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays under their own names, whatever these are: ``np.savez`` takes no array named ``file``."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)


def _numpy(path: str) -> np.ndarray | dict[str, np.ndarray]:
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            return file
        with file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        raise InputError(f"{path}: no NumPy file that can be read ({error})") from None


def _layout(value: Value, wanted: str | None) -> tuple[str, int]:
    """The layout of a picture's input and its channel count."""
    shape = value.shape
    if shape is None or len(shape) != 4:
        raise InputError(f"input {value.name!r} of shape {shape} takes no picture: that needs 4 axes; use .npy or .npz")
    at = {"nchw": shape[1], "nhwc": shape[3]}
    for channels in MODES:
        for layout in [wanted] if wanted else at:
            if at[layout] == channels:
                return layout, channels
    where = (wanted or "nchw or nhwc").upper()
    raise InputError(f"input {value.name!r} of shape {shape} has no 1, 3 or 4 channels where {where} has them")


def _picture(path: str, value: Value, picture: Picture) -> np.ndarray:
    """A picture as the (1, C, H, W) or (1, H, W, C) array the input takes; resized where that has a fixed size."""
    layout, channels = _layout(value, picture.layout)
    shape = value.shape or ()
    height, width = shape[2:] if layout == "nchw" else shape[1:3]
    image = _open_picture(path, MODES[channels])
    size = (width if isinstance(width, int) else image.width, height if isinstance(height, int) else image.height)
    if image.size != size:
        image = image.resize(size, resample=2)  # bilinear
    pixels = np.asarray(image).reshape(1, size[1], size[0], channels)
    if value.dtype is None or value.dtype.kind == "f":
        for name, numbers in (("mean", picture.mean), ("std", picture.std)):
            if len(numbers) not in (1, channels):
                raise InputError(f"--{name} has {len(numbers)} numbers; input {value.name!r} has {channels} channels")
        pixels = (pixels.astype(np.float32) / 255 - np.asarray(picture.mean, np.float32)) / np.asarray(
            picture.std, np.float32
        )
    if layout == "nchw":
        pixels = pixels.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(pixels, value.dtype)


# --- pictures as such ----------------------------------------------------------------------------------------------
def _open_picture(path: str, mode: str | None = None) -> Any:
    """The file as Pillow's image, in a mode, upright."""
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise InputError(f"{path}: pictures need Pillow: pip install 'sigconv[cli]'") from None
    existing(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                image = ImageOps.exif_transpose(file)  # cameras note which side is up
                return image.convert(mode) if mode else image
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: no picture that can be read ({error})") from None


@dataclass(frozen=True)
class Pixels:
    """A picture's numbers, shape (rows, columns) or (rows, columns, channels), and what they mean.

    ``mode`` is Pillow's: L, LA, RGB, RGBA for uint8, I;16 for uint16, I for int32, F for float32.
    """

    values: np.ndarray
    mode: str
    profile: bytes | None = None

    def split(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Colours, and the transparency if there is one."""
        return (self.values[..., :-1], self.values[..., -1:]) if self.mode.endswith("A") else (self.values, None)

    def joined(self, colours: np.ndarray, alpha: np.ndarray | None) -> Pixels:
        """The picture with other colours."""
        return replace(self, values=colours if alpha is None else np.concatenate((colours, alpha), 2))


def read_picture(path: str) -> Pixels:
    """A picture as it is stored; palettes, CMYK and the like become RGB or RGBA, one bit becomes 8.

    Pillow reads colours of 16 bits as 8 bits.
    """
    image = _open_picture(path)
    profile = image.info.get("icc_profile")
    if image.mode in ("I;16B", "I;16L", "I;16N"):
        return Pixels(np.asarray(image).astype(np.uint16), "I;16", profile)
    if image.mode == "1":
        image = image.convert("L")
    elif image.mode not in ("L", "LA", "RGB", "RGBA", "I;16", "I", "F"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    return Pixels(np.asarray(image), image.mode, profile)


def write_picture(path: str, pixels: Pixels) -> None:
    """Write a picture in the format of the path's ending."""
    from PIL import Image

    options = {} if pixels.profile is None else {"icc_profile": pixels.profile}
    try:
        Image.fromarray(np.ascontiguousarray(pixels.values)).save(path, **options)
    except (KeyError, ValueError) as error:
        raise InputError(f"{path}: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None


# --- sounds --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Sound:
    """Samples, float64 of shape (times, channels), full scale ±1; their rate in Hz; libsndfile's name of their type."""

    samples: np.ndarray
    rate: int
    subtype: str


def _soundfile(path: str) -> Any:
    try:
        import soundfile
    except (ImportError, OSError):  # OSError: the package is there, its library is not
        raise InputError(f"{path}: sounds need soundfile: pip install 'sigconv[cli]'") from None
    return soundfile


def read_sound(path: str) -> Sound:
    """A file in any format that libsndfile reads."""
    soundfile = _soundfile(path)
    try:
        with soundfile.SoundFile(existing(path)) as file:
            return Sound(file.read(dtype="float64", always_2d=True), file.samplerate, file.subtype)
    except (soundfile.SoundFileError, TypeError) as error:
        raise InputError(f"{path}: no sound that can be read ({error})") from None


def write_sound(path: str, sound: Sound) -> str:
    """Write a sound in the format of the path's ending, with its type where the format has it; the type written."""
    soundfile = _soundfile(path)
    if not Path(path).parent.is_dir():  # libsndfile calls this a "System error"
        raise InputError(f"{path}: no such folder")
    kind = Path(path).suffix[1:].upper()
    kind = {"AIF": "AIFF", "OGA": "OGG", "OPUS": "OGG"}.get(kind, kind)
    if kind not in soundfile.available_formats():
        raise InputError(f"{path}: write it as .wav, .flac, .ogg, .aiff or another format of libsndfile's")
    subtype = sound.subtype if soundfile.check_format(kind, sound.subtype) else soundfile.default_subtype(kind)
    if subtype is None:
        raise InputError(f"{path}: {kind} is no format to write without further parameters")
    try:
        soundfile.write(path, sound.samples, sound.rate, subtype, format=kind)
    except (soundfile.SoundFileError, ValueError) as error:
        raise InputError(f"{path}: {error}") from None
    return str(subtype)
