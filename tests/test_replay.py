"""Replays: a recording leads to the same under the same policy, and says where not."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from fakes import ScriptedPolicy

from balloon_plugin import make_device
from balloon_plugin.events import (
    Answer,
    DeviceReset,
    Gate,
    GateChanged,
    PagesReclaimed,
    PolicyChanged,
    ShadowDiverged,
    TargetAnswered,
    TargetRead,
    VerdictChanged,
)
from balloon_plugin.guests import Guest, find
from balloon_plugin.guests.profiles import GUESTS
from balloon_plugin.hosts.simulated import Setup, SimulatedHost
from balloon_plugin.replay import conclude, replay
from balloon_plugin.trace import Concluded, Moment, decode, read, recording

POLICIES = ["none", "probe", "feature-bit", "evidence"]


@pytest.fixture
def recorded(tmp_path):
    """Record a simulated guest that is asked for memory, and gives it back."""

    def record(guest, policy, name=None, asked=1024):
        profile = find(guest)
        device = make_device(policy, name=name)
        with recording(device, tmp_path / "x", guest=guest) as recorder:
            host = SimulatedHost(device, Setup(byte_order=profile.byte_order))
            driver = Guest(profile, host)
            for target in (None, asked, 0):
                if target is not None:
                    device.set_target(target)
                driver.run(1000)
                host.advance(8.0)
                driver.run(1000)
        host.close()
        header, moments = decode(read(recorder.path))
        return header, list(moments)

    return record


def again(trace, policy=None):
    return conclude(trace[0], replay(*trace, policy))


# --- the same policy ----------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("guest", list(GUESTS)[::7])
def test_the_same_policy_comes_to_the_same(recorded, guest, policy):
    trace = recorded(guest, policy)

    result = again(trace)

    assert (result.strays, result.faithful) == ("", True)
    assert result.divergences == 0


@pytest.mark.parametrize("policy", POLICIES)
def test_so_it_does_for_a_session_that_was_taken_over(tmp_path, policy):
    first, second = make_device(policy), make_device(policy)
    with SimulatedHost(first) as host, recording(second, tmp_path / "x"):
        guest = Guest(find("linux-3.4-le-4k"), host)
        guest.run(12)
        host.migrate(second)
        guest.run(10_000)
        second.set_target(1000)
        guest.run(10_000)

    header, moments = decode(read(tmp_path / "x"))
    result = conclude(header, replay(header, moments))
    assert (result.strays, result.divergences) == ("", 0)
    assert result.sessions


def test_a_policy_that_is_another_by_now_strays_and_it_is_said_where(recorded):
    header, moments = recorded("linux-3.4-le-4k", "probe")
    number = next(
        i for i, moment in enumerate(moments) if isinstance(moment.entry, GateChanged)
    )
    gate = replace(moments[number].entry.gate, num_pages=15)
    moments[number] = Moment(moments[number].at, GateChanged(gate))

    result = again((header, moments))

    assert result.faithful is False
    assert result.strays.startswith("event 1: the gate was Gate(num_pages=15,")


@pytest.mark.parametrize("kind", [VerdictChanged, Concluded])
def test_evidence_is_compared_to_the_letter(recorded, kind):
    header, moments = recorded("linux-3.4-le-4k", "probe")
    for number, moment in enumerate(moments):
        if isinstance(moment.entry, kind) and moment.entry.verdict.evidence:
            verdict = moment.entry.verdict
            first, *rest = verdict.evidence
            other = replace(verdict, evidence=(replace(first, shows="It is."), *rest))
            moments[number] = Moment(moment.at, kind(other))

    assert "the verdict was" in again((header, moments)).strays


def test_a_conclusion_that_was_not_told_strays(recorded):
    header, moments = recorded("linux-3.4-le-4k", "probe")
    silent = [each for each in moments if not isinstance(each.entry, VerdictChanged)]

    assert "the verdict was" in again((header, silent)).strays


# --- another policy -----------------------------------------------------------------


def test_another_policy_is_marked_where_it_differs_and_where_it_guesses(recorded):
    trace = recorded("linux-3.4-le-4k", "evidence")

    result = again(trace, "probe")

    (session,) = result.sessions
    assert result.faithful is None
    assert session.shadow.diverged.at < session.shadow.guesses.at
    assert session.recorded.state == "GOOD"


def test_a_passive_policy_never_guesses(recorded):
    (session,) = again(recorded("linux-3.3-be-64k", "evidence"), "none").sessions

    assert session.shadow.guesses is None
    assert session.shadow.diverged is not None


def test_an_object_can_be_tried_and_a_trace_of_one_too(recorded):
    trace = recorded("linux-3.4-le-4k", ScriptedPolicy(), name="mine")

    assert trace[0].policy == "mine"
    assert again(trace, "none").sessions
    assert again(trace, ScriptedPolicy()).faithful is None


# --- step by step -------------------------------------------------------------------


def test_a_step_is_an_event_with_all_that_came_of_it(recorded):
    trace = recorded("linux-3.4-le-4k", "evidence")
    steps = list(replay(*trace, "probe"))

    entries = [entry for step in steps for entry in (step.event, *step.told)]
    assert entries == [moment.entry for moment in trace[1]]
    assert [step.shadow.events for step in steps] == list(range(1, len(steps) + 1))
    assert any(isinstance(e, PagesReclaimed) for step in steps for e in step.told)
    (read_first, *_) = [s for s in steps if isinstance(s.event, TargetRead)]
    assert read_first.gate.num_pages == read_first.event.num_pages


def test_news_are_with_the_event_that_brought_them(recorded):
    steps = list(replay(*recorded("linux-3.4-le-4k", "evidence"), "probe"))

    assert all(news.at == step.shadow.events for step in steps for news in step.news)
    assert isinstance(steps[0].news[0], ShadowDiverged)


def test_a_target_that_was_refused_at_once_is_a_step_of_its_own(recorded):
    steps = list(replay(*recorded("linux-3.3-be-64k", "evidence"), "none"))

    refused = [step for step in steps if isinstance(step.event, TargetAnswered)]
    assert [step.event.asked for step in refused] == [1024, 0]
    assert refused[0].shadow.gate.num_pages == 1024


# --- sessions -----------------------------------------------------------------------


def test_a_session_ends_before_its_reset(recorded):
    header, moments = recorded("linux-3.4-le-4k", "probe")
    end = Moment(moments[-1].at, DeviceReset())

    result = again((header, [*moments[:-1], end]), "none")

    (session,) = result.sessions
    assert session.last == result.events - 1
    assert session.shadow.verdict.state == "BELIEVED"


def test_where_no_driver_is_there_is_no_session(recorded):
    result = again(recorded("no-driver", "probe"))

    assert result.sessions == ()
    assert result.events > 0


def test_of_an_empty_trace_nothing_comes(recorded):
    header, _ = recorded("no-driver", "probe")

    result = again((header, []))

    assert (result.events, result.seconds, result.sessions) == (0, 0.0, ())
    assert result.faithful


def test_it_goes_through_json(recorded):
    result = again(recorded("linux-3.4-le-4k", "evidence"), "probe")

    plain = json.loads(json.dumps(result.as_dict()))

    (session,) = plain["sessions"]
    assert (plain["policy"], plain["recorded"]) == ("probe", "evidence")
    assert session["recorded_state"] == "GOOD"
    assert session["guesses_from"] == result.sessions[0].shadow.guesses.at
    assert session["diverges_from"] == 2


def test_after_another_policy_came_nothing_is_expected_of_the_first(recorded):
    header, moments = recorded("linux-3.4-le-4k", "probe")
    change = Moment(moments[-1].at, PolicyChanged("none", held=False))
    other = GateChanged(Gate(7, reclaim=True, targets=Answer.ACCEPTED))
    after = Moment(moments[-1].at, other)

    assert again((header, [*moments, after])).faithful is False
    assert again((header, [*moments, change, after])).strays == ""
