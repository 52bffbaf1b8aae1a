"""Launches recorded once and replayed as a CUDA graph: one call of the driver in place of one for each kernel.

Source: CUDA C++ Programming Guide, "CUDA Graphs", stream capture.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

KEPT = 8
"""Graphs that a session keeps, one for each set of input and output addresses."""


class Replay:
    """The graphs of one session. What cannot be captured is launched, now and from then on; ``problem`` says why.

    Parameters
    ----------
    driver : module or None
        ``cuda.bindings.driver``; None: everything is launched.
    stream : numba.cuda stream
    """

    def __init__(self, driver: Any, stream: Any) -> None:
        self._driver, self._stream = driver, stream
        self._seen: dict[Hashable, Any] = {}
        self.problem: str | None = None if driver is not None else "cuda.bindings is not installed"

    def run(self, key: Hashable, launches: Callable[[], object]) -> None:
        """Do what ``launches`` queues: the first time by calling it (which compiles), then by a graph.

        ``key``: equal only where every address is.
        """
        if self.problem is not None:
            launches()
            return
        graph = self._seen.get(key)
        if graph is None and key not in self._seen:
            if len(self._seen) >= KEPT:
                self._destroy(self._seen.pop(next(iter(self._seen))))
            self._seen[key] = None
            launches()
            return
        if graph is None:
            graph = self._seen[key] = self._capture(launches)
        if graph is None:
            launches()
        else:
            self._call("cuGraphLaunch", graph, int(self._stream))

    def _capture(self, launches: Callable[[], object]) -> Any:
        """The executable graph of the launches, or None: then ``problem`` is set and nothing was queued."""
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
        try:
            self._call("cuStreamBeginCapture", int(self._stream), mode)
            try:
                launches()
            finally:
                graph = self._call("cuStreamEndCapture", int(self._stream))
            executable = self._call("cuGraphInstantiate", graph, 0)
            self._call("cuGraphDestroy", graph)
        except Exception as error:
            self.problem = " ".join(f"{type(error).__name__}: {error}".split())
            return None
        return executable

    def _call(self, name: str, *arguments: Any) -> Any:
        """A driver function's result; RuntimeError unless it succeeds."""
        status, *result = getattr(self._driver, name)(*arguments)
        if int(status):
            raise RuntimeError(f"{name}: {getattr(status, 'name', status)}")
        return result[0] if result else None

    def _destroy(self, graph: Any) -> None:
        if graph is not None:
            self._call("cuGraphExecDestroy", graph)

    def __del__(self) -> None:
        for graph in getattr(self, "_seen", {}).values():
            if graph is not None:
                self._driver.cuGraphExecDestroy(graph)
