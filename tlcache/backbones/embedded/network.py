"""ResNet-20 for images of 32 x 32 pixels (He et al., 2016, https://arxiv.org/abs/1512.03385, section 4.2)."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

__all__ = ["ResNet20", "resnet20_cifar"]

_WIDTHS = (16, 32, 64)
_DEPTH = 3  # blocks of a stage


class ResNet20(nn.Module):
    """Three stages of three residual blocks; `layer3` gives (batch, 64, 8, 8) for images (batch, 3, 32, 32).

    Where a block changes the shape, its shortcut is a 1 x 1 convolution: option B of the paper.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, _WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(_WIDTHS[0])
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(_WIDTHS[0], _WIDTHS[0], 1)
        self.layer2 = _stage(_WIDTHS[0], _WIDTHS[1], 2)
        self.layer3 = _stage(_WIDTHS[1], _WIDTHS[2], 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(_WIDTHS[2], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits, float (batch, classes), of normalised images, float (batch, 3, H, W)."""
        features = self.relu(self.bn1(self.conv1(image)))
        features = self.layer3(self.layer2(self.layer1(features)))
        return cast(Tensor, self.fc(self.avgpool(features).flatten(1)))


class _Block(nn.Module):
    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample: nn.Module = nn.Identity()
        if channels != width:
            self.downsample = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, features: Tensor) -> Tensor:
        inner = self.relu(self.bn1(self.conv1(features)))
        return cast(Tensor, self.relu(self.bn2(self.conv2(inner)) + self.downsample(features)))


def _stage(channels: int, width: int, stride: int) -> nn.Sequential:
    first = _Block(channels, width, stride)
    return nn.Sequential(first, *(_Block(width, width, 1) for _ in range(_DEPTH - 1)))


def resnet20_cifar(num_classes: int = 10) -> ResNet20:
    """Return an untrained network, initialised from torch's generator as torchvision initialises its ResNets."""
    return ResNet20(num_classes)
