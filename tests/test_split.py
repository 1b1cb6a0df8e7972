"""Dividing a fleet: in proportion, for good, and with as few moves as possible."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balloon_plugin.errors import PluginError
from balloon_plugin.split import Split

FLEET = [f"vm-{number}" for number in range(10_000)]

SHARES = st.dictionaries(
    st.sampled_from(["none", "probe", "probe:pages=32,x=1", "evidence", "a-b.c"]),
    st.integers(0, 1000),
    min_size=1,
).filter(lambda shares: any(shares.values()))


def chosen(text, salt="", fleet=FLEET):
    split = Split.parse(text, salt)
    return {guest: split.choose(guest) for guest in fleet}


def moved(before, after):
    return [
        (before[each], after[each]) for each in FLEET if before[each] != after[each]
    ]


# --- proportions --------------------------------------------------------------------


@pytest.mark.parametrize("salt", ["", "2026", "another"])
@pytest.mark.parametrize(
    "shares",
    [
        {"evidence": 90, "probe": 10},
        {"a": 1, "b": 1},
        {"a": 1, "b": 2, "c": 3, "d": 94},
    ],
)
def test_each_policy_gets_its_share(shares, salt):
    """The chi-squared statistic of names that are fixed: no chance is left in it."""
    policies = list(
        chosen(",".join(f"{p}={s}" for p, s in shares.items()), salt).values()
    )

    expected = {p: len(FLEET) * s / sum(shares.values()) for p, s in shares.items()}
    statistic = sum(
        (policies.count(policy) - count) ** 2 / count
        for policy, count in expected.items()
    )
    # Exceeded by one of 10,000 fleets for 3 degrees of freedom, and fewer for less.
    assert statistic < 21.1


def test_two_salts_divide_independently():
    one, other = chosen("a=1,b=1", "one"), chosen("a=1,b=1", "other")

    both = sum(one[guest] == other[guest] for guest in FLEET)
    assert abs(both - len(FLEET) / 2) < 4 * math.sqrt(len(FLEET) / 4)


# --- for good -----------------------------------------------------------------------


def test_the_choice_is_a_matter_of_names_alone():
    """As recorded once; another value here would move the guests of running fleets."""
    found = [
        Split.parse("evidence=90,probe=10", "S").choose(f"vm{i}") for i in range(20)
    ]

    assert "".join(policy[0] for policy in found) == EXPECTED


EXPECTED = "eeeeeeeeeeeeepeepeee"


@given(SHARES, st.text(max_size=9), st.text(max_size=9))
def test_the_order_and_the_scale_of_shares_do_not_matter(shares, guest, salt):
    pairs = tuple(shares.items())
    doubled = tuple((policy, 2 * share) for policy, share in reversed(pairs))

    assert Split(pairs, salt).choose(guest) == Split(doubled, salt).choose(guest)


def test_a_share_that_grows_draws_guests_to_it_and_moves_no_others():
    before, after = chosen("a=60,b=20,c=20"), chosen("a=60,b=20,c=40")

    moves = moved(before, after)
    assert {to for _, to in moves} == {"c"}
    # From a fifth to a third of the fleet: that many have to move, and no more do.
    assert abs(len(moves) - len(FLEET) * (1 / 3 - 1 / 5)) < 150


def test_a_policy_that_comes_takes_from_all_and_one_that_goes_gives_to_all():
    before, after = chosen("a=1,b=1"), chosen("a=1,b=1,c=1")

    assert {to for _, to in moved(before, after)} == {"c"}
    assert {was for was, _ in moved(before, after)} == {"a", "b"}


def test_a_share_of_nothing_gets_nothing():
    assert set(chosen("a=1,b=0").values()) == {"a"}


# --- as people write it -------------------------------------------------------------


@given(SHARES, st.text(max_size=5))
def test_shares_are_read_as_they_are_written(shares, salt):
    split = Split(tuple(shares.items()), salt)

    assert Split.parse(str(split), salt) == split


def test_shares_are_written_in_their_order():
    assert str(Split.parse("probe=10,evidence=90")) == "probe=10,evidence=90"


def test_options_of_a_policy_are_part_of_its_name():
    assert Split.parse("probe:pages=32,x=1=10,evidence=90").shares == (
        ("probe:pages=32,x=1", 10),
        ("evidence", 90),
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a=",
        "a=1,",
        "a=x",
        "a=-1",
        "a=1.5",
        "a=0",
        "a=1,a=2",
        "a=1,,b=2",
        "=1",
        "a b=1",
    ],
)
def test_what_divides_no_fleet_is_refused(text):
    with pytest.raises(PluginError, match="divides no fleet: write POLICY=SHARE"):
        Split.parse(text)
