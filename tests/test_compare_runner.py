"""The comparison: the seed's argument in figures, and ``evidence`` over the zoo."""

from __future__ import annotations

import json

import pytest
from fakes import Recorder

from balloon_plugin.compare import compare, run
from balloon_plugin.compare.circumstances import find as circumstance
from balloon_plugin.compare.course import PATIENCE, QUIET
from balloon_plugin.compare.runner import usable_at_best
from balloon_plugin.errors import HostError, PluginError
from balloon_plugin.events import ByteOrder, DriverReady, GuestDescribed, PagesInflated
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


@pytest.mark.parametrize(
    ("guest", "special", "possible"),
    [
        ("linux-3.4-be-64k", "usual", True),
        ("linux-3.4-be-64k", "never-more-than-3", False),
        ("linux-3.3-be-64k", "usual", False),
        ("linux-3.3-be-4k", "usual", True),
        ("no-driver", "usual", False),
    ],
)
def test_what_any_host_could_achieve(guest, special, possible):
    assert usable_at_best(find(guest), circumstance(special)) is possible
    assert run(find(guest), "none", circumstance(special)).usable_at_best is possible


def test_a_balloon_is_usable_if_it_goes_up_and_down_again():
    rows = [
        run(find(name), "none") for name in ("linux-2.6.25-le-4k", "linux-3.4-le-4k")
    ]

    assert [row.usable for row in rows] == [False, True]
    assert [row.parked_pages > 0 for row in rows] == [True, False]


def test_only_what_was_taken_before_anybody_asked_is_called_taken():
    assert run(find("linux-3.4-be-4k"), "none").taken_pages == 0
    assert run(find("linux-3.4-be-4k"), "probe").taken_pages == 16


def test_steps_are_counted_until_the_verdict_if_there_was_one():
    nobody = run(find("no-driver"), "evidence")
    asked = run(find("linux-3.4-be-4k"), "feature-bit")
    tested = run(find("linux-3.4-be-4k"), "probe")

    assert nobody.steps is None
    assert asked.steps < tested.steps


def test_what_a_driver_died_of_is_in_the_row_and_its_page_is_harm():
    row = run(find("linux-3.3-be-64k"), "probe", circumstance("ram-at-1g"))

    assert "not RAM" in row.oops
    assert (row.harm_pages, row.usable) == (16, False)


def test_where_ram_begins_and_how_much_there_is_are_circumstances():
    row = run(find("linux-2.6.26-le-4k"), "none", circumstance("ram-1g"))

    assert row.parked_pages > 16384


@pytest.mark.parametrize(
    ("special", "facts"),
    [
        ("usual", (ByteOrder.BIG, None, 4096)),
        ("host-64k", (ByteOrder.BIG, None, 65536)),
        ("host-knows-page-size", (ByteOrder.BIG, 65536, 4096)),
        ("host-knows-nothing", (None, None, 4096)),
    ],
)
def test_what_the_host_knows_is_a_circumstance(special, facts):
    recorder = Recorder()
    run(find("linux-3.4-be-64k"), "none", circumstance(special), [recorder])

    [described] = recorder.of(GuestDescribed)
    told = described.facts
    assert (told.byte_order, told.page_size, told.host_page_size) == facts


def test_kicks_before_the_driver_is_ready_may_wait():
    early, late = Recorder(), Recorder()
    run(find("linux-3.4-be-4k"), "probe", circumstance("usual"), [early])
    run(find("linux-3.4-be-4k"), "probe", circumstance("held-kicks"), [late])

    order = [
        [type(event) for event in each.of(DriverReady, PagesInflated)][:2]
        for each in (early, late)
    ]
    assert order == [[PagesInflated, DriverReady], [DriverReady, PagesInflated]]


def test_rows_come_guest_by_guest_and_under_each_policy_in_turn():
    guests = [find("no-driver"), find("linux-3.4-be-4k")]
    special = [circumstance("usual"), circumstance("host-64k")]
    rows = list(compare(guests, ["none", "feature-bit"], special))

    assert [(row.guest, row.circumstance, row.policy) for row in rows] == [
        (guest.name, each.name, policy)
        for guest in guests
        for each in special
        for policy in ("none", "feature-bit")
    ]


def test_a_run_that_cannot_be_leaves_nothing_behind():
    recorder = Recorder()
    impossible = circumstance("kexec-into:linux-3.4-le-4k")
    with pytest.raises(HostError, match="cannot run on the machine"):
        run(find("linux-3.4-be-4k"), "none", impossible, [recorder])
    seen = len(recorder.events)
    row = run(find("linux-3.4-be-4k"), "none")

    assert row.usable
    assert len(recorder.events) == seen


def test_a_policy_that_there_is_not_is_refused():
    with pytest.raises(PluginError, match="there is no policy 'probbe'"):
        run(find("no-driver"), "probbe")


def test_the_same_run_gives_the_same_row():
    first, second = (run(find("linux-3.3-be-64k"), "probe") for _ in range(2))

    assert first == second
