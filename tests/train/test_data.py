"""Readers of data: what they read from small archives and folders, and the sentence for each that is damaged."""

import hashlib
import pickle
import shutil

import numpy
import pytest
import small
import torch
from torchvision import datasets

from resnet_fused.train import batches, data
from resnet_fused.train.settings import TrainError


def test_digits_are_split_fairly_and_once():
    """A fifth of every class for testing, and no image on both sides, whatever the run's seed."""
    read = data.load(small.settings(seed=3))
    assert (len(read.train), len(read.test)) == (1437, 360) and read.classes == [str(i) for i in range(10)]
    counts = torch.bincount(torch.tensor(read.test.labels))
    every = counts + torch.bincount(torch.tensor(read.train.labels))
    assert (counts.double() - 0.2 * every).abs().max() <= 1
    again = data.load(small.settings(seed=4))
    assert torch.equal(read.test.images, again.test.images) and read.test.labels == again.test.labels
    trained = {image.numpy().tobytes() for image in read.train.images[:, 0]}
    assert not trained & {image.numpy().tobytes() for image in read.test.images[:, 0]}
    assert read.train.images.shape[1:] == (3, 8, 8)
    assert abs(read.train.images.mean()) < 1e-5 and abs(read.train.images.std() - 1) < 1e-3


def write_cifar(folder, kind, per_file=4):
    """CIFAR's layout with random images → (the reader's class, its files' MD5 sums, images, labels)."""
    reader = datasets.CIFAR10 if kind == "cifar10" else datasets.CIFAR100
    base, draw = folder / reader.base_folder, numpy.random.default_rng(0)
    base.mkdir(parents=True)
    images, labels, sums = [], [], {}
    for name in [file for file, _ in (*reader.train_list, *reader.test_list)]:
        images.append(draw.integers(0, 256, (per_file, 3, 32, 32), dtype=numpy.uint8))
        labels.append(draw.integers(0, 10, per_file).tolist())
        key = "labels" if kind == "cifar10" else "fine_labels"
        content = {"data": images[-1].reshape(per_file, -1), key: labels[-1]}
        (base / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((base / name).read_bytes()).hexdigest()
    meta = reader.meta["filename"]
    (base / meta).write_bytes(pickle.dumps({reader.meta["key"]: [f"class {i}" for i in range(10)]}))
    sums[meta] = hashlib.md5((base / meta).read_bytes()).hexdigest()
    return reader, sums, images, labels


@pytest.fixture
def cifar(tmp_path, monkeypatch, request):
    """A small archive, and the reader made to expect its MD5 sums."""
    reader, sums, images, labels = write_cifar(tmp_path, request.param)
    for part in ("train_list", "test_list"):
        monkeypatch.setattr(reader, part, [[name, sums[name]] for name, _ in getattr(reader, part)])
    monkeypatch.setattr(reader, "meta", {**reader.meta, "md5": sums[reader.meta["filename"]]})
    return request.param, tmp_path, images, labels


@pytest.mark.parametrize("cifar", ["cifar10", "cifar100"], indirect=True)
def test_cifar(cifar):
    kind, folder, images, labels = cifar
    read = data.load(small.settings(data=f"{kind}:{folder}", image=32))
    assert len(read.train) == 4 * (len(images) - 1) and len(read.test) == 4 and read.classes[3] == "class 3"
    x, y = next(iter(batches.testing(read)))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in data.STATISTICS[kind])
    assert y.tolist() == labels[-1]
    # exact but for the order of the division by 255 and the normalisation: 2 roundings of values of at most 3
    assert (x - (torch.tensor(images[-1]) / 255 - mean) / std).abs().max() < 1e-6
    x, y = next(iter(batches.training(read, 4, seed=0, epoch=1, mixup=0)))
    assert x.shape == (4, 3, 32, 32) and x.dtype == torch.float32


@pytest.mark.parametrize("cifar", ["cifar10"], indirect=True)
def test_cifar_of_another_size(cifar):
    kind, folder, *_ = cifar
    read = data.load(small.settings(data=f"{kind}:{folder}", image=24))
    assert next(iter(batches.testing(read)))[0].shape == (4, 3, 24, 24)
    assert next(iter(batches.training(read, 4, 0, 1, 0)))[0].shape == (4, 3, 24, 24)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_wrong_archive_is_refused_and_never_unpickled(tmp_path):
    folder, ran = tmp_path / "cifar", tmp_path / "ran"
    write_cifar(folder, "cifar10")  # whose MD5 sums are not those of the real one
    (folder / "cifar-10-batches-py" / "data_batch_1").write_bytes(pickle.dumps(Evil(ran)))
    with pytest.raises(TrainError, match="is not cifar10: a file is missing, or is not what cifar-10-python.tar.gz"):
        data.load(small.settings(data=f"cifar10:{folder}"))
    assert not ran.exists()
    pickle.loads(pickle.dumps(Evil(ran)))
    assert ran.exists()  # it would have been seen


def test_image_folders(digits_folder):
    read = data.load(small.settings(digits_folder))
    assert (len(read.train), len(read.test)) == (64, 32) and read.classes == [str(i) for i in range(10)]
    x, y = next(iter(batches.testing(read)))
    assert x.shape == (32, 3, 16, 16) and y.tolist() == read.test.targets
    x, y = next(iter(batches.training(read, 16, seed=0, epoch=1, mixup=0)))
    assert x.shape == (16, 3, 16, 16)
    assert y.tolist() == [read.train.targets[i] for i in batches.order(64, 0, 1)[:16]]


@pytest.mark.parametrize("workers", (0, 2))
def test_a_damaged_image_is_named(digits_folder, tmp_path, workers):
    folder = tmp_path / "copy"
    shutil.copytree(digits_folder, folder)
    path = sorted((folder / "val").rglob("*.png"))[5]
    path.write_bytes(path.read_bytes()[:60])
    read = data.load(small.settings(folder))
    with pytest.raises(TrainError) as raised:
        list(batches.testing(read, batches.Loading(workers)))
    assert str(raised.value).startswith(f"{path} cannot be read: ") and "\n" not in str(raised.value)


@pytest.mark.parametrize("parts, words", (
    ({}, r"there is no folder .*/train$"),
    ({"train": range(20)}, r"there is no folder .*/val$"),
    ({"train": range(20), "test": range(9)}, r"have different classes: only one has 9$"),
))  # fmt: skip
def test_incomplete_folders(tmp_path, parts, words):
    small.write_folder(tmp_path, parts)
    with pytest.raises(TrainError, match=words):
        data.load(small.settings(tmp_path))


def test_folders_without_images(tmp_path):
    small.write_folder(tmp_path, {"train": range(20), "val": range(20)})
    for path in (tmp_path / "val" / "3").iterdir():
        path.unlink()
    with pytest.raises(TrainError, match=r"/val holds no images .* Found no valid file for the classes 3\."):
        data.load(small.settings(tmp_path))
    shutil.rmtree(tmp_path / "train")
    (tmp_path / "train").mkdir()
    with pytest.raises(TrainError, match="/train holds no images to train with: Couldn't find any class folder"):
        data.load(small.settings(tmp_path))
