"""Drivers of other systems than Linux: how each works in its own way."""

from __future__ import annotations

import pytest
from scripted import ScriptedDevice, boot, words

from balloon_plugin.events import ByteOrder
from balloon_plugin.guests.traits import Conditions

TARGET = 600


def kinds(device):
    """Return the trace with buffers as the number of their 4-byte words."""
    return [
        f"{what}({len(data) // 4})" if what in "ID" else what
        for what, data in device.trace
    ]


def actuals(device, order="little"):
    return [int.from_bytes(data, order) for what, data in device.trace if what == "W"]


def booted(guest, target=TARGET, conditions=None):
    """Boot a guest and let it work until it waits."""
    device = ScriptedDevice(target)
    running, host = boot(guest, device, conditions)
    running.run(limit=1000)
    return device, running, host


def after(device, running, target):
    """Show another target, and return only what comes of it."""
    device.wire.clear()
    device.show(target)
    running.run(limit=1000)
    return kinds(device)


# --- Windows ------------------------------------------------------------------------


def test_windows_sends_slots_of_eight_bytes_and_as_many_as_fill_a_page():
    device, running, _ = booted("windows-le-4k")

    first, second = device.buffers("I")
    assert (len(first), len(second)) == (4096, (TARGET - 512) * 8)
    assert words(first)[:4] == [1024, 0, 1025, 0]
    assert actuals(device) == [512, TARGET, TARGET]
    assert running.parked_pages == TARGET


def test_the_return_of_its_buffers_wakes_windows_once_more():
    device, *_ = booted("windows-le-4k", 512)

    assert kinds(device) == ["R", "R", "I(1024)", "W", "R", "W"]


def test_windows_frees_what_it_once_took_in_one_batch_and_takes_again():
    device, running, _ = booted("windows-le-4k")

    assert after(device, running, 100) == (
        ["R", "D(176)", "W", "R", "D(1024)", "W", "R", "I(200)", "W", "R", "W"]
    )
    assert actuals(device) == [512, 0, 100, 100]


def test_windows_drops_a_request_that_it_has_no_memory_for():
    device, running, _ = booted("windows-le-4k", conditions=Conditions(first_batch=10))

    assert kinds(device) == ["R", "R", "W"]
    assert running.taken_pages == 0
    assert after(device, running, TARGET)[:3] == ["R", "I(1024)", "W"]


def test_windows_looks_at_its_target_after_each_request_for_statistics():
    device = ScriptedDevice(0, features=1 << 1)
    running, _ = boot("windows-le-4k", device)
    running.run(limit=100)
    device.wire.clear()
    device.return_kept()
    running.run(limit=100)

    assert [what for what, _ in device.trace] == ["S", "R", "W"]


# --- OpenBSD ------------------------------------------------------------------------


def test_openbsd_looks_at_start_and_acts_only_when_interrupted():
    device, running, _ = booted("openbsd-le-4k")
    before = kinds(device)
    trace = after(device, running, TARGET)

    assert before == ["R", "R"]
    assert [what for what in trace if what != "R"] == ["I(256)", "W"] * 2 + [
        "I(88)",
        "W",
    ]
    assert running.parked_pages == TARGET


def test_openbsd_asks_the_device_how_large_its_balloon_is():
    device, running, _ = booted("openbsd-le-4k", 0)
    after(device, running, 16)
    device.space[4:8] = (8).to_bytes(4, "little")

    # It believes that it has 8, and takes 8 more.
    assert [what for what in after(device, running, 16) if what != "R"] == ["I(8)", "W"]
    assert running.parked_pages == 24


def test_openbsd_gives_back_first_what_it_took_first():
    device, running, _ = booted("openbsd-le-4k", 0)
    after(device, running, 32)
    taken = words(device.buffers("I")[0])
    after(device, running, 20)

    assert words(device.buffers("D")[0]) == taken[:12]


def test_openbsd_without_memory_says_nothing_and_does_not_try_again():
    device, running, host = booted("openbsd-le-4k", 0, Conditions(first_batch=10))
    trace = after(device, running, TARGET)
    host.advance(20.0)

    assert set(trace) == {"R"}
    assert running.run(limit=100) == 0
    assert "I(256)" in after(device, running, TARGET)


def test_viomb_on_a_big_endian_machine_writes_actual_the_wrong_way_round():
    device, running, _ = booted("viomb-be-4k", 0)
    after(device, running, 300)

    assert actuals(device, "big") == [256, 300]
    assert words(device.buffers("I")[0], ByteOrder.BIG)[0] == 1024
    assert running.parked_pages == 300


# --- NetBSD -------------------------------------------------------------------------


def test_netbsd_sends_all_of_its_buffer_whatever_is_in_it():
    device, _, host = booted("netbsd-le-4k", 10)
    host.advance(1.0)

    [buffer] = device.buffers("I")
    assert len(words(buffer)) == 256
    assert words(buffer)[:10] == list(range(1024, 1034))
    assert set(words(buffer)[10:]) == {0}


def test_netbsd_sends_numbers_of_earlier_requests_along():
    device, running, host = booted("netbsd-le-4k", 10)
    device.show(4)
    host.advance(1.0)
    running.run(limit=100)

    [given] = device.buffers("D")
    assert words(given)[:6] == list(range(1024, 1030))
    assert words(given)[6:10] == list(range(1030, 1034))
    assert running.parked_pages == 4


def test_netbsd_sleeps_a_second_after_each_batch():
    device, running, host = booted("netbsd-le-4k")
    batches = [(host.now(), len(device.buffers("I")))]
    for _ in range(2):
        host.advance(1.0)
        running.run(limit=100)
        batches.append((host.now(), len(device.buffers("I"))))

    assert batches == [(0.0, 1), (1.0, 2), (2.0, 3)]
    assert running.parked_pages == TARGET


# --- FreeBSD ------------------------------------------------------------------------


def test_freebsd_sends_what_it_has_and_then_sleeps_for_a_second():
    device, running, host = booted(
        "freebsd-le-4k", conditions=Conditions(first_batch=10)
    )

    assert [len(words(data)) for data in device.buffers("I")] == [10]
    assert running.wake_at == 1.0
    assert kinds(device) == ["R", "I(10)", "W", "R"]
    host.advance(1.0)
    running.run(limit=100)
    assert running.parked_pages == TARGET


def test_freebsd_gives_back_first_what_it_took_first():
    device, running, _ = booted("freebsd-le-4k", 32)
    after(device, running, 20)

    taken = range(1024, 1036)
    assert words(device.buffers("D")[0]) == list(taken)


def test_freebsd_sends_native_numbers_with_version_1_too():
    device, *_ = booted("freebsd-v1-be-4k", 16)

    assert words(device.buffers("I")[0], ByteOrder.BIG) == list(range(1024, 1040))


# --- macOS --------------------------------------------------------------------------


def macos(*targets):
    device, running, _ = booted("macos-le-16k", 0)
    return device, running, [after(device, running, target) for target in targets]


def test_macos_takes_four_times_what_it_is_asked_for():
    device, running, [trace] = macos(16)

    # 16 pages of 16 KiB; that is 64 pages too many, less than it has ever taken.
    assert trace == ["R", "I(64)", "R"]
    assert running.parked_pages == 64
    assert actuals(device) == []


@pytest.mark.parametrize(
    ("target", "left", "moved"),
    [
        # 64 - 60 is 4: four pages of 16 KiB go, a quarter of what is in the balloon
        (60, 48, ["D(16)", "I(48)"]),
        (48, 0, ["D(64)", "I(192)"]),
        # more than it has
        (40, 64, []),
    ],
)
def test_macos_gives_back_four_times_that_too_if_it_has_so_much(target, left, moved):
    device = ScriptedDevice(0)
    running, _ = boot("macos-le-16k", device)
    running.run(limit=100)
    after(device, running, 16)
    device.wire.clear()
    device.show(target)
    sizes = []
    for _ in range(200):
        if not running.step():
            break
        sizes.append(running.parked_pages)

    if moved:
        assert left in sizes
        assert [what for what in kinds(device) if what != "R"][:2] == moved
    else:
        assert set(sizes) == {left}


def test_macos_is_not_looking_before_it_is_interrupted():
    device, running, _ = booted("macos-le-16k", 16)

    assert kinds(device) == []
    assert running.parked_pages == 0
