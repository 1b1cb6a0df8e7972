"""What each driver does on the wire, byte for byte, and what that does to its guest.

The rows of the table of event traces, with the targets of the 2012 patch.
"""

from __future__ import annotations

import pytest
from scripted import RFC, ScriptedDevice, boot, profile, words

from balloon_plugin.events import ByteOrder
from balloon_plugin.guests.access import Access
from balloon_plugin.guests.traits import Allocation, Conditions

BIG, LITTLE = ByteOrder.BIG, ByteOrder.LITTLE
SIXTEEN = bytes([0x10, 0, 0, 0])
ZERO = bytes(4)
BATCH = bytes([0, 1, 0, 0])


def kinds(device):
    """Return the trace with buffers as the number of their 4-byte entries."""
    return [
        f"{what}({len(data) // 4})" if what in "ID" else (what, data)
        for what, data in device.trace
    ]


def handshake(guest, *, targets=RFC, **options):
    device = ScriptedDevice(*targets, **options)
    running, host = boot(guest, device)
    running.run()
    return device, running, host


# --- drivers that are right ---------------------------------------------------------


@pytest.mark.parametrize(
    ("guest", "order"),
    [
        ("linux-3.3-le-4k", LITTLE),
        ("linux-3.4-le-4k", LITTLE),
        ("linux-3.4-be-4k", BIG),
        ("linux-3.4-be-64k", BIG),
        (profile("linux-3.4-le-4k", page_size=16 << 10), LITTLE),
        (profile("linux-3.4-be-4k", page_size=64 << 10, byte_order=LITTLE), LITTLE),
    ],
)
def test_a_right_driver_sends_sixteen_pages_and_takes_them_back(guest, order):
    device, running, _ = handshake(guest, discards=True)

    assert kinds(device) == [
        ("R", SIXTEEN),
        "I(16)",
        ("W", SIXTEEN),
        ("R", ZERO),
        "D(16)",
        ("W", ZERO),
        ("R", ZERO),
    ]
    inflated = words(device.buffers("I")[0], order)
    assert inflated == list(range(inflated[0], inflated[0] + 16))
    assert sorted(words(device.buffers("D")[0], order)) == inflated
    assert running.lost_pages == 0
    assert running.parked_pages == 0


@pytest.mark.parametrize("size", [4, 16, 64, 256])
def test_page_numbers_are_those_of_the_pages_taken(size):
    guest = profile("linux-3.4-be-4k", page_size=size << 10)
    device, *_ = handshake(guest)

    # The first free page is the one above the 4 MiB of the kernel.
    assert words(device.buffers("I")[0], BIG)[0] == 1024


def test_the_last_pages_taken_are_the_first_given_back():
    device, *_ = handshake("linux-3.4-be-4k", targets=[32, 12])

    inflated = words(device.buffers("I")[0], BIG)
    assert words(device.buffers("D")[0], BIG) == inflated[:11:-1]


def test_pages_may_come_from_all_over_ram():
    device = ScriptedDevice(*RFC, discards=True)
    running, _ = boot(
        "linux-3.4-be-4k", device, Conditions(allocation=Allocation.SCATTERED)
    )
    running.run()

    inflated = sorted(words(device.buffers("I")[0], BIG))
    assert inflated[-1] - inflated[0] > 1000
    assert running.lost_pages == 0


def test_a_page_is_never_split():
    device, *_ = handshake(profile("linux-3.4-be-4k", page_size=256 << 10))

    assert kinds(device)[:3] == [("R", SIXTEEN), "I(64)", ("W", bytes([0x40, 0, 0, 0]))]


def test_a_modern_driver_looks_once_before_its_work_and_writes_a_word():
    device, running, _ = handshake("linux-6.1-le-4k", discards=True)
    device.show(0)
    running.run()

    assert kinds(device) == [
        ("R", SIXTEEN),
        ("R", SIXTEEN),
        "I(16)",
        ("W", SIXTEEN),
        ("R", ZERO),
        "D(16)",
        ("W", ZERO),
    ]
    assert {len(data) for _, data in device.accesses} == {4}
    assert running.lost_pages == 0


def test_a_modern_big_endian_guest_sends_little_endian_page_numbers():
    guest = profile("linux-6.1-le-4k", byte_order=BIG)
    device, *_ = handshake(guest)

    assert words(device.buffers("I")[0], LITTLE) == list(range(1024, 1040))


def test_a_channel_write_repeats_the_target_as_it_was_read():
    guest = profile("linux-6.1-le-4k", byte_order=BIG, access=Access.CHANNEL)
    device, *_ = handshake(guest)

    assert ("W", SIXTEEN + SIXTEEN) in device.trace


# --- drivers that are wrong ---------------------------------------------------------


def test_the_endian_bug_takes_a_whole_batch():
    device, running, _ = handshake("linux-3.3-be-4k", discards=True)

    assert kinds(device) == [
        ("R", SIXTEEN),
        "I(256)",
        ("W", BATCH),
        ("R", ZERO),
        "D(256)",
        ("W", ZERO),
        ("R", ZERO),
    ]
    assert len(set(words(device.buffers("I")[0], BIG))) == 256
    assert running.taken_pages == 256
    assert running.lost_pages == 0
    assert running.parked_pages == 0


def test_the_swapped_target_is_exact_for_the_endian_bug():
    swapped = int.from_bytes((4096).to_bytes(4, "little"), "big")
    device, running, host = handshake(
        "linux-3.3-be-4k", targets=[swapped], discards=True
    )

    assert device.trace[-2] == ("W", (4096).to_bytes(4, "little"))
    assert host.discarded_pages == 4096
    assert running.lost_pages == 0


def test_the_wrong_shift_sends_sixteen_pages_under_one_number():
    device, running, _ = handshake("linux-3.3-be-64k")

    assert kinds(device) == [
        ("R", SIXTEEN),
        "I(256)",
        ("W", BATCH),
        ("R", ZERO),
        "D(256)",
        ("W", ZERO),
        ("R", ZERO),
    ]
    numbers = words(device.buffers("I")[0], BIG)
    assert len(set(numbers)) in (16, 17)
    assert max(numbers) < running.kernel.ram.pages // 256
    assert sorted(words(device.buffers("D")[0], BIG)) == sorted(numbers)


def test_deflating_with_the_wrong_shift_frees_what_is_in_use():
    device, running, host = handshake("linux-3.3-be-64k")

    wrong = len(set(words(device.buffers("D")[0], BIG)))
    assert running.lost_pages == wrong * 16
    assert running.kernel.double_frees == 256 - wrong
    # The 16 MiB that were in the balloon never come back, and the host took nothing.
    assert running.leaked_pages == 4096
    assert host.discarded_pages == 0


def test_holding_the_target_spares_a_guest_with_the_wrong_shift():
    hold = int.from_bytes((256).to_bytes(4, "little"), "big")
    device, running, _ = handshake("linux-3.3-be-64k", targets=[16, hold])

    assert device.buffers("D") == []
    assert running.lost_pages == 0
    assert running.parked_pages == 4096
    assert running.leaked_pages == 0


def test_discarding_by_the_wrong_shift_loses_pages_of_the_kernel():
    device, running, _ = handshake("linux-3.3-be-64k", targets=[16, 1], discards=True)

    hit = set(words(device.buffers("I")[0], BIG))
    assert hit <= set(range(64))
    assert running.lost_pages >= len(hit)


def test_the_wrong_shift_alone_looks_right_to_the_2012_patch():
    guest = profile("linux-3.3-be-64k", byte_order=LITTLE)
    device, running, _ = handshake(guest)

    assert kinds(device) == [
        ("R", SIXTEEN),
        "I(16)",
        ("W", SIXTEEN),
        ("R", ZERO),
        "D(16)",
        ("W", ZERO),
        ("R", ZERO),
    ]
    assert len(set(words(device.buffers("I")[0]))) in (1, 2)
    assert running.lost_pages > 0


def test_where_ram_begins_higher_a_wrong_free_kills_the_driver():
    guest = profile("linux-3.3-be-64k", ram_start=0x4000_0000)
    device, running, _ = handshake(guest)

    assert max(words(device.buffers("I")[0], BIG)) < 0x40000
    # 3.0 and later tell first: the buffer is sent, and then it dies.
    assert kinds(device)[-1] == "D(256)"
    assert "not RAM" in running.oops
    device.show(0)
    assert running.run() == 0
    assert running.leaked_pages == 4096


def test_nobody_is_there():
    device, running, _ = handshake("no-driver")

    assert device.wire == []
    assert running.steps == 0
    assert running.parked_pages == 0
