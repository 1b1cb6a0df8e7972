from __future__ import annotations

import contextlib
import fcntl
import logging
import mmap
import os
import socket
import struct
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import vhost_user_traces as traces
from examples import times
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from ring import PackedDriverRing
from vhost_user_front_end import Device, FrontEnd, a_memfd, open_fds
from vhost_user_traces import GUEST_RAM, LEGACY, MODERN, RAM_SIZE, Sent, number, state

from balloon_plugin.events import ByteOrder, GuestFacts, MemoryRange
from balloon_plugin.hosts.vhost_user import clock, connection, mapping
from balloon_plugin.hosts.vhost_user.daemon import Daemon

CONFIG_CHANGE = struct.pack("=III", 2, 1, 0)


@pytest.fixture
def daemon():
    with Daemon() as daemon:
        yield daemon


@pytest.fixture
def slot(daemon, tmp_path):
    return daemon.add(tmp_path / "balloon.sock", Device)


@pytest.fixture
def device(slot):
    return slot.device


@pytest.fixture
def front_end(daemon, slot):
    front_end = FrontEnd(slot.path, daemon)
    yield front_end
    front_end.close()


@pytest.fixture
def uml(front_end):
    front_end.say(*traces.UML_CONNECT, *traces.uml_probe())
    return front_end


@pytest.fixture
def qemu(front_end):
    front_end.say(*traces.QEMU_CONNECT)
    return front_end


def pop_all(device):
    """Serve a queue as a device does: everything back to the driver."""

    def serve(index):
        queue = device.host.queue(index)
        if queue.push(queue.pop(100)):
            device.host.notify_queue(index)
        return False

    return serve


# --- real front ends ----------------------------------------------------------------


def test_user_mode_linux(front_end, device):
    device.told()

    front_end.say(*traces.UML_CONNECT, *traces.uml_probe())

    assert device.told() == [
        ("guest_changed",),
        ("set_features", MODERN),
        ("driver_ready",),
    ]
    assert device.host.facts == GuestFacts(ram=(MemoryRange(GUEST_RAM, RAM_SIZE),))
    device.space[:4] = b"\x10\0\0\0"
    assert front_end.say(*traces.UML_READ_TARGET) == [
        (24, traces.config(0, b"\x10\0\0\0"))
    ]
    front_end.say(*traces.uml_write_actual(16))
    assert device.told() == [("set_config", 4, b"\x10\0\0\0")]


def test_qemu(qemu, device):
    device.told()

    qemu.say(*traces.qemu_start(LEGACY, first=True, big=True))

    assert device.told() == [
        ("guest_changed",),
        ("set_features", LEGACY),
        ("driver_ready",),
    ]
    assert device.host.facts.byte_order is ByteOrder.BIG
    assert device.host.queue(1).byte_order is ByteOrder.BIG


def test_a_pause_keeps_what_is_known_and_where_queues_stand(qemu, device):
    device.serve = pop_all(device)
    qemu.say(*traces.qemu_start(first=True))
    qemu.offer(0, 1, 2, 3)
    qemu.kick(0)
    device.told()

    answers = qemu.say(*traces.qemu_stop())
    qemu.say(*traces.qemu_start(bases=(3, 0)))
    qemu.offer(0, 4)
    qemu.kick(0)

    assert answers == [(11, state(0, 3)), (11, state(1, 0))]
    assert device.told() == []
    assert qemu.used(0) == 4


def test_features_are_the_devices_and_the_transports(front_end, device):
    device.features = 5

    ((_, features),) = front_end.say(Sent("GET_FEATURES"))

    assert features == number(5 | traces.OFFERED)


# --- packed rings -------------------------------------------------------------------

PACKED = MODERN | 1 << 29 | 1 << 34
BEGINNING = 0x8000_8000


class PackedRing(PackedDriverRing):
    """The ring of queue 0, in the memory of a front end."""

    def __init__(self, front_end):
        fd = front_end.fds["memory"]
        ram = mmap.mmap(fd, traces.RAM_SIZE, offset=traces.FILE_AT)
        desc, avail, used = traces.ring_at(0)
        super().__init__(ram, traces.QUEUE_SIZE, ByteOrder.LITTLE, start=desc)
        self.avail, self.used = avail, used


@pytest.fixture
def packed(qemu, device):
    device.serve = pop_all(device)
    qemu.say(*traces.qemu_start(PACKED, (BEGINNING, BEGINNING), first=True))
    return PackedRing(qemu)


BUFFER = (GUEST_RAM + 0x8000, 4, 0)


def test_a_packed_ring_is_served(qemu, packed):
    qemu.called("call0")
    packed.offer(7, BUFFER)
    qemu.kick(0)

    assert packed.returned() == [(7, 0)]
    assert packed.asked == (1, 1, 2)
    assert qemu.called("call0")


def test_a_driver_that_wants_no_call_gets_none(qemu, packed):
    qemu.called("call0")
    packed.wish(1)
    packed.offer(7, BUFFER)
    qemu.kick(0)

    assert packed.returned() == [(7, 0)]
    assert not qemu.called("call0")


def test_a_packed_ring_goes_on_after_a_pause(qemu, packed, device):
    for ident in (1, 2, 3):
        packed.offer(ident, BUFFER)
    qemu.kick(0)
    device.told()

    answers = qemu.say(*traces.qemu_stop())
    qemu.say(*traces.qemu_start(PACKED, (0x8003_8003, BEGINNING)))
    packed.offer(4, BUFFER)
    qemu.kick(0)

    assert answers == [(11, state(0, 0x8003_8003)), (11, state(1, BEGINNING))]
    assert device.told() == []
    assert packed.returned() == [(ident, 0) for ident in (1, 2, 3, 4)]


def test_user_mode_linux_starts_a_packed_ring_at_0(front_end, device):
    device.serve = pop_all(device)
    front_end.say(*traces.UML_CONNECT, *traces.uml_probe(PACKED))
    ring = PackedRing(front_end)
    ring.offer(1, BUFFER)
    front_end.kick(0)

    assert ring.returned() == [(1, 0)]


# --- queues -------------------------------------------------------------------------


def test_kicks_reach_the_device_and_calls_the_driver(uml, device):
    device.serve = pop_all(device)
    uml.called("call0")
    device.kicks()

    uml.offer(0, 5)
    uml.kick(0)

    assert device.kicks() == [0]
    assert uml.used(0) == 1
    assert uml.called("call0")
    assert not uml.called("call1")


def test_a_buffer_that_waits_when_the_queue_starts_is_seen(front_end, device):
    front_end.say(*traces.UML_CONNECT)
    *probe, kick, enable = list(traces.uml_probe(queues=1))
    front_end.say(*probe, kick)
    front_end.offer(0, 5)
    front_end.kick(0)
    assert device.kicks() == []
    device.serve = pop_all(device)

    front_end.say(enable)

    assert front_end.used(0) == 1


def test_a_queue_that_stopped_is_not_served(uml, device):
    uml.say(*traces.UML_REMOVE)
    device.kicks()

    uml.kick(0)

    assert device.kicks() == []
    assert device.host.queue(0) is None


def test_a_queue_that_stopped_stays_so_when_memory_changes(uml, device):
    uml.say(*traces.UML_REMOVE)

    table = traces.table(traces.region())
    uml.say(Sent("SET_MEM_TABLE", table, ("memory",), ack=True))

    assert device.host.queue(0) is None


def test_a_new_driver_starts_where_it_says(uml, device):
    device.serve = pop_all(device)
    uml.offer(0, 1, 2, 3)
    uml.kick(0)
    assert uml.used(0) == 3
    uml.say(*traces.UML_REMOVE)
    uml.poke(0, bytes(0x9000))

    uml.say(*traces.uml_probe())
    uml.offer(0, 1)
    uml.kick(0)

    assert uml.used(0) == 1


def test_a_queue_starts_at_0_if_nothing_is_said(daemon, slot, uml, device):
    device.serve = pop_all(device)
    uml.offer(0, 1, 2, 3)
    uml.kick(0)
    uml.close()
    uml.settle()
    trace = [each for each in traces.uml_probe() if each.request != "SET_VRING_BASE"]
    another = FrontEnd(slot.path, daemon)
    another.say(*traces.UML_CONNECT, *trace)

    another.offer(0, 1)
    another.kick(0)

    assert another.used(0) == 1
    another.close()


def test_there_are_no_more_queues_than_a_balloon_has(device):
    assert device.host.queue(4) is None
    assert device.host.queue(5) is None


def test_a_queue_without_a_call_is_not_notified(front_end, device):
    front_end.say(*traces.UML_CONNECT, *traces.uml_probe())
    front_end.say(Sent("SET_VRING_CALL", number(0x100), ack=True))

    device.host.notify_queue(0)

    assert not front_end.called("call0")


def test_a_call_that_is_full_or_closed_harms_nobody(uml, device):
    ours, theirs = os.pipe()
    uml.give("call0", ours, theirs)
    uml.say(Sent("SET_VRING_CALL", number(0), ("call0",), ack=True))

    for _ in range(70_000 // 8):
        device.host.notify_queue(0)
    uml.forget("call0")
    device.host.notify_queue(0)

    assert uml.say(Sent("GET_FEATURES"))


def test_a_queue_that_cannot_be_kicked_is_looked_into_now_and_then(
    front_end, daemon, device
):
    front_end.say(*traces.UML_CONNECT)
    *probe, _kick, enable = list(traces.uml_probe(queues=1))
    front_end.say(*probe, Sent("SET_VRING_KICK", number(0x100), ack=True), enable)
    front_end.say(Sent("SET_VRING_KICK", number(1), ("kick1",), ack=True))
    device.kicks()

    daemon._slots[0].tick()
    daemon._slots[0].tick()
    front_end.settle()

    assert device.kicks() == [0]


def test_one_that_always_has_more_leaves_others_their_turn(daemon, tmp_path):
    turns, front_ends = [], []
    for name in ("greedy", "other"):
        slot = daemon.add(tmp_path / name, Device)
        front_ends.append(FrontEnd(slot.path, daemon))
        front_ends[-1].say(*traces.UML_CONNECT, *traces.uml_probe(queues=1))
        slot.device.serve = lambda _index, name=name: turns.append(name) or True

    for front_end in front_ends:
        os.eventfd_write(front_end.fds["kick0"], 1)
    for _ in range(4):
        daemon.step()

    assert turns == ["greedy", "other"] * 5
    for front_end in front_ends:
        front_end.close()


def test_a_kick_while_a_queue_waits_for_its_turn_gives_it_no_other(uml, daemon, device):
    device.serve = lambda _index: True
    os.eventfd_write(uml.fds["kick0"], 1)
    daemon.step()
    device.kicks()

    for _ in range(3):
        os.eventfd_write(uml.fds["kick0"], 1)
        daemon.step()

    assert device.kicks() == [0, 0, 0]


@pytest.mark.parametrize("name", ["kick0", "call0", "err0"])
def test_descriptors_that_are_of_no_use_are_refused(uml, name):
    fd = os.open("/", os.O_PATH)
    uml.give(name, fd)

    uml.refused(f"SET_VRING_{name[:-1].upper()}", number(0), (name,))


def test_a_file_cannot_be_a_kick(uml, device):
    uml.give("kick0", a_memfd())

    uml.refused("SET_VRING_KICK", number(0), ("kick0",))

    assert device.host.queue(0) is not None


def test_a_kick_whose_far_end_is_closed_is_not_watched(uml, daemon, device):
    ours, theirs = os.pipe()
    uml.give("kick0", theirs, ours)
    uml.say(Sent("SET_VRING_KICK", number(0), ("kick0",), ack=True))
    os.write(theirs, bytes(8))
    uml.settle()
    uml.forget("kick0")
    uml.settle()
    device.kicks()

    assert not daemon.step()
    assert device.kicks() == []


def test_a_kick_that_cannot_be_read_is_not_watched(uml, daemon):
    reading, writing = os.pipe()
    os.close(reading)
    uml.give("kick0", writing)
    uml.say(Sent("SET_VRING_KICK", number(0), ("kick0",), ack=True))
    uml.settle()

    assert not daemon.step()


def test_a_kick_that_another_has_read_already_is_no_harm(uml, device):
    def serve(index):
        if index == 0:
            os.eventfd_read(uml.fds["kick1"])
        return False

    device.serve = serve
    os.eventfd_write(uml.fds["kick0"], 1)
    os.eventfd_write(uml.fds["kick1"], 1)
    uml.settle()
    device.kicks()

    uml.kick(1)

    assert device.kicks() == [1]


def test_a_kick_of_a_connection_that_just_ended_is_not_served(uml, device):
    device.kicks()
    device.serve = lambda _index: 1 // 0
    os.eventfd_write(uml.fds["kick0"], 1)
    os.eventfd_write(uml.fds["kick1"], 1)

    uml.settle()

    assert len(device.kicks()) == 1


def test_a_ring_outside_memory_is_refused(front_end, device):
    front_end.say(*traces.UML_CONNECT)
    *probe, _kick, _enable = list(traces.uml_probe(queues=1))
    front_end.say(*probe)
    front_end.say(Sent("SET_VRING_ADDR", traces.address(0, user=0x5000), ack=True))
    front_end.say(Sent("SET_VRING_KICK", number(0), ("kick0",), ack=True))

    front_end.refused("SET_VRING_ENABLE", state(0, 1))

    assert device.host.queue(0) is None


def test_a_driver_is_ready_though_its_ring_cannot_start_yet(front_end, device):
    front_end.say(*traces.UML_CONNECT)
    features, memory, *probe, _kick, enable = traces.uml_probe(queues=1)
    front_end.say(features, *probe)
    front_end.say(Sent("SET_VRING_KICK", number(0), ("kick0",), ack=True))
    front_end.refused(enable.request, enable.payload)

    front_end.say(memory)

    assert device.host.queue(0) is not None
    assert ("driver_ready",) in device.told()


def test_a_ring_that_ends_outside_memory_is_refused(front_end, device):
    front_end.say(*traces.UML_CONNECT)
    *probe, _kick, _enable = list(traces.uml_probe(queues=1))
    front_end.say(*probe)
    last = traces.USER_RAM + RAM_SIZE - 16
    place = struct.pack("=IIQQQQ", 0, 0, last, last, last, 0)
    front_end.say(Sent("SET_VRING_ADDR", place, ack=True))
    front_end.say(Sent("SET_VRING_KICK", number(0), ("kick0",), ack=True))

    front_end.refused("SET_VRING_ENABLE", state(0, 1))

    assert device.host.queue(0) is None


# --- memory -------------------------------------------------------------------------


def test_the_guests_memory_is_the_front_ends(uml, device):
    uml.poke(0x9000, b"from the guest")

    assert device.host.memory.read(GUEST_RAM + 0x9000, 14) == b"from the guest"


def test_discards_punch_holes_in_the_file(uml, device):
    uml.poke(0, bytes([1]) * RAM_SIZE)
    before = os.fstat(uml.fds["memory"]).st_blocks

    given = device.host.discard([(GUEST_RAM // 4096 + 16, 8)])

    assert given == 8
    assert before - os.fstat(uml.fds["memory"]).st_blocks == 8 * 8
    assert uml.peek(15 * 4096, 9 * 4096) == bytes([1]) * 4096 + bytes(8 * 4096)
    assert uml.peek(24 * 4096, 4096) == bytes([1]) * 4096


def test_queues_go_on_when_memory_changes_under_them(qemu, device):
    device.serve = pop_all(device)
    qemu.say(*traces.qemu_start(first=True))
    qemu.offer(0, 1, 2)
    qemu.kick(0)
    qemu.give("more", a_memfd())
    more = bytes(8) + traces.region(guest=0x8000_0000, user=0x1000_0000)
    device.told()

    qemu.say(Sent("ADD_MEM_REG", more, ("more",), ack=True))

    assert device.told() == [("guest_changed",)]
    assert len(device.host.memory.ranges) == 2
    qemu.offer(0, 3)
    qemu.kick(0)
    assert qemu.used(0) == 3
    qemu.say(Sent("REM_MEM_REG", more, ack=True))
    assert device.host.memory.ranges == (MemoryRange(GUEST_RAM, RAM_SIZE),)
    qemu.offer(0, 4)
    qemu.kick(0)
    assert qemu.used(0) == 4


def test_memory_that_goes_takes_its_queues_with_it(qemu, device):
    qemu.say(*traces.qemu_start(first=True))

    qemu.refused("REM_MEM_REG", bytes(8) + traces.region())

    assert device.host.queue(0) is None
    assert device.host.memory.ranges == ()


def test_a_descriptor_with_a_removal_is_closed(qemu):
    qemu.say(*traces.qemu_memory())
    before = open_fds()
    qemu.give("extra", a_memfd())

    qemu.say(Sent("REM_MEM_REG", bytes(8) + traces.region(), ("extra",), ack=True))

    gone = 1 if sys.version_info >= (3, 13) else 2
    assert len(open_fds()) == len(before) + 1 - gone


@pytest.mark.parametrize(
    ("region", "size"),
    [
        (traces.region(size=RAM_SIZE + 4096), None),
        (traces.region(size=4097), None),
        (traces.region(size=0), None),
        (traces.region(offset=512), None),
        (traces.region(guest=123), None),
        (traces.region(guest=2**64 - 4096), None),
        (traces.region(size=2**64 - 8192), None),
        (traces.region(size=4096, offset=2**63), None),
        (traces.region(), 4096),
    ],
)
def test_regions_that_cannot_be_are_refused(front_end, device, region, size):
    front_end.say(*traces.UML_CONNECT)
    front_end.give("memory", a_memfd(*([size] if size else [])))
    before = open_fds()

    front_end.refused("SET_MEM_TABLE", traces.table(region), ("memory",))

    assert device.host.memory.ranges == ()
    assert open_fds() == before


def test_memory_that_is_no_file_is_refused(front_end, caplog):
    front_end.say(*traces.UML_CONNECT)
    front_end.give("memory", os.eventfd(0))

    front_end.refused("SET_MEM_TABLE", traces.table(traces.region()), ("memory",))

    assert "comes with something that is no file" in caplog.text


def test_memory_that_cannot_be_written_is_refused(front_end):
    front_end.say(*traces.UML_CONNECT)
    fd = a_memfd()
    front_end.give("memory", os.open(f"/proc/self/fd/{fd}", os.O_RDONLY))
    os.close(fd)

    front_end.refused("SET_MEM_TABLE", traces.table(traces.region()), ("memory",))


def test_memory_on_huge_pages_is_mapped_by_whole_ones(front_end, device, monkeypatch):
    class HugePages:
        f_bsize = 0x8000

    monkeypatch.setattr(mapping.os, "fstatvfs", lambda _fd: HugePages)
    front_end.give("memory", a_memfd(0x20_0000))
    front_end.say(*traces.UML_CONNECT, *traces.uml_probe())
    front_end.poke(0, b"\1" * RAM_SIZE)

    assert device.host.facts.host_page_size == 0x8000
    mapped = device.host.mapped._mapped[0]
    assert len(mapped.mapping) == 0x10_8000
    assert device.host.memory.read(GUEST_RAM, RAM_SIZE) == b"\1" * RAM_SIZE
    # RAM begins at page 2 of the file, whose second huge page has pages 8 to 15.
    assert device.host.discard([(GUEST_RAM // 4096, 15)]) == 8
    assert front_end.peek(5 * 4096, 4097) == b"\1" * 4096 + b"\0"
    assert front_end.peek(14 * 4096 - 1, 2) == b"\0\1"


def test_addresses_of_the_front_end_may_lie_side_by_side(front_end, device):
    front_end.give("low", a_memfd())
    front_end.give("high", a_memfd())
    low = traces.region(guest=0x9000_0000, user=traces.USER_RAM - RAM_SIZE)
    table = traces.table(low, traces.region())
    trace = [each for each in traces.uml_probe() if each.request != "SET_MEM_TABLE"]
    trace.insert(1, Sent("SET_MEM_TABLE", table, ("low", "high"), ack=True))

    front_end.say(*traces.UML_CONNECT, *trace)

    mapped = device.host.mapped
    assert mapped.to_guest(traces.USER_RAM) == GUEST_RAM
    assert mapped.to_guest(traces.USER_RAM - 1) == 0x9000_0000 + RAM_SIZE - 1
    with pytest.raises(mapping.RefusalError, match="is in no region of memory"):
        mapped.to_guest(traces.USER_RAM + RAM_SIZE)


def test_a_table_that_is_refused_leaves_the_one_before(uml, device):
    before = open_fds()
    regions = traces.table(traces.region(), traces.region(user=0x1000))
    uml.give("second", a_memfd())

    uml.refused("SET_MEM_TABLE", regions, ("memory", "second"))

    assert device.host.memory.ranges == (MemoryRange(GUEST_RAM, RAM_SIZE),)
    assert device.host.queue(0) is not None
    assert len(open_fds()) == len(before) + 1


def test_a_region_that_is_not_there_is_not_removed(qemu):
    qemu.say(*traces.qemu_memory())

    qemu.refused("REM_MEM_REG", bytes(8) + traces.region(guest=0))


def test_there_is_a_limit_to_regions(qemu, monkeypatch):
    monkeypatch.setattr(connection, "MAX_MEMORY_SLOTS", 1)
    qemu.say(*traces.qemu_memory())
    more = bytes(8) + traces.region(guest=0x8000_0000)

    qemu.refused("ADD_MEM_REG", more, ("memory",))


# --- descriptors --------------------------------------------------------------------


@pytest.mark.usefixtures("uml")
def test_descriptors_are_not_inherited(device):
    fds = [*device.host.vrings[0].fds.values(), device.host.mapped._mapped[0].fd]

    assert len(fds) == 3
    for fd in fds:
        assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC


def test_all_descriptors_are_closed_when_the_front_end_goes(slot, daemon):
    before = open_fds()
    for _ in range(3):
        front_end = FrontEnd(slot.path, daemon)
        front_end.say(*traces.QEMU_CONNECT, *traces.qemu_start(first=True))
        front_end.close()
        front_end.settle()

        assert not slot.connected
        assert open_fds() == before


def test_a_front_end_that_goes_in_the_middle_of_a_message_leaks_nothing(slot, daemon):
    before = open_fds()
    front_end = FrontEnd(slot.path, daemon)
    front_end.raw(struct.pack("=II", 5, 1), [front_end.fd("a"), front_end.fd("b")])
    front_end.settle()

    front_end.close()
    front_end.settle()

    assert open_fds() == before


def test_more_descriptors_than_a_message_may_bring_end_the_connection(
    front_end, slot, caplog
):
    front_end.settle()
    before = open_fds()
    fds = [front_end.fd(f"fd{at}") for at in range(9)]

    front_end.raw(struct.pack("=III", 5, 1, 0), fds)
    front_end.settle()

    assert front_end.cut_off
    assert not slot.connected
    assert open_fds() - before == set(fds)
    assert "more than 8 file descriptors" in caplog.text


def test_what_replaces_a_descriptor_closes_the_one_before(uml):
    before = len(open_fds())

    for _ in range(5):
        uml.say(Sent("SET_VRING_KICK", number(0), ("kick0",), ack=True))
        uml.say(Sent("SET_VRING_CALL", number(0), ("call0",), ack=True))
        uml.say(
            Sent("SET_MEM_TABLE", traces.table(traces.region()), ("memory",), ack=True)
        )
        uml.say(Sent("SET_BACKEND_REQ_FD", b"", ("channel",), ack=True))

    assert len(open_fds()) == before


def test_credentials_are_no_descriptors(front_end, slot):
    front_end.settle()
    sock = slot._door.visitor._wire._socket
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

    assert front_end.say(Sent("GET_FEATURES"))


def test_a_connection_ends_once(uml, slot, device):
    ending = slot._door.visitor
    ending.close("the first time")
    device.told()

    ending.close("the second time")

    assert uml.cut_off
    assert device.told() == []


# --- nonsense -----------------------------------------------------------------------


def test_nonsense_is_one_sentence_in_the_log(qemu, caplog):
    qemu.refused("SET_VRING_NUM", state(0, 3))

    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().endswith("queue 0 has 3 entries, which cannot be")


def test_nonsense_that_nobody_can_be_told_of_ends_the_connection(
    uml, slot, device, caplog
):
    device.told()

    uml.send(Sent("SET_VRING_NUM", state(9, 64)))

    assert uml.cut_off
    assert not slot.connected
    assert device.told() == [("reset",), ("guest_changed",)]
    assert device.host.memory.ranges == ()
    (record,) = caplog.records
    assert "the connection ends: the front end has a queue 9" in record.getMessage()


def test_what_cannot_be_done_and_not_be_told_ends_the_connection(front_end):
    front_end.send(
        Sent("SET_MEM_TABLE", traces.table(traces.region(size=4097)), ("memory",))
    )

    assert front_end.cut_off


def test_nonsense_without_end_ends_the_connection(qemu, caplog):
    for _ in range(connection.MAX_REFUSALS - 1):
        qemu.refused("SET_VRING_NUM", state(0, 3))
    assert not qemu.cut_off

    qemu.send(Sent("SET_VRING_NUM", state(0, 3), ack=True))

    assert qemu.cut_off
    assert "after much nonsense" in caplog.records[-1].getMessage()


def test_requests_that_are_not_supported_are_survived(front_end):
    before = open_fds()
    front_end.raw(struct.pack("=IIIQ", 19, 9, 8, 0), [front_end.fd("log")])
    front_end.settle()

    assert front_end.replies() == [(19, number(1))]
    assert front_end.say(Sent("GET_FEATURES"))
    assert len(open_fds() - before) == 2  # the log, and the socket now accepted


def test_a_front_end_that_misbehaves_costs_others_nothing(
    daemon, uml, device, tmp_path
):
    bad = FrontEnd(daemon.add(tmp_path / "bad", Device).path, daemon)
    bad.say(*traces.UML_CONNECT, *traces.uml_probe())
    device.calls.clear()

    bad.raw(b"\xff" * 64)
    bad.settle()

    assert bad.cut_off
    assert device.calls == []
    uml.kick(1)
    assert device.kicks() == [1]
    bad.close()


def test_a_front_end_that_does_not_read_is_cut_off(front_end, slot, caplog):
    message = struct.pack("=III", 1, 1, 0)

    for _ in range(100_000):
        try:
            front_end.raw(message * 16)
        except BlockingIOError:
            pass
        except BrokenPipeError:
            break
        front_end.settle()

    assert not slot.connected
    assert "does not read its replies" in caplog.text


def test_a_front_end_that_is_gone_when_it_is_replied_to(front_end, slot):
    front_end.raw(struct.pack("=III", 1, 1, 0))
    front_end.socket.close()

    front_end.settle()

    assert not slot.connected


@times(
    0.6,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
    ],
)
@given(
    st.lists(
        st.tuples(
            st.one_of(
                st.binary(max_size=80),
                st.builds(
                    lambda code, flags, payload: (
                        struct.pack("=III", code, flags, len(payload)) + payload
                    ),
                    st.sampled_from(list(traces.CODES.values())),
                    st.sampled_from([1, 9]),
                    st.one_of(
                        st.binary(max_size=40),
                        st.builds(state, st.integers(0, 5), st.integers(0, 2)),
                        st.builds(traces.address, st.integers(0, 4)),
                        st.just(traces.table(traces.region())),
                    ),
                ),
            ),
            st.lists(st.sampled_from(["memory", "event", "path"]), max_size=3),
        ),
        max_size=12,
    ),
    st.booleans(),
)
def test_no_bytes_raise_or_hang_or_leak(slot, daemon, said, running):
    before = open_fds()
    slot.tick()  # or it comes and goes too often
    front_end = FrontEnd(slot.path, daemon)
    front_end.give("path", os.open("/", os.O_PATH))
    if running:
        front_end.say(*traces.QEMU_CONNECT, *traces.qemu_start(first=True))

    for data, names in said:
        try:
            front_end.raw(data, [front_end.fd(name) for name in names] if data else ())
        except OSError:
            break
        front_end.settle()
    front_end.close()
    front_end.settle()

    assert not slot.connected
    assert slot.device.host.memory.ranges == ()
    assert open_fds() == before


# --- the device and its host --------------------------------------------------------


def test_config_changes_are_announced(uml, slot, device):
    uml.announced()

    device.host.notify_config()

    assert slot.unread
    assert uml.announced() == CONFIG_CHANGE
    assert not slot.unread


def test_nobody_is_told_of_a_change_before_there_is_a_driver(qemu, device):
    device.host.notify_config()
    assert qemu.announced() == b""

    qemu.say(*traces.qemu_start(first=True))

    assert qemu.announced() == CONFIG_CHANGE


@pytest.mark.parametrize("changes", [1, 2])
def test_a_change_while_all_is_stopped_is_told_once_it_goes_on(qemu, device, changes):
    qemu.say(*traces.qemu_start(first=True))
    first, *rest = traces.qemu_stop()
    qemu.say(first)

    for _ in range(changes):
        device.host.notify_config()
    qemu.say(*rest)
    assert qemu.announced() == b""

    qemu.say(*traces.qemu_start(bases=(1, 1)))
    assert qemu.announced() == CONFIG_CHANGE


def test_the_next_front_end_is_not_told_of_what_one_before_missed(
    slot, daemon, device, qemu
):
    qemu.say(*traces.qemu_start(first=True))
    qemu.say(*traces.qemu_stop())
    device.host.notify_config()
    qemu.close()
    qemu.settle()
    again = FrontEnd(slot.path, daemon)
    again.say(*traces.QEMU_CONNECT)

    again.say(*traces.qemu_start(first=True))

    assert again.announced() == b""
    again.close()


def test_config_changes_go_through_a_pipe_too(uml, slot, device):
    ours, theirs = os.pipe()
    uml.give("channel", ours, theirs)
    uml.say(Sent("SET_BACKEND_REQ_FD", b"", ("channel",), ack=True))

    device.host.notify_config()

    assert slot.unread
    assert uml.announced() == CONFIG_CHANGE
    assert not slot.unread


def test_changes_that_nobody_reads_are_announced_once(uml, device):
    uml.announced()

    for _ in range(3):
        device.host.notify_config()

    assert uml.announced() == CONFIG_CHANGE


def test_replies_on_the_channel_are_dropped(uml, device):
    reply = struct.pack("=IIIQ", 2, 5, 8, 0)
    for _ in range(1000):
        os.write(uml.fds["channel"], reply)
        device.host.notify_config()
        uml.announced()


def test_nothing_is_announced_without_a_channel(front_end, device):
    device.host.notify_config()
    front_end.settle()
    device.host.notify_config()

    assert not front_end.cut_off


def test_a_channel_that_is_of_no_use_is_refused(front_end):
    front_end.say(Sent("SET_PROTOCOL_FEATURES", number(traces.UML_PROTOCOL)))
    front_end.give("channel", os.open("/", os.O_PATH))

    front_end.refused("SET_BACKEND_REQ_FD", fds=("channel",))


def test_a_device_that_is_lost_says_so_in_every_way(qemu, device):
    qemu.say(*traces.qemu_start(first=True))

    device.host.needs_reset()

    assert qemu.called("err0")
    assert qemu.announced() == CONFIG_CHANGE
    assert qemu.say(Sent("GET_STATUS")) == [(40, number(8 | 64))]


def test_a_device_that_is_lost_without_a_front_end(device):
    device.host.needs_reset()

    assert device.host.now() > 0


@pytest.mark.parametrize("hook", ["queue_notify", "set_config", "get_config"])
def test_a_device_that_fails_ends_the_connection_and_nothing_else(
    uml, slot, device, hook, caplog
):
    setattr(device, hook, lambda *_: 1 // 0)

    with contextlib.suppress(BrokenPipeError):
        uml.send(*traces.UML_READ_TARGET, *traces.uml_write_actual(1))
    uml.kick(0)
    uml.replies()

    assert uml.cut_off
    assert not slot.connected
    assert "the device failed" in caplog.text
    assert device.told()[-2:] == [("reset",), ("guest_changed",)]


@pytest.mark.parametrize("hook", ["reset", "guest_changed"])
def test_a_device_that_fails_at_the_end_leaks_nothing(daemon, slot, hook, caplog):
    before = open_fds()
    front_end = FrontEnd(slot.path, daemon)
    front_end.say(*traces.UML_CONNECT, *traces.uml_probe())
    setattr(slot.device, hook, lambda: 1 // 0)

    front_end.close()
    front_end.settle()

    assert not slot.connected
    assert open_fds() == before
    assert "the device failed" in caplog.text


def test_the_time_of_a_paused_machine_stands_still(qemu, device, monkeypatch):
    fake = SimpleNamespace(monotonic=lambda: fake.now, now=100.0)
    monkeypatch.setattr(clock, "time", fake)
    qemu.say(*traces.qemu_start(first=True))
    seen = []

    for act in ((), traces.qemu_stop(), (), traces.qemu_start(bases=(1, 1)), ()):
        fake.now += 10
        seen.append(device.host.now())
        qemu.say(*act)

    assert [now - seen[0] for now in seen] == [0, 10, 10, 10, 20]


def test_time_passes_when_a_front_end_has_gone_in_a_pause(qemu, device, monkeypatch):
    fake = SimpleNamespace(monotonic=lambda: fake.now, now=100.0)
    monkeypatch.setattr(clock, "time", fake)
    qemu.say(*traces.qemu_start(first=True))
    qemu.say(*traces.qemu_stop())
    qemu.close()
    qemu.settle()
    before = device.host.now()

    fake.now += 10

    assert device.host.now() - before == 10


def test_a_field_whose_bytes_do_not_come_is_told_after_a_while(qemu, daemon, device):
    qemu.say(*traces.qemu_start(LEGACY, first=True))
    device.told()
    qemu.say(*traces.qemu_write(16))
    assert device.told() == [("set_config", 4, b"\x10")]

    while not (told := device.told()):
        daemon.step(0.2)

    assert told == [("set_config", 4, b"\x10\0\0\0")]


def test_a_field_that_comes_late_is_waited_for_anew(qemu, daemon, device):
    qemu.say(*traces.qemu_start(LEGACY, first=True))
    qemu.say(*traces.qemu_write(1))
    qemu.say(*(traces.qemu_write(1) * 3), *traces.qemu_write(3))
    device.told()

    while not (told := device.told()):
        daemon.step(0.2)

    assert told == [("set_config", 4, b"\3\0\0\0")]


def test_a_timer_of_a_connection_that_went_does_nothing(qemu, daemon, slot, device):
    qemu.say(*traces.qemu_start(LEGACY, first=True), *traces.qemu_write(16))
    qemu.close()
    qemu.settle()
    assert not slot.connected
    device.told()

    for _ in range(3):
        daemon.step(0.06)

    assert device.told() == []


def test_a_driver_session_ends_with_its_front_end(daemon, slot, uml, device):
    device.told()

    uml.close()
    uml.settle()
    assert device.told() == [("reset",), ("guest_changed",)]

    again = FrontEnd(slot.path, daemon)
    again.say(*traces.UML_CONNECT, *traces.uml_probe())
    # Nobody comes back here: with queues at their beginning it is another driver.
    assert device.told() == [
        ("reset",),
        ("guest_changed",),
        ("set_features", MODERN),
        ("driver_ready",),
    ]
    again.close()


def test_memory_on_an_ordinary_file(front_end, device):
    with tempfile.NamedTemporaryFile() as file:
        os.truncate(file.name, traces.FILE_AT + RAM_SIZE)
        front_end.give("memory", os.open(file.name, os.O_RDWR))
    front_end.say(*traces.UML_CONNECT, *traces.uml_probe())

    assert device.host.memory.ranges == (MemoryRange(GUEST_RAM, RAM_SIZE),)
    assert not Path(file.name).exists()
