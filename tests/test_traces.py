"""The policies, run against what real guests did: the traces in tests/traces.

If a policy is changed on purpose, ``python tests/record_traces.py --verdicts`` writes
down what it concludes now; look at the difference. If it shows its guests other targets
than before, the traces that were made under it have to be recorded anew, ``python
tests/record_traces.py --policy NAME``.
"""

from __future__ import annotations

import pytest
from record_traces import (
    POLICIES,
    TRACES,
    VERDICTS,
    load,
    names,
    path_of,
    replayed,
    verdicts,
)

from balloon_plugin.events import (
    GateChanged,
    Judgement,
    PagesInflated,
    VerdictChanged,
)
from balloon_plugin.replay import conclude, replay
from balloon_plugin.trace import Concluded, Moment, decode, encode

NAMES = names()

SETTLED = ("none", "probe", "feature-bit")
"""Policies that have said the same words for long, as ``evidence`` has not."""


def live_in(name):
    """Return the policy that had the power when a trace was recorded."""
    return name.split(".")[-1]


def test_there_is_a_trace_of_each_guest_under_each_policy():
    assert sorted(path.name for path in TRACES.glob("*.jsonl*")) == sorted(
        path_of(name).name for name in NAMES
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_trace_is_whole(name):
    header, moments = load(name)

    assert header.policy == live_in(name)
    assert isinstance(moments[-1].entry, Concluded)
    assert [moment.at for moment in moments] == sorted(moment.at for moment in moments)


@pytest.mark.parametrize("name", NAMES)
def test_the_policy_that_was_live_comes_to_the_same_verdict(name):
    (session,) = replayed(name, live_in(name)).sessions

    verdict, recorded = session.shadow.verdict, session.recorded
    assert verdict.judgement is recorded.judgement
    assert verdict.defects == recorded.defects
    assert session.shadow.guesses is None


@pytest.mark.parametrize("name", [name for name in NAMES if live_in(name) in SETTLED])
def test_a_policy_whose_words_are_settled_tells_the_same_to_the_byte(name):
    assert replayed(name, live_in(name)).strays == ""


@pytest.mark.parametrize("name", NAMES)
def test_what_a_policy_tells_today_it_tells_again_to_the_byte(name):
    header, moments = load(name)
    today = [encode(header), *map(encode, retold(replay(header, moments)))]

    header, moments = decode(today)

    assert conclude(header, replay(header, moments)).strays == ""


def retold(steps):
    """Yield the moments of a trace as it were if it was recorded today."""
    gate = verdict = None
    for step in steps:
        yield Moment(step.at, step.event)
        if step.shadow.gate != gate:
            gate = step.shadow.gate
            yield Moment(step.at, GateChanged(gate))
        if step.shadow.verdict != verdict:
            verdict = step.shadow.verdict
            yield Moment(step.at, VerdictChanged(verdict))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("policy", POLICIES)
def test_another_policy_differs_from_some_event_on(name, policy):
    (session,) = replayed(name, policy).sessions

    assert (session.shadow.diverged is None) == (policy == live_in(name))


@pytest.mark.parametrize("name", NAMES)
def test_a_test_that_the_guest_never_saw_is_only_a_guess(name):
    guesses = {
        policy: session.shadow.guesses is not None
        for policy in ("none", "probe")
        for session in replayed(name, policy).sessions
    }

    assert guesses == {"none": False, "probe": live_in(name) != "probe"}


@pytest.mark.parametrize(
    "name", [name for name in NAMES if ".stock." in name and "feature" not in name]
)
def test_evidence_calls_no_right_driver_buggy_whatever_it_was_shown(name):
    (session,) = replayed(name, "evidence").sessions

    assert session.shadow.verdict.judgement is not Judgement.BUGGY


def test_what_all_policies_conclude_of_all_guests_is_as_written_down():
    found = [
        line
        for name in sorted(NAMES)
        for policy in POLICIES
        for line in verdicts(name, policy)
    ]

    assert found == VERDICTS.read_text().splitlines()


@pytest.mark.parametrize("name", NAMES)
def test_a_trace_is_small(name):
    _, moments = load(name)
    pages = sum(
        len(moment.entry.pfns)
        for moment in moments
        if isinstance(moment.entry, PagesInflated)
    )

    assert path_of(name).stat().st_size < 4096 + pages
