"""Which policy to choose: at what price, and what would change it."""

from __future__ import annotations

import math

import pytest
from fleets import result
from hypothesis import given
from hypothesis import strategies as st

from balloon_plugin.sweep import decide
from balloon_plugin.sweep.measures import HARMED, UNUSABLE
from balloon_plugin.sweep.summary import advice, legend, rates_table, reasons

FINE, HARMS, REFUSES = {}, {"harm": 16}, {"usable": False}


def told(found):
    decision = decide(found)
    return " ".join((*advice(found, decision), *reasons(found, decision)))


@pytest.fixture
def bargain():
    """One policy harms 2 of 100 guests, the other refuses 50; a third does both."""
    both = {**HARMS, **REFUSES}
    return result(
        ["careless", "bold", "shy"],
        ("old", 40, (both, FINE, REFUSES)),
        ("older", 2, (both, HARMS, REFUSES)),
        ("new", 8, (FINE, FINE, REFUSES)),
        ("newer", 50, (FINE, FINE, FINE)),
    )


def test_the_better_policy_in_both_is_the_choice():
    found = result(["bad", "good"], ("a", 90, (FINE, FINE)), ("b", 10, (HARMS, FINE)))

    decision = decide(found)

    assert (decision.choices, decision.steps) == (("good",), ())
    (outsider,) = decision.outsiders
    assert (outsider.policy, outsider.instead) == ("bad", "good")
    assert told(found).startswith(
        "Choose `good`: no other policy harms fewer guests or "
    )


def test_harm_against_use_is_a_price(bargain):
    decision = decide(bargain)

    assert decision.choices == ("bold", "shy")
    (step,) = decision.steps
    assert (step.policy, step.before) == ("shy", "bold")
    assert step.price.value == 25
    assert step.price.low < 25 < step.price.high
    assert step.harmed.estimate.value == -0.02
    assert step.unusable.estimate.value == 0.5


def test_a_price_hangs_on_classes(bargain):
    (step,) = decide(bargain).steps

    parts = {part.kind.name: part for part in step.parts}

    assert {name: (part.harmed, part.unusable) for name, part in parts.items()} == {
        "old": (0, 40),
        "older": (2, 2),
        "new": (0, 8),
        "newer": (0, 0),
    }
    assert {name: part.price for name, part in parts.items()} == {
        "old": 5,
        "older": None,
        "new": 21,
        "newer": 25,
    }


def test_the_advice_says_at_what_price(bargain):
    text = told(bargain)

    assert text.startswith(
        "Choose `bold`, unless one harmed guest is worth more to you than 25 (5.7 to "
        "any number) unusable balloons. Then choose `shy`. `bold` was right about "
    )
    assert (
        "Of the guests that it saves, 100% are of the class older; without that class "
        "it would save nobody. Of the balloons that it costs, 80% are of the class "
        "old; without that class the price would be 5."
    ) in text
    assert "`careless` is out at any price: it harms 40.0 points (" in text


def test_three_choices_have_two_prices():
    found = result(
        ["a", "b", "c"],
        ("first", 10, (HARMS, FINE, FINE)),
        ("second", 10, (HARMS, HARMS, FINE)),
        ("third", 20, (FINE, REFUSES, REFUSES)),
        ("fourth", 40, (FINE, FINE, REFUSES)),
        ("rest", 20, (FINE, FINE, FINE)),
    )

    decision = decide(found)

    assert decision.choices == ("a", "b", "c")
    assert [step.price.value for step in decision.steps] == [2, 4]
    assert "Then choose `b`, unless it is worth more than 4 (" in told(found)


def test_a_policy_between_two_others_that_no_price_prefers_is_out():
    found = result(
        ["a", "between", "c"],
        ("first", 10, (HARMS, FINE, FINE)),
        ("second", 10, (HARMS, HARMS, FINE)),
        ("third", 30, (FINE, REFUSES, REFUSES)),
        ("fourth", 10, (FINE, FINE, REFUSES)),
        ("rest", 40, (FINE, FINE, FINE)),
    )

    assert decide(found).choices == ("a", "c")


def test_what_may_be_chance_is_said():
    found = result(["a", "b"], ("x", 1, (HARMS, REFUSES)), ("y", 99, (FINE, FINE)))

    (step,) = decide(found).steps

    assert math.isinf(step.price.high)
    assert "to any number)" in told(found)
    assert "which may be chance" in told(found)


def test_the_share_of_a_class_that_would_change_the_order_is_told():
    found = result(
        ["a", "b"],
        ("odd", 10, (FINE, HARMS)),
        ("usual", 90, ({**HARMS, **REFUSES}, FINE)),
    )

    (outsider,) = decide(found).outsiders

    harmed, unusable = outsider.tippings
    assert (harmed.kind.name, harmed.share) == ("odd", 0.5)
    assert unusable is None
    assert "if more than 50.0% of the fleet were of the class odd (now 10.0%)" in (
        told(found)
    )


def test_policies_that_do_alike_are_not_told_apart():
    found = result(["a", "b"], ("x", 50, (HARMS, HARMS)), ("y", 50, (FINE, FINE)))

    assert decide(found).choices == ("a",)
    assert "harms 0.0 points (-1.9 to 1.9) more or fewer guests than `a`" in told(found)
    assert "leaves 0.0 points (-3.7 to 3.7) more or fewer balloons" in told(found)
    assert "There is no class of guests in which it does better." in told(found)


def test_one_policy_is_no_choice():
    assert told(result(["a"], ("x", 9, [FINE]))).startswith("Only `a` was run")


@given(st.lists(st.lists(st.sampled_from("FHRB"), min_size=4, max_size=4), min_size=2))
def test_no_policy_beats_the_choice_at_any_price(drawn):
    kinds = {"F": FINE, "H": HARMS, "R": REFUSES, "B": {**HARMS, **REFUSES}}
    groups = [
        (str(at), 1, [kinds[kind] for kind in group]) for at, group in enumerate(drawn)
    ]
    found = result("abcd", *groups)

    decision = decide(found)

    def loss(policy, price):
        harmed, unusable = (found.rate(policy, each) for each in (HARMED, UNUSABLE))
        return unusable.total + price * harmed.total

    prices = [step.price.value for step in decision.steps]
    assert prices == sorted(prices)
    bounds = [0, *prices, 2 * max(prices, default=0) + 1]
    for at, choice in enumerate(decision.choices):
        middle = (bounds[at] + bounds[at + 1]) / 2
        least = min(loss(policy, middle) for policy in "abcd")
        assert loss(choice, middle) == pytest.approx(least)
    assert {*decision.choices, *(one.policy for one in decision.outsiders)} == {*"abcd"}


def test_the_table_has_policies_across_and_intervals_below(bargain):
    heads, rows = rates_table(bargain)

    assert heads == ["", "careless", "bold", "shy"]
    harmed = next(at for at, row in enumerate(rows) if row[0] == "harmed")
    assert rows[harmed] == ["harmed", "42.0", "2.0", "0.0"]
    assert rows[harmed + 1] == ["", "32.8 to 51.8", "0.6 to 7.0", "0.0 to 3.7"]
    assert {row[0] for row in rows[::2]} == {
        line.partition(":")[0] for line in legend() if ":" in line
    }
