"""Where an index beyond the ends of an axis leads: one rule, compiled for every machine."""

from __future__ import annotations

FILL, EDGE, SYMM, REFLECT, WRAP = range(5)
"""What lies beyond the ends: a value, the last element, mirrored with or without repeating it, periodic."""
BOUNDARIES = {"fill": FILL, "edge": EDGE, "symm": SYMM, "reflect": REFLECT, "wrap": WRAP}


def element(i: int, size: int, boundary: int) -> int:
    """The element in [0, size) that index ``i`` of the continued axis reads; -1 for the fill value."""
    if 0 <= i < size:
        return i
    if boundary == FILL:
        return -1
    if boundary == EDGE:
        return 0 if i < 0 else size - 1
    if boundary == WRAP:
        return i % size
    if boundary == SYMM:
        i %= 2 * size
        return i if i < size else 2 * size - 1 - i
    if size == 1:
        return 0
    i %= 2 * size - 2
    return i if i < size else 2 * size - 2 - i
