"""The classic nets in plain torch, module by module named as torchvision names them. Imports nothing of ours."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class LeNet5(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        for conv in (self.conv1, self.conv2):
            x = nn.functional.max_pool2d(conv(x).relu(), 2)
        return self.fc3(self.fc2(self.fc1(x.flatten(1)).relu()).relu())


class Classifier(nn.Module):
    """Features, then a classifier of dense layers: AlexNet and VGG."""

    def __init__(self, features: nn.Sequential, classifier: nn.Sequential) -> None:
        super().__init__()
        self.features, self.classifier = features, classifier

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


def alexnet() -> nn.Module:
    features = nn.Sequential(
        nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
    )  # fmt: skip
    dense = [nn.Dropout(), nn.Linear(9216, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU()]
    return Classifier(features, nn.Sequential(*dense, nn.Linear(4096, 1000)))


def vgg(depth: int, batch_norm: bool) -> nn.Module:
    layers: list[nn.Module] = []
    channels = 3
    counts = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}[depth]
    for width, count in zip((64, 128, 256, 512, 512), counts, strict=True):
        for _ in range(count):
            layers.append(nn.Conv2d(channels, width, 3, padding=1))
            layers += [nn.BatchNorm2d(width), nn.ReLU()] if batch_norm else [nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2, 2))
    dense = [nn.Linear(25088, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout()]
    return Classifier(nn.Sequential(*layers), nn.Sequential(*dense, nn.Linear(4096, 1000)))


class Block(nn.Module):
    """Two 3×3 convolutions, or a bottleneck of three, beside a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int, expansion: int) -> None:
        super().__init__()
        rows = [(inputs, width, 3, stride), (width, width, 3, 1)]
        if expansion > 1:
            rows = [(inputs, width, 1, 1), (width, width, 3, stride), (width, width * expansion, 1, 1)]
        for i, (a, b, kernel, step) in enumerate(rows, 1):
            setattr(self, f"conv{i}", nn.Conv2d(a, b, kernel, step, kernel // 2, bias=False))
            setattr(self, f"bn{i}", nn.BatchNorm2d(b))
        self.count = len(rows)
        self.downsample: nn.Module | None = None
        if stride > 1 or inputs != width * expansion:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, width * expansion, 1, stride, bias=False), nn.BatchNorm2d(width * expansion)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = y.relu() if i < self.count else y
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


class ResNet(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        counts = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}[depth]
        expansion = 1 if depth < 50 else 4
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        inputs = 64
        for i, count in enumerate(counts):
            width, blocks = 64 << i, []
            for k in range(count):
                blocks.append(Block(inputs, width, 2 if i and not k else 1, expansion))
                inputs = width * expansion
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(inputs, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        for i in range(1, 5):
            x = getattr(self, f"layer{i}")(x)
        return self.fc(x.mean((2, 3)))


class UNet(nn.Module):
    def __init__(self, base: int = 32, levels: int = 4) -> None:
        super().__init__()
        self.levels = levels
        channels = 3
        for i in range(levels):
            setattr(self, f"down{i}", self._double(channels, base << i))
            channels = base << i
        self.middle = self._double(channels, base << levels)
        for i in range(levels):
            up = self._double(base << (i + 1), base << i)
            up.add_module("conv", nn.ConvTranspose2d(base << (i + 1), base << i, 2, 2))
            setattr(self, f"up{i}", up)
        self.head = nn.Conv2d(base, 1, 1)

    @staticmethod
    def _double(inputs: int, width: int) -> nn.Module:
        made = nn.Module()
        for i, channels in enumerate((inputs, width), 1):
            made.add_module(f"conv{i}", nn.Conv2d(channels, width, 3, padding=1, bias=False))
            made.add_module(f"bn{i}", nn.BatchNorm2d(width))
        return made

    @staticmethod
    def _run(made: nn.Module, x: Tensor) -> Tensor:
        return made.bn2(made.conv2(made.bn1(made.conv1(x)).relu())).relu()

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for i in range(self.levels):
            skips.append(self._run(getattr(self, f"down{i}"), x))
            x = nn.functional.max_pool2d(skips[-1], 2)
        x = self._run(self.middle, x)
        for i in reversed(range(self.levels)):
            up = getattr(self, f"up{i}")
            x = self._run(up, torch.cat([skips[i], up.conv(x)], 1))
        return self.head(x)


NETS: dict[str, Callable[[], nn.Module]] = {
    "lenet5": LeNet5,
    "alexnet": alexnet,
    "unet": UNet,
    **{f"vgg{d}{'_bn' * bn}": lambda d=d, bn=bn: vgg(d, bn) for d in (11, 13, 16, 19) for bn in (False, True)},
    **{f"resnet{d}": lambda d=d: ResNet(d) for d in (18, 34, 50, 101, 152)},
}
