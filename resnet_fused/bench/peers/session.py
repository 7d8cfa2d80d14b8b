"""An engine in the place of the model."""

from __future__ import annotations

import numpy
import torch
from torch import Tensor, nn


class Session(nn.Module):
    """Turns a batch of images, float32 in contiguous NCHW, into logits by an engine built for ``batch`` images."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.batch = batch
        self.eval()  # a step asks in which mode the model is

    def infer(self, images: numpy.ndarray) -> numpy.ndarray:
        """The engine's logits for exactly ``batch`` images, which it gets without a copy where it can."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        count = len(images)
        if count < self.batch:  # the check may have fewer images; the engine knows one shape only
            filling = images[:1].expand(self.batch - count, *images.shape[1:])
            images = torch.cat([images, filling])
        return torch.from_numpy(self.infer(images.numpy()))[:count]
