"""A hostile front end costs the others under the same daemon nothing."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import resource
import socket
import struct
import sys
import tempfile
from pathlib import Path
from unittest import mock

import pytest
import vhost_user_traces as traces
from examples import times
from hypothesis import given
from hypothesis import strategies as st
from vhost_user_front_end import FrontEnd, a_memfd
from vhost_user_lives import PACKED, Guest, a_host
from vhost_user_traces import Sent, number, state

from balloon_plugin import make_device
from balloon_plugin.hosts.vhost_user import connection, files, turns
from balloon_plugin.hosts.vhost_user.daemon import Daemon
from balloon_plugin.hosts.vhost_user.door import MAX_COMINGS

CALL, KICK = connection.Notifier.CALL, connection.Notifier.KICK


@pytest.fixture
def daemon():
    with Daemon() as daemon:
        yield daemon


@pytest.fixture
def guest(daemon, tmp_path):
    """Give a function that connects a guest with two queues, in its own slot."""
    front_ends = []

    def connect(name="guest"):
        path = tmp_path / f"{name}{len(front_ends)}.sock"
        slot = daemon.add(path, lambda: make_device("none"))
        front_end = FrontEnd(path, daemon)
        front_end.slot = slot
        front_end.say(*traces.UML_CONNECT, *traces.uml_probe())
        front_ends.append(front_end)
        return front_end

    yield connect
    for front_end in front_ends:
        front_end.close()


def is_served(guest):
    """Return whether a buffer of the guest comes back."""
    before = guest.used(0)
    guest.offer(0, 1)
    guest.kick(0)
    return guest.used(0) == (before + 1) & 0xFFFF


# --- memory that shrinks ------------------------------------------------------------


def truncated_at(moment, fd, work):
    """Do the work and empty a file at one of its moments; return how many it had.

    Once it was done, if it had fewer: a tick that happens to be due makes it longer.
    """
    count = 0

    def profile(*_event):
        nonlocal count
        if count == moment:
            os.ftruncate(fd, 0)
        count += 1

    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
    os.ftruncate(fd, 0)
    return count


def test_memory_that_goes_at_any_moment_ends_one_connection_only(guest, daemon):
    other = guest("other")
    moment, moments = 0, 1
    while moment < moments:
        hostile = guest("hostile")
        hostile.offer(0, 1, 2)
        os.eventfd_write(hostile.fds["kick0"], 1)

        moments = truncated_at(moment, hostile.fds["memory"], daemon.step)
        hostile.kick(0)
        hostile.kick(1)

        assert hostile.cut_off, moment
        assert is_served(other), moment
        daemon.remove(hostile.slot)
        # A prime, so that no place in a loop is always passed over.
        moment += 31

    assert moments > 100


def test_why_the_connection_ended_is_in_the_log(guest, caplog):
    hostile = guest()
    os.ftruncate(hostile.fds["memory"], 0)

    hostile.kick(0)

    assert not hostile.slot.connected
    assert "the front end took its memory away" in caplog.text


def test_memory_that_goes_between_two_turns_harms_nobody(guest):
    hostile, other = guest(), guest()

    os.ftruncate(hostile.fds["memory"], 0)
    assert is_served(other)

    hostile.close()
    assert is_served(other)


def test_a_front_end_that_came_back_with_its_memory_is_served(guest, daemon):
    hostile = guest()
    os.ftruncate(hostile.fds["memory"], 0)
    hostile.kick(0)
    again = FrontEnd(hostile.slot.path, daemon)

    again.say(*traces.UML_CONNECT, *traces.uml_probe())

    assert is_served(again)
    again.close()


@pytest.mark.parametrize(
    ("request_", "payload"),
    [
        ("SET_MEM_TABLE", traces.table(traces.region())),
        ("SET_INFLIGHT_FD", struct.pack("=QQHH", 4096, 0, 1, 8)),
        ("SET_LOG_BASE", struct.pack("=QQ", 4096, 0)),
    ],
)
def test_memory_that_another_process_can_keep_us_waiting_for_is_refused(
    guest, monkeypatch, caplog, request_, payload
):
    hostile = guest()
    hostile.say(*traces.UML_REMOVE)
    features = number(traces.QEMU_PROTOCOL)
    hostile.say(Sent("SET_PROTOCOL_FEATURES", features, ack=True))
    kind = files._file_system(hostile.fds["memory"])
    monkeypatch.setattr(files, "_FUSE", kind)

    hostile.send(Sent(request_, payload, ("memory",), ack=True))

    assert kind == 0x01021994  # tmpfs
    assert "is a file of another process (FUSE)" in caplog.text


# --- turns --------------------------------------------------------------------------

MANY = 24


def test_rings_that_are_always_full_leave_everybody_a_turn(guest, daemon):
    hostile = guest("hostile")
    others = [guest() for _ in range(MANY)]
    hostile.slot.device.queue_notify = lambda _index: True
    os.eventfd_write(hostile.fds["kick0"], 1)
    os.eventfd_write(hostile.fds["kick1"], 1)

    for turn in range(1, 6):
        for other in others:
            other.offer(0, 1)
            os.eventfd_write(other.fds["kick0"], 1)
        daemon.step()
        assert {other.used(0) for other in others} == {turn}


def test_a_ring_of_long_buffers_is_served_in_short_turns(guest, daemon):
    hostile = guest("hostile")
    desc, avail, _used = traces.ring_at(0)
    for head in range(traces.QUEUE_SIZE):
        place = (traces.GUEST_RAM + 0x8000).to_bytes(8, "little")
        hostile.poke(desc + head * 16, place + (65536).to_bytes(8, "little"))
        hostile.poke(avail + 4 + head * 2, head.to_bytes(2, "little"))
    hostile.poke(avail + 2, traces.QUEUE_SIZE.to_bytes(2, "little"))
    os.eventfd_write(hostile.fds["kick0"], 1)

    daemon.step()

    # A turn for the kick, and one because more waits.
    assert hostile.used(0) == 4


class Clock:
    """The processor's time and that on the wall, as a test has them pass."""

    def __init__(self):
        self.spent = 0.0
        self.now = 0.0

    def thread_time(self):
        return self.spent

    def monotonic(self):
        return self.now


def test_who_had_a_long_turn_rests_as_long(guest, daemon, monkeypatch):
    clock = Clock()
    hostile, other = guest("hostile"), guest()
    had = []

    def work(_index):
        had.append(clock.now)
        clock.spent += 1.0
        return True

    hostile.slot.device.queue_notify = work
    monkeypatch.setattr(turns, "LONG_TURN", 0.5)
    monkeypatch.setattr(turns, "time", clock)
    monkeypatch.setattr("balloon_plugin.hosts.vhost_user.loop.time", clock)
    for clock.now in (0.0, 0.4, 0.9, 1.1, 1.5, 2.2):
        for fd in (hostile.fds["kick0"], hostile.fds["kick1"]):
            os.eventfd_write(fd, 1)
        hostile.raw(b"")
        daemon.step()
        assert is_served(other)

    # Both queues were kicked before anybody knew how long it takes.
    assert had[0] == 0.0
    assert sorted({*had}) == [0.0, 1.1, 2.2]
    assert len(had) <= 6


def test_one_that_rests_can_go(guest, daemon, monkeypatch):
    hostile, other = guest(), guest()
    monkeypatch.setattr(turns, "LONG_TURN", 0.0)
    hostile.kick(0)
    monkeypatch.setattr(turns, "LONG_TURN", 10.0)
    assert hostile.slot._door.visitor._turns.resting

    hostile.close()
    for _ in range(100):
        daemon.step(0.01)
        if not hostile.slot.connected:
            break

    assert not hostile.slot.connected
    assert is_served(other)


# --- messages -----------------------------------------------------------------------


def of_queue(request, *values):
    return [
        Sent(request, state(queue, of), ack=True) for queue in (0, 1) for of in values
    ]


RECORD, OTHER_RECORD = (
    Sent("SET_INFLIGHT_FD", struct.pack("=QQHH", *place), ("record",), ack=True)
    for place in [(0x3000, 0, 2, 128), (0x3000, 64, 2, 1)]
)
ELSEWHERE = traces.region(guest=0x8000_0000, size=4096, user=0x1000)
SENSIBLE = [
    *(
        Sent("SET_FEATURES", number(features), ack=True)
        for features in (traces.MODERN, traces.LEGACY, PACKED)
    ),
    *(
        Sent("SET_MEM_TABLE", traces.table(where), ("memory",), ack=True)
        for where in (traces.region(), traces.region(size=0x4000), ELSEWHERE)
    ),
    Sent("ADD_MEM_REG", bytes(8) + traces.region(), ("memory",), ack=True),
    Sent("REM_MEM_REG", bytes(8) + traces.region(), ack=True),
    *of_queue("SET_VRING_NUM", 128, 1),
    *of_queue("SET_VRING_BASE", 0, 1, 0x8000_8000),
    *of_queue("SET_VRING_ENABLE", 0, 1, 1),
    *(Sent("GET_VRING_BASE", state(queue, 0)) for queue in (0, 1)),
    *(Sent("SET_VRING_ADDR", traces.address(queue), ack=True) for queue in (0, 1)),
    *(
        Sent("SET_VRING_KICK", number(queue), (f"kick{queue}",), ack=True)
        for queue in (0, 1)
    ),
    *(Sent("SET_STATUS", number(status), ack=True) for status in (0, 15)),
    Sent("RESET_DEVICE", ack=True),
    Sent("RESET_OWNER", ack=True),
    *traces.QEMU_READ,
    *traces.qemu_write(1),
    RECORD,
    OTHER_RECORD,
    Sent("SET_LOG_BASE", struct.pack("=QQ", 4096, 0), ("log",)),
    Sent("SET_DEVICE_STATE_FD", state(0, 0), ("log",)),
]
"""Messages that all make sense, each by itself."""


@contextlib.contextmanager
def nothing_collected():
    """Keep what is only in a cycle, which may hold on to memory of a front end."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@times(0.5)
@given(
    st.sampled_from([traces.MODERN, PACKED]),
    st.lists(st.sampled_from(SENSIBLE) | st.integers(0, 96), max_size=25),
)
def test_whatever_order_they_come_in_the_next_front_end_is_served(features, said):
    with tempfile.TemporaryDirectory() as folder, a_host(Path(folder)) as host:
        guest = Guest(host)
        guest.give("record", a_memfd(0x4000))
        guest.give("log", a_memfd(4096))
        guest.say(*traces.QEMU_CONNECT, RECORD, *traces.uml_probe(features))
        with mock.patch.object(turns._log, "exception") as failed, nothing_collected():
            for each in said:
                guest.offer(0, 0)
                if isinstance(each, Sent):
                    with contextlib.suppress(OSError):
                        guest.send(each)
                else:
                    os.pwrite(guest.fds["record"], b"\1", each)
            guest.close()
            host.step()
            host.step()

        assert failed.mock_calls == []
        assert not host.slot.connected
        other = Guest(host).start()
        assert is_served(other)
        other.close()


def test_half_a_message_keeps_nobody_waiting(guest, daemon):
    hostile, other = guest(), guest()
    hostile.raw(b"\5\0\0\0\1")
    hostile.settle()

    assert not daemon.step()
    assert is_served(other)


def test_one_that_reads_no_replies_is_cut_off(guest):
    hostile, other = guest(), guest()
    hostile.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    for _ in range(10_000):
        if not hostile.slot.connected:
            break
        hostile.send(Sent("GET_FEATURES"))

    assert not hostile.slot.connected
    assert is_served(other)


def test_comings_and_goings_are_counted(guest, daemon, caplog):
    hostile, other = guest(), guest()
    hostile.close()
    for _ in range(3 * MAX_COMINGS):
        passing = FrontEnd(hostile.slot.path, daemon)
        daemon.step()
        passing.close()
        daemon.step()

    assert caplog.text.count("they come and go too often") == 1
    assert is_served(other)


# --- descriptors --------------------------------------------------------------------


def blocking(fd):
    """Take away what the daemon relied on; the flags are those of both sides."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    fcntl.fcntl(fd, fcntl.F_SETFL, flags & ~os.O_NONBLOCK)


def fill(fd):
    os.set_blocking(fd, False)
    try:
        while os.write(fd, bytes(4096)):
            pass
    except BlockingIOError:
        blocking(fd)


def test_a_full_backend_channel_that_blocks_keeps_nobody_waiting(guest):
    hostile, other = guest(), guest()
    fill(hostile._theirs["channel"])

    hostile.slot._host.notify_config()

    assert is_served(other)


def test_a_full_pipe_that_blocks_keeps_nobody_waiting(guest):
    hostile, other = guest(), guest()
    reading, writing = os.pipe()
    hostile.give("call0", reading, writing)
    hostile.say(Sent("SET_VRING_CALL", number(0), ("call0",), ack=True))
    fill(writing)

    hostile.slot._host.vrings[0].notify(CALL)

    assert is_served(other)


def test_a_full_eventfd_that_blocks_keeps_nobody_waiting(guest):
    hostile, other = guest(), guest()
    os.eventfd_write(hostile.fds["call0"], 2**64 - 2)
    blocking(hostile.fds["call0"])

    hostile.slot._host.vrings[0].notify(CALL)

    assert is_served(other)


@pytest.mark.parametrize("pipe", [True, False])
def test_a_kick_that_another_took_and_that_blocks_keeps_nobody_waiting(guest, pipe):
    hostile, other = guest(), guest()
    if pipe:
        reading, writing = os.pipe()
        hostile.give("kick0", writing, reading)
        hostile.say(Sent("SET_VRING_KICK", number(0), ("kick0",), ack=True))
    blocking(hostile._theirs["kick0"])

    hostile.slot._door.visitor._kicked(0, hostile.slot._host.vrings[0].fds[KICK])

    assert is_served(other)


@pytest.fixture
def no_descriptors():
    """Give a function that takes all descriptors that this process may have."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []

    def take():
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))

    yield take
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    for fd in taken:
        os.close(fd)


def test_without_descriptors_nobody_is_let_in_and_nothing_spins(
    guest, daemon, no_descriptors
):
    other = guest()
    path = other.slot.path.with_name("late.sock")
    late = daemon.add(path, lambda: make_device("none"))
    waiting = FrontEnd(path, daemon)
    no_descriptors()

    daemon.step()

    assert not late.connected
    assert not daemon.step()
    assert is_served(other)
    waiting.close()


def test_a_message_for_whose_descriptors_there_is_no_room_ends_the_connection(
    guest, no_descriptors
):
    hostile, other = guest(), guest()
    hostile.give("kick0", os.eventfd(0))
    no_descriptors()

    hostile.send(Sent("SET_VRING_KICK", number(0), ("kick0",), ack=True))

    assert hostile.cut_off
    assert is_served(other)
