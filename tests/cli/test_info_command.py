"""``resnet-fused info``."""

import json

import pytest

from resnet_fused import backends
from resnet_fused.cli import info, main


def test_json_has_every_field(capsys):
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert {"python", "torch", "torchvision", "triton", "compiler", "cuda", "resnet_fused"} == set(facts["versions"])
    assert facts["cpu_model"] and facts["threads"] >= 1 and facts["torch_isa"]
    assert set(facts["backends"]) == set(backends.NAMES)
    for backend in facts["backends"].values():
        assert backend["usable"] == (backend["reason"] is None)


def test_text_names_every_backend_and_each_reason(capsys):
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    for name, reason in backends.available().items():
        assert name in text and (reason or "usable") in text


def test_instruction_sets_are_told_where_the_extension_is_built(capsys):
    facts = info.collect()
    if "unavailable" in facts["cpu_extension"]:
        pytest.skip(facts["cpu_extension"]["unavailable"])
    assert facts["cpu_extension"]["isa"] in facts["cpu_extension"]["isas"]


def facts_with(cuda):
    return {**info.collect(), "cuda_extension": cuda}


def test_a_missing_extension_gives_its_reason_alone():
    text = info.text(facts_with({"unavailable": "no nvcc was found"}))
    assert "no nvcc was found" in text and "nvcc  " not in text.partition("CUDA extension")[2]
