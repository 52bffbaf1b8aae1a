"""Array objects are read natively: the right addresses, of whatever arrays, which live as long as they are read."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import sigconv as sc
from sigconv import nn
from sigconv.kernels.cpu import data_pointers
from sigconv.kernels.jit import ensure
from sigconv.runtime import fixups, runner
from tests.cases import networks

SHAPE = (2, 3, 12, 12)
BOTH_WAYS = pytest.mark.parametrize("readable", [True, False])


@pytest.fixture(scope="module")
def model() -> sc.Model:
    return sc.load(networks.cnn())


def image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)


class Named(np.ndarray):
    """A subclass with attributes of its own, which claims to lie elsewhere."""

    __slots__ = ("name", "other")

    @property
    def __array_interface__(self) -> dict[str, object]:
        return np.zeros(self.shape, self.dtype).__array_interface__


@BOTH_WAYS
def test_where_the_elements_lie(readable, monkeypatch, tmp_path):
    if not data_pointers.READABLE and readable:
        pytest.skip("array objects of this Python are not read natively")
    monkeypatch.setattr(data_pointers, "READABLE", readable)
    base = np.arange(24.0).reshape(4, 6)
    read_only = np.arange(5)
    read_only.flags.writeable = False
    arrays = [
        base,
        base[1:, 2:],
        base[::-1, ::-1],
        base.T,
        np.array(3.0),
        base[2, 3, ...],
        np.empty((3, 0, 2)),
        read_only,
        np.arange(7, dtype=">f4"),
        np.frombuffer(bytearray(16), np.uint8)[3:],
        np.zeros(2, [("a", np.int8), ("b", np.float64)])["b"],
        np.array(["x", None], object),
        base.view(Named),
        base.view(np.matrix)[2:],
        np.ma.masked_array(base, base > 3),
        np.memmap(tmp_path / "a", np.float32, "w+", shape=(3, 4)),
        np.lib.stride_tricks.as_strided(base, (9, 9), (0, 0)),
    ]
    records = np.full(2 * len(arrays) + 1, -1)
    table = [(i, 24 * i, 8 * at) for i in range(len(arrays)) for at in (i, len(arrays) + i)]
    first_step = fixups.Fixups(len(arrays) + 1, records, table)
    ensure([*runner.KERNELS, fixups.KERNEL])
    run = runner.Prepared(np.array([first_step.step], runner.STEP))
    for given in (arrays, arrays[::-1]):
        first_step.point([*given, None])
        run.run(1)
        want = [a.ctypes.data + 24 * i for i, a in enumerate(given)]
        assert records.tolist() == [*want, *want, -1]


def test_what_a_python_without_such_objects_does(model, monkeypatch):
    session = model.compile({"x": SHAPE})
    want = [session.run({"x": image(seed)})["y"] for seed in (1, 2)]
    monkeypatch.setattr(data_pointers, "READABLE", False)
    for seed in (1, 2):
        np.testing.assert_array_equal(session.run({"x": image(seed)})["y"], want[seed - 1])
    monkeypatch.undo()
    np.testing.assert_array_equal(session.run({"x": image(1)})["y"], want[0])
    assert not np.array_equal(*want)


@pytest.mark.parametrize("layout", ["C", "F"])  # the session reads the caller's own array, or its copy
def test_arrays_are_held_while_a_session_runs_and_no_longer(model, layout, monkeypatch):
    session = model.compile({"x": SHAPE})
    want = session.run({"x": image(1)})["y"]
    feeds = {"x": np.array(image(1), order=layout)}
    point, run_natively, read = session._fixups.point, session._only_native.run, []

    def note(arrays):
        read.extend(map(weakref.ref, arrays))
        point(arrays)

    def run(threads):
        """What another thread may do as soon as the native call has let go of the GIL."""
        feeds.clear()
        gc.collect()
        assert all(array() is not None for array in read)
        others = [np.full(SHAPE, np.nan, np.float32) for _ in range(50)]  # of the memory, were it free
        run_natively(threads)
        del others

    monkeypatch.setattr(session._fixups, "point", note)
    monkeypatch.setattr(session._only_native, "run", run)
    np.testing.assert_array_equal(session.run(feeds)["y"], want)
    gc.collect()
    assert [array() for array in read] == [None, None]


def test_an_array_keeps_its_size_while_it_is_read(model, monkeypatch):
    session = model.compile({"x": SHAPE})
    x = image(1)
    feeds = {"x": x}
    run_natively = session._only_native.run

    def run(threads):
        feeds.clear()
        with pytest.raises(ValueError, match="resize"):
            x.resize(10**6)
        run_natively(threads)

    monkeypatch.setattr(session._only_native, "run", run)
    session.run(feeds)
    x.resize(10**6)


def test_a_layer_does_not_keep_its_arrays():
    x, out = np.arange(10.0), np.empty(10)
    nn.relu(x, out=out)
    held = [weakref.ref(x), weakref.ref(out)]
    del x, out
    assert [array() for array in held] == [None, None]


@BOTH_WAYS
def test_feeds_that_are_no_plain_arrays(readable, model, monkeypatch, tmp_path):
    monkeypatch.setattr(data_pointers, "READABLE", readable and data_pointers.READABLE)
    x = image(3)
    session = model.compile({"x": SHAPE})
    want = session.run({"x": x})["y"]
    mapped = np.memmap(tmp_path / "x", np.float32, "w+", shape=SHAPE)
    mapped[...] = x
    for other in (mapped, np.ma.masked_array(x, x > 0), x.view(Named), x.tolist()):
        np.testing.assert_array_equal(session.run({"x": other})["y"], want)
    scalar = sc.load(networks.model([networks.helper.make_node("Neg", ["x"], ["y"])], {"x": []}, ["y"])).compile()
    for one in (np.float32(2.5), np.array(2.5, np.float32), 2.5):
        got = scalar.run({"x": one})["y"]
        assert (got.shape, got) == ((), -2.5)
