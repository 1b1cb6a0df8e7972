"""What other devices hang, crash or lose pages on, by the table of peers (section 4).

Every guest here means harm, or is wrong. Each buffer comes back all the same, what is
right in it counts, the driver's error is told, and the next buffer is served.
"""

from __future__ import annotations

import struct

import pytest
from raw_guest import (
    BUFFERS,
    FIRST_PAGE,
    INDIRECT_DESC,
    OUTSIDE,
    PACKED,
    PAGE,
    SIZE,
    STATS_VQ,
    STATSQ,
    VERSION_1,
    RawGuest,
)
from ring import INDIRECT, NEXT, WRITE

from balloon_plugin.core import MAX_BUFFER_BYTES
from balloon_plugin.events import ByteOrder, PagesInflated, StatsReceived
from balloon_plugin.layouts import StatTag
from balloon_plugin.stats import MAX_STATS

KINDS = {
    "split": (VERSION_1, ByteOrder.LITTLE),
    "packed": (VERSION_1 | PACKED, ByteOrder.LITTLE),
    "legacy, big-endian": (0, ByteOrder.BIG),
}


@pytest.fixture(params=KINDS)
def guest(request):
    features, order = KINDS[request.param]
    with RawGuest(features | INDIRECT_DESC | STATS_VQ, order=order) as guest:
        yield guest.started()


@pytest.fixture(autouse=True)
def goes_on(guest):
    """See that the device still serves the guest, or one that was reset."""
    yield
    if guest.host.lost:
        guest.host.reset()
        guest.rings.clear()
        guest.started()
    before = guest.status.ballooned
    assert guest.inflate(FIRST_PAGE + 0x400)
    assert guest.status.ballooned == before + 1


# --- page numbers -------------------------------------------------------------------


def test_a_page_outside_ram_is_skipped_and_told(guest):
    """Others skip it; kvmtool looks up no memory for it."""
    outside = OUTSIDE // PAGE
    marked = guest.touched(FIRST_PAGE, FIRST_PAGE + 1)

    assert guest.inflate(FIRST_PAGE, outside, 0xFFFFFFFF, FIRST_PAGE + 1)

    assert guest.status.ballooned == guest.host.discarded_pages == 2
    assert marked() == []
    assert guest.faults == ["2 page numbers are not in RAM"]


def test_a_page_that_is_there_twice_counts_once(guest):
    """QEMU, Cloud Hypervisor and kvmtool discard it twice."""
    assert guest.inflate(FIRST_PAGE, FIRST_PAGE, FIRST_PAGE)
    assert guest.inflate(FIRST_PAGE)

    assert guest.status.ballooned == 1
    assert guest.status.reclaimed == 1


# --- buffers ------------------------------------------------------------------------


def test_a_buffer_outside_ram_comes_back_and_what_came_before_counts(guest):
    """Firecracker loses the batch, crosvm's queue stalls, alioth panics on nesting."""
    first = guest.place(guest.pfns(FIRST_PAGE))
    guest.offer((first, 4, 0), (OUTSIDE, 4, 0), head=0)
    guest.offer((OUTSIDE - 2, 4, 0), head=2)
    guest.offer((0xFFFF_FFFF_FFFF_FFFE, 4, 0), head=3)
    guest.offer((guest.place(guest.pfns(FIRST_PAGE + 1)), 4, 0), head=4)

    assert guest.kick() == [0, 2, 3, 4]
    assert guest.status.ballooned == 2
    assert len(guest.faults) == 3
    assert all("is not in RAM" in fault for fault in guest.faults)


def test_a_buffer_of_nothing_comes_back(guest):
    """Of no length, with an empty table, and with a table in a table."""
    inner = guest.rings[0].entry(OUTSIDE, 16, INDIRECT | NEXT)
    guest.offer((BUFFERS, 0, 0), head=0)
    guest.offer((BUFFERS, 0, INDIRECT), head=1)
    guest.offer((guest.place(inner), 16, INDIRECT), head=2)

    assert guest.kick() == [0, 1, 2]
    assert guest.status.ballooned == 0
    assert len(guest.faults) == 2


@pytest.mark.parametrize("tail", [1, 2, 3])
def test_a_tail_that_is_no_page_number_is_ignored(guest, tail):
    """Firecracker and Cloud Hypervisor drop the whole buffer."""
    assert guest.send(guest.pfns(FIRST_PAGE) + b"\xff" * tail)

    assert guest.status.ballooned == 1


def test_a_writable_buffer_is_not_read(guest):
    """kvmtool takes it for page numbers."""
    assert guest.send(guest.pfns(FIRST_PAGE), flags=WRITE)

    assert guest.status.ballooned == guest.host.discarded_pages == 0


def test_a_huge_buffer_comes_back_and_has_a_bound(guest):
    """Firecracker never returns one of more than 256 numbers; others have no limit."""
    length = 4 << 20
    guest.offer((BUFFERS, length, 0), head=0)
    guest.offer((BUFFERS, 0xFFFFFFFF, 0), head=1)

    assert guest.kick() == [0, 1]
    sizes = [len(event.pfns) for event in guest.recorder.of(PagesInflated)]
    assert sizes == [MAX_BUFFER_BYTES // 4]
    assert len(guest.faults) == 1


def test_a_chain_is_read_whole_even_across_a_number(guest):
    """Firecracker reads the first descriptor alone, and so does kvmtool."""
    data = guest.pfns(FIRST_PAGE, FIRST_PAGE + 1, FIRST_PAGE + 2)
    pieces = data[:3], data[3:6], data[6:]
    guest.offer(*[(guest.place(piece), len(piece), 0) for piece in pieces])

    assert guest.kick() == [0]
    assert guest.status.ballooned == 3
    assert guest.faults == []


def test_a_chain_without_an_end_is_one_fault_or_a_reset(guest):
    """A loop in a split ring is cut; in a packed one it takes up all there is."""
    ring = guest.rings[0]
    at = guest.place(guest.pfns(FIRST_PAGE))
    if guest.features & PACKED:
        for index in range(SIZE):
            ring.describe(index, at, 4, NEXT | 1 << 7, 0)
    else:
        ring.describe(0, at, 4, NEXT, 0)
        ring.offer(0)
    returned = guest.kick()

    assert len(guest.faults) == 1
    assert (returned, guest.host.lost) in (([0], False), ([], True))
    assert guest.host.lost is bool(guest.features & PACKED)


# --- the ring -----------------------------------------------------------------------


def test_an_index_that_jumps_asks_for_a_reset(guest):
    """Firecracker panics, on purpose; most others do not look."""
    ring, before = guest.rings[0], guest.host.config_interrupts
    if guest.features & PACKED:
        for _ in range(2):
            guest.offer((guest.place(guest.pfns(FIRST_PAGE)), 4, 0))
    else:
        ring.announce(SIZE + 1)
    guest.host.kick(0)

    assert guest.host.lost
    assert guest.host.config_interrupts == before + 1
    assert guest.faults == [guest.host.queue(0).broken]


# --- statistics ---------------------------------------------------------------------


def stats(guest, *values):
    mark = "<" if guest.order is ByteOrder.LITTLE else ">"
    return b"".join(struct.pack(f"{mark}HQ", *value) for value in values)


def send_stats(guest, data, head=0):
    guest.offer((guest.place(data), len(data), 0), queue=STATSQ, head=head)
    return guest.kick(STATSQ)


@pytest.fixture
def primed(guest):
    """Give a guest whose first buffer has come and gone: D8."""
    guest.device.set_stats_interval(10)
    send_stats(guest, stats(guest, (0, 0)))
    guest.host.advance(20)
    assert [head for head, _ in guest.rings[STATSQ].returned()] == [0]
    guest.recorder.events.clear()
    return guest


def test_statistics_without_end_have_a_bound(primed):
    """kvmtool copies them over its own memory; Linux 6.12 sent too many for some."""
    every = [(tag, 1000 + tag) for tag in StatTag]
    send_stats(primed, stats(primed, *every * 2000))

    ((seen,),) = [(event,) for event in primed.recorder.of(StatsReceived)]
    assert len(seen.stats) == MAX_STATS
    assert seen.stats[:16] == tuple(every)


@pytest.mark.parametrize("tail", [1, 9])
def test_half_a_statistic_is_ignored(primed, tail):
    """Firecracker reads past the end of the last one."""
    free = StatTag.VIRTIO_BALLOON_S_MEMFREE, 5
    send_stats(primed, stats(primed, free) + b"\xff" * tail)

    assert primed.status.stats.values == (free,)


def test_garbage_in_statistics_is_kept_apart_by_its_tag(primed):
    """D7, MUST ignore unknown tags: they are shown, and nobody acts on them."""
    free = StatTag.VIRTIO_BALLOON_S_MEMFREE, 5
    garbage = 0xBEEF, 2**64 - 1
    send_stats(primed, stats(primed, garbage, free))

    assert primed.status.stats.values == (garbage, free)
    assert primed.faults == []


def test_a_second_buffer_of_statistics_sends_the_first_back(primed):
    """kvmtool leaks it, Cloud Hypervisor leaves it where it is."""
    first = send_stats(primed, stats(primed, (4, 1)), head=1)
    second = send_stats(primed, stats(primed, (4, 2)), head=2)
    primed.host.advance(20)
    asked = [head for head, _ in primed.rings[STATSQ].returned()]

    assert (first, second, asked) == ([], [1], [2])
    assert primed.status.stats.values == ((4, 2),)


# --- configuration ------------------------------------------------------------------


def test_a_lie_in_actual_is_clamped_and_flagged(guest):
    """QEMU subtracts it from the RAM and wraps; the others show it as it is."""
    guest.host.config_write(4, b"\xff" * 4)

    assert guest.status.actual == guest.status.ram
    assert guest.status.actual_clamped


@pytest.mark.parametrize("offset", [16, 17, 255, 1 << 32, 1 << 63])
def test_what_is_outside_the_configuration_is_nothing(guest, offset):
    """Firecracker warns; a write of many bytes may begin inside."""
    before = guest.host.config_read(0, 16), guest.device.save()
    guest.host.config_write(offset, b"\xff" * 8)

    assert (guest.host.config_read(0, 16), guest.device.save()) == before
    assert guest.host.config_read(offset, 8) == bytes(8)


def test_the_target_is_not_the_drivers_to_write(guest):
    """Firecracker, alioth and kvmtool take any byte, those of num_pages included."""
    guest.device.set_target(0x0934)
    for at in range(4):
        guest.host.config_write(at, b"\xff")
    guest.host.config_write(0, b"\xff" * 16)

    assert guest.host.config_read(0, 4) == (0x0934).to_bytes(4, "little")


def test_actual_may_come_in_pieces_and_counts_when_it_is_whole(guest):
    """Cloud Hypervisor loses what legacy PCI writes byte by byte."""
    seen = []
    for at, byte in enumerate((0x34, 0x09, 0, 0)):
        guest.host.config_write(4 + at, bytes([byte]))
        seen.append(guest.status.actual)

    assert seen == [0, 0, 0, 0x0934]
    assert guest.host.config_read(4, 4) == (0x0934).to_bytes(4, "little")
