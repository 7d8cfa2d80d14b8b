"""Data sets that lie on this machine; nothing is ever downloaded.

    digits         1,797 handwritten digits of scikit-learn, 8×8 grey, brought to three channels; a fifth is for testing
    cifar10:DIR    DIR holds cifar-10-batches-py, as unpacked from cifar-10-python.tar.gz; read after its MD5 sums are
                   checked, since the files are pickles
    cifar100:DIR   likewise cifar-100-python
    images:demo    pieces of the eight photographs of scikit-image and scikit-learn, see demo.py
    folder:DIR     DIR/train and DIR/val (or DIR/test), each with a folder of images for every class
"""

from __future__ import annotations

import os
from typing import Any, Callable, NamedTuple, Sequence

import torch
from torch.nn import functional as F
from torch.utils.data import Dataset

from resnet_fused.bench.photographs import IMAGENET_MEAN, IMAGENET_STD, NAMES
from resnet_fused.bench.requirements import require
from resnet_fused.train import demo
from resnet_fused.train.settings import Settings, TrainError

DIGITS_SPLIT = 0  # the split's seed, the same for every run: what is tested was never trained on
# Of the training images, in 0..1; those of CIFAR-10 and CIFAR-100 as they are commonly used.
STATISTICS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "folder": (IMAGENET_MEAN, IMAGENET_STD),
    "images": (IMAGENET_MEAN, IMAGENET_STD),
}


class Data(NamedTuple):
    """Images and labels, and what is done to an image; the first transform of the two draws at random.

    train, test: data sets of (image, label) with images as the transforms take them; the transforms give float32
    [3, image, image].
    """

    train: Dataset
    test: Dataset
    classes: Sequence[str]
    augment: Callable[[Any], torch.Tensor]
    prepare: Callable[[Any], torch.Tensor]


class InMemory(Dataset):
    """Images, a tensor [N, 3, S, S] or a list of tensors, and their labels."""

    def __init__(self, images: torch.Tensor | list[torch.Tensor], labels: Sequence[int]) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.images[index], int(self.labels[index])


def load(settings: Settings) -> Data:
    """The data of these settings; raises TrainError, in one sentence, where they are not there or not whole."""
    readers = {"digits": _digits, "cifar10": _cifar, "cifar100": _cifar, "folder": _folder, "images": _demo}
    return readers[settings.kind](settings)


def _torchvision(module: str) -> Any:
    return require(f"torchvision.{module}", "torchvision", "training", extra="train")


def _digits(settings: Settings) -> Data:
    datasets = require("sklearn.datasets", "scikit-learn", "training on digits", extra="train")
    selection = require("sklearn.model_selection", "scikit-learn", "training on digits", extra="train")
    transforms = _torchvision("transforms.v2")
    digits, size = datasets.load_digits(), settings.image
    images = F.interpolate(torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, (size, size),
                           mode="bilinear", align_corners=False)  # fmt: skip
    train, test = selection.train_test_split(
        range(len(images)), test_size=0.2, random_state=DIGITS_SPLIT, stratify=digits.target
    )
    images = ((images - images[train].mean()) / images[train].std()).expand(-1, 3, -1, -1)
    background = images.min().item()
    shift = transforms.RandomCrop(size, padding=max(1, size // 8), fill=background)  # no flips: 2 is not its mirror
    sets = [InMemory(images[part], digits.target[part].tolist()) for part in (train, test)]
    return Data(*sets, [str(name) for name in digits.target_names], shift, torch.nn.Identity())


def _to_tensor(kind: str) -> list[Any]:
    transforms = _torchvision("transforms.v2")
    to_float = transforms.ToDtype(torch.float32, scale=True)
    return [transforms.ToImage(), to_float, transforms.Normalize(*STATISTICS[kind])]


def _cifar(settings: Settings) -> Data:
    """He et al. 2016, section 4.2: four pixels of padding, a random crop, a random flip."""
    transforms, datasets = _torchvision("transforms.v2"), _torchvision("datasets")
    reader = datasets.CIFAR10 if settings.kind == "cifar10" else datasets.CIFAR100
    wanted = os.path.join(settings.folder, reader.base_folder)
    if os.path.isfile(settings.folder):
        raise TrainError(f"{settings.folder} is a file: unpack it, and name the folder that holds {reader.base_folder}")
    if not os.path.isdir(wanted):
        raise TrainError(f"there is no folder {wanted}: unpack {reader.filename} into {settings.folder}")
    try:
        train, test = (reader(settings.folder, train=part, download=False) for part in (True, False))
    except (RuntimeError, OSError) as error:
        raise TrainError(f"{wanted} is not {settings.kind}: a file is missing, or is not what {reader.filename} holds "
                         f"(by its MD5 sum)") from error  # fmt: skip
    size = settings.image
    resize = [] if size == 32 else [transforms.Resize((size, size))]
    crop = [transforms.RandomCrop(size, padding=size // 8), transforms.RandomHorizontalFlip()]
    last = _to_tensor(settings.kind)
    return Data(train, test, train.classes, transforms.Compose([*resize, *crop, *last]),
                transforms.Compose([*resize, *last]))  # fmt: skip


def _demo(settings: Settings) -> Data:
    """Of a tile a random part of half its area or more, and a flip; in tests the whole tile."""
    transforms, size = _torchvision("transforms.v2"), settings.image
    train, test = (InMemory(*part) for part in demo.load())
    piece = transforms.RandomResizedCrop(size, scale=(0.5, 1.0), antialias=True)
    whole, last = transforms.Resize((size, size), antialias=True), _to_tensor("images")
    return Data(train, test, NAMES, transforms.Compose([piece, transforms.RandomHorizontalFlip(), *last]),
                transforms.Compose([whole, *last]))  # fmt: skip


def _folder(settings: Settings) -> Data:
    """torchvision's transforms for ImageNet: a random part of the image and a flip; in tests the centre."""
    transforms, size = _torchvision("transforms.v2"), settings.image
    train = _images(os.path.join(settings.folder, "train"))
    tests = [path for name in ("val", "test") if os.path.isdir(path := os.path.join(settings.folder, name))]
    test = _images(tests[0] if tests else os.path.join(settings.folder, "val"))
    if train.classes != test.classes:
        unequal = sorted(set(train.classes) ^ set(test.classes))
        raise TrainError(f"{train.root} and {test.root} have different classes: only one has {', '.join(unequal)}")
    last = _to_tensor("folder")
    augment = [transforms.RandomResizedCrop(size, antialias=True), transforms.RandomHorizontalFlip(), *last]
    centre = [transforms.Resize(round(size / 0.875), antialias=True), transforms.CenterCrop(size), *last]
    return Data(train, test, train.classes, transforms.Compose(augment), transforms.Compose(centre))


def _images(path: str) -> Any:
    if not os.path.isdir(path):
        raise TrainError(f"there is no folder {path}")
    try:
        return _torchvision("datasets").ImageFolder(path)
    except FileNotFoundError as error:  # without classes, or a class without images
        raise TrainError(f"{path} holds no images to train with: {' '.join(str(error).split())}") from error


def describe(dataset: Dataset, index: int) -> str:
    """Where image number `index` comes from, for an error message."""
    samples = getattr(dataset, "samples", None)
    return samples[index][0] if samples else f"image {index}"
