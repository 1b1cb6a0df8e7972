"""The statistics queue: samples that stand alone, asked for when it is time."""

from __future__ import annotations

import itertools
import json
import struct

import pytest
from fakes import (
    OPEN,
    OUTSIDE,
    SHUT,
    STATS_VQ,
    FakeHost,
    FakeQueue,
    ScriptedPolicy,
    follow,
    opened,
    rig,
)
from hypothesis import given
from hypothesis import strategies as st

from balloon_plugin.errors import HostError
from balloon_plugin.events import ByteOrder, DriverReady, StatsReceived
from balloon_plugin.layouts import StatTag
from balloon_plugin.stats import MAX_STATS

STATSQ = 2
VERSION_1 = 1 << 32

FREE, TOTAL = (
    (StatTag.VIRTIO_BALLOON_S_MEMFREE, 5),
    (
        StatTag.VIRTIO_BALLOON_S_MEMTOT,
        2**64 - 1,
    ),
)


def packed(*stats, order="<"):
    return b"".join(struct.pack(f"{order}HQ", *stat) for stat in stats)


def started(made=None, features=VERSION_1):
    """Give a device a driver with statistics, which has sent its first buffer."""
    made = opened() if made is None else made
    made.device.set_features(features | STATS_VQ)
    made.device.driver_ready()
    return made


def send(made, *stats, order="<"):
    """Let the driver send statistics; return the buffer's head."""
    head = made.host.queues[STATSQ].offer_bytes(packed(*stats, order=order))
    made.device.queue_notify(STATSQ)
    return head


def values(made):
    sample = made.device.query().stats
    return None if sample is None else sample.values


# --- what comes ---------------------------------------------------------------------


def test_statistics_are_told_and_shown():
    made = started()

    send(made, FREE, TOTAL)

    assert made.recorder.of(StatsReceived) == [StatsReceived((FREE, TOTAL))]
    assert made.policy.seen[-1] == StatsReceived((FREE, TOTAL))
    assert values(made) == (FREE, TOTAL)


def test_before_any_came_there_are_none():
    assert started().device.query().stats is None


@pytest.mark.parametrize("order", [[FREE, TOTAL], [TOTAL, FREE]])
def test_any_order_and_unknown_tags_are_taken(order):
    made = started()
    unknown = (0xFFFE, 9)

    send(made, unknown, *order)

    assert values(made) == (unknown, *order)


def test_all_sixteen_tags_are_taken():
    stats = tuple((tag, 1000 + tag) for tag in StatTag)
    made = started()

    send(made, *stats)

    assert len(stats) == 16
    assert values(made) == stats


def test_a_sample_stands_alone():
    made = started()
    send(made, FREE, TOTAL)

    send(made, TOTAL)

    assert values(made) == (TOTAL,)


@pytest.mark.parametrize("tail", range(1, 10))
def test_an_entry_that_is_not_complete_is_ignored(tail):
    made = started()
    queue = made.host.queues[STATSQ]

    queue.offer_bytes(packed(FREE), packed(TOTAL)[:tail])
    made.device.queue_notify(STATSQ)

    assert values(made) == (FREE,)
    assert made.faults == []


def test_a_buffer_of_much_is_read_up_to_the_bound():
    made = started()

    send(made, *[FREE] * (MAX_STATS + 5))

    assert values(made) == (FREE,) * MAX_STATS


def test_an_entry_may_lie_in_two_parts():
    made = started()
    data = packed(FREE, TOTAL)

    made.host.queues[STATSQ].offer_bytes(data[:13], data[13:])
    made.device.queue_notify(STATSQ)

    assert values(made) == (FREE, TOTAL)


@pytest.mark.parametrize("features", [VERSION_1, 0])
def test_numbers_are_in_the_order_of_the_queue(features):
    made = started(features=features)
    made.host.queues[STATSQ].byte_order = ByteOrder.BIG

    send(made, FREE, order=">")
    send(made, TOTAL, order=">")

    assert values(made) == (TOTAL,)


def test_an_empty_buffer_says_nothing_and_is_kept():
    made = started()
    send(made, FREE)

    head = send(made)
    made.device.set_stats_interval(1)

    assert values(made) == (FREE,)
    assert made.recorder.of(StatsReceived) == [StatsReceived((FREE,))]
    assert made.host.queues[STATSQ].returned[-1] == head


def test_a_buffer_outside_ram_is_a_fault_and_is_kept():
    made = started()
    queue = made.host.queues[STATSQ]

    head = queue.offer_chain([(OUTSIDE, 160)])
    made.device.queue_notify(STATSQ)
    made.device.set_stats_interval(1)

    assert values(made) is None
    assert "not in RAM" in made.faults[0]
    assert queue.returned == [head]


def test_a_broken_ring_asks_for_a_reset():
    made = started()
    made.host.queues[STATSQ].breaks = "the ring is lost"

    made.device.queue_notify(STATSQ)
    made.device.tick()

    assert made.faults == ["the ring is lost"]
    assert made.host.count("reset") == 1


# --- the first buffer ---------------------------------------------------------------


def test_the_first_buffer_of_a_legacy_driver_is_ignored():
    made = started(features=0)

    send(made, (0xA5A5, 0xA5A5A5A5A5A5A5A5))
    before = values(made)
    send(made, FREE)

    assert before is None
    assert made.recorder.of(StatsReceived) == [StatsReceived((FREE,))]


def test_the_first_buffer_of_a_modern_driver_counts():
    made = started(features=VERSION_1)

    send(made, FREE)

    assert values(made) == (FREE,)


def test_each_session_has_a_first_buffer():
    made = started(features=0)
    send(made, TOTAL)
    send(made, FREE)

    made.device.reset()
    started(made, features=0)
    send(made, TOTAL)

    assert values(made) is None


# --- buffers come back when it is time ----------------------------------------------


def test_the_buffer_is_kept():
    made = started()

    send(made, FREE)
    made.device.tick()

    assert made.host.queues[STATSQ].returned == []
    assert made.host.count("notify") == 0


def test_of_two_buffers_the_first_goes_back():
    made = started()
    queue = made.host.queues[STATSQ]

    first, second = queue.offer_bytes(packed(FREE)), queue.offer_bytes(packed(TOTAL))
    made.device.queue_notify(STATSQ)
    third = send(made, FREE, TOTAL)

    assert queue.returned == [first, second]
    assert values(made) == (FREE, TOTAL)
    made.device.set_stats_interval(1)
    assert queue.returned == [first, second, third]


def test_a_ring_full_of_buffers_is_served_in_turns():
    made = started()
    queue = made.host.queues[STATSQ]
    heads = [queue.offer_bytes(packed(FREE)) for _ in range(100)]

    turns = 1
    while made.device.queue_notify(STATSQ):
        turns += 1

    assert turns > 1
    assert queue.returned == heads[:-1]


def polled(made, times, seconds=1.0):
    """Let a driver answer each request; return when it was asked."""
    queue, asked = made.host.queues[STATSQ], []
    for _ in range(times):
        before = len(queue.returned)
        made.host.clock += seconds
        made.device.tick()
        if len(queue.returned) > before:
            asked.append(made.host.clock)
            send(made, FREE)
    return asked


def test_it_is_asked_at_once_and_then_each_interval():
    made = started()
    first = send(made, FREE)

    made.device.set_stats_interval(3)

    assert made.host.queues[STATSQ].returned == [first]
    assert made.log[-1] == ("notify", STATSQ)
    send(made, FREE)
    assert polled(made, 9) == [3.0, 6.0, 9.0]


def test_ticks_that_come_a_little_early_do_not_double_the_interval():
    made = started()
    send(made, FREE)
    made.device.set_stats_interval(1)
    send(made, FREE)

    assert len(polled(made, 20, 0.999)) >= 18


def test_an_interval_of_0_ends_it():
    made = started()
    send(made, FREE)
    made.device.set_stats_interval(1)
    send(made, FREE)

    made.device.set_stats_interval(0)

    assert polled(made, 5) == []
    assert made.device.query().stats_interval == 0


def test_a_driver_that_is_slow_is_not_asked_twice():
    made = started()
    send(made, FREE)
    made.device.set_stats_interval(1)

    for _ in range(5):
        made.host.clock += 1
        made.device.tick()

    assert len(made.host.queues[STATSQ].returned) == 1


def test_the_interval_outlives_a_reset():
    made = started()
    made.device.set_stats_interval(2)

    made.device.reset()

    assert made.device.query().stats_interval == 2


@pytest.mark.parametrize("seconds", [-1, 2**32, 0.5, True, "1", None])
def test_an_interval_that_is_none_is_the_hosts_mistake(seconds):
    with pytest.raises(HostError, match="0 for never"):
        rig().device.set_stats_interval(seconds)


def test_no_notification_before_driver_ok():
    made = opened()
    made.device.set_features(STATS_VQ)
    send(made, FREE)

    made.device.set_stats_interval(1)
    made.device.tick()
    before = made.host.count("notify")
    made.device.driver_ready()
    made.device.tick()

    assert before == 0
    assert made.host.count("notify") == 1


def test_no_test_of_a_policy_is_disturbed():
    made = started(rig(ScriptedPolicy(SHUT)))
    send(made, FREE)

    made.device.set_stats_interval(1)
    made.device.tick()
    during = made.host.count("notify")
    made.policy.gate = OPEN
    made.device.tick()
    made.device.tick()

    assert during == 0
    assert made.host.count("notify") == 1


# --- age ----------------------------------------------------------------------------


def test_the_age_is_that_of_the_buffer():
    made = started()
    made.host.clock = 7.0
    send(made, FREE)
    made.host.clock = 9.5

    sample = made.device.query().stats

    assert (sample.updated, sample.age) == (7.0, 2.5)


def test_what_was_read_before_a_queue_stopped_is_not_news():
    made = started()
    send(made, FREE)
    made.host.clock = 5.0

    # It starts again where it stood: at the buffer that was kept.
    made.host.queues[STATSQ] = again = FakeQueue(made.host, STATSQ)
    head = again.offer_bytes(packed(FREE))
    made.device.tick()

    assert made.device.query().stats.age == 5.0
    assert made.recorder.of(StatsReceived) == [StatsReceived((FREE,))]
    made.device.set_stats_interval(1)
    assert again.returned == [head]
    send(made, TOTAL)
    assert values(made) == (TOTAL,)


def test_a_driver_may_kick_first_when_its_queue_starts_again():
    made = started()
    send(made, FREE)

    made.host.queues[STATSQ] = again = FakeQueue(made.host, STATSQ)
    again.offer_bytes(packed(FREE))
    made.device.queue_notify(STATSQ)

    assert made.recorder.of(StatsReceived) == [StatsReceived((FREE,))]
    assert again.returned == []
    assert again.waiting == 0


def test_a_user_may_ask_first_when_a_queue_starts_again():
    made = started()
    send(made, FREE)

    made.host.queues[STATSQ] = again = FakeQueue(made.host, STATSQ)
    made.device.set_stats_interval(1)

    assert again.returned == []


def test_a_queue_that_stopped_while_the_driver_was_asked_brings_news():
    made = started()
    send(made, FREE)
    made.device.set_stats_interval(1)

    made.host.queues[STATSQ] = FakeQueue(made.host, STATSQ)
    send(made, TOTAL)

    assert values(made) == (TOTAL,)


def test_a_queue_that_is_stopped_is_not_asked():
    made = started()
    send(made, FREE)
    made.host.queues[STATSQ] = None

    made.device.set_stats_interval(1)
    made.device.tick()

    assert made.host.count("notify") == 0


# --- snapshots ----------------------------------------------------------------------


def moved(made, **host):
    """Return the device that another host goes on with."""
    state = json.loads(json.dumps(made.device.save()))
    other = rig(ScriptedPolicy(follow), FakeHost(**host))
    other.host.clock = 1000.0
    other.device.load(state)
    return other


def test_numbers_and_their_age_are_carried():
    made = started()
    made.host.clock = 2.0
    send(made, FREE, TOTAL)
    made.device.set_stats_interval(7)
    made.host.clock = 5.0

    other = moved(made)

    sample = other.device.query().stats
    assert sample.values == (FREE, TOTAL)
    assert (sample.updated, sample.age) == (997.0, 3.0)
    assert other.device.query().stats_interval == 7


def test_a_buffer_that_was_kept_comes_again_and_is_used_to_ask():
    made = started()
    send(made, FREE)
    made.device.set_stats_interval(1)
    send(made, TOTAL)

    other = moved(made)
    head = other.host.queues[STATSQ].offer_bytes(packed(TOTAL))
    other.device.tick()

    assert other.recorder.of(StatsReceived) == []
    assert other.device.query().stats.age == 0.0
    assert other.host.queues[STATSQ].returned == [head]


@pytest.mark.parametrize("sent", [0, 1, 2])
def test_the_first_buffer_of_a_legacy_driver_is_the_first_everywhere(sent):
    made = started(features=0)
    for _ in range(sent):
        send(made, FREE)
    made.device.set_stats_interval(1)

    other = moved(made)
    send(other, TOTAL)

    assert (values(other) == (TOTAL,)) == (sent > 0)


# --- anything -----------------------------------------------------------------------


@given(
    st.lists(st.binary(max_size=700), max_size=5),
    st.sampled_from(ByteOrder),
    st.sampled_from([0, VERSION_1]),
)
def test_any_bytes_are_taken_and_all_buffers_but_one_come_back(parts, order, features):
    made = started(features=features)
    queue = made.host.queues[STATSQ]
    queue.byte_order = order

    heads = []
    for cut in range(len(parts) + 1):
        heads.append(queue.offer_bytes(*parts[:cut]))
        made.device.queue_notify(STATSQ)

    assert queue.returned == heads[:-1]
    assert made.faults == []
    for seen, shown in itertools.pairwise(made.recorder.of(StatsReceived)):
        assert len(seen.stats) <= len(shown.stats)


def test_a_driver_that_is_ready_has_shown_no_statistics():
    made = started()

    assert made.policy.seen[-1] == DriverReady()
