"""Only in a process that simulates: see tests/test_cuda.py, which starts one."""

from __future__ import annotations

import os

from tests.cases.oracle import SEED

if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
    from tests.cuda import simulator

    simulator.install(SEED)
else:
    collect_ignore_glob = ["test_*.py"]
