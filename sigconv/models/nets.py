"""Builders of the classic nets, each for inputs (N, channels, height, width) of its usual size."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

from sigconv.errors import InputError
from sigconv.graph.builder import GraphBuilder
from sigconv.model import Model
from sigconv.models.weights import model

Weights: TypeAlias = "Mapping[str, Any] | str | os.PathLike[str] | None"

_VGG = {
    11: ((64, 1), (128, 1), (256, 2), (512, 2), (512, 2)),
    13: ((64, 2), (128, 2), (256, 2), (512, 2), (512, 2)),
    16: ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)),
    19: ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)),
}
_RESNET = {
    18: (1, (2, 2, 2, 2)),
    34: (1, (3, 4, 6, 3)),
    50: (4, (3, 4, 6, 3)),
    101: (4, (3, 4, 23, 3)),
    152: (4, (3, 8, 36, 3)),
}


def Sequential(shape: Sequence[int], *layers: str | tuple[Any, ...], seed: int = 0) -> Model:
    """A chain of layers on inputs of (N, *shape).

    A layer is the name of a `GraphBuilder` method, or a tuple of it, its arguments and perhaps a dict of keywords:
    ``("conv", 16, 3, {"padding": 1})``; or that of an operator of one input, ``("Softmax", {"axis": 1})``.
    Weights are named ``0.weight``, ``0.bias`` … by the layer's place, as torch's.
    """
    if isinstance(shape, int) or not all(isinstance(d, (int, str)) for d in shape):
        raise InputError(f"shape is {shape!r}; it must list the sizes of one input, such as (3, 224, 224)")
    b = GraphBuilder("sequential", seed)
    x = b.input("x", ("N", *shape))
    for i, layer in enumerate(layers):
        method, *arguments = (layer,) if isinstance(layer, str) else layer
        keywords = arguments.pop() if arguments and isinstance(arguments[-1], dict) else {}
        make = partial(b.op, method) if method[:1].isupper() else getattr(b, method, None)  # operators have capitals
        if method.startswith("_") or method in ("input", "constant", "build", "shape", "op") or make is None:
            raise InputError(f"layer {i} is {method!r}, which is no layer of GraphBuilder")
        try:
            x = make(x, *arguments, **{"name": str(i), **keywords})
        except TypeError as e:  # of the call: an argument too few, or an unknown keyword
            raise InputError(f"layer {i}, {method!r}: {e}") from None
    return model(b.build(x), None)


def lenet5(weights: Weights = None, *, seed: int = 0) -> Model:
    """LeCun et al. 1998 with ReLU and max pooling, 1×32×32, 10 classes."""
    b = GraphBuilder("lenet5", seed)
    x = b.input("x", ("N", 1, 32, 32))
    for i, channels in enumerate((6, 16), 1):
        x = b.max_pool(b.relu(b.conv(x, channels, 5, name=f"conv{i}")), 2, 2)
    x = b.flatten(x)
    x = b.relu(b.linear(b.relu(b.linear(x, 120, name="fc1")), 84, name="fc2"))
    return model(b.build(b.linear(x, 10, name="fc3")), weights)


def _classifier(b: GraphBuilder, x: str, classes: int, places: Sequence[int]) -> str:
    first, second, last = (f"classifier.{i}" for i in places)
    x = b.relu(b.linear(b.relu(b.linear(b.flatten(x), 4096, name=first)), 4096, name=second))
    return b.linear(x, classes, name=last)


def alexnet(weights: Weights = None, *, classes: int = 1000, seed: int = 0) -> Model:
    """Krizhevsky, One weird trick, 2014 (torchvision's), 3×224×224."""
    b = GraphBuilder("alexnet", seed)
    x = b.input("x", ("N", 3, 224, 224))
    x = b.max_pool(b.relu(b.conv(x, 64, 11, stride=4, padding=2, name="features.0")), 3, 2)
    x = b.max_pool(b.relu(b.conv(x, 192, 5, padding=2, name="features.3")), 3, 2)
    for place, channels in ((6, 384), (8, 256), (10, 256)):
        x = b.relu(b.conv(x, channels, 3, padding=1, name=f"features.{place}"))
    return model(b.build(_classifier(b, b.max_pool(x, 3, 2), classes, (1, 4, 6))), weights)


def vgg(depth: int, weights: Weights = None, *, batch_norm: bool = False, classes: int = 1000, seed: int = 0) -> Model:
    """Simonyan & Zisserman 2014, 3×224×224; ``depth`` 11, 13, 16 or 19."""
    if depth not in _VGG:
        raise InputError(f"depth is {depth}; VGG has {', '.join(map(str, _VGG))}")
    b = GraphBuilder(f"vgg{depth}" + "_bn" * batch_norm, seed)
    x, place = b.input("x", ("N", 3, 224, 224)), 0
    for channels, layers in _VGG[depth]:
        for _ in range(layers):
            x = b.conv(x, channels, 3, padding=1, name=f"features.{place}")
            x = b.relu(b.batch_norm(x, name=f"features.{place + 1}") if batch_norm else x)
            place += 2 + batch_norm
        x, place = b.max_pool(x, 2, 2), place + 1
    return model(b.build(_classifier(b, x, classes, (0, 3, 6))), weights)


def resnet(depth: int, weights: Weights = None, *, classes: int = 1000, seed: int = 0) -> Model:
    """He et al. 2015, 3×224×224, the stride in a bottleneck's 3×3 as torchvision has it; 18, 34, 50, 101 or 152."""
    if depth not in _RESNET:
        raise InputError(f"depth is {depth}; ResNet has {', '.join(map(str, _RESNET))}")
    expansion, depths = _RESNET[depth]
    b = GraphBuilder(f"resnet{depth}", seed)

    def unit(x: str, channels: int, kernel: int, stride: int, conv: str, norm: str) -> str:
        made = b.conv(x, channels, kernel, stride=stride, padding=kernel // 2, bias=False, name=conv)
        return b.batch_norm(made, name=norm)

    x = b.relu(unit(b.input("x", ("N", 3, 224, 224)), 64, 7, 2, "conv1", "bn1"))
    x, inputs = b.max_pool(x, 3, 2, 1), 64
    for stage, blocks in enumerate(depths):
        width = 64 << stage
        for block in range(blocks):
            at, stride = f"layer{stage + 1}.{block}", 2 if stage and not block else 1
            rows = ((width, 3, stride), (width, 3, 1))
            if expansion > 1:
                rows = ((width, 1, 1), (width, 3, stride), (width * expansion, 1, 1))  # type: ignore[assignment]
            y = x
            for i, (channels, kernel, step) in enumerate(rows, 1):
                y = unit(y if i == 1 else b.relu(y), channels, kernel, step, f"{at}.conv{i}", f"{at}.bn{i}")
            if stride > 1 or inputs != width * expansion:
                x = unit(x, width * expansion, 1, stride, f"{at}.downsample.0", f"{at}.downsample.1")
            x, inputs = b.relu(b.add(y, x)), width * expansion
    x = b.linear(b.flatten(b.global_average_pool(x)), classes, name="fc")
    return model(b.build(x), weights)


def unet(
    weights: Weights = None, *, inputs: int = 3, classes: int = 1, base: int = 32, levels: int = 4, seed: int = 0
) -> Model:
    """Ronneberger et al. 2015, padded, batch normalised; height and width are multiples of ``2 ** levels``."""
    b = GraphBuilder("unet", seed)

    def double(x: str, channels: int, name: str) -> str:
        for i in (1, 2):
            x = b.conv(x, channels, 3, padding=1, bias=False, name=f"{name}.conv{i}")
            x = b.relu(b.batch_norm(x, name=f"{name}.bn{i}"))
        return x

    x, skips = b.input("x", ("N", inputs, "H", "W")), []
    for level in range(levels):
        skips.append(double(x, base << level, f"down{level}"))
        x = b.max_pool(skips[-1], 2, 2)
    x = double(x, base << levels, "middle")
    for level in reversed(range(levels)):
        up = b.conv_transpose(x, base << level, 2, stride=2, name=f"up{level}.conv")
        x = double(b.concat(skips[level], up), base << level, f"up{level}")
    return model(b.build(b.conv(x, classes, 1, name="head")), weights)


NETS: dict[str, Callable[..., Model]] = {
    "lenet5": lenet5,
    "alexnet": alexnet,
    "unet": unet,
    **{f"vgg{d}{'_bn' * bn}": partial(vgg, d, batch_norm=bool(bn)) for d in _VGG for bn in (0, 1)},
    **{f"resnet{d}": partial(resnet, d) for d in _RESNET},
}
"""Every net by the name the command line has for it."""
