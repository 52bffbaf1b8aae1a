"""SciPy's own tests of convolution and correlation, with our functions in SciPy's place.

Run from the installed SciPy, so they are the tests of that version. They see our functions both in their module and in
`scipy.signal`; SciPy's other functions that they use as a reference (np.convolve, ndimage) stay what they are.
"""

from __future__ import annotations

import pytest

import sigconv

theirs = pytest.importorskip("scipy.signal.tests.test_signaltools", reason="needs SciPy, with its tests")

OURS = (
    "choose_conv_method",
    "convolve",
    "convolve2d",
    "correlate",
    "correlate2d",
    "correlation_lags",
    "fftconvolve",
    "oaconvolve",
)

CANNOT_APPLY = {
    "test_fft_nan": "asks for the warning that NaN poisons the whole result of an FFT; here it does not",
}
"""Tests of SciPy's that state another behaviour, and why ours is meant."""

CLASSES = (
    "TestConvolve",
    "TestConvolve2d",
    "TestFFTConvolve",
    "TestOAConvolve",
    "TestAllFreqConvolves",
    "TestCorrelateReal",
    "TestCorrelate",
    "TestCorrelateComplex",
    "TestCorrelate2d",
)
FUNCTIONS = ("test_convolve_longdtype_input", "test_correlation_lags", "test_correlation_lags_invalid_mode")

globals().update({name: getattr(theirs, name) for name in (*CLASSES, *FUNCTIONS)})


@pytest.fixture(autouse=True)
def in_their_place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """Our functions under SciPy's names."""
    if request.node.originalname in CANNOT_APPLY:
        pytest.skip(CANNOT_APPLY[request.node.originalname])
    for name in OURS:
        monkeypatch.setattr(theirs, name, getattr(sigconv, name))
        monkeypatch.setattr(theirs.signal, name, getattr(sigconv, name))


def test_ours_are_called():
    assert all(getattr(theirs, name) is getattr(sigconv, name) for name in OURS)
    assert theirs.signal.convolve.__module__.startswith("sigconv.")
