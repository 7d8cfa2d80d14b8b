"""A run that was killed goes on to the same bits."""

import json
import os
import subprocess
import sys

import pytest
import small
import torch

from resnet_fused.train import Place, TrainError, checkpoint, metrics, run
from resnet_fused.train.folder_lock import locked

run_module = sys.modules[run.__module__]
# Everything that has a state: momentum, a moving rate, an average, and mixup, which draws from torch's generator.
CHOSEN = {"model": "resnet20", "image": 16, "batch": 16, "epochs": 3, "warmup": 1, "ema": 0.8, "mixup": 0.3}

# Kills itself as kill -9 does, after the second of four steps of the third epoch.
KILLED = """
import json, os, signal, sys
from resnet_fused.train import Place, loop, run
trains, done = loop.train_epoch, []
def train_epoch(*arguments):
    def progress(images):
        done.append(images)
        if len(done) == 10:
            os.kill(os.getpid(), signal.SIGKILL)
    return trains(*arguments[:4], progress)
loop.train_epoch = train_epoch
run(json.loads(sys.argv[1]), Place(sys.argv[2], threads=1))
"""


def quiet(given, place):
    return run(given, place, say=lambda line: None)


@pytest.mark.slow
def test_kill_9_in_mid_epoch(digits_folder, tmp_path):
    given = {"data": f"folder:{digits_folder}", **CHOSEN}
    whole = quiet(given, Place(str(tmp_path / "whole"), threads=1))
    broken = tmp_path / "broken"
    command = [sys.executable, "-c", KILLED, json.dumps(given), str(broken)]
    died = subprocess.run(command, capture_output=True, text=True)
    assert died.returncode == -9, died.stderr
    assert len(died.stdout.splitlines()) == 2 and checkpoint.load(broken)["epoch"] == 2
    # A death between the checkpoint and the table, and a row of an epoch that no checkpoint has.
    lines = (broken / metrics.NAME).read_text().splitlines(keepends=True)
    (broken / metrics.NAME).write_text("".join([*lines, lines[-1].replace("2,", "3,", 1)]))
    (broken / checkpoint.PARTIAL).write_bytes(b"half a file")
    torch.manual_seed(12345)  # whatever this process has drawn
    outcome = quiet({}, Place(str(broken), resume=True))
    assert not outcome.interrupted and [row["epoch"] for row in outcome.rows] == [1, 2, 3]
    assert small.table(broken) == small.table(tmp_path / "whole") and len(whole.rows) == 3
    ours, theirs = checkpoint.load(broken), checkpoint.load(tmp_path / "whole")
    for key in ("model", "ema"):
        assert len(theirs["state"][key]) > 100
        assert all(torch.equal(value, ours["state"][key][name]) for name, value in theirs["state"][key].items())
    assert torch.equal(ours["random"]["torch"], theirs["random"]["torch"])
    assert sorted(path.name for path in broken.iterdir()) == [".lock", checkpoint.NAME, metrics.NAME, "plot.svg"]


@pytest.fixture(scope="module")
def finished(digits_folder, tmp_path_factory):
    """A run of one epoch."""
    folder = tmp_path_factory.mktemp("finished")
    given = {"data": f"folder:{digits_folder}", **CHOSEN, "epochs": 1, "warmup": 0, "ema": 0.0, "mixup": 0.0}
    quiet(given, Place(str(folder), threads=1))
    return given, folder


@pytest.mark.slow
def test_to_resume_before_the_first_epoch_is_to_begin(finished, tmp_path):
    """So that a script can always say --resume: with the same bits as a run that begins, and one line more."""
    given, whole = finished
    for name, left in (("new", None), ("empty", ()), ("killed", (".lock", checkpoint.PARTIAL))):
        out, said = tmp_path / name, []
        if left is not None:
            out.mkdir()
            for file in left:
                (out / file).write_bytes(b"half a file" if "partial" in file else b"")
        assert not run(given, Place(str(out), resume=True, threads=1), said.append).interrupted
        assert said[0] == f"no epoch is in {out} yet: the run begins" and len(said) == 2
        assert small.table(out) == small.table(whole) and checkpoint.load(out)["epoch"] == 1
        assert sorted(os.listdir(out)) == sorted(os.listdir(whole))
        with pytest.raises(TrainError, match="other settings: --seed was 0, now 5"):
            quiet({**given, "seed": 5}, Place(str(out), resume=True))


def test_what_may_be_a_mistake_is_not_begun(finished, tmp_path):
    """Without settings, or where somebody's files are."""
    given, _ = finished
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("")
    for settings, name in ((given, "other"), (given, "other/thesis.tex"), ({}, "none"), ({"lr": 0.1}, "none")):
        with pytest.raises(TrainError, match=f"there is no {tmp_path / name}/checkpoint.pt to resume from"):
            quiet(settings, Place(str(tmp_path / name), resume=True))
    assert os.listdir(tmp_path) == ["other"] and os.listdir(tmp_path / "other") == ["thesis.tex"]


def test_a_run_to_resume_that_begins_is_alone(finished, tmp_path, monkeypatch):
    """Another may be about to save its first epoch, or have saved it since the folder was seen to have none."""
    given, whole = finished
    with locked(str(tmp_path)), pytest.raises(TrainError, match="another process is writing to it"):
        quiet(given, Place(str(tmp_path), resume=True))
    assert os.listdir(tmp_path) == [".lock"]
    exists, seen = checkpoint.exists, []

    def saved_since(folder):
        if seen:
            return exists(folder)
        seen.append(exists(folder))
        (tmp_path / checkpoint.NAME).write_bytes((whole / checkpoint.NAME).read_bytes())
        return seen[0]

    monkeypatch.setattr(checkpoint, "exists", saved_since)
    with pytest.raises(TrainError, match="with these settings: go on with --resume"):
        quiet(given, Place(str(tmp_path), resume=True))
    assert seen == [False]


@pytest.mark.slow
def test_what_a_run_ran_on_is_recorded(digits_folder, tmp_path, monkeypatch):
    """Each machine since its first epoch there, never its name; nothing is known of what began before that was."""
    given = {"data": f"folder:{digits_folder}", **CHOSEN, "warmup": 0}
    epoch, stop = run_module._epoch, []

    def limited(going, number):
        if number in stop:
            raise KeyboardInterrupt
        return epoch(going, number)

    monkeypatch.setattr(run_module, "_epoch", limited)
    stop[:] = [2]
    quiet(given, Place(str(tmp_path), threads=1))
    (here,) = checkpoint.load(str(tmp_path))["ran"]
    assert here["from_epoch"] == 1 and here["environment"]["versions"]["torch"] == torch.__version__
    assert here["environment"]["cpu_model"] and os.uname().nodename not in json.dumps(here)
    content = checkpoint.load(str(tmp_path))
    for environment, end in (({**here["environment"], "cpu_model": "another"}, 3), (None, 4)):
        checkpoint.save(str(tmp_path), {**content, "ran": [{"from_epoch": 1, "environment": environment}]})
        if environment is None:
            saved = {key: value for key, value in content.items() if key not in ("ran", "schema")}
            checkpoint.save(str(tmp_path), saved)
        stop[:] = [end]
        quiet({}, Place(str(tmp_path), resume=True, threads=1))
        ran = checkpoint.load(str(tmp_path))["ran"]
        assert ran == [{"from_epoch": 1, "environment": environment}, {**here, "from_epoch": 2}]
    quiet({}, Place(str(tmp_path), resume=True, threads=1))
    assert checkpoint.load(str(tmp_path))["ran"] == ran


def test_another_runs_folder_is_left_alone(finished):
    given, folder = finished
    before = (folder / checkpoint.NAME).read_bytes()
    with pytest.raises(TrainError, match=r"with other settings \(--lr was 0.025, now 0.5, --seed was 0, now 4\): name"):
        quiet({**given, "lr": 0.5, "seed": 4}, Place(str(folder)))
    with pytest.raises(TrainError, match="with these settings: go on with --resume, or name another folder with --out"):
        quiet(given, Place(str(folder)))
    assert (folder / checkpoint.NAME).read_bytes() == before


@pytest.mark.parametrize("changed, words", (
    ({"lr": 0.5, "eager": True}, "other settings: --lr was 0.025, now 0.5, --eager was False, now True"),
    ({"epochs": 2}, "other settings: --epochs was 1, now 2"),
    ({"data": "digits"}, "other settings: --data was folder:.*, now digits"),
))  # fmt: skip
def test_resuming_with_other_settings(finished, changed, words):
    with pytest.raises(TrainError, match=words):
        quiet(changed, Place(str(finished[1]), resume=True))


def test_resuming_a_finished_run_changes_nothing_and_completes_its_table(finished):
    """The table may lack the checkpoint's last row, or have rows of epochs that no checkpoint holds."""
    given, folder = finished
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    head, row = before[metrics.NAME].splitlines(keepends=True)
    for lines in ([head], [head, row, row.replace(b"1,", b"2,", 1)], [head, row]):
        (folder / metrics.NAME).write_bytes(b"".join(lines))
        outcome = quiet(given, Place(str(folder), resume=True))
        assert len(outcome.rows) == 1 and before == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_data_may_move_but_not_change(finished, tmp_path):
    moved, changed = tmp_path / "moved", tmp_path / "changed"
    small.write_folder(moved, {"train": range(64), "val": range(64, 96)})
    small.write_folder(changed, {"train": range(60), "val": range(64, 96)})
    assert quiet({"data": f"folder:{moved}"}, Place(str(finished[1]), resume=True)).settings.folder == str(moved)
    with pytest.raises(TrainError, match="other data: the training images are not those of"):
        quiet({"data": f"folder:{changed}"}, Place(str(finished[1]), resume=True))
