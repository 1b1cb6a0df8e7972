"""The driver's end of the ring, in raw bytes."""

from __future__ import annotations

import struct

import pytest

from balloon_plugin.events import ByteOrder
from balloon_plugin.guests.form import RingForm
from balloon_plugin.guests.oops import Oops
from balloon_plugin.guests.ram import Ram
from balloon_plugin.guests.ring import SplitRing

BIG, LITTLE = RingForm(ByteOrder.BIG), RingForm(ByteOrder.LITTLE)
BASE = 0x4000_0000
START = BASE + 0x2000


@pytest.fixture
def memory():
    return bytearray(b"\xff" * 0x8000)


@pytest.fixture
def ram(memory):
    return Ram(BASE, memoryview(memory))


def put(memory, address, data):
    memory[address - BASE : address - BASE + len(data)] = data


def test_a_legacy_queue_of_128_lies_where_the_formula_puts_it(ram):
    ring = SplitRing(ram, START, 128, LITTLE)

    assert ring.desc == START
    assert ring.avail == START + 2048
    assert ring.used == START + 4096
    assert SplitRing.bytes_for(128) == 4096 + 4 + 128 * 8 + 2


@pytest.mark.parametrize(("size", "used"), [(2, 4096), (256, 8192), (1024, 20480)])
def test_the_used_ring_begins_at_the_next_4096(size, used):
    assert SplitRing.bytes_for(size) - 4 - size * 8 - 2 == used


def test_a_new_ring_is_empty_and_spares_what_is_between_its_parts(memory, ram):
    ring = SplitRing(ram, START, 8, LITTLE)

    at = ring.avail - BASE + 4 + 16 + 2
    assert not any(memory[0x2000:at])
    assert memory[at : ring.used - BASE].count(0xFF) == ring.used - BASE - at
    assert not any(memory[ring.used - BASE : ring.used - BASE + 70])


@pytest.mark.parametrize(("form", "mark"), [(LITTLE, "<"), (BIG, ">")])
def test_a_buffer_is_described_and_then_published(memory, ram, form, mark):
    ring = SplitRing(ram, START, 8, form)
    ring.post(BASE + 0x100, 64)
    ring.post(BASE + 0x200, 10, writable=True)

    entries = struct.unpack_from(f"{mark}QIHHQIHH", memory, ring.desc - BASE)
    assert entries == (BASE + 0x100, 64, 0, 0, BASE + 0x200, 10, 2, 0)
    avail = struct.unpack_from(f"{mark}4H", memory, ring.avail - BASE)
    assert avail == (0, 2, 0, 1)


@pytest.mark.parametrize(("form", "mark"), [(LITTLE, "<"), (BIG, ">")])
def test_used_buffers_are_taken_back(memory, ram, form, mark):
    ring = SplitRing(ram, START, 8, form)
    ring.post(BASE, 4)
    ring.post(BASE, 4)
    before = ring.reap()
    put(memory, ring.used, struct.pack(f"{mark}HHIIII", 0, 2, 1, 0, 0, 0))

    assert before == 0
    assert ring.reap() == 2
    assert ring.reap() == 0


def test_indexes_wrap_around(memory, ram):
    ring = SplitRing(ram, START, 4, LITTLE)
    ring._next_avail = ring._next_used = 65534
    for count in (65535, 0, 1):
        ring.post(BASE, 4)
        put(memory, ring.used + 4 + 8 * ((count - 1) % 4), bytes(8))
        put(memory, ring.used + 2, struct.pack("<H", count))
        assert ring.reap() == 1

    assert struct.unpack_from("<H", memory, ring.avail - BASE + 2) == (1,)


def test_a_ring_is_used_over_and_over(memory, ram):
    ring = SplitRing(ram, START, 2, LITTLE)
    for count in range(1, 6):
        ring.post(BASE + count, 4)
        put(memory, ring.used + 4 + 8 * ((count - 1) % 2), bytes(8))
        put(memory, ring.used + 2, struct.pack("<H", count))
        assert ring.reap() == 1

    # Whoever gives back a descriptor gets it again: only the first was ever used.
    entries = struct.unpack_from("<QIHHQIHH", memory, ring.desc - BASE)
    assert entries == (BASE + 5, 4, 0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(("flags", "wanted"), [(0, True), (1, False)])
def test_a_device_may_want_no_kick(memory, ram, flags, wanted):
    ring = SplitRing(ram, START, 8, BIG)
    put(memory, ring.used, struct.pack(">H", flags))

    assert ring.post(BASE, 4) is wanted


def test_a_buffer_that_was_never_sent_kills_the_driver(memory, ram):
    ring = SplitRing(ram, START, 8, LITTLE)
    ring.post(BASE, 4)
    put(memory, ring.used, struct.pack("<HHII", 0, 1, 5, 0))

    with pytest.raises(Oops, match="buffer 5"):
        ring.reap()


# --- EVENT_IDX ----------------------------------------------------------------------


@pytest.mark.parametrize("order", ByteOrder)
def test_a_device_may_wait_for_one_entry(memory, ram, order):
    ring = SplitRing(ram, START, 8, RingForm(order, event_idx=True))
    wanted = []
    for event in (0, 0, 2, 1, 0xFFFF):
        put(memory, ring.used, struct.pack("H", 1))
        put(memory, ring.used + 4 + 64, event.to_bytes(2, order.value))
        wanted.append(ring.post(BASE, 4))

    assert wanted == [True, False, True, False, False]


@pytest.mark.parametrize("order", ByteOrder)
def test_the_next_used_buffer_is_waited_for(memory, ram, order):
    ring = SplitRing(ram, START, 8, RingForm(order, event_idx=True))
    waits = []
    for used in (1, 2):
        ring.post(BASE, 4)
        put(memory, ring.used + 2, used.to_bytes(2, order.value))
        put(memory, ring.used + 4, bytes(16))
        waits.append(ring.reap())
        at = ring.avail - BASE + 4 + 16
        waits.append(int.from_bytes(memory[at : at + 2], order.value))

    assert waits == [1, 1, 1, 2]
