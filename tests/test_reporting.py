"""Free page reporting: ranges given back as far as the gate and the poison allow."""

from __future__ import annotations

import json

import pytest
from fakes import (
    BUFFERS,
    OPEN,
    OUTSIDE,
    PAGE,
    RAM_PAGES,
    SHUT,
    STATS_VQ,
    FakeHost,
    FakeQueue,
    ScriptedPolicy,
    opened,
    rig,
)
from hypothesis import given
from hypothesis import strategies as st

from balloon_plugin.duties import reporting
from balloon_plugin.duties.reporting import PAGES_AT_ONCE
from balloon_plugin.events import PagesReported
from balloon_plugin.memory import GuestMemory

REPORTING = 1 << 5
POISON = 1 << 4
VERSION_1 = 1 << 32
REPORTQ = 3


def started(host=None, gate=OPEN, features=0):
    """Make a device whose driver reports."""
    made = opened(host, gate, reporting=True, page_poison=True)
    made.device.set_features(features | VERSION_1 | REPORTING | STATS_VQ)
    made.device.driver_ready()
    made.forget()
    return made


def offer(made, *parts):
    """Let the driver report (first page, pages); return the buffer's head."""
    writable = [(first * PAGE, count * PAGE) for first, count in parts]
    return made.host.queues[REPORTQ].offer_chain(writable=writable)


def report(made, *parts):
    head = offer(made, *parts)
    made.device.queue_notify(REPORTQ)
    return head


def reported(made):
    return [(event.runs, event.num_pages) for event in made.recorder.of(PagesReported)]


# --- what is given back -------------------------------------------------------------


def test_reported_pages_are_discarded_then_answered():
    made = started()

    head = report(made, (200, 100), (100, 50))

    assert made.log == [
        ("discard", ((100, 50), (200, 100))),
        ("push", REPORTQ, [head]),
        ("notify", REPORTQ),
    ]
    assert reported(made) == [(((100, 50), (200, 100)), 150)]


def test_they_are_counted_apart_from_the_balloon():
    made = started()
    made.inflate(1, 2)

    report(made, (100, 50))

    shown = made.device.query()
    assert (shown.ballooned, shown.reclaimed, shown.reported) == (2, 2, 50)


def test_what_the_host_gave_back_is_what_counts():
    made = started()
    made.host.given_back = 7

    report(made, (100, 50))

    assert reported(made) == [(((100, 50),), 7)]
    assert made.device.query().reported == 7


def test_ranges_that_touch_or_overlap_are_one():
    made = started()

    report(made, (100, 50), (150, 10), (120, 5), (100, 1))

    assert made.host.discards == [(100, 60)]


def test_their_content_is_not_read(monkeypatch):
    made = started()
    monkeypatch.setattr(GuestMemory, "read", None)
    monkeypatch.setattr(GuestMemory, "view", None)

    report(made, (0, RAM_PAGES))

    assert made.host.discards == [(0, RAM_PAGES)]


def test_what_is_for_reading_is_no_report():
    made = started()

    made.host.queues[REPORTQ].offer_chain([(100 * PAGE, PAGE)], [(200 * PAGE, PAGE)])
    made.device.queue_notify(REPORTQ)

    assert made.host.discards == [(200, 1)]


def test_only_whole_pages_of_the_host_are_given_back():
    made = started(FakeHost(host_page_size=65536))

    # The last part completes the host page that the first has begun.
    report(made, (8, 16), (24, 24), (48, 7), (5, 3))

    assert made.host.discards == [(16, 32)]


def test_only_pages_of_the_guest_are_given_back():
    made = started(FakeHost(ram=[(0, RAM_PAGES), (8192, 16)]))

    head = report(made, (RAM_PAGES - 2, 10), (8190, 4), (2**51, 1))

    assert made.host.discards == [(RAM_PAGES - 2, 2), (8192, 2)]
    assert "11 reported pages" in made.faults[0]
    assert made.host.queues[REPORTQ].returned == [head]


def test_adjacent_regions_are_given_back_apart():
    made = started(FakeHost(ram=[(0, RAM_PAGES), (RAM_PAGES, 16)]))

    report(made, (RAM_PAGES - 2, 4))

    assert made.host.discards == [(RAM_PAGES - 2, 2), (RAM_PAGES, 2)]


def test_a_host_page_in_two_regions_is_not_given_back():
    meet = RAM_PAGES - 6
    ram = [(0, meet), (meet, 100)]
    made = started(FakeHost(ram=ram, host_page_size=65536))

    report(made, (meet - 50, 100))

    assert made.host.discards == [(meet - 42, 32), (RAM_PAGES, 32)]


@pytest.mark.parametrize("address", [2**64 - PAGE, OUTSIDE, OUTSIDE - 1])
def test_a_range_at_the_end_of_the_world_is_answered(address):
    made = started()

    head = made.host.queues[REPORTQ].offer_chain(writable=[(address, 2**32 - 1)])
    made.device.queue_notify(REPORTQ)

    assert made.host.discards == []
    assert made.host.queues[REPORTQ].returned == [head]


def test_a_broken_chain_is_a_fault_and_answered():
    made = started()

    head = made.host.queues[REPORTQ].offer_chain(fault="it has a loop")
    made.device.queue_notify(REPORTQ)

    assert made.faults == ["it has a loop"]
    assert made.host.queues[REPORTQ].returned == [head]
    assert reported(made) == []


# --- what is not --------------------------------------------------------------------


def not_given_back(made):
    head = report(made, (100, 50))
    return (
        made.host.discards == []
        and made.host.queues[REPORTQ].returned == [head]
        and reported(made) == [(((100, 50),), 0)]
        and made.device.query().reported == 0
    )


def test_behind_a_shut_gate_nothing_is_given_back():
    assert not_given_back(started(gate=SHUT))


def test_while_discards_are_inhibited_nothing_is_given_back():
    made = started()
    made.device.set_inhibited("pinned")
    made.forget()

    assert not_given_back(made)


@pytest.mark.parametrize("poison", [b"\x01\0\0\0", b"\0\0\0\xaa", b"\xaa" * 4])
def test_pages_with_a_content_that_must_stay_are_not_given_back(poison):
    made = started(features=POISON)
    made.device.set_config(12, poison)

    assert not_given_back(made)


def test_pages_that_are_zero_by_agreement_are_given_back():
    made = started(features=POISON)
    made.device.set_config(12, bytes(4))

    report(made, (100, 50))

    assert made.host.discards == [(100, 50)]


def test_a_poison_that_was_not_negotiated_is_none():
    made = started()
    made.device.set_config(12, b"\xaa" * 4)

    report(made, (100, 50))

    assert made.host.discards == [(100, 50)]


def test_a_driver_that_did_not_accept_reporting_reports_in_vain():
    made = opened(reporting=True)
    made.device.set_features(VERSION_1)
    made.device.driver_ready()

    assert not_given_back(made)


def test_the_policy_sees_nothing_of_it():
    made = started()
    made.policy.seen.clear()

    report(made, (100, 50))

    assert made.policy.seen == []


# --- turns --------------------------------------------------------------------------


def test_a_large_report_is_given_back_in_turns_and_then_answered(monkeypatch):
    monkeypatch.setattr(reporting, "PAGES_AT_ONCE", 100)
    made = started()
    head, queue = offer(made, (0, 150), (200, 100)), made.host.queues[REPORTQ]

    assert made.device.queue_notify(REPORTQ)
    assert made.host.discards == [(0, 100)]
    assert queue.returned == []
    assert made.device.queue_notify(REPORTQ)
    assert made.host.discards == [(0, 100), (100, 50), (200, 50)]
    assert not made.device.queue_notify(REPORTQ)
    assert made.host.discards[-1] == (250, 50)
    assert queue.returned == [head]
    assert reported(made) == [(((0, 150), (200, 100)), 250)]


def test_a_host_page_larger_than_a_turn_is_given_back_whole(monkeypatch):
    monkeypatch.setattr(reporting, "PAGES_AT_ONCE", 100)
    made = started(FakeHost(host_page_size=256 * PAGE))
    offer(made, (0, 1024))

    while made.device.queue_notify(REPORTQ):
        pass

    assert made.host.discards == [(0, 256), (256, 256), (512, 256), (768, 256)]


def test_what_linux_sends_at_once_takes_one_turn():
    assert 32 * (4 << 20) // PAGE <= PAGES_AT_ONCE


def test_a_gate_that_shuts_between_two_turns_ends_it(monkeypatch):
    monkeypatch.setattr(reporting, "PAGES_AT_ONCE", 100)
    made = started()
    head = offer(made, (0, 250))
    made.device.queue_notify(REPORTQ)
    made.policy.gate = SHUT
    made.device.tick()

    assert not made.device.queue_notify(REPORTQ)

    assert made.host.discards == [(0, 100)]
    assert made.host.queues[REPORTQ].returned == [head]
    assert reported(made) == [(((0, 250),), 100)]


def test_a_report_whose_queue_stopped_between_two_turns_comes_again(monkeypatch):
    monkeypatch.setattr(reporting, "PAGES_AT_ONCE", 100)
    made = started()
    offer(made, (0, 250))
    made.device.queue_notify(REPORTQ)

    made.host.queues[REPORTQ] = FakeQueue(made.host, REPORTQ)
    head = offer(made, (0, 250))
    while made.device.queue_notify(REPORTQ):
        pass

    assert made.host.queues[REPORTQ].returned == [head]
    assert reported(made) == [(((0, 250),), 250)]


def test_memory_that_changes_between_two_turns_ends_it(monkeypatch):
    monkeypatch.setattr(reporting, "PAGES_AT_ONCE", 100)
    made = started(FakeHost(ram=[(0, RAM_PAGES), (8192, 200)]))
    head = offer(made, (8192, 200))
    made.device.queue_notify(REPORTQ)
    made.host.plug([(0, RAM_PAGES)])
    made.device.guest_changed()

    assert not made.device.queue_notify(REPORTQ)

    assert made.host.discards == [(8192, 100)]
    assert made.host.queues[REPORTQ].returned == [head]


def test_a_reset_between_two_turns_leaves_nothing(monkeypatch):
    monkeypatch.setattr(reporting, "PAGES_AT_ONCE", 100)
    made = started()
    offer(made, (0, 250))
    made.device.queue_notify(REPORTQ)
    made.device.reset()
    made.host.queues[REPORTQ].held.clear()
    made.forget()

    made.device.queue_notify(REPORTQ)

    assert made.log == []
    assert made.device.query().reported == 0


def test_many_reports_are_served_in_turns_and_in_order():
    made = started()
    heads = [offer(made, (page, 1)) for page in range(100)]

    turns = 1
    while made.device.queue_notify(REPORTQ):
        turns += 1

    assert 1 < turns <= 100
    assert made.host.queues[REPORTQ].returned == heads
    assert made.device.query().reported == 100


# --- and then -----------------------------------------------------------------------


def test_a_restored_device_gives_reports_back_as_before():
    made = started(features=POISON)
    made.device.set_config(12, b"\xaa" * 4)
    state = json.loads(json.dumps(made.device.save()))

    other = rig(ScriptedPolicy(OPEN), FakeHost(), reporting=True)
    other.device.load(state)

    assert not_given_back(other)


def test_where_reporting_is_not_offered_its_queue_is_none():
    made = opened()
    made.device.set_features(VERSION_1 | STATS_VQ)

    report(made, (100, 50))

    assert made.log == []


@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
            | st.tuples(st.integers(0, OUTSIDE), st.integers(0, 100_000)),
            max_size=5,
        ),
        max_size=5,
    ),
    st.sampled_from([4096, 65536]),
)
def test_what_is_given_back_was_reported_whole(chains, host_page_size):
    made = started(FakeHost(host_page_size=host_page_size))
    queue = made.host.queues[REPORTQ]
    heads = [queue.offer_chain([(BUFFERS, 4)], writable=parts) for parts in chains]

    while made.device.queue_notify(REPORTQ):
        pass

    covered = set()
    for address, size in (part for parts in chains for part in parts):
        covered.update(range(address // 512, min(address + size, OUTSIDE) // 512 + 1))
    assert queue.returned == heads
    for first, count in made.host.discards:
        assert first * PAGE % host_page_size == count * PAGE % host_page_size == 0
        assert covered.issuperset(range(first * 8, (first + count) * 8))
