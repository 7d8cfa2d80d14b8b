"""Two runs with one folder: the second gets a sentence and leaves it alone; a killed first one is in nobody's way."""

import contextlib
import errno
import fcntl
import json
import os
import subprocess
import sys

import pytest
import small

from resnet_fused.cli import main
from resnet_fused.train import TrainError, checkpoint
from resnet_fused.train.folder_lock import locked

CHOSEN = {"model": "resnet20", "image": 8, "batch": 16, "epochs": 2, "warmup": 0}
WORDS = ": another process is writing to it: wait for its end, or name another folder with --out"

# A run of which each epoch waits for a line.
WAITING = """
import json, sys
from resnet_fused.train import Place, loop, run
trains = loop.train_epoch
def train_epoch(*arguments):
    print('waits', flush=True), sys.stdin.readline()
    return trains(*arguments)
loop.train_epoch = train_epoch
run(json.loads(sys.argv[1]), Place(sys.argv[2], threads=1), say=lambda line: None)
"""
# A child that was forked outlives its parent, until its input ends.
FORKED = """
import os, sys, time
from resnet_fused.train.folder_lock import locked
file = locked(sys.argv[1])
if os.fork():
    time.sleep(600)
print('forked', flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def _process(script, *arguments):
    """The script, after its first line."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline()
            yield process
        finally:
            process.kill()


def _content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_one_at_a_time(tmp_path):
    with locked(str(tmp_path)):
        with pytest.raises(TrainError, match=WORDS):
            locked(str(tmp_path))
    locked(str(tmp_path)).close()


def test_places_without_locks(tmp_path, monkeypatch):
    """A file system that knows none is written to; a folder that cannot be is a sentence."""

    def unknown(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unknown)
    locked(str(tmp_path)).close()
    with pytest.raises(TrainError, match="missing cannot be written to: No such file or directory"):
        locked(str(tmp_path / "missing"))


@pytest.mark.slow
def test_forked_processes_do_not_hold_it(tmp_path):
    with _process(FORKED, tmp_path) as parent:
        with pytest.raises(TrainError, match=WORDS):
            locked(str(tmp_path))
        parent.kill()
        parent.wait()
        locked(str(tmp_path)).close()


@pytest.mark.slow
def test_a_second_run_leaves_the_first_alone(digits_folder, tmp_path, capsys):
    given = {"data": f"folder:{digits_folder}", **CHOSEN}
    arguments = ["train", "--out", str(tmp_path), "--threads", "1"]
    for name, value in given.items():
        arguments += [f"--{name}", str(value)]
    with _process(WAITING, json.dumps(given), tmp_path) as first:
        before = _content(tmp_path)
        assert main(arguments) == 1 and _content(tmp_path) == before
        assert capsys.readouterr().err == f"resnet-fused train: {tmp_path}{WORDS}\n"
        print(file=first.stdin, flush=True)
        assert first.stdout.readline()  # the second epoch begins: the first is saved
        before = _content(tmp_path)
        assert main([*arguments, "--resume"]) == 1 and _content(tmp_path) == before
        assert capsys.readouterr().err == f"resnet-fused train: {tmp_path}{WORDS}\n"
        first.kill()
        first.wait()
        assert main([*arguments, "--resume"]) == 0
    assert len(small.table(tmp_path)) == 2 and checkpoint.load(str(tmp_path))["epoch"] == 2


@pytest.mark.slow
def test_a_second_experiment_leaves_the_first_alone(tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    with _process(FORKED, out):
        assert main(["degradation", "--out", str(out)]) == 1 and os.listdir(out) == [".lock"]
    assert capsys.readouterr().err == f"resnet-fused degradation: {out}{WORDS}\n"
