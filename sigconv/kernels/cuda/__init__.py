"""CUDA kernels: the same names as the CPU's, of the same room. Nothing of the CPU half imports them."""
