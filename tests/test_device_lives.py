"""The end of a session and pauses in it, in every state that a device can be in.

A reset and an unplug leave nothing behind, and a queue that stops and starts again
loses nothing.
"""

from __future__ import annotations

import gc
import json
import struct
import weakref

import pytest
from fakes import (
    MUST_TELL_HOST,
    PAGE,
    SHUT,
    STATS_VQ,
    FakeHost,
    FakeQueue,
    ScriptedPolicy,
    follow,
    rig,
)

from balloon_plugin.duties import reporting

EVERYTHING = {
    "must_tell_host": True,
    "page_poison": True,
    "reporting": True,
    "hinting": True,
}
ACCEPTED = 1 << 32 | 1 << 5 | 1 << 4 | 1 << 3 | STATS_VQ | MUST_TELL_HOST
STATSQ, HINTQ, REPORTQ = 2, 3, 4


def fresh(made):
    assert not made.device.query().driver


def negotiated(made):
    made.device.set_features(ACCEPTED)


def ready(made):
    negotiated(made)
    made.device.driver_ready()


def tested(made):
    made.policy.gate = SHUT
    ready(made)
    made.inflate(*range(16))
    made.device.set_config(4, b"\x10\x00")


def inflated(made):
    ready(made)
    made.device.set_target(100)
    made.inflate(*range(100))
    made.write_actual(100)


def inhibited(made):
    ready(made)
    made.device.set_inhibited("a device")
    made.device.set_target(100)
    made.inflate(*range(10))


def told_statistics(made):
    ready(made)
    made.host.queues[STATSQ].offer_bytes(struct.pack("<HQ", 4, 5))
    made.device.queue_notify(STATSQ)


def asked_for_statistics(made):
    told_statistics(made)
    made.device.set_stats_interval(1)


def hinting(made):
    ready(made)
    queue = made.host.queues[HINTQ]
    queue.offer_bytes(struct.pack("<I", made.device.start_hinting()))
    queue.offer_chain(writable=[(100 * PAGE, PAGE)])
    made.device.queue_notify(HINTQ)


def reporting_in_turns(made):
    ready(made)
    queue = made.host.queues[REPORTQ]
    queue.offer_chain(writable=[(0, 250 * PAGE)])
    assert made.device.queue_notify(REPORTQ)


def poisoned(made):
    negotiated(made)
    made.device.set_config(12, b"\xaa" * 4)
    made.device.driver_ready()


def at_fault(made):
    ready(made)
    made.inflate(2**32 - 1)


def broken(made):
    ready(made)
    made.inflateq.breaks = "the ring is lost"
    made.device.queue_notify(0)


def restored(made):
    other = rig(ScriptedPolicy(follow), **EVERYTHING)
    inflated(other)
    made.device.load(json.loads(json.dumps(other.device.save())))


STATES = {
    state.__name__: state
    for state in (
        fresh,
        negotiated,
        ready,
        tested,
        inflated,
        inhibited,
        told_statistics,
        asked_for_statistics,
        hinting,
        reporting_in_turns,
        poisoned,
        at_fault,
        broken,
        restored,
    )
}


@pytest.fixture(params=STATES, ids=lambda name: name.replace("_", " "))
def made(request, monkeypatch):
    """A device in each state."""
    return brought_to(request.param, monkeypatch)


@pytest.fixture(params=sorted({*STATES} - {"broken"}))
def running(request, monkeypatch):
    """A device in each state in which its queues can be used."""
    return brought_to(request.param, monkeypatch)


def brought_to(state, monkeypatch):
    monkeypatch.setattr(reporting, "PAGES_AT_ONCE", 100)
    made = rig(ScriptedPolicy(follow), FakeHost(), **EVERYTHING)
    STATES[state](made)
    return made


def of_the_driver(made):
    """Return all that is known of the driver; not what the user said, or ids used."""
    state = made.device.save()
    del state["stats"]["interval"], state["stats"]["age"], state["hints"]["last"]
    del state["policy"]["requested"], state["policy"]["advertised"]
    return state


def restart(made):
    """Stop all queues, and start them again where they stood."""
    for index, old in made.host.queues.items():
        new = FakeQueue(made.host, index)
        new.available.extend([*old.held, *old.available])
        new.returned = old.returned
        made.host.queues[index] = new


def serve_all(made):
    for index in made.host.queues:
        while made.device.queue_notify(index):
            pass


def test_a_reset_leaves_nothing_of_the_driver(made):
    made.policy.gate = follow
    made.device.reset()
    made.device.set_inhibited(None)

    new = rig(ScriptedPolicy(follow), FakeHost(), **EVERYTHING)
    new.device.reset()
    shown, expected = made.device.query(), new.device.query()
    assert of_the_driver(made) == of_the_driver(new)
    for name in ("actual", "ballooned", "reclaimed", "reported", "stats", "hints"):
        assert getattr(shown, name) == getattr(expected, name)
    assert made.device.get_config(4, 12) == bytes(12)


def test_the_next_driver_is_served_as_the_first(made):
    made.device.reset()
    made.device.set_inhibited(None)
    made.policy.gate = follow
    made.host.queues.update(
        {index: FakeQueue(made.host, index) for index in made.host.queues}
    )
    made.inflateq = made.host.queues[0]
    made.forget()
    ready(made)

    made.inflate(1, 2, 3)

    assert made.host.discards == [(1, 3)]
    assert len(made.inflateq.returned) == 1


def test_an_unplugged_device_holds_on_to_nothing(made):
    host = weakref.ref(made.host)
    queues = [weakref.ref(queue) for queue in made.host.queues.values()]

    made.device.unrealize()
    made.host = made.inflateq = made.deflateq = None
    gc.collect()

    assert host() is None
    assert all(queue() is None for queue in queues)


def test_a_pause_loses_no_buffer_and_repeats_none(running):
    queues = running.host.queues
    kept = [chain.head for chain in queues[STATSQ].held]
    offered = {
        index: [*queue.returned, *(chain.head for chain in queue.held)]
        for index, queue in queues.items()
    }

    restart(running)
    running.device.tick()
    serve_all(running)

    for index, queue in queues.items():
        held = [chain.head for chain in queue.held]
        assert held == (kept if index == STATSQ else [])
        assert sorted([*queue.returned, *held]) == sorted(offered[index])


def test_a_pause_brings_no_news(made):
    made.host.clock = 5.0
    shown = made.device.query()

    restart(made)
    made.device.tick()

    assert made.device.query().stats == shown.stats
    assert made.device.query().hints == shown.hints
    assert made.device.query().ballooned == shown.ballooned


def test_a_saved_device_goes_on_elsewhere(made):
    state = json.loads(json.dumps(made.device.save()))
    other = rig(ScriptedPolicy(follow), FakeHost(), **EVERYTHING)

    other.device.load(state)

    ours, theirs = other.device.save(), json.loads(json.dumps(state))
    del ours["stats"]["age"], theirs["stats"]["age"]
    # An inhibition is the host's own.
    del ours["policy"]["advertised"], theirs["policy"]["advertised"]
    assert json.loads(json.dumps(ours)) == theirs
