"""Percentiles and paired ratios on known numbers."""

import math

import numpy
import pytest

from resnet_fused.bench.race import rotated
from resnet_fused.bench.statistics import paired_speedup, percentile, spread, throughput


@pytest.mark.parametrize("count", [1, 2, 3, 10])
@pytest.mark.parametrize("fraction", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_percentile_is_numpys(count, fraction):
    values = list(numpy.random.default_rng(count).standard_normal(count))
    assert percentile(values, fraction) == pytest.approx(numpy.quantile(values, fraction))


def test_percentile_of_infinities_is_not_nan():
    assert percentile([1.0, math.inf, math.inf, math.inf], 0.5) == math.inf


def test_percentile_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="at least one"):
        percentile([], 0.5)


def test_throughput():
    rate = throughput([1.0, 2.0, 4.0], 8)
    assert (rate.median, rate.p20, rate.p80) == (4.0, pytest.approx(2.8), pytest.approx(6.4))


def test_pairing_removes_a_slow_round():
    ours, theirs = [1.0, 10.0, 1.0], [2.0, 20.0, 2.0]  # the second round slowed both down tenfold
    assert paired_speedup(ours, theirs) == spread([2.0, 2.0, 2.0])


def test_speedup_below_one_is_a_loss():
    assert paired_speedup([2.0], [1.0]).median == 0.5


def test_unpaired_rounds_are_an_error():
    with pytest.raises(ValueError, match="2 against 1"):
        paired_speedup([1.0, 1.0], [1.0])


def test_rotation_puts_another_one_first_each_round():
    assert [rotated("abc", turn)[0] for turn in range(4)] == ["a", "b", "c", "a"]
    assert sorted(rotated("abc", 2)) == ["a", "b", "c"]
    assert rotated([], 3) == []
