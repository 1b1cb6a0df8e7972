"""The device's side of packed rings, driven by raw bytes (:mod:`ring`)."""

from __future__ import annotations

import mmap
from dataclasses import dataclass, replace

import pytest
from examples import times
from hypothesis import given
from hypothesis import strategies as st
from ring import (
    AT_DESCRIPTOR,
    AVAIL,
    DISABLE,
    ENABLE,
    INDIRECT,
    NEXT,
    USED,
    WRITE,
    PackedDriverRing,
)

from balloon_plugin.errors import HostError
from balloon_plugin.events import ByteOrder
from balloon_plugin.hookspecs import VirtQueue
from balloon_plugin.memory import GuestMemory, Region
from balloon_plugin.virtqueue import (
    MAX_CHAIN_BYTES,
    MAX_CHAIN_DESCRIPTORS,
    Chain,
    PackedQueue,
    Ring,
)

PAGE = 4096
INDIRECT_DESC, EVENT_IDX, PACKED = 1 << 28, 1 << 29, 1 << 34

# Guest-physical: the ring and buffers, a hole, and more RAM.
RAM, RAM_END = 0x10000, 0x20000
FAR, FAR_END = 0x40000, 0x41000
BUFFER = 0x18000
INDIRECT_TABLE = 0x1A000


def in_ram(address, size):
    return RAM <= address <= address + size <= RAM_END or (
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


@dataclass
class Rig:
    """A guest with a ring, and the queue that serves it."""

    size: int = 8
    order: ByteOrder = ByteOrder.LITTLE
    features: int = PACKED | INDIRECT_DESC

    def __post_init__(self):
        self.ram = bytearray(RAM_END - RAM)
        self.memory = WatchedMemory(
            [
                Region(RAM, memoryview(self.ram)),
                Region(FAR, memoryview(bytearray(FAR_END - FAR))),
            ]
        )
        self.ring = PackedDriverRing(
            self.ram, self.size, self.order, base=RAM, start=RAM
        )
        self.start()

    def start(self, base=PackedQueue.START, **changes):
        ring = self.ring
        usual = Ring(
            ring.size, ring.desc, ring.avail, ring.used, self.features, self.order
        )
        self.queue = PackedQueue(self.memory, replace(usual, **changes), base)
        return self.queue

    def stand(self, place, wrap):
        """Go on with both sides somewhere else."""
        self.ring.begin(place, wrap)
        return self.start(encoded(place, wrap))

    def chain(self, *elements):
        """Offer a buffer and return what is popped."""
        self.ring.offer(5, *elements)
        (chain,) = self.queue.pop(1)
        return chain


def encoded(place, wrap):
    """Return a base: twice the same place and wrap counter."""
    return (place | wrap << 15) * 0x1_0001


@pytest.fixture(params=ByteOrder, ids=lambda order: order.value)
def rig(request):
    return Rig(order=request.param)


ONE = (BUFFER, 16, 0)


# --- there and back -----------------------------------------------------------------


def test_a_queue_keeps_the_promise_of_hosts():
    queue: VirtQueue = Rig(order=ByteOrder.BIG).queue

    assert queue.byte_order is ByteOrder.BIG
    assert queue.desc == RAM
    assert queue.broken is None


def test_an_empty_ring_has_nothing_to_pop(rig):
    assert rig.queue.pop(16) == []
    assert rig.queue.broken is None


def test_a_buffer_goes_there_and_back(rig):
    rig.ring.offer(0x1234, (BUFFER, 1024, 0))

    chains = rig.queue.pop(16)
    rig.queue.push(chains)

    assert chains == [Chain(0x1234, ((BUFFER, 1024),), ())]
    assert rig.ring.returned() == [(0x1234, 0)]
    assert rig.queue.pop(16) == []


def test_a_writable_buffer_is_told_from_a_readable_one(rig):
    assert rig.chain((BUFFER, 64, WRITE)) == Chain(5, (), ((BUFFER, 64),))


def test_buffers_come_in_order_and_up_to_the_limit(rig):
    for ident in (3, 1, 4, 0, 5):
        rig.ring.offer(ident, ONE)

    first, second = rig.queue.pop(2), rig.queue.pop(16)

    assert [chain.head for chain in first] == [3, 1]
    assert [chain.head for chain in second] == [4, 0, 5]
    assert rig.queue.pop(0) == []
    assert rig.queue.pop(-1) == []


def test_a_list_counts_for_one_of_the_limit(rig):
    rig.ring.offer(3, ONE, ONE)
    for ident in (1, 4, 0):
        rig.ring.offer(ident, ONE)

    assert [chain.head for chain in rig.queue.pop(2)] == [3, 1]


@pytest.mark.parametrize("size", [1, 2, 3, 8, 100, 255])
def test_rings_and_wrap_counters_turn(size):
    rig = Rig(size)
    for turn in range(300):
        idents = [(turn + step) % size for step in range(1 + turn % min(size, 7))]
        for ident in idents:
            rig.ring.offer(ident, ONE)
        rig.queue.push(rig.queue.pop(size))
        assert rig.ring.returned() == [(ident, 0) for ident in idents]

    assert rig.queue.broken is None
    assert rig.queue.base == encoded(rig.ring.place, rig.ring.wrap)


def test_lists_turn_too():
    rig = Rig(7)
    for turn in range(100):
        for ident, length in enumerate((1 + turn % 3, 3)):
            rig.ring.offer(ident, *[ONE] * length)
        chains = rig.queue.pop(16)
        rig.queue.push(chains)
        assert [len(chain.readable) for chain in chains] == [1 + turn % 3, 3]
        assert rig.ring.returned() == [(0, 0), (1, 0)]


def test_buffers_may_be_returned_one_by_one_and_in_another_order(rig):
    rig.ring.offer(10, ONE, ONE)
    rig.ring.offer(11, ONE)
    rig.ring.offer(12, ONE, ONE, ONE)
    first, second, third = rig.queue.pop(8)

    rig.queue.push([second])
    seen = rig.ring.returned()
    rig.queue.push([])
    rig.queue.push([third, first])

    assert seen == [(11, 0)]
    assert rig.ring.returned() == [(12, 0), (10, 0)]


def test_a_full_ring_that_is_out_has_nothing_new():
    rig = Rig(4)
    for ident in range(4):
        rig.ring.offer(ident, ONE)
    chains = rig.queue.pop(16)

    assert len(chains) == 4
    assert rig.queue.pop(16) == []
    rig.queue.push(chains)
    assert len(rig.ring.returned()) == 4


def test_buffers_are_marked_used_one_after_the_other(rig, monkeypatch):
    for ident in (4, 2, 6):
        rig.ring.offer(ident, ONE)
    chains = rig.queue.pop(8)
    stored = []
    store = rig.queue._marks.store

    def watched(place, word):
        bodies = [rig.ring.get("IHH", rig.ring.desc + 16 * n + 8) for n in range(3)]
        stored.append((place, word, bodies))
        store(place, word)

    monkeypatch.setattr(rig.queue._marks, "store", watched)
    rig.queue.push(chains)

    used, fresh = AVAIL | USED, (16, 6, AVAIL)
    assert stored == [
        (7, used, [(0, 4, AVAIL), (16, 2, AVAIL), fresh]),
        (15, used, [(0, 4, used), (0, 2, AVAIL), fresh]),
        (23, used, [(0, 4, used), (0, 2, used), (0, 6, AVAIL)]),
    ]
    assert rig.ring.returned() == [(4, 0), (2, 0), (6, 0)]


def test_only_the_descriptors_and_the_own_event_are_written(rig):
    rig.ring.offer(1, ONE)
    rig.ring.offer(2, (INDIRECT_TABLE, rig.ring.table(INDIRECT_TABLE, ONE), INDIRECT))
    before = bytes(rig.ram)

    rig.queue.push(rig.queue.pop(8))

    assert rig.ram[32 : rig.ring.used - RAM] == before[32 : rig.ring.used - RAM]
    assert rig.ram[rig.ring.end - RAM :] == before[rig.ring.end - RAM :]


# --- where a queue goes on ----------------------------------------------------------


def test_a_new_queue_begins_with_both_counters_at_1():
    assert PackedQueue.START == 0x8000_8000
    assert Rig().queue.base == PackedQueue.START


@pytest.mark.parametrize(("place", "wrap"), [(0, 0), (3, 0), (3, 1), (7, 0), (7, 1)])
def test_a_ring_that_was_served_before_goes_on_where_it_was(rig, place, wrap):
    queue = rig.stand(place, wrap)
    for ident in range(6):
        rig.ring.offer(ident, ONE)

    queue.push(queue.pop(8))

    assert rig.ring.returned() == [(ident, 0) for ident in range(6)]
    assert queue.base == encoded(rig.ring.place, rig.ring.wrap)


@pytest.mark.parametrize("features", [PACKED, PACKED | INDIRECT_DESC])
def test_user_mode_linux_begins_at_0(rig, features):
    """Its rings of both formats do; virtio_uml.c, vu_setup_vq."""
    queue = rig.start(base=0, features=features)
    rig.ring.offer(3, ONE)
    queue.push(queue.pop(8))

    assert rig.ring.returned() == [(3, 0)]


@pytest.mark.parametrize("base", [0, PackedQueue.START, encoded(5, 1), 0xFFFF_FFFF])
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 15, 16, 17])
def test_a_front_end_that_lost_count_does_no_harm(rig, base, count):
    """QEMU does when its back end dies: it does not look into a packed ring."""
    for _ in range(count):
        rig.ring.offer(3, ONE)
        rig.queue.push(rig.queue.pop(8))
        rig.ring.returned()
    rig.ring.offer(4, ONE)

    queue = rig.start(base)
    queue.push(queue.pop(8))

    assert rig.ring.returned() == [(4, 0)]


def test_lists_hide_where_a_ring_stands_so_that_the_base_counts(rig):
    rig.ring.offer(1, ONE, ONE)
    rig.ring.offer(2, ONE, ONE)
    rig.queue.push(rig.queue.pop(8))
    rig.ring.returned()
    rig.ring.offer(3, ONE)

    queue = rig.start(encoded(4, 1))

    assert [chain.head for chain in queue.pop(8)] == [3]


def test_a_successor_gets_the_buffers_that_were_kept(rig):
    for ident in range(3):
        rig.ring.offer(ident, ONE)
    first, *_ = rig.queue.pop(8)
    rig.queue.push([first])

    successor = rig.start(rig.queue.base)

    assert [chain.head for chain in successor.pop(8)] == [1, 2]


def test_what_a_predecessor_took_and_did_not_return_is_taken_again(rig):
    rig.ring.offer(6, ONE)
    rig.ring.offer(7, ONE)

    successor = rig.start(0x8000 << 16 | 0x8001)

    assert [chain.head for chain in successor.pop(8)] == [6, 7]


def test_a_place_that_is_not_in_the_ring_breaks_it(rig):
    queue = rig.start(encoded(8, 1), features=PACKED)

    assert queue.broken == "descriptor 8 is not in the ring"
    assert queue.pop(8) == []


# --- what only the host can get wrong -----------------------------------------------


def test_a_buffer_that_was_not_popped_cannot_be_returned(rig):
    rig.ring.offer(1, ONE)
    popped = rig.queue.pop(8)

    with pytest.raises(HostError, match=r"\[1, 3\] some are not the device's"):
        rig.queue.push([*popped, Chain(3, (), ())])
    with pytest.raises(HostError, match="once"):
        rig.queue.push(popped * 2)
    assert rig.ring.returned() == []
    rig.queue.push(popped)
    with pytest.raises(HostError, match="once"):
        rig.queue.push(popped)

    assert rig.ring.returned() == [(1, 0)]


def test_a_released_queue_lets_go_of_memory():
    mapping = mmap.mmap(-1, 4 * PAGE)
    memory = GuestMemory([Region(0, memoryview(mapping))])
    queue = PackedQueue(memory, Ring(8, 0, 0x1000, 0x2000, PACKED, ByteOrder.LITTLE))
    ring = PackedDriverRing(mapping, 8, ByteOrder.LITTLE)
    ring.offer(1, (0, 4, 0))
    ring.offer(2, (0, 4, 0))
    chains = queue.pop(8)
    queue.push(chains[:1])

    queue.release()

    memory.release()
    mapping.close()
    assert queue.base == encoded(1, 1)
    assert queue.broken == "the queue was stopped"
    assert queue.pop(8) == []
    with pytest.raises(HostError):
        queue.push(chains[1:])


# --- rings that are lost ------------------------------------------------------------


def test_a_buffer_id_that_is_offered_twice_breaks_the_ring(rig):
    rig.ring.offer(1, ONE)
    rig.ring.offer(2, ONE)
    rig.ring.offer(1, ONE)

    chains = rig.queue.pop(16)

    assert [chain.head for chain in chains] == [1, 2]
    assert rig.queue.broken == "the driver offers buffer 1 before it was returned"
    assert rig.queue.pop(16) == []
    rig.queue.push(chains)
    assert rig.queue.base == encoded(2, 1)


@pytest.mark.parametrize("more", [[ONE], [ONE, ONE]])
def test_a_descriptor_that_is_offered_twice_breaks_the_ring(more):
    rig = Rig(2)
    rig.ring.offer(1, ONE)
    rig.ring.offer(2, ONE)
    chains = rig.queue.pop(16)
    rig.ring.offer(3, *more)

    assert rig.queue.pop(16) == []
    assert rig.queue.broken == "the driver offers buffer 3 before it was returned"
    assert len(chains) == 2


def test_a_list_that_is_not_all_there_breaks_the_ring(rig):
    rig.ring.describe(0, BUFFER, 4, AVAIL | NEXT, 1)
    rig.ring.describe(1, BUFFER, 4, USED, 1)

    assert rig.queue.pop(16) == []
    assert rig.queue.broken == "a list has no end after 1 descriptors"


def test_a_list_without_an_end_breaks_the_ring():
    rig = Rig(4)
    for index in range(4):
        rig.ring.describe(index, BUFFER, 4, AVAIL | NEXT, 1)

    assert rig.queue.pop(16) == []
    assert rig.queue.broken == "a list has no end after 4 descriptors"


def test_a_list_that_grows_while_it_is_read_has_an_end(rig, monkeypatch):
    rig.ring.offer(1, ONE)
    monkeypatch.setattr(rig.queue, "_available", lambda _position: AVAIL | NEXT)
    rig.ring.describe(0, BUFFER, 4, AVAIL | NEXT, 1)

    assert rig.queue.pop(16) == []
    assert rig.queue.broken == "a list has no end after 8 descriptors"


@pytest.mark.parametrize("size", [0, -1, 32769, 65536])
def test_sizes_that_cannot_be(size):
    queue = Rig().start(size=size)

    assert queue.broken == f"a queue cannot have {size} entries (§2.7, §2.8)"
    assert queue.pop(16) == []


def test_the_largest_size_can_be():
    memory = GuestMemory([Region(0, memoryview(bytearray(1 << 20)))])
    ring = Ring(32768, 0, 0x80000, 0x80004, PACKED, ByteOrder.LITTLE)

    assert PackedQueue(memory, ring).broken is None


@pytest.mark.parametrize(
    ("where", "address", "align"),
    [("desc", RAM + 8, 16), ("avail", RAM + 0x1002, 4), ("used", RAM + 0x2002, 4)],
)
def test_misaligned_parts_cannot_be(where, address, align):
    queue = Rig().start(**{where: address})

    assert queue.broken.endswith(f"{address:#x} is not aligned to {align} bytes")
    assert queue.pop(16) == []


@pytest.mark.parametrize("where", ["desc", "avail", "used"])
@pytest.mark.parametrize("address", [0, RAM_END, 0x30000, (1 << 64) - 16])
def test_parts_outside_ram_cannot_be(where, address):
    rig = Rig()
    before = bytes(rig.ram)

    queue = rig.start(**{where: address})

    assert queue.broken.endswith(f"{address:#x} is not in one region of RAM")
    assert rig.ram == before


# --- lists and tables ---------------------------------------------------------------


def test_a_list_of_readable_and_writable_parts(rig):
    chain = rig.chain((BUFFER, 4, 0), (BUFFER, 0, 0), (FAR, 8, WRITE))

    assert chain == Chain(5, ((BUFFER, 4), (BUFFER, 0)), ((FAR, 8),))


@pytest.mark.parametrize("flags", [INDIRECT, INDIRECT | WRITE])
def test_an_indirect_table_in_which_only_one_flag_counts(rig, flags):
    """§2.8.7: the write flag is ignored here, all others in the table."""
    length = rig.ring.table(
        INDIRECT_TABLE,
        (BUFFER, 4, NEXT | INDIRECT, 9),
        (BUFFER, 6, WRITE | AVAIL, 0),
        (BUFFER, 7, WRITE | USED, 0),
    )

    chain = rig.chain((INDIRECT_TABLE, length, flags))

    assert chain == Chain(5, ((BUFFER, 4),), ((BUFFER, 6), (BUFFER, 7)))


def test_a_list_may_be_as_long_as_the_queue():
    rig = Rig(5)

    chain = rig.chain(*[ONE] * 5)
    rig.queue.push([chain])

    assert chain == Chain(5, ((BUFFER, 16),) * 5, ())
    assert rig.ring.returned() == [(5, 0)]


# Each: the elements, those of an indirect table, how many parts are understood, and
# what is wrong.
FAULTS = {
    "readable after writable": (
        [(BUFFER, 1, WRITE), (BUFFER, 1, 0)],
        [],
        1,
        "a device-readable part follows",
    ),
    "outside RAM": ([ONE, (RAM_END - 4, 5, 0)], [], 1, "a part of 5 bytes at 0x1fffc"),
    "alone outside RAM": ([(0x30000, 1, 0)], [], 0, "a part of 1 bytes at 0x30000"),
    "beyond the address space": ([((1 << 64) - 1, 2, 0)], [], 0, "is not in RAM"),
    "indirect in a list": (
        [ONE, (INDIRECT_TABLE, ..., INDIRECT)],
        [(BUFFER, 1)],
        1,
        "an indirect descriptor is one of a list",
    ),
    "indirect begins a list": (
        [(INDIRECT_TABLE, ..., INDIRECT), ONE],
        [(BUFFER, 1)],
        0,
        "an indirect descriptor is one of a list",
    ),
    "indirect, not whole": (
        [(INDIRECT_TABLE, 17, INDIRECT)],
        [(BUFFER, 1)],
        0,
        "an indirect table has 17 bytes",
    ),
    "indirect, empty": (
        [(INDIRECT_TABLE, 0, INDIRECT)],
        [],
        0,
        "an indirect table has 0 bytes",
    ),
    "indirect, too large": (
        [(INDIRECT_TABLE, (MAX_CHAIN_DESCRIPTORS + 1) * 16, INDIRECT)],
        [],
        0,
        "an indirect table has 4112 bytes",
    ),
    "indirect outside RAM": (
        [(0x30000, 16, INDIRECT)],
        [],
        0,
        "an indirect table at 0x30000 is not in RAM",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_buffer_comes_back_with_what_could_be_understood(rig, name):
    elements, indirect, understood, what = FAULTS[name]
    length = rig.ring.table(INDIRECT_TABLE, *indirect)
    elements = [
        tuple(length if value is ... else value for value in entry)
        for entry in elements
    ]

    chain = rig.chain(*elements)
    rig.queue.push([chain])

    assert what in chain.fault
    assert len(chain.readable) + len(chain.writable) == understood
    assert rig.queue.broken is None
    assert rig.ring.returned() == [(5, 0)]


def test_an_indirect_descriptor_has_to_be_negotiated(rig):
    rig.start(features=PACKED)
    length = rig.ring.table(INDIRECT_TABLE, (BUFFER, 1))

    assert "not negotiated" in rig.chain((INDIRECT_TABLE, length, INDIRECT)).fault


def test_a_long_list_has_a_bound_and_is_followed_to_its_end():
    rig = Rig(1024)
    rig.ring.offer(1, *[ONE] * 1000)
    rig.ring.offer(2, ONE)

    long, short = rig.queue.pop(8)
    rig.queue.push([long, short])

    assert long.fault == "the chain has a loop, or more than 256 descriptors"
    assert len(long.readable) == 256
    assert rig.memory.lookups == 257
    assert rig.ring.returned() == [(1, 0), (2, 0)]


def test_the_largest_indirect_table_can_be(rig):
    length = rig.ring.table(INDIRECT_TABLE, *[(BUFFER, 1)] * MAX_CHAIN_DESCRIPTORS)

    chain = rig.chain((INDIRECT_TABLE, length, INDIRECT))

    assert chain == Chain(5, ((BUFFER, 1),) * 256, ())


@pytest.mark.parametrize(
    ("surplus", "fault"),
    [(0, None), (1, "the chain has 4294967297 bytes (§2.7.5.2)")],
)
def test_a_list_has_at_most_4_gib(rig, monkeypatch, surplus, fault):
    monkeypatch.setattr(rig.memory, "covers", lambda _address, _size: True)
    half = MAX_CHAIN_BYTES // 2

    chain = rig.chain((0, half, 0), (0, half - 16, WRITE), (0, 16 + surplus, WRITE))

    assert chain.fault == fault


def test_a_descriptor_is_read_once(rig, monkeypatch):
    unpack, read = rig.queue._unpack, []

    def hostile(table, offset=0):
        descriptor = unpack(table, offset)
        read.append(offset // 16)
        rig.ring.describe(offset // 16, 0x30000, 99, NEXT | INDIRECT, 0xFFFF)
        return descriptor

    monkeypatch.setattr(rig.queue, "_unpack", hostile)
    chain = rig.chain((BUFFER, 1, 0), (BUFFER, 2, 0), (BUFFER, 3, 0))

    assert chain == Chain(5, ((BUFFER, 1), (BUFFER, 2), (BUFFER, 3)), ())
    assert read == [0, 1, 2]


def test_flags_that_change_while_they_are_read_harm_nobody(rig, monkeypatch):
    """What was available a moment ago is not any more."""
    rig.ring.offer(5, ONE, ONE)
    run = rig.queue._marks.run

    def hostile(*place):
        words = run(*place)
        rig.ring.describe(0, BUFFER, 16, 0)
        return words

    monkeypatch.setattr(rig.queue._marks, "run", hostile)

    assert rig.queue.pop(8) == []
    assert rig.queue.broken == "a list has no end after 0 descriptors"


# --- notifications ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "wanted"), [(ENABLE, True), (DISABLE, False), (3, True), (0xFFFC, True)]
)
def test_a_driver_may_want_no_notification(rig, flags, wanted):
    rig.ring.wish(flags)
    rig.ring.offer(1, ONE)

    assert rig.queue.push(rig.queue.pop(8)) is wanted
    assert rig.queue.push([]) is False


def test_a_wish_that_was_not_negotiated_is_none(rig):
    rig.ring.wish(AT_DESCRIPTOR, 5, 1)
    rig.ring.offer(1, ONE)

    assert rig.queue.push(rig.queue.pop(8)) is True


@pytest.mark.parametrize(("place", "wrap"), [(0, 1), (6, 1), (6, 0)])
@pytest.mark.parametrize("lengths", [[1], [1, 1, 1], [2, 3]])
def test_a_driver_may_wait_for_a_descriptor(place, wrap, lengths):
    """§2.8.10: the event triggers when this descriptor is used, or skipped."""
    wanted = {}
    for ahead in range(16):
        rig = Rig(features=PACKED | EVENT_IDX)
        queue = rig.stand(place, wrap)
        event = (place + 8 * (1 - wrap) + ahead) % 16
        rig.ring.wish(AT_DESCRIPTOR, event % 8, 1 - event // 8)
        for ident, length in enumerate(lengths):
            rig.ring.offer(ident, *[ONE] * length)
        wanted[ahead] = queue.push(queue.pop(8))

    assert [ahead for ahead, wish in wanted.items() if wish] == [*range(sum(lengths))]


def test_without_event_idx_every_buffer_may_be_kicked(rig):
    rig.ring.offer(1, ONE)
    rig.queue.pop(8)

    assert rig.ring.asked == (0, 0, ENABLE)


def test_with_event_idx_a_kick_is_asked_for_where_it_ends(rig):
    queue = rig.start(features=PACKED | EVENT_IDX)
    before = rig.ring.asked
    for ident in range(3):
        rig.ring.offer(ident, ONE)

    queue.pop(2)
    between = rig.ring.asked
    queue.pop(1)
    drained = rig.ring.asked
    for ident in range(3, 8):
        rig.ring.offer(ident, ONE)
    queue.pop(8)

    assert before == between == (0, 0, ENABLE)
    assert drained == (3, 1, AT_DESCRIPTOR)
    assert rig.ring.asked == (0, 0, AT_DESCRIPTOR)


def test_what_comes_while_a_kick_is_asked_for_is_seen(rig, monkeypatch):
    queue = rig.start(features=PACKED | EVENT_IDX)

    def late():
        if rig.ring.place == 0:
            rig.ring.offer(9, ONE)

    monkeypatch.setattr(queue, "_fence", late)

    assert [chain.head for chain in queue.pop(8)] == [9]


@pytest.mark.parametrize("features", [PACKED, PACKED | EVENT_IDX])
def test_a_fence_is_between_what_is_returned_and_the_drivers_wish(
    rig, monkeypatch, features
):
    """A wish that the driver takes back when it sees no used buffer is seen."""
    queue = rig.start(features=features)
    rig.ring.wish(DISABLE)
    rig.ring.offer(1, ONE)
    chains = queue.pop(8)
    seen = []

    def fence():
        seen.append(rig.ring.flags(0))
        rig.ring.wish(ENABLE)

    monkeypatch.setattr(queue, "_fence", fence)

    assert queue.push(chains) is True
    assert seen == [AVAIL | USED]


# --- any bytes at all ---------------------------------------------------------------

edges = st.sampled_from([RAM, RAM_END, FAR, FAR_END, INDIRECT_TABLE, 1 << 64])
near = st.builds(int.__add__, edges, st.integers(-40, 40)).map(lambda n: n % (1 << 64))
marks = st.sampled_from([AVAIL, USED, AVAIL, USED, AVAIL | USED, 0])
fields = st.tuples(
    near | st.integers(0, (1 << 64) - 1),
    st.integers(0, 80).map(lambda n: n * 4) | st.integers(0, (1 << 32) - 1),
    st.builds(int.__or__, st.integers(0, 7), marks) | st.integers(0, 0xFFFF),
    st.integers(0, 9) | st.integers(0, 0xFFFF),
)

features = st.sampled_from([0, INDIRECT_DESC, EVENT_IDX, INDIRECT_DESC | EVENT_IDX])


@pytest.mark.slow
@times(2)
@given(
    start=st.tuples(st.sampled_from(ByteOrder), st.integers(1, 9), features),
    tables=st.tuples(*[st.lists(fields, max_size=9)] * 3),
    base=st.sampled_from([0, PackedQueue.START]) | st.integers(0, (1 << 32) - 1),
    wish=st.tuples(*[st.integers(0, 0xFFFF)] * 2),
    limit=st.integers(-1, 12),
)
def test_any_ring_terminates_stays_in_ram_and_gets_its_buffers_back(
    start, tables, base, wish, limit
):
    order, size, features = start
    rig = Rig(size, order)
    ring, (table, later, indirect) = rig.ring, tables
    for index, entry in enumerate(table[:size]):
        ring.describe(index, *entry)
    ring.table(INDIRECT_TABLE, *indirect)
    ring.put("HH", ring.avail, *wish)
    queue = rig.start(base, features=PACKED | features)
    before = bytes(rig.ram)

    popped = [chain for _ in range(20) for chain in queue.pop(limit)]
    changed = bytes(rig.ram)
    # The driver may offer what it has not got back.
    for index, entry in enumerate(later[:size]):
        ring.describe(index, *entry)
    popped += queue.pop(limit)

    assert len(popped) <= size
    assert rig.memory.lookups <= len(popped) * (MAX_CHAIN_DESCRIPTORS + 1)
    assert len({chain.head for chain in popped}) == len(popped)
    for chain in popped:
        parts = chain.readable + chain.writable
        assert all(in_ram(*part) for part in parts)
        assert chain.fault is not None or parts
    asked = slice(ring.used - RAM, ring.end - RAM)
    assert changed[: asked.start] == before[: asked.start]
    assert changed[asked.stop :] == before[asked.stop :]

    for part in (popped[::2], popped[1::2]):
        assert queue.push(part) in (True, False)

    assert rig.ram[ring.end - RAM :] == before[ring.end - RAM :]
    assert rig.ram[16 * size : asked.start] == before[16 * size : asked.start]


@given(
    order=st.sampled_from(ByteOrder),
    size=st.sampled_from([1, 8, 63]) | st.integers(-2, 70000),
    places=st.tuples(near, near, near),
    content=st.binary(min_size=64, max_size=512),
    base=st.integers(0, (1 << 32) - 1),
)
def test_rings_anywhere_even_on_top_of_each_other(order, size, places, content, base):
    rig = Rig(8, order)
    rig.ram[:] = (content * (len(rig.ram) // len(content) + 1))[: len(rig.ram)]
    desc, avail, used = places
    desc, avail, used = desc & ~15, avail & ~3, used & ~3

    queue = rig.start(
        base,
        size=size,
        desc=desc,
        avail=avail,
        used=used,
        features=PACKED | EVENT_IDX | INDIRECT_DESC,
    )
    for _ in range(4):
        chains = queue.pop(64)
        queue.push(chains)
        for chain in chains:
            assert all(in_ram(*part) for part in chain.readable + chain.writable)

    if queue.broken is None:
        assert in_ram(desc, 16 * size)
        assert in_ram(avail, 4)
        assert in_ram(used, 4)
