"""Figures as people read them."""

from __future__ import annotations

import math

import pytest

from balloon_plugin.sweep import figures
from balloon_plugin.sweep.intervals import Estimate
from balloon_plugin.sweep.measures import HARM, RIGHT


@pytest.mark.parametrize(
    ("value", "runs", "text"),
    [
        (0.12345, 1000, "12.3"),
        (0.12345, 10_000, "12.3"),
        (0.12345, 100_000, "12.35"),
        (0.12345, 1_000_000, "12.345"),
        (0, 1000, "0.0"),
        (1, 1000, "100.0"),
        (0.000004, 1000, "0.0004"),
        (0.99996, 1000, "99.996"),
        (-0.0004, 1000, "-0.04"),
        (-1e-18, 1000, "0.0"),
    ],
)
def test_a_share_has_no_more_digits_than_can_be_told_and_is_never_nothing(
    value, runs, text
):
    assert figures.figure(value, RIGHT, runs) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0123, "0.012"), (1.654, "1.65"), (12.3, "12"), (12345.6, "12,346")],
)
def test_an_amount_is_whole_unless_it_is_small(value, text):
    assert figures.figure(value, HARM, 1000) == text


@pytest.mark.parametrize(
    ("value", "text"), [(136.4, "136"), (2, "2"), (0.734, "0.73"), (math.inf, "any n")]
)
def test_a_price_has_two_digits_that_count(value, text):
    assert figures.price(value).startswith(text)


def test_the_size_of_a_difference_has_no_sign_and_its_interval_has():
    assert (
        figures.points(Estimate(-0.05, -0.09, 0.01), 100) == "5.0 points (-1.0 to 9.0)"
    )


def test_an_interval_is_from_one_end_to_the_other():
    estimate = Estimate(0.5, 0.4, 0.6)

    assert figures.between(estimate, RIGHT, 100) == "40.0 to 60.0"
    assert figures.percent(estimate, 100) == "50.0 % (40.0 to 60.0)"
