"""Convolution, cross-correlation and their relatives on arrays, with SciPy's conventions."""
