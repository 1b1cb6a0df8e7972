"""A policy sees events and nothing else, so its tests need no guest and no device."""
# ruff: noqa: S101 - pytest is made of assert

from __future__ import annotations

import json

import pytest
from balloon_plugin_patience import PatiencePolicy

from balloon_plugin.errors import PluginError
from balloon_plugin.events import (
    ActualWritten,
    Answer,
    DeviceReset,
    Event,
    Gate,
    Judgement,
    TimePassed,
)

REQUESTED = 4096
OPEN = Gate(REQUESTED, reclaim=True, targets=Answer.ACCEPTED)


def after(*events: Event) -> PatiencePolicy:
    policy = PatiencePolicy(pages=16, seconds=5)
    for event in events:
        policy.policy_observe(event)
    return policy


def judgement(policy: PatiencePolicy) -> Judgement:
    return policy.policy_verdict().judgement


def test_it_asks_for_a_few_pages_and_reclaims_none() -> None:
    gate = after().policy_gate(REQUESTED)

    assert gate == Gate(
        16,
        reclaim=False,
        targets=Answer.DEFERRED,
        reason="the driver has to be content with 16 pages for a while",
    )
    assert judgement(after()) is Judgement.UNDECIDED


def test_a_driver_that_leaves_it_at_that_is_believed_in_time() -> None:
    policy = after(ActualWritten(16), TimePassed(100), TimePassed(104.9))
    assert judgement(policy) is Judgement.UNDECIDED

    policy.policy_observe(TimePassed(105))

    assert policy.policy_gate(REQUESTED) == OPEN
    [evidence] = policy.policy_verdict().evidence
    assert evidence.event == "actual = 16"


def test_writing_the_same_again_does_not_restart_the_clock() -> None:
    policy = after(
        ActualWritten(16), TimePassed(100), ActualWritten(16), TimePassed(105)
    )

    assert judgement(policy) is Judgement.GOOD


def test_a_change_restarts_the_clock() -> None:
    policy = after(
        ActualWritten(16),
        TimePassed(100),
        ActualWritten(12),
        TimePassed(105),
        ActualWritten(16),
        TimePassed(106),
        TimePassed(110),
    )

    assert judgement(policy) is Judgement.UNDECIDED


def test_a_driver_that_took_less_is_waited_for() -> None:
    policy = after(ActualWritten(10), TimePassed(100), TimePassed(10_000))

    assert judgement(policy) is Judgement.UNDECIDED


def test_a_driver_that_takes_too_much_is_refused() -> None:
    policy = after(ActualWritten(256), TimePassed(100))

    gate = policy.policy_gate(REQUESTED)
    assert (gate.num_pages, gate.reclaim) == (0, False)
    assert gate.targets is Answer.REFUSED
    assert judgement(policy) is Judgement.BUGGY


def test_a_buggy_driver_that_is_short_of_memory_does_not_pass() -> None:
    # It has 16 pages to spare at first. The RFC's probe believes this one.
    policy = after(ActualWritten(16), TimePassed(100), ActualWritten(272))

    assert judgement(policy) is Judgement.BUGGY


BUGGY = (ActualWritten(256),)
GOOD = (ActualWritten(16), TimePassed(100), TimePassed(105))


@pytest.mark.parametrize("first", [BUGGY, GOOD])
@pytest.mark.parametrize("then", [BUGGY, GOOD])
def test_a_verdict_stays_until_the_driver_is_reset(
    first: tuple[Event, ...], then: tuple[Event, ...]
) -> None:
    policy = after(*first, *then)

    assert policy.policy_verdict() == after(*first).policy_verdict()
    policy.policy_observe(DeviceReset())
    assert judgement(policy) is Judgement.UNDECIDED


@pytest.mark.parametrize("events", [(), BUGGY, GOOD])
def test_a_saved_verdict_survives_json(events: tuple[Event, ...]) -> None:
    policy, restored = after(*events), after()

    restored.policy_load(json.loads(json.dumps(policy.policy_save())))

    assert restored.policy_verdict() == policy.policy_verdict()


def test_a_wait_begins_anew_where_the_clock_is_another() -> None:
    restored = after(TimePassed(3))

    restored.policy_load(after(ActualWritten(16), TimePassed(100)).policy_save())
    restored.policy_observe(TimePassed(4))
    restored.policy_observe(TimePassed(8.9))
    assert judgement(restored) is Judgement.UNDECIDED
    restored.policy_observe(TimePassed(9))

    assert judgement(restored) is Judgement.GOOD


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "not a valid Judgement"),
        ({"judgement": "splendid", "actual": 0}, "not a valid Judgement"),
        ({"judgement": "good"}, "no number of pages"),
        ({"judgement": "good", "actual": -1}, "no number of pages"),
    ],
)
def test_a_damaged_state_is_refused(state: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        after().policy_load(state)


@pytest.mark.parametrize("options", [{"pages": "0"}, {"seconds": "soon"}])
def test_options_are_checked(options: dict[str, str]) -> None:
    with pytest.raises(PluginError, match="takes a whole number"):
        PatiencePolicy(**options)
