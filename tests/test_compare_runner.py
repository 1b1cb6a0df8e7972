"""The comparison: the seed's argument in figures, and ``evidence`` over the zoo."""

from __future__ import annotations

import json

import pytest

from balloon_plugin.compare import compare, run
from balloon_plugin.compare.course import PATIENCE, QUIET
from balloon_plugin.guests import GUESTS, find

LIARS = {name for name in GUESTS if name.startswith("perfect-liar")}


@pytest.mark.parametrize("name", sorted(set(GUESTS) - LIARS))
def test_evidence_is_right_about_every_driver_and_harms_none(name):
    row = run(find(name), "evidence")

    assert row.right, row
    assert row.harm_pages == 0, row


@pytest.mark.parametrize("name", sorted(LIARS))
def test_nobody_can_tell_the_perfect_liar(name):
    row = run(find(name), "evidence")

    assert not row.right
    assert row.harm_pages


@pytest.mark.parametrize(
    ("guest", "none", "probe", "feature_bit"),
    [
        ("linux-3.3-be-4k", False, True, True),
        ("linux-3.3-be-64k", False, True, True),
        ("linux-3.3-le-4k", True, True, True),
        ("linux-3.4-be-4k", True, True, False),
        ("linux-3.4-be-64k", True, True, False),
        ("linux-3.4-le-4k", True, True, True),
        ("linux-6.1-le-4k", True, True, True),
        ("no-driver", True, True, True),
    ],
)
def test_the_argument_of_the_thread(guest, none, probe, feature_bit):
    policies = ["none", "probe", "feature-bit"]

    rows = list(compare([find(guest)], policies))

    assert [row.right for row in rows] == [none, probe, feature_bit]


@pytest.mark.parametrize(
    ("policy", "taken", "parked"),
    [("none", 0, 15312), ("probe", 4096, 4096), ("feature-bit", 0, 0)],
)
def test_memory_that_is_missing_is_counted_by_how_long(policy, taken, parked):
    row = run(find("linux-3.3-be-64k"), policy)

    seconds = range(QUIET, PATIENCE)
    assert row.taken_page_seconds in [taken * each for each in seconds]
    assert row.parked_page_seconds in [parked * each for each in seconds]


def test_pages_that_come_back_at_once_cost_no_time():
    row = run(find("linux-3.4-be-64k"), "probe")

    assert (row.taken_pages, row.taken_page_seconds) == (16, 0)


@pytest.mark.parametrize(
    ("policy", "harmful"),
    [("none", True), ("probe", True), ("feature-bit", False), ("evidence", False)],
)
def test_what_each_policy_does_to_the_guest_of_the_patch(policy, harmful):
    row = run(find("linux-3.3-be-64k"), policy)

    assert bool(row.harm_pages) is harmful


def test_a_balloon_with_nothing_but_the_endian_bug_works():
    row = run(find("linux-3.3-be-4k"), "evidence")

    assert (row.verdict, row.state, row.usable) == ("buggy", "WORKING", True)
    assert row.defects == ("ENDIAN_TARGET",)


def test_a_workaround_can_be_switched_off():
    row = run(find("linux-3.3-be-4k"), "evidence:swap=no")

    assert (row.verdict, row.state, row.usable) == ("buggy", "HELD", False)


def test_a_row_is_a_value_that_json_can_carry():
    row = run(find("linux-6.1-le-4k"), "probe")

    loaded = json.loads(json.dumps(row.as_dict()))

    names = "guest policy verdict state right harm_pages taken_pages parked_pages"
    assert set(names.split()) <= set(loaded)
    assert {"steps", "usable", "defects", "evidence"} <= set(loaded)


def test_the_same_run_gives_the_same_row():
    first, second = (run(find("linux-3.3-be-64k"), "probe") for _ in range(2))

    assert first == second
