"""Real kernels in QEMU, when their daemon dies, and when QEMU does.

The generic vhost-user device of QEMU 11 cannot connect again: docs/vhost-user.md tells
why. What QEMU does nevertheless is seen here, and that a guest goes on where something
connects again: QEMU itself, with a device that can, and the relay in QEMU's stead.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import struct
from pathlib import Path

import pytest
from console_guest import SOCKET, EndedError
from direct_qemu import Direct, Monitor
from joint import Joint
from mortal_daemon import KEPT, MEBIBYTE, Mortal, die_and_go_on, until
from real_guests import Life, find_tools, options_for

from balloon_plugin.boot.qemu import Transport, find_qemu

pytestmark = [pytest.mark.real, pytest.mark.slow]

DEATHS = 20 if os.environ.get("BALLOON_LONG") == "1" else 4

MEMORY = 192
"""MiB of RAM."""

USED = 100
"""MiB that the guest writes to and frees, so that there is something to give back."""

ABORTS = "vhost_dev_start: Assertion `hdev->vhost_ops' failed"
"""How QEMU 11 ends when a back end comes again, whoever connects to whom."""

PACKED = 1 << 34

LITTLE = Life("arm64le-4k", transport=Transport.PCI)
BIG = Life("arm64be-4k")


@pytest.fixture
def machine_of(require_real):
    """Give a function that returns the QEMU of a life."""
    tools = require_real(find_tools)
    return lambda life: find_qemu(options_for(life, tools))


def settle(guest, mortal):
    """Boot, use memory, hold some, load the driver and wait for its verdict."""
    guest.boot()
    guest.ask(f"alloc {USED}")
    guest.ask("free")
    before = guest.ask(f"alloc {KEPT}")
    assert guest.memory_held > USED << 20
    guest.load()
    until(lambda: mortal.status["accepted"])
    return before


def keeps(guest):
    """Whether the guest still has all that it holds."""
    report = guest.ask("device")
    return (report.kept, report.lost) == (KEPT * MEBIBYTE, 0)


# --- the daemon dies, and something connects again ----------------------------------


@pytest.mark.parametrize(
    ("life", "packed"),
    [(LITTLE, False), (LITTLE, True), (BIG, False)],
    ids=["little-endian, split", "little-endian, packed", "big-endian, legacy"],
)
def test_a_guest_goes_on_when_its_daemon_is_killed(
    begin_guest, machine_of, mortal, relayed, life, packed
):
    relay = relayed(packed=packed)
    guest = begin_guest(machine_of(life), "guest", MEMORY)
    before = settle(guest, mortal)
    assert bool(mortal.status["features"] & PACKED) == packed

    die_and_go_on(mortal, guest, DEATHS)

    assert guest.ask("device").total == before.total
    assert guest.power_off() == 0
    assert relay.end().count("the daemon is there") == DEATHS


# --- the daemon dies, and QEMU is alone with that -----------------------------------


class Listening(Direct):
    """A QEMU that listens, and waits for its back end at the start."""

    def changed(self, words):
        *rest, _, option, device = words
        return (*rest, "socket,id=balloon,path=front,server=on,wait=on", option, device)

    @contextlib.contextmanager
    def joined(self):
        """Let QEMU and the daemon find each other, until QEMU ends."""
        front = self._folder / "guest" / "front"
        until(front.exists)
        joint = Joint(front, self._folder / SOCKET)
        try:
            yield
        finally:
            joint.join()


class Reconnecting(Direct):
    """A QEMU that connects again.

    Its device cannot be made together with the connection, which comes about later, but
    be plugged in then.
    """

    def changed(self, words):
        *rest, connection, option, device = words
        self._name, *properties = device.split(",")
        self._properties = dict(each.split("=") for each in properties)
        return (
            *rest,
            f"{connection},reconnect-ms=100",
            # The guest's kernel finds what is there at its start, and no more.
            *(option, "pcie-root-port,id=plug,power_controller_present=off", "-S"),
            *("-qmp", "unix:monitor,server=on,wait=off"),
        )

    @contextlib.contextmanager
    def joined(self):
        """Let QEMU have its device."""
        monitor = self._folder / "guest" / "monitor"
        until(monitor.exists)
        with Monitor(monitor) as qemu:
            until(lambda: self._connected(qemu))
            values = {
                key: int(text) if text.isdecimal() else text
                for key, text in self._properties.items()
            }
            qemu.execute("device_add", driver=self._name, bus="plug", **values)
            qemu.execute("cont")
        yield

    def _connected(self, qemu):
        (name,) = [
            each["filename"]
            for each in qemu.execute("query-chardev")
            if each["label"] == "balloon"
        ]
        return not name.startswith("disconnected")


def test_a_guest_with_its_driver_lives_on_without_its_daemon(
    begin_guest, machine_of, mortal, tmp_path
):
    guest = begin_guest(Direct(machine_of(LITTLE), tmp_path), "guest", MEMORY)
    settle(guest, mortal)
    mortal.inflate(32 * MEBIBYTE)
    mortal.reaches(32 * MEBIBYTE)

    mortal.kill()

    guest.wait("qemu-system-aarch64: Unexpected end-of-file")
    assert keeps(guest)
    assert guest.power_off() == 0


class AbortedError(Exception):
    """QEMU ended as it is known to."""


@contextlib.contextmanager
def qemu_may_abort(guest):
    try:
        yield
    except EndedError as error:
        assert any(ABORTS in line for line in guest.console), guest.last_words
        raise AbortedError from error


@pytest.mark.xfail(raises=AbortedError, strict=False, reason=f"QEMU 11: {ABORTS}")
@pytest.mark.parametrize("role", [Listening, Reconnecting])
def test_qemu_connects_again(begin_guest, machine_of, mortal, tmp_path, role):
    machine = role(machine_of(LITTLE), tmp_path)
    guest = begin_guest(machine, "guest", MEMORY)
    with machine.joined():
        settle(guest, mortal)
        mortal.inflate(32 * MEBIBYTE)
        mortal.reaches(32 * MEBIBYTE)

        mortal.kill()
        mortal.start()

        with qemu_may_abort(guest):
            # It reports twice a second.
            until(lambda: guest.hear() and mortal.status["driver"])
        die_and_go_on(mortal, guest, DEATHS)
        assert guest.power_off() == 0


# --- the daemon dies, and QEMU connects again ---------------------------------------


def is_for(device):
    """Return what a little-endian driver says of the virtio devices that it is for."""
    return struct.pack("<II", device, 2**32 - 1)


class Disk(Direct):
    """A QEMU that has a disk there, and a guest whose balloon driver takes disks.

    QEMU's disk connects again, and passes on what a balloon needs, but no access to the
    configuration space: it has a copy, and renews it when a change is announced. So a
    policy sees no target read and no actual. The driver is Linux's but for its number.
    """

    def __init__(self, machine, folder, packed):
        super().__init__(machine, folder)
        self._packed = packed

    def changed(self, words):
        *rest, connection, option, _ = words
        disk = "vhost-user-blk-pci,chardev=balloon,num-queues=2"
        return (
            *map(self._with_driver, rest),
            f"{connection},reconnect-ms=20",
            *(option, f"{disk},packed={self._packed}"),
        )

    def _with_driver(self, word):
        if not word.endswith(".initrd.gz"):
            return word
        initrd = gzip.decompress(Path(word).read_bytes())
        assert is_for(5) in initrd
        changed = self._folder / "initrd.gz"
        changed.write_bytes(gzip.compress(initrd.replace(is_for(5), is_for(2))))
        return str(changed)


@pytest.mark.parametrize("packed", ["off", "on"])
def test_qemu_goes_on_with_a_device_that_connects_again(
    begin_guest, machine_of, tmp_path, packed
):
    with contextlib.closing(Mortal(tmp_path, "--policy", "none")) as mortal:
        mortal.size = "ballooned"
        machine = Disk(machine_of(LITTLE), tmp_path, packed)
        guest = begin_guest(machine, "guest", MEMORY)
        before = settle(guest, mortal)
        assert mortal.has_record

        die_and_go_on(mortal, guest, DEATHS)

        assert mortal.has_record
        until(lambda: guest.ask("device").total == before.total)
        assert guest.power_off() == 0


# --- QEMU dies ----------------------------------------------------------------------


def test_the_daemon_serves_the_next_qemu(begin_guest, machine_of, mortal, tmp_path):
    machine = Direct(machine_of(LITTLE), tmp_path)
    guest = begin_guest(machine, "guest", MEMORY)
    settle(guest, mortal)
    mortal.inflate(48 * MEBIBYTE)
    until(lambda: mortal.status["actual"])

    guest.stop()
    until(lambda: not mortal.status["driver"])
    guest = begin_guest(machine, "guest", MEMORY)
    before = settle(guest, mortal)

    # The user's target stays.
    mortal.reaches(48 * MEBIBYTE)
    report = guest.ask("device")
    assert report.inflated - report.deflated == 48 * MEBIBYTE
    assert mortal.status["reclaimed"] == 48 * MEBIBYTE
    assert guest.memory_held <= (MEMORY - 48) << 20
    mortal.inflate(0)
    mortal.reaches(0)
    assert keeps(guest)
    assert guest.ask("device").total == before.total
    assert guest.power_off() == 0
