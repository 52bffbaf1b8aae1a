"""Single layers of torch, as they stand in networks: a name, how to make one, and the shapes of its inputs.

Imports nothing of ours. The last axes of an image or a signal may be dynamic, and so may the batch; a layer that torch
cannot export with dynamic sizes says so with ``fixed``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIGNAL, IMAGE, VOLUME, FLAT = (2, 4, 19), (2, 4, 13, 11), (2, 4, 7, 6, 8), (3, 10)


@dataclass(frozen=True)
class Layer:
    """``dynamic``: the axes of every input that a dynamic export leaves open."""

    make: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...]
    dynamic: tuple[int, ...]


LAYERS: dict[str, Layer] = {}


def add(
    name: str, make: Callable[[], nn.Module], *shapes: tuple[int, ...], dynamic: tuple[int, ...] | None = None
) -> None:
    assert name not in LAYERS
    axes = (0, *range(2, len(shapes[0]))) if dynamic is None else dynamic
    LAYERS[name] = Layer(make, shapes, axes)


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


def of(function: Callable[..., Tensor]) -> Callable[[], nn.Module]:
    return lambda: Function(function)


# --- convolutions ----------------------------------------------------------------------------------------------------
for rank, shape, conv, transposed in (
    (1, SIGNAL, nn.Conv1d, nn.ConvTranspose1d),
    (2, IMAGE, nn.Conv2d, nn.ConvTranspose2d),
    (3, VOLUME, nn.Conv3d, nn.ConvTranspose3d),
):
    for options, arguments in {
        "": {}, "strided": {"stride": 2, "padding": 1}, "dilated": {"dilation": 2, "padding": 2},
        "depthwise": {"groups": 4}, "grouped": {"groups": 2, "bias": False}, "same": {"padding": "same"},
        **{mode: {"padding": 1, "padding_mode": mode} for mode in ("reflect", "replicate", "circular")},
    }.items():  # fmt: skip
        if rank == 3 and options == "reflect":
            continue  # aten::reflection_pad3d is exported by neither exporter
        name = f"Conv{rank}d {options}".strip()
        add(name, lambda conv=conv, a=arguments: conv(4, 8, 3, **a), shape)
    add(f"Conv{rank}d pointwise", lambda conv=conv: conv(4, 9, 1), shape)
    for options, arguments in {
        "": {}, "strided": {"stride": 2, "padding": 1},
        "output padding": {"stride": 2, "padding": 1, "output_padding": 1},
        "grouped": {"groups": 2, "bias": False}, "dilated": {"dilation": 2},
    }.items():  # fmt: skip
        add(f"ConvTranspose{rank}d {options}".strip(), lambda t=transposed, a=arguments: t(4, 6, 3, **a), shape)
add("Conv2d asymmetric", lambda: nn.Conv2d(4, 5, (3, 5), (2, 1), (1, 2)), IMAGE)

# --- pools -----------------------------------------------------------------------------------------------------------
for rank, shape in ((1, SIGNAL), (2, IMAGE), (3, VOLUME)):
    for kind in ("Max", "Avg"):
        pool = getattr(nn, f"{kind}Pool{rank}d")
        add(f"{kind}Pool{rank}d", lambda pool=pool: pool(2), shape)
        add(f"{kind}Pool{rank}d padded", lambda pool=pool: pool(3, 2, 1), shape)
        add(f"{kind}Pool{rank}d ceil", lambda pool=pool: pool(3, 2, ceil_mode=True), shape, dynamic=(0,))
    add(f"AdaptiveAvgPool{rank}d 1", lambda r=rank: getattr(nn, f"AdaptiveAvgPool{r}d")(1), shape)
    add(f"AdaptiveMaxPool{rank}d 1", lambda r=rank: getattr(nn, f"AdaptiveMaxPool{r}d")(1), shape, dynamic=(0,))
    add(f"LPPool{rank}d", lambda r=rank: getattr(nn, f"LPPool{r}d")(2, 2), shape)
add("AvgPool2d without pads", lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False), IMAGE)
add("MaxPool2d dilated", lambda: nn.MaxPool2d(3, 1, dilation=2), IMAGE)
add("AdaptiveAvgPool2d divides", lambda: nn.AdaptiveAvgPool2d((2, 3)), (2, 4, 12, 9), dynamic=(0,))

# --- normalisations --------------------------------------------------------------------------------------------------
for rank, shape in ((1, SIGNAL), (2, IMAGE), (3, VOLUME)):
    add(f"BatchNorm{rank}d", lambda r=rank: getattr(nn, f"BatchNorm{r}d")(4), shape)
    add(f"InstanceNorm{rank}d", lambda r=rank: getattr(nn, f"InstanceNorm{r}d")(4, affine=True), shape)
add("BatchNorm1d flat", lambda: nn.BatchNorm1d(10), FLAT, dynamic=(0,))
add("InstanceNorm2d plain", lambda: nn.InstanceNorm2d(4), IMAGE)
add("GroupNorm", lambda: nn.GroupNorm(2, 4), IMAGE)
add("LayerNorm", lambda: nn.LayerNorm(11), IMAGE, dynamic=(0, 2))
add("LayerNorm of two axes", lambda: nn.LayerNorm((13, 11)), IMAGE, dynamic=(0,))
add("RMSNorm", lambda: nn.RMSNorm(11), IMAGE, dynamic=(0, 2))
add("LocalResponseNorm", lambda: nn.LocalResponseNorm(3), IMAGE)
add("normalize", of(lambda x: F.normalize(x, dim=1)), IMAGE)

# --- activations -----------------------------------------------------------------------------------------------------
for name in (
    "ReLU", "ReLU6", "LeakyReLU", "PReLU", "ELU", "SELU", "CELU", "GELU", "SiLU", "Mish", "Sigmoid", "Tanh", "Softplus",
    "Softsign", "Hardsigmoid", "Hardswish", "Hardtanh", "LogSigmoid", "Tanhshrink", "Softshrink", "Hardshrink",
):  # fmt: skip
    add(name, getattr(nn, name), IMAGE)
add("GELU tanh", lambda: nn.GELU("tanh"), IMAGE)
add("PReLU channels", lambda: nn.PReLU(4), IMAGE)
add("Threshold", lambda: nn.Threshold(0.1, 20), IMAGE)
add("GLU", lambda: nn.GLU(1), IMAGE)
add("Softmax", lambda: nn.Softmax(1), IMAGE)
add("Softmax2d", nn.Softmax2d, IMAGE)
add("Softmin", lambda: nn.Softmin(1), IMAGE)
add("LogSoftmax", lambda: nn.LogSoftmax(1), IMAGE)

# --- sizes -----------------------------------------------------------------------------------------------------------
for mode, shape in (
    ("nearest", SIGNAL), ("linear", SIGNAL), ("nearest", IMAGE), ("bilinear", IMAGE), ("bicubic", IMAGE),
    ("nearest", VOLUME), ("trilinear", VOLUME),
):  # fmt: skip
    add(f"Upsample{len(shape) - 2}d {mode}", lambda mode=mode: nn.Upsample(scale_factor=2, mode=mode), shape)
add("Upsample2d aligned", lambda: nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), IMAGE)
add("Upsample2d to a size", lambda: nn.Upsample((20, 17), mode="bilinear"), IMAGE, dynamic=(0,))
add("Upsample2d smaller", lambda: nn.Upsample(scale_factor=0.5, mode="bilinear"), (2, 4, 12, 10), dynamic=(0,))
add(
    "interpolate to another's size",
    of(lambda x, y: F.interpolate(x, y.shape[2:], mode="nearest")),
    IMAGE,
    (2, 4, 26, 22),
    dynamic=(0,),
)
add("PixelShuffle", lambda: nn.PixelShuffle(2), IMAGE)
add("PixelUnshuffle", lambda: nn.PixelUnshuffle(2), (2, 4, 12, 10), dynamic=(0,))
add("ChannelShuffle", lambda: nn.ChannelShuffle(2), IMAGE, dynamic=(0,))
for rank, shape in ((1, SIGNAL), (2, IMAGE), (3, VOLUME)):
    pads = tuple(range(1, 2 * rank + 1)) if rank < 3 else (1, 2, 1, 0, 2, 1)
    for mode in ("Constant", "Reflection", "Replication", "Zero", "Circular"):
        if rank == 3 and mode == "Reflection":
            continue
        arguments = (pads, 0.5) if mode == "Constant" else (pads,)
        add(f"{mode}Pad{rank}d", lambda m=mode, r=rank, a=arguments: getattr(nn, f"{m}Pad{r}d")(*a), shape)
add("crop", of(lambda x: F.pad(x, (-1, -2, -1, 0))), IMAGE)
add("Unfold", lambda: nn.Unfold(3, padding=1), IMAGE, dynamic=(0,))
add("Fold", lambda: nn.Fold((13, 11), 3, padding=1), (2, 36, 143), dynamic=(0,))
add("grid_sample", of(lambda x, g: F.grid_sample(x, g.tanh(), align_corners=False)), IMAGE, (2, 5, 6, 2), dynamic=(0,))
add("affine_grid", of(lambda t: F.affine_grid(t, [2, 4, 5, 6], align_corners=False)), (2, 2, 3), dynamic=())

# --- heads and everything between ------------------------------------------------------------------------------------
add("Linear", lambda: nn.Linear(10, 7), FLAT, dynamic=(0,))
add("Linear without bias", lambda: nn.Linear(10, 7, bias=False), FLAT, dynamic=(0,))
add("Linear on the last axis", lambda: nn.Linear(11, 7), IMAGE, dynamic=(0, 2))
add("Bilinear", lambda: nn.Bilinear(10, 10, 5), FLAT, FLAT, dynamic=())
add("Flatten", nn.Flatten, IMAGE, dynamic=(0,))
add("Unflatten", lambda: nn.Unflatten(1, (2, 5)), FLAT, dynamic=(0,))
add("Dropout", nn.Dropout, FLAT, dynamic=(0,))
add("Identity", nn.Identity, IMAGE)
add("Embedding", lambda: nn.Sequential(Function(lambda x: (x.abs() * 3).long().clamp(0, 9)), nn.Embedding(10, 6)), FLAT)
add("CosineSimilarity", nn.CosineSimilarity, IMAGE, IMAGE)
add("mean of the image", of(lambda x: x.mean((2, 3))), IMAGE)
add("max of the image", of(lambda x: x.amax((2, 3), keepdim=True)), IMAGE)
add("squeeze and excitation", of(lambda x: x * x.mean((2, 3), keepdim=True).sigmoid()), IMAGE)
add("residual", of(lambda x, y: F.relu(x + y)), IMAGE, IMAGE)
add("cat", of(lambda x, y: torch.cat([x, y], 1)), IMAGE, IMAGE)
add("split", of(lambda x: torch.cat(list(x.split([1, 3], 1))[::-1], 1)), IMAGE)
add("chunk", of(lambda x: torch.sub(*x.chunk(2, 1))), IMAGE)
add("slice", of(lambda x: x[:, 1:, ::2, -5:]), IMAGE, dynamic=(0,))
add("flip", of(lambda x: x.flip(2, 3)), IMAGE, dynamic=(0,))
add("roll", of(lambda x: x.roll((1, -2), (2, 3))), IMAGE, dynamic=(0,))
add("permute", of(lambda x: x.permute(0, 2, 3, 1)), IMAGE)
add("reshape", of(lambda x: x.reshape(x.shape[0], -1)), IMAGE, dynamic=(0,))
add("argmax", of(lambda x: x.argmax(1)), IMAGE)
add("topk", of(lambda x: x.topk(3, 1).values), FLAT, dynamic=(0,))
add("matmul", of(lambda x, y: x @ y.transpose(2, 3)), IMAGE, IMAGE, dynamic=(0,))
add("einsum", of(lambda x, y: torch.einsum("nchw,ncxw->nhx", x, y)), IMAGE, IMAGE, dynamic=(0,))
add("where", of(lambda x, y: torch.where(x > y, x, -y)), IMAGE, IMAGE)
add("masked_fill", of(lambda x: x.masked_fill(x > 0.5, 7)), IMAGE)
add("clamp", of(lambda x: x.clamp(-0.3, 0.7)), IMAGE)
add("cumsum", of(lambda x: x.cumsum(2)), IMAGE)
add("var", of(lambda x: x.var(1, unbiased=True)), IMAGE)
add("norm", of(lambda x: x.norm(2, 1)), IMAGE)
add("logsumexp", of(lambda x: x.logsumexp(1)), IMAGE)
add("pow and sqrt", of(lambda x: (x**2 + 1).sqrt().rsqrt()), IMAGE)
add("one_hot", of(lambda x: F.one_hot((x.abs() * 3).long().clamp(0, 4), 5).float()), FLAT, dynamic=(0,))
add("gather", of(lambda x, y: x.gather(1, (y.abs() * 3).long().clamp(0, 9))), FLAT, FLAT, dynamic=(0,))
add("LSTM", lambda: _First(nn.LSTM(10, 6, batch_first=True, bidirectional=True)), (2, 7, 10), dynamic=(0,))
add("GRU", lambda: _First(nn.GRU(10, 6, 2)), (7, 2, 10), dynamic=())
add("RNN", lambda: _First(nn.RNN(10, 6)), (7, 2, 10), dynamic=())


class _First(nn.Module):
    """The first of what a module gives."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)[0]
