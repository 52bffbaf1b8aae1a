"""What predictions assume of a device; only ratios between candidates matter."""

from __future__ import annotations

MULTIPROCESSORS = 132
PEAK = 5.0e13
"""float32 operations per second that predictions assume (an H200's, without tensor cores)."""
BANDWIDTH = 3.5e12
LAUNCH = 3e-6
"""Bytes per second, and seconds that a launch takes at least."""
