"""Targets that are set while a real guest's driver is not there to read them.

QEMU's generic device ends if it is told of one then; and nobody is to be told of it
later than when the driver is there again.
"""

from __future__ import annotations

import pytest
from direct_qemu import Direct, Monitor
from mortal_daemon import MEBIBYTE, until
from real_guests import Life, find_tools, options_for

from balloon_plugin.boot.qemu import Transport, find_qemu

pytestmark = [pytest.mark.real, pytest.mark.slow]

MEMORY = 192
"""MiB of RAM."""


class Paused(Direct):
    """A QEMU that can be paused."""

    def changed(self, words):
        return (*words, "-qmp", "unix:monitor,server=on,wait=off")


@pytest.fixture(params=[Transport.LEGACY, Transport.PCI], ids=lambda each: each.value)
def guest(request, begin_guest, mortal, tmp_path, require_real):
    """A guest whose driver has emptied its balloon."""
    tools = require_real(find_tools)
    qemu = find_qemu(options_for(Life("arm64le-4k", transport=request.param), tools))
    guest = begin_guest(Paused(qemu, tmp_path), "guest", MEMORY)
    guest.boot()
    guest.load()
    until(lambda: mortal.status["accepted"])
    return guest


def test_one_that_is_set_between_two_drivers_holds(guest, mortal):
    guest.ask(f"rmmod {guest.driver}")

    mortal.inflate(8 * MEBIBYTE)
    guest.ask("device")
    guest.load()

    mortal.reaches(8 * MEBIBYTE)
    assert guest.power_off() == 0


def test_one_that_is_set_while_the_machine_is_paused_holds(guest, mortal, tmp_path):
    with Monitor(tmp_path / "guest" / "monitor") as qemu:
        qemu.execute("stop")
        mortal.inflate(8 * MEBIBYTE)
        # By now it has read what it was sent.
        assert not qemu.execute("query-status")["running"]
        qemu.execute("cont")

    mortal.reaches(8 * MEBIBYTE)
    assert guest.power_off() == 0
