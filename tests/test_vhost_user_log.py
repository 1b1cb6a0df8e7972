"""What is written to guest memory while the guest migrates is marked in a log."""

from __future__ import annotations

import os
import struct

import pytest
import vhost_user_traces as traces
from vhost_user_front_end import FrontEnd, open_fds
from vhost_user_traces import GUEST_RAM, Sent, number

from balloon_plugin import make_device
from balloon_plugin.hosts.vhost_user.daemon import Daemon

LOG_AT = 4096 + 64
"""Where the log begins in its file; at no page boundary."""

LOG_SIZE = (GUEST_RAM + traces.RAM_SIZE) // 4096 // 8
LOG_ALL = 1 << 26
USED = 0x0666_0000
"""Where the used ring of queue 0 is in the log: where the front end likes."""


@pytest.fixture
def daemon():
    with Daemon() as daemon:
        yield daemon


@pytest.fixture
def guest(daemon, tmp_path):
    path = tmp_path / "guest.sock"
    daemon.add(path, lambda: make_device("none"))
    guest = FrontEnd(path, daemon)
    guest.say(*traces.QEMU_CONNECT)
    yield guest
    guest.close()


def set_log(guest, size=LOG_SIZE, at=LOG_AT):
    fd = os.memfd_create("log")
    os.ftruncate(fd, LOG_AT + LOG_SIZE)
    guest.give("log", fd)
    guest.send(Sent("SET_LOG_BASE", struct.pack("=QQ", size, at), ("log",)))
    return guest.replies()


def logged(queue=0):
    """Return the message that lets a ring be logged; it may run."""
    _, _, desc, used, avail, _ = struct.unpack("=IIQQQQ", traces.address(queue))
    place = struct.pack("=IIQQQQ", queue, 1, desc, used, avail, USED)
    return Sent("SET_VRING_ADDR", place)


def marked(guest):
    """Return and clear the pages that are marked."""
    log = os.pread(guest.fds["log"], LOG_SIZE, LOG_AT)
    os.pwrite(guest.fds["log"], bytes(LOG_SIZE), LOG_AT)
    beyond = os.pread(guest.fds["log"], LOG_AT, 0)
    assert not any(beyond)
    return {
        8 * at + bit
        for at, byte in enumerate(log)
        for bit in range(8)
        if byte >> bit & 1
    }


def around(address, size):
    """Return the pages of a range, and those that share a byte of the log with them."""
    first, last = address // 32768, (address + size - 1) // 32768
    return {*range(8 * first, 8 * last + 8)}


USED_RING = around(USED, 6 + 8 * traces.QUEUE_SIZE)


def inflate(guest, *pages):
    for head, page in enumerate(pages):
        guest.poke(0x8000 + head * 4, (GUEST_RAM // 4096 + page).to_bytes(4, "little"))
    guest.offer(0, *range(len(pages)))
    guest.kick(0)


def test_the_log_is_acknowledged_by_a_number(guest):
    assert set_log(guest) == [(6, number(0))]


def test_a_used_ring_is_marked_where_the_front_end_says(guest):
    guest.say(*traces.qemu_start(first=True))
    set_log(guest)
    inflate(guest, 64)
    assert marked(guest) == set()

    guest.say(logged())
    assert marked(guest) == USED_RING  # its flags are set when a queue starts
    inflate(guest, 65)

    assert marked(guest) == USED_RING
    assert guest.used(0) == 2


def test_pages_that_are_given_back_are_marked(guest):
    guest.say(*traces.qemu_start(first=True))
    set_log(guest)
    guest.say(Sent("SET_FEATURES", number(traces.MODERN | LOG_ALL)))

    inflate(guest, 64, 65, 100)

    assert marked(guest) == around(GUEST_RAM + 64 * 4096, 2 * 4096) | around(
        GUEST_RAM + 100 * 4096, 4096
    )


def test_the_driver_stays_the_same_when_the_log_comes_and_goes(guest, daemon):
    guest.say(*traces.qemu_start(first=True))
    set_log(guest)
    inflate(guest, 64)
    for features in (traces.MODERN | LOG_ALL, traces.MODERN):
        guest.say(Sent("SET_FEATURES", number(features)))
        guest.say(Sent("SET_FEATURES", number(features)))

    inflate(guest, 65)

    assert marked(guest) == set()
    device = daemon._slots[0].device
    assert device.query().ballooned == 2
    assert device.query().features == traces.MODERN


def test_rings_are_logged_no_more_when_the_front_end_says_so(guest):
    guest.say(*traces.qemu_start(first=True))
    set_log(guest)
    guest.say(logged())
    guest.say(Sent("SET_VRING_ADDR", traces.address(0)))
    marked(guest)

    inflate(guest, 64)

    assert marked(guest) == set()


def test_a_packed_ring_is_marked_with_what_is_written_beside_it(guest):
    features = traces.MODERN | 1 << 34
    start = 1 << 31 | 1 << 15
    guest.say(*traces.qemu_start(features, first=True, bases=(start, start)))
    set_log(guest)

    guest.say(logged())

    ring = around(GUEST_RAM + traces.ring_at(0)[0], 16 * traces.QUEUE_SIZE)
    assert marked(guest) == around(USED, 4) | ring


def test_what_is_beyond_the_log_is_not_marked(guest):
    guest.say(*traces.qemu_start(first=True))
    set_log(guest, size=8)
    guest.say(Sent("SET_FEATURES", number(traces.MODERN | LOG_ALL)), logged())

    inflate(guest, 64)

    assert marked(guest) == set()
    assert guest.used(0) == 1


def test_the_front_end_is_told_of_marks(guest):
    guest.say(*traces.qemu_start(first=True))
    set_log(guest)
    for _ in range(2):
        guest.say(Sent("SET_LOG_FD", b"", ("log_call",), ack=True))

    guest.say(logged())

    assert guest.called("log_call")


@pytest.mark.parametrize(("size", "at"), [(0, LOG_AT), (LOG_SIZE + 1, LOG_AT)])
def test_a_log_that_is_not_in_its_file_ends_the_connection(guest, size, at):
    set_log(guest, size, at)

    assert guest.cut_off


def test_a_log_that_cannot_be_mapped_ends_the_connection(guest):
    set_log(guest, 2**63, 2**63)

    assert guest.cut_off


def test_a_log_notifier_that_is_of_no_use_is_refused(guest):
    guest.give("log_call", os.memfd_create("none"))

    guest.refused("SET_LOG_FD", b"", ("log_call",))


def test_a_log_that_goes_ends_the_connection(guest, daemon):
    guest.say(*traces.qemu_start(first=True))
    set_log(guest)
    guest.say(logged())
    os.ftruncate(guest.fds["log"], 0)

    inflate(guest, 64)

    assert not daemon._slots[0].connected


def test_nothing_of_a_log_is_left(guest, daemon):
    before = len(open_fds())
    set_log(guest)
    set_log(guest)
    guest.say(Sent("SET_LOG_FD", b"", ("log_call",), ack=True))
    guest.forget("log")
    guest.forget("log_call")
    guest.socket.close()
    guest.settle()

    assert not daemon._slots[0].connected
    assert len(open_fds()) < before
    assert not daemon._slots[0]._host.log.active
