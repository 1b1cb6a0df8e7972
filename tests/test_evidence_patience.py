"""Silence: whom the policy ``evidence`` wakes, and what it concludes in the end."""

from __future__ import annotations

import pytest
from evidence_model import (
    BIG,
    LITTLE,
    VERSION_1,
)
from evidence_script import (
    BUGGY,
    FILLED,
    GOOD,
    HIGH,
    RAM,
    SHIFTED,
    SHRUNK,
    UNDECIDED,
    after,
    events,
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
    PagesDeflated,
    PagesInflated,
    TargetRead,
    TargetRequested,
    TimePassed,
)
from balloon_plugin.policies.evidence.patience import Patience, Silence

# --- of one driver, by the clock ----------------------------------------------------


def over(seconds, ask="tested", patience=5):
    """Return what to do at each of some moments."""
    waiting = Patience(patience)
    return [getattr(waiting, ask)(float(now)) for now in seconds]


def test_a_driver_that_is_tested_is_woken_until_its_silence_counts():
    assert over([7, 7, 8, 9, 11.9, 12, 13]) == [
        *(Silence.WAIT, Silence.WAIT),
        *(Silence.NUDGE, Silence.NUDGE, Silence.NUDGE),
        *(Silence.OVER, Silence.OVER),
    ]


def test_a_driver_that_is_left_alone_is_woken_less_and_less_often():
    answers = over(range(300), "left_alone")

    nudged = [now for now, silence in enumerate(answers) if silence is Silence.NUDGE]
    assert nudged == [1, 2, 4, 8, 16, 32, 64, 128, 192, 256]
    assert Silence.OVER not in answers


@pytest.mark.parametrize("ask", ["tested", "left_alone"])
def test_both_begin_anew_when_something_moves(ask):
    waiting = Patience(5)
    for now in range(4):
        getattr(waiting, ask)(float(now))

    waiting.moved()

    assert getattr(waiting, ask)(100.0) is Silence.WAIT
    assert getattr(waiting, ask)(101.0) is Silence.NUDGE


@pytest.mark.parametrize("ask", ["tested", "left_alone"])
def test_a_clock_that_goes_back_is_another_one(ask):
    assert over([100, 3, 4], ask) == [Silence.WAIT, Silence.WAIT, Silence.NUDGE]


# --- a driver that is tested --------------------------------------------------------


def test_a_driver_that_has_not_looked_when_it_is_ready_is_woken_once():
    policy = after(DriverReady())
    assert policy.policy_gate(0).nudges == 1

    policy = after(TargetRead(33), DriverReady())
    assert policy.policy_gate(0).nudges == 0


def test_a_driver_that_stands_still_is_woken_at_each_tick_and_then_silent():
    policy = after()
    nudges = []
    for now in range(7):
        observe(policy, TimePassed(float(now)))
        nudges.append(policy.policy_gate(0).nudges)

    assert nudges == [0, 1, 2, 3, 4, 4, 4]
    assert seen(policy) == (BUGGY, "SILENT", 33)
    assert policy.policy_verdict().defects == ()
    assert policy.policy_verdict().evidence[-1] == Evidence(
        "5 s of silence", "The driver did not ask for its target, and does not act."
    )


def test_it_is_said_if_it_knows_its_target():
    policy = after(TargetRead(33), TimePassed(0), TimePassed(5))

    assert shows(policy)[-1] == "The driver has its target, and does not act."


def test_patience_is_an_option():
    for patience in (1, "7"):
        policy = after(TimePassed(0), patience=patience)
        observe(policy, TimePassed(int(patience) - 0.1))
        assert seen(policy)[1] == "FILL"

        observe(policy, TimePassed(int(patience)))

        assert seen(policy)[1] == "SILENT"
        assert events(policy)[-1] == f"{patience} s of silence"


def test_no_driver_is_no_silence():
    # A firmware or a front end may read the space, too.
    policy = after(TargetRead(33), *map(TimePassed, range(100)), features=None)

    assert seen(policy) == (UNDECIDED, "FILL", 33)
    assert policy.policy_gate(0).nudges == 0


@pytest.mark.parametrize(
    "sign", [FeaturesAcked(0), DriverReady(), PagesInflated((HIGH,))]
)
def test_what_only_a_driver_does_begins_its_time(sign):
    policy = after(sign, TimePassed(0), TimePassed(5), features=None)

    assert seen(policy)[:2] == (BUGGY, "SILENT")


def test_every_move_begins_its_time_anew():
    policy = after(TargetRead(33))
    for second in range(10):
        moved = PagesInflated((HIGH + second,))
        observe(policy, TimePassed(second * 4), TimePassed(second * 4 + 4), moved)

    assert seen(policy)[1] == "FILL"


def test_a_clock_that_goes_back_begins_it_anew():
    policy = after(TimePassed(1000.0), TimePassed(3.0), TimePassed(7.0))
    assert seen(policy)[1] == "FILL"

    observe(policy, TimePassed(8.0))

    assert seen(policy)[1] == "SILENT"


def test_a_silent_driver_is_woken_less_and_less_often():
    # It may have found no memory, and finds some later: OpenBSD, Windows.
    policy = after(TimePassed(0), TimePassed(5))
    before = policy.policy_gate(0).nudges

    woken = []
    for second in range(100):
        observe(policy, TimePassed(10.0 + second))
        nudges = policy.policy_gate(0).nudges
        if nudges > before + len(woken):
            woken.append(second)

    assert woken == [1, 2, 4, 8, 16, 32, 64]
    assert seen(policy)[1] == "SILENT"


def test_a_silent_driver_that_acts_goes_on_where_it_was():
    policy = after(TimePassed(0), TimePassed(5))
    observe(policy, TargetRead(33), ActualWritten(0))
    assert seen(policy)[1] == "SILENT"

    observe(policy, *FILLED, *SHRUNK)

    assert seen(policy, 7) == (GOOD, "GOOD", 7)
    assert "The driver acts after all." in shows(policy)


def test_a_driver_that_never_saw_the_smaller_target_is_silent():
    policy = after(*FILLED, TimePassed(0), TimePassed(5))
    assert seen(policy) == (BUGGY, "SILENT", 1)
    assert policy.policy_verdict().defects == ()

    observe(policy, *SHRUNK)

    assert seen(policy)[0] is GOOD


def test_a_driver_that_saw_it_does_not_deflate():
    policy = after(*FILLED, TargetRead(1), TimePassed(0), TimePassed(5))

    assert seen(policy) == (BUGGY, "HELD", 33)
    assert policy.policy_verdict().defects == (Defect.NO_DEFLATE,)
    assert "The driver does not deflate." in shows(policy)


def test_until_it_does():
    policy = after(*FILLED, TargetRead(1), TimePassed(0), TimePassed(5))

    observe(policy, PagesDeflated(pages(32, HIGH + 1)), ActualWritten(1))

    assert seen(policy) == (UNDECIDED, "FILL", 2)
    assert policy.policy_verdict().defects == ()
    observe(policy, TargetRead(2), PagesInflated((HIGH + 1,)), ActualWritten(2))
    observe(policy, TargetRead(1), PagesDeflated((HIGH + 1,)), ActualWritten(1))
    assert seen(policy)[0] is GOOD
    assert "The driver acts after all." in shows(policy)


def test_a_driver_that_cannot_get_more_is_judged_by_what_it_has():
    policy = after(TargetRead(33), PagesInflated(pages(11)), ActualWritten(11))
    assert seen(policy) == (UNDECIDED, "FILL", 33)

    observe(policy, TimePassed(0), TimePassed(5))

    assert seen(policy) == (UNDECIDED, "SHRINK", 1)
    assert "No more memory: go on with what there is." in shows(policy)
    observe(policy, TargetRead(1), PagesDeflated(pages(10, HIGH + 1)), ActualWritten(1))
    assert seen(policy)[0] is GOOD


def test_one_page_alone_is_too_little():
    policy = after(TargetRead(33), PagesInflated((HIGH,)), ActualWritten(1))

    observe(policy, TimePassed(0), TimePassed(5))

    assert seen(policy) == (BUGGY, "SILENT", 33)


def test_a_driver_that_never_writes_actual_is_usable():
    policy = after(*FILLED[:2], TimePassed(0), TimePassed(5))
    assert seen(policy) == (UNDECIDED, "SHRINK", 1)
    assert policy.policy_verdict().defects == (Defect.NO_ACTUAL,)
    assert "The driver never writes actual." in shows(policy)

    observe(policy, *SHRUNK[:2])

    assert seen(policy, 70) == (BUGGY, "WORKING", 70)
    assert policy.policy_verdict().defects == (Defect.NO_ACTUAL,)
    assert policy.policy_gate(70).reclaim


def test_nor_one_that_writes_something_else():
    policy = after(*FILLED[:2], ActualWritten(7), TimePassed(0), TimePassed(5))

    assert policy.policy_verdict().defects == (Defect.NO_ACTUAL,)
    assert "The driver does not write its size." in shows(policy)


def test_one_that_writes_it_after_all_is_good():
    policy = after(*FILLED[:2], TimePassed(0), TimePassed(5), *SHRUNK[:2])

    observe(policy, ActualWritten(1))

    assert seen(policy, 70) == (GOOD, "GOOD", 70)
    assert policy.policy_verdict().defects == ()
    assert shows(policy)[-1] == "The driver writes it after all."


def test_a_wrong_actual_does_not_take_it_back():
    policy = after(*FILLED[:2], TimePassed(0), TimePassed(5), *SHRUNK[:2])

    observe(policy, ActualWritten(2))

    assert seen(policy)[:2] == (BUGGY, "WORKING")


@pytest.mark.parametrize("buffer", [pages(33), SHIFTED, (5, 5), (2**32 - 1,) * 2])
def test_time_is_no_matter_once_it_is_decided(buffer):
    policy = after(TargetRead(33), PagesInflated(buffer), ActualWritten(33), *SHRUNK)
    before = policy.policy_gate(1), policy.policy_verdict()
    assert before[1].judgement is not UNDECIDED

    observe(policy, *map(TimePassed, range(100)), requested=1)

    assert (policy.policy_gate(1), policy.policy_verdict()) == before


def test_silence_before_a_correction_is_forgotten():
    policy = after(TimePassed(0), TimePassed(5))
    assert seen(policy)[1] == "SILENT"

    observe(policy, GuestDescribed(GuestFacts(RAM, BIG)))

    assert seen(policy) == (UNDECIDED, "FILL", 33)


# --- a driver that is believed ------------------------------------------------------


def nudges(policy, seconds, requested):
    """Return at which of some seconds the driver is woken."""
    woken, before = [], policy.policy_gate(requested).nudges
    for now in seconds:
        observe(policy, TimePassed(float(now)), requested=requested)
        if policy.policy_gate(requested).nudges > before:
            woken.append(now)
        before = policy.policy_gate(requested).nudges
    return woken


def test_a_believed_driver_that_is_short_of_its_target_is_woken():
    policy = after(TargetRequested(50), *FILLED, *SHRUNK)

    assert nudges(policy, range(20), 50) == [1, 2, 4, 8, 16]
    assert seen(policy, 50) == (GOOD, "GOOD", 50)


def test_it_is_woken_as_often_after_each_move():
    policy = after(*FILLED, *SHRUNK)
    assert nudges(policy, range(4), 50) == [1, 2]

    observe(policy, TargetRead(50), PagesInflated(pages(9, HIGH + 50)), requested=50)

    assert nudges(policy, range(4, 8), 50) == [5, 6]


def test_it_is_woken_as_often_for_each_target():
    policy = after(*FILLED, *SHRUNK)
    assert nudges(policy, range(6), 50) == [1, 2, 4]

    observe(policy, TargetRequested(60), requested=60)

    assert nudges(policy, range(6, 10), 60) == [7, 8]


def test_a_driver_that_has_its_target_sleeps_on():
    policy = after(*FILLED, *SHRUNK)

    assert nudges(policy, range(9), 1) == []
    assert nudges(policy, range(9, 18), 0) == []


def test_nor_is_one_woken_that_gave_pages_back_of_its_own_accord():
    policy = after(*FILLED, *SHRUNK)
    observe(policy, TargetRead(50), PagesInflated(pages(49, HIGH + 50)), requested=50)
    observe(policy, PagesDeflated(pages(20, HIGH + 50)), requested=50)
    assert nudges(policy, range(9), 50) == []

    observe(policy, TargetRequested(60), requested=60)

    assert nudges(policy, range(9, 12), 60) == [10, 11]


def test_in_whole_pages_it_may_have_its_target():
    facts = GuestFacts(RAM, LITTLE, 65536)
    policy = after(features=VERSION_1, facts=facts, align=False)
    observe(policy, TargetRead(50), PagesInflated(pages(64)), requested=50)
    assert nudges(policy, range(9), 50) == []

    assert nudges(policy, range(9, 12), 65) == [10, 11]


# --- a driver that is held ----------------------------------------------------------

NEVER_DEFLATES = (
    *(TargetRead(33), PagesInflated(pages(33)), ActualWritten(33)),
    *(TargetRead(1), PagesInflated(pages(256, HIGH + 33)), ActualWritten(289)),
    TargetRead(289),
)
"""Linux 2.6.25, or a big-endian driver that found little memory at first."""


def test_a_held_driver_at_rest_reads_what_it_has():
    policy = after(*NEVER_DEFLATES, features=0)
    assert seen(policy) == (BUGGY, "HELD", 289)
    assert policy.policy_verdict().defects == ()

    observe(policy, *[TimePassed(float(now)) for now in range(7)])

    assert policy.policy_verdict().defects == (Defect.NO_DEFLATE,)
    assert seen(policy) == (BUGGY, "HELD", 289)
    assert "Only Linux 2.6.25 with pages of 4 KiB would do this." in shows(policy)


def test_one_that_reads_on_is_not_at_rest():
    policy = after(*NEVER_DEFLATES, features=0)

    for now in range(20):
        observe(policy, TimePassed(float(now)), TargetRead(289))

    assert policy.policy_verdict().defects == ()


def test_nor_is_one_that_has_not_read_what_it_is_shown():
    policy = after(*NEVER_DEFLATES[:-1], features=0)

    observe(policy, *[TimePassed(float(now)) for now in range(20)])

    assert policy.policy_verdict().defects == ()


def test_rest_is_no_reason_to_wake_a_driver():
    policy = after(*NEVER_DEFLATES, features=0)

    assert nudges(policy, range(20), 0) == []
