"""Tests of the CUDA half in Numba's simulator: ``NUMBA_ENABLE_CUDASIM=1 pytest tests/cuda``."""
