"""What may be concluded from a race, on known numbers."""

import pytest

from resnet_fused.bench import charts, table
from resnet_fused.bench.job import Job
from resnet_fused.bench.race import Entry, Race
from resnet_fused.bench.result import bad, job_result

MEMORY = {"peak_rss_bytes": 2, "peak_rss_growth_bytes": 1, "saved_for_backward_bytes": None}


def entry(spec, seconds, output_error):
    return Entry(spec, [seconds, seconds], [seconds] * 3, MEMORY, {"output": output_error, "gradients": {}})


@pytest.fixture
def outcome():
    """Fused takes 2 s, a right engine 3 s, a wrong one 1 s, and one did not race."""
    eager = {layout: {"output": 1e-6, "gradients": {}} for layout in ("nchw", "channels_last")}
    oracle = {"images": 2, "steps": 1, "eager": eager, "scales": {"output": 1.0, "gradients": {}}}
    entries = [entry("openvino", 3.0, 1e-6), entry("mnn", 1.0, 1e-3), entry("fused", 2.0, 1e-6)]
    return job_result(Race(Job("resnet18", "infer", 2, 64), oracle, entries, 3, 9.0, {"ncnn": "needs ncnn"}))


def test_a_wrong_engine_gets_no_speedup_however_fast_it_is(outcome):
    assert [(speedup["over"], speedup["median"]) for speedup in outcome["speedups"]] == [("openvino", 1.5)]
    assert {row["name"]: row["status"] for row in outcome["contenders"]} == {
        "openvino": "ok", "mnn": "wrong", "fused": "ok"}
    assert table.conclusion(outcome).endswith("1.50x (1.50-1.50) the speed of the fastest peer, OpenVINO")
    assert len(bad(outcome)) == 1 and bad(outcome)[0].startswith("MNN is wrong on resnet18 infer")


def test_who_did_not_race_is_named_and_fails_nothing(outcome):
    assert outcome["left_out"] == [{"name": "ncnn", "reason": "needs ncnn"}]
    assert "ncnn needs ncnn" in table.job_table(outcome).splitlines()
    assert not any("ncnn" in sentence for sentence in bad(outcome))


def test_charts_of_nobody_are_empty():
    assert charts.bars([]) == charts.ratios([]) == charts.logarithmic([], bound=1e-5) == ""
