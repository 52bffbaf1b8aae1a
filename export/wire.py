"""A model file without its large tensors: each is read from the file straight into an array of its own.

Protobuf holds the whole file, a copy of every tensor in its message, and makes another whenever one is read. Here the
wire format is followed just far enough to reach ``ModelProto.graph.initializer[i].raw_data``; every other byte goes to
protobuf as it is. So does the whole file where anything looks odd: what is wrong with it is for protobuf to say.

Source: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from typing import BinaryIO

import numpy as np

from sigconv import lines

PATH = (7, 5, 9)
"""Field numbers: ModelProto.graph, GraphProto.initializer, TensorProto.raw_data."""

LARGE = 1 << 14
"""Bytes from which a tensor is worth an array of its own."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class _OddError(Exception):
    """The file is not what protobuf would write."""


def split(file: BinaryIO) -> tuple[bytes, dict[int, np.ndarray]]:
    """The message less its large tensors (their ``raw_data`` is empty), and their bytes by index of the initializer."""
    try:
        walk = _Walk(file)
        return bytes(walk.message(walk.size, 0)), walk.large
    except _OddError:
        file.seek(0)
        return file.read(), {}


class _Walk:
    """From the start of a file to its end. ``large``: bytes taken out so far."""

    def __init__(self, file: BinaryIO) -> None:
        self.size = file.seek(0, 2)
        file.seek(0)
        self.large: dict[int, np.ndarray] = {}
        self._file, self._at, self._tensor = file, 0, -1

    def message(self, end: int, depth: int) -> bytearray:
        """The message from here to ``end``, whose field PATH[depth] is on the path."""
        out = bytearray()
        while self._at < end:
            tag = self._varint(out)
            kind = tag & 7
            if kind == _VARINT:
                self._varint(out)
            elif kind == _FIXED64:
                out += self._bytes(8)
            elif kind == _FIXED32:
                out += self._bytes(4)
            elif kind == _BYTES:
                length = self._varint(bytearray())
                if length > end - self._at:
                    raise _OddError
                content = self._field(length, depth) if tag >> 3 == PATH[depth] else self._bytes(length)
                out += _as_varint(len(content))
                out += content
            else:
                raise _OddError
        if self._at != end:
            raise _OddError
        return out

    def _field(self, length: int, depth: int) -> bytes | bytearray:
        """What is left of a field on the path."""
        if depth < len(PATH) - 1:
            self._tensor += depth == len(PATH) - 2
            return self.message(self._at + length, depth + 1)
        self.large.pop(self._tensor, None)  # of a field given twice, the last counts
        if length < LARGE:
            return self._bytes(length)
        array = lines.zeros(length)
        if self._file.readinto(array.data) != length:  # type: ignore[attr-defined]
            raise _OddError
        self._at += length
        self.large[self._tensor] = array
        return b""

    def _bytes(self, count: int) -> bytes:
        found = self._file.read(count)
        if len(found) != count:
            raise _OddError
        self._at += count
        return found

    def _varint(self, out: bytearray) -> int:
        """A number, whose bytes are added to ``out`` as they are."""
        value = 0
        for shift in range(0, 64, 7):
            byte = self._bytes(1)[0]
            out.append(byte)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise _OddError


def _as_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
