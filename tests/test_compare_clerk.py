"""What a run adds to a device: someone who takes notes, and features on offer."""

from __future__ import annotations

import pytest
from fakes import ScriptedPolicy, rig

from balloon_plugin import events, narrate
from balloon_plugin.compare.circumstance import Stop
from balloon_plugin.compare.clerk import Clerk, Offer, Phase, Teller
from balloon_plugin.events import Judgement, Verdict, VerdictChanged

INFLATED = events.PagesInflated((1, 2))
DEFLATED = events.PagesDeflated((1, 2))
SIGNS = {
    Stop.NEGOTIATED: events.FeaturesAcked(0),
    Stop.LOOKING: events.TargetRead(16),
    Stop.INFLATING: INFLATED,
    Stop.REPORTED: events.ActualWritten(2),
    Stop.DEFLATING: DEFLATED,
}


@pytest.fixture
def clerk():
    """A clerk of a guest that has done seven steps."""
    return Clerk(lambda: 7)


# --- phases and moments -------------------------------------------------------------


def test_every_moment_belongs_to_one_phase():
    stops = [stop for phase in Phase for stop in phase.stops]

    assert stops == list(Stop)


@pytest.mark.parametrize("stop", SIGNS, ids=lambda stop: stop.text)
def test_a_moment_comes_with_its_event(clerk, stop):
    clerk.wait(Phase.TEST)
    before = set(clerk.come)
    clerk.balloon_event(SIGNS[stop])

    assert before == set()
    assert clerk.come == {stop}


@pytest.mark.parametrize(
    ("phase", "event", "stop"),
    [
        (Phase.GROW, INFLATED, Stop.GROWING),
        (Phase.SHRINK, DEFLATED, Stop.SHRINKING),
    ],
)
def test_the_same_event_is_another_moment_in_another_phase(clerk, phase, event, stop):
    clerk.wait(Phase.TEST)
    clerk.balloon_event(event)
    clerk.wait(phase)
    afresh = set(clerk.come)
    for each in SIGNS.values():
        clerk.balloon_event(each)

    assert afresh == set()
    assert clerk.come == {stop}


def test_only_the_first_time_is_a_moment(clerk):
    clerk.wait(Phase.TEST)
    clerk.balloon_event(SIGNS[Stop.LOOKING])
    clerk.come.clear()
    clerk.balloon_event(SIGNS[Stop.LOOKING])

    assert not clerk.come


# --- notes --------------------------------------------------------------------------


def test_a_judgement_is_noted_with_the_steps_until_then():
    steps = iter((3, 9))
    clerk = Clerk(lambda: next(steps))
    clerk.balloon_event(VerdictChanged(Verdict(Judgement.GOOD, "A")))
    first = (clerk.judgement, clerk.steps)
    clerk.balloon_event(VerdictChanged(Verdict(Judgement.GOOD, "B")))
    same = (clerk.judgement, clerk.steps)
    clerk.balloon_event(VerdictChanged(Verdict(Judgement.BUGGY, "C")))

    assert first == same == (Judgement.GOOD, 3)
    assert (clerk.judgement, clerk.steps) == (Judgement.BUGGY, 9)


def test_missing_memory_is_counted_by_phase_and_time(clerk):
    clerk.wait(Phase.TEST)
    clerk.miss(16, 2.0)
    clerk.miss(4, 0.5)
    clerk.wait(Phase.SHRINK)
    clerk.miss(3, 1.0)

    assert clerk.page_seconds == {
        Phase.TEST: 34.0,
        Phase.GROW: 0.0,
        Phase.SHRINK: 3.0,
    }


def test_every_event_is_put_into_words():
    said = []
    Teller(said.append).balloon_event(INFLATED)

    assert said == [narrate.sentence(INFLATED)]


# --- features on offer --------------------------------------------------------------


@pytest.mark.parametrize(("wanted", "offered"), [(0, 4), (1 << 7, 4 | 1 << 7)])
def test_features_are_offered_besides_the_policys(wanted, offered):
    policy = ScriptedPolicy()
    policy.features = wanted
    made = rig(policy)
    before = made.device.get_features()
    made.device.plugins.register(Offer(4))

    assert made.device.get_features() == before | offered


def test_a_policy_that_says_nothing_of_features_is_no_hindrance():
    made = rig("none")
    made.device.plugins.register(Offer(4))

    assert made.device.get_features() & 4
