"""The classic networks in plain torch, small enough for a test. Imports nothing of ours."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def lenet5() -> nn.Module:
    """LeCun et al. 1998, 32×32 in."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.Tanh(), nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10),
    )  # fmt: skip


def alexnet() -> nn.Module:
    """Krizhevsky 2014 ("one weird trick"), 224×224 in; hidden layers of 256 units in the classifier instead of 4096."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Flatten(), nn.Dropout(), nn.Linear(9216, 256), nn.ReLU(), nn.Dropout(), nn.Linear(256, 256), nn.ReLU(),
        nn.Linear(256, 10),
    )  # fmt: skip


def vgg11(width: int = 16) -> nn.Module:
    """Simonyan & Zisserman 2014 (A), ``width`` channels at first instead of 64, 64×64 in."""
    layers: list[nn.Module] = []
    channels = 3
    for factors in ((1,), (2,), (4, 4), (8, 8), (8, 8)):
        for factor in factors:
            layers += [nn.Conv2d(channels, factor * width, 3, padding=1), nn.ReLU()]
            channels = factor * width
        layers.append(nn.MaxPool2d(2))
    classifier = [nn.Flatten(), nn.Linear(4 * channels, 256), nn.ReLU(), nn.Dropout(), nn.Linear(256, 10)]
    return nn.Sequential(*layers, *classifier)


class Block(nn.Module):
    """A residual block: ``body`` ends in a normalisation, ``shortcut`` fits its input to its output."""

    def __init__(self, inputs: int, outputs: int, stride: int, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def _normalized(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs)]


def _basic(inputs: int, width: int, stride: int) -> Block:
    body = [*_normalized(inputs, width, 3, stride), nn.ReLU(), *_normalized(width, width, 3)]
    return Block(inputs, width, stride, nn.Sequential(*body))


def _bottleneck(inputs: int, width: int, stride: int) -> Block:
    body = [*_normalized(inputs, width, 1), nn.ReLU(), *_normalized(width, width, 3, stride), nn.ReLU()]
    return Block(inputs, 4 * width, stride, nn.Sequential(*body, *_normalized(width, 4 * width, 1)))


def resnet(depths: Sequence[int], bottleneck: bool) -> nn.Module:
    """He et al. 2015; any size in."""
    layers: list[nn.Module] = [*_normalized(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for stage, depth in enumerate(depths):
        for i in range(depth):
            width, stride = 64 << stage, 2 if stage and not i else 1
            layers.append(_bottleneck(channels, width, stride) if bottleneck else _basic(channels, width, stride))
            channels = 4 * width if bottleneck else width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def resnet18() -> nn.Module:
    return resnet((2, 2, 2, 2), bottleneck=False)


def resnet50() -> nn.Module:
    return resnet((3, 4, 6, 3), bottleneck=True)


class UNet(nn.Module):
    """Ronneberger et al. 2015 with padded convolutions; multiples of 8 in, ``width`` channels at first."""

    def __init__(self, width: int = 8, levels: int = 3) -> None:
        super().__init__()
        channels = [width << i for i in range(levels + 1)]

        def double(inputs: int, outputs: int) -> nn.Sequential:
            first, second = _normalized(inputs, outputs, 3), _normalized(outputs, outputs, 3)
            return nn.Sequential(*first, nn.ReLU(), *second, nn.ReLU())

        self.down = nn.ModuleList(double(a, b) for a, b in zip((3, *channels), channels, strict=False))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * c, c, 2, 2) for c in channels[:-1])
        self.merge = nn.ModuleList(double(2 * c, c) for c in channels[:-1])
        self.head = nn.Conv2d(width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept: list[Tensor] = []
        for i, block in enumerate(self.down):
            x = block(nn.functional.max_pool2d(x, 2) if i else x)
            kept.append(x)
        for skip, up, merge in zip(kept[-2::-1], reversed(self.up), reversed(self.merge), strict=True):
            x = merge(torch.cat((skip, up(x)), 1))
        return self.head(x)


def initialized(net: nn.Module, seed: int) -> nn.Module:
    """The network ready for inference, with seeded weights and statistics that no normalisation leaves as they were."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, generator=generator)
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.0, generator=generator)
            for tensor in (module.bias, module.running_mean):
                nn.init.uniform_(tensor, -0.3, 0.3, generator=generator)
    return net.eval()
