"""What may be put on a residual function before it is added: squeeze-and-excitation and stochastic depth."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SqueezeExcitation(nn.Module):
    """y·sigmoid(fc2(relu(fc1(mean over the image of y)))), a factor for each channel of an image; PyTorch's operations.

    y: [N, channels, H, W] → the same size; fc1 to channels/reduction and fc2 back are 1×1 convolutions with biases, as
    in torchvision.ops.SqueezeExcitation. Hu et al. 2018 (Squeeze-and-Excitation Networks), section 3 and figure 3.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.fc1 = nn.Conv2d(channels, hidden, kernel_size=1)
        self.fc2 = nn.Conv2d(hidden, channels, kernel_size=1)

    def forward(self, y: Tensor) -> Tensor:
        squeezed = y.mean((2, 3), keepdim=True)
        return y * torch.sigmoid(self.fc2(torch.relu(self.fc1(squeezed))))


def stochastic_depth(y: Tensor, drop: float) -> Tensor:
    """y with each image's residual function dropped with probability `drop`, and divided by 1 − drop where it is not.

    y: [N, C, H, W] → the same size. Draws and results are those of torchvision.ops.stochastic_depth, mode "row". Huang
    et al. 2016 (Deep Networks with Stochastic Depth), section 3; divided in training, and not multiplied in inference.
    """
    kept = torch.empty((y.shape[0], 1, 1, 1), dtype=y.dtype, device=y.device).bernoulli_(1 - drop)
    return y * (kept.div_(1 - drop) if drop < 1 else kept)
