from __future__ import annotations

from dataclasses import replace

import pytest

from balloon_plugin.boot.guest import Broken, Ended, Heard, Seen
from balloon_plugin.boot.plan import Kind
from balloon_plugin.boot.view import (
    LARGEST_PAGE,
    LAST_WORDS,
    MAX_FAULTS,
    TESTED,
    View,
)
from balloon_plugin.events import (
    ActualWritten,
    Answer,
    Defect,
    DriverReady,
    Evidence,
    Gate,
    GateChanged,
    GuestFault,
    Judgement,
    PluginFailed,
    TargetAnswered,
    TargetReply,
    Translation,
    Verdict,
    VerdictChanged,
)

NUMBERS = "GUEST up=1.00 MemTotal=100 MemFree=50 MemAvailable=50 infl=0/0"


def heard(view, *lines):
    for line in lines:
        assert list(view.take(Heard(0.0, line))) == []


def seen(view, *events):
    return [told for event in events for told in view.take(Seen(0.0, event))]


@pytest.fixture
def view():
    return View()


# --- the console --------------------------------------------------------------------


def test_a_guest_has_booted_when_it_says_so(view):
    heard(view, "GUEST Linux version 6.1.176")
    assert not view.booted

    heard(view, "GUEST ready up=1.52")
    assert view.booted


def test_a_report_counts_only_after_the_reply(view):
    heard(view, NUMBERS)
    assert view.report is None

    heard(view, "GUEST alloc 8 ok", NUMBERS)
    assert view.reply == "alloc 8 ok"
    assert view.report.free == 50 * 1024


def test_a_new_command_makes_the_last_answer_forgotten(view):
    heard(view, "GUEST insmod x -> 1", NUMBERS)

    view.forget_reply()
    assert (view.reply, view.failure, view.report) == (None, None, None)


@pytest.mark.parametrize(
    ("reply", "failure"),
    [
        ('insmod virtio_balloon "" -> 0', None),
        ('insmod virtio_balloon "" -> -2', 'insmod virtio_balloon "" -> -2'),
        ("alloc 8 ok", None),
        ("alloc 8 failed", "alloc 8 failed"),
    ],
)
def test_an_error_number_is_a_failure(view, reply, failure):
    heard(view, f"GUEST {reply}", "GUEST virtio0 driver=-")

    assert view.failure == failure


def test_the_first_trouble_is_the_one_that_counts(view):
    heard(view, "BUG: the first", "Call Trace:", "Kernel panic - not syncing: oops")

    assert view.trouble == "the guest's kernel oopsed: BUG: the first"


def test_the_newest_numbers_need_no_command(view):
    assert view.newest is None

    heard(view, NUMBERS, NUMBERS.replace("MemFree=50", "MemFree=40"), "something else")
    assert view.newest.free == 40 * 1024


def test_the_last_words_are_the_last_lines(view):
    heard(view, *"abcdefgh")

    assert view.last_words == " / ".join("abcdefgh"[-LAST_WORDS:])


def test_a_guest_that_said_nothing(view):
    assert view.last_words == "it said nothing"


def test_the_end_is_noted(view):
    assert list(view.take(Ended(0.0, -9))) == []

    assert view.ended == -9


def test_a_broken_daemon_breaks_the_story(view):
    with pytest.raises(ZeroDivisionError):
        list(view.take(Broken(0.0, ZeroDivisionError())))


# --- the device ---------------------------------------------------------------------


def test_pages_of_a_test_are_no_balloon(view):
    deferring = Gate(16, reclaim=False, targets=Answer.DEFERRED)
    seen(view, DriverReady(), GateChanged(deferring), ActualWritten(16))
    assert view.driver_ready
    assert not view.holds(16)

    seen(view, GateChanged(Gate(16, reclaim=True, targets=Answer.ACCEPTED)))
    assert view.holds(16)


def test_nothing_is_held_before_the_policy_spoke(view):
    assert not view.holds(0)
    assert not view.exceeds(0)


OPEN = Gate(1000, reclaim=True, targets=Answer.ACCEPTED)


def test_a_guest_takes_whole_pages_of_its_own(view):
    seen(view, GateChanged(OPEN), ActualWritten(1008))
    assert view.holds(1000)
    assert not view.holds(1009)

    seen(view, ActualWritten(1000 + LARGEST_PAGE))
    assert not view.holds(1000)


def test_an_empty_balloon_is_empty(view):
    seen(view, GateChanged(OPEN), ActualWritten(16))

    assert not view.holds(0)


def test_a_balloon_is_read_as_the_policy_says(view):
    translation = Translation(swap_actual=True)
    seen(
        view,
        ActualWritten(0x00100000),
        GateChanged(replace(OPEN, translation=translation)),
    )

    assert view.actual == 4096
    assert view.holds(4096)


def test_more_than_asked_for_and_tested_with_is_too_much(view):
    seen(view, GateChanged(OPEN), ActualWritten(1000 + TESTED))
    assert not view.exceeds(1000)

    seen(view, ActualWritten(1001 + TESTED))
    assert view.exceeds(1000)


def test_answers_to_the_user_are_told(view):
    told = seen(
        view,
        TargetAnswered(TargetReply(Answer.DEFERRED, "wait", 256)),
        TargetAnswered(TargetReply(Answer.ACCEPTED, "", 512)),
        TargetAnswered(TargetReply(Answer.REFUSED, "the driver is buggy", 0)),
    )

    assert told == [
        (Kind.BALLOON, "target of 1 MiB deferred: wait"),
        (Kind.BALLOON, "target of 2 MiB accepted"),
        (Kind.BALLOON, "target refused: the driver is buggy"),
    ]
    assert view.refusal == "the driver is buggy"


def test_states_are_told_with_what_they_rest_on(view):
    evidence = (
        Evidence("first", "Old."),
        Evidence("actual = 256", "It took too much."),
    )
    defects = (Defect.ENDIAN_TARGET,)
    told = seen(
        view,
        VerdictChanged(Verdict(Judgement.UNDECIDED, "TESTING")),
        VerdictChanged(Verdict(Judgement.BUGGY, "BUGGY", defects, evidence)),
    )

    assert told == [
        (Kind.POLICY, "TESTING"),
        (Kind.POLICY, f"BUGGY, it {defects[0].value} - actual = 256: It took too much"),
    ]
    assert view.states == ["TESTING", "BUGGY"]


def test_a_judgement_is_told_where_the_state_does_not_say_it(view):
    told = seen(view, VerdictChanged(Verdict(Judgement.GOOD, "BELIEVED")))

    assert told == [(Kind.POLICY, "BELIEVED (the driver is good)")]


def test_a_state_that_stays_is_noted_once(view):
    seen(
        view,
        VerdictChanged(Verdict(Judgement.BUGGY, "HELD")),
        VerdictChanged(Verdict(Judgement.BUGGY, "HELD", (Defect.NO_ACTUAL,))),
    )

    assert view.states == ["HELD"]


def test_faults_are_told_but_not_for_ever(view):
    told = seen(view, *[GuestFault("a loop", 0)] * 1000)

    assert told == [(Kind.PROBLEM, "the driver broke the specification: a loop")] * (
        MAX_FAULTS
    )


def test_a_plugin_that_fails_is_told(view):
    told = seen(view, PluginFailed("policy x", "policy_gate", "KeyError: 1"))

    assert told == [(Kind.PROBLEM, "policy x failed: KeyError: 1")]
