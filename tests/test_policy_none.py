"""The policy that believes everyone."""

from __future__ import annotations

import json

import pytest

from balloon_plugin.events import (
    ActualWritten,
    Answer,
    DeviceReset,
    DriverReady,
    FeaturesAcked,
    Gate,
    GuestDescribed,
    GuestFacts,
    Judgement,
    PagesDeflated,
    PagesInflated,
    StatsReceived,
    TargetRead,
    TargetRequested,
    TimePassed,
    Verdict,
)
from balloon_plugin.policies.none import NonePolicy

SIGNS = [
    (FeaturesAcked(0), "features acked"),
    (DriverReady(), "driver ready"),
    (TargetRead(0), "num_pages read"),
    (ActualWritten(0), "actual written"),
    (PagesInflated((1,)), "pages inflated"),
    (PagesDeflated((1,)), "pages deflated"),
    (StatsReceived(()), "statistics received"),
]
OF_THE_HOST = [
    GuestDescribed(GuestFacts(ram=())),
    TargetRequested(7),
    TimePassed(3.0),
    DeviceReset(),
]
UNDECIDED = Verdict(Judgement.UNDECIDED, "WAITING")


def open_gate(num_pages):
    return Gate(num_pages, reclaim=True, targets=Answer.ACCEPTED)


@pytest.mark.parametrize("requested", [0, 1, 32768, 2**32 - 1])
def test_gate_is_open_before_there_is_a_driver(requested):
    assert NonePolicy().policy_gate(requested) == open_gate(requested)


@pytest.mark.parametrize("event", OF_THE_HOST)
def test_nobody_is_judged_before_the_first_sign_of_a_driver(event):
    policy = NonePolicy()

    policy.policy_observe(event)

    assert policy.policy_verdict() == UNDECIDED


@pytest.mark.parametrize(("event", "words"), SIGNS)
def test_any_sign_of_a_driver_is_good_enough(event, words):
    policy = NonePolicy()

    policy.policy_observe(event)

    verdict = policy.policy_verdict()
    assert (verdict.judgement, verdict.state) == (Judgement.GOOD, "BELIEVED")
    assert verdict.defects == ()
    [evidence] = verdict.evidence
    assert evidence.event == words
    assert "believed without looking" in evidence.shows
    assert policy.policy_gate(9) == open_gate(9)


def test_the_first_sign_is_the_evidence():
    policy = NonePolicy()

    for event, _ in SIGNS:
        policy.policy_observe(event)

    assert [one.event for one in policy.policy_verdict().evidence] == ["features acked"]


def test_a_verdict_dies_with_its_driver():
    policy = NonePolicy()
    policy.policy_observe(ActualWritten(268435456))

    policy.policy_observe(DeviceReset())

    assert policy.policy_verdict() == UNDECIDED
    assert policy.policy_gate(9) == open_gate(9)


@pytest.mark.parametrize("seen", [[], [PagesInflated((1,))]])
def test_saved_state_survives_json(seen):
    policy, restored = NonePolicy(), NonePolicy()
    for event in seen:
        policy.policy_observe(event)

    restored.policy_load(json.loads(json.dumps(policy.policy_save())))

    assert restored.policy_verdict() == policy.policy_verdict()


@pytest.mark.parametrize(
    "state", [{}, {"sign": ""}, {"sign": "smoke"}, {"sign": 3}, {"sign": []}]
)
def test_damaged_state_is_refused_and_changes_nothing(state):
    policy = NonePolicy()
    policy.policy_observe(DriverReady())
    before = policy.policy_verdict()

    with pytest.raises(ValueError, match="knows no sign"):
        policy.policy_load(state)

    assert policy.policy_verdict() == before
