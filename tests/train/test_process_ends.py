"""Runs of several processes that go on in another number, fail by a user's mistake, or lose a process."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import processes
import pytest
import torch
import torch.distributed as dist
from small import table

from resnet_fused import models
from resnet_fused.cli import main
from resnet_fused.train import Place, SaidElsewhere, TrainError, checkpoint, folder_lock, run
from resnet_fused.train import run as _run_function
from resnet_fused.train import processes as train_processes
from resnet_fused.train.processes import joined

pytestmark = pytest.mark.slow  # whole runs
run_module = sys.modules[_run_function.__module__]
# 64 images in steps of 18: 9+9 in two processes, 5+5+4+4 in four.
CHOSEN = {"model": "resnet20", "image": 8, "batch": 18, "epochs": 5, "warmup": 1, "ema": 0.8, "sync_bn": True,
          "lr": 0.02}  # fmt: skip
SHORT = ("--model", "resnet20", "--image", "8", "--batch", "16", "--threads", "1")
END = 240  # seconds in which whatever must end does, ten times what it takes on an idle machine


@contextlib.contextmanager
def _changed(until: int, double: bool = True):
    """Runs end before an epoch after `until`, as by Ctrl-C, and compute in float64, whose walks can be compared."""
    epoch, create = run_module._epoch, models.create

    def limited(going, number):
        if number > until:
            raise KeyboardInterrupt
        return epoch(going, number)

    run_module._epoch = limited
    if double:
        models.create = lambda *args, **options: create(*args, **options).double()
    try:
        yield
    finally:
        run_module._epoch, models.create = epoch, create


def _go(folder, until, given=None, double=True, **place):
    with _changed(until, double):
        return run(given or {}, Place(str(folder), given is None, threads=1, **place), say=lambda line: None)


def _hooked(network):
    """A network whose stem runs eager."""
    network.stem.conv.register_forward_hook(lambda *_: None)
    return network


def _cli(*arguments) -> tuple[int, str]:
    with contextlib.redirect_stderr(io.StringIO()) as said:
        return main(["train", *arguments]), said.getvalue()


def _of_two(rank: int, data: str, going: Path, whole: Path, broken: Path) -> dict:
    results = {}
    for epoch, kind in ((2, "ddp"), (3, "fsdp")):
        outcome = _go(going, epoch, parallel=kind)
        dist.barrier()  # the first process has saved
        assert len(outcome.rows) == epoch and outcome.interrupted and outcome.first == (rank == 0)
    given = {"data": data, **CHOSEN, "epochs": 2, "mixup": 0.3, "sync_bn": False}
    _go(whole, 2, given, double=False)
    results["drawn"] = torch.rand(3).tolist()
    _go(broken, 1, given, double=False)
    dist.barrier()
    _go(broken, 2, double=False)
    if rank == 1:
        going = going.parent / "expected"
    results["checkpoints"] = _cli("--resume", "--out", str(going))
    out = ("--out", str(broken.parent / "none"))
    results["all"] = _cli("--data", "folder:/nowhere", *out)
    results["one"] = _cli("--data", data if rank == 0 else "folder:/nowhere", *out)
    results["batch"] = _cli("--data", data, "--batch", "1", *out)
    results["locked"] = _cli("--data", data, *SHORT, "--out", str(broken.parent / "locked"))
    results["sync"] = _cli("--data", data, "--sync-bn", "--eager", *out)
    create = models.create
    models.create = lambda *args, **options: _hooked(create(*args, **options))
    results["unfused"] = _cli("--data", data, *SHORT, "--sync-bn", *out)
    models.create = create
    for name, error in (("local", TrainError("a damaged image")), ("elsewhere", SaidElsewhere("not me")),
                        ("lost", RuntimeError("[gloo/pair.cc:5] Connection closed by peer [::1]:5\nmore")),
                        ("ours", RuntimeError("shapes do not fit"))):  # fmt: skip
        try:
            with joined(7):
                raise error
        except (TrainError, RuntimeError) as raised:
            results[name] = (type(raised).__name__, str(raised))
    return results


@pytest.fixture(scope="module")
def places(digits_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    data = f"folder:{digits_folder}"
    _go(folder / "expected", 5, {"data": data, **CHOSEN})
    _go(folder / "going", 1, {"data": data, **CHOSEN})
    for name in ("two", "locked"):
        folder.joinpath(name).mkdir()
    arguments = [folder / name for name in ("going", "whole", "broken")]
    with folder_lock.locked(str(folder / "locked")):
        return folder, processes.together(_of_two, 2, folder / "two", data, *arguments)


def _assert_same_run(ours: Path, theirs: Path, close) -> None:
    """Tables and states; `close` of two numbers or tensors."""
    for mine, expected in zip(table(ours), table(theirs)):
        assert mine.keys() == expected.keys() and all(close(float(mine[k]), float(v)) for k, v in expected.items())
    mine, expected = (checkpoint.load(folder)["state"] for folder in (ours, theirs))
    for name in ("model", "ema"):
        assert list(mine[name]) == list(expected[name]) and len(mine[name]) > 100
        assert all(close(mine[name][key], value) for key, value in expected[name].items()), name
    moments = expected["optimizer"]["state"]
    assert len(moments) > 50 and all(close(mine["optimizer"]["state"][i]["momentum_buffer"], values["momentum_buffer"])
                                     for i, values in moments.items())  # fmt: skip


def _within(ours, theirs) -> bool:
    """float64, as in test_processes.py; 15 steps."""
    ours, theirs = (torch.as_tensor(value).double() for value in (ours, theirs))
    return ours.shape == theirs.shape and bool((ours - theirs).abs().max() <= 1e-8 * max(1.0, theirs.abs().max()))


def test_a_run_goes_on_in_other_numbers_of_processes(places, tmp_path):
    """One, two that average gradients, two that share the parameters, one: as if all epochs had been one's."""
    folder, _ = places
    assert checkpoint.load(folder / "going")["epoch"] == 3
    outcome = _go(folder / "going", 5)
    assert len(outcome.rows) == 5 and not outcome.interrupted
    _assert_same_run(folder / "going", folder / "expected", _within)


def _of_four(rank: int, folder: Path) -> int:
    return len(_go(folder, 3, parallel="fsdp").rows)


def test_a_run_goes_on_in_four_processes_and_back(digits_folder, places, tmp_path):
    going = tmp_path / "going"
    _go(going, 2, {"data": f"folder:{digits_folder}", **CHOSEN})
    assert processes.together(_of_four, 4, tmp_path, going) == [3] * 4
    _go(going, 5)
    _assert_same_run(going, places[0] / "expected", _within)


def test_a_run_of_two_goes_on_bit_for_bit(places):
    """Mixup draws in every process, and batch norms see portions."""
    folder, _ = places

    def equal(ours, theirs):
        return torch.equal(torch.as_tensor(ours), torch.as_tensor(theirs))

    _assert_same_run(folder / "broken", folder / "whole", equal)


def test_processes_draw_from_streams_of_their_own(places):
    """Else dropout would drop the same of every portion."""
    first, second = places[1]
    assert first["drawn"] != second["drawn"]


def test_the_first_process_writes_alone(places):
    folder, _ = places
    for name in ("whole", "broken", "going"):
        assert sorted(os.listdir(folder / name)) == [".lock", "checkpoint.pt", "metrics.csv", "plot.svg"]


def test_a_mistake_is_said_once(places):
    (first, second), nowhere = places[1], "resnet-fused train: there is no folder /nowhere/train\n"
    assert first["all"] == (1, nowhere) and second["all"] == (1, "")
    assert first["one"] == (1, "") and second["one"] == (1, nowhere.replace(": there", ": process 1 of 2: there"))
    assert first["batch"][1] == ("resnet-fused train: --batch 1 cannot be shared among 2 processes: each needs an "
                                 "image\n") and second["batch"] == (1, "")  # fmt: skip
    writing = "another process is writing to it: wait for its end, or name another folder with --out"
    assert first["locked"][0] == 1 and first["locked"][1].endswith(f"locked: {writing}\n")
    assert second["locked"] == (1, "") and os.listdir(places[0] / "locked") == [folder_lock.NAME]
    assert "the processes see different checkpoints" in first["checkpoints"][1] and second["checkpoints"] == (1, "")
    assert first["unfused"] == (1, "resnet-fused train: --sync-bn with resnet20 needs GPUs: not all of its batch norms "
                                "are fused\n") and second["unfused"] == (1, "")  # fmt: skip
    assert first["sync"][0] == 1 and "PyTorch's own SyncBatchNorm does not run on a CPU" in first["sync"][1]


def test_errors_name_their_process(places):
    first, second = places[1]
    assert first["local"] == ("TrainError", "a damaged image")
    assert second["local"] == ("TrainError", "process 1 of 2: a damaged image")
    assert second["elsewhere"] == ("SaidElsewhere", "not me")
    assert second["ours"] == ("RuntimeError", "shapes do not fit")
    kind, words = second["lost"]
    assert kind == "TrainError" and words == (
        "process 1 of 2: another process ended, or did not answer within 7 s; every epoch that was saved is whole, go "
        "on with --resume ([gloo/pair.cc:5] Connection closed by peer [::1]:5)"
    )


ENDLESS = ["train", *SHORT, "--epochs", "1000000", "--lr", "0.001"]


def _wait_for(condition, process, seconds=END):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, "it ended, or did not begin"
        time.sleep(0.1)


def _epochs(out: Path) -> int:
    return len(table(out)) if (out / "metrics.csv").exists() else 0


def _worker(parent: int, rank: int) -> int:
    """The process number `rank` that torchrun started."""
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return int(child)
    raise AssertionError(f"torchrun {parent} has no process {rank}")


@contextlib.contextmanager
def _torchrun(digits_folder, tmp_path):
    """A job of two processes, from its second epoch on; what they say is in tmp_path/said."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m",
               "resnet_fused"]  # fmt: skip
    arguments = [*ENDLESS, "--data", f"folder:{digits_folder}", "--out", str(tmp_path / "run")]
    with open(tmp_path / "said", "w") as said:
        job = subprocess.Popen([*command, *arguments], stdout=said, stderr=subprocess.STDOUT)
        try:
            _wait_for(lambda: _epochs(tmp_path / "run") >= 2, job)
            yield job
        finally:
            job.terminate()  # nothing, if it ended; else it ends its processes, which are in sessions of their own
            job.wait(END)


def test_torchrun_ends_when_a_process_is_killed(digits_folder, tmp_path):
    """With an error that names it; the checkpoint is whole, and one process can go on with it."""
    with _torchrun(digits_folder, tmp_path) as job:
        os.kill(_worker(job.pid, 1), signal.SIGKILL)
        status = job.wait(END)
    words = (tmp_path / "said").read_text()
    assert status == 1 and "exitcode  : -9" in words and "rank      : 1" in words, words
    assert words.count(" 1/1000000 ") == 1, "not one process speaks"
    saved = checkpoint.load(tmp_path / "run")
    assert saved["epoch"] == len(saved["rows"]) >= 2 and saved["processes"] == 2
    assert len(_go(tmp_path / "run", saved["epoch"] + 1, double=False).rows) == saved["epoch"] + 1


def test_torchrun_ends_by_sigterm(digits_folder, tmp_path):
    """It hands the signal on, and waits: one sentence says how to go on, and that does."""
    with _torchrun(digits_folder, tmp_path) as job:
        workers = [_worker(job.pid, rank) for rank in range(2)]
    words = (tmp_path / "said").read_text()
    done = checkpoint.load(tmp_path / "run")["epoch"]
    assert job.returncode != 0 and not any(Path(f"/proc/{worker}").exists() for worker in workers)
    again = "of 1000000 epochs; go on with the same command and --resume"
    (said,) = re.findall(rf"^interrupted after (\d+) {again}$", words, re.MULTILINE)
    assert int(said) in (done - 1, done), "but for one whose checkpoint was replaced when the signal came"
    assert len(_go(tmp_path / "run", done + 1, double=False).rows) == done + 1


def test_a_process_that_is_silent_ends_the_others_in_time(digits_folder, tmp_path):
    """Without torchrun, which would end them: one that is stopped keeps its connections and says nothing."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "resnet_fused", *ENDLESS, "--data", f"folder:{digits_folder}", "--timeout", "15",
               "--out", str(tmp_path / "run")]  # fmt: skip
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    ranks = [subprocess.Popen(command, env={**os.environ, **place, "RANK": str(rank)}, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True) for rank in range(2)]  # fmt: skip
    try:
        _wait_for(lambda: _epochs(tmp_path / "run") >= 1, ranks[0])
        os.kill(ranks[1].pid, signal.SIGSTOP)
        start = time.monotonic()
        words = ranks[0].communicate(timeout=END)[1]
        end = time.monotonic()
    finally:
        for process in ranks:
            process.kill()
            process.wait()
    assert ranks[0].returncode == 1 and end - start < END  # 15 s, and what the end of a process takes
    said = words.splitlines()[-1]
    assert said.startswith("resnet-fused train: process 0 of 2: another process ended, or did not answer within 15 s;")
    assert checkpoint.load(tmp_path / "run")["epoch"] >= 1


@pytest.mark.parametrize(
    "message",
    (
        "[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:2",
        "Application timeout caused pair closure",
        "Timed out waiting 15000ms for recv operation to complete",
    ),
)
def test_what_gloo_says_when_another_process_is_gone(monkeypatch, message):
    """Which of them comes depends on what this process was doing; any other error is a fault of ours."""
    monkeypatch.setattr(train_processes, "_join", lambda timeout: (train_processes.Processes(1, 2), False))
    with pytest.raises(TrainError, match="process 1 of 2: another process ended, or did not answer within 9 s"):
        with joined(9):
            raise RuntimeError(message)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        with joined(9):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
