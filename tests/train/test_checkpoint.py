"""Checkpoints: whole whenever the process dies, and nothing but data."""

import os
import pickle
import random
import zipfile

import pytest
import small
import torch

from resnet_fused.train import batches, checkpoint, loop, optimise
from resnet_fused.train.settings import TrainError


def test_a_crash_between_writing_and_replacing_leaves_the_old_one(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, {"weights": torch.arange(5.0)})

    def crash(*_):
        raise KeyboardInterrupt  # as a signal would, at the worst moment

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(tmp_path, {"weights": torch.zeros(5)})
    assert torch.equal(checkpoint.load(tmp_path)["weights"], torch.arange(5.0))
    checkpoint.save(tmp_path, {"weights": torch.ones(5)})
    assert torch.equal(checkpoint.load(tmp_path)["weights"], torch.ones(5))
    assert os.listdir(tmp_path) == [checkpoint.NAME]  # what the crash left is gone


def test_what_is_replaced_is_complete_and_on_the_disk(tmp_path, monkeypatch):
    """When the name changes, the new file can be loaded and was synchronised; then its folder is."""
    events, replace, sync = [], os.replace, os.fsync

    def replacing(source, target):
        events.append(("replace", torch.load(source, weights_only=True)["weights"].tolist()))
        replace(source, target)

    def syncing(descriptor):
        events.append(("sync", os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))))
        sync(descriptor)

    monkeypatch.setattr(os, "replace", replacing)
    monkeypatch.setattr(os, "fsync", syncing)
    checkpoint.save(tmp_path, {"weights": torch.ones(2)})
    assert events == [("sync", checkpoint.PARTIAL), ("replace", [1.0, 1.0]), ("sync", tmp_path.name)]


def test_a_full_disk_is_a_sentence(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, {"weights": torch.ones(2)})

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainError, match=r"checkpoint.pt cannot be written: .*No space left on device"):
        checkpoint.save(tmp_path, {"weights": torch.zeros(2)})
    assert os.listdir(tmp_path) == [checkpoint.NAME]
    assert torch.equal(checkpoint.load(tmp_path)["weights"], torch.ones(2))


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("save", (
    lambda content, path: torch.save(content, path),
    lambda content, path: path.write_bytes(pickle.dumps(content)),
), ids=["torch.save", "pickle"])  # fmt: skip
def test_a_malicious_pickle_is_refused(tmp_path, save):
    ran = tmp_path / "ran"
    save({"schema": checkpoint.SCHEMA, "epoch": Evil(ran)}, tmp_path / checkpoint.NAME)
    with pytest.raises(TrainError, match="it was not loaded"):
        checkpoint.load(tmp_path)
    assert not ran.exists()


def test_damaged_and_foreign_files(tmp_path):
    path = tmp_path / checkpoint.NAME
    with pytest.raises(TrainError, match="there is no .*checkpoint.pt to resume from"):
        checkpoint.load(tmp_path)
    checkpoint.save(tmp_path, {"weights": torch.ones(2000)})
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"no checkpoint", whole[:-1]):
        path.write_bytes(content)
        with pytest.raises(TrainError, match="damaged, or no checkpoint"):
            checkpoint.load(tmp_path)
    torch.save({"weight": torch.ones(2)}, path)  # somebody's state_dict
    with pytest.raises(TrainError, match="no checkpoint of this version"):
        checkpoint.load(tmp_path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(TrainError, match="damaged, or no checkpoint"):
        checkpoint.load(tmp_path)


def _flipped(path, name, content):
    """Flips a bit in the middle of an archive's member, which is stored as it is."""
    whole = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        (stored,) = (i for i in archive.infolist() if i.filename.endswith(name))
        assert stored.compress_type == zipfile.ZIP_STORED and archive.read(stored).count(content) == 1
    whole[whole.index(content) + len(content) // 2] ^= 1
    path.write_bytes(whole)


def test_a_flipped_bit_is_noticed(tmp_path):
    """In a tensor's numbers, where the archive can still be read, and in the schema's name."""
    path, weights = tmp_path / checkpoint.NAME, torch.rand(2000)
    for name, content in (("data/0", weights.numpy().tobytes()), ("data.pkl", b"schema")):
        checkpoint.save(tmp_path, {"weights": weights})
        assert torch.equal(checkpoint.load(tmp_path)["weights"], weights)
        _flipped(path, name, content)
        with pytest.raises(TrainError, match="checkpoint.pt is damaged, or no checkpoint .*; it was not loaded$"):
            checkpoint.load(tmp_path)


@pytest.mark.parametrize("program, kind", (
    (b"\x80\x02.", IndexError),  # the end, with nothing made
    (b"\x80\x02}]K\x01s.", TypeError),  # a list as a key
    (b"\x80\x02(X\x07\0\0\0storageK\x01X\x01\0\0\x000X\x03\0\0\0cpuK\x02tQ.", AttributeError),  # a storage of 1
))  # fmt: skip
def test_a_mutated_pickle_is_refused(tmp_path, program, kind):
    """Whatever the unpickler raises: its checksums are right."""
    path = tmp_path / checkpoint.NAME
    checkpoint.save(tmp_path, {"weights": torch.ones(2)})
    with zipfile.ZipFile(path) as archive:
        members = {i.filename: archive.read(i) for i in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, program if name.endswith("data.pkl") else content)
    with pytest.raises(kind):
        torch.load(path, weights_only=True)
    with pytest.raises(TrainError, match="checkpoint.pt is damaged, or no checkpoint .*; it was not loaded$"):
        checkpoint.load(tmp_path)


def test_random_states_go_on(tmp_path):
    random.seed(3)
    torch.manual_seed(4)
    torch.randn(3)
    checkpoint.save(tmp_path, {"random": checkpoint.random_states()})
    expected = (random.random(), random.gauss(0, 1), torch.rand(4))
    random.seed(0)
    torch.manual_seed(0)
    checkpoint.restore_random_states(checkpoint.load(tmp_path)["random"])
    assert (random.random(), random.gauss(0, 1)) == expected[:2] and torch.equal(torch.rand(4), expected[2])


def test_training_goes_on_from_a_loaded_state(tmp_path):
    """Momentum, rate, averages and the loss's scale: an epoch more gives the same bits. All but randomness, see
    test_resume.py."""
    settings, read = small.digits(train=64, epochs=2, ema=0.8, precision="float16", layout="contiguous")
    one = optimise.build(settings, 10, 4)
    loop.train_epoch(one.network, one, batches.training(read, 16, 0, 1, 0), settings)
    checkpoint.save(tmp_path, {"state": one.state_dict()})
    other = optimise.build(small.settings(seed=9, epochs=2, ema=0.8, precision="float16", layout="contiguous"), 10, 4)
    other.load_state_dict(checkpoint.load(tmp_path)["state"])
    scores = [loop.train_epoch(s.network, s, batches.training(read, 16, 0, 2, 0), settings) for s in (one, other)]
    assert scores[0] == scores[1] and one.scaler.state_dict() == other.scaler.state_dict()
    assert one.scheduler.get_last_lr() == other.scheduler.get_last_lr()
    for key in ("model", "ema"):
        theirs = other.state_dict()[key]
        assert all(torch.equal(v, theirs[name]) for name, v in one.state_dict()[key].items())


@pytest.mark.parametrize("error", (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you …")))
def test_want_of_memory_is_no_damage(tmp_path, monkeypatch, error):
    """torch raises a RuntimeError, of no class of its own."""
    checkpoint.save(tmp_path, {"weights": torch.ones(2)})

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(TrainError, match="there is not enough memory to load .*checkpoint.pt"):
        checkpoint.load(tmp_path)


def test_torch_says_so_where_memory_is_wanting():
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        torch.empty(1 << 50)
