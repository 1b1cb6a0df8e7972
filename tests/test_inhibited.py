"""Discards that are forbidden for a while, and pages that are given back later.

Rule 1: a page is reclaimed before its inflate buffer goes back, and later only if the
driver tells before it uses the page again.
"""

from __future__ import annotations

import json

import pytest
from fakes import (
    MUST_TELL_HOST,
    OPEN,
    REFUSING,
    SHUT,
    FakeHost,
    ScriptedPolicy,
    follow,
    opened,
    rig,
    told,
)

from balloon_plugin import inventory
from balloon_plugin.events import (
    Answer,
    InhibitionChanged,
    TargetAnswered,
    TargetReply,
    TargetRequested,
)

WHY = "a device is passed through"


def following(features=0, host=None, **options):
    """Make a device whose policy follows the user, with a driver that is ready."""
    made = opened(host, follow, must_tell_host=True, **options)
    made.device.set_features(features)
    made.device.driver_ready()
    return made


# --- while discards are inhibited ---------------------------------------------------


def test_nothing_is_reclaimed():
    made = following()
    made.device.set_target(100)

    made.device.set_inhibited(WHY)
    made.inflate(*range(10))
    made.device.tick()

    assert made.host.discards == []
    assert made.device.query().ballooned == 10
    assert made.device.query().reclaimed == 0


def test_it_is_shown_and_told():
    made = following()

    made.device.set_inhibited(WHY)
    shown = made.device.query().inhibited
    made.device.set_inhibited(WHY)
    made.device.set_inhibited(None)

    assert shown == WHY
    assert made.device.query().inhibited is None
    changes = made.recorder.of(InhibitionChanged)
    assert changes == [InhibitionChanged(WHY), InhibitionChanged(None)]
    assert not any(isinstance(event, InhibitionChanged) for event in made.policy.seen)


def test_the_balloon_does_not_grow():
    made = following()
    made.device.set_target(100)
    made.inflate(*range(10))
    made.forget()

    made.device.set_inhibited(WHY)

    assert made.target() == 10
    assert made.device.query().requested == 100
    assert made.host.count("config") == 1


def test_a_larger_target_is_kept_and_deferred_with_the_reason():
    made = following()
    made.device.set_inhibited(WHY)

    reply = made.device.set_target(100)

    expected = TargetReply(Answer.DEFERRED, f"discards are inhibited: {WHY}", 100)
    assert reply == expected
    assert made.recorder.of(TargetAnswered) == [TargetAnswered(expected, 100)]
    assert made.target() == 0
    assert made.device.query().requested == 100


def test_a_smaller_target_is_accepted():
    made = following()
    made.device.set_target(100)
    made.inflate(*range(100))
    made.device.set_inhibited(WHY)

    reply = made.device.set_target(40)

    assert reply.answer is Answer.ACCEPTED
    assert made.target() == 40


def test_what_the_driver_took_back_it_is_not_asked_for_again():
    made = following()
    made.device.set_target(100)
    made.inflate(*range(100))
    made.device.set_inhibited(WHY)
    made.device.set_target(40)
    made.deflate(*range(40, 100))

    reply = made.device.set_target(80)

    assert reply.answer is Answer.DEFERRED
    assert made.target() == 40


def test_what_a_driver_sent_unasked_is_no_reason_for_more():
    made = following()
    made.device.set_target(100)
    made.inflate(*range(10))
    made.device.set_inhibited(WHY)
    made.inflate(*range(10, 30))

    made.deflate(*range(5))
    made.device.set_target(100)

    assert made.device.query().ballooned == 25
    assert made.target() == 10


def test_another_reason_answers_nobody():
    made = following()
    made.device.set_inhibited(WHY)
    made.device.set_target(100)
    made.forget()

    made.device.set_inhibited("another device is")

    assert made.recorder.of(TargetAnswered) == []


@pytest.mark.parametrize("gate", [SHUT, REFUSING])
def test_what_the_policy_answers_counts_more(gate):
    made = rig(ScriptedPolicy(gate))
    made.device.set_inhibited(WHY)

    reply = made.device.set_target(100)

    assert reply.answer is gate.targets
    assert reply.reason == gate.reason


def test_a_policys_test_goes_on():
    made = rig("probe")

    made.device.set_inhibited(WHY)

    assert made.target() == 16


def test_the_next_driver_begins_without_a_balloon():
    made = following()
    made.device.set_target(100)
    made.inflate(*range(10))
    made.device.set_inhibited(WHY)

    made.device.reset()

    assert made.target() == 0
    assert made.device.query().inhibited == WHY


def test_it_is_not_part_of_a_snapshot_and_holds_for_one_that_is_loaded():
    source = following()
    source.device.set_target(100)
    source.inflate(*range(10))
    source.device.set_inhibited(WHY)
    state = json.loads(json.dumps(source.device.save()))

    free = rig(ScriptedPolicy(follow))
    free.device.load(state)
    pinned = rig(ScriptedPolicy(follow))
    pinned.device.set_inhibited(WHY)
    pinned.device.load(state)

    assert (free.target(), free.device.query().inhibited) == (100, None)
    assert pinned.target() == 10


# --- and when they are allowed again ------------------------------------------------


def test_the_target_is_honoured():
    made = following()
    made.device.set_inhibited(WHY)
    made.device.set_target(100)
    made.forget()

    made.device.set_inhibited(None)
    made.inflate(*range(10))

    assert made.target() == 100
    assert made.host.count("config") >= 1
    assert made.host.discards == [(0, 10)]
    answered = made.recorder.of(TargetAnswered)
    assert answered == [TargetAnswered(TargetReply(Answer.ACCEPTED, "", 100), 100)]
    assert TargetRequested(100) in made.recorder.events


def test_where_nothing_waited_nothing_is_announced():
    made = following()
    made.device.set_target(10)
    made.inflate(*range(10))
    made.device.set_inhibited(WHY)
    made.forget()

    made.device.set_inhibited(None)

    assert made.log == []
    assert made.recorder.of(TargetAnswered) == []


def test_pages_of_a_driver_that_may_be_using_them_stay():
    made = following()
    made.device.set_inhibited(WHY)
    made.inflate(*range(10))

    made.device.set_inhibited(None)
    made.device.tick()

    assert made.host.discards == []
    shown = made.device.query()
    assert (shown.ballooned, shown.reclaimed) == (10, 0)


def test_pages_of_a_driver_that_tells_are_given_back():
    made = following(MUST_TELL_HOST)
    made.device.set_inhibited(WHY)
    made.inflate(*range(10))
    made.deflate(4)

    made.device.set_inhibited(None)
    made.device.tick()
    made.device.tick()

    assert made.host.discards == [(0, 4), (5, 5)]
    assert made.device.query().reclaimed == 9


# --- pages that came before a gate opened -------------------------------------------


def test_a_gate_that_opens_lets_pages_in_that_a_driver_must_tell_of():
    made = rig(must_tell_host=True)
    made.device.set_features(MUST_TELL_HOST)
    made.inflate(*range(10))
    made.policy.gate = OPEN

    made.device.tick()
    made.device.tick()

    assert made.host.discards == [(0, 10)]


def test_as_long_as_it_is_shut_they_stay():
    made = rig(must_tell_host=True)
    made.device.set_features(MUST_TELL_HOST)
    made.inflate(*range(10))

    made.device.tick()

    assert made.host.discards == []


def test_only_whole_host_pages_are_given_back():
    made = told()
    made.policy.gate = SHUT
    made.inflate(*range(8, 40))
    made.policy.gate = OPEN

    made.device.tick()

    assert made.host.discards == [(16, 16)]


def test_much_is_given_back_bit_by_bit(monkeypatch):
    monkeypatch.setattr(inventory, "PAGES_AT_ONCE", 100)
    made = following(MUST_TELL_HOST)
    made.device.set_inhibited(WHY)
    made.inflate(*range(150), *range(1000, 1100))
    made.device.set_inhibited(None)

    seen = []
    for _ in range(4):
        made.device.tick()
        seen.append(made.device.query().reclaimed)

    assert seen == [100, 200, 250, 250]
    assert made.host.discards == [(0, 100), (100, 50), (1000, 50), (1050, 50)]


def test_what_the_host_cannot_give_back_is_tried_once():
    made = following(MUST_TELL_HOST)
    made.device.set_inhibited(WHY)
    made.inflate(*range(10))
    made.host.given_back = 0
    made.device.set_inhibited(None)

    for _ in range(5):
        made.device.tick()

    assert made.host.discards == [(0, 10)]


def test_a_reset_forgets_them():
    made = following(MUST_TELL_HOST)
    made.device.set_inhibited(WHY)
    made.inflate(*range(10))
    made.device.reset()
    made.device.set_features(MUST_TELL_HOST)

    made.device.set_inhibited(None)
    made.device.tick()

    assert made.host.discards == []


@pytest.mark.parametrize("features", [0, MUST_TELL_HOST])
def test_a_restored_device_gives_back_what_it_may(features):
    source = following(features)
    source.device.set_inhibited(WHY)
    source.inflate(*range(10))
    made = rig(ScriptedPolicy(follow), FakeHost())
    made.device.load(json.loads(json.dumps(source.device.save())))

    made.device.tick()

    assert made.host.discards == ([(0, 10)] if features else [])
