"""What tells drivers apart besides page numbers: when they look, write and let go."""

from __future__ import annotations

import pytest
from scripted import RFC, ScriptedDevice, boot, profile, words

from balloon_plugin.errors import HostError
from balloon_plugin.events import ByteOrder
from balloon_plugin.guests.access import Access
from balloon_plugin.guests.traits import Conditions, Order, PfnForm, Start
from balloon_plugin.hosts.simulated import SimulatedHost
from balloon_plugin.layouts import Feature

SIXTEEN = bytes([0x10, 0, 0, 0])
ZERO = bytes(4)
MIB = 1 << 20
MUST_TELL = Feature.VIRTIO_BALLOON_F_MUST_TELL_HOST.mask
STATS = Feature.VIRTIO_BALLOON_F_STATS_VQ.mask
OOM = Feature.VIRTIO_BALLOON_F_DEFLATE_ON_OOM.mask
POISON = Feature.VIRTIO_BALLOON_F_PAGE_POISON.mask
HINTS = Feature.VIRTIO_BALLOON_F_FREE_PAGE_HINT.mask
REPORTS = Feature.VIRTIO_BALLOON_F_REPORTING.mask
INDIRECT = Feature.VIRTIO_RING_F_INDIRECT_DESC.mask
VERSION_1 = Feature.VIRTIO_F_VERSION_1.mask


def kinds(device):
    return [what for what, _ in device.trace]


def booted(guest, *targets, conditions=None, setup=None, **options):
    """Boot a guest and run it until it has nothing left to do."""
    device = ScriptedDevice(*targets, **options)
    running, host = boot(guest, device, conditions, **(setup or {}))
    running.run()
    return device, running, host


# --- negotiation --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("guest", "accepted"),
    [
        ("linux-3.4-be-4k", MUST_TELL | STATS | INDIRECT),
        ("linux-6.1-le-4k", MUST_TELL | STATS | OOM | INDIRECT | VERSION_1),
    ],
)
def test_a_driver_accepts_what_it_knows_of_the_offer(guest, accepted):
    device, running, _ = booted(guest, 0, features=MUST_TELL | STATS | OOM | 1 << 9)

    assert running.driver.accepted == accepted
    assert ("ACK", accepted.to_bytes(8, "little")) in device.wire


def test_a_modern_driver_on_an_old_bus_is_a_legacy_driver():
    guest = profile("linux-6.1-le-4k", modern=False, byte_order=ByteOrder.BIG)
    device, running, host = booted(guest, 16)

    assert not running.driver.accepted >> 32
    assert host.queue(0).byte_order is ByteOrder.BIG
    assert words(device.buffers("I")[0], ByteOrder.BIG)[0] == 1024


def test_queues_are_numbered_without_gaps():
    *_, host = booted("linux-6.1-le-4k", 0, features=HINTS | REPORTS)

    assert [host.queue(index) is not None for index in range(5)] == [
        True,
        True,
        True,
        True,
        False,
    ]


def test_a_machine_without_a_queue_that_it_needs_is_told(monkeypatch):
    monkeypatch.setattr(SimulatedHost, "queue_size", lambda *_: 0)

    with pytest.raises(HostError, match=r"no queue 0: .* features.queues"):
        booted("linux-6.1-le-4k", 0)


def test_a_poisoning_kernel_writes_its_poison_before_all_else():
    poisoning = Conditions(page_poison=True)
    device, *_ = booted("linux-6.1-le-4k", 16, conditions=poisoning, features=POISON)
    plain, *_ = booted("linux-6.1-le-4k", 16, features=POISON)

    assert device.accesses[0] == (12, ZERO)
    assert (12, ZERO) not in plain.accesses


# --- when it starts, and when it looks ----------------------------------------------


def order_of(device):
    return [what for what, _ in device.wire if what in ("OK", "I", "D")]


def test_a_thread_sends_a_buffer_before_the_driver_is_ready():
    device, *_ = booted("linux-3.3-be-4k", *RFC)

    assert order_of(device) == ["I", "OK", "D"]


@pytest.mark.parametrize(
    ("buffers", "order"), [(0, ["OK", "I", "D"]), (2, ["I", "D", "OK"])]
)
def test_how_early_is_a_circumstance(buffers, order):
    early = Conditions(early_buffers=buffers)
    device, *_ = booted("linux-3.3-be-4k", *RFC, conditions=early)

    assert order_of(device) == order


def test_a_thread_with_nothing_to_do_lets_the_driver_be_ready():
    device, *_ = booted("linux-3.4-be-4k", 0)

    assert [what for what, _ in device.wire] == ["RESET", "ACK", "R", "OK"]


def test_work_queues_start_when_the_driver_is_ready():
    device, *_ = booted("linux-6.1-le-4k", 16)

    assert [what for what, _ in device.wire][:4] == ["RESET", "ACK", "OK", "R"]


def test_some_look_only_after_a_config_interrupt():
    guest = profile("linux-6.1-le-4k", driver={"start": Start.BLIND})
    device, running, _ = booted(guest, 16)
    before = kinds(device)
    device.show(16)
    running.run()

    assert before == []
    assert kinds(device) == ["R", "I", "W"]


def test_a_thread_looks_again_after_each_batch():
    device, *_ = booted("linux-3.4-le-4k", 600)

    assert kinds(device) == ["R", "I", "W"] * 3 + ["R"]
    assert [len(data) // 4 for data in device.buffers("I")] == [256, 256, 88]


def test_work_queues_itself_until_it_is_done():
    device, *_ = booted("linux-6.1-le-4k", 600)

    assert kinds(device) == ["R"] + ["R", "I", "W"] * 3


@pytest.mark.parametrize(
    ("guest", "moment", "trace"),
    [
        ("linux-6.1-le-4k", "R", ["R", "R", "I", "W"]),
        ("linux-6.1-le-4k", "W", ["R", "R", "I", "W", "R", "I", "W"]),
        ("linux-3.4-le-4k", "I", ["R", "I", "W", "R", "I", "W", "R"]),
    ],
)
def test_an_interrupt_while_it_works_is_heard_once(guest, moment, trace):
    device = ScriptedDevice(16)
    running, _ = boot(guest, device)
    while moment not in kinds(device):
        running.step()
    device.show(32)
    running.run()

    assert kinds(device) == trace
    assert running.parked_pages == 32


@pytest.mark.parametrize(
    ("guest", "trace"),
    [
        ("linux-3.4-le-4k", ["R"]),
        ("linux-6.1-le-4k", ["R"]),
        (profile("linux-6.1-le-4k", driver={"idle_writes": True}), ["R", "W"]),
    ],
)
def test_an_interrupt_for_nothing(guest, trace):
    device, running, _ = booted(guest, 0)
    device.wire.clear()
    device.show(0)
    running.run()

    assert kinds(device) == trace


def test_a_target_can_change_between_the_bytes_of_one_read():
    device = ScriptedDevice(0x0101)
    running, _ = boot("linux-3.4-le-4k", device)
    while len(device.accesses) < 1:
        running.step()
    device.targets = [0x0200]
    running.step()

    assert device.trace == [("R", bytes([0x01, 0x02]))]


# --- waiting ------------------------------------------------------------------------


def test_a_driver_waits_for_its_buffer_for_ever():
    device, running, _ = booted("linux-3.4-le-4k", 16, answers=False)

    assert kinds(device) == ["R", "I"]
    assert not running.step()
    device.return_kept()
    assert running.run() > 0
    assert kinds(device) == ["R", "I", "W", "R"]


def test_a_buffer_is_not_seen_without_an_interrupt():
    device, running, host = booted("linux-3.4-le-4k", 16, answers=False)
    device.return_kept()
    host.take_queue_interrupt(0)

    assert not running.step()


def test_kicks_before_the_driver_is_ready_may_have_to_wait():
    device, *_ = booted("linux-3.3-be-4k", *RFC, setup={"holds_early_kicks": True})

    assert order_of(device) == ["OK", "I", "D"]


def test_a_device_that_wants_no_kick_gets_none():
    class Polling(ScriptedDevice):
        def queue_notify(self, index):
            raise AssertionError(index)

    device = Polling(16)
    running, host = boot("linux-3.4-le-4k", device)
    while host.queue(0) is None:
        running.step()
    # used.flags of a queue of 128 in the first place of the heap, after its buffer
    used = 4 * MIB - (256 << 10) + 4096 + 4096
    host.ram[used : used + 2] = bytes([1, 0])
    running.run()

    assert kinds(device) == ["R"]


def test_a_first_batch_in_short_memory():
    short = Conditions(first_batch=10)
    device, running, host = booted("linux-3.3-be-4k", 16, 16, conditions=short)
    asleep = (kinds(device), running.wake_at)
    host.advance(0.2)
    running.run(limit=50)

    assert asleep == (["R"], 0.2)
    assert [len(data) // 4 for data in device.buffers("I")][:2] == [10, 256]
    assert device.trace[2] == ("W", bytes([10, 0, 0, 0]))


def test_no_page_at_all_is_reported_all_the_same():
    short = Conditions(first_batch=0)
    device, running, host = booted("linux-3.4-le-4k", 16, conditions=short)
    host.advance(0.2)
    running.run()

    assert kinds(device) == ["R", "W", "R", "I", "W", "R"]
    assert device.trace[1] == ("W", ZERO)
    assert running.wake_at is None


def test_a_guest_gives_all_that_it_has_and_tries_again():
    device, running, host = booted("linux-3.4-le-4k", 1 << 20)
    taken = running.parked_pages
    host.advance(0.2)
    running.run()
    host.advance(0.2)
    running.run()

    assert taken == running.parked_pages == running.kernel.ram.pages - 1024 - 33
    assert running.lost_pages == 0
    assert kinds(device)[-3:] == ["R", "W", "R"]


# --- letting go ---------------------------------------------------------------------


def test_threads_are_removed_without_a_word():
    device, running, _ = booted("linux-3.3-le-4k", 300)
    device.wire.clear()
    running.driver.remove()
    running.run()

    # The thread is woken to stop, and then all pages are given back.
    assert kinds(device) == ["R", "W", "D", "D"]
    assert device.wire[-1][0] == "RESET"
    assert running.parked_pages == 0


@pytest.mark.parametrize(
    ("guest", "trace"),
    [
        ("linux-3.4-le-4k", ["R", "W", "D", "W"]),
        ("linux-6.1-le-4k", ["D", "W"]),
    ],
)
def test_later_ones_say_that_nothing_is_left(guest, trace):
    device, running, _ = booted(guest, 16)
    device.wire.clear()
    running.driver.remove()
    running.run()

    assert kinds(device) == trace
    assert device.trace[-1] == ("W", ZERO)


def test_a_module_is_loaded_again():
    device, running, _ = booted("linux-6.1-le-4k", 16)
    for _ in range(20):
        running.driver.remove()
        running.run()
        running.insert_module()
        running.run()

    assert device.trace[-1] == ("W", SIXTEEN)
    assert running.parked_pages == 16
    assert running.lost_pages == 0


@pytest.mark.parametrize(
    ("guest", "frozen", "back"),
    [
        ("linux-3.4-le-4k", ["R", "W", "D", "W"], ["R", "I", "W", "R"]),
        ("linux-6.1-le-4k", ["D", "W"], ["R", "W", "R", "I", "W"]),
        (
            profile("linux-3.4-le-4k", driver={"has_freeze": False}),
            ["R", "W"],
            ["R"],
        ),
    ],
)
def test_hibernation(guest, frozen, back):
    device, running, _ = booted(guest, 16)
    device.wire.clear()
    running.driver.freeze()
    running.run()
    asleep = kinds(device)
    device.wire.clear()
    running.driver.thaw()
    running.run()

    assert asleep == frozen
    assert kinds(device) == back
    assert running.parked_pages == 16


@pytest.mark.parametrize(
    ("hasty", "features", "released"),
    [(False, 0, False), (True, 0, True), (True, MUST_TELL, False)],
)
def test_old_drivers_release_before_they_tell(hasty, features, released):
    guest = profile("linux-3.3-le-4k", driver={"release_before_tell": hasty})
    device, running, _ = booted(guest, *RFC, features=features, answers=False)
    device.return_kept()
    running.run()
    when_told = (kinds(device)[-1], running.parked_pages)
    device.return_kept()
    running.run()

    assert when_told == ("D", 0 if released else 16)
    assert running.parked_pages == 0
    # Once and not twice, which would be a page in use by then.
    assert (running.kernel.double_frees, running.lost_pages) == (0, 0)


def test_coming_back_is_reported_even_if_there_is_nothing_to_do():
    device, running, _ = booted("linux-3.4-le-4k", 0)
    running.driver.freeze()
    running.run()
    device.wire.clear()
    running.driver.thaw()
    running.run()

    assert kinds(device) == ["R", "W", "R"]


def test_out_of_memory_between_a_batch_and_its_report():
    device = ScriptedDevice(16, features=OOM)
    running, _ = boot("linux-6.1-le-4k", device)
    while "I" not in kinds(device):
        running.step()
    running.driver.deflate_on_oom(256)
    running.run()

    # It does not inflate again: by its own count the work was done.
    assert kinds(device) == ["R", "R", "I", "D", "W", "W"]
    assert device.trace[-1] == ("W", ZERO)


def test_out_of_memory_at_rest():
    device, running, _ = booted("linux-6.1-le-4k", 300, features=OOM)
    device.wire.clear()
    running.driver.deflate_on_oom(256)
    running.run()
    running.run()

    assert device.trace[-1] == ("W", bytes([44, 0, 0, 0]))


def test_out_of_memory_with_nothing_to_give():
    device, running, _ = booted("linux-6.1-le-4k", 0, features=OOM)
    running.driver.deflate_on_oom(256)
    running.run()

    assert kinds(device) == ["R", "W"]


def test_out_of_memory_without_the_feature():
    device, running, _ = booted("linux-6.1-le-4k", 16)
    before = kinds(device)
    running.driver.deflate_on_oom(256)

    assert running.run() == 0
    assert kinds(device) == before


# --- statistics ---------------------------------------------------------------------


def test_a_thread_looks_at_its_target_when_asked_for_statistics():
    device, running, _ = booted("linux-3.4-be-4k", 0, features=STATS)
    first = device.buffers("S")
    device.wire.clear()
    device.return_kept()
    running.run()

    # The first buffer holds whatever was there before (D8).
    assert first == [b"\xa5" * 10]
    assert kinds(device) == ["R", "S", "W", "R"]
    (stats,) = device.buffers("S")
    assert stats[10:12] == bytes([0, 5])
    assert int.from_bytes(stats[12:20], "big") == 64 << 20


def test_statistics_are_work_of_their_own_later():
    device, running, _ = booted("linux-6.1-le-4k", 0, features=STATS)
    first = device.buffers("S")
    device.wire.clear()
    device.return_kept()
    running.run()

    assert first[0][10:12] == bytes([5, 0])
    assert kinds(device) == ["S"]


# --- traits that only some have -----------------------------------------------------


def test_actual_may_be_written_in_the_wrong_order():
    guest = profile(
        "linux-6.1-le-4k",
        byte_order=ByteOrder.BIG,
        driver={"config_order_v1": Order.NATIVE},
    )
    device, *_ = booted(guest, 256)

    assert ("W", bytes([0, 0, 1, 0])) in device.trace


def test_actual_may_never_be_written():
    guest = profile("linux-3.4-le-4k", driver={"writes_actual": False})
    device, *_ = booted(guest, 16)

    assert kinds(device) == ["R", "I", "R"]


def test_a_smaller_target_may_look_huge():
    guest = profile("linux-3.4-le-4k", driver={"unsigned_diff": True})
    device, running, _ = booted(guest, *RFC)

    assert kinds(device)[:6] == ["R", "I", "W", "R", "I", "W"]
    assert device.buffers("D") == []
    assert running.parked_pages > 10_000


def test_a_target_within_a_page_is_never_reached():
    device = ScriptedDevice(20)
    running, _ = boot("linux-3.4-be-64k", device)
    running.run(limit=200)

    assert running.step()
    assert kinds(device)[:9] == ["R", "I", "W", "R", "D", "W", "R", "I", "W"]


def test_unless_it_is_aligned():
    guest = profile(
        "linux-6.1-le-4k", page_size=64 << 10, driver={"aligns_target": True}
    )
    device, running, _ = booted(guest, 20)

    assert running.parked_pages == 32
    assert kinds(device) == ["R", "R", "I", "W"]


def test_page_numbers_may_come_in_slots_of_eight_bytes():
    guest = profile("linux-6.1-le-4k", driver={"pfn_size": 8, "batch": 512})
    device, running, _ = booted(guest, 512, discards=True)

    (buffer,) = device.buffers("I")
    assert len(buffer) == 4096
    assert words(buffer)[:4] == [1024, 0, 1025, 0]
    # Page 0 was given back with the others, and was in use.
    assert running.lost_pages == 1


def test_page_numbers_may_be_unshifted():
    guest = profile(
        "linux-3.3-be-64k",
        driver={"pfn_form": PfnForm.UNSHIFTED, "frees_by_wire": False},
    )
    device, running, _ = booted(guest, *RFC, discards=True)

    numbers = words(device.buffers("I")[0], ByteOrder.BIG)
    assert len(set(numbers)) == 256
    assert max(numbers) < running.kernel.ram.pages // 16
    assert running.lost_pages == 256
    assert running.leaked_pages == 0


def test_page_numbers_may_be_native_with_version_1():
    guest = profile(
        "linux-6.1-le-4k",
        byte_order=ByteOrder.BIG,
        driver={"pfn_order_v1": Order.NATIVE},
    )
    device, *_ = booted(guest, 16)

    assert words(device.buffers("I")[0], ByteOrder.BIG) == list(range(1024, 1040))


def test_units_may_be_guest_pages_though_the_numbers_are_right():
    guest = profile(
        "linux-6.1-le-4k", page_size=16 << 10, driver={"counts_guest_pages": True}
    )
    device, *_ = booted(guest, 16)

    assert len(words(device.buffers("I")[0])) == 64
    assert device.trace[-1] == ("W", SIXTEEN)


def test_the_bus_is_a_circumstance():
    bytewise = Conditions(access=Access.BYTEWISE)
    device, *_ = booted("linux-6.1-le-4k", 256, conditions=bytewise)

    assert [data for at, data in device.accesses if at >= 4] == [
        b"\0",
        b"\1",
        b"\0",
        b"\0",
    ]
