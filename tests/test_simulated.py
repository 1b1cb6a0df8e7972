"""The simulated machine: what its device sees of it, and what its guest does."""

from __future__ import annotations

import gc
import mmap
import struct
from dataclasses import fields, replace

import pytest
from fakes import Recorder
from own_memory import own
from scripted import ScriptedDevice, boot

from balloon_plugin.errors import HostError, PluginError
from balloon_plugin.events import ByteOrder, GuestFacts, MemoryRange, StatsReceived
from balloon_plugin.features import DeviceOptions
from balloon_plugin.guests.guest import Guest
from balloon_plugin.guests.profiles import find
from balloon_plugin.hosts.simulated import Setup, SimulatedHost
from balloon_plugin.layouts import Feature
from balloon_plugin.manager import make_device
from balloon_plugin.virtqueue import RING_FEATURES, PackedQueue

PAGE = 4096
BASE = 0x4000_0000
MUST_TELL = Feature.VIRTIO_BALLOON_F_MUST_TELL_HOST.mask
STATS = Feature.VIRTIO_BALLOON_F_STATS_VQ.mask
INDIRECT = Feature.VIRTIO_RING_F_INDIRECT_DESC.mask
EVENT_IDX = Feature.VIRTIO_RING_F_EVENT_IDX.mask
VERSION_1 = Feature.VIRTIO_F_VERSION_1.mask
OPTIONS = [field.name for field in fields(DeviceOptions)]
READY = ("OK", b"")


def machine(device=None, **setup):
    return SimulatedHost(device or ScriptedDevice(0), Setup(**setup))


class Busy(ScriptedDevice):
    """A device that serves each kick in so many turns."""

    def __init__(self, turns):
        super().__init__(0)
        self.turns = turns
        self.served = []

    def queue_notify(self, index):
        self.served.append(index)
        self.turns -= 1
        return self.turns > 0


# --- what the device is told --------------------------------------------------------


def test_facts_are_told():
    host = machine(
        ram_size=1 << 20, ram_start=BASE, byte_order=ByteOrder.BIG, page_size=65536
    )

    assert host.facts == GuestFacts(
        ram=(MemoryRange(BASE, 1 << 20),),
        byte_order=ByteOrder.BIG,
        page_size=65536,
        host_page_size=max(PAGE, mmap.PAGESIZE),
    )


def test_facts_are_withheld():
    host = machine(byte_order=ByteOrder.BIG, tell_byte_order=False)

    assert host.facts.byte_order is None
    assert host.facts.page_size is None


def test_a_host_page_may_be_large():
    assert machine(host_page_size=65536).facts.host_page_size == 65536


@pytest.mark.parametrize(
    "setup",
    [
        {"ram_size": 0},
        {"ram_size": PAGE + 1},
        {"ram_start": 100},
        {"ram_size": 16 * PAGE, "ram_start": PAGE, "host_page_size": 65536},
    ],
)
def test_ram_that_cannot_be_is_refused(setup):
    with pytest.raises(HostError, match="whole host pages"):
        machine(**setup)


def test_ram_is_there_for_both_sides():
    host = machine(ram_start=BASE)
    host.ram[8:11] = b"abc"

    assert host.ram_start == BASE
    assert host.memory.read(BASE + 7, 5) == b"\0abc\0"


# --- discards -----------------------------------------------------------------------


def test_what_is_discarded_is_gone():
    host = machine(ram_size=1 << 20, ram_start=BASE)
    host.ram[:] = b"x" * (1 << 20)
    first = BASE // PAGE

    assert host.discard([(first + 1, 2), (first + 250, 6)]) == 8
    gone = [page for page in range(256) if host.ram[page * PAGE] == 0]
    assert gone == [1, 2, 250, 251, 252, 253, 254, 255]
    assert host.discarded_pages == 8


def test_memory_goes_back_to_the_system():
    host = machine(ram_size=32 << 20)
    host.ram[:] = bytes(32 << 20)
    before = own("Anonymous")
    host.discard([(0, 8000)])

    assert before - own("Anonymous") == pytest.approx(8000 * PAGE, abs=100 * PAGE)


@pytest.mark.parametrize(
    "runs",
    [
        [(BASE // PAGE - 1, 1)],
        [(BASE // PAGE + 255, 2)],
        [(BASE // PAGE + 4, 1), (BASE // PAGE + 2, 1)],
        [(BASE // PAGE, 2), (BASE // PAGE + 1, 1)],
        [(BASE // PAGE, 0)],
    ],
)
def test_a_device_that_breaks_its_promise_is_told(runs):
    host = machine(ram_size=1 << 20, ram_start=BASE)

    with pytest.raises(PluginError, match="runs must be"):
        host.discard(runs)


@pytest.mark.parametrize("run", [(8, 16), (16, 8), (16, 24)])
def test_host_pages_are_never_split(run):
    host = machine(host_page_size=65536)

    assert host.discard([(16, 32)]) == 32
    with pytest.raises(PluginError, match="65536"):
        host.discard([run])


# --- negotiation and queues ---------------------------------------------------------


def test_a_legacy_bus_shows_32_bits():
    device = ScriptedDevice(0, features=MUST_TELL)

    assert machine(device).offered_features() == MUST_TELL | INDIRECT
    assert machine(device, legacy=False).offered_features() == (
        MUST_TELL | INDIRECT | VERSION_1
    )


def test_a_bus_offers_the_ring_features_of_its_setup():
    host = machine(legacy=False, ring_features=RING_FEATURES)

    assert host.offered_features() == RING_FEATURES | VERSION_1
    assert machine(ring_features=RING_FEATURES).offered_features() == (
        RING_FEATURES & 0xFFFF_FFFF
    )


def test_accepted_features_get_to_the_device():
    device = ScriptedDevice(0)
    machine(device).accept_features(VERSION_1 | 2)

    assert device.wire == [("ACK", (VERSION_1 | 2).to_bytes(8, "little"))]


def test_there_are_as_many_queues_as_features_ask_for():
    plain, more = machine(), machine(ScriptedDevice(0, features=STATS))

    assert [plain.queue_size(index) for index in range(4)] == [128, 128, 0, 0]
    assert [more.queue_size(index) for index in range(4)] == [128, 128, 128, 0]


@pytest.mark.parametrize(
    ("accepted", "order"), [(0, ByteOrder.BIG), (VERSION_1, ByteOrder.LITTLE)]
)
def test_a_queue_has_the_byte_order_of_its_time(accepted, order):
    host = machine(byte_order=ByteOrder.BIG, tell_byte_order=False, legacy=False)
    host.accept_features(accepted)
    host.start_queue(1, 64, 0x1000, 0x2000, 0x3000)

    assert host.queue(0) is None
    assert host.queue(1).byte_order is order
    assert host.queue(1).broken is None


@pytest.mark.parametrize("accepted", [0, INDIRECT])
def test_indirect_descriptors_are_for_those_who_accepted_them(accepted):
    host = machine()
    host.accept_features(accepted)
    host.start_queue(0, 8, 0x1000, 0x2000, 0x3000)
    host.ram[0x1000:0x1010] = struct.pack("<QIHH", 0x5000, 16, 4, 0)
    host.ram[0x5000:0x5010] = struct.pack("<QIHH", 0x6000, 8, 0, 0)
    host.ram[0x2000:0x2006] = struct.pack("<HHH", 0, 1, 0)
    (chain,) = host.queue(0).pop(8)

    assert (chain.readable == ((0x6000, 8),)) is bool(accepted)


def test_a_kick_is_served_until_nothing_waits():
    device = Busy(turns=3)
    machine(device).kick(1)

    assert device.served == [1, 1, 1]


def test_kicks_can_wait_for_the_driver_to_be_ready():
    device = Busy(turns=1)
    host = machine(device, holds_early_kicks=True)
    host.kick(0)
    before = list(device.served)
    host.device_ready()

    assert before == []
    assert device.wire == [READY]
    assert device.served == [0]


def test_configuration_goes_through():
    device = ScriptedDevice(0x1234)
    host = machine(device)
    host.config_write(5, b"\x07")

    assert host.config_read(0, 8) == b"\x34\x12\0\0\0\x07\0\0"


# --- rings of either format ---------------------------------------------------------


@pytest.mark.parametrize("queue_size", [1, 3, 128])
@pytest.mark.parametrize(
    ("guest", "packed"),
    [
        ("linux-3.3-le-4k", False),
        ("linux-3.4-be-4k", False),
        ("linux-4.4-le-4k", False),
        ("linux-5.8-v1-be-4k", True),
        ("linux-6.12-le-64k", True),
    ],
)
def test_guests_use_the_newest_rings_that_they_know(guest, packed, queue_size):
    profile, device = find(guest), make_device("none")
    setup = Setup(
        ram_start=profile.ram_start,
        byte_order=profile.byte_order,
        legacy=not profile.modern,
        queue_size=queue_size if packed else 1 << queue_size.bit_length() - 1,
        ring_features=RING_FEATURES,
    )
    with SimulatedHost(device, setup) as host:
        running = Guest(profile, host)
        for target in (1024, 160, 512, 0):
            device.set_target(target)
            running.run()
            assert device.query().actual == device.query().ballooned == target

        assert isinstance(host.queue(0), PackedQueue) is packed
        assert running.driver.accepted & EVENT_IDX
        assert running.oops is None
        assert running.harm == 0


@pytest.mark.parametrize("guest", ["linux-6.12-le-4k", "linux-6.12-v1-be-4k"])
def test_every_queue_carries_the_same_over_rings_of_either_format(guest):
    split, packed = all_duties(guest, INDIRECT), all_duties(guest, RING_FEATURES)

    assert replace(split, features=None) == replace(packed, features=None)
    assert split.ballooned == 100
    assert split.stats
    assert split.reported
    assert split.hints.pages
    assert split.features ^ packed.features == RING_FEATURES & ~INDIRECT


def all_duties(guest, ring_features):
    """Return what is known of a guest that did all that a balloon driver can do."""
    profile, options = find(guest), dict.fromkeys(OPTIONS, True)
    device = make_device("none", options=DeviceOptions(**options))
    setup = Setup(
        byte_order=profile.byte_order, legacy=False, ring_features=ring_features
    )
    with SimulatedHost(device, setup) as host:
        running = Guest(profile, host)
        running.run()
        device.set_stats_interval(2)
        for target in (1024, 100):
            device.set_target(target)
            running.run()
            host.advance(5)
            running.run()
        device.start_hinting()
        running.run()

        assert running.harm == 0
        return device.query()


def test_a_packed_queue_survives_a_migration():
    device = make_device("none")
    setup = Setup(legacy=False, ring_features=RING_FEATURES)
    with SimulatedHost(device, setup) as host:
        running = Guest(find("linux-6.12-le-4k"), host)
        for target in (300, 700, 100):
            device.set_target(target)
            running.run()
            device = make_device("none")
            host.migrate(device)

        assert device.query().ballooned == 100
        assert running.harm == 0


@pytest.mark.parametrize("ring_features", [0, RING_FEATURES], ids=["split", "packed"])
def test_a_driver_goes_on_sending_statistics_after_a_migration(ring_features):
    setup = Setup(legacy=False, ring_features=ring_features)
    recorder = Recorder()
    device = make_device("none", observers=[recorder])
    with SimulatedHost(device, setup) as host:
        running = Guest(find("linux-6.12-le-4k"), host)
        running.run()
        device.set_stats_interval(1)
        for _ in range(3):
            device = make_device("none", observers=[recorder])
            host.migrate(device)
            running.run()
            sent = len(recorder.of(StatsReceived))
            host.advance(2.0)
            running.run()

            assert len(recorder.of(StatsReceived)) > sent
            assert device.query().stats.age <= 1.0


# --- interrupts ---------------------------------------------------------------------


def test_interrupts_are_flags_that_are_taken_once():
    host = machine()
    host.notify_config()
    host.notify_config()
    host.notify_queue(1)

    assert not host.take_queue_interrupt(0)
    assert host.take_queue_interrupt(1)
    assert not host.take_queue_interrupt(1)
    assert host.take_config_interrupt()
    assert not host.take_config_interrupt()
    assert (host.config_interrupts, host.queue_interrupts) == (2, 1)


def test_a_lost_device_says_so_with_a_config_interrupt():
    host = machine()
    host.needs_reset()

    assert host.lost
    assert host.take_config_interrupt()


# --- life ---------------------------------------------------------------------------


def test_a_reset_forgets_the_driver():
    device = ScriptedDevice(0)
    host = machine(device, holds_early_kicks=True)
    host.start_queue(0, 64, 0x1000, 0x2000, 0x3000)
    host.device_ready()
    host.notify_queue(0)
    host.needs_reset()
    queue = host.queue(0)
    host.reset()
    host.kick(0)

    assert device.wire == [READY, ("RESET", b"")]
    assert host.queue(0) is None
    assert queue.broken
    assert not host.lost
    assert not host.take_config_interrupt()
    assert not host.take_queue_interrupt(0)


def test_time_is_told_every_second():
    device = ScriptedDevice(0)
    host = machine(device)
    host.advance(0.9)
    before = device.ticks
    host.advance(0.2)
    after = device.ticks
    host.advance(10)

    assert (before, after, device.ticks) == (0, 1, 11)
    assert host.now() == pytest.approx(11.1)


def test_a_tick_happens_at_its_second():
    class Clock(ScriptedDevice):
        def tick(self):
            seen.append(self.host.now())

    seen = []
    machine(Clock(0)).advance(3.5)

    assert seen == [1.0, 2.0, 3.0]


def test_closing_lets_go_of_everything():
    device = ScriptedDevice(0)
    with machine(device) as host:
        host.start_queue(0, 64, 0x1000, 0x2000, 0x3000)
        memory = host.memory
    host.close()

    assert device.unrealized == 1
    assert memory.ranges == ()


def test_a_guest_may_outlive_its_machine():
    device = ScriptedDevice(16, 0)
    guest, host = boot("linux-3.4-be-4k", device)
    guest.run()
    host.close()

    # The pages are gone, the mapping stays until nobody looks at it any more.
    assert guest.lost_pages > 0
    del guest
    gc.collect()


def test_another_guest_boots_on_the_same_machine():
    device = ScriptedDevice(16)
    first, host = boot("linux-3.4-be-4k", device)
    first.run()
    second = Guest(find("linux-3.3-be-4k"), host)
    second.run(limit=12)

    assert [what for what, _ in device.wire].count("RESET") == 2
    assert second.taken_pages == 256
    assert second.lost_pages == 0


# --- harm ---------------------------------------------------------------------------


@pytest.mark.parametrize("guest", ["linux-3.4-be-4k", "linux-3.4-be-64k"])
def test_a_page_discarded_after_it_came_back_is_harm(guest):
    device = ScriptedDevice(16, 0)
    running, host = boot(guest, device)
    running.run()
    before = running.lost_pages
    host.discard([(1024, 16)])

    assert before == 0
    assert running.lost_pages == 16


def test_rings_that_are_discarded_are_harm():
    device = ScriptedDevice(16)
    running, host = boot("linux-3.4-be-4k", device)
    running.run()
    host.discard([(1024 - 64, 3)])

    assert running.lost_pages == 3


def test_neighbours_of_the_balloon_are_watched():
    device = ScriptedDevice(256, discards=False)
    running, host = boot("linux-3.4-be-4k", device)
    running.run()
    host.discard([(1024, 257)])

    assert running.lost_pages == 1
