"""Draws: the same for the same seed, and of each as many as its weight says."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fleets import SMALL
from hypothesis import given
from hypothesis import strategies as st

from balloon_plugin.compare.cases import Case
from balloon_plugin.sweep import population
from balloon_plugin.sweep.draws import draw
from balloon_plugin.sweep.population import Choice, Class, Population


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    path = tmp_path_factory.mktemp("fleet") / "small.toml"
    path.write_text(SMALL)
    return population.read(path)


def as_dict(lots):
    return {(lot.kind, lot.case): lot.count for lot in lots}


def test_the_same_seed_draws_the_same_guests(fleet):
    assert draw(fleet, 100, 1) == draw(fleet, 100, 1)
    assert draw(fleet, 100, 1) != draw(fleet, 100, 2)


def test_draws_have_not_changed_since_the_first_version(fleet):
    lots = [(lot.kind, lot.case.circumstance, lot.count) for lot in draw(fleet, 20, 1)]

    good = "linux-3.4-be-4k"
    assert lots == [
        ("old", "low-memory-10+retarget-in-full", 2),
        (good, "usual", 8),
        (good, "low-memory-10+scattered", 2),
        (good, "scattered", 4),
        ("old", "scattered", 1),
        (good, "low-memory-10", 1),
        ("old", "scattered+retarget-in-full", 1),
        ("old", "usual", 1),
    ]


@given(st.integers(2, 60), st.integers(2, 60), st.integers())
def test_fewer_draws_are_the_first_of_more(fleet, few, more, seed):
    few, more = sorted((few, more))

    first, all_of_them = (as_dict(draw(fleet, runs, seed)) for runs in (few, more))

    assert sum(first.values()) == few
    assert sum(all_of_them.values()) == more
    assert list(all_of_them)[: len(first)] == list(first)
    assert all(all_of_them[lot] >= count for lot, count in first.items())


def test_as_many_are_drawn_as_the_weights_say(fleet):
    lots = draw(fleet, 20_000, 1)

    old = [lot for lot in lots if lot.kind == "old"]
    short = [lot for lot in lots if "low-memory-10" in lot.case.circumstance]
    assert sum(lot.count for lot in old) == pytest.approx(20_000 / 3, rel=0.05)
    assert sum(lot.count for lot in short) == pytest.approx(20_000 / 4, rel=0.05)


def test_a_change_of_one_choice_changes_no_other(fleet):
    good, old = fleet.classes
    memory, place, event = good.choices
    other = Choice(place.name, ("contiguous", "scattered-3"), (5, 1))
    changed = replace(
        fleet, classes=(replace(good, choices=(memory, other, event)), old)
    )

    def short(lots):
        return sum(
            lot.count for lot in lots if "low-memory-10" in lot.case.circumstance
        )

    before, after = draw(fleet, 500, 1), draw(changed, 500, 1)

    assert short(before) == short(after)
    assert [lot for lot in before if lot.kind == "old"] == [
        lot for lot in after if lot.kind == "old"
    ]


def test_what_is_usual_is_not_said():
    choices = tuple(
        Choice(name, (circumstance,), (1.0,))
        for name, circumstance in (("a", "usual"), ("b", "scattered"), ("c", "usual"))
    )
    fleet = Population("", "", "", (Class("x", "no-driver", 1, "", choices),))

    (lot,) = draw(fleet, 3, 1)

    assert (lot.case, lot.count) == (Case("no-driver", "scattered"), 3)


def test_alike_in_different_ways_is_alike():
    choices = tuple(Choice(name, ("usual", "scattered"), (1, 1)) for name in "ab")
    fleet = Population("", "", "", (Class("x", "no-driver", 1, "", choices),))

    names = [lot.case.circumstance for lot in draw(fleet, 50, 1)]

    assert sorted(names) == ["scattered", "scattered+scattered", "usual"]
