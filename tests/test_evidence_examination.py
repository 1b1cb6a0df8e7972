"""The examination of a driver by the policy ``evidence``, event by event."""

from __future__ import annotations

import pytest
from evidence_model import (
    BIG,
    FREEBSD,
    INDIRECT,
    LINUX_3_3,
    LINUX_3_4,
    LINUX_4_7,
    LINUX_6_12,
    LITTLE,
    REPORTING,
    VERSION_1,
    Case,
    World,
    live,
    settle,
    swap,
)
from evidence_script import (
    BUGGY,
    DEFERRED,
    FILLED,
    GIB,
    GOOD,
    HIGH,
    RAM,
    SHIFTED,
    SHRUNK,
    UNDECIDED,
    after,
    events,
    judged,
    observe,
    pages,
    seen,
    shows,
)

from balloon_plugin.events import (
    ActualWritten,
    Defect,
    DriverReady,
    Evidence,
    FeaturesAcked,
    GuestDescribed,
    GuestFacts,
    MemoryRange,
    PagesDeflated,
    PagesInflated,
    QueueSeen,
    TargetRead,
    TimePassed,
)
from balloon_plugin.policies.evidence import EvidencePolicy

# --- a right driver, step by step ---------------------------------------------------


def test_a_right_driver_is_good_after_two_targets():
    policy = after()
    assert seen(policy) == (UNDECIDED, "FILL", 33)
    observe(policy, *FILLED[:2])
    assert seen(policy) == (UNDECIDED, "FILL", 33)
    observe(policy, FILLED[2])
    assert seen(policy) == (UNDECIDED, "SHRINK", 1)
    observe(policy, *SHRUNK[:2])
    assert seen(policy) == (UNDECIDED, "SHRINK", 1)

    observe(policy, SHRUNK[2])

    assert seen(policy, 1000) == (GOOD, "GOOD", 1000)
    assert policy.policy_verdict().defects == ()


def test_a_driver_that_was_not_seen_to_look_is_taken_to_have_looked():
    policy = after(*FILLED[1:])

    assert seen(policy) == seen(after(*FILLED))
    assert shows(policy) == shows(after(*FILLED))


def test_once_it_is_believed_it_no_longer_matters_which_pages_come_back():
    policy = after(*FILLED, *SHRUNK)

    observe(policy, PagesDeflated(pages(1, HIGH + 500)))

    assert seen(policy)[:2] == (GOOD, "GOOD")
    assert shows(policy) == shows(after(*FILLED, *SHRUNK))


def test_its_evidence_tells_the_story_in_order():
    policy = after(*FILLED, *SHRUNK)

    assert events(policy) == [
        "features acked = 0x10000000",
        "33 entries for a target of 33",
        "actual = 33",
        "stands at 1 after a larger target",
    ]


def test_a_driver_proved_by_its_features_is_good_before_it_does_anything():
    policy = after(features=REPORTING)

    assert seen(policy, 1000) == (GOOD, "GOOD", 1000)
    assert policy.policy_gate(1000).reclaim
    assert events(policy)[-1] == "VIRTIO_BALLOON_F_REPORTING accepted"


def test_features_that_come_late_prove_as_much():
    for done in (FILLED[:2], FILLED, (TimePassed(0), DriverReady(), TimePassed(9))):
        policy = after(*done, features=None)
        assert seen(policy)[0] is not GOOD

        observe(policy, FeaturesAcked(REPORTING))

        assert seen(policy, 9) == (GOOD, "GOOD", 9)


def test_what_was_shown_to_be_wrong_no_feature_proves():
    policy = after(TargetRead(33), PagesInflated(SHIFTED))

    observe(policy, FeaturesAcked(REPORTING))

    assert seen(policy)[:2] == (BUGGY, "HELD")


def test_nor_what_silence_has_shown():
    silence = TimePassed(0), TimePassed(5)
    policy = after(*FILLED[:2], *silence, *SHRUNK[:2])
    assert seen(policy)[:2] == (BUGGY, "WORKING")

    observe(policy, FeaturesAcked(INDIRECT | REPORTING))

    assert seen(policy)[:2] == (BUGGY, "WORKING")
    assert policy.policy_verdict().defects == (Defect.NO_ACTUAL,)


@pytest.mark.parametrize("page", [2, 4, 8, 16, 256])
def test_a_right_driver_with_large_pages_rounds_up(page):
    taken = -(-33 // page) * page
    policy = after(TargetRead(33), PagesInflated(pages(taken)), ActualWritten(taken))
    if taken == page:
        # One page is the least that it can have, so it has to take another first.
        assert seen(policy)[1:] == ("FILL", 2 * page)
        rest = pages(page, HIGH + page)
        observe(
            policy, TargetRead(2 * page), PagesInflated(rest), ActualWritten(2 * page)
        )
        taken = 2 * page
    assert seen(policy)[1:] == ("SHRINK", page)
    rest = pages(taken - page, HIGH + page)
    observe(policy, TargetRead(page), PagesDeflated(rest), ActualWritten(page))

    assert seen(policy, 1000) == (GOOD, "GOOD", -(-1000 // page) * page)
    assert policy.policy_verdict().evidence[-1] == Evidence(
        "align", f"Its targets are rounded up to whole pages of {page * 4} KiB."
    )


def test_pages_of_128_and_256_kib_look_alike_until_a_target_lies_between():
    policy = after(TargetRead(33), PagesInflated(pages(64)), ActualWritten(64))
    rest = pages(64, HIGH + 64)
    observe(policy, TargetRead(128), PagesInflated(rest), ActualWritten(128))
    observe(policy, TargetRead(64), PagesDeflated(rest), ActualWritten(64))
    assert seen(policy, 96) == (GOOD, "GOOD", 96)

    observe(policy, TargetRead(96), PagesInflated(rest), requested=96)

    assert seen(policy, 96) == (GOOD, "GOOD", 128)
    assert policy.policy_gate(96).reclaim
    assert shows(policy)[-2:] == [
        "Only a driver that is right with pages of 256 KiB would do this.",
        "Its targets are rounded up to whole pages of 256 KiB.",
    ]


# --- drivers that are not what they seem --------------------------------------------


def test_windows_gives_itself_away_before_its_first_buffer_is_returned():
    facts = GuestFacts(RAM, LITTLE)
    policy = after(DriverReady(), features=VERSION_1, facts=facts)
    assert seen(policy, 100) == (GOOD, "GOOD", 100)
    wide = tuple(n for page in pages(100) for n in (page, 0))

    observe(policy, TargetRead(100), PagesInflated(wide), requested=100)

    # No page more, none less: it is tested from there.
    assert seen(policy, 100) == (BUGGY, "FILL", 100)
    assert not policy.policy_gate(100).reclaim
    assert policy.policy_verdict().defects == (Defect.PFN_WIDTH,)
    observe(policy, ActualWritten(100), requested=100)
    assert policy.policy_gate(100).num_pages == 1
    rest = PagesDeflated(wide[2:])
    observe(policy, TargetRead(1), rest, ActualWritten(1), requested=100)
    assert seen(policy, 100) == (BUGGY, "WORKING", 100)


def test_a_buffer_of_one_slot_is_not_taken_for_two_pages():
    facts = GuestFacts(RAM, LITTLE)
    policy = after(features=VERSION_1, facts=facts)
    observe(policy, TargetRead(100), requested=100)
    assert policy.policy_gate(100).reclaim

    # A page and page 0, or a page in 8 bytes: neither is given to the host.
    observe(policy, PagesInflated((HIGH + 1, 0)), requested=100)

    assert seen(policy, 100) == (GOOD, "GOOD", 100)
    assert not policy.policy_gate(100).reclaim
    observe(policy, PagesInflated((HIGH + 2, HIGH + 3)), requested=100)
    assert policy.policy_gate(100).reclaim
    assert policy.policy_verdict().judgement is GOOD


def test_macos_is_noticed_when_it_takes_four_times_as_much():
    facts = GuestFacts(RAM, LITTLE)
    policy = after(features=VERSION_1, facts=facts)
    observe(policy, TargetRead(100), PagesInflated(pages(400)), requested=100)

    # It gives back as many of its own pages as it is short of 400 of 4 KiB.
    assert seen(policy, 100) == (BUGGY, "SHRINK", 400 - 99)
    rest = pages(396, HIGH + 4)
    observe(policy, TargetRead(301), PagesDeflated(rest), requested=100)
    assert seen(policy, 100) == (BUGGY, "WORKING", 4 + 96 // 4)
    assert policy.policy_verdict().defects == (Defect.UNIT_SCALE, Defect.NO_ACTUAL)


def test_macos_is_noticed_by_its_silence_if_it_takes_what_others_might():
    in_a_row = TargetRead(33), PagesInflated(pages(40))
    policy = after(*in_a_row, TimePassed(0), TimePassed(4), features=VERSION_1)
    assert seen(policy)[0] is UNDECIDED

    observe(policy, TimePassed(5))

    assert seen(policy)[0] is BUGGY
    assert policy.policy_verdict().defects == (Defect.UNIT_SCALE, Defect.NO_ACTUAL)
    assert shows(policy)[-2:] == [
        "The driver never writes actual.",
        "Only macOS with pages of 16 KiB would do this.",
    ]


def test_a_right_driver_that_breaks_its_word_is_shut_out():
    policy = after(*FILLED, *SHRUNK)
    observe(policy, TargetRead(100), requested=100)

    observe(policy, PagesInflated(pages(256, HIGH + 500)), requested=100)

    assert seen(policy, 100) == (BUGGY, "HELD", 257)
    assert not policy.policy_gate(100).reclaim
    assert policy.policy_verdict().defects == ()


def test_a_hopeless_driver_is_not_tested_any_further():
    # 2.6.25 takes a smaller target for a larger one.
    policy = after(*FILLED, features=0)
    assert seen(policy)[1:] == ("SHRINK", 1)

    observe(policy, TargetRead(1), PagesInflated(pages(256, HIGH + 100)))

    assert seen(policy) == (BUGGY, "HELD", 289)
    # ... unless it reads that wrong as well, and then it is another driver.
    observe(policy, TargetRead(289), PagesInflated(pages(256, HIGH + 400)))
    assert seen(policy) == (BUGGY, "FILL", swap(545))
    assert Defect.ENDIAN_TARGET in policy.policy_verdict().defects


def test_a_driver_that_might_free_wrong_pages_is_asked_for_more_and_then_held():
    apart = range(0x100, 0x4000, 2)
    policy = after(TargetRead(33), PagesInflated(tuple(apart[:33])), ActualWritten(33))
    assert seen(policy) == (UNDECIDED, "FILL", 132)

    more = PagesInflated(tuple(apart[33:132]))
    observe(policy, TargetRead(132), more, ActualWritten(132))

    assert seen(policy) == (BUGGY, "HELD", 132)
    assert policy.policy_verdict().defects == ()
    assert Evidence(
        "132 units taken", "A page-size bug still explains it; to shrink might do harm."
    ) in (policy.policy_verdict().evidence)


def test_one_number_that_cannot_be_wrong_lets_it_go_on():
    apart = range(0x100, 0x4000, 2)
    policy = after(TargetRead(33), PagesInflated(tuple(apart[:33])), ActualWritten(33))
    taken = (*apart[33:131], HIGH)

    observe(policy, TargetRead(132), PagesInflated(taken), ActualWritten(132))

    assert seen(policy) == (UNDECIDED, "SHRINK", 1)


def test_a_held_driver_that_shows_more_is_tested_again():
    apart = range(0x100, 0x4000, 2)
    policy = after(TargetRead(33), PagesInflated(tuple(apart[:33])), ActualWritten(33))
    more = PagesInflated(tuple(apart[33:132]))
    observe(policy, TargetRead(132), more, ActualWritten(132))
    assert seen(policy)[1] == "HELD"

    # A page of the balloon is moved to where no wrong number lies.
    observe(policy, PagesInflated((HIGH,)), PagesDeflated((apart[0],)))

    # It is asked for what it had at that moment, with both.
    assert seen(policy) == (UNDECIDED, "FILL", 133)
    observe(policy, TargetRead(133), PagesInflated((HIGH + 7,)), ActualWritten(133))
    assert seen(policy) == (UNDECIDED, "SHRINK", 1)


# --- drivers that nothing explains ----------------------------------------------------


def test_a_driver_that_nothing_explains_is_held_as_what_it_was_last_taken_for():
    policy = after(TargetRead(33), PagesInflated(SHIFTED))

    observe(policy, TargetRead(swap(256)), PagesInflated((2**32 - 1,) * 44))

    assert seen(policy) == (BUGGY, "HELD", swap(300))
    assert policy.policy_verdict().defects == ()


def test_an_unknown_driver_that_goes_on_is_shown_the_other_byte_order():
    odd = (2**32 - 1,) * 100
    policy = after(TargetRead(33), PagesInflated(odd))
    assert policy.policy_gate(0).num_pages == 100

    # Its next buffer may have been under way.
    observe(policy, PagesInflated(odd))
    assert policy.policy_gate(0).num_pages == 200
    observe(policy, TargetRead(200), PagesInflated(odd))
    assert policy.policy_gate(0).num_pages == swap(300)
    observe(policy, TargetRead(swap(300)), PagesInflated(odd))
    assert policy.policy_gate(0).num_pages == 400


def test_a_kit_driver_that_never_existed_is_stopped_all_the_same():
    # pre34 with VERSION_1, which no kernel before 3.4 could accept.
    world = judged(Case(LINUX_3_3, BIG, 16, "arm", modern=False))
    assert world.peak == 256 * 16

    features = LINUX_3_3.features | VERSION_1
    policy = after(features=features, facts=GuestFacts((MemoryRange(GIB, GIB),)))
    shifted = tuple(0x400 + i // 16 for i in range(256))
    taken = 0
    for _ in range(20):
        shown = policy.policy_gate(0).num_pages
        observe(policy, TargetRead(shown))
        if swap(shown) == taken:
            break
        assert swap(shown) > taken, "it would deflate"
        taken += 256
        observe(policy, PagesInflated(shifted), ActualWritten(taken))

    assert taken <= 3 * 256


def test_a_balloon_of_more_pages_than_can_be_shown_is_held():
    policy = after(TargetRead(33), PagesInflated(SHIFTED))
    policy._exam.session.entries = 2**32 - 2

    observe(policy, PagesInflated(SHIFTED))

    assert policy.policy_gate(0).num_pages == 2**32 - 1


def test_an_unknown_driver_is_held_at_what_it_says_itself():
    policy = after(TargetRead(33), PagesInflated((2**32 - 1,) * 44))
    assert seen(policy) == (BUGGY, "HELD", 44)

    observe(policy, ActualWritten(11))
    assert seen(policy) == (BUGGY, "HELD", 11)
    # ... until pages move, and it has not said what that comes to.
    observe(policy, PagesInflated((2**32 - 1,) * 6))
    assert seen(policy) == (BUGGY, "HELD", 50)


def test_an_unknown_driver_is_understood_as_what_it_was_last_taken_for():
    policy = after(
        *(TargetRead(33), PagesInflated(pages(33)), ActualWritten(swap(33))),
        PagesInflated((2**32 - 1,) * 67),
    )
    assert seen(policy) == (BUGGY, "HELD", 100)

    observe(policy, ActualWritten(swap(70)))

    assert seen(policy) == (BUGGY, "HELD", 70)


@pytest.mark.parametrize("event", [PagesInflated(()), PagesDeflated(())])
def test_an_empty_buffer_says_nothing(event):
    policy = after(*FILLED)
    before = policy.policy_save()

    observe(policy, event)

    assert policy.policy_save() == before


# --- where the queues lie -----------------------------------------------------------

AMBIGUOUS = (TargetRead(33), PagesInflated(pages(33, 0x1000)), ActualWritten(33))
"""By numbers as low as these right drivers and those of 2.6.27 mean other pages."""
STAYS = (TargetRead(1), PagesDeflated(pages(32, 0x1001)), ActualWritten(1))


def test_a_queue_rules_out_larger_pages_that_would_make_of_it_another_balloon():
    assert seen(after(*AMBIGUOUS, *STAYS, features=0))[:2] == (BUGGY, "HELD")
    aligned = QueueSeen(0, 0x40000), QueueSeen(1, 0x80000)
    assert seen(after(*aligned, *AMBIGUOUS, *STAYS, features=0))[1] == "HELD"

    policy = after(*aligned, QueueSeen(2, 0x41000), *AMBIGUOUS, *STAYS, features=0)

    assert seen(policy, 9) == (GOOD, "GOOD", 9)


@pytest.mark.parametrize("features", [None, 0])
def test_what_a_queue_rules_out_the_host_does_not_bring_back(features):
    policy = after(QueueSeen(0, 0x41000), QueueSeen(1, 0x80000), features=features)

    observe(policy, GuestDescribed(GuestFacts(RAM, LITTLE)))
    observe(policy, *AMBIGUOUS, *STAYS)

    assert seen(policy, 9) == (GOOD, "GOOD", 9)


# --- drivers whose buffers are stale ------------------------------------------------


def test_of_a_buffer_that_is_always_sent_whole_only_what_is_new_counts():
    new = pages(33)
    first = new + (0,) * 223
    policy = after(TargetRead(33), PagesInflated(first), features=0)
    assert policy.policy_verdict().defects == (Defect.STALE_ENTRIES,)
    observe(policy, ActualWritten(33))
    assert seen(policy) == (BUGGY, "SHRINK", 1)
    second = new[1:] + first[32:]
    observe(policy, TargetRead(1), PagesDeflated(second), ActualWritten(1))
    assert seen(policy, 100) == (BUGGY, "WORKING", 100)

    third = pages(99, HIGH + 500) + second[99:]
    observe(policy, TargetRead(100), PagesInflated(third), requested=100)

    assert policy.policy_gate(100).entries == 99
    assert policy.policy_gate(100).reclaim


def test_stale_entries_that_were_never_sent_are_of_no_known_driver():
    first = pages(33) + (0,) * 223
    policy = after(TargetRead(33), PagesInflated(first), ActualWritten(33), features=0)
    observe(policy, TargetRead(1), PagesDeflated(first), ActualWritten(1))
    other = pages(99, HIGH + 500) + (7,) * 157

    observe(policy, TargetRead(100), PagesInflated(other), requested=100)

    assert seen(policy, 100)[:2] == (BUGGY, "HELD")
    assert not policy.policy_gate(100).reclaim


# --- what the host says -------------------------------------------------------------


def test_the_host_may_tell_what_the_numbers_could_not():
    case = Case(FREEBSD, LITTLE, 1, "huge", "up", aligned=True)
    world = judged(case)
    assert world.verdict.state == "HELD"
    shown = world.verdict.evidence[-2]
    assert shown.event == "page numbers"
    assert shown.shows == (
        "By the same numbers a driver that is right (4 KiB pages) and "
        "Linux 2.6.27 or 2.6.28 (64 KiB pages) mean other pages."
    )

    world.emit(GuestDescribed(GuestFacts(case.ram, page_size=4096)))
    life = live(world)
    world.policy.policy_gate(0)
    for _ in range(3):
        world.tick()

    assert world.verdict.state in ("FILL", "SHRINK")
    del life


def test_what_the_host_says_late_counts():
    policy = after(*FILLED, features=0)
    assert seen(policy)[1] == "SHRINK"
    observe(policy, GuestDescribed(GuestFacts(RAM, page_size=65536)))

    assert seen(policy)[:2] == (BUGGY, "HELD")
    assert events(policy)[-2] == "what the host says of the guest"


def test_before_any_buffer_the_host_may_correct_itself():
    little = GuestFacts(RAM, LITTLE, 4096)
    policy = after(TargetRead(33), TimePassed(0), TimePassed(5), facts=little)
    assert seen(policy)[0] is GOOD

    observe(policy, GuestDescribed(GuestFacts(RAM, BIG)))

    assert seen(policy) == (UNDECIDED, "FILL", 33)
    assert events(policy) == ["features acked = 0x10000000"]
    observe(policy, PagesInflated(pages(256, HIGH + 1)))
    assert policy.policy_verdict().defects == (Defect.ENDIAN_TARGET,)


def test_a_correction_before_the_features_is_as_good():
    policy = after(features=None, facts=GuestFacts(RAM, LITTLE))
    observe(policy, GuestDescribed(GuestFacts(RAM, BIG)), FeaturesAcked(INDIRECT))

    observe(policy, TargetRead(33), PagesInflated(pages(256, HIGH + 1)))

    assert policy.policy_verdict().defects == (Defect.ENDIAN_TARGET,)


def test_more_ram_does_not_disturb_a_good_driver():
    policy = after(*FILLED, *SHRUNK)
    observe(policy, GuestDescribed(GuestFacts((MemoryRange(0, 2 * GIB),))))

    observe(policy, TargetRead(9), PagesInflated((0x70000, 0x70001)), requested=9)

    assert seen(policy, 9)[:2] == (GOOD, "GOOD")
    assert policy.policy_gate(9).reclaim


def test_more_ram_does_not_disturb_a_proved_driver_either():
    policy = after(features=REPORTING)

    observe(policy, GuestDescribed(GuestFacts((MemoryRange(0, 2 * GIB),))))

    assert seen(policy, 9) == (GOOD, "GOOD", 9)


# --- whole lives --------------------------------------------------------------------


def test_a_reboot_into_another_driver_is_another_session():
    world = World(Case(LINUX_3_4, BIG, 16, modern=False), EvidencePolicy())
    settle(world, live(world))
    assert world.verdict.judgement is GOOD

    world.case = Case(LINUX_3_3, BIG, 16)
    world.frames.clear()
    world.ready = False
    settle(world, live(world))

    assert world.verdict.judgement is BUGGY
    assert world.verdict.state == "HELD"
    assert not world.harm


def test_a_driver_that_waits_for_an_interrupt_gets_one():
    world = World(Case(LINUX_4_7, BIG, modern=True), EvidencePolicy())
    life = live(world)

    settle(world, life, 1)

    assert world.verdict.judgement is GOOD


def test_a_target_that_waits_takes_effect():
    world = World(Case(LINUX_6_12, BIG, 16, modern=True), EvidencePolicy())
    assert world.set_target(1001) is DEFERRED

    settle(world, live(world), 2)

    assert world.pages == 1008
    assert len(world.reclaimed) == 1008 - 16


def test_a_paused_guest_keeps_its_target_and_is_judged_when_it_goes_on():
    world = World(Case(LINUX_6_12, BIG, modern=True), EvidencePolicy())
    life = live(world)
    while not world.frames:
        next(life)
    world.set_target(500)
    for _ in range(20):
        world.tick()
    assert world.verdict.state in ("SILENT", "SHRINK", "FILL", "HELD")

    settle(world, life, 3)

    assert world.verdict.judgement is GOOD
    assert world.pages == 500
