"""The degradation experiment: its processes, its numbers and words, its figure. test_degradation_command.py runs it."""

import os
import re
import signal
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict, replace

import pytest
import small

from resnet_fused.cli import build_parser
from resnet_fused.train import TrainError, checkpoint
from resnet_fused.train.degradation import DEPTHS, Experiment, Trained, chart, findings, processes, public_settings
from resnet_fused.train.degradation import experiment as experiment_module
from resnet_fused.train.degradation.experiment import settings_of, train

SVG = "{http://www.w3.org/2000/svg}"


def test_depths_have_both_families():
    assert {8, 14, 18, 20, 34, 56, 110} <= set(DEPTHS) and not {50, 1202} & set(DEPTHS)


def test_settings_are_the_kinds_unless_given():
    """The same for both families but for the network; the data's folder is nobody's business."""
    experiment = Experiment({"data": "digits"}, (20, 56), (0,))
    plain, residual = (settings_of(experiment, model, 4) for model in ("plain20", "resnet20"))
    assert (plain.epochs, plain.lr, plain.image, plain.batch, plain.seed) == (25, 0.05, 16, 32, 4)
    assert {**asdict(plain), "model": "resnet20"} == asdict(residual)
    # A warm-up that nobody asked for is no reason to refuse epochs.
    short = [settings_of(Experiment({"data": "digits", "epochs": n}, (20, 56), (0,)), "plain20", 0) for n in (1, 2, 3)]
    assert [(settings.epochs, settings.warmup) for settings in short] == [(1, 0), (2, 1), (3, 2)]
    shown = public_settings(Experiment({"data": "cifar10:/home/me", "epochs": 3, "warmup": 0}, (20, 56), (0,)))
    assert (shown["data"], shown["epochs"], shown["lr"]) == ("cifar10", 3, 0.1) and "seed" not in shown
    assert "/home/me" not in str(shown)


@pytest.mark.parametrize("given", ({}, {
    "momentum": 0.7, "no_bias_decay": True, "label_smoothing": 0.1, "mixup": 0.3, "ema": 0.9, "precision": "bfloat16",
    "layout": "contiguous", "eager": True, "schedule": "step", "weight_decay": 1 / 3, "seed": 5,
}))  # fmt: skip
def test_a_command_says_all_settings(given, tmp_path):
    settings = small.settings(**given)
    interpreter, module, name, *arguments = processes.Task(settings, str(tmp_path)).command()
    assert (interpreter, module, name) == (sys.executable, "-m", "resnet_fused")
    options = vars(build_parser().parse_args(arguments))
    assert (options["out"], options["threads"], options["resume"]) == (str(tmp_path), 1, False)
    left_out = dict.fromkeys(("eager", "no_bias_decay", "sync_bn"), False)
    assert {**left_out, **options}.items() >= asdict(settings).items()
    (tmp_path / checkpoint.NAME).touch()
    assert "--resume" in processes.Task(settings, str(tmp_path)).command()


@pytest.fixture
def scripts(monkeypatch):
    """Tasks whose folder is the Python program that they run."""
    monkeypatch.setattr(processes.Task, "command", lambda task: [sys.executable, "-c", task.folder])
    return lambda *programs: [processes.Task(small.settings(seed=i), program) for i, program in enumerate(programs)]


def test_so_many_at_a_time_and_each_epoch_is_told(scripts, tmp_path):
    """Each program counts those that run beside it."""
    program = f"""
import os, time
mine = {str(tmp_path)!r} + f'/{{os.getpid()}}'
open(mine, 'w').close()
print('epoch 1/2', len(os.listdir({str(tmp_path)!r})), flush=True)
time.sleep(0.2)
print('epoch 2/2\\nin all'), os.unlink(mine)
assert os.environ['OMP_NUM_THREADS'] == '1'"""
    for jobs in (1, 2):
        heard, beside = [], []
        processes.run_all(scripts(*[program] * 4), jobs, lambda task: beside.append(len(os.listdir(tmp_path))),
                          lambda: heard.append(len(os.listdir(tmp_path))))  # fmt: skip
        assert len(heard) == 8 and len(beside) == 4 and max(heard) == jobs


def test_one_that_fails_ends_all_with_its_sentence(scripts, tmp_path):
    alive = tmp_path / "alive"
    survivor = f"import time, pathlib\nwhile True: time.sleep(0.05), pathlib.Path({str(alive)!r}).touch()"
    fails = f"""
import pathlib, sys, time
while not pathlib.Path({str(alive)!r}).exists(): time.sleep(0.05)
print('warning\\nresnet-fused train: there is no such place', file=sys.stderr), sys.exit(1)"""
    ended = []
    with pytest.raises(TrainError, match="^resnet20 with seed 1: there is no such place$"):
        processes.run_all(scripts(survivor, fails, "print('never')"), 2, ended.append, lambda: None)
    alive.unlink()
    time.sleep(0.3)
    assert not alive.exists() and not ended
    with pytest.raises(TrainError, match="^resnet20 with seed 0: killed by SIGKILL$"):
        processes.run_all(scripts("import os; os.kill(os.getpid(), 9)"), 1, ended.append, lambda: None)


@pytest.mark.parametrize("number", (signal.SIGINT, signal.SIGTERM))
def test_interrupted_all_end(scripts, tmp_path, number):
    alive, before = tmp_path / "alive", signal.getsignal(signal.SIGTERM)
    endless = f"import time, pathlib\nwhile True: time.sleep(0.05), pathlib.Path({str(alive)!r}).touch()"

    def interrupt():
        deadline = time.monotonic() + 120
        while not alive.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        processes.run_all(scripts(endless), 1, lambda task: None, lambda: None)
    thread.join()
    alive.unlink()
    time.sleep(0.3)
    assert not alive.exists() and signal.getsignal(signal.SIGTERM) == before


def test_one_that_lost_its_signal_ends_at_its_next_line(scripts, tmp_path):
    """An exception raised by a signal is lost where Python can only write that it ignores it."""
    survived = tmp_path / "survived"
    deaf = f"""
import pathlib, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('epoch 1/2', flush=True)
for _ in range(100): time.sleep(0.05), print('a line', flush=True)
pathlib.Path({str(survived)!r}).touch()"""

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        processes.run_all(scripts(deaf), 1, lambda task: None, interrupt)
    assert not survived.exists()


def test_another_experiments_folder_is_left_alone(tmp_path, scripts):
    settings = settings_of(Experiment({"data": "digits", "lr": 0.3}, (8, 14), (0,)), "plain8", 0)
    (tmp_path / "plain8-seed0").mkdir()
    checkpoint.save(str(tmp_path / "plain8-seed0"), {"settings": asdict(settings), "rows": []})
    words = "plain8-seed0: cannot resume with other settings: --lr was 0.3, now 0.05; name another folder with --out"
    with pytest.raises(TrainError, match=words):
        train(Experiment({"data": "digits"}, (8, 14), (0,)), str(tmp_path), 1)
    with pytest.raises(TrainError, match="--data was digits, now folder:/other"):
        train(Experiment({"data": "folder:/other", "lr": 0.3}, (8, 14), (0,)), str(tmp_path), 1)
    assert os.listdir(tmp_path) == ["plain8-seed0"]


def test_data_may_move(tmp_path, monkeypatch):
    """What is finished is not repeated, and what is not goes on with the data where they are now."""
    rows = [{"train_accuracy": 0.5, "test_accuracy": 0.25}]
    for model in ("plain8", "resnet8", "plain14", "resnet14"):
        settings = settings_of(Experiment({"data": "folder:/old", "epochs": 2}, (8, 14), (0,)), model, 0)
        (tmp_path / f"{model}-seed0").mkdir()
        content = {"settings": asdict(settings), "rows": rows * (1 if model == "plain14" else 2), "ran": [],
                   "data": {"training images": 64}}  # fmt: skip
        checkpoint.save(str(tmp_path / f"{model}-seed0"), content)
    started = []
    monkeypatch.setattr(experiment_module, "run_all", lambda tasks, *_: started.extend(t.command() for t in tasks))
    moved = Experiment({"data": "folder:/new", "epochs": 2}, (8, 14), (0,))
    assert [len(one.rows) for one in train(moved, str(tmp_path), 1)] == [2, 1, 2, 2]
    (command,) = started
    assert command[command.index("--data") + 1] == "folder:/new" and "--resume" in command and "plain14" in command
    with pytest.raises(TrainError, match="seed0: cannot resume with other settings: --data was folder:/old, now cifar"):
        train(Experiment({"data": "cifar10:/new", "epochs": 2}, (8, 14), (0,)), str(tmp_path), 1)
    checkpoint.save(str(tmp_path / "resnet8-seed0"), {**content, "settings": asdict(replace(settings, model="resnet8")),
                                                      "data": {"training images": 60}})  # fmt: skip
    with pytest.raises(TrainError, match="resnet8-seed0: it was trained on other data than the networks beside it;"):
        train(moved, str(tmp_path), 1)


def trained(errors):
    """Two epochs each; errors: {(family, depth): [(training, test) error of each seed at the end, in per cent]}."""
    rows = [
        Trained(family, depth, seed, [
            {"epoch": epoch, "step": 10 * epoch, "train_loss": 1.5, "test_loss": 2.5,
             "train_accuracy": 1 - (a if epoch == 2 else 90) / 100,
             "test_accuracy": 1 - (b if epoch == 2 else 80) / 100}
            for epoch in (1, 2)
        ])
        for (family, depth), ends in errors.items() for seed, (a, b) in enumerate(ends)
    ]  # fmt: skip
    return sorted(rows)


SEEN = {
    ("plain", 20): [(1, 4), (2, 2), (6, 3)], ("plain", 56): [(31, 30), (42, 40), (16, 20)],
    ("resnet", 20): [(0.5, 1), (0.2, 1), (0.1, 2)], ("resnet", 56): [(0.9, 0.5), (0.3, 1), (0.0, 1)],
}  # fmt: skip


def test_numbers_and_words():
    ends = findings.finals(trained(SEEN))
    assert [(end.family, end.depth) for end in ends] == list(SEEN)
    assert ends[1].train_errors == pytest.approx((31, 42, 16)) and ends[1].test_errors == pytest.approx((30, 40, 20))
    plain, residual = findings.compare(ends)
    assert plain.differences == pytest.approx((30, 40, 10)) and residual.differences == pytest.approx((0.4, 0.1, -0.1))
    assert (plain.verdict, residual.verdict) == ("worse", "not worse")
    assert findings.sentences([plain, residual]) == [
        "The training error of plain56 minus that of plain20 is 30.00 (10.00 to 40.00) points, more than 0.5 in 3 of 3 "
        "seeds: without shortcuts, depth made training itself worse: this is the degradation of the paper.",
        "The training error of resnet56 minus that of resnet20 is 0.10 (-0.10 to 0.40) points, more than 0.5 in 0 of 3 "
        "seeds: with shortcuts, depth did not make training worse, as in the paper.",
    ]
    lines = findings.table(ends).splitlines()
    assert lines[2].split("  ")[0] == "plain20" and lines[3].split() == ["plain56", *"31.00 (16.00 to 42.00)".split(),
                                                                         *"30.00 (20.00 to 40.00)".split()]  # fmt: skip


@pytest.mark.parametrize("deep, verdict", (((9, 9, 9), "worse"), ((9, 1.1, 9), "mixed"), ((1.4, 1, 0), "not worse")))
def test_whichever_way_it_goes(deep, verdict):
    for family in ("plain", "resnet"):
        errors = {**SEEN, (family, 20): [(1, 1)] * 3, (family, 56): [(error, 1) for error in deep]}
        comparison = findings.compare(findings.finals(trained(errors)))[family == "resnet"]
        assert comparison.verdict == verdict
    verdicts = ("worse", "mixed", "not worse")
    assert len({findings._CONCLUSIONS[family, verdict] for family in ("plain", "resnet") for verdict in verdicts}) == 6


def _ran(machine, torch="2.14.1"):
    return {"cpu_model": machine, "torch_isa": "AVX2", "versions": {"torch": torch}}


def test_machines():
    """A network that went on elsewhere counts where each of its epochs was trained."""
    one, two, *_ = trained(SEEN)
    ran = [{"from_epoch": 1, "environment": _ran("A")}, {"from_epoch": 2, "environment": _ran("B")}]
    places = findings.environments([one._replace(ran=ran), two._replace(ran=ran[:1])])
    assert [place["environment"]["cpu_model"] for place in places] == ["A", "B"]
    assert places[0]["trained"] == [{"network": "plain20", "seed": 0, "epochs": [1, 1]},
                                    {"network": "plain20", "seed": 1, "epochs": [1, 2]}]  # fmt: skip
    assert places[1]["trained"] == [{"network": "plain20", "seed": 0, "epochs": [2, 2]}]
    assert findings.machines(places) == ("trained in several environments, whose roundings may differ; epochs: 3 on "
                                         "A (AVX2, torch 2.14.1), 1 on B (AVX2, torch 2.14.1)")  # fmt: skip
    assert findings.machines(places[1:]) == "trained on B (AVX2, torch 2.14.1)"
    gpu = {**_ran("A"), "gpu": "NVIDIA X"}
    old = [{"from_epoch": 1, "environment": None}, {"from_epoch": 2, "environment": gpu}]
    words = findings.machines(findings.environments([one._replace(ran=old)]))
    assert words.endswith("epochs: 1 on a machine that was not recorded, 1 on NVIDIA X (AVX2, torch 2.14.1)")


def test_every_epoch_is_in_the_table():
    head, *lines = findings.csv_of(trained(SEEN)).splitlines()
    assert head.split(",") == list(findings.FIELDS) and len(lines) == 2 * 3 * 4
    assert lines[3] == "plain20,20,1,2,20,2.0,2.0,1.5,2.5"


def test_the_figure():
    """Its lines end at the seeds' medians: read back from the SVG by the axes' own scale of the plain 20's two."""
    text = chart.svg(trained(SEEN))
    assert text == chart.svg(trained(SEEN))
    root = ElementTree.fromstring(text)
    words = {"".join(element.itertext()).strip() for element in root.iter(f"{SVG}text")}
    curves = {f"{family}{depth}, {part}" for family, depth in SEEN for part in ("training", "test")}
    ends = {f"{family}, {part}" for family in ("plain", "resnet") for part in ("training", "test")}
    assert curves | ends | {"without shortcuts", "with shortcuts", "iteration", "layers", "error, per cent"} <= words
    falls = []
    for colour in chart.DEPTH_COLOURS[:2]:
        lines = [e for e in root.iter(f"{SVG}path") if f"stroke: {colour}" in e.get("style", "")]
        dashed = next(line for line in lines if "stroke-dasharray" in line.get("style"))
        (_, top), (_, bottom) = (map(float, point) for point in re.findall(r"[ML] (\S+) (\S+)", dashed.get("d")))
        falls.append(bottom - top)
    # From 90 to the median of (1, 2, 6) and of (31, 42, 16): falls of 88 and 59 points, on one scale, to 6 decimals.
    assert falls[0] / falls[1] == pytest.approx(88 / 59, rel=1e-4)
