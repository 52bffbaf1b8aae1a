"""Memory that a kernel's threads have for their own use during a step: fields of its record, and who has which part."""

from __future__ import annotations

from sigconv.kernels.jit import inline

SCRATCH = ("scratch", "scratch_others", "scratch_bytes")
"""The address of the first thread's part, that of all others' in a row, the size of a part.

Apart, so that a program for many threads has its first part where a program for one has its only one: where no other
thread comes, it touches the same memory.
"""


@inline
def own_scratch(a, thread):
    """The address of a thread's part, for a record with `SCRATCH`."""
    return a.scratch if thread == 0 else a.scratch_others + (thread - 1) * a.scratch_bytes
