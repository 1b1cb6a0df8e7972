"""What the matrix runs: all that can be special, for everyone to whom it can happen."""

from __future__ import annotations

import collections
import itertools

import pytest

from balloon_plugin.compare.cases import KINDS, Case, cases
from balloon_plugin.compare.circumstance import Act, Stop
from balloon_plugin.compare.circumstances import find as circumstance
from balloon_plugin.errors import HostError
from balloon_plugin.guests.profiles import GUESTS, find
from balloon_plugin.guests.traits import Engine
from balloon_plugin.layouts import Feature

CASES = list(cases())
BY_GUEST = {name: {c.circumstance for c in CASES if c.guest == name} for name in GUESTS}
BOOTS = (Act.KEXEC, Act.REBOOT)
MOMENTS = {f"-in-{stop.text}" for stop in Stop}


def at_every_moment(act):
    return {f"{act}{moment}" for moment in MOMENTS}


def test_no_case_is_there_twice():
    assert len(set(CASES)) == len(CASES)


def test_there_are_thousands_but_not_too_many():
    assert 2500 < len(CASES) < 3100


def test_every_case_has_a_guest_and_a_circumstance_that_exist():
    for case in CASES:
        find(case.guest)
        assert circumstance(case.circumstance).name == case.circumstance


# --- the list -----------------------------------------------------------------------

EVERYONE = ["usual", "low-memory-0", "low-memory-1", "low-memory-10", "low-memory-17"]
EVERYONE += ["scattered", "contiguous", "host-64k", "unaligned-target"]
KIND = ["low-memory-16", "low-memory-200", "whole-config", "s390-bytes-0-to-7"]


@pytest.mark.parametrize("name", EVERYONE)
def test_what_every_guest_is_put_through(name):
    assert all(name in names for names in BY_GUEST.values())


@pytest.mark.parametrize("name", [*KIND, "held-kicks", "aligned-queues", "scattered-2"])
def test_what_one_of_each_kind_is_put_through(name):
    assert all(name in BY_GUEST[kind] for kind in KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_configuration_is_accessed_in_every_other_way_than_usual(kind):
    other = "byte-config" if find(kind).modern else "word-config"

    assert {other, "whole-config", "s390-bytes-0-to-7"} <= BY_GUEST[kind]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("act", ["save-restore", "retarget"])
def test_what_can_happen_to_everyone_happens_at_every_moment(kind, act):
    assert at_every_moment(act) <= BY_GUEST[kind]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("act", "can"),
    [
        ("module-reload", lambda driver: driver.removable),
        ("hibernation", lambda driver: driver.has_freeze),
        ("compaction", lambda driver: driver.compacts),
        ("stats", lambda driver: driver.features & 1 << 1),
        ("oom", lambda driver: driver.features & 1 << 2),
    ],
)
def test_what_can_happen_to_some_happens_to_them_and_at_every_moment(kind, act, can):
    found = at_every_moment(act) & BY_GUEST[kind]

    assert found == (at_every_moment(act) if can(find(kind).driver) else set())


@pytest.mark.parametrize("guest", GUESTS.values(), ids=lambda guest: guest.name)
def test_what_features_bring_is_tried_where_they_are_known(guest):
    names, features = BY_GUEST[guest.name], guest.driver.features
    present = guest.driver.engine is not Engine.ABSENT

    assert ("all-features" in names) == present
    for name, feature in (
        ("stats-polling", Feature.VIRTIO_BALLOON_F_STATS_VQ),
        ("oom-deflate", Feature.VIRTIO_BALLOON_F_DEFLATE_ON_OOM),
        ("page-poison", Feature.VIRTIO_BALLOON_F_PAGE_POISON),
    ):
        assert (name in names) == bool(features & feature.mask)


def test_ram_begins_elsewhere_too():
    assert all(
        ("ram-at-1g" in BY_GUEST[name]) == (not GUESTS[name].ram_start)
        for name in GUESTS
    )


# --- kinds --------------------------------------------------------------------------


def test_kinds_are_guests_and_each_is_there_once():
    assert len(set(KINDS)) == len(KINDS)
    assert set(KINDS) <= set(GUESTS)


def test_every_defect_and_every_engine_has_one():
    """A kind for each way to be wrong, so that it meets what happens in between."""
    kinds = [find(kind) for kind in KINDS]
    defects = {defect for kind in kinds for defect in kind.defects}
    every = {defect for guest in GUESTS.values() for defect in guest.defects}

    assert defects == every
    assert {kind.driver.engine for kind in kinds} == set(Engine) - {Engine.ABSENT}
    assert {kind.page_size >> 10 for kind in kinds} == {4, 16, 64, 256}
    assert {(kind.byte_order, kind.modern) for kind in kinds} == {
        (guest.byte_order, guest.modern) for guest in GUESTS.values()
    }


# --- one guest after another --------------------------------------------------------


def booting():
    for case in CASES:
        turns = [t for t in circumstance(case.circumstance).turns if t.act in BOOTS]
        if turns:
            yield case, turns


def test_who_takes_over_can_run_on_that_machine():
    for case, turns in booting():
        first = find(case.guest)
        for turn in turns:
            other = find(turn.guest)
            assert (other.byte_order, other.modern) == (first.byte_order, first.modern)


def test_whoever_boots_another_also_boots_it_in_every_other_way_and_back():
    ways = collections.defaultdict(set)
    for case, turns in booting():
        pair = (case.guest, turns[0].guest)
        back = len(turns) == 2 and turns[1].guest == case.guest
        ways[pair].add((turns[0].act, turns[0].moment, back))

    assert len(ways) > 50
    for found in ways.values():
        assert found == {
            (Act.KEXEC, Stop.FULL, False),
            (Act.KEXEC, Stop.INFLATING, False),
            (Act.KEXEC, Stop.FULL, True),
            (Act.REBOOT, Stop.IDLE, False),
            (Act.REBOOT, Stop.FULL, True),
        }


def test_good_follows_bad_and_bad_follows_good_on_every_machine():
    machines = collections.defaultdict(set)
    for case, turns in booting():
        first, other = find(case.guest), find(turns[0].guest)
        machine = (first.byte_order.value, first.modern)
        machines[machine].add((first.truth.value, other.truth.value))

    both = {("good", "buggy"), ("buggy", "good")}
    assert all(both <= found for found in machines.values())
    assert set(machines) == set(itertools.product(("big", "little"), (False, True)))


# --- what the command line asks for -------------------------------------------------


def test_guests_and_circumstances_can_be_chosen():
    one = list(cases(["no-driver"]))
    two = list(cases(["no-driver", "linux-3.3-be-4k"], ["host-64k", "oom-in-full"]))

    assert {case.guest for case in one} == {"no-driver"}
    assert one == [case for case in CASES if case.guest == "no-driver"]
    assert two == [
        Case("no-driver", "host-64k"),
        Case("no-driver", "oom-in-full"),
        Case("linux-3.3-be-4k", "host-64k"),
        Case("linux-3.3-be-4k", "oom-in-full"),
    ]


def test_a_guest_that_does_not_exist_is_refused():
    with pytest.raises(HostError, match="there is no guest 'nobody'"):
        list(cases(["nobody"]))
