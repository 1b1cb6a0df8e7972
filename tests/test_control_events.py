"""What clients are told, and how often."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from control_kit import RAM
from fakes import ScriptedPolicy, follow, rig

from balloon_plugin import events as facts
from balloon_plugin.control.events import INTERVAL, News, event_line, may_be_news
from balloon_plugin.events import Defect, Evidence, Judgement, Verdict


@pytest.fixture
def status():
    """What a query shows of a guest whose driver is there."""
    made = rig(ScriptedPolicy(follow))
    made.write_actual(0)
    return made.device.query()


def told(before, **changes):
    """Return what is told of changes in what a query shows."""
    return News("vm", before).look(replace(before, **changes), 0.0)


def test_nothing_new_is_no_event(status):
    assert told(status, requested=5, advertised=5, reclaimed=3) == []


def test_a_balloon_that_changed_is_told_as_the_memory_that_the_guest_has(status):
    assert told(status, actual=16) == [
        ("BALLOON_CHANGE", {"id": "vm", "actual": RAM - 16 * 4096})
    ]


def test_pages_of_a_probe_are_no_change(status):
    assert told(replace(status, accepted=False), actual=16) == []


def test_a_verdict_is_told_with_its_newest_evidence(status):
    evidence = (Evidence("old", "Old."), Evidence("actual = 256", "It took more."))
    verdict = Verdict(Judgement.BUGGY, "HELD", (Defect.PFN_WIDTH,), evidence)

    assert told(status, verdict=verdict) == [
        (
            "BALLOON_VERDICT",
            {
                "id": "vm",
                "policy": "ScriptedPolicy",
                "judgement": "buggy",
                "state": "HELD",
                "defects": ["PFN_WIDTH"],
                "evidence": [{"event": "actual = 256", "shows": "It took more."}],
            },
        )
    ]


def test_more_evidence_for_the_same_verdict_is_no_event(status):
    verdict = replace(status.verdict, evidence=(Evidence("x", "X."),))

    assert told(status, verdict=verdict) == []


def test_a_fault_is_told_with_its_sentence(status):
    assert told(status, faults=3, last_fault="it lied") == [
        ("BALLOON_FAULT", {"id": "vm", "faults": 3, "last-fault": "it lied"})
    ]


def test_faults_that_a_reset_forgot_are_no_event(status):
    assert told(replace(status, faults=3), faults=0) == []


def test_what_was_told_is_not_told_again(status):
    news = News("vm", status)
    changed = replace(status, actual=16)

    assert news.look(changed, 0.0)
    assert news.look(changed, 5.0) == []


def test_the_next_look_is_later_after_an_event(status):
    news = News("vm", status)

    news.look(status, 5.0)
    assert 5.0 < news.due < 5.0 + INTERVAL
    news.look(replace(status, actual=16), 6.0)
    assert news.due == 6.0 + INTERVAL


def test_an_event_has_the_time_of_day():
    sent = event_line("BALLOON_CHANGE", {"actual": 1}, 1692.25)

    assert sent.endswith(b"\r\n")
    assert json.loads(sent) == {
        "timestamp": {"seconds": 1692, "microseconds": 250000},
        "event": "BALLOON_CHANGE",
        "data": {"actual": 1},
    }


@pytest.mark.parametrize(
    ("event", "news"),
    [
        (facts.ActualWritten(1), True),
        (facts.DeviceReset(), True),
        (facts.GuestFault("x"), True),
        (facts.PagesInflated((1,)), False),
        (facts.TimePassed(1.0), False),
    ],
)
def test_only_what_a_query_would_show_stirs(event, news):
    assert may_be_news(event) is news
