"""Guests whose memory is on huge pages of the real kernel (hugetlb).

The guest behind the socket is ours, the memory is not pretended: what is given back is
counted in its file and in the kernel's pool.
"""

from __future__ import annotations

import mmap
import os
import struct

import pytest
import vhost_user_traces as traces
from huge_pages import HUGE, PIECES, a_huge_memfd, free, held, reserved
from vhost_user_front_end import FrontEnd
from vhost_user_traces import GUEST_RAM, Sent, state

from balloon_plugin import DeviceOptions, make_device
from balloon_plugin.hosts.vhost_user import Daemon
from balloon_plugin.layouts import Feature

INFLATE, DEFLATE = 0, 1
TELLS = traces.MODERN | Feature.VIRTIO_BALLOON_F_MUST_TELL_HOST.mask
RAM = 4 * HUGE
SECOND = range(PIECES, 2 * PIECES)
"""The pages of the guest's second huge page; in the first one it has its queues."""

NUMBERS = 0x8000
"""Where in RAM a buffer is, behind the queues."""

AT_ONCE = 256
"""Pages in a buffer of Linux."""

pytestmark = pytest.mark.usefixtures("huge_pages")


class Guest(FrontEnd):
    """A driver that has all its memory on huge pages, and written to.

    :ivar ram: its own mapping of it: such a file can only be written to by mapping it.
    """

    def __init__(self, slot, daemon, start=GUEST_RAM):
        super().__init__(slot.path, daemon)
        self.start_of_ram = start
        self.give("memory", a_huge_memfd(RAM))
        self.ram = mmap.mmap(self.fds["memory"], RAM)
        self.ram[:] = b"\1" * RAM
        self.ram[:NUMBERS] = bytes(NUMBERS)

    def poke(self, at, data):
        self.ram[at : at + len(data)] = data

    def peek(self, at, size):
        return self.ram[at : at + size]

    @property
    def held(self):
        return held(self.fds["memory"])

    def begin(self, features=TELLS):
        """Say what User-Mode Linux does, of this memory; go on where it was."""
        region = traces.region(guest=self.start_of_ram, size=RAM, offset=0)
        self.say(*traces.UML_CONNECT)
        for sent in traces.uml_probe(features):
            if sent.request == "SET_MEM_TABLE":
                self.say(sent._replace(payload=traces.table(region) + bytes(32)))
            elif sent.request == "SET_VRING_BASE":
                queue = sent.payload[0]
                self.say(sent._replace(payload=state(queue, self.used(queue))))
            else:
                self.say(sent)
        return self

    def again(self, path):
        """Connect once more, with the same memory."""
        self.socket.close()
        self.settle()
        self.connect(path)
        return self.begin()

    def inflate(self, *pages):
        self._send(INFLATE, pages)

    def deflate(self, *pages):
        self._send(DEFLATE, pages)

    def _send(self, queue, pages):
        """Send a buffer, and another when it is back."""
        for first in range(0, len(pages), AT_ONCE):
            before = self.used(queue)
            self._offer(queue, pages[first : first + AT_ONCE])
            self.kick(queue)
            assert self.used(queue) == before + 1

    def _offer(self, queue, pages):
        desc, avail, _used = traces.ring_at(queue)
        numbers = [self.start_of_ram // 4096 + page for page in pages]
        self.poke(NUMBERS, struct.pack(f"<{len(numbers)}I", *numbers))
        place = self.start_of_ram + NUMBERS
        self.poke(desc, struct.pack("<QIHH", place, 4 * len(numbers), 0, 0))
        # Its only descriptor is the first one, which every entry says already.
        self.poke(avail + 2, struct.pack("<H", self.used(queue) + 1))

    def close(self):
        self.ram.close()
        super().close()


@pytest.fixture
def daemon():
    with Daemon() as daemon:
        yield daemon


@pytest.fixture
def slot(daemon, tmp_path):
    options = DeviceOptions(must_tell_host=True)
    return daemon.add(
        tmp_path / "balloon.sock", lambda: make_device("none", options=options)
    )


@pytest.fixture
def device(slot):
    return slot.device


@pytest.fixture
def a_guest(daemon, slot):
    made = []

    def a_guest(**options):
        made.append(Guest(slot, daemon, **options))
        return made[-1]

    yield a_guest
    for guest in made:
        guest.close()


@pytest.fixture
def guest(a_guest):
    return a_guest().begin()


# --- one huge page ------------------------------------------------------------------


def test_one_is_given_back_with_the_last_of_its_pages(guest, device):
    before = free()

    guest.inflate(*SECOND[:-1])

    assert (guest.held, device.query().reclaimed) == (4, 0)
    guest.inflate(SECOND[-1])
    assert (guest.held, device.query().reclaimed) == (3, PIECES)
    assert free() == before + 1


def test_its_pages_come_in_any_order_and_among_others(guest, device):
    others = range(3 * PIECES, 3 * PIECES + 100)
    shuffled = [page for last in range(7) for page in SECOND if page % 7 == last]

    guest.inflate(*others, *shuffled)

    assert guest.held == 3
    assert device.query().ballooned == PIECES + 100
    assert device.query().reclaimed == PIECES


def test_a_page_that_is_taken_back_brings_all_of_it(guest, device):
    guest.inflate(*SECOND)

    guest.deflate(SECOND[10])

    assert (device.query().ballooned, device.query().reclaimed) == (PIECES - 1, 0)
    guest.poke(SECOND[10] * 4096, b"\2")
    assert guest.held == 4
    guest.inflate(SECOND[10])
    assert (guest.held, device.query().reclaimed) == (3, PIECES)


def test_whoever_does_not_tell_keeps_it(a_guest, device):
    guest = a_guest().begin(traces.MODERN)

    guest.inflate(*SECOND)

    assert guest.held == 4
    assert (device.query().ballooned, device.query().reclaimed) == (PIECES, 0)


# --- where memory lies --------------------------------------------------------------


def test_memory_that_begins_within_one_stays_whole(a_guest, device):
    # No huge page of the guest's addresses is one of the host's.
    guest = a_guest(start=GUEST_RAM + HUGE // 2).begin()

    guest.inflate(*range(PIECES, 4 * PIECES))

    assert (guest.held, device.query().reclaimed) == (4, 0)
    assert guest.ram[HUGE:] == b"\1" * 3 * HUGE


def test_memory_on_huge_pages_can_be_added(daemon, slot, device):
    front_end = FrontEnd(slot.path, daemon)
    front_end.say(*traces.QEMU_CONNECT, *traces.qemu_start(TELLS, first=True))
    front_end.give("more", a_huge_memfd(2 * HUGE))
    with mmap.mmap(front_end.fds["more"], 2 * HUGE) as more:
        more[:] = b"\1" * 2 * HUGE
        region = traces.region(
            guest=0x8000_0000, size=2 * HUGE, user=0x1000_0000, offset=0
        )
        front_end.say(Sent("ADD_MEM_REG", bytes(8) + region, ("more",), ack=True))
        for page in range(PIECES):
            front_end.poke(0x8000 + 4, struct.pack("<I", 0x8000_0000 // 4096 + page))
            front_end.offer(INFLATE, 1)
            front_end.kick(INFLATE)

        assert device.query().reclaimed == PIECES
        assert held(front_end.fds["more"]) == 1
        assert more[HUGE:] == b"\1" * HUGE
    front_end.close()


# --- the pool -----------------------------------------------------------------------


def test_a_guest_that_comes_back_takes_nothing_from_the_pool(guest, slot, device):
    guest.inflate(*SECOND)
    before = free(), reserved()

    guest.again(slot.path)

    assert device.query().reclaimed == PIECES
    assert (free(), reserved()) == before
    guest.deflate(SECOND[0])
    guest.poke(SECOND[0] * 4096, b"\2")
    guest.inflate(SECOND[0])
    assert (guest.held, device.query().reclaimed) == (3, PIECES)


def test_a_pool_that_is_empty_ends_one_connection_only(guest, slot):
    guest.ram.madvise(mmap.MADV_REMOVE, 0, HUGE)  # with its queues
    rest = (free() - reserved()) * HUGE
    taken = a_huge_memfd(rest)
    os.posix_fallocate(taken, 0, rest)

    os.eventfd_write(guest.fds["kick0"], 1)
    guest.settle()

    assert guest.cut_off
    os.close(taken)
    guest.ram[:HUGE] = bytes(HUGE)
    guest.again(slot.path)
    guest.inflate(*SECOND)
    assert guest.held == 3
