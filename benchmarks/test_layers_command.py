"""The command ``python benchmarks/layers.py``: what it writes, and its sums."""

import json

import pytest
import torch

import layers
from convolutions import LAYERS

ONE = "64-64@56 1x1/1"


def test_files(tmp_path, capsys):
    result_file, chart = tmp_path / "result.json", tmp_path / "chart.svg"
    threads = str(torch.get_num_threads())  # the command sets it for all that follows
    arguments = ["--batch", "1", "--rounds", "2", "--threads", threads, "--layers", ONE]
    assert layers.main([*arguments, f"--json={result_file}", "--plot", str(chart)]) == 0
    text = result_file.read_text()
    result = json.loads(text)
    assert str(tmp_path) not in text and "--layers '64-64@56 1x1/1'" in result["command"]
    assert [row["pass"] for row in result["rows"]] == ["fprop", "infer", "dgrad", "wgrad"]
    for row in result["rows"]:
        assert {name: len(rounds) for name, rounds in row["rounds_ms"].items()} == {"ours": 2, "NCHW": 2, "NHWC": 2}
        direct_sum = 2 * 56 * 56 * 64 * 64  # operations; milliseconds are rounded to four digits, fractions too
        rate = direct_sum / row["ours_ms"]["median"] / 1e6 / result["fma_peak_gflops"]
        assert row["fraction_of_peak"]["ours"] == pytest.approx(rate, abs=1e-3)
    assert result["models"] == {}  # of one layer no model's sum can be made
    assert "<svg" in chart.read_text() and ONE in chart.read_text()
    assert ONE in capsys.readouterr().out


def made_up_row(layer, which, algorithm, chosen, ours):
    torch_ms = {"NCHW": {"median": 3.0}, "NHWC": {"median": 2.0 if layer.kernel > 1 else 4.0}}
    return {"layer": str(layer), "pass": which, "algorithm": algorithm, "chosen": chosen, "ours_ms": {"median": ours},
            "torch_ms": torch_ms}  # fmt: skip


def test_totals_weigh_layers_by_their_number():
    rows = []
    for layer in LAYERS:
        for which in layer.passes:
            if (layer.kernel, layer.stride) == (3, 1):
                rows.append(made_up_row(layer, which, "winograd", True, 1.0))
                rows.append(made_up_row(layer, which, "direct", False, 2.0))
            else:
                rows.append(made_up_row(layer, which, "direct", True, 1.0))
    sums = layers.totals(rows)
    # ResNet-18: the stem, 13 convolutions 3x3 of stride 1 and 3 of stride 2, 3 of 1x1; the stem has no dgrad.
    assert sums["resnet18 infer"] == {"ours_ms": 20, "ours_direct_ms": 33, "torch_best_ms": 17 * 2 + 3 * 3,
                                      "torch_NCHW_ms": 60, "torch_NHWC_ms": 17 * 2 + 3 * 4}  # fmt: skip
    assert sums["resnet18 train"]["ours_ms"] == 3 * 20 - 1
    assert sums["resnet50 infer"]["ours_ms"] == 53
    assert "resnet18 infer" not in layers.totals([row for row in rows if row["layer"] != str(LAYERS[0])])
