"""The policy ``evidence`` against every driver, in every circumstance.

Each guest boots, is left alone, and then asked for balloons of several sizes. That no
page in use is given to the host, that no driver which frees the wrong pages is told to
deflate, and that none is starved, the world around the policy checks at each step.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from evidence_model import (
    BIG,
    DRIVERS,
    FREEBSD,
    GIB,
    LAYOUTS,
    LINUX_2_6_25,
    LINUX_2_6_26,
    LINUX_2_6_28,
    LINUX_3_3,
    LINUX_3_4,
    LINUX_6_12,
    LITTLE,
    VERSION_1,
    Case,
    World,
    is_reached,
    live,
    run,
    settle,
)

from balloon_plugin.events import Answer, Judgement
from balloon_plugin.policies.evidence import EvidencePolicy

ALLOCATIONS = ("up", "down", "scattered", "alternate")
FIRST_BATCHES = ((), (1,), (10,), (16,), (17,), (200,), (0, 0), (1, 1, 1), (10, 10))
KNOWN = ("", "order", "order, page", "page")


def guests():
    """Yield every driver on every CPU, page size and bus that it exists on."""
    for driver in DRIVERS:
        for order, page in itertools.product(driver.orders, driver.pages):
            if driver.features & VERSION_1:
                yield Case(driver, order, page, modern=True)
            if driver.legacy:
                yield Case(driver, order, page)


def circumstances(case, step):
    """Yield a guest in every ``step``-th of its circumstances, each time others."""
    every = itertools.product(
        LAYOUTS, ALLOCATIONS, FIRST_BATCHES, KNOWN, (0, 1), (0, 1), (0, 1)
    )
    start = (len(case.driver.name) * 7 + case.page * 5 + case.modern * 3) % step
    for layout, allocation, first, knows, bytewise, late, aligned in itertools.islice(
        every, start, None, step
    ):
        yield replace(
            case,
            layout=layout,
            allocation=allocation,
            first=first,
            knows=knows,
            bytewise=bytewise,
            late_features=late,
            aligned=aligned,
        )


def check(case, **options):
    """Run one guest, and compare what became of it with what is true of it."""
    world, reached = run(case, EvidencePolicy, **options)

    verdict = world.verdict
    assert world.harm == 0
    truth = Judgement.GOOD if case.is_right else Judgement.BUGGY
    hopeless = case.frees_wrong or case.driver.unsigned
    if case.is_ambiguous or hopeless:
        assert verdict.judgement is Judgement.BUGGY
        assert verdict.state in ("HELD", "WORKING")
        assert set(verdict.defects) <= case.defects
        assert not world.reclaimed or verdict.state == "WORKING"
    else:
        assert verdict.judgement is truth
        assert set(verdict.defects) == case.defects
        assert verdict.state == ("GOOD" if case.is_right else "WORKING")
    if verdict.state == "HELD":
        assert all(pages == reached[0][1] for _, pages in reached)
        assert world.gate.targets is Answer.REFUSED
    else:
        for target, pages in reached:
            assert is_reached(case, target, pages), (target, pages)
        assert world.pages - len(world.reclaimed) <= 2 * 64 + case.page
    # Most of all 2.6.26 takes, where its first batch may be one page of 1 MiB, too.
    assert world.peak_at_verdict <= 6 * 256 * case.page
    check_evidence(world)
    return world


def check_evidence(world):
    evidence = world.verdict.evidence
    assert evidence
    for one in evidence:
        assert 0 < len(one.event) < 60
        assert 0 < len(one.shows) < 200, one.shows
        assert one.shows[0].isupper()
        assert one.shows.endswith(".")


@pytest.mark.parametrize("case", list(guests()), ids=str)
def test_a_driver_is_judged_rightly_in_some_circumstances(case):
    for each in circumstances(case, 997):
        check(each)


@pytest.mark.slow
@pytest.mark.parametrize("case", list(guests()), ids=str)
def test_a_driver_is_judged_rightly_in_many_circumstances(case):
    for each in circumstances(case, 101):
        check(each)


@pytest.mark.parametrize("case", list(guests()), ids=str)
def test_a_driver_is_judged_as_well_by_a_policy_that_was_saved_at_each_event(case):
    check(replace(case, layout="arm"), copies=True)


# --- what it costs ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("driver", "order", "page", "most"),
    [
        (LINUX_6_12, LITTLE, 1, 33),
        (LINUX_3_4, BIG, 1, 33),
        (LINUX_3_4, BIG, 16, 48),
        (LINUX_3_3, BIG, 1, 256),
        (LINUX_3_3, BIG, 16, 256 * 16),
        (LINUX_3_3, LITTLE, 16, 33 * 16),
        # It shows that it never deflates by one more batch.
        (LINUX_2_6_25, LITTLE, 1, 33 + 256),
        (LINUX_2_6_26, BIG, 1, 256 + 256),
    ],
)
def test_no_more_is_taken_of_a_guest_than_it_takes_to_know(driver, order, page, most):
    world, _ = run(Case(driver, order, page), EvidencePolicy, targets=())

    assert world.peak == most


def test_a_driver_that_is_proved_good_is_never_probed():
    case = Case(LINUX_6_12, modern=True, knows="order")
    world = World(case, EvidencePolicy())
    assert world.set_target(1000) is Answer.DEFERRED
    settle(world, live(world), 1)

    assert world.verdicts[-1].judgement is Judgement.GOOD
    assert world.pages == world.peak == len(world.reclaimed) == 1000
    inflated = [event for event in world.trace if hasattr(event, "pfns")]
    assert len(inflated) == 4


# --- what nobody can tell apart -----------------------------------------------------


def same_trace(one, other, events=60):
    """Return the trace that two guests have in common; they must have only one."""
    traces = []
    for case in (one, other):
        world, _ = run(case, EvidencePolicy, targets=())
        traces.append(world.trace[1:events])
        assert world.verdict.judgement is Judgement.BUGGY
        assert world.verdict.state == "HELD"
        assert not world.reclaimed
    assert traces[0] == traces[1]
    return traces[0]


def lucky(driver, order, page, free):
    """Return a guest with these free frames; its queues happen to lie on 64 KiB."""
    return Case(driver, order, page, "huge", free=free, aligned=True)


LOW_FRAMES = range(0x1000, 0x2000)
EVERY_OTHER = range(0x1000, 0x4000, 2)


def test_two_drivers_with_one_trace_right_and_unshifted():
    # FreeBSD's numbers of 4 KiB pages are 2.6.28's numbers of its 64 KiB pages, if RAM
    # begins at 0 and reaches sixteen times as far; neither accepts a feature that the
    # other does not know.
    ours = lucky(FREEBSD, LITTLE, 1, LOW_FRAMES)
    theirs = lucky(LINUX_2_6_28, LITTLE, 16, LOW_FRAMES)
    assert ours.is_right
    assert not theirs.is_right

    same_trace(ours, theirs)

    for case in (ours, theirs):
        assert check(replace(case, knows="page")).verdict.state != "HELD"


def test_two_drivers_with_one_trace_swapped_and_unshifted():
    ours = lucky(LINUX_2_6_28, BIG, 1, LOW_FRAMES)
    theirs = lucky(LINUX_2_6_28, BIG, 16, LOW_FRAMES)

    same_trace(ours, theirs)

    for case in (ours, theirs):
        assert check(replace(case, knows="page")).verdict.state == "WORKING"


def test_two_drivers_with_one_trace_unshifted_and_shifted():
    # 2.6.29 and 2.6.30 have the wrong shift, but no indirect descriptors yet.
    old = replace(LINUX_3_3, features=LINUX_2_6_28.features)
    ours = lucky(LINUX_2_6_28, LITTLE, 16, EVERY_OTHER)
    theirs = lucky(old, LITTLE, 4, range(0x4000, 0x10000, 8))
    assert theirs.frees_wrong

    same_trace(ours, theirs)


def test_two_drivers_with_one_trace_right_and_shifted():
    # Only if a kernel's free pages lie apart, and all in the first 1/16 of RAM.
    ours = lucky(LINUX_3_4, LITTLE, 1, EVERY_OTHER)
    theirs = lucky(LINUX_3_3, LITTLE, 4, range(0x4000, 0x10000, 8))
    assert ours.is_right
    assert theirs.frees_wrong

    same_trace(ours, theirs)

    for case in (ours, theirs):
        world = check(replace(case, knows="page"))
        assert (world.verdict.state == "GOOD") is case.is_right


def test_a_queue_between_two_larger_pages_tells_right_and_unshifted_apart():
    case = replace(lucky(FREEBSD, LITTLE, 1, LOW_FRAMES), aligned=False)

    assert check(case).verdict.state == "GOOD"


def test_a_gap_of_one_page_size_in_the_numbers_is_enough():
    case = Case(FREEBSD, LITTLE, 1, "low", allocation="down", aligned=True)

    assert max(itertools.islice(case.frames(), 33)) * 4096 * 4 > GIB
    assert check(case).verdict.state == "GOOD"
