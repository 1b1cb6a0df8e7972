from __future__ import annotations

import struct

import pytest
import vhost_user_traces as traces
from hypothesis import given
from hypothesis import strategies as st
from vhost_user_traces import LEGACY, MODERN, QUEUE_SIZE, Sent, number, state

from balloon_plugin.events import ByteOrder
from balloon_plugin.hosts.vhost_user import messages
from balloon_plugin.hosts.vhost_user.config_writes import PATIENCE
from balloon_plugin.hosts.vhost_user.effects import (
    AddMemory,
    DescribeGuest,
    DriverReady,
    GuestChanged,
    Notifier,
    RemoveMemory,
    Reply,
    ReplyBase,
    ReplyConfig,
    ReplyFeatures,
    ResetDevice,
    SetBackendChannel,
    SetBase,
    SetConfig,
    SetFeatures,
    SetMemory,
    SetNotifier,
    StartQueue,
    StopQueue,
)
from balloon_plugin.hosts.vhost_user.payloads import Region
from balloon_plugin.hosts.vhost_user.protocol import Protocol
from balloon_plugin.hosts.vhost_user.requests import (
    MAX_MEMORY_SLOTS,
    OFFERED_PROTOCOL,
    TRANSPORT,
    Requests,
)
from balloon_plugin.virtqueue import Ring

HOOKS = (ResetDevice, GuestChanged, SetFeatures, DriverReady, SetConfig, ReplyConfig)
"""Effects that the device sees."""


class Link:
    """A protocol, and a front end that speaks in traces."""

    def __init__(self, byte_order=None):
        self.protocol = Protocol(byte_order)
        self.now = 100.0
        self.fds = iter(range(50, 10_000))
        self.space = bytes(16)

    def turn(self, sent):
        data = struct.pack(
            "=III", traces.CODES[sent.request], 1 | sent.ack << 3, len(sent.payload)
        )
        fds = tuple(next(self.fds) for _ in sent.fds)
        turn = None
        for part in (data, sent.payload):
            if part:
                turn = self.protocol.receive(part, fds, self.now)
                fds = ()
        for effect in turn.effects:
            if isinstance(effect, ReplyConfig):
                part = self.space[effect.offset : effect.offset + effect.size]
                self.protocol.config_reply(effect, part)
        return turn

    def say(self, *sent):
        """Return all effects of messages that make sense."""
        found = []
        for each in sent:
            turn = self.turn(each)
            assert turn.problem == ""
            assert turn.acknowledge == each.ack
            found += turn.effects
        return found

    def told(self, *sent):
        """Return those that the device sees."""
        return [each for each in self.say(*sent) if isinstance(each, HOOKS)]

    def refused(self, request, payload=b"", fds=(), *, ack=True):
        turn = self.turn(Sent(request, payload, fds, ack))
        assert turn.problem
        assert turn.effects == ()
        return turn


@pytest.fixture
def link():
    return Link()


@pytest.fixture
def uml(link):
    link.say(*traces.UML_CONNECT)
    return link


@pytest.fixture
def qemu(link):
    link.say(*traces.QEMU_CONNECT)
    return link


def a_ring(queue, features=MODERN, order=ByteOrder.LITTLE, user=traces.USER_RAM):
    desc, avail, used = (user + part for part in traces.ring_at(queue))
    return Ring(QUEUE_SIZE, desc, avail, used, features, order)


# --- golden traces ------------------------------------------------------------------


def test_user_mode_linux_connects(link):
    assert link.say(*traces.UML_CONNECT) == [
        ReplyFeatures(),
        Reply(struct.pack("=IIIQ", 15, 5, 8, OFFERED_PROTOCOL)),
        SetBackendChannel(50),
    ]


def test_user_mode_linux_loads_the_driver(uml):
    assert uml.say(*traces.uml_probe()) == [
        SetMemory((Region(0x4000_0000, 0x10_0000, 0x7F00_0000_0000, 0x2000),), (51,)),
        SetNotifier(Notifier.CALL, 0, 52),
        SetBase(0, 0),
        SetNotifier(Notifier.CALL, 1, 53),
        SetBase(1, 0),
        SetNotifier(Notifier.KICK, 0, 54),
        GuestChanged(),
        SetFeatures(MODERN),
        DriverReady(),
        StartQueue(0, a_ring(0)),
        SetNotifier(Notifier.KICK, 1, 55),
        StartQueue(1, a_ring(1)),
    ]


def test_user_mode_linux_does_the_handshake(uml):
    uml.say(*traces.uml_probe())

    assert uml.told(*traces.UML_READ_TARGET) == [ReplyConfig(0, 4, 0)]
    assert uml.told(*traces.uml_write_actual(16)) == [SetConfig(4, b"\x10\0\0\0")]


def test_user_mode_linux_unloads_and_loads_the_driver(uml):
    uml.say(*traces.uml_probe())

    assert uml.say(*traces.UML_REMOVE) == [StopQueue(1), StopQueue(0), ReplyFeatures()]
    assert uml.told(*traces.uml_probe(LEGACY)) == [
        ResetDevice(),
        GuestChanged(),
        SetFeatures(LEGACY),
        DriverReady(),
    ]


def test_qemu_connects(link):
    assert link.say(*traces.QEMU_CONNECT) == [
        ReplyFeatures(),
        Reply(struct.pack("=IIIQ", 15, 5, 8, traces.QEMU_PROTOCOL)),
        Reply(struct.pack("=IIIQ", 17, 5, 8, 5)),
        Reply(struct.pack("=IIIQ", 36, 5, 8, MAX_MEMORY_SLOTS)),
        SetBackendChannel(50),
        ReplyFeatures(),
        SetNotifier(Notifier.CALL, 0, 51),
        SetNotifier(Notifier.ERR, 0, 52),
        SetNotifier(Notifier.CALL, 1, 53),
        SetNotifier(Notifier.ERR, 1, 54),
    ]


def test_qemu_starts_a_modern_guest(qemu):
    said = qemu.say(*traces.qemu_start(first=True))

    assert said == [
        Reply(struct.pack("=IIIQ", 40, 5, 8, 0)),
        AddMemory(Region(0x4000_0000, 0x10_0000, 0x7F00_0000_0000, 0x2000), 55),
        SetBase(0, 0),
        SetNotifier(Notifier.KICK, 0, 56),
        SetNotifier(Notifier.CALL, 0, 57),
        SetBase(1, 0),
        SetNotifier(Notifier.KICK, 1, 58),
        SetNotifier(Notifier.CALL, 1, 59),
        GuestChanged(),
        SetFeatures(MODERN),
        DriverReady(),
        StartQueue(0, a_ring(0)),
        StartQueue(1, a_ring(1)),
        SetNotifier(Notifier.CALL, 0, 60),
        SetNotifier(Notifier.CALL, 1, 61),
    ]


def test_qemu_starts_a_big_endian_legacy_guest(qemu):
    said = qemu.say(*traces.qemu_start(LEGACY, first=True, big=True))

    big = ByteOrder.BIG
    assert said[-9:-2] == [
        SetNotifier(Notifier.CALL, 1, 59),
        DescribeGuest(big),
        GuestChanged(),
        SetFeatures(LEGACY),
        DriverReady(),
        StartQueue(0, a_ring(0, LEGACY, big)),
        StartQueue(1, a_ring(1, LEGACY, big)),
    ]


# --- whose session it is ------------------------------------------------------------


def test_a_pause_keeps_the_session(qemu):
    qemu.say(*traces.qemu_start(first=True))

    paused = qemu.say(*traces.qemu_stop())
    resumed = qemu.told(*traces.qemu_start(bases=(7, 1)))

    assert paused == [
        StopQueue(0),
        StopQueue(1),
        SetNotifier(Notifier.KICK, 0, None),
        ReplyBase(0),
        SetNotifier(Notifier.KICK, 1, None),
        ReplyBase(1),
    ]
    assert resumed == []


def test_a_ring_in_another_byte_order_makes_no_other_guest_of_a_live_one(qemu):
    qemu.say(*traces.qemu_start(LEGACY, first=True, big=True))

    said = qemu.say(
        Sent("GET_VRING_BASE", state(1, 0)),
        Sent("SET_VRING_ENDIAN", state(1, 0)),
        Sent("SET_VRING_KICK", number(1), ("kick",)),
    )

    assert StartQueue(1, a_ring(1, LEGACY)) in said
    assert not any(isinstance(each, DescribeGuest) for each in said)


def test_a_queue_that_was_never_used_does_not_end_the_session(qemu):
    qemu.say(*traces.qemu_start(first=True))
    qemu.say(*traces.qemu_stop())

    assert qemu.told(*traces.qemu_start(bases=(0, 1))) == []


def test_a_big_endian_guest_survives_a_pause(qemu):
    qemu.say(*traces.qemu_start(LEGACY, first=True, big=True))
    qemu.say(*traces.qemu_stop(endian=True))

    said = qemu.say(*traces.qemu_start(LEGACY, bases=(5, 1), big=True))

    assert not [each for each in said if isinstance(each, (*HOOKS, DescribeGuest))]
    assert StartQueue(0, a_ring(0, LEGACY, ByteOrder.BIG)) in said


def test_a_guest_reset_ends_the_session(qemu):
    qemu.say(*traces.qemu_start(first=True))
    qemu.say(*traces.qemu_stop())

    assert qemu.told(*traces.qemu_start()) == [
        ResetDevice(),
        SetFeatures(MODERN),
        DriverReady(),
    ]


def test_a_guest_that_looks_at_the_configuration_was_reset(qemu):
    qemu.say(*traces.qemu_start(first=True))
    qemu.say(*traces.qemu_stop())

    looked = qemu.told(*traces.QEMU_READ)
    started = qemu.told(*traces.qemu_start())

    assert looked == [ResetDevice(), ReplyConfig(0, 16, 0)]
    assert started == [SetFeatures(MODERN), DriverReady()]


def test_a_guest_that_writes_to_the_configuration_was_reset(qemu):
    qemu.say(*traces.qemu_start(first=True))
    qemu.say(*traces.qemu_stop())

    told = qemu.told(*traces.qemu_write(0))

    assert told[0] == ResetDevice()


def test_other_features_are_anothers(qemu):
    qemu.say(*traces.qemu_start(first=True))
    qemu.say(*traces.qemu_stop())

    assert qemu.told(*traces.qemu_start(LEGACY, bases=(7, 1))) == [
        ResetDevice(),
        SetFeatures(LEGACY),
        DriverReady(),
    ]


def test_other_features_of_a_driver_that_never_started_are_anothers(uml):
    uml.say(Sent("SET_FEATURES", number(MODERN), ack=True))
    assert uml.told(*traces.UML_READ_TARGET) == [
        SetFeatures(MODERN),
        ReplyConfig(0, 4, 0),
    ]
    uml.say(Sent("SET_FEATURES", number(LEGACY), ack=True))

    assert uml.told(*traces.UML_READ_TARGET) == [
        ResetDevice(),
        SetFeatures(LEGACY),
        ReplyConfig(0, 4, 0),
    ]


def test_a_little_endian_guest_may_follow_a_big_endian_one(qemu):
    qemu.say(*traces.qemu_start(LEGACY, first=True, big=True))
    qemu.say(*traces.qemu_stop(endian=True))

    said = qemu.say(*traces.qemu_start(LEGACY))

    wanted = (*HOOKS, DescribeGuest, StartQueue)
    assert [each for each in said if isinstance(each, wanted)] == [
        DescribeGuest(None),
        ResetDevice(),
        GuestChanged(),
        SetFeatures(LEGACY),
        DriverReady(),
        StartQueue(0, a_ring(0, LEGACY)),
        StartQueue(1, a_ring(1, LEGACY)),
    ]


def test_a_queue_that_is_switched_off_and_on_goes_on(uml):
    uml.say(*traces.uml_probe())

    said = uml.say(*traces.UML_REMOVE, Sent("SET_VRING_ENABLE", state(0, 1), ack=True))

    assert said[-1] == StartQueue(0, a_ring(0))
    assert ResetDevice() not in said


def test_one_queue_that_stops_does_not_pause_the_session(uml):
    uml.say(*traces.uml_probe())

    assert uml.say(Sent("SET_VRING_ENABLE", state(0, 0), ack=True)) == [StopQueue(0)]
    assert uml.told(*traces.UML_READ_TARGET) == [ReplyConfig(0, 4, 0)]


def test_where_a_queue_stood_that_never_started_shows_no_driver(uml):
    uml.say(Sent("SET_VRING_BASE", state(2, 7), ack=True))
    uml.say(*traces.uml_probe(), *traces.UML_REMOVE)

    assert uml.told(*traces.uml_probe())[0] == ResetDevice()


def test_a_device_reset_ends_the_session_at_once(qemu):
    qemu.say(*traces.qemu_start(first=True))

    assert qemu.say(Sent("RESET_DEVICE", ack=True)) == [
        StopQueue(0),
        SetNotifier(Notifier.KICK, 0, None),
        StopQueue(1),
        SetNotifier(Notifier.KICK, 1, None),
        SetBase(0, 0),
        SetBase(1, 0),
        ResetDevice(),
    ]
    assert qemu.say(Sent("RESET_DEVICE", ack=True)) == []
    assert qemu.say(Sent("GET_STATUS")) == [Reply(struct.pack("=IIIQ", 40, 5, 8, 0))]
    assert qemu.told(*traces.qemu_start(bases=(7, 1))) == [
        SetFeatures(MODERN),
        DriverReady(),
    ]


def test_status_0_stops_all_and_leaves_the_rest_to_the_next_start(qemu):
    qemu.say(*traces.qemu_start(first=True))

    assert qemu.say(Sent("SET_STATUS", number(0))) == [
        StopQueue(0),
        SetNotifier(Notifier.KICK, 0, None),
        StopQueue(1),
        SetNotifier(Notifier.KICK, 1, None),
    ]
    assert qemu.told(*traces.qemu_start(bases=(7, 1))) == []


def test_status_0_of_a_driver_that_did_nothing_yet_is_no_reset(qemu):
    qemu.say(Sent("SET_STATUS", number(0)))

    assert qemu.told(*traces.qemu_start(first=True)) == [
        GuestChanged(),
        SetFeatures(MODERN),
        DriverReady(),
    ]


def test_status_0_of_a_driver_that_only_looked_is_a_reset(qemu):
    qemu.say(*traces.QEMU_READ, Sent("SET_STATUS", number(0)))

    assert qemu.told(*traces.QEMU_READ) == [ResetDevice(), ReplyConfig(0, 16, 0)]


def test_reset_owner_disables_all_rings(qemu):
    qemu.say(*traces.qemu_start(first=True))

    assert StopQueue(1) in qemu.say(Sent("RESET_OWNER"))


def test_driver_ok_is_told_once(qemu):
    qemu.say(*traces.qemu_memory(), Sent("SET_FEATURES", number(MODERN)))
    driver_ok = Sent("SET_STATUS", number(1 | 2 | 4 | 8))

    assert qemu.told(driver_ok) == [GuestChanged(), SetFeatures(MODERN), DriverReady()]
    assert qemu.told(driver_ok) == []
    assert qemu.told(*traces.qemu_start(first=False)) == []
    assert qemu.say(Sent("GET_STATUS")) == [Reply(struct.pack("=IIIQ", 40, 5, 8, 15))]


def test_status_before_driver_ok_tells_nothing(qemu):
    assert qemu.say(Sent("SET_STATUS", number(8))) == []


def test_the_end_of_a_connection_ends_the_session(qemu):
    assert qemu.protocol.end() == ()

    qemu.say(*traces.qemu_start(first=True))

    assert qemu.protocol.end() == (ResetDevice(),)


def test_memory_that_changes_under_a_driver_is_told_at_once(qemu):
    qemu.say(*traces.qemu_start(first=True))
    more = bytes(8) + traces.region(guest=0x8000_0000, user=0x1000_0000)

    added = qemu.say(Sent("ADD_MEM_REG", more, ("more",), ack=True))
    removed = qemu.say(Sent("REM_MEM_REG", more, ack=True))

    region = Region(0x8000_0000, 0x10_0000, 0x1000_0000, 0x2000)
    assert added == [AddMemory(region, 62), GuestChanged()]
    assert removed == [RemoveMemory(region), GuestChanged()]


def test_memory_that_changes_in_a_pause_is_told_after_the_reset(uml):
    uml.say(*traces.uml_probe(), *traces.UML_REMOVE)

    told = uml.told(*traces.uml_probe())

    assert told[:2] == [ResetDevice(), GuestChanged()]


# --- rings --------------------------------------------------------------------------


def test_rings_without_protocol_features_start_with_their_kick(link):
    features = MODERN & ~(1 << 30)
    link.say(Sent("SET_FEATURES", number(features)))
    link.say(
        Sent("SET_VRING_NUM", state(0, QUEUE_SIZE)),
        Sent("SET_VRING_BASE", state(0, 3)),
        Sent("SET_VRING_ADDR", traces.address(0)),
    )

    assert link.told(Sent("SET_VRING_KICK", number(0), ("kick",))) == [
        SetFeatures(features),
        DriverReady(),
    ]


def test_a_ring_may_be_polled_instead_of_kicked(uml):
    *setup, _kick, enable = list(traces.uml_probe(queues=1))

    said = uml.say(*setup, Sent("SET_VRING_KICK", number(0x100), ack=True), enable)

    assert SetNotifier(Notifier.KICK, 0, None) in said
    assert StartQueue(0, a_ring(0)) in said


@pytest.mark.parametrize("size", [1, 2, 32768])
def test_rings_may_have_any_power_of_two_as_their_size(uml, size):
    assert uml.say(Sent("SET_VRING_NUM", state(0, size), ack=True)) == []


def test_rings_may_stand_anywhere(qemu):
    last = Sent("SET_VRING_BASE", state(4, 65535), ack=True)

    assert qemu.say(last) == [SetBase(4, 65535)]


def test_the_last_that_a_ring_lacks_starts_it(uml):
    trace = list(traces.uml_probe(queues=1))
    address = next(each for each in trace if each.request == "SET_VRING_ADDR")
    trace.remove(address)

    assert not any(isinstance(each, StartQueue) for each in uml.say(*trace))
    assert StartQueue(0, a_ring(0)) in uml.say(address)


def test_a_running_ring_may_move(uml):
    uml.say(*traces.uml_probe())

    moved = uml.say(Sent("SET_VRING_ADDR", traces.address(0, user=0x5000), ack=True))

    assert moved == [StopQueue(0), StartQueue(0, a_ring(0, user=0x5000))]


def test_a_kick_may_be_replaced_while_a_ring_runs(uml):
    uml.say(*traces.uml_probe())

    said = uml.say(Sent("SET_VRING_KICK", number(0), ("kick",), ack=True))

    assert said == [SetNotifier(Notifier.KICK, 0, 56)]


@pytest.mark.parametrize("order", list(ByteOrder))
def test_legacy_rings_have_the_byte_order_that_the_user_told(order):
    link = Link(order)
    link.say(*traces.UML_CONNECT)

    assert StartQueue(0, a_ring(0, LEGACY, order)) in link.say(
        *traces.uml_probe(LEGACY)
    )


def test_modern_rings_are_little_endian_whatever_is_said(qemu):
    said = qemu.say(*traces.qemu_start(MODERN, first=True, big=True))

    ring = a_ring(0, MODERN, ByteOrder.BIG)
    assert StartQueue(0, ring) in said
    assert ring.byte_order is ByteOrder.LITTLE
    assert not any(isinstance(each, DescribeGuest) for each in said)


# --- packed rings -------------------------------------------------------------------

PACKED = MODERN | 1 << 34
BEGINNING = 0x8000_8000


def test_a_packed_ring_is_started_as_one(uml):
    said = uml.say(*traces.uml_probe(PACKED))

    assert StartQueue(0, a_ring(0, PACKED)) in said
    assert a_ring(0, PACKED).packed


def test_a_packed_ring_may_have_any_size(uml):
    uml.say(Sent("SET_FEATURES", number(PACKED)))

    assert uml.say(Sent("SET_VRING_NUM", state(0, 100))) == []
    assert "32769 entries" in uml.refused("SET_VRING_NUM", state(0, 32769)).problem


def test_a_packed_ring_has_two_positions_of_16_bits(qemu):
    said = qemu.say(*traces.qemu_start(PACKED, (BEGINNING, 0x0007_0009), first=True))

    assert [effect for effect in said if isinstance(effect, SetBase)] == [
        SetBase(0, BEGINNING),
        SetBase(1, 0x0007_0009),
    ]


@pytest.mark.parametrize("bases", [(BEGINNING, BEGINNING), (0, 0)])
def test_packed_rings_from_the_beginning_are_a_new_drivers(qemu, bases):
    qemu.say(*traces.qemu_start(PACKED, (BEGINNING, BEGINNING), first=True))
    qemu.say(*traces.qemu_stop())

    assert qemu.told(*traces.qemu_start(PACKED, bases)) == [
        ResetDevice(),
        SetFeatures(PACKED),
        DriverReady(),
    ]


def test_packed_rings_that_go_on_are_those_of_the_driver_before(qemu):
    qemu.say(*traces.qemu_start(PACKED, (BEGINNING, BEGINNING), first=True))
    qemu.say(*traces.qemu_stop())

    assert qemu.told(*traces.qemu_start(PACKED, (0x8003_8003, BEGINNING))) == []


# --- configuration space ------------------------------------------------------------


def test_whole_spaces_become_the_guests_accesses(qemu):
    qemu.say(*traces.qemu_start(LEGACY, first=True))

    told = qemu.told(*(traces.qemu_write(256) * 4))

    assert told == [SetConfig(4, b"\0\1\0\0")] + [
        SetConfig(4 + at, bytes([0, 1, 0][at : at + 1])) for at in range(3)
    ]


def test_bytes_of_a_legacy_guest_are_told_one_by_one(qemu):
    qemu.say(*traces.qemu_start(LEGACY, first=True))
    qemu.space = traces.space(actual=255, num_pages=0)
    qemu.say(*traces.QEMU_READ)

    told = qemu.told(*traces.qemu_write(0), *(traces.qemu_write(256) * 3))

    assert told == [
        SetConfig(4, b"\0"),
        SetConfig(5, b"\1"),
        SetConfig(6, b"\0"),
        SetConfig(7, b"\0"),
    ]


def test_what_the_front_end_was_told_is_what_it_changes(qemu):
    qemu.say(*traces.qemu_start(LEGACY, first=True))
    qemu.space = traces.space(actual=0x1234, poison=0x5678, num_pages=0)
    qemu.say(*traces.QEMU_READ)

    told = qemu.told(*traces.qemu_write(0x12FF, poison=0x5678))

    assert told == [SetConfig(4, b"\xff")]


def test_a_modern_guest_writes_whole_fields(qemu):
    qemu.say(*traces.qemu_start(first=True))

    assert qemu.told(*traces.qemu_write(16)) == [SetConfig(4, b"\x10\0\0\0")]
    assert qemu.told(*traces.qemu_write(16, poison=1)) == [SetConfig(12, b"\1\0\0\0")]


def test_missing_bytes_are_waited_for(qemu):
    qemu.say(*traces.qemu_start(LEGACY, first=True))
    assert qemu.protocol.deadline is None
    qemu.say(*traces.qemu_write(16))

    deadline = qemu.protocol.deadline
    assert deadline == pytest.approx(100 + PATIENCE)
    assert qemu.protocol.settle(100) == ()
    assert qemu.protocol.settle(deadline) == (SetConfig(4, b"\x10\0\0\0"),)


def test_a_pause_in_the_middle_of_a_field_tears_nothing(qemu):
    qemu.say(*traces.qemu_start(LEGACY, first=True))
    qemu.say(*traces.qemu_write(0xFF), *traces.qemu_stop())

    assert qemu.protocol.deadline is None
    assert qemu.protocol.settle(500) == ()
    qemu.now = 500
    qemu.say(*traces.qemu_start(LEGACY, bases=(5, 1)))

    assert qemu.protocol.settle(500) == ()
    assert qemu.protocol.deadline == pytest.approx(500 + PATIENCE)
    assert qemu.told(*traces.qemu_write(0xAAFF)) == [SetConfig(5, b"\xaa")]


def test_a_reset_in_the_middle_of_a_field_leaves_nothing(qemu):
    qemu.say(*traces.qemu_start(LEGACY, first=True))
    qemu.say(*traces.qemu_write(0xFF), *traces.qemu_stop())
    qemu.say(*traces.qemu_start(LEGACY))

    assert qemu.protocol.deadline is None
    assert qemu.told(*(traces.qemu_write(0x7F) * 2)) == [
        SetConfig(4, b"\x7f"),
        SetConfig(5, b"\0"),
    ]


def test_num_pages_is_not_the_drivers_to_write(uml):
    assert uml.told(Sent("SET_CONFIG", traces.config(0, bytes(4)), ack=True)) == []


# --- replies ------------------------------------------------------------------------


def test_features_are_the_devices_and_ours(link):
    reply = link.protocol.features_reply(0x21 | 1 << 40)

    assert reply == struct.pack("=IIIQ", 1, 5, 8, 0x21 | TRANSPORT)
    assert TRANSPORT == traces.OFFERED


def test_the_configuration_is_replied_as_it_was_asked_for(link):
    reply = link.protocol.config_reply(ReplyConfig(4, 2, 0), b"ab")

    assert reply == struct.pack("=IIIIII", 24, 5, 14, 4, 2, 0) + b"ab"


def test_a_base_is_replied_with_its_queue(link):
    assert link.protocol.base_reply(1, 9) == struct.pack("=IIIII", 11, 5, 8, 1, 9)


def test_acknowledgements_say_whether_it_worked(link):
    turn = link.turn(Sent("SET_OWNER", ack=True))

    assert turn.acknowledgement(success=True) == struct.pack("=IIIQ", 3, 5, 8, 0)
    assert turn.acknowledgement(success=False) == struct.pack("=IIIQ", 3, 5, 8, 1)


def test_nothing_is_acknowledged_unasked(link):
    turn = link.turn(Sent("SET_OWNER"))

    assert turn.acknowledgement(success=True) == b""


@pytest.mark.parametrize("request_", ["GET_FEATURES", "GET_PROTOCOL_FEATURES"])
def test_what_has_a_reply_is_not_acknowledged(link, request_):
    turn = link.turn(Sent(request_, ack=True))

    assert not turn.acknowledge
    assert len(turn.effects) == 1


def test_changes_are_announced_if_that_was_negotiated(link):
    assert link.protocol.config_change() == b""

    link.say(Sent("SET_PROTOCOL_FEATURES", number(1 << 9)))
    assert link.protocol.config_change() == b""

    link.say(Sent("SET_PROTOCOL_FEATURES", number(1 << 9 | 1 << 5)))
    assert link.protocol.config_change() == struct.pack("=III", 2, 1, 0)


def test_needs_reset_is_shown_until_the_driver_resets(qemu):
    qemu.say(*traces.qemu_start(first=True))
    qemu.protocol.needs_reset()

    shown = qemu.say(Sent("GET_STATUS"))
    qemu.say(*traces.qemu_stop(), *traces.QEMU_READ)
    later = qemu.say(Sent("GET_STATUS"))

    assert shown == [Reply(struct.pack("=IIIQ", 40, 5, 8, 8 | 64))]
    assert later == [Reply(struct.pack("=IIIQ", 40, 5, 8, 8))]


# --- nonsense -----------------------------------------------------------------------

RAM = traces.region()

NONSENSE = {
    "SET_FEATURES has bits never offered: 0x200000000": (
        "SET_FEATURES",
        number(1 << 33),
    ),
    "SET_PROTOCOL_FEATURES has bits never offered: 0x4": (
        "SET_PROTOCOL_FEATURES",
        number(4),
    ),
    "SET_MEM_TABLE comes with 0 file descriptors": ("SET_MEM_TABLE", traces.table(RAM)),
    "SET_MEM_TABLE comes with 1 file descriptors": (
        "SET_MEM_TABLE",
        struct.pack("=II", 2, 0) + RAM,
        ("memory",),
    ),
    "a queue 5, but a balloon has at most 5 queues": ("SET_VRING_NUM", state(5, 1)),
    "a queue 9, but": ("SET_VRING_KICK", number(9), ("kick",)),
    "a queue 6, but": ("SET_VRING_CALL", number(6), ("call",)),
    "queue 0 has 0 entries": ("SET_VRING_NUM", state(0, 0)),
    "queue 0 has 3 entries": ("SET_VRING_NUM", state(0, 3)),
    "queue 0 has 65536 entries": ("SET_VRING_NUM", state(0, 65536)),
    "queue 0 cannot start at position 65536": ("SET_VRING_BASE", state(0, 65536)),
    "queue 0 has byte order 2, not 0 or 1": ("SET_VRING_ENDIAN", state(0, 2)),
    "queue 0 cannot be enabled by 2": ("SET_VRING_ENABLE", state(0, 2)),
    "its desc ring at 0x8, not aligned to 16 bytes": (
        "SET_VRING_ADDR",
        struct.pack("=IIQQQQ", 0, 0, 8, 0, 0, 0),
    ),
    "its used ring at 0x2, not aligned to 4 bytes": (
        "SET_VRING_ADDR",
        struct.pack("=IIQQQQ", 0, 0, 0, 2, 0, 0),
    ),
    "its avail ring at 0x1, not aligned to 2 bytes": (
        "SET_VRING_ADDR",
        struct.pack("=IIQQQQ", 0, 0, 0, 0, 1, 0),
    ),
    "SET_VRING_KICK comes with 0 file descriptors, and says otherwise": (
        "SET_VRING_KICK",
        number(0),
    ),
    "SET_VRING_CALL comes with 1 file descriptors, and says otherwise": (
        "SET_VRING_CALL",
        number(0x100),
        ("call",),
    ),
    "SET_CONFIG has 2 bytes and says 3": (
        "SET_CONFIG",
        struct.pack("=III", 4, 3, 0) + b"ab",
    ),
    "SET_CONFIG with flags 0x1": ("SET_CONFIG", traces.config(4, b"abcd", flags=1)),
    "SET_STATUS has 4 bytes, not 8": ("SET_STATUS", bytes(4)),
}


@pytest.mark.parametrize("sentence", NONSENSE)
def test_nonsense_is_refused_with_a_sentence(qemu, sentence):
    turn = qemu.refused(*NONSENSE[sentence])

    assert sentence in turn.problem
    assert turn.acknowledge
    assert not turn.fatal


@pytest.mark.parametrize("sentence", NONSENSE)
def test_nonsense_of_which_nobody_can_be_told_ends_the_connection(qemu, sentence):
    turn = qemu.refused(*NONSENSE[sentence], ack=False)

    assert turn.fatal
    assert not turn.acknowledge


@pytest.mark.parametrize("sentence", NONSENSE)
def test_nonsense_changes_nothing(qemu, sentence):
    qemu.refused(*NONSENSE[sentence])

    assert qemu.say(*traces.qemu_start(first=True))[-5:-2] == [
        DriverReady(),
        StartQueue(0, a_ring(0)),
        StartQueue(1, a_ring(1)),
    ]


@pytest.mark.parametrize(
    ("request_", "payload"),
    [
        ("SET_VRING_NUM", state(0, 64)),
        ("SET_VRING_BASE", state(0, 0)),
        ("SET_VRING_ENDIAN", state(0, 1)),
    ],
)
def test_a_ring_that_runs_is_not_set_up_anew(qemu, request_, payload):
    qemu.say(*traces.qemu_start(first=True))

    turn = qemu.refused(request_, payload)

    assert turn.problem == "queue 0 is set up anew while it runs"


def test_features_of_a_running_device_do_not_change(qemu):
    qemu.say(*traces.qemu_start(first=True))

    assert qemu.told(Sent("SET_FEATURES", number(MODERN))) == []
    assert "running" in qemu.refused("SET_FEATURES", number(LEGACY)).problem


@pytest.mark.parametrize(
    ("request_", "payload"),
    [
        ("GET_CONFIG", struct.pack("=III", 0, 4, 0)),
        ("GET_VRING_BASE", state(7, 0)),
        ("GET_STATUS", b"x"),
    ],
)
def test_what_has_a_reply_can_only_be_refused_by_ending(qemu, request_, payload):
    turn = qemu.refused(request_, payload)

    assert turn.fatal
    assert not turn.acknowledge


@pytest.mark.parametrize(
    ("request_", "feature"),
    [
        ("GET_QUEUE_NUM", "MQ"),
        ("GET_CONFIG", "CONFIG"),
        ("RESET_DEVICE", "RESET_DEVICE"),
        ("GET_MAX_MEM_SLOTS", "CONFIGURE_MEM_SLOTS"),
        ("GET_STATUS", "STATUS"),
        ("SET_VRING_ENDIAN", "CROSS_ENDIAN"),
        ("SET_BACKEND_REQ_FD", "BACKEND_REQ"),
        ("SET_LOG_BASE", "LOG_SHMFD"),
        ("GET_INFLIGHT_FD", "INFLIGHT_SHMFD"),
        ("SET_INFLIGHT_FD", "INFLIGHT_SHMFD"),
        ("SET_DEVICE_STATE_FD", "DEVICE_STATE"),
        ("CHECK_DEVICE_STATE", "DEVICE_STATE"),
    ],
)
def test_what_needs_a_protocol_feature_is_refused_without(link, request_, feature):
    payloads = {
        "GET_CONFIG": traces.config(0, b""),
        "SET_VRING_ENDIAN": state(0, 0),
        "SET_LOG_BASE": bytes(16),
        "GET_INFLIGHT_FD": bytes(20),
        "SET_INFLIGHT_FD": bytes(20),
        "SET_DEVICE_STATE_FD": bytes(8),
    }
    without_fd = ("GET", "RESET", "CHECK", "SET_VRING_ENDIAN")
    fds = () if request_.startswith(without_fd) else ("fd",)

    turn = link.refused(request_, payloads.get(request_, b""), fds)

    assert turn.problem == f"{request_} came without {feature} negotiated"


@pytest.mark.parametrize("code", [0, 19, 28, 35, 41, 77, 2**32 - 1])
@pytest.mark.parametrize("ack", [True, False])
def test_requests_that_are_not_supported_are_survived(link, code, ack):
    data = struct.pack("=III", code, 1 | ack << 3, 4)
    link.protocol.receive(data, (60,), 0.0)

    turn = link.protocol.receive(b"1234", (), 0.0)

    assert turn.problem.endswith("is not supported")
    assert turn.fds == (60,)
    assert turn.acknowledge == ack
    assert not turn.fatal


def test_a_broken_stream_is_fatal_and_gives_its_descriptors_back(link):
    link.protocol.receive(struct.pack("=I", 1), (60, 61), 0.0)

    turn = link.protocol.receive(struct.pack("=II", 2, 0), (62,), 0.0)

    assert turn.fatal
    assert turn.fds == (60, 61, 62)
    assert "version" in turn.problem


def test_what_is_bounded_is_what_is_handled():
    assert set(Requests.HANDLERS) == set(messages._FORMS)


# --- anything -----------------------------------------------------------------------

REQUESTS = st.sampled_from([*traces.CODES.values(), 6, 19, 99])
PAYLOADS = st.one_of(
    st.binary(max_size=48),
    st.builds(state, st.integers(0, 6), st.sampled_from([0, 1, 2, 64, 128, 70000])),
    st.builds(number, st.sampled_from([0, 1, 15, 0x100, LEGACY, MODERN, 2**64 - 1])),
    st.builds(traces.address, st.integers(0, 5)),
    st.builds(traces.config, st.integers(0, 20), st.binary(max_size=20)),
    st.just(traces.table(RAM)),
    st.just(b""),
)


@given(
    st.lists(
        st.one_of(
            st.tuples(
                REQUESTS, PAYLOADS, st.integers(0, 2), st.sampled_from([1, 9, 2])
            ),
            st.sampled_from(["start", "stop", "poll"]),
        ),
        max_size=40,
    )
)
def test_no_message_ever_raises(said):
    link = Link()
    link.say(*traces.QEMU_CONNECT)

    for each in said:
        if each == "poll":
            link.now += 1
            link.protocol.settle(link.now)
        elif isinstance(each, str):
            trace = traces.qemu_start() if each == "start" else traces.qemu_stop()
            for sent in trace:
                link.turn(sent)
        else:
            code, payload, fds, flags = each
            header = struct.pack("=III", code, flags, len(payload))
            for part in filter(None, (header, payload)):
                turn = link.protocol.receive(part, (9,) * fds, link.now)
                if turn is not None and turn.fatal:
                    return


@given(st.binary(max_size=400))
def test_no_bytes_ever_raise(data):
    protocol = Protocol()

    while data:
        part, data = data[: protocol.wanted], data[protocol.wanted :]
        turn = protocol.receive(part, (), 0.0)
        if turn is not None and turn.fatal:
            return
