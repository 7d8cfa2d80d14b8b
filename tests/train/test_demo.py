"""images:demo: pieces of photographs, split so that no pixel is on both sides."""

import sys

import pytest
import small
import torch

pytest.importorskip("skimage", reason="the photographs come with scikit-image")

from resnet_fused.bench import photographs  # noqa: E402
from resnet_fused.bench.requirements import MissingPackage  # noqa: E402
from resnet_fused.train import batches, data, demo  # noqa: E402


def numbered(height, width):
    """An image whose pixels are all different: each colour is the pixel's number."""
    number = torch.arange(height * width).view(height, width)
    return torch.stack([number >> 16, number >> 8 & 255, number & 255]).to(torch.uint8)


def numbers(tiles):
    """The pixels in the tiles."""
    places = torch.tensor([1 << 16, 1 << 8, 1]).view(3, 1, 1)
    return torch.cat([(tile.long() * places).sum(0).flatten() for tile in tiles])


def test_no_pixel_is_on_both_sides_and_no_tile_tested_is_beside_another(monkeypatch):
    monkeypatch.setattr(photographs, "load", lambda *_, **__: [numbered(107, 160)])
    train, test = demo.load()
    # 10 rows of 16 tiles of side 10; the 7 rows of pixels left over are not used
    assert len(train.images) == 128 and len(test.images) == 32 and set(train.labels) == {0}
    every = torch.cat([numbers(train.images), numbers(test.images)])
    assert len(every.unique()) == len(every) == 100 * 160 and set(every.tolist()) == set(range(100 * 160))
    places = [divmod(int(numbers([tile])[0]), 160) for tile in test.images]
    gaps = [max(abs(a - c), abs(b - d)) for i, (a, b) in enumerate(places) for c, d in places[:i]]
    assert min(gaps) > 10


def test_photographs_are_split_fairly_and_always_the_same():
    (train, test), again = demo.load(), demo.load()
    assert all(map(torch.equal, test.images + train.images, again[1].images + again[0].images))
    of_train, of_test = (torch.bincount(torch.tensor(part.labels), minlength=8) for part in (train, test))
    assert (of_test / (of_train + of_test) - 0.2).abs().max() < 0.02 and of_test.min() >= 20
    assert min(tile.shape[1] for tile in train.images) >= 30


def test_what_is_trained_on_is_a_part_of_a_tile():
    """With constant tiles, each its own grey, every augmented image is constant; and another one in every epoch."""
    read = data.load(small.settings(data="images:demo", image=16))
    assert len(read.classes) == 8 and read.classes[0] == "astronaut"
    images, labels = next(iter(batches.training(read, 32, seed=0, epoch=1, mixup=0)))
    other, _ = next(iter(batches.training(read, 32, seed=0, epoch=2, mixup=0)))
    assert images.shape == (32, 3, 16, 16) and images.dtype == torch.float32 and not torch.equal(images, other)
    chosen = batches.order(len(read.train), 0, 1)[:32]
    assert labels.tolist() == [read.train[i][1] for i in chosen]
    tiles = [torch.full((3, 30, 30), i, dtype=torch.uint8) for i in range(200)]
    flat = read._replace(train=data.InMemory(tiles, [0] * 200))
    images, _ = next(iter(batches.training(flat, 32, seed=0, epoch=1, mixup=0)))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (photographs.IMAGENET_MEAN, photographs.IMAGENET_STD))
    greys = torch.tensor(batches.order(200, 0, 1)[:32]).view(-1, 1, 1, 1)
    # resizing a constant by weights of float32 that add up to 1 but for rounding, and three roundings of values below 3
    assert (images - (greys / 255 - mean) / std).abs().max() < 1e-5


def test_a_missing_package_is_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    words = r"^training on images:demo needs scikit-image: install it with pip install 'resnet-fused\[train\]'"
    with pytest.raises(MissingPackage, match=words):
        data.load(small.settings(data="images:demo"))
