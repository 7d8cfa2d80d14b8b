"""The table of seeded bugs fits the kernels, which pass the battery, and a few of its bugs are caught."""

import json

import cuda_emulated
import pytest
from emulator import build

from . import runner
from .mutant import BFLOAT16, DTYPES, OTHER_DTYPES
from .table import MUTANTS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(build.why_not() is not None, reason=f"the emulator cannot be built: {build.why_not()}"),
]
# One of each kind.
SAMPLE = ["reduce-barrier-again", "merge-between-chunks", "apply-relu-first", "pool-tie", "reduce-workspace",
          "reduce-order-of-schedule", "ptx-apply-operands"]  # fmt: skip


def test_the_table():
    names = [mutant.name for mutant in MUTANTS]
    assert len(names) >= 40 and len(names) == len(set(names))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_fits_the_kernels(mutant):
    mutant.check()


def test_the_score_is_of_this_table():
    score = json.loads(runner.SCORE.read_text())
    assert [(r["name"], r["symptom"]) for r in score["results"]] == [(m.name, m.symptom) for m in MUTANTS]
    assert score["caught"] == score["mutants"] and all(r["caught_by"] != runner.SURVIVED for r in score["results"])


@pytest.mark.parametrize("dtypes", [DTYPES, BFLOAT16, OTHER_DTYPES], ids="-".join)
def test_the_kernels_pass(dtypes):
    assert runner.check(cuda_emulated.build_library(guarded=True), dtypes) is None


@pytest.mark.parametrize("name", SAMPLE)
def test_a_mutant_is_caught(name):
    mutant = next(mutant for mutant in MUTANTS if mutant.name == name)
    runner.build_base(mutant.dtypes)
    assert runner.caught_by(mutant, "slot_test")
