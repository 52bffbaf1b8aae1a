"""Large tensors read past protobuf: whatever the file, the same message as protobuf alone gives, or the same error."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto, helper

from sigconv.errors import ModelError
from sigconv.export import wire
from sigconv.export.reader import read
from tests.cases.onnx_models import X, model_of, node


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field of a message, lengths up to 2 MB as varints that need not be minimal."""
    length = len(content)
    return bytes([number << 3 | 2, length & 127 | 128, length >> 7 & 127 | 128, length >> 14 & 127]) + content


def weights(count: int, rng: np.random.Generator) -> ModelProto:
    """A sum with ``count`` weights of growing size and all kinds of storage."""
    constants = {f"w{i}": rng.standard_normal((1 + 3 * i, 5)).astype(np.float32) for i in range(count)}
    nodes = [node("Relu", "x", "y"), *(node("Relu", name, f"r_{name}") for name in constants)]
    model = model_of(nodes, X, constants=constants)
    model.graph.initializer.append(helper.make_tensor("typed", TensorProto.FLOAT, [40], np.arange(40.0)))
    return model


def joined(skeleton: bytes, large: dict[int, np.ndarray]) -> ModelProto:
    """What `wire.split` stands for."""
    model = ModelProto.FromString(skeleton)
    for i, raw in large.items():
        assert model.graph.initializer[i].raw_data == b""
        model.graph.initializer[i].raw_data = raw.tobytes()
    return model


@pytest.mark.parametrize("smallest", [1, 100, 1 << 14])
def test_split_and_joined_is_what_protobuf_reads(smallest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "LARGE", smallest)
    model = weights(9, np.random.default_rng(5))
    skeleton, large = wire.split(io.BytesIO(model.SerializeToString()))
    assert list(large) == [i for i, t in enumerate(model.graph.initializer) if len(t.raw_data) >= smallest]
    assert joined(skeleton, large) == model
    assert all(raw.ctypes.data % 64 == 0 for raw in large.values())


def test_of_a_field_given_twice_the_last_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "LARGE", 8)
    head = helper.make_tensor("w", TensorProto.FLOAT, [2], np.ones(2)).SerializeToString()
    for contents in ([b"x" * 8, b"y" * 8], [b"x" * 4, b"y" * 8], [b"x" * 8, b"y" * 4], [b"x" * 8, b""]):
        tensor = head + b"".join(field(9, c) for c in contents)
        graph = field(5, tensor) + field(5, head) + field(1, b"")
        data = field(7, graph) + field(7, field(5, tensor))  # two graphs: protobuf joins them
        assert joined(*wire.split(io.BytesIO(data))) == ModelProto.FromString(data)


def test_damaged_files_read_as_protobuf_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "LARGE", 16)
    good = weights(4, np.random.default_rng(8)).SerializeToString()
    rng = random.Random(31)
    taken = refused = 0
    for _ in range(4000):
        data = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(data))
            match rng.randrange(4):
                case 0:
                    data[at] = rng.randrange(256)
                case 1:
                    del data[at : at + rng.randint(1, 9)]
                case 2:
                    data[at:at] = rng.randbytes(rng.randint(1, 9))
                case 3:
                    data = data[: at + 1]
        try:
            expected = ModelProto.FromString(bytes(data))
        except DecodeError:
            refused += 1
            with pytest.raises(DecodeError):
                ModelProto.FromString(wire.split(io.BytesIO(data))[0])
            continue
        skeleton, large = wire.split(io.BytesIO(data))
        taken += bool(large)
        assert joined(skeleton, large).SerializeToString(deterministic=True) == expected.SerializeToString(
            deterministic=True
        )
    assert taken > 300
    assert refused > 300


def test_no_more_memory_than_the_file_has() -> None:
    tensor = bytes([9 << 3 | 2, 255, 255, 255, 255, 255, 127]) + b"x"  # 4 TB of raw_data are claimed
    with pytest.raises(ModelError, match="damaged"):
        read(field(7, field(5, tensor)))


def test_a_file_gives_the_graph_of_its_message(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "LARGE", 4)
    rng = np.random.default_rng(3)
    constants = {
        "a": rng.standard_normal((7, 3)),
        "b": rng.integers(0, 2, 9).astype(bool),
        "c": np.int64([[5, -6]]),
        "half": rng.standard_normal(6).astype(np.float16),
    }
    nodes = [node("Relu", "x", "y"), *(node("Identity", c, f"i_{c}") for c in constants)]
    model = model_of(nodes, X, constants=constants)
    model.graph.initializer.append(helper.make_tensor("four", TensorProto.INT4, [9], b"\x12\x34\x5f\x08\x01", raw=True))
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    expected = read(model)
    for found in (read(path), read(path.read_bytes())):
        assert list(found.constants) == list(expected.constants)
        for name, array in expected.constants.items():
            assert found.constants[name].dtype == array.dtype
            np.testing.assert_array_equal(found.constants[name], array)
            assert not found.constants[name].flags.writeable


def test_a_size_that_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "LARGE", 4)
    model = model_of([node("Add", "x w", "y")], X, constants={"w": np.ones(5, np.float32)})
    model.graph.initializer[0].raw_data += b"1234"
    with pytest.raises(ModelError, match=r"initializer 'w': shape \[5\] of float32 needs 20 bytes, 24 are given"):
        read(model.SerializeToString())
