"""The command ``python benchmarks/traffic.py``: what it counts."""

import json
import sys
from pathlib import Path

import pytest

import traffic

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from cuda_emulated import needs_emulator  # noqa: E402

pytestmark = [pytest.mark.slow, needs_emulator]


def test_a_small_block(tmp_path):
    path = tmp_path / "traffic.json"
    assert traffic.main(["--batch", "2", "--size", "28", "--json", str(path)]) == 0
    result = json.loads(path.read_text())
    assert result["units_eager_formula"] == 138 and result["units_fused_formula"] == 78.5
    assert result["unit_bytes"] == 2 * 64 * 28 * 28 * 2
    # A block this small has as many partial results as a large one: 22 units of them, mostly of the weights' gradients.
    assert 78.5 < result["units_fused_counted"] < 101.5
    # Activations alone are moved as the formula says: dgrad and fprop have next to no partial results.
    read = {}
    for kernel in result["kernels"]:
        name = kernel["kernel"].split("::")[2].split("<")[0]
        read[name] = read.get(name, 0) + kernel["bytes_read"] / result["unit_bytes"]
    # x, raw_1, raw_2; raw_3 and x; dout and raw_3, and of out the mask; g and raw of three units, the operands' raw for two masks, and g to add; g, raw, operand
    formula = {"conv_fprop_kernel": 6, "bn_apply_kernel": 8, "bn_backward_reduce_kernel": 8.25,
               "conv_dgrad_kernel": 8 + 2 + 2 + 2 + 4, "conv_wgrad_kernel": 18}  # fmt: skip
    for name, units in formula.items():
        assert units <= read[name] <= units + 0.8, name  # and weights and constants per channel


def test_a_place_that_cannot_be_written_to_is_said_before_the_work(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(traffic, "measure", None)
    assert traffic.main(["--json", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"traffic.py: {tmp_path} cannot be written to: Is a directory\n"
