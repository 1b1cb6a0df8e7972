"""Intervals: as published, and holding the truth as often as they say."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balloon_plugin.sweep.intervals import difference_of_shares, mean, share


def ends(estimate, digits=3):
    return [round(end, digits) for end in (estimate.value, estimate.low, estimate.high)]


def test_a_share_has_wilsons_interval():
    # Newcombe, Statistics in Medicine 17 (1998), 857-872, table I: 81 of 263.
    assert ends(share(81, 263), 4) == [0.3080, 0.2553, 0.3662]


def test_none_of_many_may_still_be_some():
    assert share(0, 100_000).low == 0
    assert share(0, 100_000).high == pytest.approx(3.84e-5, rel=0.01)


def test_a_paired_difference_has_newcombes_interval():
    # Bentur 2009 in Fagerland, Lydersen, Laake, Statistics in Medicine 33 (2014).
    assert ends(difference_of_shares(1, 1, 7, 21)) == [-0.286, -0.507, -0.026]


def test_a_mean_has_students_interval():
    # 1, 2, 3, 4: mean 2.5, deviation 1.29, t(3) = 3.182
    assert ends(mean(10, 30, 4)) == [2.5, 0.446, 4.554]


def test_amounts_that_are_all_the_same_have_no_width():
    assert ends(mean(0, 0, 10)) == [0, 0, 0]
    assert ends(mean(30, 90, 10)) == [3, 3, 3]


@given(st.lists(st.integers(0, 300), min_size=4, max_size=4).filter(any))
def test_an_interval_holds_its_value_whatever_was_counted(counts):
    both, first, second, _neither = counts
    found = difference_of_shares(both, first, second, sum(counts))

    assert -1 - 1e-9 <= found.low <= found.value <= found.high <= 1 + 1e-9
    turned = difference_of_shares(both, second, first, sum(counts))
    assert (-turned.high, -turned.low) == pytest.approx((found.low, found.high))


def test_policies_that_never_differ_have_an_interval_all_the_same():
    found = difference_of_shares(0, 0, 0, 1000)

    assert ends(found) == [0, -0.004, 0.004]
    assert found.is_zero


def test_nineteen_of_twenty_intervals_hold_the_truth():
    dice = random.Random(1)  # noqa: S311 - a simulation's dice
    weights = {"both": 0.05, "first": 0.06, "second": 0.02, "neither": 0.87}
    held = 0
    for _ in range(300):
        drawn = dice.choices(list(weights), list(weights.values()), k=400)
        counts = [drawn.count(name) for name in ("both", "first", "second")]
        found = difference_of_shares(*counts, 400)
        held += found.low <= 0.04 <= found.high

    assert held / 300 == pytest.approx(0.95, abs=0.03)
