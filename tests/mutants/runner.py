"""Runs the battery on every mutant: `python -m mutants`. What was found before, with the same sources, is kept."""

import argparse
import contextlib
import datetime
import functools
import hashlib
import json
import multiprocessing
import queue
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import torch
from cuda_emulated import ROOT
from emulator import build
from emulator.library import Emulated
from package_build import nvcc_flags

from resnet_fused.bench.worker import without_folders

from .battery import first_failure
from .mutant import SOURCES, Mutant
from .table import MUTANTS
from .target import Stale

HERE = Path(__file__).resolve().parent
WORK = ROOT / "build" / "mutants"
RESULTS = WORK / "results.jsonl"
SCORE = HERE / "score.json"
# The battery takes a few seconds; one that takes so long waits for something that never happens.
LIMIT_S = 300
SURVIVED = "nothing"


def copy_sources(folder: Path, target, mutant=None) -> Path:
    """csrc/cuda with the target's kernels alone and the mutant's edit, in `folder`."""
    for name in ("common", "cuda"):
        shutil.copytree(SOURCES.parent / name, folder / name, dirs_exist_ok=True)
    if isinstance(mutant, Mutant):
        path = folder / "cuda" / mutant.file
        path.write_text(mutant.edit_source(path.read_text()))
    target.reduce(folder / "cuda")
    return folder / "cuda"


def build_mutant(mutant, slot: str) -> Path:
    """The library with the mutant. Slots are built in at the same time, one mutant after another in each."""
    target = mutant.target
    base, own = (WORK / f"{name}-{target.name}" for name in ("base", slot))
    edit = None
    if isinstance(mutant, Mutant) and not mutant.of_device_alone:
        own = copy_sources(WORK / slot, target, mutant)
    elif isinstance(mutant, Mutant):
        # The launchers are compiled once; of the mutant, the PTX alone.
        mutated, own = copy_sources(WORK / slot, target, mutant), copy_sources(own, target)
        edit = functools.partial(_ptx_of_mutant, mutant, mutated)
    else:
        own, edit = copy_sources(own, target), mutant.edit_ptx
    sources = [(own if kernels in mutant.compiled() else base / "cuda") / f"{kernels}.cu" for kernels in target.kernels]
    return target.build(sources, f"mutant_{slot}", edit)


def _ptx_of_mutant(mutant: Mutant, mutated: Path, source: str, ptx: str) -> str:
    if Path(source).stem not in mutant.compiled():
        return ptx
    path = mutated / "mutated.ptx"
    build.run([*build.nvcc(source), *nvcc_flags(), "-ptx", mutated / source, "-o", path])
    if _instructions(path.read_text()) == _instructions(ptx):
        raise Stale(f"{mutant.name}: no kernel differs; for a bug of the launchers' set host")
    return path.read_text()


def _instructions(ptx: str) -> str:
    return re.sub(r"\.(loc|file)\b.*", "", ptx)


def build_base(target) -> Path:
    """The library without a bug."""
    base = copy_sources(WORK / f"base-{target.name}", target)
    return target.build([base / f"{kernels}.cu" for kernels in target.kernels], "mutant_base")


def _check(path: Path, target, found) -> None:
    torch.set_num_threads(1)
    emulated = Emulated(path)
    failure = first_failure(emulated, target)
    error = emulated.last_error()
    found.send(f"{failure}: {error}" if failure and error else failure)


def check(path: Path, target) -> str | None:
    """By what the library at `path` is caught, in a process of its own; None if it passes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mutants.battery"])
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_check, args=(path, target, sending), daemon=True)
    process.start()
    sending.close()
    try:
        if not receiving.poll(LIMIT_S):
            return f"time-out: {LIMIT_S} s"
        return receiving.recv()
    except EOFError:
        process.join()
        return f"crash: exit code {process.exitcode}"
    finally:
        process.kill()
        process.join()


def caught_by(mutant, slot: str) -> str | None:
    """Raises Stale, or RuntimeError where the mutant does not compile."""
    path = build_mutant(mutant, slot)
    try:
        return check(path, mutant.target)
    finally:
        path.unlink()


@functools.cache
def _key_of(target) -> str:
    """Changes with the kernels, with what is between them and the checks, the checks, the emulator and the compiler."""
    tests = ROOT / "tests"
    kernels = [path for name in ("common", "cuda") for path in (ROOT / "csrc" / name).rglob("*")]
    own = [HERE / name for name in ("battery.py", "case.py", "target.py")]
    files = [*kernels, *(tests / "emulator").rglob("*"), *tests.glob("*.py"), *own, *target.checked_by(),
             ROOT / "resnet_fused" / "backends" / "reference.py"]  # fmt: skip
    parts = [file.read_bytes() for file in sorted(files) if file.suffix in (".py", ".h", ".cpp", ".cu", ".cuh")]
    return hashlib.sha256(b"\0".join([*parts, nvcc_version().encode()])).hexdigest()


def nvcc_version() -> str:
    answer = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    return re.search(r"release [\d.]+, V([\d.]+)", answer)[1]


class Results:
    """A line of JSON for each mutant that was run; resumes where an interrupted run ended."""

    def __init__(self):
        self.found = {}
        if RESULTS.exists():
            for line in RESULTS.read_text().splitlines():
                with contextlib.suppress(json.JSONDecodeError):  # the last line of an interrupted run
                    result = json.loads(line)
                    self.found[result["key"]] = result

    def key(self, mutant) -> str:
        target = getattr(mutant, "target", mutant)
        return hashlib.sha256(f"{_key_of(target)} {mutant!r}".encode()).hexdigest()[:20]

    def get(self, mutant) -> dict | None:
        return self.found.get(self.key(mutant))

    def add(self, mutant, caught: str | None, seconds: float) -> dict:
        caught = caught and without_folders(caught)  # which a fault names, and which are this machine's
        result = {"key": self.key(mutant), "name": mutant.name, "caught_by": caught, "seconds": round(seconds, 1)}
        self.found[result["key"]] = result
        with open(RESULTS, "a") as file:
            file.write(json.dumps(result) + "\n")
        return result


def run(mutants, jobs: int) -> tuple[list[dict], list[str]]:
    """Results in the mutants' order, and what is wrong with those that could not be built."""
    results, wrong = Results(), []
    slots = queue.Queue()
    for i in range(jobs):
        slots.put(f"slot{i}")

    def one(mutant):
        slot, begin = slots.get(), time.monotonic()
        try:
            return results.add(mutant, caught_by(mutant, slot), time.monotonic() - begin)
        finally:
            slots.put(slot)

    todo = [mutant for mutant in mutants if results.get(mutant) is None]
    todo.sort(key=results.key)  # as good as random: the first ones are a sample of all
    print(f"{len(mutants)} mutants, {len(mutants) - len(todo)} known from before", flush=True)
    number = 0
    for target in dict.fromkeys(mutant.target for mutant in mutants if mutant in todo):
        print(f"the kernels without a bug: {target.name}", flush=True)
        begin, path = time.monotonic(), build_base(target)
        base = results.get(target) or results.add(target, check(path, target), time.monotonic() - begin)
        if base["caught_by"]:
            return [], [f"the kernels without a bug fail: {base['caught_by']}"]
        with ThreadPoolExecutor(jobs) as pool:
            futures = {pool.submit(one, mutant): mutant for mutant in todo if mutant.target == target}
            for future in as_completed(futures):
                mutant, number = futures[future], number + 1
                try:
                    result = future.result()
                    line = f"{result['caught_by'] or 'SURVIVED'} ({result['seconds']} s)"
                except (Stale, RuntimeError) as error:
                    wrong.append(f"{mutant.name}: {error}")
                    line = "could not be built"
                print(f"[{number}/{len(todo)}] {mutant.name}: {line}", flush=True)
    return [result for mutant in mutants if (result := results.get(mutant))], wrong


def earlier_rows() -> dict:
    """By what score.json says that each mutant was caught, where its row says that it was."""
    rows = json.loads(SCORE.read_text())["results"] if SCORE.exists() else []
    return {row["name"]: row["caught_by"] for row in rows if row["caught_by"] != SURVIVED}


def report(mutants, caught: dict) -> dict:
    """Prints the table; returns what score.json holds."""
    width = max(len(mutant.name) for mutant in mutants)
    for mutant in mutants:
        print(f"{mutant.name:{width}}  {caught.get(mutant.name) or SURVIVED:.100}")
    count = sum(bool(caught.get(mutant.name)) for mutant in mutants)
    print(f"{count} of {len(mutants)} mutants are caught: {100 * count / len(mutants):.1f} %")
    return {
        "caught": count,
        "mutants": len(mutants),
        "nvcc": nvcc_version(),
        "date": datetime.date.today().isoformat(),
        "results": [{"name": mutant.name, "symptom": mutant.symptom, "caught_by": caught.get(mutant.name) or SURVIVED}
                    for mutant in mutants],
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="mutants", description=__doc__)
    parser.add_argument("--only", metavar="REGEX", help="mutants whose names match; other rows of score.json stay")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time")
    options = parser.parse_args()
    if build.why_not():
        sys.exit(f"the emulator cannot be built: {build.why_not()}")
    mutants = [mutant for mutant in MUTANTS if re.search(options.only or "", mutant.name)]
    WORK.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    results, wrong = run(mutants, options.jobs)
    print(*wrong, sep="\n")
    if len(results) == len(mutants):
        caught = {result["name"]: result["caught_by"] for result in results}
        score = report(MUTANTS, earlier_rows() | caught if options.only else caught)
        SCORE.write_text(json.dumps(score, indent=1, ensure_ascii=False) + "\n")
    print(f"{time.monotonic() - begin:.0f} s")
    return 0 if len(results) == len(mutants) and all(result["caught_by"] for result in results) else 1
