"""The first step of a session: it writes the addresses of a run's arrays into the records of the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sigconv.kernels.cpu import objects

KERNEL = objects.locate


class Places:
    """Where the addresses of ``count`` arrays are written, and of which arrays.

    ``places``: (array, bytes to add to its address, byte of the ``records`` to write to) each.
    """

    def __init__(self, count: int, records: np.ndarray, places: Sequence[tuple[int, int, int]]) -> None:
        self._places = np.array([(a, offset, records.ctypes.data + at) for a, offset, at in places], objects.PLACE)
        self._addresses = np.zeros(count, np.int64)
        self._arrays = np.zeros(count, np.int64)
        self._objects = memoryview(self._arrays.data)
        record = (self._arrays.ctypes.data, self._places.ctypes.data, len(places), objects.HEAD)
        self._record = np.array(record, objects.LOCATE)

    @property
    def step(self) -> tuple[int, int, int, bool]:
        """The step, valid as long as this object lives."""
        return KERNEL.address, self._record.ctypes.data, 1, True

    def point(self, arrays: Sequence[np.ndarray | None]) -> None:
        """Use these arrays from the next run on; the caller keeps them alive."""
        if not objects.known():  # an address beside the objects' stands in for the one within them
            self._addresses[:] = [0 if a is None else a.ctypes.data for a in arrays]
            self._arrays[:] = self._addresses.ctypes.data + 8 * np.arange(len(arrays)) - objects.HEAD
            return
        ids = self._objects
        for i, array in enumerate(arrays):
            if array is not None:
                ids[i] = id(array)
