"""Damage for ONNX files: what a bad disk, a bad exporter or a bad person does to one. Imports nothing of ours.

Every mutation is a function of the model and a random generator; `mutate` picks one to three of them. Those in
`HOSTILE` make files that must be refused, whatever else is in them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

Rng = np.random.Generator
BYTES: dict[str, Callable[[bytes, Rng], bytes]] = {}
PROTOS: dict[str, Callable[[ModelProto, Rng], None]] = {}
HOSTILE: dict[str, Callable[[ModelProto, Rng], None]] = {}

SIZES = (-(1 << 63), -(1 << 31), -2, -1, 0, 1, 2, 3, 7, 255, 1000, 65536, 1 << 20, (1 << 31) - 1, 1 << 31, 1 << 40)
SIZES += (1 << 62, (1 << 63) - 1)
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-30, 1e30, 3e38, float("inf"), float("-inf"), float("nan"))
TEXTS = ("", " ", "x", "y", "\0", "../x", "SAME_UPPER", "VALID", "linear", "cubic", "reflect", "a" * 5000, "Ünïcode☃")


def mutate(data: bytes, rng: Rng, folder: Path) -> tuple[bytes, str, bool]:
    """(the damaged file, what was done to it, whether it must be refused); its other files go to ``folder``."""
    if rng.random() < 0.35:
        name = _one(rng, list(BYTES))
        return BYTES[name](data, rng), name, False
    model = ModelProto.FromString(data)
    furnish(folder)
    if rng.random() < 0.1:
        name = _one(rng, list(HOSTILE))
        HOSTILE[name](model, rng)
        return model.SerializeToString(), name, True
    names = [_one(rng, list(PROTOS)) for _ in range(rng.integers(1, 4))]
    for name in names:
        PROTOS[name](model, rng)
    if model.ByteSize() > 20_000_000:
        return data, "too large to write", False
    return model.SerializeToString(), "+".join(names), False


def _one(rng: Rng, options: Any) -> Any:
    return options[int(rng.integers(len(options)))]


# --- bytes -----------------------------------------------------------------------------------------------------------
def _bytes(function: Callable[[bytes, Rng], bytes]) -> Callable[[bytes, Rng], bytes]:
    BYTES[function.__name__] = function
    return function


@_bytes
def flip_bits(data: bytes, rng: Rng) -> bytes:
    changed = bytearray(data)
    for place in rng.integers(len(data), size=rng.integers(1, 9)):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


@_bytes
def flip_bits_of_the_structure(data: bytes, rng: Rng) -> bytes:
    """Most bytes of a model are weights: this looks for the others."""
    changed = bytearray(data)
    starts = np.flatnonzero(np.frombuffer(data, np.uint8) < 128)  # tags, lengths, names
    for place in rng.choice(starts[: 4 * 4096] if rng.random() < 0.5 else starts, rng.integers(1, 4)):
        changed[place] = int(rng.integers(256))
    return bytes(changed)


@_bytes
def truncate(data: bytes, rng: Rng) -> bytes:
    return data[: int(rng.integers(len(data)))]


@_bytes
def splice(data: bytes, rng: Rng) -> bytes:
    a, b, c = sorted(map(int, rng.integers(len(data), size=3)))
    return _one(rng, [data[:a] + data[b:], data[:b] + data[a:], data[:c] + data[a:b] + data[c:], data[a:]])


@_bytes
def large_numbers(data: bytes, rng: Rng) -> bytes:
    """A varint grows to the largest there is."""
    place = int(rng.integers(len(data)))
    return data[:place] + b"\xff" * int(rng.integers(1, 10)) + b"\x01" + data[place + int(rng.integers(3)) :]


# --- any field of the message ----------------------------------------------------------------------------------------
def _proto(function: Callable[[ModelProto, Rng], None]) -> Callable[[ModelProto, Rng], None]:
    PROTOS[function.__name__] = function
    return function


def _messages(message: Any) -> Iterator[Any]:
    yield message
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None:
            for child in value if hasattr(value, "append") or hasattr(value, "add") else (value,):
                yield from _messages(child)


@_proto
def change_a_field(model: ModelProto, rng: Rng) -> None:
    message = _one(rng, list(_messages(model)))
    fields = message.ListFields()
    if not fields:
        return
    descriptor, value = _one(rng, fields)
    name = descriptor.name
    if descriptor.message_type is not None:
        if hasattr(value, "append") or hasattr(value, "add"):
            _change_list(value, rng)
        else:
            message.ClearField(name)
    elif hasattr(value, "append"):
        if rng.random() < 0.5 and len(value):
            value[int(rng.integers(len(value)))] = _scalar(descriptor, rng)
        elif rng.random() < 0.5:
            value.append(_scalar(descriptor, rng))
        elif len(value):
            del value[int(rng.integers(len(value)))]
    elif rng.random() < 0.2:
        message.ClearField(name)
    else:
        setattr(message, name, _scalar(descriptor, rng))


def _scalar(descriptor: Any, rng: Rng) -> Any:
    kind = descriptor.cpp_type
    if kind == descriptor.CPPTYPE_STRING:
        text = _one(rng, TEXTS)
        return text.encode() if descriptor.type == descriptor.TYPE_BYTES else text
    if kind in (descriptor.CPPTYPE_FLOAT, descriptor.CPPTYPE_DOUBLE):
        return _one(rng, FLOATS)
    if kind == descriptor.CPPTYPE_ENUM:
        return int(_one(rng, [v.number for v in descriptor.enum_type.values]))
    if kind == descriptor.CPPTYPE_BOOL:
        return bool(rng.integers(2))
    bits, signed = (31, True) if kind == descriptor.CPPTYPE_INT32 else (63, True)
    if kind in (descriptor.CPPTYPE_UINT32, descriptor.CPPTYPE_UINT64):
        bits, signed = (32 if kind == descriptor.CPPTYPE_UINT32 else 64), False
    size = _one(rng, SIZES)
    return max(-(1 << bits) if signed else 0, min(size, (1 << bits) - 1))


def _change_list(items: Any, rng: Rng) -> None:
    if not len(items):
        return
    i, j = map(int, rng.integers(len(items), size=2))
    what = rng.integers(3)
    if what == 0:
        del items[i]
    elif what == 1:
        items.add().CopyFrom(items[i])
    else:
        kept = type(items[i])()
        kept.CopyFrom(items[i])
        items[i].CopyFrom(items[j])
        items[j].CopyFrom(kept)


# --- the graph -------------------------------------------------------------------------------------------------------
def _node(model: ModelProto, rng: Rng) -> NodeProto | None:
    return _one(rng, model.graph.node) if len(model.graph.node) else None


def _names(model: ModelProto) -> list[str]:
    graph = model.graph
    made = [name for node in graph.node for name in node.output]
    return [*made, *(v.name for v in graph.input), *(t.name for t in graph.initializer), "", "nowhere"]


@_proto
def rewire(model: ModelProto, rng: Rng) -> None:
    """An input of a node becomes another value: cycles, missing values, wrong ranks and dtypes."""
    node = _node(model, rng)
    if node is not None and len(node.input):
        node.input[int(rng.integers(len(node.input)))] = _one(rng, _names(model))


@_proto
def add_or_drop_inputs(model: ModelProto, rng: Rng) -> None:
    node = _node(model, rng)
    if node is not None:
        kept = [*node.input, _one(rng, _names(model))] if rng.random() < 0.4 else list(node.input)[:-1]
        del node.input[:]
        node.input.extend(kept)


@_proto
def rename_an_output(model: ModelProto, rng: Rng) -> None:
    node = _node(model, rng)
    if node is not None and len(node.output):
        node.output[int(rng.integers(len(node.output)))] = _one(rng, _names(model))


@_proto
def another_operator(model: ModelProto, rng: Rng) -> None:
    node = _node(model, rng)
    if node is not None:
        node.op_type = _one(rng, [s.name for s in onnx.defs.get_all_schemas()])
        if rng.random() < 0.5:
            del node.attribute[:]


@_proto
def another_opset(model: ModelProto, rng: Rng) -> None:
    for entry in model.opset_import:
        entry.version = int(_one(rng, [*range(28), 1000, 0, -1, 1 << 62]))


@_proto
def change_an_attribute(model: ModelProto, rng: Rng) -> None:
    node = _node(model, rng)
    if node is None:
        return
    if not len(node.attribute) or rng.random() < 0.3:
        schemas = [s for s in (_schema(node.op_type),) if s is not None and s.attributes]
        if not schemas:
            return
        attribute = node.attribute.add(name=_one(rng, sorted(schemas[0].attributes)))
        attribute.type = int(schemas[0].attributes[attribute.name].type.value)
    else:
        attribute = _one(rng, node.attribute)
    kind = attribute.type if rng.random() < 0.8 else int(rng.integers(16))
    attribute.type = kind if kind in AttributeProto.AttributeType.values() else AttributeProto.INT
    if rng.random() < 0.1:
        attribute.type = AttributeProto.UNDEFINED
    if kind == AttributeProto.INT:
        attribute.i = int(_one(rng, SIZES))
    elif kind == AttributeProto.FLOAT:
        attribute.f = _one(rng, FLOATS)
    elif kind == AttributeProto.INTS:
        kept = list(attribute.ints) or [1, 1]
        kept[int(rng.integers(len(kept)))] = int(_one(rng, SIZES))
        kept = kept[: int(rng.integers(len(kept) + 1))] if rng.random() < 0.2 else kept * int(rng.integers(1, 3))
        del attribute.ints[:]
        attribute.ints.extend(kept)
    elif kind == AttributeProto.STRING:
        attribute.s = _one(rng, [*(t.encode() for t in TEXTS), b"\xff\xfe"])
    elif kind == AttributeProto.TENSOR:
        attribute.t.CopyFrom(_tensor(rng))


def _schema(op: str) -> Any:
    try:
        return onnx.defs.get_schema(op)
    except onnx.defs.SchemaError:
        return None


def _tensor(rng: Rng) -> TensorProto:
    """A small tensor of any type, its numbers the ones that break things."""
    dtype = np.dtype(_one(rng, ["f4", "f8", "f2", "i8", "i4", "i1", "u1", "u8", "?"]))
    shape = _one(rng, [(), (0,), (1,), (2,), (4,), (1, 1), (2, 2), (1, 1, 1, 1)])
    numbers = np.array(_one(rng, FLOATS if dtype.kind == "f" else SIZES))
    with np.errstate(all="ignore"):
        return numpy_helper.from_array(np.full(shape, numbers.astype(dtype)))


@_proto
def change_a_constant(model: ModelProto, rng: Rng) -> None:
    """Another type, shape or content; small integers are sizes, axes and pads."""
    if not len(model.graph.initializer):
        return
    tensor = _one(rng, model.graph.initializer)
    try:
        array = numpy_helper.to_array(tensor)
    except Exception:  # damaged already
        return
    what, name = rng.integers(4), tensor.name
    with np.errstate(all="ignore"):
        if what == 0:
            tensor.CopyFrom(_tensor(rng))
        elif what == 1 and array.dtype.kind in "iuf":
            array = np.array(array)
            numbers = FLOATS if array.dtype.kind == "f" else SIZES
            array.reshape(-1)[: 1 + int(rng.integers(max(array.size, 1)))] = np.array(_one(rng, numbers)).astype(
                array.dtype
            )
            tensor.CopyFrom(numpy_helper.from_array(array))
        elif what == 2 and array.dtype.kind in "iuf":
            tensor.CopyFrom(numpy_helper.from_array(array.astype(_one(rng, ["f4", "f8", "i8", "i4", "u1", "?"]))))
        else:
            shapes = [(array.size,), (1, array.size), array.shape[::-1], (*array.shape, 1), array.shape[1:]]
            tensor.dims[:] = _one(rng, shapes)
    tensor.name = name


@_proto
def change_a_shape(model: ModelProto, rng: Rng) -> None:
    """What the file says of an input, an output or a value in between."""
    infos = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    if not infos:
        return
    tensor = _one(rng, infos).type.tensor_type
    if rng.random() < 0.3:
        tensor.elem_type = int(rng.integers(27))
    elif rng.random() < 0.3 or not len(tensor.shape.dim):
        tensor.ClearField("shape") if rng.random() < 0.5 else tensor.shape.dim.add()
    else:
        dim = _one(rng, tensor.shape.dim)
        if rng.random() < 0.5:
            dim.dim_param = _one(rng, TEXTS)
        else:
            dim.dim_value = int(_one(rng, SIZES))


@_proto
def outputs_from_anywhere(model: ModelProto, rng: Rng) -> None:
    model.graph.output.add().name = _one(rng, _names(model))


@_proto
def drop_a_node(model: ModelProto, rng: Rng) -> None:
    if len(model.graph.node):
        del model.graph.node[int(rng.integers(len(model.graph.node)))]


@_proto
def shuffle_the_nodes(model: ModelProto, rng: Rng) -> None:
    nodes = list(model.graph.node)
    rng.shuffle(nodes)
    copies = [NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


@_proto
def insert_a_bomb(model: ModelProto, rng: Rng) -> None:
    """A few bytes that ask for very much: constants to fold, shapes to fill, copies of copies."""
    bomb = _one(rng, ["ConstantOfShape", "Expand", "Tile", "Range", "Pad", "Resize", "OneHot", "Concat", "EyeLike"])
    size = int(_one(rng, SIZES[8:]))
    add = model.graph.initializer.append

    def const(name: str, array: Any) -> str:
        add(numpy_helper.from_array(np.asarray(array), name))
        return name

    some = _one(rng, _names(model))
    inputs = {
        "ConstantOfShape": lambda: [const("bs", np.int64([size, 3]))],
        "Expand": lambda: [some, const("bs", np.int64([size, 1, 1, 1]))],
        "Tile": lambda: [some, const("bs", np.int64([size]))],
        "Range": lambda: [const("b0", np.int64(0)), const("b1", np.int64(size)), const("b2", np.int64(1))],
        "Pad": lambda: [some, const("bs", np.int64([0, 0, 0, size] * 2))],
        "Resize": lambda: [some, "", const("bs", np.float32([1, 1, 1e5, 1e5]))],
        "OneHot": lambda: [const("b0", np.int64([1])), const("b1", np.int64(size)), const("b2", np.float32([0, 1]))],
        "Concat": lambda: [some] * 1000,
        "EyeLike": lambda: [some],
    }[bomb]()
    node = helper.make_node(bomb, inputs, ["bomb"], name="bomb", **({"axis": 0} if bomb == "Concat" else {}))
    model.graph.node.append(node)
    last = "bomb"
    for i in range(int(rng.integers(0, 12))):  # each doubles what came before
        model.graph.node.append(helper.make_node("Concat", [last, last], [f"bomb{i}"], axis=0))
        last = f"bomb{i}"
    if rng.random() < 0.5 or not len(model.graph.node):
        model.graph.output.add().name = last
    else:
        node = model.graph.node[0]
        if len(node.input):
            node.input[0] = last


# --- files that must be refused --------------------------------------------------------------------------------------
def _hostile(function: Callable[[ModelProto, Rng], None]) -> Callable[[ModelProto, Rng], None]:
    HOSTILE[function.__name__] = function
    return function


SECRET = b"\x11" * 4096
LOCATIONS = (
    "/etc/hostname", "/proc/self/mem", "/dev/zero", "../secret.bin", "sub/../../secret.bin", "./../secret.bin",
    "link_out.bin", "link_up/secret.bin", "link_zero", "loop", "folder", "pipe", "missing.bin", "", "\0", "C:\\x.bin",
    "..\\secret.bin", "\\\\host\\x.bin", "~/x.bin/", "huge.bin", "data.bin\0.bin", "a" * 5000, "model.onnx/x",
)  # fmt: skip


def furnish(folder: Path) -> None:
    """Files a model could refer to, good and bad: once a folder."""
    if (folder / "pipe").exists():
        return
    (folder.parent / "secret.bin").write_bytes(SECRET)
    (folder / "data.bin").write_bytes(bytes(range(256)) * 16)
    (folder / "folder").mkdir()
    for name, target in {
        "link_out.bin": "../secret.bin", "link_up": "..", "link_zero": "/dev/zero", "loop": "loop",
    }.items():  # fmt: skip
        os.symlink(target, folder / name)
    os.mkfifo(folder / "pipe")
    with open(folder / "huge.bin", "wb") as file:
        file.truncate(1 << 40)  # a terabyte of nothing


@_hostile
def external_data_elsewhere(model: ModelProto, rng: Rng) -> None:
    tensor = model.graph.initializer.add(name="outside", data_type=TensorProto.FLOAT)
    location = _one(rng, LOCATIONS)
    tensor.dims.append(1 << 36 if location == "huge.bin" else 16)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    if rng.random() < 0.5:
        tensor.external_data.add(key="length", value=str(4 * tensor.dims[0]))


@_hostile
def external_data_out_of_bounds(model: ModelProto, rng: Rng) -> None:
    tensor = model.graph.initializer.add(name="outside", data_type=TensorProto.FLOAT, dims=[16])
    tensor.data_location = TensorProto.EXTERNAL
    key, value = _one(
        rng,
        [("offset", "4095"), ("offset", "-1"), ("offset", str(1 << 70)), ("offset", "x"), ("length", "-64"),
         ("length", "63"), ("length", str(1 << 62)), ("length", "")],
    )  # fmt: skip
    tensor.external_data.add(key="location", value="data.bin")
    tensor.external_data.add(key=key, value=value)


@_hostile
def many_views_of_a_huge_file(model: ModelProto, rng: Rng) -> None:
    """Each is within reason, and there are a thousand of them."""
    for i in range(1000):
        tensor = model.graph.initializer.add(name=f"outside{i}", data_type=TensorProto.FLOAT, dims=[1 << 30])
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": "huge.bin", "offset": str(4 * i), "length": str(1 << 32)}.items():
            tensor.external_data.add(key=key, value=value)


@_hostile
def a_cycle(model: ModelProto, rng: Rng) -> None:
    length = int(_one(rng, [1, 2, 3, 100, 5000]))
    for i in range(length):
        model.graph.node.append(helper.make_node("Relu", [f"round{(i + 1) % length}"], [f"round{i}"]))
    model.graph.output.add().name = "round0"


@_hostile
def a_claim_without_data(model: ModelProto, rng: Rng) -> None:
    tensor = model.graph.initializer.add(name="claim", data_type=int(_one(rng, [1, 6, 7, 11, 9, 10, 22, 23, 25])))
    tensor.dims.extend(_one(rng, [[1 << 40], [1 << 31, 1 << 31], [1 << 62, 2], [-1, 4], [1 << 21, 1 << 21, 1 << 22]]))
    tensor.raw_data = bytes(int(rng.integers(64)))


@_hostile
def a_sparse_tensor_of_nothing(model: ModelProto, rng: Rng) -> None:
    sparse = model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(numpy_helper.from_array(np.float32([1]), "sparse"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.int64([int(_one(rng, [0, -1, 1 << 40]))])))
    sparse.dims.append(int(_one(rng, [1 << 34, 1 << 62, -1])))


@_hostile
def functions_that_double(model: ModelProto, rng: Rng) -> None:
    """f0 calls f1 twice, which calls f2 twice: a kilobyte of file, and 2 ** depth nodes. Or one calls itself."""
    depth = int(_one(rng, [1, 20, 60]))
    for i in range(depth):
        inner = f"f{i + 1}" if i + 1 < depth else "f0" if depth == 1 or rng.random() < 0.5 else "Relu"
        domain = "" if inner == "Relu" else "bomb"
        nodes = [helper.make_node(inner, [a], [b], domain=domain) for a, b in (("x", "m"), ("m", "y"))]
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("bomb", 1)]
        model.functions.append(helper.make_function("bomb", f"f{i}", ["x"], ["y"], nodes, opsets))
    model.opset_import.append(helper.make_opsetid("bomb", 1))
    model.graph.node.append(helper.make_node("f0", [_one(rng, _names(model)) or "nowhere"], ["doubled"], domain="bomb"))


@_hostile
def a_function_full_of_weights(model: ModelProto, rng: Rng) -> None:
    """Ten calls of ten calls of … a function that holds a megabyte."""
    block = numpy_helper.from_array(np.zeros(1 << 18, np.float32), "w")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("bomb", 1)]
    for i in range(4):
        nodes = [helper.make_node(f"f{i + 1}", [], [f"y{k}"], domain="bomb") for k in range(10)]
        if i == 3:
            nodes = [helper.make_node("Constant", [], [f"y{k}"], value=block) for k in range(1)]
        nodes.append(helper.make_node("Identity", ["y0"], ["y"]))
        model.functions.append(helper.make_function("bomb", f"f{i}", [], ["y"], nodes, opsets))
    model.opset_import.append(helper.make_opsetid("bomb", 1))
    model.graph.node.append(helper.make_node("f0", [], ["full"], domain="bomb"))
    model.graph.output.add().name = "full"
