"""The nets that are measured, as ONNX files: the classic ones from `sigconv.models`, the others built here.

All are as for inference: batch normalization folded into the convolutions, dropout gone; seeded He weights, a free
batch size. Weights are random: time does not depend on them, and outputs stay finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import sigconv
from sigconv.export.writer import to_proto
from sigconv.graph.passes import simplify

FOLDER = Path(__file__).parent / ".models"


class Net:
    """A graph under construction. Methods take value names and return the name of what they make."""

    def __init__(self, name: str, *shape: int) -> None:
        """``shape``: of one input sample, channels first."""
        self.name, self.input = name, "x"
        self._shape = shape
        self._channels = {"x": shape[0]}
        self._rng = np.random.default_rng(2026)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def op(self, op: str, *inputs: str, channels: int | None = None, **attrs: Any) -> str:
        """A node; the output has the first input's channels unless ``channels`` says otherwise."""
        out = f"{op.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, list(inputs), [out], name=out, **attrs))
        self._channels[out] = self._channels[inputs[0]] if channels is None else channels
        return out

    def constant(self, array: np.ndarray) -> str:
        name = f"w_{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, shape: Sequence[int], fan_in: int, gain: float = 2.0) -> str:
        """Normally distributed with variance ``gain / fan_in`` (He et al., Delving deep into rectifiers, 2015)."""
        return self.constant((self._rng.standard_normal(shape) * math.sqrt(gain / fan_in)).astype(np.float32))

    def relu(self, x: str) -> str:
        return self.op("Relu", x)

    def relu6(self, x: str) -> str:
        return self.op("Clip", x, self.constant(np.float32(0)), self.constant(np.float32(6)))

    def conv(
        self,
        x: str,
        channels: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        pads: Sequence[int] | None = None,
        dilation: int = 1,
        groups: int = 1,
        gain: float = 2.0,
    ) -> str:
        """A convolution with bias over all spatial axes; by default padded to keep the size at stride 1."""
        inputs, rank = self._channels[x], len(self._shape) - 1
        shape = (channels, inputs // groups, *[kernel] * rank)
        weight, bias = self.weight(shape, math.prod(shape[1:]), gain), self.weight((channels,), 100)
        attrs = {
            "kernel_shape": [kernel] * rank,
            "strides": [stride] * rank,
            "pads": list(pads) if pads is not None else [dilation * (kernel - 1) // 2] * (2 * rank),
            "dilations": [dilation] * rank,
            "group": groups,
        }
        return self.op("Conv", x, weight, bias, channels=channels, **attrs)

    def pool(self, x: str, kernel: int, stride: int, pad: int = 0, *, op: str = "MaxPool", ceil: int = 0) -> str:
        return self.op(op, x, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4, ceil_mode=ceil)

    def dense(self, x: str, features: int, inputs: int) -> str:
        weight, bias = self.weight((features, inputs), inputs), self.weight((features,), 100)
        return self.op("Gemm", x, weight, bias, channels=features, transB=1)

    def head(self, x: str, classes: int = 1000) -> str:
        """Global average, flattened, one dense layer."""
        return self.dense(self.op("Flatten", self.op("GlobalAveragePool", x)), classes, self._channels[x])

    def concat(self, *inputs: str) -> str:
        return self.op("Concat", *inputs, channels=sum(self._channels[i] for i in inputs), axis=1)

    def model(self, output: str) -> onnx.ModelProto:
        graph = helper.make_graph(
            self._nodes,
            self.name,
            [helper.make_tensor_value_info(self.input, TensorProto.FLOAT, ["N", *self._shape])],
            [helper.make_empty_tensor_value_info(output)],
            self._weights,
        )
        graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
        proto = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
        return onnx.shape_inference.infer_shapes(proto)


def classic(name: str, *image: int) -> onnx.ModelProto:
    """One of `sigconv.models` as it is for inference; at a fixed ``image`` size where the net takes any."""
    graph = simplify(sigconv.models.NETS[name]().graph)
    (x,) = graph.inputs
    shape = (*(x.shape or ())[:2], *image) if image else x.shape
    return to_proto(graph.replace(inputs=(replace(x, shape=shape),)))


def mobilenet_v2() -> onnx.ModelProto:
    """Sandler et al. 2018, 3×224×224: inverted residuals around depthwise convolutions, ReLU6."""
    n = Net("mobilenet_v2", 3, 224, 224)
    x, channels = n.relu6(n.conv("x", 32, stride=2)), 32
    rows = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expansion, width, repeats, first in rows:
        for repeat in range(repeats):
            hidden, stride = channels * expansion, first if not repeat else 1
            y = n.relu6(n.conv(x, hidden, 1)) if expansion > 1 else x
            y = n.relu6(n.conv(y, hidden, stride=stride, groups=hidden))
            y = n.conv(y, width, 1, gain=1.0)
            x = n.op("Add", x, y) if stride == 1 and channels == width else y
            channels = width
    return n.model(n.head(n.relu6(n.conv(x, 1280, 1))))


def squeezenet() -> onnx.ModelProto:
    """Iandola et al. 2016, version 1.1, 3×224×224."""
    n = Net("squeezenet", 3, 224, 224)
    x = n.pool(n.relu(n.conv("x", 64, stride=2, pads=[0] * 4)), 3, 2, ceil=1)
    for squeeze, expand, pool in (
        (16, 64, False),
        (16, 64, True),
        (32, 128, False),
        (32, 128, True),
        (48, 192, False),
        (48, 192, False),
        (64, 256, False),
        (64, 256, False),
    ):
        s = n.relu(n.conv(x, squeeze, 1))
        x = n.concat(n.relu(n.conv(s, expand, 1)), n.relu(n.conv(s, expand)))
        x = n.pool(x, 3, 2, ceil=1) if pool else x
    return n.model(n.op("Flatten", n.op("GlobalAveragePool", n.relu(n.conv(x, 1000, 1)))))


def wavenet(channels: int = 32, layers: int = 10) -> onnx.ModelProto:
    """van den Oord et al. 2016: gated causal convolutions of dilation 1, 2, 4 …, over 16,000 samples."""
    n = Net("wavenet", 1, 16000)
    x, skips = n.conv("x", channels, 1), []
    for layer in range(layers):
        dilation = 1 << layer
        causal: dict[str, Any] = {"pads": [2 * dilation, 0], "dilation": dilation, "gain": 1.0}
        gate = n.op("Sigmoid", n.conv(x, channels, 3, **causal))
        gated = n.op("Mul", n.op("Tanh", n.conv(x, channels, 3, **causal)), gate)
        skips.append(n.conv(gated, channels, 1, gain=1.0))
        x = n.op("Add", x, n.conv(gated, channels, 1, gain=1.0))
    total = skips[0]
    for skip in skips[1:]:
        total = n.op("Add", total, skip)
    return n.model(n.conv(n.relu(n.conv(n.relu(total), channels, 1)), 1, 1))


def espcn(scale: int = 3) -> onnx.ModelProto:
    """Shi et al. 2016, sub-pixel super-resolution, 1×224×224."""
    n = Net("espcn", 1, 224, 224)
    x = n.relu(n.conv(n.relu(n.conv("x", 64, 5)), 64))
    x = n.conv(n.relu(n.conv(x, 32)), scale * scale)
    return n.model(n.op("DepthToSpace", x, channels=1, blocksize=scale, mode="CRD"))


def style() -> onnx.ModelProto:
    """Johnson et al. 2016, fast style transfer with instance normalization and reflected borders, 3×224×224."""
    n = Net("style", 3, 224, 224)

    def conv(x: str, channels: int, kernel: int, stride: int = 1) -> str:
        p = kernel // 2
        padded = n.op("Pad", x, n.constant(np.array([0, 0, p, p, 0, 0, p, p])), mode="reflect")
        return n.conv(padded, channels, kernel, stride=stride, pads=[0] * 4)

    def norm(x: str) -> str:
        channels = n._channels[x]
        return n.op("InstanceNormalization", x, n.constant(np.ones(channels, np.float32)), n.weight((channels,), 100))

    def up(x: str) -> str:
        scales = n.constant(np.array([1, 1, 2, 2], np.float32))
        attrs: dict[str, Any] = {
            "mode": "nearest",
            "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "floor",
        }
        return n.op("Resize", x, "", scales, **attrs)

    x = n.relu(norm(conv("x", 32, 9)))
    x = n.relu(norm(conv(n.relu(norm(conv(x, 64, 3, 2))), 128, 3, 2)))
    for _ in range(5):
        x = n.op("Add", norm(conv(n.relu(norm(conv(x, 128, 3))), 128, 3)), x)
    x = n.relu(norm(conv(up(n.relu(norm(conv(up(x), 64, 3)))), 32, 3)))
    return n.model(conv(x, 3, 9))


NETS: dict[str, Callable[[], onnx.ModelProto]] = {
    "LeNet-5": lambda: classic("lenet5"),
    "AlexNet": lambda: classic("alexnet"),
    "VGG-16-BN": lambda: classic("vgg16_bn"),
    "ResNet-18": lambda: classic("resnet18"),
    "ResNet-34": lambda: classic("resnet34"),
    "ResNet-50": lambda: classic("resnet50"),
    "MobileNetV2": mobilenet_v2,
    "SqueezeNet": squeezenet,
    "U-Net": lambda: classic("unet", 256, 256),
    "WaveNet": wavenet,
    "ESPCN": espcn,
    "Style transfer": style,
}
"""Every net by the name it has in the tables."""


def path_of(name: str) -> Path:
    """The net's file, written on first use."""
    path = FOLDER / f"{name}.onnx"
    if not path.exists():
        FOLDER.mkdir(exist_ok=True)
        partial = path.with_suffix(".partial")
        onnx.save(NETS[name](), partial)
        partial.replace(path)
    return path


def input_shape(path: Path, batch: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the file's inputs with the free batch filled in."""
    graph = onnx.load(path, load_external_data=False).graph
    return {value.name: tuple(d.dim_value or batch for d in value.type.tensor_type.shape.dim) for value in graph.input}
