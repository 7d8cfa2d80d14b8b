"""``resnet-fused degradation`` on a few small images: what it writes and says, and that nothing is done twice."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torchvision", reason="training reads and augments images by torchvision")
pytest.importorskip("sklearn", reason="the digits that these tests train on come with scikit-learn")
sys.path.append(str(Path(__file__).resolve().parents[1] / "train"))

import small  # noqa: E402

from resnet_fused.cli import main  # noqa: E402
from resnet_fused.train import Place, checkpoint, run  # noqa: E402

END = 300  # seconds: many times what an experiment takes on an idle machine
TINY = ["--depths", "14", "8", "--seeds", "1", "--epochs", "2", "--image", "8", "--batch", "16", "--warmup", "0"]


def degradation(*arguments):
    return main(["degradation", *map(str, arguments)])


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    small.write_folder(folder, {"train": range(64), "val": range(64, 96)}, size=8)
    return folder


@pytest.fixture(scope="module")
def finished(images, tmp_path_factory):
    """A whole experiment of four networks → (arguments, folder, what it said)."""
    out = tmp_path_factory.mktemp("finished") / "out"
    arguments = ["--data", f"folder:{images}", *TINY, "--jobs", 2, "--out", out]
    command = [sys.executable, "-m", "resnet_fused", "degradation", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=END)
    return arguments, out, done.stdout


@pytest.mark.slow
def test_files(finished, images):
    _, out, _ = finished
    networks = ["plain14", "plain8", "resnet14", "resnet8"]
    folders = [f"{network}-seed0" for network in networks]
    assert sorted(os.listdir(out)) == sorted([".lock", *folders, *(f"degradation.{e}" for e in ("csv", "json", "svg"))])
    result = json.loads((out / "degradation.json").read_text())
    assert result["command"].startswith("resnet-fused degradation --depths 14 8 --seeds 1")
    assert result["command"].endswith(" --data folder:DIR")
    (place,) = result["environments"]
    assert place["environment"]["cpu_model"] and place["environment"]["threads"] == 1
    in_order = ("plain8", "plain14", "resnet8", "resnet14")
    assert place["trained"] == [{"network": network, "seed": 0, "epochs": [1, 2]} for network in in_order]
    assert result["settings"]["epochs"] == 2 and result["seeds"] == [0]
    assert str(images) not in json.dumps(result) and os.uname().nodename not in json.dumps(result)
    rows = list(csv.DictReader((out / "degradation.csv").open()))
    assert len(rows) == 2 * 4 and {row["network"] for row in rows} == set(networks)
    for end in result["networks"]:
        last = next(r for r in rows if r["network"] == f"{end['family']}{end['depth']}" and r["epoch"] == "2")
        table = small.table(out / f"{last['network']}-seed0")[-1]
        for part in ("train", "test"):
            error = 100 * (1 - float(table[f"{part}_accuracy"]))
            assert end[f"{part}_errors"] == [pytest.approx(error)] and float(last[f"{part}_error"]) == round(error, 4)
    assert [c["shallow"] for c in result["comparisons"]] == [8, 8] and len(result["findings"]) == 2


@pytest.mark.slow
def test_words(finished):
    _, out, text = finished
    lines = text.splitlines()
    assert sum("seed 0: training error " in line for line in lines[:4]) == 4
    assert sum(line.startswith("trained on ") and "torch" in line for line in lines) == 1
    findings = json.loads((out / "degradation.json").read_text())["findings"]
    assert lines[-3:] == [*findings, f"degradation.svg, degradation.csv and degradation.json are in {out}"]


@pytest.mark.slow
def test_each_network_is_a_run_of_train_by_one_thread(finished, images, tmp_path):
    """The same numbers as resnet_fused.train.run gives for that network and seed."""
    given = dict(data=f"folder:{images}", model="plain8", epochs=2, image=8, batch=16, warmup=0, seed=0)
    run(given, Place(str(tmp_path), threads=1), say=lambda line: None)
    assert small.table(tmp_path) == small.table(finished[1] / "plain8-seed0")


@pytest.mark.slow
def test_nothing_is_done_twice(finished, capsys, monkeypatch):
    arguments, out, text = finished
    before = {path: path.read_bytes() for path in out.rglob("*") if path.suffix in (".pt", ".csv", ".svg")}

    def refuse(*_, **__):
        raise AssertionError("a process was started")

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", refuse)
        patch.setattr("resnet_fused.bench.environment.compiler_version", lambda: None)  # which asks the compiler
        assert degradation(*arguments) == 0
    assert capsys.readouterr().out.splitlines()[-8:] == text.splitlines()[-8:]
    assert before == {path: path.read_bytes() for path in before} and len(before) > 8


@pytest.mark.slow
def test_an_interrupted_one_goes_on(finished, images, tmp_path):
    """SIGTERM after the first epochs: status 130; the same command then gives what an uninterrupted one gave."""
    out = tmp_path / "out"
    arguments = ["--data", f"folder:{images}", *TINY, "--jobs", "1", "--out", str(out)]
    command = [sys.executable, "-m", "resnet_fused", "degradation", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as broken:
        deadline = time.monotonic() + END
        while not list(out.rglob(checkpoint.NAME)):
            assert broken.poll() is None and time.monotonic() < deadline, "it ended, or did not begin"
            time.sleep(0.01)
        broken.send_signal(signal.SIGTERM)
        _, error = broken.communicate(timeout=END)
    assert broken.returncode == 130 and error.splitlines()[-1].startswith("interrupted; the same command goes on")
    assert not (out / "degradation.json").exists()
    assert degradation(*arguments) == 0
    assert (out / "degradation.csv").read_text() == (finished[1] / "degradation.csv").read_text()


@pytest.mark.parametrize("arguments, words", (
    (["--data", "nothing"], "there are no data 'nothing'"),
    (["--lr", "0"], "--lr must be above 0, but is 0"),
    (["--warmup", "25"], "--warmup must be at least 0 and less than --epochs 25, but is 25"),
))  # fmt: skip
def test_a_mistake_is_a_sentence(arguments, words, tmp_path, capsys):
    assert degradation("--out", tmp_path / "out", *arguments) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(f"resnet-fused degradation: {words}") and captured.err.count("\n") == 1
    assert not captured.out and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_place_that_cannot_be_written_to_is_a_sentence(finished, capsys, monkeypatch):
    arguments, out, _ = finished

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("resnet_fused.cli.degradation.write_atomically", full)
    assert degradation(*arguments) == 1
    assert capsys.readouterr().err == f"resnet-fused degradation: {out} cannot be written to: No space left on device\n"


def test_processes_of_a_cluster_are_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert degradation("--out", tmp_path / "out") == 1
    assert capsys.readouterr().err.endswith("it starts the processes that it needs: call it without torchrun\n")


@pytest.mark.parametrize("arguments, words", (
    (["--depths", "20"], "--depths: two are needed to compare"),
    (["--depths", "20", "21"], "invalid choice: 21"),
    (["--seeds", "0"], "0 is not at least 1"),
    ([], "required: --out"),
))  # fmt: skip
def test_wrong_usage(arguments, words, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        degradation(*arguments, *(["--out", tmp_path] if arguments else []))
    assert exit_.value.code == 2 and words in capsys.readouterr().err


@pytest.mark.slow
def test_closed_output_ends_it_quietly(images, tmp_path):
    """As by `| head -1`: no traceback, and what is finished is kept."""
    command = [sys.executable, "-m", "resnet_fused", "degradation", "--data", f"folder:{images}", *TINY, "--jobs", "1"]
    with subprocess.Popen([*command, "--out", str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as process:  # fmt: skip
        assert re.match(r"(plain|resnet)\d+, seed 0: training error", process.stdout.readline())
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1
    assert sum(checkpoint.exists(folder) and checkpoint.load(folder)["epoch"] == 2 for folder in tmp_path.iterdir()) == 2
