"""External data: the bytes of tensors that lie in files beside the model. No other file is ever opened."""

from __future__ import annotations

import os
import stat
from pathlib import Path, PureWindowsPath

import numpy as np
from onnx import TensorProto

from sigconv.config import available_memory
from sigconv.errors import ModelError


class External:
    """The files of one model; ``folder`` None: it came without any.

    Ranges that several tensors share are read once.
    """

    def __init__(self, folder: Path | None) -> None:
        self._root = None if folder is None else folder.resolve()
        self._ranges: dict[tuple[Path, int, int], np.ndarray] = {}

    def read(self, tensor: TensorProto, what: str, nbytes: int) -> np.ndarray:
        """The tensor's ``nbytes`` bytes, not to be changed; ``what`` names it in the messages of ModelErrors."""
        if self._root is None:
            raise ModelError(
                f"{what}: its data is in another file, which a model given as bytes or ModelProto "
                "cannot reach; load it by path"
            )
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        real, size = self._find(self._root, location, what)
        try:
            offset, length = int(entries.get("offset", 0)), int(entries.get("length", nbytes))
        except ValueError:
            raise ModelError(
                f"{what}: offset {entries.get('offset')!r} or length {entries.get('length')!r} is not an integer"
            ) from None
        if length != nbytes:
            raise ModelError(
                f"{what}: shape {list(tensor.dims)} needs {nbytes} bytes, {length} are claimed in {location!r}"
            )
        if offset < 0 or offset + length > size:
            raise ModelError(f"{what}: bytes {offset} to {offset + length} are outside {location!r} of {size} bytes")
        key = real, offset, length
        if key not in self._ranges:
            check_total(length + sum(n for _, _, n in self._ranges))
            raw = np.fromfile(real, np.uint8, count=length, offset=offset)
            if raw.size != length:
                raise ModelError(f"{what}: {location!r} ended early")
            self._ranges[key] = raw
        return self._ranges[key]

    @staticmethod
    def _find(root: Path, location: str, what: str) -> tuple[Path, int]:
        """The file that ``location`` means, and its size."""
        windows = PureWindowsPath(location)
        if (
            not location
            or "\0" in location
            or location.startswith("/")
            or windows.drive
            or windows.root
            or ".." in windows.parts
        ):
            raise ModelError(
                f"{what}: external data at {location!r} is refused: only files inside the model's folder are read"
            )
        try:
            real = (root / location).resolve(strict=True)
            status = os.stat(real)
        except (OSError, RuntimeError) as e:
            raise ModelError(f"{what}: external data file {location!r} is missing beside the model ({e})") from e
        if not real.is_relative_to(root) or not stat.S_ISREG(status.st_mode):
            raise ModelError(
                f"{what}: external data at {location!r} is refused: not a regular file inside the model's folder"
            )
        return real, status.st_size


def check_total(nbytes: int) -> None:
    """ModelError where tensors of ``nbytes`` bytes together, which a small model can claim, exceed the memory."""
    if nbytes > available_memory():
        raise ModelError(f"its tensors claim {nbytes:,} bytes of external data, there are {available_memory():,}")


NOWHERE = External(None)
"""For models that came without a folder."""
