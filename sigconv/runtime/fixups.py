"""The first step of a session: it writes the addresses of a run's arrays into the records of the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sigconv.kernels.cpu import data_pointers

KERNEL = data_pointers.fix_up


class Fixups:
    """Where the addresses of ``count`` arrays are written, and of which arrays.

    ``fixups``: (array, bytes to add to its address, byte of the ``records`` to write to) each.
    """

    def __init__(self, count: int, records: np.ndarray, fixups: Sequence[tuple[int, int, int]]) -> None:
        table = [(array, offset, records.ctypes.data + at) for array, offset, at in fixups]
        self._fixups = np.array(table, data_pointers.FIXUP)
        self._addresses = np.zeros(count, np.int64)
        self._arrays = np.zeros(count, np.int64)
        self._objects = memoryview(self._arrays.data)
        record = (self._arrays.ctypes.data, self._fixups.ctypes.data, len(table), data_pointers.HEAD)
        self._record = np.array(record, data_pointers.ARGS)

    @property
    def step(self) -> tuple[int, int, int, bool]:
        """The step, valid as long as this object lives."""
        return KERNEL.address, self._record.ctypes.data, 1, True

    def point(self, arrays: Sequence[np.ndarray | None]) -> None:
        """Use these arrays from the next run on; the caller keeps them alive. None: no fixup is of it."""
        if not data_pointers.READABLE:  # an address beside the objects' stands in for the one within them
            self._addresses[:] = [0 if a is None else a.ctypes.data for a in arrays]
            self._arrays[:] = self._addresses.ctypes.data + 8 * np.arange(len(arrays)) - data_pointers.HEAD
            return
        objects = self._objects
        for i, array in enumerate(arrays):
            objects[i] = id(array)
