"""Timelines: what is made of events, in steps and in seconds."""

from __future__ import annotations

import pytest

from balloon_plugin import events
from balloon_plugin.compare.circumstances import find as find_circumstance
from balloon_plugin.events import Answer, Evidence, Gate, Judgement, Verdict
from balloon_plugin.guests.profiles import find
from balloon_plugin.report.axis import Axis
from balloon_plugin.report.drawings import numbered
from balloon_plugin.report.timeline import Ask, Level, Span, run_timeline, timeline

OPEN, GOOD = Judgement.UNDECIDED, Judgement.GOOD


def gate(target, **more):
    return events.GateChanged(
        Gate(target, reclaim=True, targets=Answer.ACCEPTED, **more)
    )


def verdict(judgement, state, *shown):
    evidence = tuple(Evidence(text, "shows it") for text in shown)
    return events.VerdictChanged(Verdict(judgement, state, evidence=evidence))


def asked(pages, answer=Answer.ACCEPTED):
    return events.TargetAnswered(events.TargetReply(answer, "", pages), pages)


def test_levels_are_what_changed():
    found = timeline(
        "probe",
        [
            (0.0, gate(16)),
            (0.5, events.TargetRead(16)),
            (1.0, events.ActualWritten(16)),
            (2.0, events.ActualWritten(16)),
        ],
    )

    assert found.levels == (Level(0), Level(0, 16), Level(1, 16, 16))
    assert (found.policy, found.end) == ("probe", 2.0)


def test_pages_that_the_host_holds_come_and_go():
    found = timeline(
        "",
        [
            (0, gate(0)),
            (1, events.PagesReclaimed(4, ((8, 4),))),
            (2, events.PagesDeflated((8, 9, 77))),
            (3, events.DeviceReset()),
            (4, events.PagesReclaimed(1, ((99, 1),))),
        ],
    )

    assert [level.reclaimed for level in found.levels] == [0, 4, 2, 0, 1]


def test_pages_are_those_that_the_driver_means():
    large = gate(0, translation=events.Translation(pages_per_pfn=16), entries=1)
    found = timeline(
        "",
        [
            (0, large),
            (1, events.PagesReclaimed(32, ((16, 32),))),
            (2, events.PagesDeflated((1, 2))),
        ],
    )

    assert found.levels[-1].reclaimed == 16


def test_without_a_gate_nobody_knows_what_a_driver_means():
    found = timeline("", [(0, events.PagesDeflated((1,)))])

    assert found.levels == (Level(0),)


def test_states_follow_one_another_and_evidence_is_told_once():
    found = timeline(
        "",
        [
            (0, verdict(OPEN, "TESTING")),
            (1, verdict(OPEN, "TESTING", "a", "b")),
            (2, verdict(GOOD, "GOOD", "a", "b", "c")),
            (3, events.DeviceReset()),
            (4, verdict(OPEN, "TESTING", "d")),
        ],
    )

    assert found.spans == (
        Span(0, "TESTING", OPEN),
        Span(2, "GOOD", GOOD),
        Span(4, "TESTING", OPEN),
    )
    assert [(one.at, one.evidence.event) for one in found.findings] == [
        (1, "a"),
        (1, "b"),
        (2, "c"),
        (4, "d"),
    ]
    assert numbered(found) == [("1-2", 1), ("3", 2), ("4", 4)]


def test_what_the_user_asks_for_is_told_with_the_answer():
    nobody_asked = events.TargetAnswered(
        events.TargetReply(Answer.REFUSED, "no", 0), None
    )
    found = timeline("", [(1, asked(512)), (2, nobody_asked)])

    assert found.asks == (Ask(1, 512, Answer.ACCEPTED),)


@pytest.mark.parametrize("policy", ["none", "feature-bit"])
def test_a_simulated_guest_has_a_timeline(policy):
    guest = find("linux-3.4-be-64k")

    found = run_timeline(guest, policy, find_circumstance("usual"))

    assert [ask.num_pages for ask in found.asks] == [1024, 0]
    assert found.asks[0].at < found.asks[1].at <= found.end
    most = max(level.reclaimed for level in found.levels)
    assert (most, found.levels[-1].reclaimed) == (1024 * (policy == "none"), 0)
    assert (
        found.outcome
        == {
            "none": "good, right; usable",
            "feature-bit": "buggy, wrong; unusable",
        }[policy]
    )


def test_a_harmed_guest_says_so():
    guest = find("linux-3.3-be-64k")

    found = run_timeline(guest, "none", find_circumstance("usual"))

    assert found.outcome == "good, wrong; 1020 pages harmed"


# --- the axis -----------------------------------------------------------------------


def steps(*happened):
    return timeline("", happened, unit="steps of the driver")


def test_phases_of_steps_stand_above_one_another():
    quick = steps((2, asked(8)), (4, asked(0)), (5, events.DriverReady()))
    slow = steps((50, asked(8)), (90, asked(0)), (99, events.DriverReady()))

    axis = Axis([quick, slow])

    assert axis.end == 3
    assert [at for at, _ in axis.phases] == [0, 1, 2]
    for each in (quick, slow):
        first, second = (axis.place(each, ask.at) for ask in each.asks)
        assert (first, second) == (1, 2)
    assert 0 < axis.place(quick, 1) < axis.place(slow, 20) < 1
    assert [text for _, text in axis.ticks] == ["10", "10"]


def test_later_steps_are_narrower():
    only = steps((100, events.DriverReady()))
    axis = Axis([only])

    widths = [axis.place(only, at + 1) - axis.place(only, at) for at in (0, 1, 10, 98)]

    assert widths == sorted(widths, reverse=True)


def test_in_a_recording_moments_are_the_steps_and_their_times_stand_below():
    moments = [(0.5 * at, events.ActualWritten(at)) for at in range(1, 25)]
    only = timeline("", [(0.25, asked(8)), *moments])

    axis = Axis([only])

    assert axis.end == 2
    assert axis.place(only, 0.25) == 1
    assert 1 < axis.place(only, 0.5) < axis.place(only, 12.0) == 2
    assert [text for _, text in axis.ticks] == ["1.00 s", "2.50 s", "5.00 s"]


def test_a_guest_that_is_never_asked_has_one_phase():
    only = timeline("", [(1.0, events.ActualWritten(8)), (2.0, asked(0))])

    axis = Axis([only])

    assert axis.place(only, 1.0) < 1
