"""The driver's end of a packed ring, in raw bytes."""

from __future__ import annotations

import struct

import pytest

from balloon_plugin.events import ByteOrder
from balloon_plugin.guests.form import RingForm
from balloon_plugin.guests.oops import Oops
from balloon_plugin.guests.packed_ring import PackedRing
from balloon_plugin.guests.ram import Ram

BASE = 0x4000_0000
START = BASE + 0x2000
AVAIL, USED = 1 << 7, 1 << 15
MARKS = {"little": "<", "big": ">"}


@pytest.fixture
def memory():
    return bytearray(b"\xff" * 0x8000)


@pytest.fixture(params=ByteOrder, ids=lambda order: order.value)
def order(request):
    return request.param


@pytest.fixture
def ring(memory, order):
    return PackedRing(Ram(BASE, memoryview(memory)), START, 5, RingForm(order))


class Device:
    """The other side, in as few words as possible."""

    def __init__(self, memory, ring, order):
        self._memory = memory
        self._ring = ring
        self._mark = MARKS[order.value]

    def descriptor(self, index):
        at = self._ring.desc - BASE + 16 * index
        return struct.unpack_from(f"{self._mark}QIHH", self._memory, at)

    def use(self, index, ident, wrap):
        at = self._ring.desc - BASE + 16 * index
        flags = (AVAIL | USED) * wrap
        struct.pack_into(f"{self._mark}QIHH", self._memory, at, 0, 0, ident, flags)

    def ask(self, place, wrap, flags):
        at = self._ring.used - BASE
        word = place | wrap << 15
        struct.pack_into(f"{self._mark}HH", self._memory, at, word, flags)

    def asked(self):
        at = self._ring.avail - BASE
        word, flags = struct.unpack_from(f"{self._mark}HH", self._memory, at)
        return word & 0x7FFF, word >> 15, flags


@pytest.fixture
def device(memory, ring, order):
    return Device(memory, ring, order)


def test_the_events_follow_the_descriptors(ring):
    assert (ring.desc, ring.avail, ring.used) == (START, START + 80, START + 84)
    assert PackedRing.bytes_for(5) == 88


def test_a_new_ring_is_zero(memory, ring):
    assert not any(memory[0x2000 : 0x2000 + 88])
    assert memory[0x2000 + 88] == 0xFF
    assert ring.reap() == 0


def test_a_buffer_is_described_and_marked_available(ring, device):
    ring.post(BASE + 0x100, 64)
    ring.post(BASE + 0x200, 10, writable=True)

    assert device.descriptor(0) == (BASE + 0x100, 64, 0, AVAIL)
    assert device.descriptor(1) == (BASE + 0x200, 10, 1, AVAIL | 2)
    assert device.descriptor(2) == (0, 0, 0, 0)


def test_marks_turn_with_each_lap(ring, device):
    flags = []
    for count in range(12):
        ring.post(BASE, 4)
        flags.append(device.descriptor(count % 5)[3])
        device.use(count % 5, 0, wrap=1 - count // 5 % 2)
        assert ring.reap() == 1

    assert flags == [AVAIL] * 5 + [USED] * 5 + [AVAIL] * 2


def test_buffers_come_back_in_any_order(ring, device):
    for _ in range(3):
        ring.post(BASE, 4)
    device.use(0, 2, wrap=1)
    device.use(1, 0, wrap=1)

    assert ring.reap() == 2
    assert ring.reap() == 0


def test_a_buffer_that_was_never_sent_kills_the_driver(ring, device):
    ring.post(BASE, 4)
    device.use(0, 3, wrap=1)

    with pytest.raises(Oops, match="buffer 3"):
        ring.reap()


@pytest.mark.parametrize(("flags", "wanted"), [(0, True), (1, False), (3, True)])
def test_a_device_may_want_no_kick(ring, device, flags, wanted):
    device.ask(9, 0, flags)

    assert ring.post(BASE, 4) is wanted


def test_a_device_may_wait_for_one_descriptor(ring, device):
    wanted = []
    for place, wrap in ((0, 1), (0, 1), (2, 0), (3, 1)):
        device.ask(place, wrap, flags=2)
        wanted.append(ring.post(BASE, 4))

    assert wanted == [True, False, False, True]


def test_without_event_idx_every_return_is_of_interest(ring, device):
    ring.post(BASE, 4)

    assert device.asked() == (0, 0, 0)


def test_with_event_idx_the_next_return_is(memory, order):
    form = RingForm(order, event_idx=True)
    ring = PackedRing(Ram(BASE, memoryview(memory)), START, 5, form)
    device = Device(memory, ring, order)
    asked = [device.asked()]
    for count in range(5):
        ring.post(BASE, 4)
        device.use(count, 0, wrap=1)
        ring.reap()
        asked.append(device.asked())

    assert asked == [(place, 1, 2) for place in range(5)] + [(0, 0, 2)]
