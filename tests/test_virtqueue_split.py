"""The device's side of split rings, driven by raw bytes (:mod:`ring`)."""

from __future__ import annotations

import mmap
from dataclasses import dataclass, replace

import pytest
from examples import times
from hypothesis import given
from hypothesis import strategies as st
from ring import INDIRECT, NEXT, WRITE, DriverRing

from balloon_plugin.errors import HostError
from balloon_plugin.events import ByteOrder
from balloon_plugin.hookspecs import VirtQueue
from balloon_plugin.memory import GuestMemory, Region
from balloon_plugin.virtqueue import (
    MAX_CHAIN_BYTES,
    MAX_CHAIN_DESCRIPTORS,
    Chain,
    Ring,
    SplitQueue,
)

PAGE = 4096
INDIRECT_DESC = 1 << 28
EVENT_IDX = 1 << 29

# Guest-physical: rings and buffers in the first region, one that touches it, a hole,
# and one by itself.
RAM = 0x10000
RAM_END = 0x20000
NEAR_END = 0x22000
FAR, FAR_END = 0x40000, 0x41000
BUFFER = 0x18000
INDIRECT_TABLE = 0x1A000


def in_ram(address, size):
    return RAM <= address <= address + size <= NEAR_END or (
        FAR <= address <= address + size <= FAR_END
    )


class WatchedMemory(GuestMemory):
    """Memory that counts and checks what it is asked for."""

    lookups = 0

    def covers(self, address, size):
        self.lookups += 1
        answer = super().covers(address, size)
        assert answer == in_ram(address, size)
        return answer

    def read(self, address, size):
        data = super().read(address, size)
        assert data is None or (in_ram(address, size) and len(data) == size)
        return data


@dataclass
class Rig:
    """A guest with a ring, and the queue that serves it."""

    size: int = 8
    order: ByteOrder = ByteOrder.LITTLE
    features: int = INDIRECT_DESC

    def __post_init__(self):
        self.ram = bytearray(RAM_END - RAM)
        self.memory = WatchedMemory(
            [
                Region(RAM, memoryview(self.ram)),
                Region(RAM_END, memoryview(bytearray(NEAR_END - RAM_END))),
                Region(FAR, memoryview(bytearray(FAR_END - FAR))),
            ]
        )
        self.ring = DriverRing(self.ram, self.size, self.order, base=RAM, start=RAM)
        self.start()

    def start(self, base=0, **changes):
        ring = self.ring
        usual = Ring(
            ring.size, ring.desc, ring.avail, ring.used, self.features, self.order
        )
        self.queue = SplitQueue(self.memory, replace(usual, **changes), base)
        return self.queue

    def chain(self, *entries):
        """Offer descriptors 0, 1, ... as one chain, and return what is popped."""
        for index, entry in enumerate(entries):
            self.ring.describe(index, *entry)
        self.ring.offer(0)
        (chain,) = self.queue.pop(1)
        return chain


@pytest.fixture(params=ByteOrder, ids=lambda order: order.value)
def rig(request):
    return Rig(order=request.param)


def singles(rig, count):
    """Describe ``count`` buffers of one descriptor each."""
    for index in range(count):
        rig.ring.describe(index, BUFFER + 16 * index, 16)


# --- rings ---


def test_a_queue_keeps_the_promise_of_hosts():
    queue: VirtQueue = Rig(order=ByteOrder.BIG).queue

    assert queue.byte_order is ByteOrder.BIG
    assert queue.broken is None


def test_an_empty_ring_has_nothing_to_pop(rig):
    assert rig.queue.pop(16) == []
    assert rig.queue.broken is None


def test_a_buffer_goes_there_and_back(rig):
    rig.ring.describe(5, BUFFER, 1024)
    rig.ring.offer(5)

    chains = rig.queue.pop(16)
    rig.queue.push(chains)

    assert chains == [Chain(5, ((BUFFER, 1024),), ())]
    assert rig.ring.returned() == [(5, 0)]
    assert rig.queue.pop(16) == []


def test_a_writable_buffer_is_told_from_a_readable_one(rig):
    assert rig.chain((BUFFER, 64, WRITE)) == Chain(0, (), ((BUFFER, 64),))


def test_chains_come_in_order_and_up_to_the_limit(rig):
    singles(rig, 8)
    rig.ring.offer(3, 1, 4, 0, 5)

    first, second = rig.queue.pop(2), rig.queue.pop(16)

    assert [chain.head for chain in first] == [3, 1]
    assert [chain.head for chain in second] == [4, 0, 5]
    assert rig.queue.pop(0) == []


@pytest.mark.parametrize("order", ByteOrder)
@pytest.mark.parametrize("size", [1, 2, 8, 256])
@pytest.mark.parametrize("start", [0, 65536 - 100])
def test_rings_and_indexes_wrap(order, size, start):
    rig = Rig(size, order)
    singles(rig, size)
    rig.ring.offered = rig.ring.seen = start
    rig.ring.put("HH", rig.ring.used, 0, start)
    rig.ring.announce(start)
    queue = rig.start(base=start)

    for turn in range(300):
        heads = [(turn + step) % size for step in range(1 + turn % min(size, 7))]
        rig.ring.offer(*heads)
        queue.push(queue.pop(size))
        assert rig.ring.returned() == [(head, 0) for head in heads]

    assert queue.broken is None
    assert queue.base == rig.ring.offered


def test_a_batch_is_returned_across_the_end_of_the_used_ring(rig):
    singles(rig, 8)
    rig.ring.offer(*range(6))
    rig.queue.push(rig.queue.pop(8))
    rig.ring.returned()
    rig.ring.offer(7, 6, 5, 4, 3)

    rig.queue.push(rig.queue.pop(8))

    assert rig.ring.returned() == [(7, 0), (6, 0), (5, 0), (4, 0), (3, 0)]


def test_chains_may_be_returned_one_by_one_and_in_another_order(rig):
    singles(rig, 8)
    rig.ring.offer(0, 1, 2)
    first, second, third = rig.queue.pop(8)

    rig.queue.push([second])
    rig.queue.push([])
    rig.queue.push([third, first])

    assert rig.ring.returned() == [(1, 0), (2, 0), (0, 0)]


def test_the_index_is_stored_last_and_whole(rig, monkeypatch):
    singles(rig, 8)
    rig.ring.offer(4, 2)
    chains = rig.queue.pop(8)
    stored = []
    words = rig.queue._used
    store = words.store

    def watched(place, word):
        elements = rig.ring.get("IIII", rig.ring.used + 4)
        stored.append((place, word, rig.ring.used_idx, elements))
        store(place, word)

    monkeypatch.setattr(words, "store", watched)
    rig.queue.push(chains)

    assert stored == [(1, 2, 0, (4, 0, 2, 0))]
    assert rig.ring.used_idx == 2


def test_only_the_used_ring_is_written(rig):
    singles(rig, 8)
    rig.ring.offer(*range(8))
    before = bytes(rig.ram)

    rig.queue.push(rig.queue.pop(8))

    start, end = rig.ring.used - RAM, rig.ring.end - RAM
    assert rig.ram[:start] == before[:start]
    assert rig.ram[end:] == before[end:]


def test_a_ring_that_was_served_before_goes_on_where_it_was(rig):
    singles(rig, 8)
    rig.ring.offered = rig.ring.seen = 0xFFFE
    rig.ring.put("HH", rig.ring.used, 1, 0xFFFE)
    rig.ring.announce(0xFFFE)

    queue = rig.start(base=0xFFFE)
    rig.ring.offer(3, 4, 5)
    queue.push(queue.pop(8))

    assert rig.ring.returned() == [(3, 0), (4, 0), (5, 0)]
    assert queue.base == 1
    assert rig.ring.used_flags == 0, "the driver was still asked not to notify"


def test_a_successor_gets_the_buffers_that_were_kept(rig):
    singles(rig, 8)
    rig.ring.offer(0, 1, 2)
    first, *_ = rig.queue.pop(8)
    assert rig.queue.base == 0

    rig.queue.push([first])
    assert rig.queue.base == 1

    successor = rig.start(base=rig.queue.base)
    assert [chain.head for chain in successor.pop(8)] == [1, 2]


@pytest.mark.parametrize("base", [65536, 0x1_0000_0003, -1])
def test_an_index_from_a_front_end_is_cut_to_16_bits(rig, base):
    queue = rig.start(base)

    assert queue.base == base % 65536


@pytest.mark.parametrize(
    ("used", "base"),
    [
        pytest.param(5, 4, id="one back"),
        pytest.param(0x0001, 0x0100, id="in another byte order"),
        pytest.param(0x0100, 0x0001, id="back, in another byte order"),
        pytest.param(0, 9, id="too far ahead"),
    ],
)
def test_no_buffer_is_served_again_that_the_driver_has_back(rig, used, base):
    rig.ring.put("HH", rig.ring.used, 0, used)
    rig.ring.announce(used)

    queue = rig.start(base=base)

    assert queue.broken == (
        f"the queue cannot go on at {base}, as its used ring stands at {used}"
    )
    assert queue.pop(8) == []


def test_buffers_of_a_predecessor_may_be_on_their_way(rig):
    singles(rig, 8)
    rig.ring.offer(*range(8))

    assert rig.start(base=8).broken is None


# --- what only the host can get wrong ---


def test_a_chain_that_was_not_popped_cannot_be_returned(rig):
    singles(rig, 8)
    rig.ring.offer(1, 2)
    popped = rig.queue.pop(8)
    stranger = Chain(3, (), ())

    with pytest.raises(HostError, match=r"\[1, 2, 3\] some are not the device's"):
        rig.queue.push([*popped, stranger])

    assert rig.ring.returned() == []
    rig.queue.push(popped)
    assert rig.ring.returned() == [(1, 0), (2, 0)]


def test_a_chain_cannot_be_returned_twice(rig):
    singles(rig, 8)
    rig.ring.offer(1)
    popped = rig.queue.pop(8)

    with pytest.raises(HostError, match="once"):
        rig.queue.push(popped * 2)
    rig.queue.push(popped)
    with pytest.raises(HostError, match="once"):
        rig.queue.push(popped)

    assert rig.ring.returned() == [(1, 0)]


def test_a_released_queue_lets_go_of_memory():
    mapping = mmap.mmap(-1, 4 * PAGE)
    memory = GuestMemory([Region(0, memoryview(mapping))])
    ring = Ring(8, 0, 0x1000, 0x2000, features=0, native=ByteOrder.LITTLE)
    queue = SplitQueue(memory, ring)
    mapping[0x1002] = 3
    mapping[0x1004:0x100A] = bytes([0, 0, 1, 0, 2, 0])
    chains = queue.pop(8)
    queue.push(chains[:1])

    queue.release()

    memory.release()
    mapping.close()
    assert queue.base == 1
    assert queue.broken == "the queue was stopped"
    assert queue.pop(8) == []
    with pytest.raises(HostError):
        queue.push(chains[1:])


# --- notifications ------------------------------------------------------------------


def returned_by(rig, *heads):
    """Offer buffers; return whether the driver is to be notified of their return."""
    rig.ring.offer(*heads)
    return rig.queue.push(rig.queue.pop(8))


@pytest.mark.parametrize(
    ("flags", "wanted"), [(0, True), (1, False), (2, True), (0xFFFF, False)]
)
def test_a_driver_may_want_no_notification(rig, flags, wanted):
    singles(rig, 8)
    rig.ring.wish(flags)

    assert returned_by(rig, 3) is wanted
    assert rig.queue.push([]) is False


@pytest.mark.parametrize("start", [0, 5, 0xFFFE])
@pytest.mark.parametrize("count", [1, 3])
def test_a_driver_may_wait_for_an_index(rig, start, count):
    """§2.7.7.2: MUST notify if an element was placed there, MUST ignore flags."""
    rig.features = EVENT_IDX
    singles(rig, 8)
    wanted = []
    for event in range(start - 3, start + 6):
        rig.ring.offered = start
        rig.ring.put("HH", rig.ring.used, 0, start)
        rig.start(start)
        rig.ring.wish(1, event & 0xFFFF)
        if returned_by(rig, *range(count)):
            wanted.append(event)

    assert wanted == [*range(start, start + count)]


def test_without_event_idx_every_buffer_may_be_kicked(rig):
    singles(rig, 8)
    rig.ring.put("H", rig.ring.avail_event, 77)
    returned_by(rig, 3)

    assert rig.ring.used_flags == 0
    assert rig.ring.asked == 77


def test_with_event_idx_a_kick_is_asked_for_where_it_ends(rig):
    rig.features = EVENT_IDX
    queue = rig.start()
    singles(rig, 8)
    rig.ring.offer(0, 1, 2)

    queue.pop(2)
    between = rig.ring.asked
    queue.pop(1)
    drained = rig.ring.asked
    rig.ring.offer(3, 4)
    queue.pop(8)

    assert (between, drained, rig.ring.asked) == (0, 3, 5)


def test_a_kick_is_asked_for_once(rig, monkeypatch):
    rig.features = EVENT_IDX
    queue = rig.start()
    asked = []
    monkeypatch.setattr(queue, "_fence", lambda: asked.append(rig.ring.asked))

    for _ in range(3):
        assert queue.pop(8) == []

    assert asked == [0]


def test_what_comes_while_a_kick_is_asked_for_is_seen(rig, monkeypatch):
    rig.features = EVENT_IDX
    queue = rig.start()
    singles(rig, 8)
    late = iter([6])
    monkeypatch.setattr(queue, "_fence", lambda: rig.ring.offer(*late))

    assert [chain.head for chain in queue.pop(8)] == [6]


@pytest.mark.parametrize("features", [0, EVENT_IDX])
def test_a_fence_is_between_what_is_returned_and_the_drivers_wish(
    rig, monkeypatch, features
):
    """A wish that the driver takes back when it sees no used buffer is seen."""
    rig.features = features
    queue = rig.start()
    singles(rig, 8)
    rig.ring.wish(1, 0x8000)
    rig.ring.offer(0)
    chains = queue.pop(8)
    seen = []

    def fence():
        seen.append(rig.ring.used_idx)
        rig.ring.wish(0, 0)

    monkeypatch.setattr(queue, "_fence", fence)

    assert queue.push(chains) is True
    assert seen == [1]


def test_events_are_in_ram_too():
    ring = Ring(8, RAM, NEAR_END - 20, RAM + 0x100, EVENT_IDX, ByteOrder.LITTLE)
    memory = Rig().memory

    for changed in (ring, replace(ring, avail=RAM + 0x200, used=FAR_END - 68)):
        assert "is not in one region of RAM" in SplitQueue(memory, changed).broken
        assert SplitQueue(memory, replace(changed, features=0)).broken is None


# --- rings that are lost ---


def test_more_buffers_than_entries_break_the_ring(rig):
    rig.ring.announce(9)

    assert rig.queue.pop(16) == []
    assert rig.queue.broken == "the driver offers 9 buffers at once"


def test_an_index_that_goes_back_breaks_the_ring(rig):
    singles(rig, 8)
    rig.ring.offer(0, 1)
    rig.queue.push(rig.queue.pop(8))
    rig.ring.announce(1)

    assert rig.queue.pop(16) == []
    assert rig.queue.broken == "the driver offers 65535 buffers at once"


def test_as_many_buffers_as_entries_are_in_order(rig):
    singles(rig, 8)
    rig.ring.offer(*range(8))

    assert len(rig.queue.pop(16)) == 8
    assert rig.queue.broken is None


def test_a_head_outside_the_table_breaks_the_ring(rig):
    singles(rig, 8)
    rig.ring.offer(1, 8, 2)

    chains = rig.queue.pop(16)

    assert [chain.head for chain in chains] == [1]
    assert rig.queue.broken == "the driver offers descriptor 8 in a queue of 8"
    assert rig.queue.pop(16) == []


def test_a_head_that_is_offered_twice_breaks_the_ring(rig):
    singles(rig, 8)
    rig.ring.offer(1, 2)
    chains = rig.queue.pop(16)
    rig.ring.offer(3, 1)

    chains += rig.queue.pop(16)

    assert [chain.head for chain in chains] == [1, 2, 3]
    assert rig.queue.broken == "the driver offers descriptor 1 before it was returned"


def test_a_broken_ring_still_takes_back_what_was_popped(rig):
    singles(rig, 8)
    rig.ring.offer(1, 2, 2)
    chains = rig.queue.pop(16)
    assert rig.queue.broken is not None

    rig.queue.push(chains)

    assert rig.ring.returned() == [(1, 0), (2, 0)]


@pytest.mark.parametrize("size", [0, -1, 3, 12, 32769, 65536])
def test_sizes_that_cannot_be(size):
    queue = Rig().start(size=size)

    assert queue.broken == f"a queue cannot have {size} entries (§2.7, §2.8)"
    assert queue.pop(16) == []


def test_the_largest_size_can_be():
    ram = bytearray(1 << 20)
    memory = GuestMemory([Region(0, memoryview(ram))])

    ring = Ring(32768, 0, 0x80000, 0xA0000, features=0, native=ByteOrder.LITTLE)
    queue = SplitQueue(memory, ring)

    assert queue.broken is None


@pytest.mark.parametrize(
    ("where", "address", "align"),
    [
        ("desc", RAM + 8, 16),
        ("avail", RAM + 0x1001, 2),
        ("used", RAM + 0x2002, 4),
    ],
)
def test_misaligned_parts_cannot_be(where, address, align):
    queue = Rig().start(**{where: address})

    assert queue.broken.endswith(f"{address:#x} is not aligned to {align} bytes")
    assert queue.pop(16) == []


@pytest.mark.parametrize("where", ["desc", "avail", "used"])
@pytest.mark.parametrize(
    "address", [0, RAM - 16, RAM_END - 16, 0x30000, (1 << 64) - 16]
)
def test_parts_outside_ram_cannot_be(where, address):
    rig = Rig(size=64)
    before = bytes(rig.ram)

    queue = rig.start(**{where: address})

    assert queue.broken.endswith(f"{address:#x} is not in one region of RAM")
    assert queue.pop(16) == []
    assert rig.ram == before


def test_parts_may_end_with_ram(rig):
    queue = rig.start(
        desc=RAM_END - 8 * 16, avail=NEAR_END - (4 + 8 * 2), used=FAR_END - (4 + 8 * 8)
    )

    assert queue.broken is None


# --- chains ---


def test_a_chain_of_readable_and_writable_parts(rig):
    chain = rig.chain(
        (BUFFER, 4, NEXT, 1),
        (BUFFER + 64, 0, NEXT, 2),
        (FAR, 8, NEXT | WRITE, 3),
        (RAM_END - 4, 8, WRITE),
    )

    assert chain == Chain(
        0,
        ((BUFFER, 4), (BUFFER + 64, 0)),
        ((FAR, 8), (RAM_END - 4, 8)),
    )


def test_flags_without_a_meaning_are_ignored(rig):
    assert rig.chain((BUFFER, 4, 0xFFF8, 7)) == Chain(0, ((BUFFER, 4),), ())


@pytest.mark.parametrize("flags", [INDIRECT, INDIRECT | WRITE])
def test_an_indirect_table_whose_own_write_flag_is_ignored(rig, flags):
    length = rig.ring.table(
        INDIRECT_TABLE,
        (BUFFER, 4, NEXT, 2),
        (BUFFER, 5, 0, 0),
        (BUFFER, 6, NEXT | WRITE, 3),
        (BUFFER, 7, WRITE, 0),
    )

    chain = rig.chain((INDIRECT_TABLE, length, flags))

    assert chain == Chain(0, ((BUFFER, 4),), ((BUFFER, 6), (BUFFER, 7)))


def test_an_indirect_table_after_normal_descriptors(rig):
    length = rig.ring.table(INDIRECT_TABLE, (BUFFER, 6, WRITE))

    chain = rig.chain((BUFFER, 4, NEXT, 1), (INDIRECT_TABLE, length, INDIRECT))

    assert chain == Chain(0, ((BUFFER, 4),), ((BUFFER, 6),))


@pytest.mark.parametrize("order", ByteOrder)
def test_a_chain_may_be_as_long_as_the_queue(order):
    rig = Rig(4, order)
    entries = [(BUFFER, 4, NEXT, index + 1) for index in range(3)]

    chain = rig.chain(*entries, (BUFFER, 4))

    assert chain == Chain(0, ((BUFFER, 4),) * 4, ())


# Each: the descriptors, those of an indirect table, how many parts are understood, and
# what is wrong.
FAULTS = {
    "loop": (
        [(BUFFER, 1, NEXT, 1), (BUFFER, 1, NEXT, 0)],
        [],
        8,
        "has a loop, or more",
    ),
    "self": ([(BUFFER, 1, NEXT, 0)], [], 8, "more than 8 descriptors"),
    "next outside": (
        [(BUFFER, 1, NEXT, 1), (BUFFER, 1, NEXT, 8)],
        [],
        2,
        "descriptor 8 is next in a table of 8",
    ),
    "next far outside": (
        [(BUFFER, 1, NEXT, 0xFFFF)],
        [],
        1,
        "descriptor 65535 is next in a table of 8",
    ),
    "readable after writable": (
        [(BUFFER, 1, NEXT | WRITE, 1), (BUFFER, 1)],
        [],
        1,
        "a device-readable part follows",
    ),
    "outside RAM": (
        [(BUFFER, 1, NEXT, 1), (NEAR_END - 4, 5)],
        [],
        1,
        "a part of 5 bytes at 0x21ffc is not in RAM",
    ),
    "alone outside RAM": ([(0x30000, 1)], [], 0, "a part of 1 bytes at 0x30000 is not"),
    "beyond the address space": ([((1 << 64) - 1, 2)], [], 0, "is not in RAM"),
    "nested": (
        [(INDIRECT_TABLE, ..., INDIRECT)],
        [(BUFFER, 1, NEXT, 1), (INDIRECT_TABLE, 16, INDIRECT)],
        1,
        "has an indirect descriptor in it",
    ),
    "indirect with next": (
        [(INDIRECT_TABLE, ..., INDIRECT | NEXT, 1), (BUFFER, 1)],
        [(BUFFER, 1)],
        0,
        "has a next one",
    ),
    "indirect, not whole": (
        [(INDIRECT_TABLE, 17, INDIRECT)],
        [(BUFFER, 1)],
        0,
        "an indirect table has 17 bytes",
    ),
    "indirect, empty": (
        [(INDIRECT_TABLE, 0, INDIRECT)],
        [(BUFFER, 1)],
        0,
        "an indirect table has 0 bytes",
    ),
    "indirect, too large": (
        [(INDIRECT_TABLE, (MAX_CHAIN_DESCRIPTORS + 1) * 16, INDIRECT)],
        [(BUFFER, 1)],
        0,
        "an indirect table has 4112 bytes",
    ),
    "indirect outside RAM": (
        [(BUFFER, 1, NEXT, 1), (0x30000, 16, INDIRECT)],
        [],
        1,
        "an indirect table at 0x30000 is not in RAM",
    ),
    "indirect next outside": (
        [(INDIRECT_TABLE, ..., INDIRECT)],
        [(BUFFER, 1, NEXT, 2), (BUFFER, 1)],
        1,
        "descriptor 2 is next in a table of 2",
    ),
    "indirect loop": (
        [(BUFFER, 1, NEXT, 1), (INDIRECT_TABLE, ..., INDIRECT)],
        [(BUFFER, 1, NEXT, 0)],
        8,
        "has a loop",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_chain_comes_back_with_what_could_be_understood(rig, name):
    entries, indirect, understood, what = FAULTS[name]
    length = rig.ring.table(INDIRECT_TABLE, *indirect)
    entries = [
        tuple(length if value is ... else value for value in entry) for entry in entries
    ]

    chain = rig.chain(*entries)
    rig.queue.push([chain])

    assert what in chain.fault
    assert len(chain.readable) + len(chain.writable) == understood
    assert rig.queue.broken is None
    assert rig.ring.returned() == [(0, 0)]


def test_an_indirect_descriptor_has_to_be_negotiated(rig):
    rig.start(features=0)
    length = rig.ring.table(INDIRECT_TABLE, (BUFFER, 1))

    chain = rig.chain((BUFFER, 1, NEXT, 1), (INDIRECT_TABLE, length, INDIRECT))

    assert "not negotiated" in chain.fault
    assert chain.readable == ((BUFFER, 1),)


def test_the_largest_indirect_table_can_be():
    rig = Rig(size=256)
    entries = [(BUFFER, 1, NEXT, index + 1) for index in range(255)]
    length = rig.ring.table(INDIRECT_TABLE, *entries, (BUFFER, 1))

    chain = rig.chain((INDIRECT_TABLE, length, INDIRECT))

    assert length == MAX_CHAIN_DESCRIPTORS * 16
    assert chain == Chain(0, ((BUFFER, 1),) * 256, ())


def test_a_long_chain_in_a_large_queue_has_a_bound():
    rig = Rig(size=1024)
    entries = [(BUFFER, 1, NEXT, index + 1) for index in range(1023)]

    chain = rig.chain(*entries, (BUFFER, 1))

    assert chain.fault == "the chain has a loop, or more than 256 descriptors"
    assert len(chain.readable) == 256


@pytest.mark.parametrize(
    ("surplus", "fault"),
    [(0, None), (1, "the chain has 4294967297 bytes (§2.7.5.2)")],
)
def test_a_chain_has_at_most_4_gib(rig, monkeypatch, surplus, fault):
    monkeypatch.setattr(rig.memory, "covers", lambda _address, _size: True)

    chain = rig.chain(
        (0, MAX_CHAIN_BYTES // 2, NEXT, 1),
        (0, MAX_CHAIN_BYTES // 2 - 16, NEXT | WRITE, 2),
        (0, 16 + surplus, WRITE),
    )

    assert MAX_CHAIN_BYTES == 1 << 32
    assert chain.fault == fault
    assert len(chain.writable) == 2 - surplus


def test_a_descriptor_is_read_once(rig, monkeypatch):
    entries = [(BUFFER, 1, NEXT, 1), (BUFFER, 2, NEXT, 2), (BUFFER, 3)]
    unpack, read = rig.queue._unpack, []

    def hostile(table, offset=0):
        descriptor = unpack(table, offset)
        read.append(offset // 16)
        rig.ring.describe(offset // 16, 0x30000, 99, NEXT | INDIRECT, 0xFFFF)
        return descriptor

    monkeypatch.setattr(rig.queue, "_unpack", hostile)
    chain = rig.chain(*entries)

    assert chain == Chain(0, ((BUFFER, 1), (BUFFER, 2), (BUFFER, 3)), ())
    assert read == [0, 1, 2]


def test_an_indirect_table_is_read_once(rig, monkeypatch):
    length = rig.ring.table(INDIRECT_TABLE, (BUFFER, 1, NEXT, 1), (BUFFER, 2))
    read = rig.memory.read

    def hostile(address, size):
        data = read(address, size)
        rig.ring.table(address, (0x30000, 99, NEXT, 9), (0x30000, 99, NEXT, 9))
        return data

    monkeypatch.setattr(rig.memory, "read", hostile)
    chain = rig.chain((INDIRECT_TABLE, length, INDIRECT))

    assert chain == Chain(0, ((BUFFER, 1), (BUFFER, 2)), ())


# --- any bytes at all ---

edges = st.sampled_from([RAM, RAM_END, NEAR_END, FAR, FAR_END, INDIRECT_TABLE, 1 << 64])
near = st.builds(int.__add__, edges, st.integers(-40, 40)).map(lambda n: n % (1 << 64))
fields = st.tuples(
    near | st.integers(0, (1 << 64) - 1),
    st.integers(0, 80).map(lambda n: n * 4) | st.integers(0, (1 << 32) - 1),
    st.integers(0, 7) | st.integers(0, 0xFFFF),
    st.integers(0, 9) | st.integers(0, 0xFFFF),
)
tables = st.lists(fields, max_size=8)


@dataclass(frozen=True)
class Mess:
    """What a driver may have written, and been believed to have negotiated."""

    order: ByteOrder
    size: int
    table: list
    indirect: list
    noise: bytes
    heads: list
    jump: int
    base: int
    negotiated: bool

    def made(self):
        """Return a rig with this mess in its memory."""
        rig = Rig(self.size, self.order)
        ring = rig.ring
        for index, entry in enumerate(self.table[: self.size]):
            ring.describe(index, *entry)
        noise = self.noise[: 16 * self.size]
        rig.ram[: len(noise)] = noise
        ring.table(INDIRECT_TABLE, *self.indirect)
        ring.offered = self.base
        ring.offer(*self.heads[: self.size])
        ring.announce((self.base + self.jump) & 0xFFFF)
        rig.start(self.base, features=INDIRECT_DESC * self.negotiated)
        return rig


messes = st.builds(
    Mess,
    order=st.sampled_from(ByteOrder),
    size=st.sampled_from([1, 2, 4, 8]),
    table=tables,
    indirect=tables,
    noise=st.just(b"") | st.binary(max_size=64),
    heads=st.permutations(range(8)) | st.lists(st.integers(0, 0xFFFF), max_size=8),
    jump=st.integers(0, 9) | st.integers(0, 0xFFFF),
    base=st.integers(0, 0xFFFF),
    negotiated=st.booleans(),
)


@pytest.mark.slow
@times(2)
@given(messes, st.integers(-1, 9))
def test_any_ring_terminates_stays_in_ram_and_gets_its_buffers_back(mess, limit):
    rig = mess.made()
    ring, queue = rig.ring, rig.queue
    before = bytes(rig.ram)

    popped = []
    for _ in range(20):
        popped += queue.pop(limit)

    assert rig.ram == before
    assert rig.memory.lookups <= len(popped) * (mess.size + 1)
    assert len({chain.head for chain in popped}) == len(popped)
    for chain in popped:
        parts = chain.readable + chain.writable
        assert chain.head < mess.size
        assert len(parts) <= mess.size
        assert all(in_ram(*part) for part in parts)
        assert chain.fault is not None or parts
    if queue.broken is None and limit > 0:
        assert len(popped) == mess.jump

    for part in (popped[::2], popped[1::2]):
        queue.push(part)

    assert sorted(ring.returned()) == sorted((chain.head, 0) for chain in popped)
    assert queue.base == (mess.base + len(popped)) & 0xFFFF
    start, end = ring.used - RAM, ring.end - RAM
    assert rig.ram[:start] + rig.ram[end:] == before[:start] + before[end:]


@given(
    order=st.sampled_from(ByteOrder),
    size=st.sampled_from([1, 8, 64]) | st.integers(-2, 70000),
    places=st.tuples(near, near, near),
    content=st.binary(min_size=64, max_size=512),
    base=st.integers(0, 0xFFFF),
)
def test_rings_anywhere_even_on_top_of_each_other(order, size, places, content, base):
    rig = Rig(8, order)
    rig.ram[:] = (content * (len(rig.ram) // len(content) + 1))[: len(rig.ram)]
    desc, avail, used = places
    desc, used = desc & ~15, used & ~3

    queue = rig.start(size=size, desc=desc, avail=avail, used=used, base=base)
    for _ in range(4):
        chains = queue.pop(64)
        queue.push(chains)
        for chain in chains:
            assert all(in_ram(*part) for part in chain.readable + chain.writable)

    if queue.broken is None:
        assert in_ram(desc, 16 * size)
        assert in_ram(avail, 4 + 2 * size)
        assert in_ram(used, 4 + 8 * size)


@given(
    order=st.sampled_from(ByteOrder),
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    writable=st.integers(0, 5),
    through_table=st.booleans(),
)
def test_chains_of_a_good_driver_are_understood(
    order, lengths, writable, through_table
):
    rig = Rig(32, order)
    index, expected = 0, []
    for place, length in enumerate(lengths):
        parts = [(BUFFER + 64 * step, step + 1) for step in range(length)]
        entries = [
            (*part, (step + writable >= length) * WRITE)
            for step, part in enumerate(parts)
        ]
        readable = tuple(part for part in parts[: max(length - writable, 0)])
        expected.append(Chain(index, readable, tuple(parts[len(readable) :])))
        if through_table:
            at = INDIRECT_TABLE + 256 * place
            linked = link(entries, 0)
            rig.ring.describe(index, at, rig.ring.table(at, *linked), INDIRECT)
            index += 1
        else:
            for entry in link(entries, index):
                rig.ring.describe(index, *entry)
                index += 1
    rig.ring.offer(*[chain.head for chain in expected])

    assert rig.queue.pop(32) == expected


def link(entries, first):
    """Chain descriptors that follow one another."""
    *others, last = entries
    return [
        (address, length, flags | NEXT, first + step + 1)
        for step, (address, length, flags) in enumerate(others)
    ] + [(*last, 0)]
