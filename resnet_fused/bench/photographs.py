"""Real photographs that ship inside scikit-image and scikit-learn: nothing is downloaded.

The batch is deterministic: image i is photograph i mod 8, and each further pass over the photographs takes another
crop and flips every second image, so that no two images of a batch of up to 64 are the same.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .requirements import require

# The mean and standard deviation of ImageNet's training images, by which torchvision's models normalise.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Of the colour images in the scikit-image wheel, those that show a scene; the order is part of the result.
SKIMAGE_NAMES = ("astronaut", "chelsea", "coffee", "rocket", "stereo_motorcycle", "hubble_deep_field")
SKLEARN_NAMES = ("china.jpg", "flower.jpg")
NAMES = SKIMAGE_NAMES + tuple(name.removesuffix(".jpg") for name in SKLEARN_NAMES)

# Corners and centre of the free play of a crop, as fractions of it (vertical, horizontal).
CROPS = ((0.5, 0.5), (0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.25, 0.75), (0.75, 0.25), (0.5, 0.0))
CROP_FRACTION = 0.875  # of the shorter side, as in ImageNet evaluation: resize to 256, crop 224

# Labels are spread over the classes by a step coprime to 1000, so that neighbours in the batch never share one.
LABEL_STEP = 37


def load(purpose: str = "the benchmark's photographs", extra: str = "bench") -> list[Tensor]:
    """The eight photographs as uint8 tensors [3, H, W] in the order of ``NAMES``.

    Where a package is missing, ``MissingPackage`` names the ``purpose`` and our ``extra`` that brings it.
    """
    data = require("skimage.data", "scikit-image", purpose, extra)
    datasets = require("sklearn.datasets", "scikit-learn", purpose, extra)
    images = []
    for name in SKIMAGE_NAMES:
        image = getattr(data, name)()
        images.append(image[0] if isinstance(image, tuple) else image)  # a stereo pair comes with its disparity
    images += [datasets.load_sample_image(name) for name in SKLEARN_NAMES]
    return [torch.tensor(image).permute(2, 0, 1) for image in images]


def crop(photograph: Tensor, size: int, index: int, flip: bool) -> Tensor:
    """Crop number ``index`` of a uint8 [3, H, W] photograph, resized to float32 [3, size, size] in 0..1."""
    _, height, width = photograph.shape
    side = round(CROP_FRACTION * min(height, width))
    vertical, horizontal = CROPS[index % len(CROPS)]
    top, left = round(vertical * (height - side)), round(horizontal * (width - side))
    window = photograph[None, :, top : top + side, left : left + side].float() / 255
    image = F.interpolate(window, size=(size, size), mode="bilinear", antialias=True, align_corners=False)[0]
    return image.flip(-1) if flip else image


def batch(count: int, size: int, classes: int = 1000) -> tuple[Tensor, Tensor]:
    """A normalised float32 batch [count, 3, size, size] (contiguous NCHW) and its int64 labels [count]."""
    photographs = load()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    images = []
    for i in range(count):
        turn, which = divmod(i, len(photographs))
        image = crop(photographs[which], size, index=turn, flip=(turn + which) % 2 == 1)
        images.append((image - mean) / std)
    labels = torch.arange(count) * LABEL_STEP % classes
    return torch.stack(images), labels
