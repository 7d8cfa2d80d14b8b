"""The table of seeded bugs fits the kernels, which pass the battery, and a few of its bugs are caught."""

import json

import cuda_emulated
import pytest
from build_cache import alone
from csrc import cuda_conv
from emulator import build

from . import runner
from .table import MUTANTS
from .target import BFLOAT16, CONV, CONV_FLOAT32, CONV_LARGE, CONV_SCALAR, CONV_TF32, CONV_WGMMA, FLOAT32, OTHER_DTYPES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(build.why_not() is not None, reason=f"the emulator cannot be built: {build.why_not()}"),
]
CONVOLUTIONS = [CONV, CONV_SCALAR, CONV_LARGE, CONV_FLOAT32, CONV_TF32, CONV_WGMMA]
# One of each kind.
SAMPLE = ["reduce-barrier-again", "pool-tie", "reduce-workspace", "ptx-apply-operands", "mainloop-wait",
          "wgmma-transposes"]  # fmt: skip


@pytest.fixture(autouse=True)
def one_at_a_time():
    """Of several processes that run tests: the copies of the sources are these tests' own."""
    with alone(runner.WORK / "tests"):
        yield


def test_the_table():
    names = [mutant.name for mutant in MUTANTS]
    assert len(names) >= 200 and len(names) == len(set(names))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_fits_the_kernels(mutant):
    mutant.check()


def test_the_score_is_of_this_table():
    score = json.loads(runner.SCORE.read_text())
    assert [(r["name"], r["symptom"]) for r in score["results"]] == [(m.name, m.symptom) for m in MUTANTS]
    assert score["caught"] == score["mutants"] and all(r["caught_by"] != runner.SURVIVED for r in score["results"])


@pytest.mark.parametrize("target", [FLOAT32, BFLOAT16, OTHER_DTYPES], ids=lambda target: target.name)
def test_the_kernels_pass(target):
    assert runner.check(cuda_emulated.build_library(guarded=True), target) is None


@pytest.mark.parametrize("target", CONVOLUTIONS, ids=lambda target: target.name)
def test_the_convolutions_pass(target):
    """All of them, of which a mutant's library has those that its target names."""
    assert runner.check(cuda_conv.build_library(), target) is None


@pytest.mark.parametrize("name", SAMPLE)
def test_a_mutant_is_caught(name):
    mutant = next(mutant for mutant in MUTANTS if mutant.name == name)
    runner.build_base(mutant.target)
    assert runner.caught_by(mutant, "slot_test")
