"""The classic nets: LeNet-5, AlexNet, VGG, ResNet, U-Net, with the names that torchvision gives their weights."""

from __future__ import annotations

from sigconv.models.nets import NETS, Sequential, alexnet, lenet5, resnet, unet, vgg
from sigconv.models.weights import parameter_count, with_weights

__all__ = ["NETS", "Sequential", "alexnet", "lenet5", "parameter_count", "resnet", "unet", "vgg", "with_weights"]
