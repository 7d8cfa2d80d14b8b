"""Shapes that the operator and block benchmarks share: stages of ResNet-18 and ResNet-50 at 224 x 224."""

from typing import NamedTuple


class Activation(NamedTuple):
    """An activation of a stage: channels and side of the square image."""

    channels: int
    side: int

    def __str__(self) -> str:
        return f"{self.channels}x{self.side}x{self.side}"


class Convolution(NamedTuple):
    """A convolution of a stage with its square filter."""

    channels: int
    filters: int
    side: int
    kernel: int
    stride: int = 1

    def __str__(self) -> str:
        return f"{self.channels}-{self.filters}-{self.side}-{self.kernel}x{self.kernel}s{self.stride}"


class Block(NamedTuple):
    """A residual block as torchvision builds it: class name, inplanes, planes, side of its input, stride."""

    kind: str
    inplanes: int
    planes: int
    side: int
    stride: int = 1

    def __str__(self) -> str:
        return f"{self.kind}-{self.inplanes}-{self.planes}-{self.side}s{self.stride}"


BATCH = 8

# The stem's output, and the widest and the deepest tensor behind it.
ACTIVATIONS = (Activation(64, 56), Activation(256, 56), Activation(512, 7))
STEM = Activation(64, 112)

CONVOLUTIONS = (Convolution(64, 64, 56, 3), Convolution(64, 256, 56, 1), Convolution(128, 128, 56, 3, 2))

BLOCKS = (
    Block("BasicBlock", 64, 64, 56),
    Block("BasicBlock", 128, 256, 28, 2),
    Block("Bottleneck", 256, 64, 56),
    Block("Bottleneck", 512, 256, 28, 2),
)
