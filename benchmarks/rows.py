"""The kernels of direct correlation: ``python -m benchmarks.rows [--types f32 f64] [--rounds 15]``, one thread.

GFLOP/s (2 flops a tap; 8 where complex) from arrays that fit the second-level cache, calls from Python included, the
fastest round. Beside them what computes the same: ``numpy.convolve`` in 1-D; in 2-D ``scipy.ndimage.correlate`` and, if
installed, ``cv2.filter2D``, both of which also fill borders.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import time
from collections.abc import Callable

import numpy as np
import scipy.ndimage

from benchmarks import machine
from sigconv.kernels.cpu import rows

try:
    import cv2
except ImportError:
    cv2 = None  # type: ignore[assignment]
else:
    cv2.setNumThreads(1)

LENGTH, TAPS_1D = 65536, (3, 7, 15, 31, 64, 256, 1023)
IMAGE, TAPS_2D = (256, 512), (3, 5, 7, 11, 15, 31)
TYPES: dict[str, type[np.generic]] = {"f32": np.float32, "f64": np.float64, "c64": np.complex64, "c128": np.complex128}
TYPES |= {"u8": np.uint8, "i16": np.int16, "i32": np.int32, "i64": np.int64, "f32_u8": np.float32}


def fastest(call: Callable[[], object], rounds: int) -> float:
    """Seconds of one call."""
    call()
    start = time.perf_counter()
    call()
    repeats = max(1, int(0.003 / (time.perf_counter() - start)))
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        times.append((time.perf_counter() - start) / repeats)
    return min(times)


def prepared(name: str, x: np.ndarray, w: np.ndarray) -> Callable[[], None]:
    """The kernel's call for the 'valid' correlation of an image with taps."""
    kernel, (height, width) = rows.KERNELS[name], np.subtract(x.shape, w.shape) + 1
    numbers = rows.NUMBERS[name]
    y = np.zeros((height, width), x.dtype if numbers.parts == 2 else numbers.target)
    table = x.ctypes.data + x.strides[0] * (np.arange(height)[:, None] + np.arange(w.shape[0]))
    record = np.zeros(1, kernel.args)
    values = (
        table.ctypes.data,
        w.ctypes.data,
        y.ctypes.data,
        height,
        *w.shape,
        width,
        1,
        1,
        w.shape[0] > 1,
        width,
        0,
        0,
    )
    record[0] = values
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(kernel.address)
    kept = (x, w, y, table, record)
    return lambda: function(kept[-1].ctypes.data, 0, 1)


def peers(name: str, x: np.ndarray, w: np.ndarray) -> dict[str, Callable[[], object]]:
    """What else computes it, by name."""
    if len(w) == 1:
        return {"numpy.convolve": lambda: np.convolve(x[0], w[0], "valid")} if name != "f32_u8" else {}
    found: dict[str, Callable[[], object]] = {}
    if name in ("f32", "f64"):
        found["scipy.ndimage"] = lambda: scipy.ndimage.correlate(x, w)
    if cv2 is not None and name in ("f32", "f64", "f32_u8"):
        found["cv2.filter2D"] = lambda: cv2.filter2D(x, -1, w)
    return found


def main() -> None:
    """Measure and print one JSON line a row, the machine first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--types", nargs="+", choices=TYPES, default=["f32", "f64"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--peers", action="store_true", help="measure other libraries too")
    options = parser.parse_args()
    print(json.dumps(machine.describe()))
    rng = np.random.default_rng(0)
    for name in options.types:
        taps_type = TYPES[name] if rows.NUMBERS[name].parts == 2 else rows.NUMBERS[name].sum
        shapes = [((1, LENGTH), (1, k)) for k in TAPS_1D] + [(IMAGE, (k, k)) for k in TAPS_2D]
        for outputs, taps in shapes:
            x = (rng.random(np.add(outputs, taps) - 1) * 100).astype(TYPES[name])
            w = (rng.random(taps) * 100).astype(taps_type) if name != "f32_u8" else np.full(taps, 0.01, np.float32)
            flops = 2 * np.prod(outputs) * np.prod(taps) * (4 if x.dtype.kind == "c" else 1)
            row: dict[str, object] = {"type": name, "taps": taps, "outputs": outputs}
            row["GFLOP/s"] = round(flops / fastest(prepared(name, x, w), options.rounds) / 1e9, 1)
            if options.peers:
                for peer, call in peers(name, x, w).items():
                    row[peer] = round(flops / fastest(call, 3) / 1e9, 1)
            print(json.dumps(row))


if __name__ == "__main__":
    main()
