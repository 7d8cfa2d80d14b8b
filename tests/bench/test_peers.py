"""Engines that race in inference: right logits, the asked-for threads, nothing reported, installed or left behind."""

import copy
import os
import subprocess
import sys
import textwrap

import pytest
import torch

pytest.importorskip("torchvision")
pytest.importorskip("skimage")
pytest.importorskip("sklearn")

from resnet_fused.bench import contenders, environment, job as jobs, oracle, photographs  # noqa: E402
from resnet_fused.bench.job import Job  # noqa: E402
from resnet_fused.bench.race import run_race  # noqa: E402
from resnet_fused.bench.result import job_result  # noqa: E402
from resnet_fused.bench.verdict import Errors, Scales, judge  # noqa: E402

THREADS = min(2, environment.cpu_count())  # no engine here starts more threads than there are CPUs
JOB = Job("resnet18", "infer", batch=2, image=64, threads=THREADS)
ENGINES = ("onnxruntime", "openvino", "ncnn", "mnn")


def skip_unless_installed(name):
    reason = contenders.why_not(name, "infer")
    if reason:
        pytest.skip(f"{name} {reason}")


@pytest.fixture(scope="module")
def exact():
    """A settled model with its images and labels, its float64 logits, and eager float32's errors."""
    model = jobs.build_model(JOB)
    images, labels = photographs.batch(JOB.batch, JOB.image)
    oracle.settle_running_statistics(model, images)
    logits = jobs.run_step(copy.deepcopy(model).double(), images.double(), labels)
    eager = {
        layout: Errors(oracle.largest_error(jobs.run_step(copy.deepcopy(model).to(memory_format=memory_format),
                                                          images.contiguous(memory_format=memory_format), labels),
                                            logits), {})
        for layout, memory_format in oracle.LAYOUTS.items()
    }
    return model, images, labels, logits, eager


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=() if name == "onnxruntime" else pytest.mark.slow) for name in ENGINES],
)
def session(request, exact):
    """The engine's name and its session for the settled model."""
    skip_unless_installed(request.param)
    return request.param, contenders.resolve(request.param).prepare(copy.deepcopy(exact[0]), JOB)


def test_logits_are_as_near_to_float64_as_the_verdict_asks(session, exact):
    _, images, labels, logits, eager = exact
    ours = jobs.run_step(session[1], images, labels)
    scale = float(logits.abs().max())
    decided = judge(Errors(oracle.largest_error(ours, logits), {}), eager, Scales(scale, {}), jobs.LONGEST_REDUCTION)
    assert decided.right, decided.reasons
    assert (logits[0] - logits[1]).abs().max() > 0.1 * scale  # or a mixed-up batch would go unnoticed


def test_fewer_images_than_the_batch_give_their_own_logits(session, exact):
    _, images, labels, logits, _ = exact
    ours = jobs.run_step(session[1], images[1:], labels[1:])
    assert ours.shape == (1, 1000) and oracle.largest_error(ours, logits[1:]) < 1e-4


ASK_THREADS = {  # MNN cannot be asked
    "onnxruntime": lambda engine: engine.get_session_options().intra_op_num_threads,
    "openvino": lambda engine: engine.get_property("INFERENCE_NUM_THREADS"),
    "ncnn": lambda engine: engine.opt.num_threads,
}


@pytest.mark.parametrize("session", ASK_THREADS, indirect=True)
def test_the_engine_uses_the_threads_asked_for(session):
    name, prepared = session
    assert ASK_THREADS[name](prepared.engine) == THREADS


@pytest.mark.parametrize("session", ["openvino"], indirect=True)
def test_openvino_computes_in_float32_on_one_stream(session):
    _, prepared = session
    assert prepared.engine.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"
    assert prepared.engine.get_property("NUM_STREAMS") == 1


@pytest.mark.parametrize("session", ["ncnn"], indirect=True)
def test_ncnn_stores_and_computes_in_float32(session):
    options = session[1].engine.opt
    narrow = [option for option in dir(options) if option.startswith(("use_fp16", "use_bf16"))]
    assert len(narrow) >= 4 and not any(getattr(options, option) for option in narrow)


def test_ncnn_refuses_what_no_resnet_has():
    from resnet_fused.bench.peers import ncnn_files

    for layer in (torch.nn.Sigmoid(), torch.nn.Conv2d(4, 4, 3, groups=2)):
        with pytest.raises(ValueError, match="no ncnn layer|not a convolution of a ResNet"):
            ncnn_files.write(torch.nn.Sequential(layer), os.devnull, os.devnull)


OBSERVED = r"""
    import re, sys
    import torch
    from resnet_fused.bench import contenders, job as jobs
    from resnet_fused.bench.job import Job

    def refuse(event, arguments):
        if event in ("socket.connect", "socket.getaddrinfo"):
            raise SystemExit(f"the engine wants the network: {arguments}")
        if event in ("subprocess.Popen", "os.system", "os.posix_spawn") and re.search(r"pip\W+install", str(arguments)):
            raise SystemExit(f"the engine installs something: {arguments}")

    sys.addaudithook(refuse)
    job = Job("resnet18", "infer", 1, 64)
    session = contenders.resolve(sys.argv[1]).prepare(jobs.build_model(job), job)
    logits = jobs.run_step(session, torch.ones(1, 3, 64, 64), torch.zeros(1, dtype=torch.long))
    assert logits.isfinite().all()
    assert "openvino_telemetry" not in sys.modules or sys.modules["openvino_telemetry"] is None
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ENGINES)
def test_engines_report_nothing_install_nothing_and_leave_no_files(name, tmp_path):
    skip_unless_installed(name)
    home, temporary, work = (tmp_path / folder for folder in ("home", "temporary", "work"))
    for folder in (home, temporary, work):
        folder.mkdir()
    own = {"HOME": str(home), "XDG_CACHE_HOME": str(home), "TMPDIR": str(temporary)}
    for opted_out in ("CI", "ORT_DISABLE_TELEMETRY"):
        own[opted_out] = ""  # the engines' modules have to see to it by themselves
    line = [sys.executable, "-c", textwrap.dedent(OBSERVED), name]
    done = subprocess.run(line, env={**os.environ, **own}, cwd=work, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    left = [path for folder in (home, temporary, work) for path in folder.rglob("*") if path.is_file()]
    assert left == []


@pytest.mark.slow
def test_everyone_who_can_infer_is_right_in_a_race():
    specs = [*contenders.DEFAULT["infer"], "compile_nchw"]
    outcome = job_result(run_race(JOB, specs, budget=600, most_rounds=2, progress=lambda what: None))
    rows = {row["name"]: row for row in outcome["contenders"]}
    assert {row["name"]: row.get("error") or row["reasons"] for row in rows.values() if row["status"] != "ok"} == {}
    assert set(rows) | {absent["name"] for absent in outcome["left_out"]} == set(specs)
    assert {name for name, row in rows.items() if row["compile_seconds"] is not None} == {
        "compile", "freeze", "compile_nchw"}
    # Frozen weights are folded and packed, which plain compilation does not do: other roundings show it was done.
    assert rows["freeze"]["output_error"] != rows["compile"]["output_error"]
