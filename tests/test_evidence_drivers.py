"""The table of drivers, against the drivers of ``evidence_model``."""

from __future__ import annotations

import pytest
from evidence_model import (
    BIG,
    DRIVERS,
    INDIRECT,
    LITTLE,
    MACOS,
    NETBSD,
    VERSION_1,
    WINDOWS,
    Case,
    swap,
)
from hypothesis import given
from hypothesis import strategies as st

from balloon_plugin.events import ByteOrder, Defect, GuestFacts
from balloon_plugin.policies.evidence.drivers import (
    FIXED_PAGE,
    LARGEST_PAGE,
    DriverKind,
    kinds,
)
from balloon_plugin.policies.evidence.numbers import Buffer, Encoding, RamMap

NOTHING = GuestFacts(())
FORMS = {
    "right": Encoding.RIGHT,
    "swapped": Encoding.SWAPPED,
    "bare": Encoding.UNSHIFTED,
    "shifted": Encoding.SHIFTED,
    "slots": Encoding.SLOTS,
    "stale": Encoding.RIGHT,
}


def cases():
    for driver in DRIVERS:
        for order in driver.orders:
            for page in driver.pages:
                for modern in (False, True):
                    if modern and not driver.features & VERSION_1:
                        continue
                    if modern or driver.legacy:
                        yield Case(driver, order, page, modern=modern)


def names(some):
    return {kind.name for kind in some}


def truth(case, some):
    """Return those of some kinds that are what runs in this guest."""
    return [
        kind
        for kind in some
        if set(kind.defects) == case.defects
        and kind.page == case.page
        and kind.encoding is FORMS[case.form]
        and kind.swaps_target is case.swaps_target
        and kind.swaps_actual is (case.driver.raw_actual and case.raw)
        and kind.writes_actual is case.driver.writes_actual
        and kind.frees_wrong is case.frees_wrong
        and kind.deflates is not case.driver.unsigned
        and kind.scale == case.scale
        and kind.stride == (case.page if case.driver.leaps else 1)
        and kind.stale is (case.form == "stale")
        and kind.compacts >= case.driver.compacts
    ]


@pytest.mark.parametrize("case", list(cases()), ids=str)
def test_every_driver_is_in_the_table_whatever_the_host_knows(case):
    for knows in ("", "order", "page", "order, page"):
        facts = Case(case.driver, case.order, case.page, knows=knows).facts

        for features in (None, case.features):
            assert len(truth(case, kinds(facts, features))) == 1, knows


@pytest.mark.parametrize("case", list(cases()), ids=str)
def test_a_kind_counts_as_its_driver_does(case):
    [kind] = truth(case, kinds(NOTHING, case.features))
    frames = list(range(1024, 1024 + 16))
    entries = case.encode(frames)
    units = len(frames) * (case.page if case.driver.unit == "4K" else 1)

    assert kind.units(len(entries)) == units
    assert kind.writes(units) in (units, swap(units))
    assert kind.stops_at(kind.shown(units)) == units
    assert (kind.writes(1) == 1) is not kind.swaps_actual
    assert (kind.shown(16) == swap(16)) is kind.swaps_target
    assert Buffer(entries, RamMap((), ())).fits(kind.encoding, kind.page)
    # A right driver never splits a page; one that counts in larger units need not.
    step = case.page if case.driver.unit == "4K" else 1
    assert kind.rests_at(33) == -(-33 // step) * step
    assert kind.stops_at(kind.shown(kind.rests_at(33))) == kind.rests_at(33)
    assert kind.least == step


def test_kinds_can_be_told_apart_by_their_name_and_page():
    every = kinds(NOTHING, None)

    assert len({(kind.name, kind.page) for kind in every}) == len(every) == 50


def test_right_drivers_come_first_and_swapping_ones_last():
    ranks = [
        (bool(kind.defects), kind.swaps_target, not kind.deflates)
        for kind in kinds(NOTHING, None)
    ]

    assert ranks == sorted(ranks)
    assert ranks[0] == (False, False, False)
    assert ranks[-1] == (True, True, True)


def test_only_the_size_that_the_host_knows_is_left():
    for size in (4096, 65536, 1 << 19):
        pages = {kind.page for kind in kinds(GuestFacts((), page_size=size), None)}

        assert pages == {size // 4096}


@pytest.mark.parametrize("size", [0, -4096, 2048, 5000, 3 * 4096, LARGEST_PAGE * 2])
def test_a_size_that_no_page_has_is_not_believed(size):
    assert kinds(GuestFacts((), page_size=size), None) == kinds(NOTHING, None)


def test_the_largest_page_of_any_cpu_is_believed():
    some = kinds(GuestFacts((), page_size=LARGEST_PAGE), None)

    assert {kind.page for kind in some} == {LARGEST_PAGE // 4096}


def test_no_wrong_numbers_are_suspected_of_pages_that_old_kernels_hardly_had():
    def sizes(facts):
        wrong = (Encoding.SHIFTED, Encoding.UNSHIFTED)
        return {kind.page for kind in kinds(facts, None) if kind.encoding in wrong}

    assert sizes(NOTHING) == {4, 16}
    assert sizes(GuestFacts((), page_size=8192)) == {2}
    assert sizes(GuestFacts((), page_size=4096)) == set()


def test_the_byte_order_rules_out_what_exists_only_on_the_other():
    little = kinds(GuestFacts((), byte_order=LITTLE), None)
    big = kinds(GuestFacts((), byte_order=BIG), None)

    assert not any(kind.swaps_target or kind.swaps_actual for kind in little)
    assert not names(big) & names(FIXED_PAGE)
    assert {kind.byte_order for kind in little} == {None, ByteOrder.LITTLE}
    assert {kind.byte_order for kind in big} == {None, ByteOrder.BIG}


def test_features_rule_out_drivers_that_are_too_old_or_too_new():
    old, ring = kinds(NOTHING, 0), kinds(NOTHING, INDIRECT)
    modern = kinds(NOTHING, VERSION_1 | INDIRECT)

    assert "Linux 2.6.25" in names(old)
    assert "Linux 2.6.25" not in names(ring)
    assert "Linux 2.6.29 to 3.3" in names(ring)
    assert "Linux 2.6.29 to 3.3" not in names(modern)
    assert "Linux 4.1 to 4.6, big-endian with VERSION_1" in names(modern)
    assert "Linux 4.1 to 4.6, big-endian with VERSION_1" not in names(ring)
    assert "macOS" not in names(ring)
    assert "Windows, 64-bit" in names(ring) & names(modern)
    assert "a driver that is right" in names(old) & names(ring) & names(modern)


def test_those_that_a_proof_leaves_are_not_linux():
    assert [set(kind.defects) for kind in FIXED_PAGE] == [
        Case(WINDOWS).defects,
        Case(NETBSD).defects,
        Case(MACOS, page=4, modern=True).defects,
    ]


# --- macOS, which leaps -------------------------------------------------------------

APPLE = next(kind for kind in kinds(NOTHING, None) if kind.stride > 1)
PAGE = st.integers(0, 1 << 20).map(lambda pages: 4 * pages)


def leap(target, pages):
    """Return the pages after macOS acted once on a target (``guests/apple.py``)."""
    before = pages // 4
    if target > pages:
        pages += 4 * (target - pages)
    surplus = pages - target
    return pages - 4 * surplus if 0 < surplus <= before else pages


@given(PAGE, PAGE)
def test_what_leaps_comes_to_its_goal_by_the_targets_that_it_is_shown(goal, pages):
    ways = 0
    while pages != goal:
        pages = leap(APPLE.shown(goal, pages), pages)
        ways += 1
        assert ways <= 4

    assert APPLE.shown(goal, pages) == pages
    assert leap(pages, pages) == pages


def test_a_short_way_up_begins_with_one_down():
    # To leap by 6 pages it would be shown 106, and then give back 18 * 4 of 100.
    assert leap(106, 100) == 124 - 18 * 4

    assert APPLE.shown(124, 100) == 100 - (100 - 60) // 4
    assert leap(90, 100) == 60
    assert APPLE.shown(124, 60) == 60 + 64 // 4
    assert leap(76, 60) == 124


@given(PAGE, PAGE)
def test_on_its_way_it_never_has_more_than_its_goal_or_what_it_had(goal, pages):
    after = leap(APPLE.shown(goal, pages), pages)

    assert 0 <= after <= max(goal, pages)


@given(st.integers(0, 1 << 20), PAGE)
def test_it_stops_where_it_leaps_to(target, pages):
    up = max(target, pages)

    assert APPLE.stops_at(target, pages) == pages + 4 * (up - pages)


# --- and numbers --------------------------------------------------------------------


def test_there_is_one_object_for_each_kind_whatever_is_known():
    some = kinds(GuestFacts((), page_size=65536), INDIRECT)

    assert set(some) < set(kinds(NOTHING, None))


def test_units_that_do_not_fit_are_written_as_the_driver_would():
    kind = DriverKind("x", (Defect.ACTUAL_ORDER,), swaps_actual=True)

    assert kind.writes((1 << 32) + 1) == 0x01000000
