"""``resnet-fused tune``: what it measures is remembered and run, and is not measured twice."""

import json
import subprocess
import sys

import pytest
import torch

from resnet_fused.cli import main

SMALL = ["tune", "--model", "resnet18", "--batch", "2", "--image", "32", "--threads", "1"]


def _run(folder, *arguments):
    command = [sys.executable, "-m", "resnet_fused", *SMALL, *arguments]
    return subprocess.run(command, env={"RESNET_FUSED_CACHE": str(folder), "PATH": ""}, capture_output=True, text=True)


def _cached(folder):
    return json.loads((folder / "tuned.json").read_text())["machines"]


@pytest.mark.slow
def test_measures_remembers_and_runs(tmp_path):
    done = _run(tmp_path)
    assert done.returncode == 0, done.stderr
    for mode in ("train", "infer"):
        title, _, table = done.stdout.partition(f"resnet18 {mode}, batch 2\n")
        assert table.splitlines()[0].split() == ["unit", "kind", "runs", "why"]
        assert table.partition("\n\n")[0].count("measured: ") == 9
    assert str(tmp_path / "tuned.json") in done.stdout
    (problems,) = _cached(tmp_path).values()
    assert len(problems) == 16  # a stem and 7 different blocks in each mode
    assert all(set(times) == {"cpu", "library", "eager"} for times in problems.values())
    assert sum("gradients: none" in problem for problem in problems) == 8
    before = (tmp_path / "tuned.json").read_bytes()
    again = _run(tmp_path)
    assert again.returncode == 0 and (tmp_path / "tuned.json").read_bytes() == before
    assert again.stdout == done.stdout


@pytest.mark.parametrize("arguments, words", (
    (["--device", "foo"], "--device foo cannot be used here: Expected one of cpu, cuda"),
    (["--device", "meta"], "--device meta cannot be used here: it is neither cpu nor cuda"),
    (["--device", "cuda:99"], "--device cuda:99 cannot be used here: "),
    (["--image", "32", "--batch", "2", "1"], "1 image of 32x32 is too small to train resnet18: name another --image"),
))  # fmt: skip
def test_a_mistake_is_a_sentence(arguments, words, tmp_path, capsys, monkeypatch):
    """Said before anything is measured."""
    monkeypatch.setenv("RESNET_FUSED_CACHE", str(tmp_path))
    monkeypatch.setattr("resnet_fused.cli.tune.tune_job", None)
    assert main([*SMALL[:3], "--threads", str(torch.get_num_threads()), *arguments]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(f"resnet-fused tune: {words}") and captured.err.count("\n") == 1
    assert not captured.out and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments, words",
    [(["--batch", "0"], "0 is not at least 1"), (["--layout", "nc"], "invalid choice"), (["--model", "vgg"], "invalid choice")],
)
def test_wrong_usage(arguments, words, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["tune", *arguments])
    assert exit_.value.code == 2 and words in capsys.readouterr().err
