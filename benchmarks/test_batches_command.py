"""The command ``python benchmarks/batches.py``: what it writes."""

import json

import pytest
import torch

import batches
import resnet_fused
from resnet_fused.dispatch.tuned import TunedTable


@pytest.mark.parametrize("mode, sizes", [("train", ["2"]), ("infer", ["1", "2"])])
def test_files(mode, sizes, tmp_path, capsys, monkeypatch):
    result_file, chart = tmp_path / "result.json", tmp_path / "chart.svg"
    threads = str(torch.get_num_threads())  # the command sets it for all that follows
    arguments = ["--mode", mode, "--batch", *sizes, "--image", "32", "--rounds", "2", "--threads", threads]
    tuned = mode == "infer"
    arguments += ["--tuned"] * tuned
    monkeypatch.setenv("RESNET_FUSED_CACHE", "")  # which the command sets
    monkeypatch.setattr(resnet_fused.dispatch, "_table", TunedTable())
    assert batches.main([*arguments, f"--json={result_file}", "--plot", str(chart)]) == 0
    text = result_file.read_text()
    result = json.loads(text)
    assert str(tmp_path) not in text and f"--mode {mode} --batch {' '.join(sizes)}" in result["command"]
    assert [row["batch"] for row in result["rows"]] == [int(size) for size in sizes]
    assert ("--tuned" in result["command"]) == tuned
    for row in result["rows"]:
        assert sum(row["units"].values()) == 9 and (tuned or row["units"] == {"cpu": 9})
        fastest, slowest = sorted(row["rounds_ms"]["ours"])
        times = row["ours_ms_per_image"]  # milliseconds of rounds have three digits
        assert times["min"] == pytest.approx(fastest / row["batch"], abs=1e-3)
        assert times["max"] == pytest.approx(slowest / row["batch"], abs=1e-3)
        best = min(("NCHW", "NHWC"), key=lambda layout: row["eager_ms_per_image"][layout]["median"])
        assert row["eager_best"] == best
    assert "<svg" in chart.read_text() and "batch   2  fused" in capsys.readouterr().out


@pytest.mark.parametrize("option", ("--json", "--plot"))
def test_a_place_that_cannot_be_written_to_is_said_before_the_work(option, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("RESNET_FUSED_CACHE", "")  # which the command sets
    monkeypatch.setattr(batches, "run", None)
    assert batches.main([option, str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"batches.py: {tmp_path} cannot be written to: Is a directory\n"


def test_a_disk_that_is_full_is_a_sentence(tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("RESNET_FUSED_CACHE", "")  # which the command sets
    monkeypatch.setattr(batches, "run", lambda options: {})
    monkeypatch.setattr(batches, "show", lambda result: print("shown"))
    monkeypatch.setattr("resnet_fused.bench.result.write_atomically", full)
    path = tmp_path / "a.json"
    assert batches.main(["--json", str(path)]) == 1
    assert capsys.readouterr() == ("shown\n", f"batches.py: {path} cannot be written to: No space left on device\n")
