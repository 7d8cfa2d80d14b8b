"""The bugs seeded into the Triton convolutions fit the sources, were all caught, and a few are caught again."""

import json

import pytest

pytest.importorskip("triton")

from . import triton_conv  # noqa: E402

SAMPLE = ["padding-before-prologue", "merge-without-means"]


@pytest.mark.parametrize("mutant", triton_conv.MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_fits_the_sources(mutant, tmp_path):
    triton_conv.mutated(mutant, tmp_path)


def test_the_score_is_of_this_table():
    score = json.loads(triton_conv.SCORE.read_text())
    assert [(r["name"], r["symptom"]) for r in score["results"]] == [(m.name, m.symptom) for m in triton_conv.MUTANTS]
    assert score["caught"] == score["mutants"] and all(r["caught_by"] != triton_conv.SURVIVED for r in score["results"])


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLE)
def test_a_mutant_is_caught(name, tmp_path):
    mutant = next(mutant for mutant in triton_conv.MUTANTS if mutant.name == name)
    assert triton_conv.caught_by(triton_conv.mutated(mutant, tmp_path)) is not None
