"""The device's side of a ring and the driver's, each written by itself, together.

The driver is the one of the simulated guests. Neither side may lose a buffer, see one
that the other did not send, or wait for a notification that never comes.
"""

from __future__ import annotations

from collections import deque

import pytest
from examples import times
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from balloon_plugin.events import ByteOrder
from balloon_plugin.guests.form import RingForm
from balloon_plugin.guests.packed_ring import PackedRing
from balloon_plugin.guests.ram import Ram
from balloon_plugin.guests.ring import SplitRing
from balloon_plugin.memory import GuestMemory, Region
from balloon_plugin.virtqueue import Ring, open_queue

pytestmark = pytest.mark.slow

RAM = 0x4000_0000
RAM_SIZE = 0x20_0000
BUFFERS = RAM + 0x10_0000
EVENT_IDX, PACKED = 1 << 29, 1 << 34
SPLIT_SIZES = (1, 2, 8, 128, 32768)
PACKED_SIZES = (1, 2, 3, 7, 8, 100, 128, 32767, 32768)
MOST = 300
"""Buffers sent at once; in a ring of 32768 a lap takes a hundred rounds of that."""


class BothSides(RuleBasedStateMachine):
    """A driver and a device that take turns in any order.

    A kick or an interrupt that was due stays due until somebody comes for it. Who was
    not notified does nothing, as in life.
    """

    sizes: tuple[int, ...]
    features: int

    @initialize(
        order=st.sampled_from(ByteOrder), event_idx=st.booleans(), data=st.data()
    )
    def begin(self, order, event_idx, data):
        self.size = data.draw(st.sampled_from(self.sizes), "size")
        self.flags = self.features | EVENT_IDX * event_idx
        memory = bytearray(RAM_SIZE)
        self.memory = GuestMemory([Region(RAM, memoryview(memory))])
        ram = Ram(RAM, memoryview(memory))
        form = RingForm(order, packed=bool(self.flags & PACKED), event_idx=event_idx)
        kind = PackedRing if form.packed else SplitRing
        self.driver = kind(ram, RAM, self.size, form)
        place = (self.driver.desc, self.driver.avail, self.driver.used)
        self.ring = Ring(self.size, *place, self.flags, order)
        self.queue = open_queue(self.memory, self.ring)
        self.sent = deque()  # not taken yet, oldest first
        self.taken = deque()
        self.returned = 0
        self.kicked = self.interrupted = False
        self.count = 0

    @property
    def out(self):
        return len(self.sent) + len(self.taken) + self.returned

    @rule(count=st.integers(1, MOST), writable=st.booleans())
    @precondition(lambda self: self.out < self.size)
    def send(self, count, writable):
        for _ in range(min(count, self.size - self.out)):
            self.count += 1
            part = BUFFERS + self.count % 0x8000, self.count % 4096 + 1
            self.kicked |= self.driver.post(*part, writable=writable)
            self.sent.append((part, writable))

    @rule(limit=st.integers(1, MOST))
    @precondition(lambda self: self.kicked)
    def take(self, limit):
        """Do what a host does on a kick, until nothing is left."""
        self.kicked = False
        while chains := self.queue.pop(limit):
            for chain in chains:
                part, writable = self.sent.popleft()
                parts = ((), (part,)) if writable else ((part,), ())
                assert (chain.readable, chain.writable, chain.fault) == (*parts, None)
            self.taken += chains
        assert not self.sent

    @rule(count=st.integers(1, MOST))
    @precondition(lambda self: self.taken)
    def give_back(self, count):
        chains = [self.taken.popleft() for _ in range(min(count, len(self.taken)))]
        self.interrupted |= self.queue.push(chains)
        self.returned += len(chains)

    @rule(count=st.integers(1, MOST))
    @precondition(lambda self: len(self.taken) > 1)
    def give_back_the_newest(self, count):
        chains = [self.taken.pop() for _ in range(min(count, len(self.taken)))]
        self.interrupted |= self.queue.push(chains)
        self.returned += len(chains)

    @rule()
    @precondition(lambda self: self.interrupted)
    def reap(self):
        self.interrupted = False
        assert self.driver.reap() == self.returned
        self.returned = 0

    @rule()
    @precondition(lambda self: not self.taken)
    def hand_over(self):
        """Let another device go on, as after a migration; it looks at once."""
        base = self.queue.base
        self.queue.release()
        self.queue = open_queue(self.memory, self.ring, base)
        self.kicked = True

    @invariant()
    def nobody_waits_for_ever(self):
        if self.sent:
            assert self.kicked, "the driver sent a buffer and nobody looks"
        if self.returned:
            assert self.interrupted, "a buffer came back and the driver does not know"

    @invariant()
    def the_ring_is_whole(self):
        assert self.queue.broken is None


class Split(BothSides):
    sizes, features = SPLIT_SIZES, 0


class Packed(BothSides):
    sizes, features = PACKED_SIZES, PACKED


# A lap of a small ring takes few steps, of a large one many: see below.
_SETTINGS = times(0.6, stateful_step_count=40)
TestSplit = Split.TestCase
TestPacked = Packed.TestCase
TestSplit.settings = TestPacked.settings = _SETTINGS


@pytest.mark.parametrize("order", ByteOrder)
@pytest.mark.parametrize(
    ("features", "size"),
    [
        *((EVENT_IDX, size) for size in SPLIT_SIZES),
        *((PACKED | EVENT_IDX, size) for size in PACKED_SIZES),
    ],
)
def test_laps_of_every_size(features, size, order):
    """Go round and round; in the largest ring that is past an index of 65536."""
    both = (Packed if features & PACKED else Split)()
    both.sizes = (size,)
    both.begin(order, True, _First())
    laps, turn = 3 if size >= 100 else 50, 0
    while both.count < laps * size:
        turn += 1
        both.send(min(size, 1 + turn * 997 % 8192), turn % 2 == 0)
        both.take(64)
        while both.taken:
            both.give_back(4096)
        both.reap()
        both.nobody_waits_for_ever()

    both.the_ring_is_whole()


class _First:
    """Stands for hypothesis where there is nothing to choose."""

    def draw(self, strategy, _label):
        return strategy.elements[0]
