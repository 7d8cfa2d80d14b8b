"""The photographs are real, offline, deterministic, and differ from image to image."""

import socket

import pytest
import torch

pytest.importorskip("skimage")
pytest.importorskip("sklearn")

from resnet_fused.bench import photographs  # noqa: E402


@pytest.fixture
def offline(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("the photographs must not need the network")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_photographs_are_colour_images_of_some_size(offline):
    images = photographs.load()
    assert len(images) == len(photographs.NAMES) == 8
    for image in images:
        assert image.dtype == torch.uint8 and image.shape[0] == 3 and min(image.shape[1:]) >= 300


def test_neighbouring_pixels_resemble_each_other_as_in_photographs():
    for image in photographs.load():
        grey = image.float().mean(0)
        pairs = torch.stack([grey[:, :-1].flatten(), grey[:, 1:].flatten()])
        assert torch.corrcoef(pairs)[0, 1] > 0.85  # noise would have 0


def test_batch_is_deterministic():
    first, second = photographs.batch(20, 32), photographs.batch(20, 32)
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


def test_a_smaller_batch_is_the_beginning_of_a_larger_one():
    small, large = photographs.batch(3, 32), photographs.batch(20, 32)
    assert torch.equal(small[0], large[0][:3]) and torch.equal(small[1], large[1][:3])


def test_images_and_labels_of_a_batch_differ():
    images, labels = photographs.batch(64, 48)
    assert images.shape == (64, 3, 48, 48) and images.dtype == torch.float32 and images.is_contiguous()
    assert len({image.numpy().tobytes() for image in images}) == 64
    assert len(set(labels.tolist())) == 64 and 0 <= labels.min() and labels.max() < 1000


def test_normalisation_is_imagenets():
    images, _ = photographs.batch(8, 64)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (photographs.IMAGENET_MEAN, photographs.IMAGENET_STD))
    pixels = images * std + mean
    assert pixels.min() >= -1e-6 and pixels.max() <= 1 + 1e-6 and 0.1 < pixels.mean() < 0.7


def test_flip_mirrors_the_crop():
    image = photographs.load()[0]
    plain, flipped = (photographs.crop(image, 32, 1, flip) for flip in (False, True))
    assert torch.equal(plain.flip(-1), flipped)
