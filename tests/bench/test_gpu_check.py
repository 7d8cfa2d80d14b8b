"""``make gpu-check`` rehearsed by the emulator, and what it does when things go wrong."""

import contextlib
import copy
import functools
import json
import os
import platform
import re
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from emulator import build as emulator_build
from gpu_check import (
    __main__ as command,
    device,
    facts,
    lanes,
    layers,
    plan,
    process,
    profile,
    race,
    record,
    report,
    sanitizer,
)
from torch import nn

from resnet_fused.bench.job import Job

ROOT = Path(__file__).resolve().parents[2]
EAGER = {"nchw", "channels_last", "nchw+graph", "channels_last+graph"}
needs_emulator = pytest.mark.skipif(emulator_build.why_not() is not None, reason="the emulator cannot be built here")


def check(folder, *arguments, path=None):
    """The command in a process of its own, as make runs it → exit status, what it printed, the result."""
    folders = [ROOT / "benchmarks", ROOT / "tests" / "bench"]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}
    variables |= {"PATH": path} if path else {}
    words = [sys.executable, "-m", "gpu_check", "--emulated", "--folder", str(folder), *arguments]
    run = subprocess.run(words, cwd=ROOT, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    files = sorted(folder.glob("*.json"))
    return run.returncode, run.stdout, json.loads(files[0].read_text()) if files else None


def by_name(result):
    return {part["name"]: part for part in result["parts"]}


@pytest.mark.slow
@needs_emulator
def test_every_part_rehearsed(tmp_path):
    """Each part runs, its numbers are checked, and nothing is left out."""
    status, output, result = check(tmp_path, "--budget", "3000")
    assert status == 0, output
    parts = by_name(result)
    assert list(parts) == [part.name for part in plan.parts(plan.EMULATED) if part.kind != "facts"]
    assert {part["status"] for part in parts.values()} == {"done"} and result["bad"] == result["left_out"] == []
    races = [part["result"] for part in parts.values() if part["kind"] == "race"]
    assert {(one["model"], one["mode"]) for one in races} >= {("resnet18", "train"), ("resnet50", "infer")}
    for one in races:
        assert [row["status"] for row in one["contenders"]] == ["ok"] * 10, one
        assert {s["over"] for s in one["speedups"]} == EAGER
        assert all(len(row["round_seconds"]) == 1 for row in one["contenders"])
    for part in (part for part in parts.values() if part["kind"] == "operators"):
        rows = part["result"]["rows"]
        assert len(rows) == 5 + 2 * 8 and {row["status"] for row in rows} == {"ok"}
        assert all(row["bytes"] > 0 and row["gb_per_s"]["ours"]["median"] > 0 for row in rows)
    table = parts["layers cuda_emulated float16"]["result"]
    assert [row["pass"] for row in table["rows"]] == ["fprop", "infer", "dgrad", "wgrad"]
    for row in table["rows"]:
        assert row["status"] == "ok" and row["error_of_norm"] < 1e-3 and row["of_roof"]["ours"] > 0
    profiled = parts["profile resnet18 train float32 batch 4"]["result"]["contenders"]
    assert [row["name"] for row in profiled] == ["channels_last", "fused", "fused_library"]
    assert all(row["step_milliseconds"] > 0 for row in profiled)
    assert parts["tests quick"]["result"]["counts"]["passed"] > 40
    assert set(parts["rates"]["result"]["mm"]) == {"float16", "bfloat16", "tf32", "float32", "float64"}
    assert str(tmp_path) not in json.dumps(result) and str(ROOT) not in json.dumps(result)


@pytest.mark.slow
@needs_emulator
def test_contenders_that_fail(tmp_path):
    """An exception ends one contender, wrong numbers cost it its speed-up, a dying process ends its part."""
    broken = [f"{name}=broken_contenders:{name}" for name in ("raises", "wrong", "dies")]
    only = ("--only", "train float32", "--budget", "900")
    status, output, result = check(tmp_path, *only, "--contender", broken[0], "--contender", broken[1])
    assert status == 1 and "wrong is wrong on resnet18 train" in output
    (raced,) = (part for part in result["parts"] if part["kind"] == "race")
    rows = {row["name"]: row for row in raced["result"]["contenders"]}
    assert raced["status"] == "done" and rows["raises"]["error"] == "RuntimeError: cannot open kernel.so"
    assert rows["raises+graph"]["error"].startswith("not tried") and rows["wrong"]["status"] == "wrong"
    assert rows["fused"]["status"] == rows["nchw"]["status"] == "ok"
    assert {s["over"] for s in raced["result"]["speedups"]} == EAGER

    (tmp_path / "dies").mkdir()
    status, output, result = check(tmp_path / "dies", "--only", "resnet18 infer", "--contender", broken[2])
    (raced,) = (part for part in result["parts"] if part["kind"] == "race")
    assert status == 1 and raced["status"] == "failed" and "exit status 7" in raced["error"]
    # What it had published is there.
    assert [row["name"] for row in raced["result"]["contenders"]][:2] == ["nchw", "nchw+graph"]


@pytest.mark.slow
@needs_emulator
def test_resume_and_budget(tmp_path):
    """With no budget nothing is begun; a resumed run keeps what is done, builds, and runs the rest."""
    status, output, result = check(tmp_path, "--only", "rates", "--budget", "1")
    assert status == 0 and result["parts"] == [] and [part["name"] for part in result["left_out"]] == ["build", "rates"]
    (file,) = tmp_path.glob("*.json")
    status, output, result = check(tmp_path, "--only", "rates", "--resume", str(file))
    assert status == 0 and list(by_name(result)) == ["build", "rates"], output
    seconds = by_name(result)["rates"]["seconds"]
    status, output, result = check(tmp_path, "--only", "sanitizer memcheck", "--resume", str(file))
    assert list(by_name(result)) == ["rates", "build", "sanitizer memcheck"] and result["left_out"] == []
    assert by_name(result)["rates"]["seconds"] == seconds


FAKE = """#!/bin/sh
case "$*" in *--help*) echo "  --kernel-regex  names"; exit;; esac
echo "========= COMPUTE-SANITIZER"
{found}
"""


@pytest.mark.slow
@needs_emulator
@pytest.mark.parametrize("errors", [0, 2])
def test_sanitizer_s_errors(tmp_path, errors):
    """A stand-in for the tool: what it is given runs to its end; errors that it counts make the command fail."""
    tool = tmp_path / "compute-sanitizer"
    ending = f'echo "========= Invalid __global__ write"; echo "========= ERROR SUMMARY: {errors} errors"; exit 86'
    clean = 'shift 6; "$@" && echo "========= ERROR SUMMARY: 0 errors"'  # behind the tool, the status and the filter
    tool.write_text(FAKE.format(found=ending if errors else clean))
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "result").mkdir()
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    status, output, result = check(tmp_path / "result", "--only", "sanitizer memcheck", "--budget", "600", path=path)
    said = by_name(result)["sanitizer memcheck"]["result"]
    assert status == bool(errors) and said["errors"] == errors, output
    assert "--kernel-regex kns=resnet_fused" in said["command"]
    assert ("Invalid __global__ write" in output) == bool(errors)


def test_sanitizer_s_summaries():
    assert sanitizer.read("========= ERROR SUMMARY: 0 errors", 0)["bad"] == []
    assert sanitizer.read("========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)", 0)["bad"] == []
    assert sanitizer.read("========= RACECHECK SUMMARY: 3 hazards displayed", 86)["errors"] == 3
    assert "no summary" in sanitizer.read("Device not supported", 1)["bad"][0]
    assert "exit status 1" in sanitizer.read("========= ERROR SUMMARY: 0 errors", 1)["bad"][0]


def test_no_gpu_is_said_in_words(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(process, "run", lambda *_: process.Outcome("failed", "RuntimeError: no CUDA device here", 0.1))
    assert command.main(["--folder", str(tmp_path)]) == 1
    assert "no CUDA device here" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_extensions_of_another_torch_are_built_first(monkeypatch, capsys):
    ended = []

    def build(part, *_):
        ended.append(part.kind)
        return process.Outcome("failed", "RuntimeError: no nvcc", 1.0, "the log")

    monkeypatch.setattr(process, "run", build)
    assert command.package_imports(plan.Settings()) and not ended
    monkeypatch.setitem(sys.modules, "gpu_check.runner", None)  # what imports it gets an ImportError
    monkeypatch.delattr("gpu_check.runner", raising=False)
    assert not command.package_imports(plan.Settings())
    assert ended == ["build"] and "no nvcc" in capsys.readouterr().err


def test_no_host_name(tmp_path, monkeypatch):
    """Neither the file's name nor what is in it says which machine it was."""
    host = "secret-host-4711"
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    monkeypatch.setattr(platform, "node", lambda: host)
    monkeypatch.setenv("HOSTNAME", host)
    assert record.file_name("NVIDIA H100 80GB HBM3", "2026-01-31") == "gpu_nvidia-h100-80gb-hbm3_2026-01-31.json"
    options = command.options_of(["--emulated", "--folder", f"/{host}", "--resume", f"/{host}/x.json"])
    kept = record.Record.new(tmp_path / "x.json", command.command(options), device=facts.emulated_facts())
    entry = kept.started(plan.parts(plan.Settings())[3])
    kept.heard(entry, {"bad": [f"cannot open /{host}/a/kernel.so"], "rows": [{"error": f"in /{host}/b.py"}]})
    kept.ended(entry, process.Outcome("failed", f"died in /{host}/c.cu", 1.0))
    text = (tmp_path / "x.json").read_text()
    assert host not in text and "cannot open kernel.so" in text


def test_a_killed_command_leaves_a_whole_file(tmp_path):
    """Every write is a whole file: here is what a reader finds while a part runs."""
    kept = record.Record.new(tmp_path / "x.json", "command", device={"name": "a GPU"})
    entry = kept.started(plan.Part("one", "rates", 1.0))
    kept.heard(entry, {"copy_gb_per_s": {"median": 1.0}})
    found = json.loads((tmp_path / "x.json").read_text())
    assert found["parts"][0]["result"]["copy_gb_per_s"]["median"] == 1.0
    assert found["bad"] == ["one failed: it was interrupted"]
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
    assert [record.free_path(tmp_path, name).name for name in ("x.json", "z.json")] == ["x_2.json", "z.json"]


def test_what_is_resumed(tmp_path):
    """A result of this device, these versions and these kernels alone: others' times are not mixed with these."""
    versions = {"torch": "2.14", "driver": "580", "sources": "abc"}
    gpu = {"name": "a GPU", "versions": versions}
    record.Record.new(tmp_path / "x.json", "command", device=gpu).started(plan.Part("one", "rates", 1.0))
    assert record.Record.resumed(tmp_path / "x.json", "again", gpu).data["parts"] == []
    with pytest.raises(ValueError, match="is of a GPU, but this is another"):
        record.Record.resumed(tmp_path / "x.json", "again", {**gpu, "name": "another"})
    for change, words in (({"torch": "2.15"}, "torch 2.14, where 2.15 is here"),
                          ({"driver": "590"}, "driver 580, where 590 is here"),
                          ({"sources": "abd"}, "sources abc, where abd is here"),
                          ({"nvcc": "13"}, "nvcc None, where 13 is here")):  # fmt: skip
        with pytest.raises(ValueError) as raised:
            record.Record.resumed(tmp_path / "x.json", "again", {**gpu, "versions": {**versions, **change}})
        assert str(raised.value) == f"x.json cannot be resumed: it has {words}"
    with pytest.raises(ValueError, match="not a result of gpu-check"):
        (tmp_path / "y.json").write_text("{}")
        record.Record.resumed(tmp_path / "y.json", "again", gpu)


def test_the_sources_digest_tells_kernels_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(facts, "ROOT", tmp_path)
    for name in ("setup.py", "csrc/cuda/a.cu", "resnet_fused/b.py", "csrc/notes.md"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    first = facts.versions()["sources"]
    (tmp_path / "csrc/notes.md").write_text("other words")
    assert facts.sources() == first and len(first) == 12
    (tmp_path / "csrc/cuda/a.cu").write_text("another kernel")
    assert facts.sources() != first


def test_a_bad_regular_expression_is_wrong_usage(capsys):
    with pytest.raises(SystemExit) as ended:
        command.options_of(["--only", "("])
    assert ended.value.code == 2 and "'(' is not a regular expression: missing )" in capsys.readouterr().err


def test_a_part_that_hangs(monkeypatch):
    """It is ended with all it started; its own limit makes that a failure, the budget's end does not."""
    monkeypatch.setattr(process, "GRACE", 0.0)
    part = plan.Part("facts", "facts", 0.01)
    outcome = process.run(part, plan.EMULATED, 60.0, lambda _: None)
    assert outcome.status == "failed" and "no end within" in outcome.error
    outcome = process.run(plan.Part("facts", "facts", 60.0), plan.EMULATED, 0.01, lambda _: None)
    assert outcome.status == "cut"


def test_parts_for_a_gpu():
    """Quick ones first; every model, mode, precision and batch is raced, later with max-autotune; names are unique."""
    parts = plan.parts(plan.Settings())
    quick = [part.quick for part in parts]
    assert quick == sorted(quick, reverse=True) and sum(quick) == 5
    assert len({part.name for part in parts}) == len(parts)
    races = [part for part in parts if part.kind == "race"]
    assert len(races) == 2 * (2 * 2 * 4 * 2) + 2
    assert sum("fused_triton" in race.arguments["contenders"] for race in races) == 2  # it compiles for minutes
    assert {part.kind for part in parts} == {"facts", "build", *report.TEXTS}


def test_a_rehearsal_is_not_held_to_a_gpu_s_limits():
    """A busy CPU takes longer than any limit of a GPU's part; the budget alone ends what it rehearses."""
    assert min(part.limit for part in plan.parts(plan.EMULATED)) == plan.EMULATED_LIMIT > 600


def test_parts_by_regular_expression():
    """--only chooses among the parts; the build is one of any choice unless it is left out."""
    options = command.options_of(["--only", "^rates|layers cuda float16"])
    names = [part.name for part in command.chosen(options, plan.Settings())]
    assert names == ["build", "rates", "layers cuda float16"]
    options = command.options_of(["--only", "^rates", "--without-build", "--without-compile"])
    assert [part.name for part in command.chosen(options, plan.Settings())] == ["rates"]
    assert "--without-build --without-compile" in command.command(options)


def test_error_of_a_layer():
    """The worst of the results, relative to their norms; NaN is worse than anything, and nothing is no error."""
    ones, none = torch.ones(4), torch.empty(0)
    assert layers.error_of(ones * 1.5, ones) == pytest.approx(0.5)
    assert layers.error_of((ones, ones * 1.25, none), (ones, ones, none)) == pytest.approx(0.25)
    found = layers.error_of((ones * torch.nan, ones * 2), (ones, ones))
    assert not found <= layers.TOLERANCE["float16"]


def test_a_layer_that_overflows(monkeypatch):
    """Its row can be written: JSON has no infinity."""

    class Work:
        layer = layers.RESNET50[0]

        def float(self):
            return self

        def calls(self, operators):
            return {"fprop": lambda: torch.ones(2)}

    monkeypatch.setattr(layers, "error_of", lambda results, exact: float("inf"))
    row = layers.measure(Work(), "fprop", "float16", device.Device(plan.EMULATED), None)
    assert (row["status"], row["error_of_norm"]) == ("wrong", None) and json.dumps(row, allow_nan=False)


def test_tables_of_layers_and_profiles():
    spread = {"median": 2.0, "p20": 1.0, "p80": 3.0}
    right = {"layer": "64-64@56 1x1/1", "pass": "fprop", "status": "ok", "operations": 4e9, "speedup": spread,
             "milliseconds": {"ours": spread, "library": spread},
             "of_roof": {"ours": 0.25, "library": 0.5}}  # fmt: skip
    wrong = {"layer": "3-64@224 7x7/2", "pass": "wgrad", "status": "wrong", "error": "by 3.0e-01 of the norm"}
    rates = {"backend": "cuda", "dtype": "float16", "batch": 8, "tflops": 600.0, "copy_gb_per_s": 3000.0}
    text = report.layers_text({**rates, "rows": [right, wrong]})
    assert re.search(r"64-64@56 1x1/1 fprop +2\.00 +2\.00 +0\.25 +2\.00 +0\.50 +2\.00x", text)  # 4e9 in 2 ms: 2 TFLOP/s
    assert re.search(r"3-64@224 7x7/2 wgrad +wrong", text)
    step = {"label": "fused", "step_milliseconds": 5.0, "kernel_milliseconds": 4.0, "launches": 7,
            "kernels": [{"name": "conv_fprop_kernel", "milliseconds": 3.0, "launches": 2}]}  # fmt: skip
    text = report.profile_text({"model": "resnet18", "mode": "train", "precision": "float16", "batch": 8,
                                "contenders": [step, {"label": "library", "error": "out of memory"}]})  # fmt: skip
    assert "fused: a step 5.00 ms, its kernels 4.00 ms, 7 launches" in text and "library failed: out of memory" in text
    assert profile.short("void resnet_fused::cuda::(anonymous namespace)::f<int>(P)") == "f<int>(P)"


class FakeCuda:
    """Takes torch.cuda's place, records what is called, and has a clock of its own."""

    def __init__(self):
        self.calls, self.now, self.synchronized = [], 0.0, True

    def patch(self, monkeypatch):
        cuda, fake = torch.cuda, self

        class Event:
            def __init__(self, enable_timing):
                assert enable_timing

            def record(self):
                self.time = fake.now

            def synchronize(self):
                fake.calls.append("event")

            def elapsed_time(self, end):
                return end.time - self.time

        class Stream:
            def wait_stream(self, other):
                fake.calls.append("wait")

        class Graph:
            def replay(self):
                fake.calls.append("replay")

        @contextlib.contextmanager
        def within(name, *_, **arguments):
            fake.calls.append((name, *arguments))
            yield

        replaced = {"Event": Event, "Stream": Stream, "CUDAGraph": Graph, "current_stream": Stream,
                    "stream": functools.partial(within, "stream"), "graph": functools.partial(within, "graph"),
                    "graph_pool_handle": lambda: "pool", "synchronize": lambda: fake.calls.append("synchronize"),
                    "reset_peak_memory_stats": lambda: None, "memory_allocated": lambda: 100,
                    "max_memory_allocated": lambda: 350, "empty_cache": lambda: None}  # fmt: skip
        for name, value in replaced.items():
            assert hasattr(cuda, name)
            monkeypatch.setattr(cuda, name, value)


def test_cuda_s_clock_and_graphs(monkeypatch):
    """Events around so many calls; a graph is warmed up on another stream, captured once, and replayed."""
    fake = FakeCuda()
    fake.patch(monkeypatch)
    cuda, calls = device.CudaDevice(plan.Settings()), []

    def step():
        calls.append(None)
        fake.now += 20.0  # milliseconds

    assert cuda.seconds(step, 4) == pytest.approx(0.02) and len(calls) == 4
    assert cuda.repeats(0.02) == 5 and cuda.repeats(0.02, 0.1) == 1
    assert cuda.peak_bytes(step) == 250
    calls.clear()
    replay = cuda.capture(step)
    assert len(calls) == 4 and ("graph", "pool") in fake.calls and fake.calls.count("replay") == 1
    replay()
    assert len(calls) == 4 and fake.calls.count("replay") == 2
    assert not cuda.is_lost(RuntimeError("CUDA error")) and not cuda.is_lost(torch.cuda.OutOfMemoryError())
    assert device.describe(torch.cuda.OutOfMemoryError("tried to allocate")) == "out of memory"

    def lost():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", lost)
    assert cuda.is_lost(RuntimeError("CUDA error"))


def test_what_takes_too_long_is_ended():
    started = time.monotonic()
    with pytest.raises(RuntimeError, match="not ready within 0 s"), lanes.within(0.2):
        try:
            while True:
                time.sleep(0.01)
        except Exception:
            raise AssertionError("anything that catches exceptions would go on")
    assert time.monotonic() - started < 5
    with pytest.raises(RuntimeError, match="no time was left"), lanes.within(-1):
        pass
    with lanes.within(60):
        pass


def test_speed_ups_are_for_right_numbers_of_the_same_rounds():
    """Graphs over graphs, calls over calls; none over a contender that is wrong or left the race."""

    def row(name, status, rounds):
        return {"name": name, "graph": "+" in name, "status": status, "round_seconds": rounds}

    rows = [row("nchw", "ok", [4.0, 6.0]), row("nchw+graph", "ok", [2.0, 2.0]), row("compile", "wrong", [1.0, 1.0]),
            row("channels_last", "ok", [1.0]), row("fused", "ok", [2.0, 2.0]),
            row("fused+graph", "ok", [1.0, 1.0])]  # fmt: skip
    found = {(s["of"], s["over"]): s["median"] for s in race.speedups(rows)}
    assert found == {("fused", "nchw"): 2.5, ("fused+graph", "nchw+graph"): 2.0}
    rows[4]["status"] = "wrong"
    assert {s["of"] for s in race.speedups(rows)} == {"fused+graph"}
    wrong = {**rows[2], "label": "torch.compile", "reasons": ["outputs are not finite"]}
    assert list(race.sentences([wrong], "resnet18")) == ["torch.compile is wrong on resnet18: outputs are not finite"]


@pytest.mark.parametrize("precision, bound", [("float32", 1e-6), ("bfloat16", 0.1), ("float16", 0.02)])
def test_a_step_in_16_bits(precision, bound):
    """Autocast, and float16's loss is scaled, which its gradients do not show: a few of the dtype's roundings."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(288, 5))
    model = nn.Sequential(*layers)
    images, labels = torch.randn(4, 3, 8, 8), torch.arange(4)
    exact = copy.deepcopy(model).double()
    nn.functional.cross_entropy(exact(images.double()), labels).backward()
    step = lanes.Step(model, images, labels, Job("resnet18", "train", 4, 8), precision)
    step()
    answer = step.answer(2)
    assert step.outputs.dtype == getattr(torch, precision) and answer.outputs.shape == (2, 5)
    for name, parameter in exact.named_parameters():
        if name != "0.bias":  # whose gradient the batch norm behind it cancels
            error = (answer.gradients[name] - parameter.grad).abs().max() / parameter.grad.abs().max()
            assert error < bound, (name, error)
