"""Who may race: modes, packages, and the sentence that says why not."""

import sys

import pytest
import torch

from resnet_fused.bench import contenders

ENGINES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "ncnn": "ncnn", "mnn": "MNN"}


@pytest.mark.parametrize("name", [*ENGINES, "freeze"])
def test_who_only_infers_is_left_out_of_training_by_name(name):
    assert contenders.why_not(name, "train") == "races only in infer"
    assert contenders.racing(["fused", name], "train") == ["fused"]


@pytest.mark.parametrize("name, package", ENGINES.items())
def test_what_is_not_installed_is_named_with_its_remedy(name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    reason = contenders.why_not(name, "infer")
    assert reason.startswith(f"needs {package}") and reason.endswith(
        "not installed: pip install 'resnet_fused[peers]'")
    assert contenders.racing(["fused", name], "infer") == ["fused"]


def test_what_trains_and_infers_without_further_packages_always_races():
    for mode in ("train", "infer"):
        specs = ["nchw", "channels_last", "compile", "compile_nchw", "fused", "mine=some_module:function"]
        assert contenders.racing(specs, mode) == specs


def test_training_races_by_default_without_engines_and_inference_with_all_of_them():
    assert contenders.DEFAULT["train"] == ("nchw", "channels_last", "compile", "fused")
    assert {*contenders.DEFAULT["train"], *ENGINES, "freeze"} == set(contenders.DEFAULT["infer"])


def test_layouts_of_the_compiled_contenders():
    layouts = {name: contenders.resolve(name).memory_format for name in ("compile", "freeze", "compile_nchw")}
    assert layouts == {
        "compile": torch.channels_last, "freeze": torch.channels_last, "compile_nchw": torch.contiguous_format}
    assert all(contenders.compiles(name) for name in layouts) and not contenders.compiles("fused")


def test_your_own_contender_takes_no_built_in_facts_with_its_name():
    assert contenders.label_of("onnxruntime=mine:function") == "onnxruntime"
    assert contenders.packages_of("onnxruntime=mine:function") == ()
    assert contenders.why_not("onnxruntime=mine:function", "train") is None
