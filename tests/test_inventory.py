"""Pages from the buffer to the host: what is reclaimed, when, and in which order.

Rules 1, 2, 11 and 12 of ``docs/architecture.md``, through the hooks of a whole device.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from fakes import (
    MUST_TELL_HOST,
    OPEN,
    RAM_PAGES,
    SHUT,
    FakeHost,
    opened,
    rig,
    told,
)
from hypothesis import given
from hypothesis import strategies as st

from balloon_plugin.events import (
    ActualWritten,
    Answer,
    ByteOrder,
    Gate,
    PagesDeflated,
    PagesInflated,
    PagesReclaimed,
    Translation,
)

# --- rule 1: no page before the verdict ---------------------------------------------


def test_behind_a_shut_gate_nothing_is_reclaimed():
    made = rig()

    made.inflate(1, 2, 3)

    assert made.host.discards == []
    assert made.recorder.of(PagesReclaimed) == []
    assert made.device.query().ballooned == 3
    assert made.device.query().reclaimed == 0


def test_behind_an_open_gate_pages_are_reclaimed():
    made = opened()

    made.inflate(1, 2, 3)

    assert made.host.discards == [(1, 3)]
    assert made.recorder.of(PagesReclaimed) == [PagesReclaimed(3, ((1, 3),))]
    assert made.device.query().reclaimed == 3


def test_pages_are_discarded_then_returned_then_announced():
    made = opened()
    made.device.driver_ready()
    made.forget()

    head = made.inflate(1)

    assert made.log == [("discard", ((1, 1),)), ("push", 0, [head]), ("notify", 0)]


def test_pages_that_came_before_the_verdict_are_not_reclaimed_after_it():
    made = rig()
    made.inflate(1)
    made.policy.gate = OPEN

    made.device.tick()
    made.inflate(2)

    assert made.host.discards == [(2, 1)]


def test_only_pages_of_the_guest_are_reclaimed():
    made = opened(FakeHost(ram=[(0, RAM_PAGES), (8192, 16)]))

    made.inflate(RAM_PAGES - 1, RAM_PAGES, 8191, 8192, 8207, 8208, 2**32 - 1)

    assert made.host.discards == [(RAM_PAGES - 1, 1), (8192, 1), (8207, 1)]
    assert len(made.faults) == 1
    assert "4 page numbers" in made.faults[0]


def test_deflated_pages_are_never_reclaimed():
    made = opened()

    made.deflate(1, 2)

    assert made.host.discards == []


# --- rule 2: decide, then answer ----------------------------------------------------


def test_the_gate_after_a_buffer_decides_about_that_buffer():
    made = opened()
    made.policy.after[PagesInflated] = SHUT

    made.inflate(1)

    assert made.host.discards == []


def test_a_gate_that_opens_on_a_buffer_lets_it_in():
    made = rig()
    made.policy.after[PagesInflated] = OPEN

    made.inflate(1)

    assert made.host.discards == [(1, 1)]


def test_the_driver_reads_the_new_target_as_soon_as_the_buffer_is_back():
    made = opened()
    made.policy.after[PagesInflated] = Gate(
        256, reclaim=False, targets=Answer.REFUSED, reason="hold"
    )
    read_when_back = []
    push = made.inflateq.push

    def push_and_read(chains):
        push(chains)
        read_when_back.append(made.target())

    made.inflateq.push = push_and_read

    made.inflate(1)

    assert read_when_back == [256]


def test_the_policy_sees_a_buffer_before_it_is_returned():
    made = rig()
    seen = []
    push = made.inflateq.push
    made.inflateq.push = lambda chains: (seen.extend(made.policy.seen), push(chains))

    made.inflate(7, 8)

    assert PagesInflated((7, 8)) in seen


def test_a_change_of_the_gate_is_announced_before_the_buffer_is_back():
    made = opened()
    made.device.driver_ready()
    made.forget()
    made.policy.after[PagesInflated] = SHUT

    made.inflate(1)

    assert [what for what, *_ in made.log] == ["config", "push", "notify"]


def test_a_buffer_in_several_parts_is_read_whole():
    made = opened()
    data = b"".join(pfn.to_bytes(4, "little") for pfn in (1, 2, 3))

    made.inflateq.offer_bytes(data[:2], data[2:7], b"", data[7:])
    made.device.queue_notify(0)

    assert made.recorder.of(PagesInflated) == [PagesInflated((1, 2, 3))]


def test_a_later_buffer_that_shuts_the_gate_condemns_those_before_it():
    made = opened()
    made.policy.when = [(PagesInflated((2,)), SHUT)]
    heads = [made.inflateq.offer(pfn) for pfn in (1, 2, 3)]

    made.device.queue_notify(0)

    assert made.host.discards == []
    assert made.inflateq.returned == heads
    assert made.device.query().ballooned == 3


def test_a_later_buffer_that_opens_the_gate_lets_in_itself_and_its_successors():
    made = rig()
    made.policy.when = [(PagesInflated((2,)), OPEN)]
    for pfn in (1, 2, 3):
        made.inflateq.offer(pfn)

    made.device.queue_notify(0)

    assert made.host.discards == [(2, 2)]
    assert made.device.query().ballooned == 3


def test_a_gate_shut_for_a_moment_keeps_that_buffer():
    made = opened()
    made.policy.when = [(PagesInflated((2,)), SHUT), (PagesInflated((3,)), OPEN)]
    for pfn in (1, 2, 3):
        made.inflateq.offer(pfn)

    made.device.queue_notify(0)

    assert made.host.discards == [(1, 1), (3, 1)]


def test_the_policy_sees_each_buffer_by_itself_duplicates_and_all():
    made = rig()
    made.inflateq.offer(5, 5, 2**32 - 1)
    made.inflateq.offer(6)

    made.device.queue_notify(0)

    assert made.policy.seen[-2:] == [
        PagesInflated((5, 5, 2**32 - 1)),
        PagesInflated((6,)),
    ]


# --- rule 11: merge before you discard ----------------------------------------------


@given(st.lists(st.lists(st.integers(0, 40), max_size=20), min_size=1, max_size=5))
def test_a_batch_is_discarded_in_runs_sorted_disjoint_and_merged(buffers):
    made = opened()
    for pfns in buffers:
        made.inflateq.offer(*pfns)

    made.device.queue_notify(0)

    pages = {pfn for pfns in buffers for pfn in pfns}
    runs = made.host.discards
    assert [page for first, count in runs for page in range(first, first + count)] == (
        sorted(pages)
    )
    assert all(sum(run) < following[0] for run, following in itertools.pairwise(runs))
    assert made.host.count("discard") == bool(pages)


# --- rule 12: byte order ------------------------------------------------------------


@pytest.mark.parametrize("order", ByteOrder)
def test_page_numbers_are_in_the_order_of_the_queue(order):
    made = opened()
    made.inflateq.byte_order = order
    made.deflateq.byte_order = order

    made.inflate(1, 256)
    made.deflate(256)

    assert made.recorder.of(PagesInflated) == [PagesInflated((1, 256))]
    assert made.recorder.of(PagesDeflated) == [PagesDeflated((256,))]
    assert made.device.query().ballooned == 1


# --- translations -------------------------------------------------------------------


def reading(**translation):
    return replace(OPEN, translation=Translation(**translation))


def test_page_numbers_are_read_as_the_policy_says():
    made = opened(gate=reading(swap_pfns=True))

    made.inflate(0x0100_0000, 0x0200_0000)

    assert made.host.discards == [(1, 2)]
    assert made.recorder.of(PagesInflated) == [
        PagesInflated((0x0100_0000, 0x0200_0000))
    ]


def test_slots_of_two_entries_are_one_page_each():
    made = opened(gate=reading(slot_entries=2))

    made.inflate(5, 0, 6, 0)

    assert made.host.discards == [(5, 2)]


def test_a_buffer_with_half_a_slot_does_not_shift_the_next_one():
    made = opened(gate=reading(slot_entries=2))
    made.inflateq.offer(5, 0, 6)
    made.inflateq.offer(8, 0, 9, 0)

    made.device.queue_notify(0)

    assert made.host.discards == [(5, 2), (8, 2)]


def test_a_number_may_stand_for_several_pages():
    made = opened(gate=reading(pages_per_pfn=16))

    made.inflate(1, 2, 4)

    assert made.host.discards == [(16, 32), (64, 16)]
    assert made.device.query().ballooned == 48


def test_a_number_may_stand_for_two_pages():
    made = opened(gate=reading(pages_per_pfn=2))

    made.inflate(1, 2, 4)

    assert made.host.discards == [(2, 4), (8, 2)]


def test_a_number_may_stand_for_the_largest_page_of_any_cpu():
    made = opened(gate=reading(pages_per_pfn=2**18))

    made.inflate(0, 1)

    assert made.host.discards == [(0, RAM_PAGES)]


def test_a_number_outside_ram_stays_outside_when_it_is_scaled():
    made = opened(gate=reading(pages_per_pfn=16))

    made.inflate(RAM_PAGES // 16 - 1, RAM_PAGES // 16, 2**32 - 1)

    assert made.host.discards == [(RAM_PAGES - 16, 16)]
    assert len(made.faults) == 1


def test_of_a_buffer_so_many_entries_count_as_the_policy_says():
    made = opened(gate=replace(OPEN, entries=2))

    made.inflate(1, 2, 7)
    made.deflate(1, 7, 2)

    assert made.host.discards == [(1, 2)]
    assert made.recorder.of(PagesInflated) == [PagesInflated((1, 2, 7))]
    assert made.device.query().ballooned == 1


def test_deflated_pages_are_read_the_same_way():
    made = opened(gate=reading(swap_pfns=True))
    made.inflate(0x0100_0000, 0x0200_0000)

    made.deflate(0x0100_0000)

    assert made.device.query().ballooned == 1


def test_a_translation_that_comes_with_a_buffer_holds_for_it():
    made = rig()
    made.policy.after[PagesInflated] = reading(swap_pfns=True)

    made.inflate(0x0100_0000)

    assert made.host.discards == [(1, 1)]


def test_a_translation_that_comes_with_a_deflation_holds_for_it():
    made = rig()
    made.policy.after[PagesDeflated] = reading(swap_pfns=True)
    made.inflate(1)

    made.deflate(0x0100_0000)

    assert made.device.query().ballooned == 0


def test_what_was_recorded_by_another_reading_was_wrong():
    made = opened()
    made.inflate(*range(10))
    made.policy.gate = reading(swap_pfns=True)

    made.inflate(0x0100_0000)

    assert made.device.query().ballooned == 1


def read_otherwise():
    """Return a device whose policy reads the driver otherwise once the gate is open."""
    made = opened(gate=SHUT, must_tell_host=True)
    made.device.set_features(MUST_TELL_HOST)
    made.inflate(*range(100, 116))
    made.policy.gate = reading(pages_per_pfn=16)
    made.write_actual(256)
    return made


def test_what_was_recorded_by_another_reading_is_not_given_back_later():
    made = read_otherwise()

    made.device.tick()

    assert made.host.discards == []
    assert made.device.query().ballooned == 0


def test_what_was_recorded_by_another_reading_is_not_saved():
    source = read_otherwise()
    made = opened(gate=source.policy.gate, must_tell_host=True)

    made.device.load(source.device.save())
    made.device.tick()

    assert made.host.discards == []
    assert made.device.query().ballooned == 0


def test_actual_is_shown_as_the_driver_means_it():
    made = opened(gate=reading(swap_actual=True))

    made.write_actual(0x1000_0000)

    assert made.device.query().actual == 16
    assert made.recorder.of(ActualWritten) == [ActualWritten(0x1000_0000)]


def test_a_restored_record_is_not_taken_for_another_reading():
    source = opened(gate=reading(swap_pfns=True))
    source.inflate(0x0100_0000)
    made = opened(gate=reading(swap_pfns=True))

    made.device.load(source.device.save())
    made.inflate(0x0200_0000)

    assert made.device.query().ballooned == 2


# --- host pages larger than 4 KiB ---------------------------------------------------


def test_a_large_host_page_waits_for_all_its_pieces():
    made = told()
    made.inflate(*range(15))
    before = list(made.host.discards)

    made.inflate(15)

    assert before == []
    assert made.host.discards == [(0, 16)]
    assert made.device.query().reclaimed == 16


def test_without_a_promise_pieces_of_returned_buffers_do_not_count():
    made = opened(FakeHost(host_page_size=65536))
    made.device.set_features(0)

    made.inflate(*range(8))
    made.inflate(*range(8, 16))

    assert made.host.discards == []


def test_without_a_promise_pieces_of_one_batch_do():
    made = opened(FakeHost(host_page_size=65536))
    made.inflateq.offer(*range(8))
    made.inflateq.offer(*range(8, 16))

    made.device.queue_notify(0)

    assert made.host.discards == [(0, 16)]


def test_a_piece_taken_back_in_between_is_missing():
    made = told()
    made.inflate(*range(15))
    made.deflate(3)

    made.inflate(15)

    assert made.host.discards == []


def test_a_host_page_that_is_not_all_ram_is_never_given_back():
    made = told(ram=[(8, RAM_PAGES)])

    made.inflate(*range(8, 32))

    assert made.host.discards == [(16, 16)]
