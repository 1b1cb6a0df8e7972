"""What is in flight is on record with the front end (INFLIGHT_SHMFD)."""

from __future__ import annotations

import os
import socket
import struct

import pytest
import vhost_user_traces as traces
from vhost_user_lives import (
    PACKED,
    Guest,
    Host,
    PackedGuest,
    a_host,
    inflated,
    killed_at,
)
from vhost_user_traces import Sent, number

INFLIGHT, INDIRECT_DESC = 1 << 12, 1 << 28
AT = {Guest: 128 * 16 + 64, PackedGuest: 128 * 32 + 64}
"""Where the record of queue 1 begins: after a head and 128 states, rounded up."""


@pytest.fixture
def host(tmp_path):
    with a_host(tmp_path) as host:
        yield host


def recording(kind, host, before=None):
    """Return a guest that keeps the record; the same as one before, if there was."""
    guest = kind(host, before)
    guest.records = True
    host.guests = [guest]
    return guest.start()


@pytest.fixture
def guest(host):
    recording(Guest, host)
    yield host.guests[0]
    host.guests[-1].close()


def record(guest, at, size):
    return os.pread(guest.fds["inflight"], size, at)


def in_flight(guest):
    """Return the entries of queue 0 that are in flight."""
    size = 32 if isinstance(guest, PackedGuest) else 16
    return [at for at in range(128) if record(guest, size + size * at, 1) == b"\1"]


def leave_in_flight(host, guest, *pages):
    """Die while the device has these buffers, and has not looked into them."""
    queue_notify = host.device.queue_notify

    def taken(index):
        assert len(host.slot._host.vrings[index].queue.pop(8)) == len(pages)
        return False

    host.device.queue_notify = taken
    guest.send_pages(0, *pages)
    guest.settle()
    host.device.queue_notify = queue_notify


# --- what a record is good for --------------------------------------------------------


@pytest.mark.parametrize("kind", [Guest, PackedGuest])
@pytest.mark.parametrize("kept", [True, False])
def test_what_was_in_flight_is_served_by_the_next_daemon(host, kind, kept):
    if not kept:
        host.kept = False
        host.restart()
    first = recording(kind, host)
    first.send_pages(0, 1, 2)
    first.settle()
    leave_in_flight(host, first, 3, 4)

    host.restart()
    second = recording(kind, host, first)
    second.send_pages(0, 5)
    second.settle()

    seen = inflated(1, 2, 3, 4, 5)
    assert host.policy.seen == (seen if kept else seen[2:])
    second.close()


def test_the_order_on_record_is_that_in_which_it_is_served(host, guest):
    guest.send_pages(0, 9)
    guest.settle()
    leave_in_flight(host, guest, 1, 2, 3)
    counter = struct.pack("=Q", 99)
    os.pwrite(guest.fds["inflight"], counter, 16 + 8)

    host.restart()
    recording(Guest, host, guest)

    assert host.policy.seen == inflated(9, 2, 3, 1)


@pytest.mark.parametrize("records", [True, False])
def test_a_packed_ring_that_may_have_lists_stands_where_the_record_says(host, records):
    features = PACKED & ~INDIRECT_DESC
    first = PackedGuest(host)
    first.records = records
    first.start(features=features)
    first.send_pages(0, 1, 2)
    first.settle()

    host.restart()
    second = PackedGuest(host, first).start(features=features)

    # Without, nobody knows where it stands, and its driver is judged anew.
    assert host.device.query().ballooned == (2 if records else 0)
    second.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Guest, PackedGuest])
def test_killed_at_any_moment_every_buffer_counts_once(tmp_path, kind):
    moment, lived = 0, False
    while not lived:
        folder = tmp_path / str(moment)
        folder.mkdir()
        host = Host(folder)
        first = recording(kind, host)
        first.send_pages(0, 1, 2)
        first.settle()
        first.send_pages(0, 3, 4, 5)

        lived = killed_at(moment, host.step) is not None
        host.restart()
        second = recording(kind, host, first)
        second.send_pages(0, 6)
        second.settle()

        assert host.policy.seen == inflated(1, 2, 3, 4, 5, 6)
        assert in_flight(second) == []
        second.close()
        host.daemon.close()
        moment += 37

    assert moment > 100


# --- where it is ----------------------------------------------------------------------


@pytest.mark.parametrize("size", [20, 24])
@pytest.mark.parametrize(
    ("entries", "room"), [(1, 64), (100, 100 * 32 + 64), (32768, 32768 * 32 + 64)]
)
def test_a_front_end_gets_an_empty_buffer_with_room_for_its_queues(
    guest, size, entries, room
):
    wanted = struct.pack("=QQHH", 0, 0, 5, entries).ljust(size, b"\0")

    guest.send(Sent("GET_INFLIGHT_FD", wanted))
    data, (fd,), _, _ = socket.recv_fds(guest.socket, 12 + size, 1)

    mmap_size, *described = struct.unpack_from("=QQHH", data, 12)
    assert len(data) == 12 + size
    assert described == [0, 5, entries]
    assert mmap_size == 5 * room
    assert os.pread(fd, mmap_size + 1, 0) == bytes(mmap_size)
    os.close(fd)


@pytest.mark.parametrize("kind", [Guest, PackedGuest])
def test_each_queue_has_a_record_of_its_own(host, kind):
    guest = recording(kind, host)
    leave_in_flight(host, guest, 1)

    begun = struct.pack("=QHH", 0, 1, 128)
    assert record(guest, 0, 12) == record(guest, AT[kind], 12) == begun
    assert record(guest, AT[kind] - 64 + 32, 32) == bytes(32)
    guest.close()


def test_it_may_be_anywhere_in_a_file(host):
    guest = Guest(host)
    guest.records = True
    fd = os.memfd_create("inflight")
    os.ftruncate(fd, 0x9000)
    guest.give("inflight", fd)
    guest.described = struct.pack("=QQHH", 0x3000, 0x5040, 2, 128)

    guest.start(bases=(0, 0))

    assert record(guest, 0x5040, 12) == struct.pack("=QHH", 0, 1, 128)
    assert not any(record(guest, 0, 0x5040))
    guest.close()


def test_a_queue_beyond_the_record_is_served_without(guest):
    guest.say(*traces.UML_REMOVE)
    guest.forget("inflight")
    guest.keep_record(queues=1)

    guest.say(*traces.uml_probe())
    guest.send_pages(1, 1)
    guest.settle()

    assert guest.used(1) == 1


def test_memory_may_change_while_something_is_in_flight(host, guest):
    leave_in_flight(host, guest, 1, 2)

    memory = traces.table(traces.region())
    guest.say(Sent("SET_MEM_TABLE", memory, ("memory",), ack=True))
    guest.kick(0)

    assert guest.used(0) == 2
    assert in_flight(guest) == []


def test_a_queue_may_lose_its_memory_and_get_it_back(host, guest):
    buffer = host.slot._host.inflight
    leave_in_flight(host, guest, 1)
    elsewhere = traces.table(traces.region(guest=0x8000_0000, size=4096, user=0x1000))
    guest.refused("SET_MEM_TABLE", elsewhere, ("memory",))
    window = buffer._window

    memory = traces.table(traces.region())
    guest.say(Sent("SET_MEM_TABLE", memory, ("memory",), ack=True))
    guest.kick(0)
    assert guest.used(0) == 1

    guest.refused("SET_MEM_TABLE", elsewhere, ("memory",))
    guest.socket.close()
    guest.settle()
    assert not host.slot.connected
    assert window._mapping.closed


# --- when it is another driver's ------------------------------------------------------


def test_a_driver_that_begins_anew_finds_nothing_in_flight(host, guest):
    leave_in_flight(host, guest, 1, 2)
    assert in_flight(guest) == [0, 1]
    guest.say(*traces.UML_REMOVE)
    guest.poke(0x1000, bytes(0x5000))

    guest.say(*traces.uml_probe())
    guest.send_pages(0, 7)
    guest.settle()

    assert host.policy.seen == inflated(7)
    assert in_flight(guest) == []


def test_a_record_that_was_kept_for_another_driver_brings_no_session_back(host, caplog):
    guest = recording(PackedGuest, host)
    guest.send_pages(0, 1, 2)
    guest.settle()
    host.restart()
    guest.rings.clear()
    for queue in (0, 1):
        guest.poke(traces.ring_at(queue)[0], bytes(traces.QUEUE_SIZE * 16))
    other = PackedGuest(host, guest)

    other.say(*traces.UML_CONNECT)
    other.say(Sent("SET_PROTOCOL_FEATURES", number(1 << 3 | INFLIGHT), ack=True))
    other.keep_record()
    *start, enable = other.probe(other.bases, other.features)[:-2]
    other.say(*start)
    other.refused(enable.request, enable.payload)

    assert "the record of buffers in flight is of another ring" in caplog.text
    assert host.device.query().ballooned == 0
    other.close()


def test_a_connection_that_is_lost_leaves_it_on_record(host, guest):
    leave_in_flight(host, guest, 1, 2)

    guest.socket.close()
    guest.settle()

    assert in_flight(guest) == [0, 1]


# --- nonsense -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("queues", "entries"), [(0, 128), (6, 128), (2, 0), (2, 32769), (65535, 65535)]
)
def test_a_buffer_for_what_no_balloon_has_is_not_made(host, queues, entries, caplog):
    guest = recording(Guest, host)

    wanted = struct.pack("=QQHH", 0, 0, queues, entries)
    guest.send(Sent("GET_INFLIGHT_FD", wanted))

    assert guest.cut_off
    assert f"asks for {queues} queues of {entries} entries" in caplog.text
    guest.close()


@pytest.mark.parametrize(
    ("size", "offset"),
    [(0x9000, 0), (0x4000, 0x5001), (0, 0), (2**64 - 1, 2**64 - 1)],
)
def test_a_buffer_that_is_not_in_its_file_is_refused(guest, size, offset, caplog):
    guest.say(*traces.UML_REMOVE)
    fd = os.memfd_create("inflight")
    os.ftruncate(fd, 0x8000)
    guest.give("inflight", fd)

    described = struct.pack("=QQHH", size, offset, 2, 128)
    guest.refused("SET_INFLIGHT_FD", described, ("inflight",))

    assert "is not in its file" in caplog.text


@pytest.mark.parametrize("entries", [0, 64, 65535])
def test_a_queue_for_which_it_has_no_room_is_not_started(guest, entries, caplog):
    guest.say(*traces.UML_REMOVE)
    guest.described = struct.pack("=QQHH", 0x1000, 0, 2, entries)
    guest.say(Sent("SET_INFLIGHT_FD", guest.described, ("inflight",), ack=True))

    *start, enable = [*traces.uml_probe()][:-2]
    guest.say(*start)
    guest.refused(enable.request, enable.payload)

    assert "has no room for queue 0 of 128 entries" in caplog.text


def test_nonsense_on_record_is_refused_and_the_daemon_lives(host, guest, caplog):
    guest.send_pages(0, 9)
    guest.settle()
    leave_in_flight(host, guest, 1)
    os.pwrite(guest.fds["inflight"], struct.pack("=H", 7), 10)
    host.restart()
    again = Guest(host, guest)
    host.guests.append(again)

    again.say(*traces.UML_CONNECT)
    again.say(Sent("SET_PROTOCOL_FEATURES", number(1 << 3 | INFLIGHT), ack=True))
    again.keep_record()
    *start, enable = again.probe((1, 0))[:-2]
    again.say(*start)
    again.refused(enable.request, enable.payload)

    assert "is of 7 entries and not of 128" in caplog.text


def test_a_buffer_far_too_large_costs_what_a_balloon_needs(guest, host):
    guest.say(*traces.UML_REMOVE)
    fd = os.memfd_create("inflight")
    os.ftruncate(fd, 1 << 46)
    guest.give("inflight", fd)
    guest.described = struct.pack("=QQHH", 1 << 46, 0, 2, 128)
    guest.say(Sent("SET_INFLIGHT_FD", guest.described, ("inflight",), ack=True))

    guest.say(*traces.uml_probe())
    guest.send_pages(0, 1)
    guest.settle()

    assert host.policy.seen == inflated(1)
    assert os.fstat(fd).st_blocks * 512 <= 6 << 20


def test_it_comes_before_queues_run(guest, caplog):
    guest.refused("SET_INFLIGHT_FD", guest.described, ("inflight",))

    assert "SET_INFLIGHT_FD comes while queues run" in caplog.text


def test_a_record_that_goes_ends_the_connection(host, guest):
    os.ftruncate(guest.fds["inflight"], 0)

    guest.send_pages(0, 1)
    guest.settle()

    assert guest.cut_off
    assert not host.slot.connected


def test_without_it_nothing_is_recorded(host):
    guest = Guest(host).start()
    guest.send(Sent("GET_INFLIGHT_FD", struct.pack("=QQHH", 0, 0, 2, 128)))

    assert guest.cut_off
    guest.close()
