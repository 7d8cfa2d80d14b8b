"""``resnet-fused bench`` end to end on a tiny job, and its parts."""

import errno
import html
import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from unread_pipe import closed_pipe

pytest.importorskip("torchvision")
pytest.importorskip("skimage")
pytest.importorskip("sklearn")

from resnet_fused.bench import contenders, report, result, table  # noqa: E402
from resnet_fused.bench.process import WorkerFailed  # noqa: E402
from resnet_fused.bench.race import Entry, Race  # noqa: E402
from resnet_fused.bench.requirements import MissingPackage, require  # noqa: E402
from resnet_fused.cli import build_parser, main  # noqa: E402
from resnet_fused.cli import bench as command  # noqa: E402

BROKEN = Path(__file__).parents[1] / "bench"
TINY = ["bench", "--model", "resnet18", "--batch", "2", "--image", "64", "--rounds", "2", "--threads", "1"]


def run(folder, *arguments):
    """The command in a process of its own: status, output, JSON, page.

    The broken contenders are importable there; ncnn is not, installed or not.
    """
    (folder / "sitecustomize.py").write_text("import sys\nsys.modules['ncnn'] = None\n")
    places = [str(folder), str(BROKEN), os.environ.get("PYTHONPATH", "")]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(places))
    outputs = ["--json", str(folder / "r.json"), "--report", str(folder)]
    line = [sys.executable, "-m", "resnet_fused", *TINY, *arguments, *outputs]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=300)
    assert (folder / "r.json").exists(), done.stderr
    return done, json.loads((folder / "r.json").read_text()), (folder / "index.html").read_text()


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A training race in which one contender is wrong, one raises, one dies and one only infers."""
    mine = [f"{name}=broken_contenders:{name}" for name in ("wrong", "raises", "dies")]
    return run(tmp_path_factory.mktemp("broken"), "--contenders", "channels_last", "fused", "onnxruntime", *mine)


@pytest.fixture(scope="module")
def wrong_subject(tmp_path_factory):
    """An inference race in which the fused contender's place is taken by a wrong one, and an engine is missing."""
    return run(tmp_path_factory.mktemp("wrong"), "--mode", "infer",
               "--contenders", "nchw", "ncnn", "fused=broken_contenders:wrong")


def contender(outcome, name):
    return next(row for row in outcome["jobs"][0]["contenders"] if row["name"] == name)


@pytest.mark.slow
def test_json_is_complete(broken):
    _, outcome, _ = broken
    assert outcome["schema"] == result.SCHEMA and outcome["environment"]["cpu_model"]
    assert outcome["environment"]["versions"]["torch"] and outcome["environment"]["threads"] == 1
    job = outcome["jobs"][0]
    assert (job["model"], job["mode"], job["batch"], job["image"], job["rounds"]) == ("resnet18", "train", 2, 64, 2)
    assert job["check_images"] == 2 and set(job["eager"]) == {"nchw", "channels_last"}
    for name in ("channels_last", "fused"):
        row = contender(outcome, name)
        assert row["status"] == "ok" and row["reasons"] == []
        assert len(row["round_seconds"]) == 2 and min(row["round_seconds"]) > 0
        rate = row["images_per_second"]
        assert 0 < rate["p20"] <= rate["median"] <= rate["p80"]
        assert 0 < row["output_error"] <= job["output_bound"] and 0 < row["gradient_error"] < 0.1
        assert row["peak_rss_bytes"] > row["peak_rss_growth_bytes"] >= 0


@pytest.mark.slow
def test_eager_errors_are_those_of_the_oracles_own_eager_runs(broken):
    _, outcome, _ = broken
    assert contender(outcome, "channels_last")["gradient_ratio"] == pytest.approx(1, rel=0.2)


@pytest.mark.slow
def test_fused_saves_less_for_backward(broken):
    _, outcome, _ = broken
    saved = [contender(outcome, name)["saved_for_backward_bytes_per_image"] for name in ("fused", "channels_last")]
    assert saved[0] < 0.7 * saved[1]


@pytest.mark.slow
def test_nothing_private_is_in_the_result(broken):
    done, outcome, page = broken
    text = json.dumps(outcome)
    assert os.uname().nodename not in text and str(BROKEN) not in text + page
    assert "--json" not in outcome["command"] and "--report" not in outcome["command"]
    assert "/secret/place" not in text + page + done.stdout


@pytest.mark.slow
def test_wrong_contender_gets_no_speedup_and_fails_the_command(broken):
    done, outcome, page = broken
    assert done.returncode == 1
    assert contender(outcome, "wrong")["status"] == "wrong" and contender(outcome, "wrong")["reasons"]
    assert [speedup["over"] for speedup in outcome["jobs"][0]["speedups"]] == ["channels_last"]
    line = next(line for line in done.stdout.splitlines() if line.startswith("wrong "))
    assert "wrong" in line.split()[2:6] and not re.search(r"\dx", line)
    assert "wrong is wrong and gets no speed-up" in page


@pytest.mark.slow
def test_failing_contenders_are_named_and_the_others_go_on(broken):
    done, outcome, page = broken
    assert contender(outcome, "raises")["error"] == "RuntimeError: cannot open kernel.so"
    assert "exit status 7" in contender(outcome, "dies")["error"]
    for text in ("raises failed: RuntimeError: cannot open", "dies failed: the process ended with exit status 7"):
        assert text in done.stdout and text in page


@pytest.mark.slow
def test_wrong_subject_gets_no_speedup_at_all(wrong_subject):
    done, outcome, page = wrong_subject
    assert done.returncode == 1 and outcome["jobs"][0]["speedups"] == []
    assert not re.search(r"\d\.\d+x", done.stdout) and not re.search(r"\d\.\d+x", page)
    assert "fused is wrong on resnet18 infer" in done.stdout
    assert contender(outcome, "nchw")["status"] == "ok"


@pytest.mark.slow
def test_a_contender_that_only_infers_is_named_in_a_training_race(broken):
    done, outcome, page = broken
    assert outcome["jobs"][0]["left_out"] == [{"name": "onnxruntime", "reason": "races only in infer"}]
    assert "onnxruntime races only in infer" in done.stdout.splitlines()
    assert "onnxruntime races only in infer" in page


@pytest.mark.slow
def test_an_engine_that_is_not_installed_is_named_everywhere(wrong_subject):
    done, outcome, page = wrong_subject
    sentence = "ncnn needs ncnn, not installed: pip install 'resnet_fused[peers]'"
    assert [f"{absent['name']} {absent['reason']}" for absent in outcome["jobs"][0]["left_out"]] == [sentence]
    assert sentence in done.stdout.splitlines() and sentence in html.unescape(page)
    assert "ncnn" not in outcome["environment"]["versions"]


@pytest.mark.slow
def test_a_wrong_engine_gets_no_speedup(tmp_path):
    done, outcome, page = run(tmp_path, "--mode", "infer", "--contenders", "channels_last", "fused",
                              "wrong_engine=broken_contenders:wrong_engine")
    row = contender(outcome, "wrong_engine")
    assert done.returncode == 1
    assert row["status"] == "wrong" and row["output_error"] > outcome["jobs"][0]["output_bound"]
    assert [speedup["over"] for speedup in outcome["jobs"][0]["speedups"]] == ["channels_last"]
    assert "wrong_engine is WRONG, no speed-up is given" in done.stdout
    assert "wrong_engine is wrong and gets no speed-up" in page


@pytest.mark.slow
def test_an_engine_that_is_not_installed_does_not_fail_the_command(tmp_path):
    done, outcome, _ = run(tmp_path, "--mode", "infer", "--contenders", "ncnn")
    assert done.returncode == 0 and outcome["jobs"][0]["contenders"] == []
    assert "ncnn needs ncnn, not installed" in done.stdout


@pytest.mark.slow
def test_versions_of_the_engines_that_raced_are_in_the_result(tmp_path):
    reason = contenders.why_not("onnxruntime", "infer")
    if reason:
        pytest.skip(f"onnxruntime {reason}")
    done, outcome, _ = run(tmp_path, "--mode", "infer", "--contenders", "channels_last", "onnxruntime")
    assert done.returncode == 0, done.stdout
    assert outcome["environment"]["versions"]["onnxruntime"] == importlib.metadata.version("onnxruntime")
    assert "openvino" not in outcome["environment"]["versions"]


@pytest.mark.slow
def test_a_network_for_cifar(tmp_path):
    """At its own number of classes and any size; both sides right, so that there is a ratio."""
    done, outcome, page = run(tmp_path, "--model", "resnet20", "--batch", "8", "--image", "16", "--rounds", "1",
                              "--contenders", "channels_last", "fused")
    (job,) = outcome["jobs"]
    assert done.returncode == 0, done.stdout
    assert (job["model"], job["image"], job["check_images"], job["check_steps"]) == ("resnet20", 16, 8, 3)
    assert [row["status"] for row in job["contenders"]] == ["ok", "ok"]
    (speedup,) = job["speedups"]
    assert f"resnet20 train: fused runs at {table.times(speedup)} the speed of the fastest peer" in done.stdout
    saved = [row["saved_for_backward_bytes_per_image"] for row in job["contenders"]]
    assert saved[1] < 0.85 * saved[0]  # by formula 0.77; the fused contender is the fused network


@pytest.mark.slow
def test_report_holds_the_numbers_of_the_json(broken):
    done, outcome, page = broken
    assert "http" not in page.replace("http-equiv", "")  # self-contained
    for job in outcome["jobs"]:
        for row in job["contenders"]:
            for seconds in row["round_seconds"]:
                assert f"{seconds:.3f}" in page
            if row["status"] == "failed":
                continue
            for key in ("output_error", "gradient_error"):
                assert table.error(row[key]) in page
            for key in ("median", "p20", "p80"):
                assert table.number(row["images_per_second"][key]) in page
            for key in ("saved_for_backward_bytes_per_image", "peak_rss_bytes", "peak_rss_growth_bytes"):
                assert table.mebibytes(row[key]) in page
            assert table.number(row["gradient_ratio"], 2) in page
        for speedup in job["speedups"]:
            assert table.times(speedup) in page and table.times(speedup) in done.stdout
        assert table.error(job["output_bound"]) in page
    for version in filter(None, outcome["environment"]["versions"].values()):
        assert version in page


@pytest.mark.slow
def test_command_ends_with_the_place_of_the_report(broken):
    done, _, _ = broken
    assert re.fullmatch(r"report: .*index\.html", done.stdout.splitlines()[-1])


def test_losses_are_shown_as_losses():
    spread = {"median": 0.8, "p20": 0.7, "p80": 0.9}
    row = {"status": "ok", "images_per_second": {"median": 1.0}, "saved_for_backward_bytes_per_image": None}
    job = {"model": "resnet18", "mode": "infer", "rounds": 1, "speedups": [{"over": "nchw", **spread}], "contenders": [
        {"name": "nchw", "label": "eager NCHW", **row}, {"name": "fused", "label": "fused", **row}]}
    assert not report.verdict_sentence(job)["won"] and report.verdict_sentence(job)["ratio"] == "0.80x"
    assert "1 round only" in report.verdict_sentence(job)["text"]
    assert "0.80x" in table.conclusion(job)


def test_public_command_leaves_output_paths_out():
    typed = ["bench", "--json", "/home/me/r.json", "--batch", "2", "--report=/home/me/r", "--image", "64"]
    assert command.public_command(typed) == "resnet-fused bench --batch 2 --image 64"


def test_budget_is_shared_by_arithmetic_and_start_up():
    options = build_parser().parse_args(["bench"])
    jobs = command.jobs_of(options)
    shares = list(command.budgets(jobs, 240.0))
    assert [job.model for job in jobs] == ["resnet18", "resnet50"]
    assert 60 < shares[0] < 120 and shares[1] == pytest.approx(240, abs=1)  # nothing was spent in between


@pytest.mark.parametrize("arguments, message", [
    (["--contenders", "nobody"], "unknown contender 'nobody'"),
    (["--contenders", "x=nothing"], "NAME=module:function"),
    (["--contenders", "x=no_such_module:f"], "no_such_module"),
    (["--contenders", "x=.a:b"], "'x=.a:b' should read NAME=module:function"),
    (["--contenders", "nchw", "nchw"], "a name of its own"),
    (["--batch", "0"], "at least 1"),
])
def test_wrong_usage_is_said_before_anything_runs(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["bench", *arguments])
    assert ended.value.code == 2 and message in capsys.readouterr().err


MEMORY = {"peak_rss_bytes": 2, "peak_rss_growth_bytes": 1, "saved_for_backward_bytes": None}
THREE = ["bench", "--model", "resnet18", "resnet34", "resnet50", "--mode", "infer", "--threads", "1"]


def raced(job):
    """Fused in 2 s beside eager in 3 s, both right."""
    eager = {layout: {"output": 1e-6, "gradients": {}} for layout in ("nchw", "channels_last")}
    oracle = {"images": 2, "steps": 1, "eager": eager, "scales": {"output": 1.0, "gradients": {}}}
    entries = [Entry(spec, [seconds] * 2, [seconds] * 3, MEMORY, eager["nchw"])
               for spec, seconds in (("nchw", 3.0), ("fused", 2.0))]  # fmt: skip
    return Race(job, oracle, entries, 3, 9.0, {})


@pytest.fixture
def races(monkeypatch):
    """``races(end)``: the second of the jobs does not race but calls ``end``."""

    def put(end):
        def race(job, *_):
            if job.model == "resnet34":
                end()
            return raced(job)

        monkeypatch.setattr(command, "run_race", race)

    return put


def models_of(path):
    outcome = json.loads(path.read_text())
    return [job["model"] for job in outcome["jobs"]], outcome["missing"]


def test_each_finished_job_is_in_the_files_at_once(tmp_path, races, capsys):
    files = tmp_path / "new" / "r.json", tmp_path / "page" / "result.json"
    page, found = tmp_path / "page" / "index.html", []
    races(lambda: found.extend([*map(models_of, files), page.read_text()]))
    assert main([*THREE, "--json", str(files[0]), "--report", str(page.parent)]) == 0
    first = ["resnet18"], ["resnet34 infer", "resnet50 infer"]
    assert found[:2] == [first, first] and "Not finished: resnet34 infer, resnet50 infer." in found[2]
    everything = ["resnet18", "resnet34", "resnet50"], []
    assert list(map(models_of, files)) == [everything] * 2 and "Not finished" not in page.read_text()
    assert sorted(path.name for path in page.parent.iterdir()) == ["index.html", "result.json"]
    assert not capsys.readouterr().err


def fails():
    raise WorkerFailed("the process was killed by SIGKILL")


def no_memory():
    raise OSError(errno.ENOMEM, "Cannot allocate memory")


def interrupts():
    raise KeyboardInterrupt


@pytest.mark.parametrize("end, status, said", (
    (fails, 1, "resnet-fused bench: the process was killed by SIGKILL"),
    (no_memory, 1, "resnet-fused bench: [Errno 12] Cannot allocate memory"),
    (interrupts, 130, "interrupted"),
))  # fmt: skip
def test_what_ends_the_races_leaves_the_finished_jobs(end, status, said, tmp_path, races, capsys):
    races(end)
    assert main([*THREE, "--json", str(tmp_path / "r.json"), "--report", str(tmp_path)]) == status
    captured = capsys.readouterr()
    assert captured.err == f"{said}; not finished: resnet34 infer, resnet50 infer\n"
    assert "resnet18 infer, batch 16" in captured.out and "resnet18 infer: fused runs at 1.50x" in captured.out
    assert models_of(tmp_path / "r.json") == (["resnet18"], ["resnet34 infer", "resnet50 infer"])
    assert "1.50x" in (tmp_path / "index.html").read_text()


def test_a_closed_output_ends_them_quietly(tmp_path, races, monkeypatch, capsys):
    """As by `| head -1`; what the first job found is written all the same."""
    races(lambda: None)
    monkeypatch.setattr(sys, "stdout", closed_pipe())
    assert main([*THREE, "--json", str(tmp_path / "r.json")]) == 1
    assert models_of(tmp_path / "r.json") == (["resnet18"], ["resnet34 infer", "resnet50 infer"])
    assert not capsys.readouterr().err


def test_an_interrupt_while_the_page_is_made_does_not_lose_it(tmp_path, races, monkeypatch):
    races(lambda: None)
    render, calls = report.render, []

    def interrupted(outcome):
        calls.append(outcome)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return render(outcome)

    monkeypatch.setattr(report, "render", interrupted)
    assert main([*THREE, "--report", str(tmp_path)]) == 130
    assert models_of(tmp_path / "result.json") == (["resnet18", "resnet34"], ["resnet50 infer"])
    assert "Not finished: resnet50 infer." in (tmp_path / "index.html").read_text()


def test_races_that_end_before_any_job_leave_an_older_result(tmp_path, monkeypatch, capsys):
    (tmp_path / "r.json").write_text("older")
    monkeypatch.setattr(command, "run_race", lambda *_: interrupts())
    assert main([*THREE, "--json", str(tmp_path / "r.json")]) == 130
    assert (tmp_path / "r.json").read_text() == "older"
    assert capsys.readouterr().err == "interrupted; not finished: resnet18 infer, resnet34 infer, resnet50 infer\n"


def test_sigterm_is_an_interrupt(tmp_path, races, capsys):
    """Twice, as timeout sends it: the second does not disturb the clean-up of what the first ended."""
    before, steps = signal.getsignal(signal.SIGTERM), []

    def terminated():
        with tempfile.TemporaryDirectory(dir=tmp_path, prefix="race-"):
            try:
                signal.raise_signal(signal.SIGTERM)
                steps.append("went on")
            finally:
                signal.raise_signal(signal.SIGTERM)
                steps.append("cleaned up")

    races(terminated)
    assert main([*THREE, "--json", str(tmp_path / "r.json")]) == 130
    assert steps == ["cleaned up"] and signal.getsignal(signal.SIGTERM) == before
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]
    assert models_of(tmp_path / "r.json") == (["resnet18"], ["resnet34 infer", "resnet50 infer"])
    assert capsys.readouterr().err == "interrupted; not finished: resnet34 infer, resnet50 infer\n"


@pytest.mark.parametrize("options, path, why", (
    (["--json", "{}/file/r.json"], "{}/file/r.json", "Not a directory"),
    (["--json", "{}/file/new/r.json"], "{}/file/new/r.json", "Not a directory"),
    (["--json", "{}"], "{}", "Is a directory"),
    (["--report", "{}/file"], "{}/file/result.json", "Not a directory"),
))  # fmt: skip
def test_places_are_tried_before_the_races(options, path, why, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "run_race", None)
    (tmp_path / "file").write_text("kept")
    assert main([*THREE, *(option.format(tmp_path) for option in options)]) == 1
    captured = capsys.readouterr()
    assert captured.err == f"resnet-fused bench: {path.format(tmp_path)} cannot be written to: {why}\n"
    assert not captured.out and (tmp_path / "file").read_text() == "kept" and len(list(tmp_path.iterdir())) == 1


def test_a_folder_without_permission(tmp_path, monkeypatch, capsys):
    """Root may write anywhere, so that the refusal is made up."""
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(command, "run_race", None)
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    assert main([*THREE, "--json", str(tmp_path / "r.json")]) == 1
    assert capsys.readouterr().err == f"resnet-fused bench: {tmp_path}/r.json cannot be written to: Permission denied\n"


def test_a_disk_that_is_full_is_a_sentence(tmp_path, races, monkeypatch, capsys):
    races(lambda: monkeypatch.setattr(os, "replace", no_space))
    path = tmp_path / "r.json"

    def no_space(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    assert main([*THREE, "--json", str(path)]) == 1
    captured = capsys.readouterr()
    why = f"{path} cannot be written to: No space left on device"
    assert captured.err == f"resnet-fused bench: {why}; not finished: resnet50 infer\n"
    assert "resnet34 infer: fused runs at" in captured.out and models_of(path)[0] == ["resnet18"]
    assert [file.name for file in tmp_path.iterdir()] == ["r.json"]


def test_a_report_needs_its_package_before_the_races(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    monkeypatch.setattr(command, "run_race", None)
    assert main([*THREE, "--report", str(tmp_path)]) == 1
    assert "the report page needs jinja2" in capsys.readouterr().err


def test_missing_package_says_how_to_install_it():
    with pytest.raises(MissingPackage, match=r"pip install 'resnet-fused\[bench\]'"):
        require("no_such_package_at_all", "no-such-package", "this test")


def test_write_is_atomic(tmp_path, monkeypatch):
    target = tmp_path / "r.json"
    result.write_atomically(str(target), "old")

    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        result.write_atomically(str(target), "new")
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_a_written_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """A power failure between the two would leave an empty file."""
    synced, replace = [], os.replace

    def sync(descriptor):
        synced.append(os.fstat(descriptor).st_size)

    def replaced(source, target):
        assert synced == [len("text")]
        replace(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replaced)
    result.write_atomically(str(tmp_path / "r.json"), "text")
    assert (tmp_path / "r.json").read_text() == "text"
