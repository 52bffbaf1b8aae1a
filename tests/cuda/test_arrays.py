"""Arrays of other libraries: used in place, given back as the same kind, in stream order; failures in one line."""

from __future__ import annotations

import gc
import sys
import types
import weakref

import numpy as np
import pytest
from numba import cuda

import sigconv as sc
from sigconv.errors import DeviceError, InputError
from sigconv.export.writer import to_proto
from sigconv.graph.builder import GraphBuilder
from sigconv.kernels.cuda.limits import MAX_GRID, MAX_SHARED, MAX_THREADS, blocks, check
from sigconv.model import Model
from sigconv.runtime import device
from sigconv.runtime.dlpack import Taken
from sigconv.runtime.kinds import device_of, is_device_array

F32 = np.float32


def net() -> Model:
    b = GraphBuilder("net", 1)
    return Model(b.build(b.relu(b.conv(b.input("x", (1, 2, 4, 5)), 3, 3))))


def test_device_arrays_in_device_arrays_out(rng):
    model, x = net(), rng.standard_normal((1, 2, 4, 5)).astype(F32)
    name = model.outputs[0].name
    there = cuda.to_device(x)
    got = model.run({"x": there})[name]
    assert not isinstance(got, np.ndarray)
    np.testing.assert_allclose(got.copy_to_host(), model.run({"x": x})[name], rtol=1e-5, atol=1e-5)
    session = model.compile(device="cuda")
    out = cuda.device_array(got.shape, F32)
    assert session.run({"x": there}, {name: out})[name] is out
    np.testing.assert_array_equal(out.copy_to_host(), got.copy_to_host())


def test_profile_runs_on_arrays_of_the_device(rng):
    x = rng.standard_normal((1, 2, 4, 5)).astype(F32)
    session = net().compile(device="cuda")
    session.profile({"x": cuda.to_device(x)}, repeat=1)
    (want,) = net().run({"x": x}).values()
    np.testing.assert_allclose(session._outputs[0].copy_to_host(), want.reshape(-1), rtol=1e-5, atol=1e-5)


def test_feeds_on_the_device_are_checked(rng):
    session = net().compile(device="cuda")
    with pytest.raises(InputError, match="shape"):
        session.run({"x": cuda.to_device(np.zeros((1, 2, 4, 4), F32))})
    with pytest.raises(InputError, match="float64"):
        session.run({"x": cuda.to_device(np.zeros((1, 2, 4, 5)))})
    with pytest.raises(InputError, match="contiguous"):
        session.run({"x": cuda.to_device(np.zeros((5, 4, 2, 1), F32)).transpose()})
    with pytest.raises(InputError, match="outputs can only be given"):
        session.run({"x": np.zeros((1, 2, 4, 5), F32)}, {"y": None})


class Foreign:
    """A device array of another library, on a stream of its own."""

    def __init__(self, array: np.ndarray, stream: int | None) -> None:
        self.array = array
        self.__cuda_array_interface__ = {
            "data": (array.ctypes.data, False), "shape": array.shape, "typestr": array.dtype.str, "version": 3,
            "stream": stream,
        }  # fmt: skip


@pytest.fixture
def streams(monkeypatch):
    """CUDA's streams and events by name, written down in the order in which they are used."""
    log: list[str] = []

    class Event:
        def record(self, stream):
            log.append(f"record on {stream}")

        def wait(self, stream):
            log.append(f"{stream} waits")

    monkeypatch.setattr(device.cuda, "event", lambda timing: Event(), raising=False)
    monkeypatch.setattr(device.cuda, "external_stream", lambda handle: f"stream {handle}", raising=False)
    monkeypatch.setattr(device.cuda, "default_stream", lambda: "default", raising=False)
    monkeypatch.setattr(device.cuda, "as_cuda_array", lambda obj, sync: (obj, sync), raising=False)
    return log


def test_the_producers_stream_is_respected(streams):
    foreign = Foreign(np.zeros(3, F32), 7)
    assert device.adopt(foreign, "ours") == (foreign, False)  # Numba itself would make the host wait
    assert streams == ["record on stream 7", "ours waits"]
    device.follow(device.stream_of(foreign), "ours")
    assert streams[2:] == ["record on ours", "stream 7 waits"]
    device.follow(device.stream_of(Foreign(np.zeros(3, F32), None)), "ours")
    assert streams[4:] == ["record on ours", "default waits"]


def test_numbas_own_arrays_have_producers_too(streams):
    array = Foreign(np.zeros(3, F32), 5)
    array.__cuda_ndarray__ = True
    assert device.adopt(array, "ours") is array
    assert streams == ["record on stream 5", "ours waits"]


def test_torch_names_no_stream_but_waits_and_is_waited_for(streams, monkeypatch):
    """Its arrays come by DLPack, which orders them; results follow its current stream."""
    torch = types.ModuleType("torch")
    torch.cuda = types.SimpleNamespace(current_stream=lambda where: types.SimpleNamespace(cuda_stream=9))
    monkeypatch.setitem(sys.modules, "torch", torch)

    class Tensor(_OnDevice):
        __module__ = "torch"
        __cuda_array_interface__ = {"stream": None}
        device = "cuda:0"

    tensor = Tensor(np.zeros(3, F32))
    taken, _ = device.adopt(tensor, 11)
    assert isinstance(taken, Taken)
    assert tensor.streams == [11]
    assert device.stream_of(tensor) == "stream 9"


def test_streams_of_other_libraries(streams):
    assert device.stream_from(3) == "stream 3"
    assert device.stream_from(types.SimpleNamespace(ptr=4)) == "stream 4"
    assert device.stream_from(types.SimpleNamespace(cuda_stream=5)) == "stream 5"
    assert device.stream_from("Numba's") == "Numba's"


def test_the_callers_stream(rng):
    class Stream:
        """What the simulator asks of one."""

        def synchronize(self):
            raise AssertionError("the host waits")

    stream = Stream()
    session = net().compile(device="cuda", stream=stream)
    assert session.stream is stream
    with pytest.raises(InputError, match="device='cuda'"):
        net().compile(stream=stream)


def test_a_run_on_the_device_neither_allocates_nor_waits(rng, monkeypatch):
    model, x = net(), rng.standard_normal((1, 2, 4, 5)).astype(F32)
    (name,) = (v.name for v in model.outputs)
    (want,) = model.run({"x": x}).values()
    session = model.compile(device="cuda")
    there, out = cuda.to_device(x), cuda.device_array(want.shape, F32)

    def never(*arguments, **options):
        raise AssertionError("a run allocates, copies or waits")

    for target, attribute in ((device, "empty"), (device, "upload"), (device.cuda, "to_device")):
        monkeypatch.setattr(target, attribute, never)
    monkeypatch.setattr(session, "stream", types.SimpleNamespace(synchronize=never))
    for _ in range(2):
        session.run({"x": there}, {name: out})
    np.testing.assert_allclose(out.copy_to_host(), want, rtol=1e-5, atol=1e-5)


def test_no_stream_no_waiting(streams):
    device.adopt(Foreign(np.zeros(3, F32), None), "ours")
    assert streams == []


@pytest.mark.parametrize("name", ["torch", "cupy"])
def test_results_are_of_the_callers_kind(name, monkeypatch):
    library = types.ModuleType(name)
    library.as_tensor = lambda array, device: ("torch", array, device)
    library.asarray = lambda array: ("cupy", array)
    monkeypatch.setitem(sys.modules, name, library)
    kind = type("Array", (), {"__module__": f"{name}.core"})
    assert device.like(kind(), "y")[:2] == (name, "y")
    assert device.like(object(), "y") == "y"


def test_where_arrays_lie():
    assert is_device_array(Foreign(np.zeros(1), None))
    assert is_device_array(cuda.to_device(np.zeros(1)))
    assert not is_device_array(np.zeros(1))
    assert not is_device_array([1, 2])
    assert device_of((np.zeros(1), Foreign(np.zeros(1), None))) == "cuda"
    assert device_of((np.zeros(1),)) == "cpu"
    assert device_of((np.zeros(1),), "cuda") == "cuda"


class _OnDevice:
    """A NumPy array that says it lies on a CUDA device."""

    def __init__(self, array):
        self.array, self.streams = array, []

    def __dlpack_device__(self):
        return 2, 0

    def __dlpack__(self, stream=None):
        self.streams.append(stream)
        return self.array.__dlpack__()


@pytest.mark.parametrize("dtype", ["f4", "f8", "i8", "u1", "c8"])
def test_dlpack_is_read(dtype):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)[:, 1:, ::2]
    taken = Taken(array.__dlpack__())
    assert (taken.dtype, taken.shape, taken.strides) == (array.dtype, array.shape, array.strides)
    assert taken.address == array.ctypes.data
    assert taken.__cuda_array_interface__["data"] == (array.ctypes.data, False)


def test_dlpack_memory_lives_as_long_as_it_is_held():
    class Owner(np.ndarray):
        pass

    array = np.zeros(3, F32).view(Owner)
    gone = weakref.ref(array)
    taken = Taken(array.__dlpack__())
    del array
    gc.collect()
    assert gone() is not None
    del taken
    gc.collect()
    assert gone() is None


def test_dlpack_producers_let_our_stream_wait(streams):
    value = _OnDevice(np.zeros(3, F32))
    assert is_device_array(value)
    taken, sync = device.adopt(value, 11)
    assert isinstance(taken, Taken)
    assert not sync
    device.adopt(value, 0)
    assert value.streams == [11, 1]  # the default stream is number 1 there


def test_failures_say_what_to_do():
    with pytest.raises(DeviceError, match="smaller batch"), device.explained("this run"):
        raise RuntimeError("[2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY")
    with pytest.raises(DeviceError, match=r"driver is older.*pip install"), device.explained("this run"):
        raise RuntimeError("[222] Call to cuLinkAddData results in CUDA_ERROR_UNSUPPORTED_PTX_VERSION")
    with pytest.raises(ZeroDivisionError), device.explained("this run"):
        1 / 0  # noqa: B018
    assert "7.0 or newer" in device.too_old("Tesla P100", (6, 0))
    assert device.too_old("NVIDIA H200", (9, 0)) is None


def test_launches_are_within_every_devices_limits():
    for n in (1, 5, 1000, 10**9):
        for planes in (1, 7, 10**6):
            check("k", (planes, blocks(n, planes), 1), MAX_THREADS, MAX_SHARED)
    for grid, threads, shared in (
        ((1, MAX_GRID[1] + 1, 1), 32, 0),
        ((0, 1, 1), 32, 0),
        ((1, 1, 1), MAX_THREADS + 1, 0),
        ((1, 1, 1), 32, MAX_SHARED + 1),
    ):
        with pytest.raises(OverflowError, match="are possible"):
            check("k", grid, threads, shared)


def test_a_whole_model_takes_the_session_of_one_shape(rng):
    x = rng.standard_normal((1, 2, 4, 5)).astype(F32)
    session = sc.InferenceSession(to_proto(net().graph), providers=["CUDAExecutionProvider", "CPUExecutionProvider"])
    (got,) = session.run(None, {"x": x})
    np.testing.assert_allclose(got, net().run({"x": x})[net().outputs[0].name], rtol=1e-5, atol=1e-5)
