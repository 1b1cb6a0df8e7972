"""What the policy ``evidence`` does about each kind of driver."""

from __future__ import annotations

import pytest
from evidence_model import (
    BIG,
    FREEBSD,
    LINUX_2_6_25,
    LINUX_2_6_28,
    LINUX_3_3,
    LINUX_3_4,
    LINUX_3_19,
    LINUX_4_4,
    LITTLE,
    MACOS,
    NETBSD,
    REPORTING,
    VIOMB,
    WINDOWS,
    Case,
    swap,
)
from evidence_script import (
    BUGGY,
    GOOD,
    HIGH,
    RAM,
    REFUSED,
    SHIFTED,
    after,
    events,
    judged,
    observe,
    pages,
    seen,
)

from balloon_plugin.events import (
    Evidence,
    GuestFacts,
    MemoryRange,
    PagesInflated,
    TargetRead,
    Translation,
)
from balloon_plugin.policies.evidence.drivers import kinds
from balloon_plugin.policies.evidence.remedies import Remedies, remedy, translation


@pytest.mark.parametrize(
    ("facts", "requested", "shown"),
    [
        (GuestFacts(RAM, page_size=65536), 1, 16),
        (GuestFacts(RAM, page_size=65536), 16, 16),
        (GuestFacts(RAM, page_size=65536), 17, 32),
        (GuestFacts(RAM, page_size=65536), 0, 0),
        (GuestFacts((MemoryRange(0, 40960),), page_size=65536), 10, 10),
        # nobody has told of RAM yet: any target may be right
        (GuestFacts((), page_size=65536), 1000, 1008),
        (GuestFacts((), page_size=65536), 2**32 - 1, 2**32 - 1),
        (GuestFacts(RAM), 1001, 1001),
    ],
)
def test_targets_are_rounded_up_to_the_guests_page(facts, requested, shown):
    policy = after(features=REPORTING, facts=facts)

    assert policy.policy_gate(requested).num_pages == shown


def test_a_proved_guests_page_shows_in_its_buffers():
    policy = after(features=REPORTING)
    assert policy.policy_gate(1001).num_pages == 1001

    observe(policy, TargetRead(1001), requested=1001)
    for batch in range(4):
        observe(policy, PagesInflated(pages(256, HIGH + batch * 256)), requested=1001)

    # 1024 are more than 1001 for all whose pages are below 32.
    assert seen(policy, 1001) == (GOOD, "GOOD", 1024)
    assert events(policy)[-1] == "align"


# --- each kind by itself ------------------------------------------------------------


def kind(name, page=1):
    every = kinds(GuestFacts(()), None)
    return next(kind for kind in every if (kind.name, kind.page) == (name, page))


RIGHT, RIGHT_64K = (kind("a driver that is right", page) for page in (1, 16))
OLD_64K = kind("Linux 2.6.27 or 2.6.28, big-endian", 16)
OTHER = kind("Linux 3.19 or 4.0, big-endian with VERSION_1", 1)


@pytest.mark.parametrize(
    ("some", "lacking"),
    [
        (RIGHT, []),
        (RIGHT_64K, []),
        (kind("Linux 2.6.27 to 3.3, big-endian"), ["swap"]),
        (kind("viomb of OpenBSD or NetBSD, big-endian"), ["translate"]),
        (kind("Windows, 64-bit"), ["translate"]),
        (kind("NetBSD"), ["translate"]),
        (kind("macOS", 4), ["translate"]),
        (OLD_64K, ["swap", "translate"]),
        (OTHER, ["swap", "translate"]),
    ],
)
def test_a_kind_is_of_no_use_without_what_it_needs(some, lacking):
    assert Remedies(swap=False, translate=False).lacking(some) == lacking
    assert Remedies(hold=False, align=False).lacking(some) == []


@pytest.mark.parametrize(
    ("some", "pages", "ram", "units"),
    [
        (RIGHT, 17, 1000, 17),
        (RIGHT_64K, 17, 1000, 32),
        (RIGHT_64K, 32, 1000, 32),
        (RIGHT_64K, 0, 1000, 0),
        # more than there is it cannot reach, if it is known how much there is
        (RIGHT_64K, 17, 20, 20),
        (RIGHT_64K, 17, 0, 32),
        # in guest pages
        (OLD_64K, 16, 1000, 1),
        (OLD_64K, 17, 1000, 2),
        (kind("macOS", 4), 17, 1000, 20),
    ],
)
def test_a_target_is_rounded_up_in_the_drivers_units(some, pages, ram, units):
    assert Remedies().units(some, pages, ram) == units


def test_not_aligned_it_is_rounded_up_to_a_unit_all_the_same():
    assert Remedies(align=False).units(RIGHT_64K, 17, 1000) == 17
    assert Remedies(align=False).units(OLD_64K, 17, 1000) == 2


def test_kinds_that_differ_in_their_treatment_are_told_apart():
    every = kinds(GuestFacts(()), None)
    same = {}
    for each in every:
        same.setdefault(remedy(each), []).append(each)

    for some in same.values():
        assert len({translation(each).swap_pfns for each in some}) == 1
        assert len({translation(each).slot_entries for each in some}) == 1
        assert len({translation(each).pages_per_pfn for each in some}) == 1
        assert len({each.shown(32) for each in some}) == 1
        assert len({each.stale for each in some}) == 1
    # Right drivers are treated alike whatever their pages.
    assert len({remedy(each) for each in every if not each.defects}) == 1


# --- and through the policy ---------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "options", "translation"),
    [
        (Case(LINUX_3_3, BIG), ["swap"], Translation()),
        (Case(WINDOWS), ["translate"], Translation(slot_entries=2)),
        (Case(VIOMB, BIG), ["translate"], Translation(swap_actual=True)),
        (
            Case(LINUX_4_4, BIG, modern=True),
            ["translate"],
            Translation(swap_pfns=True),
        ),
        (
            Case(LINUX_3_19, BIG, modern=True),
            ["swap", "translate"],
            Translation(swap_pfns=True, swap_actual=True),
        ),
        (
            Case(LINUX_2_6_28, BIG, 16, knows="page"),
            ["swap", "translate"],
            Translation(pages_per_pfn=16, pages_per_unit=16),
        ),
    ],
    ids=str,
)
def test_what_works_around_a_defect_can_be_switched_off(case, options, translation):
    world = judged(case)
    assert world.verdict.state == "WORKING"
    assert world.gate.translation == translation
    assert set(options) <= set(events(world.policy))
    shown = world.policy.policy_gate(160).num_pages
    units = 160 // case.scale
    assert shown == (swap(units) if "swap" in options else units)

    for option in options:
        world = judged(case, **{option: "no"})
        assert world.verdict.state == "HELD"
        assert world.verdict.judgement is BUGGY
        assert set(world.verdict.defects) == case.defects
        assert Evidence(f"{option}=no", "Its balloon could work, but for that.") in (
            world.verdict.evidence
        )
        assert world.gate.translation == Translation()
        assert world.gate.targets is REFUSED
        assert world.pages == max(case.page, case.scale)
    for option in {"swap", "translate"}.difference(options):
        assert judged(case, **{option: "no"}).verdict.state == "WORKING"


@pytest.mark.parametrize(
    ("case", "says"),
    [
        (
            Case(MACOS, page=4, modern=True),
            "It moves 4 pages where it counts one: its target is shown in parts.",
        ),
        (Case(NETBSD), "Only the new entries of its buffers count."),
    ],
    ids=str,
)
def test_what_cannot_be_put_right_by_a_number_is_translated_too(case, says):
    world = judged(case)
    assert world.verdict.state == "WORKING"
    assert world.gate.translation == Translation()
    assert Evidence("translate", says) in world.verdict.evidence

    world = judged(case, translate="no")

    assert world.verdict.state == "HELD"
    assert set(world.verdict.defects) == case.defects
    assert world.pages == case.page


@pytest.mark.parametrize("option", ["swap", "translate"])
def test_a_right_driver_needs_nothing_of_it(option):
    world = judged(Case(LINUX_3_4, BIG, 16), **{option: "no"})

    assert world.verdict.state == "GOOD"
    assert option not in " ".join(events(world.policy))


def test_aligning_can_be_switched_off():
    facts = GuestFacts(RAM, page_size=65536)
    policy = after(features=REPORTING, facts=facts, align=False)

    assert policy.policy_gate(17).num_pages == 17
    assert "align" not in events(policy)


def test_holding_can_be_switched_off():
    done = TargetRead(33), PagesInflated(SHIFTED)
    policy = after(*done)
    assert policy.policy_gate(0).num_pages == swap(256)
    assert policy.policy_verdict().evidence[-1] == Evidence(
        "hold", "It is shown the size that it has: nothing to do."
    )

    policy = after(*done, hold="no")
    assert policy.policy_gate(0).num_pages == 0
    assert policy.policy_verdict().evidence[-1] == Evidence("hold=no", "It is shown 0.")


@pytest.mark.parametrize(
    "case",
    [
        Case(LINUX_3_3, BIG, 16),
        Case(LINUX_3_3, LITTLE, 16),
        Case(LINUX_3_3, BIG, 4, first=(10,)),
        Case(LINUX_2_6_25, LITTLE),
        Case(LINUX_2_6_25, BIG, 16, "arm"),
        Case(FREEBSD, LITTLE, 1, "huge", "up", aligned=True),
    ],
    ids=str,
)
def test_a_driver_that_is_held_reads_that_it_has_nothing_to_do(case):
    world = judged(case)
    assert world.verdict.state == "HELD"
    assert world.pages > 0

    assert world.look() == 0


def test_a_held_driver_that_grows_all_the_same_is_held_there():
    policy = after(TargetRead(33), PagesInflated(SHIFTED))

    observe(policy, PagesInflated(SHIFTED))

    assert policy.policy_gate(0).num_pages == swap(512)
