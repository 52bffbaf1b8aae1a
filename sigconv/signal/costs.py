"""What the chooser believes a method costs: seconds for the parts of each, with the machine they were measured on.

The table is costs.json, which ``python -m benchmarks.calibrate`` fits and rewrites. Every prediction is a sum of its
entries times counts; `sigconv.signal.methods` says which.

    call[method]         a call, whatever its size; ``axis``: what each further axis adds to a direct one; ``quick``: a
                         direct one of real numbers in one or two dimensions
    mac[type]            a multiply-add of the row kernels, by the type of the sums: taps along the row;
                         mac_rows on two axes, where output rows share what they read; mac_apart on more, where those
                         of a plane do; mac_across behind which whole rows lie; mac_few for a stream's short chunks
    row                  a row that an output row reads
    move[type]           an output, read and written
    grid[type]           a block of our own transforms, there and back, for each number, of log2(numbers);
                         grid_number[type] of 1, grid_far[type] what comes on top beyond every cache
    grid_row             a row of a block
    transform[type]      a library's transform, of n * log2(n), in the nearest cache; transform_far[type] comes on top
                         beyond every cache, in between a share of it
    spectrum[type]       a product of spectra with what surrounds it, for a real number
    tiling[type]         cutting and joining blocks, for a real number and each axis after the first
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Costs = dict[str, Any]

COSTS: Costs = json.loads(Path(__file__).with_name("costs.json").read_text("utf-8"))
